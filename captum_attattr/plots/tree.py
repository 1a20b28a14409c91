"""The figure of an attribution tree."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import plotly.graph_objects as go

from captum_attattr.checks import instance
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import Floats, attention_of, joined, readable, words
from captum_attattr.formatting import counted, number, signed
from captum_attattr.plots.canvas.labels import hover_label, prediction_title, token_label, token_width
from captum_attattr.plots.canvas.lines import Line, painted
from captum_attattr.plots.canvas.theme import Changes, Theme
from captum_attattr.plots.canvas.token_columns import NEGATIVE, NODE, POSITIVE, RIGHT, Columns
from captum_attattr.trees.attributes import check_tree, counting

_FAINT: dict[Theme, str] = {"light": "#7c8894", "dark": "#7f8b97"}  # tokens outside the tree
_COLUMN: dict[Theme, str] = {"light": "#e6eaee", "dark": "#262d35"}

# Lengths in pixels.
_TOP, _HEIGHT = 88, 560  # margin, and the largest height of the plot
_THIN, _WIDE = 1.2, 7.0  # lines of edges, from no share of the layer's maximum to all of it
_POINTS = 41  # of a curve, its middle among them; each of them answers to the mouse
_PALE = 0.45  # opacity of the final edges of [CLS]

_ALGORITHMS = {"paper": "Algorithm 1", "reference": "the published script's algorithm"}

_HINT = (
    "Click a token, or press the arrow keys, to see what it gathers and who gathers it; Esc shows all again. "
    "Point at a line or a token for its numbers; the wider a line, the larger its share of its layer's maximum."
)


def _attention(tree: nx.DiGraph, explanation: Explanation | None) -> dict[int, Floats] | None:
    """Return (H, T, T) by layer of the explanation that the tree was made of, for words where the tree has words.

    None without an explanation, or where it has no attention.

    Raises:
        TypeError, ValueError: no explanation, or one of other tokens, layers or heads.
    """
    if explanation is None:
        return None
    instance("explanation", explanation, Explanation, "an Explanation")
    tokens, wanted = explanation.tokens, tree.graph["tokens"]
    maps: Floats = explanation.attributions.double().numpy(force=True)
    if explanation.attention is not None:
        maps = explanation.attention.double().numpy(force=True)
    if tokens != wanted:
        positions = words(tokens, explanation.special)
        if [joined([tokens[i] for i in word]) for word in positions] != wanted:
            raise ValueError(
                f"explanation is not the one that tree was made of: its {counted(len(tokens), 'token')} begin with "
                f"{tokens[:5]}, those of tree ({len(wanted)}) with {wanted[:5]}"
            )
        maps = attention_of(maps, positions)
    layers = max(data["layer"] for *_, data in tree.edges(data=True))
    heads = max(head for *_, data in tree.edges(data=True) for head, _ in data["heads"])
    if not {data["layer"] for *_, data in tree.edges(data=True)} <= set(explanation.layers) or heads >= maps.shape[1]:
        sizes = f"layer {layers} and head {heads}, that of explanation {maps.shape[0]} x {maps.shape[1]}"
        raise ValueError(f"attention does not fit tree, which has {sizes}")
    return None if explanation.attention is None else dict(zip(explanation.layers, maps, strict=True))


def _heights(tree: nx.DiGraph) -> dict[int, float]:
    """Return the height of each node: its layer, and one above the last for [CLS] where it gathers the whole."""
    top = tree.graph["class_token"]
    lifted = {i for i, _, data in tree.edges(data=True) if data["class_edge"]}
    return {node: data["layer"] + float(node in lifted and node == top) for node, data in tree.nodes(data=True)}


def _curve(start: tuple[float, float], end: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return the points of a line from the key up to the query, which leaves and arrives upright in its column."""
    (x0, y0), (x1, y1) = start, end
    if y0 == y1:  # came in by a token of the same layer: an arc above both, the wider the higher
        low = high = y0 + min(0.35 + 0.06 * abs(x1 - x0), 0.95)
    else:
        low, high = y0 + 0.55 * (y1 - y0), y1 - 0.55 * (y1 - y0)
    t = np.linspace(0, 1, _POINTS)
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return np.array([x0, x0, x1, x1]) @ weights, np.array([y0, low, high, y1]) @ weights


