"""HTML pages that open without a network."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments
from captum_attattr.files import replacing
from captum_attattr.plots.canvas import generation_page, image_page
from captum_attattr.plots.canvas.library import content_script, library_element, library_script, write_library
from captum_attattr.plots.canvas.narrow import narrow_html
from captum_attattr.plots.canvas.packing import figure_content
from captum_attattr.plots.canvas.tokens_page import SCRIPTS, STYLES, tokens_body

_CONFIG = {
    "displaylogo": False,
    "showSendToCloud": False,  # plotly.js offers to upload the figure otherwise
    "responsive": False,
    "showTips": False,
    "modeBarButtonsToRemove": ["toImage", "select2d", "lasso2d", "autoScale2d"],
}
# The page may load nothing; plotly.js writes styles and draws pictures into it.
_POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
_POLICY_BESIDE = _POLICY.replace("script-src", "script-src 'self' file:")


@checked_arguments
def write_html(
    figure: go.Figure, path: str | os.PathLike[str], *, plotlyjs: Literal["inside", "directory"] = "inside"
) -> Path:
    """Write a figure as one HTML file, which opens without a network.

    plotly.js is inside, compressed (any browser since 2023 unpacks it; an older one is told so), with the traces that
    the figures of this package use; other figures bring all of plotly.js. A policy in the page forbids to load
    anything. Colours follow the reader's light or dark setting; paper is light. A window that is narrower than the
    figure has its panels one under the other; of maps, flows and trees it has the words and a list of links, on a phone
    in place of the picture. Two buttons of a wide window save the picture as PNG and as SVG. An old file stays as it is
    until the new one is there whole.

    Args:
        figure: a figure of this package; other plotly figures work too, in one set of colours. The maps of heads
            travel as 8-bit codes, within 0.8 % of a head's largest entry and finer for small ones, and the page shows
            two digits of them; the figure has the exact ones. Flat maps of long texts, which would make a page of more
            than 5 MB (72 heads) to 8 MB (144 or more), travel as coarser codes, and the page says how coarse.
        path: the file; it is replaced if it exists. Its directory must exist.
        plotlyjs: "inside" the page; or "directory", for many pages in one: a file beside them, which they all load.

    Returns:
        The path.

    Raises:
        TypeError: `figure` is not a figure, or `path` not a path.
        ValueError: the directory does not exist, or `path` is one; or `plotlyjs` is something else.
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
    if plotlyjs not in ("inside", "directory"):
        raise ValueError(f"plotlyjs must be 'inside' or 'directory', not {plotlyjs!r:.60}")
    if _meta(figure).keys() & {"tokens", "generation", "pictures"}:  # pages of their own, without plotly.js
        return write_page(figure_page(figure), path)
    text = page(title_of(figure), figure_block(figure), [figure], beside=plotlyjs == "directory")
    written = write_page(text, path)
    if plotlyjs == "directory":
        write_library([figure], written.parent)
    return written


def write_page(text: str, path: str | os.PathLike[str]) -> Path:
    """Write a page whole or not at all, and return its path."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return Path(path)


def title_of(figure: go.Figure) -> str:
    """Return a figure's title as plain text."""
    return html.unescape(
        re.sub("<[^<>]*>|[\u2068\u2069]", "", _meta(figure).get("title") or figure.layout.title.text or "Explanation")
    )


def figure_block(figure: go.Figure, name: str = "") -> str:
    """Return the HTML of one figure of a page.

    Args:
        figure: any figure.
        name: begins the ids inside, where a page has several figures: "tree" makes "tree-plot", "tree-hint" and
            "tree-chosen" of "plot", "hint" and "chosen".
    """
    start = f"{name}-" if name else ""
    meta = _meta(figure)
    config = {**_CONFIG, "toImageButtonOptions": {"filename": meta.get("filename", "figure")}}
    instead = narrow_html(title_of(figure), meta["narrow"]) if "narrow" in meta else ""
    content = figure_content(figure, config)
    hint = " ".join(filter(None, [meta.get("hint"), content.note]))
    size = "; ".join(f"{side}: {figure.layout[side]}px" for side in ("width", "height") if figure.layout[side])
    return f"""<div class="figure" role="figure" aria-label="{html.escape(title_of(figure))}" \
aria-describedby="{start}hint">
<div class="plot" id="{start}plot" style="{size}"></div>
<p class="hint" id="{start}hint">{html.escape(hint)}</p>
<p class="chosen" id="{start}chosen" role="status"></p>
{instead}{_small_html(meta["small"], start) if "small" in meta else ""}{content_script(content)}
</div>"""


