"""What the tree and the flow share: tokens as columns, the colours of signs, the layout around the picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from captum_attattr.plots.canvas.labels import right_to_left, token_label, token_width
from captum_attattr.plots.canvas.layout import WIDTH, Area
from captum_attattr.plots.canvas.lines import line_colours
from captum_attattr.plots.canvas.theme import Theme

# Blue and orange, as in the other figures; dashes tell the sign too.
NEGATIVE, POSITIVE = line_colours(0), line_colours(1)
NODE: dict[Theme, str] = {"light": "#3d4853", "dark": "#c9d1d9"}

# Lengths in pixels.
LEFT, RIGHT = 70, 24  # margins
_EDGE = 8  # beside the first and the last column
_LABEL_HEIGHT = 8.5  # of a line of the labels, where they stand upright


def thinned(positions: Iterable[int], distance: float, taken: Sequence[int] = ()) -> list[int]:
    """Return as many of the rising positions as keep a distance from one another and from the `taken` ones."""
    kept: list[int] = []
    for position in positions:
        if all(abs(position - other) >= distance for other in (*kept[-1:], *taken)):
            kept.append(position)
    return kept


def second_text(segments: Sequence[int]) -> int | None:
    """Return the position at which the second text of a pair begins; None for a single text."""
    return next((i for i in range(1, len(segments)) if segments[i] != segments[i - 1]), None)


def divider(position: int | None) -> list[dict[str, Any]]:
    """Return the line before a column, where the second text of a pair begins; its colour is that of `DIVIDER`."""
    if position is None:
        return []
    where = {"xref": "x", "x0": position - 0.5, "x1": position - 0.5, "yref": "paper", "y0": 0, "y1": 1}
    return [{"type": "line", "layer": "below", "line": {"width": 1.5, "dash": "dash"}, **where}]


class Columns(NamedTuple):
    """One column for each token, from left to right, and the labels below. Lengths are pixels."""

    width: float  # of a column
    flat: bool  # whether labels lie flat; else they stand upright
    font: float
    height: int  # of the labels
    reverse: bool  # whether the text, and so the columns, run to the left

    @classmethod
    def of(cls, tokens: Sequence[str], special: Sequence[Any] = ()) -> Columns:
        """Make columns as wide as the figure allows; labels that are wider than a column stand upright."""
        width = (WIDTH - LEFT - RIGHT - 2 * _EDGE) / len(tokens)
        longest = max(token_width(token) for token in tokens)
        flat = longest + 6 < width
        font, height = (12, 30) if flat else (min(11, max(8, width - 1.5)), longest + 16)
        text = [token for i, token in enumerate(tokens) if i >= len(special) or not special[i]]
        return cls(width, flat, font, height, right_to_left(text))

    def pixel(self, position: int, count: int) -> float:
        """Return how far the middle of a column is from that of the leftmost of `count` columns."""
        return self.width * (count - 1 - position if self.reverse else position)

    def axis(self, tokens: Sequence[str], positions: Iterable[int], taken: Sequence[int] = ()) -> dict[str, Any]:
        """Return an axis with labels at `positions`, or at as many of them as fit beside labels at `taken`."""
        ends = [-0.5 - _EDGE / self.width, len(tokens) - 0.5 + _EDGE / self.width]
        shown = thinned(positions, _LABEL_HEIGHT / self.width, taken)
        return {
            "range": ends[::-1] if self.reverse else ends,
            "tickvals": shown,
            "ticktext": [token_label(tokens[position]) for position in shown],
            "tickangle": 0 if self.flat else -90,
            "tickfont": {"size": self.font},
            "zeroline": False,
            "ticks": "",
        }

    def layout(self, title: str, subtitle: str, top: int, height: int, **parts: Any) -> dict[str, Any]:
        """Return a layout: title, the legend above the right end of the area, margins with room for the labels.

        Args:
            title, subtitle: in plotly's HTML.
            top: the margin above the area.
            height: of the area.
            parts: what is added to the layout.
        """
        area = Area(WIDTH - LEFT - RIGHT, height, LEFT, RIGHT, top, self.height + 26)
        legend = area.legend_above(x=1, xanchor="right", y=area.above(4), yanchor="bottom")
        return area.layout(title, subtitle, dragmode="pan", legend=legend, **parts)
