"""The layout of the figure of all maps, and what its menus change in it.

There are three pairs of axes. "x" and "y" have one unit for each head and layer: the thumbnails. "x2" and "y2" have one
unit for each token of each head and layer: the plane of the large maps (see `_window`), whose tokens only a hover
shows. "x3" and "y3" lie over these and have the labels of as many tokens as there is room for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from captum_attattr.explanations.explanation import Explanation
from captum_attattr.formatting import number, signed, whole_text
from captum_attattr.plots.attention_maps import VIEWS, Maps
from captum_attattr.plots.canvas.labels import fitted, hover_label, prediction_title, token_label, token_width
from captum_attattr.plots.canvas.layout import WIDTH, Area, option
from captum_attattr.plots.canvas.theme import DIVERGING, GRID_GROUND, PAGES, Theme, scale

COLOUR_AXES = dict(zip(VIEWS, ("coloraxis", "coloraxis2", "coloraxis3"), strict=True))
"""The colour axis of each view."""
RANGES = (1, 2, 5, 10, 20)
"""The colours end at the largest value of all heads divided by one of these."""

_ALL_CELLS = 40  # tokens; of longer texts the colours end where so many strong cells still show:
_STRONG = 10

_ATTENTION: dict[Theme, tuple[str, ...]] = {
    "light": ("#fafafa", "#8f7cc0", "#3a0f75"),
    "dark": ("#171c22", "#7a5fd0", "#e6dcff"),
}
_FRAME: dict[Theme, str] = {"light": "#000000", "dark": "#ffffff"}  # around the thumbnail of the head that is shown

# Lengths in pixels.
_MAP, _LARGEST_MAP = 520, 640
_EDGE, _TOP, _COLOUR_BAR = 18, 112, 96  # margins
_MENUS = 52  # height of the menus above the plots
_MENU_WIDTHS = {"view": 276, "layer": 98, "head": 100, "colours": 184}
_ROW_NAMES, _COLUMN_NAMES = 58, 50  # "layer 11" beside the thumbnails, "head 11" upright above them
_AXIS_TITLE = 25
_BARS = {  # titles of the colour bars
    "attribution": "attribution",
    "attention": "attention",
    "difference": "attribution beyond<br>attention’s order",
}

LABEL_HEIGHT = 11.5  # of a line of an axis label

_BARE = {"showgrid": False, "zeroline": False, "ticks": "", "showspikes": False, "tickmode": "array"}


class Sizes(NamedTuple):
    """Sizes in pixels; `left` and `top` count from the upper left corner of the area inside the margins."""

    tile: int  # side of a thumbnail; 0 if there is but one head
    left: int  # of the large map
    top: int  # of the large map and of the thumbnails
    side: int  # of the large map
    angle: int  # of the labels of its columns, in degrees
    area: Area

    @classmethod
    def of(cls, maps: Maps) -> Sizes:
        """Return the sizes for these layers, heads and tokens."""
        layers, heads, size = maps.shape
        side = min(max(_MAP, 12 * size), _LARGEST_MAP)
        label = max(token_width(token) for token in maps.tokens) + 8
        room = WIDTH - 2 * _EDGE - _ROW_NAMES - _AXIS_TITLE - label - side - _COLOUR_BAR
        tile = 0 if layers == heads == 1 else max(10, min(room // heads, side // layers, 130))
        left = _AXIS_TITLE + label + (_ROW_NAMES + heads * tile if tile else 0)
        flat = label < side / size
        top = max(_AXIS_TITLE + (20 if flat else label), _COLUMN_NAMES if tile else 0)
        area = Area(left + side, top + max(side, layers * tile), _EDGE, _COLOUR_BAR + _EDGE, _TOP, _EDGE)
        return cls(tile, left, top, side, 0 if flat else -90, area)

    def domains(self, left: int, width: int, height: int) -> tuple[list[float], list[float]]:
        """Return plotly's x and y of the ends of a plot whose upper left corner is at (`left`, `top`)."""
        x = [self.area.x(left), self.area.x(left + width)]
        return x, [self.area.above(-self.top - height), self.area.above(-self.top)]

    def label_step(self, tokens: int) -> int:
        """Return how many tokens share one label: 1 if there is room for all labels, 2 if for every second one ..."""
        return math.ceil(tokens * LABEL_HEIGHT / self.side)


