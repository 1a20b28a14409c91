"""The figure of an attack: what triggers cost, beside the clean rows and beside random words."""

from __future__ import annotations

from typing import Any, NamedTuple

import plotly.graph_objects as go

from captum_attattr.checks import checked_arguments, instance
from captum_attattr.plots.attack_hovers import clean_hover, draw_hover, fixed, mean_hover, trigger_hover, trigger_origin
from captum_attattr.plots.attack_layout import (
    CONTROL_STEP,
    Sizes,
    accuracy_axis,
    attack_layout,
    numbers_axis,
    row_of,
    victim_changes,
    victim_menu,
)
from captum_attattr.plots.canvas.labels import name_label
from captum_attattr.plots.canvas.layout import axis_number, option
from captum_attattr.plots.canvas.lines import Line, hovers, line_colours, painted
from captum_attattr.plots.canvas.theme import GREY, PALE, relayout, with_small
from captum_attattr.triggers.extraction import Trigger
from captum_attattr.triggers.report import ALL, AttackReport, Measure, Outcome, VictimResult

_COLOURS = {"clean": line_colours(0), "line": line_colours(0), "triggers": line_colours(1)}
_COLOURS |= {"means": GREY, "draws": GREY, "band": PALE, "numbers": GREY}

# By the words of `VictimResult.verdict`. Triangles point to where the trigger lies, seen from the random words.
_SYMBOLS = {
    "stronger than random words": "triangle-left",
    "like random words": "diamond-open",
    "weaker than random words": "triangle-right-open",
    "changes nothing": "square-open",
    "no control": "circle-open",
}
_DOTTED = {"width": 1.2, "dash": "dot"}
_BROAD = {"width": 9}

_HINT = "Point at a mark for its numbers."
_HINT_ENLARGE = " Drag to enlarge a range, double-click to see all again."
_HINT_CONTROLS = (
    "A trigger is stronger than random words where it costs more accuracy than each of their draws. "
    "Thin bars are 95 % intervals. "
)
_HINT_MENU = " The menu or the arrow keys choose a model."


class _Row(NamedTuple):
    """A trigger on the rows of a panel, and below it its random words."""

    position: float
    """of the trigger, in rows; its random words are `CONTROL_STEP` below"""
    trigger: Trigger
    measure: Measure
    verdict: str
    controls: list[tuple[Outcome, Measure]]

    @property
    def accuracies(self) -> list[float]:
        """The accuracies of the random words."""
        return [measure.accuracy for _, measure in self.controls]

    @property
    def mean(self) -> float:
        """The mean of these."""
        return sum(self.accuracies) / len(self.controls)


class _Panel(NamedTuple):
    """What a victim did on its rows of one gold class, or on all of them."""

    name: str
    """of victim and class, as plotly may show it"""
    where: str
    """which rows, for a hover"""
    clean: Measure
    rows: list[_Row]

    @classmethod
    def of(cls, victim: VictimResult, group: str, controls: bool) -> _Panel:
        rows = [
            _Row(
                row_of(i, controls),
                outcome.trigger,
                victim.measure(outcome, group),
                victim.verdict(outcome, draws, group),
                [(draw, victim.measure(draw, group)) for draw in draws],
            )
            for i, (outcome, draws) in enumerate(victim.triggers())
            if outcome.trigger
        ]
        where = "all rows" if group == ALL else f"gold class {name_label(group)}"
        name = f"{name_label(victim.name)} {name_label(group)}"
        return cls(name, where, victim.measure(victim.outcomes[0], group), rows)

    @property
    def ends(self) -> list[float]:
        """The accuracies that are drawn, and the ends of their intervals."""
        measures = [self.clean, *(row.measure for row in self.rows)]
        draws = [accuracy for row in self.rows for accuracy in row.accuracies]
        return [end for measure in measures for end in (measure.low, measure.high)] + draws

    def lines(self, index: int, line: int, last: float, origins: list[list[str]]) -> list[Line]:
        """Return all traces, those in front last.

        Args:
            index: of the panel.
            line: the line of panels in which it is.
            last: position of the last row.
            origins: for each trigger, of `trigger_origin`.
        """
        kinds = {"line": _clean_line(self, last), **_controls(self), **_outcomes(self, origins)}
        kinds["numbers"] = _numbers(self)
        lines = []
        for kind, trace in kinds.items():
            x = numbers_axis(index) if kind == "numbers" else accuracy_axis(index)
            looks = {"type": "scatter", "name": f"{self.name} {kind}", "showlegend": False}
            looks |= {"xaxis": f"x{x}", "yaxis": f"y{axis_number(line)}"}
            lines.append(Line(looks | trace, _COLOURS[kind]))
        return lines


def _mark(symbols: list[str], size: int) -> dict[str, Any]:
    """Return one symbol for all marks, or one for each. Full ones have no border: plotly would make it dark."""
    widths = [1.5 * symbol.endswith("-open") for symbol in symbols]
    one = len(symbols) == 1
    return {"symbol": symbols[0] if one else symbols, "size": size, "line": {"width": widths[0] if one else widths}}


