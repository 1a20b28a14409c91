"""Relevance through attention, with gradients (Chefer, Gur, Wolf: "Generic Attention-model Explainability for
Interpreting Bi-Modal and Encoder-Decoder Transformers", ICCV 2021, equations 5 and 6).

    R = I;   of each layer, from the first to the last,   R <- R + mean over heads of (A * dF/dA)+ @ R

R_ij is what query i has gathered of token j. Kept are the rows of the queries that the output reads, without their I:
one map for all layers and heads.
"""

from __future__ import annotations

import torch

from captum_attattr.attribution.methods.gradient_attention import gradient_attention
from captum_attattr.attribution.methods.maps import Maps, Request
from captum_attattr.attribution.methods.reading import read_rows


def chefer(request: Request) -> Maps:
    """Return the relevance of each token, one map (B, 1, T, T)."""
    scored = gradient_attention(request)
    maps = scored.attributions
    identity = torch.eye(maps[0].shape[-1], dtype=maps[0].dtype)
    relevance = identity.expand(len(maps[0]), -1, -1)
    for map_ in maps:
        relevance = relevance + map_.clamp(min=0).mean(1) @ relevance
    return Maps([read_rows(relevance - identity, maps[-1])[:, None]], scored.output, [], scored.rows)
