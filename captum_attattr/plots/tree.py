"""The figure of an attribution tree."""

from __future__ import annotations

import math
from typing import Any, Literal

import networkx as nx
import numpy as np
import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments, instance, one_of
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import Floats, attention_of, joined, words
from captum_attattr.formatting import counted, number, signed
from captum_attattr.plots.canvas.certainty import Certainty
from captum_attattr.plots.canvas.labels import hover_label, name_label, token_label, token_width
from captum_attattr.plots.canvas.lines import Line, painted
from captum_attattr.plots.canvas.theme import Changes, Theme
from captum_attattr.plots.canvas.token_columns import NEGATIVE, NODE, POSITIVE, RIGHT, Columns, divider, second_text
from captum_attattr.plots.tree_notes import about, in_columns, missing_links, narrow_tree, titles, width_menu
from captum_attattr.plots.tree_paper import paper_tree
from captum_attattr.plots.tree_places import curve, heights_of
from captum_attattr.trees.attributes import check_tree

_FAINT: dict[Theme, str] = {"light": "#7c8894", "dark": "#7f8b97"}  # tokens outside the tree
_COLUMN: dict[Theme, str] = {"light": "#e6eaee", "dark": "#262d35"}

# Lengths in pixels.
_TOP, _HEIGHT = 88, 560  # margin, and the largest height of the plot
_THIN, _WIDE = 1.2, 7.0  # lines of edges, from no share of the layer's maximum to all of it
_TARGET = 3.2  # from the middle of a node: there a node, not a line that ends in it, answers to the mouse
_ROW = 76  # from one layer to the next, where there is room

_HINT = (
    "Click a token, or press the arrow keys, to see what it gathers and who gathers it; Esc shows all again. "
    "Point at a line or a token for its numbers. Widths follow the score, or its share of its layer's maximum."
)


def _attention(tree: nx.DiGraph, explanation: Explanation | None) -> dict[int, Floats] | None:
    """Return (H, T, T) by layer of the explanation that the tree was made of, for words where the tree has words.

    None without an explanation, or where it has no attention.

    Raises:
        TypeError, ValueError: no explanation, or one of other tokens, layers or heads.
    """
    if explanation is None:
        return None
    instance("explanation", explanation, Explanation, "an Explanation").check_heads("the picture of a tree")
    tokens, wanted = explanation.tokens, tree.graph["tokens"]
    maps: Floats = explanation.attributions.double().numpy(force=True)
    if explanation.attention is not None:
        maps = explanation.attention.double().numpy(force=True)
    if tokens != wanted:
        positions = words(tokens, explanation.special, explanation.scheme)
        if [joined([tokens[i] for i in word], explanation.scheme) for word in positions] != wanted:
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


def _numbers(tree: nx.DiGraph, i: int, j: int, attention: dict[int, Floats] | None) -> list[str]:
    """Return the lines of an edge: its score, the heads that add most to it, and their attention."""
    data = tree.edges[i, j]
    score, layer = data["score"], data["layer"]
    lines = [f"layer {layer}, attribution {signed(score)}"]
    lines.append(f"{100 * data['share_of_max']:.0f} % of the layer's maximum".replace("-", "−"))
    query, key = tree.graph["index"][i], tree.graph["index"][j]
    if data["attention"] is not None:
        lines.append(f"attention {number(data['attention'])}, mean over heads")
    for head, value in data["heads"]:
        share = f" ({100 * value / abs(score):+.0f} %)".replace("-", "−") if score else ""
        seen = f", attention {number(float(attention[layer][head, query, key]))}" if attention is not None else ""
        lines.append(f"head {head}: {signed(value)}{share}{seen}")
    return lines


def _edge_hover(tree: nx.DiGraph, i: int, j: int, attention: dict[int, Floats] | None) -> str:
    tokens, index = tree.graph["tokens"], tree.graph["index"]
    final = ["gathered at the end"] if tree.edges[i, j]["class_edge"] else []
    names = [f"<b>{hover_label(tokens[i])}</b> [{index[i]}] from <b>{hover_label(tokens[j])}</b> [{index[j]}]"]
    return "<br>".join([*names, *final, *_numbers(tree, i, j, attention)])


