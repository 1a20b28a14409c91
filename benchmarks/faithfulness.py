"""Which attribution tells the truth? Every method measured on the same decisions, edge by edge or token by token.

A fine-tuned classifier on rows of its task, drawn with a seed, or SmolLM2-135M-Instruct (see decoder.py) on the prompts
of prompts.py. With --tokens the token scores of all methods, those of Captum's integrated gradients, of gradient x
input and of leaving one out (token_scores.py) are measured by closing every edge that reads a token, and by putting
another token in its place.

Runs are resumed: what is measured already is read from --output.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from prompts import PROMPTS
from token_scores import counted_rows, gradient_x_input, integrated_gradients, leave_one_out
from torch import Tensor

from captum_attattr import AttributionComparison, compare_attributions, explain, faithfulness, removal_effects
from captum_attattr.attribution.methods.table import ATTRIBUTIONS  # which methods tell heads and layers apart
from captum_attattr.evaluation.compared import Compared  # to put Captum's methods beside the package's in one result
from captum_attattr.evaluation.measures import Interval, correlations, quiet_interval  # the package's own intervals
from captum_attattr.explanations.text_model import TextModel  # for Captum, the F that is explained
from captum_attattr.tasks import task

MEASURES = ("comprehensiveness", "sufficiency", "top_comprehensiveness", "top_sufficiency", "cpr", "cmd")
TELLS = {"edge": "heads", "head": "heads", "layer_edge": "layers"}
INTEGRATED = ("integrated gradients", "integrated gradients, from zeros")


@dataclass
class Sample:
    """Decisions, and how they are measured.

    Attributes:
        texts: what was decided about.
        targets: the class or token of each; None for what the model predicts.
        contrasts: what it is told from; None for nothing.
        closing: the removal of edges: "zero", or on a decoder "sink".
        counts: how many tokens are removed.
    """

    model: Any
    tokenizer: Any
    texts: list[Any]
    targets: list[str] | None = None
    contrasts: list[str] | None = None
    closing: str = "zero"
    counts: tuple[int, ...] = (1, 2, 3, 4, 5)

    @property
    def start(self) -> str:
        """The baseline that integrals start from where a method is not named with another."""
        return self.closing


def sample(args: argparse.Namespace) -> Sample:
    if not args.decoder:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(args.model, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        rows = task(args.task).read(args.data_dir, args.split)
        drawn = sorted(random.Random(args.seed).sample(range(len(rows)), min(args.rows, len(rows))))
        return Sample(model.eval().to(args.device), tokenizer, [rows[i].text for i in drawn])
    from decoder import load

    chosen = [p for p in PROMPTS if args.prompts == "all" or p.held_out == (args.prompts == "held_out")]
    chosen = [p for p in chosen if p.contrast or not args.contrast][: args.rows]
    contrasts = [str(p.contrast) for p in chosen] if args.contrast else None
    texts, targets = [p.text for p in chosen], [p.target for p in chosen]
    model, tokenizer = load()
    return Sample(model.to(args.device), tokenizer, texts, targets, contrasts, closing="sink", counts=(1, 2, 3))


def methods(chosen: Sample, unit: str, tolerance: float) -> dict[str, dict[str, Any]]:
    """Return the package's methods that tell units apart, and what differs between several forms of one."""
    other = "sink" if chosen.start == "zero" else "zero"
    telling, found = TELLS.get(unit), {}
    for name, entry in ATTRIBUTIONS.items():
        if telling and not getattr(entry, telling):
            continue
        options: dict[str, Any] = {"attribution": name}
        if entry.maps is None:
            options["tolerance"] = tolerance
        if entry.start:
            options["baseline"] = chosen.start
        found[name] = options
        if name in ("attattr_joint", "gradient_attention"):
            found[f"{name}, {other}"] = options | {"baseline": other}
    if unit == "token":
        found["attattr_joint, sink, 8 rows"] = {"attribution": "attattr_joint", "baseline": "sink", "n_steps": 8}
    return found


def compare(chosen: Sample, args: argparse.Namespace, unit: str, removal: str, **more: Any) -> AttributionComparison:
    """Measure the package's methods."""
    return compare_attributions(
        chosen.model,
        chosen.tokenizer,
        chosen.texts,
        methods(chosen, unit, args.tolerance),
        chosen.targets,
        contrast=chosen.contrasts,
        unit=unit,
        removal=removal,
        output=args.of,
        resume=args.output / f"{unit}_{removal}.jsonl",
        **more,
    )


