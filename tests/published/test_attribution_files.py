"""The published code's files, and the tree script that reads them."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from captum_attattr import ResultFileError, attribution_tree
from captum_attattr.published.attribution_files import read_explanation, read_maps, read_tokens, write_maps

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT.parent / "shared/data/reference/out"
TOKENS = ["[CLS]", "a", "fine", "film", "[SEP]"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    maps = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(0)) - 0.2
    write_maps(maps, tmp_path / "attr.json")
    write_maps(maps.abs(), tmp_path / "att.json")
    entry = {"tokens": TOKENS, "pred": "1", "golden": "1", "pred_logits": [[0.0, 1.0]]}
    entries = [{"index": 0, **entry, "tokens": ["[CLS]", "[SEP]"]}, {"index": 1, **entry}]
    (tmp_path / "tokens.json").write_text(json.dumps(entries))
    return tmp_path


def test_maps_are_written_one_layer_a_line_and_read_back(tmp_path):
    maps = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    file = write_maps(maps, tmp_path / "attr.json")
    assert [len(json.loads(line)) for line in file.read_text().splitlines()] == [2, 2, 2]
    assert torch.equal(read_maps(file), maps)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the published code's output is not at hand: no {REFERENCE}")
def test_published_file_is_written_as_it_was(tmp_path):
    published = gzip.decompress((REFERENCE / "attr_zero_base_exp5.json.gz").read_bytes())
    (tmp_path / "attr.json").write_bytes(published)
    again = read_maps(write_maps(read_maps(tmp_path / "attr.json"), tmp_path / "again.json"))
    assert torch.equal(again, read_maps(tmp_path / "attr.json"))
    lines = [json.loads(line) for line in published.splitlines()]
    assert (tmp_path / "again.json").read_text().count("\n") == len(lines) == 12


def test_example_is_put_together(folder):
    found = read_explanation(folder / "attr.json", folder / "tokens.json", 1, folder / "att.json", ["0", "1"])
    assert found.tokens == TOKENS
    assert found.target == found.prediction == 1
    assert found.probability == pytest.approx(torch.tensor([0.0, 1.0]).softmax(0)[1].item())
    assert found.special == [True, False, False, False, True]
    assert found.text == "a fine film"
    assert torch.equal(found.attention, found.attributions.abs())
    assert attribution_tree(found).graph["delta"] is None


BROKEN: dict[str, tuple[str, str]] = {
    "no JSON": ("[[[1.0]]]\n[[[", "line 2: no list"),
    "not square": ("[[[1.0, 2.0]]]\n", r"line 1: the layer has the shape \(1, 1, 2\)"),
    "other size": ("[[[1.0]]]\n[[[1.0, 2.0], [1.0, 2.0]]]\n", r"line 2: the layer has \(1, 2, 2\), the first one"),
    "not finite": ("[[[NaN]]]\n", "line 1: the layer holds numbers that are not finite"),
    "empty": ("", "is empty"),
    "words": ('[[["a"]]]\n', "line 1: no list"),
    "missing": ("[[[null]]]\n", "line 1: no list"),
    "objects": ('{"a": 1}\n', "line 1: no list"),
    "number": ("5\n", r"line 1: the layer has the shape \(\)"),
    "nested": ("[" * 100_000 + "\n", "line 1: no list"),
    "long": ("[[[" + "1" * 5_000 + "]]]\n", "line 1: no list"),
    "large": ("[[[1" + "0" * 400 + "]]]\n", "line 1: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_maps_are_refused_by_line(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / "attr.json").write_text(content)
    with pytest.raises(ResultFileError, match=message):
        read_maps(tmp_path / "attr.json")


@pytest.mark.parametrize(
    ("content", "index", "message"),
    [
        ("[]", 0, "example 0 is not in"),
        ('[{"tokens": ["a"]}]', 3, "holds examples 0 to 0"),
        ('[{"tokens": ["a"]}]', -1, "example -1 is not in"),
        ('{"tokens": []}', 0, "must hold a list"),
        ('[{"tokens": [1]}]', 0, r"'tokens' must be a list of texts, not \[1\]"),
        ('[{"words": ["a"]}]', 0, "'tokens' must be a list of texts, not None"),
        ("no", 0, "is no JSON"),
        ("[" * 100_000, 0, "is no JSON"),
        ("1" * 5_000, 0, "is no JSON"),
        ("[5]", 0, "must hold a list of entries with tokens"),
    ],
)
def test_broken_tokens_are_refused(tmp_path, content, index, message):
    (tmp_path / "tokens.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_tokens(tmp_path / "tokens.json", index)


@pytest.mark.parametrize("index", [np.int64(1), np.uint8(1), torch.tensor(1)], ids=repr)
def test_integers_of_other_libraries_are_taken(folder, index):
    assert read_tokens(folder / "tokens.json", index)["tokens"] == TOKENS


@pytest.mark.parametrize("index", ["1", 1.0, True, None, np.float32(1), [1]], ids=repr)
def test_what_is_no_index_is_named(folder, index):
    with pytest.raises(TypeError, match=re.escape(f"index must be an integer, not {type(index).__name__}: {index!r}")):
        read_tokens(folder / "tokens.json", index)


@pytest.mark.parametrize("read", [read_maps, lambda path: read_tokens(path, 0)])
def test_what_is_no_path_is_named(read):
    with pytest.raises(TypeError, match="path must be a string or a path, not int: 5"):
        read(5)


@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        (5, ValueError, "maps must have the shape"),
        ("maps", TypeError, "maps must be an array of numbers"),
        (None, TypeError, "maps must be an array of numbers"),
        (torch.ones(2, 3, 4), ValueError, "maps must have the shape"),
        (torch.full((1, 1, 2, 2), torch.nan), ValueError, "maps must be finite"),
        (torch.ones(1, 1, 2, 2, dtype=torch.bool), TypeError, "maps must be an array of real numbers"),
    ],
)
def test_what_are_no_maps_is_not_written(tmp_path, maps, error, message):
    with pytest.raises(error, match=message):
        write_maps(maps, tmp_path / "attr.json")
    assert not list(tmp_path.iterdir())


def test_arrays_of_numpy_are_written(tmp_path):
    maps = np.arange(8.0).reshape(1, 2, 2, 2)
    assert torch.equal(read_maps(write_maps(maps, tmp_path / "attr.json")), torch.tensor(maps).float())


def test_logits_that_are_whole_numbers_give_a_probability(folder):
    entries = json.loads((folder / "tokens.json").read_text())
    entries[1]["pred_logits"] = [0, 1]
    (folder / "tokens.json").write_text(json.dumps(entries))
    found = read_explanation(folder / "attr.json", folder / "tokens.json", 1, labels=["0", "1"])
    assert found.probability == pytest.approx(torch.tensor([0.0, 1.0]).softmax(0)[1].item())


def run(*flags: Any, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples/attribution_tree.py"), *map(str, flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, timeout=120)


def flags(**changes: Any) -> list[Any]:
    given = {"attr_file": "attr.json", "tokens_file": "tokens.json", "task_name": "SST-2", "example_index": 1}
    return [part for name, value in (given | changes).items() for part in (f"--{name}", value)]


def test_tree_script_writes_page_text_and_graph(folder):
    done = run(*flags(output="tree", att_file="att.json"), folder=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("'positive' (target 1), F = 0.7311, ")  # "1" is the file's word for it
    assert {path.name for path in folder.glob("tree.*")} == {"tree.html", "tree.txt", "tree.graphml"}
    found = read_explanation(folder / "attr.json", folder / "tokens.json", 1, folder / "att.json", ["0", "1"])
    tree = attribution_tree(found, algorithm="reference")  # as published, where nothing else is asked for
    assert set(nx.read_graphml(folder / "tree.graphml", node_type=int).edges) == set(tree.edges)
    assert (folder / "tree.txt").read_text().strip() in done.stdout


def test_tree_script_takes_either_rules(folder):
    done = run(*flags(algorithm="reference", threshold=0.1), folder=folder)
    assert done.returncode == 0, done.stderr
    assert "threshold 0.1, reference" in (folder / "tree_exp1.txt").read_text()


@pytest.mark.parametrize("output", ["deep/er/tree", "deep/er/tree.html", "deep/er/tree.graphml"])
def test_tree_script_makes_the_folder_of_its_output(folder, output):
    done = run(*flags(output=output), folder=folder)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (folder / "deep/er").iterdir()} == {"tree.html", "tree.txt", "tree.graphml"}


def test_tree_script_writes_into_a_folder_that_is_there(folder):
    (folder / "there").mkdir()
    done = run(*flags(output="there"), folder=folder)
    assert done.returncode == 0, done.stderr
    assert {path.stem for path in (folder / "there").iterdir()} == {"tree_exp1"}


def test_encoders_without_their_attention_are_no_decoders(folder):
    """--att_file is optional: the tree must be the same, its root a word and [CLS] gathering at the end."""
    both, alone = (
        attribution_tree(read_explanation(folder / "attr.json", folder / "tokens.json", 1, attention, ["0", "1"]))
        for attention in (folder / "att.json", None)
    )
    assert list(alone.edges) == list(both.edges)
    assert alone.graph["root"] == both.graph["root"]
    assert alone.graph["class_token"] == both.graph["class_token"] == 0
    done = run(*flags(threshold=0.1, algorithm="paper"), folder=folder)
    assert "[CLS] [0] gathers from all" in done.stdout


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pred": "2"}, "example 1 of .* is '2', but the labels are 0, 1: another task's?"),
        ({"pred_logits": [[0.0, 1.0, 2.0]]}, "example 1: 'pred_logits' has 3 numbers for 2 labels"),
        ({"pred_logits": "many"}, "example 1: 'pred_logits' must be numbers, not 'many'"),
        ({"pred_logits": [None, 1]}, r"example 1: 'pred_logits' must be numbers, not \[None, 1\]"),
        ({"pred_logits": {"a": 1}}, "example 1: 'pred_logits' must be numbers"),
    ],
)
def test_predictions_of_another_task_are_refused(folder, changes, message):
    entries = json.loads((folder / "tokens.json").read_text())
    entries[1].update(changes)
    (folder / "tokens.json").write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=message):
        read_explanation(folder / "attr.json", folder / "tokens.json", 1, labels=["0", "1"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"example_index": 7}, "example 7 is not in tokens.json: it holds examples 0 to 1"),
        ({"example_index": 0}, "attr.json has maps of 5 tokens, example 0 of tokens.json has 2"),
        ({"attr_file": "none.json"}, "no file 'none.json'"),
        ({"task_name": "MNIST"}, "MNIST"),
        ({"threshold": 2}, "--threshold 2.0 must be a number from 0 to 1"),
        ({"threshold": 1}, "--threshold 1.0 leaves no edge at the root"),
        ({"attr_file": "packed.json"}, "packed.json is no text file"),
        ({"att_file": "."}, "no file '.'"),
        ({"task_name": "MNLI"}, "example 1 of tokens.json is '1', but the labels are contradiction, entailment"),
        ({"output": "attr.json/tree"}, "attr.json"),
        ({"output": "/proc/none/tree"}, "/proc/none"),
    ],
)
def test_tree_script_says_in_one_line_what_is_wrong(folder, changes, message):
    (folder / "packed.json").write_bytes(gzip.compress(b"[]"))
    done = run(*flags(**changes), folder=folder)
    assert done.returncode == 2
    (said,) = done.stderr.strip().splitlines()
    assert said.startswith("attribution_tree.py: error: ")
    assert message in said
    assert not list(folder.glob("tree*"))
