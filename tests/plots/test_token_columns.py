"""Columns of tokens in figures of plotly: the direction of the text, and the line between the texts of a pair."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
import results
from browser import Clocked
from browser import clocked as clocked

from captum_attattr import Explanation, attribution_tree, plot_attention, plot_flow, plot_tree, write_html
from captum_attattr.plots.canvas.token_columns import second_text

ARABIC = ["[CLS]", "هذا", "فيلم", "رائع", "[SEP]", "الممثل", "كان", "[SEP]"]
ENGLISH = ["[CLS]", "this", "film", "shines", "[SEP]", "actors", "too", "[SEP]"]
FIGURES: dict[str, Callable[[Explanation], go.Figure]] = {
    "flow": plot_flow,
    "tree": lambda given: plot_tree(attribution_tree(given, 0.05), given),
}


def explained(words: list[str], **changed: Any) -> Explanation:
    special = [word.startswith("[") for word in words]
    return results.explanation(3, 4, words, **{"segments": [0] * 5 + [1] * 3, "special": special, **changed})


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize(("words", "falling"), [(ARABIC, True), (ENGLISH, False)])
def test_columns_run_as_the_text_does(name: str, words: list[str], falling: bool) -> None:
    first, last = FIGURES[name](explained(words)).layout.xaxis.range
    assert (first > last) == falling


@pytest.mark.parametrize("name", FIGURES)
def test_a_line_stands_between_the_texts_of_a_pair(name: str) -> None:
    figure = FIGURES[name](explained(ENGLISH))
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(4.5, 4.5)]
    for theme in figure.layout.meta["themes"].values():
        assert theme["shapes[0].line.color"]
    assert not FIGURES[name](explained(ENGLISH, segments=[0] * 8)).layout.shapes


def test_maps_have_the_line_in_rows_and_columns_of_every_head() -> None:
    figure = plot_attention(explained(ENGLISH), layer=1, head=2)
    _, column, row = figure.layout.shapes
    assert (column.x0, column.x1, column.xref) == (2 * 8 + 4.5, 2 * 8 + 4.5, "x2")
    assert (row.y0, row.y1, row.yref) == (-(8 + 4.5), -(8 + 4.5), "y2")
    low, high = figure.layout.yaxis2.range
    assert low < row.y0 < high
    single = plot_attention(explained(ENGLISH, segments=[0] * 8))
    assert len(single.layout.shapes) == 1  # the frame of the chosen thumbnail


@pytest.mark.parametrize(("segments", "at"), [([0, 0, 1, 1], 2), ([0, 0], None), ([0], None), ([1, 0], 1)])
def test_where_the_second_text_begins(segments: list[int], at: int | None) -> None:
    assert second_text(segments) == at


def test_the_keyboard_reaches_the_controls_of_a_flow_before_plotlys_buttons(clocked: Clocked, tmp_path: Path) -> None:
    clocked.open(write_html(plot_flow(explained(ENGLISH)), tmp_path / "flow.html"))
    order = []
    for _ in range(7):
        clocked.press("Tab")
        order.append(clocked.run("document.activeElement.className"))
    assert order[1:7] == [f"flow-{name}" for name in ("layer", "head", "sign", "special", "segment", "cut")]
    assert clocked.run("document.querySelector('.flow-cut').labels[0].innerText") == "edges drawn"
    assert clocked.run("plot.getAttribute('role')") == "group"


def test_arrow_keys_of_a_tree_follow_the_picture(clocked: Clocked, tmp_path: Path) -> None:
    for words, wanted in ((ENGLISH, min), (ARABIC, max)):
        tree = attribution_tree(explained(words), 0.05)
        clocked.open(write_html(plot_tree(tree, explained(words)), tmp_path / "tree.html"))
        clocked.run("plot.focus()")
        clocked.press("ArrowRight")  # the leftmost token of the picture, then the one at its right
        clocked.press("ArrowRight")
        place = sorted(tree)[1] if wanted is min else sorted(tree)[-2]
        clocked.until("document.getElementById('chosen').textContent", lambda text, place=place: f"[{place}]:" in text)
