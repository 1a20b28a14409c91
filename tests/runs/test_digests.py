"""What differs between two runs, in words; and what tells a file from others."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from captum_attattr.runs.digests import differences, file_digest


@pytest.mark.parametrize(
    ("there", "now", "words"),
    [
        ({"a": 1}, {"a": 1}, ""),
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "b 2 there, 3 now"),
        ({"options": {"n": {"steps": 5}}}, {"options": {"n": {"steps": 8}}}, "options.n.steps 5 there, 8 now"),
        ({"a": 1}, {"a": 1, "masked": [0]}, "masked None there, [0] now"),
        ({"a": {"b": 1}}, {"a": 1}, "a None there, 1 now, a.b 1 there, None now"),
        ({"z": 1, "a": 1}, {"z": 2, "a": 2}, "a 1 there, 2 now, z 1 there, 2 now"),
    ],
)
def test_only_what_differs_is_named_by_its_full_name(there, now, words):
    assert differences(there, now) == words


def test_what_is_nested_deeper_than_python_calls_is_told():
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"a": deep}
    assert differences(deep, {"a": 1}) == differences({}, deep) == "one of them is nested too deeply"


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert file_digest(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()


@pytest.mark.parametrize("position", [0, 39, 41, 150, 299])
def test_long_values_are_shown_where_they_differ(position):
    there = "x" * 300
    now = there[:position] + "y" + there[position + 1 :]
    words = differences({"data": there}, {"data": now})
    before, after = words.removeprefix("data ").removesuffix(" now").split(" there, ")
    assert before != after
    assert "y" in after
    assert "y" not in before
    assert max(len(before), len(after)) < 70
