"""Heads cut out: the same output as masked ones with fewer parameters, whatever is done with the model afterwards."""

import copy
import inspect
import json
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, Family
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune
from torch.nn.utils.parametrizations import weight_norm
from toy import HEADS, HIDDEN, LAYERS, SIZES, sentences, tiny_bart, tiny_bert, tiny_llama, tiny_tokenizer

from captum_attattr import (
    AttentionLayer,
    LayerAttAttr,
    UnsupportedModelError,
    attention_layers,
    explain,
    load_pruned,
    mask_heads,
    prune_heads,
    save_pruned,
)
from captum_attattr.model.families import BARE, FUSED, HEAD_MASKS, RETURNED, SHARES_LAYERS, TOLD
from captum_attattr.model.families import NEVER_EMPTY as NEVER_EMPTY_CLASSES
from captum_attattr.model.projections import Heads

Unchanged = Callable[[nn.Module], AbstractContextManager[None]]

CUT = [family for family in FAMILIES if family.route != "refused" and not family.uncut]
UNCUT = [family for family in FAMILIES if family.uncut]
NEVER_EMPTY = {"LUKE", "XLNet", "SqueezeBERT"}  # their attention returns two outputs, or a dictionary
ALL = [0, 1, 2, 3]
SIZE = HIDDEN // HEADS

assert_close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
each_cut = pytest.mark.parametrize("family", CUT, ids=lambda family: family.name)


@torch.no_grad()
def output(model: nn.Module, family: Family) -> Tensor:
    """Logits or hidden states of two inputs, padded ones where there is padding."""
    return model(**family.inputs(2, 3))[0]


@torch.no_grad()
def logits(model: nn.Module, ids: Tensor | None = None) -> Tensor:
    return model(sentences() if ids is None else ids).logits


def masked_logits(model: nn.Module, heads: Any) -> Tensor:
    with mask_heads(model, heads):
        return logits(model)


def built(family: Family) -> Any:
    torch.manual_seed(0)
    return family.build()


def size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def uneven(family: Family, model: nn.Module) -> dict[AttentionLayer, list[int]]:
    """Of every kind: a head or a group of the first layer, none of the second, all heads of the third."""
    chosen: dict[AttentionLayer, list[int]] = {}
    for kind in family.kinds:
        first, _, third, *_ = layers = attention_layers(model, kind)
        some, all_ = Heads(first).group_of(1), [1, 2] if family.name in NEVER_EMPTY else ALL
        shared = any(layer.call for layer in layers)
        chosen |= {layer: [1, 3] for layer in layers} if shared else {first: some, third: all_}
    return chosen


# ------------------------------------------------------------------------------------- equal to the masked model


@each_cut
def test_pruned_model_is_the_masked_model(family: Family) -> None:
    whole = built(family)
    own, before = output(whole, family), size(whole)
    for implementation in ("sdpa", "eager"):
        model = copy.deepcopy(whole)
        try:
            model.set_attn_implementation(implementation)
        except ValueError:  # attention that has sinks or is capped is eager only
            assert implementation == "sdpa"
            continue
        heads = uneven(family, model)
        with mask_heads(model, heads):
            masked = output(model, family)
        prune_heads(model, heads)
        assert_close(output(model, family), masked)
        assert (masked - own).abs().max() > 1e-4
        assert size(model) < before
        assert_close(output(copy.deepcopy(model), family), masked)


@each_cut
def test_saved_and_loaded_model_is_the_same(family: Family, tmp_path: Path) -> None:
    model = built(family)
    prune_heads(model, uneven(family, model))
    assert save_pruned(model, tmp_path) == tmp_path
    loaded = load_pruned(tmp_path)
    loaded.set_attn_implementation(model.config._attn_implementation)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert torch.equal(output(loaded, family), output(model, family))
    assert loaded.config.pruned_heads == model.config.pruned_heads
    assert json.loads((tmp_path / "config.json").read_text())["pruned_heads"] == model.config.pruned_heads


@pytest.mark.parametrize("family", UNCUT, ids=lambda family: family.name)
def test_family_that_cannot_be_cut_says_why(family: Family, unchanged: Unchanged) -> None:
    model = built(family)
    for kind in family.kinds:
        layer = attention_layers(model, kind)[-1]
        with unchanged(model), pytest.raises(UnsupportedModelError, match=re.escape(family.uncut)) as error:
            prune_heads(model, {layer: ALL})
        assert "mask_heads switches" in str(error.value)
        assert repr(layer) in str(error.value)


