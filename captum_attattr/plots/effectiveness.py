"""The figure of the effectiveness analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from captum_attattr.formatting import counted, number
from captum_attattr.plots.canvas.labels import named
from captum_attattr.plots.canvas.panels import Floats, Line, Panel, colours, layout, numbers, painted

if TYPE_CHECKING:
    from captum_attattr.heads.effectiveness import Effectiveness

_SCORES = ("attribution", "attention")
_MODES = {"prune": "are off", "keep": "alone are on"}


def _effect(effectiveness: Effectiveness, what: str, score: str, mode: str) -> Floats:
    values = getattr(effectiveness, what)
    if score not in values or mode not in values[score]:
        raise ValueError(f"{what} of the effectiveness lacks [{score!r}][{mode!r}]")
    return numbers(values[score][mode], f"{what}[{score!r}][{mode!r}]", len(effectiveness.heads))


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
        ValueError: a curve is missing, is not as long as `heads`, or has no finite value.

    Example:
        >>> from captum_attattr.heads.effectiveness import Effectiveness
        >>> metric = {score: {"prune": [0.9, 0.5], "keep": [0.5, 0.9]} for score in ("attribution", "attention")}
        >>> effectiveness = Effectiveness([0, 1], "accuracy", metric, metric, 100, {"target": "gold"})
        >>> [trace.meta for trace in plot_effectiveness(effectiveness).data]
        ['attribution prune', 'attribution keep', 'attention prune', 'attention keep']
    """
    for attribute in ("heads", "metric_name", "metric", "loss", "rows", "options"):
        if not hasattr(effectiveness, attribute):
            raise TypeError(f"effectiveness must be an Effectiveness, not {type(effectiveness).__name__}")
    heads = numbers(effectiveness.heads, "heads", len(effectiveness.heads))
    metric, most = named(effectiveness.metric_name), int(max(effectiveness.heads, default=0))
    if not len(heads):
        raise ValueError("effectiveness has no step: heads is empty")
    lines = []
    for place, score in enumerate(_SCORES):
        for panel, (mode, state) in enumerate(_MODES.items()):
            values = _effect(effectiveness, "metric", score, mode)
            if not np.isfinite(values).any():
                raise ValueError(f"metric[{score!r}][{mode!r}] has no finite value: {values.tolist()}")
            losses = _effect(effectiveness, "loss", score, mode)
            hovers = [
                f"<b>{score}</b><br>the {k:.0f} strongest of {most} heads per layer {state}<br>"
                f"{metric} {number(value)}<br>loss {number(loss)}"
                for k, value, loss in zip(heads, values, losses, strict=True)
            ]
            axis = "2" if panel else ""
            trace = {
                "type": "scatter",
                "name": score,
                "meta": f"{score} {mode}",
                "x": heads,
                "y": values,
                "xaxis": f"x{axis}",
                "yaxis": f"y{axis}",
                "mode": "lines+markers",
                "line": {"width": 2, "dash": ("solid", "dash")[place]},
                "marker": {"symbol": ("circle", "square-open")[place], "size": 8},
                "customdata": hovers,
                "hovertemplate": "%{customdata}<extra></extra>",
                "legendgroup": score,
                "showlegend": not panel,
            }
            lines.append(Line(trace, colours(1 - place)))  # attribution is orange, as everywhere
    titles = ["strongest heads of every layer switched off", "strongest heads of every layer left on, all others off"]
    ticks = {"dtick": max(1, most // 12), "tick0": 0}
    panels = [
        Panel(0.5, {"title": titles[0], **ticks}, {"title": metric}),
        Panel(0.5, {"title": titles[1], **ticks}, {"title": metric, "matches": "y"}),
    ]
    options = effectiveness.options
    chosen = "".join(f", {key} {named(str(options[key]))}" for key in ("target", "reduce") if key in options)
    title = f"Effectiveness of head scores: <b>{metric}</b>"
    rows = f"{counted(effectiveness.rows, 'row')}; for each of them the heads are ranked within every layer{chosen}"
    return painted(lines, layout(panels, list(_SCORES), title, rows, []), "effectiveness")
