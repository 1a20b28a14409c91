"""The attribution tree: from the token that gathers most, down through the layers to where it gathered from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

from captum_attattr.exceptions import ResultFileError
from captum_attattr.explanation import Explanation
from captum_attattr.files import replacing

Floats = npt.NDArray[np.float64]
Edge = tuple[int, int, int]
"""(layer, query position, key position)."""

_ALGORITHMS = ("paper", "reference")
_STATES = ("NotAppear", "Appear", "Fixed")


def attribution_tree(
    explanation: Explanation,
    threshold: float = 0.4,
    algorithm: str = "paper",
    root: int | None = None,
    *,
    special_tokens: bool = True,
    merge_subwords: bool = False,
    layers: Iterable[int] | None = None,
    heads: Iterable[int] | None = None,
) -> nx.DiGraph:
    r"""Build the attribution tree of one explanation.

    With :math:`a^l = \sum_h \mathrm{Attr}_h(A^l)`, an interaction (i, j) of layer l is a candidate if
    :math:`a^l_{ij} / \max(a^l) > \tau`. "paper" is Algorithm 1 of Hao et al. (2021) for any number of layers:
    the root is the token with the largest :math:`\sum_l \sum_{j \ne i} a^l_{ij}`; from the last layer but one
    downwards each candidate (i, j), i in the tree and j not, brings j in; at the end [CLS] gets an edge to every
    token of the tree, in the last layer. Where the paper leaves it open: candidates of a layer go by falling
    score and then by position, equal sums by position, and [CLS] joins at the end only, it is neither root nor
    child. A decoder (lower-triangular attention) has no [CLS]: its root is the last position, which predicts,
    and its last layer is not left out. "reference" gives the published script's edges in its order, which
    differ: the maximum leaves out the [CLS] row, negative sums are clipped when the root is chosen, the last
    layer but one serves the root alone, [CLS] can become a child, and there are no final [CLS] edges.

    Args:
        explanation: its `attributions` (L, H, T, T), `attention`, `tokens`, `special`, `delta`.
        threshold: :math:`\tau`, from 0 up to 1.
        algorithm: "paper" or "reference".
        root: the position that the tree grows from; None lets the algorithm choose.
        special_tokens: whether special tokens other than the first ([SEP], </s>) take part.
        merge_subwords: put the pieces of a word together; their scores add up.
        layers: the layers that count, by number; None for all.
        heads: the heads that count, by number; None for all.

    Returns:
        A directed graph. Nodes are positions, with `token`, `state` ("Appear" or "Fixed"), `layer` (of their
        first appearance), `special`; edges run from query to key, in the order in which they were found
        (`order`), with `layer`, `score`, `share_of_max` and `share_of_positive` (of the layer's maximum and
        of its positive sum), `heads` (the three that give most, as [head, score]), `attention` (mean over
        heads) and `class_edge` (whether it is one of [CLS]'s at the end). The graph has `algorithm`,
        `threshold`, `root`, `class_token`, `tokens`, `target`, `label`, `probability`, `prediction`, `text`,
        `delta` (of the layer where it is largest; None if it is not known), `left_out_edges` (interactions with
        a positive score that are not in the tree) and `left_out_share` (their share of the positive attribution).

    Raises:
        TypeError, ValueError: a threshold outside [0, 1), an unknown algorithm, a root, layer or head that is
            not there, maps that are not finite or do not fit the tokens; no interaction above the threshold
            (the message says which threshold would give one).

    Example:
        >>> from captum_attattr import explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> explanation = explain(*load_demo_model(), ["a gorgeous , witty film"], progress=False)[0]
        >>> tree = attribution_tree(explanation)
        >>> [tree.nodes[node]["token"] for node in tree]
        ['[CLS]', 'a', 'gorgeous', ',', 'witty', 'film']
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold!r} must be a number from 0 up to, but not, 1")
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"algorithm={algorithm!r} is unknown; use 'paper' or 'reference'")
    maps = _Maps.of(explanation, special_tokens, merge_subwords, layers, heads)
    root = maps.checked_root(root)
    grown = (_paper if algorithm == "paper" else _reference)(maps, threshold, root)
    if len(grown.edges) == grown.class_edges:
        raise ValueError(_why_empty(maps, threshold, algorithm, grown.root))
    return _graph(explanation, maps, grown, threshold, algorithm)


