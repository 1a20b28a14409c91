"""Which heads matter: importance scores of every head, over a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.encoding import Text
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.files import read_tensors, reading, write_tensors
from captum_attattr.formatting import counted
from captum_attattr.heads.curves import ORDERS
from captum_attattr.heads.labelled_examples import LabelledExamples
from captum_attattr.heads.scoring import (
    METHODS,
    LabelledBatch,
    attributed_classes,
    check_gradients,
    chosen_reduction,
    contrasted_items,
    method_options,
    options_for,
    told_apart,
)
from captum_attattr.model.wrappers import language_tower
from captum_attattr.notebooks import Shown, View, figure_view
from captum_attattr.runs.digests import model_digest, text_digests

_HEADER = "captum_attattr head importance"
_VERSION = 1

Pair = tuple[int, int]
"""(layer, head)."""


@dataclass(frozen=True, eq=False, repr=False)
class HeadImportance(Shown):
    """How much each head matters, over some examples. L layers, H heads.

    An importance checks itself when it is made.

    Attributes:
        scores: (L, H) float64, the mean over the examples; NaN for heads that `prune_heads` has taken, not for all.
        stderr: (L, H) float64, the standard error of that mean; NaN for one example, and for random scores.
        count: the number of examples; 0 for random scores.
        method: how the scores were made, a name that `head_importance` takes.
        options: the options of the method, all of them.
        labels: the names of the gold labels that the examples have, each once; scores have none.
        examples: a digest of every example, by which a curve tells ranking rows from evaluation rows.
        model: a digest of the model's weights.
        tower: the name of the part whose heads these are, of a multimodal model its language model; "" for the whole.

    Raises:
        TypeError, ValueError: a part of another type, shape or range; the message names it.
    """

    scores: Tensor
    stderr: Tensor
    count: int
    method: str
    options: dict[str, Any]
    labels: list[str]
    examples: list[str]
    model: str
    tower: str = ""

    def _line(self) -> str:
        layers, heads = self.scores.shape
        best = ", ".join(f"{layer}.{head}" for layer, head in self.ranking("most")[:3])
        size = f"{counted(layers, 'layer')} x {counted(heads, 'head')}"
        size += f" of {self.tower}" if self.tower else ""
        return f"{self.name}, {size}, {counted(self.count, 'example')}, most important {best}"

    def _view(self) -> View:
        return figure_view("plot_heads", self)

    def __post_init__(self) -> None:
        checks.set_fields(self, options=method_options(self.method, self.options))
        scores = checks.numbers(f"scores of {self.name!r}", self.scores).to("cpu", torch.float64)
        if scores.dim() != 2 or not scores.numel():
            raise ValueError(f"scores of {self.name!r} must have the shape (L, H), not {tuple(scores.shape)}")
        if scores.isinf().any():
            layer, head = scores.isinf().nonzero()[0].tolist()
            found = f"[{layer}, {head}] is {scores[layer, head].item()}"
            raise ValueError(f"scores of {self.name!r} must be finite, or NaN for no head, but {found}")
        if scores.isnan().all():
            raise ValueError(f"{self.name!r} has no finite score: all of its {scores.numel()} heads are NaN")
        stderr = checks.numbers(f"stderr of {self.name!r}", self.stderr).to("cpu", torch.float64)
        if stderr.shape != scores.shape:
            shapes = f"{tuple(scores.shape)} of its scores, not {tuple(stderr.shape)}"
            raise ValueError(f"stderr of {self.name!r} must have the shape {shapes}")
        if stderr.isinf().any() or (stderr < 0).any():
            raise ValueError(f"stderr of {self.name!r} must be finite and not negative, or NaN where it is not known")
        checked = {
            "scores": scores,
            "stderr": stderr,
            "count": checks.at_least(0, self.count, "count"),
            "labels": checks.strings("labels", self.labels),
            "examples": checks.strings("examples", self.examples),
            "model": checks.instance("model", self.model, str, "a digest"),
            "tower": checks.instance("tower", self.tower, str, "a string"),
        }
        checks.set_fields(self, **checked)

    @property
    def name(self) -> str:
        """The method, and the options that are not the usual ones: "attattr (reduce=sum)"."""
        usual = METHODS[self.method].options
        changed = [
            f"{key}={'one each' if isinstance(value, list) else value}"
            for key, value in self.options.items()
            if usual.get(key) != value and key != "internal_batch_size"  # which changes no score
        ]
        return self.method + (f" ({', '.join(changed)})" if changed else "")

    def ranking(self, order: str = "least") -> list[Pair]:
        """Return all heads that are there, as (layer, head).

        Args:
            order: "least" important first, or "most"; equal scores in the order of layer and head.
        """
        if order not in ORDERS:
            raise ValueError(f"order={order!r} is unknown; use 'least' or 'most'")
        flat = self.scores.flatten()
        indices = torch.argsort(flat, stable=True, descending=order == "most").tolist()
        heads = self.scores.shape[1]
        return [divmod(index, heads) for index in indices if not flat[index].isnan()]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file: scores and errors as tensors, everything else as JSON in its header.

        Returns:
            The path.

        Raises:
            TypeError, ValueError: `path` is no path or a directory, or its directory does not exist.
        """
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: content.pop(name) for name in ("scores", "stderr")}
        if not self.tower:  # as files have been from the first version on
            content.pop("tower")
        return write_tensors(path, _HEADER, _VERSION, tensors, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> HeadImportance:
        """Read what `save` wrote.

        Raises:
            TypeError, FileNotFoundError: `path` is no path, or there is no such file.
            ResultFileError: not a file of `save`, damaged, or of another version.
        """
        with reading(path, "head importance", "HeadImportance.save") as file:
            _, content, tensors = read_tensors(file, _HEADER, _VERSION)
            content.setdefault("tower", "")
            checks.names_match(content.keys() | tensors.keys(), (field.name for field in fields(cls)))
            return cls(**content, **tensors)


@checked_arguments
def head_importance(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Text],
    labels: Sequence[Any],
    method: str = "attattr",
    *,
    batch_size: int = 32,
    truncate: bool | int = False,
    task: str | None = None,
    split_into_words: bool = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> HeadImportance:
    r"""Score every head of a model by what it does for the examples.

    =====================  ===========================================================================
    method                 score of head h, the mean over the examples of
    =====================  ===========================================================================
    "attattr"              :math:`\max_{ij} \mathrm{Attr}_h(A)_{ij}`, gold class (Hao et al. 2021).
                           Options: `reduce` "max", "sum" or "mean" over the map, `absolute`, `target`
                           "gold" or "predicted"; `output`, `contrast`, `path` and `baseline` as in `explain`;
                           `n_steps`, `rule`, `tolerance`, `max_nodes` and
                           `internal_batch_size` of the quadrature (`rule` is `method` of `LayerAttAttr`;
                           `tolerance` is 1e-2, since the mean over the examples has a far larger error)
    "taylor"               :math:`\sum_t |\langle \partial\,\mathrm{loss} / \partial o_{ht}, o_{ht}
                           \rangle|` with the head's output o at token t, then divided by the layer's
                           Euclidean norm (Michel et al. 2019). Option: `normalize`
    "taylor_logits"        the same with the sum of all logits for the loss, as the published AttAttr
                           code does it
    "attention"            :math:`\max_{ij} A_{h,ij}`; of a decoder without its first token, whose weight on itself
                           is always 1. Option: `reduce`
    "accuracy_difference"  1 if the example is right with all heads, less 1 if it is right without h
    "loss_difference"      loss without h, less loss with all heads
    "random"               nothing: uniform numbers, the control for every curve. Option: `seed`
    =====================  ===========================================================================

    Under `torchrun`, with a process group, every process does a share of the batches.

    Args:
        model: a transformers model for sequence classification or regression, or a causal language model
            (whose labels are the tokens that come next). It runs uncompiled (`torch.compile`). Of an encoder-decoder
            the encoder's heads are scored. Texts of a decoder are not padded: only those of one length share a batch.
        tokenizer: its tokenizer.
        examples: texts, (text, second text) pairs, and whatever else `explain` takes.
        labels: the gold class of each, a number or a name; the score for a regression. Of a multi-label model
            (`config.problem_type`) a 0 or 1 for each of its labels, or the names of a text's labels; one class
            alone is the only one. A text is right if all of its labels are (a probability above a half is a yes);
            the loss is the sum of theirs. "attattr" takes texts with one gold label each.
        method: see above.
        batch_size: how many examples go through the model together.
        truncate: cut texts that are longer than the model takes, instead of raising; a number cuts to at most
            so many tokens.
        task, split_into_words: as in `explain`.
        resume: a file to which the scores of each batch are appended; if it is there already, what it holds
            is not done again, and the result is bit for bit that of an uninterrupted run.
        progress: show a bar for what takes longer than two seconds.
        options: of the method.

    Returns:
        The scores, their standard errors, and what they were made of.

    Raises:
        TypeError, ValueError: an unknown method or option, no example, labels that do not match the examples
            or the model, a tokenizer of another model, a `resume` file of another run, or that another run which
            has not ended writes to.
        UnsupportedModelError: the model's attention or heads cannot be reached.

    Warns:
        ConvergenceWarning: maps whose estimated error stayed above the tolerance, counted over all batches, also
            those that were done before and are read from `resume`.

    Example:
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> model, tokenizer = load_demo_model()
        >>> texts, labels = ["a fine film", "a dull film"], ["positive", "negative"]
        >>> importance = head_importance(model, tokenizer, texts, labels, progress=False)
        >>> importance.scores.shape, len(importance.ranking())
        (torch.Size([6, 12]), 72)
    """
    settings = method_options(method, options)
    labelled = LabelledExamples.of(
        model, tokenizer, examples, labels, batch_size, truncate, task=task, split_into_words=split_into_words
    )
    texts, items, gold = labelled.texts, labelled.items, labelled.gold
    classes = gold
    if method == "attattr":
        settings = options_for(texts, settings)
        classes = attributed_classes(texts, gold, settings)
        items = contrasted_items(texts, items, classes, settings)
    if method == "accuracy_difference" and texts.regression:
        raise ValueError("method='accuracy_difference' needs classes, the model gives a score; use 'loss_difference'")
    scorer = METHODS[method]
    if scorer.gradients:
        check_gradients(texts.model)
    score = scorer.scores
    if score is None:
        return random_importance(texts, settings["seed"], model_digest(texts.model))

    def work(_: int, indices: list[int], unconverged: list[str]) -> Tensor:
        batch = LabelledBatch(texts, [items[index] for index in indices], classes[indices], unconverged)
        return _finite(score(batch, settings), indices)

    # The file holds every reduction of the maps, so one file serves them all.
    kept = {name: v for name, v in told_apart(settings).items() if name not in ("reduce", "absolute", "normalize")}
    about = {"method": method, "options": kept}
    (values,) = labelled.run(work, about, resume=resume, progress=progress, desc=method)
    values = _finite(values, list(range(len(items))))  # a file of an older version may hold values that are not
    mean, stderr = _mean_and_error(chosen_reduction(values, settings), settings)
    absent = ~texts.present(mean.shape[1])
    return HeadImportance(
        scores=mean.masked_fill(absent, torch.nan),
        stderr=stderr.masked_fill(absent, torch.nan),
        count=len(items),
        method=method,
        options=settings,
        labels=texts.names(gold),
        examples=text_digests(item.text for item in items),
        model=labelled.fingerprint["model"],
        tower=language_tower(texts.model),
    )


def random_importance(texts: TextModel, seed: int, digest: str) -> HeadImportance:
    """Return uniform scores, which have seen no example; `digest` is the model's."""
    generator = torch.Generator("cpu").manual_seed(seed)
    scores = torch.rand(texts.depth, texts.width, generator=generator, dtype=torch.float64, device="cpu")
    scores = scores.masked_fill(~texts.present(texts.width), torch.nan)
    unknown = torch.full_like(scores, torch.nan)
    tower = language_tower(texts.model)
    return HeadImportance(scores, unknown, 0, "random", {"seed": seed}, [], [], digest, tower)


def _finite(values: Tensor, indices: list[int]) -> Tensor:
    """Return the scores of examples, whose indices name them in the error.

    Raises:
        ValueError: they are not finite.
    """
    broken = (~values.isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
    if broken:
        raise ValueError(
            f"the scores of texts[{indices[broken[0]]}] are not finite: the model's numbers overflow; use a wider "
            "floating-point type"
        )
    return values


def _mean_and_error(values: Tensor, settings: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the mean over the examples of (N, L, H), and its standard error."""
    mean = values.mean(0)
    stderr = values.std(0) / len(values) ** 0.5 if len(values) > 1 else torch.full_like(mean, torch.nan)
    if settings.get("normalize"):
        norm = mean.norm(dim=1, keepdim=True).clamp_min(1e-20)
        mean, stderr = mean / norm, stderr / norm
    return mean, stderr
