"""The checked arrays of an explanation, as `plot_attention` shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from captum_attattr.checks import index
from captum_attattr.explanations.parts import Floats, both_maps_of, probability_of, tokens_of, values_of
from captum_attattr.explanations.words import readable

if TYPE_CHECKING:
    from captum_attattr.explanations.explanation import Explanation

VIEWS = ("attribution", "attention", "difference")


class Maps(NamedTuple):
    """The checked arrays of one explanation."""

    tokens: list[str]
    attributions: Floats  # (L, H, T, T)
    attention: Floats  # (L, H, T, T)
    difference: Floats  # (L, H, T, T)
    delta: Floats  # (L,)
    error: Floats  # (L,)

    @property
    def views(self) -> dict[str, Floats]:
        """The maps of each view."""
        return dict(zip(VIEWS, (self.attributions, self.attention, self.difference), strict=True))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, heads and tokens."""
        layers, heads, tokens = self.attributions.shape[:3]
        return layers, heads, tokens


def checked(explanation: Explanation) -> Maps:
    """The arrays of an explanation.

    Raises:
        TypeError, ValueError: they are not what an explanation has.
    """
    tokens = tokens_of(
        explanation, "attributions", "attention", "delta", "error", "probability", "target", "label", "text"
    )
    attributions, attention = both_maps_of(explanation, len(tokens))
    probability_of(explanation)
    layers = len(attributions)
    delta = values_of(explanation, "delta", layers)
    error = values_of(explanation, "error", layers, unknown=True)  # a fixed rule leaves the error NaN
    return Maps(readable(tokens), attributions, attention, _shares(attributions) - _shares(attention), delta, error)


def _shares(maps: Floats) -> Floats:
    """Every head's map divided by its own largest absolute value; a map of zeros stays one."""
    largest = np.abs(maps).max((2, 3), keepdims=True)
    shares: Floats = np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)
    return shares


def chosen(name: str, value: int | None, count: int) -> range:
    """The indices which are meant: all if there is no value."""
    if value is None:
        return range(count)
    place = index(name, value, count)
    return range(place, place + 1)