# ---------------------------------------------------------------------------------------------- the input


@dataclass(frozen=True)
class _Maps:
    """The checked arrays of one explanation, and what its positions are."""

    tokens: list[str]
    special: list[bool]
    layers: list[int]
    """The layers that count, by number."""
    heads: list[int]
    by_head: Floats
    """(L, H, T, T), the layers and heads that count."""
    scores: Floats
    """(L, T, T), the sum over heads; 0 where a token takes no part."""
    attention: Floats
    """(L, T, T), the mean over heads."""
    causal: bool
    class_token: int | None
    positions: list[list[int]]
    """The explanation's own positions that each of these stands for: one, or a word's pieces."""

    @classmethod
    def of(
        cls,
        explanation: Explanation,
        special_tokens: bool,
        merge: bool,
        layers: Iterable[int] | None,
        heads: Iterable[int] | None,
    ) -> _Maps:
        tokens = [str(token) for token in explanation.tokens]
        by_head, attention = (np.asarray(getattr(explanation, n), np.float64) for n in ("attributions", "attention"))
        if by_head.ndim != 4 or 0 in by_head.shape or by_head.shape[2] != by_head.shape[3]:
            raise ValueError(f"attributions must have the shape (L, H, T, T), all above 0, not {by_head.shape}")
        if by_head.shape[2] != len(tokens):
            raise ValueError(f"attributions of {by_head.shape[2]} x {by_head.shape[3]} do not fit {len(tokens)} tokens")
        if attention.shape != by_head.shape:
            raise ValueError(f"attention has the shape {attention.shape}, attributions have {by_head.shape}")
        for name, array in (("attributions", by_head), ("attention", attention)):
            if not np.isfinite(array).all():
                where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
                raise ValueError(f"{name} must be finite, but {name}{list(where)} is {array[where]}")
        chosen_layers = _chosen("layer", layers, by_head.shape[0])
        chosen_heads = _chosen("head", heads, by_head.shape[1])
        by_head = by_head[chosen_layers][:, chosen_heads]
        attention = attention[chosen_layers][:, chosen_heads].mean(1)
        special = [bool(flag) for flag in explanation.special]
        causal = len(tokens) > 1 and not np.triu(np.asarray(explanation.attention), 1).any()
        positions = [[position] for position in range(len(tokens))]
        if merge:
            positions = _words(tokens, special)
            by_head = _merged(by_head, positions)
            attention = _merged(attention, positions) / np.array([len(p) for p in positions])[:, None]
            tokens = [_joined([tokens[i] for i in group]) for group in positions]
            special = [special[group[0]] for group in positions]
        class_token = 0 if special and special[0] and not causal else None
        scores = by_head.sum(1)
        if not special_tokens:
            out = [i for i, flag in enumerate(special) if flag and i != class_token]
            scores[:, out] = 0
            scores[:, :, out] = 0
        return cls(
            tokens, special, chosen_layers, chosen_heads, by_head, scores, attention, causal, class_token, positions
        )

    def checked_root(self, root: Any) -> int | None:
        """The place of a root that was asked for."""
        if root is None:
            return None
        if isinstance(root, bool) or not hasattr(root, "__index__"):
            raise TypeError(f"root must be a position, not {root!r}")
        count = sum(map(len, self.positions))
        if not 0 <= root < count:
            raise ValueError(f"root={root} is no position: the tokens have 0 to {count - 1}")
        return next(i for i, group in enumerate(self.positions) if root in group)


