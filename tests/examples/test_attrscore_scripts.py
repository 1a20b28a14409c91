"""The scripts for attributions and predictions through the command line: published files and numbers, refusals."""

from __future__ import annotations

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import LABELS, REFERENCE, ROWS, flags, needs_reference, run, run_here, write_mnli, write_vocabulary
from toy import VOCAB
from transformers import (
    AutoTokenizer,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from captum_attattr import Archive, Explanation, explain
from captum_attattr.published.attribution_files import read_maps
from captum_attattr.published.tasks import task

TOKENS, SCORES = "get_tokens_and_pred.py", "generate_attrscore.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT and MNLI-shaped rows."""
    return write_mnli(tmp_path_factory.mktemp("mnli"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def explained(folder: Path, **options: Any) -> list[Explanation]:
    """What the library gives for all rows."""
    model = BertForSequenceClassification.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts = [row.text for row in task("mnli").read(folder / "data", "dev")]
    return explain(model, tokenizer, texts, progress=False, **options)


def scores(folder: Path, output: Path, /, **changes: Any) -> int:
    given = {"get_att_attr": True, "batch_size": 4, "num_batch": 2, "quiet": True} | changes
    return run_here(SCORES, flags(folder, output, **given))


# ----------------------------------------------------------------------------------- tokens and predictions


def predictions(folder: Path, output: Path, **changes: Any) -> list[dict[str, Any]]:
    assert run_here(TOKENS, flags(folder, output, **changes)) == 0
    (path,) = output.glob("tokens_and_pred_*.json")
    entries: list[dict[str, Any]] = json.loads(path.read_text())
    assert path.name == f"tokens_and_pred_{len(entries)}.json"
    return entries


def test_tokens_file_says_of_every_row_what_the_model_does(folder, tmp_path):
    entries = predictions(folder, tmp_path)
    assert len(entries) == ROWS  # 100 were asked for, which is the default
    model = BertForSequenceClassification.from_pretrained(folder / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    for i, (entry, row) in enumerate(zip(entries, task("mnli").read(folder / "data", "dev"), strict=True)):
        inputs = tokenizer(*row.text, return_tensors="pt")
        with torch.no_grad():
            logits = model(**inputs).logits
        assert list(entry) == ["index", "tokens", "pred", "golden", "pred_logits"]
        assert entry["index"] == i
        assert entry["tokens"] == ["[CLS]", *row.text[0].split(), "[SEP]", *row.text[1].split(), "[SEP]"]
        assert entry["golden"] == LABELS[row.label]
        assert entry["pred"] == LABELS[logits.argmax()]
        torch.testing.assert_close(torch.tensor(entry["pred_logits"]), logits, rtol=0, atol=1e-5)
    text = (tmp_path / f"tokens_and_pred_{ROWS}.json").read_text()
    assert text == json.dumps(entries, indent=2) + "\n"  # as published


def test_first_rows_only_and_cut(folder, tmp_path):
    entries = predictions(folder, tmp_path, num_examples=4, max_seq_length=6)
    assert [len(entry["tokens"]) for entry in entries] == [6, 6, 6, 6]
    assert entries[3]["tokens"] == ["[CLS]", "d", "e", "[SEP]", "film", "[SEP]"]  # the first has the odd token


def test_models_own_label_order_does_not_show(folder, tmp_path):
    model = BertForSequenceClassification.from_pretrained(folder / "model")
    order = [2, 0, 1]
    with torch.no_grad():
        for part in (model.classifier.weight, model.classifier.bias):
            part.copy_(part[order].clone())
    model.config.id2label = {i: LABELS[label].upper() for i, label in enumerate(order)}
    model.save_pretrained(tmp_path / "model")
    given = {"model_file": tmp_path / "model"}
    assert predictions(folder, tmp_path / "own", **given) == predictions(folder, tmp_path / "published")


def test_classes_are_named_as_the_tasks_files_name_them_and_the_tree_reads_it(folder, tmp_path, capsys):
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\na b good\t1\nc bad\t0\n")
    model = BertForSequenceClassification.from_pretrained(folder / "model", num_labels=2, ignore_mismatched_sizes=True)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.tensor([-9.0, 9.0]))
    model.save_pretrained(tmp_path / "model")
    given = {"task_name": "sst-2", "data_dir": tmp_path, "model_file": tmp_path / "model"}
    entries = predictions(folder, tmp_path, **given)
    assert [(entry["pred"], entry["golden"]) for entry in entries] == [("1", "1"), ("1", "0")]
    assert scores(folder, tmp_path, example_index=1, **given) == 0
    line = ["--attr_file", tmp_path / "attr_zero_base_exp1.json", "--tokens_file", tmp_path / "tokens_and_pred_2.json"]
    line += ["--task_name", "sst-2", "--example_index", "1", "--output", tmp_path / "tree"]
    line += ["--threshold", "0.1"]
    assert run_here("attribution_tree.py", [str(part) for part in line]) == 0
    assert "positive" in (tmp_path / "tree.html").read_text()


def test_regression_has_scores_for_labels(folder, tmp_path):
    (tmp_path / "dev.tsv").write_text("sentence1\tsentence2\tscore\na b\tc\t3.5\nc\tbad\t0.25\n")
    BertForSequenceClassification.from_pretrained(
        folder / "model", num_labels=1, ignore_mismatched_sizes=True
    ).save_pretrained(tmp_path / "model")
    given = {"task_name": "STS-B", "data_dir": tmp_path, "model_file": tmp_path / "model"}
    entries = predictions(folder, tmp_path, **given)
    assert [entry["golden"] for entry in entries] == [3.5, 0.25]
    assert [[[entry["pred"]]] for entry in entries] == [entry["pred_logits"] for entry in entries]
    assert scores(folder, tmp_path, example_index="0:2", **given) == 0
    assert read_maps(tmp_path / "attr_zero_base_exp1.json").shape == (3, 4, 5, 5)


# ------------------------------------------------------------------------------------------- attributions


def test_published_files_of_the_published_default(folder, tmp_path, capsys):
    assert scores(folder, tmp_path, get_att_score=True) == 0
    assert names(tmp_path) == ["att_score_zero_base_exp5.json", "attr_zero_base_exp5.json"]
    expected = explained(folder, method="riemann_left", n_steps=8)[5]
    maps = read_maps(tmp_path / "attr_zero_base_exp5.json")
    torch.testing.assert_close(maps, expected.attributions, rtol=0, atol=1e-7)
    attention = read_maps(tmp_path / "att_score_zero_base_exp5.json")
    torch.testing.assert_close(attention, expected.attention, rtol=0, atol=1e-6)
    assert (
        f"example 5: '{LABELS[expected.target]}', F = {expected.probability:.4f}: {tmp_path}/attr"
        in capsys.readouterr().out
    )


def test_several_examples_and_other_rules(folder, tmp_path):
    rules = {
        "adaptive": ({"adaptive": True, "tolerance": 1e-4}, {"tolerance": 1e-4}),
        "published": ({"published": True}, {"method": "riemann_right", "n_steps": 8}),
    }
    for name, (given, options) in rules.items():
        assert scores(folder, tmp_path / name, example_index="7, 0:2,1", **given) == 0
        assert names(tmp_path / name) == [f"attr_zero_base_exp{number}.json" for number in (0, 1, 7)]
        for number in (0, 7):
            maps = read_maps(tmp_path / name / f"attr_zero_base_exp{number}.json")
            torch.testing.assert_close(maps, explained(folder, **options)[number].attributions, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "options", "start"),
    [
        ({"output": "logit"}, {"output": "logit"}, "zero_base_logit"),
        ({"path": "joint", "baseline": "sink"}, {"path": "joint", "baseline": "sink"}, "sink_base_joint"),
        ({"baseline": "0.25"}, {"baseline": 0.25}, "0.25_base"),
    ],
)
def test_other_outputs_paths_and_starts(folder, tmp_path, given, options, start):
    assert scores(folder, tmp_path, **given) == 0
    assert names(tmp_path) == [f"attr_{start}_exp5.json"]
    expected = explained(folder, method="riemann_left", n_steps=8, **options)[5]
    torch.testing.assert_close(
        read_maps(tmp_path / f"attr_{start}_exp5.json"), expected.attributions, rtol=0, atol=1e-6
    )
    assert scores(folder, tmp_path, example_index=None, num_examples=2, **given) == 0
    archive = Archive(tmp_path / f"attr_{start}_2")
    assert (archive[0].output, archive[0].path, archive[0].baseline) == (
        expected.output,
        expected.path,
        expected.baseline,
    )


def test_an_unknown_start_is_one_line(folder, tmp_path, capsys):
    assert scores(folder, tmp_path, baseline="zeros") == 2
    assert "--baseline 'zeros' is unknown; use 'zero', 'uniform', 'sink' or a finite number" in capsys.readouterr().err


def test_whole_data_set_is_an_archive_and_json_when_asked(folder, tmp_path, capsys):
    assert scores(folder, tmp_path, example_index=None, num_examples=4) == 0
    assert names(tmp_path)[0] == "attr_zero_base_4"
    archive = Archive(tmp_path / "attr_zero_base_4")
    expected = explained(folder, method="riemann_left", n_steps=8)
    assert len(archive) == 4
    for found, one in zip(archive, expected[:4], strict=True):
        torch.testing.assert_close(found.attributions, one.attributions, rtol=0, atol=1e-6)
        assert found.attention is None
    assert f"4 examples: {tmp_path}/attr_zero_base_4" in capsys.readouterr().out
    given = {"num_examples": 99, "get_att_score": True, "json": True, "float16": True}
    assert scores(folder, tmp_path / "all", **given) == 0
    archive = Archive(tmp_path / f"all/attr_zero_base_{ROWS}")
    for number in range(ROWS):
        for kind, maps in (("attr", archive[number].attributions), ("att_score", archive[number].attention)):
            written = read_maps(tmp_path / f"all/{kind}_zero_base_exp{number}.json")
            torch.testing.assert_close(written, maps, rtol=0, atol=0)


def test_archive_of_other_options_is_not_gone_on_with(folder, tmp_path, capsys):
    assert scores(folder, tmp_path, num_examples=2) == 0
    assert scores(folder, tmp_path, num_examples=2, batch_size=8) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "belongs to another run and is not resumed (options.n_steps 8 there, 16 now)" in line


@pytest.mark.slow
def test_two_processes_write_what_one_writes(folder, tmp_path):
    given = {"num_examples": ROWS, "get_att_attr": True, "batch_size": 2, "json": True, "quiet": True}
    done = run(SCORES, *flags(folder, tmp_path / "two", **given), processes=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"{ROWS} examples: ") == 1
    assert run_here(SCORES, flags(folder, tmp_path / "one", **given)) == 0
    files = [{path.name: path.read_bytes() for path in (tmp_path / n).rglob("*.*")} for n in ("one", "two")]
    assert len(files[0]) == ROWS + 2
    assert files[0] == files[1]


@pytest.mark.slow
def test_two_processes_share_the_examples_that_are_named(folder, tmp_path):
    done = run(SCORES, *flags(folder, tmp_path, example_index="0:5", get_att_attr=True, num_batch=1), processes=2)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"attr_zero_base_exp{i}.json" for i in range(5)]


@pytest.mark.filterwarnings("always")
def test_maps_that_did_not_converge_are_told_by_the_number_of_the_row(folder, tmp_path, capsys):
    assert scores(folder, tmp_path, example_index="4", adaptive=True, tolerance=1e-12) == 0
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.match(r"generate_attrscore\.py: warning: example 4, layer \d: estimated error .* above --tolerance", line)


def test_any_family_will_do(folder, tmp_path):
    config = DistilBertConfig(vocab_size=VOCAB, dim=32, n_layers=2, n_heads=4, hidden_dim=48, num_labels=3)
    torch.manual_seed(0)
    DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "model")
    write_vocabulary(tmp_path / "model")
    (tmp_path / "model/tokenizer_config.json").write_text('{"tokenizer_class": "DistilBertTokenizer"}')
    given = {"bert_model": tmp_path / "model", "model_file": None}
    assert scores(folder, tmp_path / "out", **given) == 0
    assert read_maps(tmp_path / "out/attr_zero_base_exp5.json").shape[:2] == (2, 4)


