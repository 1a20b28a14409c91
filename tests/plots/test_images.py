"""Pictures for papers: without menus, whole or not at all, and clear where what renders them is missing."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import plotly.graph_objects as go
import pytest
import results

from captum_attattr import attribution_tree, plot_attention, plot_tree, write_image


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that were rendered, with the options; instead of kaleido, which needs a browser of its own."""
    seen: list[Any] = []

    def to_image(figure: go.Figure, **options: Any) -> bytes:
        seen.append((figure, options))
        return b"picture"

    monkeypatch.setitem(sys.modules, "kaleido", types.ModuleType("kaleido"))
    monkeypatch.setattr(go.Figure, "to_image", to_image)
    return seen


@pytest.mark.parametrize(("name", "scale"), [("a.pdf", 1), ("a.SVG", 1), ("a.png", 3), ("a.jpg", 3)])
def test_a_picture_has_no_menus_and_the_figure_keeps_its_own(
    name: str, scale: int, rendered: list[Any], tmp_path: Path
) -> None:
    figure = plot_attention(results.explanation(2, 3, 5))
    menus = len(figure.layout.updatemenus)
    assert write_image(figure, tmp_path / name, scale=3) == tmp_path / name
    ((drawn, options),) = rendered
    assert options == {"format": name[2:].lower(), "scale": scale}
    assert not drawn.layout.updatemenus
    assert len(drawn.data) == len(figure.data)
    assert len(figure.layout.updatemenus) == menus > 0
    assert (tmp_path / name).read_bytes() == b"picture"


@pytest.mark.parametrize(
    ("figure", "name", "options", "error", "message"),
    [
        ({}, "a.pdf", {}, TypeError, "figure must be a plotly Figure, not dict"),
        (go.Figure(), "a.gif", {}, ValueError, "must end in .pdf, .svg"),
        (go.Figure(), "a", {}, ValueError, "must end in .pdf, .svg"),
        (go.Figure(), "a.pdf", {"scale": 0}, ValueError, "scale must be above 0, not 0"),
        (go.Figure(), "a.pdf", {"scale": "2"}, TypeError, "scale must be a number, not str"),
        (go.Figure(), "nowhere/a.pdf", {}, ValueError, "directory .*nowhere does not exist"),
    ],
)
def test_wrong_input_renders_nothing(
    figure: Any, name: str, options: Any, error: type[Exception], message: str, rendered: list[Any], tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        write_image(figure, tmp_path / name, **options)
    assert not rendered
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_named_with_the_remedy(rendered: list[Any], monkeypatch: Any, tmp_path: Path) -> None:
    def without_chrome(*_: Any, **__: Any) -> bytes:
        raise RuntimeError("Kaleido requires Google Chrome to be installed.")

    monkeypatch.setattr(go.Figure, "to_image", without_chrome)
    with pytest.raises(RuntimeError, match=r"needs a Chrome or Chromium, .*plotly_get_chrome"):
        write_image(go.Figure(), tmp_path / "a.pdf")
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(RuntimeError, match=r"needs kaleido: pip install .captum_attattr\[images\]"):
        write_image(go.Figure(), tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []


def test_a_tree_as_vectors(tmp_path: Path) -> None:
    pytest.importorskip("kaleido")
    given = results.explanation(3, 4, 6)
    figure = plot_tree(attribution_tree(given, 0.1), given)
    text = write_image(figure, tmp_path / "tree.svg").read_text("utf-8")
    shown = "".join(ElementTree.fromstring(text).itertext())
    assert "word3" in shown
    assert "width: score" not in shown
    pdf = write_image(figure, tmp_path / "tree.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile" in pdf  # fonts are embedded
