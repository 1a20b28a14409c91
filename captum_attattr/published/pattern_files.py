"""The published code's pattern files: what its two adversarial scripts write and read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_attattr import checks
from captum_attattr.exceptions import ResultFileError
from captum_attattr.files import replacing
from captum_attattr.published.attribution_files import SPECIAL, check_tokens, read_entries
from captum_attattr.triggers.patterns import Pattern

_LARGEST = sys.float_info.max
_KEYS = (
    "max_combined_attr",
    "top1pattern",
    "top2pattern",
    "top1position",
    "top2position",
    "target_label",
    "golden_label",
    "seg_pos",
    "tokens",
)


def pattern_entry(pattern: Pattern) -> dict[str, Any]:
    """Return a pattern as an entry of `{train|dev}_adver_pattern_exp{A}-{B}.json`.

    An entry holds two interactions: a third is left out, and in place of a missing second the first is repeated with
    the score 0.
    """
    first, *rest = pattern.interactions
    second = rest[0] if rest else (0.0, *first[1:])
    scores = [float(interaction[0]) for interaction in (first, second)]
    positions = [[int(position) for position in interaction[3:]] for interaction in (first, second)]
    words = [[pattern.tokens[position] for position in pair] for pair in positions]
    labels = int(pattern.target), int(pattern.gold)
    values = (scores, *words, *positions, *labels, pattern.separator, list(pattern.tokens))
    return dict(zip(_KEYS, values, strict=True))


def write_patterns(patterns: Sequence[Pattern], path: str | os.PathLike[str]) -> Path:
    """Write `{train|dev}_adver_pattern_exp{A}-{B}.json`, the highest sum of scores first.

    Args:
        patterns: of `find_patterns`; those without an interaction are left out.
        path: the file; replaced if it exists.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: something else than patterns, or a path that cannot be written.
    """
    given = [checks.instance("a pattern", pattern, Pattern, "a Pattern") for pattern in patterns]
    ranked = sorted((p for p in given if p.interactions), key=lambda pattern: pattern.score, reverse=True)
    with replacing(path) as temporary:
        content = json.dumps([pattern_entry(pattern) for pattern in ranked], indent=2)
        temporary.write_text(content + "\n", encoding="utf-8")
    return Path(path)


def read_patterns(path: str | os.PathLike[str]) -> list[Pattern]:
    """Read what `write_patterns` or the published script wrote.

    The file does not hold layers and heads, nor which tokens are special: those named [CLS], [SEP], <s> or </s> are.

    Args:
        path: the file.

    Returns:
        The patterns, in the file's order.

    Raises:
        TypeError, FileNotFoundError: `path` is no path, or there is no such file.
        ResultFileError: another form; the message names the entry and the key.
    """
    return [_pattern(entry, index, f"{path}, entry {index}") for index, entry in enumerate(read_entries(path))]


def _pattern(entry: Any, index: int, where: str) -> Pattern:
    """Return an entry as a pattern, checked."""
    if not isinstance(entry, dict):
        raise ResultFileError(f"{where}: a pattern must be an object, not {entry!r:.40}")
    if missing := [key for key in _KEYS if key not in entry]:
        raise ResultFileError(f"{where} lacks the key {missing[0]!r}")
    tokens = entry["tokens"]
    check_tokens(tokens, where)
    last = len(tokens) - 1
    scores = entry["max_combined_attr"]
    if not _numbers(scores, 2, float):
        raise ResultFileError(f"{where}: 'max_combined_attr' must be two numbers, not {scores!r:.40}")
    interactions = []
    for key, score in zip(("top1position", "top2position"), scores, strict=True):
        pair = entry[key]
        if not _numbers(pair, 2, int) or not all(0 <= position <= last for position in pair):
            raise ResultFileError(f"{where}: {key!r} must be two positions from 0 to {last}, not {pair!r:.40}")
        interactions.append((float(score), -1, -1, pair[0], pair[1]))
    for key in ("target_label", "golden_label", "seg_pos"):
        if not _numbers([entry[key]], 1, int):
            raise ResultFileError(f"{where}: {key!r} must be a whole number, not {entry[key]!r:.40}")
    if not 0 < entry["seg_pos"] <= len(tokens):
        raise ResultFileError(f"{where}: 'seg_pos' must be from 1 to {len(tokens)}, not {entry['seg_pos']}")
    return Pattern(
        interactions=tuple(interactions),
        tokens=tuple(tokens),
        special=tuple(token in SPECIAL for token in tokens),
        segments=tuple(int(i > entry["seg_pos"]) for i in range(len(tokens))),
        target=entry["target_label"],
        gold=entry["golden_label"],
        source=index,
    )


def _numbers(values: Any, count: int, kind: type) -> bool:
    """Return whether a JSON value is a list of `count` finite numbers of a kind."""
    kinds = (int, float) if kind is float else (int,)
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, kinds) and not isinstance(value, bool) and abs(value) <= _LARGEST for value in values)
    )
