"""The rows of one pass through the model: which example, which layer, which node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Row(NamedTuple):
    """One run of one example with one layer's attention scaled."""

    example: int
    layer: int
    """Position in the layer list."""
    node: float
    """a in B + a (A - B)."""


@dataclass
class LayerRows:
    """What a chunk gives for one layer: its n rows and their gradients."""

    rows: list[int]
    """Their numbers in the list of rows that was run."""
    attention: Tensor
    """(n, H, Tq, Tk), A of each row's example."""
    difference: Tensor
    """(n, H, Tq, Tk), A - B of each row's example."""
    gradient: Tensor
    """(n, H, Tq, Tk), dF/dA at the row's node."""


@dataclass
class Chunk:
    """What one forward and backward give."""

    values: Tensor
    """(n,) F of every row, in the order that was asked for."""
    clean: dict[int, Tensor]
    """F of each example with its own attention."""
    layers: dict[int, LayerRows]


@dataclass
class RowLayout:
    """How rows lie in the batch: the clean rows of their examples first, then by layer as layers run."""

    clean: int
    examples: Tensor
    """(R,) the example of every row."""
    parents: Tensor
    """(R,) the clean row of every row's example."""
    nodes: Tensor
    """(R,)"""
    numbers: list[int]
    """(R,) each row's place in the list that was asked for; -1 for clean rows."""
    slices: dict[int, tuple[int, int]]
    """Per layer, the rows that branch there."""

    @classmethod
    def of(cls, rows: Sequence[Row], order: Sequence[int], device: torch.device) -> RowLayout:
        """Put rows in the order in which the layers in `order` run, clean rows first."""
        rank = {layer: i for i, layer in enumerate(order)}
        numbers = sorted(range(len(rows)), key=lambda n: (rank[rows[n].layer], rows[n].example, rows[n].node))
        clean = sorted({row.example for row in rows})
        place = {example: i for i, example in enumerate(clean)}
        ordered = [rows[n] for n in numbers]
        slices, start = {}, len(clean)
        for layer in order:
            stop = start + sum(row.layer == layer for row in ordered)
            slices[layer] = (start, stop)
            start = stop

        def tensor(head: list[Any], tail: list[Any], dtype: torch.dtype = torch.long) -> Tensor:
            return torch.tensor(head + tail, dtype=dtype, device=device)

        return cls(
            clean=len(clean),
            examples=tensor(clean, [row.example for row in ordered]),
            parents=tensor(list(range(len(clean))), [place[row.example] for row in ordered]),
            nodes=tensor([0.0] * len(clean), [row.node for row in ordered], torch.double),
            numbers=[-1] * len(clean) + numbers,
            slices=slices,
        )