class _Direction(NamedTuple):
    """One of the two directions of a map: along the keys, or down the queries."""

    axis: Literal["x", "y"]
    crossing: str
    role: str
    """of the tokens"""
    unit: str
    """what is a column or a row of thumbnails"""
    side: str
    """where the labels are"""
    sign: int
    """1 if positions count upwards along the axis, -1 if downwards"""
    units: int
    """how many heads or layers there are"""
    numbers: Sequence[int]
    """theirs"""

    def large(self, maps: Maps, domain: list[float]) -> dict[str, Any]:
        """Return the axis of the plane of large maps, whose ticks are the tokens as the hover tells them."""
        texts = [f"{self.role} {position}: {hover_label(token)}" for position, token in enumerate(maps.tokens)]
        positions = self.sign * np.arange(self.units * len(texts))
        looks = {"anchor": f"{self.crossing}2", "domain": domain, "showticklabels": False}
        return {**_BARE, **looks, "tickvals": positions, "ticktext": texts * self.units}

    def labels(self, maps: Maps, step: int, angle: int) -> dict[str, Any]:
        """Return the axis over it, with the label of every `step`-th token."""
        marked = np.arange(0, len(maps.tokens), step)
        positions = self.sign * np.add.outer(np.arange(self.units) * len(maps.tokens), marked).ravel()
        where = {"anchor": f"{self.crossing}3", "overlaying": f"{self.axis}2", "matches": f"{self.axis}2"}
        looks = {"side": self.side, "tickfont": {"size": 11}, "tickangle": angle if self.axis == "x" else 0}
        looks["title"] = {"standoff": 6, "font": {"size": 13}}
        texts = [token_label(maps.tokens[position]) for position in marked] * self.units
        return {**_BARE, **where, **looks, "tickvals": positions, "ticktext": texts}

    def thumbnails(self, tile: int, domain: list[float]) -> dict[str, Any]:
        """Return the axis of the thumbnails: one unit for each head, or for each layer from the top down."""
        ends = [0, self.units] if self.sign > 0 else [self.units, 0]
        upright = self.axis == "x" and tile < _COLUMN_NAMES
        looks = {"tickfont": {"size": min(11, tile)}, "tickangle": -90 if upright else 0, "side": self.side}
        texts = [f"{self.unit} {number}" for number in self.numbers]
        ticks = {"tickvals": np.arange(self.units) + 0.5, "ticktext": texts}
        return {**_BARE, "domain": domain, "range": ends, **looks, **ticks, "fixedrange": True}


def _axes(maps: Maps, sizes: Sizes) -> dict[str, Any]:
    """Return the axes of the thumbnails, of the plane of large maps, and of its labels."""
    layers, heads, size = maps.shape
    x = _Direction("x", "y", "key", "head", "top", 1, heads, range(heads))
    y = _Direction("y", "x", "query", "layer", "left", -1, layers, maps.layers)
    large = sizes.domains(sizes.left, sizes.side, sizes.side)
    small = sizes.domains(_ROW_NAMES, heads * sizes.tile, layers * sizes.tile)
    axes: dict[str, Any] = {}
    for direction, large_domain, small_domain in zip((x, y), large, small, strict=True):
        axes[f"{direction.axis}axis2"] = direction.large(maps, large_domain)
        axes[f"{direction.axis}axis3"] = direction.labels(maps, sizes.label_step(size), sizes.angle)
        if sizes.tile:
            axes[f"{direction.axis}axis"] = direction.thumbnails(sizes.tile, small_domain)
    return axes


