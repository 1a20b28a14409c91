"""Heads cut out of a model for good: smaller projections, saved and loaded through transformers' own files."""

from __future__ import annotations

import copy
import dis
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, Cache, PreTrainedConfig, PreTrainedModel

from captum_attattr.exceptions import ResultFileError, UnsupportedModelError
from captum_attattr.files import checked_path
from captum_attattr.model.attention_layers import AttentionLayer, KeptHeads, every_layer
from captum_attattr.model.head_masks import HeadSpec, active_gates, selected_heads
from captum_attattr.model.modes import plain
from captum_attattr.model.projections import Cut, Heads, apply_cut

_RECORD = "pruned_heads"
"""The entry of a model's config that says which heads are gone: {"encoder.0": [1, 2]}, original numbers."""


def prune_heads(model: nn.Module, heads: HeadSpec) -> None:
    """Remove heads: their rows of the query, key and value projections, their columns of the output projection.

    The pruned model gives what the masked model gives (`mask_heads`), with fewer parameters and in less time.
    Nothing is changed where an error is raised. Old optimizers hold the old parameters.

    Args:
        model: changed in place; a compiled one is compiled again when it runs next. What is gone is written into
            its config, so that it survives saving; the config is a copy from then on, since other models may have
            been built from it.
        heads: as for `mask_heads`. Heads that share keys and values (grouped-query attention) go together, and
            so do all layers that share weights (ALBERT).

    Raises:
        TypeError, ValueError: no head at all, a layer or head that the model does not have, a part of a group.
        UnsupportedModelError: heads of this model cannot be removed; the message says why.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> model = BertModel(BertConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        ...                              intermediate_size=24, vocab_size=10)).eval()
        >>> prune_heads(model, {0: [1, 3], 1: [0, 1, 2, 3]})
        >>> model.encoder.layer[0].attention.self.query.weight.shape, model.config.pruned_heads
        (torch.Size([12, 24]), {'encoder.0': [1, 3], 'encoder.1': [0, 1, 2, 3]})
    """
    plans = planned_cuts(model, heads)
    for module, (found, keep, cuts) in plans.items():
        for cut in cuts:
            apply_cut(cut)
        found.set_counts(len(keep))
        settled: Any = module
        settled.kept_heads = KeptHeads(tuple(keep), found.original)
        if not keep:
            settled.forward = partial(
                _forward_without_heads, module, found.output, found.layer.kind == "cross", _returned(module)
            )
    _record(model)


def planned_cuts(model: nn.Module, heads: HeadSpec) -> dict[nn.Module, tuple[Heads, list[int], list[Cut]]]:
    """What `prune_heads` is to do in every attention module; nothing is done yet.

    Raises:
        TypeError, ValueError, UnsupportedModelError: see `prune_heads`.
    """
    chosen = selected_heads(model, heads)
    if active_gates(model):
        raise ValueError("heads cannot be removed inside mask_heads, which counts on them; leave that context first")
    _check_shared(model, chosen)
    plans: dict[nn.Module, tuple[Heads, list[int], list[Cut]]] = {}
    for layer, numbers in chosen.items():
        found = Heads(layer)
        keep = [number for number in found.numbers if number not in numbers]
        if len(keep) == found.count:
            continue  # they are gone already
        _check_groups(found, keep)
        if not keep:
            _check_can_be_empty(layer)
        plans[layer.module] = found, keep, found.cuts(keep)
    return plans


def _check_groups(heads: Heads, keep: list[int]) -> None:
    for number in keep:
        group = heads.group_of(number)
        gone = [other for other in group if other not in keep]
        if gone:
            raise ValueError(
                f"heads {gone} of {heads.layer!r} share their keys and values with head {number}: a key-value group is "
                f"removed as a whole; give all of {group}, or switch heads off with mask_heads"
            )


