"""The start B of the path, in attention space: zeros, a number, uniform attention, or tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_attattr.attribution.sweep import Baseline


def check_attention_baselines(given: Any, layers: int) -> None:
    """Check the form; shapes are checked once they are known.

    Raises:
        TypeError, ValueError: not None, a number, "uniform" or one tensor per layer.
    """
    if given is None or (isinstance(given, (int, float)) and not isinstance(given, bool)):
        return
    if isinstance(given, str):
        if given != "uniform":
            raise ValueError(f"attention_baselines={given!r} is unknown; use 'uniform', a number or tensors")
        return
    tensors = given if isinstance(given, (list, tuple)) else [given]
    if not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise TypeError("attention_baselines must be None, a number, 'uniform' or one tensor per layer")
    if len(tensors) != layers:
        raise ValueError(f"{len(tensors)} attention_baselines for {layers} layers")


def check_baseline_shapes(given: Any, batch: int, shapes: list[torch.Size]) -> None:
    """Check tensors against the attention's shapes (H, Tq, Tk).

    Raises:
        ValueError: a shape that does not broadcast to (B, H, Tq, Tk).
    """
    if given is None or isinstance(given, (str, int, float)):
        return
    for i, (tensor, shape) in enumerate(zip(given if not isinstance(given, Tensor) else [given], shapes, strict=True)):
        full = (batch, *shape)
        if tensor.dim() != 4 or any(m not in (1, n) for m, n in zip(tensor.shape, full, strict=True)):
            raise ValueError(
                f"attention_baselines[{i}] has shape {tuple(tensor.shape)}; (B, H, Tq, Tk) = {full} is needed, "
                "1 where it is the same"
            )


def baseline(given: Any) -> Baseline:
    """The path's start for a layer's rows."""
    if given is None:
        return lambda *_: 0.0
    if isinstance(given, (int, float)):
        return lambda *_: float(given)
    if isinstance(given, str):
        return lambda layer, attention, examples: _uniform(attention)
    tensors = [given] if isinstance(given, Tensor) else list(given)

    def rows(layer: int, attention: Tensor, examples: Tensor) -> Tensor:
        tensor = tensors[layer].to(attention)
        return tensor if tensor.shape[0] == 1 else tensor[examples.to(tensor.device)]

    return rows


def _uniform(attention: Tensor) -> Tensor:
    """The same weight on every key that is attended to at all: masked keys have exactly none."""
    seen = (attention > 0).to(attention.dtype)
    return seen * attention.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1)