# -------------------------------------------------------------------------------------------------- token scores


def compare_tokens(chosen: Sample, args: argparse.Namespace, removal: str) -> AttributionComparison:
    """Measure the package's token scores, and beside them Captum's."""
    options: dict[str, Any] = {"fractions": [1.0], "counts": chosen.counts, "special": False}
    ours = compare(chosen, args, "token", removal, **options)
    explained = explain(
        chosen.model,
        chosen.tokenizer,
        chosen.texts,
        chosen.targets,
        contrast=chosen.contrasts,
        output=args.of,
        attribution="rollout",  # the smallest maps: they only say which decisions
    )
    options |= {"unit": "token", "removal": removal, "progress": False}
    heads = next(iter(ours.methods.values())).heads
    effects = single_effects(chosen, explained, removal)
    found = dict(ours.methods)
    for name, method in captum_methods(chosen, effects).items():
        scores, rows, seconds = measured(chosen, explained, method)
        correlated = [correlations(*pair) for pair in ranked(chosen, explained, scores, effects[0])]
        found[name] = Compared(
            faithfulness(chosen.model, chosen.tokenizer, explained, scores=scores, name=name, **options),
            {"all": torch.tensor(correlated, dtype=torch.float64)},
            rows,
            seconds,
            torch.full_like(heads, math.nan),
        )
    return AttributionComparison(found, ours.texts)


Effects = tuple[list[Tensor], Tensor, Tensor]
"""For each text the effect of removing each token, (T,); rows and seconds of each text."""


def single_effects(chosen: Sample, explained: Sequence[Any], removal: str) -> Effects:
    """Measure what each token's removal alone costs."""
    if removal == "replace":
        tokenizer = chosen.tokenizer
        replacement = tokenizer.eos_token_id if tokenizer.mask_token_id is None else tokenizer.mask_token_id
        return measured(chosen, explained, lambda texts, one: leave_one_out(texts, one, replacement))
    effects, rows, seconds = [], [], []
    for one in explained:
        begin = time.perf_counter()
        positions = range(len(one.tokens))
        found = removal_effects(chosen.model, chosen.tokenizer, one, positions, unit="token", removal=removal)
        effects.append(found.effects)
        rows.append(float(found.rows))
        seconds.append(time.perf_counter() - begin)
    return effects, torch.tensor(rows), torch.tensor(seconds)


def captum_methods(chosen: Sample, effects: Effects) -> dict[str, Any]:
    """Return Captum's methods as functions of the model and an explanation, and the effects that are known."""
    return {
        INTEGRATED[0]: integrated_gradients,
        INTEGRATED[1]: lambda texts, one: integrated_gradients(texts, one, "zero"),
        "gradient x input": gradient_x_input,
        "leave one out": effects,
    }


def measured(chosen: Sample, explained: Sequence[Any], method: Callable[..., Tensor] | Effects) -> Effects:
    """Return a method's scores, and the rows and seconds of each text."""
    if not callable(method):
        return method
    texts = TextModel(chosen.model, chosen.tokenizer, False)
    scores, rows, seconds = [], [], []
    for one in explained:
        begin = time.perf_counter()
        with counted_rows(chosen.model) as run:
            scores.append(method(texts, one))
        rows.append(float(sum(run)))
        seconds.append(time.perf_counter() - begin)
    return scores, torch.tensor(rows), torch.tensor(seconds)


