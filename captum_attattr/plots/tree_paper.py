"""The figure of an attribution tree for print: words on the levels of their layers, lines that pass no other word."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import networkx as nx
import plotly.graph_objects as go

from captum_attattr.explanations.explanation import Explanation
from captum_attattr.plots.canvas.labels import name_label, prediction_title, right_to_left, token_label, token_width
from captum_attattr.plots.canvas.layout import FONT
from captum_attattr.plots.canvas.theme import finish
from captum_attattr.plots.canvas.token_columns import divider
from captum_attattr.plots.tree_notes import narrow_tree
from captum_attattr.plots.tree_places import heights_of

_INK, _GREY, _SHADE, _PALE, _PAPER = "#1b232b", "#5d6a77", "#aeb7c0", "#e6eaee", "#ffffff"
_HINT = "For print: write_image makes PDF and SVG of it."

# Lengths in pixels.
_GAP = 16  # between the words of neighbouring columns
_LEVEL = 58  # from one layer to the next
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 10, 8, 40  # margins
_THIN, _WIDE = 0.7, 4.5  # lines, from the weakest to the strongest edge
_BESIDE = 4  # from the lines of the tree to those of [CLS]
# In levels.
_HALF = 0.45  # above the highest and below the lowest one
_CLEAR = 0.22  # from the middle of a word to where nothing is hidden by it


def paper_tree(given: nx.DiGraph, tree: nx.DiGraph, explanation: Explanation | None, second: int | None) -> go.Figure:
    """Return the picture of a tree in ink, its root above all.

    Args:
        given: the tree as it was given.
        tree: of `in_columns`.
        explanation: that it was made of, for the words of a narrow page.
        second: the column in which the second text of a pair begins.
    """
    graph, heights, x, width = tree.graph, heights_of(tree), *_columns(tree.graph["tokens"])
    low, top = round(min(heights.values())), round(max(heights.values()))
    last = max(data["layer"] for _, data in tree.nodes(data=True))
    ticks = {level: f"layer {level}" for level in range(low, min(top, last) + 1)}
    words = [_word(x[node], heights[node], _bold(graph, node)) for node in sorted(tree)]
    lines = _edges(tree, heights, x)
    if graph["class_token"] is None:  # a decoder's root leads up to what it predicts
        top = last + 1
        label = name_label(graph["label"].strip() or graph["label"])
        words.append(_word(x[graph["root"]], top, f"<b>{label}</b>"))
        lines.append(_line("output", [x[graph["root"]]] * 2, [heights[graph["root"]], top], 1.0, dash="dot"))
    if top > last:
        ticks[top] = "output"
    ends = [low - _HALF, max(top + _HALF, *(max(line["y"]) + _CLEAR for line in lines))]
    height = round(_LEVEL * (ends[1] - ends[0]))
    axis = {"zeroline": False, "ticks": "", "showline": False, "fixedrange": True}
    looks: dict[str, Any] = {
        "template": "none",
        "width": _LEFT + width + _RIGHT,
        "height": _TOP + height + _BOTTOM,
        "margin": {"l": _LEFT, "r": _RIGHT, "t": _TOP, "b": _BOTTOM},
        "font": {"family": FONT, "size": 12},
        "showlegend": False,
        "annotations": words,
        "shapes": _divider(second, x, width),
        "xaxis": {**axis, "range": [0, width], "showgrid": False, "tickangle": 0, "tickvals": x}
        | {"ticktext": [_below(graph["tokens"][i], i in tree) for i in range(len(x))]},
        "yaxis": {**axis, "range": ends, "gridcolor": _PALE, "griddash": "dot"}
        | {"tickvals": list(ticks), "ticktext": list(ticks.values()), "tickfont": {"color": _GREY, "size": 11}},
    }
    paper = {"paper_bgcolor": _PAPER, "plot_bgcolor": _PAPER, "font.color": _INK}
    return finish(
        go.Figure(lines, looks),
        {"light": paper, "dark": paper},
        title=prediction_title("Attribution tree", graph),
        hint=_HINT,
        filename="tree",
        narrow=narrow_tree(given, explanation),
    )


def _columns(tokens: list[str]) -> tuple[list[float], int]:
    """Return the middle of each token's column, which is as wide as the token, and the width of all."""
    widths = [token_width(token) + _GAP for token in tokens]
    middles = [end - width / 2 for end, width in zip(accumulate(widths), widths, strict=True)]
    whole = sum(widths)
    return [whole - middle for middle in middles] if right_to_left(tokens) else middles, whole


