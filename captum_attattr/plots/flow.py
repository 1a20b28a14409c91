"""The figure of all interactions: what flows from token to token, layer by layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments, fraction, instance, integer
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.formatting import counted, signed, visible, whole_text
from captum_attattr.plots.canvas.certainty import Certainty
from captum_attattr.plots.canvas.codes import Codes, coarse, fitting, room
from captum_attattr.plots.canvas.labels import HOVER_LENGTH, escape, fitted, hover_label, prediction_title
from captum_attattr.plots.canvas.layout import WIDTH
from captum_attattr.plots.canvas.lines import Line, painted
from captum_attattr.plots.canvas.narrow import narrow
from captum_attattr.plots.canvas.theme import GREY, Theme
from captum_attattr.plots.canvas.token_columns import (
    LEFT,
    NEGATIVE,
    NODE,
    POSITIVE,
    RIGHT,
    Columns,
    divider,
    second_text,
)
from captum_attattr.plots.flow_edges import (
    Edges,
    Flow,
    Segment,
    Sign,
    View,
    by_strength,
    checked_view,
    cut,
    selected,
    summary,
)

_CLASSES = (0.0, 0.1, 0.25, 0.5)  # the fraction of the strongest |score| from which edges have a width
_WIDTHS = (0.8, 1.6, 3.2, 5.5)  # pixels
_OPACITY = (0.5, 0.65, 0.8, 0.95)
MOST = 3_000  # edges in one picture: more are a solid area, and no longer quick
_DASHED = 200  # edges up to which negative ones are dashed; browsers are slow at dashes
_WEBGL = 1_000  # edges from which plotly draws with WebGL

_GRID: dict[Theme, dict[str, str]] = {
    "light": {"xaxis.gridcolor": "#e9edf0", "yaxis.minor.gridcolor": "#ccd3da"},
    "dark": {"xaxis.gridcolor": "#222931", "yaxis.minor.gridcolor": "#3a444e"},
}
_DIVIDED: dict[Theme, dict[str, str]] = {
    theme: {**colours, "shapes[0].line.color": GREY[theme]} for theme, colours in _GRID.items()
}
_TOP, _HEIGHT = 130, 516  # pixels

_REST = 7e5  # bytes of a page beside its scores
_HINT = (
    "The slider, or the arrow keys, move the cut: the edges with the largest |score| are drawn, negative ones dashed "
    f"up to {_DASHED}. Point at an edge for its numbers. Special tokens are those added to what was given."
)


def _lines(edges: Edges, size: int, strongest: float) -> list[Line]:
    """Return one trace for each width and sign, thin ones first; an edge is two points and a gap."""
    layer, query, key = (part.astype(np.float32) for part in edges.parts(size))
    widths = np.searchsorted(_CLASSES, np.abs(edges.score) / strongest, side="right") - 1
    kind = "scattergl" if len(edges.indices) > _WEBGL else "scatter"
    dashes = {"positive": "solid", "negative": "dash" if len(edges.indices) <= _DASHED else "solid"}
    gap = np.full(len(layer), np.nan, dtype=np.float32)
    x, y = np.stack([key, query, gap], 1), np.stack([layer, layer + 1, gap], 1)
    lines = []
    for i, width in enumerate(_WIDTHS):
        for sign, colours in (("negative", NEGATIVE), ("positive", POSITIVE)):
            drawn = (widths == i) & ((edges.score > 0) == (sign == "positive"))
            trace = {
                "type": kind,
                "name": f"{sign} {i}",
                "mode": "lines",
                "x": x[drawn].ravel(),
                "y": y[drawn].ravel(),
                "line": {"width": width, "dash": dashes[sign]},
                "opacity": _OPACITY[i],
                "hoverinfo": "skip",
                "showlegend": False,
            }
            lines.append(Line(trace, colours))
    return lines


def _hovers(flow: Flow, edges: Edges, view: View) -> list[str]:
    """Return what the hover tells of each edge: its ends, its score, and the heads that add most to it."""
    texts = []
    names = [f"<b>{hover_label(token)}</b> [{i}]" for i, token in enumerate(flow.tokens)]
    for layer, query, key, score in zip(*edges.parts(flow.shape[2]), edges.score.tolist(), strict=True):
        lines = [f"{names[query]} from {names[key]}"]
        if view.head is not None:
            lines.append(f"layer {flow.layers[layer]}, head {view.head}: {signed(score)}")
        else:
            lines.append(f"layer {flow.layers[layer]}, sum over {counted(flow.shape[1], 'head')}: {signed(score)}")
            heads = flow.by_head[layer, :, query, key]
            top = np.argsort(-np.abs(heads), kind="stable")[: 3 * (len(heads) > 1)]
            lines += [f"head {head}: {signed(float(heads[head]))}" for head in top]
        texts.append("<br>".join(lines))
    return texts


def _points(flow: Flow, edges: Edges, view: View) -> Line:
    """Return unseen marks that answer to the mouse; not half way up, where crossing edges would share them."""
    layer, query, key = (part.astype(np.float32) for part in edges.parts(flow.shape[2]))
    trace = {
        "type": "scatter",
        "name": "edges",
        "mode": "markers",
        "x": (0.62 * key + 0.38 * query).astype(np.float32),
        "y": (layer + 0.38).astype(np.float32),
        "marker": {"size": 8, "opacity": 0},
        "hovertemplate": [f"{text}<extra></extra>" for text in _hovers(flow, edges, view)],
        "showlegend": False,
    }
    return Line(trace, NODE)


def _legend() -> list[Line]:
    """Return the legend's entries: traces without a point."""
    bare = {"type": "scatter", "mode": "lines", "x": [None], "y": [None], "hoverinfo": "skip", "showlegend": True}
    return [
        Line({**bare, "name": name, "line": {"width": 4, "dash": dash}}, colours)
        for name, dash, colours in (("positive", "solid", POSITIVE), ("negative", "dash", NEGATIVE))
    ]


