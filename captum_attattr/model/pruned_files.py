"""Pruned models saved and loaded, through transformers' own files."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import nn

from captum_attattr.checks import checked_arguments, nearest
from captum_attattr.exceptions import ResultFileError, UnsupportedModelError, warn_caller
from captum_attattr.files import checked_path, replacing_files
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.model.head_adapters import HOWS
from captum_attattr.model.head_cuts import assign
from captum_attattr.model.head_masks import selected_heads
from captum_attattr.model.head_pruning import cut_by_name, finish
from captum_attattr.model.modes import plain
from captum_attattr.model.plain_model import plain_model
from captum_attattr.model.projections import Heads
from captum_attattr.model.pruning_record import LAYOUTS, RECORD, Layout, named_layers, record
from captum_attattr.model.wrappers import unwrapped

if TYPE_CHECKING:
    from transformers import PreTrainedModel


FORMATS = ("captum_attattr", "transformers")


@checked_arguments
def save_pruned(
    model: PreTrainedModel,
    path: str | os.PathLike[str],
    *,
    format: str = "captum_attattr",  # noqa: A002
    **options: Any,
) -> Path:
    """Save a pruned model with transformers' own `save_pretrained`.

    Args:
        model: a model of transformers, pruned or not.
        path: the folder; made if it is missing. All files are written beside it first: on a full disk the old ones
            are left. Other files in the folder stay.
        format: "captum_attattr": the small weights, which `load_pruned` reads; config.json has the heads that are gone
            as `pruned_heads`, {"encoder.0": [1, 3]}, by original indices. "transformers": a folder that plain
            `from_pretrained` and `pipeline` read, without this package. There all layers have one count of heads:
            that of the layer with the most where the config has `head_dim`, else that of the original model. Places
            without a head are zeros, so that the output is the same; a warning says what that adds.
        options: of `save_pretrained`: `max_shard_size` ...

    Returns:
        The folder.

    Raises:
        TypeError: `model` is no transformers model, or `path` is no path; `save_pretrained` has no such option.
        ValueError: `path` is a file, or a folder that cannot be made; an unknown format; adapters that are not merged.
        UnsupportedModelError: `format="transformers"`, and no such model gives what this one gives; or the default
            format, and `load_pruned` could not build the model: its class, or that of an attention layer, is one's own.
        OSError: the files cannot be written to the end; the message has the path.
    """
    from transformers import PreTrainedModel

    model = plain(model)
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a transformers model{_inside(model)}, got {type(model).__name__}")
    if any(kind.__name__ == "BaseTunerLayer" for part in model.modules() for kind in type(part).__mro__):
        raise ValueError(f"{type(model).__name__} has adapters (peft): merge them first, model.merge_and_unload()")
    if format not in FORMATS:
        raise ValueError(f"format={format!r} is unknown; use one of {FORMATS}")
    _check_options(model, options)
    if format == "captum_attattr":
        _check_rebuilt(model)
    if options.get("push_to_hub"):
        options = {"repo_id": Path(path).name} | options  # transformers takes the name of the folder it writes to
    record(model)  # the config may be that of another model
    saved = model if format == "captum_attattr" else plain_model(model)
    with replacing_files(path) as temporary:
        try:
            saved.save_pretrained(temporary, **options)
        except SafetensorError as error:  # a full disk, without its number
            raise OSError(f"{str(path)!r} cannot be written: {error}") from error
    if saved is not model:
        ours, theirs = (sum(parameter.numel() for parameter in each.parameters()) for each in (model, saved))
        if theirs > ours:
            warn_caller(
                f"{str(path)!r} has {theirs:,} parameters, the pruned model {ours:,}: a config of "
                f"{type(model).__name__} has one count of heads for all layers, and the places without a head are zeros"
            )
    return Path(path)


def _check_rebuilt(model: PreTrainedModel) -> None:
    """Check that `load_pruned`, which has the config alone, builds the layers that a pruned model has.

    Raises:
        UnsupportedModelError: it does not: the folder would be refused, or would be another model.
    """
    import transformers

    ours = named_layers(model)
    if not any(layer.kept for layer in ours.values()):
        return
    kind = type(model)
    if getattr(transformers, kind.__name__, None) is not kind:
        raise UnsupportedModelError(
            f"load_pruned builds classes of transformers, and {kind.__name__} is not one: give format='transformers', "
            f"which {kind.__name__}.from_pretrained reads"
        )
    with torch.random.fork_rng([]), torch.device("meta"):
        theirs = named_layers(kind(copy.deepcopy(model.config)))
    for name, layer in ours.items():
        own, built = type(layer.module), type(theirs[name].module) if name in theirs else None
        if own is not built:
            raise UnsupportedModelError(
                f"{layer!r} is a {own.__name__}, and load_pruned, which builds a {kind.__name__} from its config, "
                f"makes {f'a {built.__name__}' if built else 'no layer'} there: the folder would be another model. "
                "Keep the state_dict, and load it into a model that was pruned in the same way"
            )


def _check_options(model: PreTrainedModel, options: Mapping[str, Any]) -> None:
    """Check that `save_pretrained` knows every option: it takes a misspelt one, and does nothing with it.

    Raises:
        TypeError: it does not know one.
    """
    from transformers import PreTrainedModel

    takers: Any = (save_pruned, PreTrainedModel.save_pretrained, model.save_pretrained, model.push_to_hub)
    known = {name for taker in takers for name in inspect.signature(taker).parameters}
    known -= {"model", "path", "self", "options", "kwargs", "save_directory"}
    known |= {"safe_serialization"}  # of transformers 4
    if unknown := [name for name in options if name not in known]:
        raise TypeError(f"save_pruned has no argument {unknown[0]!r}{nearest(unknown[0], known)}")


def _inside(model: Any) -> str:
    """Return what an error says of a wrapper: that the model inside of it is wanted."""
    from transformers import PreTrainedModel

    return ", as the one inside of it" if isinstance(unwrapped(model), PreTrainedModel) else ""


@checked_arguments
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
    pruned = getattr(config, RECORD, None) or {}

    def build(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__(self, *args, **kwargs)
        _restore(self, pruned, getattr(config, LAYOUTS, None) or {}) if pruned else None

    # from_pretrained builds the class it is called on: the heads go before the weights come.
    cut = type(kind.__name__, (kind,), {"__init__": build, "__module__": kind.__module__})
    with _whole(path):
        loaded: Any = cut.from_pretrained(path, **options | {"local_files_only": True})  # type: ignore[attr-defined]
    model = loaded[0] if isinstance(loaded, tuple) else loaded  # output_loading_info=True
    model.__class__ = kind
    return loaded  # type: ignore[no-any-return]


def _restore(model: Any, pruned: Mapping[str, list[int]], layouts: Any) -> None:
    """Cut a fresh model to the sizes that a config records; its weights come later.

    Raises:
        ValueError: the record is damaged, or another model's.
    """
    heads = _heads_of(model, pruned)
    if not isinstance(layouts, Mapping):
        raise ValueError(f"the config's {LAYOUTS} must be {{'encoder.0': {{...}}}}, got {layouts!r}")
    layers = named_layers(model)
    known = [(layer, head) for layer, head in heads if all(layers.get(name) is not layer for name in layouts)]
    for name, entry in layouts.items():
        if name not in layers:
            raise ValueError(f"the config's {LAYOUTS} name {name!r}; the model has {sorted(layers)}")
        _resize(model, layers[name], name, pruned.get(name, []), entry)
    if known:
        cut_by_name(model, selected_heads(model, known))
    else:
        record(model)


def _resize(model: Any, layer: AttentionLayer, name: str, gone: list[int], entry: Any) -> None:
    """Give one layer parameters of the sizes that a config records.

    Raises:
        ValueError: the record does not fit the layer or the heads.
    """
    if not (isinstance(entry, Mapping) and entry.keys() == {"how", "shapes"} and entry["how"] in HOWS):
        raise ValueError(f"the config's {LAYOUTS} of {name} must have 'how' and 'shapes', got {entry!r}")
    heads = Heads(layer)
    if unknown := sorted(set(gone) - set(heads.indices)):
        raise ValueError(f"head {unknown[0]} of layer {name} is out of range: it has heads 0 to {heads.count - 1}")
    keep = [head for head in heads.indices if head not in gone]
    parts: Any = {"output": heads.output}
    for path, shape in entry["shapes"].items():
        owner_path, _, own = path.rpartition(".")
        owner = parts.get(owner_path) or dict(layer.module.named_modules()).get(owner_path)
        old = getattr(owner, own, None)
        if not isinstance(old, torch.nn.Parameter):
            raise ValueError(f"the config's {LAYOUTS} of {name} have {path!r}, and the layer has no such parameter")
        fits = isinstance(shape, list) and len(shape) == old.dim()
        if not fits or any(type(n) is not int or not 0 <= n <= m for n, m in zip(shape, old.shape, strict=True)):
            raise ValueError(
                f"the config's {LAYOUTS} of {name} give {path!r} the shape {shape!r}, of {list(old.shape)}"
            )
        if list(old.shape) != shape:
            assign(owner, own, torch.nn.Parameter(old.detach().new_empty(shape), requires_grad=old.requires_grad))
    if heads.left != len(keep):
        raise ValueError(f"the config's {LAYOUTS} of {name} leave {heads.left} heads, its {RECORD} {len(keep)}")
    finish(model, heads, keep, entry["how"])
    module: Any = layer.module
    module.pruned_layout = Layout(entry["how"], dict(entry["shapes"]))


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
        raise ValueError(f"the config's {RECORD} must be {{'encoder.0': [heads]}}, got {pruned!r}")
    layers = named_layers(model)
    unknown = sorted(set(pruned) - set(layers))
    if unknown:
        raise ValueError(f"the config's {RECORD} name {unknown}; the model has {sorted(layers)}")
    return [(layers[name], head) for name, heads in pruned.items() for head in heads]
