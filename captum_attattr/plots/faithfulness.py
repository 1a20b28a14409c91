"""Curves of faithfulness: the output with only the top units of a ranking, and without them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments, instance
from captum_attattr.evaluation.compared import AttributionComparison
from captum_attattr.evaluation.measures import FEWEST, Floats, bands, unit_counts
from captum_attattr.evaluation.result import REMOVALS, UNITS, Faithfulness
from captum_attattr.formatting import counted, number, visible
from captum_attattr.plots.canvas.attributions import attribution_colours
from captum_attattr.plots.canvas.labels import NAME_LENGTH, name_label, name_labels
from captum_attattr.plots.canvas.lines import SYMBOLS, Line, hovers
from captum_attattr.plots.canvas.panels import PANELS_HINT, Heading, Panel, panels_figure
from captum_attattr.plots.canvas.theme import GREY

_PANELS = {"keep": ("", "top {units} kept, in % of all: the earlier up, the better")}
_PANELS["delete"] = ("2", "top {units} removed, in % of all: the earlier down, the better")
_DASHES = ("solid", "dash", "dashdot", "longdash", "dot")
_MOST_TICKS = 12  # fractions that are named below an axis
_FEW = 4  # results whose bands need not be faint
_SAME = 0.05  # of the largest output: how far outputs of the same example may differ, computed in other batches

_HINT_BANDS = " The bands are 95 % bootstrap intervals over the examples."


class _Curves(NamedTuple):
    """One result, and how its lines look."""

    name: str
    """as plotly may show it"""
    result: Faithfulness
    symbol: str
    dash: str
    bounds: dict[str, tuple[Floats, Floats]]
    """by panel, of the intervals"""


def _named(results: Any) -> list[tuple[str, Faithfulness]]:
    """Return the results that a user gave, with their names."""
    if isinstance(results, AttributionComparison):
        results = results.results
    if isinstance(results, Mapping):
        given = [(instance("names of results", name, str, "strings"), result) for name, result in results.items()]
    else:
        several = isinstance(results, Sequence) and not isinstance(results, str)
        given = [(getattr(result, "name", ""), result) for result in (results if several else [results])]
    if not given:
        raise ValueError(f"results is empty: this {type(results).__name__} has no Faithfulness")
    for _, result in given:
        instance(
            "results", result, Faithfulness, "a Faithfulness, a list or a dict of them, or an AttributionComparison"
        )
    names = [name for name, _ in given]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"two results are called {name!r}: give a dict of them by other names")
    return given


def _check_together(given: list[tuple[str, Faithfulness]]) -> None:
    """Check that results are about the same units of the same examples, removed in the same way."""
    first_name, first = given[0]
    for name, result in given[1:]:
        both = f"{first_name!r} and {name!r}"
        for field in ("unit", "removal", "output_name", "fractions"):
            one, other = getattr(first, field), getattr(result, field)
            if one != other:
                what = field.removesuffix("_name")
                raise ValueError(f"results of one figure must have the same {what}; {both} have {one!r} and {other!r}")
        if len(first.full) != len(result.full):
            counts = f"{len(first.full)} and {len(result.full)}"
            raise ValueError(f"results of one figure must be of the same examples; {both} have {counts} of them")
        furthest = (first.full - result.full).abs()
        if furthest.max() > _SAME * first.full.abs().max():
            at = int(furthest.argmax())
            values = f"{number(first.full[at].item())} and {number(result.full[at].item())}"
            raise ValueError(
                f"results of one figure must be of the same examples; the whole output of example {at} is {values} in "
                f"{both}"
            )


def _looks(given: list[tuple[str, Faithfulness]]) -> list[_Curves]:
    """Return the results with their marks; results of one attribution, which have one colour, have other dashes."""
    curves: list[_Curves] = []
    before: list[dict[Any, str]] = []
    labels = name_labels([name for name, _ in given])
    for index, (label, (_, result)) in enumerate(zip(labels, given, strict=True)):
        colours = attribution_colours(result.attribution, result.path)
        dash = _DASHES[before.count(colours) % len(_DASHES)]
        before.append(colours)
        bounds = {part: bands(getattr(result, part)) for part in _PANELS}
        curves.append(_Curves(label, result, SYMBOLS[index % len(SYMBOLS)], dash, bounds))
    return curves


@checked_arguments
def plot_faithfulness(
    results: Faithfulness | Sequence[Faithfulness] | Mapping[str, Faithfulness] | AttributionComparison,
) -> go.Figure:
    """Draw the output with only the top units of rankings, and without them.

    On the left only the top units are there, on the right they alone are gone, over their fraction of all units (a
    logarithmic axis). Each line is a mean over the examples, in a band of its 95 % bootstrap interval where there are
    five examples or more. Colour tells the attribution, in every figure the same. Grey lines are the output with all
    units and with none.

    Args:
        results: of `faithfulness`, one, a list of several on the same examples, or a dict of them by the names that the
            legend has; or a result of `compare_attributions`.

    Returns:
        A figure. The traces whose `meta` is "keep attattr" and "delete attattr" hold the curves of "attattr".

    Raises:
        TypeError: none of these.
        ValueError: no result, two of one name, or results of other units, removals, outputs, fractions or examples.

    Example:
        >>> from captum_attattr import Faithfulness
        >>> result = Faithfulness(
        ...     fractions=[0.1, 0.5, 1], counts=[], full=[0.9], empty=[0.5], keep=[[0.6, 0.9, 0.9]],
        ...     delete=[[0.7, 0.5, 0.5]], keep_absolute=[[0.6, 0.9, 0.9]], keep_top=[[]], delete_top=[[]], units=[144],
        ...     unit="edge", removal="zero", attribution="attattr", output="probability", path="layer",
        ...     baseline="zero", heads=[[0.3, 0.1]], layers=[0],
        ... )
        >>> [trace.y.tolist() for trace in plot_faithfulness(result).data if trace.meta == "keep attattr"]
        [[0.6, 0.9, 0.9]]
    """
    given = _named(results)
    _check_together(given)
    first = given[0][1]
    units, output = UNITS[first.unit], name_label(first.output_name)
    curves = _looks(given)
    lines = [line for part in _PANELS for line in _ends(first, part)]
    hint = PANELS_HINT + _HINT_BANDS * (len(first.full) >= FEWEST)
    faint = 0.4 if len(curves) <= _FEW else 0.2
    banded = [_band(each, part, faint) for each in curves for part in _PANELS]
    lines += [line for line in banded if line is not None]
    lines += [_curve(each, part) for each in curves for part in _PANELS]
    across: dict[str, Any] = {"type": "log"}
    if len(first.fractions) <= _MOST_TICKS:
        across |= {"tickvals": _percent(first), "ticktext": [f"{value:g}" for value in _percent(first)]}
    up = {"title": output}
    panels = [
        Panel(0.5, {"title": title.format(units=units), **across}, up | ({"matches": "y"} if axis else {}))
        for axis, title in _PANELS.values()
    ]
    names = [visible(name, NAME_LENGTH) for name, _ in given]
    subtitle = f"Mean over {counted(len(first.full), 'example')}; {units} {REMOVALS[first.removal]}"
    title = f"Faithfulness: <b>{output}</b> with and without the top {units}"
    heading = Heading(title, subtitle, [*names, f"all {units}", f"no {units}"], hint)
    return panels_figure(lines, panels, heading, "faithfulness")


def _percent(result: Faithfulness) -> list[float]:
    return [float(f"{100 * fraction:.12g}") for fraction in result.fractions]


def _trace(part: str, result: Faithfulness) -> dict[str, Any]:
    """Return what all lines of a panel share."""
    axis = _PANELS[part][0]
    return {"type": "scatter", "x": _percent(result), "xaxis": f"x{axis}", "yaxis": f"y{axis}"}


def _ends(result: Faithfulness, part: str) -> list[Line]:
    """Return the lines of the output with all units and with none."""
    lines = []
    for name, values, dash in (("all", result.full, "solid"), ("no", result.empty, "dot")):
        mean, what = values.mean().item(), f"{name} {UNITS[result.unit]}"
        trace = {
            **_trace(part, result),
            "name": what,
            "y": [mean] * len(result.fractions),
            "mode": "lines" if len(result.fractions) > 1 else "lines+markers",  # a line of one point is not seen
            "line": {"width": 1, "dash": dash},
            "marker": {"symbol": "line-ew-open", "size": 40},
            "legendgroup": what,
            "legendrank": 2000,  # below the attributions
            "showlegend": part == "keep",
            **hovers([f"{what}: {name_label(result.output_name)} {number(mean)}"] * len(result.fractions)),
        }
        lines.append(Line(trace, GREY))
    return lines


def _band(curves: _Curves, part: str, opacity: float) -> Line | None:
    """Return the band of a curve's intervals; None where there are too few examples for one."""
    low, high = curves.bounds[part]
    if np.isnan(low).any():
        return None
    trace = _trace(part, curves.result)
    trace |= {
        "name": curves.name,
        "x": [*trace["x"], *trace["x"][::-1]],
        "y": [*high, *low[::-1]],
        "mode": "lines",
        "line": {"width": 0},
        "fill": "toself",
        "opacity": opacity,
        "hoverinfo": "skip",
        "legendgroup": curves.name,
        "showlegend": False,
    }
    return Line(trace, _colours(curves))


