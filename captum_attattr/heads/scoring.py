"""The ways to score heads: what each makes of a batch of examples, and the options that it knows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.attribution.inputs import check_path, check_rule
from captum_attattr.attribution.layer_attattr import LayerAttAttr
from captum_attattr.checks import nearest
from captum_attattr.exceptions import ConvergenceWarning
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.settings import checked_baseline, checked_output
from captum_attattr.explanations.targets import each
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.model.head_masks import head_gates, mask_heads
from captum_attattr.model.projections import Heads

_FILLED = 0.9
"""Least length of an example relative to the longest one that it is attributed with: attribution runs every example
once for each layer and node, so padding costs more than a second pass through the model."""


@dataclass(frozen=True)
class LabelledBatch:
    """Some examples with their labels, longest first. B examples."""

    texts: TextModel
    items: list[Encoded]
    labels: Tensor
    """(B,), or (B, C) of a multi-label model"""
    unconverged: list[str]
    """Maps that did not converge are appended here."""

    def of_like_length(self) -> Iterator[LabelledBatch]:
        """Yield the batch in parts that hold little padding."""
        starts = [0]
        for index, item in enumerate(self.items):
            if item.length < _FILLED * self.items[starts[-1]].length:
                starts.append(index)
        for start, stop in zip(starts, [*starts[1:], len(self.items)], strict=True):
            yield LabelledBatch(self.texts, self.items[start:stop], self.labels[start:stop], self.unconverged)


# ------------------------------------------------------------------------------------ scores from maps

_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda flat: flat.amax(1),
    "sum": lambda flat: flat.sum(1),
    "mean": lambda flat: flat.mean(1),
}


def attattr_scores(batch: LabelledBatch, options: dict[str, Any]) -> Tensor:
    """Return every reduction of the attribution maps, (B, V, L, H)."""
    return torch.cat([_attattr_scores(part, options) for part in batch.of_like_length()])


def _attattr_scores(batch: LabelledBatch, options: dict[str, Any]) -> Tensor:
    """Return every reduction of the attribution maps of a batch that is attributed at once, (B, V, L, H)."""
    texts = batch.texts
    named = texts.inputs(batch.items)
    contrasted = batch.items[0].contrast is not None
    output = texts.chosen_output(options["output"], contrasted)
    every = named | texts.beside([item.contrast for item in batch.items])
    inputs, *further = every.values()
    target = torch.zeros_like(batch.labels, dtype=torch.long) if texts.regression else batch.labels
    if options["target"] == "predicted" and not texts.regression:
        with torch.no_grad():
            target = texts.probabilities(texts.logits(named)).argmax(-1)
        _check_contrasts(batch.items, target.tolist(), "is what the model predicts")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the run warns once, by the examples' indices
        result = LayerAttAttr(texts.forward_function(every, output), texts.layers).integrate(
            inputs,
            target=target,
            additional_forward_args=tuple(further),
            path=options["path"],
            attention_baselines=None if options["baseline"] == "zero" else options["baseline"],
            method=options["rule"],
            store="cpu",
            **{name: options[name] for name in _NUMBERS},
        )
    if result.path == "joint":
        names, errors = ["all layers"], result.total_error[None]
    else:
        names, errors = [f"{layer.kind} layer {layer.index}" for layer in texts.layers], result.error
    batch.unconverged.extend(
        f"example {batch.items[example].index}, {names[row]}: {float(errors[row, example]):.1e}"
        for row, example in (errors > options["tolerance"]).nonzero().tolist()
    )
    return _reduced(batch, result.attributions)


def attention_scores(batch: LabelledBatch, options: dict[str, Any]) -> Tensor:
    """Return every reduction of the attention maps, (B, V, L, H)."""
    texts = batch.texts
    named = texts.inputs(batch.items)
    inputs = tuple(named.values())
    maps = LayerAttAttr(texts.forward_function(list(named)), list(texts.layers)).attention(inputs[0], inputs[1:])
    return _reduced(batch, [_with_choice(map_, layer) for map_, layer in zip(maps, texts.layers, strict=True)])


def _with_choice(map_: Tensor, layer: AttentionLayer) -> Tensor:
    """Return a map (B, H, T, T) without what a decoder's first token must give itself, which is 1 in every head."""
    if layer.kind != "decoder" or map_.shape[-1] < 2:
        return map_
    map_ = map_.clone()
    map_[..., 0, 0] = 0
    return map_


def _reduced(batch: LabelledBatch, maps: Sequence[Tensor]) -> Tensor:
    """Return every reduction, of signed and of absolute values, of each layer's maps (B, H, T, T): (B, V, L, H)."""
    examples = []
    for example, item in enumerate(batch.items):
        by_layer = []
        for map_ in maps:
            real = map_[example, :, : item.length, : item.length]  # padding is on the right
            signed = real.cpu().double().flatten(1)
            by_layer.append([reduce(flat) for flat in (signed, signed.abs()) for reduce in _REDUCTIONS.values()])
        variants = zip(*by_layer, strict=True)
        examples.append(torch.stack([batch.texts.complete(variant) for variant in variants]))
    return torch.stack(examples)


