"""examples/explain_answer.py on a tiny model."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from toy import bert_config, tiny_tokenizer
from transformers import BertForQuestionAnswering

from captum_attattr import Explanation

SCRIPT = Path(__file__).parents[2] / "examples/explain_answer.py"


@pytest.mark.parametrize("more", [[], ["--answer", "man work"], ["--answer", "plot", "--against", "a"]], ids=str)
def test_a_question_becomes_a_page(tmp_path, monkeypatch, capsys, more):
    torch.manual_seed(0)
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    BertForQuestionAnswering(bert_config(num_labels=2)).save_pretrained(tmp_path / "model")
    spec = importlib.util.spec_from_file_location("explain_answer", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = tmp_path / "page.html"
    flags = ["--model", str(tmp_path / "model"), "--output", str(page), "--top", "3"]
    monkeypatch.setattr(sys, "argv", ["explain_answer.py", "a b", "film man work a plot", *flags, *more])
    script.main()
    found = Explanation.load(page.with_suffix(".safetensors"))
    assert found.task == "question_answering"
    assert found.label == (more[1] if more else found.label)
    assert found.contrast == (more[3] if len(more) > 2 else None)
    printed = capsys.readouterr().out
    assert f"answer {found.label!r}, log-probability" in printed
    assert f"answer <b><bdi>{found.label}" in page.read_text("utf-8")
    assert str(page) in printed


def test_the_example_is_short():
    assert len(SCRIPT.read_text("utf-8").splitlines()) < 80
