"""Random scores: the control that every measure of faithfulness needs.

Uniform numbers from 0 to 1 for the edges whose attention is not 0, and 0 for all others, which do nothing: of a decoder
that is half of them, and a control that wastes half of its choices would flatter every method beside it. They are drawn
anew for each example, from its token ids, so that the same example has the same scores in any batch.
"""

from __future__ import annotations

import zlib

import torch

from captum_attattr.attribution.methods.attention import attention
from captum_attattr.attribution.methods.maps import Maps, Request


def random_scores(request: Request) -> Maps:
    """Return random scores of every layer, (B, H, T, T)."""
    read = attention(request)
    maps = [torch.zeros_like(matrix) for matrix in read.attributions]
    for example, ids in enumerate(request.batch.inputs[0].tolist()):
        generator = torch.Generator("cpu").manual_seed(zlib.crc32(repr(ids).encode()))
        for map_, matrix in zip(maps, read.attributions, strict=True):
            drawn = torch.rand(matrix[example].shape, generator=generator, device="cpu", dtype=torch.float64)
            map_[example] = drawn.to(map_) * (matrix[example] > 0)
    return Maps(maps, read.output, read.attention, read.rows)
