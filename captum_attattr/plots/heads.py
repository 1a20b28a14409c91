"""The head map: how important every head is, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments
from captum_attattr.formatting import counted, number
from captum_attattr.heads.importance import HeadImportance
from captum_attattr.plots.canvas.layout import option
from captum_attattr.plots.canvas.lines import hovers
from captum_attattr.plots.canvas.theme import finish, relayout, with_small
from captum_attattr.plots.head_scores import Digits, Scores, layer_means, ranks, scores_of, with_error
from captum_attattr.plots.heads_layout import BAR_NUMBER, Sizes, heads_layout, method_changes, page_themes

_HINT = "Layer 0, next to the input, is the top row. Point at a head for its score, standard error and rank."
_HINT_GONE = " A head marked × is gone."
_HINT_MENU = " The menu or the arrow keys choose a method."


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


def _grid(each: Scores, sizes: Sizes) -> dict[str, Any]:
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


def _bars(each: Scores, sizes: Sizes) -> dict[str, Any]:
    """Return the mean of each layer as a bar."""
    means, height = layer_means(each.scores), sizes.cell[1]
    texts = [
        f"<b>layer {layer}</b><br>mean {number(mean)} of {counted(int(count), 'head')}<br>sum {number(mean * count)}"
        for layer, (mean, count) in enumerate(zip(means, (~each.missing).sum(1), strict=True))
    ]
    digits = Digits.of(each.scores, sizes.cell)
    if digits.decimals is None or sizes.small:
        digits = Digits.of(each.scores, (BAR_NUMBER, height))
    return {
        "type": "bar",
        "name": f"{each.name} layers",
        "orientation": "h",
        "x": means,
        "y": list(range(len(means))),
        "xaxis": "x2",
        "yaxis": "y2" if sizes.small else "y",
        "width": 0.7,
        "text": [digits.text(float(mean)) for mean in means] if height >= 12 else None,
        "textposition": "outside",
        "textangle": 0,
        "textfont": {"size": min(11, height)},
        "cliponaxis": False,
        "showlegend": False,
        **hovers(texts),
    }


def _map_traces(each: Scores, sizes: Sizes) -> list[dict[str, Any]]:
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
    menu = "method" if len(every) > 1 else None
    wide, small = Sizes.of(every[0].scores, menu is not None), Sizes.narrow(every[0].scores)
    hint = _HINT + (_HINT_GONE if any(each.missing.any() for each in every) else "") + (_HINT_MENU if menu else "")
    looks: dict[str, Any] = {"filename": "heads", "hint": hint, "menu": menu}
    return with_small(*(finish(_figure(every, sizes), page_themes(), **looks) for sizes in (wide, small)))


def _figure(every: list[Scores], sizes: Sizes) -> go.Figure:
    """Return the figure without its colours."""
    traces: list[dict[str, Any]] = []
    owners: list[int] = []  # the index of each trace's importance
    for i, each in enumerate(every):
        added = _map_traces(each, sizes)
        traces += [{**trace, "visible": i == 0} for trace in added]
        owners += [i] * len(added)
    layout = heads_layout(sizes)
    changes = [method_changes(each, sizes) for each in every]
    if len(every) > 1:
        options = [
            option(each.name, {"visible": [owner == i for owner in owners]}, changes[i]) for i, each in enumerate(every)
        ]
        layout["updatemenus"] = [sizes.area.menu("method", options, above=sizes.menus, flat=False)]
    figure = go.Figure(traces, layout)
    relayout(figure, changes[0])
    return figure
