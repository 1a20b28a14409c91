"""The head map: how important every head is, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments
from captum_attattr.formatting import counted, number
from captum_attattr.heads.importance import HeadImportance
from captum_attattr.plots.canvas.labels import fitted
from captum_attattr.plots.canvas.layout import Area, option
from captum_attattr.plots.canvas.lines import hovers
from captum_attattr.plots.canvas.theme import (
    DIVERGING,
    GREY,
    GRID_GROUND,
    PAGES,
    Theme,
    axis_colours,
    finish,
    relayout,
    scale,
)
from captum_attattr.plots.head_scores import Digits, Floats, Scores, layer_means, ranks, scores_of, with_error

# Scores of one sign are told by lightness alone.
_SEQUENTIAL: dict[Theme, tuple[str, ...]] = {
    "light": ("#fdf6ec", "#f3b36b", "#c8661a", "#7a2a04", "#2c0e00"),
    "dark": ("#1c1f22", "#5e3410", "#b8641a", "#f0ad62", "#fff3df"),
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


class _Sizes(NamedTuple):
    """Sizes of a head map, in pixels."""

    layers: int
    heads: int
    cell: tuple[int, int]
    """width and height"""
    area: Area
    """the grid, the bars of the layers, and room for a long title"""

    @classmethod
    def of(cls, scores: Floats, menu: bool) -> _Sizes:
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
        top = _HEADING + _HEAD_NUMBERS + _MENU * menu
        area = Area(inside, layers * height, _LEFT, _RIGHT, top, _BOTTOM)
        return cls(layers, heads, (width, height), area)

    @property
    def grid_width(self) -> int:
        return self.heads * self.cell[0]


def _cell_hovers(each: Scores) -> list[list[str]]:
    texts = ranks(each.scores)

    def text(layer: int, head: int) -> str:
        score, stderr = float(each.scores[layer, head]), float(each.stderr[layer, head])
        if math.isnan(score):
            return f"<b>layer {layer}, head {head}</b><br>no score: this head is gone"
        known = "" if math.isfinite(stderr) else "<br>no standard error"
        return f"<b>layer {layer}, head {head}</b><br>{with_error(score, stderr)}{known}<br>{texts[layer][head]}"

    layers, heads = each.scores.shape
    return [[text(layer, head) for head in range(heads)] for layer in range(layers)]


def _grid(each: Scores, sizes: _Sizes) -> dict[str, Any]:
    """Return the map of all scores, with numbers in the cells where there is room for them."""
    digits = Digits.of(each.scores, sizes.cell)
    if digits.decimals is None:  # no room for numbers: the sign at least does not depend on colours
        texts = [["−" if score < 0 else "" for score in row] for row in each.scores]
    else:
        texts = [[digits.text(float(score)) for score in row] for row in each.scores]
    gap = int(min(sizes.cell) > 12)
    return {
        "type": "heatmap",
        "name": each.name,
        "z": each.scores,
        "coloraxis": "coloraxis2" if each.signed else "coloraxis",
        "xgap": gap,
        "ygap": gap,
        "text": texts,
        "texttemplate": "%{text}",
        "textfont": {"size": digits.font},
        **hovers(_cell_hovers(each)),
    }


def _bars(each: Scores, sizes: _Sizes) -> dict[str, Any]:
    """Return the mean of each layer as a bar."""
    means, height = layer_means(each.scores), sizes.cell[1]
    texts = [
        f"<b>layer {layer}</b><br>mean {number(mean)} of {counted(int(count), 'head')}<br>sum {number(mean * count)}"
        for layer, (mean, count) in enumerate(zip(means, (~each.missing).sum(1), strict=True))
    ]
    digits = Digits.of(each.scores, sizes.cell)
    if digits.decimals is None:
        digits = Digits.of(each.scores, (_BAR_NUMBER, height))
    return {
        "type": "bar",
        "name": f"{each.name} layers",
        "orientation": "h",
        "x": means,
        "y": list(range(len(means))),
        "xaxis": "x2",
        "width": 0.7,
        "text": [digits.text(float(mean)) for mean in means] if height >= 12 else None,
        "textposition": "outside",
        "textangle": 0,
        "textfont": {"size": min(11, height)},
        "cliponaxis": False,
        "showlegend": False,
        **hovers(texts),
    }


def _map_traces(each: Scores, sizes: _Sizes) -> list[dict[str, Any]]:
    """Return the grid, the bars of the layers, and the crosses of heads that are gone."""
    missing = np.argwhere(each.missing)
    crosses = {
        "type": "scatter",
        "name": f"{each.name} gone",
        "mode": "text",
        "x": missing[:, 1],
        "y": missing[:, 0],
        "text": ["×"] * len(missing),
        "textfont": {"size": min(16, *sizes.cell)},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [_grid(each, sizes), _bars(each, sizes), *([crosses] if len(missing) else [])]


def _bar_range(means: Floats) -> list[float]:
    """Return the range of the bars: all means and zero, and room for a number at the ends of the bars."""
    low, high = (float(end(np.append(means[~np.isnan(means)], 0.0))) for end in (np.min, np.max))
    ends = (low < 0) + (high > 0 or low == 0)
    room = _BAR_NUMBER * ((high - low) or 1.0) / (_BARS - ends * _BAR_NUMBER)
    return [low - room * (low < 0), high + room * (high > 0) + (low == high == 0)]


def _method_changes(each: Scores, sizes: _Sizes) -> dict[str, Any]:
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
        "xaxis2.range": _bar_range(layer_means(each.scores)),
    }


def _subtitle(each: Scores, sizes: _Sizes) -> str:
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


def _layout(sizes: _Sizes) -> dict[str, Any]:
    """Return the layout, but for what the menu changes."""
    area, width = sizes.area, sizes.grid_width
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
    heads = {"domain": [0, area.x(width)], "range": [-0.5, sizes.heads - 0.5], "side": "top", "dtick": every[0]}
    layers = {"range": [sizes.layers - 0.5, -0.5], "dtick": every[1]}
    means: dict[str, Any] = {
        "domain": [area.x(width + _BAR_GAP), area.x(width + _BAR_GAP + _BARS)],
        "anchor": "y",
        "side": "top",
    }
    means |= {"showticklabels": False, "zeroline": True}
    axes = {
        name: {**bare, **looks, "title": {"text": text, "standoff": 4, "font": {"size": 13}}}
        for name, looks, text in (
            ("xaxis", heads, "head"),
            ("yaxis", layers, "layer"),
            ("xaxis2", means, "mean of the layer"),
        )
    }
    bar = area.colour_bar(width + _BAR_GAP + _BARS + 10, 0, area.height, "score", exponentformat="power")
    # The background of the grid is grey; this rectangle behind the bars has the colour of the page.
    ground = {"xref": "paper", "yref": "paper", "x0": area.x(width + 1), "x1": 1, "y0": 0, "y1": 1}
    ground |= {"layer": "below", "line": {"width": 0}}
    colour_axes = {"coloraxis": {"colorbar": bar}, "coloraxis2": {"colorbar": {**bar, "tickformat": "+.2~g"}}}
    return area.layout("", "", shapes=[ground], **colour_axes, **axes)


def _themes() -> dict[Theme, dict[str, Any]]:
    """Return the colours of light and of dark pages."""
    return {
        theme: {
            **page,
            "plot_bgcolor": GRID_GROUND[theme],
            "colorway": [GREY[theme]],
            "coloraxis.colorscale": scale(*_SEQUENTIAL[theme]),
            "coloraxis2.colorscale": scale(*DIVERGING[theme]),
            "shapes[0].fillcolor": page["paper_bgcolor"],
            "xaxis2.zerolinecolor": axis_colours(theme, ["xaxis2"])["xaxis2.zerolinecolor"],
        }
        for theme, page in PAGES.items()
    }


@checked_arguments
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
        ValueError: none at all, different numbers of layers or heads, or two of the same name.

    Example:
        >>> import torch
        >>> importance = HeadImportance(
        ...     scores=torch.tensor([[0.5, 0.1], [0.2, torch.nan]]), stderr=torch.full((2, 2), 0.01), count=100,
        ...     method="attattr", options={}, labels=["negative", "positive"], examples=[], model="",
        ... )
        >>> figure = plot_heads({"first task": importance, "second task": importance})
        >>> [button.label.strip("\u2068\u2069") for button in figure.layout.updatemenus[0].buttons]
        ['first task', 'second task']
    """
    every = scores_of(importance)
    several = len(every) > 1
    sizes = _Sizes.of(every[0].scores, several)
    traces: list[dict[str, Any]] = []
    owners: list[int] = []  # the index of each trace's importance
    for i, each in enumerate(every):
        added = _map_traces(each, sizes)
        traces += [{**trace, "visible": i == 0} for trace in added]
        owners += [i] * len(added)
    layout = _layout(sizes)
    changes = [_method_changes(each, sizes) for each in every]
    if several:
        options = [
            option(each.name, {"visible": [owner == i for owner in owners]}, changes[i]) for i, each in enumerate(every)
        ]
        layout["updatemenus"] = [sizes.area.menu("method", options, above=sizes.area.top - _HEADING - 6, flat=False)]
    figure = go.Figure(traces, layout)
    relayout(figure, changes[0])
    hint = _HINT + (_HINT_GONE if any(each.missing.any() for each in every) else "") + (_HINT_MENU if several else "")
    return finish(figure, _themes(), filename="heads", hint=hint, menu="method" if several else None)
