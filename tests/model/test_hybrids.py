"""Hybrid models: layers with full attention are attributed, and it is said which blocks have none."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny_families import tiny_model
from toy import tiny_bert, tiny_tokenizer

from captum_attattr import Archive, Explanation, attention_layers, explain, explain_dataset, write_report
from captum_attattr.model.attention_layers import without_attention

QUIET: dict[str, Any] = {"n_steps": 1, "progress": False}
NOTES = {
    "qwen3_next": "layers 0, 1 are blocks 1, 2 of 3; blocks 0 (linear attention) have no full attention and are not "
    "attributed",
    "jamba": "layer 0 is block 1 of 3; blocks 0, 2 (JambaMambaDecoderLayer) have no full attention and are not "
    "attributed",
    "bamba": "layer 0 is block 1 of 3; blocks 0, 2 (linear attention) have no full attention and are not attributed",
    "lfm2": "",
    "llama": "",
    "t5": "",
    "mobilebert": "",
    "albert": "",
    "gpt_neo": "",
    "gemma3_text": "",
    "llama4": "",
}


@pytest.mark.parametrize("family", NOTES)
def test_blocks_without_attention_are_named(family):
    note = without_attention(attention_layers(tiny_model(family)))
    assert note.replace("(mamba)", "(linear attention)") == NOTES[family]  # as older releases call it


def test_explanations_files_archives_and_reports_say_it(tmp_path):
    model, tokenizer = tiny_model("qwen3_next"), tiny_tokenizer()
    one = explain(model, tokenizer, "good film a", **QUIET)[0]
    assert one.note == NOTES["qwen3_next"]
    with torch.no_grad():
        wanted = model(**one.inputs).logits[0, -1].softmax(-1)[one.target]
    assert abs(float(wanted) - one.value) < 1e-5
    assert Explanation.load(one.save(tmp_path / "one.safetensors")).note == one.note
    explain_dataset(model, tokenizer, ["good film a"], tmp_path / "run", **QUIET)
    assert Archive(tmp_path / "run")[0].note == one.note
    page = write_report(one, tmp_path / "page.html").read_text()
    assert "Layers 0, 1 are blocks 1, 2 of 3; blocks 0 (linear attention) have no full attention" in page


def test_nothing_is_said_where_every_block_has_attention(tmp_path):
    one = explain(tiny_bert(), tiny_tokenizer(), "good film a", **QUIET)[0]
    assert one.note == ""
    assert b'"note"' not in one.save(tmp_path / "one.safetensors").read_bytes()
