"""The head map: how important every head is, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments
from captum_attattr.formatting import counted, number
from captum_attattr.heads.importance import HeadImportance
from captum_attattr.plots.canvas.layout import option
from captum_attattr.plots.canvas.lines import hovers
from captum_attattr.plots.canvas.theme import finish, relayout, with_small
from captum_attattr.plots.head_scores import (
    SCALES,
    Digits,
    Scores,
    fits,
    importance_shares,
    layer_means,
    ranks,
    scale_index,
    scores_of,
    with_error,
)
from captum_attattr.plots.heads_layout import BAR_NUMBER, Sizes, heads_layout, method_changes, page_themes

_SWITCH = 150  # pixels of the switch of scales

_HINT = "Layer 0, next to the input, is the top row. Point at a head for its score, standard error and rank."
_HINT_GONE = " A head marked × is gone."
_HINT_MENU = " The menu or the arrow keys choose a method."
_HINT_RANKS = " Ranks tell heads apart that a few large scores make pale."


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


def _shades(each: Scores, sizes: Sizes, scale: str) -> dict[str, Any]:
    """Return what a scale makes of a map: its colours, and the numbers in its cells where there is room for them."""
    digits = Digits.of(each.scores, sizes.cell)
    if scale == "rank":
        shares = importance_shares(each.scores)
        places = 1 + (1 - shares) * ((~each.missing).sum() - 1)
        texts = [["" if math.isnan(place) else f"{place:g}" for place in row] for row in places.round(1).tolist()]
        longest = max(len(text) for row in texts for text in row)
        shown = texts if fits(longest, digits.font, sizes.cell) else [["" for _ in row] for row in texts]
        return {"z": shares, "coloraxis": "coloraxis3", "text": shown}
    if digits.decimals is None:  # no room for numbers: the sign at least does not depend on colours
        texts = [["−" if score < 0 else "" for score in row] for row in each.scores]
    else:
        texts = [[digits.text(float(score)) for score in row] for row in each.scores]
    return {"z": each.scores, "coloraxis": "coloraxis2" if each.signed else "coloraxis", "text": texts}


def _grid(each: Scores, sizes: Sizes, scale: str) -> dict[str, Any]:
    """Return the map of all scores, or of their ranks."""
    gap = int(min(sizes.cell) > 12)
    return {
        "type": "heatmap",
        "name": each.name,
        "xgap": gap,
        "ygap": gap,
        "texttemplate": "%{text}",
        "textfont": {"size": Digits.of(each.scores, sizes.cell).font},
        **_shades(each, sizes, scale),
        **hovers(_cell_hovers(each)),
    }


def _scale_options(every: list[Scores], sizes: Sizes, grids: list[int]) -> list[dict[str, Any]]:
    """Return the options of what the colours are, for the traces of the maps."""
    options = []
    for text, scale in zip(SCALES.values(), SCALES, strict=True):
        shades = [_shades(each, sizes, scale) for each in every]
        changes = {key: [_json(each[key]) for each in shades] for key in shades[0]}
        options.append({"label": text, "method": "restyle", "args": [changes, grids]})
    return options


def _json(values: Any) -> Any:
    """Return an array as lists without NaN, as the options of a menu need it."""
    if not isinstance(values, np.ndarray):
        return values
    return [[None if math.isnan(value) else value for value in row] for row in values.tolist()]


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


def _map_traces(each: Scores, sizes: Sizes, scale: str) -> list[dict[str, Any]]:
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
    return [_grid(each, sizes, scale), _bars(each, sizes), *([crosses] if len(missing) else [])]


@checked_arguments
def plot_heads(
    importance: HeadImportance | Mapping[str, HeadImportance] | Sequence[HeadImportance],
    *,
    scale: Literal["linear", "rank"] = "linear",
) -> go.Figure:
    """Draw how important every head is: a grid of layers and heads, beside it the mean of each layer.

    Layer 0, next to the input, is the top row, as in `plot_attention`. Scores of one sign go from the page's
    colour to a dark one (on dark pages, a light one) and so can be read without colours; if there are scores
    below zero, blue is below and orange above, and the numbers, or a "−" where there is no room for numbers,
    tell the sign too. Where one layer is so important that all others are pale, ranks tell the rest apart, at first or
    by the figure's switch. Heads that `prune_heads` has taken are grey and marked with a cross.

    Args:
        importance: a result of `head_importance`; or several for the same layers and heads, as a list or as a
            dict from the names under which a menu offers them.
        scale: what the colours and the numbers in the cells are at first: "linear", the scores, or "rank", where 1 is
            the most important head and equal scores share the mean of their ranks. The bars stay means of scores.

    Returns:
        A figure. The trace named as the importance holds its scores (L, H), with `scale="rank"` the share of the
        other heads that are less important; that named "... layers" the mean
        of each layer (L,); the hover tells score, standard error and rank, 1 being the most important head.

    Raises:
        TypeError: not a `HeadImportance`, a dict or a list of them, or a name that is not a string.
        ValueError: another scale; none at all, different numbers of layers or heads, or two of the same name.

    Example:
        >>> import torch
        >>> importance = HeadImportance(
        ...     scores=torch.tensor([[0.5, 0.1], [0.2, torch.nan]]), stderr=torch.full((2, 2), 0.01), count=100,
        ...     method="attattr", options={}, labels=["negative", "positive"], examples=[], model="",
        ... )
        >>> figure = plot_heads({"first task": importance, "second task": importance})
        >>> [button.label.strip("\u2068\u2069") for button in figure.layout.updatemenus[1].buttons]
        ['first task', 'second task']
    """
    scale_index(scale)
    every = scores_of(importance)
    menu = "method" if len(every) > 1 else None
    hint = _HINT + (_HINT_GONE if any(each.missing.any() for each in every) else "") + _HINT_RANKS
    looks: dict[str, Any] = {"filename": "heads", "hint": hint + (_HINT_MENU if menu else ""), "menu": menu}
    kinds = (Sizes.of(every[0].scores), Sizes.narrow(every[0].scores))
    return with_small(*(finish(_figure(every, sizes, scale), page_themes(), **looks) for sizes in kinds))


def _figure(every: list[Scores], sizes: Sizes, scale: str) -> go.Figure:
    """Return the figure without its colours."""
    traces: list[dict[str, Any]] = []
    owners: list[int] = []  # the index of each trace's importance
    for i, each in enumerate(every):
        added = _map_traces(each, sizes, scale)
        traces += [{**trace, "visible": i == 0} for trace in added]
        owners += [i] * len(added)
    layout = heads_layout(sizes)
    changes = [method_changes(each, sizes) for each in every]
    options = _scale_options(every, sizes, [owners.index(i) for i in range(len(every))])
    menus = [sizes.area.menu("values", options, above=sizes.menus, active=scale_index(scale), flat=True)]
    if len(every) > 1:
        options = [
            option(each.name, {"visible": [owner == i for owner in owners]}, changes[i]) for i, each in enumerate(every)
        ]
        menus.append(sizes.area.menu("method", options, above=sizes.menus, left=_SWITCH, flat=False))
    layout["updatemenus"] = menus
    figure = go.Figure(traces, layout)
    relayout(figure, changes[0])
    return figure
