"""The report of an attack as text: accuracy of each class with its interval, controls and verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from captum_attattr.triggers.outcomes import ALL, Measure, Outcome, VictimResult


def victims_table(victims: Sequence[VictimResult]) -> list[str]:
    """Return the lines of all models, and then what their words mean."""
    lines: list[str] = []
    for victim in victims:
        lines += [*_victim_table(victim), ""]
    draws = max((len(controls) for victim in victims for _, controls in victim.triggers()), default=0)
    return [*lines, *_legend(draws)]


def _victim_table(victim: VictimResult) -> list[str]:
    """Return the lines of one model: a row for each outcome, controls summed up, and the verdict of each class."""
    groups = (ALL, *victim.class_names)
    clean = victim.outcomes[0]
    head = [f"{victim.name}", *(f"{of} ({victim.measure(clean, of).rows})" for of in groups), "flipped"]
    table = [head, ["clean", *(_cell(victim.measure(clean, of)) for of in groups), ""]]
    for outcome, controls in victim.triggers():
        flips = f"{victim.measure(outcome).flip_rate:.1%}"
        table.append([_trigger_name(outcome), *(_cell(victim.measure(outcome, of)) for of in groups), flips])
        if controls:
            by_group = [[victim.measure(control, of).accuracy for control in controls] for of in groups]
            spread = [f"{statistics.mean(a):.3f} [{min(a):.3f} .. {max(a):.3f}]" for a in by_group]
            rates = statistics.mean(victim.measure(control).flip_rate for control in controls)
            table.append([f"  random words, {len(controls)} draws", *spread, f"{rates:.1%}"])
        table.append(["  beside random words", *(_short(victim.verdict(outcome, controls, of)) for of in groups), ""])
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _legend(draws: int) -> list[str]:
    """Return what the table's figures and words mean."""
    lines = ["accuracy [its 95 % interval] on the rows of a gold class (so many)"]
    lines.append("flipped: share of all rows whose prediction changes")
    if draws:
        lines += [
            f"random words: mean accuracy [lowest .. highest] of {draws} draws, in the same places",
            f"stronger: costs more accuracy than each draw (by chance 1 time in {draws + 1}); weaker: less than each",
        ]
    return lines


def _trigger_name(outcome: Outcome) -> str:
    """Return a trigger's tokens, and how many examples gave them."""
    trigger = outcome.trigger
    assert trigger is not None
    return f"{trigger.name} ({trigger.sources} sources)" if trigger.sources > 1 else trigger.name


def _cell(measure: Measure) -> str:
    """Return an accuracy with its interval."""
    return f"{measure.accuracy:.3f} [{measure.low:.3f}, {measure.high:.3f}]"


def _short(verdict: str) -> str:
    """Return a verdict for a line that says what the trigger stands beside."""
    return verdict.removesuffix(" than random words").removesuffix(" random words")
