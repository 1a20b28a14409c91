"""Where a tree's tokens and lines stand in its figures."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np

from captum_attattr.explanations.words import Floats

_POINTS = 41  # of a curve, its middle among them; each of them answers to the mouse
_STEP = 1 / 256  # of a row, and of eight columns where there are many: half a pixel at most, in numbers that pack well


def heights_of(tree: nx.DiGraph) -> dict[int, float]:
    """Return the height of each node: its layer, and one above the last for [CLS] where it gathers the whole."""
    top = tree.graph["class_token"]
    lifted = {i for i, _, data in tree.edges(data=True) if data["class_edge"]}
    return {node: data["layer"] + float(node in lifted and node == top) for node, data in tree.nodes(data=True)}


def curve(start: tuple[float, float], end: tuple[float, float], columns: int) -> tuple[Floats, Floats]:
    """Return the points of a line from the key up to the query, which leaves and arrives upright in its column.

    Args:
        start, end: the place of the key and that of the query.
        columns: of the figure, which is as wide however many they are.
    """
    (x0, y0), (x1, y1) = start, end
    if y0 == y1:  # came in by a token of the same layer: an arc above both, the wider the higher
        low = high = y0 + min(0.35 + 0.06 * abs(x1 - x0), 0.95)
    else:
        low, high = y0 + 0.55 * (y1 - y0), y1 - 0.55 * (y1 - y0)
    t = np.linspace(0, 1, _POINTS)
    weights = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    x, y = np.array([[x0, x0, x1, x1], [y0, low, high, y1]]) @ weights
    step = _STEP * 2.0 ** math.floor(math.log2(max(columns, 8) / 8))
    return np.round(x / step) * step, np.round(y / _STEP) * _STEP
