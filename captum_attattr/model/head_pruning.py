"""Heads cut out of a model for good: smaller projections, saved and loaded through transformers' own files."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from captum_attattr.arguments import checked_arguments
from captum_attattr.exceptions import ResultFileError, UnsupportedModelError
from captum_attattr.files import checked_path, saving
from captum_attattr.model.attention_layers import AttentionLayer, KeptHeads, every_layer
from captum_attattr.model.families import NEVER_EMPTY, RETURNED
from captum_attattr.model.head_masks import HeadSpec, active_gates, selected_heads
from captum_attattr.model.modes import plain
from captum_attattr.model.projections import Cut, Heads, apply_cut

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_RECORD = "pruned_heads"
"""The entry of a model's config that says which heads are gone: {"encoder.0": [1, 2]}, by original indices."""


@checked_arguments
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
    for pruned, (before, keep, cuts) in plans.items():
        for cut in cuts:
            apply_cut(cut)
        before.set_counts(len(keep))
        module: Any = pruned
        module.kept_heads = KeptHeads(tuple(keep), before.original)
        if not keep:
            module.forward = partial(_forward_without_heads, module, before.output, before.layer.kind == "cross")
    _record(model)


def planned_cuts(model: nn.Module, heads: HeadSpec) -> dict[nn.Module, tuple[Heads, list[int], list[Cut]]]:
    """Return what `prune_heads` is to do in every attention module: (heads before, heads that stay, cuts).

    Raises:
        TypeError, ValueError, UnsupportedModelError: see `prune_heads`.
    """
    chosen = selected_heads(model, heads)
    if active_gates(model):
        raise ValueError("heads cannot be removed inside mask_heads, which counts on them; leave that context first")
    _check_shared(model, chosen)
    plans: dict[nn.Module, tuple[Heads, list[int], list[Cut]]] = {}
    for layer, removed in chosen.items():
        heads_now = Heads(layer)
        keep = [head for head in heads_now.indices if head not in removed]
        if len(keep) == heads_now.count:
            continue  # they are gone already
        _check_groups(heads_now, keep)
        kind = type(layer.module).__name__
        if not keep and kind in NEVER_EMPTY:
            raise UnsupportedModelError(f"{layer!r}: {kind} cannot lose all of its heads")
        plans[layer.module] = heads_now, keep, heads_now.cuts(keep)
    return plans


def _check_groups(heads: Heads, keep: list[int]) -> None:
    """Check that heads which share keys and values go together."""
    for head in keep:
        group = heads.group_of(head)
        gone = [other for other in group if other not in keep]
        if gone:
            raise ValueError(
                f"heads {gone} of {heads.layer!r} share their keys and values with head {head}: a key-value group is "
                f"removed as a whole; give all of {group}, or switch heads off with mask_heads"
            )


def _check_shared(model: nn.Module, chosen: Mapping[AttentionLayer, set[int]]) -> None:
    """Check that layers which share weights lose the same heads."""
    by_key = {layer.key: removed for layer, removed in chosen.items()}
    for layer, removed in chosen.items():
        for other in every_layer(model, layer.kind):
            if other.module is layer.module and by_key.get(other.key) != removed:
                raise ValueError(
                    f"{layer!r} and {other!r} share their weights and can only lose the same heads, not "
                    f"{sorted(removed)} and {sorted(by_key.get(other.key, ()))}; mask_heads tells them apart"
                )


def _forward_without_heads(
    module: nn.Module, projection: nn.Module | None, cross: bool, *args: Any, **kwargs: Any
) -> Any:
    """Compute what an attention layer without heads gives: the bias of its output projection, or nothing."""
    hidden: Tensor = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
    if not cross:
        _count_tokens(module, hidden, *args, **kwargs)
    if projection is None or all(part is not projection for part in module.modules()):
        output = hidden.new_zeros(*hidden.shape[:-1], 0)
    else:
        bias: Any = projection.bias
        output = torch.zeros_like(hidden) if bias is None else bias.to(hidden).repeat(*hidden.shape[:-1], 1)
        norm = getattr(module, "LayerNorm", None)  # ALBERT adds and normalises inside its attention
        output = output if norm is None else norm(hidden + output)
    values = RETURNED.get(type(module).__name__, 2)
    return (output, *(None,) * (values - 1)) if values else output