# ------------------------------------------------------------------------------------------------ refusals


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "task": ({"task_name": "MNIST"}, "unknown task 'MNIST'; known are cola, mnli, mnli-mm, mrpc, rte, scitail, sst-2"),
    "data": ({"data_dir": "nowhere"}, "no file 'nowhere/dev_matched.tsv', the dev split of mnli"),
    "model": ({"bert_model": "nowhere"}, "--bert_model nowhere, --model_file"),
    "weights": ({"model_file": "nowhere.bin"}, "no file of weights 'nowhere.bin'"),
    "junk": ({"model_file": __file__}, "is no file of weights"),
    "length": ({"max_seq_length": 2}, "--max_seq_length is 2; it must be 3 or more: [CLS], a word, [SEP]"),
    "output": ({"output_dir": f"{__file__}/out"}, f"--output_dir {__file__}/out cannot be written: Not a directory"),
    "output file": ({"output_dir": __file__}, f"--output_dir {__file__} cannot be written: File exists"),
    "number": ({"num_examples": 0}, "--num_examples is 0; it must be 1 or more"),
}
OF_SCORES: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({"get_att_attr": None}, "nothing to write: give --get_att_attr, --get_att_score or both"),
    "range": ({"example_index": 9}, f"--example_index 9: {{data}}/dev_matched.tsv holds {ROWS} examples, 0 to 8"),
    "end": ({"example_index": "2,5:10"}, "--example_index 5:10: "),
    "empty": ({"example_index": "5:5"}, "--example_index 5:5: "),
    "syntax": ({"example_index": "5-9"}, "--example_index '5-9' must be numbers and ranges START:END (without END)"),
    "negative": ({"example_index": "-1"}, "--example_index"),
    "steps": ({"batch_size": 0}, "--batch_size is 0; it must be 1 or more"),
    "both": ({"num_examples": 3, "example_index": 5}, "give --num_examples or --example_index, not both"),
    "two rules": ({"adaptive": True, "published": True}, "not allowed with argument"),
    "json": ({"json": True}, "--json needs --num_examples"),
    "half": ({"float16": True}, "--float16 needs --num_examples"),
    "attention": ({"num_examples": 3, "get_att_attr": None, "get_att_score": True}, "give --get_att_attr as well"),
    "tolerance": ({"adaptive": True, "tolerance": 2}, "--tolerance is 2.0; it must be above 0 and below 1"),
}
CASES = [(TOKENS, name) for name in MISTAKES] + [(SCORES, name) for name in {**MISTAKES, **OF_SCORES}]


