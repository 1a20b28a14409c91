"""Panels side by side over one legend, as the figures of curves have them."""

from __future__ import annotations

from typing import Any, NamedTuple

from captum_attattr.plots.canvas.labels import CHARACTER_WIDTH
from captum_attattr.plots.canvas.layout import AXIS_LINE, WIDTH, Area, axis_number

PANELS_HINT = (
    "Click a name to hide or show its lines, double-click to show them alone. Point at a mark for its numbers."
)

# Lengths in pixels.
_HEIGHT = 560  # of a panel
_TOP, MENU_HEIGHT, _BOTTOM, _LEFT = 62, 44, 54, 66  # margins
_GAP = 78  # between two panels


class Panel(NamedTuple):
    """One of the plots of a figure: its share of the width, and its axes."""

    share: float
    x: dict[str, Any]
    y: dict[str, Any]


def panels_area(names: list[str], menu: bool) -> Area:
    """Return the area of all panels, beside it room for a legend whose texts are `names`, above it for a menu."""
    legend = round(70 + 1.1 * CHARACTER_WIDTH * max(map(len, names)))
    return Area(WIDTH - _LEFT - legend, _HEIGHT, _LEFT, legend, _TOP + MENU_HEIGHT * menu, _BOTTOM)


def panels_layout(panels: list[Panel], area: Area, title: str, subtitle: str, **parts: Any) -> dict[str, Any]:
    """Return the layout of panels from left to right; `parts` are added to it."""
    layout = area.layout(title, subtitle, legend=area.legend_beside(tracegroupgap=6), **parts)
    room = area.width - _GAP * (len(panels) - 1)
    left = 0.0
    for i, (share, x, y) in enumerate(panels):
        number = axis_number(i)
        for axis, crossing, given in (("x", "y", x), ("y", "x", y)):
            name = {"text": given["title"], "standoff": 8, "font": {"size": 13}}
            looks = {**AXIS_LINE, "zeroline": False, **given, "title": name, "anchor": f"{crossing}{number}"}
            layout[f"{axis}axis{number}"] = looks
        layout[f"xaxis{number}"]["domain"] = [area.x(left), area.x(left + share * room)]
        left += share * room + _GAP
    return layout
