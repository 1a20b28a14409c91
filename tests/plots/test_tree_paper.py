"""The tree for print: its words, levels and lines are the tree's, and no line passes a word that is not its own."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects as go
import pytest
import results
import torch
from browser import look
from hostile import HOSTILE, every_text

from captum_attattr import attribution_tree, plot_tree, write_html, write_image

WORD = 18  # pixels that a word is high, its ground included
DECODER = {"special": [False] * 9, "attention": torch.rand(4, 3, 9, 9).softmax(-1).tril()}


def mostly_for(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.rand(shape, generator=generator) ** 2 - 0.2


def figure_of(*shape: Any, threshold: float = 0.3, **changed: Any) -> tuple[Any, go.Figure]:
    given = results.explanation(*shape, mostly_for, **changed)
    tree = attribution_tree(given, threshold)
    return tree, plot_tree(tree, given, style="paper")


def plain(text: str) -> str:
    for tag in ("<b>", "</b>", '<span style="color:#5d6a77">', "</span>", "\u2068", "\u2069"):
        text = text.replace(tag, "")
    return html.unescape(text)


def words(figure: go.Figure) -> dict[tuple[float, float], str]:
    """Where words stand, and the words."""
    return {(word.x, word.y): plain(word.text) for word in figure.layout.annotations}


SHAPES = [(2, 2, 4), (2, 2, 6), (4, 3, 9), (12, 2, 40), (6, 2, 200)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("threshold", [0.1, 0.3])
def test_words_levels_and_lines_are_the_trees(shape: tuple[int, int, int], threshold: float) -> None:
    tree, figure = figure_of(*shape, threshold=threshold)
    tokens, below = tree.graph["tokens"], [plain(text) for text in figure.layout.xaxis.ticktext]
    column = {word: x for word, x in zip(below, figure.layout.xaxis.tickvals, strict=True) if word != "…"}
    assert list(column.values()) == sorted(column.values())  # as in the text
    if len(tokens) <= 60:
        assert below == tokens
    levels = {node: data["layer"] for node, data in tree.nodes(data=True)}
    top = tree.graph["class_token"]
    if any(data["class_edge"] for *_, data in tree.edges(data=True)):
        levels[top] = max(levels.values()) + 1
    assert words(figure) == {(column[tokens[node]], level): tokens[node] for node, level in levels.items()}
    names = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    assert all(names[tree.nodes[node]["layer"]] == f"layer {tree.nodes[node]['layer']}" for node in tree)
    assert names[max(levels.values())] in ("output", f"layer {max(levels.values())}")
    assert max(levels.values()) == levels[tree.graph["root"]] + (levels[top] > levels[tree.graph["root"]])
    bold = {plain(word.text) for word in figure.layout.annotations if word.text.startswith("<b>")}
    assert bold == {tokens[node] for node in (tree.graph["root"], top) if node in tree}
    lines = {tuple(line.meta["edge"]): line for line in figure.data}
    assert set(lines) == set(tree.edges)
    largest = max(abs(data["score"]) for *_, data in tree.edges(data=True))
    for (query, key), line in lines.items():
        data = tree.edges[query, key]
        beside = 4 * data["class_edge"]
        assert (line.x[0] + beside, line.y[0]) == (column[tokens[key]], levels[key])
        assert (line.x[-1] + beside, line.y[-1]) == (column[tokens[query]], levels[query])
        assert line.line.width == pytest.approx(0.7 + 3.8 * abs(data["score"]) / largest, abs=0.01)
        assert line.line.dash == ("dash" if data["score"] < 0 else "solid")


@pytest.mark.parametrize("shape", SHAPES)
def test_no_line_passes_a_word_but_its_own(shape: tuple[int, int, int]) -> None:
    """Behind a word one would not see whether it ends there."""
    _, figure = figure_of(*shape, threshold=0.1)
    assert passed(figure) == []
    closer = go.Figure(figure)
    (x, y), *_ = words(closer)
    closer.add_scatter(x=[x, x], y=[y - 1, y + 1], meta={"edge": [-1, -2]})
    assert passed(closer)


def passed(figure: go.Figure) -> list[tuple[str, str]]:
    """The lines and the words in whose boxes they are, but for the words at their ends."""
    layout, every = figure.layout, words(figure)
    level = (layout.height - layout.margin.t - layout.margin.b) / (layout.yaxis.range[1] - layout.yaxis.range[0])
    x, y = np.array(list(every)).T
    half = np.array([3.1 * len(word) + 2 for word in every.values()])
    found = []
    for line in figure.data:
        at = np.linspace(0, len(line.x) - 1, 301)
        u, v = (np.interp(at, range(len(each)), each)[:, None] for each in (line.x, line.y))
        behind = ((abs(u - x) < half) & (abs(v - y) * level < WORD / 2)).any(0)
        for end in (0, -1):
            behind &= (abs(line.x[end] - x) >= 5) | (line.y[end] != y)
        found += [(line.name, word) for word, is_behind in zip(every.values(), behind, strict=True) if is_behind]
    return found


def test_a_decoders_root_leads_up_to_what_it_predicts() -> None:
    given = results.explanation(4, 3, [f"word{i}" for i in range(9)], mostly_for, label=" film", **DECODER)
    tree = attribution_tree(given, 0.2)
    assert tree.graph["class_token"] is None
    figure = plot_tree(tree, style="paper")
    (line,) = figure.select_traces({"name": "output"})
    assert words(figure)[line.x[-1], 4] == "film"
    assert words(figure)[line.x[0], line.y[0]] == tree.graph["tokens"][tree.graph["root"]]
    assert figure.layout.yaxis.ticktext[-1] == "output"


def test_columns_run_with_the_text_and_pairs_are_divided() -> None:
    _, figure = figure_of(2, 2, ["[CLS]", "שלום", "עולם", "טוב", "[SEP]"], threshold=0.1)
    assert list(figure.layout.xaxis.tickvals) == sorted(figure.layout.xaxis.tickvals, reverse=True)
    _, pair = figure_of(3, 2, 8, segments=[0] * 5 + [1] * 3)
    (line,) = pair.layout.shapes
    middles = pair.layout.xaxis.tickvals
    assert middles[4] < line.x0 == line.x1 < middles[5]


def test_wrong_styles_are_refused() -> None:
    given = results.explanation(2, 2, 6, mostly_for)
    tree = attribution_tree(given, 0.1)
    with pytest.raises(ValueError, match="style='Paper' is unknown; use one of page, paper"):
        plot_tree(tree, style="Paper")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="explanation is not the one that tree was made of"):
        plot_tree(tree, results.explanation(2, 2, 7), style="paper")


def test_svg_has_the_words_as_text_and_no_menu(tmp_path: Path) -> None:
    tree, figure = figure_of(4, 3, ["[CLS]", *HOSTILE, "[SEP]"])
    assert not figure.layout.updatemenus
    page = write_html(figure, tmp_path / "tree.html")
    seen = look(page, "seen.svg = await Plotly.toImage(document.querySelector('.plot'), { format: 'svg' });", tmp_path)
    drawing = ElementTree.fromstring(unquote(seen["svg"].partition(",")[2]))
    written = ["".join(each.itertext()) for each in drawing.iter("{http://www.w3.org/2000/svg}text")]
    texts = [text.strip("\u2068\u2069") for text in written if text]
    shown = [plain(text) for text in figure.layout.xaxis.ticktext]
    assert sorted(texts) == sorted([*shown, *words(figure).values(), *figure.layout.yaxis.ticktext])
    classes = " ".join(each.get("class", "") for each in drawing.iter())
    assert "updatemenu" not in classes
    assert "legend" not in classes
    assert classes.count("js-line") == tree.number_of_edges()
    assert not [text for text in every_text(figure) if "<script" in text]


def test_as_pdf_with_its_fonts(tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    _, figure = figure_of(4, 3, 9)
    pdf = write_image(figure, tmp_path / "tree.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile" in pdf
