"""The published code's pattern files: what its two adversarial scripts write and read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captum_attattr.files import replacing
from captum_attattr.published.tables import existing
from captum_attattr.triggers.patterns import Pattern

_SPECIAL = ("[CLS]", "[SEP]", "<s>", "</s>")
_PATTERN_KEYS = (
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
    """A pattern as an entry of `{train|dev}_adver_pattern_exp{A}-{B}.json`.

    The file holds two interactions: a third is left out, and for a missing second the first stands again, with
    the score 0.
    """
    first, *rest = pattern.interactions
    second = rest[0] if rest else (0.0, *first[1:])
    places = [list(interaction[3:]) for interaction in (first, second)]
    named = [[pattern.tokens[place] for place in pair] for pair in places]
    values = (
        [first[0], second[0]],
        *named,
        *places,
        pattern.target,
        pattern.gold,
        pattern.separator,
        list(pattern.tokens),
    )
    return dict(zip(_PATTERN_KEYS, values, strict=True))


def write_patterns(patterns: Sequence[Pattern], path: str | os.PathLike[str]) -> Path:
    """Write `{train|dev}_adver_pattern_exp{A}-{B}.json`, the highest sum of scores first.

    Args:
        patterns: of `find_patterns`; those without an interaction are left out.
        path: the file; replaced if it exists.

    Returns:
        The path.
    """
    ranked = sorted((p for p in patterns if p.interactions), key=lambda pattern: pattern.score, reverse=True)
    with replacing(path) as temporary:
        content = json.dumps([pattern_entry(pattern) for pattern in ranked], indent=2)
        temporary.write_text(content + "\n", encoding="utf-8")
    return Path(path)


def read_patterns(path: str | os.PathLike[str]) -> list[Pattern]:
    """Read what `write_patterns` or the published script wrote.

    Which tokens are special is told by their names ([CLS], [SEP], <s>, </s>); layers and heads are not in the file.

    Args:
        path: the file.

    Returns:
        The patterns, in the file's order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another form; the message names the entry and the key.
    """
    try:
        entries = json.loads(existing(Path(path)).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(entries, list):
        raise ValueError(f"{path} must hold a list of patterns, not {type(entries).__name__}")
    return [_pattern(entry, number, f"{path}, entry {number}") for number, entry in enumerate(entries)]


def _pattern(entry: Any, number: int, where: str) -> Pattern:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: a pattern must be an object, not {entry!r:.40}")
    missing = [key for key in _PATTERN_KEYS if key not in entry]
    if missing:
        raise ValueError(f"{where} lacks the key {missing[0]!r}")
    tokens = entry["tokens"]
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"{where}: 'tokens' must be a list of texts, not {tokens!r:.40}")
    scores = entry["max_combined_attr"]
    if not _numbers(scores, 2, float):
        raise ValueError(f"{where}: 'max_combined_attr' must be two numbers, not {scores!r:.40}")
    interactions = []
    for key, score in zip(("top1position", "top2position"), scores, strict=True):
        places = entry[key]
        if not _numbers(places, 2, int) or not all(0 <= place < len(tokens) for place in places):
            raise ValueError(f"{where}: {key!r} must be two positions from 0 to {len(tokens) - 1}, not {places!r:.40}")
        interactions.append((float(score), -1, -1, places[0], places[1]))
    for key in ("target_label", "golden_label", "seg_pos"):
        if not _numbers([entry[key]], 1, int):
            raise ValueError(f"{where}: {key!r} must be a whole number, not {entry[key]!r:.40}")
    if not 0 < entry["seg_pos"] <= len(tokens):
        raise ValueError(f"{where}: 'seg_pos' must be from 1 to {len(tokens)}, not {entry['seg_pos']}")
    special = [token in _SPECIAL for token in tokens]
    return Pattern(
        interactions=tuple(interactions),
        tokens=tuple(tokens),
        special=tuple(special),
        segments=tuple(int(i > entry["seg_pos"]) for i in range(len(tokens))),
        target=entry["target_label"],
        gold=entry["golden_label"],
        source=number,
    )


def _numbers(values: Any, count: int, kind: type) -> bool:
    """Whether a JSON value is a list of so many finite numbers."""
    kinds = (int, float) if kind is float else (int,)
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value) for value in values)
    )
