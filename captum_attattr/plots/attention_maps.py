"""The arrays of an explanation, as `plot_attention` shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from captum_attattr.checks import row_of
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import readable
from captum_attattr.plots.canvas.token_columns import second_text

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
    layers: list[int]  # their own numbers
    kept: bool  # whether the attention is; else there are zeros
    second: int | None  # where the second text of a pair begins

    @classmethod
    def of(cls, explanation: Explanation) -> Maps:
        """Take the arrays of an explanation, and compute the difference."""
        kept = explanation.attention
        whole = torch.zeros_like(explanation.attributions) if kept is None else kept
        attributions, attention, delta, error = (
            part.float().numpy(force=True)
            for part in (explanation.attributions, whole, explanation.delta, explanation.error)
        )
        difference = _relative(attributions) - _relative(attention)
        tokens, layers = readable(explanation.tokens, explanation.scheme), list(explanation.layers)
        second = second_text(explanation.segments)
        return cls(tokens, attributions, attention, difference, delta, error, layers, kept is not None, second)

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


def indices(name: str, value: int | None, numbers: Sequence[int]) -> range:
    """Return where the number that a user gave stands among all, checked, as a range; the whole range if it is None."""
    if value is None:
        return range(len(numbers))
    position = row_of(name, value, numbers)
    return range(position, position + 1)
