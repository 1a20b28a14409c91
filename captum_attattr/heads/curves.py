"""What a model loses, and saves, as heads go: pruning curves, and several rankings side by side."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from captum_attattr.checks import at_least
from captum_attattr.exceptions import ResultFileError, UnsupportedModelError
from captum_attattr.explanations.encoding import Text
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.files import existing_file, replacing
from captum_attattr.heads.evaluation import EvaluationRows, Metric, evaluation_rows, without_heads
from captum_attattr.heads.importance import HeadImportance, Pair, random_importance
from captum_attattr.heads.latency import structure
from captum_attattr.model.attention_layers import every_layer
from captum_attattr.model.head_pruning import planned_cuts
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.model.projections import Heads
from captum_attattr.runs.batches import run_batches
from captum_attattr.runs.digests import data_digest
from captum_attattr.runs.processes import is_main_process


@dataclass(frozen=True)
class PruningCurve:
    """A model with more and more of its heads off. S steps.

    Attributes:
        name: the ranking: a method of `head_importance`, with its options where they are not the usual ones.
        order: which heads go first, the "least" or the "most" important.
        heads: (S,) how many heads are off.
        total: how many heads there are.
        metric_name: what `metric` is: "accuracy", "pearson" ...
        metric: (S,) on the evaluation rows.
        loss: (S,) the mean loss on the evaluation rows.
        ranking: the heads as they go, [layer, head].
        ranking_rows: the number of examples that the ranking was made from.
        evaluation_rows: the number of examples that metric and loss are measured on.
        shared_rows: how many of the evaluation rows the ranking had seen.
        parameters: (S,) parameters of the model once the heads are cut out; empty unless that was asked for, and
            in other processes than the first.
        latency: (S,) seconds that the cut model takes for a batch, divided by what the whole model takes for it
            in turn (the median of several); empty likewise.
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

    @property
    def area(self) -> float:
        """The mean height of the metric's curve, over the share of heads that are off (trapezoidal rule)."""
        return float(np.trapezoid(self.metric, np.asarray(self.heads) / self.total))

    def at(self, share: float) -> int:
        """The step whose share of heads off is nearest to `share`."""
        return int(np.abs(np.asarray(self.heads) / self.total - share).argmin())


@dataclass(frozen=True)
class PruningComparison:
    """Curves of several rankings on the same rows; the random ones, by different seeds, are the control.

    Attributes:
        curves: one for each importance and order.
        random: random rankings; one curve for each seed.
    """

    curves: list[PruningCurve]
    random: list[PruningCurve]

    def table(self) -> str:
        """The area under every curve, and the random mean with its spread, as text."""
        if not self.curves and not self.random:
            return "no curves"
        names = sorted({curve.name for curve in self.curves}, key=[c.name for c in self.curves].index)
        width = max(map(len, [*names, f"random ({len(self.random)} seeds)"]))
        metric = (self.curves or self.random)[0].metric_name
        lines = [f"area under the {metric} curve", f"{'':{width}}  least first  most first"]
        for name in names:
            areas = {curve.order: f"{curve.area:.4f}" for curve in self.curves if curve.name == name}
            lines.append(f"{name:{width}}  {areas.get('least', '-'):>11}  {areas.get('most', '-'):>10}")
        if self.random:
            areas_ = [curve.area for curve in self.random]
            spread = f" ± {statistics.stdev(areas_):.4f}" if len(areas_) > 1 else ""
            lines.append(f"{f'random ({len(areas_)} seeds)':{width}}  {statistics.mean(areas_):>11.4f}{spread}")
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a JSON file.

        Returns:
            The path.

        Raises:
            ValueError: the directory does not exist, or `path` is one.
        """
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> PruningComparison:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ResultFileError: not a file of `save`, or damaged.
        """
        file = existing_file(path)
        try:
            read = json.loads(file.read_text(encoding="utf-8"))
            found = {f.name: [PruningCurve(**curve) for curve in read.pop(f.name)] for f in fields(cls)}
            for curve in (*found["curves"], *found["random"]):
                if not len(curve.heads) == len(curve.metric) == len(curve.loss):
                    raise ValueError(
                        f"the curve of {curve.name!r} has {len(curve.heads)} steps, but not as many values"
                    )
            return cls(**found, **read)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ResultFileError(f"{str(path)!r} holds no pruning curves: {error}") from error


