"""Gradient x attention: what a small change of an edge would do, times what is there.

    Score_lh = (A_lh - B_lh) * dF/dA_lh

The integrand of the attribution at its last node, a = 1, of all layers at once: one forward and one backward. It is
exact where F is linear in the attention, and blind to saturation where it is not. (Attention times its gradient, B = 0:
Serrano and Smith, "Is Attention Interpretable?", ACL 2019.)
"""

from __future__ import annotations

import torch

from captum_attattr.attribution.methods.maps import Maps, Request, room
from captum_attattr.attribution.rows import ALL, Row


def gradient_attention(request: Request) -> Maps:
    """Return (A - B) dF/dA of every layer, (B, H, T, T)."""
    with request.chunks() as (sweep, each):
        maps, attention = room(sweep), room(sweep) if request.keep_attention else []
        output = torch.zeros(sweep.batch, dtype=maps[0].dtype, device="cpu")

        def run(examples: range) -> None:
            chunk = sweep.run([Row(example, ALL, 1.0) for example in examples])
            values = chunk.layers[ALL]
            sizes = [map_[0].numel() for map_ in maps]
            for row, index in enumerate(values.rows):
                for map_, part in zip(maps, torch.split(values.values[row], sizes), strict=True):
                    map_[examples[index]].copy_(part.view_as(map_[0]))
            for example, matrices in chunk.attention.items():
                for kept, matrix in zip(attention, matrices, strict=True):
                    kept[example].copy_(matrix)
            output[examples.start : examples.stop] = chunk.outputs.to(output)

        each(run)
    return Maps(maps, output, attention, sweep.batch)
