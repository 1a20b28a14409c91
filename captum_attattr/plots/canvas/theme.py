"""The colours of all figures on light and on dark pages, and how a figure gets both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import plotly.graph_objects as go

Theme = Literal["light", "dark"]
Changes = Mapping[str, Any]
"""Paths in a layout, and their values: what plotly's relayout takes."""

# Blue to orange, which the usual kinds of colour blindness keep apart; zero is close to the page's colour.
DIVERGING: dict[Theme, tuple[str, ...]] = {
    "light": ("#08306b", "#3b86c6", "#fafafa", "#e0812b", "#7a2a04"),
    "dark": ("#c3e0ff", "#3b86d6", "#171c22", "#d9761c", "#ffdcae"),
}
PAGES: dict[Theme, dict[str, str]] = {
    "light": {"paper_bgcolor": "#ffffff", "font.color": "#1b232b", "hoverlabel.bgcolor": "#ffffff"},
    "dark": {"paper_bgcolor": "#12161b", "font.color": "#e3e8ed", "hoverlabel.bgcolor": "#232a32"},
}
GREY: dict[Theme, str] = {"light": "#5d6a77", "dark": "#98a4b0"}
PALE: dict[Theme, str] = {"light": "#c3cad1", "dark": "#4b5560"}
GRID_GROUND: dict[Theme, str] = {"light": "#c5ccd4", "dark": "#3c4651"}
"""The background of maps, seen as lines between their cells and where there is no value."""

_AXES: dict[Theme, dict[str, str]] = {
    "light": {"gridcolor": "#e2e6ea", "zerolinecolor": "#9aa4ae", "linecolor": "#7c8894", "tickcolor": "#7c8894"},
    "dark": {"gridcolor": "#2b333c", "zerolinecolor": "#68747f", "linecolor": "#7c8894", "tickcolor": "#7c8894"},
}


def scale(*colours: str) -> list[tuple[float, str]]:
    """Return a colour scale of equal steps."""
    return [(i / (len(colours) - 1), colour) for i, colour in enumerate(colours)]


def blended(colours: tuple[str, ...], count: int) -> list[str]:
    """Return `count` colours from the first of `colours` to the last, mixed between two neighbours."""
    blend = []
    for i in range(count):
        position = i * (len(colours) - 1) / max(count - 1, 1)
        first = min(int(position), len(colours) - 2)
        low, high = ([int(colour[k : k + 2], 16) for k in (1, 3, 5)] for colour in colours[first : first + 2])
        mixed = (round(a + (b - a) * (position - first)) for a, b in zip(low, high, strict=True))
        blend.append("#" + "".join(f"{value:02x}" for value in mixed))
    return blend


def axis_colours(theme: Theme, names: Iterable[str]) -> dict[str, str]:
    """Return the colours of the grid and the lines of some axes, such as "xaxis2"."""
    return {f"{name}.{key}": colour for name in names for key, colour in _AXES[theme].items()}


def relayout(figure: go.Figure, *changes: Changes) -> None:
    """Change the layout of a figure as plotly's relayout does in the page."""
    for each in changes:
        for path, value in each.items():
            figure.layout[path] = value


def with_small(figure: go.Figure, small: go.Figure) -> go.Figure:
    """Store with a figure its small form, which a page shows in a window that is narrower than the figure.

    Its width follows that of the window, and it has neither title nor menus, which the page writes itself: nothing
    may depend on the width but what is in fractions of it.

    Args:
        figure: of `finish`, which is changed.
        small: of `finish`, as wide as `layout.NARROW`.

    Returns:
        The figure.
    """
    small.layout.dragmode = False  # a finger that moves scrolls the page
    figure.layout.meta = {**figure.layout.meta, "small": small.to_dict()}
    return figure


def finish(figure: go.Figure, themes: Mapping[Theme, Changes], **meta: Any) -> go.Figure:
    """Paint a figure for light pages and store with it what a page needs for dark ones.

    plotly's relayout reaches the layout only; so traces have the colours of `colorway` or of a colour axis.

    Args:
        figure: the figure, which is changed.
        themes: the changes of the layout for light and for dark pages.
        meta: what `write_html` reads besides: `hint`, a text below the figure; `filename`, the name under which
            its picture is saved; `menu`, the name of the menu that the arrow keys move.

    Returns:
        The figure.
    """
    relayout(figure, themes["light"])
    figure.layout.meta = {"themes": dict(themes), **{name: value for name, value in meta.items() if value is not None}}
    return figure
