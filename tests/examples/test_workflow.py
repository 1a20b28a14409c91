"""The published workflow's commands, one after another, as they stand in the guide; what all scripts share."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import networkx
import pytest
import torch
from command_line import COLUMNS, LABELS, REFERENCE, ROOT, flags, needs_reference, run_here, write_model
from common.command_line import run_script
from toy import WORDS, tiny_bert, wavering_bert
from transformers import BertForSequenceClassification

from captum_attattr import Archive, HeadImportance
from captum_attattr.published.attribution_files import read_maps

PAGE = (ROOT / "docs/guide/published.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
SCRIPTS = [
    *("run_classifier_orig.py", "get_tokens_and_pred.py", "generate_attrscore.py", "attribution_tree.py"),
    *("prune_head_with_attr.py", "prune_head_with_taylor.py", "run_adver_connection.py", "run_adver_evaluate.py"),
]
LAYERS, HEADS, DEV, TRAIN = 3, 4, 100, 40


# What the published scripts take beside the flags of all of them, with their defaults; None where there is none.
PUBLISHED: dict[str, dict[str, Any]] = {
    "run_classifier_orig.py": {
        "model_recover_path": None,
        "optim_recover_path": None,
        "do_train": False,
        "do_eval": False,
        "train_batch_size": 32,
        "eval_batch_size": 64,
        "learning_rate": 5e-5,
        "num_train_epochs": 3.0,
        "warmup_proportion": 0.1,
        "gradient_accumulation_steps": 1,
        "fp16": False,
        "loss_scale": 0,
    },
    "get_tokens_and_pred.py": {"num_examples": 100},
    "generate_attrscore.py": {
        "get_att_attr": False,
        "get_att_score": False,
        "batch_size": 16,
        "num_batch": 4,
        "zero_baseline": True,
        "example_index": None,  # "5 if not given", in words
    },
    "attribution_tree.py": {"attr_file": None, "tokens_file": None, "task_name": None, "example_index": 128},
    "prune_head_with_attr.py": {"num_examples": 200, "batch_size": 20, "num_batch": 1, "eval_batch_size": 256},
    "prune_head_with_taylor.py": {"num_examples": 200, "eval_batch_size": 256},
    "run_adver_connection.py": {
        "batch_size": 16,
        "num_batch": 4,
        "zero_baseline": False,
        "start_exp": 0,
        "num_exp": 500,
        "data_type": "train",
    },
    "run_adver_evaluate.py": {"pattern_file": None, "eval_batch_size": 400, "if_all": False, "data_type": "train"},
}
COMMON = {
    "task_name": None,
    "data_dir": None,
    "bert_model": None,
    "output_dir": None,
    "max_seq_length": 128,
    "do_lower_case": False,
    "no_cuda": False,
    "local_rank": -1,
    "seed": 42,
}


def write_rows(path: Path, count: int) -> None:
    """MNLI-shaped rows; the last word of the second sentence gives the label away."""
    choose = random.Random(9)
    lines = ["\t".join(COLUMNS)]
    for i in range(count):
        first, second = (" ".join(choose.choices(WORDS, k=choose.randint(2, 6))) for _ in range(2))
        lines.append("\t".join([str(i), *"xxxxxxx", first, f"{second} {WORDS[i % 3]}", "n", LABELS[i % 3]]))
    path.write_text("\n".join(lines) + "\n")


def form(value: Any) -> Any:
    """What a JSON value is made of: names, types, and the lengths of lists of numbers in it."""
    if isinstance(value, dict):
        return {name: form(entry) for name, entry in value.items()}
    if isinstance(value, list):
        kinds = [form(entry) for entry in value]
        return [kind for n, kind in enumerate(kinds) if kind not in kinds[:n]]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all commands of the page have been run, in their order, on a tiny BERT and rows made here."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "DATA").mkdir()
    write_rows(folder / "DATA/train.tsv", TRAIN)
    write_rows(folder / "DATA/dev_matched.tsv", DEV)
    write_model(wavering_bert(seed=1, max_position_embeddings=128), folder)  # with a tree at the row that is drawn
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    for block in COMMANDS:
        command = block.replace("bert-base-cased", "model")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
        assert done.stdout.strip(), block
    return folder


def test_the_page_has_every_script_and_its_published_flags_only():
    said = " ".join(COMMANDS)
    assert sorted(set(re.findall(r"examples/(\w+\.py)", said))) == sorted(SCRIPTS)
    for line in re.sub(r"\\\n", " ", said).splitlines():
        (script,) = re.findall(r"examples/(\w+\.py)", line)
        known = PUBLISHED[script] | COMMON | {"model_file": None}
        new = {"generate_attrscore.py": {"num_examples", "adaptive"}, "attribution_tree.py": {"output"}}
        assert set(re.findall(r"--(\w+)", line)) <= known.keys() | new.get(script, set())


def test_fine_tuning_leaves_the_published_files(desk):
    folder = desk / "finetuned"
    asked = read(folder / "opt.json")
    assert (asked["task_name"], asked["do_train"], asked["learning_rate"]) == ("mnli", True, 5e-5)
    results = read(folder / "dev_matched.txt")
    assert [result["epoch"] for result in results] == [1, 2, 3]
    names = {"eval_loss", "eval_result", "model", "model_recover_path", "task_name", "epoch", "eval_segment"}
    whole = BertForSequenceClassification.from_pretrained(folder)
    for result in results:
        assert result.keys() == names
        lines = (folder / f"dev_matched.{result['epoch']}.pred").read_text().splitlines()
        right = sum(line == LABELS[i % 3] for i, line in enumerate(lines))
        assert len(lines) == DEV
        assert result["eval_result"] == pytest.approx(right / DEV)
        weights = torch.load(desk / result["model"], weights_only=True)
        assert weights.keys() == whole.state_dict().keys()
    torch.testing.assert_close(weights, dict(whole.state_dict()), rtol=0, atol=0)
    assert read(folder / "eval_results.json")["eval_accuracy"] == results[-1]["eval_result"]


def test_every_file_has_the_published_form(desk):
    results = desk / "results"
    found = {path.name for path in results.iterdir() if path.suffix == ".json"}
    assert found == {
        *(f"tokens_and_pred_{DEV}.json", "attr_zero_base_exp5.json", "att_score_zero_base_exp5.json"),
        *(f"{what}_{kind}.json" for what in ("head_importance", "prune_result") for kind in ("attr", "taylor")),
        *("train_adver_pattern_exp0-500.json", "eval_train_pattern_one_exp0-500.json"),
    }
    entries = read(results / f"tokens_and_pred_{DEV}.json")
    assert [entry["index"] for entry in entries] == list(range(DEV))
    size = len(entries[5]["tokens"])
    for kind in ("attr", "att_score"):
        assert read_maps(results / f"{kind}_zero_base_exp5.json").shape == (LAYERS, HEADS, size, size)
        assert len((results / f"{kind}_zero_base_exp5.json").read_text().splitlines()) == LAYERS
    assert len(read(results / "head_importance_attr.json")) == LAYERS * HEADS
    assert [len(layer) for layer in read(results / "head_importance_taylor.json")] == [HEADS] * LAYERS
    assert all(len(read(results / f"prune_result_{kind}.json")) == 11 for kind in ("attr", "taylor"))
    patterns = read(results / "train_adver_pattern_exp0-500.json")
    scored = read(results / "eval_train_pattern_one_exp0-500.json")
    assert len(patterns) == TRAIN
    assert [{name: entry[name] for name in patterns[0]} for entry in scored] == patterns[: len(scored)]
    assert all(0 <= entry[label] <= 1 for entry in scored for label in LABELS)


@needs_reference
def test_every_file_is_made_of_what_the_published_ones_are_made_of(desk):
    compared = []
    for path in (REFERENCE / "out").glob("*.json"):
        name = path.name.replace("_45", f"_{DEV}").replace("exp0-24", "exp0-500")
        if name.startswith("tree_edges"):  # not one of the scripts' files
            continue
        assert form(read(desk / "results" / name)) == form(read(path)), name
        compared.append(name)
    assert len(compared) == 7


def test_new_files_stand_beside_them(desk):
    results = desk / "results"
    archive = Archive(results / f"attr_zero_base_{DEV}")
    assert len(archive) == DEV
    assert archive[5].tokens == read(results / f"tokens_and_pred_{DEV}.json")[5]["tokens"]
    tree = networkx.read_graphml(results / "tree_exp5.graphml")
    assert 1 < tree.number_of_nodes() <= len(archive[5].tokens)
    assert (results / "tree_exp5.txt").is_file()
    importance = HeadImportance.load(results / "head_importance_attr.safetensors")
    assert importance.count == DEV
    sums = torch.tensor(read(results / "head_importance_attr.json")).reshape(LAYERS, HEADS)
    torch.testing.assert_close(importance.scores * DEV, sums.double())
    pages = {path.stem for path in results.glob("*.html")}
    assert pages == {
        "tree_exp5",
        *(f"{what}_{k}" for what in ("head_importance", "prune_result") for k in ("attr", "taylor")),
    }


def test_scores_are_a_task_like_any_other(tmp_path, capsys):
    """STS-B: one output, Pearson's correlation, F is the score itself; triggers need classes."""
    rows = ["sentence1\tsentence2\tscore"]
    rows += [f"{WORDS[i % 20]} film\t{WORDS[i % 7]} plot\t{(i * 7 % 11) / 2}" for i in range(24)]
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text("\n".join(rows) + "\n")
    write_model(tiny_bert(max_position_embeddings=128), tmp_path)
    BertForSequenceClassification.from_pretrained(
        tmp_path / "model", num_labels=1, ignore_mismatched_sizes=True
    ).save_pretrained(tmp_path / "model")
    given = {"task_name": "STS-B", "data_dir": tmp_path, "model_file": None, "no_cuda": True}
    tuned, out = tmp_path / "tuned", tmp_path / "out"
    train = {"do_train": True, "do_eval": True, "num_train_epochs": 1, "train_batch_size": 8, "keep_best": True}
    assert run_here("run_classifier_orig.py", flags(tmp_path, tuned, **given, **train)) == 0
    (result,) = read(tuned / "dev.txt")
    assert -1 <= result["eval_result"] <= 1
    scores = [float(line) for line in (tuned / "dev.1.pred").read_text().splitlines()]
    given |= {"model_file": tuned / "model.1.bin", "quiet": True}
    assert run_here("get_tokens_and_pred.py", flags(tmp_path, out, **given)) == 0
    entries = read(out / "tokens_and_pred_24.json")
    assert [entry["pred"] for entry in entries] == pytest.approx(scores, abs=1e-5)
    assert entries[0]["golden"] == 0.0
    assert run_here("generate_attrscore.py", flags(tmp_path, out, **given, get_att_attr=True, adaptive=True)) == 0
    assert f"F = {scores[5]:.4f}" in capsys.readouterr().out
    line = ["--attr_file", out / "attr_zero_base_exp5.json", "--tokens_file", out / "tokens_and_pred_24.json"]
    line += ["--task_name", "sts-b", "--example_index", "5", "--output", out, "--threshold", "0.1"]
    assert run_here("attribution_tree.py", [str(part) for part in line]) == 0
    for kind in ("attr", "taylor"):
        assert run_here(f"prune_head_with_{kind}.py", flags(tmp_path, out, **given, num_examples=6)) == 0
        assert read(out / f"prune_result_{kind}.json")[0] == pytest.approx(result["eval_result"], abs=1e-5)
    capsys.readouterr()
    assert run_here("run_adver_connection.py", flags(tmp_path, out, **given)) == 2
    assert "--task_name STS-B: its labels are scores; triggers need classes" in capsys.readouterr().err


