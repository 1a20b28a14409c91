"""Two importances of the same heads against each other."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments, instance
from captum_attattr.formatting import counted
from captum_attattr.heads.correlation import importance_correlation
from captum_attattr.heads.importance import HeadImportance
from captum_attattr.plots.canvas.attributions import ranking_colours
from captum_attattr.plots.canvas.labels import wrapped
from captum_attattr.plots.canvas.layout import AXIS_LINE, NARROW, Area, option
from captum_attattr.plots.canvas.lines import SYMBOLS, Line, hovers, painted
from captum_attattr.plots.canvas.theme import PALE, Changes, Theme, axis_colours, blended, relayout, with_small
from captum_attattr.plots.head_scores import SCALES, Floats, Scores, labelled, scale_index, with_error

_LAYERS: dict[Theme, tuple[str, ...]] = {
    "light": ("#d9922e", "#b0455c", "#6a2a86", "#10093a"),
    "dark": ("#5f4dbd", "#b060b4", "#f08a5d", "#ffe9b0"),
}

# Lengths in pixels.
_WIDTH, _HEIGHT, _LARGEST_HEIGHT = 620, 560, 620  # of the plot
_LEFT, _LEGEND, _TOP, _BOTTOM = 78, 90, 106, 54  # margins
_MENU = 42  # from the menu's upper edge to the plot
_LEGEND_LINE = 19  # for one layer
_SMALL_HEIGHT, _SMALL_RIGHT, _SMALL_TOP = 300, 14, 14  # of the small form, and of its legend:
_SMALL_LINE, _SMALL_ENTRIES = 20, 2  # of a line, how many layers it has
_TITLE_LINE = 17  # of the title of an axis

_HINT = "Click a layer to hide or show it, double-click to show it alone. The light bars are standard errors."
_HINT_RANKS = " Ranks show heads that a few large scores press together."


@checked_arguments
def plot_correlation(
    first: HeadImportance,
    second: HeadImportance,
    *,
    names: tuple[str, str] | None = None,
    scale: Literal["linear", "rank"] = "linear",
) -> go.Figure:
    """Draw two importances of the same heads against each other, one mark for each head.

    The layers have symbols and colours, from light to dark (on dark pages, from dark to light); the names of the axes
    have those of the methods. A menu puts ranks (the least important head has rank 1) in the place of scores.

    Args:
        first: a result of `head_importance`; it is the horizontal axis.
        second: another one for the same layers and heads: of another method, or for another task.
        names: what the axes are called; by default the methods.
        scale: what the axes are at first: "linear", scores, or "rank".

    Returns:
        A figure. The trace named "3" holds the heads of layer 3 that both have scores for; the subtitle tells
        Pearson's and Spearman's correlation.

    Raises:
        TypeError: not a `HeadImportance`, or names that are not two strings.
        ValueError: another scale, different numbers of layers or heads, or fewer than two heads in common.

    Example:
        >>> import torch
        >>> first, second = (
        ...     HeadImportance(
        ...         scores=torch.tensor(scores), stderr=torch.full((2, 2), torch.nan), count=100, method=method,
        ...         options={}, labels=["negative", "positive"], examples=[], model="",
        ...     )
        ...     for method, scores in (("attattr", [[0.5, 0.1], [0.2, 0.3]]), ("taylor", [[0.8, 0.2], [0.3, 0.4]]))
        ... )
        >>> plot_correlation(first, second).layout.title.subtitle.text
        'Pearson 0.983, Spearman 1.000 over 4 heads'
    """
    if names is not None and (not isinstance(names, tuple | list) or len(names) != 2):
        raise TypeError(f"names must be two strings, not {names!r}")
    active = scale_index(scale)
    x, y = labelled(
        [
            Scores.of(instance("both arguments", each, HeadImportance, "a HeadImportance"), name)
            for each, name in zip((first, second), names or (None, None), strict=True)
        ]
    )
    subtitle = _correlation(first, second)
    both: npt.NDArray[np.bool_] = ~(x.missing | y.missing)
    if not both.all():
        subtitle += f"; {counted(int((~both).sum()), 'head')} without a score left out"
    colours = {theme: blended(steps, len(both)) for theme, steps in _LAYERS.items()}
    marks = [
        Line(_layer_marks(layer, x, y, both[layer]), {theme: steps[layer] for theme, steps in colours.items()})
        for layer in range(len(both))
        if both[layer].any()
    ]
    bars = _error_bars(x, y, both)
    looks = {**AXIS_LINE, "exponentformat": "power", "automargin": False}
    axes = {
        f"{axis}axis": {**looks, "title": {"text": each.name, "standoff": 10, "font": {"size": 13}}}
        for axis, each in (("x", x), ("y", y))
    }
    colours_of = ranking_colours([x.name, y.name])
    changes: dict[Theme, Changes] = {
        theme: axis_colours(theme, ("xaxis", "yaxis"))
        | {f"{axis}axis.title.font.color": colours_of[each.name][theme] for axis, each in (("x", x), ("y", y))}
        for theme in _LAYERS
    }
    title = f"Head importance: <b>{x.name}</b> and <b>{y.name}</b>"
    figures = []
    for area, legend in _areas(len(marks)):
        legend |= {"title": {"text": "layer", "side": "top"}, "tracegroupgap": 0}
        options = _options(x, y, both, len(bars), area)
        values, titles = options[active]["args"]
        shown = zip([*bars, *marks], values["x"], values["y"], strict=True)
        lines = [Line({**line.trace, "x": across, "y": up}, line.colours) for line, across, up in shown]
        menu = area.menu("values", options, above=_MENU, active=active, flat=True)
        layout = area.layout(title, subtitle, legend=legend, updatemenus=[menu], **axes)
        figures.append(painted(lines, layout, "correlation", hint=_HINT + _HINT_RANKS, changes=changes, menu="values"))
        relayout(figures[-1], titles)
    return with_small(*figures)


def _areas(layers: int) -> list[tuple[Area, dict[str, Any]]]:
    """Return the areas of the figure and of its small form, each with its legend of some layers."""
    height = min(max(_HEIGHT, _LEGEND_LINE * (layers + 2)), _LARGEST_HEIGHT)
    wide = Area(_WIDTH, height, _LEFT, _LEGEND, _TOP, _BOTTOM)
    lines = -(-layers // _SMALL_ENTRIES)
    below = _SMALL_LINE * (lines + 2)
    bottom = _BOTTOM + _TITLE_LINE + below
    small = Area(NARROW - _LEFT - _SMALL_RIGHT, _SMALL_HEIGHT, _LEFT, _SMALL_RIGHT, _SMALL_TOP, bottom)
    return [(wide, wide.legend_beside()), (small, small.legend_below(below, orientation="h"))]


def _options(x: Scores, y: Scores, both: npt.NDArray[np.bool_], bars: int, area: Area) -> list[dict[str, Any]]:
    """Return the options of what the axes are: scores, or ranks, among which no layer is crowded by another's size."""
    options = []
    for what, values in zip(SCALES.values(), ((x.scores, y.scores), (_ranks(x, both), _ranks(y, both))), strict=True):
        rows = [[each[layer, both[layer]] for layer in range(len(both)) if both[layer].any()] for each in values]
        ends = [each[both] for each in values]
        error_bars: list[list[Any]] = [[None if what == "ranks" else end] * bars for end in ends]
        names = [f"{each.name}, rank" if what == "ranks" else each.name for each in (x, y)]
        names = [wrapped(name, side) for name, side in zip(names, (area.width, area.height), strict=True)]
        traces = {axis: [*error, *row] for axis, error, row in zip("xy", error_bars, rows, strict=True)}
        changes = {f"{axis}axis.title.text": name for axis, name in zip("xy", names, strict=True)}
        options.append(option(what, traces, {**changes, "xaxis.autorange": True, "yaxis.autorange": True}))
    return options


