"""The trained weights of a classifier: which weights are trained, and one small file that holds only them."""

import json
import os
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from transformers import PreTrainedModel

from common.atomic_files import write_bytes
from common.low_rank import add_low_rank

TRAINABLE = ("all", "bias", "lora")
_UPDATE = ".parametrizations.weight.0."


def choose_trainable(model: PreTrainedModel, which: str, rank: int, scale: float) -> None:
    """Freeze all weights but the chosen ones; pooler and classifier are always trained.

    Args:
        model: the classifier, changed in place.
        which: ``"all"`` weights, every ``"bias"`` and LayerNorm, or a ``"lora"`` update
            ``W + scale * B @ A`` of every linear map of the encoder.
        rank: the rank of the updates, used with ``"lora"`` only.
        scale: the factor of the updates, used with ``"lora"`` only.

    Raises:
        ValueError: ``which`` is unknown, or the rank does not fit the maps.
    """
    if which not in TRAINABLE:
        raise ValueError(f"cannot train {which!r}; choose from {', '.join(TRAINABLE)}")
    encoder = {name: module for name, module in model.named_modules() if not _in_head(model, name)}
    if which != "all":
        for module in encoder.values():
            for name, parameter in module.named_parameters(recurse=False):
                bias = name == "bias" or isinstance(module, nn.LayerNorm)
                parameter.requires_grad_(which == "bias" and bias)
    if which == "lora":
        add_low_rank([module for module in encoder.values() if isinstance(module, nn.Linear)], rank, scale)


def _in_head(model: PreTrainedModel, module: str) -> bool:
    """Return whether a module is part of pooler or classifier, which are always trained."""
    path = module.split(".")
    return path[0] != model.base_model_prefix or "pooler" in path


def round_to_half(model: nn.Module) -> None:
    """Round the trained weights to half precision, so that what is measured is what `save_trained` stores.

    Args:
        model: changed in place; the weights keep their data type.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(parameter.half())


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copy the trained weights in half precision.

    Args:
        model: a model after `choose_trainable`, its low-rank updates not merged.

    Returns:
        The weights by name; the update of weight W is under the names ``W.A`` and ``W.B``.
    """
    return {
        name.replace(_UPDATE, ".weight."): parameter.detach().half().cpu().contiguous().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def save_trained(tensors: dict[str, Tensor], file: str | os.PathLike[str], training: dict[str, Any]) -> None:
    """Write trained weights to one safetensors file.

    Args:
        tensors: what `trained_tensors` returned.
        file: the file to write or replace; its folder is made if missing.
        training: how they were trained, JSON-serialisable; `load_trained` needs ``"scale"`` of the updates.
    """
    write_bytes(file, save(tensors, metadata={"format": "pt", "about": json.dumps(training)}))


def read_training(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read how the weights of a file were trained, from the header that `save_trained` wrote.

    Args:
        file: a safetensors file.

    Returns:
        The ``training`` that `save_trained` was given.

    Raises:
        ValueError: the file is missing or was not written by `save_trained`.
    """
    try:
        with safe_open(file, "pt") as stored:
            return dict(json.loads(stored.metadata()["about"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{str(file)!r} is no file of trained weights: {error!r}") from error


def load_trained(model: nn.Module, file: str | os.PathLike[str]) -> None:
    """Put the trained weights of a file into a plain model, ``W + scale * B @ A`` for low-rank updates.

    Args:
        model: the classifier before training, without parametrizations; changed in place.
        file: a file that `save_trained` wrote.

    Raises:
        ValueError: the file was not written by `save_trained`, or does not fit the model.
    """
    scale = read_training(file)["scale"]
    parameters = dict(model.named_parameters())
    with safe_open(file, "pt") as stored:
        # keys() is the only way to iterate over a safetensors file.
        tensors = {name: stored.get_tensor(name).float() for name in stored.keys()}  # noqa: SIM118
    plain = {name: value for name, value in tensors.items() if not name.endswith((".A", ".B"))}
    names = [name.removesuffix(".A") for name in tensors if name.endswith(".A")]
    updates = {name: scale * (tensors[f"{name}.B"] @ tensors[f"{name}.A"]) for name in names}
    for name, value in (plain | updates).items():
        if name not in parameters or parameters[name].shape != value.shape:
            raise ValueError(f"{str(file)!r}: {name!r} of shape {tuple(value.shape)} does not fit the model")
    with torch.no_grad():
        for name, value in plain.items():
            parameters[name].copy_(value)
        for name, value in updates.items():
            parameters[name].add_(value)