def test_albert_without_a_head() -> None:
    family = next(family for family in FAMILIES if family.name == "ALBERT")
    model = family.build()
    heads = dict.fromkeys(range(LAYERS), ALL)
    with mask_heads(model, heads):
        masked = output(model, family)
    prune_heads(model, heads)
    assert_close(output(model, family), masked)
    with pytest.raises(UnsupportedModelError, match="no attention head left"):
        attention_layers(model)


@pytest.mark.parametrize("family", [family for family in CUT if family.name not in NEVER_EMPTY], ids=lambda f: f.name)
def test_layer_without_heads_returns_as_many_values(family: Family) -> None:
    """Blocks unpack what their attention returns: (output, probabilities) in all but a few families."""
    model = built(family)
    layers = [layer for kind in family.kinds for layer in attention_layers(model, kind)]
    given: dict[str, list[Any]] = {}
    for layer in layers:
        layer.module.register_forward_hook(lambda _, args, out, name=layer.name: given.setdefault(name, []).append(out))
    output(model, family)
    before, given = given, {}
    prune_heads(model, dict.fromkeys(layers, ALL))
    given.clear()  # what the check after the cut gave
    output(model, family)
    assert given.keys() == before.keys()
    for name, outputs in before.items():
        for theirs, ours in zip(outputs, given[name], strict=True):
            assert type(ours) is type(theirs) is tuple
            assert len(ours) == (
                2 if family.name in {"XLM", "FlauBERT", "MPNet"} else len(theirs)
            )  # these leave None out


