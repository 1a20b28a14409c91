"""Pruning curves of several rankings, and of random ones, on the same examples."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from captum_attattr.checks import at_least, checked_arguments
from captum_attattr.explanations.encoding import Text
from captum_attattr.files import checked_path
from captum_attattr.heads.curves import ORDERS, PruningComparison
from captum_attattr.heads.evaluation import Evaluation, Metric
from captum_attattr.heads.importance import HeadImportance, random_importance
from captum_attattr.heads.labelled_examples import LabelledExamples
from captum_attattr.heads.pruning import check_cuts, checked_steps, measured_curve, units_in_order
from captum_attattr.runs.digests import data_digest


@checked_arguments
def compare_pruning(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Text],
    labels: Sequence[Any],
    importances: Sequence[HeadImportance] | Mapping[str, HeadImportance],
    steps: int = 11,
    *,
    orders: Sequence[str] = ORDERS,
    random_seeds: int = 5,
    structural: bool = True,
    metric: Metric | None = None,
    batch_size: int = 32,
    truncate: bool | int = False,
    task: str | None = None,
    split_into_words: bool = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> PruningComparison:
    """Pruning curves of several rankings, and of random ones, on the same evaluation rows.

    `plot_pruning_curve` draws the result into one figure: the metric beside the latency.

    Args:
        model, tokenizer, examples, labels, steps, metric, batch_size, truncate, task, split_into_words, progress: as in
            `pruning_curve`.
        importances: the rankings, one curve for each and for each of `orders`: a list, whose curves have the
            methods' names, or a dict by other names.
        orders: "least", "most" or both.
        random_seeds: how many random rankings.
        structural: measure parameters and latency too, with the least important heads going first. Heads that
            can only be cut out together (key-value groups, shared weights) then go together in all of the curves,
            so that they compare the same steps.
        resume: a folder, made if it is missing, with a file for each curve that is continued as in `pruning_curve`.

    Returns:
        The curves.

    Raises:
        TypeError, ValueError: no importance, and whatever `pruning_curve` refuses.
        UnsupportedModelError: `structural`, and heads of this model cannot be cut out.

    Example:
        >>> from captum_attattr import head_importance
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> rows = *load_demo_model(), ["a fine film", "a dull film"], ["positive", "negative"]
        >>> importance = head_importance(*rows, "attention", progress=False)
        >>> comparison = compare_pruning(*rows, [importance], steps=2, structural=False, progress=False)
        >>> [(curve.name, curve.order) for curve in comparison.curves], len(comparison.random)
        ([('attention', 'least'), ('attention', 'most')], 5)
    """
    steps, seeds = checked_steps(steps), at_least(0, random_seeds, "random_seeds")
    given, orders = _checked_importances(importances), _checked_orders(orders)
    labelled = LabelledExamples.of(
        model, tokenizer, examples, labels, batch_size, truncate, task=task, split_into_words=split_into_words
    )
    evaluation = Evaluation.of(labelled, metric)
    texts = labelled.texts
    digest = labelled.fingerprint["model"]
    chance = [random_importance(texts, seed, digest) for seed in range(seeds)]
    wanted = [(name, one, order, _file(name, order)) for order in orders for name, one in given]
    wanted += [(one.name, one, "least", f"random_{seed}.jsonl") for seed, one in enumerate(chance)]
    units = [units_in_order(texts, one, order, structural) for _, one, order, _ in wanted]
    if structural:
        check_cuts(texts, units[0])
    folder = None if resume is None else _made(resume)
    curves = []
    for index, (name, one, order, file) in enumerate(wanted):
        cut = structural and order == "least" and index < len(wanted) - seeds
        kept = folder and folder / file
        curves.append(measured_curve(evaluation, one, units[index], steps, order, cut, kept, progress, name))
    return PruningComparison(curves[: len(wanted) - seeds], curves[len(wanted) - seeds :])


def _file(name: str, order: str) -> str:
    """Return the name of a curve's file in a comparison's folder."""
    plain = re.sub(r"\W+", "_", name)[:60]
    return f"curve_{plain}_{order}_{data_digest(name)[:6]}.jsonl"  # names may differ in what a file name cannot hold


def _checked_importances(importances: Any) -> list[tuple[str, HeadImportance]]:
    """Return importances with their names.

    Raises:
        TypeError, ValueError: something else, none, or two of one name.
    """
    if not isinstance(importances, Sequence | Mapping) or isinstance(importances, str):
        raise TypeError(f"importances must be a list or a dict, got {type(importances).__name__}")
    if not importances:
        raise ValueError("importances is empty: give at least one result of head_importance")
    pairs = importances.items() if isinstance(importances, Mapping) else [(None, one) for one in importances]
    for _, one in pairs:
        if not isinstance(one, HeadImportance):
            raise TypeError(f"importances must be results of head_importance, got {type(one).__name__} among them")
    given = [(one.name if name is None else name, one) for name, one in pairs]
    names = [name for name, _ in given]
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"the names of importances must be strings, got {names!r}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two importances are called {twice[0]!r}; give a dict with a name for each")
    return given


def _checked_orders(orders: Any) -> list[str]:
    """Return the orders as a list.

    Raises:
        ValueError: none, an unknown one, or one twice.
    """
    given = list(orders) if isinstance(orders, Iterable) and not isinstance(orders, str) else []
    if not given or len(set(map(str, given))) < len(given) or any(order not in ORDERS for order in given):
        raise ValueError(f"orders={orders!r} must be a list with 'least', 'most' or both")
    return given


def _made(folder: str | os.PathLike[str]) -> Path:
    """Return a folder's path, once it exists.

    Raises:
        TypeError, ValueError: no path, or one that cannot be made a folder.
    """
    path = checked_path(folder, "resume")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"resume={str(folder)!r} must be a folder, and cannot be made: {error.strerror}") from error
    return path
