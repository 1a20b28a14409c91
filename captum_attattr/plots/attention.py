"""The figure of an explanation: every head's map."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments, instance
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.formatting import signed
from captum_attattr.plots.attention_layout import (
    COLOUR_AXES,
    LABEL_HEIGHT,
    Sizes,
    attention_layout,
    fits,
    head_changes,
    layer_changes,
    page_themes,
    range_changes,
    view_changes,
)
from captum_attattr.plots.attention_maps import VIEWS, Floats, Maps, indices
from captum_attattr.plots.canvas.labels import token_label
from captum_attattr.plots.canvas.narrow import narrow
from captum_attattr.plots.canvas.theme import finish, relayout, scale

_THUMBNAIL_CELLS = 30_000  # of all thumbnails together: plotly draws them anew at every choice

_HINT_CHOOSE = "Click a thumbnail or press the arrow keys to choose a head. "
_HINT_ENLARGE = "Drag in the large map to enlarge a part of it, double-click to see all of it again. "
_HINT_DIFFERENCE = (
    " Difference: orange links matter more than if attributions lay in the order of the attention, blue ones less."
)
_HINT_NOT_KEPT = " The attention was not kept."
_HINT_RANGE = "The colours fit the head that is shown; the last menu gives all heads one scale."


def _large_maps(maps: Maps, view: str) -> list[dict[str, Any]]:
    """Return one trace for each view of each head, at (head x T, -layer x T) of one plane.

    Choosing a head moves the axes; maps outside them cost the browser next to nothing. The views lie upon each
    other, all but one of them transparent: the hover tells all, and nothing is stored twice.
    """
    layers, heads, size = maps.shape
    gap = int(size <= 40)  # a line between cells, while they are large
    common = {"type": "heatmap", "xaxis": "x2", "yaxis": "y2", "xgap": gap, "ygap": gap}
    texts = (
        "%{{y}}<br>layer {}, head {}<br>attribution %{{z:+.3~g}}",
        "attention %{{z:.3~g}}" if maps.kept else "attention not kept",
        "difference %{{z:+.2f}} of the head’s largest" if maps.kept else "",
    )
    # plotly draws the axes of the labels only if they have a trace.
    holder = {"type": "scatter", "name": "labels", "xaxis": "x3", "yaxis": "y3", "x": [None], "y": [None]}
    traces: list[dict[str, Any]] = [{**holder, "hoverinfo": "skip", "showlegend": False}]
    for (kind, values), text in zip(maps.views.items(), texts, strict=True):
        looks = {"coloraxis": COLOUR_AXES[kind], "opacity": float(kind == view)}
        for layer, head in np.ndindex(layers, heads):
            number = maps.layers[layer]
            corner = {"x0": head * size, "y0": -layer * size, "dy": -1, "name": f"{kind} {number} {head}"}
            hover = text.format(number, head) + "<extra></extra>"
            traces.append({**common, **looks, **corner, "z": values[layer, head], "hovertemplate": hover})
    return traces


def _pooled(values: Floats, starts: npt.NDArray[np.intp]) -> Floats:
    """Return the value farthest from zero of each block of cells, which begin at `starts`."""
    high = np.maximum.reduceat(np.maximum.reduceat(values, starts, -1), starts, -2)
    low = np.minimum.reduceat(np.minimum.reduceat(values, starts, -1), starts, -2)
    return np.where(high >= -low, high, low)


def _thumbnails(maps: Maps, view: str, tile: int) -> list[dict[str, Any]]:
    """Return all heads side by side, in every view, and an unseen trace above them whose cells are the heads."""
    layers, heads, size = maps.shape
    most = max(6, math.isqrt(_THUMBNAIL_CELLS // (layers * heads)))
    starts = np.arange(0, size, -(-size // most))
    # A head is one unit wide; its cells leave a pixel at each side, where the background shows as a line.
    edges = np.linspace(1 / tile, 1 - 1 / tile, len(starts) + 1)
    x, y = (np.add.outer(np.arange(count), edges).ravel() for count in (heads, layers))
    traces: list[dict[str, Any]] = []
    for kind, values in maps.views.items():
        cells = np.pad(_pooled(values, starts), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        mosaic = cells.transpose(0, 2, 1, 3).reshape(len(y), len(x))[:-1, :-1]
        looks = {"coloraxis": COLOUR_AXES[kind], "opacity": float(kind == view), "hoverinfo": "skip"}
        traces.append({"type": "heatmap", "name": f"{kind} thumbnails", "x": x, "y": y, "z": mosaic, **looks})
    unseen = {"colorscale": scale("rgba(0,0,0,0)", "rgba(0,0,0,0)"), "showscale": False}
    sums = maps.attributions.sum((2, 3), dtype=np.float64).astype(np.float32)
    hover = "%{y}<br>attributions sum to %{z:+.3~g}<br>strongest: %{customdata}<extra></extra>"
    heads_trace = {"type": "heatmap", "name": "heads", "x0": 0.5, "y0": 0.5, "z": sums}
    return [*traces, {**heads_trace, **unseen, "customdata": _strongest(maps), "hovertemplate": hover}]


def _strongest(maps: Maps) -> list[list[str]]:
    """Return for each head the query and the key whose attribution is farthest from zero, and that attribution."""
    layers, heads, size = maps.shape
    names = [token_label(token) for token in maps.tokens]
    flat = maps.attributions.reshape(layers, heads, -1)
    cells = np.abs(flat).argmax(-1)

    def text(layer: int, head: int) -> str:
        query, key = divmod(int(cells[layer, head]), size)
        return f"{names[query]} → {names[key]} {signed(flat[layer, head, cells[layer, head]])}"

    return [[text(layer, head) for head in range(heads)] for layer in range(layers)]


@checked_arguments
def plot_attention(
    explanation: Explanation,
    *,
    layer: int | None = None,
    head: int | None = None,
    view: Literal["attribution", "attention", "difference"] = "attribution",
) -> go.Figure:
    r"""Draw every head of an explanation: thumbnails of all, and a large map of one of them.

    Rows are query tokens, columns are key tokens. Attribution is signed and zero is in the middle of its
    colours. These end at the largest value of the head that is shown, or, of a text of more than 40 tokens, where its
    10 strongest cells are; by the menu, at a share of the largest of all heads, so that heads can be compared. Menus
    choose the view, the layer and the head too. In a page of `write_html`, a click on a thumbnail or an arrow key
    chooses a head as well.

    "difference" is how much more a link matters than its attention says:
    :math:`D_{ij} = (|Attr_{ij}| - |Attr|_{(r_{ij})}) / \max_{kl} |Attr_{kl}|`, where :math:`r_{ij}` is the rank of
    :math:`A_{ij}` among the attention of its head, and :math:`|Attr|_{(r)}` the size of that rank among the head's
    attributions. So :math:`|Attr|_{(r_{ij})}` is what the link would have if the attributions lay in the order of the
    attention. Above zero a link matters more than that, below zero it is attended and matters less; a head sums to
    zero, and is zero where both have the same order. (Values themselves do not compare: attention is spread over every
    row, attributions are in a few cells, so that their difference shows the attention.) Attention that differs by less
    than about 3 % of the head's largest shares a rank. Where the attention was not kept there are attributions alone.

    Args:
        explanation: of `explain`.
        layer: the layer shown at first, from 0; by default, that of the head with the attribution farthest
            from zero.
        head: the head shown at first, from 0; by default, likewise.
        view: what is shown at first.

    Returns:
        A figure whose traces named "attribution 3 5", "attention 3 5" and "difference 3 5" hold the maps (T, T)
        of layer 3, head 5. Thumbnails of long texts show the value farthest from zero of each block of cells.

    Raises:
        TypeError: not an Explanation, or a layer or head that is not an integer.
        ValueError: there is no such layer, head or view, or no attention that the view needs.

    Example:
        >>> import torch
        >>> maps = torch.tensor([[[[0.0, 0.2], [-0.1, 0.3]]]])
        >>> explanation = Explanation(
        ...     tokens=["good", "film"], attributions=maps, attention=maps.abs(), delta=[0.01], error=[0.001],
        ...     nodes=[9], target=1, label="positive", probability=0.9, prediction=1, text="good film", segments=[0, 0],
        ...     special=[False, False],
        ... )
        >>> [trace.name for trace in plot_attention(explanation).data if trace.type == "heatmap"]
        ['attribution 0 0', 'attention 0 0', 'difference 0 0']
    """
    if view not in VIEWS:
        raise ValueError(f"view must be 'attribution', 'attention' or 'difference', not {view!r}")
    instance("explanation", explanation, Explanation, "an Explanation")
    explanation.check_heads("a picture of maps")
    maps = Maps.of(explanation)
    if view != "attribution" and not maps.kept:
        raise ValueError(
            f"view={view!r} needs the attention, which this explanation does not hold; explain with attention=True"
        )
    strength = np.abs(maps.attributions).max((2, 3))
    layers, heads = indices("layer", layer, maps.layers), indices("head", head, range(maps.shape[1]))
    layer, head = max(((i, j) for i in layers for j in heads), key=lambda each: float(strength[each]))

    sizes = Sizes.of(maps)
    thumbnails = _thumbnails(maps, view, sizes.tile) if sizes.tile else []
    figure = go.Figure([*thumbnails, *_large_maps(maps, view)])
    active = {"view": VIEWS.index(view), "layer": layer, "head": head, "colours": 0}
    figure.update_layout(attention_layout(explanation, maps, sizes, active))
    _, colour_axes = view_changes(maps, view)
    relayout(
        figure, layer_changes(maps, layer), head_changes(maps, head), colour_axes, range_changes(maps, (layer, head))
    )
    count = maps.shape[0] * maps.shape[1]
    last = len(figure.data) - count
    hint = (_HINT_CHOOSE if sizes.tile else "") + _HINT_ENLARGE + _HINT_RANGE
    hint += _HINT_DIFFERENCE if maps.kept else _HINT_NOT_KEPT
    return finish(
        figure,
        page_themes(sizes, maps),
        scripts=["attention"],
        narrow=narrow(explanation),
        attention={
            "layers": maps.layers,
            "labels": [token_label(token) for token in maps.tokens],
            "step": sizes.label_step(len(maps.tokens)),
            "tiles": {"x": maps.shape[1], "y": maps.shape[0]},
            "room": sizes.side / LABEL_HEIGHT,
            "ends": fits(maps).reshape(-1, 3).tolist(),
        },
        hint=(_HINT_CHOOSE if sizes.tile else "")
        + _HINT_ENLARGE
        + _HINT_RANGE
        + (_HINT_DIFFERENCE if maps.kept else _HINT_NOT_KEPT),
        filename="attention",
        differences=[[i, i - 2 * count, i - count] for i in range(last, len(figure.data))],
    )
