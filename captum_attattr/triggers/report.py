"""What an attack found: predictions of clean rows, triggers and controls, and the figures that follow from them."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binomtest

from captum_attattr.exceptions import ResultFileError
from captum_attattr.files import existing_file, replacing
from captum_attattr.triggers.extraction import Trigger, trigger_from

ALL = "all"
KINDS = ("clean", "trigger", "control")
_FORMAT = "captum_attattr attack"


@dataclass(frozen=True)
class Outcome:
    """What a model says once some tokens are inserted.

    Attributes:
        kind: "clean" (nothing is inserted), "trigger" or "control" (random words in a trigger's places).
        tokens: what was inserted, as the model's tokenizer has it.
        trigger: the trigger; of a control the one whose places it takes; None for the clean rows.
        predictions: (N,) the class of each row.
    """

    kind: str
    tokens: list[str]
    trigger: Trigger | None
    predictions: list[int]


class Measure(NamedTuple):
    """Figures of one outcome on the rows of one gold class, or on all rows."""

    rows: int
    """N"""
    accuracy: float
    low: float
    """Lower end of the accuracy's 95 % interval (Wilson)."""
    high: float
    """Its upper end."""
    drop: float
    """Accuracy of the clean rows, less this accuracy."""
    drop_error: float
    """Standard error of the drop, of paired rows."""
    flip_rate: float
    """Share of the rows that are not predicted as when clean, whether right or wrong."""


@dataclass(frozen=True)
class VictimResult:
    """All outcomes of one model on its rows.

    Attributes:
        name: the model's name.
        classes: the numbers of the gold classes that the rows have, in order.
        class_names: their names.
        gold: (N,) the gold class of each row.
        outcomes: the clean one first, then each trigger with its controls after it.
    """

    name: str
    classes: list[int]
    class_names: list[str]
    gold: list[int]
    outcomes: list[Outcome]

    def measure(self, outcome: Outcome, of: str = ALL) -> Measure:
        """The figures of one of the outcomes.

        Args:
            outcome: one of `outcomes`.
            of: "all", or the name of a class: only the rows with that gold class count.

        Raises:
            ValueError: no such class.
        """
        if of != ALL and of not in self.class_names:
            raise ValueError(f"no class {of!r}; the rows have {', '.join(self.class_names)}")
        gold = np.array(self.gold)
        rows = slice(None) if of == ALL else gold == self.classes[self.class_names.index(of)]
        gold, found, clean = (part[rows] for part in (gold, *map(np.array, (outcome.predictions, self.clean))))
        right, loss = found == gold, (clean == gold).astype(float) - (found == gold)
        interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        return Measure(
            rows=len(right),
            accuracy=float(right.mean()),
            low=float(interval.low),
            high=float(interval.high),
            drop=float(loss.mean()),
            drop_error=float(loss.std(ddof=1) / math.sqrt(len(loss))) if len(loss) > 1 else math.nan,
            flip_rate=float((found != clean).mean()),
        )

    @property
    def clean(self) -> list[int]:
        """(N,) the predictions of the clean rows."""
        return self.outcomes[0].predictions

    def flipped(self, outcome: Outcome) -> list[int]:
        """The numbers of the rows whose prediction the outcome changes."""
        return [i for i, (a, b) in enumerate(zip(self.clean, outcome.predictions, strict=True)) if a != b]

    def triggers(self) -> Iterator[tuple[Outcome, list[Outcome]]]:
        """Each trigger's outcome, with its controls."""
        for place, outcome in enumerate(self.outcomes):
            if outcome.kind == "trigger":
                end = place + 1
                while end < len(self.outcomes) and self.outcomes[end].kind == "control":
                    end += 1
                yield outcome, self.outcomes[place + 1 : end]

    def verdict(self, outcome: Outcome, controls: list[Outcome], of: str = ALL) -> str:
        """A trigger beside its controls, in words: by where its drop lies among theirs.

        "stronger than random words" costs more accuracy than each of the draws, "weaker than random words" less
        than each: it may even raise the accuracy. A trigger that is as good as random words is called stronger
        by chance in one of `len(controls) + 1` cases, so that few draws say little.
        """
        if not self.flipped(outcome):
            return "changes nothing"
        if not controls:
            return "no control"
        drop = self.measure(outcome, of).drop
        drops = [self.measure(control, of).drop for control in controls]
        if drop > max(drops):
            return "stronger than random words"
        return "weaker than random words" if drop < min(drops) else "like random words"


@dataclass(frozen=True)
class Choice:
    """How the triggers were chosen.

    Attributes:
        rows: the number of selection rows, none of them an evaluation row.
        candidates: how many triggers were tried on them.
        by: "all", or the class whose accuracy decided.
        clean: that accuracy without a trigger.
        accuracy: with each candidate.
        best: the chosen ones' places among the candidates, the largest drop first.
    """

    rows: int
    candidates: int
    by: str
    clean: float
    accuracy: list[float]
    best: list[int]


@dataclass(frozen=True)
class AttackReport:
    """An attack on one model, and its transfer to others.

    Attributes:
        victims: the attacked model first, then those of `transfer`.
        choice: how the triggers were chosen; None if all that were given were measured.
    """

    victims: list[VictimResult]
    choice: Choice | None = field(default=None)

    def table(self) -> str:
        """The whole report as text: accuracy per class with its interval, controls and verdicts."""
        lines = []
        if self.choice:
            of = "" if self.choice.by == ALL else f" of {self.choice.by!r}"
            lines.append(
                f"{len(self.choice.best)} of {self.choice.candidates} triggers chosen by the accuracy{of} on "
                f"{self.choice.rows} other rows"
            )
        for victim in self.victims:
            lines += ["", *_victim_table(victim)] if lines else _victim_table(victim)
        draws = max((len(controls) for victim in self.victims for _, controls in victim.triggers()), default=0)
        return "\n".join([*lines, "", *_legend(draws)])

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a JSON file: everything, and every figure beside it.

        Returns:
            The path.

        Raises:
            ValueError: the directory does not exist, or `path` is one.
        """
        content = {"format": _FORMAT, "version": 1, **asdict(self), "figures": self._figures()}
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AttackReport:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ResultFileError: not a file of `save`, or damaged.
        """
        file = existing_file(path)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if content["format"] != _FORMAT or content["version"] != 1:
                raise ValueError("another format or version")
            choice = Choice(**content["choice"]) if content["choice"] else None
            return cls([_victim_from(entry) for entry in content["victims"]], choice)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ResultFileError(f"{str(path)!r} holds no attack report: {error}") from error

    def _figures(self) -> list[dict[str, Any]]:
        """Every figure by name, for readers of the file that do not have this package."""
        found = []
        for victim in self.victims:
            for outcome in victim.outcomes:
                entry: dict[str, Any] = {"victim": victim.name, "kind": outcome.kind, "tokens": outcome.tokens}
                entry |= {of: _plain(victim.measure(outcome, of)) for of in (ALL, *victim.class_names)}
                found.append(entry | {"flipped": victim.flipped(outcome)})
        return found


def _plain(measure: Measure) -> dict[str, float | None]:
    """The figures as JSON can hold them: a single row has no standard error."""
    return {name: None if math.isnan(value) else value for name, value in measure._asdict().items()}


def _victim_from(entry: dict[str, Any]) -> VictimResult:
    outcomes = []
    for number, one in enumerate(entry.pop("outcomes")):
        where = f"outcome {number}"
        trigger = trigger_from(one.pop("trigger"), f"{where}'s trigger") if one["trigger"] else one.pop("trigger")
        outcomes.append(Outcome(trigger=trigger, **one))
        if outcomes[-1].kind not in KINDS or len(outcomes[-1].predictions) != len(entry["gold"]):
            raise ValueError(f"{where} is no outcome of {len(entry['gold'])} rows")
        if any(type(label) is not int for label in outcomes[-1].predictions):
            raise ValueError(f"{where} predicts something else than the numbers of classes")
    if not outcomes or outcomes[0].kind != "clean":
        raise ValueError("the clean outcome must come first")
    if sorted(set(entry["gold"])) != entry["classes"] or len(entry["classes"]) != len(entry["class_names"]):
        raise ValueError(f"classes {entry['classes']} are not those of the rows, or not all named")
    return VictimResult(outcomes=outcomes, **entry)


def _victim_table(victim: VictimResult) -> list[str]:
    """Lines of one model: a row for each outcome, controls summed up, and the verdict per class."""
    groups = (ALL, *victim.class_names)
    rows: list[list[str]] = []
    clean = victim.outcomes[0]
    head = [f"{victim.name}", *(f"{of} ({victim.measure(clean, of).rows})" for of in groups), "flipped"]
    rows.append(["clean", *(_cell(victim.measure(clean, of)) for of in groups), ""])
    for outcome, controls in victim.triggers():
        flips = f"{victim.measure(outcome).flip_rate:.1%}"
        rows.append([trigger_name(outcome), *(_cell(victim.measure(outcome, of)) for of in groups), flips])
        if controls:
            by_group = [[victim.measure(control, of).accuracy for control in controls] for of in groups]
            spread = [f"{statistics.mean(a):.3f} [{min(a):.3f} .. {max(a):.3f}]" for a in by_group]
            rates = statistics.mean(victim.measure(control).flip_rate for control in controls)
            rows.append([f"  random words, {len(controls)} draws", *spread, f"{rates:.1%}"])
        rows.append(["  beside random words", *(_short(victim.verdict(outcome, controls, of)) for of in groups), ""])
    table = [head, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _legend(draws: int) -> list[str]:
    """What the table's figures and words mean."""
    lines = ["accuracy [its 95 % interval] on the rows of a gold class (so many); flipped: predictions that change"]
    if draws:
        lines += [
            f"random words: mean accuracy [lowest .. highest] of {draws} draws, in the same places",
            f"stronger: costs more accuracy than each draw (by chance 1 time in {draws + 1}); weaker: less than each",
        ]
    return lines


def trigger_name(outcome: Outcome) -> str:
    """A trigger's tokens, and in how many examples they were found."""
    trigger = outcome.trigger
    assert trigger is not None
    return f"{trigger.name} ({trigger.sources} sources)" if trigger.sources > 1 else trigger.name


def _cell(measure: Measure) -> str:
    return f"{measure.accuracy:.3f} [{measure.low:.3f}, {measure.high:.3f}]"


def _short(verdict: str) -> str:
    return verdict.removesuffix(" than random words").removesuffix(" random words")
