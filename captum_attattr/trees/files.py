"""Attribution trees as text, and as files: GraphML, and networkx's node-link JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import networkx as nx

from captum_attattr.exceptions import ResultFileError
from captum_attattr.explanations.words import readable
from captum_attattr.files import replacing
from captum_attattr.formatting import cells, counting, visible

_NAME = 40  # most characters of a token in a line of text


def tree_text(tree: nx.DiGraph) -> str:
    """The tree for a terminal: one line for each token, indented by depth, with layer, score, share and heads.

    Args:
        tree: of `attribution_tree`.

    Returns:
        Lines without a trailing line feed. Control characters inside tokens are spelt out, long tokens are cut.

    Example:
        >>> from captum_attattr import attribution_tree, explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> explanation = explain(*load_demo_model(), ["a gorgeous , witty film"], progress=False)[0]
        >>> text = tree_text(attribution_tree(explanation))
        >>> print(text.split(", F = ")[0])
        'positive' (target 1)
    """
    about = tree.graph
    root, top, names = about["root"], about["class_token"], readable(about["tokens"])
    edges = {(i, j): data for i, j, data in tree.edges(data=True) if not data["class_edge"]}
    children: dict[int, list[int]] = {}
    for i, j in sorted(edges, key=lambda pair: edges[pair]["order"]):
        children.setdefault(i, []).append(j)
    lines: list[tuple[str, str]] = []

    def add(position: int, depth: int, above: int | None) -> None:
        name = f"{'  ' * depth}{visible(names[position], _NAME)} [{position}]"
        lines.append((name, _about_edge(edges[above, position]) if above is not None else ""))
        for child in children.get(position, []):
            add(child, depth + 1, position)

    add(root, 0, None)
    width = max(cells(name) for name, _ in lines)
    value = "" if about["probability"] is None else f"F = {about['probability']:.4f}, "
    head = f"{about['label']!r} (target {about['target']}), {value}"
    head += ", ".join([f"threshold {about['threshold']:g}", about["algorithm"], *counting(about)])
    rows = [f"{name}{' ' * (width - cells(name))}  {text}".rstrip() for name, text in lines]
    if top is not None and any(data["class_edge"] for *_, data in tree.edges(data=True)):
        rows.append(
            f"{visible(tree.nodes[top]['token'], _NAME)} [{top}] gathers from all {len(lines)} in the last layer"
        )
    left = f"left out: {about['left_out_edges']} edges, {about['left_out_share']:.0%} of the positive attribution"
    return "\n".join([head, *rows, left])


def _about_edge(data: dict[str, Any]) -> str:
    heads = ", ".join(str(head) for head, _ in data["heads"])
    return f"layer {data['layer']:2d}  {data['score']:+9.3g}  {data['share_of_max']:4.0%} of max  heads {heads}"


def save_tree(tree: nx.DiGraph, path: str | os.PathLike[str]) -> Path:
    """Write a tree: `.json` in networkx's node-link form, `.graphml`, or `.txt` for reading.

    Args:
        tree: of `attribution_tree`.
        path: the file, whose ending says the form; replaced if it exists.

    Returns:
        The path.

    Raises:
        ValueError: another ending, or a directory that does not exist.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".json", ".graphml", ".txt"):
        raise ValueError(f"{str(path)!r} must end in .json, .graphml or .txt")
    with replacing(path) as temporary:
        if ending == ".graphml":
            nx.write_graphml(_flattened(tree), temporary)
        else:
            whole = json.dumps(nx.node_link_data(tree, edges="edges"), ensure_ascii=False, indent=1)
            # Halves of surrogate pairs, which UTF-8 has not, become the escapes of JSON.
            text = whole if ending == ".json" else tree_text(tree)
            temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    return Path(path)


def load_tree(path: str | os.PathLike[str]) -> nx.DiGraph:
    """Read a tree that `save_tree` wrote as `.json` or `.graphml`.

    Args:
        path: the file.

    Returns:
        The same graph: node numbers, order of edges and all attributes.

    Raises:
        FileNotFoundError: there is no such file.
        ResultFileError: not a tree of `save_tree`.
        ValueError: another ending.
    """
    path = Path(path)
    if path.suffix.lower() not in (".json", ".graphml"):
        raise ValueError(f"{str(path)!r} must end in .json or .graphml")
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    try:
        if path.suffix.lower() == ".json":
            tree = nx.node_link_graph(json.loads(path.read_text(encoding="utf-8")), edges="edges")
        else:
            tree = _unflattened(nx.read_graphml(path, node_type=int))
        missing = {"root", "class_token", "threshold", "tokens"} - tree.graph.keys()
    except Exception as error:  # parsers of three libraries
        raise ResultFileError(f"{str(path)!r} holds no attribution tree: {error}") from error
    if missing:
        raise ResultFileError(f"{str(path)!r} holds no attribution tree: it lacks {sorted(missing)}")
    if not isinstance(tree, nx.DiGraph) or tree.is_multigraph():
        raise ResultFileError(f"{str(path)!r} holds no attribution tree: its graph must be directed, and no multigraph")
    return tree


_AS_JSON = ("layers", "heads", "tokens", "text", "label")
"""Attributes that GraphML has no type for, or texts that XML cannot hold: they are written as JSON, in ASCII."""

_MAY_BE_NONE = ("layers", "heads", "class_token", "probability", "delta")
"""Attributes of the graph that GraphML leaves out where they are None."""


def _flattened(tree: nx.DiGraph) -> nx.DiGraph:
    flat = tree.copy()
    for name in _MAY_BE_NONE:
        if flat.graph.get(name, "") is None:
            del flat.graph[name]
    for data in (flat.graph, *(d for _, d in flat.nodes(data=True)), *(d for *_, d in flat.edges(data=True))):
        data.update({name: json.dumps(data[name]) for name in _AS_JSON if name in data})
        data.update({name: _xml(value) for name, value in data.items() if isinstance(value, str)})
    return flat


def _xml(text: str) -> str:
    """What XML can hold of a text; most control characters it cannot, not even escaped."""

    def allowed(c: str) -> bool:
        return c in "\t\n\r" or (c >= " " and not "\ud800" <= c <= "\udfff" and c not in "\ufffe\uffff")

    return "".join(c if allowed(c) else "\ufffd" for c in text)


def _unflattened(flat: nx.DiGraph) -> nx.DiGraph:
    tree = nx.DiGraph()
    tree.graph.update(flat.graph)
    tree.add_nodes_from(flat.nodes(data=True))
    tree.add_edges_from(flat.edges(data=True))
    for data in (tree.graph, *(d for *_, d in tree.edges(data=True))):
        data.update({name: json.loads(data[name]) for name in _AS_JSON if name in data})
    for name in _MAY_BE_NONE:
        tree.graph.setdefault(name)
    for node, data in tree.nodes(data=True):
        data["token"] = tree.graph["tokens"][node]  # with what XML cannot hold
    for name in ("node_default", "edge_default"):
        tree.graph.pop(name, None)
    return tree
