"""Pruning curves: what a model loses as heads go, and what that saves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from captum_attattr.formatting import counted, number, visible
from captum_attattr.plots.canvas.labels import NAME, named
from captum_attattr.plots.canvas.panels import MENU, PLOT, Floats, Line, Panel, colours, layout, numbers, painted
from captum_attattr.plots.canvas.theme import Theme

if TYPE_CHECKING:
    from captum_attattr.heads.curves import PruningComparison, PruningCurve

_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star")
_BAND: dict[Theme, str] = {"light": "#c3cad1", "dark": "#56616c"}  # plotly fills with half of it
_MEAN: dict[Theme, str] = {"light": "#5d6a77", "dark": "#98a4b0"}
_PARAMETERS: dict[Theme, str] = _MEAN
_ORDERS = {"least": "least important first", "most": "most important first"}


class _Curve(NamedTuple):
    """The checked arrays of one pruning curve. S steps."""

    name: str
    """as plotly may show it"""
    order: str
    heads: Floats  # (S,)
    total: int
    metric: Floats  # (S,)
    latency: Floats | None  # (S,), that of the whole model is 1
    parameters: Floats | None  # (S,), likewise
    hovers: list[str]  # (S,)

    @property
    def share(self) -> Floats:
        return 100 * self.heads / self.total

    @property
    def group(self) -> str:
        return f"{self.name} {self.order}"


def _checked(curve: PruningCurve) -> _Curve:
    for attribute in ("name", "order", "heads", "total", "metric", "loss", "parameters", "latency", "ranking_rows"):
        if not hasattr(curve, attribute):
            what = "curves must be a PruningCurve, a list of them or a PruningComparison"
            raise TypeError(f"{what}, not {type(curve).__name__}: {attribute!r} is missing")
    if not isinstance(curve.name, str):
        raise TypeError(f"the name of a curve must be a string, not {type(curve.name).__name__}: {curve.name!r}")
    who = f"curve {curve.name!r}"
    if curve.order not in _ORDERS:
        raise ValueError(f"the order of {who} must be 'least' or 'most', not {curve.order!r}")
    count = len(curve.heads)
    heads, metric, loss = (
        numbers(getattr(curve, key), f"{key} of {who}", count) for key in ("heads", "metric", "loss")
    )
    if not count:
        raise ValueError(f"{who} has no step")
    if curve.total < 1 or heads.min() < 0 or heads.max() > curve.total:
        raise ValueError(f"{who} must have 0 to total={curve.total} heads off, not {heads.min():g} to {heads.max():g}")
    if not np.isfinite(metric).any():
        raise ValueError(f"{who} has no finite {curve.metric_name}: {metric.tolist()}")
    # Of the processes of a parallel run only the first one measures; the others have zeros.
    cut = [getattr(curve, key) if any(getattr(curve, key)) else None for key in ("latency", "parameters")]
    latency, absolute = (
        None if values is None else numbers(values, f"{key} of {who}", count)
        for key, values in zip(("latency", "parameters"), cut, strict=True)
    )
    if absolute is not None and not absolute[0] > 0:
        raise ValueError(f"parameters of {who} must be above 0 at the first step, not {absolute[0]:g}")
    parameters = None if absolute is None else absolute / absolute[0]
    start = "at first" if heads[0] else "with all heads"
    hovers = []
    for step in range(count):
        share = f"{100 * heads[step] / curve.total:.0f} %"
        lines = [
            f"<b>{named(curve.name)}</b>, {_ORDERS[curve.order]}",
            f"{heads[step]:.0f} of {counted(curve.total, 'head')} off ({share})",
            f"{named(curve.metric_name)} {number(metric[step])} ({start} {number(metric[0])})",
            f"loss {number(loss[step])}",
        ]
        if absolute is not None and parameters is not None:
            lines.append(f"{absolute[step]:,.0f} parameters ({100 * parameters[step]:.1f} %)")
        if latency is not None:
            lines.append(f"latency {number(latency[step])} of the whole model")
        hovers.append("<br>".join(lines))
    return _Curve(named(curve.name), curve.order, heads, curve.total, metric, latency, parameters, hovers)


def _listed(curves: Any) -> tuple[list[PruningCurve], list[PruningCurve]]:
    """The curves, and the random ones."""
    if hasattr(curves, "curves") and hasattr(curves, "random"):
        found = list(curves.curves), list(curves.random)
    elif isinstance(curves, Sequence) and not isinstance(curves, str):
        found = list(curves), []
    else:
        found = [curves], []
    if not any(found):
        raise ValueError(f"curves is empty: this {type(curves).__name__} has no PruningCurve")
    return found


def _of_one_kind(given: list[PruningCurve], curves: list[_Curve], random: list[_Curve]) -> None:
    metrics = list(dict.fromkeys(curve.metric_name for curve in given))
    if len(metrics) > 1:
        raise ValueError(f"curves of one figure must have the same metric, not {' and '.join(map(repr, metrics))}")
    groups = [curve.group for curve in curves]
    for i, curve in enumerate(curves):
        if curve.group in groups[:i]:
            raise ValueError(f"two curves are called {curve.name}, {_ORDERS[curve.order]}: give them different names")


def _random_lines(random: list[_Curve]) -> list[Line]:
    """The band from the least to the largest value of all seeds, and their mean, where all have one."""
    if not random:
        return []
    # Heads that go together, in groups of several sizes, make steps of several shares.
    share = np.unique(np.concatenate([curve.share for curve in random]).round(9))
    values = np.stack([np.interp(share, curve.share, curve.metric) for curve in random])
    known = np.isfinite(values).all(0)
    share, values = share[known], values[:, known]
    seeds = counted(len(random), "seed")
    low, high, mean = values.min(0), values.max(0), values.mean(0)
    band = {
        "type": "scatter",
        "name": "random, from min to max",
        "x": np.concatenate([share, share[::-1]]),
        "y": np.concatenate([high, low[::-1]]),
        "mode": "lines",
        "line": {"width": 0.5},
        "fill": "toself",
        "hoverinfo": "skip",
        "legendgroup": "random",
        "showlegend": False,
    }
    hovers = [
        f"<b>random</b>, {seeds}<br>{share[i]:.0f} % of the heads off<br>"
        f"mean {number(mean[i])}, from {number(low[i])} to {number(high[i])}"
        for i in range(len(share))
    ]
    line = {
        "type": "scatter",
        "name": f"random, {seeds}" + (": mean and range" if len(random) > 1 else ""),
        "x": share,
        "y": mean,
        "mode": "lines",
        "line": {"width": 2, "dash": "dot"},
        "customdata": hovers,
        "hovertemplate": "%{customdata}<extra></extra>",
        "legendgroup": "random",
        "showlegend": True,
    }
    return [Line(band, _BAND)] * (len(random) > 1) + [Line(line, _MEAN)]


def _curve_line(curve: _Curve, place: int, values: Floats, axis: str, title: bool) -> Line:
    """One curve: its colour and mark tell the ranking, filled or open marks and the dashes the order."""
    least = curve.order == "least"
    trace = {
        "type": "scatter",
        "name": curve.name,
        "x": curve.share,
        "y": values,
        "xaxis": f"x{axis}",
        "yaxis": f"y{axis}",
        "mode": "lines+markers",
        "line": {"width": 2, "dash": "solid" if least else "dash"},
        "marker": {"symbol": _SYMBOLS[place % len(_SYMBOLS)] + ("" if least else "-open"), "size": 8},
        "customdata": curve.hovers,
        "hovertemplate": "%{customdata}<extra></extra>",
        "legendgroup": curve.group,
        "showlegend": not axis,
    }
    return Line(trace | ({"legendgrouptitle": {"text": _ORDERS[curve.order]}} if title else {}), colours(place))


def _parameter_lines(curves: list[_Curve], places: dict[str, int]) -> list[Line]:
    """One line if all curves are cut alike, as they are where all heads are of one size."""
    found: list[Line] = []
    same = True
    for curve in curves:
        if curve.parameters is None:
            continue
        trace = {
            "type": "scatter",
            "name": "parameters",
            "x": curve.share,
            "y": curve.parameters,
            "xaxis": "x2",
            "yaxis": "y2",
            "mode": "lines",
            "line": {"width": 2.5, "dash": "longdashdot"},
            "hovertemplate": "parameters %{y:.3f} of the whole model<br>%{x:.0f} % of the heads off<extra></extra>",
            "legendgroup": curve.group,
            "showlegend": False,
        }
        found.append(Line(trace, colours(places[curve.name])))
        first = found[0].trace
        alike = len(curve.share) == len(first["x"]) and np.allclose(curve.share, first["x"])
        same = same and alike and np.allclose(curve.parameters, first["y"], rtol=1e-3)
    alone = {"legendgroup": "parameters", "showlegend": True, "legendgrouptitle": {"text": "any ranking"}}
    return [Line({**found[0].trace, **alone}, _PARAMETERS)] if found and same else found


def _rows(given: list[PruningCurve]) -> str:
    """How many rows the rankings and the curves are made of, and how many of them are the same."""

    def span(values: Iterable[int]) -> str:
        known = sorted(set(values))
        return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"

    ranked = [curve for curve in given if curve.ranking_rows]
    evaluated = f"evaluated on {span(curve.evaluation_rows for curve in given)} rows"
    if not ranked:
        return f"Random rankings, {evaluated}"
    shared = span(curve.shared_rows for curve in ranked)
    used = "none of which the ranking had seen" if shared == "0" else f"{shared} of which the ranking had seen"
    return f"Heads ranked on {span(curve.ranking_rows for curve in ranked)} rows, {evaluated}, {used}"


def _order_menu(shown: list[str]) -> list[dict[str, Any]]:
    """Buttons for both orders, where there are both. `shown` is the order of each line, or "" for every order."""
    if not set(_ORDERS) <= set(shown):
        return []
    choices = [("both orders", {"", *_ORDERS}), *((text, {"", order}) for order, text in _ORDERS.items())]
    hidden = "legendonly"  # traces that are not visible at all would leave their colours to the others
    buttons = [
        {"label": text, "method": "restyle", "args": [{"visible": [own in orders or hidden for own in shown]}]}
        for text, orders in choices
    ]
    at = {"x": 0, "xanchor": "left", "y": 1 + MENU / PLOT, "yanchor": "top"}
    return [{"name": "order", "type": "buttons", "direction": "right", "active": 0, "buttons": buttons, **at}]


def plot_pruning_curve(curves: PruningCurve | Sequence[PruningCurve] | PruningComparison) -> go.Figure:
    """Draw what is left of a model as more and more of its heads go, and what is saved.

    On the left the metric over the share of heads that are off. Colour and mark tell the ranking; the most
    important heads first have dashes and open marks, and buttons choose an order where there are both. Grey is
    what random rankings leave: from the worst to the best seed, and their mean. On the right, where it was
    measured, latency and parameters of the model with the heads cut out, divided by those of the whole model.

    Args:
        curves: a result of `pruning_curve`, a list of them, or a result of `compare_pruning`.

    Returns:
        A figure. The first trace of a curve's name holds its metric over the share in percent.

    Raises:
        TypeError: none of these.
        ValueError: no curve, a curve without a finite metric or with lists of different lengths, curves of
            different metrics or of the same name and order.

    Example:
        >>> from captum_attattr.heads.curves import PruningCurve
        >>> curve = PruningCurve(
        ...     name="attattr", order="least", heads=[0, 2, 4], total=4, metric_name="accuracy",
        ...     metric=[0.9, 0.85, 0.5], loss=[0.3, 0.4, 0.7], ranking=[[0, 0], [1, 1], [0, 1], [1, 0]],
        ...     ranking_rows=100, evaluation_rows=200, shared_rows=0, parameters=[], latency=[],
        ... )
        >>> figure = plot_pruning_curve(curve)
        >>> figure.data[0].x.tolist(), figure.data[0].y.tolist()
        ([0.0, 50.0, 100.0], [0.9, 0.85, 0.5])
    """
    given, given_random = _listed(curves)
    checked, random = [_checked(each) for each in given], [_checked(each) for each in given_random]
    _of_one_kind(given + given_random, checked, random)
    checked.sort(key=lambda curve: list(_ORDERS).index(curve.order))
    places = {name: place for place, name in enumerate(dict.fromkeys(curve.name for curve in checked))}

    lines, shown = _random_lines(random), [""] * len(_random_lines(random))
    orders = [curve.order for curve in checked]
    for i, curve in enumerate(checked):
        lines.append(_curve_line(curve, places[curve.name], curve.metric, "", orders.index(curve.order) == i))
        shown.append(curve.order)
    for curve in checked:
        if curve.latency is not None:
            lines.append(_curve_line(curve, places[curve.name], curve.latency, "2", False))
            shown.append(curve.order)
    parameters = _parameter_lines(checked, places)
    lines, shown = lines + parameters, shown + [""] * len(parameters)

    metric = named((given + given_random)[0].metric_name)
    names = [visible(curve.name, NAME) for curve in given] + [
        f"random, {len(random)} seeds: mean and range",
        _ORDERS["least"],
    ]
    two = any(line.trace.get("xaxis") == "x2" for line in lines)
    across = {"title": "share of heads off", "ticksuffix": " %", "range": [-4, 104]}
    saved = {"title": "latency, and parameters (dash-dotted); the whole model is 1", "rangemode": "tozero"}
    left = Panel(0.62 if two else 1.0, across, {"title": metric})
    panels = [left, Panel(0.38, across, saved)] if two else [left]
    title = f"Pruning heads: <b>{metric}</b>" + (", latency and parameters" if two else "")
    menus = _order_menu(shown)
    whole = layout(panels, names, title, _rows(given + given_random), menus)
    return painted(lines, whole, "pruning", "order" if menus else None)
