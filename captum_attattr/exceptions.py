"""The errors and warnings that users can catch by name, and how a warning is given."""

from __future__ import annotations

import sys
import warnings

_PASSED_THROUGH = frozenset({"captum_attattr", "captum", "torch", "contextlib", "tqdm"})
"""Packages whose lines stand between a user's call and a warning about it."""


class UnsupportedModelError(ValueError):
    """The model's attention cannot be read or replaced; the message names the family and says why.

    What to do: use another model of docs/guide/models.md, or, for a family with a fused or windowed
    attention, a full-attention relative of it.
    """


class ModelInUseError(RuntimeError):
    """The model is being attributed already, in another thread or further up the call; one call at a time can."""


class ConvergenceWarning(UserWarning):
    """The adaptive quadrature stopped before its estimated error fell below the tolerance.

    The message names the examples, the layers and their estimated relative error. What to do: raise
    `max_nodes`, loosen `tolerance`, or compute in a wider floating-point type.
    """


class ResultFileError(ValueError):
    """A result file is damaged, of another kind, or of a newer version; the message names the file."""


class EmptyTreeError(ValueError):
    """No interaction is above the threshold: the attribution tree has no edge.

    The message names the root and says below which threshold it has one. What to do: take a lower threshold,
    or another root.
    """


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code that called this package, through however many of its functions.

    Args:
        message: what the user should know, and what to do about it.
        category: the class of the warning.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _PASSED_THROUGH:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
