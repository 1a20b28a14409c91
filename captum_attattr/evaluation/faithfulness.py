"""`faithfulness`: keep and delete curves of explanations, measured on the model that they explain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_attattr import checks
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.checks import checked_arguments
from captum_attattr.evaluation.gates import Ranking, Top, unit_scores
from captum_attattr.evaluation.measures import FRACTIONS, checked_counts, checked_fractions, unit_counts
from captum_attattr.evaluation.removal import Removals
from captum_attattr.evaluation.result import REMOVALS, UNITS, Faithfulness
from captum_attattr.explanations.explanation import Explanation

COUNTS = {
    "edge": (1, 2, 4, 8, 16, 32, 64, 128),
    "layer_edge": (1, 2, 4, 8, 16, 32, 64, 128),
    "head": (1, 2, 4, 8, 16, 32),
    "token": (1, 2, 3, 4, 5),
}
"""Small sets of units, where no others are asked for."""
CURVES = ("keep", "delete", "keep_absolute", "keep_top", "delete_top")
"""Of `Faithfulness`: three by fraction, two by count."""


@dataclass(frozen=True)
class Plan:
    """Which rows of an example are run, and how their outputs make its curves.

    Attributes:
        fractions, counts: as in `Faithfulness`.
        unit: what is ranked.
        special: whether special tokens are ranked among tokens.
    """

    fractions: Sequence[float]
    counts: Sequence[int]
    unit: str
    removal: str
    special: bool

    @classmethod
    def of(cls, fractions: Any, counts: Any, unit: Any, removal: Any, special: bool) -> Plan:
        """Check the arguments of `faithfulness`.

        Raises:
            TypeError, ValueError: with the value and what would be right.
        """
        unit = checks.one_of("unit", unit, tuple(UNITS))
        removal = checks.one_of("removal", removal, tuple(REMOVALS))
        if removal == "replace" and unit != "token":
            raise ValueError(f"removal='replace' puts other tokens in the text: unit='token' is needed, not {unit!r}")
        if not special and unit != "token":
            raise ValueError(f"special=False leaves tokens out: it goes with unit='token', not {unit!r}")
        return cls(
            checked_fractions("fractions", fractions),
            checked_counts("counts", COUNTS[unit] if counts is None else counts),
            unit,
            removal,
            special,
        )

    def rows(self, explanation: Explanation, scores: Tensor, depth: int, decoder: bool) -> Rows:
        """Return the rows of one example.

        Args:
            explanation: of the example.
            scores: of its units, as `unit_scores` has them.
            depth: L.
            decoder: whether the first token is a sink and the last one what the output reads.

        Raises:
            ValueError: no unit is ranked.
        """
        kept = None
        if not self.special:
            ends = [decoder and i in (0, len(explanation.tokens) - 1) for i in range(len(explanation.tokens))]
            kept = torch.tensor([one or end for one, end in zip(explanation.special, ends, strict=True)])
        signed = Ranking(scores, depth, kept)
        absolute = signed if bool((scores >= 0).all()) else Ranking(scores.abs(), depth, kept)
        if not signed.units:
            raise ValueError(f"special=False: {explanation.text!r:.100} has no other tokens")
        rows = Rows(signed.units)
        rows.empty = rows.add(Top(signed, 0, True))
        for count in unit_counts(self.fractions, signed.units).tolist():
            rows.keep.append(rows.add(Top(signed, count, True)))
            rows.delete.append(rows.add(Top(signed, count, False)))
            rows.keep_absolute.append(rows.add(Top(absolute, count, True)))
        for count in self.counts:
            rows.keep_top.append(rows.add(Top(signed, count, True)))
            rows.delete_top.append(rows.add(Top(signed, count, False)))
        return rows


@dataclass
class Rows:
    """The rows of one example, each once, and where the curves find their outputs."""

    units: int
    gates: list[Top] = field(default_factory=list)
    empty: int = 0
    keep: list[int] = field(default_factory=list)
    delete: list[int] = field(default_factory=list)
    keep_absolute: list[int] = field(default_factory=list)
    keep_top: list[int] = field(default_factory=list)
    delete_top: list[int] = field(default_factory=list)
    _known: dict[tuple[int, int, bool], int] = field(default_factory=dict)

    def add(self, gates: Top) -> int:
        """Return the index of a row, which is new if no other one is the same."""
        key = id(gates.ranking), min(gates.count, self.units), gates.keep
        if key not in self._known:
            self._known[key] = len(self.gates)
            self.gates.append(gates)
        return self._known[key]

    def record(self, outputs: Tensor) -> dict[str, Any]:
        """Return the example's curves, of F as it is and of each row."""
        values = outputs[1:].tolist()
        curves = {name: [values[i] for i in getattr(self, name)] for name in CURVES}
        return {"full": float(outputs[0]), "empty": values[self.empty], "units": self.units, **curves}


