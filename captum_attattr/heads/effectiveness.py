"""Does switching off what the maps name change the output? Effectiveness of head scores, example by example."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.exceptions import ResultFileError
from captum_attattr.explanations.encoding import Encoded, Text
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.files import existing_file, replacing
from captum_attattr.heads.evaluation import Metric, checked_metric
from captum_attattr.heads.scoring import (
    Batch,
    attattr_scores,
    attention_scores,
    attributed_classes,
    check_gradients,
    chosen_reduction,
    method_options,
    warn_unconverged,
)
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.model.head_masks import head_gates
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.runs.batches import run_batches
from captum_attattr.runs.processes import is_main_process

_SCORES = ("attribution", "attention")
_MODES = ("prune", "keep")


@dataclass(frozen=True)
class Effectiveness:
    """A model with the k heads of each layer off, or alone on, that score highest for the example at hand.

    Attributes:
        heads: k = 0 .. H, the number of heads of every layer that are off ("prune") or on ("keep").
        metric_name: "accuracy", "pearson" ...
        metric: by score ("attribution", "attention") and mode ("prune", "keep"), a value for every k.
        loss: likewise, the mean loss.
        rows: the number of examples.
        options: how maps were turned into scores.
    """

    heads: list[int]
    metric_name: str
    metric: dict[str, dict[str, list[float]]]
    loss: dict[str, dict[str, list[float]]]
    rows: int
    options: dict[str, Any]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a JSON file.

        Returns:
            The path.

        Raises:
            ValueError: the directory does not exist, or `path` is one.
        """
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Effectiveness:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ResultFileError: not a file of `save`, or damaged.
        """
        file = existing_file(path)
        try:
            found = cls(**json.loads(file.read_text(encoding="utf-8")))
            parts = [
                curve for by_score in (found.metric, found.loss) for s in _SCORES for curve in by_score[s].values()
            ]
            if any(len(curve) != len(found.heads) for curve in parts):
                raise ValueError("its curves have different lengths")
            return found
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ResultFileError(f"{str(path)!r} holds no effectiveness analysis: {error}") from error


def effectiveness_analysis(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Text],
    labels: Sequence[Any],
    *,
    metric: Metric | None = None,
    batch_size: int = 32,
    truncate: bool | int = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> Effectiveness:
    """Per example, rank the heads within each layer, and switch off the first k of every layer, or all others.

    The paper's effectiveness analysis (Hao et al. 2021, section 4.2): if attribution scores name the heads that
    carry the decision, then the model without them loses it at once, and the model with them alone keeps it.
    Attention scores, the largest attention weight of each head, are the comparison.

    Args:
        model, tokenizer, examples, labels, batch_size, truncate, resume, progress: as in `head_importance`; each
            text of a multi-label model has one gold label, unless `target="predicted"`.
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
    texts = TextModel(model, tokenizer, truncate)
    items = texts.encode_all(examples)
    gold = texts.labels(labels, len(items))
    classes = attributed_classes(texts, gold, settings)
    check_gradients(texts.model)
    batches = texts.batches(items, batch_size)
    name, measure = checked_metric(metric, texts, gold)
    about = {"analysis": "effectiveness", "options": settings, **texts.fingerprint(items, gold, batches)}
    width = texts.width
    unconverged: list[str] = []

    def work(places: list[int]) -> Tensor:
        batch = Batch(texts, [items[i] for i in places], classes[places], unconverged)
        values = attattr_scores(batch, settings), attention_scores(batch, {})
        scores = [chosen_reduction(each, settings) for each in values]
        return torch.stack([_curves(texts, batch.items, gold[places], each, width) for each in scores], dim=1)

    with evaluation_mode(texts.model):
        values = run_batches(
            batches,
            work,
            about,
            resume=resume,
            progress=progress,
            desc="effectiveness",
            notes=unconverged,
            costs=texts.costs(items, batches),
        )
    if is_main_process():
        warn_unconverged(unconverged)
    curves = values.permute(1, 2, 3, 0, 4)  # (score, mode, k, example, loss and prediction)
    return Effectiveness(
        heads=list(range(width + 1)),
        metric_name=name,
        metric={
            score: {mode: [measure(k[:, 1:]) for k in curves[s, m]] for m, mode in enumerate(_MODES)}
            for s, score in enumerate(_SCORES)
        },
        loss={
            score: {mode: [float(k[:, 0].mean()) for k in curves[s, m]] for m, mode in enumerate(_MODES)}
            for s, score in enumerate(_SCORES)
        },
        rows=len(items),
        options=settings,
    )


def _curves(texts: TextModel, items: list[Encoded], gold: Tensor, scores: Tensor, width: int) -> Tensor:
    """(B, mode, k, 1 + P) loss and prediction, each example with its own heads off."""
    scores = scores.masked_fill(~texts.present(width), -torch.inf)  # heads that are gone come last
    ranks = scores.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)  # (B, L, H): 0 is the strongest
    inputs = texts.inputs(items)
    modes = []
    for mode in _MODES:
        steps = []
        for k in range(width + 1):
            on = ranks >= k if mode == "prune" else ranks < k
            with torch.no_grad(), head_gates(_gates(texts.layers, on)):
                logits = texts.logits(inputs)
            steps.append(texts.outcomes(logits, gold))
        modes.append(torch.stack(steps, dim=1))
    return torch.stack(modes, dim=1)


def _gates(layers: Sequence[AttentionLayer], on: Tensor) -> dict[AttentionLayer, Tensor]:
    """(B, 1, H) for every layer, of the heads that are there."""
    gates = {}
    for layer in layers:
        own = on[:, layer.index]
        gates[layer] = (own[:, list(layer.kept.indices)] if layer.kept else own).float()[:, None]
    return gates
