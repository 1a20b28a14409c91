"""How results show themselves: a line of text, in notebooks the page of their figure, and that page in a browser."""

from __future__ import annotations

import html
import importlib
import tempfile
import webbrowser
from pathlib import Path
from typing import Any, NamedTuple

from captum_attattr.formatting import visible

_MOST = 500  # characters of a line
_CELL = 1000  # pixels of a notebook's cell at least, into which wider figures are shrunk


class View(NamedTuple):
    """A whole HTML page, the pixels that it is high, and those that it is wide, if it keeps a width of its own."""

    page: str
    height: int
    width: int = 0


class Shown:
    """A result that shows itself. What it inherits from this needs `_line` and `_view`."""

    def _line(self) -> str:
        """Return what the result is, as one line."""
        raise NotImplementedError

    def _view(self) -> View:
        """Return the page that shows it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return line(f"{type(self).__name__}({self._line()})")

    def _repr_html_(self) -> str:
        """Return the page in a frame that may run its own scripts and reach nothing else, below a line of text.

        Nothing is loaded: it works in Jupyter, VS Code and Colab without a network, in light and dark.
        """
        page, height, width = self._view()
        zoom = f"; zoom: {100 * _CELL // width / 100}" if width > _CELL else ""
        frame = f'<iframe sandbox="allow-scripts allow-downloads" srcdoc="{html.escape(page, quote=True)}"'
        told = html.escape(line(self._line()))
        return f'<div>{told}</div>\n{frame} width="100%" height="{height}" style="border:0{zoom}"></iframe>'

    def show(self) -> Path:
        """Open the result's page in a browser.

        Returns:
            The page, a temporary file.
        """
        with tempfile.NamedTemporaryFile(
            "w", suffix=".html", prefix="attattr_", delete=False, encoding="utf-8"
        ) as file:
            file.write(self._view().page)
        webbrowser.open(Path(file.name).as_uri())
        return Path(file.name)


def line(text: str) -> str:
    """Return a text as one line of at most 500 characters, without what would act in a terminal."""
    return visible(" ".join(text.split()), _MOST)


def figure_view(plot: str, *results: Any) -> View:
    """Return the page of a figure of this package: what the function `plot` makes of some results.

    The functions are found by name, through the root: results lie below the room of the figures.
    """
    figure = getattr(importlib.import_module("captum_attattr"), plot)(*results)
    pages = importlib.import_module("captum_attattr.plots.canvas.pages")
    # Pages of words and pictures flow; those that plotly draws are as wide as the figure and a margin.
    width = int(figure.layout.width) + 20 if figure.data else 0
    return View(pages.figure_page(figure), int(figure.layout.height) + 60, width)


def comparison_view(comparison: Any) -> View:
    """Return the page of a comparison of attributions: its tables above its curves."""
    return View(*importlib.import_module("captum_attattr.plots.comparison_page").comparison_page(comparison))


def report_view(explanation: Any) -> View:
    """Return the page of a report."""
    report = importlib.import_module("captum_attattr.plots.report_page")
    return View(report.report_html(explanation), 950)
