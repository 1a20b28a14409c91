"""Attention layers are found, read and replaced, and the model is as it was afterwards."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, Family
from torch import Tensor, nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    BertConfig,
    BertForSequenceClassification,
    BertLMHeadModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    GPT2Config,
    GPT2LMHeadModel,
)

from captum_attattr import LayerAttAttr, UnsupportedModelError, attention_layers
from captum_attattr.model.attention_control import AttentionControl, LayerCall
from captum_attattr.model.attention_layers import AttentionLayer, block_stacks

Unchanged = Callable[[nn.Module], AbstractContextManager[None]]
FAMILY = {family.name: family for family in FAMILIES}


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    return FAMILY[name].build()


def output(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs)[0]


def names(layers: list[AttentionLayer]) -> list[str]:
    return [layer.name for layer in layers]


def small_bert(**config: Any) -> BertConfig:
    return BertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24, vocab_size=10, **config
    )


class Wrapped(nn.Module):
    """A user's module around a model."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.head = nn.Linear(1, 1)
        self.backbone = backbone

    def forward(self, **inputs: Tensor) -> tuple[Tensor]:
        return (self.backbone(**inputs)[0] * 2,)


def read(layers: list[AttentionLayer], inputs: dict[str, Tensor], model: nn.Module | None = None) -> list[Tensor]:
    """Every layer's attention, in the list's order."""
    maps: dict[int, Tensor] = {}

    def visitor(position: int, call: LayerCall) -> None:
        assert position not in maps
        maps[position] = call.tensor

    with AttentionControl(layers) as control, torch.no_grad(), control.watch(visitor, check=True):
        output(model or layers[0].model, inputs)
    return [maps[position] for position in range(len(layers))]


def replaced(layers: list[AttentionLayer], inputs: dict[str, Tensor], visitor: Any) -> Tensor:
    with AttentionControl(layers) as control, control.watch(visitor):
        return output(layers[0].model, inputs)


# ------------------------------------------------------------------------------------------- finding layers


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("BERT", "encoder", [f"bert.encoder.layer.{i}.attention.self" for i in range(3)]),
        ("DeBERTa-v2", "encoder", [f"deberta.encoder.layer.{i}.attention.self" for i in range(3)]),
        ("T5", "encoder", [f"transformer.encoder.block.{i}.layer.0.SelfAttention" for i in range(3)]),
        ("T5", "decoder", [f"transformer.decoder.block.{i}.layer.0.SelfAttention" for i in range(3)]),
        ("T5", "cross", [f"transformer.decoder.block.{i}.layer.1.EncDecAttention" for i in range(3)]),
        ("BART", "encoder", [f"model.encoder.layers.{i}.self_attn" for i in range(3)]),
        ("BART", "decoder", [f"model.decoder.layers.{i}.self_attn" for i in range(3)]),
        ("BART", "cross", [f"model.decoder.layers.{i}.encoder_attn" for i in range(3)]),
        ("ALBERT", "encoder", ["albert.encoder.albert_layer_groups.0.albert_layers.0.attention"] * 3),
        ("Llama", "decoder", [f"model.layers.{i}.self_attn" for i in range(3)]),
        ("ViT", "encoder", [f"vit.layers.{i}.attention" for i in range(3)]),
    ],
)
def test_layers_have_their_names_and_order(name: str, kind: str, expected: list[str]) -> None:
    model = build(name)
    layers = attention_layers(model, kind)
    assert names(layers) == expected
    assert [layer.index for layer in layers] == list(range(3))
    assert {layer.kind for layer in layers} == {kind}
    assert {layer.route for layer in layers} == {FAMILY[name].route}
    assert all(layer.model is model and layer.module is model.get_submodule(layer.name) for layer in layers)
    assert repr(layers[0]) == f"AttentionLayer({kind} 0: {expected[0]})"


@pytest.mark.parametrize("name", ["T5", "BART", "Whisper"])
def test_self_attention_of_encoder_then_decoder_by_default(name: str) -> None:
    model = build(name)
    every = attention_layers(model)
    assert names(every) == names(attention_layers(model, "encoder")) + names(attention_layers(model, "decoder"))


