"""The figure of all interactions: what flows from token to token, layer by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from captum_attattr.checks import fraction
from captum_attattr.formatting import counted, signed, visible, whole_text
from captum_attattr.plots.canvas.labels import HOVER, escape, predicted, wrapped
from captum_attattr.plots.canvas.theme import PAGES, WIDTH, Changes, Theme, finish, shortened
from captum_attattr.plots.canvas.token_columns import LEFT, NEGATIVE, NODE, POSITIVE, RIGHT, Columns, frame
from captum_attattr.plots.flow_edges import (
    Edges,
    Flow,
    Segment,
    Sign,
    View,
    by_strength,
    checked,
    cut,
    looked_at,
    quantised,
    summary,
    viewed,
)

if TYPE_CHECKING:
    from captum_attattr.explanations.explanation import Explanation

_CLASSES = (0.0, 0.1, 0.25, 0.5)  # a class of width begins at this share of the strongest |score|
_WIDTHS = (0.8, 1.6, 3.2, 5.5)  # pixels
_OPACITY = (0.5, 0.65, 0.8, 0.95)
MOST = 3_000  # edges in one picture: more are a solid area, and no longer quick
_DASHED = 200  # edges up to which negative ones are dashed; browsers are slow at dashes
_WEBGL = 1_000  # edges from which plotly draws with WebGL

_LOOKS: dict[Theme, dict[str, str]] = {
    "light": {"xaxis.gridcolor": "#e9edf0", "yaxis.gridcolor": "#ccd3da"},
    "dark": {"xaxis.gridcolor": "#222931", "yaxis.gridcolor": "#3a444e"},
}
_TOP, _PLOT = 130, 516  # pixels

_HINT = (
    "The slider, or the arrow keys, move the cut: the edges with the largest |score| are drawn, negative ones dashed "
    f"up to {_DASHED}. Point at an edge for its numbers."
)


# ------------------------------------------------------------------------------------------- the traces


def _lines(edges: Edges, size: int, strongest: float) -> list[dict[str, Any]]:
    """One trace for each width and sign, thin ones first; an edge is two points and a gap."""
    layer, query, key = (part.astype(np.float32) for part in edges.parts(size))
    share = np.abs(edges.score) / strongest
    widths = np.searchsorted(_CLASSES, share, side="right") - 1
    kind = "scattergl" if len(edges.place) > _WEBGL else "scatter"
    dashes = {"positive": "solid", "negative": "dash" if len(edges.place) <= _DASHED else "solid"}
    gap = np.full(len(layer), np.nan, dtype=np.float32)
    x, y = np.stack([key, query, gap], 1), np.stack([layer, layer + 1, gap], 1)
    traces = []
    for place, width in enumerate(_WIDTHS):
        for sign in ("negative", "positive"):
            own = (widths == place) & ((edges.score > 0) == (sign == "positive"))
            traces.append(
                {
                    "type": kind,
                    "name": f"{sign} {place}",
                    "mode": "lines",
                    "x": x[own].ravel(),
                    "y": y[own].ravel(),
                    "line": {"width": width, "dash": dashes[sign]},
                    "opacity": _OPACITY[place],
                    "hoverinfo": "skip",
                    "showlegend": False,
                }
            )
    return traces


def _about(flow: Flow, edges: Edges, view: View) -> list[str]:
    """What the hover tells of each edge."""
    texts = []
    names = [f"<b>{wrapped(token)}</b> [{i}]" for i, token in enumerate(flow.tokens)]
    for layer, query, key, score in zip(*edges.parts(flow.shape[2]), edges.score.tolist(), strict=True):
        lines = [f"{names[query]} from {names[key]}"]
        if view.head is not None:
            lines.append(f"layer {layer}, head {view.head}: {signed(score)}")
        else:
            lines.append(f"layer {layer}, sum over {counted(flow.shape[1], 'head')}: {signed(score)}")
            heads = flow.by_head[layer, :, query, key]
            top = np.argsort(-np.abs(heads), kind="stable")[: 3 * (len(heads) > 1)]
            lines += [f"head {head}: {signed(float(heads[head]))}" for head in top]
        texts.append("<br>".join(lines))
    return texts


def _points(flow: Flow, edges: Edges, view: View) -> dict[str, Any]:
    """Unseen marks that answer to the mouse; not half way up, where crossing edges would share them."""
    layer, query, key = (part.astype(np.float32) for part in edges.parts(flow.shape[2]))
    return {
        "type": "scatter",
        "name": "edges",
        "mode": "markers",
        "x": (0.62 * key + 0.38 * query).astype(np.float32),
        "y": (layer + 0.38).astype(np.float32),
        "marker": {"size": 8, "opacity": 0},
        "hovertemplate": [f"{text}<extra></extra>" for text in _about(flow, edges, view)],
        "showlegend": False,
    }


def _legend() -> list[dict[str, Any]]:
    common = {"type": "scatter", "mode": "lines", "x": [None], "y": [None], "hoverinfo": "skip", "showlegend": True}
    return [
        {**common, "name": name, "line": {"width": 4, "dash": dash}}
        for name, dash in (("positive", "solid"), ("negative", "dash"))
    ]


# ------------------------------------------------------------------------------------------- the layout


def _layout(explanation: Explanation, flow: Flow, columns: Columns, told: str, view: View) -> dict[str, Any]:
    layers = flow.shape[0]
    plot = min(_PLOT, 150 + 90 * layers)
    step = math.ceil(layers * 12 / plot)
    named = [layer for layer in range(layers) if layer % step == 0]
    title = predicted("Attribution flow", explanation.label, explanation.target, float(explanation.probability))
    above = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "paper", "y": 1 + 8 / plot, "yanchor": "bottom"}
    shown = "" if view.layer is None else f"layer {view.layer}, "
    shown += "sum over heads" if view.head is None else f"head {view.head}"
    return {
        **frame(title, shortened(whole_text(explanation.text), WIDTH - LEFT - RIGHT), _TOP, plot, columns),
        "annotations": [{**above, "text": f"{told} ({shown})", "showarrow": False, "font": {"size": 13}}],
        "xaxis": {
            **columns.axis(flow.tokens, range(len(flow.tokens))),
            "showgrid": True,
            "title": {
                "text": "token; in each layer keys are below, queries above",
                "standoff": 4,
                "font": {"size": 13},
            },
        },
        "yaxis": {
            "range": [-0.06 * max(layers / 6, 0.4), layers + 0.06 * max(layers / 6, 0.4)],
            "tickvals": [layer + 0.5 for layer in named],
            "ticktext": [f"layer {layer}" for layer in named],
            "ticks": "",
            "showgrid": False,
            "zeroline": False,
            "minor": {"tickvals": list(range(layers + 1)), "showgrid": True, "ticks": ""},
        },
    }


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
    what is looked at, the slider and the arrow keys move the cut, and every edge that is drawn answers to the mouse.
    Elsewhere the figure shows its first cut.

    The scores in the traces, and in the page the sums over heads, are exact (float32). Scores of single heads
    travel to the page once, in 12 bits each, within 0.4 % of their values, down to 8e-8 of the largest.

    Args:
        explanation: its `tokens` (T), `attributions` (L, H, T, T), `special` and `segments` (T,), `target`,
            `label`, `probability` and `text` are used.
        layer: the layer shown at first, from 0; None for all.
        head: the head shown at first, from 0; None for the sum over heads.
        sign: which scores are shown at first: "both", "positive" or "negative".
        special_tokens: whether edges from and to special tokens are shown at first.
        segment: for pairs of texts, the edges shown at first: "all", within the "first" or the "second" text, or
            "across" from one to the other.
        share: the first cut shows so many edges as carry this share of the positive attribution of what is
            looked at (of the negative, if that is all there is); 1 for all edges.
        most: the first cut shows no more edges than these, 3,000 at most.

    Returns:
        A figure. Traces named "positive 3" (the widest) to "negative 0" hold the edges as pairs of points with
        gaps between them, drawn with WebGL if they are more than 1,000; "edges" holds their hovers.

    Raises:
        TypeError: not an Explanation, a token that is not a string, a layer, head, or `most` not an integer.
        ValueError: maps that do not match the tokens, are not finite or are all 0; no such layer, head, sign or
            segment; a share outside (0, 1]; nothing to show.

    Example:
        >>> from captum_attattr import explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> explanation = explain(*load_demo_model(), ["a gorgeous , witty film"], progress=False)[0]
        >>> figure = plot_flow(explanation, special_tokens=False, most=10)
        >>> figure.layout.annotations[0].text[:18]
        '10 of 252 edges = '
    """
    flow = checked(explanation)
    view = viewed(flow, layer, head, sign, special_tokens, segment)
    share = fraction("share", share)
    if not share:
        raise ValueError("share=0 shows nothing: it must be above 0")
    if isinstance(most, bool) or not hasattr(most, "__index__"):
        raise TypeError(f"most must be an integer, not {type(most).__name__}: {most!r}")
    if not 1 <= most <= MOST:
        raise ValueError(f"most must be from 1 to {MOST}, not {most}")
    sums = by_strength(flow.sums)
    edges = sums if view.head is None else by_strength(flow.by_head[:, view.head])
    found = looked_at(flow, edges, view)
    if not len(found.place):
        asked = f"layer={layer}, head={head}, sign={sign!r}, special_tokens={special_tokens}, segment={segment!r}"
        raise ValueError(f"no interaction has a score with {asked}: choose more")
    count = cut(found, share, int(most), sign)
    shown = Edges(found.place[:count], found.score[:count])
    whole = looked_at(flow, edges, view._replace(sign="both", special=True, segment="all"))
    columns = Columns.of(flow.tokens)
    lines = _lines(shown, flow.shape[2], float(np.abs(found.score[0])))
    traces = [*lines, _points(flow, shown, view), *_legend()]
    figure = go.Figure(traces, _layout(explanation, flow, columns, summary(shown, whole, view), view))
    themes: dict[Theme, Changes] = {
        theme: {
            **page,
            "plot_bgcolor": page["paper_bgcolor"],
            "colorway": [
                *[NEGATIVE[theme], POSITIVE[theme]] * len(_WIDTHS),
                NODE[theme],
                POSITIVE[theme],
                NEGATIVE[theme],
            ],
            "xaxis.gridcolor": _LOOKS[theme]["xaxis.gridcolor"],
            "yaxis.minor.gridcolor": _LOOKS[theme]["yaxis.gridcolor"],
        }
        for theme, page in PAGES.items()
    }
    bulk = {
        "shape": list(flow.shape),
        "tokens": [escape(visible(token, HOVER)) for token in flow.tokens],
        "special": flow.special,
        "segments": flow.segments,
        "place": sums.place,
        "score": sums.score,
        "heads": quantised(flow.by_head),
        "classes": list(_CLASSES),
        "most": MOST,
        "dashed": _DASHED,
        "view": {**view._asdict(), "count": len(shown.place)},
    }
    return finish(figure, themes, scripts=["flow"], flow=bulk, hint=_HINT, filename="flow")
