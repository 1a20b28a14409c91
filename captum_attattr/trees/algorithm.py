"""The attribution tree: from the token that gathers most, down through the layers to where it gathered from."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from captum_attattr.checks import checked_arguments, fraction, instance
from captum_attattr.exceptions import EmptyTreeError
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import Floats
from captum_attattr.trees.growth import Grown, paper, reference, why_empty
from captum_attattr.trees.maps import Maps

if TYPE_CHECKING:
    import networkx as nx

_ALGORITHMS = {"paper": paper, "reference": reference}


@checked_arguments
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

    With :math:`a^l = \sum_h \mathrm{Attr}_h(A^l)`, an interaction (i, j) of layer l is a candidate if :math:`a^l_{ij} /
    \max(a^l) > \tau`. "paper" is Algorithm 1 of Hao et al. (2021) for any number of layers: the root is the token with
    the largest :math:`\sum_l \sum_{j \ne i} a^l_{ij}`; from the last layer but one downwards each candidate (i, j), i
    in the tree and j not, brings j in; at the end [CLS] gets an edge to every token of the tree, in the last layer.
    Where the paper leaves it open: candidates of a layer go by falling score and then by position, equal sums by
    position; [CLS], a special token at the first position, joins at the end only, it is neither root nor child, and
    other special tokens are root only if there is nothing else. A decoder (nothing above the diagonal) has no [CLS]:
    its root is the last position, which predicts. Nor does [CLS] gather all for an answer, a tag, a masked word or a
    similarity: there the root is the token that the output reads; of several, the one that gathers most. Without [CLS]
    the last layer is not left out. "reference" gives the published script's edges in its order, which differ: the
    maximum leaves out the [CLS] row, negative sums are clipped when the root is chosen, the last layer but one serves
    the root alone, [CLS] can become a child, and there are no final [CLS] edges.

    Args:
        explanation: its `attributions` (L, H, T, T), `attention`, `tokens`, `special`, `delta`.
        threshold: :math:`\tau`, from 0 to 1.
        algorithm: "paper" or "reference".
        root: the position, among the explanation's tokens, that the tree grows from; None lets the algorithm
            choose.
        special_tokens: whether special tokens other than the first ([SEP], </s>) take part.
        merge_subwords: put the pieces of a word together; their scores add up, and positions count words.
        layers: indices of the layers that count; None for all.
        heads: indices of the heads that count; None for all.

    Returns:
        A directed graph. Nodes are positions, with `token`, `state` ("Appear" or "Fixed"), `layer` (of their
        first appearance), `special`; edges run from query to key, in the order in which the algorithm adds them
        (`order`), with `layer`, `score`, `share_of_max` and `share_of_positive` (of the layer's maximum and
        of its positive sum), `heads` (the three that give most, as [head, score]), `attention` (mean over
        heads; None where it was not kept) and `class_edge` (whether it is one of [CLS]'s at the end). The graph has
        `algorithm`, `threshold`, `layers` and `heads` (those that count; None for all), `root`, `class_token`,
        `tokens`, `target`, `label`, `output` (what F is, as the explanation names it), the target's `probability`,
        `prediction`, `text`, `delta` (of the layer where it is largest; on the joint path of all layers together),
        `left_out_edges` (interactions with a positive score that are not in the tree) and `left_out_share` (their
        share of the positive attribution). A probability or delta that is not known is None. Where they are not the
        usual there are `value` (F, if it is not the probability), `contrast`, `path`, `baseline`, `scheme` and
        `telling` (of an answer, tag or masked word: what the label is, of which word, at which tokens).

    Raises:
        TypeError, ValueError: not an explanation, a threshold outside [0, 1], an unknown algorithm, a root, layer
            or head that the explanation does not have.
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
    instance("explanation", explanation, Explanation, "an Explanation")
    explanation.check_heads("an attribution tree")
    threshold = fraction("threshold", threshold)
    if algorithm not in tuple(_ALGORITHMS):
        raise ValueError(f"algorithm={algorithm!r} is unknown; use 'paper' or 'reference'")
    maps = Maps.of(explanation, special_tokens, merge_subwords, layers, heads)
    grown = _ALGORITHMS[algorithm](maps, threshold, maps.root(root))
    if len(grown.edges) == grown.class_edges:
        raise EmptyTreeError(why_empty(maps, threshold, algorithm, grown.root))
    return _graph(explanation, maps, grown, threshold, algorithm)


def _graph(explanation: Explanation, maps: Maps, grown: Grown, threshold: float, algorithm: str) -> nx.DiGraph:
    """Return the graph of a tree, with everything that is known of its nodes and edges."""
    from captum_attattr.trees.tree import AttributionTree

    graph = AttributionTree()
    for position in sorted(grown.states):
        graph.add_node(
            position,
            token=maps.tokens[position],
            state=grown.states[position],
            layer=maps.layers[grown.appeared[position]],
            special=maps.special[position],
        )
    positive = np.clip(maps.scores, 0, None)
    for order, (layer, i, j) in enumerate(grown.edges):
        class_edge = order >= len(grown.edges) - grown.class_edges
        graph.add_edge(i, j, order=order, **_edge(maps, positive, layer, i, j), class_edge=class_edge)
    left = maps.scores > 0
    left[tuple(zip(*grown.edges, strict=True))] = False
    deltas = np.array(explanation.delta.tolist())[[explanation.layers.index(layer) for layer in maps.layers]]
    delta = explanation.total_delta if explanation.path == "joint" else float(deltas[np.abs(deltas).argmax()])
    graph.graph.update(
        algorithm=algorithm,
        threshold=threshold,
        layers=None if maps.layers == list(range(explanation.attributions.shape[0])) else maps.layers,
        heads=maps.heads if len(maps.heads) < explanation.attributions.shape[1] else None,
        root=grown.root,
        class_token=maps.class_token,
        tokens=list(maps.tokens),
        target=explanation.target,
        label=explanation.label,
        output=explanation.output,
        probability=_known(explanation.probability),
        prediction=explanation.prediction,
        text=explanation.text if isinstance(explanation.text, str) else list(explanation.text),
        delta=_known(delta),
        left_out_edges=int(left.sum()),
        left_out_share=float(positive[left].sum() / positive.sum()) if positive.any() else 0.0,
        **_unusual(explanation),
    )
    return graph


def _unusual(explanation: Explanation) -> dict[str, Any]:
    """Return what was attributed along which path, where that is not the usual."""
    found: dict[str, Any] = {}
    if explanation.contrast is not None:
        found["contrast"] = explanation.contrast
    if explanation.contrast is not None or explanation.output not in ("probability", "score"):
        found["value"] = _known(explanation.value)
    if explanation.telling.kind:
        found["telling"] = list(explanation.telling)
    usual = {"path": "layer", "baseline": "zero", "scheme": ""}
    return found | {name: getattr(explanation, name) for name in usual if getattr(explanation, name) != usual[name]}


def _edge(maps: Maps, positive: Floats, layer: int, i: int, j: int) -> dict[str, Any]:
    """Return the figures of an edge; `positive` are the maps' positive scores."""
    score, largest, mass = (
        float(x) for x in (maps.scores[layer, i, j], maps.scores[layer].max(), positive[layer].sum())
    )
    by_head = maps.by_head[layer, :, i, j]
    strongest = np.argsort(-np.abs(by_head), kind="stable")[:3]
    return {
        "layer": maps.layers[layer],
        "score": score,
        "share_of_max": score / largest if largest > 0 else 0.0,
        "share_of_positive": max(score, 0.0) / mass if mass > 0 else 0.0,
        "heads": [[maps.heads[int(h)], float(by_head[h])] for h in strongest],
        "attention": None if maps.attention is None else float(maps.attention[layer, i, j]),
    }


def _known(value: float | None) -> float | None:
    """Return a number, and None for NaN."""
    return None if value is None or math.isnan(value) else value
