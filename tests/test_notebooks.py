"""Results show themselves: one short line, and in notebooks their page, in a frame that reaches nothing outside."""

from __future__ import annotations

import copy
import html
import pickle
import re
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import results
from browser import look
from hostile import HOSTILE, Page

from captum_attattr import PruningComparison, PruningCurve, attribution_tree, explain, load_tree, save_tree
from captum_attattr.explanations.explanation_list import ExplanationList


def explanation(**changed: Any) -> Any:
    return results.explanation(3, 2, ["[CLS]", *HOSTILE, "[SEP]"], label=HOSTILE[0], text=HOSTILE[1], **changed)


def curve(order: str = "least") -> PruningCurve:
    ranking = [[0, 0], [0, 1], [1, 0], [1, 1]]
    metric, loss = [0.9, 0.8, 0.5], [0.1, 0.3, 1.0]
    return PruningCurve("attattr", order, [0, 2, 4], 4, "accuracy", metric, loss, ranking, 9, 9, 0, [], [])


RESULTS: dict[str, Callable[[], Any]] = {
    "explanation": explanation,
    "list": lambda: ExplanationList([explanation(), explanation()]),
    "empty list": lambda: ExplanationList(),
    "importance": results.importance,
    "curve": curve,
    "comparison": lambda: PruningComparison([curve(), curve("most")], []),
    "faithfulness": results.faithfulness,
    "attributions": results.comparison,
    "tree": lambda: attribution_tree(explanation(), 0.1),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_result_is_one_short_line_and_a_page_in_a_closed_frame(kind: str, tmp_path: Path) -> None:
    result = RESULTS[kind]()
    told = repr(result)
    assert len(told) <= 600
    assert "\n" not in told
    assert "\u202e" not in told
    shown = Page(result._repr_html_())
    ((_, frame),) = [each for each in shown.elements if each[0] == "iframe"]
    assert [tag for tag, _ in shown.elements] == ["div", "iframe"]
    assert frame["sandbox"] == "allow-scripts allow-downloads"  # not the notebook's origin
    assert frame["srcdoc"]
    zoom = float(re.sub("border:0(; zoom: )?", "", frame["style"] or "") or 1)
    wide = [int(side) for side in re.findall('class="plot" id="plot" style="width: ([0-9]+)px', frame["srcdoc"])]
    for side in wide:  # fits into a cell, and is no smaller than that needs
        assert zoom * (side + 20) <= 1000
        assert zoom == 1 or zoom * (side + 20) > 980
    assert wide or zoom == 1
    if kind == "empty list":
        return
    page = tmp_path / "page.html"
    page.write_bytes(frame["srcdoc"].encode("utf-8"))
    assert "http-equiv" in frame["srcdoc"]  # with its own policy: nothing is loaded
    steps = "seen.drawn = seen.figures;" if kind == "list" else ""
    assert look(page, steps, tmp_path)["figures"] == 1


def test_a_comparison_of_attributions_has_its_table_above_its_curves(tmp_path: Path) -> None:
    compared = results.comparison(("attattr", "attention", "random"))
    page = tmp_path / "page.html"
    page.write_text(compared._view().page, encoding="utf-8")
    steps = """
      seen.rows = [...document.querySelectorAll("tbody tr")].map((row) => [...row.cells].map((cell) => cell.innerText));
      seen.best = [...document.querySelectorAll("table:first-child b")].map((cell) => cell.closest("tr").rowIndex);
      seen.above = document.querySelectorAll("table")[1].getBoundingClientRect().bottom
        < document.querySelector(".figure").getBoundingClientRect().top;
    """
    seen = look(page, steps, tmp_path)
    cells = [[" ".join(cell.split()).replace("−", "-") for cell in row] for row in seen["rows"]]
    assert cells == [list(row) for table in compared.tables() for row in table[1:]]
    means = [result.comprehensiveness for result in compared.results.values()]
    assert seen["best"][0] == 1 + means.index(max(means))
    assert seen["above"]


def test_show_opens_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    path = explanation().show()
    assert opened == [path.as_uri()]
    assert "<h1>The model says" in path.read_text("utf-8")
    path.unlink()


def test_explain_returns_a_list_and_a_tree_is_a_graph(tmp_path: Path) -> None:
    from demo_model import load_demo_model

    found = explain(*load_demo_model(), ["a fine film", "dull"], progress=False)
    assert isinstance(found, list)
    assert type(pickle.loads(pickle.dumps(found))) is type(copy.copy(found)) is ExplanationList
    assert re.search("a fine film", html.unescape(found._repr_html_()))
    tree = attribution_tree(found[0])
    assert isinstance(tree, nx.DiGraph)
    assert type(tree.copy()) is type(load_tree(save_tree(tree, tmp_path / "tree.json"))) is type(tree)
    assert "tokens" in repr(tree)


def test_a_result_that_was_cut_says_so() -> None:
    many = ExplanationList([results.explanation(1, 1, 3)] * 120)
    assert many._repr_html_().startswith("<div>the first 100 are shown</div>")
    assert len(repr(results.explanation(1, 1, 3, text="word " * 1000))) <= 500
