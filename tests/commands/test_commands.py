"""`captum-attattr` on the command line: what its commands print and write, and what they say of wrong input."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from command_line import write_model
from toy import VOCAB, bert_config, tiny_bert, tiny_llama, tiny_tokenizer, tiny_writer
from transformers import AutoTokenizer

from captum_attattr import (
    AttributionComparison,
    Explanation,
    GenerationExplanation,
    HeadImportance,
    explain,
    explain_generation,
    head_importance,
    load_pruned,
)
from captum_attattr.commands.endings import guarded
from captum_attattr.commands.main import main, parser
from captum_attattr.commands.work import told

ROWS = "text,label,other\na b c,0,x\ngood film,1,y\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny classifier in `model`, and a table in `rows.csv`."""
    folder = tmp_path_factory.mktemp("commands")
    write_model(tiny_bert(seed=1), folder)
    (folder / "rows.csv").write_text(ROWS)
    return folder


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    return [*captured.out.splitlines(), *captured.err.splitlines()]


def test_explain_prints_and_saves_what_the_library_gives(folder, tmp_path, capsys):
    line = ["explain", "--model", str(folder / "model"), "--pair", "good film", "bad plot", "--top", "2"]
    assert main([*line, "--output", str(tmp_path / "new"), "a b c"]) == 0
    (expected, _) = explain(tiny_bert(seed=1), tiny_tokenizer(), ["a b c", ("good film", "bad plot")], progress=False)
    found = Explanation.load(tmp_path / "new/explanation_1.safetensors")
    torch.testing.assert_close(found.attributions, expected.attributions, rtol=1e-5, atol=1e-7)
    printed = said(capsys)
    assert printed[0] == f"a b c: {expected.label!r}, probability {expected.probability:.3g}"
    assert len([row for row in printed if " <- " in row and "query" not in row]) == 4
    assert (tmp_path / "new/explanation_2.safetensors").exists()


def test_numerals_are_names_of_classes_where_the_model_has_such(tmp_path, capsys):
    write_model(tiny_bert(seed=1, id2label={0: "1", 1: "2", 2: "3"}), tmp_path)
    line = ["--model", str(tmp_path / "model")]
    assert main(["explain", *line, "--target", "2", "a b c"]) == 0
    assert said(capsys)[0].startswith("a b c: '2'")
    (tmp_path / "rows.csv").write_text(ROWS.replace(",0,", ",2,"))
    scores = tmp_path / "heads.safetensors"
    heads = ["heads", *line, "--data", str(tmp_path / "rows.csv"), "--output", str(scores), "--method", "taylor"]
    assert main([*heads, "--top", "1"]) == 0
    assert HeadImportance.load(scores).labels == ["1", "2"]
    assert main(["explain", *line, "--target", "0", "a b c"]) != 0
    assert "whose names are numerals" in " ".join(said(capsys))


def test_report_reads_a_table_and_a_target(folder, tmp_path, capsys):
    line = ["report", "--model", str(folder / "model"), "--data", str(folder / "rows.csv"), "--target", "1"]
    assert main([*line, "--output", str(tmp_path)]) == 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["report_1.html", "report_2.html"]
    assert "good film" in (tmp_path / "report_2.html").read_text()
    assert "measured effect" not in (tmp_path / "report_2.html").read_text()
    assert "LABEL_1" in said(capsys)[0]


def test_a_report_has_the_effects_that_were_asked_for(folder, tmp_path):
    assert main(["report", "--model", str(folder / "model"), "--effects", "--output", str(tmp_path), "a b c"]) == 0
    assert "measured effect" in (tmp_path / "report_1.html").read_text()


@pytest.mark.filterwarnings("ignore::captum_attattr.ConvergenceWarning")
@pytest.mark.parametrize("name", ["T5", "Bart", "MarianMTModel"])
def test_generate_takes_encoder_decoders(tmp_path, capsys, name):
    model, tokenizer = tiny_writer(name), tiny_tokenizer()
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "model")
    line = ["generate", "--model", str(tmp_path / "model"), "a good film", "--answer", "plot man", "--nodes", "2"]
    assert main([*line, "--output", str(tmp_path / "answer.safetensors")]) == 0
    found = GenerationExplanation.load(tmp_path / "answer.safetensors")
    expected = explain_generation(model, tokenizer, "a good film", generated="plot man", n_steps=2, progress=False)
    torch.testing.assert_close(found.matrix, expected.matrix)
    assert found.given == "source"
    assert capsys.readouterr().out.startswith(expected.table())
    assert main(["explain", "--model", str(tmp_path / "model"), "a good film"]) == 2
    assert "explain_generation explains what it writes" in capsys.readouterr().err


