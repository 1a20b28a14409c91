"""The interactions of an explanation as edges: which of them a view selects, how many are drawn, how much they are."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from captum_attattr.checks import row_of
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import readable

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.uint32]
Sign = Literal["both", "positive", "negative"]
Segment = Literal["all", "first", "second", "across"]


class Flow(NamedTuple):
    """The arrays of one explanation, and their sums over heads. L layers, H heads, T tokens."""

    tokens: list[str]
    by_head: Floats  # (L, H, T, T)
    sums: Floats  # (L, T, T)
    special: npt.NDArray[np.uint8]  # (T,)
    segments: npt.NDArray[np.uint8]  # (T,)
    layers: list[int]  # (L,) their own numbers

    @classmethod
    def of(cls, explanation: Explanation) -> Flow:
        """Take the arrays of an explanation.

        Raises:
            ValueError: it has no score but 0.
        """
        by_head: Floats = explanation.attributions.float().numpy(force=True)
        if not by_head.any():
            raise ValueError("attributions are all 0: there is no edge to draw")
        special, segments = (np.array(part, np.uint8) for part in (explanation.special, explanation.segments))
        sums = by_head.sum(1, dtype=np.float64).astype(np.float32)
        return cls(
            readable(explanation.tokens, explanation.scheme), by_head, sums, special, segments, list(explanation.layers)
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, heads and tokens."""
        layers, heads, size = self.by_head.shape[:3]
        return layers, heads, size


class View(NamedTuple):
    """Which edges are selected."""

    layer: int | None
    """its row among the explanation's; None for all layers"""
    head: int | None
    """None for the sum over heads"""
    sign: str
    special: bool
    segment: str


class Edges(NamedTuple):
    """Edges by falling |score|."""

    indices: Indices  # (layer * T + query) * T + key
    score: Floats

    def parts(self, size: int) -> tuple[Indices, Indices, Indices]:
        """Return layer, query and key of each edge; `size` is the number of tokens."""
        return self.indices // size**2, self.indices // size % size, self.indices % size


def checked_view(flow: Flow, layer: Any, head: Any, sign: Any, special: Any, segment: Any) -> View:
    """Return the view that a user asked for.

    Raises:
        TypeError, ValueError: there is no such layer, head, sign or segment.
    """
    heads = flow.shape[1]
    for name, value, allowed in (("sign", sign, get_args(Sign)), ("segment", segment, get_args(Segment))):
        if value not in allowed:
            raise ValueError(f"{name} must be {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}, not {value!r}")
    if not isinstance(special, bool):
        raise TypeError(f"special_tokens must be True or False, not {type(special).__name__}: {special!r}")
    if segment in ("second", "across") and not flow.segments.any():
        raise ValueError(f"segment={segment!r} needs a pair of texts; this explanation has one: use 'all'")
    layer, head = (
        None if value is None else row_of(name, value, numbers)
        for name, value, numbers in (("layer", layer, flow.layers), ("head", head, range(heads)))
    )
    return View(layer, head, sign, special, segment)


def by_strength(scores: Floats) -> Edges:
    """Return all interactions whose score is not 0, by falling |score| and then by index."""
    flat = scores.ravel()
    order = np.argsort(-np.abs(flat), kind="stable")[: np.count_nonzero(flat)].astype(np.uint32)
    return Edges(order, flat[order])


def selected(flow: Flow, edges: Edges, view: View) -> Edges:
    """Return the edges that a view selects; `edges` are all edges of its head, or of the sum over heads."""
    layer, query, key = edges.parts(flow.shape[2])
    kept = np.ones(len(edges.indices), dtype=bool)
    if view.layer is not None:
        kept &= layer == view.layer
    if view.sign != "both":
        kept &= (edges.score > 0) == (view.sign == "positive")
    if not view.special:
        kept &= (flow.special[query] | flow.special[key]) == 0
    if view.segment == "across":
        kept &= flow.segments[query] != flow.segments[key]
    elif view.segment != "all":
        wanted = ("first", "second").index(view.segment)
        kept &= (flow.segments[query] == wanted) & (flow.segments[key] == wanted)
    return Edges(edges.indices[kept], edges.score[kept])


def cut(edges: Edges, share: float, most: int, sign: str) -> int:
    """Return how many edges carry `share` of their positive (or else negative) attribution, at most `most`."""
    if share == 1:  # edges of the other sign too
        return min(most, len(edges.score))
    counts = edges.score < 0 if sign == "negative" or not (edges.score > 0).any() else edges.score > 0
    mass = np.cumsum(np.where(counts, np.abs(edges.score), 0), dtype=np.float64)
    return min(int(np.searchsorted(mass, share * mass[-1] * (1 - 1e-9))) + 1, most, len(edges.score))


def summary(shown: Edges, whole: Edges, view: View) -> str:
    """Return how many edges a picture has, and how much of the attribution they are. flow.js tells the same."""
    parts = []
    for sign, name in ((1, "positive"), (-1, "negative")):
        mass, of = (float(np.clip(sign * each.score, 0, None).sum(dtype=np.float64)) for each in (shown, whole))
        if of and view.sign in ("both", name):
            parts.append(f"{100 * mass / of:.0f} % of the {name}")
    weakest = f"; |score| from {abs(float(shown.score[-1])):.2g}"
    return f"{len(shown.indices):,} of {len(whole.indices):,} edges = {' and '.join(parts)} attribution{weakest}"
