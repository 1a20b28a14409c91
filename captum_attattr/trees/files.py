"""Attribution trees as text, and as files: GraphML, and networkx's node-link JSON."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.decided import Telling
from captum_attattr.explanations.words import readable
from captum_attattr.files import checked_path, read_json, reading, replacing, write_json
from captum_attattr.formatting import cells, path_name, visible
from captum_attattr.trees.attributes import check_tree, counting

if TYPE_CHECKING:
    import networkx as nx

_NAME = 40  # most characters of a token in a line of text


@checked_arguments
def tree_text(tree: nx.DiGraph) -> str:
    """Return the tree for a terminal: a line for each token, indented by depth, with layer, score, share and heads.

    Args:
        tree: of `attribution_tree`.

    Returns:
        Lines without a trailing line feed. Control characters inside tokens are spelt out, long tokens are cut.

    Raises:
        TypeError, ValueError: `tree` is no graph of `attribution_tree`; the message names what it lacks.

    Example:
        >>> from captum_attattr import attribution_tree, explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> explanation = explain(*load_demo_model(), ["a gorgeous , witty film"], progress=False)[0]
        >>> text = tree_text(attribution_tree(explanation))
        >>> print(text.split(", F = ")[0])
        'positive' (target 1)
    """
    tree = check_tree(tree)
    graph = tree.graph
    top, names = graph["class_token"], readable(graph["tokens"], graph.get("scheme", ""))
    lines: list[tuple[str, str]] = []
    waiting: list[tuple[int, int, str]] = [(graph["root"], 0, "")]  # a tree may be deeper than Python recurses
    while waiting:
        position, depth, edge = waiting.pop()
        lines.append((f"{'  ' * depth}{visible(names[position], _NAME)} [{position}]", edge))
        edges = [(data["order"], j, data) for j, data in tree.adj[position].items() if not data["class_edge"]]
        waiting += [(j, depth + 1, _edge_text(data)) for _, j, data in sorted(edges, reverse=True)]
    width = max(cells(name) for name, _ in lines)
    contrast, output = graph.get("contrast"), graph.get("output", "probability")
    telling = Telling.of(graph)
    head = (
        f"{telling.around(repr(graph['label']), repr)} ({telling.place})"
        + (f" against {contrast!r}" if contrast else "")
        + ", "
    )
    if (value := graph.get("value", graph["probability"])) is not None:
        what = f"{output.replace('_', '-')}{' difference' if contrast else ''}"
        head += f"F = {value:.4f}{f' ({what})' if contrast or output not in ('probability', 'score') else ''}, "
    how = path_name(graph.get("path", "layer"), graph.get("baseline", "zero"))
    head += ", ".join([*filter(None, [how]), f"threshold {graph['threshold']:g}", graph["algorithm"], *counting(tree)])
    rows = [f"{name}{' ' * (width - cells(name))}  {text}".rstrip() for name, text in lines]
    if any(data["class_edge"] for *_, data in tree.edges(data=True)):
        name = visible(tree.nodes[top]["token"], _NAME)
        rows.append(f"{name} [{top}] gathers from all {len(lines)} in the last layer")
    left = f"left out: {graph['left_out_edges']} edges, {graph['left_out_share']:.0%} of the positive attribution"
    return "\n".join([head, *rows, left])


def _edge_text(data: dict[str, Any]) -> str:
    """Return what a line says of the edge that leads to its token."""
    heads = ", ".join(str(head) for head, _ in data["heads"])
    return f"layer {data['layer']:2d}  {data['score']:+9.3g}  {data['share_of_max']:4.0%} of max  heads {heads}"


@checked_arguments
def save_tree(tree: nx.DiGraph, path: str | os.PathLike[str]) -> Path:
    """Write a tree: `.json` in networkx's node-link form, `.graphml`, or `.txt` for reading.

    Args:
        tree: of `attribution_tree`.
        path: the file, whose ending says the form; replaced if it exists.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: `tree` is no graph of `attribution_tree`, `path` has another ending, is no path or a
            directory, or its directory does not exist.

    Example:
        >>> import tempfile
        >>> from captum_attattr import attribution_tree, explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> tree = attribution_tree(explain(*load_demo_model(), ["a gorgeous , witty film"], progress=False)[0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_tree(save_tree(tree, f"{folder}/tree.graphml")).graph == tree.graph
        True
    """
    import networkx as nx

    tree = check_tree(tree)
    ending = _ending(path, ".json", ".graphml", ".txt")
    if ending == ".json":
        return write_json(path, nx.node_link_data(tree, edges="edges"))
    with replacing(path) as temporary:
        if ending == ".graphml":
            nx.write_graphml(_flattened(tree), temporary)
        else:  # UTF-8 has no half of a surrogate pair
            temporary.write_text(tree_text(tree) + "\n", encoding="utf-8", errors="backslashreplace")
    return Path(path)


def _ending(path: str | os.PathLike[str], *allowed: str) -> str:
    """Return the ending of a path.

    Raises:
        TypeError, ValueError: it is no path, or has another ending.
    """
    ending = checked_path(path).suffix.lower()
    if ending not in allowed:
        raise ValueError(f"{str(path)!r} must end in {', '.join(allowed[:-1])} or {allowed[-1]}")
    return ending


@checked_arguments
def load_tree(path: str | os.PathLike[str]) -> nx.DiGraph:
    """Read a tree that `save_tree` wrote as `.json` or `.graphml`.

    Args:
        path: the file.

    Returns:
        The same graph: nodes, order of edges and all attributes.

    Raises:
        TypeError, FileNotFoundError: `path` is no path, or there is no such file.
        ResultFileError: not a tree of `save_tree`.
        ValueError: another ending.
    """
    import networkx as nx

    from captum_attattr.trees.tree import AttributionTree

    ending = _ending(path, ".json", ".graphml")
    with reading(path, "attribution tree", "save_tree") as file:
        try:
            if ending == ".json":
                tree = nx.node_link_graph(read_json(file), edges="edges")
            else:
                tree = _unflattened(nx.read_graphml(file, node_type=int))
        except (nx.NetworkXException, SyntaxError) as error:  # ElementTree's ParseError is a SyntaxError
            raise ValueError(str(error)) from error
        return AttributionTree(check_tree(tree))


_AS_JSON = ("layers", "heads", "tokens", "text", "label", "contrast", "baseline", "telling")
"""Attributes that GraphML has no type for, or whose text XML may not hold: they are written as JSON, in ASCII."""

_MAY_BE_NONE = ("layers", "heads", "class_token", "probability", "delta")
"""Attributes of the graph that GraphML leaves out where they are None."""


def _flattened(tree: nx.DiGraph) -> nx.DiGraph:
    """Return a tree with attributes of GraphML's types alone."""
    flat = tree.copy()
    for name in _MAY_BE_NONE:
        if flat.graph[name] is None:
            del flat.graph[name]
    for *_, data in flat.edges(data=True):
        if data["attention"] is None:
            data["attention"] = math.nan
    for data in (flat.graph, *(d for _, d in flat.nodes(data=True)), *(d for *_, d in flat.edges(data=True))):
        data.update({name: json.dumps(data[name]) for name in _AS_JSON if name in data})
        data.update({name: _xml(value) for name, value in data.items() if isinstance(value, str)})
    return flat


def _xml(text: str) -> str:
    """Return a text with a replacement character for what XML cannot hold, not even escaped."""

    def allowed(c: str) -> bool:
        return c in "\t\n\r" or (c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff")

    return "".join(c if allowed(c) else "\ufffd" for c in text)


def _unflattened(tree: nx.DiGraph) -> nx.DiGraph:
    """Return a graph as it was before `_flattened`; it is changed in place."""
    for data in (tree.graph, *(d for *_, d in tree.edges(data=True))):
        data.update({name: json.loads(data[name]) for name in _AS_JSON if name in data})
    for name in _MAY_BE_NONE:
        tree.graph.setdefault(name)
    for *_, data in tree.edges(data=True):
        if isinstance(data.get("attention"), float) and math.isnan(data["attention"]):
            data["attention"] = None
    for node, data in tree.nodes(data=True):
        data["token"] = tree.graph["tokens"][node]  # with what XML cannot hold
    for name in ("node_default", "edge_default"):
        tree.graph.pop(name, None)
    return tree
