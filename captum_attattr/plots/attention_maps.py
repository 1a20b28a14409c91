"""The arrays of an explanation, as `plot_attention` shows them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from captum_attattr.checks import index
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import readable

Floats = npt.NDArray[np.float32]

VIEWS = ("attribution", "attention", "difference")


class Maps(NamedTuple):
    """The arrays of one explanation. L layers, H heads, T tokens."""

    tokens: list[str]
    attributions: Floats  # (L, H, T, T)
    attention: Floats  # (L, H, T, T)
    difference: Floats  # (L, H, T, T)
    delta: Floats  # (L,)
    error: Floats  # (L,)

    @classmethod
    def of(cls, explanation: Explanation) -> Maps:
        """Take the arrays of an explanation, and compute the difference."""
        attributions, attention, delta, error = (
            part.float().numpy(force=True)
            for part in (explanation.attributions, explanation.attention, explanation.delta, explanation.error)
        )
        difference = _relative(attributions) - _relative(attention)
        return cls(readable(explanation.tokens), attributions, attention, difference, delta, error)

    @property
    def views(self) -> dict[str, Floats]:
        """The maps of each view."""
        return dict(zip(VIEWS, (self.attributions, self.attention, self.difference), strict=True))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, heads and tokens."""
        layers, heads, tokens = self.attributions.shape[:3]
        return layers, heads, tokens


def _relative(maps: Floats) -> Floats:
    """Divide every head's map by its largest absolute value; a map of zeros stays one."""
    largest = np.abs(maps).max((2, 3), keepdims=True)
    relative: Floats = np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)
    return relative


def indices(name: str, value: int | None, count: int) -> range:
    """Return the index that a user gave, checked, as a range; all indices if it is None."""
    if value is None:
        return range(count)
    position = index(name, value, count)
    return range(position, position + 1)
