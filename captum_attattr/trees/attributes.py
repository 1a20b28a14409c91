"""The attributes of an attribution tree, and the one check of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from captum_attattr import checks
from captum_attattr.explanations.attributed_output import OUTPUTS
from captum_attattr.explanations.schemes import SCHEMES
from captum_attattr.explanations.settings import checked_baseline
from captum_attattr.formatting import counted

if TYPE_CHECKING:
    import networkx as nx

Check = Callable[[str, Any], object]
"""Raises a TypeError or ValueError for a value, which it calls by a name."""


def _optional(check: Check) -> Check:
    """Return a check that allows None too."""
    return lambda name, value: None if value is None else check(name, value)


def _one_of(*allowed: str) -> Check:
    """Return a check that allows some texts alone."""

    def check(name: str, value: Any) -> None:
        if value not in allowed:
            raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r:.60}")

    return check


_text: Check = partial(checks.instance, kind=str, wanted="a string")
_flag: Check = partial(checks.instance, kind=bool, wanted="True or False")
_integers: Check = partial(checks.integers, smallest=0)


def _integer(name: str, value: Any) -> None:
    whole = checks.integer(value)
    if whole is None or whole < 0:
        raise ValueError(f"{name} must be an integer of 0 or more, not {value!r:.60}")


def _texts(name: str, value: Any) -> None:
    """Check a text, or a pair of texts."""
    if not isinstance(value, str):
        checks.strings(name, value, 2)


def _heads(name: str, value: Any) -> None:
    """Check a list of at least one [head, score]."""
    pairs = checks.sequence(name, value)
    for pair in pairs:
        if len(checks.sequence(f"each of {name}", pair)) != 2:
            raise ValueError(f"{name} must be pairs of a head and its score, not {pair!r:.60}")
        _integer(f"each head of {name}", pair[0])
        checks.finite(f"each score of {name}", pair[1])
    if not pairs:
        raise ValueError(f"{name} is empty: give at least one head and its score")


_OF_GRAPH: dict[str, Check] = {
    "algorithm": _one_of("paper", "reference"),
    "threshold": checks.fraction,
    "layers": _optional(_integers),
    "heads": _optional(_integers),
    "root": _integer,
    "class_token": _optional(_integer),
    "tokens": checks.strings,
    "target": _integer,
    "label": _text,
    "output": _one_of(*OUTPUTS),
    "probability": _optional(checks.finite),
    "prediction": _integer,
    "text": _texts,
    "delta": _optional(checks.finite),
    "left_out_edges": _integer,
    "left_out_share": checks.fraction,
}
_OPTIONAL: dict[str, Check] = {
    "value": _optional(checks.finite),
    "contrast": _text,
    "path": _one_of("layer", "joint"),
    "baseline": lambda _, value: checked_baseline(value),
    "scheme": _one_of(*SCHEMES),
    "telling": partial(checks.strings, count=3),
}
"""Attributes that are there where they are not the usual: the probability, none, "layer", "zero", not known,
a class or next token."""
_OF_NODE: dict[str, Check] = {"token": _text, "state": _one_of("Appear", "Fixed"), "layer": _integer, "special": _flag}
_OF_EDGE: dict[str, Check] = {"order": _integer, "layer": _integer, "heads": _heads, "class_edge": _flag}
_OF_EDGE |= dict.fromkeys(("score", "share_of_max", "share_of_positive"), checks.finite)
_OF_EDGE["attention"] = _optional(checks.finite)


def check_tree(tree: Any) -> nx.DiGraph:
    """Return a graph that has all that `attribution_tree` gives; it may have other attributes besides.

    Raises:
        TypeError, ValueError: no directed graph, an attribute that is missing or means nothing, or edges that do
            not lead from the root to each token once; the message names it.
    """
    import networkx as nx

    if not isinstance(tree, nx.DiGraph) or tree.is_multigraph():
        kind = type(tree).__name__
        raise TypeError(f"tree must be a networkx.DiGraph of attribution_tree, not {kind}: directed and no multigraph")
    if not tree.number_of_edges():
        raise ValueError(f"tree has {counted(len(tree), 'node')} and no edge: there is nothing to draw or to write")
    # Files of version 0.1 do not tell what the value is.
    _check_attributes("it", "tree's {}", {"output": OUTPUTS[0], **tree.graph}, _OF_GRAPH)
    for name in _OPTIONAL.keys() & tree.graph.keys():
        _OPTIONAL[name](f"tree's {name}", tree.graph[name])
    count = len(tree.graph["tokens"])
    for node, data in tree.nodes(data=True):
        if checks.integer(node) is None or not 0 <= node < count:
            raise ValueError(f"nodes of tree must be positions from 0 to {count - 1}, not {node!r}")
        _check_attributes(f"its node {node}", f"{{}} of the node {node}", data, _OF_NODE)
    for i, j, data in tree.edges(data=True):
        _check_attributes(f"its edge {i} to {j}", f"{{}} of the edge {i} to {j}", data, _OF_EDGE)
    if tree.graph["root"] not in tree:
        raise ValueError(f"the root {tree.graph['root']} of tree is none of its nodes")
    _check_shape(tree)
    checked: nx.DiGraph = tree
    return checked


def counting(tree: nx.DiGraph) -> list[str]:
    """Return which layers and heads count in a tree, if not all do: "head 3 alone", "layers 0, 2 alone"."""
    return [
        f"{name if len(indices) > 1 else name[:-1]} {', '.join(map(str, indices))} alone"
        for name in ("layers", "heads")
        if (indices := tree.graph[name])
    ]


def _check_attributes(who: str, name_of: str, given: Mapping[str, Any], wanted: Mapping[str, Check]) -> None:
    """Check that attributes are there and mean something; `name_of` makes the name that a message uses."""
    if missing := sorted(wanted.keys() - given.keys()):
        raise ValueError(f"tree is no graph of attribution_tree: {who} lacks {missing}")
    for name, check in wanted.items():
        check(name_of.format(name), given[name])


def _check_shape(tree: nx.DiGraph) -> None:
    """Check that the edges, without those of [CLS] at the end, lead from the root to each token once."""
    import networkx as nx

    root, class_token = tree.graph["root"], tree.graph["class_token"]
    grown = nx.DiGraph([(i, j) for i, j, data in tree.edges(data=True) if not data["class_edge"]])
    grown.add_node(root)
    outside = set(tree) - set(grown) - {class_token}
    if outside or not nx.is_arborescence(grown) or grown.in_degree(root):
        raise ValueError(f"edges of tree must lead from its root {root} to each of its tokens once")
    for i, j, data in tree.edges(data=True):
        if data["class_edge"] and i != class_token:
            raise ValueError(f"class_edge of the edge {i} to {j} must be False: it does not begin at [CLS]")
