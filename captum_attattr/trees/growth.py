"""How a tree grows: Algorithm 1 of the paper, the published script's variant, and why either may find no edge."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from captum_attattr.explanations.words import Floats
from captum_attattr.trees.maps import Maps

Edge = tuple[int, int, int]
"""(layer, query, key): indices of the layers that count, and positions."""


@dataclass
class Grown:
    """The edges of a tree, in the order in which an algorithm added them."""

    root: int
    edges: list[Edge]
    states: dict[int, str]
    """By position: "Appear" or "Fixed"."""
    appeared: dict[int, int]
    """The layer at which each position joined."""
    class_edges: int = 0
    """How many of the last edges are [CLS]'s."""


def paper(maps: Maps, threshold: float, root: int | None) -> Grown:
    """Return the tree of Algorithm 1 of Hao et al. (2021)."""
    last = len(maps.scores) - 1
    if root is None:
        root = _strongest_query(maps)
    tree = Grown(root, [], {root: "Appear"}, {root: last})
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


def _strongest_query(maps: Maps) -> int:
    """Return the position that gathers most from others: of those that the output reads, where these are known."""
    if maps.causal and not maps.readers:
        return len(maps.tokens) - 1
    gathered = (maps.scores * (1 - np.eye(len(maps.tokens)))).sum((0, 2))
    others = [i for i in range(len(gathered)) if i != maps.class_token] or [0]
    allowed = maps.readers or [i for i in others if not maps.special[i]] or others
    return max(allowed, key=lambda i: (gathered[i], -i))


def _candidates(scores: Floats, threshold: float) -> list[tuple[int, int]]:
    """Return the (i, j) above the threshold, by falling score and then by position."""
    largest = scores.max()
    if largest <= 0:
        return []
    queries, keys = np.nonzero(scores / largest > threshold)
    order = np.lexsort((keys, queries, -scores[queries, keys]))
    return [(int(queries[k]), int(keys[k])) for k in order]


def reference(maps: Maps, threshold: float, root: int | None) -> Grown:
    """Return the tree of the published script: its denominators, its order, its three states."""
    scores, size, last = maps.scores, len(maps.tokens), len(maps.scores) - 1
    shares = _published_shares(scores)
    shares *= shares > threshold
    if root is None:
        gathered = np.clip(scores.sum(0), 0, None) * (1 - np.eye(size))
        gathered[0] = 0
        ranked = np.argsort(gathered.sum(-1))[::-1]
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
    return Grown(root, edges, {i: s for i, s in state.items() if s != "NotAppear"}, appeared)


def _shares(scores: Floats, largest: Floats) -> Floats:
    """Return scores (L, T, T) over each layer's largest one; 0 where that is not positive."""
    largest = largest[:, None, None]
    shares: Floats = np.divide(scores, largest, out=np.zeros_like(scores), where=largest > 0)
    return shares


def _published_shares(scores: Floats) -> Floats:
    """Return the published script's shares: of the maximum outside the row of [CLS], without its sign."""
    return _shares(scores, np.abs(scores[:, 1:].max((1, 2), initial=-np.inf)))


def why_empty(maps: Maps, threshold: float, algorithm: str, root: int) -> str:
    """Return the message that says which threshold would give the first edge, or which root."""
    shares = _first_shares(maps, algorithm)
    other = max(range(len(shares)), key=lambda i: (shares[i] > 0, i != maps.class_token, shares[i]))
    name, position = repr(maps.tokens[root]), maps.pieces[root][0]
    if shares[root] > 0:
        remedy = f"one below {_rounded_down(shares[root])} would give the first edge"
    elif shares[other] > 0:
        remedy = f"none would: it gathers nothing; root={maps.pieces[other][0]} ({maps.tokens[other]!r}) has an edge"
        remedy += f" below {_rounded_down(shares[other])}"
    elif len(maps.scores) == 1 and len(maps.tokens) > 1 and (algorithm == "reference" or maps.leaves_last):
        remedy = "none would: the last layer is not gone through, and there is no other"
    else:
        remedy = "none would: no token gathers anything positive from another"
    return f"threshold={threshold} leaves no edge at the root {name} (position {position}); {remedy}"


def _first_shares(maps: Maps, algorithm: str) -> Floats:
    """Return (T,), for each root the threshold below which it has an edge; 0 if it never has one."""
    last = len(maps.scores) - 1
    if algorithm == "paper":
        shares = _shares(maps.scores, maps.scores.max((1, 2)))[: last + 1 - maps.leaves_last]
        if maps.class_token is not None:
            shares[:, :, maps.class_token] = 0
    else:
        shares = _published_shares(maps.scores)[:last]
        shares[:-1, 0] = 0  # the script skips [CLS]'s row of the lower layers
    first: Floats = (shares * (1 - np.eye(len(maps.tokens)))).max((0, 2), initial=0.0).clip(max=1)
    return first


def _rounded_down(share: float) -> str:
    """Return a share in three digits, never above it."""
    unit = 10.0 ** (math.floor(math.log10(share)) - 2)
    return f"{math.floor(share / unit) * unit:.3g}"