def pruning_curve(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Text],
    labels: Sequence[Any],
    importance: HeadImportance,
    steps: int = 11,
    order: str = "least",
    *,
    metric: Metric | None = None,
    structural: bool = False,
    together: bool | None = None,
    batch_size: int = 32,
    truncate: bool | int = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> PruningCurve:
    """Switch off more and more heads, by their importance, and measure what is left of the model.

    Of n heads, floor(k n / (steps - 1)) are off at step k = 0 .. steps - 1, each number once. Nothing is trained in
    between. Of encoder-decoders n counts the encoder's heads.

    Args:
        model, tokenizer: as in `head_importance`.
        examples, labels: the evaluation rows; better not those that `importance` was made from.
        importance: the ranking.
        steps: how many points the curve has, no head and all heads off included.
        order: "least" important heads first, or "most".
        metric: "accuracy", "matthews", "pearson", or a function of (predictions, labels); by default accuracy,
            or Pearson's correlation for a regression. Of several labels for each example, accuracy is the share
            of the examples of which all are right, and functions get lists of 0 and 1.
        structural: also cut the heads out of copies of the model, and measure parameters and latency; with `resume`
            these are measured again.
        together: whether heads that can only be cut out together (key-value groups, shared weights) also go
            together here, by their mean score; n is then their number. By default as `structural`, which needs it.
        batch_size, truncate, resume, progress: as in `head_importance`.

    Returns:
        The curve.

    Raises:
        TypeError, ValueError: fewer than two steps, an unknown order or metric, an importance of another shape,
            labels that do not match, no example; `structural` inside `mask_heads` or without `together`.
        UnsupportedModelError: `structural`, and heads of this model cannot be cut out.
    """
    steps = _checked_steps(steps)
    if not isinstance(importance, HeadImportance):
        raise TypeError(f"importance must be a HeadImportance, got {type(importance).__name__}")
    if structural and together is False:
        raise ValueError("together=False: with structural=True heads of one group can only be cut out together")
    rows = evaluation_rows(model, tokenizer, examples, labels, metric, batch_size, truncate)
    units = _units(rows.texts, importance, order, structural if together is None else together)
    if structural:
        _check_structure(rows.texts, units)
    return _curve(rows, importance, units, steps, order, structural, resume, progress)


def _checked_steps(steps: Any) -> int:
    return at_least(2, steps, "steps", "no head off, and all of them")


def _check_structure(texts: TextModel, units: list[list[Pair]]) -> None:
    """Find out before any work whether all heads can be cut out."""
    layers = every_layer(texts.model, texts.kind)
    try:
        planned_cuts(texts.model, [(layers[layer], head) for unit in units for layer, head in unit])
    except (UnsupportedModelError, ValueError) as error:
        raise type(error)(
            f"{error}. With structural=False heads are only switched off, and no time is taken"
        ) from error


