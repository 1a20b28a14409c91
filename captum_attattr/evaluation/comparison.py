"""`compare_attributions`: all methods on the same texts, all measures, one text after another, resumable."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.checks import checked_arguments
from captum_attattr.evaluation.compared import AttributionComparison, Compared
from captum_attattr.evaluation.faithfulness import CURVES, Plan, Rows, check_contrasts, head_means, result_of
from captum_attattr.evaluation.gates import KEPT, Gates, Single, unit_scores
from captum_attattr.evaluation.measures import FRACTIONS, correlations
from captum_attattr.evaluation.removal import Removals
from captum_attattr.exceptions import ConvergenceWarning, UnsupportedModelError, warn_caller
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.examples import Texts, sequence_of
from captum_attattr.explanations.explainer import Explainer
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.settings import Settings, checked_baseline
from captum_attattr.explanations.targets import each
from captum_attattr.runs.batches import run_batches
from captum_attattr.runs.journal import Journal

_TOP, _SAMPLE = 20, 80  # edges removed one by one: of each method the first, and as many at random
_TOLD_APART = {"edge": "heads", "head": "heads", "layer_edge": "layers"}


@checked_arguments
def compare_attributions(
    model: nn.Module,
    tokenizer: Any,
    texts: Texts,
    attributions: Iterable[str] | Mapping[str, Mapping[str, Any]] | None = None,
    target: Any = None,
    *,
    unit: str = "edge",
    removal: str = "zero",
    special: bool = True,
    fractions: Iterable[float] = FRACTIONS,
    counts: Iterable[int] | None = None,
    output: str | None = None,
    contrast: Any = None,
    baseline: str | float | None = None,
    task: str | None = None,
    split_into_words: bool = False,
    truncate: bool | int = False,
    internal_batch_size: int | None = None,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> AttributionComparison:
    """Measure several attribution methods on the same decisions: which of them tells the truth about this model?

    Every text is explained by every method, and everything that `faithfulness` measures is measured for each; random
    scores are always among them. Beside these stand the correlations of single scores with the exact effect of removing
    each: of edges, over the union of every method's 20 largest, and over 80 at random (of those with any attention); of
    heads and tokens, over all of them. Under `torchrun`, with a process group, every process does a share of the texts.

    Args:
        model, tokenizer, texts, target, output, contrast, task, split_into_words, truncate: as in `explain`.
        attributions: methods of `explain`; or a dict of `explain`'s options by names of your own, as {"joint, sink":
            {"attribution": "attattr_joint", "baseline": "sink"}}; None for all that tell these units apart, without
            those that refuse the model's family, of which a warning tells.
        unit, removal, special, fractions, counts: as in `faithfulness`.
        baseline: of all methods that have one, and are not given their own.
        internal_batch_size: most rows of one forward; None for a default by device and length.
        resume: a file to which every text is appended as it is done, and from which the same call goes on.
        progress: show a bar for what takes longer than two seconds.

    Returns:
        For each method its `Faithfulness`, correlations, rows and seconds; paired differences; `table()`, `save`.

    Raises:
        TypeError, ValueError: as `explain` and `faithfulness`, before the model runs.

    Example:
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> texts = ["a gorgeous , witty film", "dull and lifeless"]
        >>> compared = compare_attributions(*load_demo_model(), texts, ["gradient_attention"], progress=False)
        >>> compared.names
        ['gradient_attention', 'random']
    """
    plan = Plan.of(fractions, counts, unit, removal, special)
    if resume is not None:
        Journal(resume, {}, 0)  # a path that will not do is told before the model runs
    wanted = _methods(attributions, unit, baseline)
    common = {"output": output, "internal_batch_size": internal_batch_size}
    settings = {name: Settings.of(**common, **options) for name, options in wanted.items()}
    for name, one in settings.items():
        _check_unit(name, one, unit)
    given = sequence_of(texts, split_into_words)
    reading: dict[str, Any] = {"task": task, "split_into_words": split_into_words}
    explainers = {
        name: Explainer(model, tokenizer, truncate, replace(one, attention=False), contrast is not None, **reading)
        for name, one in settings.items()
    }
    first = next(iter(explainers.values())).texts
    targets, contrasts = (each(name, one, len(given)) for name, one in (("target", target), ("contrast", contrast)))
    check_contrasts(contrasts, "texts")
    items = [first.encode(i, text, targets[i], contrasts[i]) for i, text in enumerate(given)]
    runner = Removals(model, tokenizer, removal, settings["random"].rule.internal_batch_size, **reading)
    compared = _Comparing(plan, explainers, runner)
    if attributions is None:
        _leave_out_refused(explainers, min(items, key=lambda item: item.length))
    batches = [[i] for i in sorted(range(len(items)), key=lambda i: (-items[i].length, i))]
    about = first.fingerprint(items, torch.tensor([-1 if i.target is None else i.target for i in items]), batches)
    about |= {"comparison": [str(plan), contrasts], "methods": {name: settings[name].as_json() for name in explainers}}
    values = run_batches(
        batches,
        lambda batch: compared.text(items[batch[0]]),
        about,
        resume=resume,
        progress=progress,
        desc="compare",
        costs=first.costs(items, batches),
    )
    return compared.result(values, [item.text for item in items], contrasted=contrasts[0] is not None)


def _methods(attributions: Any, unit: str, baseline: Any) -> dict[str, dict[str, Any]]:
    """Return the options of `explain` by name, random scores included.

    Raises:
        TypeError, ValueError: no methods, or options that `explain` does not have.
    """
    if attributions is None:
        telling = _TOLD_APART.get(unit)
        attributions = [name for name, entry in ATTRIBUTIONS.items() if telling is None or getattr(entry, telling)]
    if isinstance(attributions, str):
        raise TypeError(f"attributions={attributions!r:.60} must be a list; use [{attributions!r:.60}]")
    if isinstance(attributions, Mapping):
        for name, options in attributions.items():
            checks.instance(f"attributions[{name!r}]", options, Mapping, "a dict of explain's options")
        names = checks.strings("the names of attributions", list(attributions))
        methods = {name: dict(attributions[name]) for name in names}
    else:
        names = checks.strings("attributions", checks.iterable("attributions", attributions))
        methods = {name: {"attribution": name} for name in names}
        if len(methods) < len(names):
            raise ValueError(f"attributions names one method twice: {names}")
    checked_baseline(baseline)
    if not methods:
        raise ValueError("attributions is empty: give at least one method, or None for all")
    for name, options in methods.items():
        if unknown := [option for option in options if option not in _OPTIONS]:
            known = ", ".join(_OPTIONS)
            raise ValueError(f"attributions[{name!r}] has the option {unknown[0]!r}; these may differ: {known}")
        entry = ATTRIBUTIONS.get(str(options.get("attribution", "attattr")))
        if baseline is not None and entry and entry.start:
            options.setdefault("baseline", baseline)
    control = methods.pop("random", {"attribution": "random"})
    if control != {"attribution": "random"}:
        raise ValueError(f"attributions['random'] are random scores, not {control!r}: choose another name")
    return methods | {"random": control}


def _leave_out_refused(explainers: dict[str, Explainer], item: Encoded) -> None:
    """Leave out the methods that refuse this family of models.

    Warns:
        UserWarning: says which and why.
    """
    for name, explainer in list(explainers.items()):
        if ATTRIBUTIONS[explainer.settings.attribution].maps is None:
            continue  # an integral serves every family
        try:
            list(explainer.run([item], int))
        except UnsupportedModelError as error:
            del explainers[name]
            warn_caller(f"{name!r} is left out: {error}", UserWarning)


_OPTIONS = ("attribution", "path", "baseline", "n_steps", "method", "tolerance", "max_nodes")


def _check_unit(name: str, settings: Settings, unit: str) -> None:
    """Check that a method tells the units apart.

    Raises:
        ValueError: it does not.
    """
    telling = _TOLD_APART.get(unit)
    if telling and not getattr(ATTRIBUTIONS[settings.attribution], telling):
        raise ValueError(f"{name!r} puts {telling} together: it cannot be compared by unit={unit!r}; use unit='token'")


@dataclass
class _Comparing:
    """What measures all methods on one text after another."""

    plan: Plan
    explainers: dict[str, Explainer]
    runner: Removals

    @property
    def parts(self) -> tuple[str, ...]:
        """The sets of units that are removed one by one."""
        return {"edge": ("top", "random"), "layer_edge": ()}.get(self.plan.unit, ("all",))

    def text(self, item: Encoded) -> Tensor:
        """Return everything about one text, (1, methods, values): see `_packed`."""
        explanations, costs = self._explained(item)
        scores = [unit_scores(one, self.plan.unit) for one in explanations]
        decoder = any(layer.kind == "decoder" for layer in self.runner.texts.layers)
        depth = self.runner.texts.depth
        plans = [self.plan.rows(*each, depth, decoder) for each in zip(explanations, scores, strict=True)]
        singles = self._singles(scores, plans[0])
        removed = [index for part in singles for index in part]
        gates: list[Gates] = [gate for plan in plans for gate in plan.gates]
        gates += [self._single(index, scores[0].shape, len(item.ids)) for index in removed]
        ((_, outputs),) = self.runner.run(explanations[:1], [gates])  # the methods open the same layers
        effects = torch.split(outputs[0] - outputs[len(outputs) - len(removed) :], [len(part) for part in singles])
        packed, begin = [], 1
        for one, values, plan, cost in zip(explanations, scores, plans, costs, strict=True):
            record = plan.record(torch.cat((outputs[:1], outputs[begin : begin + len(plan.gates)])))
            begin += len(plan.gates)
            flat = values.flatten()
            found = [
                number
                for part, effect in zip(singles, effects, strict=True)
                for number in correlations(flat[torch.tensor(part, dtype=torch.long)], effect)
            ]
            packed.append(_packed(record, found, cost, head_means([one], depth, self.runner.texts.width)))
        return torch.stack(packed)[None]

    def _explained(self, item: Encoded) -> tuple[list[Explanation], list[tuple[int, float]]]:
        """Return the explanations of a text, and the rows and seconds that each took."""
        explanations: list[Explanation] = []
        costs = []
        decided = replace(next(iter(self.explainers.values())).decided_one(item), index=0)
        for explainer in self.explainers.values():
            ran: list[int] = []
            begin = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                explanations += [one for _, one in explainer.run([decided], int, ran.append)]
            costs.append((sum(ran), time.perf_counter() - begin))
        return self.runner.checked(explanations), costs

    def _singles(self, scores: list[Tensor], plan: Rows) -> list[list[int]]:
        """Return, for each of `parts`, the indices of the units that are removed one by one."""
        if self.plan.unit == "layer_edge":
            return []
        if self.plan.unit != "edge":
            ranks = plan.gates[0].ranking.ranks.flatten()
            return [(ranks != KEPT).nonzero().flatten().tolist()]
        tops = [one.abs().flatten().argsort(descending=True, stable=True)[:_TOP].tolist() for one in scores[:-1]]
        visible = (scores[-1].flatten() > 0).nonzero().flatten()  # random scores are those of edges with attention
        drawn = torch.randperm(len(visible), generator=torch.Generator("cpu").manual_seed(0), device="cpu")
        return [sorted({index for top in tops for index in top}), visible[drawn[:_SAMPLE]].tolist()]

    def _single(self, index: int, shape: Sequence[int], tokens: int) -> Single:
        """Return the removal of one unit."""
        at = [int(part) for part in torch.unravel_index(torch.tensor(index), tuple(shape))]
        names = {"edge": ("layer", "head", "query", "key"), "head": ("layer", "head")}
        parts = dict(zip(names[self.plan.unit], at, strict=False)) if self.plan.unit in names else {"key": at[-1]}
        return Single(self.runner.texts.depth, (self.runner.texts.width, tokens, tokens), **parts)

    def result(self, values: Tensor, texts: list[Any], contrasted: bool) -> AttributionComparison:
        """Return what is known of all texts, (texts, methods, values)."""
        methods = {}
        depth, width = self.runner.texts.depth, self.runner.texts.width
        curves = 3 * len(self.plan.fractions) + 2 * len(self.plan.counts)
        sizes = [5, 2 * len(self.parts), curves, depth * width]
        columns: Any = torch.split(values, sizes, 2)
        for k, (name, explainer) in enumerate(self.explainers.items()):
            head, found, curves_of, heads = (column[:, k] for column in columns)
            heads = heads.reshape(-1, depth, width)
            about = {
                "attribution": explainer.settings.name,
                "output": explainer.output,
                "path": explainer.settings.path,
                "baseline": explainer.settings.baseline,
                "layers": list(range(depth)),
                "contrasted": contrasted,
            }
            records = [self._record(*row) for row in zip(head.tolist(), curves_of, strict=True)]
            measured = result_of(self.plan, records, heads.mean(0), **about)
            by_part = {part: found[:, 2 * i : 2 * i + 2] for i, part in enumerate(self.parts)}
            methods[name] = Compared(measured, by_part, head[:, 3], head[:, 4], heads)
        return AttributionComparison(methods, texts)

    def _record(self, head: list[float], curves: Tensor) -> dict[str, Any]:
        """Return one text's curves as `Rows.record` does."""
        sizes = [len(self.plan.fractions)] * 3 + [len(self.plan.counts)] * 2
        parts: Any = torch.split(curves, sizes)
        named = {name: part.tolist() for name, part in zip(CURVES, parts, strict=True)}
        return {"full": head[0], "empty": head[1], "units": int(head[2])} | named


def _packed(record: dict[str, Any], found: list[float], cost: tuple[int, float], heads: Tensor) -> Tensor:
    """Return everything about a text by one method as one row of numbers."""
    numbers = [record["full"], record["empty"], record["units"], *cost, *found]
    numbers += [value for name in CURVES for value in record[name]]
    return torch.cat((torch.tensor(numbers, dtype=torch.float64), heads.flatten()))