def _layout(explanation: Explanation, flow: Flow, text: str, view: View) -> dict[str, Any]:
    """Return the layout; `text` above the picture tells how much of the attribution is drawn."""
    layers, columns = flow.shape[0], Columns.of(flow.tokens, flow.special.tolist())
    height = min(_HEIGHT, 150 + 90 * layers)
    step = math.ceil(layers * 12 / height)
    marked = range(0, layers, step)
    title = prediction_title("Attribution flow", vars(explanation))
    subtitle = fitted(whole_text(explanation.text), WIDTH - LEFT - RIGHT)
    above = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "paper", "y": 1 + 8 / height, "yanchor": "bottom"}
    shown = "" if view.layer is None else f"layer {flow.layers[view.layer]}, "
    shown += "sum over heads" if view.head is None else f"head {view.head}"
    margin = 0.06 * max(layers / 6, 0.4)
    return columns.layout(
        title,
        subtitle,
        _TOP,
        height,
        shapes=divider(second_text(flow.segments.tolist())),
        annotations=[{**above, "text": f"{text} ({shown})", "showarrow": False, "font": {"size": 13}}],
        xaxis={
            **columns.axis(flow.tokens, range(len(flow.tokens))),
            "showgrid": True,
            "title": {
                "text": "token; in each layer keys are below, queries above",
                "standoff": 4,
                "font": {"size": 13},
            },
        },
        yaxis={
            "range": [-margin, layers + margin],
            "tickvals": [row + 0.5 for row in marked],
            "ticktext": [f"layer {flow.layers[row]}" for row in marked],
            "ticks": "",
            "showgrid": False,
            "zeroline": False,
            "minor": {"tickvals": list(range(layers + 1)), "showgrid": True, "ticks": ""},
        },
    )


