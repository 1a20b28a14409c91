"""The outcomes of an attack on one model: predictions, and the figures that follow from them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from captum_attattr import checks
from captum_attattr.triggers.trigger import Trigger

ALL = "all"
KINDS = ("clean", "trigger", "control")


@dataclass(frozen=True)
class Outcome:
    """What a model predicts once some tokens are inserted. An outcome checks itself when it is made.

    Attributes:
        kind: "clean" (nothing is inserted), "trigger" or "control" (random words in a trigger's places).
        tokens: what was inserted, as the model's tokenizer has it.
        trigger: the trigger; of a control the one whose places it takes; None for the clean rows.
        predictions: (N,) the class of each row.

    Raises:
        TypeError, ValueError: a value of another type, or another kind; the message names it.
    """

    kind: str
    tokens: list[str]
    trigger: Trigger | None
    predictions: list[int]

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be 'clean', 'trigger' or 'control', not {self.kind!r:.60}")
        if self.kind != "clean" or self.trigger is not None:
            checks.instance(f"trigger of a {self.kind} outcome", self.trigger, Trigger, "a Trigger")
        checks.set_fields(
            self,
            tokens=checks.strings("tokens", self.tokens),
            predictions=checks.integers("predictions", self.predictions),
        )


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
    """All outcomes of one model on its rows. It checks itself when it is made.

    Attributes:
        name: the model's name.
        classes: the indices of the gold classes that the rows have, in order.
        class_names: their names.
        gold: (N,) the gold class of each row.
        outcomes: the clean one first, then each trigger with its controls after it.

    Raises:
        TypeError, ValueError: a value of another type, classes that are not those of the rows, names that are not
            distinct, outcomes in another order or of other rows; the message names it.
    """

    name: str
    classes: list[int]
    class_names: list[str]
    gold: list[int]
    outcomes: list[Outcome]

    def __post_init__(self) -> None:
        who = f"victim {checks.instance('the name of a victim', self.name, str, 'a string')!r}"
        gold = checks.integers(f"gold classes of {who}", self.gold)
        outcomes = checks.sequence(f"outcomes of {who}", self.outcomes)
        checks.set_fields(
            self,
            classes=checks.integers(f"classes of {who}", self.classes),
            class_names=checks.strings(f"names of classes of {who}", self.class_names),
            gold=gold,
            outcomes=outcomes,
        )
        check_classes(who, self.classes, self.class_names, gold)
        for i, outcome in enumerate(outcomes):
            checks.instance(f"outcome {i} of {who}", outcome, Outcome, "an Outcome")
            if (outcome.kind == "clean") != (i == 0):
                wanted = "a clean one" if i == 0 else "a trigger or a control"
                raise ValueError(f"outcome {i} of {who} must be {wanted}, not {outcome.kind!r}")
            if (rows := len(outcome.predictions)) != len(gold):
                wanted = f"a prediction for each of {len(gold)} rows"
                raise ValueError(f"outcome {i} of {who} must have {wanted}, not {rows}")
        kinds = [outcome.kind for outcome in outcomes[1:]]
        if kinds[:1] != ["trigger"]:
            raise ValueError(f"{who} must have a trigger after the clean outcome, not {kinds[:1] or 'nothing'}")

    def measure(self, outcome: Outcome, of: str = ALL) -> Measure:
        """The figures of one of the outcomes.

        Args:
            outcome: one of `outcomes`.
            of: "all", or the name of a class: only the rows with that gold class count.

        Raises:
            ValueError: no such class.
        """
        from scipy.stats import binomtest

        rows = self._rows(of)
        gold, predicted, clean = (np.array(part)[rows] for part in (self.gold, outcome.predictions, self.clean))
        right = predicted == gold
        loss = (clean == gold).astype(float) - right
        interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        return Measure(
            rows=len(right),
            accuracy=float(right.mean()),
            low=float(interval.low),
            high=float(interval.high),
            drop=float(loss.mean()),
            drop_error=float(loss.std(ddof=1) / math.sqrt(len(loss))) if len(loss) > 1 else math.nan,
            flip_rate=float((predicted != clean).mean()),
        )

    def _rows(self, of: str) -> npt.NDArray[np.bool_]:
        """Return (N,), whether each row is of a class, by its name; "all" are of "all".

        Raises:
            ValueError: no such class.
        """
        if of == ALL:
            return np.ones(len(self.gold), dtype=bool)
        if of not in self.class_names:
            raise ValueError(f"no class {of!r}; the rows have {', '.join(self.class_names)}")
        rows: npt.NDArray[np.bool_] = np.array(self.gold) == self.classes[self.class_names.index(of)]
        return rows

    @property
    def clean(self) -> list[int]:
        """(N,) the predictions of the clean rows."""
        return self.outcomes[0].predictions

    def flipped(self, outcome: Outcome, of: str = ALL) -> list[int]:
        """The indices of the rows, of a class or of all, whose prediction the outcome changes.

        Raises:
            ValueError: no such class.
        """
        changed = np.array(self.clean) != np.array(outcome.predictions)
        flipped: list[int] = np.flatnonzero(changed & self._rows(of)).tolist()
        return flipped

    def triggers(self) -> Iterator[tuple[Outcome, list[Outcome]]]:
        """Each trigger's outcome, with its controls."""
        for i, outcome in enumerate(self.outcomes):
            if outcome.kind == "trigger":
                end = i + 1
                while end < len(self.outcomes) and self.outcomes[end].kind == "control":
                    end += 1
                yield outcome, self.outcomes[i + 1 : end]

    def verdict(self, outcome: Outcome, controls: list[Outcome], of: str = ALL) -> str:
        """A trigger beside its controls, in words: by where its drop lies among theirs, on the rows of a class or all.

        "stronger than random words" costs more accuracy than each of the draws, "weaker than random words" less
        than each: it may even raise the accuracy. A trigger that is as good as random words is called stronger
        by chance in one of `len(controls) + 1` cases, so that few draws say little.

        Raises:
            ValueError: no such class.
        """
        if not self.flipped(outcome, of):
            return "changes nothing"
        if not controls:
            return "no control"
        drop = self.measure(outcome, of).drop
        drops = [self.measure(control, of).drop for control in controls]
        if drop > max(drops):
            return "stronger than random words"
        return "weaker than random words" if drop < min(drops) else "like random words"


def check_classes(who: str, classes: list[int], class_names: list[str], gold: list[int]) -> None:
    """Check that classes are those of the rows, in order, with a distinct name each.

    Raises:
        ValueError: they are not; the message begins with `who` they belong to.
    """
    if not gold:
        raise ValueError(f"{who} has no rows: its gold classes are empty")
    present = sorted(set(gold))
    if classes != present or len(classes) != len(class_names):
        raise ValueError(
            f"classes of {who} must be those of its rows in order, {present}, and have a name each, "
            f"not {classes} with the names {class_names}"
        )
    for i, name in enumerate(class_names):
        if name in (ALL, *class_names[:i]):
            other = "all its rows are" if name == ALL else "another is"
            raise ValueError(f"a class of {who} is called {name!r}, as {other}: give it another name")
