"""Pruning curves: what a model loses as heads go, and what that saves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments, instance
from captum_attattr.formatting import counted, number, visible
from captum_attattr.heads.curves import PruningComparison, PruningCurve
from captum_attattr.plots.canvas.attributions import ranking_colours
from captum_attattr.plots.canvas.labels import NAME_LENGTH, name_label, name_labels
from captum_attattr.plots.canvas.layout import option
from captum_attattr.plots.canvas.lines import SYMBOLS, Line, hovers
from captum_attattr.plots.canvas.panels import PANELS_HINT, Heading, Panel, panels_figure
from captum_attattr.plots.canvas.theme import GREY, Theme
from captum_attattr.plots.head_scores import Floats

_BAND: dict[Theme, str] = {"light": "#c3cad1", "dark": "#56616c"}  # plotly fills with half of it
_ORDERS = {"least": "least important first", "most": "most important first"}


Colours = Mapping[str, Mapping[Theme, str]]
"""Of rankings, by name."""
_HINT_MENU = " The arrow keys choose an order."


class _Curve(NamedTuple):
    """The arrays of one pruning curve. S steps."""

    name: str
    order: str
    heads: Floats  # (S,)
    total: int
    metric: Floats  # (S,)
    latency: Floats | None  # (S,), that of the whole model is 1
    parameters: Floats | None  # (S,), likewise
    hovers: list[str]  # (S,)

    @classmethod
    def of(cls, curve: PruningCurve) -> _Curve:
        """Take the arrays of a curve."""
        heads, metric = (np.asarray(part, np.float64) for part in (curve.heads, curve.metric))
        # Of the processes of a parallel run only the first one measures; the others have zeros.
        latency = np.asarray(curve.latency, np.float64) if any(curve.latency) else None
        counts = np.asarray(curve.parameters, np.float64)
        parameters = counts / counts[0] if any(curve.parameters) else None
        return cls(curve.name, curve.order, heads, curve.total, metric, latency, parameters, _hovers(curve))

    @property
    def share(self) -> Floats:
        return 100 * self.heads / self.total

    @property
    def group(self) -> str:
        return f"{self.name} {self.order}"


def _hovers(curve: PruningCurve) -> list[str]:
    """Return what the hover tells of each step."""
    start = "at first" if curve.heads[0] else "with all heads"
    texts = []
    for step, heads in enumerate(curve.heads):
        lines = [
            f"<b>{name_label(curve.name)}</b>, {_ORDERS[curve.order]}",
            f"{heads} of {counted(curve.total, 'head')} off ({100 * heads / curve.total:.0f} %)",
            f"{name_label(curve.metric_name)} {number(curve.metric[step])} ({start} {number(curve.metric[0])})",
            f"loss {number(curve.loss[step])}",
        ]
        if any(curve.parameters):
            fraction = curve.parameters[step] / curve.parameters[0]
            lines.append(f"{curve.parameters[step]:,.0f} parameters ({100 * fraction:.1f} %)")
        if any(curve.latency):
            lines.append(f"latency {number(curve.latency[step])} of the whole model")
        texts.append("<br>".join(lines))
    return texts


def _listed(curves: Any) -> tuple[list[PruningCurve], list[PruningCurve]]:
    """Return the curves and the random ones that a user gave."""
    if isinstance(curves, PruningComparison):
        given = list(curves.curves), list(curves.random)
    elif isinstance(curves, Sequence) and not isinstance(curves, str):
        given = list(curves), []
    else:
        given = [curves], []
    if not any(given):
        raise ValueError(f"curves is empty: this {type(curves).__name__} has no PruningCurve")
    for curve in (*given[0], *given[1]):
        instance("curves", curve, PruningCurve, "a PruningCurve, a list of them or a PruningComparison")
    return given


def _check_together(given: list[PruningCurve], curves: list[_Curve]) -> None:
    """Check that curves have one metric, and that no two have one name and order."""
    metrics = list(dict.fromkeys(curve.metric_name for curve in given))
    if len(metrics) > 1:
        raise ValueError(f"curves of one figure must have the same metric, not {' and '.join(map(repr, metrics))}")
    groups = [curve.group for curve in curves]
    for i, curve in enumerate(curves):
        if curve.group in groups[:i]:
            raise ValueError(f"two curves are called {curve.name!r}, {_ORDERS[curve.order]}: give them different names")


def _random_lines(random: list[_Curve]) -> list[Line]:
    """Return the band from the least to the largest value of all seeds, and their mean, where all have one."""
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
    texts = [
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
        "legendgroup": "random",
        "showlegend": True,
        **hovers(texts),
    }
    return [Line(band, _BAND)] * (len(random) > 1) + [Line(line, GREY)]


def _curve_line(curve: _Curve, colours: Colours, ranking: int, values: Floats, axis: str, title: bool) -> Line:
    """Return one curve: its colour and symbol tell the ranking, filled or open marks and the dashes the order.

    Args:
        curve: the curve.
        colours: of all rankings, by name.
        ranking: an index among the rankings of the figure.
        values: its metric, or its latency.
        axis: "", or "2" for the right panel.
        title: whether the legend has the name of the order above this curve.
    """
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
        "marker": {"symbol": SYMBOLS[ranking % len(SYMBOLS)] + ("" if least else "-open"), "size": 8},
        "legendgroup": curve.group,
        "showlegend": not axis,
        **hovers(curve.hovers),
    }
    return Line(trace | ({"legendgrouptitle": {"text": _ORDERS[curve.order]}} if title else {}), colours[curve.name])


def _parameter_lines(curves: list[_Curve], colours: Colours) -> list[Line]:
    """Return the parameters over the heads: one line if all curves agree, as they do where heads are of one size."""
    lines: list[Line] = []
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
        lines.append(Line(trace, colours[curve.name]))
        first = lines[0].trace
        alike = len(curve.share) == len(first["x"]) and np.allclose(curve.share, first["x"])
        same = same and alike and np.allclose(curve.parameters, first["y"], rtol=1e-3)
    alone = {"legendgroup": "parameters", "showlegend": True, "legendgrouptitle": {"text": "any ranking"}}
    return [Line({**lines[0].trace, **alone}, GREY)] if lines and same else lines


def _rows(given: list[PruningCurve]) -> str:
    """Return how many rows the rankings and the curves are made of, and how many of them are the same."""

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


def _order_options(shown: list[str]) -> list[dict[str, Any]]:
    """Return the options of the menu of orders; `shown` is each trace's order, "" for traces of every order."""
    choices = [("both orders", {"", *_ORDERS}), *((text, {"", order}) for order, text in _ORDERS.items())]
    hidden = "legendonly"  # traces that are not visible at all would leave their colours to the others
    return [option(text, {"visible": [order in orders or hidden for order in shown]}) for text, orders in choices]


