"""HTML pages that open without a network."""

from __future__ import annotations

import html
import os
import re
from importlib import resources
from pathlib import Path

import plotly.graph_objects as go
import plotly.io

from captum_attattr.files import replacing

_CONFIG = {
    "displaylogo": False,
    "showSendToCloud": False,  # plotly.js offers to upload the figure otherwise
    "responsive": False,
    "showTips": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    "toImageButtonOptions": {"filename": "attention", "scale": 2},
}
# The page may load nothing; plotly.js writes styles and draws pictures into it.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def write_html(figure: go.Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as one HTML file, which opens without a network.

    plotly.js is inside, and the page's own policy forbids it to load anything. Colours follow the reader's
    light or dark setting; paper is light. An old file stays as it is until the new one is there whole.

    Args:
        figure: a figure of this package; other plotly figures work too, in their own colours.
        path: the file; it is replaced if it exists. Its directory must exist.

    Returns:
        The path.

    Raises:
        TypeError: `figure` is not a figure, or `path` not a path.
        ValueError: the directory does not exist, or `path` is one.
        OSError: the file cannot be written.

    Example:
        >>> import tempfile, plotly.graph_objects
        >>> figure = plotly.graph_objects.Figure(layout={"title": {"text": "Empty"}})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_html(figure, folder + "/empty.html").name
        'empty.html'
    """
    if not isinstance(figure, go.Figure):
        raise TypeError(f"figure must be a plotly Figure, not {type(figure).__name__}")
    page = _page(figure)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8", newline="\n")
    return Path(path)


def _page(figure: go.Figure) -> str:
    assets = resources.files("captum_attattr") / "assets"
    style, script = ((assets / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    plain = re.sub("<[^<>]*>|[\u2068\u2069]", "", figure.layout.title.text or "Explanation")
    title = html.escape(html.unescape(plain))
    meta = figure.layout.meta
    hint = html.escape(meta.get("hint", "")) if isinstance(meta, dict) else ""
    drawing = plotly.io.to_html(
        figure, config=_CONFIG, include_plotlyjs=True, full_html=False, div_id="plot", post_script=script
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
<div role="figure" aria-label="{title}" aria-describedby="hint">
{drawing}
</div>
<p id="hint">{hint}</p>
<p id="chosen" role="status"></p>
</main>
</body>
</html>
"""
