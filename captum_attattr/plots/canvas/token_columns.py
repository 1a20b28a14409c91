"""What the tree and the flow share: tokens as columns, colours of signs, the frame around the picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from captum_attattr.plots.canvas.labels import label, length
from captum_attattr.plots.canvas.panels import colours
from captum_attattr.plots.canvas.theme import FONT, WIDTH, Theme, heading

# Blue and orange of the other figures; the sign is told by dashes too.
NEGATIVE, POSITIVE = colours(0), colours(1)
NODE: dict[Theme, str] = {"light": "#3d4853", "dark": "#c9d1d9"}

# Lengths in pixels.
LEFT, RIGHT = 70, 24  # margins
_EDGE = 8  # beside the first and the last column
_LINE = 8.5  # of the labels, where they stand upright


def spaced(positions: Iterable[int], least: float, taken: Sequence[int] = ()) -> list[int]:
    """Those of rising `positions` that are at least `least` from one another and from those `taken`."""
    found: list[int] = []
    for position in positions:
        if all(abs(position - other) >= least for other in (*found[-1:], *taken)):
            found.append(position)
    return found


class Columns(NamedTuple):
    """Where the tokens are, from left to right, and how their labels stand below."""

    width: float  # of a column, in pixels
    flat: bool
    font: float
    height: int  # of the labels

    @classmethod
    def of(cls, tokens: Sequence[str]) -> Columns:
        """Columns as wide as a figure has room for; their labels stand upright where they are too wide to lie."""
        width = (WIDTH - LEFT - RIGHT - 2 * _EDGE) / len(tokens)
        longest = max(length(token) for token in tokens)
        flat = longest + 6 < width
        return cls(width, flat, 12 if flat else min(11, max(8, width - 1.5)), 30 if flat else longest + 16)

    def axis(self, tokens: Sequence[str], positions: Iterable[int], taken: Sequence[int] = ()) -> dict[str, Any]:
        """An axis that has labels at `positions`, or at as many as there is room for beside those `taken`."""
        shown = spaced(positions, _LINE / self.width, taken)
        return {
            "range": [-0.5 - _EDGE / self.width, len(tokens) - 0.5 + _EDGE / self.width],
            "tickvals": shown,
            "ticktext": [label(tokens[position]) for position in shown],
            "tickangle": 0 if self.flat else -90,
            "tickfont": {"size": self.font},
            "zeroline": False,
            "ticks": "",
        }


def frame(title: str, subtitle: str, top: int, plot: int, columns: Columns) -> dict[str, Any]:
    """The layout of a picture `plot` pixels high: margins, title, legend above its right end.

    Args:
        title, subtitle: HTML of plotly's.
        top: the margin above.
        plot: the height between the margins.
        columns: their labels are in the margin below.
    """
    bottom = columns.height + 26
    above = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1 + 4 / plot, "yanchor": "bottom"}
    return {
        "template": "none",
        "width": WIDTH,
        "height": top + plot + bottom,
        "margin": {"l": LEFT, "r": RIGHT, "t": top, "b": bottom},
        "font": {"family": FONT, "size": 12},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "dragmode": "pan",
        "title": heading(title, subtitle, top + plot + bottom),
        "legend": {**above, "itemclick": False, "itemdoubleclick": False},
    }
