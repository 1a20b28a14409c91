"""What a config records of heads that are gone."""

from __future__ import annotations

import copy
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import nn

from captum_attattr.model.attention_layers import AttentionLayer, every_layer
from captum_attattr.model.head_adapters import HeadsConfig
from captum_attattr.model.projections import Heads

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RECORD = "pruned_heads"
"""The entry of a model's config that says which heads are gone: {"encoder.0": [1, 2]}, by original indices."""
LAYOUTS = "pruned_layouts"
"""The entry that says what is left of layers whose maps are not known by name: {"encoder.0": Layout as a dict}."""


class Layout(NamedTuple):
    """What is left of an attention module whose maps are not known by name; an attribute `pruned_layout` of it."""

    how: str
    """How the module was told of its heads, one of `head_adapters.HOWS`."""
    shapes: dict[str, list[int]]
    """Of its parameters, and of the output projection's as "output.weight"."""


def record(model: nn.Module) -> None:
    """Write into the config of every transformers model inside `model` which heads are gone."""
    from transformers import PreTrainedModel

    owners: list[PreTrainedModel] = []
    for module in model.modules():
        inside = any(module is part for owner in owners for part in owner.modules())
        if isinstance(module, PreTrainedModel) and not inside:
            owners.append(module)
    for owner in owners:
        found: dict[str, Any] = {}
        if any(hasattr(module, "kept_heads") for module in owner.modules()):
            found = {RECORD: _pruned(owner), LAYOUTS: _layouts(owner)}
        found = {name: entries for name, entries in found.items() if entries or name == RECORD}
        if {n: getattr(owner.config, n) for n in (RECORD, LAYOUTS) if getattr(owner.config, n, None)} != found:
            _copy_config(owner)
            for name in (RECORD, LAYOUTS):
                vars(owner.config).pop(name, None)
            vars(owner.config).update(found)


def _copy_config(model: PreTrainedModel) -> None:
    """Give a model a copy of its config: other models may have been built from the same one."""
    from transformers import PreTrainedConfig

    copies: dict[int, Any] = {}
    copy.deepcopy(model.config, copies)  # with the configs inside it
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, PreTrainedConfig) and id(value) in copies:
                vars(module)[name] = copies[id(value)]
            elif isinstance(value, HeadsConfig) and id(value.base) in copies:
                vars(module)[name] = HeadsConfig(copies[id(value.base)], value.counts)


def _pruned(model: nn.Module) -> dict[str, list[int]]:
    """Return the heads that are gone, by layer, as a config records them."""
    kept = {name: layer.kept for name, layer in named_layers(model).items()}
    return {name: sorted(set(range(k.of)) - set(k.indices)) for name, k in kept.items() if k}


def _layouts(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what is left of layers whose maps are not known by name, as a config records it."""
    layouts: dict[str, dict[str, Any]] = {}
    for name, layer in named_layers(model).items():
        if layout := getattr(layer.module, "pruned_layout", None):  # adapters may have been merged since it was made
            layouts[name] = Layout(layout.how, parameter_shapes(Heads(layer)))._asdict()
    return layouts


def parameter_shapes(heads: Heads) -> dict[str, list[int]]:
    """Return the shapes of an attention module's parameters, and of its output projection's as "output.weight"."""
    shapes = {name: list(parameter.shape) for name, parameter in heads.layer.module.named_parameters()}
    if heads.output is not None:
        shapes |= {f"output.{name}": list(parameter.shape) for name, parameter in heads.output.named_parameters()}
    return shapes


def named_layers(model: nn.Module) -> dict[str, AttentionLayer]:
    """Return all layers of a model, cross-attention included, by their names in a config's record."""
    layers = every_layer(model)
    with suppress(ValueError):  # no cross-attention
        layers += every_layer(model, "cross")
    return {f"{layer.kind}.{layer.index}": layer for layer in layers}
