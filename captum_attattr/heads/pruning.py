"""Pruning curves: a model measured with more and more of its heads off, in the order of a ranking."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.checks import at_least, checked_arguments, flag
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.explanations.encoding import Encoded, Text
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.heads.curves import PruningCurve
from captum_attattr.heads.evaluation import Evaluation, Metric
from captum_attattr.heads.importance import HeadImportance, Pair
from captum_attattr.heads.labelled_examples import LabelledExamples
from captum_attattr.heads.latency import parameters_and_latency
from captum_attattr.model import head_pruning
from captum_attattr.model.attention_layers import every_layer
from captum_attattr.model.head_masks import mask_heads
from captum_attattr.model.projections import Heads
from captum_attattr.runs.digests import data_digest, text_digests
from captum_attattr.runs.processes import is_main_process


@checked_arguments
def pruning_curve(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Text],
    labels: Sequence[Any],
    importance: HeadImportance,
    steps: int = 11,
    order: str = "least",
    *,
    metric: Metric | None = None,
    structural: bool = False,
    together: bool | None = None,
    batch_size: int = 32,
    truncate: bool | int = False,
    task: str | None = None,
    split_into_words: bool = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> PruningCurve:
    """Switch off more and more heads, by their importance, and measure what is left of the model.

    Of n heads, floor(k n / (steps - 1)) are off at step k = 0 .. steps - 1, each number once. Nothing is trained in
    between. Of encoder-decoders n counts the encoder's heads.

    Args:
        model, tokenizer: as in `head_importance`.
        examples, labels: the evaluation rows; better not those that `importance` was made from.
        importance: the ranking.
        steps: how many points the curve has, no head and all heads off included.
        order: "least" important heads first, or "most".
        metric: "accuracy", "matthews", "pearson", or a function of (predictions, labels); by default accuracy,
            or Pearson's correlation for a regression. Of several labels for each example, accuracy is the share
            of the examples of which all are right, and functions get lists of 0 and 1.
        structural: also cut the heads out of copies of the model, and measure parameters and latency; with `resume`
            these are measured again.
        together: whether heads that can only be cut out together (key-value groups, shared weights) also go
            together here, by their mean score; n is then their number. By default as `structural`, which needs it.
        batch_size, truncate, task, split_into_words, resume, progress: as in `head_importance`.

    Returns:
        The curve.

    Raises:
        TypeError, ValueError: fewer than two steps, an unknown order or metric, an importance of another shape,
            labels that do not match, no example; `structural` inside `mask_heads` or without `together`.
        UnsupportedModelError: `structural`, and heads of this model cannot be cut out.

    Example:
        >>> from captum_attattr import head_importance
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> rows = *load_demo_model(), ["a fine film", "a dull film"], ["positive", "negative"]
        >>> importance = head_importance(*rows, "attention", progress=False)
        >>> pruning_curve(*rows, importance, steps=3, progress=False).heads
        [0, 36, 72]
    """
    steps = checked_steps(steps)
    if not isinstance(importance, HeadImportance):
        raise TypeError(f"importance must be a HeadImportance, got {type(importance).__name__}")
    together = None if together is None else flag("together", together)
    if structural and together is False:
        raise ValueError("together=False: with structural=True heads of one group can only be cut out together")
    labelled = LabelledExamples.of(
        model, tokenizer, examples, labels, batch_size, truncate, task=task, split_into_words=split_into_words
    )
    evaluation = Evaluation.of(labelled, metric)
    texts = labelled.texts
    units = units_in_order(texts, importance, order, structural if together is None else together)
    if structural:
        check_cuts(texts, units)
    return measured_curve(evaluation, importance, units, steps, order, structural, resume, progress)


def checked_steps(steps: Any) -> int:
    """Return a curve's number of steps as Python's own.

    Raises:
        ValueError: it is no integer of 2 or more.
    """
    return at_least(2, steps, "steps", "no head off, and all of them")


def units_in_order(texts: TextModel, importance: HeadImportance, order: str, together: bool) -> list[list[Pair]]:
    """Return the heads in the order in which they go: one by one, or in units that can only be cut out together.

    Raises:
        ValueError: an unknown order, or an importance of another model.
    """
    rank = {pair: index for index, pair in enumerate(importance.ranking(order))}
    if importance.scores.shape != (texts.depth, texts.width):
        raise ValueError(
            f"importance has {tuple(importance.scores.shape)} (layers, heads), the model ({texts.depth}, {texts.width})"
        )
    present = [(layer, head) for layer, head in texts.present(texts.width).nonzero().tolist()]
    if unknown := [pair for pair in present if pair not in rank]:
        raise ValueError(
            f"importance has no score for {len(unknown)} heads of the model, the first (layer, head) {unknown[0]}"
        )
    if not together:
        return [[pair] for pair in sorted(present, key=rank.__getitem__)]
    by_weights: dict[tuple[int, int], list[Pair]] = {}  # by the module and the first head of a group
    for layer in texts.layers:
        heads = Heads(layer)
        for head in heads.indices:
            by_weights.setdefault((id(layer.module), heads.group_of(head)[0]), []).append((layer.index, head))
    units = [sorted(unit, key=rank.__getitem__) for unit in by_weights.values()]
    sign = 1 if order == "least" else -1

    def position(unit: list[Pair]) -> tuple[float, Pair]:
        return sign * float(sum(importance.scores[pair] for pair in unit)) / len(unit), unit[0]

    return sorted(units, key=position)


def check_cuts(texts: TextModel, units: list[list[Pair]]) -> None:
    """Check before any work that all heads can be cut out.

    Raises:
        ValueError, UnsupportedModelError: they cannot; the message says what can be done instead.
    """
    layers = every_layer(texts.model, texts.kind)
    try:
        head_pruning.check_cuts(texts.model, [(layers[layer], head) for unit in units for layer, head in unit])
    except (UnsupportedModelError, ValueError) as error:
        raise type(error)(
            f"{error}. With structural=False heads are only switched off, and no time is taken"
        ) from error


def measured_curve(
    evaluation: Evaluation,
    importance: HeadImportance,
    units: list[list[Pair]],
    steps: int,
    order: str,
    structural: bool,
    resume: str | os.PathLike[str] | None,
    progress: bool,
    name: str | None = None,
) -> PruningCurve:
    """Return the curve of checked arguments, by the importance's name or another; units of heads go in their order."""
    examples = evaluation.examples
    counts = dict.fromkeys(step * len(units) // (steps - 1) for step in range(steps))
    off = [[pair for unit in units[:count] for pair in unit] for count in counts]

    def work(step: int, indices: list[int], _: list[str]) -> Tensor:
        return _outcomes(
            examples.texts, [examples.items[index] for index in indices], examples.gold[indices], off[step]
        )

    about = {"curve": importance.name, "order": order, "heads": data_digest(off)}
    outcomes = examples.run(
        work, about, steps=len(off), resume=resume, progress=progress, desc=f"curve {importance.name}"
    )
    metric, loss = evaluation.curves(outcomes)
    measured = structural and is_main_process()
    parameters, latency = parameters_and_latency(examples, off, progress) if measured else ([], [])
    ranked = set(importance.examples)
    return PruningCurve(
        name=importance.name if name is None else name,
        order=order,
        heads=[len(heads) for heads in off],
        total=sum(map(len, units)),
        metric_name=evaluation.metric_name,
        metric=metric,
        loss=loss,
        ranking=[list(pair) for unit in units for pair in unit],
        ranking_rows=importance.count,
        evaluation_rows=len(examples.items),
        shared_rows=sum(digest in ranked for digest in text_digests(item.text for item in examples.items)),
        parameters=parameters,
        latency=latency,
    )


def _outcomes(texts: TextModel, items: list[Encoded], gold: Tensor, off: list[Pair]) -> Tensor:
    """Return loss and prediction of a batch with some heads off, (B, 1 + P)."""
    layers, inputs = every_layer(texts.model, texts.kind), texts.inputs(items)
    masked = mask_heads(texts.model, [(layers[layer], head) for layer, head in off]) if off else nullcontext()
    with torch.no_grad(), masked:
        logits = texts.logits(inputs)
    return texts.outcomes(logits, gold)
