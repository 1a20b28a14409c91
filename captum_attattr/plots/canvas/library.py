"""plotly.js as a page has it: compressed, with the traces that its figures use."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from captum_attattr.files import replacing
from captum_attattr.plots.canvas.codes import packed
from captum_attattr.plots.canvas.packing import Content

_SLIM = frozenset(("scatter", "bar", "heatmap"))
"""The traces of `assets/plotly.min.js.gz`, which `tools/plotly_bundle.mjs` makes."""
_NAMES = {True: "plotly-slim.min.js", False: "plotly.min.js"}
_COMPRESSED_FROM = 200_000  # characters of a figure's JSON


def compressed(text: str) -> bytes:
    """Return a text as gzip has it, the same bytes for the same text."""
    return gzip.compress(text.encode("utf-8"), compresslevel=6, mtime=0)


def packed_script(kind: str, content: bytes) -> str:
    """Return an element that holds compressed bytes; `kind` is its class."""
    return f'<script type="application/gzip" class="{kind}">{base64.b64encode(content).decode("ascii")}</script>'


def content_script(content: Content) -> str:
    """Return the elements with the JSON of a figure, compressed if it is long, and with its arrays."""
    arrays = "\n" + packed_script("arrays", packed(content.arrays)) if content.arrays else ""
    if len(content.text) < _COMPRESSED_FROM:
        return f'<script type="application/json" class="content">{content.text}</script>{arrays}'
    return packed_script("content", compressed(content.text)) + arrays


def library_script(figures: Sequence[go.Figure]) -> str:
    """Return the element with the plotly.js that some figures need: all traces of plotly, if ours are not enough."""
    return packed_script("library", _library(_slim(figures)))


def library_element(figures: Sequence[go.Figure]) -> str:
    """Return the element that loads plotly.js from beside the page."""
    return f'<script src="{_NAMES[_slim(figures)]}"></script>'


def write_library(figures: Sequence[go.Figure], folder: Path) -> None:
    """Write plotly.js into a folder, if it is not there."""
    path, content = folder / _NAMES[_slim(figures)], gzip.decompress(_library(_slim(figures)))
    if not path.is_file() or path.read_bytes() != content:
        with replacing(path) as temporary:
            temporary.write_bytes(content)


def _slim(figures: Sequence[go.Figure]) -> bool:
    return {trace.type for figure in figures for trace in figure.data} <= _SLIM


@cache
def _library(slim: bool) -> bytes:
    if slim:
        return (resources.files("captum_attattr.plots.canvas") / "assets" / "plotly.min.js.gz").read_bytes()
    return compressed(get_plotlyjs())
