"""Correlation of two importances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from captum_attattr import checks
from captum_attattr.checks import checked_arguments
from captum_attattr.heads.importance import HeadImportance


@dataclass(frozen=True)
class Correlation:
    """How far two importances agree on the same heads.

    Attributes:
        pearson: Pearson's correlation of the scores; NaN where one of the importances is constant.
        spearman: Spearman's correlation of their ranks; NaN likewise.
        heads: how many heads both have scores for.

    Raises:
        TypeError, ValueError: correlations that are not from -1 to 1, or fewer than two heads.
    """

    pearson: float
    spearman: float
    heads: int

    def __post_init__(self) -> None:
        for name in ("pearson", "spearman"):
            value = checks.finite(name, getattr(self, name), unknown=True)
            if abs(value) > 1:
                raise ValueError(f"{name} must be from -1 to 1, not {value}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "heads", checks.at_least(2, self.heads, "heads"))


@checked_arguments
def importance_correlation(first: HeadImportance, second: HeadImportance) -> Correlation:
    """Correlation of two importances: of two methods on one task, or of two tasks for one method.

    Args:
        first, second: importances with the same numbers of layers and heads.

    Returns:
        The correlations over the heads that both have scores for; NaN where one of them is constant.

    Raises:
        TypeError: something else than importances.
        ValueError: importances of different shapes, or fewer than two heads in common.

    Example:
        >>> first, second = (
        ...     HeadImportance([[0.5, 0.1], [0.2, score]], [[0.0, 0.0], [0.0, 0.0]], 100, "taylor", {}, [], [], "")
        ...     for score in (0.3, 0.7)
        ... )
        >>> round(importance_correlation(first, second).spearman, 6)
        0.8
    """
    from scipy.stats import pearsonr, spearmanr

    for importance in (first, second):
        if not isinstance(importance, HeadImportance):
            raise TypeError(f"importances must be results of head_importance, got {type(importance).__name__}")
    if first.scores.shape != second.scores.shape:
        shapes = tuple(first.scores.shape), tuple(second.scores.shape)
        raise ValueError(f"importances of different models: {shapes[0]} and {shapes[1]} (layers, heads)")
    x, y = first.scores.flatten().numpy(), second.scores.flatten().numpy()
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 2:
        raise ValueError(f"heads with scores in both importances: {len(x)}; at least two are needed")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(math.nan, math.nan, len(x))
    return Correlation(float(pearsonr(x, y).statistic), float(spearmanr(x, y).statistic), len(x))
