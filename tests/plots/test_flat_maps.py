"""Maps in which no value is rare: their pages keep to their size, and say what that costs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import results
import torch
from browser import look

from captum_attattr import (
    Explanation,
    attribution_tree,
    plot_attention,
    plot_flow,
    plot_tree,
    write_html,
    write_report,
)
from captum_attattr.plots import flow, report_data
from captum_attattr.plots.canvas import packing
from captum_attattr.plots.canvas.codes import LEVELS, fitting, packed, room, signed_codes, unsigned_codes

PAGES = {
    "report": write_report,
    "maps": lambda given, path: write_html(plot_attention(given), path),
    "flow": lambda given, path: write_html(plot_flow(given), path),
}
NOTE = "A page has no room for so many numbers of which none is rare"


def flat(*shape: int, **changed: Any) -> Explanation:
    """Every attribution from -1 to 1 is as frequent as every other, and every weight but for the sum of its row."""
    generator = torch.Generator().manual_seed(0)
    shape = (*shape, shape[-1])
    weights = torch.rand(shape, generator=generator)
    attributions = 2 * torch.rand(shape, generator=generator) - 1
    given = {"attributions": attributions, "attention": weights / weights.sum(-1, keepdim=True)}
    return results.explanation(*shape[:3], **given | changed)


@pytest.mark.parametrize(("page", "heads"), [("report", 6), ("maps", 6), ("flow", 6), ("report", 12)])
def test_pages_of_200_tokens_keep_to_their_size(page: str, heads: int, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    PAGES[page](flat(heads, 12, 200), path)
    assert path.stat().st_size <= {6: 5e6, 12: 8e6}[heads]
    text = path.read_text("utf-8")
    assert NOTE in text
    if page == "report":
        assert json.loads(re.search('id="data">(.*?)</script>', text)[1])["maps"]["levels"] != list(LEVELS[0])  # type: ignore[index]


@pytest.mark.parametrize("heads", [6, 12])
def test_a_tree_of_200_tokens_keeps_to_its_size(heads: int, tmp_path: Path) -> None:
    given = flat(heads, 12, 200)
    tree = attribution_tree(given)
    assert tree.number_of_edges() == 397  # all tokens are in it
    path = write_html(plot_tree(tree, given), tmp_path / "tree.html")
    assert path.stat().st_size <= 0.8e6
    assert "Links of the tree, the 50 strongest of 397</h2>" in path.read_text("utf-8")


def test_what_has_room_keeps_all_levels(tmp_path: Path) -> None:
    for page, write in PAGES.items():
        write(results.explanation(6, 12, 60), tmp_path / page)
        assert NOTE not in (tmp_path / page).read_text("utf-8")
    rows = np.tile(np.random.default_rng(0).uniform(-1, 1, (1, 1, 60)).astype(np.float32), (4, 60, 1))
    assert fitting(rows, None, 5e3)[0].levels == LEVELS[0][0]  # each row is that above it


@pytest.mark.parametrize("kept", [True, False])
def test_codes_are_the_finest_that_fit(kept: bool) -> None:
    given = flat(2, 2, 120)
    maps, weights = (each.float().numpy().reshape(4, 120, 120) for each in (given.attributions, given.attention))  # type: ignore[union-attr]
    seen = []
    for most in (1e6, 1.2e5, 1.1e5, 1e5, 9e4, 8e4, 7e4, 6e4, 5e4, 4e4, 1.0):
        every = [codes for codes in fitting(maps, weights if kept else None, most) if codes is not None]
        seen.append(tuple(codes.levels for codes in every))
        if every[0].levels > 7:
            assert len(packed(b"".join(codes.codes.tobytes() for codes in every))) * 4 / 3 <= 1.05 * most
        for codes, exact in zip(every, (maps, weights), strict=False):
            share = codes.codes.astype(float) / codes.levels
            found = np.sign(share) * share**2 * codes.largest[:, None, None]
            assert (np.abs(found - exact) <= codes.largest[:, None, None] / codes.levels + 1e-7).all()
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == LEVELS[0][: 1 + kept]
    assert seen[-1] == LEVELS[-1][: 1 + kept]


def test_room_grows_with_the_heads() -> None:
    assert [room(heads, 0) for heads in (72, 144, 1000)] == pytest.approx([5e6, 8e6, 8e6])


def test_a_report_reads_coarse_codes_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = flat(2, 2, 6)
    monkeypatch.setattr(report_data, "room", lambda *_: 1.0)
    page = write_report(given, tmp_path / "report.html")
    seen = look(
        page,
        """
      const canvas = document.getElementById("attribution");
      const { left, top, width, height } = canvas.getBoundingClientRect();
      seen.cells = [];
      for (let cell = 0; cell < 36; cell++) {
        const [x, y] = [left + ((cell % 6) + 0.5) * width / 6, top + (Math.floor(cell / 6) + 0.5) * height / 6];
        canvas.dispatchEvent(new PointerEvent("pointermove", { clientX: x, clientY: y, bubbles: true }));
        seen.cells.push(document.getElementById("map-told").textContent);
      }
      seen.name = document.getElementById("map-name").textContent;
      seen.scale = document.getElementById("map-scale").textContent;
    """,
        tmp_path,
    )
    assert seen["scale"].endswith(
        f"{NOTE}: those of single heads, attributions within 14 % and attention within 14 % of the head's largest."
    )
    layer, head = map(int, re.findall("[0-9]+", seen["name"]))
    assert given.attributions.abs().amax((2, 3)).argmax() == 2 * layer + head
    read = [re.search("about (.*), attention about (.*)", cell).groups() for cell in seen["cells"]]  # type: ignore[union-attr]
    assert given.attention is not None
    numbers = np.array([[float(each.replace("−", "-")) for each in pair] for pair in read])
    for at, maps, codes in ((0, given.attributions, signed_codes), (1, given.attention, unsigned_codes)):
        exact = codes(maps[layer, head].numpy(), 7)
        share = exact.codes.astype(float) / 7
        np.testing.assert_allclose(numbers[:, at], (np.sign(share) * share**2 * exact.largest).ravel(), rtol=0.06)


def test_figures_read_coarse_codes_and_say_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = flat(2, 2, 6)
    for module in (packing, flow):
        monkeypatch.setattr(module, "room", lambda *_: 1.0)
    steps = "seen.hint = document.querySelector('.hint').textContent;"
    maps = write_html(plot_attention(given), tmp_path / "maps.html")
    shown = "document.querySelector('.plot').data.filter((trace) => /^att[a-z]* [0-9] [0-9]$/.test(trace.name))"
    steps += f"seen.maps = {shown}.map((trace) => [trace.name, ...trace.z.map((row) => [...row])]);"
    seen = look(maps, steps, tmp_path)
    assert len(seen["maps"]) == 2
    assert "attributions within 14 % and attention within 14 %" in seen["hint"]
    for name, *rows in seen["maps"]:
        kind, layer, head = name.split()
        exact = (given.attributions if kind == "attribution" else given.attention)[int(layer), int(head)].numpy()  # type: ignore[index]
        assert 0 < np.abs(np.array(rows) - exact).max() <= np.abs(exact).max() / 7
    seen = look(write_html(plot_flow(given), tmp_path / "flow.html"), steps.partition("seen.maps")[0], tmp_path)
    assert "attributions within 14 % of the head's largest" in seen["hint"]
