"""From gradients by what a row replaces to maps of edges.

On the path B + a (A - B) of one layer nothing below the layer changes, its values V neither. So the layer's attention
enters the rest of the model through the context of its heads alone,

    C(a) = B V + a (A - B) V,      dF/dA_h = g_h V_h^T,      g = dF/dC,

and the integral is taken over g, (Tq, H, D), instead of over matrices of queries by keys:

    Attr_h = (A_h - B_h) * ((integral of g_h da) V_h^T).

Where the attention itself is replaced g is dF/dA, and V falls away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_attattr.attribution.baselines import Baseline
from captum_attattr.attribution.quadrature import ROUNDINGS, ArraySpace
from captum_attattr.model.attention_control import LayerCall, times_values

ENTRIES_AT_ONCE = 2**22
"""Entries of maps that are formed together where only their norms are wanted."""


@dataclass(eq=False)
class Edges(ArraySpace):
    """The edges of one layer for n rows, as floats of 32 bits at least.

    Attributes:
        attention: (n, H, Tq, Tk) A.
        difference: (n, H, Tq, Tk) A - B.
        value: (n, Hkv, Tk, D) V; None where the attention itself is replaced.
        start: what is replaced at B, (n, Tq, H, D) or like the attention; a number where it is the same everywhere.
        step: what is replaced at A minus that at B.
        multiply: whether maps carry the factor (A - B).
    """

    attention: Tensor
    difference: Tensor
    value: Tensor | None
    start: Tensor | float
    step: Tensor
    multiply: bool = True

    @classmethod
    @torch.no_grad()
    def of(cls, layer: int, call: LayerCall, rows: Tensor, examples: Tensor, baseline: Baseline | None) -> Edges:
        """Read the edges of a layer's call in some of its rows, which are copies of these examples."""
        rows = rows.to(call.tensor.device)
        attention = call.attention(rows).detach()
        dtype = torch.promote_types(attention.dtype, torch.float32)
        attention = attention.to(dtype)
        value = None if call.value is None else call.value.detach()[rows].to(dtype)
        difference = attention
        if baseline is not None:
            difference = attention - baseline(layer, attention, examples, call.visible(rows))
        if torch.equal(difference, attention):
            return cls(attention, attention, value, 0.0, call.tensor.detach()[rows].to(dtype))
        # A baseline that is the attention itself, read in another batch, differs from it by rounding.
        difference[difference.abs() <= ROUNDINGS * torch.finfo(dtype).eps * attention.abs()] = 0
        start, step = (e if value is None else times_values(e, value) for e in (attention - difference, difference))
        return cls(attention, difference, value, start, step)

    def at(self, nodes: Tensor) -> Tensor:
        """Return what takes the place of the rows at these nodes (k,): of each its own, or of one row all."""
        return self.start + nodes.view(-1, 1, 1, 1).to(self.step) * self.step

    def maps(self, gradients: Tensor) -> Tensor:
        """Return the maps (k, H, Tq, Tk) of gradients by what is replaced."""
        gradients = gradients.to(self.attention.dtype)
        if self.value is None:
            return gradients * self.difference if self.multiply else gradients
        groups = self.value.shape[1], gradients.shape[2] // self.value.shape[1]
        by_group = gradients.transpose(1, 2).reshape(len(gradients), *groups, *gradients.shape[1::2])
        maps: Tensor = by_group.matmul(self.value[:, :, None].transpose(-1, -2)).flatten(1, 2)
        return maps.mul_(self.difference) if self.multiply else maps

    def columns(self, gradients: Tensor) -> Tensor:
        """Return the sums (k, Tk) of the maps of gradients over heads and queries, without forming the maps."""
        gradients = gradients.to(self.difference.dtype)
        if self.value is None:
            return (gradients * self.difference).sum((1, 2))
        by_key = self.difference.transpose(-1, -2).matmul(gradients.transpose(1, 2))  # (k, H, Tk, D)
        groups = self.value.shape[1]
        grouped = by_key.view(len(by_key), groups, -1, *by_key.shape[2:]).sum(2)
        sums: Tensor = (grouped * self.value).sum((1, 3))
        return sums

    def measure(self, values: Sequence[Tensor]) -> list[tuple[float, float]]:
        """Return the norm and the absolute sum of the map of each gradient, of one row's edges."""
        at_once = max(1, ENTRIES_AT_ONCE // self.attention.numel())
        measured = []
        for begin in range(0, len(values), at_once):
            sizes = self.maps(torch.stack(list(values[begin : begin + at_once]))).flatten(1).abs_()
            spread, largest = sizes.sum(1), sizes.amax(1, keepdim=True)
            # Entries whose squares underflow count as well.
            scale = torch.where((largest > 0) & largest.isfinite(), largest, 1.0)
            norms = sizes.div_(scale).square_().sum(1).sqrt_() * scale[:, 0]
            measured += list(zip(norms.tolist(), spread.tolist(), strict=True))
        return measured

    def gain(self, value: Tensor) -> float:
        """Return the sum of a gradient's map, without forming it, of one row's edges."""
        return float((value * self.step[0]).sum())
