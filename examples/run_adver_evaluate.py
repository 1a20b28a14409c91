"""Inserts the patterns of a file into the dev rows, and measures the accuracy of every gold class.

Writes eval_{train|dev}_pattern_{one|two}_exp{A}-{B}.json: the patterns, each with an accuracy for every class. By
default the published script's rules. With --corrected every pattern that holds a word is scored, the last one too,
at corrected positions, and an attack report (attack_*.json, .html, .txt) stands beside it: the best triggers, chosen on
other training rows, with the clean rows and random words beside them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.atomic_files import write_json, write_text
from common.command_line import check_flags, flag_parser, load_model, rank_and_world_size, run_script, writable
from common.task_rows import class_task, row_range, texts_and_labels

from captum_attattr import AttackReport, Pattern, attack, compose_triggers, plot_attack, triggers_of, write_html
from captum_attattr.published.pattern_files import read_patterns  # a file format that only the scripts need
from captum_attattr.tasks import Task


def main(args: argparse.Namespace) -> None:
    """Read patterns and rows, measure, write, print."""
    task = class_task(args.task_name)
    patterns = read_pattern_file(args)
    rules = "default" if args.corrected else "reference"
    triggers = triggers_of(patterns, min_score=args.pattern_threshold, ratio=_ratio(args), merge=False, rules=rules)
    texts, labels = texts_and_labels(task, task.read(args.data_dir, "dev"))
    folder = writable(args.output_dir)
    model, tokenizer = load_model(args, task)
    options: dict[str, Any] = {
        "batch_size": args.eval_batch_size,
        "truncate": args.max_seq_length,
        "progress": not args.quiet,
        "name": task.name,
    }
    pair = "two" if args.if_all else "one"
    name = f"{args.data_type}_pattern_{pair}_exp{args.start_exp}-{args.start_exp + args.num_exp}"
    resume = folder / f"eval_{name}_done" if args.resume else None
    best = None
    if args.corrected:  # first: the rows that its flags ask for may not be there
        rows = best_trigger_rows(args, task, texts, labels)
        kept = resume / "chosen" if resume else None
        best = attack(model, tokenizer, triggers=best_triggers(args, patterns), **rows, **options, resume=kept)
    report = attack(model, tokenizer, texts, labels, triggers, None, resume=resume, **options)
    if rank_and_world_size()[0]:
        return
    entries = accuracy_entries(args.pattern_file, report, task)
    path = folder / f"eval_{name}.json"
    write_json(path, entries, sort_keys=False)
    print(f"{len(entries)} of {len(patterns)} patterns, each on {len(texts)} dev rows of {task.name}, in {path}")
    if best:
        best.save(folder / f"attack_{name}.json")
        write_text(folder / f"attack_{name}.txt", best.table() + "\n")
        write_html(plot_attack(best), folder / f"attack_{name}.html")
        print(best.table())


def read_pattern_file(args: argparse.Namespace) -> list[Pattern]:
    """Read --pattern_file; with --corrected its name says which rows the patterns come from.

    Raises:
        ValueError: it holds no pattern, or patterns of another split, by its name.
    """
    name = Path(args.pattern_file).name
    if args.data_type not in name:
        raise ValueError(f"--pattern_file {args.pattern_file} is not of --data_type {args.data_type}, by its name")
    # The published script names its result by the flags; which rows must be left out is known best by the file.
    if args.corrected and (rows := re.search(r"_exp(\d+)-(\d+)", name)):
        args.start_exp, args.num_exp = int(rows[1]), int(rows[2]) - int(rows[1])
    patterns = read_patterns(args.pattern_file)
    if not patterns:
        raise ValueError(f"--pattern_file {args.pattern_file} holds no pattern")
    return patterns


def accuracy_entries(pattern_file: str, report: AttackReport, task: Task) -> list[dict[str, Any]]:
    """Return the file's patterns that were measured, each with an accuracy for every class."""
    entries = json.loads(Path(pattern_file).read_text(encoding="utf-8"))
    victim = report.victims[0]
    written = dict(zip(task.label_names, task.labels, strict=True))
    return [
        {
            **entries[outcome.trigger.source],
            **{
                label: victim.measure(outcome, name).accuracy
                for name, label in written.items()
                if name in victim.class_names
            },
        }
        for outcome, _ in victim.triggers()
        if outcome.trigger
    ]


