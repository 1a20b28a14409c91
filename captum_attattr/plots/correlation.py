"""Two importances of the same heads against each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from captum_attattr.formatting import counted
from captum_attattr.plots.canvas.theme import FONT, PAGES, Changes, Theme, axes, finish, heading, steps
from captum_attattr.plots.head_scores import Scores, checked, value

if TYPE_CHECKING:
    from captum_attattr.heads.importance import HeadImportance

_LAYERS: dict[Theme, tuple[str, ...]] = {
    "light": ("#d9922e", "#b0455c", "#6a2a86", "#10093a"),
    "dark": ("#5f4dbd", "#b060b4", "#f08a5d", "#ffe9b0"),
}
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star")

# Lengths in pixels.
_SIDE, _HIGHEST = 560, 620  # of the plot
_LEGEND_LINE = 19  # for one layer

_HINT = "Click a layer to hide or show it, double-click to show it alone. The light bars are standard errors."


def _correlation(first: HeadImportance, second: HeadImportance) -> str:
    from captum_attattr.heads.correlation import importance_correlation  # with it come the models

    found = importance_correlation(first, second)
    if math.isnan(found.pearson):
        return f"No correlation: the scores of one are all equal, over {found.heads} heads"
    pearson, spearman = (f"{value:.3f}".replace("-", "−") for value in (found.pearson, found.spearman))
    return f"Pearson {pearson}, Spearman {spearman} over {found.heads} heads"


def plot_correlation(
    first: HeadImportance, second: HeadImportance, *, names: tuple[str, str] | None = None
) -> go.Figure:
    """Draw two importances of the same heads against each other, one mark for each head.

    The layers have marks of their own, from light to dark (on dark pages, from dark to light).

    Args:
        first: a result of `head_importance`; it is the horizontal axis.
        second: another one for the same layers and heads: of another method, or for another task.
        names: what the axes are called; by default the methods.

    Returns:
        A figure. The trace named "3" holds the heads of layer 3 that both have scores for; the subtitle tells
        Pearson's and Spearman's correlation.

    Raises:
        TypeError: not a `HeadImportance`, or names that are not two strings.
        ValueError: different numbers of layers or heads, fewer than two heads in common, infinite scores.

    Example:
        >>> import torch, types
        >>> first, second = (
        ...     types.SimpleNamespace(
        ...         scores=torch.tensor(scores), stderr=torch.full((2, 2), torch.nan),
        ...         count=100, labels=["negative", "positive"], name=name,
        ...     )
        ...     for name, scores in (("attattr", [[0.5, 0.1], [0.2, 0.3]]), ("taylor", [[0.8, 0.2], [0.3, 0.4]]))
        ... )
        >>> plot_correlation(first, second).layout.title.subtitle.text
        'Pearson 0.983, Spearman 1.000 over 4 heads'
    """
    what = "both arguments must be a HeadImportance"
    if names is not None and (not isinstance(names, tuple | list) or len(names) != 2):
        raise TypeError(f"names must be two strings, not {names!r}")
    x, y = (checked(each, what, name) for each, name in zip((first, second), names or (None, None), strict=True))
    subtitle = _correlation(first, second)
    both: npt.NDArray[np.bool_] = ~(x.gone | y.gone)
    if not both.all():
        subtitle += f"; {counted(int((~both).sum()), 'head')} without a score left out"
    errors = _error_bars(x, y, both)
    marks = [_layer_marks(layer, x, y, both[layer]) for layer in range(len(both)) if both[layer].any()]
    plot, legend = (_SIDE + 60, min(max(_SIDE, _LEGEND_LINE * (len(both) + 2)), _HIGHEST)), 90
    left, top, bottom = 78, 62, 54
    figure = go.Figure(
        [*errors, *marks],
        {
            "template": "none",
            "width": left + plot[0] + legend,
            "height": top + plot[1] + bottom,
            "margin": {"l": left, "r": legend, "t": top, "b": bottom},
            "font": {"family": FONT, "size": 12},
            "hovermode": "closest",
            "hoverlabel": {"align": "left"},
            "title": heading(f"Head importance: <b>{x.name}</b> and <b>{y.name}</b>", subtitle, top + plot[1] + bottom),
            "legend": {"x": 1.01, "y": 1, "yanchor": "top", "title": {"text": "layer"}, "tracegroupgap": 0},
            **{
                f"{axis}axis": {
                    "title": {"text": each.name, "standoff": 10, "font": {"size": 13}},
                    "showline": True,
                    "ticks": "outside",
                    "ticklen": 4,
                    "exponentformat": "power",
                    "automargin": False,
                }
                for axis, each in (("x", x), ("y", y))
            },
        },
    )
    errors_colour = {"light": "#c3cad1", "dark": "#4b5560"}
    themes: dict[Theme, Changes] = {
        theme: {
            **PAGES[theme],
            "plot_bgcolor": PAGES[theme]["paper_bgcolor"],
            "colorway": [errors_colour[theme]] * len(errors)
            + [colour for colour, some in zip(steps(colours, len(both)), np.any(both, axis=1), strict=True) if some],
            **axes(theme, ["xaxis", "yaxis"]),
        }
        for theme, colours in _LAYERS.items()
    }
    return finish(figure, themes, hint=_HINT, filename="correlation")


def _layer_marks(layer: int, x: Scores, y: Scores, both: npt.NDArray[np.bool_]) -> dict[str, Any]:
    heads = np.flatnonzero(both)
    values = [
        [f"{each.name}: {value(each.scores[layer, head], each.stderr[layer, head])}" for each in (x, y)]
        for head in heads
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": str(layer),
        "x": x.scores[layer, heads],
        "y": y.scores[layer, heads],
        "marker": {"symbol": _SYMBOLS[layer % len(_SYMBOLS)], "size": 9},
        "customdata": [
            f"<b>layer {layer}, head {head}</b><br>" + "<br>".join(lines)
            for head, lines in zip(heads, values, strict=True)
        ],
        "hovertemplate": "%{customdata}<extra></extra>",
        "showlegend": True,
    }


def _error_bars(x: Scores, y: Scores, both: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Behind all marks, in one trace; none if no standard error is known."""
    bars = {
        f"error_{axis}": {"type": "data", "array": each.stderr[both], "width": 0, "thickness": 1}
        for axis, each in (("x", x), ("y", y))
        if np.isfinite(each.stderr[both]).any()
    }
    if not bars:
        return []
    looks = {
        "type": "scatter",
        "name": "± error",
        "mode": "markers",
        "marker": {"opacity": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [{**looks, "x": x.scores[both], "y": y.scores[both], **bars}]
