"""The page of a generation: every word of the answer says what it came from, by mouse, touch and keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import results
import torch
from browser import Clocked, look
from browser import clocked as clocked
from hostile import HOSTILE, Page, every_text

from captum_attattr import plot_generation, write_html


def test_words_are_tinted_by_the_sums_of_the_chosen_tokens() -> None:
    given = results.generation(["[CLS]", "play", "##ing", "is"], ["fun", "##ny", "!"], scheme="wordpiece")
    figure = plot_generation(given, begin=2)
    words = [each for each in figure.layout.annotations if each.bgcolor]
    assert [word.text.strip("\u2068\u2069") for word in words] == ["[CLS]", "playing", "is", "funny", "!"]
    row = given.matrix[2]
    told = [float(word.hovertext.replace("−", "-")) for word in words]
    np.testing.assert_allclose(told, [0, row[1] + row[2], row[3], row[4] + row[5], 0], rtol=6e-3)
    assert "!" in figure.layout.title.text
    assert plot_generation(given).layout.title.text == "What the answer came from"
    assert plot_generation(given, begin=1, end=2).layout.meta["generation"]["chosen"] == [0, 0]  # the whole word


STEPS = """
  const selected = () => [...document.querySelectorAll(".answer [aria-selected='true']")].map((e) => e.textContent);
  const told = () => document.getElementById("told").textContent;
  const titles = () => [...document.querySelectorAll("[data-word]")].map((e) => e.title);
  const words = [...document.querySelectorAll(".answer .word")];
  const at = (word) => { const b = word.getBoundingClientRect(); return { clientX: b.x + 4, clientY: b.y + 4 }; };
  const point = (type, word, more = {}) =>
    word.dispatchEvent(new PointerEvent(type, { bubbles: true, pointerId: 1, ...at(word), ...more }));
  seen.text = texts(".sentence");
  seen.first = [selected().length, titles()];
  point("pointermove", words[1]);
  seen.hovered = [selected(), titles(), told(), document.getElementById("exact").textContent];
  words[1].parentElement.dispatchEvent(new PointerEvent("pointerleave"));
  seen.left = selected().length;
  point("pointerdown", words[1]); point("pointermove", words[3]); point("pointerup", words[3]);
  seen.dragged = [selected(), titles()];
  key(document.activeElement, "ArrowLeft");
  seen.moved = selected();
  key(document.activeElement, "End");
  const shift = { key: "ArrowLeft", shiftKey: true, bubbles: true };
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", shift));
  seen.shifted = selected();
  seen.special = [document.querySelector("[data-word='0']").style.cssText !== ""];
  document.getElementById("special").click();
  seen.special.push(document.querySelector("[data-word='0']").style.cssText !== "");
  key(document.activeElement, "Escape");
  document.getElementById("whole").click();
  seen.whole = selected().length;
  [seen.named, seen.exact] = [told(), document.getElementById("exact").textContent];
  seen.wide = document.documentElement.scrollWidth <= innerWidth;
  seen.drawn = 1;
