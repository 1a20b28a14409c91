"""Names of methods in one figure: long ones are cut, and what differs reads differently."""

from __future__ import annotations

import json
from typing import Any

import pytest
import results
from pictured import curve

from captum_attattr import plot_correlation, plot_faithfulness, plot_heads, plot_pruning_curve
from captum_attattr.plots.canvas.labels import NAME_LENGTH, name_labels

LONG = "attattr (reduce=sum, output=log_probability, path=joint"
PAIRS: dict[str, list[str]] = {
    "short": ["attattr", "taylor"],
    "alike at first": [f"{LONG})", f"{LONG}, baseline=sink)"],
    "alike at both ends": [f"{LONG}, one, {LONG}", f"{LONG}, two, {LONG}"],
    "alike but for what is not shown": ["a\nb", "a\r\nb"],
    "a prefix": [LONG, LONG[:NAME_LENGTH]],
}


@pytest.mark.parametrize("names", PAIRS.values(), ids=PAIRS)
def test_names_that_differ_read_differently(names: list[str]) -> None:
    labels = name_labels(names)
    assert len(set(labels)) == 2
    assert name_labels([names[0]] * 2) == name_labels(names[:1]) * 2


def test_only_what_would_read_alike_is_cut_at_its_beginning() -> None:
    assert name_labels(["attattr", f"{LONG})"])[1].strip("\u2068\u2069") == LONG[: NAME_LENGTH - 1] + "…"
    first, second, third = (label.strip("\u2068\u2069") for label in name_labels([*PAIRS["alike at first"], "taylor"]))
    assert first.endswith("path=joint)")
    assert second.endswith("baseline=sink)")
    assert third == "taylor"


FIGURES: dict[str, Any] = {
    "heads": lambda names: plot_heads({name: results.importance(seed=i) for i, name in enumerate(names)}),
    "correlation": lambda names: plot_correlation(results.importance(), results.importance(seed=1), names=tuple(names)),
    "curves": lambda names: plot_pruning_curve([curve(name) for name in names]),
    "faithfulness": lambda names: plot_faithfulness({name: results.faithfulness() for name in names}),
}


@pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
@pytest.mark.parametrize("names", PAIRS.values(), ids=PAIRS)
def test_figures_tell_all_names(figure: Any, names: list[str]) -> None:
    shown = json.dumps(json.loads(figure(names).to_json()), ensure_ascii=False)
    for label in name_labels(names):
        assert json.dumps(label, ensure_ascii=False)[1:-1] in shown