def ranked(
    chosen: Sample, explained: Sequence[Any], scores: list[Tensor], effects: list[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield scores and effects of the tokens that are ranked: not special ones, nor a decoder's first and last."""
    decoder = chosen.closing == "sink"
    for one, score, effect in zip(explained, scores, effects, strict=True):
        words = ~torch.tensor(one.special)
        if decoder:
            words[[0, -1]] = False
        yield score[words], effect[words]


# --------------------------------------------------------------------------------------------------------- tables


def cell(found: Interval, sign: str = "") -> str:
    bounds = "" if math.isnan(found.low) else f" [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
    return "" if math.isnan(found.mean) else f"{found.mean:{sign}.3f}{bounds}"


def print_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("\n| " + " | ".join(heading) + " |\n|---|" + "---:|" * (len(heading) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def costs(compared: Compared) -> list[str]:
    return [f"{compared.rows.mean():.1f}", f"{compared.seconds.mean():.3f}"]


def edge_tables(compared: AttributionComparison) -> None:
    """Print every measure of every method, and its differences with the paper's method, text by text."""
    parts = list(next(iter(compared.methods.values())).correlations)
    stability = compared.stability
    heading = [spelt(measure) for measure in MEASURES]
    more = [f"{kind}, {part}" for part in parts for kind in ("Spearman", "Pearson")] + ["stability", "rows", "s"]
    rows = []
    for name, one in compared.methods.items():
        values = [cell(quiet_interval(one.faithfulness.values(measure))) for measure in MEASURES]
        values += [cell(compared.correlation(name, part, kind)) for part in parts for kind in ("spearman", "pearson")]
        values += ["" if math.isnan(stability[name]) else f"{stability[name]:.2f}", *costs(one)]
        rows.append([name, *values])
    print_table(["method", *heading, *more], rows)
    first = next(iter(compared.results.values()))
    print(f"\nCPR and CMD leave out {first.left_out} of {len(compared.texts)}; {spread(first)}")
    differences(compared, "attattr", MEASURES)


def differences(compared: AttributionComparison, against: str, measures: Sequence[str]) -> None:
    rows = [
        [name, *(cell(compared.difference(measure, name, against), "+") for measure in measures)]
        for name in compared.names
        if name != against
    ]
    print_table([f"minus {against}", *map(spelt, measures)], rows)


def token_tables(compared: dict[str, AttributionComparison]) -> None:
    """Print the token table, one removal beside the other, and the differences with integrated gradients."""
    measures = ("top_comprehensiveness", "top_sufficiency")
    first = next(iter(compared.values()))
    heading = [f"{name}: {part}" for name in compared for part in ("comp.", "suff.", "Spearman")]
    rows = []
    for name in first.names:
        values = []
        for one in compared.values():
            values += [cell(quiet_interval(one.results[name].values(measure))) for measure in measures]
            values.append(cell(one.correlation(name, "all")))
        rows.append([name, *values, *costs(first.methods[name])])
    print_table(["token score", *heading, "rows", "s"], rows)
    for name, one in compared.items():
        print(f"\nRemoval: {name}; {spread(next(iter(one.results.values())))}")
        for against in INTEGRATED:
            differences(one, against, measures)


def spread(result: Any) -> str:
    return f"{result.output.replace('_', '-')} {result.full.mean():.3f} whole, {result.empty.mean():.3f} with none"


def spelt(measure: str) -> str:
    top = "small sets: " * measure.startswith("top_")
    return top + (measure.upper() if measure in ("cpr", "cmd") else measure.removeprefix("top_"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="folder of a fine-tuned classifier")
    which.add_argument("--decoder", action="store_true", help="SmolLM2 and the prompts")
    parser.add_argument("--task", help="of --model")
    parser.add_argument("--data_dir", help="of --task")
    parser.add_argument("--split", default="dev", help="of --task")
    parser.add_argument(
        "--rows", type=int, default=200, help="of the split, drawn with --seed; of the prompts the first"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompts", choices=("first", "held_out", "all"), default="first")
    parser.add_argument("--contrast", action="store_true", help="against the token that a prompt's target is told from")
    parser.add_argument("--of", choices=("probability", "log_probability", "logit"), default="probability")
    parser.add_argument("--units", nargs="+", choices=tuple(TELLS), default=["edge", "layer_edge", "head"])
    parser.add_argument("--tokens", action="store_true", help="token scores instead of edges, layer edges and heads")
    parser.add_argument("--tolerance", type=float, default=1e-2, help="of the integrals")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.model and not (args.task and args.data_dir):
        parser.error("--model needs --task and --data_dir")
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    chosen = sample(args)
    what = f"SmolLM2, {args.prompts.replace('_', ' ')} prompts" if args.decoder else f"{args.model}, {args.task}"
    print(f"{what}: {len(chosen.texts)} texts, F the target's {args.of.replace('_', '-')}, seed {args.seed}")
    if args.tokens:
        compared = {removal: compare_tokens(chosen, args, removal) for removal in (chosen.closing, "replace")}
        for removal, one in compared.items():
            one.save(args.output / f"token_{removal}.json")
        token_tables(compared)
        return
    for unit in args.units:
        one = compare(chosen, args, unit, chosen.closing)
        one.save(args.output / f"{unit}_{chosen.closing}.json")
        print(f"\nUnit: {unit}")
        edge_tables(one)


if __name__ == "__main__":
    main()
