"""A list of explanations that shows itself."""

from __future__ import annotations

from typing import Any

from captum_attattr.formatting import counted
from captum_attattr.notebooks import Shown, View, figure_view

_MOST_ROWS = 100


class ExplanationList(Shown, list[Any]):
    """What `explain` and `token_scores` return: a list, which in a notebook is a table of texts with tinted words."""

    def _line(self) -> str:
        return ", ".join([counted(len(self), "explanation"), *map(repr, self[:3]), *["…"] * (len(self) > 3)])

    def _view(self) -> View:
        if not self:
            return View("<p>no explanations</p>", 40)
        return figure_view(getattr(self[0], "list_plot", "plot_tokens"), self[:_MOST_ROWS])

    def _repr_html_(self) -> str:
        more = f"<div>the first {_MOST_ROWS} are shown</div>" if len(self) > _MOST_ROWS else ""
        return more + super()._repr_html_()
