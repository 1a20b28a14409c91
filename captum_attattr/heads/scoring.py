"""The ways to score heads: what each makes of a batch of examples, and the options that it knows."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.attribution.inputs import check_rule
from captum_attattr.attribution.layer_attattr import LayerAttAttr
from captum_attattr.checks import at_least, scalar
from captum_attattr.exceptions import ConvergenceWarning, warn_caller
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.model.head_masks import head_gates, mask_heads
from captum_attattr.model.projections import Heads

_LIKE_LENGTH = 0.9
"""Of the longest example's tokens, what the shortest beside it has when every row of them is many runs."""


@dataclass(frozen=True)
class Batch:
    """Some examples as the methods take them."""

    texts: TextModel
    items: list[Encoded]
    labels: Tensor
    """(B,), or (B, C) of several labels"""
    unconverged: list[str]
    """Where maps that did not converge are written down."""

    def parts(self) -> Iterator[Batch]:
        """The batch in runs of like length, so that little of it is padding."""
        start = 0
        for place, item in enumerate(self.items):
            if item.length < _LIKE_LENGTH * self.items[start].length:
                yield self._part(start, place)
                start = place
        yield self._part(start, len(self.items))

    def _part(self, start: int, stop: int) -> Batch:
        return Batch(self.texts, self.items[start:stop], self.labels[start:stop], self.unconverged)

    def real(self, maps: Tensor, example: int) -> Tensor:
        """(H, T, T) of one example without its padding, which is on the right."""
        length = self.items[example].length
        return maps[:, :length, :length]


def _reductions(map_: Tensor) -> Tensor:
    """(V, H) of (H, T, T): every reduction, of the map as it is and of its absolute values."""
    signed = map_.double().flatten(1)
    variants = [reduce(values) for values in (signed, signed.abs()) for reduce in _REDUCTIONS.values()]
    return torch.stack(variants)


_REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": lambda flat: flat.amax(1),
    "sum": lambda flat: flat.sum(1),
    "mean": lambda flat: flat.mean(1),
}


def chosen_reduction(values: Tensor, options: dict[str, Any]) -> Tensor:
    """(N, L, H) of a method's values; those of maps hold every reduction, (N, V, L, H)."""
    if "reduce" not in options:
        return values
    place = list(_REDUCTIONS).index(options["reduce"]) + len(_REDUCTIONS) * bool(options.get("absolute"))
    return values[:, place]


def warn_unconverged(found: list[str]) -> None:
    """One `ConvergenceWarning` for all maps of a run that did not converge."""
    if found:
        warn_caller(
            f"{len(found)} attribution maps have an estimated relative error above the tolerance: "
            + "; ".join(found[:10])
            + ("; ..." if len(found) > 10 else ""),
            ConvergenceWarning,
        )


def attattr_scores(batch: Batch, options: dict[str, Any]) -> Tensor:
    """(B, V, L, H), every reduction of the attribution maps."""
    return torch.cat([_attattr_scores(part, options) for part in batch.parts()])


