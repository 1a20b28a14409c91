"""Does switching off what the maps name change the output? Effectiveness of head scores, example by example."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.encoding import Encoded, Text
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.files import read_json, reading, write_json
from captum_attattr.formatting import counted
from captum_attattr.heads.curves import rising, step_values
from captum_attattr.heads.evaluation import Evaluation, Metric
from captum_attattr.heads.labelled_examples import LabelledExamples
from captum_attattr.heads.scoring import (
    LabelledBatch,
    attattr_scores,
    attention_scores,
    attributed_classes,
    check_gradients,
    chosen_reduction,
    contrasted_items,
    method_options,
    options_for,
    told_apart,
)
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.model.head_masks import head_gates
from captum_attattr.notebooks import Shown, View, figure_view

SCORES = ("attribution", "attention")
MODES = ("prune", "keep")


@dataclass(frozen=True, repr=False)
class Effectiveness(Shown):
    """A model with the k heads of each layer off, or alone on, that score highest for the example at hand.

    An effectiveness checks itself when it is made.

    Attributes:
        heads: k = 0 .. H, the number of heads of every layer that are off ("prune") or on ("keep").
        metric_name: "accuracy", "pearson" ...
        metric: by score ("attribution", "attention") and mode ("prune", "keep"), a value for every k.
        loss: likewise, the mean loss.
        rows: the number of examples.
        options: how maps were turned into scores.

    Raises:
        TypeError, ValueError: a part of another type, length or range; the message names it.
    """

    heads: list[int]
    metric_name: str
    metric: dict[str, dict[str, list[float]]]
    loss: dict[str, dict[str, list[float]]]
    rows: int
    options: dict[str, Any]

    def _line(self) -> str:
        return f"{self.metric_name} with 0 to {self.heads[-1]} heads of every layer, {counted(self.rows, 'example')}"

    def _view(self) -> View:
        return figure_view("plot_effectiveness", self)

    def __post_init__(self) -> None:
        heads = rising("heads", self.heads)
        if not heads:
            raise ValueError("effectiveness has no step: heads is empty")
        metric, loss = (_by_score_and_mode(name, getattr(self, name), len(heads)) for name in ("metric", "loss"))
        for score, mode in ((score, mode) for score in SCORES for mode in MODES):
            if not np.isfinite(metric[score][mode]).any():
                raise ValueError(f"metric[{score!r}][{mode!r}] has no finite value: {metric[score][mode]}")
        options = checks.instance("options", self.options, dict, "a dict")
        checks.strings("names of options", list(options))
        options = {name: checks.scalar(value) for name, value in options.items()}
        try:
            json.dumps(options)
        except (TypeError, ValueError) as error:
            raise TypeError(f"options must be what JSON holds, not {options!r:.60}: {error}") from None
        checked = {
            "heads": heads,
            "metric_name": checks.instance("metric_name", self.metric_name, str, "a string"),
            "metric": metric,
            "loss": loss,
            "rows": checks.at_least(0, self.rows, "rows"),
            "options": options,
        }
        checks.set_fields(self, **checked)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a JSON file.

        Returns:
            The path.

        Raises:
            TypeError, ValueError: `path` is no path or a directory, or its directory does not exist.
        """
        return write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Effectiveness:
        """Read what `save` wrote.

        Raises:
            TypeError, FileNotFoundError: `path` is no path, or there is no such file.
            ResultFileError: not a file of `save`, or damaged.
        """
        with reading(path, "effectiveness analysis", "Effectiveness.save") as file:
            content = checks.instance("its content", read_json(file), dict, "an object")
            checks.names_match(content, (field.name for field in fields(cls)))
            return cls(**content)


def _by_score_and_mode(what: str, value: Any, count: int) -> dict[str, dict[str, list[float]]]:
    """Return curves of `count` steps by score and mode.

    Raises:
        TypeError, ValueError: one is missing or has other steps, or there are others.
    """
    curves: dict[str, dict[str, list[float]]] = {}
    by_score = checks.instance(what, value, dict, "a dict")
    for score in SCORES:
        by_mode = checks.instance(f"{what}[{score!r}]", by_score.get(score, {}), dict, "a dict")
        for mode in MODES:
            if mode not in by_mode:
                raise ValueError(f"{what} of the effectiveness lacks [{score!r}][{mode!r}]")
        curves[score] = {mode: step_values(f"{what}[{score!r}][{mode!r}]", by_mode[mode], count) for mode in MODES}
        _check_nothing_more(f"{what}[{score!r}]", by_mode, MODES)
    _check_nothing_more(what, by_score, SCORES)
    return curves