def test_generate_prints_and_writes_where_an_answer_came_from(tmp_path, capsys):
    write_model(tiny_llama(), tmp_path)
    line = ["generate", "--model", str(tmp_path / "model"), "good film", "--nodes", "8", "--top", "1"]
    assert main([*line, "--answer", " a bad plot", "--output", str(tmp_path / "new/answer.safetensors")]) == 0
    found = GenerationExplanation.load(tmp_path / "new/answer.safetensors")
    expected = explain_generation(
        tiny_llama(), AutoTokenizer.from_pretrained(tmp_path / "model"), "good film", generated=" a bad plot", n_steps=8
    )
    torch.testing.assert_close(found.matrix, expected.matrix, rtol=1e-4, atol=1e-7)
    printed = said(capsys)
    assert printed[: len(expected.table(1).splitlines())] == expected.table(1).splitlines()
    assert "plot" in (tmp_path / "new/answer.html").read_text()
    assert main([*line, "--max_new_tokens", "2", "--output", str(tmp_path / "own.safetensors")]) == 0
    assert 1 <= len(GenerationExplanation.load(tmp_path / "own.safetensors").tokens) <= 2  # the model may end at once


PARTS = {
    "BertForQuestionAnswering": (["--pair", "a", "good film a b a", "--target", "film a"], "film a"),
    "BertForTokenClassification": (["good film"], "LABEL_"),
    "BertForMaskedLM": (["a [MASK] b", "--target", "film"], "film"),
}


@pytest.mark.parametrize("name", PARTS)
def test_models_that_decide_about_a_part_of_a_text(name, tmp_path, capsys):
    torch.manual_seed(0)
    write_model(getattr(transformers, name)(bert_config(num_labels=2, vocab_size=VOCAB)).eval(), tmp_path)
    line, decision = PARTS[name]
    assert main(["explain", "--model", str(tmp_path / "model"), *line, "--top", "1"]) == 0, said(capsys)
    assert decision in said(capsys)[0]


@pytest.mark.filterwarnings("default:no interval of 2 examples")
def test_compare_prints_its_table_and_writes_numbers_and_page(folder, tmp_path, capsys):
    line = ["compare", "--model", str(folder / "model"), "--data", str(folder / "rows.csv"), "--unit", "head"]
    output = tmp_path / "new/compared.json"
    line += ["--attributions", "gradient_attention", "attention", "--baseline", "0", "--output", str(output)]
    assert main(line) == 0
    found = AttributionComparison.load(output)
    assert found.names == ["gradient_attention", "attention", "random"]
    assert "gradient_attention" in output.with_suffix(".html").read_text()
    rows = said(capsys)
    assert any(row.startswith("minus gradient_attention") for row in rows)
    assert "captum-attattr compare: warning: no interval of 2 examples: it takes 5 or more" in rows
    assert main([*line[:-4], "--attributions", "rollout", "--output", str(output)]) == 2
    assert "'rollout' puts heads together" in said(capsys)[-1]


def test_heads_and_prune_go_together(folder, tmp_path, capsys):
    scores, pruned = tmp_path / "heads.safetensors", tmp_path / "pruned"
    line = ["--model", str(folder / "model")]
    assert main(["heads", *line, "--data", str(folder / "rows.csv"), "--output", str(scores), "--top", "1"]) == 0
    assert scores.with_suffix(".html").exists()
    importance = HeadImportance.load(scores)
    (layer, head) = importance.ranking("most")[0]
    assert f"  layer {layer}, head {head}: {importance.scores[layer, head]:.3g}" in said(capsys)
    assert main(["prune", *line, "--importance", str(scores), "--count", "2", "--output", str(pruned)]) == 0
    cut = load_pruned(pruned)
    assert sum(map(len, cut.config.pruned_heads.values())) == 2
    assert main(["explain", "--model", str(pruned), "a b"]) == 0
    (tmp_path / "other").mkdir()
    write_model(tiny_bert(seed=2), tmp_path / "other")
    other = ["--model", str(tmp_path / "other/model"), "--importance", str(scores), "--count", "2"]
    assert main(["prune", *other, "--output", str(tmp_path / "none")]) == 2
    assert "was made of another model than --model" in said(capsys)[-1]
    assert not (tmp_path / "none").exists()
    assert main(["prune", *line, "--importance", str(scores), "--count", "99", "--output", str(pruned)]) == 2
    assert "--count 99: " in said(capsys)[-1]


