"""What all figures share: colours for light and dark pages, headings, and how a figure gets both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import plotly.graph_objects as go

from captum_attattr.formatting import visible
from captum_attattr.plots.canvas.labels import CHARACTER, escape, pixels

Theme = Literal["light", "dark"]
Changes = Mapping[str, Any]
"""Paths in a layout, and their values: what plotly's relayout takes."""

FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
WIDTH = 1250  # pixels; what a window of 1280 shows without scrolling

# Blue to orange, which the usual kinds of colour blindness keep apart; zero is close to the page's colour.
DIVERGING: dict[Theme, tuple[str, ...]] = {
    "light": ("#08306b", "#3b86c6", "#fafafa", "#e0812b", "#7a2a04"),
    "dark": ("#c3e0ff", "#3b86d6", "#171c22", "#d9761c", "#ffdcae"),
}
PAGES: dict[Theme, dict[str, str]] = {
    "light": {"paper_bgcolor": "#ffffff", "font.color": "#1b232b", "hoverlabel.bgcolor": "#ffffff"},
    "dark": {"paper_bgcolor": "#12161b", "font.color": "#e3e8ed", "hoverlabel.bgcolor": "#232a32"},
}
_AXES: dict[Theme, dict[str, str]] = {
    "light": {"gridcolor": "#e2e6ea", "zerolinecolor": "#9aa4ae", "linecolor": "#7c8894", "tickcolor": "#7c8894"},
    "dark": {"gridcolor": "#2b333c", "zerolinecolor": "#68747f", "linecolor": "#7c8894", "tickcolor": "#7c8894"},
}


def scale(*colours: str) -> list[tuple[float, str]]:
    """A colour scale of equal steps."""
    return [(i / (len(colours) - 1), colour) for i, colour in enumerate(colours)]


def steps(colours: tuple[str, ...], count: int) -> list[str]:
    """`count` colours from the first of `colours` to the last."""
    found = []
    for i in range(count):
        place = i * (len(colours) - 1) / max(count - 1, 1)
        at = min(int(place), len(colours) - 2)
        low, high = ([int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in colours[at : at + 2])
        mixed = (round(a + (b - a) * (place - at)) for a, b in zip(low, high, strict=True))
        found.append("#" + "".join(f"{value:02x}" for value in mixed))
    return found


def axes(theme: Theme, names: Iterable[str]) -> dict[str, str]:
    """Colours of the grid and the lines of some axes."""
    return {f"{name}.{key}": colour for name in names for key, colour in _AXES[theme].items()}


def heading(text: str, subtitle: str, height: int) -> dict[str, Any]:
    """Title and subtitle at the upper left corner of a figure of `height` pixels; both are HTML of plotly's."""
    x = {"x": 0, "xref": "paper", "xanchor": "left"}
    y = {"y": 1 - 10 / height, "yref": "container", "yanchor": "top"}
    return {"text": text, "font": {"size": 17}, "subtitle": {"text": subtitle, "font": {"size": 12}}, **x, **y}


def shortened(text: str, width: int) -> str:
    """A text from a user, in at most `width` pixels."""
    count = int(width / CHARACTER)
    while count > 1 and pixels(visible(text, count)) > width:
        count -= 1
    return escape(visible(text, count))


def relayout(figure: go.Figure, *changes: Changes) -> None:
    """Do to a layout what relayout does in the page."""
    for each in changes:
        for path, value in each.items():
            figure.layout[path] = value


def finish(figure: go.Figure, themes: Mapping[Theme, Changes], **meta: Any) -> go.Figure:
    """Paint a figure for light pages and take along what a page needs for dark ones.

    plotly's relayout reaches the layout only; so traces have the colours of `colorway` or of a colour axis.

    Args:
        figure: the figure, which is changed.
        themes: the changes of the layout for light and for dark pages.
        meta: what `write_html` reads besides: `hint`, a text below the figure; `filename`, the name under which
            its picture is saved.
    """
    relayout(figure, themes["light"])
    figure.layout.meta = {"themes": dict(themes), **meta}
    return figure