def _window(axis: Literal["x", "y"], maps: Maps, index: int) -> dict[str, Any]:
    """Return the changes that show one head (along x) or one layer (along y), and frame its thumbnail.

    All large maps lie in one plane, and choosing one moves the axes: the keys of head h are the columns h T to
    h T + T - 1, the queries of layer l the rows -l T down to -l T - T + 1. A cell reaches half a unit to each side.
    """
    layers, heads, size = maps.shape
    if axis == "x":
        ends = [index * size - 0.5, (index + 1) * size - 0.5]
    else:
        ends = [0.5 - (index + 1) * size, 0.5 - index * size]
    # plotly fits an axis into what is allowed, also at a double-click; it keeps the direction of the range.
    bounds: dict[str, Any] = {"minallowed": ends[0], "maxallowed": ends[1], "range": ends, "autorange": True}
    changes = {f"{axis}axis{number}.{key}": value for number in (2, 3) for key, value in bounds.items()}
    framed = int(layers * heads > 1)
    if framed:
        changes |= {f"shapes[0].{axis}0": index, f"shapes[0].{axis}1": index + 1}
    if maps.second is not None:  # the line before the second text of a pair
        at = index * size + maps.second - 0.5
        shape = f"shapes[{framed + (axis == 'y')}]"
        changes |= {f"{shape}.{axis}{end}": at if axis == "x" else -at for end in (0, 1)}
    return changes


def layer_changes(maps: Maps, layer: int) -> dict[str, Any]:
    """Return what changes in the layout when a layer is chosen."""
    total, delta, error = maps.attributions[layer].sum(dtype=np.float64), maps.delta[layer], maps.error[layer]
    accuracy = f"estimated relative error {number(error)}" if np.isfinite(error) else "error not estimated"
    remainder = f"delta {signed(delta)}" if np.isfinite(delta) else "delta not known"
    if maps.shape[0] == maps.shape[1] == 1:  # beside the menus of a narrow figure
        note = f"<b>attributions</b> sum to {signed(total)}<br>{remainder}<br>{accuracy}"
    else:
        note = f"<b>layer {layer}</b>: attributions sum to {signed(total)}<br>{remainder}, {accuracy}"
    texts = {"yaxis3.title.text": f"query token, layer {layer}", "annotations[0].text": note}
    return {**_window("y", maps, layer), **texts}


def head_changes(maps: Maps, head: int) -> dict[str, Any]:
    """Return what changes in the layout when a head is chosen."""
    return {**_window("x", maps, head), "xaxis3.title.text": f"key token, head {head}"}


