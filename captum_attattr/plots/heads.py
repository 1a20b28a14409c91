"""The head map: how important every head is, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from captum_attattr.formatting import counted, number
from captum_attattr.plots.canvas.labels import CHARACTER
from captum_attattr.plots.canvas.theme import (
    DIVERGING,
    FONT,
    PAGES,
    Changes,
    Theme,
    axes,
    finish,
    heading,
    relayout,
    scale,
    shortened,
)
from captum_attattr.plots.head_scores import Floats, Scores, all_checked, value

if TYPE_CHECKING:
    from captum_attattr.heads.importance import HeadImportance

# Scores of one sign are told by lightness alone; the grid's ground, grey, is where a head has no score.
_LOOKS: dict[Theme, dict[str, Any]] = {
    "light": {
        **PAGES["light"],
        "plot_bgcolor": "#c5ccd4",
        "colorway": ["#5d6a77"],
        "coloraxis.colorscale": scale("#fdf6ec", "#f3b36b", "#c8661a", "#7a2a04", "#2c0e00"),
        "coloraxis2.colorscale": scale(*DIVERGING["light"]),
    },
    "dark": {
        **PAGES["dark"],
        "plot_bgcolor": "#3c4651",
        "colorway": ["#98a4b0"],
        "coloraxis.colorscale": scale("#1c1f22", "#5e3410", "#b8641a", "#f0ad62", "#fff3df"),
        "coloraxis2.colorscale": scale(*DIVERGING["dark"]),
    },
}

# Lengths in pixels.
_MAP_WIDTH, _MAP_HEIGHT = 840, 540  # of the grid, unless its cells would be smaller than the least
_CELL_WIDTH, _CELL_HEIGHT = (10, 110), (11, 56)
_BARS, _BAR_GAP, _BAR_NUMBER = 180, 14, 52
_LEFT, _RIGHT, _BOTTOM = 62, 106, 22  # margins
_HEADING, _MENU, _HEAD_NUMBERS = 58, 48, 46  # above the grid
_LEAST_HEIGHT = 150  # of the grid
_NARROWEST = 780  # the title needs it

_HINT = "Layer 0, next to the input, is the top row. Point at a head for its score, standard error and rank."
_HINT_GONE = " A head marked × is gone."
_HINT_MENU = " The menu or the arrow keys choose a method."


class _Place(NamedTuple):
    """Sizes of a head map, in pixels."""

    layers: int
    heads: int
    cell: tuple[int, int]
    left: int
    top: int
    width: int
    height: int

    @classmethod
    def of(cls, found: list[Scores]) -> _Place:
        layers, heads = found[0].scores.shape
        width, height = (
            min(max(room // count, least), most)
            for room, count, (least, most) in (
                (_MAP_WIDTH, heads, _CELL_WIDTH),
                (_MAP_HEIGHT, layers, _CELL_HEIGHT),
            )
        )
        height = max(height, -(-_LEAST_HEIGHT // layers))  # the scale beside it has a title and numbers
        top = _HEADING + _HEAD_NUMBERS + (_MENU if len(found) > 1 else 0)
        used = _LEFT + heads * width + _BAR_GAP + _BARS + _RIGHT
        return cls(layers, heads, (width, height), _LEFT, top, max(used, _NARROWEST), top + layers * height + _BOTTOM)

    def x(self, pixels: float) -> float:
        """In the units of the area inside the margins, from its left edge."""
        return pixels / (self.width - self.left - _RIGHT)

    @property
    def grid(self) -> tuple[int, int]:
        return self.heads * self.cell[0], self.layers * self.cell[1]


class _Digits(NamedTuple):
    """How the numbers in the cells are written: in units of 10^power, with as many digits as there is room for."""

    power: int
    decimals: int | None
    """None if there is no room for a number"""
    font: int

    @classmethod
    def of(cls, scores: Floats, cell: tuple[int, int]) -> _Digits:
        largest = float(np.nanmax(np.abs(scores)))
        exponent = math.floor(math.log10(largest)) if largest else 0
        power = 0 if -2 <= exponent <= 3 else exponent
        font = min(12, max(9, cell[1] - 5))
        for digits in (3, 2):
            decimals = max(0, digits - 1 - exponent + power)
            width = max(len(cls(power, decimals, font).text(value)) for value in scores.flat)
            if width * font * CHARACTER / 11 + 4 <= cell[0] and font + 3 <= cell[1]:
                return cls(power, decimals, font)
        return cls(power, None, font)

    def text(self, value: float) -> str:
        if math.isnan(value) or self.decimals is None:
            return ""
        return "0" if value == 0 else f"{value / 10.0**self.power:.{self.decimals}f}".replace("-", "−")

    @property
    def unit(self) -> str:
        return f"numbers in units of 10<sup>{self.power}</sup>".replace("-", "−") if self.power else ""


def _ranks(scores: Floats) -> list[list[str]]:
    """ "rank 3 of 144" for every head; 1 is the largest score, and equal scores share their ranks."""
    there = scores[~np.isnan(scores)]

    def text(score: float) -> str:
        if math.isnan(score):
            return ""
        first, last = int((there > score).sum()) + 1, int((there >= score).sum())
        ranks = f"rank {first}" if first == last else f"ranks {first} to {last}, equal scores,"
        return f"{ranks} of {len(there)}"

    return [[text(float(score)) for score in row] for row in scores]


def _cell_hovers(each: Scores) -> list[list[str]]:
    ranks = _ranks(each.scores)

    def text(layer: int, head: int) -> str:
        score, stderr = float(each.scores[layer, head]), float(each.stderr[layer, head])
        if math.isnan(score):
            return f"<b>layer {layer}, head {head}</b><br>no score: this head is gone"
        known = "" if math.isfinite(stderr) else "<br>no standard error"
        return f"<b>layer {layer}, head {head}</b><br>{value(score, stderr)}{known}<br>{ranks[layer][head]}"

    layers, heads = each.scores.shape
    return [[text(layer, head) for head in range(heads)] for layer in range(layers)]


def _layer_means(scores: Floats) -> Floats:
    """(L,) over the heads that are there; NaN for a layer without heads."""
    there = (~np.isnan(scores)).sum(1)
    return np.where(there, np.nansum(scores, axis=1) / np.maximum(there, 1), np.nan)


def _map_traces(each: Scores, place: _Place) -> list[dict[str, Any]]:
    """The grid, the bars of the layers, and the marks of heads that are gone."""
    layers = len(each.scores)
    digits = _Digits.of(each.scores, place.cell)
    if digits.decimals is None:  # no room for numbers: the sign at least does not depend on colours
        texts = [["−" if score < 0 else "" for score in row] for row in each.scores]
    else:
        texts = [[digits.text(float(score)) for score in row] for row in each.scores]
    gap = int(min(place.cell) > 12)
    grid = {
        "type": "heatmap",
        "name": each.name,
        "z": each.scores,
        "coloraxis": "coloraxis2" if each.signed else "coloraxis",
        "xgap": gap,
        "ygap": gap,
        "text": texts,
        "texttemplate": "%{text}",
        "textfont": {"size": digits.font},
        "customdata": _cell_hovers(each),
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    means = _layer_means(each.scores)
    there = (~each.gone).sum(1)
    hovers = [
        f"<b>layer {layer}</b><br>mean {number(mean)} of {counted(int(count), 'head')}<br>sum {number(mean * count)}"
        for layer, (mean, count) in enumerate(zip(means, there, strict=True))
    ]
    fits = place.cell[1] >= 12
    room = digits if digits.decimals is not None else _Digits.of(each.scores, (_BAR_NUMBER, place.cell[1]))
    bars = {
        "type": "bar",
        "name": f"{each.name} layers",
        "orientation": "h",
        "x": means,
        "y": list(range(layers)),
        "xaxis": "x2",
        "width": 0.7,
        "text": [room.text(float(mean)) for mean in means] if fits else None,
        "textposition": "outside",
        "textangle": 0,
        "textfont": {"size": min(11, place.cell[1])},
        "cliponaxis": False,
        "customdata": hovers,
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": False,
    }
    places = np.argwhere(each.gone)
    marks = {
        "type": "scatter",
        "name": f"{each.name} gone",
        "mode": "text",
        "x": places[:, 1],
        "y": places[:, 0],
        "text": ["×"] * len(places),
        "textfont": {"size": min(16, place.cell[1], place.cell[0])},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [grid, bars, marks] if len(places) else [grid, bars]


def _bar_range(means: Floats) -> list[float]:
    """From the smallest to the largest mean, zero included, and room for a number at the ends of the bars."""
    low, high = (float(end(np.append(means[~np.isnan(means)], 0.0))) for end in (np.min, np.max))
    ends = (low < 0) + (high > 0 or low == 0)
    room = _BAR_NUMBER * ((high - low) or 1.0) / (_BARS - ends * _BAR_NUMBER)
    return [low - room * (low < 0), high + room * (high > 0) + (low == high == 0)]


def _of_method(each: Scores, place: _Place) -> dict[str, Any]:
    """What changes in the layout when a method is chosen."""
    largest = float(np.nanmax(np.abs(each.scores))) or 1.0  # a scale has a length, even if all is zero
    seen = f"{'mean over' if each.examples > 1 else 'made with'} {counted(each.examples, 'example')}"
    seen = seen if each.examples else "made without examples"
    labels = f"; labels: {shortened(', '.join(each.labels), 300)}" if each.labels else ""
    gone = f"; {counted(int(each.gone.sum()), 'head')} gone" if each.gone.any() else ""
    digits = _Digits.of(each.scores, place.cell)
    unit = f"; {digits.unit}" if digits.unit and digits.decimals is not None else ""
    layers, heads = each.scores.shape
    size = f"{counted(layers, 'layer')} × {counted(heads, 'head')}"
    return {
        "title.text": f"Head importance: <b>{each.name}</b>",
        "title.subtitle.text": f"{size}, {seen}{labels}{gone}{unit}",
        "coloraxis.cmin": 0,
        "coloraxis.cmax": largest,
        "coloraxis2.cmin": -largest,
        "coloraxis2.cmax": largest,
        "coloraxis.showscale": not each.signed,
        "coloraxis2.showscale": each.signed,
        "xaxis2.range": _bar_range(_layer_means(each.scores)),
    }


def _map_layout(place: _Place) -> dict[str, Any]:
    width, height = place.grid
    every = [math.ceil(room / cell) for room, cell in zip((20, 12), place.cell, strict=True)]
    bare = {
        "showgrid": False,
        "zeroline": False,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": "rgba(0,0,0,0)",
        "tickfont": {"size": 11},
        "fixedrange": True,
    }
    title = {"standoff": 4, "font": {"size": 13}}
    bar = {"x": place.x(width + _BAR_GAP + _BARS + 10), "xanchor": "left", "xpad": 0, "thickness": 14}
    bar |= {"y": 1, "yanchor": "top", "ypad": 0, "lenmode": "pixels", "len": height, "outlinewidth": 0}
    bar |= {"exponentformat": "power", "title": {"text": "score", "side": "top"}}
    first = place.x(width + _BAR_GAP)
    return {
        "template": "none",
        "width": place.width,
        "height": place.height,
        "margin": {"l": place.left, "r": _RIGHT, "t": place.top, "b": _BOTTOM},
        "font": {"family": FONT, "size": 12},
        "hoverlabel": {"align": "left"},
        "title": heading("", "", place.height),
        "xaxis": {
            **bare,
            "domain": [0, place.x(width)],
            "range": [-0.5, place.heads - 0.5],
            "side": "top",
            "dtick": every[0],
            "tick0": 0,
            "title": {"text": "head", **title},
        },
        "yaxis": {
            **bare,
            "range": [place.layers - 0.5, -0.5],
            "dtick": every[1],
            "tick0": 0,
            "title": {"text": "layer", **title},
        },
        "xaxis2": {
            **bare,
            "domain": [first, place.x(width + _BAR_GAP + _BARS)],
            "anchor": "y",
            "side": "top",
            "showticklabels": False,
            "zeroline": True,
            "title": {"text": "mean of the layer", **title},
        },
        # The grid's ground is grey; that of the bars is the page.
        "shapes": [
            {
                "xref": "paper",
                "yref": "paper",
                "x0": place.x(width) + place.x(1),
                "x1": 1,
                "y0": 0,
                "y1": 1,
                "layer": "below",
                "line": {"width": 0},
            }
        ],
        "coloraxis": {"colorbar": bar},
        "coloraxis2": {"colorbar": {**bar, "tickformat": "+.2~g"}},
    }


def plot_heads(
    importance: HeadImportance | Mapping[str, HeadImportance] | Sequence[HeadImportance],
) -> go.Figure:
    """Draw how important every head is: a grid of layers and heads, beside it the mean of each layer.

    Layer 0, next to the input, is the top row, as in `plot_attention`. Scores of one sign go from the page's
    colour to a dark one (on dark pages, a light one) and so can be read without colours; if there are scores
    below zero, blue is below and orange above, and the numbers, or a "−" where there is no room for numbers,
    tell the sign too. Heads that `prune_heads` has taken are grey and marked with a cross.

    Args:
        importance: a result of `head_importance`; or several for the same layers and heads, as a list or as a
            dict from the names under which a menu offers them.

    Returns:
        A figure. The trace named as the importance holds its scores (L, H), that named "... layers" the mean
        of each layer (L,); the hover tells score, standard error and rank, 1 being the most important head.

    Raises:
        TypeError: not a `HeadImportance`, a dict or a list of them, or a name that is not a string.
        ValueError: none at all, an importance without a score, one with an infinite score, different numbers of
            layers or heads, or two of the same name.

    Example:
        >>> import types, numpy
        >>> importance = types.SimpleNamespace(
        ...     scores=numpy.array([[0.5, 0.1], [0.2, numpy.nan]]), stderr=numpy.full((2, 2), 0.01),
        ...     count=100, labels=["negative", "positive"], name="attattr",
        ... )
        >>> figure = plot_heads({"first task": importance, "second task": importance})
        >>> [button.label.strip("\u2068\u2069") for button in figure.layout.updatemenus[0].buttons]
        ['first task', 'second task']
    """
    found = all_checked(importance)
    place = _Place.of(found)
    traces: list[dict[str, Any]] = []
    owners: list[int] = []
    for i, each in enumerate(found):
        own = _map_traces(each, place)
        traces += [{**trace, "visible": i == 0} for trace in own]
        owners += [i] * len(own)
    figure = go.Figure(traces, _map_layout(place))
    changes = [_of_method(each, place) for each in found]
    if len(found) > 1:
        buttons = [
            {"label": each.name, "method": "update", "args": [{"visible": [k == i for k in owners]}, changes[i]]}
            for i, each in enumerate(found)
        ]
        y = 1 + (place.top - _HEADING) / place.grid[1]
        at = {"x": 0, "xanchor": "left", "y": y, "yanchor": "top", "pad": {"t": 6}}
        figure.layout.updatemenus = [{"name": "method", "type": "dropdown", "active": 0, "buttons": buttons, **at}]
    relayout(figure, changes[0])
    themes: dict[Theme, Changes] = {
        theme: {
            **looks,
            "shapes[0].fillcolor": looks["paper_bgcolor"],
            "xaxis2.zerolinecolor": axes(theme, ["xaxis2"])["xaxis2.zerolinecolor"],
        }
        for theme, looks in _LOOKS.items()
    }
    hint = _HINT + (_HINT_GONE if any(each.gone.any() for each in found) else "")
    menu = {"menu": "method", "hint": hint + _HINT_MENU} if len(found) > 1 else {"hint": hint}
    return finish(figure, themes, filename="heads", **menu)