def _chosen(what: str, numbers: Iterable[int] | None, count: int) -> list[int]:
    if numbers is None:
        return list(range(count))
    chosen = list(numbers)
    for number in chosen:
        if isinstance(number, bool) or not hasattr(number, "__index__"):
            raise TypeError(f"{what} {number!r} must be an integer")
        if not 0 <= number < count:
            raise ValueError(f"{what} {number} is out of range: there are {what}s 0 to {count - 1}")
    if not chosen:
        raise ValueError(f"{what}s is empty: give at least one, or None for all")
    return sorted({int(number) for number in chosen})


def _words(tokens: Sequence[str], special: Sequence[bool]) -> list[list[int]]:
    """Positions of the pieces of each word: WordPiece's "##", or no "Ġ" or "▁" where those begin words."""
    marks = any(token.startswith(("Ġ", "▁")) for token in tokens)
    words: list[list[int]] = []
    for i, token in enumerate(tokens):
        inside = token.startswith("##") or (marks and not token.startswith(("Ġ", "▁")))
        after = i > 0 and not special[i] and not special[i - 1] and inside
        if after:
            words[-1].append(i)
        else:
            words.append([i])
    return words


def _joined(pieces: Sequence[str]) -> str:
    return pieces[0] + "".join(piece.removeprefix("##") for piece in pieces[1:])


def _merged(maps: Floats, positions: Sequence[Sequence[int]]) -> Floats:
    starts = [group[0] for group in positions]
    merged: Floats = np.add.reduceat(np.add.reduceat(maps, starts, -1), starts, -2)
    return merged


# ------------------------------------------------------------------------------------------ the algorithms


@dataclass
class _Tree:
    """What an algorithm found."""

    root: int
    edges: list[Edge]
    states: dict[int, str]
    appeared: dict[int, int]
    """The layer at which each position came in."""
    class_edges: int = 0
    """How many of the last edges are [CLS]'s."""


def _paper(maps: _Maps, threshold: float, root: int | None) -> _Tree:
    last = len(maps.scores) - 1
    if root is None:
        root = _strongest_row(maps)
    tree = _Tree(root, [], {root: "Appear"}, {root: last})
    # The last layer is [CLS]'s, which gathers the whole; without one, the root's.
    for layer in range(last if maps.causal or maps.class_token is None else last - 1, -1, -1):
        for i, j in _candidates(maps.scores[layer], threshold):
            if i == j or i not in tree.states or j in tree.states or j == maps.class_token:
                continue
            tree.edges.append((layer, i, j))
            tree.states[i], tree.states[j] = "Fixed", "Appear"
            tree.appeared[j] = layer
    if maps.class_token is not None and maps.class_token != root:
        before = sorted(tree.states)
        tree.edges += [(last, maps.class_token, j) for j in before]
        tree.states[maps.class_token] = "Fixed"
        tree.appeared[maps.class_token] = last
        tree.class_edges = len(before)
    return tree


def _strongest_row(maps: _Maps) -> int:
    if maps.causal:
        return len(maps.tokens) - 1
    gathered = (maps.scores * (1 - np.eye(len(maps.tokens)))).sum((0, 2))
    others = [i for i in range(len(gathered)) if i != maps.class_token] or [0]
    allowed = [i for i in others if not maps.special[i]] or others
    return max(allowed, key=lambda i: (gathered[i], -i))


def _candidates(scores: Floats, threshold: float) -> list[tuple[int, int]]:
    """(i, j) above the threshold, by falling score and then by position."""
    largest = scores.max()
    if largest <= 0:
        return []
    rows, columns = np.nonzero(scores / largest > threshold)
    order = np.lexsort((columns, rows, -scores[rows, columns]))
    return [(int(rows[k]), int(columns[k])) for k in order]


