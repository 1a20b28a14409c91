"""The attribution tree: from the token that gathers most, down through the layers to where it gathered from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import networkx as nx
import numpy as np

from captum_attattr.checks import fraction, index
from captum_attattr.exceptions import EmptyTreeError
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.parts import both_maps_of, tokens_of, values_of
from captum_attattr.explanations.words import Floats, attention_of, joined, summed, words

Edge = tuple[int, int, int]
"""(layer, query position, key position)."""

_ALGORITHMS = ("paper", "reference")
_NEEDED = ("attributions", "attention", "delta", "target", "label", "probability", "prediction", "text")


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
    score and then by position, equal sums by position; [CLS], a special token at the first position, joins at the
    end only, it is neither root nor child, and other special tokens are root only if there is nothing else. A
    decoder (nothing above the diagonal) has no [CLS]: its root is the last position, which predicts. Without
    [CLS] the last layer is not left out. "reference" gives the published script's edges in its order, which
    differ: the maximum leaves out the [CLS] row, negative sums are clipped when the root is chosen, the last
    layer but one serves the root alone, [CLS] can become a child, and there are no final [CLS] edges.

    Args:
        explanation: its `attributions` (L, H, T, T), `attention`, `tokens`, `special`, `delta`.
        threshold: :math:`\tau`, from 0 to 1.
        algorithm: "paper" or "reference".
        root: the position, among the explanation's tokens, that the tree grows from; None lets the algorithm
            choose.
        special_tokens: whether special tokens other than the first ([SEP], </s>) take part.
        merge_subwords: put the pieces of a word together; their scores add up, and positions count words.
        layers: the layers that count, by number; None for all.
        heads: the heads that count, by number; None for all.

    Returns:
        A directed graph. Nodes are positions, with `token`, `state` ("Appear" or "Fixed"), `layer` (of their
        first appearance), `special`; edges run from query to key, in the order in which they were found
        (`order`), with `layer`, `score`, `share_of_max` and `share_of_positive` (of the layer's maximum and
        of its positive sum), `heads` (the three that give most, as [head, score]), `attention` (mean over
        heads) and `class_edge` (whether it is one of [CLS]'s at the end). The graph has `algorithm`,
        `threshold`, `layers` and `heads` (those that count; None for all), `root`, `class_token`, `tokens`,
        `target`, `label`, `probability`, `prediction`, `text`, `delta` (of the layer where it is largest),
        `left_out_edges` (interactions with a positive score that are not in the tree) and `left_out_share` (their
        share of the positive attribution). A probability or delta that is not known is None.

    Raises:
        TypeError, ValueError: not an explanation, a threshold outside [0, 1], an unknown algorithm, a root, layer
            or head that is not there, maps that are not finite or do not fit the tokens.
        EmptyTreeError: a ValueError; no interaction is above the threshold (the message says which threshold
            would give one).

    Example:
        >>> from captum_attattr import explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> explanation = explain(*load_demo_model(), ["a gorgeous , witty film"], progress=False)[0]
        >>> tree = attribution_tree(explanation)
        >>> [tree.nodes[node]["token"] for node in tree]
        ['[CLS]', 'a', 'gorgeous', ',', 'witty', 'film']
    """
    threshold = fraction("threshold", threshold)
    if algorithm not in _ALGORITHMS:
        raise ValueError(f"algorithm={algorithm!r} is unknown; use 'paper' or 'reference'")
    maps = _Maps.of(explanation, special_tokens, merge_subwords, layers, heads)
    root = maps.checked_root(root)
    grown = (_paper if algorithm == "paper" else _reference)(maps, threshold, root)
    if len(grown.edges) == grown.class_edges:
        raise EmptyTreeError(_why_empty(maps, threshold, algorithm, grown.root))
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
        tokens = tokens_of(explanation, "special", *_NEEDED)
        by_head, attention = (maps.astype(np.float64) for maps in both_maps_of(explanation, len(tokens)))
        special: list[bool] = values_of(explanation, "special", len(tokens)).astype(bool).tolist()
        # A decoder has nothing above the diagonal. Attention alone does not tell: the published files may lack it.
        causal = len(tokens) > 1 and not any(np.triu(maps, 1).any() for maps in (by_head, attention))
        chosen_layers = _chosen("layer", layers, by_head.shape[0])
        chosen_heads = _chosen("head", heads, by_head.shape[1])
        by_head = by_head[chosen_layers][:, chosen_heads]
        attention = attention[chosen_layers][:, chosen_heads].mean(1)
        positions = [[position] for position in range(len(tokens))]
        if merge:
            positions = words(tokens, special)
            by_head, attention = summed(by_head, positions), attention_of(attention, positions)
            tokens = [joined([tokens[i] for i in group]) for group in positions]
            special = [special[group[0]] for group in positions]
        class_token = 0 if special[0] and not causal else None
        scores = by_head.sum(1)
        if not special_tokens:
            out = [i for i, flag in enumerate(special) if flag and i != class_token]
            scores[:, out] = 0
            scores[:, :, out] = 0
        return cls(
            tokens, special, chosen_layers, chosen_heads, by_head, scores, attention, causal, class_token, positions
        )

    @property
    def leaves_last(self) -> bool:
        """Whether Algorithm 1 leaves the last layer to [CLS], which gathers the whole there."""
        return self.class_token is not None

    def checked_root(self, root: Any) -> int | None:
        """The place of a root that was asked for."""
        if root is None:
            return None
        position = index("root", root, sum(map(len, self.positions)))
        return next(i for i, group in enumerate(self.positions) if position in group)


