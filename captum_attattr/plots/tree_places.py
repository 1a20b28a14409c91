"""Where a tree's tokens and lines stand in its figures."""

from __future__ import annotations

import networkx as nx
import numpy as np

from captum_attattr.explanations.words import Floats

_POINTS = 41  # of a curve, its middle among them; each of them answers to the mouse


def heights_of(tree: nx.DiGraph) -> dict[int, float]:
    """Return the height of each node: its layer, and one above the last for [CLS] where it gathers the whole."""
    top = tree.graph["class_token"]
    lifted = {i for i, _, data in tree.edges(data=True) if data["class_edge"]}
    return {node: data["layer"] + float(node in lifted and node == top) for node, data in tree.nodes(data=True)}


def curve(start: tuple[float, float], end: tuple[float, float]) -> tuple[Floats, Floats]:
    """Return the points of a line from the key up to the query, which leaves and arrives upright in its column."""
    (x0, y0), (x1, y1) = start, end
    if y0 == y1:  # came in by a token of the same layer: an arc above both, the wider the higher
        low = high = y0 + min(0.35 + 0.06 * abs(x1 - x0), 0.95)
    else:
        low, high = y0 + 0.55 * (y1 - y0), y1 - 0.55 * (y1 - y0)
    t = np.linspace(0, 1, _POINTS)
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return np.array([x0, x0, x1, x1]) @ weights, np.array([y0, low, high, y1]) @ weights