def _reference(maps: _Maps, threshold: float, root: int | None) -> _Tree:
    """The published script: its denominators, its order, its three states."""
    scores, size, last = maps.scores, len(maps.tokens), len(maps.scores) - 1
    largest = np.abs(scores[:, 1:].max((1, 2), initial=-np.inf))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.nan_to_num(scores / largest[:, None, None], nan=0.0, posinf=0.0, neginf=0.0)
    shares *= shares > threshold
    if root is None:
        whole = scores.sum(0)
        whole = np.clip(whole, 0, None) * (1 - np.eye(size))
        whole[0] = 0
        ranked = np.argsort(whole.sum(-1))[::-1]
        root = int(ranked[0] if ranked[0] or size == 1 else ranked[1])
    state = dict.fromkeys(range(size), "NotAppear") | {root: "Appear"}
    appeared, edges = {root: last}, []
    for j in range(size):
        if last and j != root and shares[last - 1, root, j] > threshold:
            state[j], state[root] = "Appear", "Fixed"
            appeared[j] = last - 1
            edges.append((last - 1, root, j))
    for layer in range(last - 2, -1, -1):
        for i in range(1, size):
            for j in range(size):
                if shares[layer, i, j] < threshold or state[i] == "NotAppear" or state[j] != "NotAppear":
                    continue
                state[i], state[j] = "Fixed", "Appear"
                appeared[j] = layer
                edges.append((layer, i, j))
    return _Tree(root, edges, {i: s for i, s in state.items() if s != "NotAppear"}, appeared)


def _why_empty(maps: _Maps, threshold: float, algorithm: str, root: int) -> str:
    """Which threshold would give the first edge."""
    best = 0.0
    for layer in maps.scores:
        row = np.delete(layer[root], [root, *([maps.class_token] if maps.class_token is not None else [])])
        largest = layer.max() if algorithm == "paper" else abs(layer[1:].max(initial=-np.inf))
        if largest > 0 and row.size:
            best = max(best, float(row.max() / largest))
    remedy = f"one below {best:.3g} would give the first edge" if best > 0 else "none would: choose another root"
    return f"threshold={threshold} leaves no edge at the root {maps.tokens[root]!r} (position {root}); {remedy}"


# ----------------------------------------------------------------------------------------------- the graph


def _graph(explanation: Explanation, maps: _Maps, grown: _Tree, threshold: float, algorithm: str) -> nx.DiGraph:
    graph = nx.DiGraph()
    for position in sorted(grown.states):
        graph.add_node(
            position,
            token=maps.tokens[position],
            state=grown.states[position],
            layer=maps.layers[grown.appeared[position]],
            special=maps.special[position],
        )
    positive = np.clip(maps.scores, 0, None)
    kept = np.zeros_like(maps.scores, dtype=bool)
    for order, (layer, i, j) in enumerate(grown.edges):
        score = float(maps.scores[layer, i, j])
        by_head = maps.by_head[layer, :, i, j]
        strongest = np.argsort(-np.abs(by_head), kind="stable")[:3]
        mass, largest = float(positive[layer].sum()), float(maps.scores[layer].max())
        kept[layer, i, j] = True
        graph.add_edge(
            i,
            j,
            order=order,
            layer=maps.layers[layer],
            score=score,
            share_of_max=score / largest if largest > 0 else 0.0,
            share_of_positive=max(score, 0.0) / mass if mass > 0 else 0.0,
            heads=[[maps.heads[int(h)], float(by_head[h])] for h in strongest],
            attention=float(maps.attention[layer, i, j]),
            class_edge=order >= len(grown.edges) - grown.class_edges,
        )
    left = (maps.scores > 0) & ~kept
    deltas = np.asarray(explanation.delta, np.float64)[maps.layers]
    delta = float(deltas[np.abs(deltas).argmax()])
    graph.graph.update(
        algorithm=algorithm,
        threshold=float(threshold),
        root=grown.root,
        class_token=maps.class_token,
        tokens=list(maps.tokens),
        target=int(explanation.target),
        label=str(explanation.label),
        probability=float(explanation.probability),
        prediction=int(explanation.prediction),
        text=explanation.text if isinstance(explanation.text, str) else list(explanation.text),
        delta=delta if np.isfinite(delta) else None,
        left_out_edges=int(left.sum()),
        left_out_share=float(positive[left].sum() / positive.sum()) if positive.any() else 0.0,
    )
    return graph


