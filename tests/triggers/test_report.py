"""Reports of attacks: figures and verdicts of each class, the file, and what contradicts itself."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from captum_attattr import AttackReport, ResultFileError, Trigger
from captum_attattr.triggers.report import Choice, Outcome, VictimResult

TRIGGER = Trigger(("so", "dull"), (0.0, 1.0), (0, 0), 0.5, 3, 7, 12, 0)
GOLD = [0, 0, 0, 0, 1, 1, 1, 1]


def outcomes(triggered: list[int], *drawn: list[int], clean: list[int] = GOLD) -> list[Outcome]:
    made = [Outcome("clean", [], None, clean), Outcome("trigger", ["so", "dull"], TRIGGER, triggered)]
    return made + [Outcome("control", ["a", "b"], TRIGGER, predictions) for predictions in drawn]


def victim(**changed: Any) -> VictimResult:
    given = {
        "name": "model",
        "classes": [0, 1],
        "class_names": ["bad", "good"],
        "gold": GOLD,
        "outcomes": outcomes([1, 1, 0, 0, 1, 1, 1, 1], [1, 0, 0, 0, 1, 1, 1, 0]),
    }
    return VictimResult(**given | changed)


def choice(**changed: Any) -> Choice:
    given = {"rows": 9, "candidates": 3, "by": "all", "clean": 0.9, "accuracy": [0.5, 0.4, 0.6], "best": [1]}
    return Choice(**given | changed)


def changed(i: int, **values: Any) -> list[Outcome]:
    made = victim().outcomes
    made[i] = replace(made[i], **values)
    return made


# ---------------------------------------------------------------------------------------- figures and verdicts


def test_wilson_interval_of_a_known_case():
    """8 of 10: 0.490 to 0.943 (Wilson 1927, without correction)."""
    made = outcomes([1] * 10, clean=[1] * 8 + [0] * 2)
    found = VictimResult("m", [1], ["one"], [1] * 10, made)
    measure = found.measure(found.outcomes[0])
    assert (measure.low, measure.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


def test_verdict_says_where_the_drop_lies_among_the_draws():
    def wrong(count: int) -> list[int]:
        return [0] * count + [1] * (10 - count)

    for own, words in ((5, "stronger than random words"), (2, "like random words"), (1, "weaker than random words")):
        made = outcomes(wrong(own), *map(wrong, (2, 4, 3)), clean=wrong(0))
        one = VictimResult("m", [1], ["one"], [1] * 10, made)
        ((outcome, controls),) = one.triggers()
        assert one.verdict(outcome, controls) == words
        assert statistics.mean(one.measure(control).drop for control in controls) == pytest.approx(0.3)


NOTHING, STRONGER, LIKE, WEAKER, ALONE = (
    "changes nothing",
    "stronger than random words",
    "like random words",
    "weaker than random words",
    "no control",
)


@pytest.mark.parametrize(
    ("triggered", "drawn", "expected"),
    [
        # Rows of "bad" flip and those of "good" do not, or the other way round: each class has its verdict.
        ([1, 1, 0, 0, 1, 1, 1, 1], [[1, 0, 0, 0, 1, 1, 1, 1]], (STRONGER, STRONGER, NOTHING)),
        ([1, 1, 0, 0, 1, 1, 1, 1], [[0, 0, 0, 0, 0, 1, 1, 1]], (STRONGER, STRONGER, NOTHING)),
        ([0, 0, 0, 0, 0, 1, 1, 1], [[0, 0, 0, 0, 0, 0, 1, 1]], (WEAKER, NOTHING, WEAKER)),
        ([0, 0, 0, 0, 0, 1, 1, 1], [[1, 0, 0, 0, 1, 1, 1, 1]], (LIKE, NOTHING, STRONGER)),
        ([0, 0, 0, 0, 0, 1, 1, 1], [], (ALONE, NOTHING, ALONE)),
        # Flips that leave the accuracy as it is, in one class, are a change.
        ([2, 0, 0, 0, 1, 1, 1, 1], [[2, 0, 0, 0, 1, 1, 1, 1]], (LIKE, LIKE, NOTHING)),
        (GOLD, [[1, 1, 1, 1, 0, 0, 0, 0]], (NOTHING, NOTHING, NOTHING)),
        (GOLD, [], (NOTHING, NOTHING, NOTHING)),
        ([1, 0, 0, 0, 0, 1, 1, 1], [GOLD], (STRONGER, STRONGER, STRONGER)),
    ],
)
def test_verdict_of_a_class_is_that_of_its_rows(triggered, drawn, expected):
    one = victim(outcomes=outcomes(triggered, *drawn))
    ((outcome, controls),) = one.triggers()
    assert tuple(one.verdict(outcome, controls, of) for of in ("all", "bad", "good")) == expected
    for of, rows in (("bad", slice(0, 4)), ("good", slice(4, 8))):
        # As if the report had no other rows.
        alone = [replace(each, predictions=each.predictions[rows]) for each in one.outcomes]
        i = one.class_names.index(of)
        apart = VictimResult("apart", [i], [of], GOLD[rows], alone)
        ((outcome, controls),) = apart.triggers()
        assert apart.verdict(outcome, controls) == expected[1 + i]
        assert apart.measure(outcome) == one.measure(next(one.triggers())[0], of)
        start = rows.start
        assert [start + row for row in apart.flipped(outcome)] == one.flipped(next(one.triggers())[0], of)
    verdicts = AttackReport([one]).table().splitlines()[3 + bool(drawn)]
    assert [verdicts.count(NOTHING), verdicts.count("stronger")] == [expected.count(NOTHING), expected.count(STRONGER)]


def test_figures_of_an_unknown_class_are_refused():
    one = victim()
    ((outcome, controls),) = one.triggers()
    for call in (one.measure, one.flipped, lambda outcome, of: one.verdict(outcome, controls, of)):
        with pytest.raises(ValueError, match="no class 'ugly'; the rows have bad, good"):
            call(outcome, "ugly")


# ---------------------------------------------------------------------------------------------- the checks

NAN_ROWS = [math.nan, *[0] * 7]

CONTRADICTIONS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "victims": (lambda: AttackReport(None), TypeError, "victims must be a list, not NoneType"),
    "no victim": (lambda: AttackReport([]), ValueError, "victims is empty: nothing was attacked"),
    "no result": (lambda: AttackReport([3]), TypeError, r"victims\[0\] must be a VictimResult, not int: 3"),
    "name": (lambda: victim(name=3), TypeError, "the name of a victim must be a string, not int: 3"),
    "two victims": (lambda: AttackReport([victim(), victim()]), ValueError, "two victims are called 'model'"),
    "gold": (lambda: victim(gold=None), TypeError, "gold classes of victim 'model' must be a list, not NoneType"),
    "no rows": (lambda: victim(gold=[]), ValueError, "victim 'model' has no rows"),
    "gold nan": (
        lambda: victim(gold=NAN_ROWS),
        TypeError,
        r"gold classes of victim 'model' must be integers, but \[0\] is nan",
    ),
    "classes": (
        lambda: victim(gold=[0] * 8),
        ValueError,
        r"classes of victim 'model' must be those of its rows in order, \[0\], and",
    ),
    "order of classes": (lambda: victim(classes=[1, 0]), ValueError, r"in order, \[0, 1\], and"),
    "too few names": (
        lambda: victim(class_names=["a"]),
        ValueError,
        r"have a name each, not \[0, 1\] with the names \['a'\]",
    ),
    "name of a class": (lambda: victim(class_names=["a", 2]), TypeError, "must be strings, not int: 2"),
    "names twice": (
        lambda: victim(class_names=["a", "a"]),
        ValueError,
        "class of victim 'model' is called 'a', as another is",
    ),
    "a class of all": (lambda: victim(class_names=["a", "all"]), ValueError, "is called 'all', as all its rows are"),
    "no outcomes": (lambda: victim(outcomes=[]), ValueError, "a trigger after the clean outcome, not nothing"),
    "clean alone": (
        lambda: victim(outcomes=victim().outcomes[:1]),
        ValueError,
        "must have a trigger after the clean outcome, not nothing",
    ),
    "no clean one": (
        lambda: victim(outcomes=victim().outcomes[1:]),
        ValueError,
        "outcome 0 of victim 'model' must be a clean one, not 'trigger'",
    ),
    "control first": (
        lambda: victim(outcomes=changed(1, kind="control")),
        ValueError,
        r"a trigger after the clean outcome, not \['control'\]",
    ),
    "clean again": (
        lambda: victim(outcomes=changed(1, kind="clean")),
        ValueError,
        "outcome 1 of .* a trigger or a control, not 'clean'",
    ),
    "no outcome": (
        lambda: victim(outcomes=[*victim().outcomes, 3]),
        TypeError,
        "outcome 3 of victim 'model' must be an Outcome, not int",
    ),
    "too few predictions": (
        lambda: victim(outcomes=changed(2, predictions=[0])),
        ValueError,
        "outcome 2 of victim 'model' must have a prediction for each of 8 rows, not 1",
    ),
    "kind": (lambda: changed(2, kind="other"), ValueError, "kind must be 'clean', 'trigger' or 'control', not 'other'"),
    "predictions": (lambda: changed(2, predictions=NAN_ROWS), TypeError, r"must be integers, but \[0\] is nan"),
    "halves": (lambda: changed(2, predictions=[0.5] * 8), TypeError, r"must be integers, but \[0\] is 0.5"),
    "flags": (lambda: changed(2, predictions=[True] * 8), TypeError, r"must be integers, but \[0\] is True"),
    "tokens": (lambda: changed(2, tokens=["a", 3]), TypeError, "tokens must be strings, not int: 3"),
    "tokens of a text": (lambda: changed(2, tokens="ab"), TypeError, "tokens must be a list, not str: 'ab'"),
    "trigger": (
        lambda: changed(1, trigger=None),
        TypeError,
        "trigger of a trigger outcome must be a Trigger",
    ),
    "control's": (lambda: changed(2, trigger=None), TypeError, "trigger of a control outcome must be a Trigger, not"),
    "choice": (lambda: AttackReport([victim()], 3), TypeError, "choice must be a Choice or None, not int"),
    "rows of choice": (lambda: choice(rows=0), ValueError, "rows=0 must be an int of 1 or more"),
    "candidates": (lambda: choice(candidates=0), ValueError, "candidates=0 must be an int of 1 or more"),
    "by": (lambda: choice(by=3), TypeError, "by must be 'all' or the name of a class, not int: 3"),
    "clean accuracy": (lambda: choice(clean=math.nan), ValueError, "clean=nan must be a number from 0 to 1"),
    "accuracy": (lambda: choice(accuracy=[0.5, 1.5, 0]), ValueError, "accuracy=1.5 must be a number from 0 to 1"),
    "too few accuracies": (lambda: choice(accuracy=[0.5, 0.5]), ValueError, "each of 3 candidates, not 2"),
    "best": (lambda: choice(best=[3]), ValueError, "each of best must be from 0 to 2, not 3"),
    "best below": (lambda: choice(best=[-1]), ValueError, "each of best must be from 0 to 2, not -1"),
    "best of text": (lambda: choice(best="0"), TypeError, "best must be a list, not str"),
    "triggers": (
        lambda: AttackReport([victim()], choice(best=[0, 1])),
        ValueError,
        "choice names 2 triggers, but victim 'model' has 1",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_what_contradicts_itself_is_refused_when_it_is_made(name):
    make, error, message = CONTRADICTIONS[name]
    with pytest.raises(error, match=message):
        make()


def test_numbers_of_numpy_and_torch_become_pythons():
    made = [
        replace(each, predictions=[np.int64(value) for value in each.predictions], tokens=tuple(each.tokens))
        for each in victim().outcomes
    ]
    one = victim(classes=[np.int32(0), torch.tensor(1)], gold=[np.int8(value) for value in GOLD], outcomes=tuple(made))
    assert one == victim()
    chosen = choice(
        rows=np.int64(9), clean=np.float64(0.9), accuracy=(np.float32(0.5), 0.4, 0.6), best=[torch.tensor(1)]
    )
    assert chosen == choice()
    for value in (*one.gold, *one.classes, *one.outcomes[1].predictions, chosen.rows, *chosen.best):
        assert type(value) is int
    assert {type(value) for value in (chosen.clean, *chosen.accuracy)} == {float}


# ------------------------------------------------------------------------------------------------ the files


def report() -> AttackReport:
    return AttackReport([victim(), victim(name="other")], choice())


@pytest.mark.parametrize("given", [report(), AttackReport([victim()])])
def test_reports_come_back(given, tmp_path):
    assert AttackReport.load(given.save(tmp_path / "report.json")) == given


def test_texts_that_utf_8_has_not_come_back(tmp_path):
    half = "half \ud800 pair"
    given = AttackReport([victim(name=half, class_names=[half, "good"], outcomes=changed(1, tokens=[half, "\0"]))])
    assert AttackReport.load(given.save(tmp_path / "report.json")) == given


GONE = object()
FIRST = ("victims", 0)

DAMAGE: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "format": (("format",), "x", "its format is not 'captum_attattr attack'"),
    "no format": (("format",), GONE, "its format is not"),
    "no victims": (("victims",), GONE, "it lacks 'victims'"),
    "no choice": (("choice",), GONE, "it lacks 'choice'"),
    "victims of a text": (("victims",), "ab", "victims must be a list, not str: 'ab'"),
    "victims of numbers": (FIRST, 3, r"victims\[0\] must be an object, not int: 3"),
    "a victim's key": ((*FIRST, "gold"), GONE, r"victims\[0\]: it lacks or adds \['gold'\]"),
    "another key": ((*FIRST, "more"), 1, r"victims\[0\]: it lacks or adds \['more'\]"),
    "two of one name": ((*FIRST, "name"), "other", "two victims are called 'other'"),
    "gold": ((*FIRST, "gold"), [0], r"victims\[0\]: classes of victim 'model' must be those of its rows"),
    "outcomes": ((*FIRST, "outcomes"), {}, r"outcomes of victim 'model' must be a list, not dict"),
    "an outcome": ((*FIRST, "outcomes", 1), [], r"victims\[0\].outcomes\[1\] must be an object, not list"),
    "an outcome's key": ((*FIRST, "outcomes", 1, "tokens"), GONE, r"outcomes\[1\]: it lacks or adds \['tokens'\]"),
    "predictions": (
        (*FIRST, "outcomes", 0, "predictions"),
        NAN_ROWS,
        r"victims\[0\].outcomes\[0\]: predictions must be integers, but \[0\] is nan",
    ),
    "fewer predictions": (
        (*FIRST, "outcomes", 1, "predictions"),
        [0] * 7,
        "outcome 1 of victim 'model' must have a prediction for each of 8 rows, not 7",
    ),
    "trigger": ((*FIRST, "outcomes", 1, "trigger"), 3, r"outcomes\[1\].trigger: it must be an object, not int: 3"),
    "trigger's score": (
        (*FIRST, "outcomes", 1, "trigger", "score"),
        math.nan,
        r"outcomes\[1\].trigger: score must be finite, not nan",
    ),
    "trigger's key": (
        (*FIRST, "outcomes", 2, "trigger", "rules"),
        GONE,
        "trigger: it lacks or adds",
    ),
    "choice": (("choice",), [], "choice: it must be an object, not list"),
    "choice's key": (("choice", "best"), GONE, r"choice: it lacks or adds \['best'\]"),
    "choice's accuracy": (("choice", "clean"), 10**400, "must be a number from 0 to 1"),
    "choice's best": (("choice", "best"), [7], "choice: each of best must be from 0 to 2, not 7"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_reports_are_refused_with_path_reason_and_remedy(tmp_path, name):
    path, value, message = DAMAGE[name]
    file = report().save(tmp_path / "report.json")
    content = json.loads(file.read_text())
    *parents, last = path
    part = content
    for key in parents:
        part = part[key]
    if value is GONE:
        del part[last]
    else:
        part[last] = value
    file.write_text(json.dumps(content))
    with pytest.raises(ResultFileError, match=f"report.json' holds no attack report: .*{message}.*; give a file that"):
        AttackReport.load(file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"null", "its format is not"),
        (b"[]", "its format is not"),
        (b"3", "its format is not"),
        (b"\xff", "can't decode"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"format": "captum_attattr attack", "version": 1, "victims": ' + b"[" * 100_000, "it is nested too deeply"),
        (b'{"format": "captum_attattr triggers", "version": 1, "triggers": []}', "its format is not"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, content, message):
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ResultFileError, match=f"report.json' holds no attack report: .*{message}"):
        AttackReport.load(path)


@pytest.mark.parametrize("version", [2, 0, None, "1", True, [1]])
def test_reports_of_another_version_are_refused(tmp_path, version):
    path = report().save(tmp_path / "report.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))
    with pytest.raises(ResultFileError, match=r"report\.json' was written by another version of captum_attattr"):
        AttackReport.load(path)


def test_paths_that_are_none(tmp_path):
    for path, error in ((3, TypeError), (None, TypeError), (tmp_path, FileNotFoundError), ("none", FileNotFoundError)):
        with pytest.raises(error):
            AttackReport.load(path)
    with pytest.raises(ValueError, match="is a directory"):
        report().save(tmp_path)
