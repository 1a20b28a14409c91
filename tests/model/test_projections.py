"""Heads are counted at the layer, and a text's sizes read from the text part of a config: composite ones have none."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, Family
from torch import nn
from toy import HEADS, LAYERS, SIZES, VOCAB, tiny_bert, tiny_llama, tiny_tokenizer

from captum_attattr import UnsupportedModelError, attention_layers, explain, prune_heads
from captum_attattr.explanations.explain import Explainer
from captum_attattr.explanations.settings import Settings
from captum_attattr.explanations.text_model import most_tokens
from captum_attattr.model.projections import head_count

SUPPORTED = [family for family in FAMILIES if family.route != "refused"]

TEXT = SIZES | {"num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 2, "pad_token_id": 0}
VISION = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 24}


def tiny_t5gemma() -> Any:
    half = TEXT | {"query_pre_attn_scalar": 8, "bos_token_id": 2, "eos_token_id": 3}
    torch.manual_seed(0)
    config = transformers.T5GemmaConfig(encoder=half, decoder=half, vocab_size=VOCAB, num_labels=3)
    return transformers.T5GemmaForSequenceClassification(config).eval()


def tiny_gemma3() -> Any:
    config = transformers.Gemma3Config(text_config=TEXT, vision_config=VISION | {"image_size": 8, "patch_size": 4})
    return transformers.Gemma3ForSequenceClassification(config).eval()


def tiny_clip() -> Any:
    vision = VISION | {"image_size": 8, "patch_size": 4}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=SIZES, vision_config=vision)).eval()


@pytest.mark.parametrize("family", SUPPORTED, ids=lambda family: family.name)
def test_heads_of_every_family(family: Family) -> None:
    model = family.build()
    for kind in family.kinds:
        assert {head_count(layer) for layer in attention_layers(model, kind)} == {HEADS}


@pytest.mark.parametrize(
    ("build", "counts"),
    [(tiny_t5gemma, [4] * 4), (tiny_gemma3, [3, 4, 4]), (tiny_clip, [4, 4, 4, 3])],
    ids=["T5Gemma", "Gemma3", "CLIP"],
)
def test_composite_configs_do_not_say_how_many_heads_there_are(build: Callable[[], Any], counts: list[int]) -> None:
    model = build()
    assert not hasattr(model.config, "num_attention_heads")
    assert [head_count(layer) for layer in attention_layers(model)] == counts


@pytest.mark.parametrize("build", [tiny_bert, tiny_llama, tiny_t5gemma, tiny_gemma3, tiny_clip])
def test_most_tokens_are_those_of_the_text_part(build: Callable[[], Any]) -> None:
    assert most_tokens(build().config, tiny_tokenizer()) == SIZES["max_position_embeddings"]


def test_padding_token_of_a_composite_config_is_that_of_its_text_part() -> None:
    """What is refused is the part of the model that a text does not run."""
    model = tiny_gemma3()
    assert not hasattr(model.config, "pad_token_id")
    with pytest.raises(UnsupportedModelError, match=r"did not pass through .*vision_tower"):
        explain(model, tiny_tokenizer(), ["good film"], progress=False)
    model.config.text_config.pad_token_id = None
    with pytest.raises(ValueError, match="its config has no pad_token_id"):
        explain(model, tiny_tokenizer(), ["good film"], progress=False)


@pytest.mark.parametrize("build", [tiny_bert, tiny_llama])
def test_heads_that_are_gone_are_counted_too(build: Callable[[], nn.Module]) -> None:
    model = build()
    prune_heads(model, {0: [0, 1], 1: [0, 1, 2, 3]})
    assert [head_count(layer) for layer in attention_layers(model)] == [HEADS] * (LAYERS - 1)


def test_heads_of_a_layer_whose_output_projection_is_not_known() -> None:
    """It can be attributed all the same."""
    model = tiny_llama()
    attention = model.model.layers[0].self_attn
    attention.o_proj = nn.Sequential(attention.o_proj)
    assert [head_count(layer) for layer in attention_layers(model)] == [HEADS] * LAYERS


@pytest.mark.parametrize("build", [tiny_bert, tiny_llama, tiny_t5gemma])
def test_groups_of_texts_keep_to_the_most_maps_at_once(
    build: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two texts at once fit, three do not."""
    explainer = Explainer(build(), tiny_tokenizer(), False, Settings.of(n_steps=1))
    texts = ["good film", "bad plot", "good plot", "bad film", "a man"]
    items = [explainer.texts.encode(i, text) for i, text in enumerate(texts)]
    sizes: list[int] = []
    monkeypatch.setattr(Explainer, "MAPS_AT_ONCE", 3 * len(explainer.texts.layers) * HEADS * 4**2 - 1)
    explained = dict(explainer.run(items, sizes.append))
    assert sizes == [2, 2, 1]
    assert {e.attributions.shape[1:] for e in explained.values()} == {(HEADS, 4, 4)}


def test_attention_that_does_not_say_how_many_heads_it_has_is_named() -> None:
    model = tiny_bert()
    module = model.bert.encoder.layer[1].attention.self
    del module.num_attention_heads, module.attention_head_size
    with pytest.raises(UnsupportedModelError, match=r"encoder 1: .*BertSelfAttention does not say how many heads"):
        prune_heads(model, {1: [0]})