def _check_shared(model: nn.Module, chosen: Mapping[AttentionLayer, set[int]]) -> None:
    """Layers that share weights lose the same heads."""
    by_key = {layer.key: numbers for layer, numbers in chosen.items()}
    for layer, numbers in chosen.items():
        for other in every_layer(model, layer.kind):
            if other.module is layer.module and by_key.get(other.key) != numbers:
                raise ValueError(
                    f"{layer!r} and {other!r} share their weights and can only lose the same heads, not "
                    f"{sorted(numbers)} and {sorted(by_key.get(other.key, ()))}; mask_heads tells them apart"
                )


def _check_can_be_empty(layer: AttentionLayer) -> None:
    if type(layer.module).__name__ == "LukeSelfAttention":  # returns words and entities apart
        raise UnsupportedModelError(f"{layer!r}: {type(layer.module).__name__} cannot lose all of its heads")


def _returned(module: nn.Module) -> int:
    """How many values a module's forward returns."""
    steps = list(dis.get_instructions(inspect.unwrap(type(module).forward)))
    built = (step.arg for step, after in pairwise(steps) if (step.opname, after.opname) == _TUPLE_RETURNED)
    return max((count for count in built if count), default=2)


_TUPLE_RETURNED = ("BUILD_TUPLE", "RETURN_VALUE")


def _forward_without_heads(
    module: nn.Module, projection: nn.Module | None, cross: bool, returned: int, *args: Any, **kwargs: Any
) -> tuple[Tensor | None, ...]:
    """What an attention layer without heads gives: the bias of its output projection, or nothing."""
    hidden: Tensor = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    rest = (None,) * (returned - 1)
    if not cross:
        _count_tokens(module, hidden, *args, **kwargs)
    if projection is None or all(part is not projection for part in module.modules()):
        return hidden.new_zeros(*hidden.shape[:-1], 0), *rest
    part: Any = projection
    output = torch.zeros_like(hidden) if part.bias is None else part.bias.to(hidden).repeat(*hidden.shape[:-1], 1)
    norm = getattr(module, "LayerNorm", None)  # ALBERT adds and normalises inside its attention
    return (output if norm is None else norm(hidden + output)), *rest


def _count_tokens(module: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> None:
    """Put one small key for each token into the cache: its first layer tells the model how many there were."""
    given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
    number = next((getattr(module, name) for name in ("layer_idx", "layer_id") if hasattr(module, name)), None)
    if given is not None and number is not None:
        cache: Cache = getattr(given, "self_attention_cache", given)  # an encoder-decoder has two
        keys = hidden.new_ones(len(hidden), 1, hidden.shape[1], 1)
        cache.update(keys, keys, number, {"cache_position": kwargs.get("cache_position")})


def _record(model: nn.Module) -> None:
    """Write into the config of every model in it which heads are gone."""
    owners: list[PreTrainedModel] = []
    for module in model.modules():
        inside = any(module is part for owner in owners for part in owner.modules())
        if isinstance(module, PreTrainedModel) and not inside:
            owners.append(module)
    for owner in owners:
        pruned = _pruned(owner) if any(hasattr(module, "kept_heads") for module in owner.modules()) else None
        if (getattr(owner.config, _RECORD, None) or None) != pruned:
            _own_config(owner)
            vars(owner.config).pop(_RECORD, None)
            if pruned is not None:
                owner.config.pruned_heads = pruned


def _own_config(model: PreTrainedModel) -> None:
    """Give a model a copy of its config: other models may have been built from the same one."""
    copies: dict[int, Any] = {}
    copy.deepcopy(model.config, copies)  # with the configs inside it
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, PreTrainedConfig) and id(value) in copies:
                vars(module)[name] = copies[id(value)]


def _pruned(model: nn.Module) -> dict[str, list[int]]:
    layers = [*every_layer(model), *_cross_layers(model)]
    return {_name(layer): sorted(set(range(layer.kept.of)) - set(layer.kept.numbers)) for layer in layers if layer.kept}


def _name(layer: AttentionLayer) -> str:
    return f"{layer.kind}.{layer.index}"


def _cross_layers(model: nn.Module) -> list[AttentionLayer]:
    try:
        return every_layer(model, "cross")
    except ValueError:
        return []


