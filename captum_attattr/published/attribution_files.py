"""The files of the published AttAttr code, read and written as its scripts read and write them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_attattr import checks
from captum_attattr.exceptions import ResultFileError
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.files import existing_file, read_json, replacing

SPECIAL = ("[CLS]", "[SEP]", "<s>", "</s>")
"""The special tokens of the published code's models; its files do not say which tokens are special."""


def read_maps(path: str | os.PathLike[str]) -> Tensor:
    """Read `attr_zero_base_exp{N}.json` or `att_score_zero_base_exp{N}.json`: one line a layer, heads x T x T.

    Args:
        path: the file.

    Returns:
        (L, H, T, T) float32.

    Raises:
        TypeError, FileNotFoundError: `path` is no path, or there is no such file.
        ResultFileError: a line that is no JSON, or maps that are not square, differ in size or are not finite.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_maps(write_maps(torch.ones(2, 3, 4, 4), folder + "/attr.json")).shape
        torch.Size([2, 3, 4, 4])
    """
    layers: list[Tensor] = []
    try:
        lines = existing_file(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ResultFileError(f"{path} is no text file, which JSON is: {error}") from None
    for line_number, line in enumerate(lines, 1):
        where = f"{path}, line {line_number}"
        try:
            layers.append(torch.tensor(json.loads(line), dtype=torch.float32))
        except (ValueError, TypeError, RuntimeError, OverflowError) as error:  # nested too deeply: a RuntimeError
            raise ResultFileError(f"{where}: no list of heads x T x T: {error}") from None
        shape = tuple(layers[-1].shape)
        if len(shape) != 3 or shape[1] != shape[2] or 0 in shape:
            raise ResultFileError(f"{where}: the layer has the shape {shape}, not heads x T x T")
        if shape != tuple(layers[0].shape):
            raise ResultFileError(f"{where}: the layer has {shape}, the first one {tuple(layers[0].shape)}")
        if not torch.isfinite(layers[-1]).all():
            raise ResultFileError(f"{where}: the layer holds numbers that are not finite")
    if not layers:
        raise ResultFileError(f"{path} is empty: it holds no layer")
    return torch.stack(layers)


def write_maps(maps: Tensor, path: str | os.PathLike[str]) -> Path:
    """Write what `read_maps` reads.

    Args:
        maps: (L, H, T, T).
        path: the file; replaced if it exists.

    Returns:
        The path.

    Raises:
        TypeError, ValueError: maps of another shape, or that are not finite; a path that cannot be written.
    """
    maps = checks.tensor("maps", maps, ("L", "H", "T", "T"))
    with replacing(path) as temporary:
        temporary.write_text("".join(json.dumps(layer.tolist()) + "\n" for layer in maps), encoding="utf-8")
    return Path(path)


def read_tokens(path: str | os.PathLike[str], index: int) -> dict[str, Any]:
    """Read one entry of `tokens_and_pred_{N}.json`.

    Args:
        path: the file.
        index: of the example.

    Returns:
        The entry: "tokens", and "index", "pred", "golden", "pred_logits" where the file has them.

    Raises:
        TypeError, FileNotFoundError: `path` is no path or `index` no integer, or there is no such file.
        ValueError: the file does not hold that example.
        ResultFileError: a file of another form.
    """
    entries = read_entries(path)
    if not all(isinstance(entry, dict) for entry in entries):
        raise ResultFileError(f"{path} must hold a list of entries with tokens")
    position = checks.integer(index)
    if position is None:
        raise TypeError(f"index must be an integer, not {type(index).__name__}: {index!r}")
    if not 0 <= position < len(entries):
        raise ValueError(f"example {position} is not in {path}: it holds examples 0 to {len(entries) - 1}")
    entry: dict[str, Any] = entries[position]
    check_tokens(entry.get("tokens"), f"{path}, example {position}")
    return entry


def read_entries(path: str | os.PathLike[str]) -> list[Any]:
    """Read a JSON file that holds a list.

    Raises:
        TypeError, FileNotFoundError: `path` is no path, or there is no such file.
        ResultFileError: a file of another form.
    """
    try:
        entries = read_json(existing_file(path))
    except (ValueError, RecursionError) as error:
        raise ResultFileError(f"{path} is no JSON: {error}") from None
    if not isinstance(entries, list):
        raise ResultFileError(f"{path} must hold a list of entries, not {type(entries).__name__}")
    return entries


def check_tokens(tokens: Any, where: str) -> None:
    """Check that an entry's tokens are a list of texts.

    Raises:
        ResultFileError: they are something else; the message begins with `where`.
    """
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise ResultFileError(f"{where}: 'tokens' must be a list of texts, not {tokens!r:.40}")


def read_explanation(
    attr_file: str | os.PathLike[str],
    tokens_file: str | os.PathLike[str],
    index: int,
    attention_file: str | os.PathLike[str] | None = None,
    labels: Iterable[str] = (),
    names: Iterable[str] = (),
) -> Explanation:
    """Put one example of the published files together.

    Args:
        attr_file: its attributions.
        tokens_file: the tokens and predictions of all examples.
        index: of the example in `tokens_file`.
        attention_file: its attention; zeros without it.
        labels: the task's classes as the files write them, in order; the prediction's index among them is the target.
        names: their readable names, in the same order; by default the same.

    Returns:
        The explanation; its delta and error are NaN, since these files do not hold them.

    Raises:
        As `read_maps` and `read_tokens`; ValueError where the sizes or the labels do not match.
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
    label, classes = str(entry.get("pred", "")), list(labels)
    if label and classes and label not in classes:
        known = ", ".join(classes)
        raise ValueError(f"example {index} of {tokens_file} is {label!r}, but the labels are {known}: another task's?")
    target = classes.index(label) if label in classes else 0
    special = [token in SPECIAL for token in tokens]
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
        label=dict(zip(classes, names, strict=False)).get(label, label),
        probability=_probability(entry.get("pred_logits"), len(classes), target, f"{tokens_file}, example {index}"),
        prediction=target,
        text=" ".join(token for token, flag in zip(tokens, special, strict=True) if not flag),
        segments=[int(i > first) for i in range(len(tokens))],
        special=special,
    )


def _probability(logits: Any, count: int, target: int, where: str) -> float:
    """Return the target's probability; NaN where the file has no logits, or the number of labels is not known."""
    if not logits or not count:
        return math.nan
    try:
        values = torch.tensor(logits, dtype=torch.float32).flatten()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise ResultFileError(f"{where}: 'pred_logits' must be numbers, not {logits!r:.80}") from None
    if len(values) != count:
        raise ResultFileError(f"{where}: 'pred_logits' has {len(values)} numbers for {count} labels")
    return float(values.softmax(-1)[target])
