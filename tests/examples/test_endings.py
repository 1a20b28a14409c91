"""How the scripts that explain one thing end: what is wrong is one line, with the flag, before the model is loaded."""

from __future__ import annotations

import pytest
from command_line import run_here, write_model
from toy import tiny_bert, tiny_llama

SCRIPTS = {
    "explain_chat.py": ["a b"],
    "explain_answer.py": ["a b", "good film"],
    "explain_image.py": ["a.png"],
    "quickstart.py": ["--text", "a b"],
}


def said(script: str, line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert run_here(script, line) == 2
    (only,) = [row for row in capsys.readouterr().err.splitlines() if row.strip() and "Loading weights" not in row]
    assert only.startswith(f"{script}: error: ")
    return only


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_misspelt_flag_says_the_nearest_one(script, capsys):
    assert "did you mean '--output'?" in said(script, [*SCRIPTS[script], "--model", "m", "--outptu", "x"], capsys)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_place_that_takes_nothing_is_told_before_the_model_is_loaded(script, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    given = [*SCRIPTS[script], "--model", "nowhere", "--output", str(tmp_path / "file/x")]
    assert "--output: nothing can be written in the folder" in said(script, given, capsys)


@pytest.mark.parametrize("script", ["explain_chat.py", "explain_answer.py", "explain_image.py"])
def test_two_files_of_one_name_are_refused(script, capsys):
    given = [*SCRIPTS[script], "--model", "nowhere", "--output", "x.safetensors"]
    assert "--output x.safetensors: another file of that name is written beside it" in said(script, given, capsys)


def test_models_of_another_kind_are_refused(tmp_path, capsys):
    """A head that the weights lack would be random, and its answers explained."""
    write_model(tiny_bert(seed=1), tmp_path)
    given = ["--model", str(tmp_path / "model"), "--output", str(tmp_path / "page.html")]
    assert "classifies texts and writes none" in said("explain_chat.py", ["a b", *given], capsys)
    assert "task='question_answering' does not fit" in said("explain_answer.py", ["a b", "good film", *given], capsys)


def test_flags_are_called_as_they_are_typed(tmp_path, capsys):
    write_model(tiny_llama(), tmp_path)
    given = ["a b", "--model", str(tmp_path / "model"), "--output", str(tmp_path / "page.html")]
    for more, message in {
        ("--nodes", "0"): "--nodes 0 is too small",
        ("--max-new-tokens", "0"): "--max-new-tokens 0 must be an int of 1 or more",
        ("--answer", ""): "--answer '' holds no token",
    }.items():
        assert message in said("explain_chat.py", [*given, *more], capsys)