def chosen_reduction(values: Tensor, options: dict[str, Any]) -> Tensor:
    """Return the scores (N, L, H) that the options ask for, of all of a method's values: those of maps (N, V, L, H)."""
    if "reduce" not in options:
        return values
    return values[:, list(_REDUCTIONS).index(options["reduce"]) + len(_REDUCTIONS) * options.get("absolute", False)]


# ------------------------------------------------------------------------------- scores from the output


def _taylor(batch: LabelledBatch, options: dict[str, Any]) -> Tensor:
    """Return the sensitivity of the loss, (B, L, H)."""
    return _sensitivity(batch, lambda logits: batch.texts.losses(logits, batch.labels))


def _taylor_logits(batch: LabelledBatch, options: dict[str, Any]) -> Tensor:
    """Return the sensitivity of the sum of the logits, (B, L, H)."""
    return _sensitivity(batch, lambda logits: logits.sum(-1))


def _sensitivity(batch: LabelledBatch, objective: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the sum over tokens of |<d objective / d head output, head output>|, (B, L, H).

    The product is the gradient of a gate that multiplies the head's output, at 1.
    """
    texts = batch.texts
    named = texts.inputs(batch.items)
    shape = named["input_ids"].shape
    gates = {
        layer: torch.ones(*shape, Heads(layer).count, device=texts.device, requires_grad=True) for layer in texts.layers
    }
    with torch.enable_grad(), head_gates(gates):
        total = objective(texts.logits(named)).sum()
    gradients = torch.autograd.grad(total, list(gates.values()))
    summed = [gradient.cpu().double().abs().sum(1) for gradient in gradients]
    return torch.stack([texts.complete([layer[i] for layer in summed]) for i in range(len(batch.items))])


def _accuracy_difference(batch: LabelledBatch, options: dict[str, Any]) -> Tensor:
    """Return how many right predictions are lost without each head, (B, L, H)."""
    return _without_each(batch, lambda logits: -batch.texts.right(logits, batch.labels).cpu().double())


def _loss_difference(batch: LabelledBatch, options: dict[str, Any]) -> Tensor:
    """Return how much loss is added without each head, (B, L, H)."""
    return _without_each(batch, lambda logits: batch.texts.losses(logits, batch.labels).cpu().double())


def _without_each(batch: LabelledBatch, cost: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what a cost (B,) of the logits rises by when one head alone is off, (B, L, H)."""
    texts = batch.texts
    inputs = texts.inputs(batch.items)
    with torch.no_grad():
        whole = cost(texts.logits(inputs))
        by_layer = []
        for layer in texts.layers:
            rises = []
            for head in Heads(layer).indices:
                with mask_heads(texts.model, {layer: [head]}):
                    rises.append(cost(texts.logits(inputs)) - whole)
            by_layer.append(torch.stack(rises))  # (H, B)
    return torch.stack([texts.complete([rises[:, i] for rises in by_layer]) for i in range(len(batch.items))])


# ------------------------------------------------------------------------------- methods and their options


@dataclass(frozen=True)
class Method:
    """One way to score heads."""

    scores: Callable[[LabelledBatch, dict[str, Any]], Tensor] | None
    """What it makes of a batch; None if it needs no example."""
    options: dict[str, Any]
    """The options that it knows, with their defaults."""
    gradients: bool = False
    """Whether it needs gradients, or reads attention as attribution does."""


_QUADRATURE = {
    "n_steps": None,
    "rule": "gausslegendre",
    "tolerance": 1e-2,  # ten times `explain`'s: the mean over examples has a far larger standard error
    "max_nodes": 1_000,
    "internal_batch_size": None,
}
_NUMBERS = ("n_steps", "tolerance", "max_nodes", "internal_batch_size")  # of the quadrature
ATTRIBUTED = {"output": None, "contrast": None, "path": "layer", "baseline": "zero"}
"""What is attributed along which path; version 0.1 had these alone."""
METHODS: dict[str, Method] = {
    "attattr": Method(
        attattr_scores, {"reduce": "max", "absolute": False, "target": "gold", **_QUADRATURE, **ATTRIBUTED}, True
    ),
    "taylor": Method(_taylor, {"normalize": True}, True),
    "taylor_logits": Method(_taylor_logits, {"normalize": True}, True),
    "attention": Method(attention_scores, {"reduce": "max"}, True),
    "accuracy_difference": Method(_accuracy_difference, {}),
    "loss_difference": Method(_loss_difference, {}),
    "random": Method(None, {"seed": 0}),
}
_CHOICES: dict[str, tuple[Any, ...]] = {
    "reduce": tuple(_REDUCTIONS),
    "absolute": (True, False),
    "target": ("gold", "predicted"),
    "normalize": (True, False),
}
_SEEDS = 2**64  # as many as torch's generators tell apart


def method_options(method: Any, options: Any) -> dict[str, Any]:
    """Return all options of a method, checked: those that are given, and the defaults of the others.

    Raises:
        TypeError, ValueError: an unknown method or option, or a value that an option does not take.
    """
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; use one of {', '.join(METHODS)}")
    known = METHODS[method].options
    if not isinstance(options, Mapping):
        raise TypeError(f"options must be a dict, not {type(options).__name__}: {options!r:.60}")
    if unknown := sorted(set(checks.strings("names of options", list(options))) - set(known)):
        has = f"its options are {', '.join(known)}" if known else "it has no options"
        meant = nearest(unknown[0], [*known, "batch_size", "truncate", "resume", "progress"])
        raise TypeError(f"method={method!r} does not know {', '.join(unknown)}; {has}{meant}")
    settings = known | {name: _checked_option(name, checks.scalar(value)) for name, value in options.items()}
    if method == "attattr":
        numbers = {name: settings[name] for name in _NUMBERS}
        checked = check_rule(settings["rule"], **numbers, name="rule")._asdict()
        settings |= {name: checked[name] for name in _NUMBERS}
        settings["path"] = "joint" if check_path(settings["path"], True) else "layer"
        settings |= {"baseline": checked_baseline(settings["baseline"]), "output": checked_output(settings["output"])}
        contrast = checks.listed(settings["contrast"])
        settings["contrast"] = [checks.scalar(one) for one in contrast] if isinstance(contrast, list) else contrast
    return settings


def told_apart(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that tell a run from others: without those of `ATTRIBUTED` that are as in version 0.1."""
    return {name: value for name, value in settings.items() if name not in ATTRIBUTED or value != ATTRIBUTED[name]}


def _checked_option(name: str, value: Any) -> Any:
    """Return an option's value as Python's own; `check_rule` checks those of the quadrature.

    Raises:
        ValueError: a seed that is none, or something else than the option's choices.
    """
    if name == "seed":
        return checks.at_least(0, value, "seed") % _SEEDS
    choices = _CHOICES.get(name)
    if choices is None:
        return value
    if not isinstance(value, str | int) or value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(map(repr, choices))}")
    return choices[choices.index(value)]


def check_gradients(model: nn.Module) -> None:
    """Check that gradients can be had.

    Raises:
        ValueError: inference mode, now or when the model was made.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("scores need gradients, which torch.inference_mode forbids; use torch.no_grad()")
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ValueError("the model's parameters were made under torch.inference_mode and have no gradients")


def attributed_classes(texts: TextModel, gold: Tensor, options: dict[str, Any]) -> Tensor:
    """Return the gold labels as `attattr_scores` takes them, (N,): the one class whose probability is attributed.

    Raises:
        ValueError: examples with several gold labels, or none.
    """
    if not texts.multilabel:
        return gold
    if options["target"] == "gold":
        for index, count in enumerate(gold.sum(1).int().tolist()):
            if count != 1:
                raise ValueError(
                    f"texts[{index}] has {count} gold labels, and what is attributed is the probability of one: give "
                    "a text once for each of its labels, or use target='predicted'"
                )
    return gold.argmax(1)


def options_for(texts: TextModel, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of "attattr" for a model: the output is None where it is the usual one.

    Raises:
        ValueError: an output or a contrast that a regression does not have.
    """
    output = texts.chosen_output(options["output"], options["contrast"] is not None)
    return options | {"output": None if output == texts.output else output}


def contrasted_items(texts: TextModel, items: list[Encoded], classes: Tensor, options: dict[str, Any]) -> list[Encoded]:
    """Return the examples with the classes that theirs are contrasted with; `classes` are those attributed.

    Raises:
        TypeError, ValueError: a contrast that the model does not have, or that is the class.
    """
    contrasts = each("contrast", options["contrast"], len(items))
    items = [
        replace(item, contrast=texts.target(item.index, contrast, "contrast"))
        for item, contrast in zip(items, contrasts, strict=True)
    ]
    if options["contrast"] is not None and options["target"] == "gold":
        _check_contrasts(items, classes.tolist(), "is the gold label")
    return items


def _check_contrasts(items: Sequence[Encoded], classes: Sequence[int], why: str) -> None:
    """Check that no example is contrasted with the class that is attributed."""
    for item, own in zip(items, classes, strict=True):
        if item.contrast == own:
            raise ValueError(
                f"contrast {own} of texts[{item.index}] {why}, and that is attributed: give another, or a list with "
                "one for each example"
            )