def _curve(
    rows: EvaluationRows,
    importance: HeadImportance,
    units: list[list[Pair]],
    steps: int,
    order: str,
    structural: bool,
    resume: str | os.PathLike[str] | None,
    progress: bool,
) -> PruningCurve:
    """The curve of checked arguments; `units` are the heads in the order in which they go."""
    counts = list(dict.fromkeys(k * len(units) // (steps - 1) for k in range(steps)))
    gone = [[pair for unit in units[:count] for pair in unit] for count in counts]
    about = {"curve": importance.name, "order": order, "heads": data_digest(gone), **rows.about}
    with evaluation_mode(rows.texts.model):
        values = _evaluate(rows, gone, about, resume, progress)
        at_once = max(map(len, rows.batches))
        cut = structure(rows, gone, at_once, progress) if structural and is_main_process() else []
    seen = set(importance.examples)
    return PruningCurve(
        name=importance.name,
        order=order,
        heads=[len(heads) for heads in gone],
        total=sum(len(unit) for unit in units),
        metric_name=rows.metric_name,
        metric=[rows.measure(part[:, 1:]) for part in values],
        loss=[float(part[:, 0].mean()) for part in values],
        ranking=[list(pair) for unit in units for pair in unit],
        ranking_rows=importance.count,
        evaluation_rows=len(rows.items),
        shared_rows=sum(digest in seen for digest in rows.digests),
        parameters=[parameters for parameters, _ in cut],
        latency=[latency for _, latency in cut],
    )


def _units(texts: TextModel, importance: HeadImportance, order: str, together: bool) -> list[list[Pair]]:
    """The heads in the order in which they go, if wanted together those that can only go together.

    Raises:
        ValueError: an unknown order, or an importance of another model.
    """
    ranking = importance.ranking(order)
    if importance.scores.shape != (texts.depth, texts.width):
        raise ValueError(
            f"importance has {tuple(importance.scores.shape)} (layers, heads), the model ({texts.depth}, {texts.width})"
        )
    present = texts.present(texts.width)
    unknown = [tuple(pair) for pair in present.nonzero().tolist() if tuple(pair) not in set(ranking)]
    if unknown:
        raise ValueError(
            f"importance has no score for {len(unknown)} heads of the model, the first (layer, head) {unknown[0]}"
        )
    ranking = [pair for pair in ranking if present[pair]]
    if not together:
        return [[pair] for pair in ranking]
    by_key: dict[tuple[int, int], list[Pair]] = {}
    for layer in texts.layers:
        heads = Heads(layer)
        for number in heads.indices:
            by_key.setdefault((id(layer.module), heads.group_of(number)[0]), []).append((layer.index, number))
    scores = importance.scores
    units = [sorted(unit, key=ranking.index) for unit in by_key.values()]
    sign = 1 if order == "least" else -1
    return sorted(units, key=lambda unit: (sign * float(sum(scores[p] for p in unit)) / len(unit), unit[0]))


def _evaluate(
    rows: EvaluationRows,
    gone: list[list[Pair]],
    about: dict[str, Any],
    resume: str | os.PathLike[str] | None,
    progress: bool,
) -> Tensor:
    """(S, N, 1 + P) loss and prediction of every example at every step."""
    count = len(rows.items)
    repeated = [[step * count + place for place in batch] for step in range(len(gone)) for batch in rows.batches]

    def work(places: list[int]) -> Tensor:
        step, own = places[0] // count, [place % count for place in places]
        return without_heads(rows.texts, [rows.items[row] for row in own], rows.gold[own], gone[step])

    values = run_batches(repeated, work, about, resume=resume, progress=progress, desc=f"curve {about['curve']}")
    return values.reshape(len(gone), count, -1)


def compare_pruning(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Text],
    labels: Sequence[Any],
    importances: Sequence[HeadImportance] | Mapping[str, HeadImportance],
    steps: int = 11,
    *,
    orders: Sequence[str] = ("least", "most"),
    random_seeds: int = 5,
    structural: bool = True,
    metric: Metric | None = None,
    batch_size: int = 32,
    truncate: bool | int = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> PruningComparison:
    """Pruning curves of several rankings, and of random ones, on the same evaluation rows.

    `plot_pruning_curve` draws the result into one figure: the metric beside the latency.

    Args:
        model, tokenizer, examples, labels, steps, metric, batch_size, truncate, progress: as in `pruning_curve`.
        importances: the rankings, one curve for each and for each of `orders`: a list, whose curves have the
            methods' names, or a dict by names of one's own.
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
    """
    steps, seeds = _checked_steps(steps), at_least(0, random_seeds, "random_seeds")
    given, orders = _checked_importances(importances), _checked_orders(orders)
    rows = evaluation_rows(model, tokenizer, examples, labels, metric, batch_size, truncate)
    chance = [random_importance(rows.texts, seed, rows.about["model"]) for seed in range(seeds)]
    wanted = [(name, one, order, _file(name, order)) for order in orders for name, one in given]
    wanted += [(one.name, one, "least", f"random_{seed}.jsonl") for seed, one in enumerate(chance)]
    units = [_units(rows.texts, one, order, structural) for _, one, order, _ in wanted]
    if structural:
        _check_structure(rows.texts, units[0])
    folder = _made(resume) if resume is not None else None
    curves = []
    for (name, one, order, file), own in zip(wanted, units, strict=True):
        kept = folder / file if folder else None
        cut = structural and order == "least" and one not in chance
        curves.append(replace(_curve(rows, one, own, steps, order, cut, kept, progress), name=name))
    return PruningComparison(curves[: len(curves) - seeds], curves[len(curves) - seeds :])


def _file(name: str, order: str) -> str:
    """The file of a curve in a comparison's folder."""
    plain = re.sub(r"\W+", "_", name)[:60]
    return f"curve_{plain}_{order}_{data_digest(name)[:6]}.jsonl"  # names may differ in what a file name cannot hold


def _checked_importances(importances: Any) -> list[tuple[str, HeadImportance]]:
    """Importances and their names."""
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
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two importances are called {twice[0]!r}; give a dict with a name for each")
    return given


def _checked_orders(orders: Any) -> list[str]:
    found = list(orders) if isinstance(orders, Iterable) and not isinstance(orders, str) else []
    if not found or len(set(map(str, found))) < len(found) or any(order not in ("least", "most") for order in found):
        raise ValueError(f"orders={orders!r} must be a list with 'least', 'most' or both")
    return found


def _made(folder: str | os.PathLike[str]) -> Path:
    if not isinstance(folder, str | os.PathLike):
        raise TypeError(f"resume must be the path of a folder, got {type(folder).__name__}: {folder!r}")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"resume={str(folder)!r} must be a folder, and cannot be made: {error.strerror}") from error
    return Path(folder)
