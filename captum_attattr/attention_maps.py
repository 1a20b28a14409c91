"""The checked arrays of an explanation, as `plot_attention` shows them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from captum_attattr.explanation import Explanation

Floats = npt.NDArray[np.float32]

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


def _array(explanation: Explanation, name: str, shape: tuple[int, ...] | None = None) -> Floats:
    array: Floats = np.asarray(getattr(explanation, name), dtype=np.float32)
    square = array.ndim == 4 and array.shape[2] == array.shape[3] and 0 not in array.shape
    if not (square if shape is None else array.shape == shape):
        raise ValueError(f"{name} must have the shape {shape or '(L, H, T, T)'}, not {array.shape}")
    wrong = np.zeros(1) if name == "error" else ~np.isfinite(array)  # a fixed rule leaves the error NaN
    if wrong.any():
        where = [int(i) for i in np.argwhere(wrong)[0]]
        raise ValueError(f"{name} must be finite, but {name}{where} is {array[tuple(where)]}")
    return array


def checked(explanation: Explanation) -> Maps:
    """The arrays of an explanation.

    Raises:
        TypeError, ValueError: they are not what an explanation has.
    """
    tokens = list(explanation.tokens)
    for token in tokens:
        if not isinstance(token, str):
            raise TypeError(f"tokens must be strings, not {type(token).__name__}: {token!r}")
    attributions = _array(explanation, "attributions")
    layers, _, size, _ = attributions.shape
    if size != len(tokens):
        raise ValueError(f"{len(tokens)} tokens need maps of {len(tokens)} x {len(tokens)}, not {size} x {size}")
    if not math.isfinite(explanation.probability):
        raise ValueError(f"probability must be finite, not {explanation.probability}")
    attention = _array(explanation, "attention", attributions.shape)
    delta, error = (_array(explanation, name, (layers,)) for name in ("delta", "error"))
    difference = _shares(attributions) - _shares(attention)
    return Maps(tokens, attributions, attention, difference, delta, error)


def _shares(maps: Floats) -> Floats:
    """Every head's map divided by its own largest absolute value; a map of zeros stays one."""
    largest = np.abs(maps).max((2, 3), keepdims=True)
    shares: Floats = np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)
    return shares


def chosen(name: str, value: int | None, count: int) -> range:
    """The indices which are meant: all if there is no value."""
    if value is None:
        return range(count)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}: {value!r}")
    if not 0 <= value < count:
        raise ValueError(f"{name} must be from 0 to {count - 1}, not {value}")
    return range(value, value + 1)
