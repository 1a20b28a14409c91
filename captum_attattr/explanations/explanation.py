"""`Explanation`: one text's attribution maps, what they explain, and the files that hold them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_attattr import checks
from captum_attattr.attribution.methods.table import ATTRIBUTIONS, WITH_HEADS
from captum_attattr.explanations.decided import Decided
from captum_attattr.explanations.encoding import Text
from captum_attattr.explanations.explanation_checks import (
    OF_OTHER,
    contrast_fields,
    estimated_error,
    inputs_by_name,
    maps_of_tokens,
    method_name,
    output_name,
    positions_of_tokens,
    rising_layers,
    segments_of_tokens,
)
from captum_attattr.explanations.schemes import SCHEMES
from captum_attattr.explanations.settings import checked_baseline
from captum_attattr.files import read_tensors, reading, write_tensors
from captum_attattr.formatting import counted, output_value, whole_text
from captum_attattr.model.wrappers import TASKS
from captum_attattr.notebooks import View, figure_view, report_view

_HEADER = "captum_attattr"
_VERSION = 4
_TOTALS = ("total_delta", "total_error", "total_nodes")
_ADDED: dict[int, set[str]] = {
    2: {"value", "output"},
    3: {"contrast", "contrast_target", "path", "baseline", "layers", "scheme", *_TOTALS},
    4: {"attribution"},
}
"""What each version of the files added to the one before; the inputs and what follows may be missing in all."""
_UNUSUAL = ("task", "positions", "note")
"""Fields that files have only where they are not empty."""
_INPUT = "inputs."  # begins the names of the inputs' tensors in a file


class Edge(NamedTuple):
    """One entry of the maps; a list of them makes a table of pandas."""

    layer: int
    head: int
    query: int
    key: int
    score: float


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(Decided):
    """What every layer's attention did for one decision on one text. L layers, H heads, T tokens.

    An explanation checks itself when it is made: types, shapes against each other, finite maps. Layers and heads that
    `prune_heads` took are there, with zeros.

    Attributes:
        tokens: the T tokens, special ones included, padding never.
        attributions: (L, H, T, T) float32, or what was asked for, rows queries and columns keys; each layer adds up to
            F(A) - F(B), on the joint path all layers together do. Of attributions that do not tell heads apart ("alti")
            (L, 1, T, T), nor layers ("chefer", "rollout") (1, 1, T, T).
        attention: (L, H, T, T), the attention probabilities A; None where they were not kept.
        delta: (L,) sum of a layer's attributions minus (F(A) - F(B)); NaN on the joint path, and where nothing is
            integrated.
        error: (L,) estimated error of a layer's map relative to its Euclidean norm; NaN for a fixed rule and where
            nothing is integrated, infinite where a map of zeros cannot be right.
        nodes: (L,) how many quadrature nodes were used; 0 where nothing is integrated.
        target: the class (or, for a language model, the token) whose output F is attributed.
        label: its name.
        probability: the target's probability; for a regression model the score itself; NaN where it is not known.
        prediction: the class (or token) that the model prefers.
        text: what was explained.
        segments: (T,) 0 for the first text of a pair and the tokens around it, 1 for the second.
        special: (T,) whether a token is special ([CLS], [SEP], <s> ...).
        value: F(A), whatever F is; None for `probability`.
        inputs: the model's inputs by name, each (1, T): token ids, mask, token types. `model(**inputs)` runs the
            example again; of a similarity those of the other text too, as "other_input_ids" and so on. None where they
            are not known: files of version 0.1 did not hold them.
        output: what F is, of the target: "probability", "log_probability", "logit", or "score" of a regression. If it
            is not given, as in files of version 0.1, a value outside of [0, 1] is a score.
        contrast: the name of a second class whose output is taken off that of the target; None for none.
        contrast_target: its index.
        path: "layer", each layer opened alone, or "joint", all together.
        baseline: B, the path's start: "zero", "uniform", "sink", or a number.
        layers: the L layers' own numbers, 0 the one nearest to the input; 0 to L - 1 if they are not given. Whatever
            takes or tells a layer speaks of these numbers.
        total_delta: on the joint path the sum of all attributions minus (F(A) - F(B)); NaN on the layer path.
        total_error: on the joint path the estimated error of all maps together, relative to their Euclidean norm; NaN
            on the layer path and for a fixed rule.
        total_nodes: how many quadrature nodes were used in all; if it is not given, the sum of `nodes`.
        scheme: how the tokenizer writes words and characters, one of `explanations.schemes.SCHEMES`, as "wordpiece" or
            "bytes"; "" where that is not known, as in files of version 0.1.
        attribution: the method, as in `explain`; if it is not given, "attattr" or "attattr_joint", by the path.
        task: what the model decides about a part of the text: "question_answering", "token_classification",
            "masked_lm" or "similarity"; "" for a class, a score or a next token, which are of the whole.
        positions: the tokens that the decision is about: of a label or masked word its token, of an answer first and
            last, whose target is the number first * T + last; none where it is the whole text.
        note: which blocks of a hybrid model have no full attention, and are not among the layers; "" where all have.

    Raises:
        TypeError, ValueError: a part of another type or shape, out of range, or not finite; the message names it.
    """

    tokens: list[str]
    attributions: Tensor
    attention: Tensor | None
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
    output: str = ""
    contrast: str | None = None
    contrast_target: int | None = None
    path: str = "layer"
    baseline: str | float = "zero"
    layers: Sequence[int] = ()
    total_delta: float = math.nan
    total_error: float = math.nan
    total_nodes: int | None = None
    scheme: str = ""
    attribution: str = ""
    task: str = ""
    positions: Sequence[int] = ()
    note: str = ""

    def __post_init__(self) -> None:
        tokens = checks.strings("tokens", self.tokens)
        attributions = maps_of_tokens("attributions", self.attributions, len(tokens))
        attention = None if self.attention is None else maps_of_tokens("attention", self.attention, len(tokens))
        if attention is not None and attention.shape != attributions.shape:
            raise ValueError(
                f"attention has the shape {tuple(attention.shape)}, attributions have {tuple(attributions.shape)}"
            )
        layers = (len(attributions),)
        nodes = checks.tensor("nodes", self.nodes, layers)
        probability = checks.finite("probability", self.probability, unknown=True)
        value = probability if self.value is None else checks.finite("value", self.value, unknown=True)
        checked: dict[str, Any] = {
            "tokens": tokens,
            "attributions": attributions,
            "attention": attention,
            "delta": checks.tensor("delta", self.delta, layers, unknown=True),
            "error": checks.tensor("error", self.error, layers, unknown=True, infinite=True),
            "nodes": nodes,
            "target": checks.at_least(0, self.target, "target"),
            "label": checks.instance("label", self.label, str, "a string"),
            "probability": probability,
            "prediction": checks.at_least(0, self.prediction, "prediction"),
            "text": checks.text_or_pair("text", self.text),
            "segments": segments_of_tokens(self.segments, len(tokens)),
            "special": checks.flags("special", self.special, len(tokens)),
            "value": value,
            "inputs": None if self.inputs is None else self.checked_inputs(self.inputs, len(tokens)),
            "output": output_name(self.output, probability),
            "path": checks.one_of("path", self.path, ("layer", "joint")),
            "attribution": method_name(self.attribution, self.path),
            "baseline": checked_baseline(self.baseline),
            "layers": rising_layers(self.layers, len(attributions)),
            "total_delta": checks.finite("total_delta", self.total_delta, unknown=True),
            "total_error": estimated_error("total_error", self.total_error),
            "total_nodes": int(nodes.sum())
            if self.total_nodes is None
            else checks.at_least(0, self.total_nodes, "total_nodes"),
            "scheme": checks.one_of("scheme", self.scheme, ("", *SCHEMES)),
            "task": checks.one_of("task", self.task, ("", *TASKS)),
            "positions": positions_of_tokens(self.positions, len(tokens)),
            "note": checks.instance("note", self.note, str, "a string"),
            **contrast_fields(self.contrast, self.contrast_target, self.target),
        }
        checks.set_fields(self, **checked)

    @staticmethod
    def checked_inputs(inputs: Any, tokens: int) -> dict[str, Tensor]:
        """Return inputs by name, each a row of one value for each token."""
        return inputs_by_name(inputs, lambda name, _: (1, "T" if name.startswith(OF_OTHER) else tokens))

    def _line(self) -> str:
        layers, heads, tokens = self.attributions.shape[:3]
        value = output_value(self.output, self.value, self.contrast is not None)
        what = f"{self.decision(repr)}{f', {value}' * bool(value)}: {whole_text(self.text)!r:.200}"
        return f"{what}, {counted(layers, 'layer')}, {counted(heads, 'head')}, {counted(tokens, 'token')}"

    def _view(self) -> View:
        return report_view(self) if ATTRIBUTIONS[self.attribution].heads else figure_view("plot_tokens", self)

    def check_heads(self, use: str) -> None:
        """Refuse a use that needs a map for each layer and head.

        Raises:
            ValueError: the attribution does not tell heads apart.
        """
        if not ATTRIBUTIONS[self.attribution].heads:
            raise ValueError(
                f"{use} needs a map for each layer and head, and {self.attribution!r} puts heads together; explain "
                f"with attribution={' or '.join(map(repr, WITH_HEADS[:3]))}"
            )

    def token_scores(self, layer: int | None = None) -> Tensor:
        r"""Sum up what each token contributed, by the columns of the maps.

        .. math:: s_j = \frac{1}{|L|} \sum_{l \in L} \sum_h \sum_i \mathrm{Attr}_{lh}(A)_{ij}

        Each layer's map is a whole budget, F(A) - F(B), so the scores of one layer add up to that, and so does the
        mean over the layers. On the joint path all layers share one budget, and the sum over them stands for the mean.
        Of "alti" it is the columns of the product of the layers' matrices, the last one leftmost; "chefer" and
        "rollout" have one map, whose rows are those that the output reads.

        Args:
            layer: one layer alone; the mean over all of them (joint path: the sum; "alti": the product) if it is None.

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
        dtype = torch.promote_types(self.attributions.dtype, torch.float32)
        if self.attribution == "alti" and layer is None:
            through = self.attributions[0, 0].to(dtype)
            for map_ in self.attributions[1:, 0]:
                through = map_.to(dtype) @ through
            return through.sum(0)
        maps = self.attributions.sum(dim=(1, 2), dtype=dtype)  # (L, T)
        if layer is not None:
            return maps[checks.row_of("layer", layer, self.layers)]
        return maps.sum(0) if self.path == "joint" else maps.mean(0)

    def strongest(self, count: int = 10, *, special: bool = True) -> list[Edge]:
        """List the edges that carried most.

        Args:
            count: how many edges.
            special: whether edges of special tokens count.

        Returns:
            Named tuples (layer, head, query, key, score), highest score first, at most `count` of them;
            `pandas.DataFrame` of them has these columns.

        Raises:
            ValueError: `count` is no integer of 1 or more, or the attribution does not tell heads apart.
        """
        self.check_heads("a list of the strongest edges")
        count = checks.at_least(1, count, "count")
        scores, layers = self.attributions, self.layers
        if not special:
            words = ~torch.tensor(self.special)
            scores = scores.masked_fill(~(words[:, None] & words[None, :]), -torch.inf)
        values, positions = scores.flatten().topk(min(count, scores.numel()))
        indices = torch.unravel_index(positions, scores.shape)
        edges = zip(*(part.tolist() for part in indices), values.tolist(), strict=True)
        return [Edge(layers[row], head, query, key, v) for row, head, query, key, v in edges if v != -torch.inf]

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file: the arrays as tensors, everything else as JSON in its header.

        An old file stays as it is until the new one is there whole.

        Returns:
            The path.

        Raises:
            TypeError, ValueError: `path` is no path or a directory, or its directory does not exist.
        """
        return write_tensors(path, _HEADER, _VERSION, *self.entries())

    def entries(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors by name, and everything else as JSON has it: what a file holds, and `of_entries` reads."""
        content = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "inputs"}
        tensors = {name: content.pop(name) for name, value in list(content.items()) if isinstance(value, Tensor)}
        for name in _UNUSUAL:
            if not content[name]:
                content.pop(name)
        return tensors | {f"{_INPUT}{name}": tensor for name, tensor in (self.inputs or {}).items()}, content

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Explanation:
        """Read what `save` wrote, in this version or an older one.

        Raises:
            TypeError, FileNotFoundError: `path` is no path, or there is no such file.
            ResultFileError: not a file of `save`, damaged, or of a newer version.
        """
        with reading(path, "explanation", "Explanation.save") as file:
            version, content, tensors = read_tensors(file, _HEADER, _VERSION)
            return cls.of_entries(tensors, content, version)

    @classmethod
    def of_entries(cls, tensors: dict[str, Any], content: dict[str, Any], version: int = _VERSION) -> Explanation:
        """Return what `entries` took apart, in this version of the files or an older one.

        Raises:
            TypeError, ValueError, LookupError: something is missing, or wrong.
        """
        kind = _kind(tensors, content) if cls is Explanation else cls
        inputs = {name.removeprefix(_INPUT): tensors.pop(name) for name in list(tensors) if name.startswith(_INPUT)}
        unusual = {name: content.pop(name) for name in _UNUSUAL if name in content}
        later = set().union({"inputs", *_UNUSUAL}, *(names for since, names in _ADDED.items() if since > version))
        checks.names_match(content.keys() | tensors.keys(), {field.name for field in fields(kind)} - later)
        for name in ("attributions", "attention"):
            if name in tensors and not tensors[name].is_floating_point():
                raise ValueError(f"{name} must hold floating-point numbers, not {tensors[name].dtype}")
        if isinstance(content["text"], list):
            content["text"] = tuple(content["text"])
        return kind(**content, **tensors, inputs=inputs or None, **unusual)


def _kind(tensors: dict[str, Any], content: dict[str, Any]) -> type[Explanation]:
    """Return the class whose fields a file has; it is imported here, since it is derived from `Explanation`."""
    if "picture" in tensors:
        from captum_attattr.explanations.image_explanation import ImageExplanation

        return ImageExplanation
    if "kinds" in content:
        from captum_attattr.explanations.translation_explanation import TranslationExplanation

        return TranslationExplanation
    return Explanation
