"""The start B of the path, in attention space: zeros, a number, uniform attention, the sink, or tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_attattr.checks import real

AttentionBaselines = float | str | list[Tensor]
"""A number for every entry, "uniform", "sink", or one tensor per layer."""
Baseline = Callable[[int, Tensor, Tensor, "Tensor | None"], "Tensor | float"]
"""B for (layer, attention (n, H, Tq, Tk), examples (n,), visible keys), of a shape that broadcasts to the attention's.

Visible keys are booleans that broadcast to the attention's shape, None where all are visible.
"""
NAMES = ("uniform", "sink")


def check_attention_baselines(given: Any, layers: int) -> AttentionBaselines:
    """Check the form and return it; shapes are checked once they are known.

    Raises:
        TypeError, ValueError: not None, a finite number, "uniform", "sink" or one tensor per layer.
    """
    if given is None:
        return 0.0
    if (number := real(given)) is not None:
        if not math.isfinite(number):
            raise ValueError(f"attention_baselines={given!r} must be finite")
        return number
    if isinstance(given, str):
        if given not in NAMES:
            raise ValueError(f"attention_baselines={given!r} is unknown; use 'uniform', 'sink', a number or tensors")
        return given
    tensors = list(given) if isinstance(given, (list, tuple)) else [given]
    if not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise TypeError("attention_baselines must be None, a number, 'uniform', 'sink' or one tensor per layer")
    if len(tensors) != layers:
        raise ValueError(f"{len(tensors)} attention_baselines for {layers} layers")
    for i, tensor in enumerate(tensors):
        if tensor.is_complex():
            raise TypeError(f"attention_baselines[{i}] must hold real numbers, not {tensor.dtype}")
        if not tensor.isfinite().all():
            raise ValueError(f"attention_baselines[{i}] has entries that are not finite")
    return tensors


def check_baseline_shapes(baselines: AttentionBaselines, batch: int, shapes: Sequence[torch.Size]) -> None:
    """Check tensors against the attention's shapes (H, Tq, Tk).

    Raises:
        ValueError: a shape that does not broadcast to (B, H, Tq, Tk).
    """
    for i, (tensor, shape) in enumerate(zip(baselines, shapes, strict=True) if isinstance(baselines, list) else ()):
        full = (batch, *shape)
        if tensor.dim() != 4 or any(m not in (1, n) for m, n in zip(tensor.shape, full, strict=True)):
            raise ValueError(
                f"attention_baselines[{i}] has shape {tuple(tensor.shape)}; (B, H, Tq, Tk) = {full} is needed, "
                "1 where it is the same"
            )


def baseline(baselines: AttentionBaselines) -> Baseline | None:
    """Return the path's start as a function of a layer's rows; None for zeros."""
    if isinstance(baselines, float) and baselines == 0:
        return None
    if isinstance(baselines, str):
        return sink if baselines == "sink" else _uniform
    if isinstance(baselines, float):
        return lambda *_: baselines

    def of_rows(layer: int, attention: Tensor, examples: Tensor, visible: Tensor | None) -> Tensor:
        tensor = baselines[layer].to(attention)
        return tensor if tensor.shape[0] == 1 else tensor[examples.to(tensor.device)]

    return of_rows


def _uniform(layer: int, attention: Tensor, examples: Tensor, visible: Tensor | None) -> Tensor:
    """Return the same weight for every key that is attended to at all: masked keys have exactly none."""
    seen = (attention > 0).to(attention.dtype)
    return seen * attention.sum(-1, keepdim=True) / seen.sum(-1, keepdim=True).clamp(min=1)


def sink(layer: int, attention: Tensor, examples: Tensor, visible: Tensor | None) -> Tensor:
    """Return each query's whole mass on the first key that its mask lets it see."""
    mass = attention.sum(-1, keepdim=True)
    if visible is None:
        first = torch.zeros_like(mass, dtype=torch.long)
    else:
        nothing = (~visible.flatten(1).any(1)).nonzero()  # of one mask for all rows, the first stands for them
        if len(nothing):
            raise ValueError(
                f"attention_baselines='sink': no query of example {int(examples[nothing[0, 0]])} sees any key, so "
                "there is no sink; mask less, or leave the example out"
            )
        # A query that is padding itself may see no key; its mass goes to the first, and nothing depends on it.
        first = visible.to(torch.uint8).argmax(-1, keepdim=True).expand_as(mass)
    return torch.zeros_like(attention).scatter(-1, first, mass)
