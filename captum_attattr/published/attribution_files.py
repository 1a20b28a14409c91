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

from captum_attattr.explanations.explanation import Explanation
from captum_attattr.files import replacing


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
    try:
        lines = _existing(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text file, which JSON is: {error}") from None
    for number, line in enumerate(lines, 1):
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
    names: Iterable[str] = (),
) -> Explanation:
    """Put one example of the published files together.

    Args:
        attr_file: its attributions.
        tokens_file: the tokens and predictions of all examples.
        index: the example's number in `tokens_file`.
        attention_file: its attention; zeros without it.
        labels: the task's classes as the files write them, in order; they number the prediction.
        names: their readable names, in the same order; by default the same.

    Returns:
        The explanation; its delta and error are NaN, which these files do not say.

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
    logits = entry.get("pred_logits")
    _check_logits(logits, classes, f"{tokens_file}, example {index}")
    probability = float(torch.tensor(logits).flatten().softmax(-1)[target]) if logits and classes else math.nan
    special = [token in ("[CLS]", "[SEP]", "<s>", "</s>") for token in tokens]
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
        probability=probability,
        prediction=target,
        text=" ".join(token for token, flag in zip(tokens, special, strict=True) if not flag),
        segments=[int(i > first) for i in range(len(tokens))],
        special=special,
    )


def _check_logits(logits: Any, labels: list[str], where: str) -> None:
    if not logits or not labels:
        return
    try:
        count = torch.tensor(logits, dtype=torch.float32).numel()
    except (TypeError, ValueError):
        raise ValueError(f"{where}: 'pred_logits' must be numbers, not {logits!r:.80}") from None
    if count != len(labels):
        raise ValueError(f"{where}: 'pred_logits' has {count} numbers for {len(labels)} labels")


def _existing(path: str | os.PathLike[str]) -> Path:
    if not Path(path).is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    return Path(path)