def assert_one_line(capsys: Any, script: str, message: str) -> None:
    said = capsys.readouterr()
    assert not said.out
    (line,) = said.err.strip().splitlines()
    assert line.startswith(f"{script}: error: ")
    assert message in line


@pytest.mark.parametrize(("script", "name"), CASES)
def test_mistake_is_one_line_and_status_2(folder, tmp_path, capsys, script, name):
    changes, message = (MISTAKES | OF_SCORES)[name]
    given = {"get_att_attr": True} if script == SCORES else {}
    assert run_here(script, flags(folder, tmp_path / "out", **given | changes)) == 2
    assert_one_line(capsys, script, message.replace("{data}", str(folder / "data")))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]  # at most an empty folder


TABLES = {
    "no bytes": ("", "is empty: not even a header"),
    "no row": ("{header}\n", "is empty: it holds no example"),
    "no column": ("index\tsentence1\n0\ta\n", "has no column 'sentence2'"),
    "label": (
        "{header}\n{row}\n0\tx\tx\tx\tx\tx\tx\tx\ta\tb\tn\tmaybe\n",
        "line 3: label 'maybe' is not one of mnli's",
    ),
    "cells": ("{header}\n{row}\n{row}\n0\tx\n", "line 4: 2 columns; 12 are expected"),
}


