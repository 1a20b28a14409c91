"""Importances as the figures take them: arrays, with names that are safe to show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from captum_attattr.checks import instance, one_of
from captum_attattr.formatting import number
from captum_attattr.heads.importance import HeadImportance
from captum_attattr.plots.canvas.labels import CHARACTER_WIDTH, name_labels

Floats = npt.NDArray[np.float64]

_WANTED = "a HeadImportance, or a dict or list of them"


SCALES = {"linear": "scores", "rank": "ranks"}
"""What a switch calls the scales of a figure."""


def scale_index(scale: str) -> int:
    """Return the index of a scale that a user gave.

    Raises:
        ValueError: there is no such scale.
    """
    scales = list(SCALES)
    return scales.index(one_of("scale", scale, scales))


class Scores(NamedTuple):
    """The arrays of one importance. L layers, H heads."""

    name: str
    scores: Floats  # (L, H), NaN where there is no head
    stderr: Floats  # (L, H), NaN if unknown
    examples: int
    labels: list[str]

    @classmethod
    def of(cls, importance: HeadImportance, name: str | None = None) -> Scores:
        """Take the arrays of an importance; `name` is used instead of its method.

        Raises:
            TypeError: the name is no string.
        """
        name = instance("the name of an importance", importance.name if name is None else name, str, "a string")
        scores, stderr = (part.double().numpy(force=True) for part in (importance.scores, importance.stderr))
        return cls(name, scores, stderr, importance.count, importance.labels)

    @property
    def signed(self) -> bool:
        """Whether there are scores below zero."""
        return bool(np.nanmin(self.scores) < 0)

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """(L, H), where there is no head."""
        return np.isnan(self.scores)


def scores_of(importance: Any) -> list[Scores]:
    """Return the arrays of an importance, or of several of the same layers and heads.

    Args:
        importance: what `plot_heads` takes.

    Raises:
        TypeError, ValueError: none, or some that do not go together.
    """
    if isinstance(importance, Mapping):
        pairs: list[tuple[Any, Any]] = list(importance.items())
    elif isinstance(importance, Sequence) and not isinstance(importance, str):
        pairs = [(None, each) for each in importance]
    else:
        pairs = [(None, importance)]
    if not pairs:
        raise ValueError(f"importance must be {_WANTED}; this {type(importance).__name__} is empty")
    every = [Scores.of(instance("importance", each, HeadImportance, _WANTED), name) for name, each in pairs]
    first = every[0]
    for i, each in enumerate(every):
        if each.scores.shape != first.scores.shape:
            shapes = f"{first.name} has {first.scores.shape}, {each.name} {each.scores.shape}"
            raise ValueError(f"importances of one map must have the same layers and heads: {shapes}")
        if each.name in [other.name for other in every[:i]]:
            raise ValueError(f"two importances are called {each.name!r}: give a dict {{name: importance}} to tell them")
    return labelled(every)


def labelled(every: list[Scores]) -> list[Scores]:
    """Return the same with their names as plotly may show them in one figure."""
    labels = name_labels([each.name for each in every])
    return [each._replace(name=label) for each, label in zip(every, labels, strict=True)]


def with_error(score: float, stderr: float) -> str:
    """Return a score with its standard error, if that is known."""
    return number(score) + (f" ± {number(stderr)}" if math.isfinite(stderr) else "")


def layer_means(scores: Floats) -> Floats:
    """Return (L,) the mean over the heads that are there; NaN for a layer without heads."""
    count = (~np.isnan(scores)).sum(1)
    return np.where(count, np.nansum(scores, axis=1) / np.maximum(count, 1), np.nan)


def fits(characters: int, font: int, cell: tuple[int, int]) -> bool:
    """Return whether so many characters of a font's size have room in a cell of a width and a height in pixels."""
    return characters * font * CHARACTER_WIDTH / 11 + 4 <= cell[0] and font + 3 <= cell[1]


class Digits(NamedTuple):
    """How numbers are written in the cells: in units of 10^power, with as many digits as there is room for."""

    power: int
    decimals: int | None
    """None if there is no room for a number"""
    font: int

    @classmethod
    def of(cls, scores: Floats, cell: tuple[int, int]) -> Digits:
        """Choose the unit and the digits for cells of a width and a height in pixels."""
        largest = float(np.nanmax(np.abs(scores)))
        exponent = math.floor(math.log10(largest)) if largest else 0
        power = 0 if -2 <= exponent <= 3 else exponent
        font = min(12, max(9, cell[1] - 5))
        for digits in (3, 2):
            decimals = max(0, digits - 1 - exponent + power)
            width = max(len(cls(power, decimals, font).text(value)) for value in scores.flat)
            if fits(width, font, cell):
                return cls(power, decimals, font)
        return cls(power, None, font)

    def text(self, value: float) -> str:
        """Return a number as it is written; nothing for NaN, or where there is no room."""
        if math.isnan(value) or self.decimals is None:
            return ""
        return "0" if value == 0 else f"{value / 10.0**self.power:.{self.decimals}f}".replace("-", "−")

    @property
    def unit(self) -> str:
        """The unit in words; nothing if it is 1."""
        return f"numbers in units of 10<sup>{self.power}</sup>".replace("-", "−") if self.power else ""


def importance_shares(scores: Floats) -> Floats:
    """Return (L, H) the share of the other heads that are less important; equal scores have the middle of theirs."""
    from scipy.stats import rankdata  # takes long to import

    below = np.asarray(rankdata(scores, nan_policy="omit"), np.float64).reshape(scores.shape) - 1
    others = int(np.count_nonzero(~np.isnan(scores))) - 1
    return below / max(others, 1)


def ranks(scores: Floats) -> list[list[str]]:
    """Return "rank 3 of 144" for every head; 1 is the largest score, and equal scores share their ranks."""
    present = scores[~np.isnan(scores)]

    def text(score: float) -> str:
        if math.isnan(score):
            return ""
        first, last = int((present > score).sum()) + 1, int((present >= score).sum())
        ranks = f"rank {first}" if first == last else f"ranks {first} to {last}, equal scores,"
        return f"{ranks} of {len(present)}"

    return [[text(float(score)) for score in row] for row in scores]
