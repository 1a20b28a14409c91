"""A model whose blocks are on two devices, as `device_map="auto"` loads it: accelerate's hooks move what passes."""

from __future__ import annotations

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch import nn


def shard(model: nn.Module, device: torch.device | str, first: tuple[str, ...]) -> nn.Module:
    """Move all modules but the first, and what holds those, to another device.

    `dispatch_model` does the same, of devices that accelerate knows.
    """
    own = next(model.parameters()).device
    for name, module in model.named_modules():
        if any(f"{name}.".startswith(f"{part}.") for part in first):
            add_hook_to_module(module, AlignDevicesHook(own))
        elif name and not any(part.startswith(f"{name}.") for part in first):
            add_hook_to_module(module.to(device), AlignDevicesHook(device))
    add_hook_to_module(model, AlignDevicesHook(own))
    return model
