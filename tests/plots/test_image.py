"""Pictures with tinted patches: tints are the token scores, arrows the links, nothing acts or is loaded."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import results
from browser import Clocked, look
from browser import clocked as clocked
from hostile import HOSTILE, Page, every_text

from captum_attattr import ImageExplanation, plot_image, write_html, write_report
from captum_attattr.explanations.explanation_list import ExplanationList
from captum_attattr.plots.canvas.picture import MOST_LINKS, links_of, png
from captum_attattr.plots.canvas.sentence import Sentence


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (64, 300, 3)])
def test_a_png_has_the_pixels(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    image = PIL.Image.open(io.BytesIO(png(pixels)))
    assert image.format == "PNG"
    assert (np.asarray(image) == pixels).all()


def test_opacity_is_the_share_of_the_largest_score_and_the_colour_is_the_sign() -> None:
    given = results.pictured()
    given.attributions[:, :, :, 0] += 1  # [CLS] has more than all patches: the colours end at the strongest of these
    for layer in (None, 1):
        scores = given.token_scores(layer)
        shapes = plot_image(given, layer=layer).layout.shapes
        assert len(shapes) == 12
        for shape, score in zip(shapes, scores[1:].tolist(), strict=True):
            red, _, blue, opacity = map(float, re.findall(r"[\d.]+", shape.fillcolor))
            share = abs(score) / float(scores[1:].abs().max())
            assert opacity == pytest.approx(0.7 * share if share >= 0.04 else 0, abs=1e-3)
            assert (red > blue) == (score >= 0)
    assert [shapes[i].x0 for i in (0, 1, 4)] == [0, 97.5, 0]  # row by row
    assert shapes[4].y0 == shapes[0].y1 > shapes[0].y0


def test_links_are_sums_over_heads_of_the_layers_and_the_strongest_come_first() -> None:
    for given, whole in (
        (joint := results.pictured(path="joint"), joint.attributions.double().sum((0, 1))),
        (layer := results.pictured(layers=[2, 5, 7]), layer.attributions.double().sum(1).mean(0)),
    ):
        found = links_of(given, Sentence.of(given))
        whole = whole.clone().fill_diagonal_(0)
        order = whole.abs().flatten().argsort(descending=True)[:10].tolist()
        assert [link[:2] for link in found["strongest"]] == [[at % 13, at // 13] for at in order]
        for word, (read, gave) in enumerate(found["links"]):
            for links, values in ((read, whole[word]), (gave, whole[:, word])):
                top = values.abs().argsort(descending=True)[: len(links)].tolist()
                assert [link[0] for link in links] == top
                np.testing.assert_allclose([link[1] for link in links], values[top], rtol=1e-3)
                assert len(links) <= MOST_LINKS
                assert {link[2] for link in links} <= set(given.layers)


# --------------------------------------------------------------------------------------------------- the pages


STEPS = """
  const patches = [...document.querySelectorAll(".patch")];
  const told = () => document.querySelector(".told").textContent;
  const arrows = () => document.querySelectorAll(".arrows .head").length;
  const mouse_ = { bubbles: true, pointerType: "mouse" };
  const point = (target) => target.dispatchEvent(new PointerEvent("pointermove", mouse_));
  const loaded = [...document.querySelectorAll("main img")].map((each) => [each.naturalWidth, each.naturalHeight]);
  seen.loaded = loaded;
  seen.first = [told(), arrows(), document.querySelectorAll(".list button").length];
  seen.titles = patches.map((each) => each.title);
  point(patches[5]);
  seen.pointed = [told(), arrows()];
  const whole = document.querySelector(".arrows").getBoundingClientRect();
  const under = (x, y) => document.elementsFromPoint(whole.x + x, whole.y + y);
  const nearest = (x, y) => under(x, y).find((each) => each.dataset.word).dataset.word;
  const numbers = (path) => path.getAttribute("d").match(/-?[0-9.]+/g).map(Number);
  const heads = [...document.querySelectorAll(".arrows .head")];
  seen.ends = [...document.querySelectorAll(".arrows .edge")].map((path, i) => {
    const [from, to] = [numbers(path).slice(0, 2), numbers(heads[i]).slice(0, 2)];
    return [nearest(...from), nearest(...to)].map(Number);
  });
  document.querySelector(".field").dispatchEvent(new PointerEvent("pointerleave"));
  seen.left = [told(), arrows()];
  patches[5].click();
  seen.kept = [told(), document.querySelectorAll(".on").length];
  patches[5].focus();
  key(patches[5], "ArrowRight"); key(document.activeElement, "ArrowDown");
  seen.moved = document.activeElement.dataset.word;
  key(document.activeElement, "ArrowDown"); key(document.activeElement, "ArrowDown");
  seen.end = document.activeElement.dataset.word;
  seen.stops = patches.filter((each) => each.tabIndex === 0).length;
  key(document.activeElement, "Escape"); document.activeElement.blur();
  seen.escaped = [told(), arrows()];
  const menu = document.getElementById("layer");
  menu.value = "1"; menu.dispatchEvent(new Event("change"));
  seen.layer = patches.map((each) => each.title);
  const corners = (b) => [b.x, b.y, b.right, b.bottom].map(Math.round);
  const box = (each) => corners(each.getBoundingClientRect());
  seen.boxes = [box(document.querySelector(".under")), box(patches[0]), box(patches.at(-1))];
  document.querySelector(".list button").focus();
  seen.listed = arrows();
  const opacity = document.getElementById("tint");
  opacity.value = 30; opacity.dispatchEvent(new Event("input"));
  seen.opacity = document.getElementById("opacity").textContent;
  seen.wide = document.documentElement.scrollWidth <= innerWidth;
