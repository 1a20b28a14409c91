"""examples/explain_chat.py on a tiny model with a chat template."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from toy import tiny_llama, tiny_tokenizer

from captum_attattr import GenerationExplanation

SCRIPT = Path(__file__).parents[2] / "examples/explain_chat.py"


@pytest.mark.filterwarnings("ignore::captum_attattr.ConvergenceWarning")
@pytest.mark.parametrize("template", [True, False])
def test_a_question_becomes_a_page(tmp_path, monkeypatch, capsys, template):
    tokenizer = tiny_tokenizer()
    if template:
        tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}b"
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_llama().save_pretrained(tmp_path / "model")
    spec = importlib.util.spec_from_file_location("explain_chat", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page, flags = tmp_path / "page.html", ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "page.html")]
    monkeypatch.setattr(sys, "argv", ["explain_chat.py", "good film", *flags, "--max-new-tokens", "4"])
    script.main()
    assert str(page) in capsys.readouterr().out
    result = GenerationExplanation.load(page.with_suffix(".safetensors"))
    assert 1 <= len(result.tokens) <= 4
    assert result.written == "greedy"
    assert result.prompt_tokens == (["[UNK]", "good", "film", "b"] if template else ["[CLS]", "good", "film", "[SEP]"])
    more = ["--answer", " plot man work", "--sentence", "man work", "--nodes", "2", "--system", "a b"]
    monkeypatch.setattr(sys, "argv", ["explain_chat.py", "good film", *flags, *more])
    script.main()
    assert "'man work', log-probability" in capsys.readouterr().out
    given = GenerationExplanation.load(page.with_suffix(".safetensors"))
    assert (given.tokens, given.options["n_steps"]) == (["plot", "man", "work"], 2)
    assert "plot" in page.read_text("utf-8")
