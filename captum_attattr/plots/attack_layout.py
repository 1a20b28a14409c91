"""The layout of the figure of an attack: its sizes, panels, rows and titles, and what the menu of victims changes."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from captum_attattr.formatting import counted, visible
from captum_attattr.plots.canvas.labels import fitted, name_label, text_width
from captum_attattr.plots.canvas.layout import AXIS_LINE, NARROW, WIDTH, Area, axis_number
from captum_attattr.triggers.report import ALL, AttackReport, Choice, Outcome, VictimResult

CONTROL_STEP = 0.9  # rows from a trigger to its random words
_FIRST, _STEP = 1.2, 1.3  # rows from the clean one to the first trigger, and from random words to the next trigger
_MARGIN = 0.65  # rows above the first and below the last

# Lengths in pixels.
_EDGE = 16  # of the page
_HEADING, _MENU, _BOTTOM = 60, 44, 14
_TITLE, _AXIS = 26, 50  # of each panel
_LEGEND_LINE, _LEGEND_SYMBOL = 20, 46
_ROW_NAMES = (90, 236)  # at least and at most
_GAP, _NUMBERS = 16, 40  # between panels, and inside for the numbers
_ROW, _ROWS = (20, 42), 450  # the least and the largest height of a row; between them all rows are this high together
_WINDOW = 760  # of a page that is seen without scrolling
_HIDDEN = {"visible": False, "domain": [0.999, 1]}  # plotly takes less than 1/4096 for a mistake
_BOLD = 1.15  # how much wider than `text_width` bold characters are, at 12 pixels
_COLUMNS = 4  # panels side by side, at most
_SMALL_EDGE, _SMALL_ENTRY = 12, 20  # of the small form, whose names of rows are
_NAME_ABOVE = 0.36  # rows above their marks


class Sizes(NamedTuple):
    """Sizes of the figure, in pixels unless said otherwise."""

    lines: int
    """lines of panels, a count"""
    controls: bool
    """whether triggers have rows of random words below them"""
    last: float
    """position of the last row, in rows"""
    left: int
    """the margin with the names of the rows"""
    legend: int
    """height of the legend"""
    menu: int
    """height of the menu, 0 without one"""
    small: bool = False
    """whether the panels are one under the other, above the legend"""

    @classmethod
    def narrow(cls, victims: list[VictimResult], entries: list[str]) -> Sizes:
        """Return those of the small form."""
        lines = max(len(victim.classes) + 1 for victim in victims)
        legend = _SMALL_ENTRY * len(entries) + 8
        return cls.of(victims, entries)._replace(lines=lines, left=_SMALL_EDGE, legend=legend, menu=0, small=True)

    @classmethod
    def of(cls, victims: list[VictimResult], entries: list[str]) -> Sizes:
        """Return the sizes for some victims, and for a legend of some texts."""
        pairs = [pair for victim in victims for pair in victim.triggers()]
        controls = any(draws for _, draws in pairs)
        count = max(sum(1 for _ in victim.triggers()) for victim in victims)
        widths = [_BOLD * text_width(visible(outcome.trigger.name, 99)) for outcome, _ in pairs if outcome.trigger]
        if controls:
            widths += [1.1 * text_width(_controls_name(draws)) for _, draws in pairs]
        return cls(
            lines=max(math.ceil((len(victim.classes) + 1) / _COLUMNS) for victim in victims),
            controls=controls,
            last=row_of(count - 1, controls) + CONTROL_STEP * controls,
            left=min(max(math.ceil(max(widths)) + _EDGE + 2, _ROW_NAMES[0]), _ROW_NAMES[1]),
            legend=_LEGEND_LINE * _legend_lines(entries) + 12,
            menu=_MENU if len(victims) > 1 else 0,
        )

    @property
    def panel(self) -> int:
        """The height of a panel."""
        rows = self.last + 2 * _MARGIN
        return round(rows * min(max(_ROWS / rows, _ROW[0]), _ROW[1]))

    @property
    def over(self) -> int:
        """Height of the axis above a panel: that of all high figures, so that their upper part can be read alone."""
        below = _HEADING + self.menu + self.legend + _TITLE + self.panel + _AXIS
        return _AXIS if self.lines == 1 and below > _WINDOW else 0

    @property
    def area(self) -> Area:
        """The area of all panels; titles and axes between lines of panels are inside, the others in the margins."""
        height = self.lines * (self.panel + _TITLE + _AXIS) - _TITLE - _AXIS
        if self.small:
            return Area(NARROW - 2 * _SMALL_EDGE, height, _SMALL_EDGE, _SMALL_EDGE, _TITLE, _AXIS + self.legend)
        top = _HEADING + self.menu + self.legend + _TITLE + self.over
        return Area(WIDTH - self.left - _EDGE, height, self.left, _EDGE, top, _BOTTOM if self.over else _AXIS)

    def x(self, page: float) -> float:
        """Return plotly's x of a point that is so far from the left edge of the page."""
        return self.area.x(page - self.left)

    def line(self, index: int) -> list[float]:
        """Return plotly's y of the lower and the upper edge of a line of panels."""
        top = index * (self.panel + _TITLE + _AXIS)
        return [max(self.area.above(-pixel), 0.0) for pixel in (top + self.panel, top)]

    def panels(self, groups: int) -> list[tuple[int, float, float]]:
        """Return each panel's line, and the left and right end on the page; the lines are filled evenly."""
        columns = 1 if self.small else math.ceil(groups / math.ceil(groups / _COLUMNS))
        width = (self.area.width - (columns - 1) * _GAP) / columns
        lefts = [self.left + i % columns * (width + _GAP) for i in range(groups)]
        return [(i // columns, left, left + width) for i, left in enumerate(lefts)]


def row_of(trigger: int, controls: bool) -> float:
    """Return the row of a trigger. The clean outcome's is 0; random words are `CONTROL_STEP` below their trigger."""
    return _FIRST + trigger * (CONTROL_STEP + _STEP if controls else 1)


def accuracy_axis(panel: int) -> str:
    """Return what plotly writes after "xaxis" for the accuracies of a panel; each panel has two axes."""
    return axis_number(2 * panel)


def numbers_axis(panel: int) -> str:
    """Return the same for the numbers at the right end of a panel."""
    return axis_number(2 * panel + 1)


def attack_layout(sizes: Sizes, panels: int, limits: list[float]) -> dict[str, Any]:
    """Return the part of the layout that all victims share.

    Args:
        sizes: of the figure.
        panels: how many a victim has at most.
        limits: from where to where the accuracies go.
    """
    area = sizes.area
    corner = {"x": sizes.x(_EDGE), "xanchor": "left", "y": area.above(area.top - _HEADING - sizes.menu)}
    fixed = {"itemclick": False, "itemdoubleclick": False}
    legend = area.legend_above(**corner, yanchor="top")
    layout = area.layout("", "", legend=area.legend_below(sizes.legend, **fixed) if sizes.small else legend)
    layout["title"] |= {"xref": "container", "x": _EDGE / WIDTH}
    name = {"xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    layout["annotations"] = [{**name, "yshift": sizes.over, "font": {"size": 13}} for _ in range(panels)]
    looks: dict[str, Any] = {**AXIS_LINE, "nticks": 6, "zeroline": False, "range": limits}
    looks["title"] = {"text": "accuracy", "standoff": 6, "font": {"size": 12}}
    looks["side"] = "top" if sizes.over else "bottom"
    bare = {"range": [0, 1], "fixedrange": True, "showgrid": False, "zeroline": False, "showticklabels": False}
    for panel in range(panels):
        layout[f"xaxis{accuracy_axis(panel)}"] = looks | ({"matches": "x"} if panel else {})
        layout[f"xaxis{numbers_axis(panel)}"] = bare | {"ticks": "", "showline": False}
    rows: dict[str, Any] = {"range": [sizes.last + _MARGIN, -_MARGIN], "fixedrange": True, "zeroline": False}
    if sizes.small:
        rows |= {"ticklabelposition": "inside", "ticks": "", "showgrid": False}
    for line in range(sizes.lines):
        layout[f"yaxis{axis_number(line)}"] = {**rows, "domain": sizes.line(line), "anchor": "free", "position": 0}
    return layout


def victim_changes(victim: VictimResult, report: AttackReport, sizes: Sizes, panels: int) -> dict[str, Any]:
    """Return what changes in the layout when a victim is chosen."""
    attacked = report.victims[0]
    title = f"Accuracy of <b>{name_label(victim.name)}</b> with triggers"
    if victim is not attacked:
        title += f" of <b>{name_label(attacked.name)}</b> (transfer)"
    changes: dict[str, Any] = {"title.text": title, "title.subtitle.text": _subtitle(report.choice, victim)}
    groups = [ALL, *victim.class_names]
    if sizes.small:  # which is as high as the victim's panels
        every, sizes = sizes, sizes._replace(lines=len(groups))
        height = sizes.area.figure_height
        changes |= {"height": height, "legend.y": sizes.legend / height}
        for line in range(every.lines):
            there = line < sizes.lines
            changes[f"yaxis{axis_number(line)}.domain"] = sizes.line(line) if there else _HIDDEN["domain"]
            changes[f"yaxis{axis_number(line)}.visible"] = there
    positions = sizes.panels(len(groups))
    for i in range(panels):
        axes = [f"xaxis{number(i)}" for number in (accuracy_axis, numbers_axis)]
        if i >= len(groups):
            # A hidden panel still has a background, which would cover the others.
            changes |= {f"{axis}.{key}": value for axis in axes for key, value in _HIDDEN.items()}
            changes[f"annotations[{i}].visible"] = False
            continue
        line, left, right = positions[i]
        ends = [sizes.x(left), sizes.x(right - _NUMBERS), sizes.x(right)]
        for axis, domain in zip(axes, (ends[:2], ends[1:]), strict=True):
            changes |= {f"{axis}.visible": True, f"{axis}.domain": domain, f"{axis}.anchor": f"y{axis_number(line)}"}
        rows = f", {counted(victim.gold.count(victim.classes[i - 1]) if i else len(victim.gold), 'row')}"
        text = f"<b>{fitted(groups[i], int((right - left) / 1.4 - text_width(rows)))}</b>{rows}"
        name = {"visible": True, "text": text, "x": ends[0], "y": sizes.line(line)[1]}
        changes |= {f"annotations[{i}].{key}": value for key, value in name.items()}
    ticks = _row_names(victim, sizes)
    for line in range(sizes.lines):
        shown = {"tickvals": list(ticks), "ticktext": list(ticks.values()), "visible": line <= positions[-1][0]}
        changes |= {f"yaxis{axis_number(line)}.{key}": value for key, value in shown.items()}
    return changes


def victim_menu(sizes: Sizes, options: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the menu of the victims, between the heading and the legend."""
    above = sizes.area.top - _HEADING - 4
    return sizes.area.menu("model", options, above=above, left=_EDGE - sizes.left, flat=False)


def _subtitle(choice: Choice | None, victim: VictimResult) -> str:
    """Return how the triggers were chosen, and on how many rows they are measured."""
    count = sum(1 for _ in victim.triggers())
    measured = f"measured on {counted(len(victim.gold), 'row')}"
    if choice is None:
        return f"{counted(count, 'trigger')}, all that were given; {measured}"
    of = "" if choice.by == ALL else f" of {name_label(choice.by)}"
    return (
        f"{count} of {counted(choice.candidates, 'trigger')}, chosen by the accuracy{of} on "
        f"{choice.rows} other rows; {measured}"
    )


def _legend_lines(entries: list[str]) -> int:
    """Return how many lines plotly makes of a legend: one if all fits, else columns as wide as the widest entry."""
    widths = [_LEGEND_SYMBOL + text_width(entry) for entry in entries]
    room = WIDTH - 2 * _EDGE
    return 1 if sum(widths) <= room else math.ceil(len(entries) / (room // max(widths)))


def _controls_name(draws: list[Outcome]) -> str:
    return f"random words, {counted(len(draws), 'draw')}" if draws else "no control"


def _row_names(victim: VictimResult, sizes: Sizes) -> dict[float, str]:
    """Return the name of each row by its position."""
    up = _NAME_ABOVE * sizes.small
    names = {0.0 - up: "clean"}
    for i, (outcome, draws) in enumerate(victim.triggers()):
        assert outcome.trigger is not None
        row = row_of(i, sizes.controls)
        room = sizes.area.width - _NUMBERS if sizes.small else sizes.left - _EDGE
        names[row - up] = f"<b>{fitted(outcome.trigger.name, int(room / _BOLD))}</b>"
        if sizes.controls:
            names[row + CONTROL_STEP - up] = _controls_name(draws)
    return names
