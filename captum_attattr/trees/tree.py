"""The graph of an attribution tree, which shows itself."""

from __future__ import annotations

import networkx as nx

from captum_attattr.explanations.decided import Telling
from captum_attattr.formatting import counted
from captum_attattr.notebooks import Shown, View, figure_view


class AttributionTree(Shown, nx.DiGraph):
    """What `attribution_tree` returns: networkx's directed graph, which in a notebook is its figure."""

    def _line(self) -> str:
        label = ""
        if "label" in self.graph:
            label = Telling.of({"target": "", **self.graph}).around(repr(self.graph["label"]), repr) + ", "
        return f"{label}{counted(len(self), 'token')}, {counted(self.number_of_edges(), 'edge')}"

    def _view(self) -> View:
        return figure_view("plot_tree", self)
