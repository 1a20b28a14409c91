"""The report's table of measured effects: what was removed, score beside effect, and how well they agree."""

from __future__ import annotations

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import results
import torch
from browser import Clocked
from browser import clocked as clocked
from hostile import HOSTILE, Page
from toy import tiny_bert, tiny_tokenizer

from captum_attattr import Explanation, RemovalEffects, explain, removal_effects, write_report


def made(given: Explanation, effects: list[float] | None = None, unit: str = "edge") -> RemovalEffects:
    """Effects of an explanation's strongest edges: made up, or as large as the scores."""
    edges = given.strongest(12 if effects is None else len(effects))
    scores = torch.tensor([edge.score for edge in edges], dtype=torch.float64)
    measured = scores if effects is None else torch.tensor(effects, dtype=torch.float64)
    return RemovalEffects(edges, scores, measured, float(given.value or 0), unit, "zero", given.tokens, 13)


def told(path: Path) -> tuple[list[list[str]], str]:
    """The rows of the table, and the sentence above it."""
    page = path.read_text("utf-8")

    def plain(text: str) -> str:
        return html.unescape(re.sub("<[^>]*>", "", text))

    table = re.search('<table class="effects".*?<tbody>(.*?)</tbody>', page, re.DOTALL)
    sentence = re.search('<p class="agreement">(.*?)</p>', page, re.DOTALL)
    assert table
    assert sentence
    rows = [[plain(cell) for cell in re.findall("<t[hd].*?</t[hd]>", row)] for row in table[1].split("</tr>")[:-1]]
    return rows, plain(sentence[1])


def test_the_ten_strongest_edges_stand_beside_what_the_model_loses_without_them(tmp_path: Path) -> None:
    model, tokenizer = tiny_bert(seed=1), tiny_tokenizer()
    given = explain(model, tokenizer, ["a good film"], layers=[1, 2], progress=False)[0]
    effects = removal_effects(model, tokenizer, given, top=20)
    rows, sentence = told(write_report(given, tmp_path / "report.html", effects=effects))
    assert len(rows) == 10
    for row, edge, effect in zip(rows, effects.edges, effects.effects.tolist(), strict=False):
        assert row[0].endswith(f", layer {edge.layer}, head {edge.head}")
        assert row[1:] == [f"{value:+.3g}".replace("-", "−") for value in (edge.score, effect)]
    assert f"rank correlation {effects.spearman:.2f}" in sentence


def test_nothing_is_there_that_was_not_asked_for(tmp_path: Path) -> None:
    page = write_report(results.explanation(3, 4, 8), tmp_path / "report.html").read_text("utf-8")
    assert 'class="effects"' not in page
    assert "effect" not in re.sub("<style>.*?</style>|<script.*?</script>", "", page, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("factors", "sentence"),
    [
        (
            [1] * 6,
            "agree well (rank correlation 1.00); 6 of 6 effects have the sign of the score; together the effects",
        ),
        ([1, 2, 3, 4, 5, -6], "5 of 6 effects have the sign"),
        ([-1] * 6, "do not agree (rank correlation -1.00); 0 of 6"),
        ([1, 1], "Too few edges to say how well scores and effects agree: 2 of 2 effects have the sign of the score."),
        ([0] * 6, "cannot be ranked against each other, for one of them is constant: 0 of 6"),
    ],
)
def test_how_well_they_agree_is_said_in_words(factors: list[float], sentence: str, tmp_path: Path) -> None:
    given = results.explanation(3, 4, 8)
    effects = [edge.score * by for edge, by in zip(given.strongest(len(factors)), factors, strict=True)]
    assert sentence in told(write_report(given, tmp_path / "report.html", effects=made(given, effects)))[1]


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"tokens": [*"abcdefgh"]}, ValueError, "another explanation: their tokens differ, 'a' and 'word0'"),
        ({"tokens": [f"word{i}" for i in range(9)]}, ValueError, "their tokens differ, 9 and 8 of them"),
        ({"unit": "head"}, ValueError, "must be those of edges, not of heads: removal_effects"),
        ({"value": 0.5}, ValueError, "another explanation: F is 0.5 there, and here 0.875"),
        ({"layer": 7}, ValueError, "layer"),
        ({"score": 3.0}, ValueError, "the score of layer .*, head .* is 3 there, and here"),
    ],
)
def test_effects_of_something_else_are_refused(
    changed: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    given = results.explanation(3, 4, 8)
    effects = made(given)
    edge = {name: changed.pop(name) for name in ("layer", "score") if name in changed}
    effects = replace(effects, edges=[effects.edges[0]._replace(**edge), *effects.edges[1:]], **changed)
    with pytest.raises(error, match=message):
        write_report(given, tmp_path / "report.html", effects=effects)
    with pytest.raises(TypeError, match="effects must be a RemovalEffects of removal_effects, not list"):
        write_report(given, tmp_path / "report.html", effects=[])  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_table_fits_and_its_edges_can_be_chosen(width: int, clocked: Clocked, tmp_path: Path) -> None:
    given = results.explanation(3, 4, ["[CLS]", *HOSTILE, "[SEP]"])
    path = write_report(given, tmp_path / "report.html", effects=made(given))
    assert not [each for each in Page(path.read_text("utf-8")).elements if each[0] == "img"]
    clocked.ask("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
    clocked.open(path)
    assert clocked.run("document.documentElement.scrollWidth") <= width
    ends = "Math.max(...[...document.querySelectorAll('.effects *')].map((each) => each.getBoundingClientRect().right))"
    assert clocked.run(ends) <= width
    clocked.run("document.querySelector('.effects button').click()")
    told_ = clocked.run("document.getElementById('told').textContent")
    assert f"in layer {given.strongest(1)[0].layer}:" in told_
