"""How predictions are measured: accuracy, and the correlation coefficients of Matthews and of Pearson."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

METRICS = ("accuracy", "matthews", "pearson")
"""The names that `score` knows."""


def score(metric: str, predictions: Any, labels: Any) -> float:
    r"""Measure predictions as the published code does.

    "accuracy" is the share of right classes; "matthews" the correlation coefficient of Matthews, for more than two
    classes in the form of Gorodkin (2004); "pearson" that of Pearson. A coefficient that is 0/0, as for
    constant predictions, is 0.

    Args:
        metric: one of `METRICS`.
        predictions: (N, C) logits or (N,) classes; for "pearson" (N,) or (N, 1) scores.
        labels: (N,) classes or scores.

    Returns:
        The figure.

    Raises:
        ValueError: an unknown metric; no rows; predictions and labels that do not fit, or are not finite.

    Example:
        >>> score("accuracy", [[0.1, 0.9], [0.8, 0.2]], [1, 1])
        0.5
        >>> round(score("pearson", [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 6)
        1.0
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; known are {', '.join(METRICS)}")
    guessed, true = np.asarray(predictions), np.asarray(labels)
    if metric == "pearson" and guessed.ndim == 2 and guessed.shape[1] == 1:
        guessed = guessed[:, 0]
    fits = guessed.ndim == 1 or (guessed.ndim == 2 and metric != "pearson")
    if not fits or true.ndim != 1 or len(true) != len(guessed) or guessed.size == 0:
        raise ValueError(f"predictions of shape {guessed.shape} do not fit labels of shape {true.shape} for {metric!r}")
    if not (np.isfinite(guessed).all() and np.isfinite(true).all()):
        raise ValueError("predictions and labels must be finite")
    if metric != "pearson" and guessed.ndim == 2:
        guessed = guessed.argmax(-1)
    if metric == "accuracy":
        return float((guessed == true).mean())
    if guessed.min() == guessed.max() or true.min() == true.max():
        return 0.0
    # Both coefficients are a covariance over standard deviations, of scores or of indicators (N, C) of the classes.
    known = np.unique(np.concatenate([guessed, true]))
    x, y = (part[:, None] == known if metric == "matthews" else part[:, None] for part in (guessed, true))
    x, y = (part.astype(np.float64) - part.mean(0, dtype=np.float64) for part in (x, y))
    return float(np.clip((x * y).sum() / math.sqrt((x * x).sum()) / math.sqrt((y * y).sum()), -1, 1))
