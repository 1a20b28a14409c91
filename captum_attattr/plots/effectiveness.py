"""The figure of the effectiveness analysis."""

from __future__ import annotations

import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments, instance
from captum_attattr.formatting import counted, number
from captum_attattr.heads.effectiveness import Effectiveness
from captum_attattr.heads.scoring import ATTRIBUTED
from captum_attattr.plots.canvas.labels import name_label
from captum_attattr.plots.canvas.lines import Line, hovers, line_colours
from captum_attattr.plots.canvas.panels import Heading, Panel, panels_figure

# Attribution is orange, as in all figures.
_SCORES = {"attribution": ("solid", "circle", line_colours(1)), "attention": ("dash", "square-open", line_colours(0))}
_MODES = {"prune": "are off", "keep": "alone are on"}


@checked_arguments
def plot_effectiveness(effectiveness: Effectiveness) -> go.Figure:
    """Draw whether the heads that score highest for an example carry its decision.

    On the left the k strongest heads of every layer are off: the faster the metric falls, the better the score
    names them. On the right they alone are on: the faster it rises, the better.

    Args:
        effectiveness: a result of `effectiveness_analysis`.

    Returns:
        A figure. The traces named "attribution prune", "attribution keep", "attention prune" and "attention
        keep" hold the metric over k.

    Raises:
        TypeError: not an `Effectiveness`.

    Example:
        >>> from captum_attattr.heads.effectiveness import Effectiveness
        >>> metric = {score: {"prune": [0.9, 0.5], "keep": [0.5, 0.9]} for score in ("attribution", "attention")}
        >>> effectiveness = Effectiveness([0, 1], "accuracy", metric, metric, 100, {"target": "gold"})
        >>> [trace.meta for trace in plot_effectiveness(effectiveness).data]
        ['attribution prune', 'attribution keep', 'attention prune', 'attention keep']
    """
    instance("effectiveness", effectiveness, Effectiveness, "an Effectiveness")
    most = max(effectiveness.heads)
    metric = name_label(effectiveness.metric_name)
    ticks = {"dtick": max(1, most // 12), "tick0": 0}
    titles = ["strongest heads of every layer switched off", "strongest heads of every layer left on, all others off"]
    panels = [
        Panel(0.5, {"title": titles[0], **ticks}, {"title": metric}),
        Panel(0.5, {"title": titles[1], **ticks}, {"title": metric, "matches": "y"}),
    ]
    options = effectiveness.options
    told: list[str] = [key for key in ("target", "reduce") if key in options]
    told += [key for key, usual in ATTRIBUTED.items() if options.get(key, usual) != usual]
    texts = {key: "one each" if isinstance(options[key], list) else str(options[key]) for key in told}
    chosen = "".join(f", {key} {name_label(text)}" for key, text in texts.items())
    title = f"Effectiveness of head scores: <b>{metric}</b>"
    rows = f"{counted(effectiveness.rows, 'row')}; for each of them the heads are ranked within every layer{chosen}"
    lines = [_line(effectiveness, score, mode) for score in _SCORES for mode in _MODES]
    return panels_figure(lines, panels, Heading(title, rows, list(_SCORES)), "effectiveness")


def _line(effectiveness: Effectiveness, score: str, mode: str) -> Line:
    """Return the metric over k, for one score; "prune" is the left panel, "keep" the right one."""
    heads, metric, loss = effectiveness.heads, effectiveness.metric[score][mode], effectiveness.loss[score][mode]
    name = name_label(effectiveness.metric_name)
    texts = [
        f"<b>{score}</b><br>the {k} strongest of {max(heads)} heads per layer {_MODES[mode]}<br>"
        f"{name} {number(value)}<br>loss {number(mean)}"
        for k, value, mean in zip(heads, metric, loss, strict=True)
    ]
    axis = "" if mode == "prune" else "2"
    dash, symbol, colours = _SCORES[score]
    trace = {
        "type": "scatter",
        "name": score,
        "meta": f"{score} {mode}",
        "x": heads,
        "y": metric,
        "xaxis": f"x{axis}",
        "yaxis": f"y{axis}",
        "mode": "lines+markers",
        "line": {"width": 2, "dash": dash},
        "marker": {"symbol": symbol, "size": 8},
        "legendgroup": score,
        "showlegend": mode == "prune",
        **hovers(texts),
    }
    return Line(trace, colours)
