"""The layers that a call names: handles of attention layers, or modules, whose model the forward function tells."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from torch import nn

from captum_attattr.exceptions import warn_caller
from captum_attattr.model.attention_layers import AttentionLayer, attention_layers


def resolve_layers(
    forward_func: Callable[..., Any], layer: AttentionLayer | nn.Module | Sequence[AttentionLayer | nn.Module]
) -> tuple[AttentionLayer, ...]:
    """Return the handles of the layers given.

    Raises:
        TypeError: something else than layers and modules, a `DataParallel` model.
        ValueError: no layer, one given twice, layers of different models, a module that is no attention layer.
    """
    given = layer if isinstance(layer, (list, tuple, nn.ModuleList)) else [layer]
    if not given:
        raise ValueError("layer is empty: give at least one of attention_layers(model)")
    layers: list[AttentionLayer] = []
    for one in given:
        if isinstance(one, AttentionLayer):
            layers.append(one)
        elif isinstance(one, nn.Module):
            layers.extend(_layers_of_module(forward_func, one))
        else:
            raise TypeError(f"layer must be an attention layer, got {type(one).__name__}: {one!r}")
    if any(layer.model is not layers[0].model for layer in layers):
        raise ValueError(f"layers of different models: {layers[0]!r} and others; attribute one model at a time")
    if len({layer.key for layer in layers}) < len(layers):
        raise ValueError("a layer is given twice")
    if isinstance(forward_func, nn.DataParallel) or isinstance(layers[0].model, nn.DataParallel):
        raise TypeError("DataParallel is not supported; run one process per GPU instead, with torchrun")
    return tuple(layers)


def _layers_of_module(forward_func: Callable[..., Any], module: nn.Module) -> list[AttentionLayer]:
    """Return the layer (or, with shared weights, layers) that an attention module computes."""
    models = [m for m in _modules_behind(forward_func) if any(part is module for part in m.modules())]
    if not models:
        raise ValueError(
            f"cannot tell which model {type(module).__name__} belongs to from forward_func; "
            "give layers as attention_layers(model) returns them"
        )
    every: list[AttentionLayer] = []
    for kind in (None, "cross"):
        with suppress(ValueError):  # the model has no layer of that kind
            every += attention_layers(models[0], kind)
    layers = [layer for layer in every if layer.module is module]
    if not layers:
        within = [layer.name for layer in every if any(part is layer.module for part in module.modules())]
        hint = f"; it holds {', '.join(within[:3])}" if within else ""
        raise ValueError(f"{type(module).__name__} is no attention layer{hint}; use attention_layers(model)")
    return layers


def _modules_behind(function: Callable[..., Any]) -> list[nn.Module]:
    """Return the modules that a forward function is, is bound to, or refers to."""
    owner = getattr(function, "__self__", function)
    if isinstance(owner, nn.Module):
        return [owner]
    if not inspect.isfunction(function):
        return []
    used = inspect.getclosurevars(function)
    return [m for m in (*used.nonlocals.values(), *used.globals.values()) if isinstance(m, nn.Module)]


def check_model(model: nn.Module) -> None:
    """Warn of a model in training mode.

    Raises:
        ValueError: the parameters can have no gradient.
    """
    if any(module.training for module in model.modules()):
        warn_caller("the model is in training mode: dropout makes attributions random; call model.eval() first")
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ValueError("the model's parameters were made under torch.inference_mode and have no gradients")