def tiny_mobilevit() -> transformers.MobileViTForImageClassification:
    """Its attention returns a tensor, not a tuple."""
    sizes = {"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16], "num_attention_heads": 4}
    torch.manual_seed(0)
    config = transformers.MobileViTConfig(image_size=32, initializer_range=0.3, **sizes)
    return transformers.MobileViTForImageClassification(config).eval()


@pytest.mark.parametrize("heads", [{0: ALL}, {0: [1], 3: ALL, 8: [0, 2]}], ids=str)
def test_attention_that_returns_a_bare_tensor(heads: dict[int, list[int]]) -> None:
    model, images = tiny_mobilevit(), torch.randn(2, 3, 32, 32)
    with torch.no_grad(), mask_heads(model, heads):
        masked = model(images).logits
    prune_heads(model, heads)
    with torch.no_grad():
        assert_close(model(images).logits, masked)


def test_tables_of_returned_values_name_classes_of_transformers() -> None:
    """A name that transformers does not have (any more) would be passed over silently."""
    sources = "\n".join(path.read_text() for path in Path(transformers.__file__).parent.glob("models/*/modeling_*.py"))
    named = [*RETURNED, *NEVER_EMPTY_CLASSES, SHARES_LAYERS, *HEAD_MASKS, *TOLD, *(cls for cls, _ in (*FUSED, *BARE))]
    for name in named:
        assert f"class {name}(" in sources, name


# --------------------------------------------------------------------------------------- numbers and parameters


def test_parameters_fall_by_those_of_the_heads() -> None:
    """Of BERT: D rows of width d and D biases in q, k and v, D columns in the output. Of Llama: no biases."""
    model = tiny_bert()
    before = size(model)
    prune_heads(model, {0: [1], 1: [0, 3], 2: ALL})
    assert before - size(model) == 7 * (4 * SIZE * HIDDEN + 3 * SIZE)

    model = tiny_llama()
    before = size(model)
    prune_heads(model, {0: [2, 3], 2: ALL})  # a group of two heads: two of q, one of k, one of v, two of o
    assert before - size(model) == 3 * (6 * SIZE * HIDDEN)
    attention = model.model.layers[0].self_attn
    assert attention.k_proj.weight.shape == (SIZE, HIDDEN) == (attention.k_proj.out_features, HIDDEN)
    assert attention.o_proj.weight.shape == (HIDDEN, 2 * SIZE) == (HIDDEN, attention.o_proj.in_features)


def test_pruning_again_counts_heads_as_the_original_model_does() -> None:
    once, again = tiny_bert(), tiny_bert()
    prune_heads(once, {0: [1, 3], 1: ALL, 2: [0]})
    prune_heads(again, {0: [1], 1: [0, 2]})
    prune_heads(again, {0: [3], 1: [1, 3], 2: [0]})
    assert (
        again.config.pruned_heads
        == once.config.pruned_heads
        == {"encoder.0": [1, 3], "encoder.1": ALL, "encoder.2": [0]}
    )
    for ours, theirs in zip(again.parameters(), once.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(logits(again), logits(once))
    assert [layer.index for layer in attention_layers(again)] == [0, 2]


@pytest.mark.parametrize("heads", [{0: [1, 3]}, {0: [3], 1: ALL}, {1: [2]}], ids=str)
def test_heads_that_are_gone_are_passed_over(heads: dict[int, list[int]], unchanged: Unchanged) -> None:
    model = tiny_bert()
    prune_heads(model, {0: [1, 3], 1: ALL})
    own = logits(model)
    with unchanged(model):
        prune_heads(model, heads)
        with mask_heads(model, heads):
            assert torch.equal(logits(model), own)


def test_masks_on_a_pruned_model_use_the_original_numbers() -> None:
    model, whole = tiny_bert(), tiny_bert()
    prune_heads(model, {0: [0, 2], 1: ALL})
    for heads in ({0: [1]}, {0: [0, 3], 1: [2], 2: [0]}):
        with mask_heads(whole, {0: [0, 2], 1: ALL}):
            wanted = masked_logits(whole, heads)
        assert_close(masked_logits(model, heads), wanted)
    with pytest.raises(ValueError, match="head 4 of layer 0 is out of range: the layer has heads 0 to 3"):
        prune_heads(model, {0: [4]})
    with pytest.raises(ValueError, match="head 4 of layer 1 is out of range: the layer has heads 0 to 3"):
        prune_heads(model, {1: [4]})


def test_cross_attention_is_pruned_by_its_handles() -> None:
    """Two handles of one layer are one layer."""
    model = tiny_bart()
    first, again = (attention_layers(model, "cross") for _ in range(2))
    heads = [(first[0], 1), (again[0], 2), *((again[1], head) for head in ALL), (0, 3), (2, 1)]
    masked = masked_logits(model, heads)
    prune_heads(model, heads)
    assert_close(logits(model), masked)
    gone = {"cross.0": [1, 2], "cross.1": ALL, "encoder.0": [3], "decoder.0": [1]}
    assert model.config.pruned_heads == gone


# --------------------------------------------------------------------------------------------- what is refused


def test_part_of_a_group_is_refused(unchanged: Unchanged) -> None:
    model = tiny_llama()
    with (
        unchanged(model),
        pytest.raises(ValueError, match=r"heads \[1\] of .* share .* with head 0.* give all of \[0, 1\]"),
    ):
        prune_heads(model, {1: ALL, 0: [1]})


@pytest.mark.parametrize(
    "heads", [{0: [1]}, {0: [1], 1: [1]}, {0: [1], 1: [1], 2: [1, 2]}, {0: ALL, 1: ALL, 2: [0]}], ids=str
)
def test_layers_that_share_weights_lose_the_same_heads(heads: dict[int, list[int]], unchanged: Unchanged) -> None:
    model = next(family for family in FAMILIES if family.name == "ALBERT").build()
    with unchanged(model), pytest.raises(ValueError, match="share their weights and can only lose the same heads"):
        prune_heads(model, heads)


class Adapted(nn.Linear):
    """As an adapter or a quantized map: a linear map, and not only its weight."""


def adapt(linear: nn.Linear) -> nn.Linear:
    return Adapted(linear.in_features, linear.out_features)


def sparsify(linear: nn.Linear) -> nn.Linear:
    return torch_prune.random_unstructured(linear, "weight", 0.5)


@pytest.mark.parametrize("change", [adapt, weight_norm, sparsify])
@pytest.mark.parametrize("part", ["q_proj", "v_proj", "o_proj"])
def test_only_plain_linear_maps_are_cut(
    part: str, change: Callable[[nn.Module], nn.Module], unchanged: Unchanged
) -> None:
    model = tiny_llama()
    attention = model.model.layers[2].self_attn
    setattr(attention, part, change(getattr(attention, part)))
    with unchanged(model), pytest.raises(UnsupportedModelError, match=r"decoder 2.*only plain linear maps can be cut"):
        prune_heads(model, {0: ALL, 2: [0, 1]})
    own = logits(model)
    assert (masked_logits(model, {2: [0, 1]}) - own).abs().max() > 1e-5


@pytest.mark.parametrize("gone", [{0: [0, 1, 3]}, {0: [1], 1: [0, 1]}], ids=["one group left", "all of one group"])
def test_heads_that_share_one_key_go_alone(gone: dict[int, list[int]], tmp_path: Path) -> None:
    """Where all heads that stay share their keys and values, nothing is cut apart."""
    model = tiny_llama(num_key_value_heads=2 if len(gone) == 1 else 1)
    masked = masked_logits(model, gone)
    prune_heads(model, gone)
    assert_close(logits(model), masked)
    assert_close(logits(load_pruned(save_pruned(model, tmp_path))), masked)
    again = copy.deepcopy(model)
    prune_heads(again, {1: ALL})
    assert_close(logits(again), masked_logits(model, {1: ALL}))


def test_grouped_convolution_loses_heads_of_all_its_groups(unchanged: Unchanged) -> None:
    family = next(family for family in FAMILIES if family.name == "SqueezeBERT")
    config = family.build().config
    config.q_groups = config.k_groups = config.v_groups = 2
    model = transformers.SqueezeBertForSequenceClassification(config).eval()
    with unchanged(model), pytest.raises(UnsupportedModelError, match="must lose the same numbers of heads each"):
        prune_heads(model, {0: [1]})
    with mask_heads(model, {0: [1, 2]}):
        masked = output(model, family)
    prune_heads(model, {0: [1, 2]})
    assert_close(output(model, family), masked)


def test_position_bias_shared_by_all_layers_is_indexed() -> None:
    family = next(family for family in FAMILIES if family.name == "BEiT")
    config = family.build().config
    config.use_relative_position_bias, config.use_shared_relative_position_bias = False, True
    model = transformers.BeitForImageClassification(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(std=1.0) if "relative_position_bias_table" in name else None
    with mask_heads(model, {0: [1]}):
        masked = output(model, family)
    prune_heads(model, {0: [1]})
    assert_close(output(model, family), masked)


def test_luke_keeps_a_head(unchanged: Unchanged) -> None:
    model = next(family for family in FAMILIES if family.name == "LUKE").build()
    with unchanged(model), pytest.raises(UnsupportedModelError, match="LukeSelfAttention cannot lose all of its heads"):
        prune_heads(model, {0: [1], 1: ALL})


# ---------------------------------------------------------------------------------- life after it: attribution


@pytest.mark.parametrize("name", ["BERT", "ALBERT", "DeBERTa", "GPT-2", "Llama", "BART", "ViT"])
def test_pruned_model_is_attributed_as_the_masked_one(name: str) -> None:
    family = next(family for family in FAMILIES if family.name == name)
    whole, model = built(family), built(family)
    prune_heads(model, uneven(family, model))

    def maps(model: nn.Module, kind: str) -> dict[int, Tensor]:
        inputs = family.inputs(2, None)

        def forward(*tensors: Tensor) -> Tensor:
            return model(**dict(zip(inputs, tensors, strict=True)))[0].softmax(-1)[:, 1]

        layers = attention_layers(model, kind)
        found = LayerAttAttr(forward, layers).attribute(tuple(inputs.values()), n_steps=3)
        return {layer.index: map_ for layer, map_ in zip(layers, found, strict=True)}

    for kind in family.kinds:
        with mask_heads(whole, uneven(family, whole)):
            masked = maps(whole, kind)
        pruned, layers = maps(model, kind), attention_layers(model, kind)
        assert pruned.keys() == {layer.index for layer in layers}
        for layer in layers:
            numbers = list(layer.kept.indices) if layer.kept else ALL
            assert_close(pruned[layer.index], masked[layer.index][:, numbers], atol=1e-6)
            assert pruned[layer.index].abs().max() > 1e-6
        for index in masked.keys() - pruned.keys():
            assert not masked[index].any()


def test_explanations_keep_the_places_of_heads_that_are_gone() -> None:
    tokenizer, texts = tiny_tokenizer(), ["a good film", ("bad plot", "man")]
    gone = {0: [1, 2], 1: ALL}
    model, whole = tiny_bert(), tiny_bert()
    prune_heads(model, gone)
    options = {"target": 1, "n_steps": 5, "progress": False}
    pruned = explain(model, tokenizer, texts, **options)
    with mask_heads(whole, gone):
        masked = explain(whole, tokenizer, texts, **options)
    for ours, theirs in zip(pruned, masked, strict=True):
        assert ours.attributions.shape == theirs.attributions.shape == (LAYERS, HEADS, *theirs.attention.shape[2:])
        assert_close(ours.attributions, theirs.attributions)
        assert_close(ours.delta, theirs.delta)
        assert_close(ours.probability, theirs.probability)
        for layer, heads in gone.items():
            assert not ours.attributions[layer, heads].any()
            assert not ours.attention[layer, heads].any()
            theirs.attention[layer, heads] = 0
        assert_close(ours.attention, theirs.attention)
        assert ours.nodes.tolist() == [n * (layer != 1) for layer, n in enumerate(theirs.nodes.tolist())]


# -------------------------------------------------------------------------- life after it: training and copies


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
@pytest.mark.parametrize("build", [tiny_bert, tiny_llama])
def test_pruned_model_is_trained_as_the_masked_one(build: Callable[..., Any], checkpointing: bool) -> None:
    model = build(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    masked = copy.deepcopy(model)
    prune_heads(model, {0: [2, 3], 1: ALL})
    if checkpointing:
        getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss = model(sentences()).logits.square().mean()
    loss.backward()
    with mask_heads(masked, {0: [2, 3], 1: ALL}):
        masked(sentences()).logits.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in masked.named_parameters()}
    for name, parameter in model.named_parameters():
        ours, theirs = parameter.grad, gradients[name]
        if ours is None:  # nothing is asked of a layer without heads
            assert not parameter.numel() or not theirs.any(), name
        elif ours.shape == theirs.shape:
            assert_close(ours, theirs, msg=name)
        else:
            assert_close(ours.abs().sum(), theirs.abs().sum(), msg=name)  # a masked head gets none
    optimizer.step()
    assert model(sentences()).logits.square().mean() < loss


def test_heads_cut_out_in_inference_mode_leave_a_model_that_can_be_trained() -> None:
    model = tiny_bert()
    with torch.inference_mode():
        prune_heads(model, {0: [1], 1: ALL})
    model(sentences()).logits.sum().backward()
    assert model.bert.encoder.layer[0].attention.self.query.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("build", [tiny_bert, tiny_llama, tiny_bart])
def test_copies_of_a_pruned_model_stand_alone(build: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = build()
    prune_heads(model, {0: [0, 1], 1: ALL})
    own = logits(model)
    torch.save(model, tmp_path / "model.pt")
    for twin in (torch.load(tmp_path / "model.pt", weights_only=False), copy.deepcopy(model)):
        assert torch.equal(logits(twin), own)
        prune_heads(twin, {0: [2, 3]})
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
        assert not logits(twin).any()
        assert torch.equal(logits(model), own)


# ---------------------------------------------------------------------------------- life after it: generation


def tiny_gpt2() -> transformers.GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {key: value for key, value in SIZES.items() if key != "intermediate_size"}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes | {"initializer_range": 0.3})).eval()


def tiny_writer() -> transformers.BartForConditionalGeneration:
    config = tiny_bart().config
    config.init_std, config.forced_eos_token_id = 0.3, None
    return transformers.BartForConditionalGeneration(config).eval()


@pytest.mark.parametrize("heads", [{0: ALL}, {0: [0, 1], 1: ALL}], ids=str)
@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize(
    "build", [partial(tiny_llama, initializer_range=0.3), tiny_gpt2, tiny_writer], ids=["Llama", "GPT-2", "BART"]
)
def test_pruned_model_generates_what_the_masked_one_does(
    build: Callable[[], Any], cache: str | None, heads: dict[int, list[int]]
) -> None:
    """Models ask the cache of their first layer how many tokens there were, even where that layer has no head."""
    model = build()
    layers = attention_layers(model, "decoder")
    chosen = {layers[layer]: numbers for layer, numbers in heads.items()}
    if build is tiny_writer:
        chosen |= {attention_layers(model, "cross")[0]: ALL, attention_layers(model, "cross")[1]: [1]}
    ids = sentences(2, 5)
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    options |= {"attention_mask": torch.ones_like(ids), "return_dict_in_generate": True, "output_logits": True}
    with mask_heads(model, chosen):
        masked = model.generate(ids, use_cache=False, **options)
    prune_heads(model, chosen)
    pruned = model.generate(ids, use_cache=True, cache_implementation=cache, **options)
    assert torch.equal(pruned.sequences, masked.sequences)
    for ours, theirs in zip(pruned.logits, masked.logits, strict=True):
        assert_close(ours, theirs, atol=5e-5)


@torch.no_grad()
def test_continued_forward_knows_its_positions() -> None:
    for model in (tiny_llama(initializer_range=0.3), tiny_gpt2()):
        prune_heads(model, {0: ALL, 2: [0, 1]})
        ids = sentences(2, 6)
        first = model(ids[:, :4], use_cache=True)
        name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"  # since 5.24
        cache = getattr(first, name, None) or first.past_key_values
        assert cache.get_seq_length() == 4
        assert_close(model(ids[:, 4:], **{name: cache}).logits, logits(model, ids)[:, 4:])
