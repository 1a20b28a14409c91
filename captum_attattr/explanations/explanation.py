"""`Explanation`, one text's attribution maps, and `explain`, which makes them from texts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from captum_attattr.exceptions import ResultFileError
from captum_attattr.explanations.encoding import Text
from captum_attattr.files import replacing

_HEADER = "captum_attattr"
_VERSION = 1


@dataclass(frozen=True, eq=False)
class Explanation:
    """What every layer's attention did for one decision on one text. L layers, H heads, T tokens.

    Attributes:
        tokens: the T tokens, special ones included, padding never.
            (Heads and layers that `prune_heads` took keep their places below, with zeros.)
        attributions: (L, H, T, T) float32, rows queries and columns keys; each layer adds up to
            F(A) - F(0).
        attention: (L, H, T, T) float32, the attention probabilities A.
        delta: (L,) sum of a layer's attributions minus (F(A) - F(0)).
        error: (L,) estimated error of a layer's map relative to its Euclidean norm; NaN for a fixed rule.
        nodes: (L,) number of quadrature nodes used.
        target: the class (or, for a language model, the token) whose probability F is attributed.
        label: its name.
        probability: F(A); for a regression model the score itself.
        prediction: the class (or token) that the model prefers.
        text: what was explained.
        segments: (T,) 0 for the first text of a pair and the tokens around it, 1 for the second.
        special: (T,) whether a token is special ([CLS], [SEP], <s> ...).
    """

    tokens: list[str]
    attributions: Tensor
    attention: Tensor
    delta: Tensor
    error: Tensor
    nodes: Tensor
    target: int
    label: str
    probability: float
    prediction: int
    text: Text
    segments: list[int]
    special: list[bool]

    def strongest(self, count: int = 10, *, special: bool = True) -> list[tuple[int, int, int, int, float]]:
        """The interactions that carried most.

        Args:
            count: how many.
            special: whether interactions with special tokens count.

        Returns:
            (layer, head, query, key, score), highest score first, at most `count` of them.
        """
        if count < 1:
            raise ValueError(f"count={count} is too small: at least 1 is needed")
        scores = self.attributions
        if not special:
            words = ~torch.tensor(self.special)
            scores = scores.masked_fill(~(words[:, None] & words[None, :]), -torch.inf)
        values, places = scores.flatten().topk(min(count, scores.numel()))
        index = torch.unravel_index(places, scores.shape)
        found = zip(*(part.tolist() for part in index), values.tolist(), strict=True)
        return [(l, h, q, k, v) for l, h, q, k, v in found if v != -torch.inf]  # noqa: E741

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file: the arrays as tensors, everything else as JSON in its header.

        An old file stays as it is until the new one is there whole.

        Returns:
            The path.

        Raises:
            ValueError: the directory does not exist, or `path` is one.
        """
        tensors = {f.name: getattr(self, f.name).contiguous() for f in fields(self) if f.type == "Tensor"}
        rest = {f.name: getattr(self, f.name) for f in fields(self) if f.type != "Tensor"}
        header = {_HEADER: json.dumps({"version": _VERSION, **rest})}  # in ASCII: half a surrogate pair is no UTF-8
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=header)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ResultFileError: not a file of `save`, damaged, or of a newer version.
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {str(path)!r}")
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})[_HEADER])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, KeyError, json.JSONDecodeError) as error:
            raise ResultFileError(f"{str(path)!r} holds no explanation: {error}") from error
        if not isinstance(header, dict) or header.pop("version", None) != _VERSION:
            raise ResultFileError(f"{str(path)!r} was written by another version of captum_attattr")
        names = {f.name for f in fields(cls)}
        if names != header.keys() | tensors.keys():
            raise ResultFileError(f"{str(path)!r} lacks or adds {sorted(names ^ (header.keys() | tensors.keys()))}")
        header["text"] = tuple(header["text"]) if isinstance(header["text"], list) else header["text"]
        return cls(**header, **tensors)