def _chosen(what: str, numbers: Iterable[int] | None, count: int) -> list[int]:
    if numbers is None:
        return list(range(count))
    if not isinstance(numbers, Iterable):
        raise TypeError(f"{what}s must be a list of numbers, or None for all, not {numbers!r}")
    chosen = sorted({index(f"each of {what}s", number, count) for number in numbers})
    if not chosen:
        raise ValueError(f"{what}s is empty: give at least one, or None for all")
    return chosen


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
    for layer in range(last - maps.leaves_last, -1, -1):
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


def _shares(scores: Floats, largest: Floats) -> Floats:
    """Scores (L, T, T) over each layer's largest one; 0 where that is not positive."""
    found: Floats = np.divide(
        scores, largest[:, None, None], out=np.zeros_like(scores), where=largest[:, None, None] > 0
    )
    return found


def _published_shares(scores: Floats) -> Floats:
    """The published script's: the largest score is sought outside the row of [CLS], and taken without its sign."""
    return _shares(scores, np.abs(scores[:, 1:].max((1, 2), initial=-np.inf)))


def _reference(maps: _Maps, threshold: float, root: int | None) -> _Tree:
    """The published script: its denominators, its order, its three states."""
    scores, size, last = maps.scores, len(maps.tokens), len(maps.scores) - 1
    shares = _published_shares(scores)
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


def _first_shares(maps: _Maps, algorithm: str) -> Floats:
    """(T,) for each root, below which threshold it has an edge; 0 if below none."""
    last = len(maps.scores) - 1
    if algorithm == "paper":
        shares = _shares(maps.scores, maps.scores.max((1, 2)))[: last + 1 - maps.leaves_last]
        if maps.class_token is not None:
            shares[:, :, maps.class_token] = 0
    else:
        shares = _published_shares(maps.scores)[:last]
        shares[:-1, 0] = 0  # the lower layers' row of [CLS] is not gone through
    found: Floats = (shares * (1 - np.eye(len(maps.tokens)))).max((0, 2), initial=0.0).clip(max=1)
    return found


def _why_empty(maps: _Maps, threshold: float, algorithm: str, root: int) -> str:
    """Which threshold would give the first edge, or which root."""
    shares = _first_shares(maps, algorithm)
    other = max(range(len(shares)), key=lambda i: (shares[i] > 0, i != maps.class_token, shares[i]))
    name, position = repr(maps.tokens[root]), maps.positions[root][0]
    if shares[root] > 0:
        remedy = f"one below {_rounded_down(shares[root])} would give the first edge"
    elif shares[other] > 0:
        remedy = f"none would: it gathers nothing; root={maps.positions[other][0]} ({maps.tokens[other]!r}) has an edge"
        remedy += f" below {_rounded_down(shares[other])}"
    elif len(maps.scores) == 1 and len(maps.tokens) > 1 and (algorithm == "reference" or maps.leaves_last):
        remedy = "none would: the last layer is not gone through, and there is no other"
    else:
        remedy = "none would: no token gathers anything positive from another"
    return f"threshold={threshold} leaves no edge at the root {name} (position {position}); {remedy}"


def _rounded_down(share: float) -> str:
    """In three digits, and never above `share`."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 2)
    return f"{math.floor(share / unit) * unit:.3g}"


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
    deltas = values_of(explanation, "delta", len(explanation.attributions), unknown=True)[maps.layers]
    delta, probability = float(deltas[np.abs(deltas).argmax()]), float(explanation.probability)
    graph.graph.update(
        algorithm=algorithm,
        threshold=threshold,
        layers=maps.layers if len(maps.layers) < explanation.attributions.shape[0] else None,
        heads=maps.heads if len(maps.heads) < explanation.attributions.shape[1] else None,
        root=grown.root,
        class_token=maps.class_token,
        tokens=list(maps.tokens),
        target=int(explanation.target),
        label=str(explanation.label),
        probability=probability if np.isfinite(probability) else None,
        prediction=int(explanation.prediction),
        text=explanation.text if isinstance(explanation.text, str) else list(explanation.text),
        delta=delta if np.isfinite(delta) else None,
        left_out_edges=int(left.sum()),
        left_out_share=float(positive[left].sum() / positive.sum()) if positive.any() else 0.0,
    )
    return graph