def _curve(curves: _Curves, part: str) -> Line:
    """Return the mean over the examples for every fraction."""
    trace = {
        **_trace(part, curves.result),
        "name": curves.name,
        "meta": f"{part} {curves.name.strip(chr(0x2068) + chr(0x2069))}",
        "y": getattr(curves.result, part).mean(0).numpy(),
        "mode": "lines+markers",
        "line": {"width": 2, "dash": curves.dash},
        "marker": {"symbol": curves.symbol, "size": 7},
        "legendgroup": curves.name,
        "showlegend": part == "keep",
        **hovers(_hovers(curves, part)),
    }
    return Line(trace, _colours(curves))


def _colours(curves: _Curves) -> Mapping[Any, str]:
    return attribution_colours(curves.result.attribution, curves.result.path)


def _hovers(curves: _Curves, part: str) -> list[str]:
    """Return what the hover tells of each point."""
    result = curves.result
    low, high = curves.bounds[part]
    means = getattr(result, part).mean(0).tolist()
    total = sum(result.units) / len(result.units)
    whole, none = (number(each.mean().item()) for each in (result.full, result.empty))
    texts = []
    for k, count, mean, bottom, top in zip(
        _percent(result), unit_counts(result.fractions, round(total)), means, low, high, strict=True
    ):
        about = "" if len(set(result.units)) == 1 else "about "
        shown = "" if math.isnan(bottom) else f" ({number(bottom)} to {number(top)})"
        texts.append(
            f"<b>{curves.name}</b><br>top {k:g} % {'kept' if part == 'keep' else 'removed'}: {about}{count:,} of "
            f"{round(total):,} {UNITS[result.unit]}<br>{name_label(result.output_name)} {number(mean)}{shown}<br>"
            f"{whole} with all, {none} with none"
        )
    return texts
