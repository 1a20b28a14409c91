"""`AttributionComparison`: what several methods are worth on the same texts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from captum_attattr import checks
from captum_attattr.evaluation import measures
from captum_attattr.evaluation.measures import Floats, Interval
from captum_attattr.evaluation.result import MEASURES, REMOVALS, UNITS, Faithfulness, aligned, array, spelt
from captum_attattr.exceptions import warn_caller
from captum_attattr.files import from_entry, read_format, reading, write_json
from captum_attattr.formatting import counted
from captum_attattr.notebooks import Shown, View, comparison_view

_FORMAT = "captum_attattr comparison of attributions"
PARTS = ("top", "random", "all")
"""Sets of units that are removed one by one: the largest of any method, some at random, or all."""


@dataclass(frozen=True, eq=False)
class Compared:
    """One method on N texts.

    Attributes:
        faithfulness: its curves and measures.
        correlations: by set of units ("top", "random" or "all"), (N, 2): Spearman's and Pearson's correlation of each
            text's scores with the exact effects of removing each unit alone; NaN where one of them is constant.
        rows: (N,) how many rows the model ran to explain each text.
        seconds: (N,) how long that took.
        heads: (N, L, H) the sum of each head's scores; NaN where the method does not tell heads apart.
    """

    faithfulness: Faithfulness
    correlations: Mapping[str, Tensor]
    rows: Tensor
    seconds: Tensor
    heads: Tensor

    def __post_init__(self) -> None:
        measured = checks.instance("faithfulness", self.faithfulness, Faithfulness, "a Faithfulness")
        count = len(measured.full)
        found = checks.instance("correlations", self.correlations, Mapping, "a dict")
        checks.set_fields(
            self,
            correlations={
                checks.one_of("a set of units", part, PARTS): array(
                    f"correlations[{part!r}]", pairs, (count, 2), unknown=True
                )
                for part, pairs in found.items()
            },
            rows=array("rows", self.rows, (count,)),
            seconds=array("seconds", self.seconds, (count,)),
            heads=array("heads", self.heads, (count, *measured.heads.shape), unknown=True),
        )


@dataclass(frozen=True, eq=False, repr=False)
class AttributionComparison(Shown):
    """Several methods on the same texts; of `compare_attributions`. It checks itself when it is made.

    Attributes:
        methods: by name, what each came to.
        texts: the N texts, or pairs.

    Raises:
        TypeError, ValueError: no method, or methods that were not measured on the same examples in the same way.
    """

    methods: Mapping[str, Compared]
    texts: list[Any]

    def __post_init__(self) -> None:
        methods = dict(checks.instance("methods", self.methods, Mapping, "a dict"))
        if not methods:
            raise ValueError("methods is empty: there is nothing to compare")
        texts = [
            checks.text_or_pair(f"texts[{i}]", text) for i, text in enumerate(checks.sequence("texts", self.texts))
        ]
        first = next(iter(methods.values())).faithfulness
        for name, compared in methods.items():
            checks.instance(f"methods[{name!r}]", compared, Compared, "a Compared")
            one = compared.faithfulness
            same = all(
                getattr(one, part) == getattr(first, part) for part in ("unit", "removal", "fractions", "counts")
            )
            if not same or len(one.full) != len(texts):
                raise ValueError(f"methods[{name!r}] was not measured as the others, or on other texts")
        checks.set_fields(self, methods=methods, texts=texts)

    @property
    def names(self) -> list[str]:
        """The methods' names."""
        return list(self.methods)

    @property
    def results(self) -> dict[str, Faithfulness]:
        """Each method's curves and measures."""
        return {name: compared.faithfulness for name, compared in self.methods.items()}

    @property
    def stability(self) -> dict[str, float]:
        """How far a method's top tenth of the heads stays the same for other texts: see `measures.stability`.

        Edges of texts of several lengths do not correspond, so it is their sums by head; NaN where there are none.
        """
        told = {name: compared.heads.flatten(1).numpy() for name, compared in self.methods.items()}
        few = len(self.texts) < measures.FEWEST
        return {name: math.nan if few else measures.stability(heads) for name, heads in told.items()}

    def correlation(self, name: str, part: str, kind: str = "spearman") -> Interval:
        """Return the mean over the texts of a method's correlation with the exact effects, and its interval.

        Args:
            name: of the method.
            part: "top" or "random" edges, or "all" heads or tokens.
            kind: "spearman" or "pearson".

        Raises:
            ValueError: there is no such method or set of units.

        Warns:
            UserWarning: fewer than five texts have one, or all have the same: there is no interval.
        """
        return _told(self._correlations(name, part, kind), f"{kind}, {part}")

    def _correlations(self, name: str, part: str, kind: str = "spearman") -> Floats:
        found = self.methods[checks.one_of("name", name, self.names)].correlations
        column = ("spearman", "pearson").index(checks.one_of("kind", kind, ("spearman", "pearson")))
        values: Floats = found[checks.one_of("part", part, tuple(found))][:, column].numpy()
        return values

    def difference(self, measure: str, name: str, other: str) -> Interval:
        """Return the mean of a measure of one method minus another's, text by text, and its bootstrap interval.

        Args:
            measure: one of `Faithfulness`.
            name, other: of the methods.

        Raises:
            ValueError: there is no such measure or method.

        Warns:
            UserWarning: fewer than five texts have one, or all have the same: there is no interval.
        """
        return _told(self._differences(measure, name, other), f"difference in {measure}")

    def _differences(self, measure: str, name: str, other: str) -> Floats:
        first, second = (
            self.results[checks.one_of("name", each, self.names)].values(measure) for each in (name, other)
        )
        values: Floats = (first - second).numpy()
        return values

    def table(self, against: str | None = None) -> str:
        """Return all measures of all methods, and the paired differences to one of them, as text.

        Args:
            against: the method that others are compared with; the first one if it is None.

        Raises:
            ValueError: there is no such method.

        Warns:
            UserWarning: there are fewer than five texts: there are no intervals.
        """
        tables = self.tables(against)
        if len(self.texts) < measures.FEWEST:
            warn_caller(measures.why_no_interval(np.zeros(len(self.texts))))
        lines = [self.measured(), *aligned(tables[0])]
        if len(tables[1]) > 1:
            lines += ["", *aligned(tables[1])]
        if left_out := self.left_out():
            lines.append(left_out)
        return "\n".join(lines)

    def measured(self) -> str:
        """Return what was measured, as a line: the output, how many texts, what was removed."""
        one = next(iter(self.results.values()))
        return f"{one.output_name}, {counted(len(self.texts), 'text')}, {UNITS[one.unit]} {REMOVALS[one.removal]}"

    def left_out(self) -> str:
        """Return how many texts two of the measures leave out, as a line; "" for none."""
        counts = [one.left_out for one in self.results.values()]
        if not sum(counts):
            return ""
        return f"CPR and CMD leave out {counted(counts[0], 'text')} that attention hardly matters for"

    def tables(self, against: str | None = None) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
        """Return the rows of `table`, cell by cell, the headings first: the measures, and the paired differences.

        Args:
            against: as in `table`.

        Raises:
            ValueError: there is no such method.
        """
        against = self.names[0] if against is None else checks.one_of("against", against, self.names)
        one = self.results[against]
        shown = [measure for measure in MEASURES if one.counts or not measure.startswith("top_")]
        parts = list(self.methods[against].correlations)
        heading = ["", *(f"top: {spelt(m)}" if m.startswith("top_") else spelt(m) for m in shown)]
        heading += [f"Spearman, {part}" for part in parts] + ["stability", "rows", "seconds"]
        stability = self.stability
        rows: list[tuple[str, ...]] = [tuple(heading)]
        for name, compared in self.methods.items():
            cells = [_cell(measures.quiet_interval(compared.faithfulness.values(measure).numpy())) for measure in shown]
            cells += [_cell(measures.quiet_interval(self._correlations(name, part))) for part in parts]
            cells += [_number(stability[name], 2), f"{compared.rows.mean():.1f}", f"{compared.seconds.mean():.3f}"]
            rows.append((name, *cells))
        differences: list[tuple[str, ...]] = [(f"minus {against}", *heading[1 : len(shown) + 1])]
        for name in self.names:
            if name != against:
                pairs = [self._differences(measure, name, against) for measure in shown]
                cells = [_cell(measures.quiet_interval(pair), True) for pair in pairs]
                differences.append((name, *cells))
        return rows, differences

    def _line(self) -> str:
        found = ", ".join(f"{name} {one.comprehensiveness:.3f}" for name, one in self.results.items())
        return f"{counted(len(self.texts), 'text')}, comprehensiveness: {found}"

    def _view(self) -> View:
        return comparison_view(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a JSON file.

        Returns:
            The path.

        Raises:
            TypeError, ValueError: `path` is no path or a directory, or its directory does not exist.
        """
        methods = {
            name: _plain(compared) | {"faithfulness": _plain(compared.faithfulness)}
            for name, compared in self.methods.items()
        }
        return write_json(path, {"format": _FORMAT, "version": 1, "texts": self.texts, "methods": methods})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> AttributionComparison:
        """Read what `save` wrote.

        Raises:
            TypeError, FileNotFoundError: `path` is no path, or there is no such file.
            ResultFileError: not a file of `save`, damaged, or of another version.
        """
        with reading(path, "comparison of attributions", "AttributionComparison.save") as file:
            content = read_format(file, _FORMAT)
            methods = {}
            for name, entry in checks.instance("methods", content["methods"], dict, "an object").items():
                entry = _known(checks.instance(f"methods[{name!r}]", entry, dict, "an object"))
                entry["faithfulness"] = from_entry(Faithfulness, _known(entry["faithfulness"]), f"methods[{name!r}]")
                methods[name] = from_entry(Compared, entry, f"methods[{name!r}]")
            texts = checks.sequence("texts", content["texts"])
            return cls(methods, [tuple(text) if isinstance(text, list) else text for text in texts])


def _told(values: Floats, what: str) -> Interval:
    """Return the mean over the texts and its interval.

    Warns:
        UserWarning: there is no interval.
    """
    found = measures.quiet_interval(values)
    if math.isnan(found.low):
        warn_caller(f"{what}: {measures.why_no_interval(values)}")
    return found


def _cell(found: Interval, signed: bool = False) -> str:
    """Return a mean with its interval."""
    if math.isnan(found.mean):
        return "-"
    sign = "+" * signed
    bounds = "" if math.isnan(found.low) else f" [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
    return f"{found.mean:{sign}.3f}{bounds}"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _plain(result: Any) -> dict[str, Any]:
    """Return a dataclass's fields for JSON, which has no NaN: None stands for it."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            value = value.tolist()
        if isinstance(value, Mapping):
            return {key: plain(one) for key, one in value.items()}
        if isinstance(value, list):
            return [plain(one) for one in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return {field.name: plain(getattr(result, field.name)) for field in fields(result) if field.name != "faithfulness"}


def _known(value: Any) -> Any:
    """Return what JSON holds with NaN for None."""
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_known(one) for one in value]
    return math.nan if value is None else value