"""


def scores(titles: list[str]) -> list[float]:
    return [float(title.rsplit(": ", 1)[1].replace("−", "-")) for title in titles]


@pytest.mark.parametrize("dark", [False, True])
def test_a_patch_says_what_it_read_and_gave(tmp_path: Path, dark: bool) -> None:
    given = results.pictured()
    path = write_html(plot_image(given), tmp_path / "picture.html")
    assert path.stat().st_size < 40_000  # no plotly.js
    seen = look(path, STEPS, tmp_path, dark)
    assert seen["loaded"] == [[32, 24], [32, 24]]
    assert seen["first"][0].startswith("Largest scores: ")
    assert seen["first"][1:] == [0, 10]
    np.testing.assert_allclose(scores(seen["titles"]), given.token_scores()[1:], rtol=6e-3, atol=1e-7)
    read, gave = links_of(given, Sentence.of(given))["links"][6]
    assert seen["pointed"][0].startswith("patch 1,1 counts ")
    assert f"It read: {given.tokens[read[0][0]]} " in seen["pointed"][0]
    assert f"It gave to: {given.tokens[gave[0][0]]} " in seen["pointed"][0]
    assert seen["pointed"][1] == len(read) + len(gave)
    arrows = [[other, 6] for other, *_ in read] + [[6, other] for other, *_ in gave]
    assert sorted(seen["ends"]) == sorted(arrows)
    assert seen["left"] == seen["escaped"] == seen["first"][:2]
    assert seen["kept"] == [seen["pointed"][0], 1]
    assert [given.tokens[int(seen[name])] for name in ("moved", "end")] == ["patch 2,2", "patch 2,2"]
    assert seen["stops"] == 1
    np.testing.assert_allclose(scores(seen["layer"]), given.token_scores(1)[1:], rtol=6e-3, atol=1e-7)
    image, first, last = seen["boxes"]
    assert first[:2] == image[:2]
    assert np.abs(np.subtract(last[2:], image[2:])).max() <= 1
    assert seen["listed"] == 1
    assert seen["opacity"].endswith("which has 30 %")
    assert seen["wide"]


def test_a_finger_chooses_a_patch_on_a_phone(tmp_path: Path, clocked: Clocked) -> None:
    path = write_html(plot_image([results.pictured(14, 14), results.pictured(special=2)]), tmp_path / "picture.html")
    clocked.ask("Emulation.setDeviceMetricsOverride", width=390, height=1200, deviceScaleFactor=1, mobile=True)
    clocked.ask("Emulation.setTouchEmulationEnabled", enabled=True)
    clocked.open(path)
    assert clocked.run("document.documentElement.scrollWidth") == 390
    patch = "document.querySelectorAll('.patch')[20].getBoundingClientRect()"
    x, y = clocked.run(f"[{patch}.x + 5, {patch}.y + 5]")
    for kind, points in (("touchStart", [{"x": x, "y": y}]), ("touchEnd", [])):
        clocked.ask("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    clocked.until("document.querySelector('.told').textContent", lambda text: text.startswith("patch 1,6 counts"))


REPORT = """
  const patches = [...document.querySelectorAll(".patch")];
  const arrows = () => document.querySelectorAll(".arrows .head").length;
  seen.first = [arrows(), texts(".findings")[0], texts("#told")[0], texts(".key").join(" ")];
  patches[5].click();
  seen.chosen = [arrows(), texts("#told")[0], location.hash, texts("svg .name.on")];
  patches[5].focus();
  key(patches[5], "ArrowDown");
  seen.moved = document.activeElement.dataset.word;
  seen.stops = patches.filter((each) => each.tabIndex === 0).length;
  key(document.activeElement, "Enter");
  seen.entered = location.hash;
  key(document.activeElement, "Escape");
  seen.escaped = arrows();
  document.querySelector(".list button").click();
  seen.link = arrows();
  const menu = document.getElementById("layer");
  menu.selectedIndex = 2; menu.dispatchEvent(new Event("change"));
  seen.layer = patches.map((each) => each.title);
