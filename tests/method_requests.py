"""Requests for methods of attribution: a tiny model of a family, its inputs, and a probability."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from families import FAMILIES
from torch import Tensor, nn

from captum_attattr import attention_layers
from captum_attattr.attribution.inputs import make_batch
from captum_attattr.attribution.methods.maps import Request

FAMILY = {family.name: family for family in FAMILIES}


def first_class(model: nn.Module, keys: list[str]) -> Callable[..., Tensor]:
    """F: the probability of the first class, or of the first token at the first position."""

    def forward(*tensors: Tensor) -> Tensor:
        return model(**dict(zip(keys, tensors, strict=True)))[0].flatten(1).softmax(-1)[:, 0]

    return forward


def family_request(name: str, batch: int = 2, wide: bool = True, kind: str | None = None, **options: Any) -> Request:
    """Two sentences with two tokens of padding; in float64, unless the family computes in float32 alone."""
    torch.manual_seed(0)
    model = FAMILY[name].build()
    inputs = FAMILY[name].inputs(batch, 2)
    if wide:
        model = model.double()
        inputs = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    return model_request(model, inputs, kind=kind, **options)


def model_request(
    model: nn.Module,
    inputs: dict[str, Tensor],
    forward: Callable[..., Tensor] | None = None,
    kind: str | None = None,
    **options: Any,
) -> Request:
    """A request for a model with these inputs."""
    forward = forward or first_class(model, list(inputs))
    layers = attention_layers(model, kind)
    return Request(layers, make_batch(forward, tuple(inputs.values()), None, None), **options)