def _check_nothing_more(what: str, given: Mapping[Any, Any], wanted: Sequence[str]) -> None:
    """Check that a dict has no other keys than those that are wanted.

    Raises:
        ValueError: it has.
    """
    if more := given.keys() - wanted:
        raise ValueError(f"{what} holds more than {' and '.join(wanted)}: {more}")


@checked_arguments
def effectiveness_analysis(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Text],
    labels: Sequence[Any],
    *,
    metric: Metric | None = None,
    batch_size: int = 32,
    truncate: bool | int = False,
    task: str | None = None,
    split_into_words: bool = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> Effectiveness:
    """Per example, rank the heads within each layer, and switch off the first k of every layer, or all others.

    The paper's effectiveness analysis (Hao et al. 2021, section 4.2): if attribution scores name the heads that
    carry the decision, then the model without them loses it at once, and the model with them alone keeps it.
    Attention scores, the largest attention weight of each head, are the comparison.

    Args:
        model, tokenizer, examples, labels, batch_size, truncate, task, split_into_words, resume, progress: as in
            `head_importance`; each text of a multi-label model has one gold label, unless `target="predicted"`.
        metric: as in `pruning_curve`.
        options: of the method "attattr" of `head_importance`. The class whose probability is attributed is
            `target="gold"`, or "predicted", which needs no label to rank heads. `reduce` ("max" by default)
            turns attention maps into scores too.

    Returns:
        Curves over k for both scores and both modes.

    Raises:
        As `head_importance`.
    """
    settings = method_options("attattr", options)
    labelled = LabelledExamples.of(
        model, tokenizer, examples, labels, batch_size, truncate, task=task, split_into_words=split_into_words
    )
    evaluation = Evaluation.of(labelled, metric)
    texts, gold = labelled.texts, labelled.gold
    settings = options_for(texts, settings)
    classes = attributed_classes(texts, gold, settings)
    attributed = contrasted_items(texts, labelled.items, classes, settings)
    check_gradients(texts.model)

    def work(_: int, indices: list[int], unconverged: list[str]) -> Tensor:
        items = [attributed[index] for index in indices]
        batch = LabelledBatch(texts, items, classes[indices], unconverged)
        scores = [
            chosen_reduction(values, settings)
            for values in (attattr_scores(batch, settings), attention_scores(batch, {}))
        ]
        return torch.stack([_outcomes(texts, items, gold[indices], each) for each in scores], dim=1)

    about = {"analysis": "effectiveness", "options": told_apart(settings)}
    (values,) = labelled.run(work, about, resume=resume, progress=progress, desc="effectiveness")
    by_score = values.permute(1, 2, 3, 0, 4)  # (score, mode, k, N, 1 + P)
    curves = {
        score: {mode: evaluation.curves(by_mode[m]) for m, mode in enumerate(MODES)}
        for score, by_mode in zip(SCORES, by_score, strict=True)
    }
    return Effectiveness(
        heads=list(range(texts.width + 1)),
        metric_name=evaluation.metric_name,
        metric={score: {mode: curves[score][mode][0] for mode in MODES} for score in SCORES},
        loss={score: {mode: curves[score][mode][1] for mode in MODES} for score in SCORES},
        rows=len(labelled.items),
        options=settings,
    )


def _outcomes(texts: TextModel, items: list[Encoded], gold: Tensor, scores: Tensor) -> Tensor:
    """Return loss and prediction in each mode for each k, where k heads of each layer are off or alone on.

    Args:
        texts, items, gold: B examples with their labels.
        scores: (B, L, H) of each example, by which its heads are ranked.

    Returns:
        (B, mode, k, 1 + P).
    """
    heads = scores.shape[-1]
    scores = scores.masked_fill(~texts.present(heads), -torch.inf)  # heads that are gone come last
    rank = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)  # (B, L, H), 0 the strongest
    inputs = texts.inputs(items)
    modes = []
    for mode in MODES:
        steps = []
        for k in range(heads + 1):
            on = rank >= k if mode == "prune" else rank < k
            with torch.no_grad(), head_gates(_gates(texts, on)):
                logits = texts.logits(inputs)
            steps.append(texts.outcomes(logits, gold))
        modes.append(torch.stack(steps, dim=1))
    return torch.stack(modes, dim=1)


def _gates(texts: TextModel, on: Tensor) -> dict[AttentionLayer, Tensor]:
    """Return each layer's gates, (B, 1, H) of the heads that are there, from what is on, (B, L, H)."""
    gates = {}
    for layer in texts.layers:
        heads = on[:, layer.index]
        gates[layer] = (heads[:, list(layer.kept.indices)] if layer.kept else heads).float()[:, None]
    return gates
