"""What the figure of an attack tells of each of its marks."""

from __future__ import annotations

from collections.abc import Sequence

from captum_attattr.formatting import counted, number
from captum_attattr.plots.canvas.labels import hover_label, name_label
from captum_attattr.triggers.extraction import Trigger
from captum_attattr.triggers.report import Choice, Measure, VictimResult


def fixed(value: float) -> str:
    """Return a fraction, or a difference of two, in three decimals."""
    return f"{value:.3f}".replace("-", "−")


def clean_hover(where: str, measure: Measure) -> str:
    """Return the text of the rows into which nothing is inserted."""
    return "<br>".join([f"<b>clean</b>, {where}", _accuracy(measure)])


def trigger_hover(
    trigger: Trigger, where: str, measure: Measure, controls: Sequence[Measure], verdict: str, origin: Sequence[str]
) -> str:
    """Return the text of a trigger, on one group of rows.

    Args:
        trigger: the trigger.
        where: the group of rows, as plotly may show it.
        measure: the trigger's figures.
        controls: the figures of its random words.
        verdict: of `VictimResult.verdict`.
        origin: of `trigger_origin`.
    """
    beside = f"<b>{verdict}</b>"
    if controls:
        drops = [control.drop for control in controls]
        beside += f", whose {counted(len(drops), 'draw')} cost {fixed(min(drops))} to {fixed(max(drops))}"
    lines = [f"<b>{hover_label(trigger.name)}</b>", where, *_effect(measure), beside, *origin]
    return "<br>".join(lines)


def draw_hover(tokens: Sequence[str], where: str, measure: Measure) -> str:
    """Return the text of one draw of random words."""
    return "<br>".join([f"<b>{hover_label(' '.join(tokens))}</b>", f"random words, {where}", *_effect(measure)])


def mean_hover(trigger: Trigger, where: str, controls: Sequence[Measure]) -> str:
    """Return the text of all draws of random words together."""
    parts = []
    for what, values in (
        ("accuracy", [control.accuracy for control in controls]),
        ("drop", [control.drop for control in controls]),
        ("flip rate", [control.flip_rate for control in controls]),
    ):
        mean = sum(values) / len(values)
        parts.append(f"{what} {fixed(mean)} on average, from {fixed(min(values))} to {fixed(max(values))}")
    title = f"<b>random words</b>, {counted(len(controls), 'draw')}, in the places of"
    return "<br>".join([title, hover_label(trigger.name), where, *parts])


def trigger_origin(trigger: Trigger, attacked: VictimResult, choice: Choice | None, rank: int) -> list[str]:
    """Return lines that tell where a trigger was found, and how it did when triggers were chosen.

    Args:
        trigger: the trigger.
        attacked: the model that it was found in, which knows the name of its class.
        choice: how triggers were chosen, if they were.
        rank: the trigger's among the chosen ones, from 0.
    """
    examples = counted(trigger.sources, "example")
    strongest = "the strongest " if trigger.sources > 1 else ""
    source = f"found in {examples}, {strongest}number {trigger.source}"
    if trigger.source < 0:
        source = f"composed of triggers of {examples}"
    where = f"layer {trigger.layer}, head {trigger.head}" if trigger.layer >= 0 else "layer and head not known"
    lines = [source, f"{where}, score {number(trigger.score)}"]
    if trigger.target in attacked.classes:
        name = attacked.class_names[attacked.classes.index(trigger.target)]
        lines.append(f"target {trigger.target}, {name_label(name)} of {name_label(attacked.name)}")
    if choice:
        lines.append(
            f"number {rank + 1} of {counted(choice.candidates, 'trigger')} tried on other rows: "
            f"accuracy {fixed(choice.accuracy[choice.best[rank]])}, clean {fixed(choice.clean)}"
        )
    return lines


def _accuracy(measure: Measure) -> str:
    interval = f"[{fixed(measure.low)}, {fixed(measure.high)}]"
    return f"accuracy {fixed(measure.accuracy)} {interval}, {counted(measure.rows, 'row')}"


def _effect(measure: Measure) -> list[str]:
    # One row has no standard error.
    error = f" ± {fixed(measure.drop_error)}" if measure.rows > 1 else ", no standard error"
    flipped = counted(round(measure.flip_rate * measure.rows), "row")
    return [
        _accuracy(measure),
        f"drop {fixed(measure.drop)}{error}",
        f"{100 * measure.flip_rate:.1f} % flipped: {flipped} predicted differently",
    ]