def _count_tokens(module: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> None:
    """Put one small key for each token into the cache: models ask its first layer how many tokens there were."""
    from transformers import Cache

    given = next((value for value in (*args, *kwargs.values()) if isinstance(value, Cache)), None)
    index = next((getattr(module, name) for name in ("layer_idx", "layer_id") if hasattr(module, name)), None)
    if given is not None and index is not None:
        cache: Cache = getattr(given, "self_attention_cache", given)  # an encoder-decoder has two
        keys = hidden.new_ones(len(hidden), 1, hidden.shape[1], 1)
        cache.update(keys, keys, index, {"cache_position": kwargs.get("cache_position")})


def _record(model: nn.Module) -> None:
    """Write into the config of every transformers model inside `model` which heads are gone."""
    from transformers import PreTrainedModel

    owners: list[PreTrainedModel] = []
    for module in model.modules():
        inside = any(module is part for owner in owners for part in owner.modules())
        if isinstance(module, PreTrainedModel) and not inside:
            owners.append(module)
    for owner in owners:
        pruned = _pruned(owner) if any(hasattr(module, "kept_heads") for module in owner.modules()) else None
        if (getattr(owner.config, _RECORD, None) or None) != pruned:
            _copy_config(owner)
            vars(owner.config).pop(_RECORD, None)
            if pruned is not None:
                owner.config.pruned_heads = pruned


def _copy_config(model: PreTrainedModel) -> None:
    """Give a model a copy of its config: other models may have been built from the same one."""
    from transformers import PreTrainedConfig

    copies: dict[int, Any] = {}
    copy.deepcopy(model.config, copies)  # with the configs inside it
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, PreTrainedConfig) and id(value) in copies:
                vars(module)[name] = copies[id(value)]


def _pruned(model: nn.Module) -> dict[str, list[int]]:
    """Return the heads that are gone, by layer, as a config records them."""
    kept = {name: layer.kept for name, layer in _named_layers(model).items()}
    return {name: sorted(set(range(k.of)) - set(k.indices)) for name, k in kept.items() if k}


def _named_layers(model: nn.Module) -> dict[str, AttentionLayer]:
    """Return all layers of a model, cross-attention included, by their names in a config's record."""
    layers = every_layer(model)
    with suppress(ValueError):  # no cross-attention
        layers += every_layer(model, "cross")
    return {f"{layer.kind}.{layer.index}": layer for layer in layers}


def save_pruned(model: PreTrainedModel, path: str | os.PathLike[str], **options: Any) -> Path:
    """Save a pruned model with transformers' own `save_pretrained`; `load_pruned` reads it.

    config.json has the heads that are gone as `pruned_heads`, {"encoder.0": [1, 3]}, by original indices.

    Args:
        model: a model of transformers, pruned or not.
        path: the folder; made if it is missing.
        options: of `save_pretrained`: `max_shard_size` ...

    Returns:
        The folder.

    Raises:
        TypeError: `model` is no transformers model, or `path` is no path.
        ValueError: `path` is a file, or a folder that cannot be made.
        OSError: the files cannot be written, as on a full disk; the message has the folder.
    """
    from transformers import PreTrainedModel

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
    with saving(path):
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
        ValueError: the config has no known architecture, or records heads that the model cannot have lost; or
            `trust_remote_code` is asked for.
        ResultFileError: a file is damaged or missing.
        RuntimeError: the weights are not those of a model without these heads (transformers' own report).
    """
    import transformers

    if options.get("trust_remote_code"):
        raise ValueError("trust_remote_code=True: load_pruned never runs a folder's own code; leave it out")
    if not (checked_path(path) / "config.json").is_file():
        raise FileNotFoundError(f"no pruned model in {str(path)!r}: it has no config.json")
    with _whole(path):
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    names = config.architectures or []
    kind: Any = getattr(transformers, names[0], None) if names else None
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        raise ValueError(f"{str(path)!r} names {names} as its architecture, which transformers does not have")
    pruned = getattr(config, _RECORD, None) or {}

    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)
        prune_heads(self, _heads_of(self, pruned)) if pruned else None

    # from_pretrained builds the class it is called on: the heads go before the weights come.
    cut = type(kind.__name__, (kind,), {"__init__": build, "__module__": kind.__module__})
    with _whole(path):
        loaded: Any = cut.from_pretrained(path, **options | {"local_files_only": True})  # type: ignore[attr-defined]
    model = loaded[0] if isinstance(loaded, tuple) else loaded  # output_loading_info=True
    model.__class__ = kind
    return loaded  # type: ignore[no-any-return]


@contextmanager
def _whole(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Name the folder in errors about damaged or missing files."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise ResultFileError(f"{str(folder)!r} holds no whole model: {error}") from error


def _heads_of(model: nn.Module, pruned: Mapping[str, list[int]]) -> list[tuple[AttentionLayer, int]]:
    """Return the heads that a config's record names.

    Raises:
        ValueError: the record is damaged, or another model's.
    """
    lists = pruned.values() if isinstance(pruned, Mapping) else [None]
    if not all(isinstance(heads, list) and all(type(head) is int for head in heads) for heads in lists):
        raise ValueError(f"the config's {_RECORD} must be {{'encoder.0': [heads]}}, got {pruned!r}")
    layers = _named_layers(model)
    unknown = sorted(set(pruned) - set(layers))
    if unknown:
        raise ValueError(f"the config's {_RECORD} name {unknown}; the model has {sorted(layers)}")
    return [(layers[name], head) for name, heads in pruned.items() for head in heads]
