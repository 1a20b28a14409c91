"""Single numbers of any library (numpy's, tensors of one number) as Python's own."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor


def scalar(value: Any) -> Any:
    """A number or truth value of numpy, or a tensor that holds one, as Python's own; everything else as it is."""
    if isinstance(value, np.generic) or (isinstance(value, Tensor | np.ndarray) and value.ndim == 0):
        return value.item()
    return value


def integer(value: Any) -> int | None:
    """An integer as Python's own; None for everything else, bools included."""
    if isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def real(value: Any) -> float | None:
    """Return a real number of any library as Python's own, NaN and infinity too; None for everything else."""
    value = scalar(value)
    return None if isinstance(value, bool) or not isinstance(value, Real) else float(value)


def at_least(smallest: int, value: Any, name: str, meaning: str = "") -> int:
    """An integer that is large enough, as Python's own; `name` and `meaning` are what errors tell.

    Raises:
        ValueError: it is none, or too small.
    """
    number = integer(value)
    if number is None or number < smallest:
        raise ValueError(f"{name}={value!r} must be an int of {smallest} or more{meaning and f': {meaning}'}")
    return number