def _attattr_scores(batch: Batch, options: dict[str, Any]) -> Tensor:
    texts = batch.texts
    named = texts.inputs(batch.items)

    def forward(*tensors: Tensor) -> Tensor:
        return texts.probabilities(texts.logits(dict(zip(named, tensors, strict=True))))

    inputs = tuple(named.values())
    target = torch.zeros_like(batch.labels, dtype=torch.long) if texts.regression else batch.labels
    if options["target"] == "predicted" and not texts.regression:
        with torch.no_grad():
            target = forward(*inputs).argmax(-1)
    quadrature = {name: options[name] for name in ("n_steps", "tolerance", "max_nodes", "internal_batch_size")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it would count examples within this batch
        result = LayerAttAttr(forward, texts.layers).integrate(
            inputs[0],
            target=target,
            additional_forward_args=inputs[1:],
            method=options["rule"],
            store="cpu",
            **quadrature,
        )
    above = (result.error > options["tolerance"]).nonzero().tolist()
    batch.unconverged.extend(
        f"example {batch.items[example].index}, {texts.layers[layer].kind} layer {texts.layers[layer].index}: "
        f"{float(result.error[layer, example]):.1e}"
        for layer, example in above
    )
    return _per_example(batch, result.attributions)


def attention_scores(batch: Batch, options: dict[str, Any]) -> Tensor:
    """(B, V, L, H), every reduction of the attention maps."""
    texts = batch.texts
    named = texts.inputs(batch.items)

    def forward(*tensors: Tensor) -> Tensor:
        return texts.logits(dict(zip(named, tensors, strict=True)))

    inputs = tuple(named.values())
    maps = LayerAttAttr(forward, list(texts.layers)).attention(inputs[0], inputs[1:])
    return _per_example(batch, [_with_choice(map_, layer) for map_, layer in zip(maps, texts.layers, strict=True)])


def _with_choice(map_: Tensor, layer: AttentionLayer) -> Tensor:
    """(B, H, T, T) without the weight that a decoder's first token has no choice but to give itself, always 1."""
    if layer.kind != "decoder" or map_.shape[-1] < 2:
        return map_
    map_ = map_.clone()
    map_[..., 0, 0] = 0
    return map_


def _per_example(batch: Batch, maps: Sequence[Tensor]) -> Tensor:
    """(B, V, L, H) of maps (B, H, T, T) for every layer."""
    rows = []
    for example in range(len(batch.items)):
        by_layer = [_reductions(batch.real(map_[example].cpu(), example)) for map_ in maps]
        variants = zip(*by_layer, strict=True)
        rows.append(torch.stack([batch.texts.complete(variant) for variant in variants]))
    return torch.stack(rows)


def _taylor(batch: Batch, options: dict[str, Any]) -> Tensor:
    return _sensitivity(batch, lambda logits: batch.texts.losses(logits, batch.labels))


def _taylor_logits(batch: Batch, options: dict[str, Any]) -> Tensor:
    return _sensitivity(batch, lambda logits: logits.sum(-1))


def _sensitivity(batch: Batch, objective: Callable[[Tensor], Tensor]) -> Tensor:
    """(B, L, H) sum over tokens of |<d objective / d head output, head output>|, as the gradient of gates at 1."""
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


def _accuracy_difference(batch: Batch, options: dict[str, Any]) -> Tensor:
    def right(logits: Tensor) -> Tensor:
        return batch.texts.right(logits, batch.labels).cpu().double()

    return _without_each(batch, lambda whole, less: right(whole) - right(less))


def _loss_difference(batch: Batch, options: dict[str, Any]) -> Tensor:
    def loss(logits: Tensor) -> Tensor:
        return batch.texts.losses(logits, batch.labels).cpu().double()

    return _without_each(batch, lambda whole, less: loss(less) - loss(whole))


def _without_each(batch: Batch, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """(B, L, H) of what changes when one head alone is switched off."""
    texts = batch.texts
    inputs = texts.inputs(batch.items)
    with torch.no_grad():
        whole = texts.logits(inputs)
        columns = []
        for layer in texts.layers:
            column = []
            for number in Heads(layer).indices:
                with mask_heads(texts.model, {layer: [number]}):
                    column.append(change(whole, texts.logits(inputs)))
            columns.append(torch.stack(column))  # (H, B)
    return torch.stack([texts.complete([column[:, i] for column in columns]) for i in range(len(batch.items))])


@dataclass(frozen=True)
class Method:
    """One way to score heads: what it does with a batch, and the options it knows, with their defaults."""

    scores: Callable[[Batch, dict[str, Any]], Tensor] | None
    options: dict[str, Any]


_QUADRATURE = {
    "n_steps": None,
    "rule": "gausslegendre",
    "tolerance": 1e-2,  # ten times `explain`'s: the mean over examples has a far larger standard error
    "max_nodes": 1_000,
    "internal_batch_size": None,
}
METHODS: dict[str, Method] = {
    "attattr": Method(attattr_scores, {"reduce": "max", "absolute": False, "target": "gold", **_QUADRATURE}),
    "taylor": Method(_taylor, {"normalize": True}),
    "taylor_logits": Method(_taylor_logits, {"normalize": True}),
    "attention": Method(attention_scores, {"reduce": "max"}),
    "accuracy_difference": Method(_accuracy_difference, {}),
    "loss_difference": Method(_loss_difference, {}),
    "random": Method(None, {"seed": 0}),
}
_CHOICES = {
    "reduce": ("max", "sum", "mean"),
    "absolute": (True, False),
    "target": ("gold", "predicted"),
    "normalize": (True, False),
}


def method_options(method: str, options: dict[str, Any]) -> dict[str, Any]:
    """All options of a method, checked."""
    if not isinstance(method, str) or method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; use one of {', '.join(METHODS)}")
    known = METHODS[method].options
    unknown = sorted(set(options) - set(known))
    if unknown:
        has = f"its options are {', '.join(known)}" if known else "it has no options"
        raise TypeError(f"method={method!r} does not know {', '.join(unknown)}; {has}")
    settings = known | {name: _checked_option(name, scalar(value)) for name, value in options.items()}
    if "rule" in settings:
        numbers = {name: settings[name] for name in ("n_steps", "tolerance", "max_nodes", "internal_batch_size")}
        try:
            check_rule(settings["rule"], **numbers)
        except ValueError as error:
            raise ValueError(str(error).replace("method=", "rule=")) from None  # as it is called here
    return settings


def _checked_option(name: str, value: Any) -> Any:
    if name == "seed":
        return at_least(0, value, "seed") % 2**64  # as many as there are
    choices: tuple[Any, ...] = _CHOICES.get(name, ())
    if not choices:
        return value
    if not isinstance(value, str | int) or value not in choices:
        raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(map(repr, choices))}")
    return choices[choices.index(value)]


def check_gradients(model: nn.Module) -> None:
    """Find out whether gradients can be had.

    Raises:
        ValueError: inference mode, now or when the model was made.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("scores need gradients, which torch.inference_mode forbids; use torch.no_grad()")
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ValueError("the model's parameters were made under torch.inference_mode and have no gradients")


def attributed_classes(texts: TextModel, gold: Tensor, options: dict[str, Any]) -> Tensor:
    """(N,) the gold labels as `attattr_scores` takes them: the one class whose probability is attributed.

    Raises:
        ValueError: texts with several gold labels, or none.
    """
    if not texts.multilabel:
        return gold
    if options["target"] == "gold":
        counts = gold.sum(1).int().tolist()
        for number, count in enumerate(counts):
            if count != 1:
                raise ValueError(
                    f"texts[{number}] has {count} gold labels, and what is attributed is the probability of one: give "
                    "a text once for each of its labels, or use target='predicted'"
                )
    return gold.argmax(1)
