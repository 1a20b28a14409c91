"""A model on rows with gold labels: its metric and loss with heads off, and what it weighs and takes without them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.checks import scalar
from captum_attattr.explanations.attributed_output import Outputs
from captum_attattr.explanations.encoding import Encoded, Text
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.heads.importance import Pair
from captum_attattr.heads.metrics import METRICS, score
from captum_attattr.model.attention_layers import every_layer
from captum_attattr.model.head_masks import mask_heads
from captum_attattr.runs.digests import text_digests

Metric = str | Callable[[list[Any], list[Any]], float]
"""A name that `metrics.score` knows, or a function of predictions and labels."""


@dataclass(frozen=True)
class EvaluationRows:
    """Examples on which a model is measured, checked and ready.

    Attributes:
        texts: the model.
        items: the examples.
        gold: (N,) or (N, C) their labels.
        batches: how they go through the model.
        metric_name: what `measure` gives.
        measure: the metric of predictions, (N, P).
        digests: one for each example, by which rows are told apart.
        about: what tells a run over them from others.
    """

    texts: TextModel
    items: list[Encoded]
    gold: Tensor
    batches: list[list[int]]
    metric_name: str
    measure: Callable[[Tensor], float]
    digests: list[str]
    about: dict[str, Any]


def evaluation_rows(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Text],
    labels: Sequence[Any],
    metric: Metric | None,
    batch_size: int,
    truncate: bool | int,
) -> EvaluationRows:
    """Check examples, labels and metric, and make the examples ready.

    Raises:
        TypeError, ValueError: see `pruning_curve`.
    """
    texts = TextModel(model, tokenizer, truncate)
    items = texts.encode_all(examples)
    gold = texts.labels(labels, len(items))
    batches = texts.batches(items, batch_size)
    name, measure = checked_metric(metric, texts, gold)
    digests, about = text_digests(item.text for item in items), texts.fingerprint(items, gold, batches)
    return EvaluationRows(texts, items, gold, batches, name, measure, digests, about)


def checked_metric(metric: Metric | None, texts: Outputs, gold: Tensor) -> tuple[str, Callable[[Tensor], float]]:
    """The name of a metric, the usual one for None, and a function of predictions (N, P) for these gold labels.

    Raises:
        TypeError, ValueError: no metric that is known, or that fits the model.
    """
    if metric is None:
        metric = "pearson" if texts.regression else "accuracy"
    function = metric if callable(metric) else _named_metric(metric, texts)
    name = metric if isinstance(metric, str) else str(getattr(metric, "__name__", type(metric).__name__))
    wanted = gold.int().tolist() if texts.multilabel else gold.tolist()

    def measure(predictions: Tensor) -> float:
        value = scalar(function((predictions if texts.multilabel else predictions[:, 0]).tolist(), wanted))
        if not isinstance(value, Real):
            raise TypeError(f"metric {name!r} must return a number, got {type(value).__name__}: {value!r}")
        return float(value)

    if callable(metric):  # what it makes of the labels themselves says nothing but that it works
        measure(gold.cpu().double().reshape(len(gold), -1))
    return name, measure


def _named_metric(metric: Any, texts: Outputs) -> Callable[[list[Any], list[Any]], float]:
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
    """The share of the examples of which every label is right."""
    return statistics.mean(float(one == other) for one, other in zip(predictions, labels, strict=True))


def without_heads(texts: TextModel, items: list[Encoded], gold: Tensor, heads: list[Pair]) -> Tensor:
    """(B, 1 + P) loss and prediction of a batch with some heads off."""
    layers, inputs = every_layer(texts.model, texts.kind), texts.inputs(items)
    masked = mask_heads(texts.model, [(layers[layer], head) for layer, head in heads]) if heads else nullcontext()
    with torch.no_grad(), masked:
        logits = texts.logits(inputs)
    return texts.outcomes(logits, gold)
