"""Triggers and patterns check themselves; files of triggers come back, and hostile ones are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from captum_attattr import Insertion, Pattern, ResultFileError, Trigger, load_triggers, save_triggers

TRIGGERS = [
    Trigger(("good", "film", "plot"), (0.5, 1.0, 1.0), (0, 0, 1), 0.8, 1, 2, 0, 1),
    Trigger(("a",), (0.0,), (0,), 0.4, -1, -1, -1, 0, gold=2, sources=3, rules="reference"),
]
PATTERN = Pattern(((0.9, 0, 0, 0, 2),), ("[CLS]", "a", "[SEP]"), (True, False, True), (0, 0, 0), 1, 1, 0)
INSERTION = Insertion("dull a", ("[CLS]", "dull", "a", "[SEP]"), (1,), ("dull",), "a", 0)

WRONG: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "tokens as a text": (TRIGGERS[0], {"tokens": "abc"}, TypeError, "tokens must be a list, not str: 'abc'"),
    "tokens of None": (TRIGGERS[0], {"tokens": None}, TypeError, "tokens must be a list, not NoneType"),
    "tokens of numbers": (TRIGGERS[0], {"tokens": (1, 2, 3)}, TypeError, "tokens must be strings, not int: 1"),
    "fewer tokens": (TRIGGERS[0], {"tokens": ("a",)}, ValueError, r"positions must have the shape \(1,\), not \(3,\)"),
    "positions": (TRIGGERS[1], {"positions": (1.5,)}, ValueError, "position=1.5 must be a number from 0 to 1"),
    "positions below": (TRIGGERS[1], {"positions": (-0.1,)}, ValueError, "position=-0.1 must be a number from 0 to 1"),
    "positions nan": (TRIGGERS[1], {"positions": (math.nan,)}, ValueError, r"must be finite, but \[0\] is nan"),
    "positions of text": (TRIGGERS[1], {"positions": ("0",)}, TypeError, r"must be numbers, but \[0\] is '0'"),
    "segments": (TRIGGERS[1], {"segments": (2,)}, ValueError, "segment must be from 0 to 1, not 2"),
    "fewer segments": (TRIGGERS[0], {"segments": (0,)}, ValueError, r"segments must have the shape \(3,\), not \(1,\)"),
    "score": (TRIGGERS[0], {"score": math.nan}, ValueError, "score must be finite, not nan"),
    "score of infinity": (TRIGGERS[0], {"score": math.inf}, ValueError, "score must be finite, not inf"),
    "score of text": (TRIGGERS[0], {"score": "0.5"}, TypeError, "score must be a number, not str: '0.5'"),
    "layer": (TRIGGERS[0], {"layer": 0.5}, ValueError, "layer=0.5 must be an int of -1 or more"),
    "layer below": (TRIGGERS[0], {"layer": -2}, ValueError, "layer=-2 must be an int of -1 or more"),
    "head": (TRIGGERS[0], {"head": True}, ValueError, "head=True must be an int of -1 or more"),
    "source": (TRIGGERS[0], {"source": None}, ValueError, "source=None must be an int of -1 or more"),
    "sources": (TRIGGERS[0], {"sources": 0}, ValueError, "sources=0 must be an int of 1 or more"),
    "target": (TRIGGERS[0], {"target": "x"}, TypeError, r"target must be integers, but \[0\] is 'x'"),
    "gold": (TRIGGERS[0], {"gold": 1.0}, TypeError, r"gold must be integers, but \[0\] is 1.0"),
    "rules": (TRIGGERS[0], {"rules": "mine"}, ValueError, "rules='mine' is unknown; use 'default' or 'reference'"),
    "pattern: tokens": (PATTERN, {"tokens": "abc"}, TypeError, "tokens must be a list, not str"),
    "pattern: special": (PATTERN, {"special": (True,)}, ValueError, r"special must have the shape \(3,\), not \(1,\)"),
    "pattern: flags": (
        PATTERN,
        {"special": ("a", 0, 0)},
        TypeError,
        r"must be True or False, but \[0\] is 'a'",
    ),
    "pattern: segment": (
        PATTERN,
        {"segments": (0, 2, 0)},
        ValueError,
        "segment of a word must be from 0 to 1",
    ),
    "pattern: none": (PATTERN, {"interactions": None}, TypeError, "interactions must be a list, not NoneType"),
    "pattern: four": (
        PATTERN,
        {"interactions": [(0.9, 0, 0, 0)]},
        ValueError,
        r"must be \(score, layer, head, query, key\), not",
    ),
    "pattern: number": (PATTERN, {"interactions": [0.9]}, TypeError, "each of interactions must be a list, not float"),
    "pattern: key": (PATTERN, {"interactions": [(0.9, 0, 0, 0, 3)]}, ValueError, "key must be from 0 to 2, not 3"),
    "pattern: query": (PATTERN, {"interactions": [(0.9, 0, 0, 0.5, 1)]}, TypeError, "query must be an integer, not"),
    "pattern: layer": (PATTERN, {"interactions": [(0.9, -2, 0, 0, 1)]}, ValueError, "layer=-2 must be an int of -1"),
    "pattern: score": (PATTERN, {"interactions": [(math.nan, 0, 0, 0, 1)]}, ValueError, "must be finite, not nan"),
    "pattern: target": (PATTERN, {"target": None}, TypeError, r"target must be integers, but \[0\] is None"),
    "insertion: text": (INSERTION, {"text": 3}, TypeError, "text must be a string or a pair of strings, not 3"),
    "insertion: original": (INSERTION, {"original": ("a",)}, TypeError, "original must be a string or a pair of"),
    "insertion: places": (INSERTION, {"places": (4,)}, ValueError, "each of places must be from 0 to 3, not 4"),
    "insertion: inserted": (
        INSERTION,
        {"inserted": ()},
        ValueError,
        r"inserted must have the shape \(1,\)",
    ),
    "insertion: cut": (INSERTION, {"cut": -1}, ValueError, "cut=-1 must be an int of 0 or more"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_means_nothing_is_refused_when_it_is_made(name):
    given, values, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        replace(given, **values)


def test_numbers_of_numpy_and_torch_become_pythons():
    whole = {name: np.int64(getattr(TRIGGERS[0], name)) for name in ("layer", "head", "source", "target", "gold")}
    made = replace(
        TRIGGERS[0],
        tokens=list(TRIGGERS[0].tokens),
        positions=[np.float32(0.5), torch.tensor(1.0), 1],
        segments=[np.int8(0), torch.tensor(0), 1],
        score=np.float64(0.8),
        sources=torch.tensor(1),
        **whole,
    )
    assert made == TRIGGERS[0]
    assert hash(made) == hash(TRIGGERS[0])
    assert {type(value) for value in (*made.positions, made.score)} == {float}
    assert {type(value) for value in (*made.segments, *map(made.__getattribute__, whole), made.sources)} == {int}
    pattern = replace(
        PATTERN,
        interactions=[[np.float64(0.9), np.int64(0), 0, torch.tensor(0), 2]],
        special=[np.True_, False, 1],
        target=np.int64(1),
    )
    assert pattern == PATTERN
    assert [type(value) for value in pattern.interactions[0]] == [float, int, int, int, int]
    assert {type(flag) for flag in pattern.special} == {bool}


def test_special_tokens_may_have_a_segment_of_their_own():
    """XLNet gives <cls> the segment 2."""
    assert replace(PATTERN, segments=(0, 1, 2)).segments == (0, 1, 2)


# ------------------------------------------------------------------------------------------------ the files


@pytest.mark.parametrize("triggers", [TRIGGERS, TRIGGERS[:1], []])
def test_files_give_back_what_was_saved(tmp_path, triggers):
    assert load_triggers(save_triggers(triggers, tmp_path / "triggers.json")) == triggers
    assert load_triggers(save_triggers(iter(triggers), tmp_path / "triggers.json")) == triggers


def test_texts_that_utf_8_has_not_come_back(tmp_path):
    triggers = [replace(TRIGGERS[1], tokens=("half \ud800 pair\0",))]
    assert load_triggers(save_triggers(triggers, tmp_path / "triggers.json")) == triggers


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("good", "triggers must be a list of Trigger, not str: 'good'"),
        (None, "triggers must be a list of Trigger, not NoneType"),
        (3, "triggers must be a list of Trigger, not int"),
        (TRIGGERS[0], "triggers must be a list of Trigger, not Trigger"),
        (["good"], r"triggers\[0\] must be a Trigger, not str: 'good'"),
        ([TRIGGERS[0], None], r"triggers\[1\] must be a Trigger, not NoneType"),
        ([PATTERN], r"triggers\[0\] must be a Trigger, not Pattern"),
        ({"a": TRIGGERS[0]}, r"triggers\[0\] must be a Trigger, not str: 'a'"),
    ],
)
def test_other_objects_are_refused_before_a_file_is_touched(tmp_path, given, message):
    path = tmp_path / "triggers.json"
    path.write_text("before")
    with pytest.raises(TypeError, match=message):
        save_triggers(given, path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


DAMAGE: dict[str, tuple[Callable[[Any], object], str]] = {
    "a key that is missing": (lambda c: c["triggers"][0].pop("score"), r"triggers\[0\]: it lacks or adds \['score'\]"),
    "another key": (lambda c: c["triggers"][1].update(more=1), r"triggers\[1\]: it lacks or adds \['more'\]"),
    "a position": (lambda c: c["triggers"][1].update(positions=[2.0]), r"triggers\[1\]: position=2.0 must be a number"),
    "segments": (
        lambda c: c["triggers"][0].update(segments=[0]),
        r"\[0\]: segments must have the shape \(3,\)",
    ),
    "rules": (lambda c: c["triggers"][0].update(rules="mine"), r"triggers\[0\]: rules='mine' is unknown"),
    "score": (lambda c: c["triggers"][0].update(score=math.nan), r"triggers\[0\]: score must be finite, not nan"),
    "large": (lambda c: c["triggers"][0].update(score=10**400), "score must be finite, not inf"),
    "null": (lambda c: c["triggers"][0].update(layer=None), r"triggers\[0\]: layer=None must be an int"),
    "true": (lambda c: c["triggers"][0].update(target=True), r"triggers\[0\]: target must be integers, but"),
    "tokens": (lambda c: c["triggers"][0].update(tokens="abc"), r"triggers\[0\]: tokens must be a list, not str"),
    "an entry": (lambda c: c["triggers"].append([1]), r"triggers\[2\]: it must be an object, not list: \[1\]"),
    "a text": (lambda c: c.update(triggers="ab"), "triggers must be a list, not str: 'ab'"),
    "an object": (lambda c: c.update(triggers={}), "triggers must be a list, not dict"),
    "no triggers": (lambda c: c.pop("triggers"), "it lacks 'triggers'"),
    "format": (lambda c: c.update(format="captum_attattr attack"), "its format is not 'captum_attattr triggers'"),
    "no format": (lambda c: c.pop("format"), "its format is not 'captum_attattr triggers'"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_refused_with_path_reason_and_remedy(tmp_path, name):
    change, message = DAMAGE[name]
    path = save_triggers(TRIGGERS, tmp_path / "triggers.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ResultFileError, match=f"triggers.json' holds no triggers: .*{message}.*; give a file"):
        load_triggers(path)


@pytest.mark.parametrize("version", [2, 0, None, "1", True, [1]])
def test_files_of_another_version_are_refused(tmp_path, version):
    path = save_triggers(TRIGGERS, tmp_path / "triggers.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": version}))
    with pytest.raises(ResultFileError, match=r"triggers\.json' was written by another version of captum_attattr"):
        load_triggers(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Expecting value"),
        (b"null", "its format is not"),
        (b"[]", "its format is not"),
        (b"\xff", "can't decode"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"format": "captum_attattr triggers", "version": 1, "triggers": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, content, message):
    path = tmp_path / "triggers.json"
    path.write_bytes(content)
    with pytest.raises(ResultFileError, match=f"triggers.json' holds no triggers: .*{message}"):
        load_triggers(path)


def test_paths_that_are_none(tmp_path):
    for path, error in ((3, TypeError), (None, TypeError), (tmp_path, FileNotFoundError), ("none", FileNotFoundError)):
        with pytest.raises(error):
            load_triggers(path)
    for path, error in ((3, TypeError), (None, TypeError), (tmp_path, ValueError), (tmp_path / "a/b", ValueError)):
        with pytest.raises(error):
            save_triggers(TRIGGERS, path)
