"""AttnLRP against its rules written out in plain torch, and against the sums that each rule keeps."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import HEADS, HIDDEN, LAYERS
from method_requests import FAMILY, family_request, first_class, model_request
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from captum_attattr import UnsupportedModelError
from captum_attattr.attribution.methods.attnlrp import attnlrp
from captum_attattr.attribution.methods.gradient_attention import gradient_attention
from captum_attattr.attribution.methods.relevance_rules import relevance_rules

SIZE = HIDDEN // HEADS


# --------------------------------------------------------------------------------------------------- rule by rule


class Computes(nn.Module):
    """A model that computes a function, with modules of its own."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.inner = nn.ModuleList(modules)

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.function(*self.inner, *tensors)


def by_rules(model: nn.Module, *tensors: Tensor) -> tuple[Tensor, list[Tensor]]:
    """What a model computes, and each input times the gradient of the sum of that."""
    model.requires_grad_(False)
    inputs = [tensor.clone().requires_grad_() for tensor in tensors]
    layers: Any = [SimpleNamespace(model=model, module=None)]
    with relevance_rules(layers):
        output = model(*inputs)
    gradients = torch.autograd.grad(output.sum(), inputs)
    return output.detach(), [x.detach() * g for x, g in zip(inputs, gradients, strict=True)]


def draw(*shapes: tuple[int, ...]) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(shape, dtype=torch.double) for shape in shapes]


PRODUCTS: dict[str, tuple[Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "*": (lambda a, b: a * b, [(3, 4), (4,)]),
    "mul": (torch.mul, [(3, 4), (3, 1)]),
    "mul_": (lambda a, b: a.clone().mul_(b), [(3, 4), (4,)]),
    "*=": (lambda a, b: _times(a.clone(), b), [(3, 4), (3, 4)]),
    "square as a product": (lambda a: a * a, [(3, 4)]),
    "@": (lambda a, b: a @ b, [(2, 3, 4), (2, 4, 5)]),
    "matmul": (torch.matmul, [(3, 4), (4,)]),
    "bmm": (torch.bmm, [(2, 3, 4), (2, 4, 5)]),
    "einsum": (lambda a, b: torch.einsum("bij,bjk->bik", a, b), [(2, 3, 4), (2, 4, 5)]),
    "einsum of three": (lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c), [(3, 4), (4, 5), (5, 2)]),
    "outer": (torch.outer, [(3,), (4,)]),
    "scaled": (lambda a, b: (a / 3) @ (b * 2), [(3, 4), (4, 5)]),
}


def _times(a: Tensor, b: Tensor) -> Tensor:
    a *= b
    return a


@pytest.mark.parametrize("name", PRODUCTS)
def test_factors_share_what_their_product_is_handed(name: str) -> None:
    function, shapes = PRODUCTS[name]
    tensors = draw(*shapes)
    output, relevance = by_rules(Computes(function), *tensors)
    torch.testing.assert_close(output, function(*tensors))
    for part in relevance:
        torch.testing.assert_close(part.sum(), output.sum() / len(relevance))


@pytest.mark.parametrize("name", ["baddbmm", "baddbmm_"])
def test_what_is_added_to_a_product_keeps_its_own(name: str) -> None:
    tensors = draw((2, 3, 5), (2, 3, 4), (2, 4, 5))
    output, (added, left, right) = by_rules(Computes(lambda a, b, c: getattr(a.clone(), name)(b, c, beta=2)), *tensors)
    torch.testing.assert_close(output, 2 * tensors[0] + tensors[1] @ tensors[2])
    torch.testing.assert_close(added, 2 * tensors[0])
    for part in (left, right):
        torch.testing.assert_close(part.sum(), (tensors[1] @ tensors[2]).sum() / 2)


def test_constants_get_nothing() -> None:
    (x, weight) = draw((3, 4), (4, 5))
    output, (relevance,) = by_rules(Computes(lambda x: x @ weight * 3), x)
    torch.testing.assert_close(relevance.sum(), output.sum())


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: getattr(F, name) for name in ("gelu", "silu", "relu", "elu", "tanh", "mish", "sigmoid")},
    "Tensor.tanh": lambda x: x.tanh(),
    "torch.sigmoid": torch.sigmoid,
    "relu_": lambda x: x.clone().relu_(),
    "relu(inplace)": lambda x: F.relu(x.clone(), inplace=True),
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    **{f"module {name}": ACT2FN[name] for name in ("gelu", "gelu_new", "quick_gelu", "relu2", "silu", "tanh")},
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_hand_down_what_they_are_handed(name: str) -> None:
    function = ACTIVATIONS[name]
    (x,) = draw((3, 4))
    x[0, 0] = 0.0
    model = Computes(lambda f, x: f(x), function) if isinstance(function, nn.Module) else Computes(function)
    output, (relevance,) = by_rules(model, x)
    torch.testing.assert_close(output, function(x), rtol=0, atol=0)
    torch.testing.assert_close(relevance, torch.where(x == 0, 0.0, output))


@pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.LayerNorm(8, elementwise_affine=False), nn.RMSNorm(8)])
def test_norms_hand_down_all_but_their_bias(norm: nn.Module) -> None:
    norm.double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    (x,) = draw((3, 8))
    output, (relevance,) = by_rules(Computes(lambda f, x: f(x + 1), norm), x)
    torch.testing.assert_close(output, norm(x + 1).detach(), rtol=0, atol=0)
    biased = Computes(lambda f, x: f(x), norm)
    output, (relevance,) = by_rules(biased, x)
    bias = getattr(norm, "bias", None)
    torch.testing.assert_close(relevance.sum(), (output if bias is None else output - bias).sum())


REFUSED: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "pow": lambda x: x**2,
    "rpow": lambda x: 2**x,
    "sqrt": lambda x: x.sqrt(),
    "erf": torch.erf,
    "log_softmax": lambda x: x.log_softmax(-1),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "a division by hidden states": lambda x: x / x.sum(-1, keepdim=True),
    "norm": lambda x: x.norm(dim=-1),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x, x),
}


@pytest.mark.parametrize("name", REFUSED)
def test_functions_without_a_rule_are_refused(name: str) -> None:
    (x,) = draw((3, 4))
    with pytest.raises(UnsupportedModelError, match=f"AttnLRP has no rule for {name}, in Computes"):
        by_rules(Computes(REFUSED[name]), x.abs())
    with relevance_rules([SimpleNamespace(model=Computes(torch.abs), module=None)]):  # type: ignore[list-item]
        REFUSED[name](x.abs().requires_grad_())  # outside the model


def test_norms_that_are_none_are_refused() -> None:
    (x,) = draw((3, 4))
    with pytest.raises(UnsupportedModelError, match="what GroupNorm computes"):
        by_rules(Computes(lambda f, x: f(x), nn.GroupNorm(2, 4).double()), x)


def test_other_threads_keep_their_gradients() -> None:
    model = Computes(lambda f, a, b: f(a) * b, nn.GELU())
    a, b = (tensor.requires_grad_() for tensor in draw((3,), (3,)))
    expected = torch.autograd.grad((F.gelu(a) * b).sum(), [a, b])
    found: list[Tensor] = []
    with relevance_rules([SimpleNamespace(model=model, module=None)]):  # type: ignore[list-item]
        other = threading.Thread(target=lambda: found.extend(torch.autograd.grad(model(a, b).sum(), [a, b])))
        other.start()
        other.join()
        own = torch.autograd.grad(model(a, b).sum(), [a, b])
    torch.testing.assert_close(found, list(expected))
    torch.testing.assert_close(own[1], expected[1] / 2)
    torch.testing.assert_close(own[0], (F.gelu(a) / a * b / 2).detach())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# ---------------------------------------------------------------------------------------------- whole models by hand


def half(x: Tensor) -> Tensor:
    return x / 2 + x.detach() / 2


def heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (-1, SIZE)).transpose(1, 2)


def layer_norm(norm: Any, x: Tensor) -> Tensor:
    sigma = (x.var(-1, correction=0, keepdim=True) + norm.eps).sqrt().detach()
    return (x - x.mean(-1, keepdim=True)) / sigma * norm.weight + norm.bias


def rms_norm(norm: Any, x: Tensor) -> Tensor:
    return norm.weight * x / (x.square().mean(-1, keepdim=True) + norm.variance_epsilon).sqrt().detach()


def active(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return x * (function(x) / x).detach()


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, kept: list[Tensor]) -> Tensor:
    scores = half(q @ k.transpose(-1, -2)) / SIZE**0.5
    kept.append(scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1))
    return half(kept[-1] @ v).transpose(1, 2).flatten(-2)


