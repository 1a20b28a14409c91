"""`AttackReport`: what an attack did to a model and others, how its triggers were chosen, and the file of both."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from captum_attattr import checks
from captum_attattr.files import from_entry, read_format, reading, write_json
from captum_attattr.formatting import counted
from captum_attattr.notebooks import Shown, View, figure_view
from captum_attattr.triggers.outcomes import ALL as ALL
from captum_attattr.triggers.outcomes import Measure as Measure
from captum_attattr.triggers.outcomes import Outcome as Outcome
from captum_attattr.triggers.outcomes import VictimResult as VictimResult
from captum_attattr.triggers.table import victims_table
from captum_attattr.triggers.trigger import Trigger

_FORMAT = "captum_attattr attack"


@dataclass(frozen=True)
class Choice:
    """How the triggers were chosen. A choice checks itself when it is made.

    Attributes:
        rows: how many selection rows there were, none of them an evaluation row.
        candidates: how many triggers were tried on them.
        by: "all", or the class whose accuracy decided.
        clean: that accuracy without a trigger.
        accuracy: with each candidate.
        best: the indices of the chosen ones among the candidates, the largest drop first.

    Raises:
        TypeError, ValueError: a value of another type or range, or sizes that differ; the message names it.
    """

    rows: int
    candidates: int
    by: str
    clean: float
    accuracy: list[float]
    best: list[int]

    def __post_init__(self) -> None:
        candidates = checks.at_least(1, self.candidates, "candidates")
        accuracy = [checks.fraction("accuracy", value) for value in checks.sequence("accuracy", self.accuracy)]
        if len(accuracy) != candidates:
            wanted = counted(candidates, "candidate")
            raise ValueError(f"accuracy must have a value for each of {wanted}, not {len(accuracy)}")
        checks.instance("by", self.by, str, "'all' or the name of a class")
        checks.set_fields(
            self,
            rows=checks.at_least(1, self.rows, "rows"),
            candidates=candidates,
            clean=checks.fraction("clean", self.clean),
            accuracy=accuracy,
            best=[checks.index("each of best", one, candidates) for one in checks.sequence("best", self.best)],
        )


@dataclass(frozen=True, repr=False)
class AttackReport(Shown):
    """An attack on one model, and its transfer to others. A report checks itself when it is made.

    Attributes:
        victims: the attacked model first, then those of `transfer`.
        choice: how the triggers were chosen; None if all that were given were measured.

    Raises:
        TypeError, ValueError: no victim, two of one name, or more or fewer triggers than were chosen.
    """

    victims: list[VictimResult]
    choice: Choice | None = field(default=None)

    def __post_init__(self) -> None:
        victims = checks.sequence("victims", self.victims)
        if not victims:
            raise ValueError("victims is empty: nothing was attacked; give what `attack` returned")
        for i, victim in enumerate(victims):
            checks.instance(f"victims[{i}]", victim, VictimResult, "a VictimResult")
            if any(victim.name == other.name for other in victims[:i]):
                raise ValueError(f"two victims are called {victim.name!r}: give them different names")
        if self.choice is not None:
            best = len(checks.instance("choice", self.choice, Choice, "a Choice or None").best)
            for victim in victims:
                if (triggers := len(list(victim.triggers()))) != best:
                    raise ValueError(
                        f"choice names {counted(best, 'trigger')}, but victim {victim.name!r} has {triggers}"
                    )
        checks.set_fields(self, victims=victims)

    def _line(self) -> str:
        names = ", ".join(repr(victim.name) for victim in self.victims)
        return f"{counted(len(list(self.victims[0].triggers())), 'trigger')} on {names}"

    def _view(self) -> View:
        return figure_view("plot_attack", self)

    def table(self) -> str:
        """The whole report as text: accuracy of each class with its interval, controls and verdicts."""
        lines = []
        if self.choice:
            of = "" if self.choice.by == ALL else f" of {self.choice.by!r}"
            chosen = f"{len(self.choice.best)} of {self.choice.candidates} triggers"
            lines = [f"{chosen} chosen by the accuracy{of} on {self.choice.rows} other rows", ""]
        return "\n".join([*lines, *victims_table(self.victims)])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a JSON file: everything, and every figure beside it.

        Returns:
            The path.

        Raises:
            TypeError, ValueError: `path` is no path or a directory, or its directory does not exist.
        """
        return write_json(path, {"format": _FORMAT, "version": 1, **asdict(self), "figures": self._figures()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AttackReport:
        """Read what `save` wrote.

        Raises:
            TypeError, FileNotFoundError: `path` is no path, or there is no such file.
            ResultFileError: not a file of `save`, or damaged; the message names the value.
        """
        with reading(path, "attack report", "AttackReport.save") as file:
            content = read_format(file, _FORMAT)
            choice = content["choice"]
            entries = checks.sequence("victims", content["victims"])
            return cls(
                [_victim(entry, f"victims[{i}]") for i, entry in enumerate(entries)],
                None if choice is None else from_entry(Choice, choice, "choice"),
            )

    def _figures(self) -> list[dict[str, Any]]:
        """Return every figure by name, for readers of the file that do not have this package."""
        figures = []
        for victim in self.victims:
            for outcome in victim.outcomes:
                entry: dict[str, Any] = {"victim": victim.name, "kind": outcome.kind, "tokens": outcome.tokens}
                entry |= {of: _plain(victim.measure(outcome, of)) for of in (ALL, *victim.class_names)}
                figures.append(entry | {"flipped": victim.flipped(outcome)})
        return figures


def _plain(measure: Measure) -> dict[str, float | None]:
    """Return figures as JSON can hold them: a single row has no standard error."""
    return {name: None if math.isnan(value) else value for name, value in measure._asdict().items()}


def _victim(entry: Any, where: str) -> VictimResult:
    """Return a victim of its JSON form."""
    entry = checks.instance(where, entry, dict, "an object")
    if isinstance(outcomes := entry.get("outcomes"), list):
        entry = entry | {"outcomes": [_outcome(one, f"{where}.outcomes[{i}]") for i, one in enumerate(outcomes)]}
    return from_entry(VictimResult, entry, where)


def _outcome(entry: Any, where: str) -> Outcome:
    """Return an outcome of its JSON form."""
    entry = checks.instance(where, entry, dict, "an object")
    if (trigger := entry.get("trigger")) is not None:
        entry = entry | {"trigger": from_entry(Trigger, trigger, f"{where}.trigger")}
    return from_entry(Outcome, entry, where)
