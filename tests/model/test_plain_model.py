"""Pruned models in folders that transformers reads alone, and folders that are there whole or not at all."""

from __future__ import annotations

import json
import resource
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import FAMILIES, Family
from toy import sentences, tiny_bert, tiny_llama, tiny_tokenizer

from captum_attattr import attention_layers, load_pruned, mask_heads, prune_heads, save_pruned
from captum_attattr.model.projections import Heads

ALL = [0, 1, 2, 3]
NEVER_EMPTY = {"LUKE", "XLNet", "SqueezeBERT"}
KINDS = {
    *("BERT", "ALBERT (groups)", "ModernBERT", "DeBERTa", "LUKE", "SqueezeBERT", "XLNet", "GPT-2", "GPT-NeoX", "BLOOM"),
    *("CodeGen", "GPTBigCode", "Llama", "Phi-3", "GPT-OSS", "T5", "BART", "Whisper", "BEiT", "BLIP (vision)"),
}  # one of each layout; the whole list takes minutes
CUT = [family for family in FAMILIES if family.name in KINDS]
SHRUNK = {"Llama", "Qwen3", "Mixtral", "Gemma3", "GPT-OSS"}  # among others: their config has the size of a head


@torch.no_grad()
def output(model: Any, family: Family) -> torch.Tensor:
    return model(**family.inputs(2, 3))[0]


def cut(family: Family) -> Any:
    """A model that lost a group in its first layer, and all heads in its third."""
    torch.manual_seed(0)
    model = family.build()
    for kind in family.kinds:
        first, _, third, *_ = layers = attention_layers(model, kind)
        if any(layer.call for layer in layers):
            prune_heads(model, {layer: [1, 3] for layer in layers})
        else:
            prune_heads(model, {first: Heads(first).group_of(1), third: [1, 2] if family.name in NEVER_EMPTY else ALL})
    return model


@pytest.mark.parametrize("family", CUT, ids=lambda family: family.name)
def test_plain_from_pretrained_gives_the_same(family: Family, tmp_path: Path) -> None:
    model = cut(family)
    with pytest.warns(
        UserWarning, match=r"has [\d,]+ parameters, the pruned model [\d,]+: a config of .* has one count"
    ):
        save_pruned(model, tmp_path / "model", format="transformers")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert "pruned_heads" not in config
    assert "pruned_layouts" not in config
    attention = model.config._attn_implementation
    plain = type(model).from_pretrained(tmp_path / "model", attn_implementation=attention)
    assert not any(layer.kept for layer in attention_layers(plain))
    torch.testing.assert_close(output(plain, family), output(model, family), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name in SHRUNK], ids=lambda family: family.name)
def test_equal_counts_cost_nothing_where_the_config_has_the_size_of_a_head(family: Family, tmp_path: Path) -> None:
    """Half of the heads, other ones in each layer: half of the parameters around them, and no warning."""
    model = family.build()
    whole = sum(parameter.numel() for parameter in model.parameters())
    prune_heads(model, {0: [0, 1], 1: [2, 3], 2: [0, 1]})
    small = sum(parameter.numel() for parameter in model.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_pruned(model, tmp_path, format="transformers")
    plain = type(model).from_pretrained(tmp_path, attn_implementation=model.config._attn_implementation)
    assert sum(parameter.numel() for parameter in plain.parameters()) == small < whole
    assert (plain.config.num_attention_heads, plain.config.num_key_value_heads) == (2, 1)
    torch.testing.assert_close(output(plain, family), output(model, family), rtol=1e-5, atol=1e-5)


def test_smallest_count_that_holds_every_layer(tmp_path: Path) -> None:
    """A config that wants the hidden size to be a multiple of the heads may need one more."""
    model = tiny_llama(num_attention_heads=8, num_key_value_heads=8, head_dim=8)
    prune_heads(model, {0: [0, 4, 5, 6, 7], 1: [1, 2, 3, 4, 5], 2: list(range(8))})
    with pytest.warns(UserWarning, match="places without a head are zeros"):
        save_pruned(model, tmp_path, format="transformers")
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (plain.config.num_attention_heads, plain.config.num_key_value_heads) == (4, 4)
    with torch.no_grad():
        torch.testing.assert_close(plain(sentences()).logits, model(sentences()).logits, rtol=1e-5, atol=1e-5)
        ids = sentences(1, 4)
        options = {"max_new_tokens": 5, "attention_mask": torch.ones_like(ids)}
        assert torch.equal(plain.generate(ids, **options), model.generate(ids, **options))


def test_pipeline_reads_it(tmp_path: Path) -> None:
    model = tiny_bert()
    prune_heads(model, {0: [1], 2: ALL})
    with pytest.warns(UserWarning, match="parameters"):
        save_pruned(model, tmp_path, format="transformers")
    tiny_tokenizer().save_pretrained(tmp_path)
    found = transformers.pipeline("text-classification", str(tmp_path), top_k=None)("good film")
    ids = tiny_tokenizer()("good film", return_tensors="pt")["input_ids"]
    scores = {f"LABEL_{i}": score for i, score in enumerate(model(ids).logits[0].softmax(-1).tolist())}
    assert {each["label"]: each["score"] for each in found[0]} == pytest.approx(scores, abs=1e-6)


def test_model_that_lost_nothing_is_saved_as_it_is(tmp_path: Path) -> None:
    model = tiny_bert()
    save_pruned(model, tmp_path, format="transformers")
    plain = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(plain(sentences()).logits, model(sentences()).logits)
    with pytest.raises(ValueError, match=r"format='onnx' is unknown; use one of \('captum_attattr', 'transformers'\)"):
        save_pruned(model, tmp_path, format="onnx")


# ------------------------------------------------------------------------------------------ whole or not at all


@pytest.mark.parametrize("kind", ["captum_attattr", "transformers"])
def test_full_disk_leaves_the_old_model(kind: str, tmp_path: Path) -> None:
    model = tiny_bert()
    prune_heads(model, {0: [1]})
    folder = save_pruned(model, tmp_path / "model")
    (folder / "vocab.txt").write_text("of another kind")
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    wanted = model(sentences()).logits
    prune_heads(model, {1: ALL})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match=str(folder)):
            save_pruned(model, folder, format=kind)
        with pytest.raises(OSError, match=str(tmp_path / "new")):
            save_pruned(model, tmp_path / "new", format=kind)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert torch.equal(load_pruned(folder)(sentences()).logits, wanted)


def test_new_model_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    """Shards of the old one go, files of others stay."""
    model = tiny_bert()
    save_pruned(model, tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    (tmp_path / "tokenizer.json").write_text("{}")
    prune_heads(model, {0: [1]})
    save_pruned(model, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    assert torch.equal(load_pruned(tmp_path)(sentences()).logits, model(sentences()).logits)


def test_masked_model_is_saved_unmasked(tmp_path: Path) -> None:
    model = tiny_bert()
    with mask_heads(model, {0: [1]}):
        model.save_pretrained(tmp_path / "theirs")
        save_pruned(model, tmp_path / "ours")
    for name in ("theirs", "ours"):
        assert torch.equal(load_pruned(tmp_path / name)(sentences()).logits, model(sentences()).logits)
