"""What a figure of an attack takes for granted, checked before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from captum_attattr.formatting import counted

if TYPE_CHECKING:
    from captum_attattr.triggers.report import AttackReport, VictimResult

_ALL = "all"
_KINDS = ("clean", "trigger", "control")


def check_report(report: Any) -> AttackReport:
    """Refuse what cannot be drawn.

    Raises:
        TypeError, ValueError: no report, or one without victims, rows or triggers, or with values that are
            no numbers; the message names the victim, the outcome and the value.
    """
    if not hasattr(report, "victims") or not hasattr(report, "choice"):
        raise TypeError(f"report must be an AttackReport, what `attack` returns, not {type(report).__name__}")
    if not _is_list(report.victims):
        raise TypeError(f"report.victims must be a list of VictimResult, not {type(report.victims).__name__}")
    if not report.victims:
        raise ValueError("report.victims is empty: nothing was attacked; give what `attack` returned")
    names = [_check_victim(victim, number) for number, victim in enumerate(report.victims)]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ValueError(f"two victims are called {name!r}: give them different names")
    if report.choice is not None:
        _check_choice(report.choice, report.victims)
    found: AttackReport = report
    return found


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _check_victim(victim: Any, number: int) -> str:
    """The victim's name."""
    for attribute in ("name", "classes", "class_names", "gold", "outcomes"):
        if not hasattr(victim, attribute):
            what = f"report.victims[{number}] must be a VictimResult"
            raise TypeError(f"{what}, not {type(victim).__name__}: {attribute!r} is missing")
    if not isinstance(victim.name, str):
        raise TypeError(f"the name of a victim must be a string, not {type(victim.name).__name__}: {victim.name!r}")
    who = f"victim {victim.name!r}"
    if not all(_is_list(values) for values in (victim.classes, victim.class_names, victim.gold, victim.outcomes)):
        raise TypeError(f"classes, class_names, gold and outcomes of {who} must be lists")
    if not victim.gold:
        raise ValueError(f"{who} has no rows: its gold classes are empty")
    _check_whole(victim.gold, f"gold classes of {who}")
    if sorted(set(victim.gold)) != list(victim.classes) or len(victim.classes) != len(victim.class_names):
        raise ValueError(
            f"classes of {who} must be those of its rows in order, {sorted(set(victim.gold))}, and have a name each, "
            f"not {list(victim.classes)} with the names {list(victim.class_names)}"
        )
    for i, name in enumerate(victim.class_names):
        if not isinstance(name, str):
            raise TypeError(f"the name of a class must be a string, not {type(name).__name__}: {name!r}")
        if name in (_ALL, *victim.class_names[:i]):
            other = "all its rows are" if name == _ALL else "another is"
            raise ValueError(f"a class of {who} is called {name!r}, as {other}: give it a name of its own")
    for place, outcome in enumerate(victim.outcomes):
        _check_outcome(outcome, f"outcome {place} of {who}", len(victim.gold), first=not place)
    kinds = [outcome.kind for outcome in victim.outcomes]
    if kinds[1:2] != ["trigger"]:
        raise ValueError(f"{who} must have a trigger after the clean outcome, not {kinds[1:] or 'nothing'}")
    return victim.name


def _check_outcome(outcome: Any, who: str, rows: int, first: bool) -> None:
    if not all(hasattr(outcome, attribute) for attribute in ("kind", "tokens", "trigger", "predictions")):
        raise TypeError(f"{who} must be an Outcome, not {type(outcome).__name__}")
    if outcome.kind not in _KINDS or (outcome.kind == "clean") != first:
        raise ValueError(f"{who} must be a {'clean one' if first else 'trigger or a control'}, not {outcome.kind!r}")
    if len(outcome.predictions) != rows:
        raise ValueError(f"{who} must have a prediction for each of {rows} rows, not {len(outcome.predictions)}")
    _check_whole(outcome.predictions, f"predictions of {who}")
    for token in outcome.tokens:
        if not isinstance(token, str):
            raise TypeError(f"tokens of {who} must be strings, not {type(token).__name__}: {token!r}")
    if outcome.kind == "trigger":
        if not hasattr(outcome.trigger, "tokens"):
            raise TypeError(f"{who} must have a Trigger, not {type(outcome.trigger).__name__}")
        if not math.isfinite(outcome.trigger.score):
            raise ValueError(f"the score of the trigger of {who} must be finite, not {outcome.trigger.score}")


def _check_whole(values: Sequence[Any], what: str) -> None:
    for place, value in enumerate(values):
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise ValueError(f"{what} must be numbers of classes, but [{place}] is {value!r}")


def _check_choice(choice: Any, victims: Sequence[VictimResult]) -> None:
    if not all(hasattr(choice, attribute) for attribute in ("rows", "candidates", "by", "clean", "accuracy", "best")):
        raise TypeError(f"report.choice must be a Choice or None, not {type(choice).__name__}")
    accuracies = [choice.clean, *choice.accuracy]
    wrong = [value for value in accuracies if not 0 <= value <= 1]  # NaN too
    if wrong:
        raise ValueError(f"accuracies of report.choice must be from 0 to 1, not {wrong[0]}")
    if len(choice.accuracy) != choice.candidates:
        raise ValueError(
            f"report.choice must have an accuracy for each of {counted(choice.candidates, 'candidate')}, "
            f"not {len(choice.accuracy)}"
        )
    outside = [place for place in choice.best if not 0 <= place < choice.candidates]
    if outside:
        raise ValueError(f"report.choice.best must be places of {choice.candidates} candidates, not {outside[0]}")
    for victim in victims:
        triggers = sum(outcome.kind == "trigger" for outcome in victim.outcomes)
        if triggers != len(choice.best):
            raise ValueError(
                f"report.choice names {counted(len(choice.best), 'trigger')}, but victim {victim.name!r} has {triggers}"
            )
