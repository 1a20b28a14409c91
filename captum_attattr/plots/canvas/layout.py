"""The layout that all figures share: margins and title, menus, legends, colour bars, and the names of axes."""

from __future__ import annotations

from typing import Any, NamedTuple

FONT = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
WIDTH = 1250  # pixels of a figure; what a window of 1280 shows without scrolling
NARROW = 325  # of the small form of a figure in the narrowest window: 360, less a scroll bar and margins
AXIS_LINE: dict[str, Any] = {"showline": True, "ticks": "outside", "ticklen": 4}

_TITLE_TOP = 10  # pixels from the upper edge of the figure to the title


class Area(NamedTuple):
    """The area inside the margins, and the margins around it. All lengths are pixels.

    plotly has two units for positions: pixels, and fractions of this area. The methods turn the first into the second.
    """

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int

    @property
    def figure_width(self) -> int:
        """The width of the area and its margins."""
        return self.left + self.width + self.right

    @property
    def figure_height(self) -> int:
        """The height of the area and its margins."""
        return self.top + self.height + self.bottom

    def x(self, pixels: float) -> float:
        """Return plotly's x of a point that is so far from the left edge of the area."""
        return pixels / self.width

    def above(self, pixels: float) -> float:
        """Return plotly's y of a point that is so far above the upper edge of the area."""
        return 1 + pixels / self.height

    def layout(self, title: str, subtitle: str, **parts: Any) -> dict[str, Any]:
        """Return a layout with a title at the upper left, both lines in plotly's HTML; `parts` are added to it."""
        return {
            "template": "none",
            "width": self.figure_width,
            "height": self.figure_height,
            "margin": {"l": self.left, "r": self.right, "t": self.top, "b": self.bottom},
            "font": {"family": FONT, "size": 12},
            "hovermode": "closest",
            "hoverlabel": {"align": "left"},
            "title": {
                "text": title,
                "font": {"size": 17},
                "subtitle": {"text": subtitle, "font": {"size": 12}},
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": 1 - _TITLE_TOP / self.figure_height,
                "yref": "container",
                "yanchor": "top",
            },
            **parts,
        }

    def menu(
        self, name: str, options: list[dict[str, Any]], *, above: float, left: float = 0, active: int = 0, flat: bool
    ) -> dict[str, Any]:
        """Return a menu.

        Args:
            name: by which scripts of the page find it, and which a screen reader reads.
            options: of `option`, in order.
            above: from the upper edge of the area up to that of the menu.
            left: from the left edge of the area to that of the menu.
            active: the index of the option that is chosen at first.
            flat: whether the options are buttons side by side; else the menu drops down.
        """
        kind = {"type": "buttons", "direction": "right"} if flat else {"type": "dropdown"}
        corner = {"x": self.x(left), "xanchor": "left", "y": self.above(above), "yanchor": "top"}
        return {"name": name, "active": active, "buttons": options, **corner, **kind}

    def legend_beside(self, **looks: Any) -> dict[str, Any]:
        """Return the legend on the right of the area, one entry a line; a click hides or shows what it names."""
        return {"x": self.x(self.width + 14), "xanchor": "left", "y": 1, "yanchor": "top", **looks}

    def legend_below(self, height: int, **looks: Any) -> dict[str, Any]:
        """Return the legend, so high, at the lower edge of the figure; a click hides or shows what it names."""
        corner = {"x": self.x(8 - self.left), "xanchor": "left", "yref": "container", "y": height / self.figure_height}
        return {**corner, "yanchor": "top", **looks}

    def legend_above(self, **corner: Any) -> dict[str, Any]:
        """Return the legend above the area, its entries side by side; it cannot be clicked."""
        return {"orientation": "h", "itemclick": False, "itemdoubleclick": False, **corner}

    def colour_bar(self, left: float, top: float, length: int, title: str, **looks: Any) -> dict[str, Any]:
        """Return a colour bar, so far from the left and from the upper edge of the area, and so long."""
        x = {"x": self.x(left), "xanchor": "left", "xpad": 0, "thickness": 14}
        y = {"y": self.above(-top), "yanchor": "top", "ypad": 0, "lenmode": "pixels", "len": length}
        name = {"text": title, "side": "top", "font": {"size": 12}}
        return {**x, **y, "title": name, "outlinewidth": 0, **looks}


def option(label: str, traces: dict[str, Any] | None = None, layout: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an option of a menu: its label, and what it changes in the traces and in the layout."""
    method = "update" if traces and layout else "restyle" if traces else "relayout"
    return {"label": label, "method": method, "args": [change for change in (traces, layout) if change]}


def axis_number(index: int) -> str:
    """Return what plotly writes after "xaxis" or "x" for the axis at an index: "", "2", "3" ..."""
    return str(index + 1) if index else ""