def _ranks(each: Scores, both: npt.NDArray[np.bool_]) -> Floats:
    """Return the rank of each head among those with two scores, the least important first; equal scores share one."""
    from scipy.stats import rankdata  # takes long to import

    ranks = np.full(both.shape, np.nan)
    ranks[both] = rankdata(each.scores[both])
    return ranks


def _correlation(first: HeadImportance, second: HeadImportance) -> str:
    """Return both correlations in words."""
    correlation = importance_correlation(first, second)
    if math.isnan(correlation.pearson):
        return f"No correlation: the scores of one are all equal, over {correlation.heads} heads"
    pearson, spearman = (f"{value:.3f}".replace("-", "−") for value in (correlation.pearson, correlation.spearman))
    return f"Pearson {pearson}, Spearman {spearman} over {correlation.heads} heads"


def _layer_marks(layer: int, x: Scores, y: Scores, both: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """Return the heads of a layer that both importances have scores for."""
    heads = np.flatnonzero(both)
    texts = []
    for head in heads:
        values = [f"{each.name}: {with_error(each.scores[layer, head], each.stderr[layer, head])}" for each in (x, y)]
        texts.append("<br>".join([f"<b>layer {layer}, head {head}</b>", *values]))
    return {
        "type": "scatter",
        "mode": "markers",
        "name": str(layer),
        "x": x.scores[layer, heads],
        "y": y.scores[layer, heads],
        "marker": {"symbol": SYMBOLS[layer % len(SYMBOLS)], "size": 9},
        "showlegend": True,
        **hovers(texts),
    }


def _error_bars(x: Scores, y: Scores, both: npt.NDArray[np.bool_]) -> list[Line]:
    """Return the standard errors of all heads in one trace behind the marks; none if none is known."""
    bars = {
        f"error_{axis}": {"type": "data", "array": each.stderr[both], "width": 0, "thickness": 1}
        for axis, each in (("x", x), ("y", y))
        if np.isfinite(each.stderr[both]).any()
    }
    looks = {
        "type": "scatter",
        "name": "± error",
        "mode": "markers",
        "marker": {"opacity": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [Line({**looks, "x": x.scores[both], "y": y.scores[both], **bars}, PALE)] if bars else []
