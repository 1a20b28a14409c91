"""The device that the tests' models and their inputs are on: `python -m pytest --device cuda`."""

from __future__ import annotations

from typing import Any

import second_device
import torch
from torch import nn

_chosen = torch.device("cpu")


def choose(name: str) -> None:
    """Take the device that `--device` names, before any test module is read."""
    global _chosen
    if name == second_device.NAME:
        second_device.install()
    torch.empty(1, device=name)  # raises where there is no such device
    _chosen = torch.device(name)


def chosen() -> torch.device:
    return _chosen


def place(what: Any) -> Any:
    """A model, a tensor or a dictionary of tensors on the chosen device; a model itself is moved."""
    if isinstance(what, dict):
        return {name: place(value) for name, value in what.items()}
    return what.to(_chosen) if isinstance(what, (nn.Module, torch.Tensor)) else what