def _numbers(tree: nx.DiGraph, i: int, j: int, attention: dict[int, Floats] | None) -> list[str]:
    """Return the lines of an edge: its score, the heads that add most to it, and their attention."""
    data = tree.edges[i, j]
    score, layer = data["score"], data["layer"]
    lines = [f"layer {layer}, attribution {signed(score)}"]
    lines.append(f"{100 * data['share_of_max']:.0f} % of the layer's maximum".replace("-", "−"))
    if data["attention"] is not None:
        lines.append(f"attention {number(data['attention'])}, mean over heads")
    for head, value in data["heads"]:
        share = f" ({100 * value / abs(score):+.0f} %)".replace("-", "−") if score else ""
        seen = f", attention {number(float(attention[layer][head, i, j]))}" if attention is not None else ""
        lines.append(f"head {head}: {signed(value)}{share}{seen}")
    return lines


def _edge_hover(tree: nx.DiGraph, i: int, j: int, attention: dict[int, Floats] | None) -> str:
    tokens = tree.graph["tokens"]
    final = ["gathered at the end"] if tree.edges[i, j]["class_edge"] else []
    names = [f"<b>{hover_label(tokens[i])}</b> [{i}] from <b>{hover_label(tokens[j])}</b> [{j}]"]
    return "<br>".join([*names, *final, *_numbers(tree, i, j, attention)])


def _node_hover(tree: nx.DiGraph, node: int, attention: dict[int, Floats] | None) -> str:
    data, graph = tree.nodes[node], tree.graph
    role = ", root" if node == graph["root"] else ""
    lines = [f"<b>{hover_label(graph['tokens'][node])}</b> [{node}], layer {data['layer']}{role}"]
    for i in sorted(tree.pred[node], key=lambda i: tree.edges[i, node]["order"]):
        lines += [f"to <b>{token_label(graph['tokens'][i])}</b> [{i}]:", *_numbers(tree, i, node, attention)]
    if tree.out_degree(node):
        lines.append(f"gathers from {counted(tree.out_degree(node), 'token')}")
    return "<br>".join(lines)


def _edges(tree: nx.DiGraph, heights: dict[int, float], attention: dict[int, Floats] | None) -> list[Line]:
    """Return one trace for each edge; the final edges of [CLS] come first and so lie below."""
    ordered = sorted(tree.edges(data=True), key=lambda edge: (not edge[2]["class_edge"], edge[2]["order"]))
    lines = []
    for i, j, data in ordered:
        x, y = _curve((j, heights[j]), (i, heights[i]))
        width = _THIN + (_WIDE - _THIN) * min(abs(data["share_of_max"]), 1)
        negative = data["score"] < 0
        trace = {
            "type": "scatter",
            "name": f"edge {i} {j}",
            "meta": {"edge": [i, j], "negative": negative},
            "mode": "lines",
            "x": x.astype(np.float32),
            "y": y.astype(np.float32),
            "line": {"width": round(width, 2), "simplify": False, "dash": "dash" if negative else "solid"},
            "opacity": _PALE if data["class_edge"] else 1.0,
            "hovertemplate": _edge_hover(tree, i, j, attention) + "<extra></extra>",
            "showlegend": False,
        }
        lines.append(Line(trace, NEGATIVE if negative else POSITIVE))
    return lines


def _names_fit(tree: nx.DiGraph, heights: dict[int, float], column: float) -> bool:
    """Return whether there is room beside each node for its name, up to the next node of its row and the margin."""
    widths = {node: token_width(tree.graph["tokens"][node]) for node in tree}
    end = len(tree.graph["tokens"]) - 0.5
    rows = [[node for node in sorted(tree) if heights[node] == height] for height in set(heights.values())]
    apart = all((b - a) * column > widths[a] + 24 for row in rows for a, b in pairwise(row))
    return apart and all((end - row[-1]) * column > widths[row[-1]] - RIGHT for row in rows)


