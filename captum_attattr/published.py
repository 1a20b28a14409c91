"""The files of the published AttAttr code, read and written as its scripts read and write them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_attattr.explanation import Explanation
from captum_attattr.files import replacing
from captum_attattr.patterns import Pattern

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


def read_maps(path: str | os.PathLike[str]) -> Tensor:
    """Read `attr_zero_base_exp{N}.json` or `att_score_zero_base_exp{N}.json`: one line a layer, heads x T x T.

    Args:
        path: the file.

    Returns:
        (L, H, T, T) float32.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line that is no JSON, or maps that are not square, differ in size or are not finite.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_maps(write_maps(torch.ones(2, 3, 4, 4), folder + "/attr.json")).shape
        torch.Size([2, 3, 4, 4])
    """
    layers: list[Tensor] = []
    for number, line in enumerate(_existing(path).read_text(encoding="utf-8").splitlines(), 1):
        try:
            layers.append(torch.tensor(json.loads(line), dtype=torch.float32))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: no list of heads x T x T: {error}") from None
        shape = tuple(layers[-1].shape)
        if len(shape) != 3 or shape[1] != shape[2] or 0 in shape:
            raise ValueError(f"{path}, line {number}: the layer has the shape {shape}, not heads x T x T")
        if shape != tuple(layers[0].shape):
            raise ValueError(f"{path}, line {number}: the layer has {shape}, the first one {tuple(layers[0].shape)}")
        if not torch.isfinite(layers[-1]).all():
            raise ValueError(f"{path}, line {number}: the layer holds numbers that are not finite")
    if not layers:
        raise ValueError(f"{path} is empty: it holds no layer")
    return torch.stack(layers)


def write_maps(maps: Tensor, path: str | os.PathLike[str]) -> Path:
    """Write what `read_maps` reads.

    Args:
        maps: (L, H, T, T).
        path: the file; replaced if it exists.

    Returns:
        The path.
    """
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(layer.tolist()) + "\n" for layer in maps), encoding="utf-8")
    return Path(path)


def read_tokens(path: str | os.PathLike[str], index: int) -> dict[str, Any]:
    """Read one entry of `tokens_and_pred_{N}.json`.

    Args:
        path: the file.
        index: the example's number.

    Returns:
        The entry: "tokens", and "index", "pred", "golden", "pred_logits" where the file has them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file of another form, or an example that it does not hold.
    """
    try:
        entries = json.loads(_existing(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} must hold a list of entries with tokens")
    if not 0 <= index < len(entries):
        raise ValueError(f"example {index} is not in {path}: it holds examples 0 to {len(entries) - 1}")
    entry: dict[str, Any] = entries[index]
    tokens = entry.get("tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise ValueError(f"{path}, example {index}: 'tokens' must be a list of texts, not {tokens!r}")
    return entry


def read_explanation(
    attr_file: str | os.PathLike[str],
    tokens_file: str | os.PathLike[str],
    index: int,
    attention_file: str | os.PathLike[str] | None = None,
    labels: Iterable[str] = (),
) -> Explanation:
    """Put one example of the published files together.

    Args:
        attr_file: its attributions.
        tokens_file: the tokens and predictions of all examples.
        index: the example's number in `tokens_file`.
        attention_file: its attention; zeros without it.
        labels: the task's classes, in order; they number the prediction.

    Returns:
        The explanation; its delta and error are NaN, which these files do not say.

    Raises:
        As `read_maps` and `read_tokens`; ValueError where the sizes do not match.
    """
    maps, entry = read_maps(attr_file), read_tokens(tokens_file, index)
    tokens: list[str] = entry["tokens"]
    if maps.shape[-1] != len(tokens):
        raise ValueError(
            f"{attr_file} has maps of {maps.shape[-1]} tokens, example {index} of {tokens_file} has {len(tokens)}: "
            "they are not of the same example"
        )
    attention = read_maps(attention_file) if attention_file is not None else torch.zeros_like(maps)
    if attention.shape != maps.shape:
        raise ValueError(f"{attention_file} has {tuple(attention.shape)}, {attr_file} has {tuple(maps.shape)}")
    label, names = str(entry.get("pred", "")), list(labels)
    target = names.index(label) if label in names else 0
    logits = entry.get("pred_logits")
    probability = float(torch.tensor(logits).flatten().softmax(-1)[target]) if logits and names else math.nan
    special = [token in _SPECIAL for token in tokens]
    ends = [i for i, token in enumerate(tokens) if token in ("[SEP]", "</s>")]
    first = ends[0] if ends else len(tokens)
    unknown = torch.full((len(maps),), torch.nan)
    return Explanation(
        tokens=tokens,
        attributions=maps,
        attention=attention,
        delta=unknown,
        error=unknown,
        nodes=torch.zeros(len(maps), dtype=torch.long),
        target=target,
        label=label,
        probability=probability,
        prediction=target,
        text=" ".join(token for token, flag in zip(tokens, special, strict=True) if not flag),
        segments=[int(i > first) for i in range(len(tokens))],
        special=special,
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
    return write_json([pattern_entry(pattern) for pattern in ranked], path)


def write_json(value: Any, path: str | os.PathLike[str], **options: Any) -> Path:
    """Write JSON as the published scripts do, indented by 2, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, **options) + "\n", encoding="utf-8")
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
        entries = json.loads(_existing(path).read_text(encoding="utf-8"))
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


def _existing(path: str | os.PathLike[str]) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    return Path(path)
