"""Digests, which tell a model, a data set or a text from others, and the words for what differs between two runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

_NOT_DIGESTED = {"_name_or_path", "transformers_version", "architectures", "dtype"}
"""Entries of a configuration about where a model is from and how it was stored; tensors have a dtype of their own."""

_SHOWN = 60  # characters of a value that differs


def model_digest(model: nn.Module) -> str:
    """Return a digest of every value of every weight, and of the configuration."""
    digest = hashlib.sha256()
    config: Any = getattr(model, "config", None)
    if hasattr(config, "to_dict"):
        entries = {name: value for name, value in config.to_dict().items() if name not in _NOT_DIGESTED}
        digest.update(json.dumps(entries, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        _feed(digest, value)
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any) -> None:
    """Add an entry of a state dict: a tensor or, of a quantized model, whatever it is packed in."""
    if isinstance(value, (tuple, list, dict)):
        for part in value.items() if isinstance(value, dict) else value:
            _feed(digest, part)
    elif isinstance(value, Tensor):
        digest.update(f" {tuple(value.shape)} {value.dtype}".encode())
        value = value.dequantize() if value.is_quantized else value
        value = value.full_tensor() if hasattr(value, "full_tensor") else value  # sharded by FSDP
        if value.numel():
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    else:
        digest.update(repr(value).encode())


def data_digest(*parts: Any) -> str:
    """Return a digest of a data set: of token ids, labels, whatever JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def text_digests(texts: Iterable[Any]) -> list[str]:
    """Return a short digest of each text or pair, by which data sets are compared without keeping them."""
    return [hashlib.sha256(json.dumps(text).encode()).hexdigest()[:16] for text in texts]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what differs between a run on disk and this one: "options.n_steps 5 there, 8 now".

    Nested entries have dotted names; of long values the part is shown where they differ.
    """
    try:
        before, after = _flat(there), _flat(now)
    except RecursionError:  # a file can nest deeper than Python calls
        return "one of them is nested too deeply"
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    shown = []
    for name in differing:
        texts = repr(before.get(name)), repr(after.get(name))
        first = next((i for i, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
        shown.append(f"{name} {_cut(texts[0], first)} there, {_cut(texts[1], first)} now")
    return ", ".join(shown)


def _flat(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested entries as one dict with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in entries.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _cut(text: str, first: int) -> str:
    """Return the part of a long text around its position `first`."""
    if len(text) <= _SHOWN:
        return text
    start = max(0, min(first - _SHOWN // 3, len(text) - _SHOWN))
    return "…" * (start > 0) + text[start : start + _SHOWN] + "…" * (start + _SHOWN < len(text))
