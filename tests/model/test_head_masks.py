"""Heads weighted and switched off: what a gate does to the model's output, and that nothing else is touched."""

import copy
import json
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, Family
from torch import Tensor, nn
from toy import HEADS, HIDDEN, LABELS, LAYERS, VOCAB, sentences, tiny_bart, tiny_bert, tiny_llama
from transformers import AlbertConfig, AlbertForSequenceClassification

from captum_attattr import LayerAttAttr, UnsupportedModelError, attention_layers, mask_heads, prune_heads
from captum_attattr.model.attention_control import AttentionControl, LayerCall
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.model.head_masks import active_gates, head_gates

Unchanged = Callable[[nn.Module], AbstractContextManager[None]]

SUPPORTED = [family for family in FAMILIES if family.route != "refused"]
KINDS = [(family, kind) for family in SUPPORTED for kind in family.kinds]
ALL = [0, 1, 2, 3]

assert_close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def output(model: nn.Module, family: Family) -> Tensor:
    """Logits or hidden states of two inputs, padded ones where there is padding."""
    return model(**family.inputs(2, 3))[0]


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(sentences()).logits


@contextmanager
def without_attention(layer: AttentionLayer, heads: list[int]) -> Iterator[None]:
    """The model with zeros in place of the attention of some heads of one layer."""

    def visit(_: int, call: LayerCall) -> Tensor:
        attention = call.tensor.clone()
        attention[:, heads] = 0
        return attention

    with AttentionControl([layer]) as control, control.watch(visit):
        yield


def tiny_albert() -> AlbertForSequenceClassification:
    """Four layers: the first two share their weights, and so do the last two."""
    sizes = {"hidden_size": HIDDEN, "num_attention_heads": HEADS, "intermediate_size": 48, "embedding_size": 16}
    groups = {"num_hidden_layers": 4, "num_hidden_groups": 2, "vocab_size": VOCAB, "num_labels": LABELS}
    torch.manual_seed(0)
    config = AlbertConfig(**sizes | groups, initializer_range=0.3, pad_token_id=0)
    return AlbertForSequenceClassification(config).eval()


