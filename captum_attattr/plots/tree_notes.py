"""What the figure of a tree says beside the picture: which columns it shows, and which strong links it lacks."""

from __future__ import annotations

from typing import Any

import networkx as nx

from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import readable, summed, words
from captum_attattr.formatting import counted, signed
from captum_attattr.plots.canvas.labels import prediction_title, token_label
from captum_attattr.plots.canvas.lines import Line
from captum_attattr.plots.canvas.narrow import narrow, sentences
from captum_attattr.trees.attributes import counting

ALL_COLUMNS = 60  # tokens; of longer texts only those of the tree and their neighbours have a column
_WARN = 0.9  # of the positive attribution: where more is left out, the figure says so in bold
_MISSING = 3  # links that are named
_LISTED = 50  # links of a tree in a narrow page
_ALGORITHMS = {"paper": "Algorithm 1", "reference": "the published script's algorithm"}


def in_columns(tree: nx.DiGraph) -> nx.DiGraph:
    """Return a copy of a tree whose nodes are columns of the figure, and whose `index` is the token of each column.

    Of a long text, tokens that are neither in the tree nor beside one of it share a column, "…".
    """
    tokens = readable(tree.graph["tokens"], tree.graph.get("scheme", ""))
    shown: list[int | None] = list(range(len(tokens)))
    if len(tokens) > ALL_COLUMNS:
        near = {node + by for node in tree for by in (-1, 0, 1) if 0 <= node + by < len(tokens)}
        shown = []
        for i in range(len(tokens)):
            if i in near:
                shown.append(i)
            elif shown and shown[-1] is not None:
                shown.append(None)
    columns = {i: column for column, i in enumerate(shown) if i is not None}
    copy = nx.relabel_nodes(tree, columns, copy=True)
    copy.graph.update(
        tokens=["…" if i is None else tokens[i] for i in shown],
        index=[-1 if i is None else i for i in shown],
        root=columns[tree.graph["root"]],
        class_token=columns.get(tree.graph["class_token"]),
    )
    return copy


def missing_links(tree: nx.DiGraph, explanation: Explanation) -> list[tuple[float, int, int, int]]:
    """Return the strongest links of an explanation that are not in its tree: (score, layer, query, key).

    A tree has one edge from a query to a key, in one layer; the same link in another layer is not in it.
    """
    maps = explanation.attributions.double().sum(1).numpy(force=True)
    if len(tree.graph["tokens"]) != len(explanation.tokens):
        maps = summed(maps, words(explanation.tokens, explanation.special, explanation.scheme))
    size = maps.shape[-1]
    taken = {(data["layer"], i, j) for i, j, data in tree.edges(data=True)}
    order = abs(maps).ravel().argsort()[::-1][: len(taken) + _MISSING]
    links = [(int(at) // size**2, int(at) // size % size, int(at) % size) for at in order]
    told = [(float(maps[row, i, j]), explanation.layers[row], i, j) for row, i, j in links if maps[row, i, j]]
    return [link for link in told if link[1:] not in taken][:_MISSING]


def titles(tree: nx.DiGraph, low: int, missing: list[tuple[float, int, int, int]]) -> tuple[str, str]:
    """Return the title and the subtitle: what was explained and how, and what is not in the picture.

    Args:
        tree: as `attribution_tree` made it.
        low: the lowest layer of the picture.
        missing: of `missing_links`.
    """
    graph: dict[str, Any] = tree.graph
    title = prediction_title("Attribution tree", graph)
    share = graph["left_out_share"]
    left_out = f"left out: {graph['left_out_edges']:,} interactions with a positive score, "
    left_out += f"{100 * share:.0f} % of the positive attribution"
    if share > _WARN:
        left_out = f"<b>This tree shows little of the decision; {left_out}</b>"
    parts = [*counting(tree), left_out]
    if low:
        parts.append(f"below layer {low} no token comes in")
    subtitle = "; ".join(parts)
    if missing:
        names = readable(graph["tokens"], graph.get("scheme", ""))
        told = ", ".join(
            f"{token_label(names[i])} ← {token_label(names[j])} {signed(score)} (layer {layer})"
            for score, layer, i, j in missing
        )
        subtitle += f"<br>{counted(len(missing), 'strongest link')} not in the tree: {told}"
    return f"{title}; threshold {graph['threshold']:g}, {_ALGORITHMS[graph['algorithm']]}", subtitle


def about(tree: nx.DiGraph) -> str:
    """Return what a tree is, in a sentence for those who have not read the paper."""
    told = (
        "The tree goes down from its root, the square: each token brings in, layer by layer, those that it reads with "
        f"more than {100 * tree.graph['threshold']:g} % of the layer's largest score"
    )
    if not any(data["class_edge"] for *_, data in tree.edges(data=True)):
        return f"{told}."
    return f"{told}; in the end the first token, a special one where the decision is read, gathers them all."


def width_menu(edges: list[Line], layout: dict[str, Any]) -> dict[str, Any]:
    """Return the menu of what the widths of the edges are."""
    targets = [1 + i for i in range(len(edges))]
    widths = {
        "width: score": [edge.trace["line"]["width"] for edge in edges],
        "width: share of its layer": [edge.trace["meta"]["share"] for edge in edges],
    }
    buttons = [
        {"label": name, "method": "restyle", "args": [{"line.width": each}, targets]} for name, each in widths.items()
    ]
    place = {"x": 0, "xanchor": "left", "y": layout["legend"]["y"], "yanchor": "bottom", "pad": {"b": -6}}
    return {"name": "width", "type": "buttons", "direction": "right", "buttons": buttons, "font": {"size": 11}, **place}


def narrow_tree(tree: nx.DiGraph, explanation: Explanation | None) -> dict[str, Any]:
    """Return what a narrow page shows of a tree: its links, the strongest first, and the words where they are known."""
    edges = sorted(tree.edges(data=True), key=lambda edge: -abs(edge[2]["score"]))
    tokens = readable(tree.graph["tokens"], tree.graph.get("scheme", ""))
    special = {node for node, flag in tree.nodes(data="special") if flag}
    links = sentences([(data["layer"], i, j, data["score"]) for i, j, data in edges[:_LISTED]], tokens, special)
    known = {} if explanation is None else narrow(explanation)
    most = f", the {_LISTED} strongest of {len(edges)}" if len(edges) > _LISTED else ""
    return {**known, "links": links, "what": f"Links of the tree{most}", "about": about(tree)}
