"""Every line of the README's table "How do I ..." works as it is printed, on tiny models and pictures made here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import write_model
from PIL import Image
from seeing import classifier, processor
from toy import tiny_bert, tiny_llama, tiny_tokenizer, tiny_writer

import captum_attattr
from captum_attattr import attribution_tree, explain, find_patterns, head_importance
from captum_attattr.commands.main import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
TABLE = README.split("<!-- how -->")[1].split("<!-- /how -->")[0]
SPANS = [span for row in TABLE.splitlines() for span in re.findall(r"`([^`]+)`", row.split("|", 2)[-1])]
COMMANDS = [span for span in SPANS if span.startswith("captum-attattr")]
PYTHON = [s for s in SPANS if s not in COMMANDS and ("(" in s or "." in s or s == "explanation")]
TEXTS, LABELS = ["a b c", "good film", "bad plot man", "work a d e", "b b", "c d"], [0, 1, 2, 1, 0, 1]
CHAT = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def test_the_table_is_read():
    assert len(PYTHON) >= 20
    assert len(COMMANDS) == 3
    assert all(hasattr(captum_attattr, span) for span in {*SPANS} - {*PYTHON, *COMMANDS})


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the lines speak of."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20)).save("cat.jpg")
    model, tokenizer = tiny_bert(num_hidden_layers=6), tiny_tokenizer()
    explanation = explain(model, tokenizer, "good film plot", progress=False)[0]
    known = {
        "model": model,
        "tokenizer": tokenizer,
        "processor": processor(),
        "texts": TEXTS,
        "labels": LABELS,
        "explanation": explanation,
        "tree": attribution_tree(explanation, 0.01),
        "importance": head_importance(model, tokenizer, TEXTS, LABELS, n_steps=1, progress=False),
        "forward": lambda ids: model(ids).logits.softmax(-1),
        "inputs": torch.tensor([[2, 4, 5, 3]]),
    }
    return {name: getattr(captum_attattr, name) for name in captum_attattr.__all__} | known


@pytest.mark.parametrize("line", PYTHON)
def test_a_line_works(line: str, names: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captum_attattr.Explanation, "show", lambda _: "opens a browser")
    given = dict(names)
    if "role" in line or "next token" in line or " Paris" in line or "generation" in line:
        tokenizer = tiny_tokenizer()
        tokenizer.chat_template = CHAT
        given |= {"model": tiny_llama(), "tokenizer": tokenizer}
        line = line.replace("The capital of France is", "a b").replace(" Paris", "c").replace(" London", "d")
        line = line.replace('"content": "..."', '"content": "a b"')
    if "a source" in line:
        given |= {"model": tiny_writer(), "tokenizer": tiny_tokenizer()}
        line = line.replace("its translation", "a b")
    if "images" in line:
        given["model"] = classifier()
    line = line.replace("find_patterns(...)", "patterns").replace("explain(...,", "explain(model, tokenizer, texts,")
    line = line.replace("explain_generation(...)", 'explain_generation(model, tokenizer, "a b", max_new_tokens=2)')
    line = line.replace("prune_heads(model, importance.ranking()[:36])", "prune_heads(model, importance.ranking()[:3])")
    if "patterns" in line:
        given["patterns"] = find_patterns(given["model"], given["tokenizer"], TEXTS, n_steps=1, progress=False)
        line = line.replace("patterns)", "patterns, min_score=0)")
    if line.startswith("attack("):
        rows = 'TEXTS, LABELS, triggers_of(patterns, min_score=0), vocabulary=["a b c d e good film"]'
        given |= {"TEXTS": TEXTS, "LABELS": LABELS}
        given["patterns"] = find_patterns(given["model"], given["tokenizer"], TEXTS, n_steps=1, progress=False)
        line = f"attack(model, tokenizer, {rows})"
    if line.startswith("write_image"):
        pytest.importorskip("kaleido", reason="kaleido, which pictures need, is not installed")
    if "pandas" in line:
        given["pandas"] = pytest.importorskip("pandas", reason="pandas is not installed")
    if line == "explanation":
        line = "explanation._repr_html_()"
    try:
        found = eval(line, given)
    except SyntaxError:
        pytest.fail(f"{line!r} is no Python")
    assert found is not None


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_works(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tiny_bert(), tmp_path)
    (tmp_path / "labelled.csv").write_text("text,label\na b c,0\ngood film,1\n")
    words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line.replace("FOLDER", "model"))][1:]
    if words == ["prune"]:
        head_importance(tiny_bert(), tiny_tokenizer(), TEXTS, LABELS, n_steps=1, progress=False).save("h.safetensors")
        words += ["--model", "model", "--importance", "h.safetensors", "--count", "2", "--output", "pruned"]
    assert main(words) == 0