def head_means(explanations: Sequence[Explanation], depth: int, width: int) -> Tensor:
    """Return (L, H) the mean score of each head over the examples; NaN where the method has none."""
    first = explanations[0]
    if not ATTRIBUTIONS[first.attribution].heads:
        return torch.full((depth, width), torch.nan, dtype=torch.float64)
    total = torch.zeros(first.attributions.shape[:2], dtype=torch.float64)
    for explanation in explanations:
        total += explanation.attributions.double().sum((2, 3))
    return total / len(explanations)


def result_of(plan: Plan, records: Sequence[dict[str, Any]], heads: Tensor, **about: Any) -> Faithfulness:
    """Return the curves of all examples together; `about` are the other fields of `Faithfulness`."""
    columns: dict[str, Any] = {key: [record[key] for record in records] for key in records[0]}
    units = columns.pop("units")
    curves: dict[str, Any] = {key: torch.tensor(values, dtype=torch.float64) for key, values in columns.items()}
    return Faithfulness(
        fractions=list(plan.fractions),
        counts=list(plan.counts),
        **curves,
        units=units,
        unit=plan.unit,
        removal=plan.removal,
        heads=heads,
        **about,
    )


def check_alike(explanations: Sequence[Explanation]) -> None:
    """Check that explanations are of one method, output, path, baseline and set of layers.

    Raises:
        ValueError: two differ.
    """
    first = explanations[0]
    for name in ("attribution", "output", "path", "baseline", "layers"):
        for i, other in enumerate(explanations):
            if getattr(other, name) != getattr(first, name):
                raise ValueError(
                    f"explanations[{i}] has {name} {getattr(other, name)!r}, and explanations[0] "
                    f"{getattr(first, name)!r}: measure them apart"
                )
    check_contrasts([one.contrast for one in explanations], "explanations")


def check_contrasts(contrasts: Sequence[Any], what: str) -> None:
    """Check that all examples have a contrast, or none has: a difference of outputs is no output.

    Raises:
        ValueError: some have one.
    """
    if 0 < sum(one is None for one in contrasts) < len(contrasts):
        raise ValueError(f"some {what} have a contrast and others have none: measure them apart")


