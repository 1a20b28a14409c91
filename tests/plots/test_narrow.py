"""Pages of maps, flows and trees on a phone: the words and a list of links, in place of a picture that has no room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import plotly.graph_objects as go
import pytest
import results
from browser import Clocked, look
from browser import clocked as clocked
from hostile import HOSTILE

from captum_attattr import Explanation, attribution_tree, plot_attention, plot_flow, plot_tree, write_html

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
        assert seen["links"][0] == f"“{given.tokens[query]}” read “{given.tokens[key]}” in layer {layer}: {value}"
    clocked.ask("Emulation.setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)
    seen = clocked.run(SEEN)
    assert seen["picture"]
    assert not seen["links"]


@pytest.mark.parametrize("name", FIGURES)
def test_hostile_words_stay_text(name: str, tmp_path: Path) -> None:
    given = results.explanation(3, 4, ["[CLS]", *HOSTILE, "[SEP]"], label=HOSTILE[0])
    steps = "seen.words = texts('.narrow .word'); seen.lists = document.querySelectorAll('.narrow li *').length;"
    seen = look(write_html(FIGURES[name](given), tmp_path / "page.html"), steps, tmp_path)
    assert seen["lists"] == 0
    if name != "tree alone":
        assert HOSTILE[0] in seen["words"]