@checked_arguments
def plot_flow(
    explanation: Explanation,
    *,
    layer: int | None = None,
    head: int | None = None,
    sign: Sign = "both",
    special_tokens: bool = True,
    segment: Segment = "all",
    share: float = 0.9,
    most: int = 300,
) -> go.Figure:
    """Draw all interactions of an explanation, strongest first, up to a cut that a slider moves.

    Tokens are columns, and between two lines lies a layer; an edge goes from the key below to the query above.
    Orange adds to the prediction, blue takes away; blue is dashed, up to 200 edges and in print. Widths have four
    classes: from 1/2, 1/4 and 1/10 of the largest absolute score on, and below. In a page of `write_html`, menus choose
    which edges count, the slider and the arrow keys move the cut, and every edge that is drawn answers to the mouse.
    Elsewhere the figure shows its first cut.

    The scores in the traces, and in the page the sums over heads, are exact (float32). Scores of single heads
    travel to the page once, in 8 bits each, within 0.8 % of the largest of their head and layer, finer for small ones:
    what is below 1.5e-5 of it counts as 0.

    Args:
        explanation: of `explain`.
        layer: the layer shown at first, from 0; None for all.
        head: the head shown at first, from 0; None for the sum over heads.
        sign: which scores are shown at first: "both", "positive" or "negative".
        special_tokens: whether edges from and to special tokens are shown at first.
        segment: for pairs of texts, the edges shown at first: "all", within the "first" or the "second" text, or
            "across" from one to the other.
        share: the first cut shows so many edges as carry this share of the positive attribution of the
            chosen edges (of the negative, if that is all there is); 1 for all edges.
        most: the first cut shows no more edges than these, 3,000 at most.

    Returns:
        A figure. Traces named "positive 3" (the widest) to "negative 0" hold the edges as pairs of points with
        gaps between them, drawn with WebGL if they are more than 1,000; "edges" holds their hovers.

    Raises:
        TypeError: not an Explanation, or a layer, head, or `most` that is not an integer.
        ValueError: attributions that are all 0; no such layer, head, sign or segment; a share outside (0, 1];
            nothing to show.

    Example:
        >>> from captum_attattr import explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> explanation = explain(*load_demo_model(), ["a gorgeous , witty film"], progress=False)[0]
        >>> figure = plot_flow(explanation, special_tokens=False, most=10)
        >>> figure.layout.annotations[0].text[:18]
        '10 of 252 edges = '
    """
    instance("explanation", explanation, Explanation, "an Explanation")
    explanation.check_heads("the flow of attribution")
    flow = Flow.of(explanation)
    view = checked_view(flow, layer, head, sign, special_tokens, segment)
    share, most = fraction("share", share), _checked_most(most)
    if not share:
        raise ValueError("share=0 shows nothing: it must be above 0")
    edges = by_strength(flow.sums if view.head is None else flow.by_head[:, view.head])
    chosen = selected(flow, edges, view)
    if not len(chosen.indices):
        asked = f"layer={layer}, head={head}, sign={sign!r}, special_tokens={special_tokens}, segment={segment!r}"
        raise ValueError(f"no interaction has a score with {asked}: choose more")
    count = cut(chosen, share, most, sign)
    shown = Edges(chosen.indices[:count], chosen.score[:count])
    whole = selected(flow, edges, view._replace(sign="both", special=True, segment="all"))
    layers, heads, _ = flow.shape
    codes, _ = fitting(flow.by_head, None, room(layers * heads, _REST + 4 / 3 * flow.sums.nbytes))
    return painted(
        [*_lines(shown, flow.shape[2], float(np.abs(shown.score[0]))), _points(flow, shown, view), *_legend()],
        _layout(explanation, flow, summary(shown, whole, view), view),
        "flow",
        hint=" ".join([Certainty.of(explanation).text, _HINT, coarse(codes.levels)]).strip(),
        changes=_GRID if second_text(flow.segments.tolist()) is None else _DIVIDED,
        scripts=["flow"],
        narrow=narrow(explanation),
        flow=_page_data(flow, codes, view, count),
    )


def _checked_most(most: Any) -> int:
    count = integer(most)
    if count is None:
        raise TypeError(f"most must be an integer, not {type(most).__name__}: {most!r}")
    if not 1 <= count <= MOST:
        raise ValueError(f"most must be from 1 to {MOST}, not {count}")
    return count


def _page_data(flow: Flow, heads: Codes, view: View, count: int) -> dict[str, Any]:
    """Return what flow.js needs: the sums over heads, every head's scores, and the first view."""
    return {
        "shape": list(flow.shape),
        "layers": flow.layers,
        "tokens": [escape(visible(token, HOVER_LENGTH)) for token in flow.tokens],
        "special": flow.special,
        "segments": flow.segments,
        "sums": flow.sums.ravel(),
        "heads": {"codes": heads.codes.ravel(), "largest": heads.largest.ravel(), "levels": heads.levels},
        "classes": list(_CLASSES),
        "most": MOST,
        "dashed": _DASHED,
        "view": {**view._asdict(), "count": count},
    }
