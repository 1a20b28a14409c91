"""Importances as the figures take them: checked, with names that are safe to show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from captum_attattr.formatting import number
from captum_attattr.plots.canvas.labels import named

if TYPE_CHECKING:
    from captum_attattr.heads.importance import HeadImportance

Floats = npt.NDArray[np.float64]


class Scores(NamedTuple):
    """The checked arrays of one importance."""

    name: str
    """as plotly may show it"""
    scores: Floats  # (L, H), NaN where there is no head
    stderr: Floats  # (L, H), NaN if unknown
    examples: int
    labels: list[str]

    @property
    def signed(self) -> bool:
        """Whether there are scores below zero."""
        return bool(np.nanmin(self.scores) < 0)

    @property
    def gone(self) -> npt.NDArray[np.bool_]:
        """(L, H), where there is no head."""
        return np.isnan(self.scores)


def checked(importance: HeadImportance, what: str, name: str | None = None) -> Scores:
    """One importance; `what` begins the message for everything else, `name` is used instead of its own.

    Raises:
        TypeError, ValueError: no importance, or none that can be drawn.
    """
    for attribute in ("scores", "stderr", "count", "labels"):
        if not hasattr(importance, attribute):
            raise TypeError(f"{what}, not {type(importance).__name__}")
    name = importance.name if name is None else name
    if not isinstance(name, str):
        raise TypeError(f"the name of an importance must be a string, not {type(name).__name__}: {name!r}")
    scores, stderr = (np.asarray(array, dtype=np.float64) for array in (importance.scores, importance.stderr))
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"scores of {name!r} must have the shape (L, H), not {scores.shape}")
    if stderr.shape != scores.shape:
        raise ValueError(f"stderr of {name!r} must have the shape {scores.shape} of its scores, not {stderr.shape}")
    if np.isinf(scores).any():
        layer, head = (int(i) for i in np.argwhere(np.isinf(scores))[0])
        value = scores[layer, head]
        raise ValueError(f"scores of {name!r} must be finite, or NaN for no head, but [{layer}, {head}] is {value}")
    if np.isnan(scores).all():
        raise ValueError(f"{name!r} has no finite score: all of its {scores.size} heads are NaN")
    return Scores(named(name), scores, stderr, int(importance.count), [str(label) for label in importance.labels])


def all_checked(importance: Any) -> list[Scores]:
    """All importances of a map.

    Raises:
        TypeError, ValueError: none, or some that do not go together.
    """
    what = "importance must be a HeadImportance, or a dict or list of them"
    if isinstance(importance, Mapping):
        pairs: list[tuple[Any, Any]] = list(importance.items())
    elif isinstance(importance, Sequence) and not isinstance(importance, str):
        pairs = [(None, each) for each in importance]
    else:
        pairs = [(None, importance)]
    if not pairs:
        raise ValueError(f"{what}; this {type(importance).__name__} is empty")
    found = [checked(each, what, name) for name, each in pairs]
    first = found[0]
    for i, each in enumerate(found):
        if each.scores.shape != first.scores.shape:
            shapes = f"{first.name} has {first.scores.shape}, {each.name} {each.scores.shape}"
            raise ValueError(f"importances of one map must have the same layers and heads: {shapes}")
        if each.name in [other.name for other in found[:i]]:
            name = each.name.strip("\u2068\u2069")  # which keep a name's direction of writing in the figure
            raise ValueError(f"two importances are called {name!r}: give a dict {{name: importance}} to tell them")
    return found


def value(score: float, stderr: float) -> str:
    """A score with its standard error, if that is known."""
    return number(score) + (f" ± {number(stderr)}" if math.isfinite(stderr) else "")
