"""Files of version 0.1 load, and its unfinished runs are resumed; `data/version_0_1/make.py` made them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from toy import tiny_bert, tiny_tokenizer

from captum_attattr import (
    Archive,
    AttackReport,
    Effectiveness,
    Explanation,
    HeadImportance,
    PruningComparison,
    explain,
    explain_dataset,
    head_importance,
    load_tree,
    load_triggers,
    save_tree,
    save_triggers,
)

FOLDER = Path(__file__).parent / "data" / "version_0_1"
TEXTS = ["a b c", "good film", ("bad plot", "man"), "work a d e"]
LABELS = [0, 1, 2, 1]
OPTIONS = {"n_steps": 4, "progress": False}


@pytest.fixture(scope="module")
def explained() -> list[Explanation]:
    return explain(tiny_bert(), tiny_tokenizer(), TEXTS, **OPTIONS)


def assert_same(old: Explanation, new: Explanation) -> None:
    assert (old.tokens, old.text, old.label, old.target) == (new.tokens, new.text, new.label, new.target)
    assert (old.segments, old.special, old.prediction) == (new.segments, new.special, new.prediction)
    torch.testing.assert_close(old.attributions, new.attributions, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(old.attention, new.attention, rtol=1e-4, atol=1e-6)
    assert old.value == old.probability == pytest.approx(new.value, abs=1e-6)
    assert old.inputs is None


@pytest.mark.parametrize(("name", "index"), [("explanation", 0), ("pair", 2)])
def test_explanations(name, index, explained):
    assert_same(Explanation.load(FOLDER / f"{name}.safetensors"), explained[index])


def test_importances():
    importance = HeadImportance.load(FOLDER / "importance.safetensors")
    again = head_importance(tiny_bert(), tiny_tokenizer(), TEXTS, LABELS, batch_size=2, **OPTIONS)
    torch.testing.assert_close(importance.scores, again.scores, rtol=1e-4, atol=1e-6)
    assert (importance.name, importance.model, importance.examples) == (again.name, again.model, again.examples)
    assert HeadImportance.load(FOLDER / "random.safetensors").stderr.isnan().all()


def test_journals_are_resumed(tmp_path):
    path = tmp_path / "importance.jsonl"
    shutil.copy(FOLDER / "importance.jsonl", path)
    before = path.read_text()
    head_importance(tiny_bert(), tiny_tokenizer(), TEXTS, LABELS, batch_size=2, resume=path, **OPTIONS)
    assert path.read_text().startswith(before)
    assert len(path.read_text().splitlines()) == len(before.splitlines()) + 1


def test_curves():
    comparison = PruningComparison.load(FOLDER / "comparison.json")
    assert [curve.heads for curve in comparison.curves] == [[0, 6, 12]] * 2
    assert Effectiveness.load(FOLDER / "effectiveness.json").heads == [0, 1, 2, 3, 4]


def test_triggers_and_reports(tmp_path):
    triggers = load_triggers(FOLDER / "triggers.json")
    assert save_triggers(triggers, tmp_path / "again.json").read_bytes() == (FOLDER / "triggers.json").read_bytes()
    report = AttackReport.load(FOLDER / "attack.json")
    assert report.save(tmp_path / "attack.json").read_bytes() == (FOLDER / "attack.json").read_bytes()


@pytest.mark.parametrize("name", ["tree.json", "tree.graphml"])
def test_trees(name, tmp_path):
    tree = load_tree(FOLDER / name)
    assert save_tree(tree, tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_archives(explained):
    archive = Archive(FOLDER / "archive")
    archive.verify()
    for old, new in zip(archive, explained, strict=True):
        assert_same(old, new)


def test_archives_are_resumed(tmp_path):
    folder = tmp_path / "unfinished"
    shutil.copytree(FOLDER / "unfinished", folder)
    archive = explain_dataset(tiny_bert(), tiny_tokenizer(), TEXTS, folder, batch_size=1, shard_bytes=5000, **OPTIONS)
    whole = Archive(FOLDER / "archive")
    for old, new in zip(whole, archive, strict=True):
        assert_same(new, old)
    indices = [json.loads((path / "index.json").read_text()) for path in (folder, FOLDER / "archive")]
    for index in indices:
        for shard in index["shards"]:
            del shard["sha256"]  # another machine's rounding
    assert indices[0] == indices[1]
