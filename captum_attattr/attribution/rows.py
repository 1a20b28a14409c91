"""The rows of one pass through the model: which example, which layer, which node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

ALL = -1
"""The layer of a row that opens all layers at its node: the joint path. Such rows are not mixed with others."""


class Row(NamedTuple):
    """One run of one example with one layer's attention scaled, or that of all layers."""

    example: int
    layer: int
    """Its index among the layers that are attributed, or `ALL`."""
    node: float
    """a in B + a (A - B)."""


@dataclass
class LayerRows:
    """The n rows of one layer in a chunk, and their gradients; of all layers their entries side by side, (n, M)."""

    rows: list[int]
    """Their indices in the list of rows that was run."""
    attention: Tensor
    """(n, H, Tq, Tk), A of each row's example; of all layers, A as the row itself computes it."""
    difference: Tensor
    """(n, H, Tq, Tk), A - B, of the same A."""
    gradient: Tensor
    """(n, H, Tq, Tk), dF/dA at the row's node."""


@dataclass
class Chunk:
    """The results of one forward and one backward."""

    values: Tensor
    """(n,) F of every row, in the order of the list of rows that was run."""
    clean: dict[int, Tensor]
    """F of each example with its attention unchanged; of rows that open all layers, of those at node 1."""
    layers: dict[int, LayerRows]
    """By layer; `ALL` alone where the rows open all layers."""


@dataclass
class RowLayout:
    """The order of R rows in a batch: the clean rows of their examples first, then by layer as the layers run.

    Rows that open all layers need no clean rows, and every layer replaces them all.
    """

    joint: bool
    """Whether the rows open all layers."""
    clean: int
    """How many clean rows there are."""
    examples: Tensor
    """(R,) the example of every row."""
    parents: Tensor
    """(R,) the row that every row copies below its layer: the clean row of its example, or the row itself."""
    nodes: Tensor
    """(R,) the node of every row, 0 for clean rows."""
    listed: list[int]
    """The index of every row after the clean ones in the list that the layout was made of."""
    slices: dict[int, tuple[int, int]]
    """Per layer, the first of the rows that branch there and the one after the last."""

    @classmethod
    def of(cls, rows: Sequence[Row], order: Sequence[int], device: torch.device) -> RowLayout:
        """Put rows in the order in which the layers in `order` run, clean rows first."""
        joint = any(row.layer == ALL for row in rows)
        rank = {layer: i for i, layer in enumerate([*order, ALL])}
        listed = sorted(range(len(rows)), key=lambda i: (rank[rows[i].layer], rows[i].example, rows[i].node))
        clean = [] if joint else sorted({row.example for row in rows})
        clean_row = {example: i for i, example in enumerate(clean)}
        examples = clean + [rows[i].example for i in listed]
        nodes = [0.0] * len(clean) + [rows[i].node for i in listed]
        parents = range(len(rows)) if joint else [clean_row[example] for example in examples]
        counts = Counter(row.layer for row in rows)
        bounds = accumulate((counts[layer] for layer in order), initial=len(clean))
        slices = [(0, len(rows))] * len(order) if joint else pairwise(bounds)
        return cls(
            joint=joint,
            clean=len(clean),
            examples=torch.tensor(examples, device=device),
            parents=torch.tensor(parents, device=device),
            nodes=torch.tensor(nodes, dtype=torch.double, device=device),
            listed=listed,
            slices=dict(zip(order, slices, strict=True)),
        )