def _node_hover(tree: nx.DiGraph, node: int, attention: dict[int, Floats] | None) -> str:
    data, graph = tree.nodes[node], tree.graph
    role = ", root" if node == graph["root"] else ""
    lines = [f"<b>{hover_label(graph['tokens'][node])}</b> [{graph['index'][node]}], layer {data['layer']}{role}"]
    for i in sorted(tree.pred[node], key=lambda i: tree.edges[i, node]["order"]):
        lines += [
            f"to <b>{token_label(graph['tokens'][i])}</b> [{graph['index'][i]}]:",
            *_numbers(tree, i, node, attention),
        ]
    if tree.out_degree(node):
        lines.append(f"gathers from {counted(tree.out_degree(node), 'token')}")
    return "<br>".join(lines)


def _width(share: float) -> float:
    return round(_THIN + (_WIDE - _THIN) * min(abs(share), 1), 2)


def _edges(tree: nx.DiGraph, heights: dict[int, float], attention: dict[int, Floats] | None) -> list[Line]:
    """Return one trace for each edge, the weakest first and so below; as wide as its score is large."""
    ordered = sorted(tree.edges(data=True), key=lambda edge: (abs(edge[2]["score"]), -edge[2]["order"]))
    largest = abs(ordered[-1][2]["score"]) or 1.0
    lines = []
    for i, j, data in ordered:
        x, y = curve((j, heights[j]), (i, heights[i]), len(tree.graph["tokens"]))
        width = _width(data["score"] / largest)
        negative = data["score"] < 0
        trace = {
            "type": "scatter",
            "name": f"edge {i} {j}",
            "meta": {
                "edge": [tree.graph["index"][i], tree.graph["index"][j]],
                "ends": [i, j],
                "negative": negative,
                "share": _width(data["share_of_max"]),
            },
            "mode": "lines",
            "x": x.astype(np.float32),
            "y": y.astype(np.float32),
            "line": {"width": width, "simplify": False, "dash": "dash" if negative else "solid"},
            "opacity": 1.0,
            "hovertemplate": _edge_hover(tree, i, j, attention) + "<extra></extra>",
            "showlegend": False,
        }
        lines.append(Line(trace, NEGATIVE if negative else POSITIVE))
    return lines


def _name_places(tree: nx.DiGraph, heights: dict[int, float], columns: Columns) -> list[str]:
    """Return where the name of each node stands: at its right or left, above or below it, or "" where it would collide.

    The axis below names every column, so a name that is left out here is not lost.
    """
    places: dict[int, str] = {}
    taken: list[tuple[float, float, float, float]] = []
    count = len(tree.graph["tokens"])
    end = (count - 0.5) * columns.width + RIGHT
    for node in sorted(tree, key=lambda node: (-heights[node], node)):
        width, x, y = token_width(tree.graph["tokens"][node]) + 6.0, columns.pixel(node, count), -heights[node] * _ROW
        boxes = {
            "middle right": (x + 8, x + 8 + width, y - 8, y + 8),
            "middle left": (x - 8 - width, x - 8, y - 8, y + 8),
            "top center": (x - width / 2, x + width / 2, y - 24, y - 8),
            "bottom center": (x - width / 2, x + width / 2, y + 8, y + 24),
        }
        marks = [(columns.pixel(each, count), -heights[each] * _ROW) for each in tree if each != node]
        for place, (left, right, top, bottom) in boxes.items():
            inside = left > -_ROW / 2 and right < end
            over = any(left < r and right > le and top < b and bottom > t for le, r, t, b in taken)
            if inside and not over and not any(left - 7 < u < right + 7 and top - 5 < v < bottom + 5 for u, v in marks):
                places[node] = place
                taken.append((left, right, top, bottom))
                break
    return [places.get(node, "") for node in sorted(tree)]


