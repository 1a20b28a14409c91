"""Which edges a row of the model keeps: single ones removed, or the top of a ranking kept or removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.explanations.explanation import Explanation

KEPT = -1
"""The rank of a unit that is never removed."""


class Gates(Protocol):
    """What one row keeps, of L layers."""

    @property
    def layers(self) -> Sequence[int]:
        """The layers (by index in the maps) in which something is removed, rising."""

    def open(self, layer: int) -> Tensor:
        """Return which edges of a layer stay, booleans that broadcast to (H, T, T)."""


class Ranking:
    """Units in the order of their scores: the highest first, equal ones by index.

    Args:
        scores: (L, H, T, T), with 1 where a unit is everything along that dimension: (L, H, 1, 1) are heads,
            (1, 1, 1, T) the tokens that are read.
        depth: L, how many layers there are.
        kept: booleans that broadcast to the scores, of units that are never removed and are not ranked.

    Attributes:
        units: how many are ranked.
    """

    def __init__(self, scores: Tensor, depth: int, kept: Tensor | None = None) -> None:
        flat = scores.double().flatten()
        if kept is not None:
            flat = flat.masked_fill(kept.expand_as(scores).flatten(), -torch.inf)
        order = flat.argsort(descending=True, stable=True)
        ranks = torch.empty_like(order, dtype=torch.int32)
        ranks[order] = torch.arange(len(order), dtype=torch.int32)
        ranks[flat == -torch.inf] = KEPT
        self.units = int((flat != -torch.inf).sum())
        self.ranks = ranks.view_as(scores)
        by_layer = self.ranks.flatten(1).expand(depth, -1)
        # Of each layer the first and the last unit that can be removed.
        self.first = by_layer.where(by_layer != KEPT, self.units).amin(1).tolist()
        self.last = by_layer.amax(1).tolist()

    def of_layer(self, layer: int) -> Tensor:
        """Return the ranks of a layer's units."""
        return self.ranks[layer if len(self.ranks) > 1 else 0]


@dataclass(frozen=True)
class Top:
    """The top units of a ranking, kept alone or removed."""

    ranking: Ranking
    count: int
    keep: bool

    @property
    def layers(self) -> Sequence[int]:
        """See `Gates`."""
        ranking = self.ranking
        if self.keep:
            return [layer for layer, last in enumerate(ranking.last) if last >= self.count]
        return [layer for layer, first in enumerate(ranking.first) if first < min(self.count, ranking.units)]

    def open(self, layer: int) -> Tensor:
        """See `Gates`."""
        ranks = self.ranking.of_layer(layer)
        return ranks < self.count if self.keep else (ranks >= self.count) | (ranks == KEPT)


@dataclass(frozen=True)
class Single:
    """One unit removed: an edge (layer, head, query, key), or with None for all along a dimension a head or a token."""

    depth: int
    """L"""
    shape: tuple[int, int, int]
    """(H, T, T)"""
    layer: int | None = None
    head: int | None = None
    query: int | None = None
    key: int | None = None

    @property
    def layers(self) -> Sequence[int]:
        """See `Gates`."""
        return range(self.depth) if self.layer is None else [self.layer]

    def open(self, layer: int) -> Tensor:
        """See `Gates`."""
        gates = torch.ones(self.shape, dtype=torch.bool)
        index: Any = tuple(slice(None) if part is None else part for part in (self.head, self.query, self.key))
        gates[index] = False
        return gates


def unit_scores(explanation: Explanation, unit: str) -> Tensor:
    """Return an explanation's score of each unit, in the form of `Ranking`.

    Raises:
        ValueError: the attribution does not tell these units apart.
    """
    maps = explanation.attributions.double()
    if unit == "token":
        return explanation.token_scores().double()[None, None, None, :]
    if unit == "layer_edge":
        if not ATTRIBUTIONS[explanation.attribution].layers:
            raise ValueError(f"unit='layer_edge': {explanation.attribution!r} puts layers together; use unit='token'")
        return maps.sum(1, keepdim=True)
    explanation.check_heads(f"unit={unit!r}")
    return maps.sum((2, 3), keepdim=True) if unit == "head" else maps