def test_shared_weights_are_told_apart_by_their_call() -> None:
    layers = attention_layers(build("ALBERT"))
    assert [layer.call for layer in layers] == [0, 1, 2]
    assert len({layer.key for layer in layers}) == 3
    assert repr(layers[2]).endswith(".attention, call=2)")

    inner, groups = (f"albert.encoder.albert_layer_groups.{g}.albert_layers.{i}.attention" for g, i in [(0, 1), (1, 0)])
    layers = attention_layers(build("ALBERT (groups)"))
    assert names(layers)[1:3] == [inner, groups]
    assert [layer.call for layer in layers] == [0, 0, 0, 0]


def test_calls_of_shared_weights_are_in_the_order_of_execution() -> None:
    layers = attention_layers(build("ALBERT"))
    maps = read(layers, FAMILY["ALBERT"].inputs(2, None))
    for i, layer in enumerate(layers):
        assert torch.equal(read([layer], FAMILY["ALBERT"].inputs(2, None))[0], maps[i])
    assert not torch.equal(maps[0], maps[1])


def test_roles_of_one_class() -> None:
    """BERT as a decoder, and two BERTs as an encoder-decoder."""
    assert {layer.kind for layer in attention_layers(BertLMHeadModel(small_bert(is_decoder=True)))} == {"decoder"}
    parts = EncoderDecoderConfig.from_encoder_decoder_configs(small_bert(), small_bert())
    model = EncoderDecoderModel(parts)
    assert names(attention_layers(model, "encoder"))[0] == "encoder.encoder.layer.0.attention.self"
    assert names(attention_layers(model, "decoder"))[0] == "decoder.bert.encoder.layer.0.attention.self"
    assert names(attention_layers(model, "cross"))[0] == "decoder.bert.encoder.layer.0.crossattention.self"
    sizes = {"n_embd": 24, "n_layer": 2, "n_head": 4, "vocab_size": 20, "bos_token_id": 0, "eos_token_id": 1}
    model = GPT2LMHeadModel(GPT2Config(add_cross_attention=True, **sizes))
    assert names(attention_layers(model)) == ["transformer.h.0.attn", "transformer.h.1.attn"]
    assert names(attention_layers(model, "cross"))[1] == "transformer.h.1.crossattention"


def test_model_inside_another_module() -> None:
    bert = build("BERT")
    model = nn.Sequential(Wrapped(bert))
    layers = attention_layers(model)
    assert names(layers) == [f"0.backbone.{name}" for name in names(attention_layers(bert))]
    inputs = FAMILY["BERT"].inputs(2, 3)
    for inner, outer in zip(
        read(attention_layers(bert), inputs), read(layers, inputs, lambda **kw: model[0](**kw)), strict=True
    ):
        assert torch.equal(inner, outer)


def test_class_defined_by_the_user() -> None:
    class Tempered(BertForSequenceClassification):
        def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor]:
            return (super().forward(*args, **kwargs).logits / 2,)

    torch.manual_seed(0)
    model = Tempered(small_bert(initializer_range=0.3)).eval()
    layers = attention_layers(model)
    ids = torch.tensor([[1, 5, 6, 2], [1, 7, 8, 2]])
    with torch.no_grad():
        own = model(ids)[0]
    maps = read(layers, {"input_ids": ids})
    torch.testing.assert_close(replaced(layers, {"input_ids": ids}, lambda i, _: maps[i]), own)
    attribution, delta = LayerAttAttr(lambda x: model(x)[0].softmax(-1), layers).attribute(
        ids, target=1, return_convergence_delta=True
    )
    for gap, map_ in zip(delta, attribution, strict=True):
        assert 0 < gap.abs().max() < 1e-3 * map_.norm()


@pytest.mark.parametrize("kind", ["self", "Encoder", "", 0])
def test_unknown_kind(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"kind=.* is unknown; use None, 'encoder', 'decoder' or 'cross'"):
        attention_layers(build("BERT"), kind)


def test_kind_that_the_model_does_not_have() -> None:
    with pytest.raises(ValueError, match=r"no cross attention; it has 3 encoder$"):
        attention_layers(build("BERT"), "cross")
    with pytest.raises(ValueError, match=r"no encoder attention; it has 3 decoder$"):
        attention_layers(build("Llama"), "encoder")


