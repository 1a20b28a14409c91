"""Models whose answer is known: there every gradient method is exact, and other people's measures say so."""

from __future__ import annotations

import pytest
import torch
from captum.metrics import infidelity
from torch import Tensor
from toy import CLS, SEP, LinearInAttention

from captum_attattr import LayerAttAttr, attention_layers
from captum_attattr.attribution.inputs import make_batch
from captum_attattr.attribution.methods.maps import Request
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.evaluation.measures import correlations

IDS = torch.tensor([[CLS, 5, 7, 9, 11, SEP], [CLS, 8, 6, 20, 13, SEP]])


def scores_of(model: LinearInAttention, method: str) -> list[Tensor]:
    layers = attention_layers(model.bert)
    entry = ATTRIBUTIONS[method]
    if entry.maps:
        return entry.maps(Request(layers, make_batch(model, IDS, None, 1))).attributions
    path = "joint" if method == "attattr_joint" else "layer"
    return list(LayerAttAttr(model, layers).integrate(IDS, target=1, path=path).attributions)


@pytest.mark.parametrize("method", ["attattr", "attattr_joint", "gradient_attention"])
def test_scores_are_the_exact_effects_of_a_linear_model(method):
    model = LinearInAttention(layers=2)
    lattr = LayerAttAttr(model, attention_layers(model.bert))
    attention = lattr.attention(IDS)
    whole = model(IDS)[:, 1]
    scores = scores_of(model, method)
    generator = torch.Generator().manual_seed(0)
    removed, effects = [], []
    for _ in range(30):  # sets of edges: what is removed adds up
        gates = [(torch.rand(a.shape, generator=generator) > 0.3).float() for a in attention]
        without = lattr.attention_forward(*(a * gate for a, gate in zip(attention, gates, strict=True)), IDS)[:, 1]
        lost = sum((s * (1 - gate)).sum((1, 2, 3)) for s, gate in zip(scores, gates, strict=True))
        torch.testing.assert_close(whole - without, lost, rtol=0, atol=1e-5)
        removed.append(lost)
        effects.append(whole - without)
    spearman, pearson = correlations(torch.cat(removed).detach(), torch.cat(effects).detach())
    assert spearman > 0.999
    assert pearson > 0.999


def test_captum_finds_no_infidelity_in_a_linear_model():
    model = LinearInAttention(layers=2)
    lattr = LayerAttAttr(model, attention_layers(model.bert))
    attention = lattr.attention(IDS)

    def perturb(*given: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        tensors = given[0] if isinstance(given[0], tuple) else given[: len(attention)]
        closed = tuple(a * (torch.rand(a.shape) < 0.2) for a in tensors)
        return closed, tuple(a - c for a, c in zip(tensors, closed, strict=True))

    for method, small in {"gradient_attention": True, "attention": False}.items():
        # Captum multiplies by what was taken away: the scores without the factor A.
        per_unit = tuple(
            torch.where(a > 0, s / a, torch.zeros_like(a))
            for s, a in zip(scores_of(model, method), attention, strict=True)
        )
        torch.manual_seed(0)
        found = infidelity(
            lattr.attention_forward,
            perturb,
            attention,
            per_unit,
            additional_forward_args=IDS,
            target=1,
            n_perturb_samples=8,
        )
        assert (found < 1e-8).all() == small
