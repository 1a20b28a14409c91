"""A pruned model as one that transformers builds without this package: one count of heads for all layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model import families
from captum_attattr.model.attention_layers import AttentionLayer, family_name
from captum_attattr.model.head_adapters import HeadsConfig
from captum_attattr.model.head_cuts import Cut, HeadCuts
from captum_attattr.model.head_probe import probed
from captum_attattr.model.projections import Heads, UnknownPartError
from captum_attattr.model.pruning_record import LAYOUTS, RECORD, named_layers
from captum_attattr.model.sample_inputs import Runs, difference, first_line


def plain_model(model: Any) -> Any:
    """Return a model of the same class with every layer's heads in places that its config can express.

    Where a config has the size of a head (`head_dim`), all of its layers get as many heads as the layer with the most;
    else as many as before. Places without a head are zeros in all maps, the output projection's included: what the
    model gives is the same.

    Raises:
        UnsupportedModelError: no such model gives what the pruned one gives.
    """
    layers = named_layers(model)
    if not any(layer.kept for layer in layers.values()):
        return model
    failures = []
    for places in (_fewest, _original):
        try:
            whole = _built(model, layers, places)
            modules = [layer.module for layer in layers.values() if layer.kept]
            ours = [layer.module for name, layer in named_layers(whole).items() if layers[name].kept]
            apart = difference(Runs(whole, ours, None).outputs(), Runs(model, modules, None).outputs())
        except Exception as error:  # a config that does not fit the class
            failures.append(first_line(error))
            continue
        if apart <= 1:
            return whole
        failures.append(f"it differs by {apart:.0f} times what rounding explains")
    raise UnsupportedModelError(
        f"{family_name(model)} cannot be written with one count of heads: {failures[-1]}; "
        "keep the format 'captum_attattr'"
    )


Places = dict[str, list[int]]
"""For each layer, by name, where its heads are among those of the new model, in their order."""


def _fewest(model: Any, layers: Mapping[str, AttentionLayer]) -> tuple[Any, Places]:
    """Return a config with as few heads as hold those of every layer, and their places.

    Raises:
        LookupError: no config has the size of a head.
    """
    config = copy.deepcopy(model.config)
    places: Places = {}
    by_config: dict[int, tuple[Any, list[str]]] = {}
    for name, layer in layers.items():
        own = getattr(layer.module, "config", None)
        own = own.base if isinstance(own, HeadsConfig) else own
        by_config.setdefault(id(own), (own, []))[1].append(name)
    smaller = False
    for own, names in by_config.values():
        paths = [path for path, value in _configs(model.config) if value is own]
        count_name = next((name for name in families.HEAD_COUNTS if own is not None and hasattr(own, name)), None)
        if not paths or count_name is None or not getattr(own, "head_dim", None):
            places |= {name: list(_indices(layers[name])) for name in names}
            continue
        slots = {name: _groups(layers[name]) for name in names}
        groups = max(1, *(len(found) for found in slots.values()))
        each = max(1, *(len(heads) for found in slots.values() for heads in found))
        before = getattr(own, count_name)
        new = dict(_configs(config))[paths[0]]
        for enough in range(groups, before // each + 1):
            setattr(new, count_name, enough * each)
            new.head_dim = own.head_dim
            if getattr(own, "num_key_value_heads", None):
                new.num_key_value_heads = enough
            if _valid(new):
                break
        smaller |= getattr(new, count_name) < before
        for name, found in slots.items():
            places[name] = [slot * each + index for slot, heads in enumerate(found) for index in range(len(heads))]
    if not smaller:
        raise LookupError("its config forces the original count of heads")
    return config, places


def _valid(config: Any) -> bool:
    """Return whether a config's class takes its values: some want the hidden size to be a multiple of the heads."""
    try:
        type(config).from_dict(config.to_dict())
    except Exception:  # strict dataclasses raise errors of their own
        return False
    return True


def _original(model: Any, layers: Mapping[str, AttentionLayer]) -> tuple[Any, Places]:
    """Return the config of the model before it was pruned, and the places that the heads had."""
    return copy.deepcopy(model.config), {name: list(_indices(layer)) for name, layer in layers.items()}


def _indices(layer: AttentionLayer) -> tuple[int, ...]:
    return layer.kept.indices if layer.kept else Heads(layer).indices


def _groups(layer: AttentionLayer) -> list[list[int]]:
    """Return a layer's heads by the keys and values that they share."""
    indices = _indices(layer)
    if not indices:
        return []
    heads = Heads(layer)
    each = heads.count // heads.groups
    return [list(indices[first : first + each]) for first in range(0, len(indices), each)]


def _configs(config: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    """Return a config and those inside it, with their paths."""
    from transformers import PreTrainedConfig

    found = [(path, config)]
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            found += _configs(value, (*path, name))
    return found


def _built(
    model: Any,
    layers: Mapping[str, AttentionLayer],
    places: Callable[[Any, Mapping[str, AttentionLayer]], tuple[Any, Places]],
) -> Any:
    """Return a model of a new config, with the pruned model's weights where they belong."""
    config, where = places(model, layers)
    for name in (RECORD, LAYOUTS):
        vars(config).pop(name, None)
    first = next(model.parameters())
    with torch.random.fork_rng([]), torch.device(first.device):
        whole = type(model)(config).to(first.dtype)
    whole.train(model.training)
    new_layers = named_layers(whole)
    modules = [layer.module for layer in new_layers.values()]
    cuts: dict[tuple[int, str], Cut] = {}
    for name, layer in new_layers.items():
        heads = Heads(layer)
        keep = where[name]
        if len(keep) == heads.count:
            continue
        try:
            found = HeadCuts(heads, keep).cuts()
        except UnknownPartError:
            found = HeadCuts(heads, keep, probed(Runs(whole, modules, None), [heads])[layer.module]).cuts()
        cuts |= {(id(cut.owner), cut.name): cut for cut in found}
    _filled(whole, model, cuts)
    if hasattr(model, "generation_config"):
        whole.generation_config = copy.deepcopy(model.generation_config)
    return whole


@torch.no_grad()
def _filled(whole: nn.Module, model: nn.Module, cuts: Mapping[tuple[int, str], Cut]) -> None:
    """Copy every parameter and buffer; heads to their places, and zeros elsewhere."""
    ours = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for path, module in whole.named_modules():
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in tensors:
            old: Tensor | None = ours.get(f"{path}.{name}" if path else name)
            if old is None:  # the same tensor under another name: tied weights
                continue
            cut = cuts.get((id(module), name))
            if cut is None:
                tensor.copy_(old)
                continue
            tensor.zero_()
            tensor.index_copy_(cut.dim, torch.tensor(cut.keep, dtype=torch.long, device=tensor.device), old.to(tensor))
