"""What a model loses, and saves, as heads go: pruning curves, and several rankings side by side."""

from __future__ import annotations

import copy
import json
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_attattr.attention import every_layer
from captum_attattr.exceptions import ResultFileError
from captum_attattr.files import replacing
from captum_attattr.gates import mask_heads
from captum_attattr.heads import HeadImportance, Pair, head_importance
from captum_attattr.metrics import METRICS, score
from captum_attattr.projections import Heads
from captum_attattr.pruning import prune_heads
from captum_attattr.runs import data_digest, is_main_process, run_batches, text_digests
from captum_attattr.texts import Encoded, Text, TextModel, evaluation_mode

Metric = str | Callable[[list[float], list[float]], float]
"""A name that `tasks.score` knows, or a function of predictions and labels."""

_LATENCY_REPEATS = 15


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
        if not Path(path).is_file():
            raise FileNotFoundError(f"no file {str(path)!r}")
        try:
            read = json.loads(Path(path).read_text(encoding="utf-8"))
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
    batch_size: int = 32,
    truncate: bool | int = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> PruningCurve:
    """Switch off more and more heads, by their importance, and measure what is left of the model.

    Of n heads, floor(k n / (steps - 1)) are off at step k = 0 .. steps - 1. Nothing is trained in between.

    Args:
        model, tokenizer: as in `head_importance`.
        examples, labels: the evaluation rows; better not those that `importance` was made from.
        importance: the ranking.
        steps: how many points the curve has, no head and all heads off included.
        order: "least" important heads first, or "most".
        metric: "accuracy", "matthews", "pearson", or a function of (predictions, labels); by default accuracy,
            or Pearson's correlation for a regression.
        structural: also cut the heads out of copies of the model, and measure parameters and latency. Heads
            that can only go together (key-value groups, shared weights) then go together, by their mean score.
        batch_size, truncate, resume, progress: as in `head_importance`.

    Returns:
        The curve.

    Raises:
        TypeError, ValueError: fewer than two steps, an unknown order or metric, an importance of another shape,
            labels that do not match, no example.
        UnsupportedModelError: `structural`, and heads of this model cannot be cut out.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise ValueError(f"steps={steps!r} must be an int of 2 or more: no head off, and all of them")
    if not isinstance(importance, HeadImportance):
        raise TypeError(f"importance must be a HeadImportance, got {type(importance).__name__}")
    texts = TextModel(model, tokenizer, truncate)
    items = texts.encode_all(examples)
    gold = texts.labels(labels, items)
    batches = texts.batches(items, batch_size)
    if importance.scores.shape != (texts.depth, texts.width):
        raise ValueError(
            f"importance has {tuple(importance.scores.shape)} (layers, heads), the model ({texts.depth}, {texts.width})"
        )
    units = _units(texts, importance, order, structural)
    counts = [k * len(units) // (steps - 1) for k in range(steps)]
    gone = [[pair for unit in units[:count] for pair in unit] for count in counts]
    name, measure = checked_metric(metric, texts)
    digests = text_digests(item.text for item in items)
    about = {"curve": importance.name, "order": order, "heads": data_digest(gone)}
    about |= texts.fingerprint(items, gold, batches)
    with evaluation_mode(model):
        values = _evaluate(texts, items, gold, gone, batches, about, resume, progress)
        cut = _structure(texts, items, gone, batch_size) if structural and is_main_process() else []
    seen = set(importance.examples)
    return PruningCurve(
        name=importance.name,
        order=order,
        heads=[len(heads) for heads in gone],
        total=sum(len(unit) for unit in units),
        metric_name=name,
        metric=[float(measure(part[:, 1].tolist(), gold.tolist())) for part in values],
        loss=[float(part[:, 0].mean()) for part in values],
        ranking=[list(pair) for unit in units for pair in unit],
        ranking_rows=importance.count,
        evaluation_rows=len(items),
        shared_rows=sum(digest in seen for digest in digests),
        parameters=[parameters for parameters, _ in cut],
        latency=[latency for _, latency in cut],
    )


def checked_metric(metric: Metric | None, texts: TextModel) -> tuple[str, Callable[[list[float], list[float]], float]]:
    """The name and the function of a metric; the usual one for None.

    Raises:
        TypeError, ValueError: no metric that is known.
    """
    if metric is None:
        metric = "pearson" if texts.regression else "accuracy"
    if callable(metric):
        return getattr(metric, "__name__", "metric"), metric
    if not isinstance(metric, str):
        raise TypeError(f"metric={metric!r} must be one of {', '.join(METRICS)}, or a function")
    if metric not in METRICS:
        raise ValueError(f"metric={metric!r} is unknown; use one of {', '.join(METRICS)}, or a function")
    if (metric == "pearson") != texts.regression:
        kind, fits = ("a score", "'pearson'") if texts.regression else ("classes", "'accuracy' or 'matthews'")
        raise ValueError(f"metric={metric!r} does not fit a model that gives {kind}; use {fits}")
    return metric, partial(score, metric)


def _units(texts: TextModel, importance: HeadImportance, order: str, structural: bool) -> list[list[Pair]]:
    """The heads in the order in which they go, together those that can only go together."""
    ranking = importance.ranking(order)
    present = texts.present(texts.width)
    unknown = [tuple(pair) for pair in present.nonzero().tolist() if tuple(pair) not in set(ranking)]
    if unknown:
        raise ValueError(
            f"importance has no score for {len(unknown)} heads of the model, the first (layer, head) {unknown[0]}"
        )
    ranking = [pair for pair in ranking if present[pair]]
    if not structural:
        return [[pair] for pair in ranking]
    by_key: dict[tuple[int, int], list[Pair]] = {}
    for layer in texts.layers:
        heads = Heads(layer)
        for number in heads.numbers:
            by_key.setdefault((id(layer.module), heads.group_of(number)[0]), []).append((layer.index, number))
    scores = importance.scores
    units = [sorted(unit, key=ranking.index) for unit in by_key.values()]
    sign = 1 if order == "least" else -1
    return sorted(units, key=lambda unit: (sign * float(sum(scores[p] for p in unit)) / len(unit), unit[0]))


def _evaluate(
    texts: TextModel,
    items: list[Encoded],
    gold: Tensor,
    gone: list[list[Pair]],
    batches: list[list[int]],
    about: dict[str, Any],
    resume: str | os.PathLike[str] | None,
    progress: bool,
) -> Tensor:
    """(S, N, 2) loss and prediction of every example at every step."""
    count = len(items)
    repeated = [[step * count + place for place in batch] for step in range(len(gone)) for batch in batches]

    def work(places: list[int]) -> Tensor:
        step, rows = places[0] // count, [place % count for place in places]
        return without_heads(texts, [items[row] for row in rows], gold[rows], gone[step])

    values = run_batches(repeated, work, about, resume=resume, progress=progress, desc=f"curve {about['curve']}")
    return values.reshape(len(gone), count, 2)


def without_heads(texts: TextModel, items: list[Encoded], gold: Tensor, heads: list[Pair]) -> Tensor:
    """(B, 2) loss and prediction (a class, a token or a score) of a batch with some heads off."""
    layers, inputs = every_layer(texts.model, texts.kind), texts.inputs(items)
    masked = mask_heads(texts.model, [(layers[layer], head) for layer, head in heads]) if heads else nullcontext()
    with torch.no_grad(), masked:
        logits = texts.logits(inputs)
    return torch.stack((texts.losses(logits, gold).double(), texts.predictions(logits).double()), dim=1)


def _structure(
    texts: TextModel, items: list[Encoded], gone: list[list[Pair]], batch_size: int
) -> list[tuple[int, float]]:
    """Parameters and relative latency at every step, of copies whose heads are cut out."""
    order = sorted(items, key=lambda item: item.length)
    first = max(0, (len(order) - batch_size) // 2)
    middle = [item for item in order[first : first + batch_size] if texts.pads or item.length == order[first].length]
    inputs = texts.inputs(middle)
    found = []
    pruned = copy.deepcopy(texts.model)
    before: list[Pair] = []
    for heads in gone:
        fresh = [pair for pair in heads if pair not in before]
        before = heads
        if fresh:
            layers = every_layer(pruned, texts.kind)
            prune_heads(pruned, [(layers[layer], head) for layer, head in fresh])
        parameters = sum(parameter.numel() for parameter in pruned.parameters())
        found.append((parameters, _relative_time(texts, pruned, inputs)))
    return found


def _relative_time(texts: TextModel, pruned: nn.Module, inputs: dict[str, Tensor]) -> float:
    """Median time of the pruned model over that of the whole one, both taken in turn."""
    times: dict[int, list[float]] = {0: [], 1: []}
    with torch.no_grad():
        for repeat in range(_LATENCY_REPEATS + 2):
            for place, model in enumerate((texts.model, pruned)):
                _synchronize(texts.device)
                begin = time.perf_counter()
                model(**inputs, **texts.extra)
                _synchronize(texts.device)
                if repeat >= 2:
                    times[place].append(time.perf_counter() - begin)
    return statistics.median(times[1]) / statistics.median(times[0])


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


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
        structural: measure parameters and latency too, with the least important heads going first.
        resume: a folder, made if it is missing, with a file for each curve that is continued as in `pruning_curve`.

    Returns:
        The curves.

    Raises:
        TypeError, ValueError: no importance, and whatever `pruning_curve` refuses.
    """
    if not importances:
        raise ValueError("importances is empty: give at least one result of head_importance")
    if not isinstance(importances, Sequence | Mapping):
        raise TypeError(f"importances must be a list or a dict, got {type(importances).__name__}")
    given = list(importances.items()) if isinstance(importances, Mapping) else [(one.name, one) for one in importances]
    names = [name for name, _ in given]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two importances are called {twice[0]!r}; give a dict with a name for each")
    if isinstance(orders, str) or not orders:
        raise ValueError(f"orders={orders!r} must be a list with 'least', 'most' or both")
    options: dict[str, Any] = {"metric": metric, "batch_size": batch_size, "truncate": truncate, "progress": progress}

    folder = Path(resume) if resume is not None else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)

    def curve(name: str, importance: HeadImportance, order: str, cut: bool) -> PruningCurve:
        file = "curve_" + re.sub(r"\W+", "_", f"{name} {order}") + ".jsonl"
        own = {**options, "structural": cut, "resume": folder / file if folder else None}
        return replace(pruning_curve(model, tokenizer, examples, labels, importance, steps, order, **own), name=name)

    curves = [curve(*each, order, structural and order == "least") for order in orders for each in given]
    seeds = [
        head_importance(model, tokenizer, examples[:1], labels[:1], "random", seed=seed, truncate=truncate)
        for seed in range(random_seeds)
    ]
    return PruningComparison(curves, [curve(each.name, each, "least", False) for each in seeds])
