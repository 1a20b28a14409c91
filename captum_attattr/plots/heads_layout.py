"""The layout of the head map: its sizes, its colours, and what its menus change."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from captum_attattr.formatting import counted
from captum_attattr.plots.canvas.labels import fitted
from captum_attattr.plots.canvas.layout import NARROW, Area
from captum_attattr.plots.canvas.theme import DIVERGING, GREY, GRID_GROUND, PAGES, Theme, axis_colours, scale
from captum_attattr.plots.head_scores import Digits, Floats, Scores, layer_means

# Scores of one sign are told by lightness alone.
_SEQUENTIAL: dict[Theme, tuple[str, ...]] = {
    "light": ("#fdf6ec", "#f3b36b", "#c8661a", "#7a2a04", "#2c0e00"),
    "dark": ("#1c1f22", "#5e3410", "#b8641a", "#f0ad62", "#fff3df"),
}

# Lengths in pixels.
_MAP_WIDTH, _MAP_HEIGHT = 840, 540  # of the grid, unless its cells would be smaller than the least
_CELL_WIDTH, _CELL_HEIGHT = (10, 110), (11, 56)
_BARS, _BAR_GAP, BAR_NUMBER = 180, 14, 52
_LEFT, _RIGHT, _BOTTOM = 62, 106, 22  # margins
_HEADING, _MENU, _HEAD_NUMBERS = 58, 48, 46  # above the grid
_LEAST_HEIGHT = 150  # of the grid
_NARROWEST = 780  # the title needs it
# Of the small form, where the bars are below the grid, and the scale below them.
_SMALL_LEFT, _SMALL_RIGHT, _SMALL_TOP, _SMALL_GAP, _SMALL_BOTTOM = 48, 12, 42, 52, 74
_SMALL_HEIGHT, _SMALL_CELL = 300, (14, 24)


class Sizes(NamedTuple):
    """Sizes of a head map, in pixels."""

    layers: int
    heads: int
    cell: tuple[int, int]
    """width and height"""
    area: Area
    """the grid, the bars of the layers, and room for a long title"""
    small: bool
    """whether the bars are below the grid, else beside it"""

    @classmethod
    def of(cls, scores: Floats) -> Sizes:
        """Return the sizes for scores (L, H)."""
        layers, heads = scores.shape
        width, height = (
            min(max(room // count, least), most)
            for room, count, (least, most) in (
                (_MAP_WIDTH, heads, _CELL_WIDTH),
                (_MAP_HEIGHT, layers, _CELL_HEIGHT),
            )
        )
        height = max(height, -(-_LEAST_HEIGHT // layers))  # the scale beside it has a title and numbers
        inside = max(heads * width + _BAR_GAP + _BARS, _NARROWEST - _LEFT - _RIGHT)
        top = _HEADING + _HEAD_NUMBERS + _MENU
        area = Area(inside, layers * height, _LEFT, _RIGHT, top, _BOTTOM)
        return cls(layers, heads, (width, height), area, False)

    @classmethod
    def narrow(cls, scores: Floats) -> Sizes:
        """Return the sizes of the small form."""
        layers, heads = scores.shape
        width = NARROW - _SMALL_LEFT - _SMALL_RIGHT
        least, most = _SMALL_CELL
        cell = (max(width // heads, 1), min(max(_SMALL_HEIGHT // layers, least), most))
        area = Area(width, 2 * layers * cell[1] + _SMALL_GAP, _SMALL_LEFT, _SMALL_RIGHT, _SMALL_TOP, _SMALL_BOTTOM)
        return cls(layers, heads, cell, area, True)

    @property
    def grid(self) -> tuple[int, int]:
        """Width and height of the grid."""
        width = self.area.width if self.small else self.heads * self.cell[0]
        return width, self.layers * self.cell[1]

    @property
    def bars(self) -> tuple[int, int]:
        """Where the bars begin, from the left edge of the area, and how long they are at most."""
        return (0, self.area.width) if self.small else (self.grid[0] + _BAR_GAP, _BARS)

    @property
    def menus(self) -> int:
        """How far above the area the menus are."""
        return self.area.top - _HEADING - 6


def _bar_range(means: Floats, length: int) -> list[float]:
    """Return the range of the bars: all means and zero, and room for a number at the ends of the bars."""
    low, high = (float(end(np.append(means[~np.isnan(means)], 0.0))) for end in (np.min, np.max))
    ends = (low < 0) + (high > 0 or low == 0)
    room = BAR_NUMBER * ((high - low) or 1.0) / (length - ends * BAR_NUMBER)
    return [low - room * (low < 0), high + room * (high > 0) + (low == high == 0)]


def method_changes(each: Scores, sizes: Sizes) -> dict[str, Any]:
    """Return what changes in the layout when a method is chosen."""
    largest = float(np.nanmax(np.abs(each.scores))) or 1.0  # a scale has a length, even if all is zero
    return {
        "title.text": f"Head importance: <b>{each.name}</b>",
        "title.subtitle.text": _subtitle(each, sizes),
        "coloraxis.cmin": 0,
        "coloraxis.cmax": largest,
        "coloraxis2.cmin": -largest,
        "coloraxis2.cmax": largest,
        "coloraxis.showscale": not each.signed,
        "coloraxis2.showscale": each.signed,
        "xaxis2.range": _bar_range(layer_means(each.scores), sizes.bars[1]),
    }


def _subtitle(each: Scores, sizes: Sizes) -> str:
    """Return the sizes, how many examples the scores are made of, and the unit of the numbers in the cells."""
    examples = f"{'mean over' if each.examples > 1 else 'made with'} {counted(each.examples, 'example')}"
    parts = [f"{counted(sizes.layers, 'layer')} × {counted(sizes.heads, 'head')}, "]
    parts[0] += examples if each.examples else "made without examples"
    if each.labels:
        parts.append(f"labels: {fitted(', '.join(each.labels), 300)}")
    if each.missing.any():
        parts.append(f"{counted(int(each.missing.sum()), 'head')} gone")
    digits = Digits.of(each.scores, sizes.cell)
    if digits.unit and digits.decimals is not None:
        parts.append(digits.unit)
    return "; ".join(parts)


def heads_layout(sizes: Sizes) -> dict[str, Any]:
    """Return the layout, but for what the menu changes."""
    area = sizes.area
    bare = {
        "showgrid": False,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "rgba(0,0,0,0)",
        "tickfont": {"size": 11},
        "tick0": 0,
        "fixedrange": True,
    }
    every = [math.ceil(room / cell) for room, cell in zip((20, 12), sizes.cell, strict=True)]  # heads, layers a label
    left, length = sizes.bars
    width, height = sizes.grid
    heads = {"domain": [0, area.x(width)], "range": [-0.5, sizes.heads - 0.5], "side": "top", "dtick": every[0]}
    layers = {"range": [sizes.layers - 0.5, -0.5], "dtick": every[1]}
    means: dict[str, Any] = {"domain": [area.x(left), area.x(left + length)], "side": "top"}
    means |= {"anchor": "y2" if sizes.small else "y", "showticklabels": False, "zeroline": True}
    named = [("xaxis", heads, "head"), ("yaxis", layers, "layer"), ("xaxis2", means, "mean of the layer")]
    if sizes.small:
        layers["domain"] = [area.above(-height), 1]
        named.append(("yaxis2", {**layers, "domain": [0, area.above(-height - _SMALL_GAP)], "anchor": "x2"}, "layer"))
    axes = {
        name: {**bare, **looks, "title": {"text": text, "standoff": 4, "font": {"size": 13}}}
        for name, looks, text in named
    }
    # The background of the grid is grey; this rectangle behind the bars has the colour of the page.
    left_edge, upper = (0, area.above(-height - 1)) if sizes.small else (area.x(width + 1), 1)
    ground: dict[str, Any] = {"xref": "paper", "yref": "paper", "layer": "below", "line": {"width": 0}}
    ground |= {"x0": left_edge, "x1": 1, "y0": 0, "y1": upper}
    bar = area.colour_bar(left + length + 10, 0, area.height, "score", exponentformat="power")
    if sizes.small:
        bar |= {"orientation": "h", "x": 0, "y": area.above(-area.height - 12), "lenmode": "fraction", "len": 1}
    ends = {"tickvals": [0.03, 0.5, 0.97], "ticktext": ["last", "middle", "first"]}
    places = {"title": {**bar["title"], "text": "rank"}, **ends}
    colour_axes = {
        "coloraxis": {"colorbar": bar},
        "coloraxis2": {"colorbar": {**bar, "tickformat": "+.2~g"}},
        "coloraxis3": {"colorbar": {**bar, **places}, "cmin": 0, "cmax": 1},
    }
    return area.layout("", "", shapes=[ground], **colour_axes, **axes)


def page_themes() -> dict[Theme, dict[str, Any]]:
    """Return the colours of light and of dark pages."""
    return {
        theme: {
            **page,
            "plot_bgcolor": GRID_GROUND[theme],
            "colorway": [GREY[theme]],
            "coloraxis.colorscale": scale(*_SEQUENTIAL[theme]),
            "coloraxis2.colorscale": scale(*DIVERGING[theme]),
            "coloraxis3.colorscale": scale(*_SEQUENTIAL[theme]),
            "shapes[0].fillcolor": page["paper_bgcolor"],
            "xaxis2.zerolinecolor": axis_colours(theme, ["xaxis2"])["xaxis2.zerolinecolor"],
        }
        for theme, page in PAGES.items()
    }