def bert(model: Any, ids: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    kept: list[Tensor] = []
    x = model.bert.embeddings(ids).detach().requires_grad_()
    for block in model.bert.encoder.layer:
        own = block.attention.self
        q, k, v = (heads(f(x)) for f in (own.query, own.key, own.value))
        context = attend(q, k, v, mask[:, None, None].bool(), kept)
        x = layer_norm(block.attention.output.LayerNorm, x + block.attention.output.dense(context))
        inner = active(F.gelu, block.intermediate.dense(x))
        x = layer_norm(block.output.LayerNorm, x + block.output.dense(inner))
    pooled = active(torch.tanh, model.bert.pooler.dense(x[:, 0]))
    return model.classifier(pooled).softmax(-1)[:, 0], kept


def llama(model: Any, ids: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
    kept: list[Tensor] = []
    x = model.model.embed_tokens(ids).detach().requires_grad_()
    length = ids.shape[1]
    cos, sin = model.model.rotary_emb(x, torch.arange(length)[None])
    visible = torch.ones(length, length, dtype=torch.bool).tril() & mask[:, None, None].bool()
    for block in model.model.layers:
        given, own = rms_norm(block.input_layernorm, x), block.self_attn
        q, k, v = (heads(f(given)) for f in (own.q_proj, own.k_proj, own.v_proj))
        q, k = apply_rotary_pos_emb(q, k, cos, sin)
        k, v = (t.repeat_interleave(2, dim=1) for t in (k, v))
        x = x + own.o_proj(attend(q, k, v, visible, kept))
        given = rms_norm(block.post_attention_layernorm, x)
        gate = active(F.silu, block.mlp.gate_proj(given))
        x = x + block.mlp.down_proj(half(gate * block.mlp.up_proj(given)))
    last = rms_norm(model.model.norm, x)[torch.arange(len(ids)), mask.sum(1) - 1]
    return model.score(last).softmax(-1)[:, 0], kept


@pytest.mark.parametrize(("name", "by_hand"), [("BERT", bert), ("Llama", llama)])
def test_maps_are_the_rules_written_out(name: str, by_hand: Callable[..., tuple[Tensor, list[Tensor]]]) -> None:
    request = family_request(name, keep_attention=True)
    model: Any = request.layers[0].model.requires_grad_(False)
    maps = attnlrp(request)
    value, kept = by_hand(model, *request.batch.inputs)
    torch.testing.assert_close(maps.output, value.detach(), rtol=1e-5, atol=1e-7)
    expected = torch.autograd.grad(value.sum(), kept)
    assert len(kept) == LAYERS
    size = max(float((a.detach() * g).abs().max()) for a, g in zip(kept, expected, strict=True))
    for layer, (attention, gradient) in enumerate(zip(kept, expected, strict=True)):
        own = maps.attributions[layer]
        torch.testing.assert_close(maps.attention[layer], attention.detach(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(own, attention.detach() * gradient, rtol=1e-4, atol=1e-6 * size)
    assert maps.rows == 2


# --------------------------------------------------------------------------------------------------- many families

NARROW = {"BLOOM", "MPT"}
WITH = ["DistilBERT", "ALBERT", "DeBERTa-v2", "ModernBERT", "XLNet", "T5", "GPT-2", "GPT-NeoX", "BLOOM", "Gemma2"]


@pytest.mark.parametrize("name", [*WITH, "Cohere", "Phi-3", "ViT"])
def test_values_and_model_stay_as_they_are(name: str, unchanged: Callable[..., Any]) -> None:
    request = family_request(name, wide=name not in NARROW)
    with unchanged(request.layers[0].model):
        maps = attnlrp(request)
    own = gradient_attention(request)
    torch.testing.assert_close(maps.output, own.output)
    for map_, usual in zip(maps.attributions, own.attributions, strict=True):
        assert map_.shape == usual.shape
        assert bool(map_.isfinite().all())
        assert bool(((map_ != 0) <= (usual != 0)).float().mean() > 0.99)  # where A or its influence is 0
        assert float((map_ - usual).abs().max()) > 0.1 * float(usual.abs().max())


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("ESM", "erf, in EsmIntermediate"),
        ("BigBird (full)", "pow, in BigBirdClassificationHead"),
        ("SqueezeBERT", "what SqueezeBertLayerNorm computes"),
        ("SigLIP (vision)", "multi_head_attention_forward"),
    ],
)
def test_families_without_a_rule_are_refused(name: str, what: str, unchanged: Callable[..., Any]) -> None:
    request = family_request(name)
    kind = type(request.layers[0].model).__name__
    with unchanged(request.layers[0].model), pytest.raises(UnsupportedModelError, match=rf"{kind}.*{what}"):
        attnlrp(request)


def test_an_output_without_gradient_is_refused() -> None:
    model = FAMILY["BERT"].build()
    inputs = FAMILY["BERT"].inputs(1, None)
    forward = first_class(model, list(inputs))
    with pytest.raises(ValueError, match="carries no gradient"):
        attnlrp(model_request(model, inputs, lambda *tensors: forward(*tensors).detach()))
    with pytest.raises(ValueError, match="is not finite"):
        attnlrp(model_request(model, inputs, lambda *tensors: (forward(*tensors) * 0).sqrt()))