def _bold(graph: dict[str, Any], node: int) -> str:
    label = token_label(graph["tokens"][node])
    return f"<b>{label}</b>" if node in (graph["root"], graph["class_token"]) else label


def _below(token: str, inside: bool) -> str:
    """Return a token for the sentence below the tree, grey where it is not in the tree."""
    return token_label(token) if inside else f'<span style="color:{_GREY}">{token_label(token)}</span>'


def _word(x: float, y: float, text: str) -> dict[str, Any]:
    """Return a word on the ground of the page, which hides the ends of its lines."""
    return {"x": x, "y": y, "text": text, "showarrow": False, "bgcolor": _PAPER, "borderpad": 2}


def _edges(tree: nx.DiGraph, heights: dict[int, float], x: list[float]) -> list[dict[str, Any]]:
    """Return a line for each edge, from what is read up to what reads it, the weakest first and so below.

    Those by which [CLS] gathers all tokens at the end are grey, below the others and a little beside them.
    """
    ordered = sorted(
        tree.edges(data=True), key=lambda edge: (not edge[2]["class_edge"], abs(edge[2]["score"]), -edge[2]["order"])
    )
    largest = max(abs(data["score"]) for *_, data in ordered) or 1.0
    beside_keys = sorted({i for i, j, _ in ordered if heights[i] == heights[j]})
    bows = {i: 1.4 * _CLEAR + 0.1 * (rank % 5) for rank, i in enumerate(beside_keys)}
    lines = []
    for i, j, data in ordered:
        beside = -_BESIDE * data["class_edge"]
        points = _path((x[j] + beside, heights[j]), (x[i] + beside, heights[i]), bows.get(i, 0.0))
        width = _THIN + (_WIDE - _THIN) * abs(data["score"]) / largest
        looks = ("dash" if data["score"] < 0 else "solid", _SHADE if data["class_edge"] else _INK)
        line = _line(f"edge {i} {j}", *points, width, *looks)
        lines.append({**line, "meta": {"edge": [tree.graph["index"][i], tree.graph["index"][j]]}})
    return lines


def _path(key: tuple[float, float], query: tuple[float, float], bow: float) -> tuple[list[float], list[float]]:
    """Return the corners of a line from a key up to a query.

    It goes up in the key's column, where no other word is, and crosses columns between two levels, where none is; so
    high above their level, if the key came in by a token of its own layer.
    """
    (x0, y0), (x1, y1) = key, query
    crossing = [y0 + bow] * 2 if y0 == y1 else [y1 - 1 + _CLEAR, y1 - _CLEAR]
    return [x0, x0, x1, x1], [y0, *crossing, y1]


def _line(name: str, x: list[float], y: list[float], width: float, dash: str, colour: str = _INK) -> dict[str, Any]:
    looks = {"color": colour, "width": round(width, 2), "dash": dash}
    return {"type": "scatter", "mode": "lines", "name": name, "x": x, "y": y, "line": looks, "hoverinfo": "skip"}


def _divider(second: int | None, x: list[float], width: int) -> list[dict[str, Any]]:
    """Return the line between the two texts of a pair."""
    if second is None:
        return []
    (line,) = divider(second)
    middle = (x[second - 1] + x[second]) / 2
    return [{**line, "x0": middle, "x1": middle, "line": {"width": 1, "dash": "dash", "color": _GREY}}]
