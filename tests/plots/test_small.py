"""Pages of curves, heads and attacks in windows that are narrower than the figure: panels one under the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
import results
from browser import Clocked
from browser import clocked as clocked
from hostile import HOSTILE
from pictured import comparison, curve, effectiveness, several
from results import importance

from captum_attattr import (
    plot_attack,
    plot_correlation,
    plot_effectiveness,
    plot_faithfulness,
    plot_heads,
    plot_pruning_curve,
    write_html,
)
from captum_attattr.plots.canvas.pages import title_of
from captum_attattr.plots.comparison_page import comparison_page

LONG = "attattr (reduce=sum, output=log_probability, path=joint)"
FIGURES: dict[str, tuple[int, Callable[[], go.Figure]]] = {  # with the number of panels
    "heads": (2, lambda: plot_heads({"one": importance(12, 12), LONG: importance(12, 12, seed=1)})),
    "heads of a large model": (2, lambda: plot_heads(importance(48, 40))),
    "correlation": (1, lambda: plot_correlation(importance(24, 4), importance(24, 4, seed=1), names=(LONG, "taylor"))),
    "attack": (4, lambda: plot_attack(several())),
    "curves": (2, lambda: plot_pruning_curve(comparison())),
    "a curve with a long name": (1, lambda: plot_pruning_curve([curve(LONG), curve("taylor")])),
    "effectiveness": (2, lambda: plot_effectiveness(effectiveness())),
    "faithfulness": (2, lambda: plot_faithfulness(results.comparison())),
}
SEEN = """(() => {
  const box = (each) => {
    const { left, right, top, bottom } = each.getBoundingClientRect();
    return [left, top, right, bottom];
  };
  const shown = (each) => each.getClientRects().length && getComputedStyle(each).visibility === "visible";
  const plot = [...document.querySelectorAll(".plot")].find(shown);
  const texts = [...plot.querySelectorAll("text")].filter((each) => shown(each) && each.textContent.trim());
  return {
    width: document.documentElement.scrollWidth,
    small: plot.matches(".small .plot"),
    figure: box(plot.querySelector(".main-svg")),
    panels: [...plot.querySelectorAll(".nsewdrag")].map(box),
    legend: [...plot.querySelectorAll(".legend .traces")].map(box),
    texts: texts.map((each) => [each.textContent, ...box(each)]),
    page: [...document.querySelectorAll("main :is(h1, p, select, label)")].filter(shown).map(box),
  };
})()"""


def resize(browser: Clocked, width: int, height: int = 800) -> None:
    browser.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)


def over(one: list[Any], other: list[Any]) -> bool:
    """Whether two texts lie over each other, by more than the edges of their boxes."""
    (a, b, c, d), (e, f, g, h) = one[1:], other[1:]
    return bool(min(c, g) - max(a, e) > 2 and min(d, h) - max(b, f) > 3)


def check(seen: Any, width: int, panels: int) -> None:
    assert seen["width"] <= width
    left, top, right, bottom = seen["figure"]
    for text, x0, y0, x1, y1 in seen["texts"]:
        assert left - 1 <= x0 < x1 <= right + 1, text
        assert top - 1 <= y0 < y1 <= bottom + 1, text
    assert [(a[0], b[0]) for i, a in enumerate(seen["texts"]) for b in seen["texts"][:i] if over(a, b)] == []
    assert all(x0 >= 0 and x1 <= width for x0, _, x1, _ in seen["page"])
    wide = [box for box in seen["panels"] if box[2] - box[0] > 0.5 * width and box[3] - box[1] > 9]
    places = sorted(wide, key=lambda box: box[1])  # without those of numbers beside a panel
    assert len(places) == panels
    for above, below in pairwise(places):
        assert above[3] < below[1]
    assert all(places[-1][3] < box[1] for box in seen["legend"])


@pytest.mark.parametrize("name", FIGURES)
def test_panels_are_one_under_the_other(name: str, clocked: Clocked, tmp_path: Path) -> None:
    panels, make = FIGURES[name]
    resize(clocked, 390)
    clocked.open(write_html(make(), tmp_path / "page.html"))
    for width in (390, 768, 360):
        resize(clocked, width)
        fits = lambda seen, width=width: width - 26 <= seen["figure"][2] <= width - 10  # noqa: E731
        clocked.until(SEEN, fits)
        seen = clocked.until(f"new Promise(requestAnimationFrame).then(() => {SEEN})", fits)
        assert seen["small"]
        check(seen, width, panels)
    resize(clocked, 1280)
    seen = clocked.until(SEEN, lambda seen: not seen["small"])  # drawn when it is first seen
    assert seen["width"] <= 1280


@pytest.mark.parametrize("name", ["heads", "correlation", "faithfulness"])
def test_a_phone_saves_the_picture_with_its_title(name: str, clocked: Clocked, tmp_path: Path) -> None:
    figure = FIGURES[name][1]()
    resize(clocked, 390)
    clocked.open(write_html(figure, tmp_path / "page.html"))
    (folder := tmp_path / "saved").mkdir()
    click = "[...document.querySelectorAll('.small .save button')].find((each) => each.textContent === '{}').click()"
    assert clocked.downloads(folder, click.format("PNG")).startswith(b"\x89PNG")
    drawn = ElementTree.fromstring(clocked.downloads(folder, click.format("SVG")))
    texts = [each.text or "" for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    wanted = title_of(figure).split()
    told = " ".join(texts).replace("\u2068", "").replace("\u2069", "")
    assert re.search(r"\s+".join(map(re.escape, wanted)), told), told
    assert 300 < float(drawn.get("width", 0)) < 390
    assert clocked.run("document.querySelectorAll('.small .plot .annotation').length") == len(
        figure.layout.meta["small"]["layout"].get("annotations", [])
    )  # the page itself stays as it was


def test_a_comparison_has_its_tables_above(clocked: Clocked, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(comparison_page(results.comparison())[0], encoding="utf-8")
    for width in (390, 768):
        resize(clocked, width)
        clocked.open(path)
        seen = clocked.until(SEEN, lambda seen, width=width: width - 40 <= seen["figure"][2] <= width)
        assert seen["width"] <= width
        assert clocked.run(
            "[...document.querySelectorAll('.figure')].every((each) => each.offsetWidth === each.clientWidth)"
        )
    resize(clocked, 1280)
    clocked.open(path)
    wide = "(([each]) => [each.clientWidth - each.scrollWidth, each.offsetWidth - each.clientWidth])"
    # Nothing scrolls in it, and no bar of another direction takes its place.
    assert clocked.until(f"{wide}(document.querySelectorAll('.figure'))", lambda seen: seen == [0, 0])


@pytest.mark.parametrize("dark", [False, True])
def test_a_pointed_mark_tells_its_numbers_below(clocked: Clocked, tmp_path: Path, dark: bool) -> None:
    """What a text holds stays text there, and the title follows the menu."""
    resize(clocked, 390)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    clocked.ask("Emulation.setEmulatedMedia", media="screen", features=[scheme])
    figure = plot_heads({HOSTILE[0]: importance(), HOSTILE[1]: importance(seed=1)})
    clocked.open(write_html(figure, tmp_path / "page.html"))
    told = "document.querySelector('.told').textContent"
    x, y = clocked.run("""(() => {
      const { left, top, width, height } = document.querySelector(".small .nsewdrag").getBoundingClientRect();
      return [left + width * 2.5 / 4, top + height / 2];
    })()""")
    clocked.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
    seen = clocked.until(told, bool).split("\n")
    assert seen[0] == "layer 1, head 2"
    assert " ± " in seen[1]
    assert seen[2].startswith("rank ")
    title = "document.querySelector('.small h1').textContent.replaceAll(/[\\u2068\\u2069]/g, '')"
    assert clocked.run(title) == f"Head importance: {HOSTILE[0]}"[: len(clocked.run(title))]
    clocked.run("document.querySelector('.small .plot').focus()")
    clocked.press("ArrowDown", 40)
    clocked.until(title, lambda text: text.startswith(f"Head importance: {HOSTILE[1][:20]}"))
    assert clocked.run("document.querySelectorAll('main .small :is(img, script, b, a)').length") == 0
    assert clocked.run("document.querySelector('.small .plot')._fullLayout.paper_bgcolor") == (
        "#12161b" if dark else "#ffffff"
    )
