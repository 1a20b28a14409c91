"""The figure of an attack: what triggers cost, beside the clean rows and beside random words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from captum_attattr.plots.attack_checks import check_report
from captum_attattr.plots.attack_hovers import clean_hover, draw_hover, fixed, mean_hover, trigger_hover, trigger_origin
from captum_attattr.plots.attack_layout import (
    ALL,
    PAIR,
    Place,
    accuracy_axis,
    layout,
    menu,
    numbered,
    numbers_axis,
    of_victim,
    row_of,
)
from captum_attattr.plots.canvas.labels import named
from captum_attattr.plots.canvas.panels import Line, colours, painted
from captum_attattr.plots.canvas.theme import Theme, relayout

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from captum_attattr.triggers.extraction import Trigger
    from captum_attattr.triggers.report import AttackReport, Measure, Outcome, VictimResult

_GREY: dict[Theme, str] = {"light": "#5d6a77", "dark": "#98a4b0"}
_BAND: dict[Theme, str] = {"light": "#c3cad1", "dark": "#4b5560"}
_COLOURS = {"clean": colours(0), "line": colours(0), "triggers": colours(1)}
_COLOURS |= {"means": _GREY, "draws": _GREY, "band": _BAND, "numbers": _GREY}

# By `VictimResult.verdict`. The triangles point to where the trigger lies, seen from the random words.
_SYMBOLS = {
    "stronger than random words": "triangle-left",
    "like random words": "diamond-open",
    "weaker than random words": "triangle-right-open",
    "changes nothing": "square-open",
    "no control": "circle-open",
}
_DOTTED = {"width": 1.2, "dash": "dot"}
_BROAD = {"width": 9}

_HINT = "Point at a mark for its numbers; drag to enlarge a range, double-click to see all again."
_HINT_CONTROLS = (
    "A trigger is stronger than random words where it costs more accuracy than each of their draws. "
    "Thin bars are 95 % intervals. "
)
_HINT_MENU = " The menu or the arrow keys choose a model."


class _Drawn(NamedTuple):
    """A trigger on the rows of a panel."""

    row: float
    trigger: Trigger
    measure: Measure
    verdict: str
    controls: list[tuple[Outcome, Measure]]

    @property
    def accuracies(self) -> list[float]:
        """Of the controls."""
        return [measure.accuracy for _, measure in self.controls]

    @property
    def mean(self) -> float:
        return sum(self.accuracies) / len(self.controls)


class _Panel(NamedTuple):
    """The rows of one gold class of one victim, or all of its rows."""

    name: str
    """of victim and class, as plotly may show it"""
    where: str
    """of the rows, for a hover"""
    clean: Measure
    drawn: list[_Drawn]

    @classmethod
    def of(cls, victim: VictimResult, group: str, controls: bool) -> _Panel:
        drawn = [
            _Drawn(
                row_of(i, controls),
                outcome.trigger,
                victim.measure(outcome, group),
                victim.verdict(outcome, found, group),
                [(control, victim.measure(control, group)) for control in found],
            )
            for i, (outcome, found) in enumerate(victim.triggers())
            if outcome.trigger
        ]
        where = "all rows" if group == ALL else f"gold class {named(group)}"
        name = f"{named(victim.name)} {named(group)}"
        return cls(name, where, victim.measure(victim.outcomes[0], group), drawn)

    @property
    def ends(self) -> list[float]:
        """The accuracies that are drawn, and the ends of their intervals."""
        measures = [self.clean, *(one.measure for one in self.drawn)]
        draws = [accuracy for one in self.drawn for accuracy in one.accuracies]
        return [end for measure in measures for end in (measure.low, measure.high)] + draws

    def lines(self, axes: tuple[str, str, str], last: float, origins: list[list[str]]) -> list[Line]:
        """All traces, those in front last. `axes` are those of accuracies, of numbers and of rows."""
        kinds = {"line": _clean_line(self, last), **_controls(self), **_outcomes(self, origins)}
        kinds["numbers"] = _numbers(self)
        lines = []
        for kind, own in kinds.items():
            x, numbers, y = axes
            looks = {"type": "scatter", "name": f"{self.name} {kind}", "showlegend": False}
            looks |= {"xaxis": f"x{numbers if kind == 'numbers' else x}", "yaxis": f"y{y}"}
            lines.append(Line(looks | own, _COLOURS[kind]))
        return lines


def _hovered(texts: list[str]) -> dict[str, Any]:
    return {"customdata": texts, "hovertemplate": "%{customdata}<extra></extra>"}


def _mark(symbols: list[str], size: int) -> dict[str, Any]:
    """One symbol for all marks, or one for each; full ones have no border, of which plotly makes a dark one."""
    widths = [1.5 * symbol.endswith("-open") for symbol in symbols]
    one = len(symbols) == 1
    return {"symbol": symbols[0] if one else symbols, "size": size, "line": {"width": widths[0] if one else widths}}


def _interval(measures: list[Measure]) -> dict[str, Any]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [measure.high - measure.accuracy for measure in measures],
        "arrayminus": [measure.accuracy - measure.low for measure in measures],
        "thickness": 1.5,
        "width": 4,
    }


def _clean_line(panel: _Panel, last: float) -> dict[str, Any]:
    """The clean accuracy, down through all rows."""
    return {
        "x": [panel.clean.accuracy] * 2,
        "y": [0, last + 0.5],
        "mode": "lines",
        "line": _DOTTED,
        "hoverinfo": "skip",
    }


def _controls(panel: _Panel) -> dict[str, dict[str, Any]]:
    """Random words: the band of their draws, each of these, and the mean."""
    drawn = [one for one in panel.drawn if one.controls]
    if not drawn:
        return {}
    draws = [(one.row + PAIR, control, measure) for one in drawn for control, measure in one.controls]
    ends = [(accuracy, one.row + PAIR) for one in drawn for accuracy in (min(one.accuracies), max(one.accuracies))]
    broken = [point for i in range(0, len(ends), 2) for point in (*ends[i : i + 2], (None, None))]
    return {
        "band": {
            "x": [x for x, _ in broken],
            "y": [y for _, y in broken],
            "mode": "lines",
            "line": _BROAD,
            "hoverinfo": "skip",
        },
        "draws": {
            "x": [measure.accuracy for *_, measure in draws],
            "y": [row for row, *_ in draws],
            "mode": "markers",
            "marker": _mark(["line-ns-open"], 9),
            **_hovered([draw_hover(control.tokens, panel.where, measure) for _, control, measure in draws]),
        },
        "means": {
            "x": [one.mean for one in drawn],
            "y": [one.row + PAIR for one in drawn],
            "mode": "markers",
            "marker": _mark(["circle"], 8),
            **_hovered([mean_hover(one.trigger, panel.where, [m for _, m in one.controls]) for one in drawn]),
        },
    }


def _outcomes(panel: _Panel, origins: list[list[str]]) -> dict[str, dict[str, Any]]:
    """The clean rows and the triggers, with their intervals."""
    hovers = [
        trigger_hover(one.trigger, panel.where, one.measure, [m for _, m in one.controls], one.verdict, origin)
        for one, origin in zip(panel.drawn, origins, strict=True)
    ]
    return {
        "clean": {
            "x": [panel.clean.accuracy],
            "y": [0],
            "error_x": _interval([panel.clean]),
            "mode": "markers",
            "marker": _mark(["circle"], 9),
            **_hovered([clean_hover(panel.where, panel.clean)]),
        },
        "triggers": {
            "x": [one.measure.accuracy for one in panel.drawn],
            "y": [one.row for one in panel.drawn],
            "error_x": _interval([one.measure for one in panel.drawn]),
            "mode": "markers",
            "marker": _mark([_SYMBOLS[one.verdict] for one in panel.drawn], 11),
            **_hovered(hovers),
        },
    }


def _numbers(panel: _Panel) -> dict[str, Any]:
    """The accuracies as text, so that print tells them too."""
    numbers = [(0.0, panel.clean.accuracy)]
    for one in panel.drawn:
        numbers.append((one.row, one.measure.accuracy))
        if one.controls:
            numbers.append((one.row + PAIR, one.mean))
    return {
        "x": [1] * len(numbers),
        "y": [row for row, _ in numbers],
        "text": [fixed(accuracy) for _, accuracy in numbers],
        "mode": "text",
        "textposition": "middle left",
        "hoverinfo": "skip",
        "cliponaxis": False,
    }


def _key(verdicts: set[str], controls: bool) -> list[Line]:
    """The legend's entries: traces without a mark, since those in the panels may be hidden."""
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
    """The same for all panels, so that they can be compared."""
    ends = [end for panel in panels for end in panel.ends]
    low, high = min(ends), max(ends)
    room = 0.04 * max(high - low, 0.02)
    return [low - room, high + room]