def _small_html(small: dict[str, Any], start: str) -> str:
    """Return the HTML of the small form of a figure, which `assets/small.js` completes."""
    return f"""<div class="small"><h1></h1><p class="subtitle"></p>
<div class="plot" id="{start}small-plot"></div>
<p class="told"></p>
<p class="hint" id="{start}small-hint">{html.escape(small["layout"]["meta"].get("hint", ""))}</p>
<p class="chosen" role="status"></p></div>"""


def page(title: str, body: str, figures: Sequence[go.Figure], style: str | None = None, *, beside: bool = False) -> str:
    """Return the HTML of a whole page.

    plotly.js and each script are in it once, however many figures there are. A figure names the scripts that make
    it answer in its `layout.meta["scripts"]`; `legend.js` and `page.js` run for all figures, `controls.js` for those of
    this package.
    Each script is a file of `assets/` and becomes a function, called once for each such figure. It may call what
    `draw.js` defines, and gets four arguments: `plot`, the drawn element; `meta`, of its layout; `hint` and `chosen`,
    the paragraphs below it, of which a reader sees the first and a screen reader speaks the second.

    Args:
        title: plain text.
        body: HTML, with a `figure_block` for each figure.
        figures: all figures in it.
        style: a stylesheet in `assets/` for such pages, beside `page.css`.
        beside: whether plotly.js is a file beside the page; else it is inside.
    """
    names = dict.fromkeys(
        [
            "controls",
            "legend",
            "page",
            "small",
            *(name for figure in figures for name in _meta(figure).get("scripts", ())),
        ]
    )
    scripts = "\n".join(f"{name}: (plot, meta, hint, chosen) => {{\n{_asset(f'{name}.js')}}}," for name in names)
    narrow = ["sentence.css", "narrow.css"] if any("narrow" in _meta(figure) for figure in figures) else []
    sheet = "".join(map(_asset, ["page.css", *narrow, *([style] if style else [])]))
    policy = _POLICY_BESIDE if beside else _POLICY
    return f"""{_head(title, sheet, policy)}
<body>
<main>
{body}
</main>
<script>window.PlotlyConfig = {{ MathJaxConfig: "local" }};</script>
{library_element(figures) if beside else library_script(figures)}
<script>
(() => {{
const scripts = {{
{scripts}
}};
{_asset("draw.js")}}})();
</script>
</body>
</html>
"""


def figure_page(figure: go.Figure) -> str:
    """Return the HTML of the page of one figure, plotly.js inside if it is drawn by that."""
    meta = _meta(figure)
    if "tokens" in meta:
        return bare_page(title_of(figure), tokens_body(meta["tokens"]), STYLES, SCRIPTS)
    if "generation" in meta:
        own = generation_page.generation_body(meta["generation"])
        return bare_page(title_of(figure), own, generation_page.STYLES, generation_page.SCRIPTS)
    if "pictures" in meta:
        return bare_page(
            title_of(figure), image_page.image_body(meta["pictures"]), image_page.STYLES, image_page.SCRIPTS
        )
    return page(title_of(figure), figure_block(figure), [figure])


def bare_page(title: str, body: str, styles: Sequence[str], scripts: Sequence[str]) -> str:
    """Return the HTML of a page without plotly.js; `styles` and `scripts` are files of `assets/`, in their order."""
    style, script = ("".join(map(_asset, names)) for names in (styles, scripts))
    return f"""{_head(title, style, _POLICY)}
<body>
<main>
{body}
</main>
<script>
(() => {{
{script}}})();
</script>
</body>
</html>
"""


def _head(title: str, style: str, policy: str) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>
{style}</style>
</head>"""


def _meta(figure: go.Figure) -> dict[str, Any]:
    """Return what `finish` stored with a figure; nothing for other figures."""
    meta = figure.layout.meta
    return meta if isinstance(meta, dict) else {}


def _asset(name: str) -> str:
    """Return a script or a stylesheet of `assets/`."""
    return (resources.files("captum_attattr.plots.canvas") / "assets" / name).read_text(encoding="utf-8")
