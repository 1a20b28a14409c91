"""Where the parts of an attention figure are, and what its menus change."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from captum_attattr.formatting import number, signed, whole_text
from captum_attattr.plots.attention_maps import VIEWS, Maps
from captum_attattr.plots.canvas.labels import label, length, predicted, wrapped
from captum_attattr.plots.canvas.theme import DIVERGING, FONT, PAGES, WIDTH, Theme, heading, scale, shortened

if TYPE_CHECKING:
    from captum_attattr.explanations.explanation import Explanation

COLOURS = dict(zip(VIEWS, ("coloraxis", "coloraxis2", "coloraxis3"), strict=True))
"""The colour axis of each view."""
RANGES = (1, 2, 5, 10, 20)
"""The colours end at the largest value divided by one of these."""

_LOOKS: dict[Theme, dict[str, Any]] = {
    "light": {
        **PAGES["light"],
        "plot_bgcolor": "#c5ccd4",
        "coloraxis.colorscale": scale(*DIVERGING["light"]),
        "coloraxis2.colorscale": scale("#fafafa", "#8f7cc0", "#3a0f75"),
        "coloraxis3.colorscale": scale(*DIVERGING["light"]),
        "shapes[0].line.color": "#000000",
    },
    "dark": {
        **PAGES["dark"],
        "plot_bgcolor": "#3c4651",
        "coloraxis.colorscale": scale(*DIVERGING["dark"]),
        "coloraxis2.colorscale": scale("#171c22", "#7a5fd0", "#e6dcff"),
        "coloraxis3.colorscale": scale(*DIVERGING["dark"]),
        "shapes[0].line.color": "#ffffff",
    },
}

# Lengths in pixels.
_MAP, _LARGEST_MAP = 520, 640
_EDGE, _TOP, _COLOUR_BAR = 18, 112, 96  # margins
_MENUS = 52  # height of the menus above the plots
_MENU_WIDTHS = {"view": 276, "layer": 98, "head": 100, "range": 184}
_ROW_NAMES, _COLUMN_NAMES = 58, 50  # "layer 11" beside the thumbnails, "head 11" upright above them
_AXIS_TITLE = 25
_DIFFERENCE = "attribution ⁄ max<br>− attention ⁄ max"  # of the map of each head

LINE = 11.5  # height of a line of an axis label


class Place(NamedTuple):
    """Where things are, in pixels from the upper left corner of the area inside the margins."""

    tile: int  # side of a thumbnail; 0 if there is but one head
    left: int  # of the large map
    top: int  # of the large map and of the thumbnails
    side: int  # of the large map
    angle: int  # of the labels of its columns
    width: int
    height: int

    @classmethod
    def of(cls, maps: Maps) -> Place:
        """Places for these layers, heads and tokens."""
        layers, heads, size = maps.shape
        side = min(max(_MAP, 12 * size), _LARGEST_MAP)
        label = max(length(token) for token in maps.tokens) + 8
        room = WIDTH - 2 * _EDGE - _ROW_NAMES - _AXIS_TITLE - label - side - _COLOUR_BAR
        tile = 0 if layers == heads == 1 else max(10, min(room // heads, side // layers, 130))
        left = _AXIS_TITLE + label + (_ROW_NAMES + heads * tile if tile else 0)
        flat = label < side / size
        top = max(_AXIS_TITLE + (20 if flat else label), _COLUMN_NAMES if tile else 0)
        return cls(tile, left, top, side, 0 if flat else -90, left + side, top + max(side, layers * tile))

    def domains(self, left: int, width: int, height: int) -> tuple[list[float], list[float]]:
        """Those of a plot whose upper left corner is at (`left`, top)."""
        x = [left / self.width, (left + width) / self.width]
        y = [1 - (self.top + height) / self.height, 1 - self.top / self.height]
        return x, y


def label_step(maps: Maps, place: Place) -> int:
    """Every how many tokens there is room for a label."""
    return math.ceil(len(maps.tokens) * LINE / place.side)


def _axes(maps: Maps, place: Place) -> dict[str, Any]:
    """x, y: thumbnails. x2, y2: large map, whose tokens only a hover shows. x3, y3: the same, with labels."""
    layers, heads, size = maps.shape
    full, short = [wrapped(token) for token in maps.tokens], [label(token) for token in maps.tokens]
    marked = np.arange(0, size, label_step(maps, place))
    large = place.domains(place.left, place.side, place.side)
    small = place.domains(_ROW_NAMES, heads * place.tile, layers * place.tile)
    bare = {"showgrid": False, "zeroline": False, "ticks": "", "showspikes": False, "tickmode": "array"}
    axes: dict[str, Any] = {}
    for i, (axis, other, count) in enumerate((("x", "y", heads), ("y", "x", layers))):
        role, name, side, sign = (("key", "head", "top", 1), ("query", "layer", "left", -1))[i]
        where = {"anchor": f"{other}2", "domain": large[i], "showticklabels": False}
        texts = [f"{role} {position}: {token}" for position, token in enumerate(full)] * count
        axes[f"{axis}axis2"] = {**bare, **where, "tickvals": sign * np.arange(count * size), "ticktext": texts}
        where = {"anchor": f"{other}3", "overlaying": f"{axis}2", "matches": f"{axis}2", "side": side}
        looks = {
            "tickfont": {"size": 11},
            "title": {"standoff": 6, "font": {"size": 13}},
            "tickangle": 0 if i else place.angle,
        }
        positions = sign * np.add.outer(np.arange(count) * size, marked).ravel()
        texts = [short[position] for position in marked] * count
        axes[f"{axis}axis3"] = {**bare, **where, **looks, "tickvals": positions, "ticktext": texts}
        if place.tile:
            where = {"domain": small[i], "range": [count, 0] if i else [0, count], "side": side}
            upright = i == 0 and place.tile < _COLUMN_NAMES
            looks = {"tickfont": {"size": min(11, place.tile)}, "tickangle": -90 if upright else 0}
            texts = [f"{name} {index}" for index in range(count)]
            ticks = {"tickvals": np.arange(count) + 0.5, "ticktext": texts}
            axes[f"{axis}axis"] = {**bare, **where, **looks, **ticks, "fixedrange": True}
    return axes


def _window(axis: str, maps: Maps, index: int) -> dict[str, Any]:
    """Show tile `index` of the large plane along `axis` and frame its thumbnails; a zoom stays inside it."""
    layers, heads, size = maps.shape
    first, last = (index, index + 1) if axis == "x" else (-index - 1, -index)
    shift = -0.5 if axis == "x" else 0.5  # from the middle of a cell to its edge
    ends = [first * size + shift, last * size + shift]
    # plotly fits an axis into what is allowed, also at a double-click; it keeps the direction of the range.
    bounds: dict[str, Any] = {"minallowed": ends[0], "maxallowed": ends[1], "range": ends, "autorange": True}
    change = {f"{axis}axis{number}.{key}": value for number in (2, 3) for key, value in bounds.items()}
    frame = {f"shapes[0].{axis}0": index, f"shapes[0].{axis}1": index + 1}
    return change if layers == heads == 1 else {**change, **frame}


def of_layer(maps: Maps, layer: int) -> dict[str, Any]:
    """What changes in the layout when a layer is chosen."""
    total, error = signed(maps.attributions[layer].sum(dtype=np.float64)), maps.error[layer]
    accuracy = "error not estimated" if not np.isfinite(error) else f"estimated relative error {number(error)}"
    delta = f"delta {signed(maps.delta[layer])}"
    if maps.shape[0] == maps.shape[1] == 1:  # beside the menus of a narrow figure
        note = f"<b>attributions</b> sum to {total}<br>{delta}<br>{accuracy}"
    else:
        note = f"<b>layer {layer}</b>: attributions sum to {total}<br>{delta}, {accuracy}"
    texts = {"yaxis3.title.text": f"query token, layer {layer}", "annotations[0].text": note}
    return {**_window("y", maps, layer), **texts}


def of_head(maps: Maps, head: int) -> dict[str, Any]:
    """What changes in the layout when a head is chosen."""
    return {**_window("x", maps, head), "xaxis3.title.text": f"key token, head {head}"}


def of_view(maps: Maps, view: str) -> list[dict[str, Any]]:
    """What changes in the traces, and in the layout, when a view is chosen."""
    layers, heads, _ = maps.shape
    shown = [float(view == kind) for kind in VIEWS]
    # In the order of the traces: thumbnails of the views, the heads, the labels, large maps of the views.
    opacity = [*shown, 1.0, 1.0] if layers * heads > 1 else [1.0]
    opacity += [value for value in shown for _ in range(layers * heads)]
    scales = {f"{colours}.showscale": view == kind for kind, colours in COLOURS.items()}
    return [{"opacity": opacity}, scales]


def of_range(maps: Maps, part: int) -> dict[str, Any]:
    """What changes in the layout when the colours end at the `part`-th part of the largest value."""
    changes = {f"{COLOURS['attention']}.cmax": 1 / part}
    for view in ("attribution", "difference"):
        end = float(np.abs(maps.views[view]).max() or 1) / part  # a scale has a length, even if all is zero
        changes |= {f"{COLOURS[view]}.cmin": -end, f"{COLOURS[view]}.cmax": end}
    return changes


def _menus(maps: Maps, place: Place, active: dict[str, int]) -> list[dict[str, Any]]:
    layers, heads, _ = maps.shape
    choices: dict[str, list[tuple[str, Any]]] = {
        "view": [(view, of_view(maps, view)) for view in VIEWS],
        "layer": [(f"layer {i}", [of_layer(maps, i)]) for i in range(layers)],
        "head": [(f"head {i}", [of_head(maps, i)]) for i in range(heads)],
        "range": [(f"colours to {100 // part} % of max", [of_range(maps, part)]) for part in RANGES],
    }
    menus, left = [], 0
    for name, options in choices.items():
        if name in ("layer", "head") and not place.tile:
            continue
        at = {"x": left / place.width, "xanchor": "left", "y": 1 + _MENUS / place.height, "yanchor": "top"}
        kind = {"type": "buttons", "direction": "right"} if name == "view" else {"type": "dropdown"}
        method = "update" if name == "view" else "relayout"
        buttons = [{"label": label, "method": method, "args": change} for label, change in options]
        menus.append({"name": name, "active": active[name], "buttons": buttons, **at, **kind})
        left += _MENU_WIDTHS[name]
    return menus


def _colour_bar(place: Place, title: str, numbers: str) -> dict[str, Any]:
    """Beside the large map, as high as it is."""
    x = {"x": 1 + 12 / place.width, "xanchor": "left", "xpad": 0, "thickness": 14}
    y = {"y": 1 - place.top / place.height, "yanchor": "top", "ypad": 0, "lenmode": "pixels", "len": place.side}
    return {
        **x,
        **y,
        "title": {"text": title, "side": "top", "font": {"size": 12}},
        "tickformat": numbers,
        "outlinewidth": 0,
    }


def _title(explanation: Explanation, place: Place) -> dict[str, Any]:
    value = float(explanation.probability)
    main = predicted("Self-attention attribution", explanation.label, explanation.target, value)
    return heading(main, shortened(whole_text(explanation.text), place.width), place.height + _TOP + _EDGE)


def themes(place: Place) -> dict[Theme, dict[str, Any]]:
    """The changes of colours for light and for dark pages."""

    def exists(path: str) -> bool:
        return bool(place.tile) or not path.startswith("shapes")

    return {name: {path: colour for path, colour in theme.items() if exists(path)} for name, theme in _LOOKS.items()}


def layout(explanation: Explanation, maps: Maps, place: Place, active: dict[str, int]) -> dict[str, Any]:
    """The layout, but for what the menus change."""
    note = {"xref": "paper", "x": 1 + _COLOUR_BAR / place.width, "xanchor": "right", "align": "right"}
    note |= {"yref": "paper", "y": 1 + _MENUS / place.height, "yanchor": "top", "showarrow": False}
    return {
        "template": "none",
        "width": place.width + _COLOUR_BAR + 2 * _EDGE,
        "height": place.height + _TOP + _EDGE,
        "margin": {"l": _EDGE, "r": _COLOUR_BAR + _EDGE, "t": _TOP, "b": _EDGE},
        "font": {"family": FONT, "size": 12},
        "hovermode": "x unified",
        "title": _title(explanation, place),
        "updatemenus": _menus(maps, place, active),
        "annotations": [note],
        "shapes": [{"xref": "x", "yref": "y", "line": {"width": 2.5}}] if place.tile else [],
        "coloraxis": {"colorbar": _colour_bar(place, "attribution", "+.2~g")},
        "coloraxis2": {"colorbar": _colour_bar(place, "attention", ".2~g"), "cmin": 0},
        "coloraxis3": {"colorbar": _colour_bar(place, _DIFFERENCE, "+.2~g")},
        **_axes(maps, place),
    }
