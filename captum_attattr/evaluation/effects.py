"""`removal_effects`: what the output loses when one edge, head or token is removed, measured and not estimated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.checks import checked_arguments
from captum_attattr.evaluation.gates import Single, unit_scores
from captum_attattr.evaluation.measures import correlations
from captum_attattr.evaluation.removal import Removals
from captum_attattr.explanations.explanation import Edge, Explanation
from captum_attattr.formatting import signed


class Head(NamedTuple):
    """A whole head; its score is the sum over its map."""

    layer: int
    head: int
    score: float


class Token(NamedTuple):
    """A token, by its position; its score is that of `Explanation.token_scores`."""

    position: int
    score: float


class _Unit(NamedTuple):
    """How units of a kind are told."""

    named: Any
    parts: tuple[str, ...]
    """Of `Single`, in the order of the named tuple."""
    natural: Callable[[Tensor], Tensor]
    """From scores as `unit_scores` has them to a dimension for each part."""


_UNITS = {
    "edge": _Unit(Edge, ("layer", "head", "query", "key"), lambda scores: scores),
    "head": _Unit(Head, ("layer", "head"), lambda scores: scores[:, :, 0, 0]),
    "token": _Unit(Token, ("key",), lambda scores: scores[0, 0, 0]),
}
REMOVALS = ("zero", "sink")


@dataclass(frozen=True, eq=False)
class RemovalEffects:
    """The exact effects of removing single edges, heads or tokens.

    Attributes:
        edges: what was removed, each alone: named tuples (layer, head, query, key, score), of heads (layer, head,
            score), of tokens (position, score).
        scores: (n,) their scores by the attribution.
        effects: (n,) F(whole) - F(without): positive where the output fell.
        value: F(whole).
        unit: "edge", "head" or "token".
        removal: "zero" or "sink".
        tokens: the text's tokens.
        rows: how many rows the model ran.
    """

    edges: list[Any]
    scores: Tensor
    effects: Tensor
    value: float
    unit: str
    removal: str
    tokens: list[str]
    rows: int

    @property
    def spearman(self) -> float:
        """Spearman's correlation of scores and effects; NaN where one of them is constant."""
        return correlations(self.scores, self.effects)[0]

    @property
    def pearson(self) -> float:
        """Pearson's correlation of scores and effects; NaN where one of them is constant."""
        return correlations(self.scores, self.effects)[1]

    def table(self, top: int = 10) -> str:
        """Return the first of them as a table of text, with the score and the measured effect."""
        lines = [f"F(whole) = {self.value:.4g}; rank correlation of score and effect {self.spearman:.2f}"]
        for edge, effect in zip(self.edges[:top], self.effects.tolist(), strict=False):
            lines.append(f"{self._named(edge):<40} score {signed(edge.score):>9}   effect {signed(effect):>9}")
        return "\n".join(lines)

    def _named(self, edge: Any) -> str:
        """Return what was removed in words."""
        if self.unit == "token":
            return f"{edge.position}: {self.tokens[edge.position]}"
        head = f"layer {edge.layer}, head {edge.head}"
        return head if self.unit == "head" else f"{head}: {self.tokens[edge.query]} <- {self.tokens[edge.key]}"

    def __repr__(self) -> str:
        return (
            f"RemovalEffects({len(self.edges)} x {self.unit}, spearman {self.spearman:.3f}, pearson {self.pearson:.3f})"
        )


