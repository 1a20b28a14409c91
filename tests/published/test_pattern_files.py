"""The published code's pattern files: what is written comes back, and what is damaged is named by entry and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from captum_attattr import ResultFileError
from captum_attattr.published.pattern_files import pattern_entry, read_patterns, write_patterns
from captum_attattr.triggers.patterns import Pattern

TOKENS = ("[CLS]", "a", "film", "[SEP]", "fine", "[SEP]")


def pattern(*interactions: Any, **changes: Any) -> Pattern:
    given: dict[str, Any] = {
        "interactions": interactions or ((0.5, -1, -1, 1, 4), (0.25, -1, -1, 2, 4)),
        "tokens": TOKENS,
        "special": tuple(token.startswith("[") for token in TOKENS),
        "segments": (0, 0, 0, 0, 1, 1),
        "target": 2,
        "gold": 1,
        "source": 0,
    }
    return Pattern(**given | changes)


def test_patterns_come_back_with_the_highest_sum_first(tmp_path):
    strong = pattern((0.75, -1, -1, 4, 1), (0.5, -1, -1, 0, 3), target=0, gold=-1)
    none = Pattern((), TOKENS, (False,) * 6, (0,) * 6, 0, 0, 3)
    path = write_patterns([pattern(), none, strong], tmp_path / "patterns.json")
    first, second = read_patterns(path)
    assert (first.interactions, first.target, first.gold, first.source) == (strong.interactions, 0, -1, 0)
    assert second == pattern(source=1)


def test_missing_second_interaction_is_the_first_with_score_0():
    entry = pattern_entry(pattern((0.5, 3, 1, 1, 4)))
    assert entry["max_combined_attr"] == [0.5, 0.0]
    assert entry["top1position"] == entry["top2position"] == [1, 4]
    assert entry["top1pattern"] == entry["top2pattern"] == ["a", "fine"]
    assert entry["seg_pos"] == 3


def test_numbers_of_other_libraries_are_written(tmp_path):
    numpy = pattern((np.float32(0.5), 0, 0, np.int64(1), np.uint8(4)), target=np.int64(2), gold=np.int32(1))
    path = write_patterns((numpy,), tmp_path / "patterns.json")
    assert read_patterns(path)[0].interactions[0] == (0.5, -1, -1, 1, 4)


@pytest.mark.parametrize("foreign", [5, None, "pattern", {"tokens": []}, ((0.5, 0, 0, 1, 4),)], ids=repr)
def test_what_is_no_pattern_is_not_written(tmp_path, foreign):
    with pytest.raises(TypeError, match="a pattern must be a Pattern, not "):
        write_patterns([pattern(), foreign], tmp_path / "patterns.json")
    assert not list(tmp_path.iterdir())


CHANGES: list[tuple[str, Any, str]] = [
    *(("tokens", value, "'tokens' must be a list of texts") for value in (5, None, "text", [], [5], {"a": 1})),
    *(
        ("max_combined_attr", value, "'max_combined_attr' must be two numbers")
        for value in (
            5,
            [1],
            [1, 2, 3],
            ["1", 2],
            [1, None],
            [True, 1],
            [float("nan"), 1],
            [float("inf"), 1],
            [10**400, 1],
        )
    ),
    *(
        (key, value, f"'{key}' must be two positions from 0 to 5")
        for key in ("top1position", "top2position")
        for value in (5, [1], [1, 6], [-1, 1], [1.0, 1], ["1", 1], [True, 1], [1, 10**400], None)
    ),
    *(
        (key, value, f"'{key}' must be a whole number")
        for key in ("target_label", "golden_label", "seg_pos")
        for value in (1.0, "1", None, True, [1])
    ),
    *(("seg_pos", value, "'seg_pos' must be from 1 to 6") for value in (0, 7, -1)),
]


@pytest.mark.parametrize("case", range(len(CHANGES)))
def test_damaged_entry_is_named_by_its_key(tmp_path, case):
    key, value, message = CHANGES[case]
    path = write_patterns([pattern(), pattern()], tmp_path / "patterns.json")
    entries = json.loads(path.read_text())
    entries[1][key] = value
    path.write_text(json.dumps(entries))
    with pytest.raises(ResultFileError, match=f"{path}, entry 1: {message}"):
        read_patterns(path)


@pytest.mark.parametrize("key", list(pattern_entry(pattern())))
def test_missing_key_is_named(tmp_path, key):
    path = write_patterns([pattern()], tmp_path / "patterns.json")
    entries = json.loads(path.read_text())
    del entries[0][key]
    path.write_text(json.dumps(entries))
    with pytest.raises(ResultFileError, match=f"{path}, entry 0 lacks the key '{key}'"):
        read_patterns(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JSON"),
        (b"\xff", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"1" * 5_000, "is no JSON"),
        (b"{}", "must hold a list of entries, not dict"),
        (b"[5]", "entry 0: a pattern must be an object, not 5"),
        (b"[[]]", r"entry 0: a pattern must be an object, not \[\]"),
    ],
    ids=["empty", "no text", "deep", "long number", "object", "number", "list"],
)
def test_what_holds_no_patterns_is_named(tmp_path, content, message):
    path = tmp_path / "patterns.json"
    path.write_bytes(content)
    with pytest.raises(ResultFileError, match=f"{path}.* {message}"):
        read_patterns(path)


def test_path_that_is_none_or_not_there_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no file '.*none.json'"):
        read_patterns(tmp_path / "none.json")
    with pytest.raises(TypeError, match="path must be a string or a path, not int: 5"):
        read_patterns(5)  # type: ignore[arg-type]
