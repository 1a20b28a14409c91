"""Where everything in the figure of an attack is: panels, rows, legend and menu."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from captum_attattr.formatting import counted, visible
from captum_attattr.plots.canvas.labels import named, pixels
from captum_attattr.plots.canvas.theme import FONT, WIDTH, heading, shortened

if TYPE_CHECKING:
    from captum_attattr.triggers.report import AttackReport, Choice, Outcome, VictimResult

ALL = "all"
PAIR = 0.9  # rows from a trigger to its random words
_FIRST, _STEP = 1.2, 1.3  # rows from the clean one to the first trigger, and from a pair to the next trigger
_MARGIN = 0.65  # rows above the first and below the last

# Lengths in pixels.
_EDGE = 16  # of the page
_HEADING, _MENU, _BOTTOM = 60, 44, 14
_TITLE, _AXIS = 26, 50  # of each panel
_KEY, _KEY_SYMBOL = 20, 46  # of the legend, a line and a symbol
_LABELS = (90, 236)  # of the rows, at least and at most
_GAP, _NUMBERS = 16, 40  # between panels, and inside for the numbers
_ROW, _ROWS = (20, 42), 450  # the least and most of a row, between which all rows are this high together
_WINDOW = 760  # of a page that is seen without scrolling
_NOWHERE = {"visible": False, "domain": [0.999, 1]}  # plotly takes less than 1/4096 for a mistake
_BOLD = 1.15  # how much wider than `pixels` tells bold characters are, at 12 pixels
_COLUMNS = 4  # panels side by side, at most


class Place(NamedTuple):
    """Sizes of the figure, in pixels unless said otherwise."""

    lines: int
    """number of lines of panels"""
    controls: bool
    """whether triggers have rows for random words below their own"""
    last: float
    """the last row's place, in rows"""
    left: int
    key: int
    """height of the legend"""
    menu: int

    @classmethod
    def of(cls, victims: list[VictimResult], entries: list[str]) -> Place:
        """Sizes for some victims, and for a legend of some texts."""
        pairs = [pair for victim in victims for pair in victim.triggers()]
        controls = any(found for _, found in pairs)
        count = max(sum(1 for _ in victim.triggers()) for victim in victims)
        names = [_BOLD * pixels(visible(outcome.trigger.name, 99)) for outcome, _ in pairs if outcome.trigger]
        if controls:
            names += [1.1 * pixels(_controls_name(found)) for _, found in pairs]
        return cls(
            lines=max(math.ceil((len(victim.classes) + 1) / _COLUMNS) for victim in victims),
            controls=controls,
            last=row_of(count - 1, controls) + PAIR * controls,
            left=min(max(math.ceil(max(names)) + _EDGE + 2, _LABELS[0]), _LABELS[1]),
            key=_KEY * _key_lines(entries) + 12,
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
        below = _HEADING + self.menu + self.key + _TITLE + self.panel + _AXIS
        return _AXIS if self.lines == 1 and below > _WINDOW else 0

    @property
    def top(self) -> int:
        """Height of all that is above the first panel."""
        return _HEADING + self.menu + self.key + _TITLE + self.over

    @property
    def bottom(self) -> int:
        """Height of all that is below the last panel."""
        return _BOTTOM if self.over else _AXIS

    @property
    def width(self) -> int:
        """Without the margins."""
        return WIDTH - self.left - _EDGE

    @property
    def height(self) -> int:
        """Without the margins."""
        return self.lines * (self.panel + _TITLE + _AXIS) - _TITLE - _AXIS

    def x(self, page: float) -> float:
        """A place of the page, in the units of the area inside the margins."""
        return (page - self.left) / self.width

    def y(self, line: int) -> list[float]:
        """From where to where a line of panels goes, in the units of that area."""
        top = line * (self.panel + _TITLE + _AXIS)
        return [max(1 - pixel / self.height, 0.0) for pixel in (top + self.panel, top)]

    def above(self, pixel: float) -> float:
        """A place that is so far above that area, in its units."""
        return 1 + pixel / self.height

    def panels(self, groups: int) -> list[tuple[int, float, float]]:
        """The line of each panel, and where on the page it begins and ends; the lines are filled evenly."""
        columns = math.ceil(groups / math.ceil(groups / _COLUMNS))
        width = (self.width - (columns - 1) * _GAP) / columns
        lefts = [self.left + i % columns * (width + _GAP) for i in range(groups)]
        return [(i // columns, left, left + width) for i, left in enumerate(lefts)]


def row_of(trigger: int, controls: bool) -> float:
    """The row of a trigger; that of its random words is `PAIR` below, that of the clean outcome is 0."""
    return _FIRST + trigger * (PAIR + _STEP if controls else 1)


def accuracy_axis(panel: int) -> str:
    """The number of an axis, as plotly writes it after "x": each panel has two."""
    return numbered(2 * panel)


def numbers_axis(panel: int) -> str:
    """That of the numbers at the right end of a panel."""
    return numbered(2 * panel + 1)


def numbered(axis: int) -> str:
    """Plotly's name for the axis at a place, without its letter."""
    return str(axis + 1) if axis else ""


def layout(place: Place, panels: int) -> dict[str, Any]:
    """What is the same for all victims, which have so many panels at most."""
    height = place.top + place.height + place.bottom
    written = {"xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False}
    written |= {"yshift": place.over}
    found: dict[str, Any] = {
        "template": "none",
        "width": WIDTH,
        "height": height,
        "margin": {"l": place.left, "r": _EDGE, "t": place.top, "b": place.bottom},
        "font": {"family": FONT, "size": 12},
        "hovermode": "closest",
        "hoverlabel": {"align": "left"},
        "title": {**heading("", "", height), "xref": "container", "x": _EDGE / WIDTH},
        "legend": {
            "orientation": "h",
            "x": place.x(_EDGE),
            "xanchor": "left",
            "y": place.above(place.top - _HEADING - place.menu),
            "yanchor": "top",
            "itemclick": False,
            "itemdoubleclick": False,
        },
        "annotations": [{**written, "font": {"size": 13}} for _ in range(panels)],
    }
    looks: dict[str, Any] = {"nticks": 6, "showline": True, "ticks": "outside", "ticklen": 4, "zeroline": False}
    looks["title"] = {"text": "accuracy", "standoff": 6, "font": {"size": 12}}
    looks["side"] = "top" if place.over else "bottom"
    bare = {"range": [0, 1], "fixedrange": True, "showgrid": False, "zeroline": False, "showticklabels": False}
    for panel in range(panels):
        found[f"xaxis{accuracy_axis(panel)}"] = looks | ({"matches": "x"} if panel else {})
        found[f"xaxis{numbers_axis(panel)}"] = bare | {"ticks": "", "showline": False}
    rows = {"range": [place.last + _MARGIN, -_MARGIN], "fixedrange": True, "zeroline": False}
    for line in range(place.lines):
        found[f"yaxis{numbered(line)}"] = {**rows, "domain": place.y(line), "anchor": "free", "position": 0}
    return found


def of_victim(victim: VictimResult, report: AttackReport, place: Place, panels: int) -> dict[str, Any]:
    """What changes in the layout when a victim is chosen."""
    attacked = report.victims[0]
    title = f"Accuracy of <b>{named(victim.name)}</b> with triggers"
    if victim is not attacked:
        title += f" of <b>{named(attacked.name)}</b> (transfer)"
    changes: dict[str, Any] = {"title.text": title, "title.subtitle.text": _chosen(report.choice, victim)}
    groups = [ALL, *victim.class_names]
    places = place.panels(len(groups))
    for i in range(panels):
        axes = [f"xaxis{name(i)}" for name in (accuracy_axis, numbers_axis)]
        if i >= len(groups):
            # A hidden panel still has a ground, which would cover the others.
            changes |= {f"{axis}.{key}": value for axis in axes for key, value in _NOWHERE.items()}
            changes[f"annotations[{i}].visible"] = False
            continue
        line, left, right = places[i]
        ends = [place.x(left), place.x(right - _NUMBERS), place.x(right)]
        for axis, domain in zip(axes, (ends[:2], ends[1:]), strict=True):
            changes |= {f"{axis}.visible": True, f"{axis}.domain": domain, f"{axis}.anchor": f"y{numbered(line)}"}
        rows = f", {counted(victim.gold.count(victim.classes[i - 1]) if i else len(victim.gold), 'row')}"
        text = f"<b>{shortened(groups[i], int((right - left) / 1.4 - pixels(rows)))}</b>{rows}"
        own = {"visible": True, "text": text, "x": ends[0], "y": place.y(line)[1]}
        changes |= {f"annotations[{i}].{key}": value for key, value in own.items()}
    ticks = _ticks(victim, place)
    for line in range(place.lines):
        own = {"tickvals": list(ticks), "ticktext": list(ticks.values()), "visible": line <= places[-1][0]}
        changes |= {f"yaxis{numbered(line)}.{key}": value for key, value in own.items()}
    return changes


def menu(victims: list[VictimResult], changes: list[dict[str, Any]], owners: list[int], place: Place) -> dict[str, Any]:
    """The menu that leads to each victim; `owners` has the number of each trace's victim, -1 if it is everyone's."""
    buttons = []
    for i, (victim, change) in enumerate(zip(victims, changes, strict=True)):
        # Traces that are not visible at all would leave their colours to the others.
        shown = [True if owner in (i, -1) else "legendonly" for owner in owners]
        label = f"{named(victim.name)}, {'attacked' if i == 0 else 'transfer'}"
        buttons.append({"label": label, "method": "update", "args": [{"visible": shown}, change]})
    at = {
        "x": place.x(_EDGE),
        "xanchor": "left",
        "y": place.above(place.top - _HEADING),
        "yanchor": "top",
        "pad": {"t": 4},
    }
    return {"name": "victim", "type": "dropdown", "active": 0, "buttons": buttons, **at}


def _chosen(choice: Choice | None, victim: VictimResult) -> str:
    """How the triggers were chosen, and on how many rows they are measured."""
    count = sum(1 for _ in victim.triggers())
    measured = f"measured on {counted(len(victim.gold), 'row')}"
    if choice is None:
        return f"{counted(count, 'trigger')}, all that were given; {measured}"
    of = "" if choice.by == ALL else f" of {named(choice.by)}"
    return (
        f"{count} of {counted(choice.candidates, 'trigger')}, chosen by the accuracy{of} on "
        f"{choice.rows} other rows; {measured}"
    )


def _key_lines(entries: list[str]) -> int:
    """How many lines plotly makes of a legend: one if all fits, and columns as wide as the widest otherwise."""
    widths = [_KEY_SYMBOL + pixels(entry) for entry in entries]
    room = WIDTH - 2 * _EDGE
    return 1 if sum(widths) <= room else math.ceil(len(entries) / (room // max(widths)))


def _controls_name(controls: list[Outcome]) -> str:
    return f"random words, {counted(len(controls), 'draw')}" if controls else "no control"


def _ticks(victim: VictimResult, place: Place) -> dict[float, str]:
    """The names of the rows by their places."""
    found = {0.0: "clean"}
    for i, (outcome, controls) in enumerate(victim.triggers()):
        assert outcome.trigger is not None
        row = row_of(i, place.controls)
        found[row] = f"<b>{shortened(outcome.trigger.name, int((place.left - _EDGE) / _BOLD))}</b>"
        if place.controls:
            found[row + PAIR] = _controls_name(controls)
    return found
