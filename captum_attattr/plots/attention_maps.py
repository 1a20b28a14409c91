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
from captum_attattr.plots.canvas.codes import Codes, signed_codes, unsigned_codes
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
        difference = beyond(signed_codes(attributions), unsigned_codes(attention))
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


def beyond(attributions: Codes, attention: Codes) -> Floats:
    """Return how much larger every head's attributions are than if they lay in the order of its attention (L, H, T, T).

    An entry's size, less the size that has the rank among the sizes which the entry's attention has among the
    attention, divided by the largest size. It is computed from the codes of which a page has it: entries of one code of
    attention share the mean of theirs.
    """
    sizes = (attributions.codes.astype(np.float64) / attributions.levels) ** 2
    expected = np.empty_like(sizes)
    for head in np.ndindex(sizes.shape[:2]):
        sums = np.concatenate([[0.0], np.cumsum(np.sort(sizes[head], axis=None))])
        counts = np.bincount(attention.codes[head].ravel(), minlength=attention.levels + 1)
        last = np.cumsum(counts)
        means = (sums[last] - sums[last - counts]) / np.maximum(counts, 1)
        expected[head] = means[attention.codes[head]]
    return np.round(sizes - expected, 6).astype(np.float32)  # what remains of zero is noise


def indices(name: str, value: int | None, numbers: Sequence[int]) -> range:
    """Return where the number that a user gave stands among all, checked, as a range; the whole range if it is None."""
    if value is None:
        return range(len(numbers))
    position = row_of(name, value, numbers)
    return range(position, position + 1)