"""


def scores(titles: list[str]) -> list[float]:
    return [float(title.rsplit(": ", 1)[1].replace("−", "-")) for title in titles]


@pytest.mark.parametrize("dark", [False, True])
def test_a_page_says_what_words_and_spans_came_from(tmp_path: Path, dark: bool) -> None:
    given = results.generation(8, 5)
    matrix = given.words().scores.clone()
    matrix[:, :2] = torch.tensor([0.4, 0.3])
    given = results.generation(8, 5, matrix=matrix, total_delta=torch.tensor([0, 0.01, 0.5, 0, 0]))
    path = write_html(plot_generation(given), tmp_path / "generation.html")
    assert path.stat().st_size < 30_000  # no plotly.js
    seen = look(path, STEPS, tmp_path, dark)
    assert seen["text"] == [given.prompt, given.answer]
    assert seen["first"][0] == 5
    np.testing.assert_allclose(scores(seen["first"][1]), matrix.sum(0), rtol=6e-3, atol=1e-7)
    assert seen["hovered"][0] == ["said1"]
    np.testing.assert_allclose(scores(seen["hovered"][1]), matrix[1], rtol=6e-3, atol=1e-7)
    assert seen["hovered"][2].startswith("said1: probability 0.75; from word1 +0.3, ")
    assert "word0" not in seen["hovered"][2]  # special, and not tinted
    assert seen["hovered"][3].endswith("add up to what the attention did within 0.01.")
    assert "within 0.51 (" in seen["exact"]
    assert "take them as rough" in seen["exact"]
    assert "; scores summed over its 5 words: word0 +2, " in seen["named"]
    assert seen["left"] == 5
    assert seen["dragged"][0] == ["said1", "said2", "said3"]
    np.testing.assert_allclose(scores(seen["dragged"][1]), matrix[1:4].sum(0), rtol=6e-3, atol=1e-7)
    assert (seen["moved"], seen["shifted"]) == (["said2"], ["said3", "said4"])
    assert seen["special"] == [False, True]
    assert seen["whole"] == 5
    assert seen["wide"]


def test_scores_that_need_not_add_up_are_called_so(tmp_path: Path, clocked: Clocked) -> None:
    given = results.generation(8, 5, path="layer", attribution="attention", total_delta=torch.full((5,), torch.nan))
    clocked.open(write_html(plot_generation(given), tmp_path / "generation.html"))
    assert clocked.run("document.getElementById('exact').textContent").endswith("need not add up to anything.")


def test_a_phone_has_room_for_it(tmp_path: Path, clocked: Clocked) -> None:
    path = write_html(plot_generation(results.generation(120, 60)), tmp_path / "generation.html")
    clocked.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    clocked.ask("Emulation.setTouchEmulationEnabled", enabled=True)
    clocked.open(path)
    assert clocked.run("document.documentElement.scrollWidth") == 390
    word = "document.querySelectorAll('.answer .word')[2].getBoundingClientRect()"
    x, y = clocked.run(f"[{word}.x + 5, {word}.y + 5]")
    assert 0 < y < 800  # the answer is in sight, however long the prompt is
    for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
        clocked.ask("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    told = clocked.until("document.getElementById('told').textContent", lambda text: text.startswith("said2: "))
    assert "probability 0.75" in told
    line = "document.getElementById('told').getBoundingClientRect()"
    box = clocked.run(f"[{line}.top, {line}.bottom]")
    assert box[0] > 0
    assert box[1] < 800


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_texts_are_literal(tmp_path: Path, dark: bool) -> None:
    given = results.generation(HOSTILE, HOSTILE, written=HOSTILE[1], contrast=HOSTILE, contrast_ids=[0] * len(HOSTILE))
    figure = plot_generation(given)
    content = json.loads(figure.to_json())
    del content["layout"]["meta"]
    allowed = re.compile("<br>|<b>|</b>")
    for text in every_text(content):
        assert "<" not in allowed.sub("", text)
    path = write_html(figure, tmp_path / "generation.html")
    plain = [["a\nb"] if "\n" in word else ["a"] for word in HOSTILE]
    words = [word for each in plain for word in each]
    harmless = write_html(plot_generation(results.generation(words, words)), tmp_path / "harmless.html")
    tags = [[tag for tag, _ in Page(each.read_text("utf-8")).elements] for each in (path, harmless)]
    assert tags[0] == tags[1]
    assert look(path, "seen.drawn = 1;", tmp_path, dark)["failures"] == []


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"generation": 3}, TypeError, "generation must be a GenerationExplanation, not int"),
        ({"begin": 7}, ValueError, "begin must be from 0 to 4, not 7"),
        ({"begin": 3, "end": 3}, ValueError, "end=3 must be above begin=3"),
        ({"end": 9}, ValueError, "end must be from 0 to 5, not 9"),
    ],
)
def test_wrong_choices(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot_generation(**{"generation": results.generation(8, 5)} | options)
