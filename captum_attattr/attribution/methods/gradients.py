"""Gradients of F by the attention of layers, checked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_attattr.model.attention_layers import AttentionLayer


def gradients(outputs: Tensor, attention: Sequence[Tensor], layers: Sequence[AttentionLayer]) -> tuple[Tensor, ...]:
    """Return dF by each of these layers' attention; zeros for a layer that F does not depend on.

    Raises:
        ValueError: F carries no gradient to any of them, or one that is not finite.
    """
    if not outputs.requires_grad:
        raise ValueError(
            f"forward_func's output carries no gradient to the attention of {layers[-1]!r}; leave .detach() and "
            "torch.no_grad() out of forward_func, and layers that it does not depend on out of layers"
        )
    # Weights, not outputs.sum(): the caller may be under torch.no_grad.
    found = torch.autograd.grad(
        outputs, list(attention), torch.ones_like(outputs), allow_unused=True, materialize_grads=True
    )
    for layer, gradient in zip(layers, found, strict=True):
        if not bool(torch.isfinite(gradient).all()):
            raise ValueError(f"the gradient of forward_func's output to {layer!r} is not finite")
    return found
