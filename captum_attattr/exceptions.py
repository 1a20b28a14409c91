"""The errors and warnings that users can catch by name."""

from __future__ import annotations

import sys
import warnings


class UnsupportedModelError(ValueError):
    """The model's attention cannot be read or replaced; the message names the family and says why.

    What to do: use another model of the README's table, or, for a family with a fused or windowed
    attention, a full-attention relative of it.
    """


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


_PASSED_OVER = frozenset({"captum_attattr", "captum", "torch", "contextlib", "tqdm"})


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line of the user's code that led here: the innermost frame outside of this package and of captum."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in _PASSED_OVER:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)
