"""Attention rollout (Abnar, Zuidema: "Quantifying Attention Flow in Transformers", ACL 2020).

    R = product over layers, the last one leftmost, of (mean over heads of A + I) / 2

R_ij is the share of token j in query i if attention mixed the tokens and nothing else did. It knows nothing of the
output; gradients tell only which queries the output reads, whose rows are kept: one map for all layers and heads.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from captum_attattr.attribution.methods.gradient_attention import gradient_attention
from captum_attattr.attribution.methods.maps import Maps, Request
from captum_attattr.attribution.methods.reading import read_rows


def rollout(request: Request) -> Maps:
    """Return the share of each token, one map (B, 1, T, T)."""
    scored = gradient_attention(replace(request, keep_attention=True))
    first = scored.attention[0]
    identity = torch.eye(first.shape[-1], dtype=first.dtype)
    share = identity.expand(len(first), -1, -1)
    for matrix in scored.attention:
        share = (matrix.mean(1) + identity) / 2 @ share
    return Maps([read_rows(share, scored.attributions[-1])[:, None]], scored.output, [], scored.rows)
