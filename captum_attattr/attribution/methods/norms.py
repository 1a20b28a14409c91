"""Normalisation as a linear map: all of it is linear but the division by the size of what is normalised.

    norm(x) = w * (x - mean(x)) / sigma(x) + b      (LayerNorm; RMSNorm has neither the mean nor b)

With sigma(x) held, the norm of a sum is the sum of what it makes of each part. Which of the two a module is, if it is
one at all, is told by what it computes, not by its name.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

ROUNDINGS = 100
"""By which a module's output may differ from the formula, relative to its largest entry; .05 at most."""


class LinearNorm(NamedTuple):
    """A norm at some x (..., d), without its b."""

    weight: Tensor
    """(d,)"""
    scale: Tensor
    """(..., 1) 1 / sigma of each x."""
    centred: bool

    def __call__(self, part: Tensor, scale: Tensor | None = None) -> Tensor:
        """Return what the norm makes of a part of x, or of parts of x at those places whose scales are given."""
        part = part - part.mean(-1, keepdim=True) if self.centred else part
        return self.weight * part * (self.scale if scale is None else scale)


@torch.no_grad()
def linear_norm(module: nn.Module, given: Tensor, output: Tensor) -> LinearNorm | None:
    """Return the norm that a module has computed of `given`, both (..., d); None where it computed something else."""
    dtype = torch.promote_types(given.dtype, torch.float32)
    weight, bias = (getattr(module, name, None) for name in ("weight", "bias"))
    x, y = given.to(dtype), output.to(dtype)
    ones = x.new_ones(x.shape[-1])
    if (
        x.shape != y.shape
        or torch.equal(x, y)
        or any(isinstance(p, Tensor) and p.shape != ones.shape for p in (weight, bias))
    ):
        return None
    weights = [weight.to(x), 1 + weight.to(x)] if isinstance(weight, Tensor) else [ones]
    straight = y - bias.to(x) if isinstance(bias, Tensor) else y
    best, least = None, float("inf")
    for w in weights:
        for centred in (True, False):
            direction = w * (x - x.mean(-1, keepdim=True) if centred else x)
            size = direction.square().sum(-1, keepdim=True)
            scale = (direction * straight).sum(-1, keepdim=True) / size.clamp_min(torch.finfo(dtype).tiny)
            error = float((scale * direction - straight).abs().max())
            if error < least:
                best, least = LinearNorm(w, scale, centred), error
    # Many norms compute in float32 whatever they are given.
    tolerance = min(ROUNDINGS * max(torch.finfo(kind).eps for kind in (output.dtype, torch.float32)), 0.05)
    return best if least <= tolerance * float(y.abs().max()) else None