def view_changes(maps: Maps, view: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what changes in the traces, and in the layout, when a view is chosen."""
    layers, heads, _ = maps.shape
    shown = [float(view == kind) for kind in VIEWS]
    # In the order of the traces: thumbnails of the views, the heads, the labels, large maps of the views.
    opacity = [*shown, 1.0, 1.0] if layers * heads > 1 else [1.0]
    opacity += [value for value in shown for _ in range(layers * heads)]
    return {"opacity": opacity}, {f"{axis}.showscale": view == kind for kind, axis in COLOUR_AXES.items()}


def fits(maps: Maps) -> npt.NDArray[np.float64]:
    """Return where the colours of each head end so that they fit it, (layers, heads, views): 1 where all is zero.

    In long texts a single cell is smaller than the eye can find, and the strongest are far above all others: the
    colours end at the 10th there.
    """
    layers, heads, size = maps.shape
    ends = np.empty((layers, heads, len(VIEWS)))
    for view, values in enumerate(maps.views.values()):
        sizes = np.abs(values).reshape(layers, heads, -1).astype(np.float64)
        place = sizes.shape[-1] - (_STRONG if size > _ALL_CELLS else 1)
        ends[..., view] = np.partition(sizes, place, -1)[..., place]
        largest = sizes.max(-1)
        ends[..., view] = np.where(ends[..., view] > 0, ends[..., view], np.where(largest > 0, largest, 1))
    return ends


def range_changes(maps: Maps, where: int | tuple[int, int]) -> dict[str, Any]:
    """Return what changes in the layout when the colours end elsewhere.

    Args:
        maps: the arrays.
        where: a divisor of the largest value of all heads; or the layer and the head that the colours fit.
    """
    if isinstance(where, tuple):
        ends = dict(zip(VIEWS, fits(maps)[where].tolist(), strict=True))
        whose = "this head"
    else:
        ends = {"attention": 1 / where}
        for view in ("attribution", "difference"):
            ends[view] = float(np.abs(maps.views[view]).max() or 1) / where  # a scale has a length, even if all is zero
        whose = "all heads"
    changes: dict[str, Any] = {}
    for view, axis in COLOUR_AXES.items():
        changes[f"{axis}.cmax"] = ends[view]
        changes[f"{axis}.colorbar.title.text"] = f"{_BARS[view]}<br>scale of {whose}"
        if view != "attention":
            changes[f"{axis}.cmin"] = -ends[view]
    return changes


def _menus(maps: Maps, sizes: Sizes, active: dict[str, int]) -> list[dict[str, Any]]:
    heads = maps.shape[1]
    ranges: list[tuple[str, int | tuple[int, int]]] = [("colours fit this head", (active["layer"], active["head"]))]
    ranges += [(f"colours to {100 // divisor} % of max", divisor) for divisor in RANGES]
    options = {
        "view": [option(view, *view_changes(maps, view)) for view in VIEWS],
        "layer": [option(f"layer {number}", layout=layer_changes(maps, i)) for i, number in enumerate(maps.layers)],
        "head": [option(f"head {i}", layout=head_changes(maps, i)) for i in range(heads)],
        "colours": [option(text, layout=range_changes(maps, where)) for text, where in ranges],
    }
    menus, left = [], 0
    for name, choices in options.items():
        if (name in ("layer", "head") and not sizes.tile) or (name == "view" and not maps.kept):
            continue
        flat = name == "view"
        menus.append(sizes.area.menu(name, choices, above=_MENUS, left=left, active=active[name], flat=flat))
        left += _MENU_WIDTHS[name]
    return menus


def page_themes(sizes: Sizes, maps: Maps) -> dict[Theme, dict[str, Any]]:
    """Return the changes of colours for light and for dark pages."""
    themes: dict[Theme, dict[str, Any]] = {}
    for theme, page in PAGES.items():
        themes[theme] = {
            **page,
            "plot_bgcolor": GRID_GROUND[theme],
            "coloraxis.colorscale": scale(*DIVERGING[theme]),
            "coloraxis2.colorscale": scale(*_ATTENTION[theme]),
            "coloraxis3.colorscale": scale(*DIVERGING[theme]),
            **{f"shapes[{i}].line.color": _FRAME[theme] for i in range(bool(sizes.tile) + len(_dividers(maps)))},
        }
    return themes


def _dividers(maps: Maps) -> list[dict[str, Any]]:
    """Return the lines between the two texts of a pair, among the columns and among the rows of the large map."""
    if maps.second is None:
        return []
    line = {"type": "line", "line": {"width": 1.5, "dash": "dash"}}
    column = {"xref": "x2", "yref": "y2 domain", "y0": 0, "y1": 1}
    return [{**line, **column}, {**line, "yref": "y2", "xref": "x2 domain", "x0": 0, "x1": 1}]


def attention_layout(explanation: Explanation, maps: Maps, sizes: Sizes, active: dict[str, int]) -> dict[str, Any]:
    """Return the layout, but for what the menus change; `active` has the index of each menu's first choice."""
    area = sizes.area
    title = prediction_title("Self-attention attribution", vars(explanation))
    note = {"xref": "paper", "x": area.x(area.width + _COLOUR_BAR), "xanchor": "right", "align": "right"}
    note |= {"yref": "paper", "y": area.above(_MENUS), "yanchor": "top", "showarrow": False}

    def bar(view: str, numbers: str) -> dict[str, Any]:
        return area.colour_bar(area.width + 12, sizes.top, sizes.side, _BARS[view], tickformat=numbers)

    layout = area.layout(
        title,
        fitted(whole_text(explanation.text), area.width),
        updatemenus=_menus(maps, sizes, active),
        annotations=[note],
        shapes=[*([{"xref": "x", "yref": "y", "line": {"width": 2.5}}] if sizes.tile else []), *_dividers(maps)],
        coloraxis={"colorbar": bar("attribution", "+.2~g")},
        coloraxis2={"colorbar": bar("attention", ".2~g"), "cmin": 0},
        coloraxis3={"colorbar": bar("difference", "+.2~g")},
    )
    return {**layout, "hovermode": "x unified", **_axes(maps, sizes)}
