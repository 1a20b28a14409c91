"""What a model loses, and saves, as heads go: the curve of one ranking, and curves of several side by side."""

from __future__ import annotations

import os
import statistics
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from captum_attattr import checks
from captum_attattr.files import read_json, reading, write_json
from captum_attattr.formatting import counted
from captum_attattr.notebooks import Shown, View, figure_view

ORDERS = ("least", "most")
"""Which heads go first: the least or the most important ones."""


@dataclass(frozen=True, repr=False)
class PruningCurve(Shown):
    """A model with more and more of its heads off. S steps.

    A curve checks itself when it is made.

    Attributes:
        name: the ranking: a method of `head_importance`, with its options where they are not the usual ones.
        order: which heads go first, the "least" or the "most" important.
        heads: (S,) how many heads are off, rising.
        total: how many heads there are.
        metric_name: what `metric` is: "accuracy", "pearson" ...
        metric: (S,) on the evaluation rows; at least one is finite.
        loss: (S,) the mean loss on the evaluation rows.
        ranking: the heads as they go, [layer, head]; all of them, or empty where they are not known.
        ranking_rows: the number of examples that the ranking was made from.
        evaluation_rows: the number of examples that metric and loss are measured on.
        shared_rows: how many of the evaluation rows the ranking had seen.
        parameters: (S,) parameters of the model once the heads are cut out; empty unless that was asked for, and
            in other processes than the first.
        latency: (S,) seconds that the cut model takes for a batch, divided by what the whole model takes for it
            in turn (the median of several); empty likewise.

    Raises:
        TypeError, ValueError: a part of another type, length or range; the message names it.
    """

    name: str
    order: str
    heads: list[int]
    total: int
    metric_name: str
    metric: list[float]
    loss: list[float]
    ranking: list[list[int]]
    ranking_rows: int
    evaluation_rows: int
    shared_rows: int
    parameters: list[int]
    latency: list[float]

    def _line(self) -> str:
        steps = f"{counted(len(self.heads), 'step')} of {counted(self.total, 'head')}"
        return f"{self.name}, {self.order} important first, {steps}, area under the {self.metric_name} {self.area:.4f}"

    def _view(self) -> View:
        return figure_view("plot_pruning_curve", self)

    def __post_init__(self) -> None:
        who = f"curve {checks.instance('the name of a curve', self.name, str, 'a string')!r}"
        if not isinstance(self.order, str) or self.order not in ORDERS:
            raise ValueError(f"the order of {who} must be 'least' or 'most', not {self.order!r}")
        heads = rising(f"heads of {who}", self.heads)
        metric = step_values(f"metric of {who}", self.metric, len(heads))
        loss = step_values(f"loss of {who}", self.loss, len(heads))
        if not heads:
            raise ValueError(f"{who} has no step")
        total = checks.at_least(1, self.total, "total", f"the heads of {who}")
        if heads[-1] > total:
            raise ValueError(f"{who} must have 0 to total={total} heads off, not {heads[0]} to {heads[-1]}")
        metric_name = checks.instance(f"metric_name of {who}", self.metric_name, str, "a string")
        if not np.isfinite(metric).any():
            raise ValueError(f"{who} has no finite {metric_name}: {metric}")
        rows = {
            name: checks.at_least(0, getattr(self, name), name, f"examples of {who}")
            for name in ("ranking_rows", "evaluation_rows", "shared_rows")
        }
        if rows["shared_rows"] > rows["evaluation_rows"]:
            raise ValueError(f"shared_rows of {who} must be among its {rows['evaluation_rows']} evaluation rows")
        # Processes other than the first have nothing measured: empty lists, or in old files zeros.
        parameters = checks.integers(f"parameters of {who}", self.parameters, smallest=0)
        if any(parameters) and not step_values(f"parameters of {who}", parameters, len(heads))[0] > 0:
            raise ValueError(f"parameters of {who} must be above 0 at the first step, not {parameters[0]}")
        latency = checks.reals(f"latency of {who}", self.latency)
        if any(latency) and min(step_values(f"latency of {who}", latency, len(heads))) < 0:
            raise ValueError(f"latency of {who} must be 0 or more, not {min(latency)}")
        checked = {"heads": heads, "total": total, "metric": metric, "loss": loss, **rows, "parameters": parameters}
        checks.set_fields(self, **checked, latency=latency, ranking=_ranking(who, self.ranking, total))

    @property
    def area(self) -> float:
        """The mean height of the metric's curve, over the fraction of heads that are off (trapezoidal rule)."""
        metric = np.asarray(self.metric)
        widths = np.diff(np.asarray(self.heads) / self.total)
        return float((widths * (metric[1:] + metric[:-1]) / 2).sum())

    def at(self, share: float) -> int:
        """Return the step whose fraction of heads off is nearest to `share`.

        Raises:
            ValueError: `share` is not from 0 to 1.
        """
        return int(np.abs(np.asarray(self.heads) / self.total - checks.fraction("share", share)).argmin())


