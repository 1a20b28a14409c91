"""Texts with tinted words: the scores are the token scores, the text can be read and copied, nothing in it acts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest
import results
import torch
from browser import look
from hostile import HOSTILE, Page, every_text

from captum_attattr import Explanation, plot_tokens, write_html


def explanation(words: int | list[str] = 6, layers: int = 3, seed: int = 0, **changed: Any) -> Explanation:
    names = words if isinstance(words, list) else ["[CLS]", *(f"word{i}" for i in range(1, words - 1)), "[SEP]"]
    return results.explanation(layers, 2, names, seed=seed, **changed)


def drawn(figure: go.Figure) -> list[Any]:
    return [each for each in figure.layout.annotations if each.bgcolor]


def test_words_have_the_sums_of_their_tokens_scores() -> None:
    given = explanation(["[CLS]", "play", "##ing", "is", "fun", "[SEP]"])
    for layer in (None, 0, 2):
        scores = given.token_scores(layer)
        expected = [scores[0], scores[1] + scores[2], *scores[3:]]
        words = drawn(plot_tokens(given, layer=layer))
        assert [word.text.strip("\u2068\u2069") for word in words] == ["[CLS]", "playing", "is", "fun", "[SEP]"]
        told = [float(word.hovertext.replace("−", "-")) for word in words]
        np.testing.assert_allclose(told, expected, rtol=6e-3)
        strongest = int(np.argmax(np.abs(expected)))
        colour = (236, 167, 106) if expected[strongest] > 0 else (118, 170, 214)
        rgb = [int(part) for part in re.findall(r"\d+", words[strongest].bgcolor)]
        assert np.abs(np.subtract(rgb, colour)).max() <= 3


def test_layers_go_by_their_own_numbers_and_the_joint_path_adds_up() -> None:
    given = results.explanation(2, 2, 6, layers=[2, 5], path="joint")
    page_rows = plot_tokens(given, layer=5).layout.meta["tokens"]
    assert page_rows["rows"][0]["layers"] == [2, 5]
    np.testing.assert_allclose(page_rows["rows"][0]["sentence"]["scores"][-1], given.token_scores(), rtol=1e-5)
    with pytest.raises(ValueError, match="layer"):
        plot_tokens(given, layer=3)


def test_lines_break_and_stay_inside() -> None:
    figure = plot_tokens(explanation(120))
    lines = {word.y for word in drawn(figure)}
    assert len(lines) > 4
    left, right = figure.layout.xaxis.range
    assert all(left < word.x < right for word in drawn(figure))
    assert figure.layout.height > max(lines)


STEPS = """
  seen.text = texts(".sentence");
  seen.ends = texts(".end");
  const menu = document.getElementById("layer");
  seen.options = [...menu.options].map((each) => each.text);
  menu.value = "1";
  menu.dispatchEvent(new Event("change"));
  seen.layer = texts(".end");
  seen.titles = [...document.querySelectorAll("[data-row='0'] .word")].map((each) => each.title);
  seen.drawn = 1;
"""


def test_a_page_is_a_table_of_texts_with_a_menu_of_the_layers(tmp_path: Path) -> None:
    every = [explanation(seed=i, label=f"class {i}", probability=i / 10) for i in range(3)]
    path = write_html(plot_tokens(every), tmp_path / "tokens.html")
    assert path.stat().st_size < 30_000  # no plotly.js
    seen = look(path, STEPS, tmp_path)
    assert seen["text"] == ["[CLS] word1 word2 word3 word4 [SEP]"] * 3
    assert seen["options"] == ["all layers", "layer 0", "layer 1", "layer 2"]
    for row, end, layer in zip(every, seen["ends"], seen["layer"], strict=True):
        assert float(end[1:]) == pytest.approx(float(row.token_scores().abs().max()), rel=6e-3)
        assert float(layer[1:]) == pytest.approx(float(row.token_scores(1).abs().max()), rel=6e-3)
    scores = [float(title.split(": ")[1].replace("−", "-")) for title in seen["titles"]]
    np.testing.assert_allclose(scores, every[0].token_scores(1), rtol=6e-3)
    text = path.read_text("utf-8")
    for i in range(3):
        assert f"<b><bdi>class {i}</bdi></b><br>probability {i / 10:.3g}" in text


def test_a_hundred_texts_fit_in_one_small_page(tmp_path: Path) -> None:
    every = [explanation(30, 6, seed=i) for i in range(100)]
    assert write_html(plot_tokens(every), tmp_path / "tokens.html").stat().st_size < 1_500_000


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_texts_are_literal(tmp_path: Path, dark: bool) -> None:
    figure = plot_tokens([explanation(HOSTILE, label=HOSTILE[0]), explanation(HOSTILE, label=HOSTILE[1])])
    allowed = re.compile("<br>|<b>|</b>")
    content = json.loads(figure.to_json())
    del content["layout"]["meta"]
    for text in every_text(content):
        assert "<" not in allowed.sub("", text)
    path = write_html(figure, tmp_path / "tokens.html")
    harmless = write_html(plot_tokens([explanation(len(HOSTILE))] * 2), tmp_path / "harmless.html")
    tags = [[tag for tag, _ in Page(each.read_text("utf-8")).elements] for each in (path, harmless)]
    assert tags[0] == tags[1]
    assert look(path, STEPS, tmp_path, dark)["failures"] == []


def test_no_scores_have_no_tint(tmp_path: Path) -> None:
    figure = plot_tokens(explanation(attributions=torch.zeros(3, 2, 6, 6)))
    assert {word.bgcolor for word in drawn(figure)} == {"rgb(255,255,255)"}
    assert 'style="--share' not in write_html(figure, tmp_path / "tokens.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (3, TypeError, "explanations must be an Explanation or several, not int"),
        ("text", TypeError, "each of explanations must be an Explanation, not str"),
        ([], ValueError, "explanations is empty"),
        ([explanation(), None], TypeError, "each of explanations must be an Explanation, not NoneType"),
    ],
)
def test_wrong_explanations(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot_tokens(given)
