"""The attribution tree: the paper's algorithm and the published script written out plainly, and refusals."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import tiny_bert, tiny_llama, tiny_tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from captum_attattr import (
    EmptyTreeError,
    Explanation,
    attribution_tree,
    explain,
    load_tree,
    save_tree,
    tree_text,
)
from captum_attattr.explanations.words import joined, readable, words

REFERENCE = Path(__file__).parents[3] / "shared/data/reference/out"


def explanation(maps: Any, tokens: list[str] | None = None, special: list[bool] | None = None, **more: Any) -> Any:
    """An explanation with these maps, (L, H, T, T) or (L, T, T) for one head."""
    maps = torch.as_tensor(np.asarray(maps, dtype=np.float32))
    maps = maps[:, None] if maps.dim() == 3 else maps
    layers, _, size, _ = maps.shape
    values: dict[str, Any] = {
        "tokens": tokens or ["[CLS]", *(f"t{i}" for i in range(1, size - 1)), "[SEP]"][:size],
        "attributions": maps,
        "attention": torch.full_like(maps, 1 / size),
        "delta": torch.linspace(-0.1, 0.05, layers),
        "error": torch.zeros(layers),
        "nodes": torch.ones(layers),
        "target": 1,
        "label": "good",
        "probability": 0.75,
        "prediction": 1,
        "text": "text",
        "segments": [0] * size,
        "special": special or [i in (0, size - 1) for i in range(size)],
    }
    return Explanation(**values | more)


def edges(tree: nx.DiGraph) -> list[tuple[int, int]]:
    found = sorted(tree.edges(data=True), key=lambda edge: edge[2]["order"])
    return [(i, j) for i, j, _ in found]


# ------------------------------------------------------------------------- the algorithms written out plainly


def algorithm_1(a: np.ndarray, tau: float, special: list[bool]) -> tuple[int, list[tuple[int, int]]]:
    """Algorithm 1 of the paper, states and all; layers count from 0, the last but one comes first.

    a (L, T, T). [CLS], position 0, joins at the end; candidates of a layer by falling score, ties by position.
    """
    layers, size, _ = a.shape
    state = ["NotAppear"] * size
    attr_all = [sum(a[l, i, j] for l in range(layers) for j in range(size) if j != i) for i in range(size)]  # noqa: E741
    words = [i for i in range(size) if not special[i]] or list(range(1, size))
    top = words[int(np.argmax([attr_all[i] for i in words]))]
    state[top] = "Appear"
    found = []
    for layer in range(layers - 2, -1, -1):
        e = [(i, j) for i in range(size) for j in range(size) if a[layer].max() > 0]
        e = [(i, j) for i, j in e if a[layer, i, j] / a[layer].max() > tau]
        for i, j in sorted(e, key=lambda pair: -a[layer][pair]):
            if i == j or j == 0:
                continue
            if state[i] == "Appear" and state[j] == "NotAppear":
                found.append((i, j))
                state[i], state[j] = "Fixed", "Appear"
            elif state[i] == "Fixed" and state[j] == "NotAppear":
                found.append((i, j))
                state[j] = "Appear"
    return top, found + [(0, j) for j in range(1, size) if state[j] in ("Appear", "Fixed")]


def random_maps(layers: int, heads: int, size: int, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    maps = draw.normal(0.2, 1, (layers, heads, size, size)) * draw.random((layers, 1, 1, 1))
    # Float32 as in an explanation; a few equal scores, which the order by position decides.
    return np.round(maps, 1).astype(np.float32) if seed % 3 == 0 else maps.astype(np.float32)


@given(
    layers=st.integers(1, 7),
    heads=st.integers(1, 3),
    size=st.integers(2, 9),
    tau=st.sampled_from([0.0, 0.2, 0.4, 0.7, 0.95]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_paper_is_algorithm_1(layers, heads, size, tau, seed):
    maps = random_maps(layers, heads, size, seed)
    special = [i in (0, size - 1) for i in range(size)]
    top, expected = algorithm_1(maps.astype(np.float64).sum(1), tau, special)
    if all(i == 0 for i, _ in expected):
        with pytest.raises(ValueError, match="leaves no edge at the root"):
            attribution_tree(explanation(maps), tau)
        return
    tree = attribution_tree(explanation(maps), tau)
    assert tree.graph["root"] == top
    assert edges(tree) == expected
    grown = nx.DiGraph([(i, j) for i, j, d in tree.edges(data=True) if not d["class_edge"]])
    assert nx.is_arborescence(grown)
    assert max(nx.single_source_shortest_path_length(grown, top)) >= 0
    assert set(grown) | {0} == set(tree)
    layers_down = [tree.edges[edge]["layer"] for edge in edges(tree)[: len(grown.edges)]]
    assert layers_down == sorted(layers_down, reverse=True)


@pytest.mark.parametrize("number", [5, 16])
@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the published code's output is not at hand: no {REFERENCE}")
def test_reference_gives_the_published_edges_in_their_order(number):
    with gzip.open(REFERENCE / f"attr_zero_base_exp{number}.json.gz", "rt") as file:
        maps = [json.loads(line) for line in file]
    tokens = {e["index"]: e["tokens"] for e in json.loads((REFERENCE / "tokens_and_pred_45.json").read_text())}[number]
    published = json.loads((REFERENCE / f"tree_edges_exp{number}.json").read_text())
    special = [token in ("[CLS]", "[SEP]") for token in tokens]
    tree = attribution_tree(explanation(maps, tokens, special), algorithm="reference")
    assert edges(tree) == [tuple(edge) for edge in published["edges"]]
    assert tree.graph["root"] == published["top"]
    other = attribution_tree(explanation(maps, tokens, special), 0.1)
    assert edges(other) != edges(tree)


# ---------------------------------------------------------------------------------------------- drawn by hand

# Four tokens and three layers: b gathers from c (layer 1), c from d (layer 0), a last layer that is [CLS]'s.
DRAWN = np.zeros((3, 5, 5))
DRAWN[2, 0, 2] = 1.0  # [CLS] <- b
DRAWN[1, 2, 3] = 0.8  # b <- c
DRAWN[1, 1, 4] = 0.7  # a <- [SEP]: a is never in the tree
DRAWN[1, 2, 2] = 0.9  # b <- b: no edge
DRAWN[0, 3, 1] = 0.5  # c <- a
DRAWN[0, 2, 1] = 0.4  # b <- a: too late
DRAWN[0, 0, 3] = 0.6  # [CLS] <- c: [CLS] has not appeared
DRAWN[0, 3, 4] = -0.9


def test_tree_drawn_by_hand():
    tree = attribution_tree(explanation(DRAWN), 0.4)
    assert tree.graph["root"] == 2
    assert edges(tree) == [(2, 3), (3, 1), (0, 1), (0, 2), (0, 3)]
    assert {n: d["state"] for n, d in tree.nodes(data=True)} == {0: "Fixed", 1: "Appear", 2: "Fixed", 3: "Fixed"}
    assert {n: d["layer"] for n, d in tree.nodes(data=True)} == {0: 2, 1: 0, 2: 2, 3: 1}
    assert tree.nodes[3]["token"] == "t3"
    edge = tree.edges[2, 3]
    assert edge["score"] == pytest.approx(0.8)
    assert edge["share_of_max"] == pytest.approx(0.8 / 0.9)
    assert edge["share_of_positive"] == pytest.approx(0.8 / 2.4)
    assert edge["attention"] == pytest.approx(0.2)
    assert tree.edges[0, 2]["class_edge"]
    assert not edge["class_edge"]
    # Left out: of 9 positive entries all but b <- c, c <- a, [CLS] <- b; 3.6 of 4.9... without them.
    positive = DRAWN.clip(0)
    kept = 0.8 + 0.5 + 1.0
    assert tree.graph["left_out_edges"] == (positive > 0).sum() - 3
    assert tree.graph["left_out_share"] == pytest.approx(1 - kept / positive.sum())
    assert tree.graph["delta"] == pytest.approx(-0.1)
    about = {"target": 1, "label": "good", "probability": 0.75, "prediction": 1, "threshold": 0.4, "algorithm": "paper"}
    assert about.items() <= tree.graph.items()


def test_root_can_be_chosen():
    tree = attribution_tree(explanation(DRAWN), 0.4, root=3)
    assert edges(tree) == [(3, 1), (0, 1), (0, 3)]
    whole = attribution_tree(explanation(DRAWN), 0.4, root=0)
    assert edges(whole)[:1] == [(0, 3)]
    assert not any(d["class_edge"] for *_, d in whole.edges(data=True))


def test_heads_that_give_most_are_named_by_number_and_sign():
    maps = np.zeros((2, 5, 3, 3))
    maps[0, :, 1, 2] = [0.1, -0.7, 0.5, 0.9, 0.3]
    maps[1, 0, 0, 1] = 1
    special = [True, False, False]
    tree = attribution_tree(explanation(maps, ["[CLS]", "a", "b"], special))
    found = tree.edges[1, 2]["heads"]
    assert [head for head, _ in found] == [3, 1, 2]
    assert [score for _, score in found] == pytest.approx([0.9, -0.7, 0.5])
    fewer = attribution_tree(explanation(maps, ["[CLS]", "a", "b"], special), heads=[4, 1, 3])
    assert fewer.edges[1, 2]["heads"] == [pytest.approx(pair) for pair in ([3, 0.9], [1, -0.7], [4, 0.3])]
    assert fewer.edges[1, 2]["score"] == pytest.approx(0.5)


def test_layers_that_count_can_be_chosen_and_keep_their_numbers(tmp_path):
    tree = attribution_tree(explanation(DRAWN), 0.4, layers=[0, 2], root=3)
    assert edges(tree)[0] == (3, 1)
    assert tree.edges[3, 1]["layer"] == 0
    assert tree.edges[0, 1]["layer"] == 2
    assert tree.graph["layers"] == [0, 2]
    assert tree.graph["heads"] is None
    assert tree_text(tree).splitlines()[0].endswith("threshold 0.4, paper, layers 0, 2 alone")
    assert load_tree(save_tree(tree, tmp_path / "tree.graphml")).graph == tree.graph
    with pytest.raises(ValueError, match="leaves no edge"):
        attribution_tree(explanation(DRAWN), 0.4, layers=[1, 2], root=3)


def test_special_tokens_can_be_left_out():
    maps = DRAWN.copy()
    maps[1, 2, 4] = 0.85
    assert (2, 4) in edges(attribution_tree(explanation(maps)))
    assert 4 not in attribution_tree(explanation(maps), special_tokens=False)


def test_pieces_of_a_word_can_be_put_together():
    maps = np.zeros((2, 6, 6))
    maps[0, 1, 3], maps[0, 2, 3], maps[0, 1, 4], maps[0, 4, 1] = 0.2, 0.3, 0.1, 0.4
    maps[1, 0, 1] = 1
    tokens = ["[CLS]", "un", "##like", "##ly", "film", "[SEP]"]
    special = [True, False, False, False, False, True]
    merged = attribution_tree(explanation(maps, tokens, special), 0.05, merge_subwords=True, root=4)
    assert merged.graph["tokens"] == ["[CLS]", "unlikely", "film", "[SEP]"]
    assert merged.graph["root"] == 2
    assert merged.edges[2, 1]["score"] == pytest.approx(0.4)
    from_word = attribution_tree(explanation(maps, tokens, special), 0.05, merge_subwords=True, root=2)
    assert from_word.graph["root"] == 1
    assert from_word.edges[1, 2]["score"] == pytest.approx(0.1)
    assert from_word.edges[1, 2]["attention"] == pytest.approx(1 / 6)  # a key's share, mean over the word's queries
    bytes_ = attribution_tree(explanation(maps, ["<s>", "Ġun", "like", "ly", "Ġfilm", "</s>"], special), 0.05, root=4)
    assert bytes_.graph["tokens"][1] == "Ġun"


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("un ##like ##ly film", ["unlikely", "film"]),
        ("Ġun likely Ġfilm s", ["Ġunlikely", "Ġfilms"]),
        ("un likely Ġfilm Ċ The Ġend ĊĊ ĉ x", ["unlikely", "Ġfilm", "Ċ", "The", "Ġend", "ĊĊ", "ĉ", "x"]),
        ("▁un likely ▁film", ["▁unlikely", "▁film"]),
        ("un likely</w> film</w> s</w>", ["unlikely</w>", "film</w>", "s</w>"]),
        ("un@@ like@@ ly film", ["unlikely", "film"]),
        ("a b c", ["a", "b", "c"]),
    ],
)
def test_words_of_every_tokenizers_marks(tokens, expected):
    tokens = tokens.split()
    found = words(tokens, [False] * len(tokens))
    assert [joined([tokens[i] for i in group]) for group in found] == expected
    assert [i for group in found for i in group] == list(range(len(tokens)))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["un", "##like", " a"], ["un", "##like", " a"]),
        (
            ["<s>", "The", "ĠÐ¼", "ÐµÐ´", "ĠcafÃ©", "Ċ", "Ġ", "ðŁĺ", "<｜x▁y｜>"],
            ["<s>", "The", "м", "ед", "café", "\n", " ", "<0xF0><0x9F><0x98>", "<｜x▁y｜>"],
        ),
        (["<s>", "▁The", "▁", "film", "<0x0A>"], ["<s>", "The", " ", "film", "\n"]),
        (["film</w>", "</w>", "s"], ["film", "</w>", "s"]),
        (["snake▁case", " a", "", "  "], ["snake▁case", " a", "", "  "]),
    ],
)
def test_tokens_are_shown_as_a_reader_knows_them(tokens, expected):
    assert readable(tokens) == expected


def test_bytes_of_bpe_are_read_as_transformers_writes_them():
    text = "".join(map(chr, range(1, 0x250))) + "🧑‍🚀 שלום\t日本\x00\x7f"
    shown = bytes_to_unicode()  # that of transformers
    assert readable(["Ġx", "".join(shown[byte] for byte in text.encode())])[1] == text


def test_special_tokens_are_no_pieces():
    tokens = ["<s>", "un", "like", "</s>", "</s>", "ly", "Ġx", "</s>"]
    special = [token.startswith("<") or token == "</s>" for token in tokens]
    assert words(tokens, special) == [[0], [1, 2], [3], [4], [5], [6], [7]]


# ----------------------------------------------------------------------------------------------- other models


def test_decoder_grows_from_the_position_that_predicts():
    model, tokenizer = tiny_llama(seed=1), tiny_tokenizer()
    found = explain(model, tokenizer, ["a good film b plot"], progress=False)[0]
    tree = attribution_tree(found, 0.0)
    last = len(found.tokens) - 1
    assert tree.graph["root"] == last
    assert tree.graph["class_token"] is None
    assert all(j < i for i, j in tree.edges)
    assert max(data["layer"] for *_, data in tree.edges(data=True)) == len(found.attributions) - 1  # none is left out


def test_classifier_grows_and_pairs_do():
    model, tokenizer = tiny_bert(seed=1), tiny_tokenizer()
    for found in explain(model, tokenizer, ["good film", ("a bad plot", "good work")], progress=False):
        tree = attribution_tree(found, 0.0)
        assert set(tree) == set(range(len(found.tokens)))
        assert tree.graph["text"] == (found.text if isinstance(found.text, str) else list(found.text))


@pytest.mark.parametrize("known", [True, False])
def test_decoder_is_told_by_its_attributions_too(known):
    """The published files may come without the attention, which then is zero everywhere."""
    maps = random_maps(3, 2, 5, seed=7)
    attention = torch.full((3, 2, 5, 5), 0.2) * known
    encoder = attribution_tree(explanation(maps, attention=attention), 0.0)
    assert encoder.graph["class_token"] == 0
    assert encoder.graph["root"] not in (0, 4)
    decoder = attribution_tree(explanation(np.tril(np.abs(maps)), attention=attention.tril()), 0.0)
    assert decoder.graph["class_token"] is None
    assert decoder.graph["root"] == 4


def test_without_special_tokens_there_is_no_class_token():
    """Patches of an image: all layers are gone through."""
    maps = np.zeros((2, 3, 3))
    maps[1, 1, 2], maps[0, 2, 0] = 1.0, 0.5
    tree = attribution_tree(explanation(maps, ["p0", "p1", "p2"], [False] * 3))
    assert tree.graph["class_token"] is None
    assert edges(tree) == [(1, 2), (2, 0)]


# --------------------------------------------------------------------------------------------------- mistakes


def broken(where: tuple[int, ...]) -> Any:
    maps = DRAWN.copy()
    maps[where] = np.nan
    return explanation(maps)


MISTAKES: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "threshold above": (None, {"threshold": 1.2}, ValueError, "threshold=1.2 must be a number from 0"),
    "threshold below": (None, {"threshold": -0.1}, ValueError, "threshold=-0.1"),
    "threshold type": (None, {"threshold": "0.4"}, ValueError, "threshold='0.4'"),
    "algorithm": (None, {"algorithm": "code"}, ValueError, "algorithm='code' is unknown; use 'paper' or 'reference'"),
    "root": (None, {"root": 5}, ValueError, "root must be from 0 to 4, not 5"),
    "root below": (None, {"root": -1}, ValueError, "root must be from 0 to 4, not -1"),
    "root type": (None, {"root": "t1"}, TypeError, "root must be an integer, not str: 't1'"),
    "layer": (None, {"layers": [3]}, ValueError, "each of layers must be from 0 to 2, not 3"),
    "layers": (None, {"layers": []}, ValueError, "layers is empty"),
    "layers type": (None, {"layers": 1}, TypeError, "layers must be a list, not int: 1"),
    "explanation": ([1], {}, TypeError, r"explanation must be an Explanation, not list: \[1\]"),
    "special": (
        lambda: explanation(DRAWN, special=[True]),
        {},
        ValueError,
        r"special must have the shape \(5,\), not \(1,\)",
    ),
    "delta": (lambda: explanation(DRAWN, delta=torch.zeros(2)), {}, ValueError, r"delta must have the shape \(3,\)"),
    "head": (None, {"heads": [1]}, ValueError, "each of heads must be from 0 to 0, not 1"),
    "head type": (None, {"heads": [0.5]}, TypeError, "each of heads must be an integer, not float: 0.5"),
    "nan": (
        lambda: broken((1, 2, 3)),
        {},
        ValueError,
        r"attributions must be finite, but attributions\[1, 0, 2, 3\] is nan",
    ),
    "no layers": (lambda: explanation(np.zeros((0, 1, 3, 3)), ["a", "b", "c"]), {}, ValueError, r"not \(0, 1, 3, 3\)"),
    "tokens": (
        lambda: explanation(DRAWN, ["a", "b"]),
        {},
        ValueError,
        "attributions must be 2 x 2 for 2 tokens, not 5 x 5",
    ),
    "empty": (lambda: explanation(DRAWN), {"threshold": 0.95}, ValueError, "one below 0.888 would give the first edge"),
    "hopeless": (
        lambda: explanation(-DRAWN.clip(0)),
        {},
        ValueError,
        "none would: no token gathers anything positive from another",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named(name):
    given_, options, error, message = MISTAKES[name]
    with pytest.raises(error, match=message):
        attribution_tree(given_() if callable(given_) else given_ or explanation(DRAWN), **options)


@given(
    layers=st.integers(1, 4),
    size=st.integers(1, 5),
    algorithm=st.sampled_from(["paper", "reference"]),
    special=st.sampled_from(["class", "none"]),
    shift=st.sampled_from([-3.0, -1.0, 0.0]),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_threshold_or_root_that_the_error_names_gives_the_first_edge(layers, size, algorithm, special, shift, seed):
    maps = random_maps(layers, 2, size, seed) + shift
    flags = [special == "class" and i == 0 for i in range(size)]
    given_ = explanation(maps, [f"t{i}" for i in range(size)], flags)
    try:
        attribution_tree(given_, 0.999, algorithm)
    except EmptyTreeError as error:
        text = str(error)
    else:
        return
    found = re.search(r"(?:root=(\d+) .*?)?below ([\d.e-]+)", text)
    if found is None:
        assert "none would: " in text
        with pytest.raises(EmptyTreeError):
            attribution_tree(given_, 1e-9, algorithm)
        return
    chosen = {"algorithm": algorithm, "root": None if found[1] is None else int(found[1])}
    below = float(found[2])
    assert attribution_tree(given_, below * 0.999, **chosen).number_of_edges()
    if found[1] is not None:
        assert "none would: it gathers nothing" in text
        with pytest.raises(EmptyTreeError, match="none would"):
            attribution_tree(given_, 1e-9, algorithm)
    elif below * 1.02 < 1:
        with pytest.raises(EmptyTreeError, match=re.escape(found[0])):
            attribution_tree(given_, below * 1.02, **chosen)


def test_error_of_an_empty_tree_says_why():
    alone = explanation(np.ones((1, 3, 3)), special=[True, False, False])
    with pytest.raises(EmptyTreeError, match="the last layer is not gone through, and there is no other"):
        attribution_tree(alone, 0.5)
    with pytest.raises(EmptyTreeError, match="no token gathers anything positive from another"):
        attribution_tree(explanation(np.ones((3, 1, 1)), ["a"], [False]))
    with pytest.raises(EmptyTreeError, match=r"root=2 \('t2'\) has an edge below 0.888"):
        attribution_tree(explanation(DRAWN), 0.4, root=4)
    with pytest.raises(EmptyTreeError, match=r"threshold=1.0 leaves no edge .* below 0.888"):
        attribution_tree(explanation(DRAWN), 1)
