"""Figures of curves: panels side by side, lines that are told apart without colours, one legend."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from captum_attattr.plots.canvas.labels import CHARACTER
from captum_attattr.plots.canvas.theme import FONT, PAGES, WIDTH, Changes, Theme, axes, finish, heading

Floats = npt.NDArray[np.float64]

_LINES: dict[Theme, tuple[str, ...]] = {
    "light": ("#0067a5", "#d1480c", "#00805e", "#9b4f96", "#a67c00", "#2a2a2a", "#b3123f", "#00889c"),
    "dark": ("#6cb6ff", "#ff8a57", "#3ddba8", "#e29be0", "#f0c23c", "#f2f2f2", "#ff7d9c", "#59d0e0"),
}

# Lengths in pixels.
PLOT = 560
_TOP, MENU, _BOTTOM = 62, 44, 54  # margins
_LEFT, _GAP = 66, 78  # before the first panel and between both

_HINT = "Click a name to hide or show its lines, double-click to show them alone. Point at a mark for its numbers."
_HINT_MENU = " The arrow keys choose an order."


class Line(NamedTuple):
    """A trace, and its colour on light and on dark pages, which only the layout can change."""

    trace: dict[str, Any]
    colours: dict[Theme, str]


def colours(place: int) -> dict[Theme, str]:
    """Those of the line at `place`; they repeat."""
    return {theme: some[place % len(some)] for theme, some in _LINES.items()}


class Panel(NamedTuple):
    """One of the plots of a figure: its share of the width, and its axes."""

    share: float
    x: dict[str, Any]
    y: dict[str, Any]


def layout(
    panels: list[Panel], names: list[str], title: str, subtitle: str, menus: list[dict[str, Any]]
) -> dict[str, Any]:
    """Panels side by side, menus above them and beside them a legend whose texts are `names`."""
    legend = round(70 + 1.1 * CHARACTER * max(map(len, names)))
    inside = WIDTH - _LEFT - legend
    plots = inside - _GAP * (len(panels) - 1)
    looks = {"showline": True, "ticks": "outside", "ticklen": 4, "zeroline": False}
    top = _TOP + (MENU if menus else 0)
    height = top + PLOT + _BOTTOM
    found: dict[str, Any] = {
        "template": "none",
        "width": WIDTH,
        "height": height,
        "margin": {"l": _LEFT, "r": legend, "t": top, "b": _BOTTOM},
        "font": {"family": FONT, "size": 12},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "updatemenus": menus,
        "title": heading(title, subtitle, height),
        "legend": {"x": 1 + 14 / inside, "xanchor": "left", "y": 1, "yanchor": "top", "tracegroupgap": 6},
    }
    left = 0.0
    for i, (share, x, y) in enumerate(panels):
        number = str(i + 1) if i else ""
        for axis, other, given in zip("xy", "yx", (x, y), strict=True):
            named = {"text": given["title"], "standoff": 8, "font": {"size": 13}}
            found[f"{axis}axis{number}"] = {**looks, **given, "title": named, "anchor": f"{other}{number}"}
        found[f"xaxis{number}"]["domain"] = [left / inside, (left + share * plots) / inside]
        left += share * plots + _GAP
    return found


def painted(
    lines: list[Line], layout: dict[str, Any], filename: str, menu: str | None = None, hint: str | None = None
) -> go.Figure:
    """The figure of some lines, in the colours of light pages and with those of dark ones; `hint` is below it."""
    names = [name for name in layout if name.startswith(("xaxis", "yaxis"))]
    themes: dict[Theme, Changes] = {
        theme: {
            **page,
            "plot_bgcolor": page["paper_bgcolor"],
            "colorway": [line.colours[theme] for line in lines],
            **axes(theme, names),
        }
        for theme, page in PAGES.items()
    }
    meta: dict[str, Any] = {"hint": hint or _HINT + (_HINT_MENU if menu else "")} | ({"menu": menu} if menu else {})
    return finish(go.Figure([line.trace for line in lines], layout), themes, filename=filename, **meta)


def numbers(values: Any, what: str, count: int) -> Floats:
    """`values` as an array, checked; `what` names them.

    Raises:
        TypeError, ValueError: they are not `count` numbers.
    """
    try:
        array: Floats = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{what} must be numbers, not {values!r}") from None
    if array.shape != (count,):
        raise ValueError(f"{what} must have one value for each of the {count} steps, not the shape {array.shape}")
    return array