def best_triggers(args: argparse.Namespace, patterns: Sequence[Pattern]) -> list[Any]:
    """Return the triggers from which --triggers are chosen."""
    triggers = triggers_of(patterns, min_score=args.pattern_threshold, ratio=_ratio(args))
    return [*compose_triggers(triggers), *triggers] if args.compose else triggers


def _ratio(args: argparse.Namespace) -> float:
    """Return how large a second pair's score must be, as a share of the first, for it to be inserted too."""
    return 0.0 if args.if_all else 0.2


def best_trigger_rows(args: argparse.Namespace, task: Task, texts: list[Any], labels: list[Any]) -> dict[str, Any]:
    """Return the options of `attack` that keep apart the rows of extraction, choice and measurement.

    Raises:
        ValueError: the flags leave no row for one of them.
    """
    train = task.read(args.data_dir, "train")
    source = slice(args.start_exp, args.start_exp + args.num_exp)
    after = source.stop if args.data_type == "train" else 0
    first, last = row_range("--selection_rows", args.selection_rows or f"{after}:{after + 300}", len(train))
    if args.data_type == "train" and first < source.stop and source.start < last:
        raise ValueError(
            f"--selection_rows {first}:{last} are among the rows {source.start}:{source.stop} that the patterns come "
            "from, by --start_exp and --num_exp; choose others"
        )
    measured = set(texts)
    selection = [row for row in train[first:last] if row.text not in measured]
    if not selection:
        raise ValueError(f"--selection_rows {first}:{last}: all of these training rows are dev rows too")
    if args.data_type == "dev":  # the triggers come from some of the rows that would be measured
        texts, labels = (column[: source.start] + column[source.stop :] for column in (texts, labels))
        if not texts:
            raise ValueError(f"--num_exp {args.num_exp}: the patterns come from all dev rows; none is left to measure")
    return {
        "examples": texts,
        "labels": labels,
        "selection": texts_and_labels(task, selection),
        "k": args.triggers,
        "candidates": args.candidates,
        "vocabulary": [row.text for row in train[source] or train],
        "control_seeds": args.control_seeds,
    }


def arguments() -> argparse.Namespace:
    """Read the command line; the flags from --resume on are new."""
    parser = flag_parser(__doc__)
    add = parser.add_argument
    add("--pattern_file", required=True, help="{train|dev}_adver_pattern_exp{A}-{B}.json of run_adver_connection.py")
    add("--eval_batch_size", type=int, default=400, help="rows in one forward pass")
    add(
        "--start_exp",
        type=int,
        default=0,
        help="the first row that the patterns come from; with --corrected by --pattern_file's name",
    )
    add("--num_exp", type=int, default=500, help="how many rows they come from; both are in the result's name")
    add("--if_all", action="store_true", help="insert the second pair of every pattern, however small its score")
    add("--data_type", choices=("train", "dev"), default="train", help="the set that the patterns come from")
    add("--pattern_threshold", type=float, default=0.02, help="patterns whose scores add up to less are left out")
    add("--resume", action="store_true", help="keep what is done in --output_dir, and go on from there")
    add("--corrected", action="store_true", help="corrected rules, and the report of the best triggers")
    add("--selection_rows", metavar="START:END", help="training rows for the choice; default: the 300 after --num_exp")
    add("--triggers", type=int, default=3, help="how many are chosen")
    add("--candidates", type=int, default=50, help="how many of the highest scores are tried on the selection rows")
    add("--control_seeds", type=int, default=5, help="draws of random words for each chosen trigger")
    add("--compose", action="store_true", help="also try the strongest triggers of each class together")
    args = parser.parse_args()
    check_flags(parser, args, "eval_batch_size", "num_exp", "triggers", "candidates", "control_seeds")
    if args.selection_rows and not args.corrected:
        parser.error("--selection_rows needs --corrected")
    return args


if __name__ == "__main__":
    flags = arguments()
    run_script(lambda: main(flags), flags)