@checked_arguments
def removal_effects(
    model: nn.Module,
    tokenizer: Any,
    explanation: Explanation,
    edges: Iterable[Any] | None = None,
    top: int = 100,
    unit: str = "edge",
    *,
    removal: str = "zero",
    task: str | None = None,
    internal_batch_size: int | None = None,
) -> RemovalEffects:
    r"""Measure what the output loses when one edge, head or token is removed, each alone.

    .. math:: \mathrm{effect}(e) = F(\mathrm{whole}) - F(\mathrm{whole\ but\ } e)

    Removing an edge sets its gate to 0: its attention counts as 0, and nothing is renormalised. A head is all edges of
    its map, a token every edge that reads it, in all layers and heads. The layers above recompute their attention. This
    is the truth that scores of single edges estimate; F is the explanation's own output, contrast and target.

    Args:
        model, tokenizer: those that were explained.
        explanation: what was explained, and its scores.
        edges: what to remove, each alone: (layer, head, query, key), heads (layer, head) or positions of tokens, layers
            by their own numbers; a score behind them is not read, so that those of `Explanation.strongest` can be
            given; or a table of pandas with these columns. None for the `top` with the largest absolute scores.
        top: how many, where `edges` is None; all where there are fewer.
        unit: "edge", "head" or "token".
        removal: "zero", or "sink": the mass of what is removed goes to the first key that the query may see.
        task: as in `explain`.
        internal_batch_size: most rows of one forward; None for a default by device and length.

    Returns:
        Edges, scores and effects, in the order given or by falling absolute score, and their correlations.

    Raises:
        TypeError, ValueError: an explanation of another model, one that cannot be run again, edges that it does not
            have, an attribution that does not tell such units apart; before any edge is removed.

    Example:
        >>> from captum_attattr import explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> model, tokenizer = load_demo_model()
        >>> explanation = explain(model, tokenizer, ["a gorgeous , witty film"], progress=False)[0]
        >>> effects = removal_effects(model, tokenizer, explanation, top=20)
        >>> len(effects.edges), effects.edges[0]._fields
        (20, ('layer', 'head', 'query', 'key', 'score'))
    """
    checks.one_of("unit", unit, tuple(_UNITS))
    checks.one_of("removal", removal, REMOVALS)
    top = checks.at_least(1, top, "top")
    limit = None if internal_batch_size is None else checks.at_least(1, internal_batch_size, "internal_batch_size")
    runner = Removals(model, tokenizer, removal, limit, task=task)
    explanation = runner.checked([explanation])[0]
    scores = _UNITS[unit].natural(unit_scores(explanation, unit))
    if edges is None:
        highest = scores.abs().flatten().argsort(descending=True, stable=True)[:top]
        positions = list(zip(*(part.tolist() for part in torch.unravel_index(highest, scores.shape)), strict=True))
    else:
        positions = [_position(i, edge, unit, explanation, scores.shape) for i, edge in enumerate(_given(edges, unit))]
        if not positions:
            raise ValueError("edges is empty: give at least one, or None for those with the largest scores")
    tokens = len(explanation.tokens)
    depth, shape = len(runner.numbers(explanation)), (runner.texts.width, tokens, tokens)
    gates = [Single(depth, shape, **dict(zip(_UNITS[unit].parts, each, strict=True))) for each in positions]
    ((_, outputs),) = runner.run([explanation], [gates])
    values = [float(scores[position]) for position in positions]
    return RemovalEffects(
        edges=[_named(unit, position, value, explanation) for position, value in zip(positions, values, strict=True)],
        scores=torch.tensor(values, dtype=torch.float64),
        effects=outputs[0] - outputs[1:],
        value=float(outputs[0]),
        unit=unit,
        removal=removal,
        tokens=explanation.tokens,
        rows=runner.rows,
    )


def _given(edges: Any, unit: str) -> list[Any]:
    """Return the units that were given, of a table of pandas by the names of its columns."""
    if not hasattr(edges, "itertuples"):
        return checks.iterable("edges", edges)
    names = list(_UNITS[unit].named._fields[:-1])
    if missing := [name for name in names if name not in edges.columns]:
        raise ValueError(f"edges has no column {missing[0]!r}: a table needs {', '.join(names)}")
    return list(edges[names].itertuples(index=False, name=None))


def _position(index: int, edge: Any, unit: str, explanation: Explanation, shape: Sequence[int]) -> tuple[int, ...]:
    """Return where a unit that was given stands among the scores.

    Raises:
        TypeError, ValueError: it is no such unit, or the explanation does not have it.
    """
    parts = _UNITS[unit].parts
    names = ("position",) if unit == "token" else parts
    given = [edge] if checks.integer(edge) is not None else checks.listed(edge)
    if isinstance(given, str) or not isinstance(given, Sequence) or len(given) not in (len(parts), len(parts) + 1):
        told = ", ".join(names)
        raise TypeError(f"edges[{index}]={edge!r:.100} must be ({told}), with or without a score behind it")
    position = []
    for name, value, count in zip(names, given, shape, strict=False):
        where = f"edges[{index}]: {name}"
        if name == "layer":
            position.append(checks.row_of(where, value, explanation.layers))
        else:
            position.append(checks.index(where, value, count))
    return tuple(position)


def _named(unit: str, position: Sequence[int], score: float, explanation: Explanation) -> Any:
    """Return a unit as a named tuple, its layer by its own number."""
    told = list(position)
    if unit != "token":
        told[0] = explanation.layers[told[0]]
    return _UNITS[unit].named(*told, score)