def save_pruned(model: PreTrainedModel, path: str | os.PathLike[str], **options: Any) -> Path:
    """Save a pruned model with transformers' own `save_pretrained`; `load_pruned` reads it.

    The heads that are gone stand in config.json as `pruned_heads`, {"encoder.0": [1, 3]}, by original numbers.

    Args:
        model: a model of transformers, pruned or not.
        path: the folder; made if it is missing.
        options: of `save_pretrained`: `max_shard_size` ...

    Returns:
        The folder.

    Raises:
        TypeError: the model is none of transformers, or `path` is no path.
        ValueError: `path` is a file, or a folder that cannot be made.
    """
    model = plain(model)
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a transformers model, got {type(model).__name__}")
    if checked_path(path).is_file():
        raise ValueError(f"path must be a folder, but {str(path)!r} is a file")
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the folder {str(path)!r} cannot be made: {error.strerror}") from error
    _record(model)  # the config may be that of another model
    model.save_pretrained(path, **options)
    return Path(path)


def load_pruned(path: str | os.PathLike[str], **options: Any) -> PreTrainedModel:
    """Load what `save_pruned` wrote, with transformers' own `from_pretrained`.

    The class is the one that the config names under `architectures`; code of the folder's own never runs.

    Args:
        path: the folder.
        options: of `from_pretrained`: `dtype`, `device_map`, `attn_implementation` ...

    Returns:
        The model, in evaluation mode.

    Raises:
        TypeError: `path` is no path.
        FileNotFoundError: there is no such folder, or no config in it.
        ValueError: the config does not fit: no known architecture, or heads that it cannot have lost; or
            `trust_remote_code` is asked for.
        ResultFileError: a file is damaged or missing.
        RuntimeError: the weights are not those of a model without these heads (transformers' own report).
    """
    if options.get("trust_remote_code"):
        raise ValueError("trust_remote_code=True: load_pruned never runs a folder's own code; leave it out")
    if not (checked_path(path) / "config.json").is_file():
        raise FileNotFoundError(f"no pruned model in {str(path)!r}: it has no config.json")
    with _whole(path):
        config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    names = config.architectures or []
    kind: Any = getattr(transformers, names[0], None) if names else None
    if not (isinstance(kind, type) and issubclass(kind, PreTrainedModel)):
        raise ValueError(f"{str(path)!r} names {names} as its architecture, which transformers does not have")
    pruned = getattr(config, _RECORD, None) or {}

    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)
        prune_heads(self, _heads_of(self, pruned)) if pruned else None

    # from_pretrained builds the class it is called on: the heads go before the weights come.
    cut = type(kind.__name__, (kind,), {"__init__": build, "__module__": kind.__module__})
    with _whole(path):
        loaded: Any = cut.from_pretrained(path, **options | {"local_files_only": True})  # type: ignore[attr-defined]
    model: PreTrainedModel = loaded[0] if isinstance(loaded, tuple) else loaded  # output_loading_info=True
    model.__class__ = kind
    return loaded  # type: ignore[no-any-return]


@contextmanager
def _whole(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Say which folder it is whose files are damaged or missing."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ResultFileError(f"{str(folder)!r} holds no whole model: {error}") from error


def _heads_of(model: nn.Module, pruned: Mapping[str, list[int]]) -> list[tuple[AttentionLayer, int]]:
    """The heads that a config's record names."""
    lists = pruned.values() if isinstance(pruned, Mapping) else [None]
    if not all(isinstance(numbers, list) and all(type(number) is int for number in numbers) for numbers in lists):
        raise ValueError(f"the config's {_RECORD} must be {{'encoder.0': [heads]}}, got {pruned!r}")
    layers = {_name(layer): layer for layer in [*every_layer(model), *_cross_layers(model)]}
    unknown = sorted(set(pruned) - set(layers))
    if unknown:
        raise ValueError(f"the config's {_RECORD} name {unknown}; the model has {sorted(layers)}")
    return [(layers[name], number) for name, numbers in pruned.items() for number in numbers]