def test_weights_go_with_the_configuration_of_what_was_fine_tuned(tmp_path, capsys):
    """A model with the task's classes in another order keeps its own, so that the next command reads them right."""
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data/train.tsv", 30)
    write_rows(tmp_path / "data/dev_matched.tsv", 12)
    model = wavering_bert(max_position_embeddings=128)
    model.config.id2label = {0: "ENTAILMENT", 1: "NEUTRAL", 2: "CONTRADICTION"}
    model.config.label2id = {name: number for number, name in model.config.id2label.items()}
    write_model(model, tmp_path)
    given = {"model_file": None, "data_dir": tmp_path / "data", "no_cuda": True}
    train = {"do_train": True, "do_eval": True, "num_train_epochs": 1, "train_batch_size": 4, "learning_rate": 1e-3}
    assert run_here("run_classifier_orig.py", flags(tmp_path, tmp_path / "tuned", **given, **train)) == 0
    said = (tmp_path / "tuned/dev_matched.1.pred").read_text().split()
    assert len(set(said)) > 1
    (result,) = read(tmp_path / "tuned/dev_matched.txt")
    assert result["eval_result"] == pytest.approx(sum(said[i] == LABELS[i % 3] for i in range(12)) / 12)
    for number, file in enumerate((tmp_path / "tuned/model.1.bin", tmp_path / "tuned")):
        out = tmp_path / str(number)
        assert run_here("get_tokens_and_pred.py", flags(tmp_path, out, **given | {"model_file": file})) == 0
        assert [entry["pred"] for entry in read(out / "tokens_and_pred_12.json")] == said
    capsys.readouterr()


