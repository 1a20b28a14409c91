"""What a model is measured by: a metric and the mean loss, on examples with gold labels."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

from torch import Tensor

from captum_attattr.checks import scalar
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.heads.labelled_examples import LabelledExamples
from captum_attattr.heads.metrics import METRICS, score

Metric = str | Callable[[list[Any], list[Any]], float]
"""A name that `metrics.score` knows, or a function of predictions and labels."""


@dataclass(frozen=True)
class Evaluation:
    """Examples with gold labels, and the metric of a model's predictions on them.

    Attributes:
        examples: the examples.
        metric_name: what the metric is called.
        metric: gives the metric of predictions (N, P).
    """

    examples: LabelledExamples
    metric_name: str
    metric: Callable[[Tensor], float]

    @classmethod
    def of(cls, examples: LabelledExamples, metric: Metric | None) -> Evaluation:
        """Check a metric as `pruning_curve` takes it.

        Raises:
            TypeError, ValueError: see `pruning_curve`.
        """
        return cls(examples, *_checked_metric(metric, examples.texts, examples.gold))

    def curves(self, outcomes: Tensor) -> tuple[list[float], list[float]]:
        """Return the metric and the mean loss of every step from (S, N, 1 + P), losses and predictions."""
        return [self.metric(step[:, 1:]) for step in outcomes], [float(step[:, 0].mean()) for step in outcomes]


def _checked_metric(metric: Metric | None, texts: TextModel, gold: Tensor) -> tuple[str, Callable[[Tensor], float]]:
    """Return a metric's name, the usual one for None, and a function of predictions (N, P) for these gold labels.

    Raises:
        TypeError, ValueError: no metric that is known, or that fits the model.
    """
    if metric is None:
        metric = "pearson" if texts.regression else "accuracy"
    function = metric if callable(metric) else _named_metric(metric, texts)
    name = metric if isinstance(metric, str) else str(getattr(metric, "__name__", type(metric).__name__))
    labels = gold.int().tolist() if texts.multilabel else gold.tolist()

    def measure(predictions: Tensor) -> float:
        value = scalar(function((predictions if texts.multilabel else predictions[:, 0]).tolist(), labels))
        if not isinstance(value, Real):
            raise TypeError(f"metric {name!r} must return a number, got {type(value).__name__}: {value!r}")
        return float(value)

    if callable(metric):  # tried on the labels themselves, so that it fails before the model runs
        measure(gold.cpu().double().reshape(len(gold), -1))
    return name, measure


def _named_metric(metric: Any, texts: TextModel) -> Callable[[list[Any], list[Any]], float]:
    """Return the function of a metric's name.

    Raises:
        TypeError, ValueError: as `_checked_metric`.
    """
    if not isinstance(metric, str):
        raise TypeError(f"metric={metric!r} must be one of {', '.join(METRICS)}, or a function")
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r} is unknown; use one of {', '.join(METRICS)}, or a function")
    if texts.multilabel:
        if metric != "accuracy":
            raise ValueError(f"metric={metric!r} does not fit a model of several labels; use 'accuracy' or a function")
        return _exact_matches
    if (metric == "pearson") != texts.regression:
        kind, fits = ("a score", "'pearson'") if texts.regression else ("classes", "'accuracy' or 'matthews'")
        raise ValueError(f"metric={metric!r} does not fit a model that gives {kind}; use {fits}")
    return partial(score, metric)


def _exact_matches(predictions: list[Any], labels: list[Any]) -> float:
    """Return the fraction of the examples of which every label is right."""
    return statistics.mean(float(one == other) for one, other in zip(predictions, labels, strict=True))
