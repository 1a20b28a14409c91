"""Trees as text and as files: they come back whole, hostile tokens do nothing, and what is no tree is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from trees.test_algorithm import DRAWN, explanation, random_maps

from captum_attattr import ResultFileError, attribution_tree, load_tree, save_tree, tree_text

HOSTILE = [
    *("[CLS]", "<script>alert('1')</script>", 'a "quoted" & b', "שלום\n", "🧑\u200d🚀\x00", "a\rb\r\nc", ""),
    *("   ", "\ufffe\uffff", "half \ud800 pair", "x" * 500, "[SEP]"),
]


@pytest.fixture
def hostile() -> nx.DiGraph:
    maps = np.abs(random_maps(4, 3, len(HOSTILE), seed=2))
    about = {"text": ("first\u2028", "second\udfff"), "label": "<b>\x07", "probability": float("nan")}
    tree = attribution_tree(explanation(maps, HOSTILE, delta=torch.full((4,), torch.nan), **about), 0.0)
    assert len(tree) == len(HOSTILE)
    assert tree.graph["probability"] is tree.graph["delta"] is None
    return tree


@pytest.mark.parametrize("ending", ["json", "graphml"])
def test_files_come_back_whole(hostile, tmp_path, ending):
    again = load_tree(save_tree(hostile, tmp_path / f"tree.{ending}"))
    assert again.graph == hostile.graph
    assert list(again.nodes(data=True)) == list(hostile.nodes(data=True))
    assert list(again.edges(data=True)) == list(hostile.edges(data=True))


def test_files_are_other_programs_too(hostile, tmp_path):
    other = nx.read_graphml(save_tree(hostile, tmp_path / "tree.graphml"), node_type=int)  # networkx alone
    assert set(other.edges) == set(hostile.edges)
    assert other.nodes[1]["token"] == HOSTILE[1]
    assert other.nodes[4]["token"] == "🧑\u200d🚀\ufffd"
    text = save_tree(hostile, tmp_path / "tree.json").read_text(encoding="utf-8")

    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} is no JSON")

    assert json.loads(text, parse_constant=refuse)["graph"]["tokens"] == HOSTILE


def test_text_has_a_line_for_each_token_indented_by_depth(tmp_path):
    text = tree_text(attribution_tree(explanation(DRAWN), 0.4))
    lines = text.splitlines()
    assert lines[0] == "'good' (target 1), F = 0.7500, threshold 0.4, paper"
    assert lines[1] == "t2 [2]"
    assert lines[2].split() == ["t3", "[3]", "layer", "1", "+0.8", "89%", "of", "max", "heads", "0"]
    assert lines[2].startswith("  t3")
    assert lines[3].startswith("    t1")
    assert lines[2].index("layer") == lines[3].index("layer")
    assert lines[4] == "[CLS] [0] gathers from all 3 in the last layer"
    assert lines[5].startswith("left out: 4 edges, 53% of")
    assert save_tree(attribution_tree(explanation(DRAWN), 0.4), tmp_path / "tree.txt").read_text() == text + "\n"


def test_text_spells_out_what_would_act_in_a_terminal():
    tokens = ["[CLS]", "\x1b[31m", "a\rb", "c", "[SEP]"]
    text = tree_text(attribution_tree(explanation(DRAWN, tokens), 0.4))
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\\u001b[31m" in text


def test_text_is_aligned_whatever_the_tokens_are():
    tokens = ["[CLS]", "日本", "e\u0301", "x" * 500, "[SEP]"]
    lines = tree_text(attribution_tree(explanation(DRAWN, tokens), 0.4)).splitlines()
    assert lines[2].startswith("  " + "x" * 39 + "… [3]  layer")
    columns = [sum(2 if c in "日本" else 1 for c in line.split("layer")[0]) for line in lines[2:4]]
    assert columns[0] == columns[1]


def test_text_of_an_unknown_probability():
    text = tree_text(attribution_tree(explanation(DRAWN, probability=float("nan")), 0.4))
    assert text.splitlines()[0] == "'good' (target 1), threshold 0.4, paper"


def test_text_of_a_tree_deeper_than_python_recurses():
    depth = 1500
    maps = np.zeros((1, depth, depth))
    maps[0, np.arange(1, depth), np.arange(depth - 1)] = np.linspace(0.5, 1, depth - 1)
    tree = attribution_tree(explanation(maps, [f"t{i}" for i in range(depth)], [False] * depth), 0.1)
    assert len(tree_text(tree).splitlines()) == depth + 2


# --------------------------------------------------------------------------------------------- what is no tree


def drawn() -> nx.DiGraph:
    return attribution_tree(explanation(DRAWN), 0.4)


def without(tree: nx.DiGraph, *names: str) -> nx.DiGraph:
    for name in names:
        del tree.graph[name]
    return tree


def changed(change: Callable[[nx.DiGraph], object]) -> nx.DiGraph:
    tree = drawn()
    change(tree)
    return tree


NO_TREES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a string": (lambda: "tree", TypeError, "tree must be a networkx.DiGraph of attribution_tree, not str"),
    "None": (lambda: None, TypeError, "not NoneType"),
    "an explanation": (lambda: explanation(DRAWN), TypeError, "not Explanation"),
    "undirected": (lambda: nx.Graph(drawn()), TypeError, "not Graph: directed and no multigraph"),
    "multigraph": (lambda: nx.MultiDiGraph(drawn()), TypeError, "not MultiDiGraph"),
    "empty": (nx.DiGraph, ValueError, "tree has 0 nodes and no edge"),
    "another graph": (lambda: nx.DiGraph([(0, 1)]), ValueError, r"it lacks \['algorithm', .*'tokens'\]"),
    "no root": (lambda: without(drawn(), "root"), ValueError, r"it lacks \['root'\]"),
    "node without attributes": (lambda: changed(lambda t: t.add_edge(2, 4)), ValueError, "its node 4 lacks"),
    "edge without score": (
        lambda: changed(lambda t: t.edges[2, 3].pop("score")),
        ValueError,
        r"its edge 2 to 3 lacks \['score'\]",
    ),
    "a node that is no integer": (
        lambda: nx.relabel_nodes(drawn(), {3: "t3"}),
        ValueError,
        "nodes of tree must be positions from 0 to 4, not 't3'",
    ),
    "a node beyond the tokens": (lambda: nx.relabel_nodes(drawn(), {3: 5}), ValueError, "from 0 to 4, not 5"),
    "fewer tokens": (lambda: changed(lambda t: t.graph.update(tokens=["a"])), ValueError, "from 0 to 0, not"),
    "tokens of numbers": (lambda: changed(lambda t: t.graph.update(tokens=[1] * 5)), TypeError, "tokens must be str"),
    "tokens as one text": (lambda: changed(lambda t: t.graph.update(tokens="abcde")), TypeError, "must be a list"),
    "a root outside": (lambda: changed(lambda t: t.graph.update(root=4)), ValueError, "the root 4 of tree is none"),
    "a root of text": (lambda: changed(lambda t: t.graph.update(root="2")), ValueError, "root must be an integer of"),
    "threshold": (lambda: changed(lambda t: t.graph.update(threshold=1.5)), ValueError, "threshold=1.5 must be"),
    "no threshold": (lambda: changed(lambda t: t.graph.update(threshold=np.nan)), ValueError, "threshold=nan must be"),
    "algorithm": (lambda: changed(lambda t: t.graph.update(algorithm="x")), ValueError, "'paper' or 'reference', not"),
    "text": (lambda: changed(lambda t: t.graph.update(text=["a"])), ValueError, "text must have the shape"),
    "layers": (lambda: changed(lambda t: t.graph.update(layers=[0.5])), TypeError, r"layers must be integers, but"),
    "output": (lambda: changed(lambda t: t.graph.update(output="x")), ValueError, "'probability' or .*'score', not"),
    "probability": (
        lambda: changed(lambda t: t.graph.update(probability=np.inf)),
        ValueError,
        "probability must be finite, not inf",
    ),
    "score": (lambda: changed(lambda t: t.edges[2, 3].update(score=np.nan)), ValueError, "score of the edge 2 to 3"),
    "score of text": (lambda: changed(lambda t: t.edges[2, 3].update(score="1")), TypeError, "must be a number, not"),
    "order": (lambda: changed(lambda t: t.edges[2, 3].update(order=None)), ValueError, "order of the edge 2 to 3"),
    "heads": (lambda: changed(lambda t: t.edges[2, 3].update(heads=[[1]])), ValueError, "pairs of a head and its"),
    "no heads": (lambda: changed(lambda t: t.edges[2, 3].update(heads=[])), ValueError, "2 to 3 is empty: give at"),
    "class_edge": (lambda: changed(lambda t: t.edges[2, 3].update(class_edge=1)), TypeError, "must be True or False"),
    "another's class edge": (
        lambda: changed(lambda t: t.edges[3, 1].update(class_edge=True)),
        ValueError,
        "lead from its root 2 to each",
    ),
    "state": (lambda: changed(lambda t: t.nodes[2].update(state="Gone")), ValueError, "'Appear' or 'Fixed', not"),
    "layer": (lambda: changed(lambda t: t.nodes[2].update(layer=-1)), ValueError, "layer of the node 2 must be an"),
    "a circle": (
        lambda: changed(lambda t: t.add_edge(1, 2, **t.edges[2, 3])),
        ValueError,
        "edges of tree must lead from its root 2 to each of its tokens once",
    ),
    "a token with two parents": (
        lambda: changed(lambda t: t.add_edge(2, 1, **t.edges[2, 3])),
        ValueError,
        "edges of tree must lead from its root 2",
    ),
    "a token apart": (lambda: changed(lambda t: t.remove_edge(3, 1)), ValueError, "edges of tree must lead from"),
}


@pytest.mark.parametrize("name", NO_TREES)
def test_what_is_no_tree_is_refused_before_a_file_is_touched(tmp_path, name):
    make, error, message = NO_TREES[name]
    given = make()
    before = (tmp_path / "tree.json", tmp_path / "tree.graphml", tmp_path / "tree.txt")
    for path in before:
        path.write_text("before")
    for call in (tree_text, *(lambda tree, path=path: save_tree(tree, path) for path in before)):
        with pytest.raises(error, match=message):
            call(given)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"] * 3


GRAPHS = [name for name, (make, *_) in NO_TREES.items() if isinstance(make(), nx.Graph)]


@pytest.mark.parametrize("name", GRAPHS)
def test_files_of_graphs_that_are_no_trees_are_refused(tmp_path, name):
    make, _, message = NO_TREES[name]
    path = tmp_path / "tree.json"
    path.write_text(json.dumps(nx.node_link_data(make(), edges="edges")))
    with pytest.raises(
        ResultFileError, match=rf"tree.json' holds no attribution tree: .*{message}.*; give a file that"
    ):
        load_tree(path)


def nested(path: Path) -> None:
    path.write_text("[" * 100_000 + "]" * 100_000)


def nested_elements(path: Path) -> None:
    path.write_text("<a>" * 100_000 + "</a>" * 100_000)


def undirected(path: Path) -> None:
    text = save_tree(drawn(), path).read_text()
    path.write_text(text.replace('edgedefault="directed"', 'edgedefault="undirected"'))


def named_nodes(path: Path) -> None:
    text = save_tree(drawn(), path).read_text()
    path.write_text(text.replace('"3"', '"three"'))


HOSTILE_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "cut off": ("a.json", lambda path: path.write_text("{"), "Expecting property name"),
    "no graph": ("a.json", lambda path: path.write_text('{"nodes": []}'), "it lacks 'edges'"),
    "a list": ("a.json", lambda path: path.write_text("[1]"), ""),
    "null": ("a.json", lambda path: path.write_text("null"), ""),
    "empty": ("a.json", lambda path: path.write_text(""), "Expecting value"),
    "no text": ("a.json", lambda path: path.write_bytes(b"\xff\xfe"), "codec can't decode"),
    "nodes of dicts": ("a.json", lambda path: path.write_text('{"nodes": [{"id": {}}], "edges": []}'), ""),
    "nested brackets": ("a.json", nested, "it is nested too deeply"),
    "another XML": ("a.graphml", lambda path: path.write_text("<x/>"), "file not successfully read as graphml"),
    "no XML": ("a.graphml", lambda path: path.write_text("no"), "syntax error"),
    "nested elements": ("a.graphml", nested_elements, ""),
    "undirected": ("a.graphml", undirected, "not Graph: directed and no multigraph"),
    "named nodes": ("a.graphml", named_nodes, "invalid literal for int"),
}


@pytest.mark.parametrize("name", HOSTILE_FILES)
def test_hostile_files_are_refused_with_their_path(tmp_path, name):
    file, write, message = HOSTILE_FILES[name]
    write(tmp_path / file)
    with pytest.raises(ResultFileError, match=rf"{file}' holds no attribution tree: .*{message}.*; give a file"):
        load_tree(tmp_path / file)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (3, TypeError, "path must be a string or a path, not int: 3"),
        (None, TypeError, "path must be a string or a path, not NoneType"),
        ("tree.png", ValueError, "'tree.png' must end in"),
        ("tree", ValueError, "'tree' must end in"),
        ("nowhere/tree.json", (FileNotFoundError, ValueError), "no file|the directory nowhere does not exist"),
        ("folder.json", (FileNotFoundError, ValueError), "no file|folder.json is a directory"),
    ],
)
def test_paths_that_are_none(tmp_path, monkeypatch, path, error, message):
    monkeypatch.chdir(tmp_path)
    Path("folder.json").mkdir()
    for call in (load_tree, lambda path: save_tree(drawn(), path)):
        with pytest.raises(error, match=message):
            call(path)
