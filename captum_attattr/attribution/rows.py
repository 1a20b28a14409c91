"""The rows of one pass through the model: which example, which layer, which node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class Row(NamedTuple):
    """One run of one example with one layer's attention scaled."""

    example: int
    layer: int
    """Its index among the layers that are attributed."""
    node: float
    """a in B + a (A - B)."""


@dataclass
class LayerRows:
    """The n rows of one layer in a chunk, and their gradients."""

    rows: list[int]
    """Their indices in the list of rows that was run."""
    attention: Tensor
    """(n, H, Tq, Tk), A of each row's example."""
    difference: Tensor
    """(n, H, Tq, Tk), A - B of each row's example."""
    gradient: Tensor
    """(n, H, Tq, Tk), dF/dA at the row's node."""


@dataclass
class Chunk:
    """The results of one forward and one backward."""

    values: Tensor
    """(n,) F of every row, in the order of the list of rows that was run."""
    clean: dict[int, Tensor]
    """F of each example with its attention unchanged."""
    layers: dict[int, LayerRows]


@dataclass
class JointChunk:
    """What one forward and backward give on the joint path, where a row opens all layers at its node."""

    values: Tensor
    """(n,) F of every row."""
    maps: Tensor
    """(n, M) (A - B) dF/dM of all layers in their order, flattened: M entries of L x H x Tq x Tk."""
    attention: dict[int, list[Tensor]]
    """By row, for rows at node 1: A of every layer, (H, Tq, Tk) each."""


@dataclass
class RowLayout:
    """The order of R rows in a batch: the clean rows of their examples first, then by layer as the layers run."""

    clean: int
    """How many clean rows there are."""
    examples: Tensor
    """(R,) the example of every row."""
    parents: Tensor
    """(R,) the clean row of every row's example."""
    nodes: Tensor
    """(R,) the node of every row, 0 for clean rows."""
    listed: list[int]
    """The index of every row after the clean ones in the list that the layout was made of."""
    slices: dict[int, tuple[int, int]]
    """Per layer, the first of the rows that branch there and the one after the last."""

    @classmethod
    def of(cls, rows: Sequence[Row], order: Sequence[int], device: torch.device) -> RowLayout:
        """Put rows in the order in which the layers in `order` run, clean rows first."""
        rank = {layer: i for i, layer in enumerate(order)}
        listed = sorted(range(len(rows)), key=lambda i: (rank[rows[i].layer], rows[i].example, rows[i].node))
        clean = sorted({row.example for row in rows})
        clean_row = {example: i for i, example in enumerate(clean)}
        examples = clean + [rows[i].example for i in listed]
        nodes = [0.0] * len(clean) + [rows[i].node for i in listed]
        counts = Counter(row.layer for row in rows)
        bounds = accumulate((counts[layer] for layer in order), initial=len(clean))
        return cls(
            clean=len(clean),
            examples=torch.tensor(examples, device=device),
            parents=torch.tensor([clean_row[example] for example in examples], device=device),
            nodes=torch.tensor(nodes, dtype=torch.double, device=device),
            listed=listed,
            slices=dict(zip(order, pairwise(bounds), strict=True)),
        )
