"""ALTI against its formula written out, token by token; where it is not defined, it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from families import HEADS, HIDDEN, LAYERS
from method_requests import FAMILY, family_request, first_class, model_request
from torch import Tensor, nn

from captum_attattr import UnsupportedModelError
from captum_attattr.attribution.methods.alti import alti
from captum_attattr.attribution.methods.attention import attention as read
from captum_attattr.attribution.methods.norms import linear_norm

SIZE = HIDDEN // HEADS
Parts = tuple[
    Tensor, Tensor, "nn.LayerNorm | None"
]  # values (T, H, D), output projection (H D, d), norm behind the sum


def of_bert(model: Any, layer: int, x: Tensor) -> Parts:
    block = model.bert.encoder.layer[layer].attention
    return block.self.value(x).view(-1, HEADS, SIZE), block.output.dense.weight.T, block.output.LayerNorm


def of_gpt2(model: Any, layer: int, x: Tensor) -> Parts:
    block = model.transformer.h[layer]
    values = block.attn.c_attn(block.ln_1(x))[:, 2 * HIDDEN :]
    return values.view(-1, HEADS, SIZE), block.attn.c_proj.weight, None


def of_llama(model: Any, layer: int, x: Tensor) -> Parts:
    block = model.model.layers[layer]
    values = block.self_attn.v_proj(block.input_layernorm(x)).view(-1, 2, SIZE)
    return values[:, [0, 0, 1, 1]], block.self_attn.o_proj.weight.T, None


def of_neox(model: Any, layer: int, x: Tensor) -> Parts:
    block = model.gpt_neox.layers[layer]
    fused = block.attention.query_key_value(block.input_layernorm(x)).view(-1, HEADS, 3 * SIZE)
    return fused[..., 2 * SIZE :], block.attention.dense.weight.T, None


BIAS = {
    "BERT": lambda model, layer: model.bert.encoder.layer[layer].attention.output.dense.bias,
    "GPT-2": lambda model, layer: model.transformer.h[layer].attn.c_proj.bias,
    "Llama": lambda model, layer: torch.zeros(HIDDEN),
    "GPT-NeoX": lambda model, layer: model.gpt_neox.layers[layer].attention.dense.bias,
}


def by_hand(attention: Tensor, x: Tensor, parts: Parts, bias: Tensor) -> Tensor:
    """The map (T, T) of one layer of one example: one query, one key, one head at a time."""
    values, projection, norm = parts
    tokens = range(len(x))
    z = [[torch.zeros(HIDDEN, dtype=x.dtype) for _ in tokens] for _ in tokens]
    for i in tokens:
        for j in tokens:
            for h in range(HEADS):
                z[i][j] = z[i][j] + attention[h, i, j] * (values[j, h] @ projection[h * SIZE : (h + 1) * SIZE])
            if i == j:
                z[i][j] = z[i][j] + x[i]
    shares = torch.zeros(len(x), len(x), dtype=x.dtype)
    for i in tokens:
        y = torch.stack(z[i]).sum(0) + bias
        if norm is not None:
            sigma = (y.var(correction=0) + norm.eps).sqrt()
            z[i] = [norm.weight * (part - part.mean()) / sigma for part in z[i]]
            y = norm(y)
        for j in tokens:
            shares[i, j] = max(0.0, float(y.abs().sum() - (y - z[i][j]).abs().sum()))
    return shares / shares.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("name", "parts", "reads"),
    [("BERT", of_bert, 0), ("GPT-2", of_gpt2, 6), ("Llama", of_llama, 6), ("GPT-NeoX", of_neox, 6)],
)
@torch.no_grad()
def test_maps_are_the_formula_written_out(name: str, parts: Callable[..., Parts], reads: int) -> None:
    request = family_request(name)
    model: Any = request.layers[0].model
    if hasattr(model.config, "use_parallel_residual"):
        assert model.config.use_parallel_residual
    maps = alti(request)
    ids, mask = request.batch.inputs
    model.set_attn_implementation("eager")
    run = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, output_attentions=True)
    for layer in range(LAYERS):
        for example in range(len(ids)):
            x = run.hidden_states[layer][example]
            bias = BIAS[name](model, layer)
            expected = by_hand(run.attentions[layer][example], x, parts(model, layer, x), bias)
            if layer == LAYERS - 1:  # of the last layer the output reads one query
                expected = torch.where(torch.arange(len(x))[:, None] == reads, expected, 0.0)
            torch.testing.assert_close(maps.attributions[layer][example, 0], expected, rtol=1e-5, atol=1e-7)
    assert maps.rows == 2 * len(ids)
    torch.testing.assert_close(maps.output, request.batch.evaluate(torch.arange(2)))


NARROW = {"XLM", "FlauBERT", "BLOOM", "MPT", "Mixtral", "GPT-OSS"}  # compute in float32 alone
WITH = [
    "DistilBERT",
    "ALBERT (groups)",
    "DeBERTa",
    "XLM",
    "T5 (encoder)",
    "OPT",
    "BLOOM",
    "Phi",
    "Cohere",
    "BART",
    "ViT",
]


@pytest.mark.parametrize("name", WITH)
def test_rows_add_up_to_one_in_every_kind_of_block(name: str, unchanged: Callable[..., Any]) -> None:
    request = family_request(name, wide=name not in NARROW)
    with unchanged(request.layers[0].model):
        maps = alti(request)
    for layer, map_ in enumerate(maps.attributions):
        assert map_.shape[:2] == (2, 1)
        sums = map_.sum(-1)
        if layer < len(maps.attributions) - 1:
            torch.testing.assert_close(sums, torch.ones_like(sums))
        else:
            torch.testing.assert_close(sums.sum(-1), torch.ones_like(sums[..., 0]))
        assert bool((map_ >= 0).all())
        assert bool((map_.flatten(1).max(1).values > 0).all())


@pytest.mark.parametrize("name", ["BERT", "GPT-2", "Llama"])
def test_nothing_comes_from_keys_that_no_query_sees(name: str) -> None:
    request = family_request(name, wide=False)
    for map_, attention in zip(alti(request).attributions, read(request).attributions, strict=True):
        unseen = (attention == 0).all(1)
        unseen &= ~torch.eye(unseen.shape[-1], dtype=torch.bool)
        assert bool(unseen.any())
        assert bool((map_[:, 0][unseen] == 0).all())


def test_batches_and_chunks_of_queries_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = alti(family_request("BERT", batch=3))
    monkeypatch.setattr("captum_attattr.attribution.methods.alti.ENTRIES_AT_ONCE", 2 * 9 * HIDDEN)
    for limit in (1, 2):
        for actual, map_ in zip(
            alti(family_request("BERT", batch=3, limit=limit)).attributions, expected.attributions, strict=True
        ):
            torch.testing.assert_close(actual, map_)


def test_queries_of_the_last_layer_share_what_a_mean_reads() -> None:
    model: Any = FAMILY["BERT"].build().double()
    inputs = FAMILY["BERT"].inputs(2, None)

    def mean(ids: Tensor, mask: Tensor) -> Tensor:
        return model.bert(input_ids=ids, attention_mask=mask).last_hidden_state.mean(1)[:, 0]

    maps = alti(model_request(model, inputs, mean)).attributions
    length = maps[0].shape[-1]
    torch.testing.assert_close(maps[-1].sum(-1), torch.full((2, 1, length), 1 / length, dtype=torch.double))
    product = maps[0]
    for map_ in maps[1:]:
        product = map_ @ product
    torch.testing.assert_close(product.sum((1, 2, 3)), torch.ones(2, dtype=torch.double))


@pytest.mark.parametrize("name", ["Gemma2", "OLMo2", "MobileBERT", "XLNet", "SqueezeBERT"])
def test_other_sums_are_refused_by_name(name: str, unchanged: Callable[..., Any]) -> None:
    request = family_request(name, wide=False)
    kind = type(request.layers[0].model).__name__
    with (
        unchanged(request.layers[0].model),
        pytest.raises(UnsupportedModelError, match=rf"{kind}.*ALTI is not defined"),
    ):
        alti(request)


def test_a_rescaled_output_is_refused() -> None:
    model: Any = FAMILY["Granite"].build().double()
    for block in model.model.layers:
        block.residual_multiplier = 0.5
    with pytest.raises(UnsupportedModelError, match="normalised or rescaled"):
        alti(model_request(model, FAMILY["Granite"].inputs(1, None)))


def test_heads_weighted_by_a_hook_count_so() -> None:
    gates = torch.ones(HIDDEN, dtype=torch.double)
    gates[:SIZE] = 0.5
    maps = []
    for hooked in (True, False):
        request = family_request("BERT")
        model: Any = request.layers[0].model
        for block in model.bert.encoder.layer:
            dense = block.attention.output.dense
            if hooked:
                dense.register_forward_pre_hook(lambda module, args: (args[0] * gates,))
            else:
                dense.weight.data *= gates
        maps.append(alti(request).attributions)
    torch.testing.assert_close(maps[0], maps[1])


def test_values_that_the_output_projection_does_not_sum_are_refused() -> None:
    model: Any = FAMILY["BERT"].build().double()
    dense = model.bert.encoder.layer[1].attention.output.dense
    dense.register_forward_pre_hook(lambda module, args: (args[0] * (1 + args[0].mean(-1, keepdim=True)),))
    with pytest.raises(UnsupportedModelError, match="does not give the sum of its attention"):
        alti(model_request(model, FAMILY["BERT"].inputs(1, None)))


def test_cross_attention_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="another sequence"):
        alti(family_request("BART", kind="cross"))


def test_an_output_without_gradient_is_refused() -> None:
    model = FAMILY["BERT"].build()
    inputs = FAMILY["BERT"].inputs(1, None)
    forward = first_class(model, list(inputs))
    with pytest.raises(ValueError, match="carries no gradient"):
        alti(model_request(model, inputs, lambda *tensors: forward(*tensors).detach()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_are_told_by_what_they_compute(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = (torch.randn(2, 5, HIDDEN) + 0.5).to(dtype)
    for module, centred in [(nn.LayerNorm(HIDDEN), True), (nn.RMSNorm(HIDDEN), False)]:
        module.to(dtype)
        nn.init.normal_(module.weight)
        norm = linear_norm(module, x, module(x))
        assert norm is not None
        assert norm.centred == centred
        a, b = torch.randn(2, 5, HIDDEN), torch.randn(2, 5, HIDDEN)
        torch.testing.assert_close(norm(a) + norm(b), norm(a + b))
        bias = 0 if getattr(module, "bias", None) is None else module.bias.detach().float()
        torch.testing.assert_close(norm(x.float()) + bias, module(x).detach().float(), rtol=0.05, atol=0.05)
    for other in (nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Identity()):
        assert linear_norm(other.to(dtype), x, other.to(dtype)(x)) is None