@pytest.mark.parametrize(
    "module", [nn.Linear(2, 2), nn.TransformerEncoderLayer(8, 2), nn.ModuleList()], ids=lambda m: type(m).__name__
)
def test_module_without_attention_of_transformers(module: nn.Module) -> None:
    with pytest.raises(UnsupportedModelError, match=f"{type(module).__name__} has no attention layer that goes"):
        attention_layers(module)


def test_no_module() -> None:
    with pytest.raises(TypeError, match=r"must be a torch.nn.Module, got str"):
        attention_layers("bert-base-uncased")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Longformer", ".model type 'longformer'. is not supported: .* windowed"),
        ("Swin", "windowed: batch and windows share one dimension"),
        ("BigBird", "block-sparse.*attention_type='original_full'"),
        ("FNet", "has no attention layer that goes through"),
    ],
)
def test_refused_families_say_why(name: str, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        attention_layers(build(name))
    with pytest.raises(UnsupportedModelError, match=message):
        attention_layers(Wrapped(build(name)))


# ------------------------------------------------------------------------------------------------- reading

READ = {
    "BERT": "attentions",
    "ALBERT (groups)": "attentions",
    "ModernBERT": "attentions",
    "GPT-2": "attentions",
    "Llama": "attentions",
    "Mistral": "attentions",
    "Gemma2": "attentions",
    "GPT-OSS": "attentions",
    "ViT": "attentions",
    "DeBERTa-v2": "attentions",
    "MPNet": "attentions",
    "BLOOM": "attentions",
    "T5": "{kind}_attentions",
    "BART": "{kind}_attentions",
    "Whisper": "{kind}_attentions",
}


@pytest.mark.parametrize("name", READ)
def test_read_attention_is_what_transformers_returns(name: str) -> None:
    """The oracle: `output_attentions=True` of the eager model."""
    family = FAMILY[name]
    model = build(name)
    inputs = family.inputs(2, 3)
    found = {kind: read(attention_layers(model, kind), inputs) for kind in family.kinds}
    if family.route == "interface":
        model.set_attn_implementation("eager")
    with torch.no_grad():
        own = model(**inputs, output_attentions=True)
    for kind, maps in found.items():
        expected = own[READ[name].format(kind=kind)]
        if not expected:
            pytest.skip(f"{name} of transformers {transformers.__version__} returns no attention")
        assert len(maps) == len(expected) == family.layers[kind]
        for ours, theirs in zip(maps, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def test_layers_are_read_one_by_one_as_together() -> None:
    for name in ("T5", "MPNet"):
        inputs = FAMILY[name].inputs(2, None)
        layers = attention_layers(build(name))
        for layer, together in zip(layers, read(layers, inputs), strict=True):
            assert torch.equal(read([layer], inputs)[0], together)
        for alone, together in zip(read(layers[::-1], inputs)[::-1], read(layers, inputs), strict=True):
            assert torch.equal(alone, together)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", ["Llama", "Mistral", "Gemma2", "Qwen3", "OPT", "BERT", "BART"])
@torch.no_grad()
def test_masks_are_the_models_own(name: str, side: str) -> None:
    """A padded, causal or windowed model gives under control what it gives by itself, on sdpa."""
    model = build(name)
    inputs = FAMILY[name].inputs(3, 4)
    if side == "left":
        inputs = {key: value.roll(4, dims=1) for key, value in inputs.items()}
    # Queries of padding tokens may see nothing at all, and attention to nothing is not defined.
    real = inputs["attention_mask"].bool()
    layers = attention_layers(model)
    implementation = model.config._attn_implementation
    assert implementation == ("eager" if name == "Gemma2" else "sdpa")
    maps = read(layers, inputs)
    own = output(model, inputs)
    controlled = replaced(layers, inputs, lambda *_: None)
    if own.shape[:2] == real.shape:
        own, controlled = own[real], controlled[real]
    torch.testing.assert_close(controlled, own, rtol=0, atol=1e-5)
    for layer, attention in zip(layers, maps, strict=True):
        if layer.kind == "encoder" or "BART" not in name:
            assert not (attention * real[:, None, :, None] * ~real[:, None, None, :]).any()
        if layer.kind == "decoder":
            assert not attention.triu(1)[real.unsqueeze(1).expand(attention.shape[:3])].any()


# ----------------------------------------------------------------------------------------------- replacing

REPLACED = ["BERT", "ALBERT", "Llama", "T5", "BART", "ViT", "GPT-OSS", "MobileBERT", "DeBERTa", "XLNet", "BLOOM"]


@pytest.mark.parametrize("name", REPLACED)
def test_attention_replaced_by_itself_changes_nothing(name: str) -> None:
    for kind in FAMILY[name].kinds:
        inputs = FAMILY[name].inputs(3, 2)
        layers = attention_layers(build(name), kind)
        with torch.no_grad():
            own = output(layers[0].model, inputs)
        maps = read(layers, inputs)
        again = replaced(layers, inputs, lambda i, _, maps=maps: maps[i])
        torch.testing.assert_close(again, own, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rows", [[0], [1], [2], [0, 1], [1, 2], [0, 1, 2]], ids=str)
@pytest.mark.parametrize("name", REPLACED)
def test_only_the_replaced_rows_change(name: str, rows: list[int]) -> None:
    inputs = FAMILY[name].inputs(3, None)
    model = build(name)
    for kind in FAMILY[name].kinds:
        layers = attention_layers(model, kind)
        with torch.no_grad():
            own = output(model, inputs)

            def visitor(position: int, call: LayerCall) -> Tensor | None:
                if position != 1:
                    return None
                attention = call.tensor.clone()
                attention[rows] = 0.3
                return attention

            changed = (replaced(layers, inputs, visitor) - own).flatten(1).abs().amax(1) > 1e-4
        assert changed.nonzero().ravel().tolist() == rows


@pytest.mark.parametrize("name", ["BERT", "Llama", "MPNet"])
def test_replacement_is_used_as_it_is(name: str) -> None:
    """With all attention zero nothing but the token itself is left: other tokens cannot change its output."""
    model = build(name)
    body = getattr(model, model.base_model_prefix)
    inputs = FAMILY[name].inputs(2, None)
    other = inputs | {"input_ids": torch.cat((inputs["input_ids"][:, :-1], inputs["input_ids"][:, -1:] + 3), 1)}
    layers = attention_layers(body)
    zero = [replaced(layers, both, lambda _, call: call.tensor * 0) for both in (inputs, other)]
    assert torch.equal(zero[0][:, :-1], zero[1][:, :-1])
    assert not torch.equal(zero[0][:, -1], zero[1][:, -1])


@pytest.mark.parametrize("name", ["BERT", "Gemma2", "DeBERTa"])
def test_gradient_reaches_the_replacement_and_no_parameter(name: str) -> None:
    model = build(name)
    inputs = FAMILY[name].inputs(1, None)
    layers = attention_layers(model)
    leaves = [attention.requires_grad_() for attention in read(layers, inputs)]
    result = replaced(layers, inputs, lambda i, _: leaves[i])
    gradients = torch.autograd.grad(result.softmax(-1)[0, 0], leaves)
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients)
    assert all(parameter.grad is None for parameter in model.parameters())
    with AttentionControl(layers):
        assert not output(model, inputs).requires_grad
    assert output(model, inputs).requires_grad


def test_layer_that_was_not_reached() -> None:
    layers = attention_layers(build("BERT"))
    with AttentionControl(layers) as control:
        with (
            pytest.raises(UnsupportedModelError, match=r"not pass through AttentionLayer\(encoder 0: .* 2 more layers"),
            control.watch(lambda *_: None),
        ):
            pass
        with pytest.raises(UnsupportedModelError, match="did not pass"), control.watch(lambda *_: None):
            output(build("BERT"), FAMILY["BERT"].inputs())


def test_output_that_is_more_than_attention_times_values() -> None:
    layers = attention_layers(build("Granite SWA"))
    with pytest.raises(UnsupportedModelError, match="output is not attention times values"):
        read(layers, FAMILY["Granite SWA"].inputs())


@pytest.mark.parametrize(
    ("name", "stacks"),
    [
        ("BERT", {"bert.encoder.layer"}),
        ("T5", {"transformer.encoder.block", "transformer.decoder.block"}),
        ("ALBERT (groups)", {"albert.encoder.albert_layer_groups"}),
    ],
)
def test_stacks_are_the_outermost_lists_of_blocks(name: str, stacks: set[str]) -> None:
    model = build(name)
    found = block_stacks(attention_layers(model)) or []
    assert {tuple(map(id, stack)) for stack in found} == {tuple(map(id, model.get_submodule(s))) for s in stacks}


# -------------------------------------------------------------------------------------- the model afterwards


class Stop(Exception):  # noqa: N818  # nobody's error
    """Raised where a test wants something to end."""


def hook_that_raises(error: type[BaseException]) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        raise error

    return hook


def fail_nowhere(model: nn.Module, error: type[BaseException]) -> Callable[..., Tensor]:
    return lambda *args: model(*args)[0].flatten(1).softmax(-1)


def fail_before_the_model(model: nn.Module, error: type[BaseException]) -> Callable[..., Tensor]:
    calls: list[int] = []

    def forward(*args: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 2:  # under control already
            raise error
        return fail_nowhere(model, error)(*args)

    return forward


def fail_in_the_backward(model: nn.Module, error: type[BaseException]) -> Callable[..., Tensor]:
    def forward(*args: Tensor) -> Tensor:
        result = fail_nowhere(model, error)(*args)
        if result.requires_grad:
            result.register_hook(hook_that_raises(error))
        return result

    return forward


ENDINGS = [
    (fail_nowhere, None),
    (fail_before_the_model, Stop),
    (fail_before_the_model, KeyboardInterrupt),
    (fail_in_the_backward, Stop),
    (fail_in_the_backward, KeyboardInterrupt),
]


@pytest.mark.parametrize(("forward", "error"), ENDINGS)
@pytest.mark.parametrize("name", ["BERT", "Llama", "T5", "CLIP (vision)", "MPNet", "XLNet"])
def test_model_is_restored(name: str, forward: Any, error: type[BaseException] | None, unchanged: Unchanged) -> None:
    model = Wrapped(build(name)).backbone
    inputs = FAMILY[name].inputs(2, 1)
    parameters = list(model.parameters())
    for parameter in parameters[::2]:
        parameter.requires_grad_(False)
    parameters[1].grad = torch.ones_like(parameters[1])
    model.get_submodule(attention_layers(model)[0].name).register_forward_hook(lambda *_: None)
    order = ("input_ids", "attention_mask") if "input_ids" in inputs else ("pixel_values",)
    with torch.no_grad():
        before = output(model, inputs)
    lattr = LayerAttAttr(forward(model, error), attention_layers(model))
    arguments = (inputs[order[0]], *(inputs[key] for key in order[1:]))
    with unchanged(model):
        if error is None:
            lattr.attribute(arguments, target=0)
        else:
            # Kept, the error keeps every frame alive: nothing is restored just because it is garbage.
            with pytest.raises(error) as kept:
                lattr.attribute(arguments, target=0)
            assert kept.tb
    with torch.no_grad():
        assert torch.equal(output(model, inputs), before)


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt])
@pytest.mark.parametrize("name", ["BERT", "MPNet"])
def test_model_is_restored_when_a_part_of_it_raises(
    name: str, error: type[BaseException], unchanged: Unchanged
) -> None:
    model = build(name)
    layers = attention_layers(model)
    handle = layers[1].module.register_forward_pre_hook(hook_that_raises(error))
    with unchanged(model):
        for visitor in (lambda *_: None, hook_that_raises(error)):
            with pytest.raises(error) as kept:
                replaced(layers, FAMILY[name].inputs(2, 1), visitor)
            assert kept.tb
    handle.remove()
    with unchanged(model):
        read(layers, FAMILY[name].inputs(2, 1))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_implementation_of_before_comes_back(implementation: str) -> None:
    model = build("CLIP (vision)")
    model.set_attn_implementation(implementation)
    model.config.text_config._attn_implementation_internal = "eager"  # of a part that this model leaves out
    layers = attention_layers(model)
    with AttentionControl(layers):
        assert {layer.module.config._attn_implementation for layer in layers} == {"captum_attattr"}
    assert {layer.module.config._attn_implementation for layer in layers} == {implementation}
    assert model.config._attn_implementation == implementation
    assert model.config.text_config._attn_implementation == "eager"


def test_interface_is_registered_until_the_last_control_ends() -> None:
    """Nothing outlives a call; names that others have registered stay."""
    first, second = (attention_layers(build(name)) for name in ("BERT", "Llama"))
    before = list(AttentionInterface()), list(AttentionMaskInterface())
    with AttentionControl(first):
        with AttentionControl(second):
            assert "captum_attattr" in AttentionInterface()
        assert "captum_attattr" in AttentionInterface()
        assert "captum_attattr" in AttentionMaskInterface()
        read(second, FAMILY["Llama"].inputs(2, 1))
    assert (list(AttentionInterface()), list(AttentionMaskInterface())) == before
    assert "captum_attattr" not in before[0]


# -------------------------------------------------------------------------------- more than one user at once

BOTH_ROUTES = ["BERT", "MPNet"]


@pytest.mark.parametrize("name", BOTH_ROUTES)
def test_nested_use_of_one_model(name: str, unchanged: Unchanged) -> None:
    model = build(name)
    layers = attention_layers(model)
    inputs = FAMILY[name].inputs(2, None)
    with unchanged(model):
        with AttentionControl(layers) as control:
            with pytest.raises(RuntimeError, match="is being attributed already"), AttentionControl(layers[:1]):
                pass
            with control.watch(lambda *_: None):  # the outer one goes on
                output(model, inputs)
        read(layers, inputs)


@pytest.mark.parametrize("name", BOTH_ROUTES)
def test_attribution_inside_a_forward_function(name: str, unchanged: Unchanged) -> None:
    model = build(name)
    layers = attention_layers(model)
    ids = FAMILY[name].inputs(2, None)["input_ids"]
    inner = LayerAttAttr(lambda x: model(x)[0].softmax(-1), layers)

    def forward(x: Tensor) -> Tensor:
        inner.attribute(x, target=0)
        return model(x)[0].softmax(-1)

    with unchanged(model), pytest.raises(RuntimeError, match="one model can be attributed once at a time"):
        LayerAttAttr(forward, layers).attribute(ids, target=0)


@pytest.mark.parametrize("name", BOTH_ROUTES)
def test_one_model_in_two_threads(name: str, unchanged: Unchanged) -> None:
    model = build(name)
    layers = attention_layers(model)
    ids = FAMILY[name].inputs(2, None)["input_ids"]
    running, refused = threading.Event(), threading.Event()
    calls: list[int] = []

    def forward(x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) == 3:  # under control already
            running.set()
            assert refused.wait(30)
        return model(x)[0].softmax(-1)

    with unchanged(model):
        alone = LayerAttAttr(lambda x: model(x)[0].softmax(-1), layers).attribute(ids, target=0)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(LayerAttAttr(forward, layers).attribute, ids, target=0)
            try:
                assert running.wait(30)
                with pytest.raises(RuntimeError, match="is being attributed already"):
                    LayerAttAttr(lambda x: model(x)[0].softmax(-1), layers).attribute(ids, target=0)
            finally:
                refused.set()
            for ours, theirs in zip(first.result(60), alone, strict=True):
                assert torch.equal(ours, theirs)


@pytest.mark.parametrize("pair", [("BERT", "Llama"), ("MPNet", "DeBERTa"), ("BERT", "MPNet"), ("BERT", "BERT")])
def test_two_models_in_two_threads(pair: tuple[str, str], unchanged: Unchanged) -> None:
    """Their forwards wait for each other, so that both are under way at the same time."""
    meet = threading.Barrier(2, timeout=30)

    def attribute(family: Family, model: nn.Module, together: bool) -> Any:
        calls: list[int] = []

        def pause(*_: Any) -> None:  # in the middle of a layer
            calls.append(1)
            if together and len(calls) <= 12:
                meet.wait()

        layers = attention_layers(model)
        handle = layers[1].module.register_forward_pre_hook(pause)
        lattr = LayerAttAttr(lambda ids, mask: model(ids, attention_mask=mask)[0].softmax(-1), layers)
        try:
            return lattr.attribute(tuple(family.inputs(2, 2).values()), target=0, n_steps=12, internal_batch_size=6)
        finally:
            handle.remove()
            assert len(calls) >= 12

    tasks = [(FAMILY[name], build(name)) for name in pair]
    with unchanged(tasks[0][1]), unchanged(tasks[1][1]):
        one_by_one = [attribute(*task, False) for task in tasks]
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(attribute, *task, True) for task in tasks]
            at_once = [future.result(60) for future in futures]
    for alone, beside in zip(one_by_one, at_once, strict=True):
        for ours, theirs in zip(alone, beside, strict=True):
            assert torch.equal(ours, theirs)
