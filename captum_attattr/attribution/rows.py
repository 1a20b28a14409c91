"""The rows of one pass through the model: which example, which layer, which node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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
    """The n rows of one layer in a chunk, and their values; of rows that open all layers, of all layers together."""

    rows: list[int]
    """Their indices in the list of rows that was run."""
    values: Tensor
    """(n, ...) the gradient of F by what the row replaces; of all layers their maps side by side, (n, M)."""


@dataclass
class RowLayout:
    """The order of R rows in a batch: by layer, as the layers run. Rows that open all layers open every layer."""

    joint: bool
    """Whether the rows open all layers."""
    examples: Tensor
    """(R,) the example of every row."""
    nodes: Tensor
    """(R,) the node of every row."""
    listed: list[int]
    """The index of every row in the list that the layout was made of."""
    slices: dict[int, tuple[int, int]]
    """Per layer, the first of the rows that branch there and the one after the last."""

    @classmethod
    def of(cls, rows: Sequence[Row], order: Sequence[int], device: torch.device) -> RowLayout:
        """Put rows in the order in which the layers in `order` run."""
        joint = any(row.layer == ALL for row in rows)
        rank = {layer: i for i, layer in enumerate([*order, ALL])}
        listed = sorted(range(len(rows)), key=lambda i: (rank[rows[i].layer], rows[i].example, rows[i].node))
        counts = Counter(row.layer for row in rows)
        bounds = accumulate((counts[layer] for layer in order), initial=0)
        slices = [(0, len(rows))] * len(order) if joint else pairwise(bounds)
        return cls(
            joint=joint,
            examples=torch.tensor([rows[i].example for i in listed], device=device),
            nodes=torch.tensor([rows[i].node for i in listed], dtype=torch.double, device=device),
            listed=listed,
            slices=dict(zip(order, slices, strict=True)),
        )


@dataclass
class Chunk:
    """The results of one forward and one backward."""

    outputs: Tensor
    """(n,) F of every row, in the order of the list of rows that was run."""
    layers: dict[int, LayerRows] = field(default_factory=dict)
    """By layer; `ALL` alone where the rows open all layers."""
    attention: dict[int, list[Tensor]] = field(default_factory=dict)
    """Per example the attention of every layer, (H, Tq, Tk), in its row at node 1 that opens all layers."""

    @classmethod
    def of(cls, outputs: Tensor, layout: RowLayout) -> Chunk:
        """Put the outputs of a layout's rows in the order of the list that it was made of."""
        in_order = torch.empty_like(outputs.detach())
        in_order[torch.tensor(layout.listed, device=outputs.device)] = outputs.detach()
        return cls(in_order)