@dataclass(frozen=True, repr=False)
class PruningComparison(Shown):
    """Curves of several rankings on the same rows; the random ones, by different seeds, are the control.

    Attributes:
        curves: one for each importance and order.
        random: random rankings; one curve for each seed.

    Raises:
        TypeError, ValueError: something else than curves, curves of different metrics, or two of one name and order.
    """

    curves: list[PruningCurve]
    random: list[PruningCurve]

    def __post_init__(self) -> None:
        for name in ("curves", "random"):
            curves = checks.sequence(name, getattr(self, name))
            for curve in curves:
                checks.instance(name, curve, PruningCurve, "curves that pruning_curve gives")
            object.__setattr__(self, name, curves)
        metrics = dict.fromkeys(curve.metric_name for curve in (*self.curves, *self.random))
        if len(metrics) > 1:
            raise ValueError(
                f"curves that are compared must have the same metric, not {' and '.join(map(repr, metrics))}"
            )
        named = [(curve.name, curve.order) for curve in self.curves]
        for name, order in named:
            if named.count((name, order)) > 1:
                raise ValueError(f"two curves are called {name!r}, {order} important first: give them different names")

    def _line(self) -> str:
        names = ", ".join(f"{curve.name} {curve.order} {curve.area:.4f}" for curve in self.curves)
        return f"{names}; {counted(len(self.random), 'random curve')}"

    def _view(self) -> View:
        return figure_view("plot_pruning_curve", self)

    def table(self) -> str:
        """Return the area under every curve, and the random mean with its spread, as text."""
        if not self.curves and not self.random:
            return "no curves"
        names = list(dict.fromkeys(curve.name for curve in self.curves))
        chance = f"random ({len(self.random)} seeds)"
        width = max(map(len, [*names, chance]))
        metric = (self.curves or self.random)[0].metric_name
        lines = [f"area under the {metric} curve", f"{'':{width}}  least first  most first"]
        for name in names:
            areas = {curve.order: f"{curve.area:.4f}" for curve in self.curves if curve.name == name}
            lines.append(f"{name:{width}}  {areas.get('least', '-'):>11}  {areas.get('most', '-'):>10}")
        if self.random:
            random = [curve.area for curve in self.random]
            spread = f" ± {statistics.stdev(random):.4f}" if len(random) > 1 else ""
            lines.append(f"{chance:{width}}  {statistics.mean(random):>11.4f}{spread}")
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a JSON file.

        Returns:
            The path.

        Raises:
            TypeError, ValueError: `path` is no path or a directory, or its directory does not exist.
        """
        return write_json(path, asdict(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PruningComparison:
        """Read what `save` wrote.

        Raises:
            TypeError, FileNotFoundError: `path` is no path, or there is no such file.
            ResultFileError: not a file of `save`, or damaged.
        """
        with reading(path, "pruning curves", "PruningComparison.save") as file:
            content = checks.instance("its content", read_json(file), dict, "an object")
            checks.names_match(content, (field.name for field in fields(cls)))
            return cls(**{name: [_curve(curve) for curve in checks.sequence(name, content[name])] for name in content})


def _curve(content: Any) -> PruningCurve:
    """Return the curve that a file holds."""
    content = checks.instance("a curve", content, dict, "an object")
    checks.names_match(content, (field.name for field in fields(PruningCurve)))
    return PruningCurve(**content)


def _ranking(who: str, value: Any, total: int) -> list[list[int]]:
    """Return a ranking as [layer, head] pairs: all heads, each once, or none."""
    ranking = [
        checks.integers(f"ranking[{rank}] of {who}", pair, 2, smallest=0)
        for rank, pair in enumerate(checks.sequence(f"ranking of {who}", value))
    ]
    if ranking and not len(ranking) == len(set(map(tuple, ranking))) == total:
        raise ValueError(f"ranking of {who} must hold each of its total={total} heads once, or be empty")
    return ranking


def rising(what: str, value: Any) -> list[int]:
    """Return how many heads are off at each step, 0 or more and rising, as Python's own.

    Raises:
        TypeError, ValueError: they are something else; the message begins with `what`.
    """
    heads = checks.integers(what, value, smallest=0)
    if any(later <= earlier for earlier, later in pairwise(heads)):
        raise ValueError(f"{what} must rise from step to step, not {heads!r:.60}")
    return heads


def step_values(what: str, value: Any, count: int) -> list[float]:
    """Return one number for each of `count` steps as Python's own; a model that overflows gives NaN and infinity.

    Raises:
        TypeError, ValueError: they are something else; the message begins with `what`.
    """
    values = [checks.real(entry) for entry in checks.sequence(what, value)]
    numbers = [entry for entry in values if entry is not None]
    if len(numbers) < len(values):
        raise TypeError(f"{what} must be numbers, not {value!r:.60}")
    if len(numbers) != count:
        raise ValueError(f"{what} must have one value for each of the {count} steps, not the shape ({len(numbers)},)")
    return numbers
