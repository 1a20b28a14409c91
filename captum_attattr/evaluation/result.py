"""What keeping and removing the top units of a ranking does to the output, and what follows from it."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_attattr import checks
from captum_attattr.evaluation import measures
from captum_attattr.evaluation.circuit import write_circuit
from captum_attattr.evaluation.measures import Floats, Interval
from captum_attattr.files import read_tensors, reading, write_tensors
from captum_attattr.formatting import counted, number, path_name
from captum_attattr.notebooks import Shown, View, figure_view

UNITS = {"edge": "edges", "head": "heads", "token": "tokens", "layer_edge": "edges of a layer"}
"""What is kept and removed, and how several are called."""
REMOVALS = {
    "zero": "removed: their attention is 0",
    "sink": "removed: their attention goes to the sink",
    "replace": "removed: replaced by another token",
}
MEASURES = ("comprehensiveness", "sufficiency", "top_comprehensiveness", "top_sufficiency", "cpr", "cmd")

_HEADER = "captum_attattr faithfulness"
_VERSION = 1
_GOOD = dict(zip(MEASURES, ("high", "low", "high", "low", "high, with a low CMD", "low"), strict=True))


@dataclass(frozen=True, eq=False, repr=False)
class Faithfulness(Shown):
    r"""The output with only the top units of an attribution's ranking, and without them.

    N examples, K fractions, C counts, L layers, H heads. F(all) is the output as it is, F(none) with every unit
    removed; keep(k) has only the top fraction k of the units, delete(k) lacks them. It checks itself when it is made.

    =======================  ===============================================  ==========================
    measure                  of an example                                    is good
    =======================  ===============================================  ==========================
    "comprehensiveness"      mean over the fractions of F(all) - delete(k)    high
    "sufficiency"            mean over the fractions of F(all) - keep(k)      low
    "top_comprehensiveness"  the same over the counts: small sets             high
    "top_sufficiency"        likewise                                         low
    "cpr"                    :math:`\int f(k)\,dk`, signed score              high, never without "cmd"
    "cmd"                    :math:`\int |1 - f(k)|\,dk`, absolute score      low
    =======================  ===============================================  ==========================

    f(k) = (keep(k) - F(none)) / (F(all) - F(none)). Comprehensiveness and sufficiency are those of DeYoung et al.
    (2020), CPR and CMD those of the MIB benchmark (Mueller et al. 2025). Large fractions show only that a model without
    them breaks: read the curves and the small sets beside the means. Where F(all) is below F(none), as where a contrast
    wins, units that speak for the target come first and lead f away from 1: CPR and CMD mislead there.

    Attributes:
        fractions: (K,) of the units, rising, the last at most 1.
        counts: (C,) numbers of units, rising; may be empty.
        full: (N,) F(all).
        empty: (N,) F(none).
        keep: (N, K) keep(k), by falling score.
        delete: (N, K) delete(k), by falling score.
        keep_absolute: (N, K) keep(k), by falling absolute score.
        keep_top: (N, C) with only so many of the top units.
        delete_top: (N, C) without so many of them.
        units: (N,) how many units each example has.
        unit: what they are: "edge" (layer, head, query, key), "layer_edge" (layer, query, key), "head" or "token".
        removal: what stands in their place: "zero", "sink" or "replace".
        attribution: the ranking's, as `explain` has it.
        output: what F is: "probability", "logit" or "log_probability".
        path: "layer" or "joint".
        baseline: "zero", "uniform", "sink", or a number.
        heads: (L, H) the mean score of each head over the examples; NaN where there is none.
        layers: (L,) the layers' own numbers.
        contrasted: whether F is the difference to a contrast's output.

    Raises:
        TypeError, ValueError: a part of another type, shape or range; the message names it.

    Example:
        >>> result = Faithfulness(
        ...     fractions=[0.1, 0.5, 1], counts=[1], full=[0.9, 0.8], empty=[0.5, 0.5],
        ...     keep=[[0.6, 0.9, 0.9], [0.7, 0.8, 0.8]], delete=[[0.7, 0.5, 0.5], [0.6, 0.5, 0.5]],
        ...     keep_absolute=[[0.6, 0.9, 0.9], [0.7, 0.8, 0.8]], keep_top=[[0.5], [0.6]], delete_top=[[0.9], [0.7]],
        ...     units=[144, 100], unit="edge", removal="zero", attribution="attattr", output="probability",
        ...     path="layer", baseline="zero", heads=[[0.3, 0.1]], layers=[0],
        ... )
        >>> round(result.comprehensiveness, 3), round(result.sufficiency, 3), round(result.cpr, 3)
        (0.3, 0.067, 0.792)
        >>> result.values("sufficiency")
        tensor([0.1000, 0.0333], dtype=torch.float64)
    """

    fractions: list[float]
    counts: list[int]
    full: Tensor
    empty: Tensor
    keep: Tensor
    delete: Tensor
    keep_absolute: Tensor
    keep_top: Tensor
    delete_top: Tensor
    units: list[int]
    unit: str
    removal: str
    attribution: str
    output: str
    path: str
    baseline: str | float
    heads: Tensor
    layers: list[int]
    contrasted: bool = False

    def __post_init__(self) -> None:
        fractions = measures.checked_fractions("fractions", self.fractions)
        counts = measures.checked_counts("counts", self.counts)
        full = array("full", self.full, ("N",))
        N, K, C = len(full), len(fractions), len(counts)
        arrays = {
            name: array(name, getattr(self, name), shape)
            for shape, names in {
                (N,): ("empty",),
                (N, K): ("keep", "delete", "keep_absolute"),
                (N, C): ("keep_top", "delete_top"),
            }.items()
            for name in names
        }
        units, layers = (checks.listed(getattr(self, name)) for name in ("units", "layers"))
        layers = checks.integers("layers", layers, smallest=0)
        if len(set(layers)) < len(layers):
            raise ValueError(f"layers must be different ones, not {layers}")
        for name, known in (("unit", UNITS), ("removal", REMOVALS)):
            checks.one_of(name, getattr(self, name), tuple(known))
        for name in ("attribution", "output", "path"):
            checks.instance(name, getattr(self, name), str, "a string")
        checks.one_of("path", self.path, ("layer", "joint"))
        checks.instance("contrasted", self.contrasted, bool, "True or False")
        if not isinstance(self.baseline, str):
            checks.set_fields(self, baseline=checks.finite("baseline", self.baseline))
        heads = array("heads", self.heads, (len(layers), "H"), unknown=True)
        checked = {"fractions": fractions, "counts": counts, "full": full, **arrays, "heads": heads, "layers": layers}
        checks.set_fields(self, **checked, units=checks.integers("units", units, N, smallest=1))

    def _line(self) -> str:
        names = (*MEASURES[:2], *MEASURES[4:])
        found = ", ".join(f"{spelt(name)} {number(self._mean(name))}" for name in names)
        return f"{self.name}, {UNITS[self.unit]}, {counted(len(self.full), 'example')}: {found}{self._without()}"

    def _view(self) -> View:
        return figure_view("plot_faithfulness", self)

    @property
    def name(self) -> str:
        """The attribution, with path and baseline where they are not the usual ones: "attattr, joint path"."""
        told = self.attribution.endswith("_joint")
        how = path_name("layer" if told else self.path, self.baseline)
        return ", ".join(filter(None, [self.attribution, how]))

    @property
    def output_name(self) -> str:
        """What F is, in words: "log-probability", "logit difference"."""
        return self.output.replace("_", "-") + " difference" * self.contrasted

    @property
    def comprehensiveness(self) -> float:
        """The mean over the examples."""
        return self._mean("comprehensiveness")

    @property
    def sufficiency(self) -> float:
        """The mean over the examples."""
        return self._mean("sufficiency")

    @property
    def top_comprehensiveness(self) -> float:
        """The mean over the examples; NaN without `counts`."""
        return self._mean("top_comprehensiveness")

    @property
    def top_sufficiency(self) -> float:
        """The mean over the examples; NaN without `counts`."""
        return self._mean("top_sufficiency")

    @property
    def cpr(self) -> float:
        """The mean over the examples that are not left out; NaN if all are, and for one fraction."""
        return self._mean("cpr")

    @property
    def cmd(self) -> float:
        """The mean over the examples that are not left out; NaN if all are, and for one fraction."""
        return self._mean("cmd")

    @property
    def left_out(self) -> int:
        """How many examples CPR and CMD leave out.

        Those whose F(all) and F(none) are less than .05 apart; for outputs that are no probability, less than 5 % of
        the largest such difference in the sample.
        """
        return int((~self._kept()).sum())

    def values(self, measure: str) -> Tensor:
        """Return a measure of every example, (N,) float64; "cpr" and "cmd" are NaN for those that they leave out.

        Raises:
            ValueError: the measure is unknown.
        """
        return torch.from_numpy(np.array(self._values(measure)))

    def interval(self, measure: str, confidence: float = 0.95) -> tuple[float, float]:
        """Return the bounds of the bootstrap interval of a measure's mean over the examples; always the same ones.

        Args:
            measure: its name.
            confidence: above 0 and below 1.

        Raises:
            ValueError: the measure is unknown, or the confidence another number.

        Warns:
            UserWarning: there are fewer than five examples, or all have the same value: both are NaN.
        """
        level = checks.fraction("confidence", confidence)
        if level in (0, 1):
            raise ValueError(f"confidence={confidence!r} must be above 0 and below 1")
        values = self._values(measure)
        found = measures.quiet_interval(values, level)
        if np.isnan(found.low):
            warnings.warn(f"{measure}: {measures.why_no_interval(values)}", UserWarning, stacklevel=2)
        return found.low, found.high

    def table(self) -> str:
        """Return all measures with their intervals, and both curves, as text.

        Warns:
            UserWarning: there are fewer than five examples: there are no intervals.
        """
        rows = [self._row(measure) for measure in MEASURES if self.counts or not measure.startswith("top_")]
        if len(self.full) < measures.FEWEST:
            warnings.warn(measures.why_no_interval(self.full.numpy()), UserWarning, stacklevel=2)
        sizes = [f"{100 * k:g} %" for k in self.fractions] + [str(count) for count in self.counts]
        keep, delete = (
            torch.cat(parts, 1).mean(0).tolist()
            for parts in ((self.keep, self.keep_top), (self.delete, self.delete_top))
        )
        whole, none = (f"{each.mean().item():.3f}" for each in (self.full, self.empty))
        curve = [
            (f"{size:>9}", f"{kept:.3f}", f"{left:.3f}") for size, kept, left in zip(sizes, keep, delete, strict=True)
        ]
        what = f"{UNITS[self.unit]} {REMOVALS[self.removal]}"
        return "\n".join(
            [
                f"{self.name}: {self.output_name}, {counted(len(self.full), 'example')}, {what}",
                *aligned([("", "mean", "95 % interval", "good is"), *rows]),
                f"{self.output_name}: {whole} with all {UNITS[self.unit]}, {none} with none",
                *aligned([("top", "alone", "without"), *curve]),
            ]
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a safetensors file: arrays as tensors, everything else as JSON in its header.

        Returns:
            The path.

        Raises:
            TypeError, ValueError: `path` is no path or a directory, or its directory does not exist.
        """
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: content.pop(name) for name, value in list(content.items()) if isinstance(value, Tensor)}
        return write_tensors(path, _HEADER, _VERSION, tensors, content)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Faithfulness:
        """Read what `save` wrote.

        Raises:
            TypeError, FileNotFoundError: `path` is no path, or there is no such file.
            ResultFileError: not a file of `save`, damaged, or of another version.
        """
        with reading(path, "faithfulness", "Faithfulness.save") as file:
            _, content, tensors = read_tensors(file, _HEADER, _VERSION)
            checks.names_match(content.keys() | tensors.keys(), (field.name for field in fields(cls)))
            return cls(**content, **tensors)

    def save_circuit(self, path: str | os.PathLike[str], fraction: float = 0.1, *, config: Any = None) -> Path:
        """Write the top heads as a circuit: JSON of the MIB benchmark's circuit track, which EAP-IG's graphs read.

        Heads are ranked by their mean signed score over the examples; the first max(1, round(fraction x heads)) are in
        the graph, all with their score. A graph has one node for a head, for an MLP, for the input and the
        logits, and edges between these nodes, so this much cannot be said in it:

        - which queries and keys a head's attention joins, and any position: a head is in or out as a whole;
        - MLPs, and heads without a score, are not ranked: they are in the graph without a score, which the benchmark
          reads as "always kept";
        - edges between nodes are not ranked: all between kept nodes are in, with score 0, all others are left out. So
          the benchmark's node level has a ranking in this file, its edge level has not;
        - the benchmark puts a counterfactual's activation in the place of what is not in the graph; `removal` is
          not written.

        Args:
            path: the file.
            fraction: of the heads with a score; above 0, at most 1.
            config: the model's, or the model, of which the graph's sizes are read. Without it there are as many layers
                as the last one that has scores, MLPs follow attention, and `d_model` is 0.

        Returns:
            The path.

        Raises:
            TypeError, ValueError: another fraction, a config of another model, no head with a score (as of
                chefer or rollout); or `path` as `save` has it.
        """
        (share,) = measures.checked_fractions("fraction", [fraction])
        return write_circuit(path, self.heads.numpy(), self.layers, share, config)

    def _values(self, measure: str) -> Floats:
        if not isinstance(measure, str) or measure not in MEASURES:
            raise ValueError(f"measure={measure!r:.60} is unknown; use one of {', '.join(MEASURES)}")
        full, counted_sets = self.full.numpy(), measure.startswith("top_")
        if counted_sets and not self.counts:
            return np.full(len(full), np.nan)
        if measure.endswith("comprehensiveness"):
            return measures.comprehensiveness(full, self.delete_top if counted_sets else self.delete)
        if measure.endswith("sufficiency"):
            return measures.sufficiency(full, self.keep_top if counted_sets else self.keep)
        integral, keep = (measures.cpr, self.keep) if measure == "cpr" else (measures.cmd, self.keep_absolute)
        values = integral(self.fractions, measures.recovered(full, self.empty, keep))
        return np.where(self._kept(), values, np.nan)

    def _kept(self) -> measures.Bools:
        return measures.kept_examples(self.full, self.empty, self.output == "probability")

    def _mean(self, measure: str) -> float:
        values = self._values(measure)
        known = values[~np.isnan(values)]
        return float(known.mean()) if known.size else np.nan

    def _without(self) -> str:
        return f" ({self.left_out} left out)" if self.left_out else ""

    def _row(self, measure: str) -> tuple[str, str, str, str]:
        """Return a measure's line of the table."""
        found: Interval = measures.quiet_interval(self._values(measure))
        sets = f", top {self.counts[0]} to {self.counts[-1]}" if measure.startswith("top_") else ""
        name = spelt(measure) + sets + (self._without() if measure in ("cpr", "cmd") else "")
        bounds = "-" if np.isnan(found.low) else f"{found.low:.3f} to {found.high:.3f}"
        return name, "-" if np.isnan(found.mean) else f"{found.mean:.3f}", bounds, _GOOD[measure]


def spelt(measure: str) -> str:
    """Return a measure's name for people."""
    return measure.upper() if measure in ("cpr", "cmd") else measure.removeprefix("top_")


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table: the first column on the left, the others on the right but for words at the end."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if index in (0, 3) else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def array(name: str, value: Any, shape: tuple[int | str, ...], *, unknown: bool = False) -> Tensor:
    """Return numbers of a shape as float64 on the CPU, a list's at their own precision."""
    if isinstance(value, list | tuple):
        try:
            value = np.asarray(value)
        except ValueError:
            raise ValueError(f"{name} must be an array, but its rows have different lengths: {value!r:.60}") from None
    return checks.tensor(name, value, shape, unknown=unknown).to("cpu", torch.float64)