# ------------------------------------------------------------------------------------------------- exports


def tree_text(tree: nx.DiGraph) -> str:
    """The tree for a terminal: one line for each token, indented by depth, with layer, score, share and heads.

    Args:
        tree: of `attribution_tree`.

    Returns:
        Lines without a trailing line feed. Control characters inside tokens are spelt out.
    """
    about = tree.graph
    root, top = about["root"], about["class_token"]
    edges = {(i, j): data for i, j, data in tree.edges(data=True) if not data["class_edge"]}
    children: dict[int, list[int]] = {}
    for i, j in sorted(edges, key=lambda pair: edges[pair]["order"]):
        children.setdefault(i, []).append(j)
    lines: list[tuple[str, str]] = []

    def add(position: int, depth: int, above: int | None) -> None:
        name = f"{'  ' * depth}{_shown(tree.nodes[position]['token'])} [{position}]"
        lines.append((name, _about_edge(edges[above, position]) if above is not None else ""))
        for child in children.get(position, []):
            add(child, depth + 1, position)

    add(root, 0, None)
    width = max(len(name) for name, _ in lines)
    head = f"{about['label']!r} (target {about['target']}), F = {about['probability']:.4f}, "
    head += f"threshold {about['threshold']:g}, {about['algorithm']}"
    rows = [f"{name:{width}}  {text}".rstrip() for name, text in lines]
    if top is not None and any(data["class_edge"] for *_, data in tree.edges(data=True)):
        rows.append(f"{_shown(tree.nodes[top]['token'])} [{top}] gathers from all {len(lines)} in the last layer")
    left = f"left out: {about['left_out_edges']} edges, {about['left_out_share']:.0%} of the positive attribution"
    return "\n".join([head, *rows, left])


def _about_edge(data: dict[str, Any]) -> str:
    heads = ", ".join(str(head) for head, _ in data["heads"])
    return f"layer {data['layer']:2d}  {data['score']:+9.3g}  {data['share_of_max']:4.0%} of max  heads {heads}"


def _shown(token: str) -> str:
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in token) or "''"


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
            temporary.write_text((whole if ending == ".json" else tree_text(tree)) + "\n", encoding="utf-8")
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
    if missing or not isinstance(tree, nx.DiGraph):
        raise ResultFileError(f"{str(path)!r} holds no attribution tree: it lacks {sorted(missing)}")
    return tree


_AS_JSON = ("heads", "tokens", "text", "class_token", "delta")
"""Attributes that GraphML has no type for: they are written as JSON."""


def _flattened(tree: nx.DiGraph) -> nx.DiGraph:
    flat = tree.copy()
    for data in (flat.graph, *(d for _, d in flat.nodes(data=True)), *(d for *_, d in flat.edges(data=True))):
        data.update({name: json.dumps(data[name]) for name in _AS_JSON if name in data})
        data.update({name: _without_controls(value) for name, value in data.items() if isinstance(value, str)})
    return flat


def _without_controls(text: str) -> str:
    """XML cannot hold most control characters, not even escaped."""
    return "".join(c if c in "\t\n\r" or (c >= " " and not "\ud800" <= c <= "\udfff") else "\ufffd" for c in text)


def _unflattened(flat: nx.DiGraph) -> nx.DiGraph:
    tree = nx.DiGraph()
    tree.graph.update(flat.graph)
    tree.add_nodes_from(flat.nodes(data=True))
    tree.add_edges_from(flat.edges(data=True))
    for data in (tree.graph, *(d for *_, d in tree.edges(data=True))):
        data.update({name: json.loads(data[name]) for name in _AS_JSON if name in data})
    for name in ("node_default", "edge_default"):
        tree.graph.pop(name, None)
    return tree