def _nodes(tree: nx.DiGraph, heights: dict[int, float], attention: dict[int, Floats] | None, columns: Columns) -> Line:
    """Return the marks of all tokens of the tree, and their names where these fit."""
    graph, nodes = tree.graph, sorted(tree)
    size = min(11.0, max(6.0, 0.9 * columns.width))
    special = {graph["root"]: "square", **({graph["class_token"]: "diamond"} if graph["class_token"] in tree else {})}
    symbols = [special.get(node, "circle-open" if tree.nodes[node]["special"] else "circle") for node in nodes]
    places = _name_places(tree, heights, columns)
    trace = {
        "type": "scatter",
        "name": "tokens",
        "mode": "markers+text" if any(places) else "markers",
        "x": nodes,
        "y": [heights[node] for node in nodes],
        "text": [token_label(graph["tokens"][node]) if at else "" for node, at in zip(nodes, places, strict=True)],
        "textposition": [at or "middle right" for at in places],
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


def _targets(nodes: Line, column: float, row: float) -> Line:
    """Return unseen marks on and around each node, which answer to the mouse instead of the lines that end there.

    plotly takes the mark of the smallest distance, which is 0 on the point of a line and within 3 pixels of a mark of
    that radius, and the last of equals.
    """
    around = [(0.0, 0.0), *((_TARGET * x, _TARGET * y) for x, y in ((0, 1), (0, -1), (1, 0), (-1, 0)))]
    points = list(zip(nodes.trace["x"], nodes.trace["y"], nodes.trace["hovertemplate"], strict=True))
    trace = {
        "type": "scatter",
        "name": "tokens under the mouse",
        "mode": "markers",
        "x": [x + u / column for x, *_ in points for u, _ in around],
        "y": [y + v / row for _, y, _ in points for _, v in around],
        "marker": {"size": 6, "opacity": 0},
        "hovertemplate": [text for *_, text in points for _ in around],
        "showlegend": False,
    }
    return Line(trace, NODE)


def _legend(edges: list[Line]) -> list[Line]:
    """Return the legend's entries, traces without a point."""
    signs = {edge.trace["meta"]["negative"] for edge in edges}
    kinds = [("positive", "solid", POSITIVE)] if False in signs else []
    kinds += [("negative", "dash", NEGATIVE)] if True in signs else []
    bare = {"type": "scatter", "x": [None], "y": [None], "hoverinfo": "skip", "showlegend": True}
    root = {"name": "root", "mode": "markers", "marker": {"symbol": "square", "size": 10}}
    lines = [
        Line({**bare, "mode": "lines", "name": name, "line": {"width": 4, "dash": dash}}, colours)
        for name, dash, colours in kinds
    ]
    return [*lines, Line({**bare, **root}, NODE)]


def _layout(
    tree: nx.DiGraph,
    columns: Columns,
    heights: dict[int, float],
    highest: float,
    told: tuple[nx.DiGraph, list[tuple[float, int, int, int]]],
) -> tuple[dict[str, Any], float]:
    """Return the layout, with rows from the lowest layer of the tree up, and the pixels of a row.

    `highest` is where its lines reach; `told` is what `titles` takes: the tree as it was given, and what it lacks.
    """
    graph = tree.graph
    low, top = round(min(heights.values())), round(max(heights.values()))
    last = max(data["layer"] for _, data in tree.nodes(data=True))
    levels = top - low + 1
    height = min(_HEIGHT, 120 + _ROW * levels)
    step = math.ceil(levels * 12 / height)
    ticks = [level for level in range(low, min(top, last) + 1) if level % step == 0]
    texts = [f"layer {level}" for level in ticks]
    if graph["class_token"] is None or top > last:  # the decision, or [CLS] that makes it, above the last layer
        top = max(top, last + 1)
        ticks, texts = [*ticks, top], [*texts, "output"]
    ends = [low - 0.6, max(top + 0.6, highest + 0.1)]
    inside = columns.axis(graph["tokens"], sorted(tree))
    outside = [position for position in range(len(graph["tokens"])) if position not in tree]
    beside = columns.axis(graph["tokens"], outside, inside["tickvals"])
    layout = columns.layout(
        *titles(told[0], low, told[1]),
        _TOP + 16 * bool(told[1]),
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
            "range": ends,
            "tickvals": ticks,
            "ticktext": texts,
        },
    )
    return layout, height / (ends[1] - ends[0])