class Wrapper(nn.Module):
    """A user's own module around a model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.before, self.inside = nn.Linear(2, 2), model

    def forward(self, ids: Tensor) -> Any:
        return self.inside(ids)


# --------------------------------------------------------------------------------------------- what a mask does


@pytest.mark.parametrize(("family", "kind"), KINDS, ids=[f"{family.name}-{kind}" for family, kind in KINDS])
def test_masked_head_is_one_whose_attention_is_zero(family: Family, kind: str, unchanged: Unchanged) -> None:
    torch.manual_seed(0)
    model = family.build()
    own = output(model, family)
    with unchanged(model):
        for layer, heads in zip(attention_layers(model, kind), cycle([[1, 2], [3], ALL]), strict=False):
            with mask_heads(model, {layer: heads}):
                masked = output(model, family)
            with without_attention(layer, heads):
                assert_close(masked, output(model, family))
            assert (masked - own).abs().max() > 1e-5
        assert torch.equal(output(model, family), own)


@pytest.mark.parametrize("family", SUPPORTED, ids=lambda family: family.name)
def test_every_example_can_have_gates_of_its_own(family: Family) -> None:
    torch.manual_seed(0)
    model = family.build()
    layer = attention_layers(model)[1]
    gate = torch.ones(2, 1, HEADS)
    gate[0, 0, [1, 2]] = 0
    own = output(model, family)
    with mask_heads(model, {layer: [1, 2]}):
        masked = output(model, family)
    with head_gates({layer: gate}):
        assert_close(output(model, family), torch.stack([masked[0], own[1]]))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("build", [tiny_bert, tiny_llama])
def test_any_implementation_is_masked_and_left_alone(
    build: Callable[[], Any], implementation: str, unchanged: Unchanged
) -> None:
    model = build()
    with mask_heads(model, {0: [1], 2: ALL}):
        default = logits(model)
    model.set_attn_implementation(implementation)
    with unchanged(model), mask_heads(model, {0: [1], 2: ALL}):
        assert model.config._attn_implementation == implementation
        assert_close(logits(model), default)


MASKS: dict[str, list[dict[int, list[int]]]] = {
    "other layers": [{0: [1]}, {2: [0, 3]}],
    "other heads of a layer": [{1: [1]}, {1: [3]}],
    "the same head": [{1: [1, 2]}, {1: [2, 3]}],
    "three deep": [{0: [0]}, {1: ALL}, {0: [2], 1: [0]}],
}


@pytest.mark.parametrize("build", [tiny_bert, tiny_albert, tiny_llama])
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
def test_contexts_inside_one_another_add_up(
    masks: list[dict[int, list[int]]], build: Callable[[], nn.Module], unchanged: Unchanged
) -> None:
    """In ALBERT layers 0 and 1 are one module, whose first and second call are told apart."""
    model = build()
    together = [(layer, head) for mask in masks for layer, heads in mask.items() for head in heads]

    def inside(rest: list[dict[int, list[int]]]) -> Tensor:
        if not rest:
            return logits(model)
        with mask_heads(model, rest[0]):
            deeper = inside(rest[1:])
            assert torch.equal(inside(rest[1:]), deeper)
        return deeper

    with unchanged(model):
        nested = inside(masks)
        with mask_heads(model, together):
            assert_close(logits(model), nested)
            assert_close(inside(masks[:1]), nested)


def test_layers_that_share_weights_are_masked_apart() -> None:
    model = tiny_albert()
    alone = []
    for layer in range(4):
        with mask_heads(model, {layer: [1]}):
            alone.append(logits(model))
    assert min(float((a - b).abs().max()) for i, a in enumerate(alone) for b in alone[:i]) > 1e-4


# ------------------------------------------------------------------------------------------- leaving it whole


class BreakingOffError(Exception):
    pass


@pytest.mark.parametrize("build", [tiny_bert, tiny_albert, tiny_llama])
def test_exception_inside_restores_the_model(build: Callable[[], nn.Module], unchanged: Unchanged) -> None:
    model = build()
    with (
        unchanged(model),
        pytest.raises(BreakingOffError),
        mask_heads(model, {0: [1]}),
        mask_heads(model, [(1, 2)]),
    ):
        raise BreakingOffError


@pytest.mark.parametrize("call", ["the model", "the model inside it"])
@pytest.mark.parametrize("build", [tiny_bert, tiny_albert])
def test_forward_that_breaks_off_does_not_disturb_the_next(
    build: Callable[[], Any], call: str, unchanged: Unchanged
) -> None:
    """Where weights are shared, the calls are counted: the next forward has to begin at the first."""
    model = build()
    run: Any = model if call == "the model" else model.base_model

    def break_off(*_: Any) -> None:
        raise BreakingOffError

    with unchanged(model), mask_heads(model, {0: [1], 1: [2], 2: [3]}), torch.no_grad():
        wanted = run(sentences())[0]
        for layer in attention_layers(model)[:2]:  # in ALBERT the first call of the one module that both are
            handle = layer.module.register_forward_hook(break_off)
            with pytest.raises(BreakingOffError):
                run(sentences())
            handle.remove()
            assert torch.equal(run(sentences())[0], wanted)


# --------------------------------------------------------------------------- beside the package's other parts


@pytest.mark.parametrize("build", [tiny_bert, tiny_albert, tiny_llama])
def test_masked_heads_are_attributed_nothing(build: Callable[[], Any], unchanged: Unchanged) -> None:
    model = build()
    ids = sentences()

    def forward(ids: Tensor) -> Tensor:
        scores = model(ids).logits
        return (scores if scores.dim() == 2 else scores[:, -1]).softmax(-1)

    lattr = LayerAttAttr(forward, attention_layers(model))
    whole = lattr.attribute(ids, target=1, n_steps=4)
    with unchanged(model), mask_heads(model, {0: [1, 2], 1: ALL}):
        result = lattr.integrate(ids, target=1)
    gone = {0: [1, 2], 1: ALL}
    for layer, (masked, before) in enumerate(zip(result.attributions, whole, strict=True)):
        left = [head for head in ALL if head not in gone.get(layer, [])]
        assert not masked[:, gone.get(layer, [])].any()
        assert all((masked[:, head] - before[:, head]).abs().max() > 1e-6 for head in left)
    sizes = torch.stack([m.abs().flatten(1).sum(1) for m in result.attributions])
    assert (result.delta.abs() <= 1e-3 * sizes + 1e-7).all()  # F(A) and F(B) are of batches of other sizes


def test_model_inside_a_module_of_ones_own(unchanged: Unchanged) -> None:
    wrapper = Wrapper(tiny_bert())
    with mask_heads(wrapper.inside, {1: [0, 3]}):
        masked = logits(wrapper)
    inner = attention_layers(wrapper.inside)[1]
    for model, heads in ((wrapper, {1: [0, 3]}), (wrapper, {inner: [0, 3]}), (wrapper.inside, {inner: [0, 3]})):
        with unchanged(wrapper), mask_heads(model, heads):
            assert torch.equal(logits(wrapper), masked)
    outer = attention_layers(wrapper)[1]
    with mask_heads(wrapper.inside, {outer: [0, 3]}):
        assert torch.equal(logits(wrapper), masked)


def test_heads_can_be_named_in_many_ways() -> None:
    model = tiny_bert()
    with mask_heads(model, {1: [0, 3]}):
        masked = logits(model)
    layer = attention_layers(model)[1]
    ways: list[Any] = [
        [(1, 0), (1, 3)],
        ((1, head) for head in (3, 0, 3)),
        {(1, 0), (1, 3)},
        [[1, 0], [layer, 3]],
        {1: {0, 3}, 2: []},
        {1: (0,), layer: range(3, 4)},
        {np.int64(1): np.array([0, 3])},
        {1: torch.tensor([0, 3])},
        np.array([[1, 0], [1, 3]]),
        torch.tensor([[1, 0], [1, 3]]),
        [np.array([1, 0]), torch.tensor([1, 3])],
        [(np.int32(1), np.uint8(0)), (torch.tensor(1), torch.tensor(3))],
    ]
    for heads in ways:
        with mask_heads(model, heads):
            assert torch.equal(logits(model), masked)


def test_two_handles_of_one_cross_attention_are_one_layer() -> None:
    model = tiny_bart()
    own = logits(model)
    first, again = (attention_layers(model, "cross")[0] for _ in range(2))
    with mask_heads(model, {first: [1, 2]}):
        masked = logits(model)
    with mask_heads(model, [(first, 1), (again, 2)]):
        assert torch.equal(logits(model), masked)
    with mask_heads(model, {first: [1]}), mask_heads(model, {again: [2]}):
        assert_close(logits(model), masked)
    assert (masked - own).abs().max() > 1e-4


# ----------------------------------------------------------------------------------------------------- gates


@pytest.mark.parametrize("shape", [(HEADS,), (3, 1, HEADS), (1, 6, HEADS), (3, 6, HEADS)], ids=str)
def test_gradient_of_a_gate_is_what_its_head_gives_times_its_gradient(shape: tuple[int, ...]) -> None:
    """d loss / d gate = <d loss / d output, output>, summed over the examples and tokens that share the gate."""
    model = tiny_bert()
    ids, weights = sentences(3, 6), torch.randn(3, LABELS, generator=torch.Generator().manual_seed(1))
    layers = attention_layers(model)
    gates = {layer: torch.ones(shape, requires_grad=True) for layer in layers}
    with head_gates(gates):
        loss = (model(ids).logits * weights).sum()
        found = torch.autograd.grad(loss, list(gates.values()))
    given: list[Tensor] = []
    for layer in layers:  # its output is what the projection beside it gets
        layer.module.register_forward_hook(lambda _, args, out: given.append(out[0]))
    gradients = torch.autograd.grad((model(ids).logits * weights).sum(), given)
    for gradient, states, of_gate in zip(gradients, given, found, strict=True):
        by_hand = (gradient * states).unflatten(-1, (HEADS, -1)).sum(-1)  # (B, T, H)
        shared = [dim for dim, size in enumerate((1,) * (3 - len(shape)) + shape) if size == 1]
        wanted = (by_hand.sum(shared, keepdim=True) if shared else by_hand).reshape(shape)
        torch.testing.assert_close(of_gate, wanted, rtol=1e-4, atol=1e-6)
        assert wanted.abs().max() > 1e-3


@pytest.mark.parametrize("name", ["GPT-2", "SqueezeBERT", "XLNet", "DeBERTa", "ALBERT"])
def test_gates_of_tokens_are_linear_in_what_heads_give(name: str) -> None:
    """Whatever the projection is: the gradients of per-token gates add up to those of a gate that all share."""
    family = next(family for family in FAMILIES if family.name == name)
    torch.manual_seed(0)
    model = family.build()
    layer = attention_layers(model)[1]
    inputs = family.inputs(2, None)
    gradients = []
    for shape in ((2, 7, HEADS), (2, 1, HEADS), (HEADS,)):
        gate = torch.ones(shape, requires_grad=True)
        with head_gates({layer: gate}):
            (gradient,) = torch.autograd.grad(model(**inputs)[0][:, 0].sum(), gate)
        gradients.append(gradient)
    assert_close(gradients[0].sum(1, keepdim=True), gradients[1])
    assert_close(gradients[1].sum((0, 1)), gradients[2])
    assert gradients[0].abs().sum((0, 1)).min() > 1e-4


# ---------------------------------------------------------------------------------- what a resumed run compares

FINGERPRINTED = ["BERT", "ALBERT", "ALBERT (groups)", "DeBERTa", "GPT-2", "Llama", "XLNet", "ViT"]
"""Gated by a hook; by a hook for several layers (ALBERT); by a mode, since there is no module to hook (XLNet)."""


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return next(family for family in FAMILIES if family.name == name).build()


def fingerprint(model: nn.Module, *masks: Any) -> str:
    """The gates of nested masks, as a file of a resumed run has them."""
    with ExitStack() as stack:
        for mask in masks:
            stack.enter_context(mask_heads(model, mask))
        return json.dumps(active_gates(model))


@pytest.mark.parametrize("name", FINGERPRINTED)
def test_every_mask_has_a_fingerprint_of_its_own(name: str) -> None:
    model = built(name)
    masks: list[list[dict[int, list[int]]]] = [
        [],
        *([{0: [head]}] for head in ALL),
        [{1: [0]}],
        [{1: [0, 1]}],
        [{0: [1], 1: [0]}],
        [{0: [0], 1: [1]}],
        [{0: ALL}],
    ]
    assert fingerprint(model) == "[]"
    assert len({fingerprint(model, *mask) for mask in masks}) == len(masks)


@pytest.mark.parametrize("name", FINGERPRINTED)
def test_equal_masks_have_one_fingerprint(name: str) -> None:
    """In another copy of the model, as in another process; named in another order; nested; by another handle."""
    model, twin = built(name), built(name)
    layers, outer = attention_layers(model), attention_layers(nn.Sequential(model))
    expected = fingerprint(model, {0: [0, 2], 1: [1]})
    for same in [
        fingerprint(twin, {0: [0, 2], 1: [1]}),
        fingerprint(copy.deepcopy(model), {0: [0, 2], 1: [1]}),
        fingerprint(model, [(1, 1), (0, 2), (0, 0)]),
        fingerprint(model, {layers[1]: [1], layers[0]: [2, 0]}),
        fingerprint(model, {outer[0]: [0, 2], outer[1]: [1]}),
        fingerprint(model, {0: [2]}, {1: [1], 0: [0]}),
    ]:
        assert same == expected


@pytest.mark.parametrize("name", FINGERPRINTED)
def test_mask_of_another_model_is_not_in_the_fingerprint(name: str) -> None:
    model, other = built(name), built(name)
    with mask_heads(other, {0: [1]}):
        assert active_gates(model) == []
        if name != "XLNet":  # whose heads cannot be removed at all
            prune_heads(model, [(layer, head) for layer in attention_layers(model) for head in (0, 1)])


# ------------------------------------------------------------------------------------------------- bad input

BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "no layer": ({}, ValueError, "heads={} names no head; give at least one"),
    "no pair": ([], ValueError, r"heads=\[\] names no head"),
    "no head": ({0: []}, ValueError, r"heads={0: \[\]} names no head"),
    "layer too high": ({LAYERS: [0]}, ValueError, "layer 3 is out of range: the model has layers 0 to 2"),
    "layer negative": ([(-1, 0)], ValueError, "layer -1 is out of range: the model has layers 0 to 2"),
    "head too high": ({0: [1, HEADS]}, ValueError, "head 4 of layer 0 is out of range: the layer has heads 0 to 3"),
    "head negative": ({0: [-1]}, ValueError, "head -1 of layer 0 is out of range"),
    "numpy head": ({0: [np.int64(9)]}, ValueError, "head 9 of layer 0 is out of range"),
    "layer true": ({True: [0]}, TypeError, "layer True must be a number or one of attention_layers"),
    "head true": ({0: [True]}, TypeError, "head True of layer 0 must be an integer"),
    "numpy bool": ({0: [np.bool_(True)]}, TypeError, "of layer 0 must be an integer"),
    "tensor bool": ({0: torch.tensor([True])}, TypeError, r"head tensor\(True\) of layer 0 must be an integer"),
    "tensor of a float": ([(0, torch.tensor(1.5))], TypeError, r"head tensor\(1.5000\) of layer 0 must be an integer"),
    "layer by name": ({"encoder.0": [1]}, TypeError, "layer 'encoder.0' must be a number or one of"),
    "head by name": ({0: ["1"]}, TypeError, "head '1' of layer 0 must be an integer"),
    "layer 0.5": ({0.5: [1]}, TypeError, "layer 0.5 must be a number"),
    "head 1.0": ({0: [1.0]}, TypeError, "head 1.0 of layer 0 must be an integer"),
    "one head": ({0: 1}, TypeError, "the heads of layer 0 must be a list, got 1"),
    "heads in a text": ({0: "12"}, TypeError, "the heads of layer 0 must be a list, got '12'"),
    "text": ("0:1", TypeError, r"heads must be {layer: \[heads\]} or \(layer, head\) pairs, got '0:1'"),
    "number": (3, TypeError, "heads must be .* pairs, got 3"),
    "nothing": (None, TypeError, "heads must be .* pairs, got None"),
    "numbers": ([1, 2], TypeError, "heads must be .* pairs, got 1 among them"),
    "array of numbers": (np.array([0, 1]), TypeError, r"heads must be .* pairs, got 0 among them"),
    "array of floats": (np.array([[0.0, 1.0]]), TypeError, "layer 0.0 must be a number or one of"),
    "array of one": (np.array(3), TypeError, "heads must be .* pairs, got 3"),
    "head in an array": ({0: np.array(1)}, TypeError, "the heads of layer 0 must be a list, got 1"),
    "three": ([(0, 1), (0, 1, 2)], TypeError, r"heads must be .* pairs, got \(0, 1, 2\) among them"),
}


@pytest.fixture(scope="module")
def bert() -> nn.Module:
    return tiny_bert()


def enter(model: Any, heads: Any) -> None:
    with mask_heads(model, heads):
        pytest.fail("it was let through")


change = pytest.mark.parametrize("change", [enter, prune_heads], ids=["mask_heads", "prune_heads"])


@change
@pytest.mark.parametrize(("heads", "error", "message"), BAD.values(), ids=BAD)
def test_bad_heads_are_named(
    heads: Any, error: type[Exception], message: str, change: Callable[..., None], bert: nn.Module, unchanged: Unchanged
) -> None:
    with unchanged(bert), pytest.raises(error, match=message):
        change(bert, heads)


@change
def test_handle_of_another_model_is_named(change: Callable[..., None], bert: nn.Module, unchanged: Unchanged) -> None:
    strange = attention_layers(tiny_bert())[0]
    with unchanged(bert), pytest.raises(ValueError, match=re.escape(f"{strange!r} is no layer of this Bert")):
        change(bert, {strange: [0]})


@change
@pytest.mark.parametrize("model", ["bert-base-uncased", None, {}])
def test_what_is_no_model_is_refused(model: Any, change: Callable[..., None]) -> None:
    with pytest.raises(TypeError, match=f"model must be a torch.nn.Module, got {type(model).__name__}"):
        change(model, {0: [0]})


@change
@pytest.mark.parametrize("name", ["Longformer", "FNet", "Swin"])
def test_unsupported_attention_is_refused(name: str, change: Callable[..., None], unchanged: Unchanged) -> None:
    family = next(family for family in FAMILIES if family.name == name)
    model = family.build()
    with unchanged(model), pytest.raises(UnsupportedModelError, match=family.reason):
        change(model, {0: [0]})


@change
def test_output_projection_of_ones_own_is_refused(change: Callable[..., None], unchanged: Unchanged) -> None:
    model = tiny_llama()
    model.model.layers[0].self_attn.o_proj = nn.Sequential(model.model.layers[0].self_attn.o_proj)
    with (
        unchanged(model),
        pytest.raises(UnsupportedModelError, match="no output projection is known of LlamaAttention"),
    ):
        change(model, {0: [0, 1]})


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
@pytest.mark.parametrize("build", [tiny_bert, tiny_albert])
def test_copy_made_inside_is_not_masked_for_ever(
    build: Callable[[], nn.Module], copied: Callable[[nn.Module], nn.Module]
) -> None:
    model = build()
    expected = logits(model)
    with mask_heads(model, {0: [0, 1], 1: [2]}):
        masked, twin = logits(model), copied(model)
        assert torch.equal(logits(twin), expected)
    assert not torch.equal(masked, expected)
    prune_heads(twin, {0: [0]} if build is tiny_bert else [(layer, 0) for layer in range(2)])
