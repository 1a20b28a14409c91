"""The published workflow on a task, script by script through the command line: figures, times, and the commands."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from captum_attattr import HeadImportance
from captum_attattr.tasks import task

EXAMPLES = Path(__file__).parents[1] / "examples"
SHARES = (0, 3, 5, 7)
"""Steps of the pruning curves, of 10: tenths of the heads."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--task", required=True)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--bert_model", required=True, help="what is fine-tuned")
    parser.add_argument("--num_train_epochs", default="3")
    parser.add_argument("--learning_rate", default="1e-4")
    parser.add_argument("--ranking_rows", type=int, default=50, help="dev rows that rank the heads; the others measure")
    parser.add_argument("--pattern_rows", type=int, default=40, help="training rows that the triggers come from")
    parser.add_argument("--finetuned", help="a folder that the first script left, to go on from")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    data = task(args.task)
    args.output.mkdir(parents=True)
    tuned = Path(args.finetuned or args.output / "finetuned")
    results = args.output / "results"
    given = ["--task_name", args.task, "--data_dir", args.data_dir, "--bert_model", args.bert_model, "--no_cuda"]
    times: dict[str, float] = {}

    def run(script: str, *line: Any) -> None:
        command = [script, *map(str, line)]
        print("$ python examples/" + shlex.join(command), flush=True)
        begin = time.perf_counter()
        done = subprocess.run([sys.executable, EXAMPLES / script, *command[1:]], capture_output=True, text=True)
        times[script] = time.perf_counter() - begin
        if done.returncode:
            raise SystemExit(done.stderr)
        print(done.stdout, flush=True)

    if not args.finetuned:
        learning = ["--num_train_epochs", args.num_train_epochs, "--learning_rate", args.learning_rate]
        run(
            "run_classifier_orig.py",
            *given,
            "--do_train",
            "--do_eval",
            "--group_by_length",
            *learning,
            "--output_dir",
            tuned,
        )
    given += ["--model_file", tuned, "--output_dir", results, "--quiet"]
    run("get_tokens_and_pred.py", *given)
    run("generate_attrscore.py", *given, "--get_att_attr", "--get_att_score")
    files = ["--attr_file", results / "attr_zero_base_exp5.json", "--tokens_file", results / "tokens_and_pred_100.json"]
    run("attribution_tree.py", *files, "--task_name", args.task, "--example_index", 5, "--output", results)
    rows = ["--num_examples", args.ranking_rows, "--evaluation_rows", f"{args.ranking_rows}:"]
    for kind in ("attr", "taylor"):
        run(f"prune_head_with_{kind}.py", *given, *rows)
    if not data.regression:  # triggers need classes
        pairs = ["--num_exp", args.pattern_rows, "--corrected"]
        run("run_adver_connection.py", *given, *pairs)
        patterns = results / f"train_adver_pattern_exp0-{args.pattern_rows}.json"
        run("run_adver_evaluate.py", *given, *pairs, "--pattern_file", patterns, "--candidates", 15)
    report(data.name, data.metric, args, results, times)


def report(name: str, metric: str, args: argparse.Namespace, results: Path, times: dict[str, float]) -> None:
    """Print the figures of a row of the table."""
    print(f"task: {name}, {metric}")
    if not args.finetuned:
        tuned = json.loads((args.output / "finetuned/eval_results.json").read_text())
        print(f"fine-tuned: {tuned[f'eval_{metric}']:.3f} on all dev rows")
    for kind in ("attr", "taylor"):
        curve = json.loads((results / f"prune_result_{kind}.json").read_text())
        count = HeadImportance.load(results / f"head_importance_{kind}.safetensors").count
        values = ", ".join(f"{share}0 %: {curve[share]:.3f}" for share in SHARES)
        print(f"heads off, least first, by {kind} ({count} rows): {values}")
    print(
        "minutes: " + ", ".join(f"{script.removesuffix('.py')} {seconds / 60:.1f}" for script, seconds in times.items())
    )


if __name__ == "__main__":
    main()