def _nodes(tree: nx.DiGraph, heights: dict[int, float], attention: dict[int, Floats] | None, column: float) -> Line:
    """Return the marks of all tokens of the tree, and their names where these fit; `column` is a width in pixels."""
    graph, nodes = tree.graph, sorted(tree)
    size = min(11.0, max(6.0, 0.9 * column))
    special = {graph["root"]: "square", **({graph["class_token"]: "diamond"} if graph["class_token"] in tree else {})}
    symbols = [special.get(node, "circle-open" if tree.nodes[node]["special"] else "circle") for node in nodes]
    named = _names_fit(tree, heights, column)
    trace = {
        "type": "scatter",
        "name": "tokens",
        "mode": "markers+text" if named else "markers",
        "x": nodes,
        "y": [heights[node] for node in nodes],
        "text": [f" {token_label(graph['tokens'][node])}" for node in nodes] if named else None,
        "textposition": "middle right",
        "textfont": {"size": 12, "shadow": "auto"},
        "cliponaxis": False,
        "zorder": 1,
        "marker": {
            "symbol": symbols,
            "size": [size + 3 * (node in special) for node in nodes],
            "opacity": 1,
            "line": {"width": 1.5},
        },
        "unselected": {"marker": {"opacity": 0.15}, "textfont": {"color": "rgba(128,128,128,0.45)"}},
        "hovertemplate": [_node_hover(tree, node, attention) + "<extra></extra>" for node in nodes],
        "showlegend": False,
    }
    return Line(trace, NODE)


def _legend(edges: list[Line], pale: str | None) -> list[Line]:
    """Return the legend's entries, traces without a point; `pale` is the name of [CLS]'s final edges."""
    signs = {edge.trace["meta"]["negative"] for edge in edges}
    kinds = [("positive", "solid", POSITIVE, 1.0)] if False in signs else []
    kinds += [("negative", "dash", NEGATIVE, 1.0)] if True in signs else []
    kinds += [(pale, "solid", NODE, _PALE)] if pale else []
    bare = {"type": "scatter", "x": [None], "y": [None], "hoverinfo": "skip", "showlegend": True}
    root = {"name": "root", "mode": "markers", "marker": {"symbol": "square", "size": 10}}
    lines = [
        Line({**bare, "mode": "lines", "name": name, "line": {"width": 4, "dash": dash}, "opacity": opacity}, colours)
        for name, dash, colours, opacity in kinds
    ]
    return [*lines, Line({**bare, **root}, NODE)]


def _layout(tree: nx.DiGraph, columns: Columns, heights: dict[int, float], highest: float) -> dict[str, Any]:
    """Return the layout, with rows from the lowest layer of the tree up; `highest` is where its lines reach."""
    graph = tree.graph
    low, top = round(min(heights.values())), round(max(heights.values()))
    last = max(data["layer"] for _, data in tree.nodes(data=True))
    levels = top - low + 1
    height = min(_HEIGHT, 120 + 76 * levels)
    step = math.ceil(levels * 12 / height)
    ticks = [level for level in range(low, min(top, last) + 1) if level % step == 0]
    texts = [f"layer {level}" for level in ticks]
    if top > last:  # [CLS] stands above the last layer
        ticks, texts = [*ticks, top], [*texts, "output"]
    inside = columns.axis(graph["tokens"], sorted(tree))
    outside = [position for position in range(len(graph["tokens"])) if position not in tree]
    beside = columns.axis(graph["tokens"], outside, inside["tickvals"])
    return columns.layout(
        *_title(tree, low),
        _TOP,
        height,
        hoverdistance=16,
        clickmode="event",
        xaxis={**inside, "title": {"text": "token", "standoff": 4, "font": {"size": 13}}, "showgrid": True},
        xaxis2={**beside, "showgrid": False, "overlaying": "x", "matches": "x", "anchor": "y", "side": "bottom"},
        yaxis={
            "showgrid": False,
            "zeroline": False,
            "ticks": "",
            "fixedrange": False,
            "range": [low - 0.6, max(top + 0.6, highest + 0.1)],
            "tickvals": ticks,
            "ticktext": texts,
        },
    )


