"""Figures of lines and marks: colours by the order of the traces, symbols, hovers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from captum_attattr.plots.canvas.theme import PAGES, Changes, Theme, axis_colours, finish

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star")

_COLOURS: dict[Theme, tuple[str, ...]] = {
    "light": ("#0067a5", "#d1480c", "#00805e", "#9b4f96", "#a67c00", "#2a2a2a", "#b3123f", "#00889c"),
    "dark": ("#6cb6ff", "#ff8a57", "#3ddba8", "#e29be0", "#f0c23c", "#f2f2f2", "#ff7d9c", "#59d0e0"),
}


class Line(NamedTuple):
    """A trace, and its colour on light and on dark pages, which only the layout can change."""

    trace: dict[str, Any]
    colours: Mapping[Theme, str]


def line_colours(index: int) -> dict[Theme, str]:
    """Return the colours of the line at an index; they repeat."""
    return {theme: colours[index % len(colours)] for theme, colours in _COLOURS.items()}


def hovers(texts: Sequence[Any]) -> dict[str, Any]:
    """Return the part of a trace that shows a text, in plotly's HTML, for each of its points or cells."""
    return {"customdata": texts, "hovertemplate": "%{customdata}<extra></extra>"}


def painted(
    lines: Sequence[Line],
    layout: dict[str, Any],
    filename: str,
    *,
    hint: str,
    changes: Mapping[Theme, Changes] | None = None,
    **meta: Any,
) -> go.Figure:
    """Return the figure of some lines, in the colours of light pages, with the colours of dark ones stored.

    Args:
        lines: the traces, those in front last.
        layout: of `Area.layout`.
        filename: the name under which the picture is saved.
        hint: a text below the figure.
        changes: more colours for each theme; by default the colours of all axes.
        meta: as `finish` has it.
    """
    axes = [name for name in layout if name.startswith(("xaxis", "yaxis"))]
    themes: dict[Theme, Changes] = {
        theme: {
            **page,
            "plot_bgcolor": page["paper_bgcolor"],
            "colorway": [line.colours[theme] for line in lines],
            **(axis_colours(theme, axes) if changes is None else changes[theme]),
        }
        for theme, page in PAGES.items()
    }
    return finish(go.Figure([line.trace for line in lines], layout), themes, hint=hint, filename=filename, **meta)