@pytest.mark.parametrize("script", [TOKENS, SCORES])
@pytest.mark.parametrize("name", TABLES)
def test_malformed_table_is_one_line_with_its_number(folder, tmp_path, capsys, script, name):
    header, row, *_ = (folder / "data/dev_matched.tsv").read_text().splitlines()
    content, message = TABLES[name]
    (tmp_path / "dev_matched.tsv").write_text(content.format(header=header, row=row))
    given = {"get_att_attr": True} if script == SCORES else {}
    assert run_here(script, flags(folder, tmp_path / "out", data_dir=tmp_path, **given)) == 2
    assert_one_line(capsys, script, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_is_one_line(folder, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert run_here(TOKENS, flags(folder, tmp_path)) == 2
    assert_one_line(capsys, TOKENS, f"--output_dir {tmp_path} cannot be written: Permission denied")


def test_mistake_ends_the_program_without_a_traceback(folder, tmp_path):
    done = run(SCORES, *flags(folder, tmp_path, get_att_attr=True, example_index=99))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("generate_attrscore.py: error: --example_index 99: ")


@pytest.mark.parametrize("script", [TOKENS, SCORES])
def test_help_shows_the_published_flags_and_defaults(script, capsys):
    assert run_here(script, ["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    common = ["task_name", "data_dir", "bert_model", "model_file", "output_dir", "max_seq_length", "do_lower_case"]
    common += ["no_cuda", "seed"]
    own = {
        TOKENS: ["local_rank", "num_examples"],
        SCORES: ["get_att_attr", "get_att_score", "batch_size", "num_batch", "zero_baseline", "example_index"],
    }
    for flag in common + own[script]:
        assert f"--{flag} " in said, flag
    defaults = {TOKENS: ("128", "42", "-1", "100"), SCORES: ("128", "42", "16", "4")}
    for default in defaults[script]:
        assert f"(default: {default})" in said


# -------------------------------------------------------------------------------------------------- parity


@needs_reference
def test_published_commands_give_the_published_files(tmp_path):
    base, shown = REFERENCE / "tiny-base", tmp_path / "bert-base"
    shown.mkdir()  # as the published code reads it: no configuration or tokenizer of today
    for file in ("bert_config.json", "vocab.txt"):
        (shown / file).write_bytes((base / file).read_bytes())
    given = {"task_name": "mnli", "data_dir": REFERENCE / "mnli", "bert_model": shown, "output_dir": tmp_path}
    given["model_file"] = base / "pytorch_model.bin"
    line = flags(REFERENCE, tmp_path, **given)
    assert run_here(TOKENS, line) == 0
    found, published = (
        json.loads((place / "tokens_and_pred_45.json").read_text()) for place in (tmp_path, REFERENCE / "out")
    )
    logits = [torch.tensor([entry.pop("pred_logits") for entry in entries]) for entries in (found, published)]
    assert found == published
    # Logits of up to 5.4, which the published code itself rounds by 1.1e-5.
    torch.testing.assert_close(*logits, rtol=0, atol=2e-5)
    assert run_here(SCORES, [*line, "--get_att_attr", "--get_att_score"]) == 0  # example 5, 16 times 4 nodes
    for kind in ("attr", "att_score"):
        maps = read_maps(tmp_path / f"{kind}_zero_base_exp5.json")
        with gzip.open(REFERENCE / f"out/{kind}_zero_base_exp5.json.gz", "rt") as file:
            for layer, expected in zip(maps, map(json.loads, file), strict=True):
                wanted = torch.tensor(expected)
                torch.testing.assert_close(layer, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))
