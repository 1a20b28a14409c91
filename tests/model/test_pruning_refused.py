"""Heads are removed where the pruned model is the masked one; else the model is left bit for bit as it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import accelerate
import pytest
import torch
from torch import Tensor, nn
from toy import bert_config, sentences, tiny_bert, tiny_llama
from transformers import BertForSequenceClassification

from captum_attattr import UnsupportedModelError, attention_layers, mask_heads, prune_heads
from captum_attattr.model import head_cuts, head_pruning
from captum_attattr.model.attention_control import AttentionControl

Unchanged = Callable[[nn.Module], AbstractContextManager[None]]
ALL = [0, 1, 2, 3]


def bits(model: nn.Module) -> dict[str, Any]:
    """Everything of a model: which objects its modules hold, and the values of its tensors."""
    modules = {name: dict(vars(module)) for name, module in model.named_modules()}
    inner = {
        (name, key): list(value.items())
        for name, attributes in modules.items()
        for key, value in attributes.items()
        if isinstance(value, dict)
    }
    values = {name: tensor.clone() for name, tensor in model.state_dict().items() if not tensor.is_meta}
    return {"modules": modules, "inner": inner, "values": values}


def same(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether two of `bits` are the same objects with the same values."""
    if ours["values"].keys() != theirs["values"].keys() or ours["modules"].keys() != theirs["modules"].keys():
        return False
    held = all(
        a.keys() == b.keys() and all(a[key] is b[key] or a[key] == b[key] for key in a)
        for a, b in zip(ours["modules"].values(), theirs["modules"].values(), strict=True)
    )
    inner = all(
        len(ours["inner"][key]) == len(theirs["inner"][key])
        and all(k == m and v is w for (k, v), (m, w) in zip(ours["inner"][key], theirs["inner"][key], strict=True))
        for key in ours["inner"]
    )
    return held and inner and all(torch.equal(v, theirs["values"][k]) for k, v in ours["values"].items())


class Quantised(Tensor):
    """As torchao's weights, or a DTensor: a tensor of another class."""


def wrapped(model: nn.Module) -> None:
    layer: Any = attention_layers(model)[1].module
    weight = layer.key.weight.detach().as_subclass(Quantised)  # type: ignore[arg-type]
    layer.key.weight = nn.Parameter(weight)


def integers(model: nn.Module) -> None:
    layer: Any = attention_layers(model)[1].module
    layer.value.weight = nn.Parameter(layer.value.weight.detach().to(torch.int8), requires_grad=False)


def eighths(model: nn.Module) -> None:
    layer: Any = attention_layers(model)[1].module
    layer.value.weight = nn.Parameter(layer.value.weight.detach().to(torch.float8_e4m3fn), requires_grad=False)


def on_meta(model: nn.Module) -> None:
    model.to("meta")


def partly_offloaded(model: Any) -> None:
    accelerate.cpu_offload(model.bert.encoder.layer[2])


def tied(model: Any) -> None:
    first, second = (layer.module for layer in attention_layers(model)[:2])
    second.query.weight = first.query.weight  # type: ignore[union-attr]


def spoilt(name: str, value: float) -> Callable[[Any], None]:
    """Put a number into the weight of that name."""

    def change(model: nn.Module) -> None:
        with torch.no_grad():
            model.get_parameter(name)[-1, -1] = value

    return change


QUERY, DENSE = (f"bert.encoder.layer.{part}.weight" for part in ("1.attention.self.query", "0.intermediate.dense"))

REFUSED: dict[str, tuple[Callable[[Any], None], Any, type[Exception], str]] = {
    "head out of range": (lambda _: None, {0: [4]}, ValueError, "head 4 of layer 0 is out of range"),
    "layer out of range": (lambda _: None, {3: [0]}, ValueError, "layer 3 is out of range"),
    "tensor subclass": (wrapped, {0: [1], 1: [2]}, UnsupportedModelError, "'key.weight' is a Quantised.*prune before"),
    "integers": (integers, {0: [1], 1: [2]}, UnsupportedModelError, "'value.weight' is torch.int8: prune before"),
    "float8": (eighths, {0: [1], 1: [2]}, UnsupportedModelError, "is torch.float8_e4m3fn: prune before quantization"),
    "tied": (tied, {0: [1]}, UnsupportedModelError, "'weight' is tied to that of another layer"),
    "meta": (on_meta, {0: [1]}, ValueError, "is not in memory .*load the whole model onto a device"),
    "partly offloaded": (partly_offloaded, {0: [1]}, ValueError, "layer.2.*is not in memory"),
}


