"""Attention itself as a score, as most pictures of attention have it: where a head looks, not what that does."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_attattr.attribution.methods.maps import Maps, Request, room
from captum_attattr.model.attention_control import LayerCall


def attention(request: Request) -> Maps:
    """Return the attention probabilities A of every layer, (B, H, T, T)."""
    with request.chunks() as (sweep, each):
        maps = room(sweep)
        output = torch.zeros(sweep.batch, dtype=maps[0].dtype, device="cpu")

        def run(examples: range) -> None:
            def read(layer: int, call: LayerCall) -> None:
                every = torch.arange(len(call.tensor), device=call.tensor.device)
                maps[layer][examples.start : examples.stop] = call.attention(every).to(maps[layer])

            outputs: Tensor = sweep.read(examples, read)
            output[examples.start : examples.stop] = outputs.to(output)

        each(run)
    return Maps(maps, output, maps if request.keep_attention else [], sweep.batch)
