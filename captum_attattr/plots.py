"""Plotly figures of explanations. This room imports results only, never a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from captum_attattr.labels import CHARACTER, escape, label, length, signed, visible, wrapped

if TYPE_CHECKING:
    from captum_attattr.explanation import Explanation

_Floats = npt.NDArray[np.float32]

_VIEWS = ("attribution", "attention")
_COLOURS = ("coloraxis", "coloraxis2")  # of the views
_RANGES = (1, 2, 5, 10, 20)  # the colours end at the largest value divided by one of these


def _scale(*colours: str) -> list[tuple[float, str]]:
    return [(i / (len(colours) - 1), colour) for i, colour in enumerate(colours)]


# Blue to orange, which the usual kinds of colour blindness keep apart; zero is close to the page's colour.
_THEMES: dict[str, dict[str, Any]] = {
    "light": {
        "paper_bgcolor": "#ffffff",
        "plot_bgcolor": "#c5ccd4",
        "font.color": "#1b232b",
        "hoverlabel.bgcolor": "#ffffff",
        "coloraxis.colorscale": _scale("#08306b", "#3b86c6", "#fafafa", "#e0812b", "#7a2a04"),
        "coloraxis2.colorscale": _scale("#fafafa", "#8f7cc0", "#3a0f75"),
        "shapes[0].line.color": "#000000",
    },
    "dark": {
        "paper_bgcolor": "#12161b",
        "plot_bgcolor": "#3c4651",
        "font.color": "#e3e8ed",
        "hoverlabel.bgcolor": "#232a32",
        "coloraxis.colorscale": _scale("#c3e0ff", "#3b86d6", "#171c22", "#d9761c", "#ffdcae"),
        "coloraxis2.colorscale": _scale("#171c22", "#7a5fd0", "#e6dcff"),
        "shapes[0].line.color": "#ffffff",
    },
}

_THUMBNAIL_CELLS = 30_000  # of all thumbnails together: plotly draws them anew at every choice

# Lengths in pixels.
_WIDTH = 1250  # what a window of 1280 shows without scrolling
_MAP, _LARGEST_MAP = 520, 640
_EDGE, _TOP, _COLOUR_BAR = 18, 112, 96  # margins
_MENUS = 52  # height of the menus above the plots
_MENU_WIDTHS = {"view": 184, "layer": 98, "head": 100, "range": 166}
_ROW_NAMES, _COLUMN_NAMES = 58, 50  # "layer 11" beside the thumbnails, "head 11" upright above them
_AXIS_TITLE = 25
_LINE = 11.5  # height of a line of an axis label

_HINT_CHOOSE = "Click a thumbnail or press the arrow keys to choose a head. "
_HINT_ENLARGE = "Drag in the large map to enlarge a part of it, double-click to see all of it again."


# ------------------------------------------------------------------------------------------- the input


class _Maps(NamedTuple):
    """The checked arrays of one explanation."""

    tokens: list[str]
    attributions: _Floats  # (L, H, T, T)
    attention: _Floats  # (L, H, T, T)
    delta: _Floats  # (L,)
    error: _Floats  # (L,)

    @property
    def shape(self) -> tuple[int, int, int]:
        layers, heads, tokens = self.attributions.shape[:3]
        return layers, heads, tokens


def _array(explanation: Explanation, name: str, shape: tuple[int, ...] | None = None) -> _Floats:
    array: _Floats = np.asarray(getattr(explanation, name), dtype=np.float32)
    square = array.ndim == 4 and array.shape[2] == array.shape[3] and 0 not in array.shape
    if not (square if shape is None else array.shape == shape):
        raise ValueError(f"{name} must have the shape {shape or '(L, H, T, T)'}, not {array.shape}")
    wrong = np.zeros(1) if name == "error" else ~np.isfinite(array)  # a fixed rule leaves the error NaN
    if wrong.any():
        where = [int(i) for i in np.argwhere(wrong)[0]]
        raise ValueError(f"{name} must be finite, but {name}{where} is {array[tuple(where)]}")
    return array


def _checked(explanation: Explanation) -> _Maps:
    tokens = list(explanation.tokens)
    for token in tokens:
        if not isinstance(token, str):
            raise TypeError(f"tokens must be strings, not {type(token).__name__}: {token!r}")
    attributions = _array(explanation, "attributions")
    layers, _, size, _ = attributions.shape
    if size != len(tokens):
        raise ValueError(f"{len(tokens)} tokens need maps of {len(tokens)} x {len(tokens)}, not {size} x {size}")
    if not math.isfinite(explanation.probability):
        raise ValueError(f"probability must be finite, not {explanation.probability}")
    attention = _array(explanation, "attention", attributions.shape)
    delta, error = (_array(explanation, name, (layers,)) for name in ("delta", "error"))
    return _Maps(tokens, attributions, attention, delta, error)


def _chosen(name: str, value: int | None, count: int) -> range:
    """The indices which are meant: all if there is no value."""
    if value is None:
        return range(count)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}: {value!r}")
    if not 0 <= value < count:
        raise ValueError(f"{name} must be from 0 to {count - 1}, not {value}")
    return range(value, value + 1)


# ------------------------------------------------------------------------------------------- the maps


def _large_maps(maps: _Maps, view: str) -> list[dict[str, Any]]:
    """One trace for each head, at (head x T, -layer x T) of one plane: choosing a head moves the axes.

    Attribution and attention lie upon each other, one of them transparent: the hover tells both, and
    nothing is stored twice. Maps outside the axes cost the browser next to nothing.
    """
    layers, heads, size = maps.shape
    gap = int(size <= 40)  # a line between cells, while they are large
    common = {"type": "heatmap", "xaxis": "x2", "yaxis": "y2", "xgap": gap, "ygap": gap}
    texts = ("%{{y}}<br>layer {}, head {}<br>attribution %{{z:+.3~g}}", "attention %{{z:.3~g}}")
    # plotly draws the axes of the labels only if they have a trace.
    holder = {"type": "scatter", "name": "labels", "xaxis": "x3", "yaxis": "y3", "x": [None], "y": [None]}
    traces: list[dict[str, Any]] = [{**holder, "hoverinfo": "skip", "showlegend": False}]
    for i, (kind, values, text) in enumerate(zip(_VIEWS, maps[1:3], texts, strict=True)):
        looks = {"coloraxis": _COLOURS[i], "opacity": float(kind == view)}
        for layer, head in np.ndindex(layers, heads):
            place = {"x0": head * size, "y0": -layer * size, "dy": -1, "name": f"{kind} {layer} {head}"}
            hover = text.format(layer, head) + "<extra></extra>"
            traces.append({**common, **looks, **place, "z": values[layer, head], "hovertemplate": hover})
    return traces


def _pooled(values: _Floats, starts: npt.NDArray[np.intp]) -> _Floats:
    """The value farthest from zero of each block of cells."""
    high = np.maximum.reduceat(np.maximum.reduceat(values, starts, -1), starts, -2)
    low = np.minimum.reduceat(np.minimum.reduceat(values, starts, -1), starts, -2)
    return np.where(high >= -low, high, low)


def _thumbnails(maps: _Maps, view: str, tile: int) -> list[dict[str, Any]]:
    """All heads side by side, in both views, and an unseen trace above them whose cells are the heads."""
    layers, heads, size = maps.shape
    most = max(6, math.isqrt(_THUMBNAIL_CELLS // (layers * heads)))
    starts = np.arange(0, size, -(-size // most))
    # A head is one unit wide; its cells leave a pixel at each side, where the background shows as a line.
    edges = np.linspace(1 / tile, 1 - 1 / tile, len(starts) + 1)
    x, y = (np.add.outer(np.arange(count), edges).ravel() for count in (heads, layers))
    traces: list[dict[str, Any]] = []
    for kind, values, colours in zip(_VIEWS, maps[1:3], _COLOURS, strict=True):
        cells = np.pad(_pooled(values, starts), ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=np.nan)
        mosaic = cells.transpose(0, 2, 1, 3).reshape(len(y), len(x))[:-1, :-1]
        looks = {"coloraxis": colours, "opacity": float(kind == view), "hoverinfo": "skip"}
        traces.append({"type": "heatmap", "name": f"{kind} thumbnails", "x": x, "y": y, "z": mosaic, **looks})
    unseen = {"colorscale": _scale("rgba(0,0,0,0)", "rgba(0,0,0,0)"), "showscale": False}
    sums = maps.attributions.sum((2, 3), dtype=np.float64).astype(np.float32)
    hover = "%{y}<br>attributions sum to %{z:+.3~g}<br>strongest: %{customdata}<extra></extra>"
    places = {"type": "heatmap", "name": "heads", "x0": 0.5, "y0": 0.5, "z": sums}
    return [*traces, {**places, **unseen, "customdata": _strongest(maps), "hovertemplate": hover}]


def _strongest(maps: _Maps) -> list[list[str]]:
    """For each head the query and the key whose attribution is farthest from zero, and that attribution."""
    layers, heads, size = maps.shape
    names = [label(token) for token in maps.tokens]
    flat = maps.attributions.reshape(layers, heads, -1)
    cells = np.abs(flat).argmax(-1)

    def text(layer: int, head: int) -> str:
        query, key = divmod(int(cells[layer, head]), size)
        return f"{names[query]} → {names[key]} {signed(flat[layer, head, cells[layer, head]])}"

    return [[text(layer, head) for head in range(heads)] for layer in range(layers)]


# ------------------------------------------------------------------------------------------ the layout


class _Place(NamedTuple):
    """Where things are, in pixels from the upper left corner of the area inside the margins."""

    tile: int  # side of a thumbnail; 0 if there is but one head
    left: int  # of the large map
    top: int  # of the large map and of the thumbnails
    side: int  # of the large map
    angle: int  # of the labels of its columns
    width: int
    height: int

    @classmethod
    def of(cls, maps: _Maps) -> _Place:
        layers, heads, size = maps.shape
        side = min(max(_MAP, 12 * size), _LARGEST_MAP)
        label = max(length(token) for token in maps.tokens) + 8
        room = _WIDTH - 2 * _EDGE - _ROW_NAMES - _AXIS_TITLE - label - side - _COLOUR_BAR
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


def _step(maps: _Maps, place: _Place) -> int:
    """Every how many tokens there is room for a label."""
    return math.ceil(len(maps.tokens) * _LINE / place.side)


def _axes(maps: _Maps, place: _Place) -> dict[str, Any]:
    """x, y: thumbnails. x2, y2: large map, whose tokens only a hover shows. x3, y3: the same, with labels."""
    layers, heads, size = maps.shape
    full, short = [wrapped(token) for token in maps.tokens], [label(token) for token in maps.tokens]
    marked = np.arange(0, size, _step(maps, place))
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


def _window(axis: str, maps: _Maps, index: int) -> dict[str, Any]:
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


def _of_layer(maps: _Maps, layer: int) -> dict[str, Any]:
    """What changes in the layout when a layer is chosen."""
    total, error = signed(maps.attributions[layer].sum(dtype=np.float64)), maps.error[layer]
    accuracy = "error not estimated" if not np.isfinite(error) else f"estimated relative error {error:.2g}"
    note = f"<b>layer {layer}</b>: attributions sum to {total}<br>delta {signed(maps.delta[layer])}, {accuracy}"
    texts = {"yaxis3.title.text": f"query token, layer {layer}", "annotations[0].text": note}
    return {**_window("y", maps, layer), **texts}


def _of_head(maps: _Maps, head: int) -> dict[str, Any]:
    """What changes in the layout when a head is chosen."""
    return {**_window("x", maps, head), "xaxis3.title.text": f"key token, head {head}"}


def _of_view(maps: _Maps, view: str) -> list[dict[str, Any]]:
    """What changes in the traces, and in the layout, when a view is chosen."""
    layers, heads, _ = maps.shape
    shown = [float(view == kind) for kind in _VIEWS]
    # In the order of the traces: thumbnails of both views, the heads, the labels, large maps of both views.
    opacity = [*shown, 1.0, 1.0] if layers * heads > 1 else [1.0]
    opacity += [value for value in shown for _ in range(layers * heads)]
    scales = {f"{colours}.showscale": view == kind for colours, kind in zip(_COLOURS, _VIEWS, strict=True)}
    return [{"opacity": opacity}, scales]


def _of_range(maps: _Maps, part: int) -> dict[str, Any]:
    """What changes in the layout when the colours end at the `part`-th part of the largest value."""
    end = float(np.abs(maps.attributions).max() or 1) / part  # a scale has a length, even if all is zero
    return {"coloraxis.cmin": -end, "coloraxis.cmax": end, "coloraxis2.cmax": 1 / part}


def _menus(maps: _Maps, place: _Place, active: dict[str, int]) -> list[dict[str, Any]]:
    layers, heads, _ = maps.shape
    choices: dict[str, list[tuple[str, Any]]] = {
        "view": [(view, _of_view(maps, view)) for view in _VIEWS],
        "layer": [(f"layer {i}", [_of_layer(maps, i)]) for i in range(layers)],
        "head": [(f"head {i}", [_of_head(maps, i)]) for i in range(heads)],
        "range": [(f"colour range {100 // part} %", [_of_range(maps, part)]) for part in _RANGES],
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


def _colour_bar(place: _Place, title: str, numbers: str) -> dict[str, Any]:
    """Beside the large map, as high as it is."""
    x = {"x": 1 + 12 / place.width, "xanchor": "left", "xpad": 0, "thickness": 14}
    y = {"y": 1 - place.top / place.height, "yanchor": "top", "ypad": 0, "lenmode": "pixels", "len": place.side}
    return {**x, **y, "title": {"text": title, "side": "top"}, "tickformat": numbers, "outlinewidth": 0}


def _title(explanation: Explanation, place: _Place) -> dict[str, Any]:
    text = explanation.text if isinstance(explanation.text, str) else " ‖ ".join(explanation.text)
    value = float(explanation.probability)
    score = f"{'probability' if 0 <= value <= 1 else 'score'} {value:.3g}"
    label = escape(visible(explanation.label, 40))
    x = {"x": 0, "xref": "paper", "xanchor": "left"}
    y = {"y": 1 - 10 / (place.height + _TOP + _EDGE), "yref": "container", "yanchor": "top"}
    subtitle = {"text": escape(visible(text, int(place.width / CHARACTER))), "font": {"size": 12}}
    main = f"Self-attention attribution: <b>{label}</b> (target {explanation.target}), {score}"
    return {"text": main, "font": {"size": 17}, "subtitle": subtitle, **x, **y}


def _themes(place: _Place) -> dict[str, dict[str, Any]]:
    """The changes of colours for light and for dark pages."""

    def exists(path: str) -> bool:
        return bool(place.tile) or not path.startswith("shapes")

    return {name: {path: colour for path, colour in theme.items() if exists(path)} for name, theme in _THEMES.items()}


def _layout(explanation: Explanation, maps: _Maps, place: _Place, active: dict[str, int]) -> dict[str, Any]:
    note = {"xref": "paper", "x": 1 + _COLOUR_BAR / place.width, "xanchor": "right", "align": "right"}
    note |= {"yref": "paper", "y": 1 + _MENUS / place.height, "yanchor": "top", "showarrow": False}
    return {
        "template": "none",
        "width": place.width + _COLOUR_BAR + 2 * _EDGE,
        "height": place.height + _TOP + _EDGE,
        "margin": {"l": _EDGE, "r": _COLOUR_BAR + _EDGE, "t": _TOP, "b": _EDGE},
        "font": {"family": "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif", "size": 12},
        "hovermode": "x unified",
        "title": _title(explanation, place),
        "updatemenus": _menus(maps, place, active),
        "annotations": [note],
        "shapes": [{"xref": "x", "yref": "y", "line": {"width": 2.5}}] if place.tile else [],
        "coloraxis": {"colorbar": _colour_bar(place, "attribution", "+.2~g")},
        "coloraxis2": {"colorbar": _colour_bar(place, "attention", ".2~g"), "cmin": 0},
        **_axes(maps, place),
    }


def plot_attention(
    explanation: Explanation,
    *,
    layer: int | None = None,
    head: int | None = None,
    view: Literal["attribution", "attention"] = "attribution",
) -> go.Figure:
    """Draw every head of an explanation: thumbnails of all, and a large map of one of them.

    Rows are query tokens, columns are key tokens. Attribution is signed and zero is in the middle of its
    colours; all heads share one scale, so that they can be compared. Menus choose the view, the layer, the
    head and where the colours end. In a page of `write_html`, a click on a thumbnail or an arrow key chooses
    a head too.

    Args:
        explanation: its `tokens` (T), `attributions` and `attention` (L, H, T, T), `delta` and `error` (L,),
            `target`, `label`, `probability` and `text` are shown.
        layer: the layer shown at first, from 0; by default, that of the head with the largest sum of
            |attribution|.
        head: the head shown at first, from 0; by default, likewise.
        view: what is shown at first.

    Returns:
        A figure whose traces named "attribution 3 5" and "attention 3 5" hold the maps (T, T) of layer 3,
        head 5. Thumbnails of long texts show the value farthest from zero of each block of cells.

    Raises:
        TypeError: a token is not a string, or a layer or head not an integer.
        ValueError: the maps do not match the tokens or one another or are not finite, or there is no such
            layer, head or view.

    Example:
        >>> import types, numpy
        >>> maps = numpy.array([[[[0.0, 0.2], [-0.1, 0.3]]]])
        >>> explanation = types.SimpleNamespace(
        ...     tokens=["good", "film"], attributions=maps, attention=abs(maps), delta=[0.01], error=[0.001],
        ...     target=1, label="positive", probability=0.9, text="good film",
        ... )
        >>> [trace.name for trace in plot_attention(explanation).data if trace.type == "heatmap"]
        ['attribution 0 0', 'attention 0 0']
    """
    if view not in _VIEWS:
        raise ValueError(f"view must be 'attribution' or 'attention', not {view!r}")
    maps = _checked(explanation)
    strength = np.abs(maps.attributions).sum((2, 3), dtype=np.float64)
    layers, heads = _chosen("layer", layer, maps.shape[0]), _chosen("head", head, maps.shape[1])
    layer, head = max(((i, j) for i in layers for j in heads), key=lambda each: float(strength[each]))

    place = _Place.of(maps)
    thumbnails = _thumbnails(maps, view, place.tile) if place.tile else []
    figure = go.Figure([*thumbnails, *_large_maps(maps, view)])
    active = {"view": _VIEWS.index(view), "layer": layer, "head": head, "range": 0}
    figure.update_layout(_layout(explanation, maps, place, active))
    themes = _themes(place)
    chosen = (_of_layer(maps, layer), _of_head(maps, head), _of_view(maps, view)[1], _of_range(maps, 1))
    for change in (*chosen, themes["light"]):
        for path, value in change.items():
            figure.layout[path] = value
    attention = {"labels": [label(token) for token in maps.tokens], "step": _step(maps, place)}
    attention |= {"tiles": {"x": maps.shape[1], "y": maps.shape[0]}, "room": place.side / _LINE}
    hint = (_HINT_CHOOSE if place.tile else "") + _HINT_ENLARGE
    figure.layout.meta = {"themes": themes, "attention": attention, "hint": hint}
    return figure