def plot_attack(report: AttackReport) -> go.Figure:
    """Draw what triggers cost: accuracies with their intervals, beside the clean rows and beside random words.

    One panel for all rows and one for each gold class. Its first row is the clean accuracy, which a dotted line
    takes down through all others; then comes each trigger with its 95 % interval (Wilson), and below it the
    random words in the same places: every draw a tick, a band from the lowest to the highest of them, and their
    mean. The mark tells the verdict without colours: a full triangle to the left costs more accuracy than each
    draw, an open one to the right less, a diamond lies among them; a trigger that changes no prediction, and one
    without control, have marks of their own. A menu leads to the models of `transfer`.

    Args:
        report: a result of `attack`.

    Returns:
        A figure. Of the victim "model" the trace named "model all triggers" holds the triggers' accuracies on all
        rows, in the order of the report, and "model positive triggers" those on the rows of the class "positive";
        "clean", "draws" and "means" (of the draws) in place of "triggers" hold the others.

    Raises:
        TypeError: not an `AttackReport`.
        ValueError: no victim; a victim without rows or triggers, or with two classes of the same name; two victims
            of the same name; predictions that are not one class for each row; scores or accuracies that are NaN.

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
    victims = check_report(report).victims
    controls = any(found for victim in victims for _, found in victim.triggers())
    found = [[_Panel.of(victim, group, controls) for group in (ALL, *victim.class_names)] for victim in victims]
    every = [panel for panels in found for panel in panels]
    lines = _key({one.verdict for panel in every for one in panel.drawn}, controls)
    place = Place.of(victims, [line.trace["name"] for line in lines])
    owners = [-1] * len(lines)
    for i, panels in enumerate(found):
        origins = [trigger_origin(one.trigger, victims[0], report.choice, k) for k, one in enumerate(panels[0].drawn)]
        for k, (panel, (line, *_)) in enumerate(zip(panels, place.panels(len(panels)), strict=True)):
            axes = (accuracy_axis(k), numbers_axis(k), numbered(line))
            own = panel.lines(axes, place.last, origins)
            lines += [Line({**each.trace, "visible": i == 0 or "legendonly"}, each.colours) for each in own]
            owners += [i] * len(own)
    most, limits = max(map(len, found)), _limits(every)
    whole = layout(place, most)
    for k in range(most):
        whole[f"xaxis{accuracy_axis(k)}"] = {**whole[f"xaxis{accuracy_axis(k)}"], "range": limits}
    changes = [of_victim(victim, report, place, most) for victim in victims]
    several = len(victims) > 1
    if several:
        whole["updatemenus"] = [menu(victims, changes, owners, place)]
    hint = (_HINT_CONTROLS if controls else "") + _HINT + (_HINT_MENU if several else "")
    figure = painted(lines, whole, "attack", "victim" if several else None, hint)
    relayout(figure, changes[0])
    return figure
