"""Pages of maps, flows and trees on a phone: the words and a list of links, in place of a picture that has no room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
import results
from browser import Clocked, look
from browser import clocked as clocked
from hostile import HOSTILE

from captum_attattr import (
    Explanation,
    attribution_tree,
    plot_attention,
    plot_flow,
    plot_generation,
    plot_image,
    plot_tokens,
    plot_tree,
    write_html,
    write_report,
)

FIGURES: dict[str, Callable[[Explanation], go.Figure]] = {
    "flow": plot_flow,
    "maps": plot_attention,
    "tree": lambda given: plot_tree(attribution_tree(given, 0.05), given),
    "tree alone": lambda given: plot_tree(attribution_tree(given, 0.05)),
}
SEEN = """({
  width: document.documentElement.scrollWidth,
  picture: document.querySelector(".plot").getClientRects().length > 0,
  words: [...document.querySelectorAll(".narrow .word")].map((each) => each.textContent),
  links: [...document.querySelectorAll(".narrow li")].filter((each) => each.getClientRects().length)
    .map((each) => each.textContent.replaceAll(/[\u2068\u2069]/g, "")),
})"""


@pytest.mark.parametrize("name", FIGURES)
def test_a_phone_has_the_words_and_the_links(name: str, clocked: Clocked, tmp_path: Path) -> None:
    given = results.explanation(3, 4, ["[CLS]", "a", "fine", "film", "[SEP]"])
    path = write_html(FIGURES[name](given), tmp_path / "page.html")
    clocked.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
    clocked.open(path)
    seen = clocked.run(SEEN)
    assert seen["width"] <= 390
    assert not seen["picture"]
    assert seen["words"] == ([] if name == "tree alone" else given.tokens)
    sums = given.attributions.double().sum(1)
    if name.startswith("tree"):
        assert len(seen["links"]) == attribution_tree(given, 0.05).number_of_edges()
    else:
        assert len(seen["links"]) == 10
        layer, query, key = (int(part) for part in (sums.abs() == sums.abs().max()).nonzero()[0])
        value = f"{float(sums[layer, query, key]):+.3g}".replace("-", "−")
        reader, read = (given.tokens[i] if given.special[i] else f"“{given.tokens[i]}”" for i in (query, key))
        read = "itself" if query == key else read
        assert seen["links"][0] == f"{reader} read {read} in layer {layer}: {value}"
    clocked.ask("Emulation.setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)
    seen = clocked.until(SEEN, lambda seen: not seen["links"])
    assert seen["picture"]
    clocked.ask("Emulation.setDeviceMetricsOverride", width=768, height=800, deviceScaleFactor=1, mobile=False)
    seen = clocked.until(SEEN, lambda seen: bool(seen["links"]))  # both: the picture scrolls in its own box
    assert seen["width"] <= 768
    assert seen["picture"]


@pytest.mark.parametrize("name", FIGURES)
def test_a_phone_saves_the_picture_that_it_has_no_room_for(name: str, clocked: Clocked, tmp_path: Path) -> None:
    figure = FIGURES[name](results.explanation(3, 4, ["[CLS]", "a", "<b>fine</b>", "film", "[SEP]"]))
    clocked.ask("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=False)
    clocked.open(write_html(figure, tmp_path / "page.html"))
    (folder := tmp_path / "saved").mkdir()
    click = "[...document.querySelectorAll('.narrow .save button')].find((each) => each.textContent === '{}').click()"
    assert clocked.downloads(folder, click.format("PNG")).startswith(b"\x89PNG")
    drawn = ElementTree.fromstring(clocked.downloads(folder, click.format("SVG")))
    assert float(drawn.get("width", 0)) == figure.layout.width
    texts = [each.text or "" for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert any("<b>fine</b>" in text for text in texts)


def test_the_mouse_finds_a_token_of_a_picture_that_is_scrolled(clocked: Clocked, tmp_path: Path) -> None:
    given = results.explanation(3, 4, ["[CLS]", *(f"word{i}" for i in range(20)), "[SEP]"])
    path = write_html(FIGURES["tree"](given), tmp_path / "page.html")
    clocked.ask("Emulation.setDeviceMetricsOverride", width=768, height=800, deviceScaleFactor=1, mobile=False)
    clocked.open(path)
    last, x, y = clocked.run("""(() => {
      const plot = document.querySelector(".plot");
      plot.scrollLeft = 10000;
      const { xaxis, yaxis } = plot._fullLayout;
      const { x, y } = plot.data[0];
      const at = x.indexOf(Math.max(...x));
      const { left, top } = plot.querySelector(".main-svg").getBoundingClientRect();
      return [x[at], left + xaxis._offset + xaxis.l2p(x[at]), top + yaxis._offset + yaxis.l2p(y[at])];
    })()""")
    assert 0 < x < 768
    clocked.click(x, y)
    chosen = clocked.until("document.querySelector('.chosen').textContent", bool)
    assert chosen.replace("\u2068", "").startswith(f"{given.tokens[last]}")


PAGES: dict[str, Callable[[Path], Path]] = {
    "words": lambda path: write_html(plot_tokens([_long(), _long(1)]), path),
    "one text": lambda path: write_html(plot_tokens(_long()), path),
    "answer": lambda path: write_html(plot_generation(results.generation(30, 20)), path),
    "picture": lambda path: write_html(plot_image(results.pictured()), path),
    "report": lambda path: write_report(_long(), path),
    "report of a picture": lambda path: write_report(results.pictured(), path),
    "report with importances": lambda path: write_report(
        _long(), path, importance={"x" * 80: results.importance(3, 4), "b": results.importance(3, 4, seed=1)}
    ),
    "report with heads": lambda path: write_report(_long(), path, importance=results.importance(3, 4)),
}
# What is cut at the right edge, and does not scroll in a box of its own.
CUT = """[...document.querySelectorAll("main *")].filter((each) => {
  const box = each.getBoundingClientRect();
  const own = [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const boxed = each.closest("svg") || getComputedStyle(each).clipPath !== "none";
  for (let at = each; at && at.tagName !== "MAIN"; at = at.parentElement) {
    if (/auto|scroll/.test(getComputedStyle(at).overflowX)) return false;
  }
  return own && box.width && !boxed && (box.right > innerWidth + 0.5 || box.left < -0.5);
}).map((each) => each.textContent.slice(0, 40))"""


def _long(seed: int = 0) -> Explanation:
    words = ["[CLS]", *("Donaudampfschifffahrtsgesellschaft" if i == 5 else f"word{i}" for i in range(40)), "[SEP]"]
    return results.explanation(3, 4, words, seed=seed)


@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_scrolls_to_the_side(name: str, width: int, clocked: Clocked, tmp_path: Path) -> None:
    path = PAGES[name](tmp_path / "page.html")
    clocked.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    clocked.ask("Page.navigate", url=path.as_uri())
    loaded = "location.protocol + document.readyState"
    clocked.until(loaded, lambda seen: seen == "file:complete")
    clocked.run("new Promise((done) => setTimeout(done, 300))")
    assert clocked.run("document.documentElement.scrollWidth") <= width
    assert clocked.run(CUT) == []


@pytest.mark.parametrize("name", FIGURES)
def test_hostile_words_stay_text(name: str, tmp_path: Path) -> None:
    given = results.explanation(3, 4, ["[CLS]", *HOSTILE, "[SEP]"], label=HOSTILE[0])
    steps = "seen.words = texts('.narrow .word'); seen.lists = document.querySelectorAll('.narrow li *').length;"
    seen = look(write_html(FIGURES[name](given), tmp_path / "page.html"), steps, tmp_path)
    assert seen["lists"] == 0
    if name != "tree alone":
        assert HOSTILE[0] in seen["words"]
