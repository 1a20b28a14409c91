"""Every page that is made of an explanation says how exact its numbers are, at each width."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import results
import torch
from browser import Clocked
from browser import clocked as clocked

from captum_attattr import (
    Explanation,
    attribution_tree,
    plot_flow,
    plot_image,
    plot_tokens,
    plot_tree,
    write_html,
    write_report,
)

TOKENS = ["[CLS]", "a", "fine", "film", "[SEP]"]
PAGES: dict[str, Callable[[Explanation, Path], Path]] = {
    "report": write_report,
    "flow": lambda given, path: write_html(plot_flow(given), path),
    "tree": lambda given, path: write_html(plot_tree(attribution_tree(given, 0.05), given), path),
}
SEEN = "[...document.querySelectorAll('.certainty, .hint')].filter((each) => each.getClientRects().length)"


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", [*PAGES, "picture"])
def test_pages_say_how_exact_they_are(name: str, width: int, clocked: Clocked, tmp_path: Path) -> None:
    clocked.ask("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    for largest, told in ((0.002, "How exact: to 0.2 %, the"), (0.3, "Take these numbers as rough: the")):
        changed = {"error": torch.tensor([largest, 0.0, 0.0])}
        if name == "picture":
            path = write_html(plot_image(results.pictured(**changed)), tmp_path / "page.html")
        else:
            path = PAGES[name](results.explanation(3, 4, TOKENS, **changed), tmp_path / "page.html")
        clocked.open(path)
        (said,) = clocked.run(SEEN + f".map((each) => each.innerText).filter((text) => text.includes('{told}'))")
        assert said.startswith(f"{told} estimated error of the worst layer's map")
        assert clocked.run("document.documentElement.scrollWidth") <= width


def test_a_table_of_texts_marks_those_whose_numbers_are_rough(tmp_path: Path) -> None:
    every = [results.explanation(3, 4, TOKENS, error=torch.full((3,), error)) for error in (0.001, 0.3, 0.001)]
    rows = write_html(plot_tokens(every), tmp_path / "page.html").read_text("utf-8").split("<tr data-row=")[1:]
    assert ["rough numbers" in row for row in rows] == [False, True, False]
