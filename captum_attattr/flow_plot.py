"""The figure of all interactions: what flows from token to token, layer by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from captum_attattr.labels import HOVER, counted, escape, signed, visible, wrapped
from captum_attattr.themes import FONT, PAGES, WIDTH, Changes, Theme, finish, heading, shortened
from captum_attattr.tree_plot import LEFT, NEGATIVE, NODE, POSITIVE, RIGHT, Columns, predicted

if TYPE_CHECKING:
    from captum_attattr.explanation import Explanation

_Floats = npt.NDArray[np.float32]
_Numbers = npt.NDArray[np.uint32]
Sign = Literal["both", "positive", "negative"]
Segment = Literal["all", "first", "second", "across"]

_SIGNS = ("both", "positive", "negative")
_SEGMENTS = ("all", "first", "second", "across")
_CLASSES = (0.0, 0.1, 0.25, 0.5)  # a class of width begins at this share of the strongest |score|
_WIDTHS = (0.8, 1.6, 3.2, 5.5)  # pixels
_OPACITY = (0.5, 0.65, 0.8, 0.95)
MOST = 3_000  # edges in one picture: more are a solid area, and no longer quick
_DASHED = 200  # edges up to which negative ones are dashed; browsers are slow at dashes
_WEBGL = 1_000  # edges from which plotly draws with WebGL

_LEVELS = 2047  # of the quantised |scores| of single heads: 11 bits, beside one for the sign
_STEP = 0.008  # between the logarithms of two of them

_LOOKS: dict[Theme, dict[str, str]] = {
    "light": {"xaxis.gridcolor": "#e9edf0", "yaxis.gridcolor": "#ccd3da"},
    "dark": {"xaxis.gridcolor": "#222931", "yaxis.gridcolor": "#3a444e"},
}
_TOP, _PLOT = 130, 516  # pixels

_HINT = (
    "The slider, or the arrow keys, move the cut: the edges with the largest |score| are drawn, negative ones dashed "
    f"up to {_DASHED}. Point at an edge for its numbers."
)


class _Flow(NamedTuple):
    """The checked arrays of one explanation, and its sums over heads as edges."""

    tokens: list[str]
    by_head: _Floats  # (L, H, T, T)
    sums: _Floats  # (L, T, T)
    special: npt.NDArray[np.uint8]  # (T,)
    segments: npt.NDArray[np.uint8]  # (T,)

    @property
    def shape(self) -> tuple[int, int, int]:
        layers, heads, size = self.by_head.shape[:3]
        return layers, heads, size


class _View(NamedTuple):
    """Which edges are looked at."""

    layer: int | None
    head: int | None
    sign: str
    special: bool
    segment: str


class _Edges(NamedTuple):
    """Edges by falling |score|."""

    place: _Numbers  # (layer * T + query) * T + key
    score: _Floats

    def parts(self, size: int) -> tuple[_Numbers, _Numbers, _Numbers]:
        """Layer, query and key of each."""
        return self.place // size**2, self.place // size % size, self.place % size


# -------------------------------------------------------------------------------------------- the input


def _checked(explanation: Any) -> _Flow:
    for name in ("tokens", "attributions", "special", "segments", "target", "label", "probability", "text"):
        if not hasattr(explanation, name):
            raise TypeError(f"explanation must be an Explanation, not {type(explanation).__name__}: it has no {name}")
    tokens = list(explanation.tokens)
    for token in tokens:
        if not isinstance(token, str):
            raise TypeError(f"tokens must be strings, not {type(token).__name__}: {token!r}")
    by_head: _Floats = np.ascontiguousarray(np.asarray(explanation.attributions, dtype=np.float32))
    if by_head.ndim != 4 or 0 in by_head.shape or by_head.shape[2] != by_head.shape[3]:
        raise ValueError(f"attributions must have the shape (L, H, T, T), all above 0, not {by_head.shape}")
    size = by_head.shape[2]
    if size != len(tokens):
        raise ValueError(f"{len(tokens)} tokens need maps of {len(tokens)} x {len(tokens)}, not {size} x {size}")
    if not np.isfinite(by_head).all():
        where = [int(i) for i in np.argwhere(~np.isfinite(by_head))[0]]
        raise ValueError(f"attributions must be finite, but attributions{where} is {by_head[tuple(where)]}")
    if not by_head.any():
        raise ValueError("attributions are all 0: there is no edge to draw")
    if not math.isfinite(explanation.probability):
        raise ValueError(f"probability must be finite, not {explanation.probability}")
    special, segments = (np.asarray(getattr(explanation, name)).astype(np.uint8) for name in ("special", "segments"))
    for name, array in (("special", special), ("segments", segments)):
        if array.shape != (size,):
            raise ValueError(f"{name} must have one value for each of the {size} tokens, not the shape {array.shape}")
    return _Flow(tokens, by_head, by_head.sum(1, dtype=np.float64).astype(np.float32), special, segments)


def _index(name: str, value: Any, count: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer or None, not {type(value).__name__}: {value!r}")
    if not 0 <= value < count:
        raise ValueError(f"{name} must be from 0 to {count - 1}, or None for all, not {value}")
    return int(value)


def _view(flow: _Flow, layer: Any, head: Any, sign: Any, special: Any, segment: Any) -> _View:
    layers, heads, _ = flow.shape
    for name, value, allowed in (("sign", sign, _SIGNS), ("segment", segment, _SEGMENTS)):
        if value not in allowed:
            raise ValueError(f"{name} must be {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}, not {value!r}")
    if not isinstance(special, bool):
        raise TypeError(f"special_tokens must be True or False, not {special!r}")
    if segment in ("second", "across") and not flow.segments.any():
        raise ValueError(f"segment={segment!r} needs a pair of texts; this explanation has one: use 'all'")
    return _View(_index("layer", layer, layers), _index("head", head, heads), sign, special, segment)


# -------------------------------------------------------------------------------------------- the edges


def _sorted(scores: _Floats) -> _Edges:
    """All interactions whose score is not 0, by falling |score| and then by position."""
    flat = scores.ravel()
    order = np.argsort(-np.abs(flat), kind="stable")[: np.count_nonzero(flat)].astype(np.uint32)
    return _Edges(order, flat[order])


def _chosen(flow: _Flow, edges: _Edges, view: _View) -> _Edges:
    """The edges that a view shows."""
    layer, query, key = edges.parts(flow.shape[2])
    kept = np.ones(len(edges.place), dtype=bool)
    if view.layer is not None:
        kept &= layer == view.layer
    if view.sign != "both":
        kept &= (edges.score > 0) == (view.sign == "positive")
    if not view.special:
        kept &= (flow.special[query] | flow.special[key]) == 0
    if view.segment == "across":
        kept &= flow.segments[query] != flow.segments[key]
    elif view.segment != "all":
        wanted = _SEGMENTS.index(view.segment) - 1
        kept &= (flow.segments[query] == wanted) & (flow.segments[key] == wanted)
    return _Edges(edges.place[kept], edges.score[kept])


def _cut(edges: _Edges, share: float, most: int, sign: str) -> int:
    """How many edges carry `share` of the positive (or else negative) attribution of `edges`, at most `most`."""
    if share == 1:  # those of the other sign too
        return min(most, len(edges.score))
    counts = edges.score < 0 if sign == "negative" or not (edges.score > 0).any() else edges.score > 0
    mass = np.cumsum(np.where(counts, np.abs(edges.score), 0), dtype=np.float64)
    return min(int(np.searchsorted(mass, share * mass[-1] * (1 - 1e-9))) + 1, most, len(edges.score))


def _told(shown: _Edges, whole: _Edges, view: _View) -> str:
    """How many edges a picture has, and how much of the attribution they are. flow.js says the same."""
    parts = []
    for sign, name in ((1, "positive"), (-1, "negative")):
        mass, of = (float(np.clip(sign * each.score, 0, None).sum(dtype=np.float64)) for each in (shown, whole))
        if of and view.sign in ("both", name):
            parts.append(f"{100 * mass / of:.0f} % of the {name}")
    weakest = f"; |score| from {abs(float(shown.score[-1])):.2g}"
    return f"{len(shown.place):,} of {len(whole.place):,} edges = {' and '.join(parts)} attribution{weakest}"


# ------------------------------------------------------------------------------------------- the traces


def _lines(edges: _Edges, size: int, strongest: float) -> list[dict[str, Any]]:
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


def _about(flow: _Flow, edges: _Edges, view: _View) -> list[str]:
    """What the hover tells of each edge."""
    texts = []
    names = [f"<b>{wrapped(token)}</b> [{i}]" for i, token in enumerate(flow.tokens)]
    for layer, query, key, score in zip(*edges.parts(flow.shape[2]), edges.score.tolist(), strict=True):
        lines = [f"{names[query]} from {names[key]}"]
        if view.head is not None:
            lines.append(f"layer {layer}, head {view.head}: {signed(score)}")
        else:
            lines.append(f"layer {layer}, {counted(flow.shape[1], 'head')}: {signed(score)}")
            heads = flow.by_head[layer, :, query, key]
            top = np.argsort(-np.abs(heads), kind="stable")[: 3 * (len(heads) > 1)]
            lines += [f"head {head}: {signed(float(heads[head]))}" for head in top]
        texts.append("<br>".join(lines))
    return texts


def _points(flow: _Flow, edges: _Edges, view: _View) -> dict[str, Any]:
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


def _quantised(by_head: _Floats) -> dict[str, Any]:
    """Every head's scores in 12 bits each: the sign, and the logarithm of |score| in steps of 0.8 %.

    The bits go as one byte with the upper eight and as half a byte with the lower four. A level k above 0
    stands for scale * exp(-step * (levels - k)); what is smaller than 8e-8 of the largest score becomes that.
    """
    scale = float(np.abs(by_head).max())
    with np.errstate(divide="ignore"):
        levels = _LEVELS + np.log(np.abs(by_head.ravel()) / np.float32(scale)) / np.float32(_STEP)
    level = np.where(by_head.ravel() != 0, np.clip(np.rint(levels), 1, _LEVELS), 0).astype(np.uint16)
    code = level | np.where(by_head.ravel() < 0, np.uint16(2048), np.uint16(0))
    low = (code & 15).astype(np.uint8)
    low = np.append(low, np.zeros(len(low) % 2, dtype=np.uint8))
    about = {"scale": scale, "step": _STEP, "levels": _LEVELS}
    return {**about, "high": (code >> 4).astype(np.uint8), "low": low[::2] | low[1::2] << 4}


# ------------------------------------------------------------------------------------------- the layout


def _layout(explanation: Explanation, flow: _Flow, columns: Columns, told: str, view: _View) -> dict[str, Any]:
    layers = flow.shape[0]
    bottom = columns.height + 26
    plot = min(_PLOT, 150 + 90 * layers)
    height = _TOP + plot + bottom
    step = math.ceil(layers * 12 / plot)
    named = [layer for layer in range(layers) if layer % step == 0]
    text = explanation.text if isinstance(explanation.text, str) else " ‖ ".join(explanation.text)
    title = predicted("Attribution flow", explanation.label, explanation.target, float(explanation.probability))
    above = {"xref": "paper", "x": 0, "xanchor": "left", "yref": "paper", "y": 1 + 8 / plot, "yanchor": "bottom"}
    shown = "" if view.layer is None else f"layer {view.layer}, "
    shown += "sum over heads" if view.head is None else f"head {view.head}"
    return {
        "template": "none",
        "width": WIDTH,
        "height": height,
        "margin": {"l": LEFT, "r": RIGHT, "t": _TOP, "b": bottom},
        "font": {"family": FONT, "size": 12},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "dragmode": "pan",
        "title": heading(title, shortened(text, WIDTH - LEFT - RIGHT), height),
        "annotations": [{**above, "text": f"{told} ({shown})", "showarrow": False, "font": {"size": 13}}],
        "legend": {
            "orientation": "h",
            "x": 1,
            "xanchor": "right",
            "y": 1 + 4 / plot,
            "yanchor": "bottom",
            "itemclick": False,
            "itemdoubleclick": False,
        },
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
    classes: from 1/2, 1/4 and 1/10 of the largest |score| on, and below. In a page of `write_html`, menus choose
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
    flow = _checked(explanation)
    view = _view(flow, layer, head, sign, special_tokens, segment)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise ValueError(f"share={share!r} must be a number above 0, up to 1")
    if isinstance(most, bool) or not hasattr(most, "__index__"):
        raise TypeError(f"most must be an integer, not {type(most).__name__}: {most!r}")
    if not 1 <= most <= MOST:
        raise ValueError(f"most must be from 1 to {MOST}, not {most}")
    sums = _sorted(flow.sums)
    edges = sums if view.head is None else _sorted(flow.by_head[:, view.head])
    found = _chosen(flow, edges, view)
    if not len(found.place):
        chosen = f"layer={layer}, head={head}, sign={sign!r}, special_tokens={special_tokens}, segment={segment!r}"
        raise ValueError(f"no interaction has a score with {chosen}: choose more")
    count = _cut(found, share, int(most), sign)
    shown = _Edges(found.place[:count], found.score[:count])
    whole = _chosen(flow, edges, view._replace(sign="both", special=True, segment="all"))
    columns = Columns.of(flow.tokens)
    lines = _lines(shown, flow.shape[2], float(np.abs(found.score[0])))
    traces = [*lines, _points(flow, shown, view), *_legend()]
    figure = go.Figure(traces, _layout(explanation, flow, columns, _told(shown, whole, view), view))
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
        "heads": _quantised(flow.by_head),
        "classes": list(_CLASSES),
        "most": MOST,
        "dashed": _DASHED,
        "view": {**view._asdict(), "count": len(shown.place)},
    }
    return finish(figure, themes, scripts=["flow"], flow=bulk, hint=_HINT, filename="flow")