@checked_arguments
def faithfulness(
    model: nn.Module,
    tokenizer: Any,
    explanations: Iterable[Explanation],
    *,
    fractions: Iterable[float] = FRACTIONS,
    counts: Iterable[int] | None = None,
    unit: str = "edge",
    removal: str = "zero",
    special: bool = True,
    scores: Sequence[Tensor] | None = None,
    name: str | None = None,
    task: str | None = None,
    internal_batch_size: int | None = None,
    progress: bool = True,
) -> Faithfulness:
    r"""Measure whether scores tell the truth: keep their top units alone, remove them, and see what the model says.

    An edge is one entry (layer, head, query, key); all L x H x T x T are ranked, by falling score, equal ones by index.
    With edges removed their gates are 0 on the attention that the model computes in that run, so that effects through
    later layers count. keep(k) is F with only the top fraction k of the edges, delete(k) F without them, and from these
    curves come

    .. math:: \mathrm{comprehensiveness} = \frac1K \sum_k F(\mathrm{all}) - \mathrm{delete}(k), \qquad
              \mathrm{sufficiency} = \frac1K \sum_k F(\mathrm{all}) - \mathrm{keep}(k)

    (DeYoung et al., "ERASER", ACL 2020), and CPR and CMD (Mueller et al., "MIB", ICML 2025; see `Faithfulness`).

    Args:
        model, tokenizer: those that were explained.
        explanations: of `explain`, all by one method with the same options.
        fractions: of the units, above 0 and at most 1, rising.
        counts: sizes of small sets that are kept and removed as well; None for 1, 2, 4 ... 128 edges, 1 to 32 heads, 1
            to 5 tokens.
        unit: "edge"; "layer_edge", an edge in all heads of its layer; "head", all edges of a map, ranked by their sum;
            "token", every edge that reads it, ranked by `Explanation.token_scores`.
        removal: "zero", nothing is renormalised; "sink", the mass of what is removed goes to the first key that the
            query may see; "replace", of tokens, another token in its place: the mask token, or the end-of-text token
            where there is none.
        special: of tokens, whether special ones count; if not, they stay, and of a decoder so do the first token, which
            is its sink, and the last one, which the output reads.
        scores: of your own instead of the explanations', a tensor for each: (L, H, T, T) of edges, (L, T, T) of
            layer_edges, (L, H) of heads, (T,) of tokens. The explanations say of which decision.
        name: of the method of `scores`.
        task: as in `explain`.
        internal_batch_size: most rows of one forward; None for a default by device and length.
        progress: show a bar for what takes longer than two seconds.

    Returns:
        The curves, and the measures with their intervals.

    Raises:
        TypeError, ValueError: no explanation, explanations of another model or of different methods, outputs or paths,
            one that cannot be run again, fractions outside of (0, 1], unsorted or repeated, an attribution that does
            not tell such units apart; before anything is removed.

    Example:
        >>> from captum_attattr import explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> model, tokenizer = load_demo_model()
        >>> texts = ["a gorgeous , witty film", "dull and lifeless"]
        >>> explanations = explain(model, tokenizer, texts, attribution="gradient_attention", progress=False)
        >>> measured = faithfulness(model, tokenizer, explanations, progress=False)
        >>> measured.keep.shape, measured.sufficiency < 0.3 < measured.comprehensiveness
        (torch.Size([2, 10]), True)
    """
    plan = Plan.of(fractions, counts, unit, removal, special)
    limit = None if internal_batch_size is None else checks.at_least(1, internal_batch_size, "internal_batch_size")
    runner = Removals(model, tokenizer, removal, limit, task=task)
    checked = runner.checked(explanations)
    check_alike(checked)
    if (scores is None) != (name is None):
        raise ValueError("scores and name go together: the name is that of the method that the scores are of")
    if name is not None and not checks.instance("name", name, str, "a string").strip():
        raise ValueError(f"name={name!r} is empty: say of which method the scores are")
    ranked = (
        [unit_scores(one, unit) for one in checked] if scores is None else given_scores(scores, checked, unit, runner)
    )
    decoder = any(layer.kind == "decoder" for layer in runner.texts.layers)
    layers = runner.numbers(checked[0])
    rows = [plan.rows(one, values, len(layers), decoder) for one, values in zip(checked, ranked, strict=True)]
    records: list[dict[str, Any]] = [{}] * len(checked)
    with tqdm(total=len(checked), desc="faithfulness", unit="text", delay=2, disable=not progress) as bar:
        for i, outputs in runner.run(checked, [one.gates for one in rows]):
            records[i] = rows[i].record(outputs)
            bar.update()
    heads = head_means(checked, len(layers), runner.texts.width)
    if scores is not None:
        heads = torch.full_like(heads, torch.nan)
    about = {part: getattr(checked[0], part) for part in ("attribution", "output", "path", "baseline")}
    about["contrasted"] = checked[0].contrast is not None
    return result_of(plan, records, heads, **about | ({"attribution": name} if name else {}), layers=layers)


def given_scores(scores: Any, explanations: Sequence[Explanation], unit: str, runner: Removals) -> list[Tensor]:
    """Return scores of the caller's in the form of `Ranking`.

    Raises:
        TypeError, ValueError: not as many as explanations, or of another shape than the units.
    """
    given = checks.sequence("scores", scores)
    if len(given) != len(explanations):
        raise ValueError(f"{len(given)} scores for {len(explanations)} explanations")
    ranked = []
    for i, (values, explanation) in enumerate(zip(given, explanations, strict=True)):
        depth, heads, tokens = len(runner.numbers(explanation)), runner.texts.width, len(explanation.tokens)
        shapes: dict[str, tuple[tuple[int, ...], Callable[[Tensor], Tensor]]] = {
            "edge": ((depth, heads, tokens, tokens), lambda tensor: tensor),
            "layer_edge": ((depth, tokens, tokens), lambda tensor: tensor[:, None]),
            "head": ((depth, heads), lambda tensor: tensor[:, :, None, None]),
            "token": ((tokens,), lambda tensor: tensor[None, None, None]),
        }
        shape, form = shapes[unit]
        ranked.append(form(checks.tensor(f"scores[{i}]", values, shape).detach().double().cpu()))
    return ranked
