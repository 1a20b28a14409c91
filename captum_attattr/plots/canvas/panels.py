"""Panels over one legend, as the figures of curves have them: side by side, or on a phone one under the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from captum_attattr.plots.canvas.labels import CHARACTER_WIDTH, text_width, wrapped
from captum_attattr.plots.canvas.layout import AXIS_LINE, NARROW, WIDTH, Area, axis_number
from captum_attattr.plots.canvas.lines import Line, painted
from captum_attattr.plots.canvas.theme import with_small

PANELS_HINT = (
    "Click a name to hide or show its lines, double-click to show them alone. Point at a mark for its numbers."
)

# Lengths in pixels.
_HEIGHT = 560  # of a panel
_TOP, _MENU, _BOTTOM, _LEFT = 62, 44, 54, 66  # margins
_GAP = 78  # between two panels
_SMALL_HEIGHT, _SMALL_TOP, _SMALL_RIGHT = 300, 12, 14  # on a phone
_TICKS, _LINE = 38, 17  # of the numbers below an axis, and of each line of its title
_ENTRY, _GROUP = 25, 21  # of a legend, and a title in it


class Panel(NamedTuple):
    """One of the plots of a figure: its share of the width, and its axes."""

    share: float
    x: dict[str, Any]
    y: dict[str, Any]


class Heading(NamedTuple):
    """What stands around the panels of a figure."""

    title: str
    subtitle: str
    names: list[str]
    """the texts of the legend"""
    hint: str = PANELS_HINT
    order: Sequence[dict[str, Any]] = ()
    """of `option`: the choices of the menu that is called so"""


def panels_figure(lines: Sequence[Line], panels: list[Panel], heading: Heading, filename: str) -> go.Figure:
    """Return the figure of some lines in panels from left to right, its small form with one under the other."""
    kinds = (_stacked(lines, panels, heading), _side_by_side(panels, heading))
    menu = "order" if heading.order else None
    small, wide = (painted(lines, layout, filename, hint=heading.hint, menu=menu) for layout in kinds)
    return with_small(wide, small)


def _side_by_side(panels: list[Panel], heading: Heading) -> dict[str, Any]:
    legend = round(70 + 1.1 * CHARACTER_WIDTH * max(map(len, heading.names)))
    top = _TOP + _MENU * bool(heading.order)
    area = Area(WIDTH - _LEFT - legend, _HEIGHT, _LEFT, legend, top, _BOTTOM)
    layout = _layout(area, heading, area.legend_beside(tracegroupgap=6))
    room = area.width - _GAP * (len(panels) - 1)
    left = 0.0
    for i, panel in enumerate(panels):
        layout |= _axes(i, panel)
        layout[f"xaxis{axis_number(i)}"]["domain"] = [area.x(left), area.x(left + panel.share * room)]
        left += panel.share * room + _GAP
    return layout


def _stacked(lines: Sequence[Line], panels: list[Panel], heading: Heading) -> dict[str, Any]:
    """Return the layout of the small form, whose title and menu are in the page."""
    width = NARROW - _LEFT - _SMALL_RIGHT
    titles = [(wrapped(panel.x["title"], width), wrapped(panel.y["title"], _SMALL_HEIGHT)) for panel in panels]
    below = [_TICKS + _LINE * (x.count("<br>") + 1) for x, _ in titles]
    left = _LEFT + _LINE * max(y.count("<br>") for _, y in titles)
    shown = [line.trace for line in lines if line.trace.get("showlegend", True)]
    entries = _ENTRY * len(shown) + _GROUP * sum("legendgrouptitle" in trace for trace in shown) + 8
    height = len(panels) * (_SMALL_HEIGHT + _SMALL_TOP) + sum(below) - below[-1] - _SMALL_TOP
    area = Area(NARROW - left - _SMALL_RIGHT, height, left, _SMALL_RIGHT, _SMALL_TOP, below[-1] + entries)
    layout = _layout(area, heading, area.legend_below(entries, tracegroupgap=6))
    top = 0
    for i, (panel, (x, y)) in enumerate(zip(panels, titles, strict=True)):
        across = {**_thinned(panel.x, area.width), "title": x}
        layout |= _axes(i, panel._replace(x=across, y={**panel.y, "title": y}))
        ends = [max(area.above(-top - _SMALL_HEIGHT), 0.0), area.above(-top)]
        layout[f"yaxis{axis_number(i)}"]["domain"] = ends
        top += _SMALL_HEIGHT + below[i] + _SMALL_TOP
    return layout


def _thinned(axis: dict[str, Any], width: int) -> dict[str, Any]:
    """Return a logarithmic axis with as many of its named ticks as have room, the last one among them."""
    if "tickvals" not in axis:
        return axis
    logs = [math.log10(value) for value in axis["tickvals"]]
    scale = 0.9 * width / ((logs[-1] - logs[0]) or 1)  # plotly leaves some room at both ends
    kept: list[int] = []
    for i in reversed(range(len(logs))):
        if not kept or (logs[kept[-1]] - logs[i]) * scale > text_width(axis["ticktext"][i]) + 10:
            kept.append(i)
    return {**axis, **{key: [axis[key][i] for i in reversed(kept)] for key in ("tickvals", "ticktext")}}


def _layout(area: Area, heading: Heading, legend: dict[str, Any]) -> dict[str, Any]:
    """Return the layout without its axes."""
    options = list(heading.order)
    menus = [area.menu("order", options, above=_MENU, flat=True)] if options else []
    return area.layout(heading.title, heading.subtitle, legend=legend, updatemenus=menus)


def _axes(index: int, panel: Panel) -> dict[str, Any]:
    """Return the axes of a panel."""
    number = axis_number(index)
    axes = {}
    for axis, crossing, given in (("x", "y", panel.x), ("y", "x", panel.y)):
        name = {"text": given["title"], "standoff": 8, "font": {"size": 13}}
        looks = {**AXIS_LINE, "zeroline": False, **given, "title": name, "anchor": f"{crossing}{number}"}
        axes[f"{axis}axis{number}"] = looks
    return axes
