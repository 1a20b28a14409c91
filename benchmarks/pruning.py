"""Pruning curves of every ranking on real data: what is left of the model, its parameters and its time."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from captum_attattr import (
    compare_pruning,
    effectiveness_analysis,
    head_importance,
    importance_correlation,
    plot_correlation,
    plot_effectiveness,
    plot_heads,
    plot_pruning_curve,
    write_html,
)
from captum_attattr.tasks import task

METHODS = (
    ("attattr", {}),
    ("attattr", {"reduce": "sum"}),
    ("attattr", {"path": "joint", "reduce": "sum", "output": "log_probability"}),
    ("attattr", {"path": "joint", "reduce": "sum", "output": "log_probability", "absolute": True}),
    ("attattr", {"path": "joint", "reduce": "sum", "output": "log_probability", "baseline": "sink"}),
    ("taylor", {}),
    ("taylor_logits", {}),
    ("attention", {}),
    ("accuracy_difference", {}),
    ("loss_difference", {}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a fine-tuned classifier")
    parser.add_argument("--task", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--ranking_split", default="train")
    parser.add_argument("--ranking_rows", type=int, default=200)
    parser.add_argument("--evaluation_split", default="dev")
    parser.add_argument("--evaluation_rows", type=int, default=1000)
    parser.add_argument("--methods", nargs="+", default=sorted({m for m, _ in METHODS}), help="of all rankings")
    parser.add_argument("--accuracy_only", action="store_true", help="no parameters, latency or effectiveness")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    model = AutoModelForSequenceClassification.from_pretrained(args.model, trust_remote_code=False).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
    data = task(args.task)
    ranking = data.read(args.data_dir, args.ranking_split)[: args.ranking_rows]
    evaluation = data.read(args.data_dir, args.evaluation_split)[: args.evaluation_rows]
    texts, labels = [row.text for row in ranking], [row.label for row in ranking]
    importances = []
    for method, options in METHODS:
        if method not in args.methods:
            continue
        # One file serves all reductions of the same maps.
        file = (
            args.output / f"{'_'.join([method, options.get('path', ''), options.get('baseline', '')]).strip('_')}.jsonl"
        )
        importances.append(head_importance(model, tokenizer, texts, labels, method, resume=file, **options))
    rows = [row.text for row in evaluation], [row.label for row in evaluation]
    compared = compare_pruning(
        model,
        tokenizer,
        *rows,
        importances,
        structural=not args.accuracy_only,
        metric=data.metric,
        resume=args.output / "curves",
    )
    compared.save(args.output / "curves.json")
    by_name = {each.name: each for each in importances}
    write_html(plot_heads(by_name), args.output / "heads.html")
    write_html(plot_pruning_curve(compared), args.output / "curves.html")
    write_html(plot_correlation(importances[1], importances[-1]), args.output / "correlation.html")
    print(
        f"{data.name}: ranked on {len(ranking)} rows of {args.ranking_split}, measured on {len(evaluation)} of ", end=""
    )
    print(f"{args.evaluation_split}, {compared.curves[0].shared_rows} in both\n")
    print(compared.table(), "\n")
    shares = (0, 0.3, 0.5, 0.7)
    print("least important first | " + " | ".join(f"{share:.0%}" for share in shares))
    curves = [curve for curve in compared.curves if curve.order == "least"]
    for curve in curves:
        print(f"{curve.name} | " + " | ".join(f"{curve.metric[curve.at(s)]:.3f}" for s in shares))
    means = [sum(c.metric[c.at(s)] for c in compared.random) / len(compared.random) for s in shares]
    print("random | " + " | ".join(f"{mean:.3f}" for mean in means))
    if args.accuracy_only:
        return
    first = curves[0]
    print("parameters, millions | " + " | ".join(f"{first.parameters[first.at(s)] / 1e6:.2f}" for s in shares))
    print("relative latency | " + " | ".join(f"{first.latency[first.at(s)]:.2f}" for s in shares))
    print("\nSpearman correlation with | " + " | ".join(each.name for each in importances[-2:]))
    for each in importances[:-2]:
        correlations = [importance_correlation(each, other).spearman for other in importances[-2:]]
        print(f"{each.name} | " + " | ".join(f"{value:+.2f}" for value in correlations))
    few = tuple(part[:200] for part in rows)
    effect = effectiveness_analysis(model, tokenizer, *few, target="predicted", resume=args.output / "effect.jsonl")
    effect.save(args.output / "effectiveness.json")
    write_html(plot_effectiveness(effect), args.output / "effectiveness.html")
    print(f"\neffectiveness ({effect.metric_name}, {effect.rows} rows), k of {effect.heads[-1]} heads of every layer")
    for mode in ("prune", "keep"):
        for score in ("attribution", "attention"):
            print(f"{mode} by {score}: " + " ".join(f"{value:.3f}" for value in effect.metric[score][mode]))


if __name__ == "__main__":
    main()
