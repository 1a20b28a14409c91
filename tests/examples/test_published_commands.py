"""The commands of the AAAI 2021 readme as they stand there: no other flag, on the files of the published code.

Those that rank heads take 200 rows, and the published files are of 12: their figures are compared in the tests of these
scripts; here they are typed, and must end. The triggers were collected with another sum there.
"""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import REFERENCE, needs_reference, run_here
from networkx import read_graphml

from captum_attattr.published.attribution_files import read_maps

pytestmark = needs_reference

MODEL = f"--data_dir {REFERENCE}/mnli --bert_model bert-base-cased --model_file {REFERENCE}/tiny-base/pytorch_model.bin"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the example's files and the model of the readme's name, to type in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bert-base-cased").mkdir()
    for file in ("bert_config.json", "vocab.txt"):
        shutil.copy(REFERENCE / "tiny-base" / file, tmp_path / "bert-base-cased" / file)
    for index in (5, 16):
        with gzip.open(REFERENCE / f"out/attr_zero_base_exp{index}.json.gz") as file:
            (tmp_path / f"attr_zero_base_exp{index}.json").write_bytes(file.read())
    shutil.copy(REFERENCE / "out/tokens_and_pred_45.json", tmp_path)
    return tmp_path


def typed(command: str) -> int:
    script, *line = command.split()
    return run_here(script, line)


@pytest.mark.parametrize("index", [5, 16])
def test_tree(folder, index):
    command = f"attribution_tree.py --attr_file attr_zero_base_exp{index}.json --tokens_file tokens_and_pred_45.json"
    assert typed(f"{command} --task_name mnli --example_index {index}") == 0
    tree = read_graphml(f"tree_exp{index}.graphml", node_type=int)
    published = json.loads((REFERENCE / f"out/tree_edges_exp{index}.json").read_text())
    edges = sorted(tree.edges(data=True), key=lambda edge: int(edge[2]["order"]))
    assert [[i, j] for i, j, _ in edges] == published["edges"]
    assert int(tree.graph["root"]) == published["top"]
    assert "the published script's algorithm" in (folder / f"tree_exp{index}.html").read_text()


def test_tree_of_the_paper_is_another_flag_away(capsys):
    command = "attribution_tree.py --attr_file attr_zero_base_exp16.json --tokens_file tokens_and_pred_45.json"
    assert typed(f"{command} --task_name mnli --example_index 16 --algorithm paper") == 2
    assert "--threshold 0.4 leaves no edge" in capsys.readouterr().err


def test_scores():
    flags = "--batch_size 16 --num_batch 4 --example_index 5 --get_att_attr --get_att_score --output_dir out"
    assert typed(f"generate_attrscore.py --task_name mnli {MODEL} {flags}") == 0
    for layer, expected in zip(
        read_maps(Path("out/attr_zero_base_exp5.json")), read_maps(Path("attr_zero_base_exp5.json")), strict=True
    ):
        torch.testing.assert_close(layer, expected, rtol=0, atol=2e-5 * float(expected.abs().max()))


def test_tokens():
    assert typed(f"get_tokens_and_pred.py --task_name mnli {MODEL} --output_dir out") == 0
    found, published = (json.loads(Path(name, "tokens_and_pred_45.json").read_text()) for name in ("out", "."))
    for entry in (*found, *published):
        del entry["pred_logits"]
    assert found == published


def test_triggers_are_tried():
    patterns = REFERENCE / "out/train_adver_pattern_exp0-24.json"
    assert typed(f"run_adver_evaluate.py --task_name mnli {MODEL} --output_dir out --pattern_file {patterns}") == 0
    written = Path("out/eval_train_pattern_one_exp0-500.json")
    assert written.read_bytes() == (REFERENCE / "out" / written.name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["attr", "taylor"])
def test_pruning(kind):
    assert typed(f"prune_head_with_{kind}.py --task_name mnli {MODEL} --output_dir out") == 0
    assert len(json.loads(Path(f"out/prune_result_{kind}.json").read_text())) == 11


@pytest.mark.slow
def test_connections():
    flags = "--batch_size 16 --num_batch 4 --zero_baseline --output_dir out"
    assert typed(f"run_adver_connection.py --task_name mnli {MODEL} {flags}") == 0
    published = json.loads((REFERENCE / "out/train_adver_pattern_exp0-24.json").read_text())
    found = json.loads(Path("out/train_adver_pattern_exp0-500.json").read_text())
    assert len(found) == len(published) == 24
    by_tokens = {tuple(entry["tokens"]): entry for entry in found}  # their order is by score, and these change a little
    for expected in published:
        entry = by_tokens[tuple(expected["tokens"])]
        assert entry["max_combined_attr"] == pytest.approx(expected["max_combined_attr"], rel=0.1)
        assert entry["top1position"] == expected["top1position"]
