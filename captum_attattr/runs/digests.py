"""Digests: what tells a model, a data set or a text from others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

_ELSEWHERE = {"_name_or_path", "transformers_version", "architectures", "dtype"}
"""What a configuration says about where a model is from and how it was stored; tensors say their own dtype."""


def model_digest(model: nn.Module) -> str:
    """What tells a model from others: every number of every weight, and the configuration."""
    digest = hashlib.sha256()
    config: Any = getattr(model, "config", None)
    if hasattr(config, "to_dict"):
        said = {name: value for name, value in config.to_dict().items() if name not in _ELSEWHERE}
        digest.update(json.dumps(said, sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        _feed(digest, value)
    return digest.hexdigest()[:16]


def _feed(digest: Any, value: Any) -> None:
    """Digest an entry of a state dict: a tensor or, of a quantized model, whatever it is packed in."""
    if isinstance(value, (tuple, list, dict)):
        for part in value.items() if isinstance(value, dict) else value:
            _feed(digest, part)
    elif isinstance(value, Tensor):
        digest.update(f" {tuple(value.shape)} {value.dtype}".encode())
        value = value.dequantize() if value.is_quantized else value
        if value.numel():
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    else:
        digest.update(repr(value).encode())


def data_digest(*parts: Any) -> str:
    """What tells a data set from others: token ids, labels, whatever JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def text_digests(texts: Iterable[Any]) -> list[str]:
    """One short digest for each text or pair, by which data sets are compared without keeping them."""
    return [hashlib.sha256(json.dumps(text).encode()).hexdigest()[:16] for text in texts]