# Refused where gradients and a comparison decide; who gives verify=False knows.
NOT_FINITE: dict[str, tuple[Callable[[Any], None], str]] = {
    "NaN in a layer to be cut": (spoilt(QUERY, torch.nan), "'query.weight' holds NaN or infinity; mend the weights"),
    "infinity there": (spoilt(QUERY, torch.inf), "'query.weight' holds NaN or infinity"),
    "NaN elsewhere": (spoilt(DENSE, torch.nan), f"gives NaN, which cannot be compared: its weight '{DENSE}'"),
}


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_before_a_change(name: str, verify: bool) -> None:
    change, heads, error, message = REFUSED[name]
    model = tiny_bert()
    change(model)
    before = bits(model)
    with pytest.raises(error, match=message):
        prune_heads(model, heads, verify=verify)
    assert same(bits(model), before)


@pytest.mark.parametrize("name", NOT_FINITE)
def test_weights_that_are_not_finite(name: str) -> None:
    change, message = NOT_FINITE[name]
    model = tiny_bert()
    change(model)
    before = {name: (weight, weight.nan_to_num()) for name, weight in model.named_parameters()}
    with pytest.raises(ValueError, match=message):
        prune_heads(model, {0: [1], 1: [2]})
    for name, weight in model.named_parameters():
        assert weight is before[name][0]
        assert torch.equal(weight.nan_to_num(), before[name][1])
    prune_heads(model, {0: [1], 1: [2]}, verify=False)


def test_model_that_is_being_attributed_is_refused() -> None:
    model = tiny_bert()
    with AttentionControl(attention_layers(model)):
        before = bits(model)
        with pytest.raises(RuntimeError, match="is being attributed already"):
            prune_heads(model, {0: [1]})
        assert same(bits(model), before)
    prune_heads(model, {0: [1]})


def test_model_that_another_thread_attributes_is_refused() -> None:
    model, entered, left = tiny_bert(), threading.Event(), threading.Event()

    def attribute() -> None:
        with AttentionControl(attention_layers(model)):
            entered.set()
            left.wait(30)

    thread = threading.Thread(target=attribute)
    thread.start()
    assert entered.wait(30)
    try:
        before = bits(model)
        with pytest.raises(RuntimeError, match="is being attributed already"):
            prune_heads(model, {0: [1]})
        assert same(bits(model), before)
    finally:
        left.set()
        thread.join()
    prune_heads(model, {0: [1]})


def test_masked_model_is_refused() -> None:
    model = tiny_bert()
    with mask_heads(model, {0: [1]}):
        before = bits(model)
        with pytest.raises(ValueError, match="heads cannot be removed inside mask_heads"):
            prune_heads(model, {0: [2]})
        assert same(bits(model), before)


INPUTS: dict[str, tuple[Any, type[Exception], str]] = {
    "no mapping": (sentences(), TypeError, "inputs must be the keyword arguments of the model's forward, got Tensor"),
    "unknown name": ({"ids": sentences()}, ValueError, "does not run on the inputs that were given"),
    "too long": ({"input_ids": torch.ones(1, 99, dtype=torch.long)}, ValueError, "does not run on the inputs"),
}


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_that_the_model_does_not_run_on(name: str, unchanged: Unchanged) -> None:
    inputs, error, message = INPUTS[name]
    model = tiny_bert()
    with unchanged(model), pytest.raises(error, match=message):
        prune_heads(model, {0: [1]}, inputs=inputs)
    prune_heads(model, {0: [1]}, inputs={"input_ids": sentences()})


