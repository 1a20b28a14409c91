"""Archives of other outputs than probabilities and of other paths: what `explain` gives, resumed and told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from explanations.test_explain import assert_same
from toy import WORDS, tiny_bert, tiny_tokenizer

from captum_attattr import Archive, ConvergenceWarning, explain, explain_dataset
from captum_attattr.archives.shards import ShardWriter

TEXTS: list[Any] = [" ".join(WORDS[i : i + 1 + i % 4]) for i in range(6)] + [("a b", "good film")]
OTHERS: list[dict[str, Any]] = [
    {"output": "logit"},
    {"contrast": 0},
    {"output": "log_probability", "contrast": [0, "LABEL_1", None, 0, 1, 0, 0]},
    {"path": "joint"},
    {"path": "joint", "baseline": "sink", "output": "logit", "contrast": 1},
    {"baseline": 0.25},
]


def write(folder: Path, **options: Any) -> Archive:
    usual = {"target": 2, "n_steps": 3, "batch_size": 2, "shard_bytes": 8_000, "progress": False}
    return explain_dataset(tiny_bert(seed=1), tiny_tokenizer(), TEXTS, folder, **usual | options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_archive_holds_what_explain_gives(options, tmp_path):
    archive = write(tmp_path / "archive", **options)
    expected = explain(tiny_bert(seed=1), tiny_tokenizer(), TEXTS, 2, n_steps=3, progress=False, **options)
    for found, one in zip(archive, expected, strict=True):
        assert_same(found, one, atol=2e-5)
    archive.verify()


@pytest.mark.parametrize("options", [OTHERS[2], OTHERS[4]], ids=str)
def test_an_interrupted_run_is_resumed_byte_for_byte(options, tmp_path, monkeypatch):
    write(tmp_path / "whole", **options)
    append, count = ShardWriter.append, 0

    def interrupted(self: ShardWriter, *args: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        append(self, *args)

    monkeypatch.setattr(ShardWriter, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "again", **options)
    monkeypatch.setattr(ShardWriter, "append", append)
    write(tmp_path / "again", **options)
    assert files(tmp_path / "again") == files(tmp_path / "whole")


def test_runs_of_other_outputs_and_paths_are_told_apart(tmp_path):
    write(tmp_path)
    before = files(tmp_path)
    for options in OTHERS:
        with pytest.raises(ValueError, match="belongs to another run and is not resumed") as error:
            write(tmp_path, **options)
        for name in options.keys() - {"contrast"}:
            assert f"options.{name} None there, {options[name]!r} now" in str(error.value)
    assert files(tmp_path) == before


def test_the_usual_options_spelt_out_are_the_same_run(tmp_path):
    write(tmp_path)
    before = files(tmp_path)
    write(tmp_path, output="probability", path="layer", baseline=0, contrast=None)
    assert files(tmp_path) == before
    about = json.loads(before["index.json"])["about"]
    assert about["options"].keys() == {"n_steps", "method", "tolerance", "max_nodes", "internal_batch_size"}
    assert about["form"].keys() == {"layers", "heads", "dtype", "attention", "inputs"}


def test_the_joint_path_converges_as_a_whole(tmp_path):
    with pytest.warns(ConvergenceWarning, match=r"7 of 7 sets of maps have .*: example \d, all layers: "):
        archive = write(tmp_path, path="joint", n_steps=None, max_nodes=5, tolerance=1e-6)
    assert all(one.total_error > 1e-6 for one in archive)
    assert all(torch.isnan(one.delta).all() for one in archive)


def test_what_is_predicted_is_contrasted_with_another_class_only(tmp_path):
    predicted = [one.target for one in explain(tiny_bert(seed=1), tiny_tokenizer(), TEXTS, n_steps=1)]
    with pytest.raises(ValueError, match=r"is what the model predicts; .*\(among the examples"):
        write(tmp_path, target=None, contrast=predicted)
