"""Pruning in rounds and at once by the script: which heads go when, how long what is trained, what is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import prune_iteratively
import pytest
from command_line import flags, write_model
from common.classifier import load_classifier
from common.command_line import run_script
from common.pruning_rounds import read_flags, read_rows
from toy import WORDS, tiny_bert
from transformers import Trainer

from captum_attattr import head_importance, load_pruned, tasks

ROUNDS, STEPS, BATCH, RANKING = 3, 2, 4, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT of two classes, and SST-2-shaped rows."""
    folder = tmp_path_factory.mktemp("sst2")
    write_model(tiny_bert(seed=1, num_labels=2), folder)
    (folder / "data").mkdir()
    for name, count in (("train", ROUNDS * STEPS * BATCH), ("dev", 10)):
        rows = [f"{' '.join(WORDS[(i + k) % len(WORDS)] for k in range(2 + i % 3))}\t{i % 2}" for i in range(count)]
        (folder / f"data/{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return folder


def line(folder: Path, output: Path, **changes: Any) -> list[str]:
    small = {"rounds": ROUNDS, "steps": STEPS, "train_batch_size": BATCH, "num_examples": RANKING, "share": 0.25}
    return flags(folder, output, **{"task_name": "sst-2", "no_cuda": True, "quiet": True} | small | changes)


def run(given: list[str]) -> None:
    prune_iteratively.main(read_flags(given, ""))


def test_rounds_and_at_once_lose_as_many_heads_and_train_as_long(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[tuple[int, int]] = []  # heads' numbers in the query maps, steps
    train: Callable[..., Any] = Trainer.train

    def counted(trainer: Any) -> None:
        left = sum(layer.attention.self.num_attention_heads for layer in trainer.model.bert.encoder.layer)
        train(trainer)
        trained.append((left, trainer.state.global_step))

    monkeypatch.setattr(Trainer, "train", counted)
    run(line(folder, tmp_path))
    assert trained == [(9, 2), (9, 2), (12, 2), (6, 2), (6, 4), (12, 2), (3, 2), (3, 6), (12, 2)]
    found = json.loads((tmp_path / "prune_iteratively.json").read_text())
    in_rounds, at_once = (
        [[tuple(pair) for pair in step] for step in found["heads off"][way]] for way in ("in rounds", "at once")
    )
    assert [len(step) for step in in_rounds] == [len(step) for step in at_once] == [0, 3, 6, 9]
    assert all(before == after[: len(before)] for before, after in pairwise(in_rounds))
    assert len(set(in_rounds[-1])) == 9  # none goes twice

    args, task = read_flags(line(folder, tmp_path), ""), tasks.task("sst-2")
    model, tokenizer = load_classifier(args.bert_model, args.model_file, task, False)
    texts, labels = read_rows(args, task, model, tokenizer).ranking
    ranking = head_importance(model, tokenizer, texts, labels, "taylor", progress=False).ranking()
    assert in_rounds[1] == at_once[1] == ranking[:3]
    assert at_once[-1] == ranking[:9]

    pruned = load_pruned(tmp_path / "model")
    gone = {(int(name.split(".")[1]), head) for name, heads in pruned.config.pruned_heads.items() for head in heads}
    assert gone == set(in_rounds[-1])
    said = capsys.readouterr().out
    table = said[said.index("12 heads") :].splitlines()
    assert table[0].startswith("12 heads | steps | accuracy: in rounds | at once | none off | time")
    assert [row.split(" | ")[:2] for row in table[1:5]] == [[f"{3 * n} off", f"{2 * n}"] for n in range(4)]
    assert found["metric"][0][0] == found["metric"][0][1] == found["metric"][0][2]


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "all and more": ({"share": 0.5}, "--rounds 3 of --share 0.5 are 1.50 of all heads"),
    "no share": ({"share": 0}, "--rounds 3 of --share 0.0 are 0.00 of all heads"),
    "share of no head": ({"share": 0.01}, "--share 0.01 of 12 heads is none; it must be at least 0.083"),
    "too few rows": ({"steps": 3}, "--rounds x --steps x --train_batch_size are 36 rows; "),
    "rate": ({"learning_rate": 0}, "--learning_rate is 0.0; it must be above 0"),
    "seed": ({"seed": -1}, "--seed is -1; it must be from 0 to 4294967295"),
    "rounds": ({"rounds": 0}, "--rounds is 0; it must be 1 or more"),
    "method": ({"method": "magic"}, "invalid choice: 'magic'"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_line_before_any_work(
    name: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes, message = MISTAKES[name]
    with pytest.raises(SystemExit) as end:
        run_script(lambda: run(line(folder, tmp_path / "out", **changes)))
    assert end.value.code == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert message in said
    assert not list(tmp_path.rglob("*.json"))