"""


@pytest.mark.parametrize("dark", [False, True])
def test_a_report_has_the_picture_where_the_text_stands(tmp_path: Path, dark: bool) -> None:
    given = results.pictured()
    path = write_report(given, tmp_path / "report.html")
    seen = look(path, REPORT, tmp_path, dark)
    links = links_of(given, Sentence.of(given))["links"]
    assert seen["first"][0] == 0
    assert "word" not in "".join(seen["first"][1:])
    assert "“patch" not in seen["first"][1]
    assert seen["chosen"][0] == sum(map(len, links[6]))
    assert seen["chosen"][1].startswith("patch 1,1 counts ")
    assert seen["chosen"][2:] == ["#word=6", ["patch 1,1"]]
    assert given.tokens[int(seen["moved"])] == "patch 2,1"
    assert (seen["stops"], seen["entered"]) == (1, "#word=10")
    assert (seen["escaped"], seen["link"]) == (0, 1)
    np.testing.assert_allclose(scores(seen["layer"]), given.token_scores(1)[1:], rtol=6e-3, atol=1e-7)


def test_explanations_show_themselves() -> None:
    given = results.pictured()
    for shown, count in ((given, 1), (ExplanationList([given, results.pictured(2, 2)]), 2)):
        page = shown._repr_html_()
        assert page.count("class=&quot;plain&quot; src=&quot;data:image/png") == count
    assert repr(given) == "ImageExplanation('positive', probability 0.875: 'flower.png', 3 layers, 4 heads, 13 tokens)"


@pytest.mark.parametrize("dark", [False, True])
def test_hostile_texts_are_literal(tmp_path: Path, dark: bool) -> None:
    hostile = [
        replace(results.pictured(1, 1), label=text, text=text, contrast=text, contrast_target=5) for text in HOSTILE
    ]
    figure = plot_image(hostile)
    content = json.loads(figure.to_json())
    del content["layout"]["meta"]
    for text in every_text(content):
        assert "<" not in re.sub("<br>|<b>|</b>", "", text)
    harmless = [replace(each, label="a", text="a", contrast="a") for each in hostile]
    tags: list[list[Any]] = []
    for i, given in enumerate((hostile, harmless)):
        path = write_html(plot_image(given), tmp_path / f"{i}.html")
        tags.append([(tag, *attributes) for tag, attributes in Page(path.read_text("utf-8")).elements])
        report = write_report(given[0], tmp_path / f"report{i}.html")
        tags.append([(tag, *attributes) for tag, attributes in Page(report.read_text("utf-8")).elements])
    assert tags[0] == tags[2]
    assert tags[1] == tags[3]
    for path in (tmp_path / "0.html", tmp_path / "report0.html"):
        assert look(path, "", tmp_path, dark)["failures"] == []


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        (3, {}, TypeError, "explanations must be an ImageExplanation or several, not int"),
        ([], {}, ValueError, "explanations is empty"),
        ([results.explanation(2, 2, 3)], {}, TypeError, "each of explanations must be an ImageExplanation, not Explan"),
        (results.pictured(), {"layer": 3}, ValueError, "layer must be from 0 to 2, not 3"),
    ],
)
def test_wrong_choices(given: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        plot_image(given, **options)


def test_a_made_up_picture_is_one() -> None:
    assert isinstance(results.pictured(), ImageExplanation)