def _interval(measures: list[Measure]) -> dict[str, Any]:
    """Return the error bars of accuracies, from the lower to the upper end of their intervals."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [measure.high - measure.accuracy for measure in measures],
        "arrayminus": [measure.accuracy - measure.low for measure in measures],
        "thickness": 1.5,
        "width": 4,
    }


def _clean_line(panel: _Panel, last: float) -> dict[str, Any]:
    """Return the clean accuracy as a line down through all rows."""
    return {
        "x": [panel.clean.accuracy] * 2,
        "y": [0, last + 0.5],
        "mode": "lines",
        "line": _DOTTED,
        "hoverinfo": "skip",
    }


def _controls(panel: _Panel) -> dict[str, dict[str, Any]]:
    """Return the marks of random words: the band of their draws, each draw, and the mean."""
    rows = [row for row in panel.rows if row.controls]
    if not rows:
        return {}
    draws = [(row.position + CONTROL_STEP, draw, measure) for row in rows for draw, measure in row.controls]
    bands: list[tuple[float | None, float | None]] = []  # with a gap after each
    for row in rows:
        bands += [(end, row.position + CONTROL_STEP) for end in (min(row.accuracies), max(row.accuracies))]
        bands.append((None, None))
    return {
        "band": {
            "x": [x for x, _ in bands],
            "y": [y for _, y in bands],
            "mode": "lines",
            "line": _BROAD,
            "hoverinfo": "skip",
        },
        "draws": {
            "x": [measure.accuracy for *_, measure in draws],
            "y": [position for position, *_ in draws],
            "mode": "markers",
            "marker": _mark(["line-ns-open"], 9),
            **hovers([draw_hover(draw.tokens, panel.where, measure) for _, draw, measure in draws]),
        },
        "means": {
            "x": [row.mean for row in rows],
            "y": [row.position + CONTROL_STEP for row in rows],
            "mode": "markers",
            "marker": _mark(["circle"], 8),
            **hovers([mean_hover(row.trigger, panel.where, [m for _, m in row.controls]) for row in rows]),
        },
    }


def _outcomes(panel: _Panel, origins: list[list[str]]) -> dict[str, dict[str, Any]]:
    """Return the marks of the clean rows and of the triggers, with their intervals."""
    texts = [
        trigger_hover(row.trigger, panel.where, row.measure, [m for _, m in row.controls], row.verdict, origin)
        for row, origin in zip(panel.rows, origins, strict=True)
    ]
    return {
        "clean": {
            "x": [panel.clean.accuracy],
            "y": [0],
            "error_x": _interval([panel.clean]),
            "mode": "markers",
            "marker": _mark(["circle"], 9),
            **hovers([clean_hover(panel.where, panel.clean)]),
        },
        "triggers": {
            "x": [row.measure.accuracy for row in panel.rows],
            "y": [row.position for row in panel.rows],
            "error_x": _interval([row.measure for row in panel.rows]),
            "mode": "markers",
            "marker": _mark([_SYMBOLS[row.verdict] for row in panel.rows], 11),
            **hovers(texts),
        },
    }


def _numbers(panel: _Panel) -> dict[str, Any]:
    """Return the accuracies as text, so that print tells them too."""
    numbers = [(0.0, panel.clean.accuracy)]
    for row in panel.rows:
        numbers.append((row.position, row.measure.accuracy))
        if row.controls:
            numbers.append((row.position + CONTROL_STEP, row.mean))
    return {
        "x": [1] * len(numbers),
        "y": [position for position, _ in numbers],
        "text": [fixed(accuracy) for _, accuracy in numbers],
        "mode": "text",
        "textposition": "middle left",
        "hoverinfo": "skip",
        "cliponaxis": False,
    }


def _legend(verdicts: set[str], controls: bool) -> list[Line]:
    """Return the legend's entries: traces without a mark, since the traces of the panels may be hidden."""
    dot = {"mode": "markers", "marker": _mark(["circle"], 9)}
    entries: list[tuple[str, str, dict[str, Any]]] = [
        ("clean", "clean", dot | {"mode": "lines+markers", "line": _DOTTED}),
        *(
            ("triggers", f"trigger, {verdict}", {"mode": "markers", "marker": _mark([symbol], 11)})
            for verdict, symbol in _SYMBOLS.items()
            if verdict in verdicts
        ),
    ]
    if controls:
        entries.append(("means", "random words, mean", dot))
        entries.append(("band", "lowest to highest draw", {"mode": "lines", "line": _BROAD}))
    bare = {"type": "scatter", "x": [None], "y": [None], "hoverinfo": "skip"}
    return [Line({**bare, "name": text, **looks}, _COLOURS[kind]) for kind, text, looks in entries]


def _limits(panels: list[_Panel]) -> list[float]:
    """Return from where to where the accuracies go: the same for all panels, so that they can be compared."""
    ends = [end for panel in panels for end in panel.ends]
    low, high = min(ends), max(ends)
    room = 0.04 * max(high - low, 0.02)
    return [low - room, high + room]


