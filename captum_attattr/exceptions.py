"""The errors and warnings that users can catch by name."""

from __future__ import annotations


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