@checked_arguments
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
        ValueError: no curve, or curves of different metrics or of the same name and order.

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
    every, random = [_Curve.of(each) for each in given], [_Curve.of(each) for each in given_random]
    _check_together(given + given_random, every)
    labels = name_labels([curve.name for curve in every])
    every = [curve._replace(name=label) for curve, label in zip(every, labels, strict=True)]
    every.sort(key=lambda curve: list(_ORDERS).index(curve.order))
    lines, shown = _lines(every, random)
    metric = name_label((given + given_random)[0].metric_name)
    names = [visible(curve.name, NAME_LENGTH) for curve in given]
    names += [f"random, {len(random)} seeds: mean and range", _ORDERS["least"]]
    two = any(line.trace.get("xaxis") == "x2" for line in lines)
    across = {"title": "share of heads off", "ticksuffix": " %", "range": [-4, 104]}
    saved = {"title": "latency, and parameters (dash-dotted); the whole model is 1", "rangemode": "tozero"}
    left = Panel(0.62 if two else 1.0, across, {"title": metric})
    panels = [left, Panel(0.38, across, saved)] if two else [left]
    title = f"Pruning heads: <b>{metric}</b>" + (", latency and parameters" if two else "")
    several = set(_ORDERS) <= set(shown)
    options = _order_options(shown) if several else []
    hint = PANELS_HINT + (_HINT_MENU if several else "")
    heading = Heading(title, _rows(given + given_random), names, hint, options)
    return panels_figure(lines, panels, heading, "pruning")


def _lines(curves: list[_Curve], random: list[_Curve]) -> tuple[list[Line], list[str]]:
    """Return all traces, those in front last, and the order that each belongs to: "" for every order."""
    rankings = {name: i for i, name in enumerate(dict.fromkeys(curve.name for curve in curves))}
    colours = ranking_colours(rankings)
    lines = _random_lines(random)
    shown = [""] * len(lines)
    orders = [curve.order for curve in curves]
    for i, curve in enumerate(curves):
        lines.append(
            _curve_line(curve, colours, rankings[curve.name], curve.metric, "", orders.index(curve.order) == i)
        )
        shown.append(curve.order)
    for curve in curves:
        if curve.latency is not None:
            lines.append(_curve_line(curve, colours, rankings[curve.name], curve.latency, "2", False))
            shown.append(curve.order)
    parameters = _parameter_lines(curves, colours)
    return lines + parameters, shown + [""] * len(parameters)
