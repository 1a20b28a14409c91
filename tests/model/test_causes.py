"""Attention that cannot be attributed is refused with what is in its way, not with a guess about the caller."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import LAYERS, probabilities, sentences, tiny_bert
from transformers.models.bert.modeling_bert import BertSelfAttention

from captum_attattr import LayerAttAttr, UnsupportedModelError, attention_layers
from captum_attattr.model.softmax_route import softmax_watched

IDS = sentences(2)


class Kernel(BertSelfAttention):
    """Attention by a kernel of its own."""

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        return self.value(hidden_states).cumsum(1), None


class Chunks(BertSelfAttention):
    """Attention in two chunks of queries."""

    def forward(self, hidden_states: Tensor, attention_mask: Any = None, *_: Any, **__: Any) -> Any:
        whole = super().forward(hidden_states, attention_mask)[0]
        return (whole + super().forward(hidden_states, attention_mask)[0]) / 2, None


def changed(kind: type[nn.Module]) -> nn.Module:
    model = tiny_bert()
    model.bert.encoder.layer[1].attention.self.__class__ = kind
    return model


def again(model: nn.Module) -> nn.Module:
    """A model that runs its second layer twice."""
    layers = model.bert.encoder.layer
    layers.append(layers[1])
    return model


CAUSES = {
    "kernel": (
        lambda: changed(Kernel),
        r"AttentionLayer\(encoder 1: .*\) ran, and its attention was not seen: it is computed by a kernel of its own",
    ),
    "chunks": (lambda: changed(Chunks), r"encoder 1: .*\) computes attention 2 times in one forward \(in chunks"),
    "layer twice": (
        lambda: again(tiny_bert()),
        r"encoder 1.*more than once \(2 times\).*a layer that the model itself",
    ),
}


@pytest.mark.parametrize("name", CAUSES)
def test_cause_is_named(name, unchanged):
    make, message = CAUSES[name]
    model = make()
    layers = attention_layers(model)
    with unchanged(model), pytest.raises(UnsupportedModelError, match=message):
        LayerAttAttr(probabilities(model), layers).attribute(IDS, target=0, n_steps=1)


def test_model_that_fails_eagerly_says_how(unchanged):
    model = tiny_bert()
    attention = model.bert.encoder.layer[1].attention.self
    before = attention.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if attention.config._attn_implementation != "sdpa":
            raise RuntimeError("sizes differ")
        return before(*args, **kwargs)

    attention.forward = forward
    message = r"BertForSequence.* runs by itself, and fails when its attention is computed eagerly: RuntimeError: sizes"
    with unchanged(model), pytest.raises(UnsupportedModelError, match=message):
        LayerAttAttr(probabilities(model), attention_layers(model)).attribute(IDS, target=0, n_steps=1)


def test_model_that_runs_two_examples_and_not_one_says_so(unchanged):
    """As decoders of several codebooks do, whose dimension 0 is examples times codebooks."""
    model = tiny_bert()

    def forward(ids: Tensor) -> Tensor:
        return model(ids.reshape(-1, 2, ids.shape[1]).flatten(0, 1)).logits.softmax(-1)

    message = r"BertForSequence.* fails for one example alone: RuntimeError.*; dimension 0 of its inputs must hold exa"
    with unchanged(model), pytest.raises(UnsupportedModelError, match=message):
        LayerAttAttr(forward, attention_layers(model)).attribute(IDS, target=0, n_steps=1)


class TwoWays(BertSelfAttention):
    """Fused attention that computes something else than the eager one."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        fused = self.config._attn_implementation == "sdpa"
        return super().forward(hidden_states * (1.5 if fused else 1), *args, **kwargs)


def test_family_whose_eager_attention_is_another_one_says_what_to_do():
    model = changed(TwoWays)
    given = probabilities(model), attention_layers(model)
    with pytest.raises(UnsupportedModelError, match=r"eager and fused attention of this family differ: .*'eager'\)"):
        LayerAttAttr(*given).attribute(IDS, target=0, n_steps=1)
    model.set_attn_implementation("eager")
    assert len(LayerAttAttr(*given).attribute(IDS, target=0, n_steps=1)) == LAYERS


class Attention(nn.Module):
    num_heads = 2

    def forward(self, states: dict[str, Any]) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(**states)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


FUSED: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.3},
    "booleans": {"attn_mask": draw(2, 1, 5, 5).gt(-1)},
    "added": {"attn_mask": draw(2, 1, 5, 5)},
    "grouped": {"enable_gqa": True, "key": draw(2, 1, 5, 4), "value": draw(2, 1, 5, 4)},
}


@pytest.mark.parametrize("name", FUSED)
def test_fused_attention_is_computed_step_by_step(name):
    """torch's own function is the judge; the attention that is shown adds up to 1, and what replaces it is used."""
    module = Attention()
    states = {"query": draw(2, 2, 5, 4), "key": draw(2, 2, 5, 4) / 2, "value": draw(2, 2, 5, 4) * 2} | FUSED[name]
    wanted, seen = module(states), []

    def visit(_: nn.Module, attention: Tensor, scores: Tensor) -> Tensor | None:
        seen.append(attention)
        torch.testing.assert_close(scores.softmax(-1), attention)
        return None if len(seen) == 1 else attention / 2

    with softmax_watched([module], visit):
        torch.testing.assert_close(module(states), wanted)
        torch.testing.assert_close(module(states), wanted / 2)
    torch.testing.assert_close(seen[0].sum(-1), torch.ones(2, 2, 5))
    assert torch.equal(module(states), wanted)


def test_heads_and_rows_in_one_dimension_are_told_apart():
    module = SimpleNamespace(forward=lambda scores: scores.softmax(-1) + 0 * scores.softmax(1))  # the second is none
    flat = nn.Module()
    flat.num_heads = 3  # type: ignore[assignment]
    flat.forward = module.forward  # type: ignore[method-assign]
    scores, seen = draw(6, 4, 4), []

    def visit(_: nn.Module, attention: Tensor, shown: Tensor) -> Tensor:
        seen.append((attention, shown))
        return torch.stack((attention[0] * 2, attention[1]))

    with softmax_watched([flat], visit):
        found = flat(scores)
    assert seen[0][0].shape == seen[0][1].shape == (2, 3, 4, 4)
    torch.testing.assert_close(found, torch.cat((scores[:3].softmax(-1) * 2, scores[3:].softmax(-1))))