@checked_arguments
def plot_attack(report: AttackReport) -> go.Figure:
    """Draw what triggers cost: accuracies with their intervals, beside the clean rows and beside random words.

    One panel for all rows and one for each gold class. Its first row is the clean accuracy, which a dotted line
    takes down through all others; then comes each trigger with its 95 % interval (Wilson), and below it the
    random words in the same positions: every draw a tick, a band from the lowest to the highest of them, and their
    mean. The mark tells the verdict without colours: a full triangle to the left costs more accuracy than each
    draw, an open one to the right less, a diamond lies among them; a trigger that changes no prediction, and one
    without control, have other marks. A menu leads to the models of `transfer`.

    Args:
        report: a result of `attack`.

    Returns:
        A figure. Of the victim "model" the trace named "model all triggers" holds the triggers' accuracies on all
        rows, in the order of the report, and "model positive triggers" those on the rows of the class "positive";
        "clean", "draws" and "means" (of the draws) in place of "triggers" hold the others.

    Raises:
        TypeError: not an `AttackReport`.

    Example:
        >>> from captum_attattr.triggers.report import AttackReport, Outcome, VictimResult
        >>> from captum_attattr.triggers.extraction import Trigger
        >>> trigger = Trigger(("so", "dull"), (0.0, 0.5), (0, 0), 0.4, layer=3, head=7, source=0, target=0)
        >>> outcomes = [
        ...     Outcome("clean", [], None, [0, 0, 1, 1]),
        ...     Outcome("trigger", ["so", "dull"], trigger, [0, 0, 0, 0]),
        ...     Outcome("control", ["the", "tree"], trigger, [0, 0, 0, 1]),
        ... ]
        >>> report = AttackReport([VictimResult("model", [0, 1], ["negative", "positive"], [0, 0, 1, 1], outcomes)])
        >>> figure = plot_attack(report)
        >>> [trace.x for trace in figure.data if trace.name.endswith("triggers")]  # all, negative, positive
        [(0.5,), (1.0,), (0.0,)]
    """
    victims = instance("report", report, AttackReport, "an AttackReport, what `attack` returns").victims
    controls = any(draws for victim in victims for _, draws in victim.triggers())
    panels = [[_Panel.of(victim, group, controls) for group in (ALL, *victim.class_names)] for victim in victims]
    every = [panel for some in panels for panel in some]
    lines = _legend({row.verdict for panel in every for row in panel.rows}, controls)
    entries = [line.trace["name"] for line in lines]
    wide, small = Sizes.of(victims, entries), Sizes.narrow(victims, entries)
    several = len(victims) > 1
    hint, menu = (_HINT_CONTROLS if controls else "") + _HINT, _HINT_MENU if several else ""
    kinds = ((wide, hint + _HINT_ENLARGE + menu), (small, hint + menu))
    looks = {"menu": "model" if several else None}
    return with_small(*(_figure(report, panels, lines, sizes, {**looks, "hint": text}) for sizes, text in kinds))


def _figure(
    report: AttackReport, panels: list[list[_Panel]], legend: list[Line], sizes: Sizes, looks: dict[str, Any]
) -> go.Figure:
    """Return the figure of some sizes; `looks` are of `painted`."""
    victims, lines = report.victims, list(legend)
    owners = [-1] * len(lines)  # the index of each trace's victim; -1 for the legend, which all share
    for i, some in enumerate(panels):
        origins = [trigger_origin(row.trigger, victims[0], report.choice, k) for k, row in enumerate(some[0].rows)]
        for k, (panel, (line, *_)) in enumerate(zip(some, sizes.panels(len(some)), strict=True)):
            added = panel.lines(k, line, sizes.last, origins)
            lines += [Line({**each.trace, "visible": i == 0 or "legendonly"}, each.colours) for each in added]
            owners += [i] * len(added)
    most = max(map(len, panels))
    layout = attack_layout(sizes, most, _limits([panel for some in panels for panel in some]))
    changes = [victim_changes(victim, report, sizes, most) for victim in victims]
    if len(victims) > 1:
        layout["updatemenus"] = [victim_menu(sizes, _options(victims, changes, owners))]
    figure = painted(lines, layout, "attack", **looks)
    relayout(figure, changes[0])
    return figure


def _options(victims: list[VictimResult], changes: list[dict[str, Any]], owners: list[int]) -> list[dict[str, Any]]:
    """Return the options of the menu of victims: each shows its traces, and changes the layout."""
    options = []
    for i, (victim, change) in enumerate(zip(victims, changes, strict=True)):
        # Traces that are not visible at all would leave their colours to the others.
        visible = [True if owner in (i, -1) else "legendonly" for owner in owners]
        label = f"{name_label(victim.name)}, {'attacked' if i == 0 else 'transfer'}"
        options.append(option(label, {"visible": visible}, change))
    return options