# --------------------------------------------------------------------------------- all or nothing, and the net


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("call", [0, 1, 5, 12])
def test_error_in_the_middle_leaves_the_model_as_it_was(
    call: int, verify: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the step, what had been assigned is taken back."""
    model, calls = tiny_bert(), iter(range(99))
    held = set(model.modules())

    def failing(owner: Any, *args: Any) -> None:
        if owner in held and next(calls) == call:  # and not a part of the copy on which the cut is tried
            raise KeyboardInterrupt
        head_cuts.assign(owner, *args)

    monkeypatch.setattr(head_pruning, "assign", failing)
    before = bits(model)
    with pytest.raises(KeyboardInterrupt):
        prune_heads(model, {0: [1, 2], 1: ALL, 2: [3]}, verify=verify)
    assert same(bits(model), before)


def test_parameters_are_all_made_before_one_is_assigned(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = tiny_bert(), iter(range(99))

    def failing(cut: Any) -> Any:
        if next(calls) == 12:
            raise MemoryError
        return head_cuts.cut_parameter(cut)

    monkeypatch.setattr(head_pruning, "cut_parameter", failing)
    monkeypatch.setattr(head_pruning, "assign", lambda *_: pytest.fail("a parameter was assigned"))
    with pytest.raises(MemoryError):
        prune_heads(model, {0: [1, 2], 1: ALL, 2: [3]})


ATTENTION: Any = type(tiny_bert().bert.encoder.layer[0].attention.self)


class CountingSelfAttention(ATTENTION):  # type: ignore[misc]
    """An attention whose output depends on how many heads there are, as nothing in its names says."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output, *rest = super().forward(*args, **kwargs)
        return output * self.num_attention_heads, *rest


def counting() -> Any:
    """A BERT whose second layer multiplies by its number of heads."""
    model = tiny_bert()
    model.bert.encoder.layer[1].attention.self.__class__ = CountingSelfAttention
    return model


def mixing() -> Any:
    """A Llama that normalises its heads together before the output projection."""
    model = tiny_llama()
    for layer in model.model.layers:
        layer.self_attn.o_proj.register_forward_pre_hook(lambda _, args: (nn.functional.normalize(args[0], dim=-1),))
    return model


@pytest.mark.parametrize("heads", [{1: [0]}, {0: [1], 1: [1, 2], 2: ALL}], ids=str)
def test_pruned_model_that_is_not_the_masked_one_is_undone(heads: dict[int, list[int]]) -> None:
    model = counting()
    before = bits(model)
    with pytest.raises(UnsupportedModelError, match=r"differs from the masked model .*as it was.*Please report"):
        prune_heads(model, heads)
    assert same(bits(model), before)
    prune_heads(model, heads, verify=False)  # who is in a hurry is not told
    assert model.config.pruned_heads


def test_heads_that_are_mixed_behind_the_attention_are_refused() -> None:
    """Masks are applied before or after the norm, as hooks run: only a comparison can tell."""
    model = mixing()
    before = bits(model)
    with pytest.raises(UnsupportedModelError):
        prune_heads(model, {0: [0, 1]})
    assert same(bits(model), before)


class WideSelfAttention(ATTENTION):  # type: ignore[misc]
    """An attention that counts on a width which nobody knows of."""

    width = 32

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        context, *rest = super().forward(*args, **kwargs)
        return context.reshape(*context.shape[:2], self.width), *rest


def wide() -> Any:
    """A BERT whose second layer gives what all heads give together a fixed width."""
    model = tiny_bert()
    model.bert.encoder.layer[1].attention.self.__class__ = WideSelfAttention
    return model


def uncopied() -> Any:
    """The same, which cannot be copied."""
    model = wide()
    model.lock = threading.Lock()
    return model


FAILS = (
    r"WideSelfAttention.forward fails at `context.reshape\(\*context.shape\[:2\], self.width\)` "
    r"\(test_pruning_refused.py, line \d+\): shape '.*' is invalid.*The model is as it was"
)


@pytest.mark.parametrize("build", [wide, uncopied])
def test_forward_that_fails_without_the_heads_is_named(build: Callable[[], Any]) -> None:
    model = build()
    before = bits(model)
    with pytest.raises(UnsupportedModelError, match=FAILS):
        prune_heads(model, {0: [1], 1: [1]})
    assert same(bits(model), before)


@pytest.mark.parametrize("build", [wide, counting])
def test_cut_is_tried_on_a_copy(build: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be removed is refused before anything of the model is assigned."""
    model, assigned = build(), []

    def watched(owner: Any, *args: Any) -> None:
        assigned.append(owner)
        head_cuts.assign(owner, *args)

    monkeypatch.setattr(head_pruning, "assign", watched)
    with pytest.raises(UnsupportedModelError, match="with them gone"):
        prune_heads(model, {0: [1], 1: [1]})
    assert assigned
    assert not set(assigned) & set(model.modules())


def test_weights_that_hide_the_layout_do_not_matter() -> None:
    """Zero queries, and saturated attention, have no gradient; the probe adds noise."""
    model, whole = tiny_bert(), tiny_bert()
    for each in (model, whole):
        layer: Any = attention_layers(each)[0].module
        with torch.no_grad():
            layer.query.weight.zero_()
            layer.query.bias.zero_()
            layer.key.weight.mul_(1e6)
    with mask_heads(whole, {0: [1]}):
        masked = whole(sentences()).logits
    prune_heads(model, {0: [1]})
    torch.testing.assert_close(model(sentences()).logits, masked, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_are_compared_by_their_rounding(dtype: torch.dtype) -> None:
    model = tiny_llama().to(dtype)
    prune_heads(model, {0: [0, 1], 2: ALL})
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    with pytest.raises(UnsupportedModelError, match="differs from the masked model"):
        prune_heads(counting().to(dtype), {1: [0]})


def test_random_numbers_and_mode_are_left_alone() -> None:
    model = BertForSequenceClassification(bert_config()).train()
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    prune_heads(model, {0: [1]})
    assert torch.equal(torch.rand(2), wanted)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())


def test_frozen_parameters_stay_frozen() -> None:
    model = tiny_bert().requires_grad_(False)
    prune_heads(model, {0: [1], 1: ALL})
    assert not any(parameter.requires_grad for parameter in model.parameters())
