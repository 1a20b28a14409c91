"""`Explanation`: one text's attribution maps, what they explain, and the files that hold them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_attattr import checks
from captum_attattr.files import read_tensors, reading, write_tensors

Text = str | tuple[str, str]
"""A text, or a pair such as (premise, hypothesis)."""

_HEADER = "captum_attattr"
_VERSION = 2
_SINCE_2 = ("value", "inputs")
_INPUT = "inputs."  # begins the names of the inputs' tensors in a file


@dataclass(frozen=True, eq=False)
class Explanation:
    """What every layer's attention did for one decision on one text. L layers, H heads, T tokens.

    An explanation checks itself when it is made: types, shapes against each other, finite maps.

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
        probability: the target's probability; for a regression model the score itself; NaN where it is not known.
        prediction: the class (or token) that the model prefers.
        text: what was explained.
        segments: (T,) 0 for the first text of a pair and the tokens around it, 1 for the second.
        special: (T,) whether a token is special ([CLS], [SEP], <s> ...).
        value: F(A), the output that is attributed.
        inputs: the model's inputs by name, each (1, T): token ids, mask, token types. `model(**inputs)` runs the
            example again. None where they are not known: files of version 0.1 did not hold them.

    Raises:
        TypeError, ValueError: a part of another type or shape, or maps that are not finite; the message names it.
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
    value: float | None = None
    inputs: dict[str, Tensor] | None = None

    def __post_init__(self) -> None:
        tokens = checks.strings("tokens", self.tokens)
        attributions = _maps("attributions", self.attributions, len(tokens))
        attention = _maps("attention", self.attention, len(tokens))
        if attention.shape != attributions.shape:
            raise ValueError(
                f"attention has the shape {tuple(attention.shape)}, attributions have {tuple(attributions.shape)}"
            )
        layers = (len(attributions),)
        probability = checks.finite("probability", self.probability, unknown=True)
        checked: dict[str, Any] = {
            "tokens": tokens,
            "attributions": attributions,
            "attention": attention,
            "delta": checks.tensor("delta", self.delta, layers, unknown=True),
            "error": checks.tensor("error", self.error, layers, unknown=True),
            "nodes": checks.tensor("nodes", self.nodes, layers),
            "target": checks.integers("target", [self.target], smallest=0)[0],
            "label": checks.instance("label", self.label, str, "a string"),
            "probability": probability,
            "prediction": checks.integers("prediction", [self.prediction], smallest=0)[0],
            "text": checks.text_or_pair("text", self.text),
            "segments": checks.integers("segments", self.segments, len(tokens), smallest=0),
            "special": checks.flags("special", self.special, len(tokens)),
            "value": probability if self.value is None else checks.finite("value", self.value, unknown=True),
            "inputs": self.inputs and _inputs(self.inputs, len(tokens)),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def token_scores(self, layer: int | None = None) -> Tensor:
        r"""What each token contributed: the sums of the maps' columns.

        .. math:: s_j = \frac{1}{|L|} \sum_{l \in L} \sum_h \sum_i \mathrm{Attr}_{lh}(A)_{ij}

        Each layer's map is a whole budget, F(A) - F(0), so the scores of one layer add up to that, and so does the
        mean over the layers.

        Args:
            layer: one layer alone; the mean over all of them if it is None.

        Returns:
            (T,), by key: what all queries of all heads took from the token.

        Raises:
            TypeError, ValueError: `layer` is no integer, or the explanation has no such layer.

        Example:
            >>> from captum_attattr import explain
            >>> from demo_model import load_demo_model  # examples/demo_model.py
            >>> explanation = explain(*load_demo_model(), ["a fine film"], progress=False)[0]
            >>> scores = explanation.token_scores()
            >>> explanation.tokens[int(scores.argmax())], scores.shape
            ('fine', torch.Size([5]))
        """
        maps = self.attributions.sum(dim=(1, 2))  # (L, T)
        return maps.mean(0) if layer is None else maps[checks.index("layer", layer, len(maps))]

    def strongest(self, count: int = 10, *, special: bool = True) -> list[tuple[int, int, int, int, float]]:
        """The edges that carried most.

        Args:
            count: how many.
            special: whether edges of special tokens count.

        Returns:
            (layer, head, query, key, score), highest score first, at most `count` of them.

        Raises:
            ValueError: `count` is no integer of 1 or more.
        """
        count = checks.at_least(1, count, "count")
        scores = self.attributions
        if not special:
            words = ~torch.tensor(self.special)
            scores = scores.masked_fill(~(words[:, None] & words[None, :]), -torch.inf)
        values, positions = scores.flatten().topk(min(count, scores.numel()))
        indices = torch.unravel_index(positions, scores.shape)
        edges = zip(*(part.tolist() for part in indices), values.tolist(), strict=True)
        return [(layer, head, query, key, v) for layer, head, query, key, v in edges if v != -torch.inf]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file: the arrays as tensors, everything else as JSON in its header.

        An old file stays as it is until the new one is there whole.

        Returns:
            The path.

        Raises:
            TypeError, ValueError: `path` is no path or a directory, or its directory does not exist.
        """
        content = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "inputs"}
        tensors = {name: content.pop(name) for name, value in list(content.items()) if isinstance(value, Tensor)}
        tensors |= {f"{_INPUT}{name}": tensor for name, tensor in (self.inputs or {}).items()}
        return write_tensors(path, _HEADER, _VERSION, tensors, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read what `save` wrote, in this version or an older one.

        Raises:
            TypeError, FileNotFoundError: `path` is no path, or there is no such file.
            ResultFileError: not a file of `save`, damaged, or of a newer version.
        """
        with reading(path, "explanation", "Explanation.save") as file:
            version, content, tensors = read_tensors(file, _HEADER, _VERSION)
            inputs = {name.removeprefix(_INPUT): tensors.pop(name) for name in list(tensors) if name.startswith(_INPUT)}
            wanted = {field.name for field in fields(cls)} - {"inputs"} - (set(_SINCE_2) if version == 1 else set())
            checks.names_match(content.keys() | tensors.keys(), wanted)
            if isinstance(content["text"], list):
                content["text"] = tuple(content["text"])
            return cls(**content, **tensors, inputs=inputs or None)


def _maps(name: str, value: Any, tokens: int) -> Tensor:
    """Return maps (L, H, T, T) that fit the tokens."""
    maps = checks.tensor(name, value, ("L", "H", "T", "T")).detach()
    rows, columns = maps.shape[2:]
    if rows != tokens or columns != tokens:
        plural = "" if tokens == 1 else "s"
        raise ValueError(f"{name} must be {tokens} x {tokens} for {tokens} token{plural}, not {rows} x {columns}")
    return maps if maps.is_floating_point() else maps.float()


def _inputs(inputs: Any, tokens: int) -> dict[str, Tensor]:
    """Return inputs by name, each a row of one value for each token."""
    if not isinstance(inputs, Mapping):
        raise TypeError(f"inputs must be a dict of tensors, not {type(inputs).__name__}")
    return {
        checks.instance("the name of an input", name, str, "a string"): checks.tensor(
            f"inputs[{name!r}]", value, (1, tokens)
        )
        for name, value in inputs.items()
    }