@checked_arguments
def plot_tree(
    tree: nx.DiGraph, explanation: Explanation | None = None, *, style: Literal["page", "paper"] = "page"
) -> go.Figure:
    """Draw an attribution tree: tokens are columns, layers are rows, and information flows upwards.

    A token stands at the layer in which it came into the tree; [CLS], where it gathers the whole at the end,
    stands above the last layer; layers below the tree's lowest are not drawn. A line goes from the token that is
    read up to the one that reads it. It is the wider the larger its score, or, by the menu, the larger the share
    of its layer's largest score; orange adds to the prediction, blue and dashed takes away. The root is a square, and
    the tokens outside the tree are dimmed in the row below; of a text of more than 60 tokens, only those beside the
    tree's have a column. A decoder's root leads up to the token that it predicts. The figure says in bold if the tree
    leaves out more than 90 % of the positive attribution, and with `explanation` it names the strongest links that
    are not in the tree. In a page of `write_html` a click on a token, or an
    arrow key, lights up its ancestors and descendants.

    Args:
        tree: of `attribution_tree` or `load_tree`.
        explanation: the explanation that the tree was made of; the hover then tells each head's attention, and
            without it the mean over heads.
        style: "page"; or "paper", for print: words in place of marks on the levels of their layers, the root in bold
            and [CLS], or the token that a decoder predicts, above all, joined by straight lines in ink, as wide as
            their scores are large, dashed below zero; the whole text below; no title, menus or legend.

    Returns:
        A figure. Each edge is a trace named "edge 5 3" (query 5, key 3); the trace "tokens" holds the nodes.

    Raises:
        TypeError, ValueError: `tree` is no graph of `attribution_tree`, or `explanation` no Explanation or one of other
            tokens, layers or heads; or there is no such style.

    Example:
        >>> from captum_attattr import attribution_tree, explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> explanation = explain(*load_demo_model(), ["a gorgeous , witty film"], progress=False)[0]
        >>> tree = attribution_tree(explanation)
        >>> figure = plot_tree(tree, explanation)
        >>> sum("edge" in (trace.name or "") for trace in figure.data) == tree.number_of_edges()
        True
    """
    one_of("style", style, ("page", "paper"))
    given = check_tree(tree)
    attention = _attention(given, explanation)
    missing = [] if explanation is None else missing_links(given, explanation)
    tree = in_columns(given)
    at = None if explanation is None else second_text(explanation.segments)
    second = next((i for i, index in enumerate(tree.graph["index"]) if at and index >= at), None)
    if style == "paper":
        return paper_tree(given, tree, explanation, second)
    tokens = tree.graph["tokens"]
    columns, heights = Columns.of(tokens), heights_of(tree)
    edges, nodes = _edges(tree, heights, attention), _nodes(tree, heights, attention, columns)
    if tree.graph["class_token"] is None:
        edges.append(_output(tree, heights, columns.reverse))
    layout, row = _layout(tree, columns, heights, max(float(max(edge.trace["y"])) for edge in edges), (given, missing))
    # plotly draws an axis only if it has a trace.
    holder = {"type": "scatter", "name": "labels", "xaxis": "x2", "x": [None], "y": [None], "hoverinfo": "skip"}
    # zorder draws the tokens last; their unseen marks are last, and so win over the ends of edges under the mouse.
    last = Line({**holder, "showlegend": False}, NODE)
    lines = [nodes, *edges, *_legend(edges), last, _targets(nodes, columns.width, row)]
    layout["shapes"] = divider(second)
    line = {"shapes[0].line.color": _FAINT} if layout["shapes"] else {}
    looks = {"xaxis.gridcolor": _COLUMN, "xaxis2.tickfont.color": _FAINT, **line}
    changes: dict[Theme, Changes] = {theme: {k: v[theme] for k, v in looks.items()} for theme in _COLUMN}
    data = {
        "edges": [edge.trace["meta"]["ends"] for edge in edges],
        "steps": sorted(tree.edges, key=lambda edge: (not tree.edges[edge]["class_edge"], tree.edges[edge]["order"])),
        "nodes": nodes.trace["x"],
        "labels": [token_label(token) for token in tokens],
        "index": tree.graph["index"],
    }
    layout["updatemenus"] = [width_menu(edges, layout)]
    exact = [] if explanation is None else [Certainty.of(explanation).text]
    hint, told = " ".join([*exact, about(given), _HINT]), narrow_tree(given, explanation)
    return painted(lines, layout, "tree", hint=hint, changes=changes, scripts=["tree"], tree=data, narrow=told)


def _output(tree: nx.DiGraph, heights: dict[int, float], reverse: bool) -> Line:
    """Return the decision above the root of a decoder's tree."""
    root = tree.graph["root"]
    top = round(max(heights.values())) + 1
    label = name_label(tree.graph["label"].strip() or tree.graph["label"])
    trace = {
        "type": "scatter",
        "name": "output",
        "meta": {"ends": [root, root], "negative": False, "share": _THIN},
        "mode": "lines+markers+text",
        "x": [root, root],
        "y": [heights[root], top],
        "text": ["", f"{reverse * ' '}predicts {label} "],
        "textposition": "middle right" if reverse else "middle left",
        "textfont": {"size": 12},
        "cliponaxis": False,
        "line": {"width": _THIN, "dash": "dot"},
        "marker": {"symbol": ["circle", "diamond"], "size": [1, 13]},
        "opacity": 1.0,
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return Line(trace, NODE)
