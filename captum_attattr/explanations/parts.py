"""The parts of an explanation, checked before anything is drawn or grown from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_attattr.formatting import counted

Floats = npt.NDArray[np.float32]


def tokens_of(explanation: Any, *names: str) -> list[str]:
    """The tokens of an explanation.

    Args:
        explanation: what the user gave.
        names: what it must have besides.

    Raises:
        TypeError: it is no explanation, or a token is not a string.
    """
    for name in ("tokens", *names):
        if not hasattr(explanation, name):
            raise TypeError(f"explanation must be an Explanation, not {type(explanation).__name__}: it has no {name}")
    tokens = list(explanation.tokens)
    for token in tokens:
        if not isinstance(token, str):
            raise TypeError(f"tokens must be strings, not {type(token).__name__}: {token!r}")
    return tokens


def maps_of(explanation: Any, name: str, size: int) -> Floats:
    """Maps (L, H, T, T) of an explanation of `size` tokens.

    Raises:
        ValueError: they are none, do not fit the tokens, or are not finite.
    """
    maps: Floats = np.asarray(getattr(explanation, name), dtype=np.float32)
    if maps.ndim != 4 or 0 in maps.shape or maps.shape[2] != maps.shape[3]:
        raise ValueError(f"{name} must have the shape (L, H, T, T), all above 0, not {maps.shape}")
    if maps.shape[2] != size:
        found = f"{maps.shape[2]} x {maps.shape[3]}"
        raise ValueError(f"{name} must be {size} x {size} for {counted(size, 'token')}, not {found}")
    return _finite(name, maps)


def both_maps_of(explanation: Any, size: int) -> tuple[Floats, Floats]:
    """`attributions` and `attention`, of one shape.

    Raises:
        ValueError: as `maps_of`, or their shapes differ.
    """
    attributions, attention = (maps_of(explanation, name, size) for name in ("attributions", "attention"))
    if attention.shape != attributions.shape:
        raise ValueError(f"attention has the shape {attention.shape}, attributions have {attributions.shape}")
    return attributions, attention


def values_of(explanation: Any, name: str, count: int, *, unknown: bool = False) -> Floats:
    """`count` numbers of an explanation; `unknown` allows NaN.

    Raises:
        ValueError: there are more or fewer, or they are not finite.
    """
    values: Floats = np.asarray(getattr(explanation, name), dtype=np.float32)
    if values.shape != (count,):
        raise ValueError(f"{name} must have the shape {(count,)}, not {values.shape}")
    return values if unknown else _finite(name, values)


def probability_of(explanation: Any) -> float:
    """The probability, or the score of a regression model.

    Raises:
        ValueError: it is not finite.
    """
    value = float(explanation.probability)
    if not math.isfinite(value):
        raise ValueError(f"probability must be finite, not {value}")
    return value


def _finite(name: str, array: Floats) -> Floats:
    wrong = ~np.isfinite(array)
    if wrong.any():
        where = [int(i) for i in np.argwhere(wrong)[0]]
        raise ValueError(f"{name} must be finite, but {name}{where} is {array[tuple(where)]}")
    return array