def _title(tree: nx.DiGraph, low: int) -> tuple[str, str]:
    """Return the title and the subtitle: what was explained and how, and what is not in the picture."""
    graph = tree.graph
    title = prediction_title("Attribution tree", graph)
    share = f"{100 * graph['left_out_share']:.0f} % of the positive attribution"
    left_out = f"left out: {graph['left_out_edges']:,} interactions with a positive score, {share}"
    parts = [*counting(tree), left_out]
    if low:
        parts.append(f"below layer {low} no token comes in")
    return f"{title}; threshold {graph['threshold']:g}, {_ALGORITHMS[graph['algorithm']]}", "; ".join(parts)


def plot_tree(tree: nx.DiGraph, explanation: Explanation | None = None) -> go.Figure:
    """Draw an attribution tree: tokens are columns, layers are rows, and information flows upwards.

    A token stands at the layer in which it came into the tree; [CLS], where it gathers the whole at the end,
    stands above the last layer; layers below the tree's lowest are not drawn. A line goes from the token that is
    read up to the one that reads it. It is the wider the larger its share of its layer's largest score; orange
    adds to the prediction, blue and dashed takes away, and [CLS]'s final edges are pale. The root is a square, and
    the tokens outside the tree are dimmed in the row below. In a page of `write_html` a click on a token, or an
    arrow key, lights up its ancestors and descendants.

    Args:
        tree: of `attribution_tree` or `load_tree`.
        explanation: the explanation that the tree was made of; the hover then tells each head's attention, and
            without it the mean over heads.

    Returns:
        A figure. Each edge is a trace named "edge 5 3" (query 5, key 3); the trace "tokens" holds the nodes.

    Raises:
        TypeError, ValueError: `tree` is no graph of `attribution_tree`, or `explanation` no Explanation or one of other
            tokens, layers or heads.

    Example:
        >>> from captum_attattr import attribution_tree, explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> explanation = explain(*load_demo_model(), ["a gorgeous , witty film"], progress=False)[0]
        >>> tree = attribution_tree(explanation)
        >>> figure = plot_tree(tree, explanation)
        >>> sum("edge" in (trace.name or "") for trace in figure.data) == tree.number_of_edges()
        True
    """
    tree = check_tree(tree)
    attention = _attention(tree, explanation)
    tree, tokens = tree.copy(), readable(tree.graph["tokens"])
    tree.graph["tokens"] = tokens
    columns, heights = Columns.of(tokens), _heights(tree)
    edges, nodes = _edges(tree, heights, attention), _nodes(tree, heights, attention, columns.width)
    final = any(data["class_edge"] for *_, data in tree.edges(data=True))
    pale = f"what {token_label(tokens[tree.graph['class_token']])} gathers at the end" if final else None
    # plotly draws an axis only if it has a trace.
    holder = {"type": "scatter", "name": "labels", "xaxis": "x2", "x": [None], "y": [None], "hoverinfo": "skip"}
    # The tokens are first, and so win over the ends of edges under the mouse; zorder draws them last.
    lines = [nodes, *edges, *_legend(edges, pale), Line({**holder, "showlegend": False}, NODE)]
    changes: dict[Theme, Changes] = {
        theme: {"xaxis.gridcolor": _COLUMN[theme], "xaxis2.tickfont.color": _FAINT[theme]} for theme in _COLUMN
    }
    data = {
        "edges": [edge.trace["meta"]["edge"] for edge in edges],
        "nodes": nodes.trace["x"],
        "labels": [token_label(token) for token in tokens],
    }
    layout = _layout(tree, columns, heights, max(float(edge.trace["y"].max()) for edge in edges))
    return painted(lines, layout, "tree", hint=_HINT, changes=changes, scripts=["tree"], tree=data)
