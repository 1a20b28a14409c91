"""plotly.js in pages: small, of the version that builds the figures, with its licences, unpacked by the browser."""

from __future__ import annotations

import gzip
import re
from importlib import resources
from pathlib import Path

import plotly.graph_objects as go
import pytest
from browser import look
from plotly.offline import get_plotlyjs

from captum_attattr.plots.canvas.library import compressed
from captum_attattr.plots.canvas.pages import write_html

BUNDLE = resources.files("captum_attattr.plots.canvas") / "assets" / "plotly.min.js.gz"


def test_the_bundle_is_small_and_has_the_licences_of_all_that_is_inside() -> None:
    packed = BUNDLE.read_bytes()
    assert len(packed) < 450_000
    licences = gzip.decompress(packed).decode("utf-8").split("*/")[0]
    for name in ("plotly.js 4", "@plotly/d3", "maplibre-gl", "d3-format", "polybooljs"):
        assert name in licences
    assert licences.count("Permission is hereby granted, free of charge") >= 10


def test_the_bundle_is_of_the_version_that_plotly_itself_brings() -> None:
    """The figures are made by Python's plotly, for the plotly.js inside it; an older one may lack what they ask for."""
    own = re.search(r"plotly\.js v(\d+)", get_plotlyjs()[:300])
    built = re.search(r"plotly\.js (\d+)\.", gzip.decompress(BUNDLE.read_bytes()).decode("utf-8"))
    assert own
    assert built
    assert int(built[1]) >= int(own[1])


@pytest.mark.parametrize("kind", ["scatter", "bar", "heatmap", "pie"])
@pytest.mark.parametrize("plotlyjs", ["inside", "directory"])
def test_each_figure_has_the_library_that_it_needs(kind: str, plotlyjs: str, tmp_path: Path) -> None:
    values = {"pie": {"values": [1, 2]}, "heatmap": {"z": [[1, 2], [3, 4]]}}.get(kind, {"x": [1, 2], "y": [3, 4]})
    path = write_html(go.Figure([{"type": kind, **values}]), tmp_path / "page.html", plotlyjs=plotlyjs)  # type: ignore
    marks = {"pie": ".slice", "heatmap": ".heatmaplayer image", "bar": ".bars path", "scatter": "path.js-line"}
    seen = look(path, f"seen.marks = document.querySelectorAll({marks[kind]!r}).length;", tmp_path)
    assert seen["marks"] >= 1
    beside = {"pie": "plotly.min.js"}.get(kind, "plotly-slim.min.js")
    assert (tmp_path / beside).is_file() == (plotlyjs == "directory")
    limits = {"inside": 2_500_000 if kind == "pie" else 600_000, "directory": 30_000}
    assert path.stat().st_size < limits[plotlyjs]


def test_a_browser_that_cannot_unpack_says_what_is_needed(tmp_path: Path) -> None:
    path = write_html(go.Figure([{"type": "bar", "y": [1]}]), tmp_path / "page.html")
    old = path.read_text("utf-8").replace("<script>\n(() => {", "<script>delete window.DecompressionStream;\n(() => {")
    path.write_text(old.replace('class="figure"', 'class="figure" data-drawn data-x'), "utf-8")
    with pytest.raises(AssertionError):  # nothing is drawn
        look(path, "", tmp_path)
    steps = "document.documentElement.dataset.text = document.querySelector('.plot').textContent; "
    steps += "if (!document.documentElement.dataset.text.includes('needs a browser')) throw new Error('not told');"
    steps += "document.querySelector('.plot').classList.add('main-svg');"
    assert look(path, steps + "seen.drawn = 1;", tmp_path)["failures"] == []


def test_other_places_for_the_library_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="plotlyjs must be 'inside' or 'directory', not 'cdn'"):
        write_html(go.Figure(), tmp_path / "page.html", plotlyjs="cdn")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_same_text_same_bytes() -> None:
    assert compressed("a" * 1000) == compressed("a" * 1000)