@pytest.mark.filterwarnings("always")
def test_what_a_script_raises_is_one_line_whatever_it_is(capsys, monkeypatch):
    def work(error: BaseException) -> None:
        warnings.warn("beware\nof this", UserWarning, stacklevel=1)
        raise error

    monkeypatch.setattr(sys, "argv", ["examples/script.py"])
    for error, status, line in (
        (KeyError("a"), 2, "script.py: error: KeyError('a')"),
        (ValueError("one\n  two"), 2, "script.py: error: one two"),
        (OSError(), 2, "script.py: error: OSError()"),
        (KeyboardInterrupt(), 130, "script.py: interrupted"),
    ):
        with pytest.raises(SystemExit) as end:
            run_script(lambda error=error: work(error))
        assert end.value.code == status
        assert capsys.readouterr().err.splitlines() == ["script.py: warning: beware of this", line]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_has_every_published_flag_with_its_default(script, capsys):
    assert run_here(script, ["--help"]) == 0
    entries = re.split(r"\n  --", capsys.readouterr().out.split("options:")[1])[1:]
    about = {entry.split()[0]: " ".join(entry.split()) for entry in entries}
    expected = PUBLISHED[script] if script == "attribution_tree.py" else COMMON | PUBLISHED[script]
    for flag, default in expected.items():
        assert f"(default: {default})" in about[flag], flag
    # Whatever else there is has a default too: they are all said.
    assert all("(default: " in entry for flag, entry in about.items()), about


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("mistake", ["no flags", "no such flag", "no such task"])
def test_what_is_wrong_is_said_in_one_line(script, mistake, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines: dict[str, list[str]] = {
        "run_classifier_orig.py": flags(tmp_path, tmp_path / "out", task_name="MNIST", model_file=None, do_eval=True),
        "attribution_tree.py": ["--attr_file", "a", "--tokens_file", "b", "--task_name", "MNIST"],
        "generate_attrscore.py": flags(tmp_path, tmp_path / "out", task_name="MNIST", get_att_attr=True),
        "run_adver_evaluate.py": flags(tmp_path, tmp_path / "out", task_name="MNIST", pattern_file="train.json"),
    }
    unknown = lines.get(script, flags(tmp_path, tmp_path / "out", task_name="MNIST"))
    known = ["MNLI" if part == "MNIST" else part for part in unknown]
    line = {"no flags": [], "no such flag": [*known, "--colour", "red"], "no such task": unknown}[mistake]
    assert run_here(script, line) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert said.startswith(f"{script}: error: ")
    assert {"no flags": "required: ", "no such flag": "--colour red", "no such task": "known are "}[mistake] in said
    assert not list(tmp_path.iterdir())