WRONG = {
    "nothing": (["explain"], "nothing to explain: give texts, --pair or --data"),
    "top": (["explain", "a", "--top", "0"], "--top 0 is too small"),
    "target": (["explain", "a", "--target", "nice"], "target 'nice'"),
    "no table": (["report", "--data", "no.csv"], "no.csv"),
    "no column": (["heads", "--data", "{folder}/texts.csv"], "no column 'label' in its first line, which names 'text'"),
    "no row": (["heads", "--data", "{folder}/empty.csv"], "has no row below its first line"),
    "short row": (["heads", "--data", "{folder}/short.csv"], "row 2: no label"),
    "bytes": (["heads", "--data", "{folder}/model.bin"], "no table in UTF-8"),
    "method": (["heads", "--data", "{folder}/rows.csv", "--method", "atattr"], "'atattr'"),
    "importance": (["prune", "--importance", "no", "--count", "1", "--output", "o"], "no file 'no'"),
    "top of an answer": (["generate", "a", "--top", "0"], "--top 0 is too small"),
    "no language model": (["generate", "a", "--output", "a.safetensors"], "BertForSequenceClassification"),
    "output": (["explain", "a", "--output", "{folder}/rows.csv/x"], "rows.csv/x"),
    "no output": (["explain", "a", "--output", ""], "--output is empty"),
    "folder of a table": (["report", "--data", "{folder}"], "--data {folder} cannot be read: Is a directory"),
    "empty text": (["explain", "--data", "{folder}/gaps.csv"], "gaps.csv, row 2: no text"),
    "empty label": (["heads", "--data", "{folder}/gaps.csv"], "gaps.csv, row 1: no label"),
    "page for numbers": (
        ["heads", "--data", "{folder}/rows.csv", "--output", "heads.html"],
        "--output heads.html: anoth",
    ),
    "folder for a file": (["compare", "a", "--output", "{folder}"], "--output {folder} is no file"),
    "one file for two": (["compare", "a", "--output", "a.json", "--resume", "./a.json"], "--output and --resume are"),
    "file for a folder": (["prune", "--importance", "no", "--count", "1", "--output", "{folder}/rows.csv"], "is a f"),
    "start that nobody has": (["compare", "a", "--attributions", "attention", "--baseline", "x"], "--baseline 'x' is"),
    "F": (["explain", "a", "--contrast", "x"], "--contrast 'x' of texts[0] is unknown"),
    "method's flag": (["heads", "--data", "{folder}/rows.csv", "--method", "no"], "--method 'no' is unknown"),
    "place to resume": (["compare", "a", "--resume", "no/a.jsonl"], "--resume must be a file in a directory"),
    "too long": (["explain", "a " * 600], "shorten it, or pass --truncate"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said_in_one_line(folder, name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tables = {"texts": "text\na\n", "empty": "text,label\n", "short": "text,label\na,1\nb\n"}
    for file, content in {**tables, "gaps": "text,label\na, \n ,1\n"}.items():
        (folder / f"{file}.csv").write_text(content)
    (command, *line), message = WRONG[name]
    line, message = [part.format(folder=folder) for part in line], message.format(folder=folder)
    assert main([command, "--model", str(folder / "model"), *line]) == 2
    (only,) = said(capsys)
    assert only.startswith(f"captum-attattr {command}: error: ")
    assert message in only
    assert list(tmp_path.iterdir()) == []


def test_a_table_of_scores_ranks_the_heads_of_a_regression(tmp_path, capsys):
    write_model(tiny_bert(num_labels=1, problem_type="regression"), tmp_path)
    (tmp_path / "rows.csv").write_text("text,label\na b c,0.5\ngood film,-1\n")
    line = ["heads", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "rows.csv"), "--method", "taylor"]
    assert main([*line, "--output", str(tmp_path / "scores")]) == 0, said(capsys)
    model, scores = tiny_bert(num_labels=1, problem_type="regression"), [0.5, -1]
    expected = head_importance(model, tiny_tokenizer(), ["a b c", "good film"], scores, "taylor", progress=False)
    torch.testing.assert_close(HeadImportance.load(tmp_path / "scores").scores, expected.scores, rtol=1e-4, atol=1e-7)


def test_classes_that_pandas_wrote_as_1_0(folder, tmp_path, capsys):
    written = {}
    for name, labels in {"whole": ("0", "1"), "pandas": ("0.0", "1.0")}.items():
        (tmp_path / "rows.csv").write_text(f"text,label\na b c,{labels[0]}\ngood film,{labels[1]}\n")
        line = ["heads", "--model", str(folder / "model"), "--data", str(tmp_path / "rows.csv"), "--method", "taylor"]
        assert main([*line, "--output", str(tmp_path / name)]) == 0, said(capsys)
        written[name] = (tmp_path / name).read_bytes()
    assert written["whole"] == written["pandas"]


@pytest.mark.parametrize("command", ["explain", "report", "generate", "compare"])
def test_what_was_computed_is_saved_though_nobody_reads_the_lines(command, folder, tmp_path, monkeypatch):
    class Closed:
        def write(self, _: str) -> None:
            raise BrokenPipeError

        def fileno(self) -> int:
            return os.open(os.devnull, os.O_WRONLY)

    write_model(tiny_llama(), tmp_path)
    files = {
        "explain": ["out/explanation_1.safetensors", "out/explanation_2.safetensors"],
        "report": ["out/report_1.html", "out/report_2.html"],
        "generate": ["out", "out.html"],
        "compare": ["out", "out.html"],
    }
    line = {
        "generate": ["--model", str(tmp_path / "model"), "good film", "--answer", " a b", "--nodes", "2"],
        "compare": ["--model", str(folder / "model"), "a b", "c d", "--unit", "head", "--attributions", "attention"],
    }.get(command, ["--model", str(folder / "model"), "a b", "c d"])
    monkeypatch.setattr(sys, "stdout", Closed())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main([command, *line, "--output", str(tmp_path / "out")]) == 141
    assert all((tmp_path / file).is_file() for file in files[command])


def test_a_full_disk_is_told_before_the_work(folder, tmp_path, monkeypatch, capsys):
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    for command in ("explain", "report", "compare"):
        output = str(tmp_path / ("a.json" if command == "compare" else ""))
        assert main([command, "--model", "nowhere", "a", "--output", output]) == 2
        (only,) = said(capsys)
        assert f"--output: nothing can be written in the folder {tmp_path}: No space left on device" in only


def test_where_a_probability_is_nearly_1_the_logit_is_recommended(folder):
    [explanation] = explain(tiny_bert(seed=1), tiny_tokenizer(), "a b c", n_steps=1, progress=False)
    assert "--attribute logit" not in told(explanation, 1)
    assert "--attribute logit tells more" in told(replace(explanation, probability=0.999, value=0.999), 1)


@pytest.mark.parametrize("line", [["explain", "--atribute", "logit"], ["explain", "--atribute=logit"]])
def test_a_misspelt_flag_says_the_nearest_one(line, capsys):
    with pytest.raises(SystemExit):
        main([*line, "--model", "m", "a"])
    (only,) = said(capsys)
    assert only.startswith("captum-attattr explain: error: unrecognized arguments: --atribute")
    assert "did you mean '--attribute'?" in only


def test_help_says_a_default_where_there_is_one(capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["generate", "--help"])
    shown = capsys.readouterr().out
    assert "(default: 3)" in shown
    assert "None" not in shown
    assert "False" not in shown


IMPORTING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs the tests may ignore it, and children inherit that
sys.path.insert(0, {folder!r})
from captum_attattr.commands.endings import guarded

def work():
    try:
        import slow
    except BaseException:
        {then}

sys.exit(guarded("name", work))
"""


@pytest.mark.parametrize("then", ["print('went on')", "raise ImportError('could not import slow')"])
def test_ctrl_c_ends_a_program_that_is_importing(then, tmp_path):
    """Where libraries take it for a failed import, or swallow it."""
    (tmp_path / "slow.py").write_text("print('importing', flush=True)\nimport time\ntime.sleep(60)\n")
    source = IMPORTING.format(folder=str(tmp_path), then=then)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", source], text=True, **pipes) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "importing\n"
        program.send_signal(signal.SIGINT)
        assert program.communicate() == ("", "name: interrupted\n")
    assert program.returncode == 130


def test_a_closed_output_is_no_error(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert guarded("name", lambda: None) == 0


def test_wrong_models_are_named_with_what_was_tried(folder, tmp_path, capsys):
    strange, masked = tmp_path / "strange", tmp_path / "masked"
    strange.mkdir()
    masked.mkdir()
    (strange / "config.json").write_text(json.dumps({"model_type": "strange", "auto_map": {"AutoConfig": "evil.C"}}))
    (strange / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass C: pass\n")
    config = json.loads((folder / "model/config.json").read_text())
    (masked / "config.json").write_text(json.dumps({**config, "architectures": ["BertForNextSentencePrediction"]}))
    (tmp_path / "empty").mkdir()
    for name, message in {
        str(folder / "model.bin"): "is a file; a model is a folder with config.json, the weights and the tokenizer",
        str(tmp_path / "empty"): "is a folder without config.json",
        "./nowhere": "there is no such folder",
        "no-such-model": "is neither a folder here",
        str(strange): "needs Python code that comes with it, which is not run; --trust_remote_code runs it",
        str(masked): "holds BertForNextSentencePrediction; a classifier of texts or tokens, a causal or masked",
    }.items():
        assert main(["explain", "--model", name, "a"]) == 2
        (only,) = said(capsys)
        assert f"--model {name!r}" in only
        assert message in only
    assert not (tmp_path / "ran").exists()


BROKEN = {
    "no tokenizer's JSON": (lambda model: (model / "tokenizer_config.json").write_text("{"), "cannot be loaded: "),
    "no JSON": (lambda model: (model / "config.json").write_bytes(b"\xff\xfe"), "cannot be loaded: "),
    "cut weights": (lambda model: os.truncate(model / "model.safetensors", 5000), "its weights are damaged"),
    "no weights": (lambda model: (model / "model.safetensors").unlink(), "no file named model.safetensors"),
    "other classes": (lambda model: more_classes(model / "config.json"), "its weights may not fit its config.json"),
}


def more_classes(config: Path) -> None:
    content = json.loads(config.read_text())
    config.write_text(json.dumps({**content, "id2label": {str(i): f"L{i}" for i in range(7)}}))


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_of_a_model_is_said_with_its_name(name, folder, tmp_path, capsys):
    shutil.copytree(folder / "model", tmp_path / "model")
    breaks, message = BROKEN[name]
    breaks(tmp_path / "model")
    assert main(["explain", "--model", str(tmp_path / "model"), "a"]) == 2
    last = said(capsys)[-1]
    assert f"--model {str(tmp_path / 'model')!r}" in last
    assert message in last


def test_weights_that_may_not_be_read_are_called_that(folder, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model"
    shutil.copytree(folder / "model", model)
    (model / "model.safetensors").unlink()  # which is what safetensors says of them; root may read all
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "vocab.txt")
    assert main(["explain", "--model", str(model), "a"]) == 2
    assert f"{str(model / 'vocab.txt')!r} cannot be read: permission denied" in said(capsys)[-1]
    monkeypatch.setattr(os, "access", lambda path, _: Path(path) != model)
    assert main(["explain", "--model", str(model), "a"]) == 2
    assert "is a folder that cannot be read: permission denied" in said(capsys)[-1]


class _Evil:
    def __reduce__(self) -> object:
        return print, ("this ran",)


def test_weights_that_are_a_pickle_of_code_are_not_run(folder, tmp_path, capsys):
    model = tmp_path / "model"
    model.mkdir()
    for file in ("config.json", "vocab.txt", "tokenizer_config.json"):
        (model / file).write_bytes((folder / "model" / file).read_bytes())
    torch.save({"weight": _Evil()}, model / "pytorch_model.bin")
    assert main(["explain", "--model", str(model), "a"]) == 2
    (only,) = said(capsys)
    assert f"--model {str(model)!r}" in only
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(_Evil()))
    assert main(["explain", "--model", str(model), "a"]) == 2
    (only,) = said(capsys)
    assert "this ran" not in only


@pytest.mark.parametrize("command", ["", "explain", "report", "generate", "heads", "prune", "compare"])
def test_help_fits_a_screen(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit):
        parser().parse_args([*command.split(), "--help"])
    assert len(said(capsys)) <= 40


def test_ends_in_one_line_or_quietly(capsys):
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert guarded("name", interrupted) == 130
    assert said(capsys) == ["name: interrupted"]
    source = "import sys; from captum_attattr.commands.endings import guarded\n"
    source += "sys.exit(guarded('name', lambda: [print('x' * 99) for _ in range(9999)]))"
    with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ended:
        assert ended.stdout is not None
        assert ended.stderr is not None
        ended.stdout.close()
        assert (ended.stderr.read(), ended.wait()) == (b"", 141)
