"""Inserts the patterns of a file into the dev rows, and measures the accuracy of every gold class.

Writes eval_{train|dev}_pattern_{one|two}_exp{A}-{B}.json: the patterns, each with an accuracy for every class. By
default the published script's rules. With --corrected every pattern that holds a word is scored, the last one too,
at corrected places, and an attack report (attack_*.json, .html, .txt) stands beside it: the best triggers, chosen on
training rows of their own, with the clean rows and random words beside them.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from common.command_line import check_flags, flag_parser, load_model, process, run_script, writable, write_json
from common.task_rows import class_task, row_range, texts_and_labels

from captum_attattr import AttackReport, attack, compose_triggers, plot_attack, triggers_of, write_html
from captum_attattr.plots.canvas.pages import write_page
from captum_attattr.published.pattern_files import read_patterns


def main(args: argparse.Namespace) -> None:
    """Read, insert, measure, write, print."""
    what = class_task(args.task_name)
    named = Path(args.pattern_file).name
    if args.data_type not in named:
        raise ValueError(f"--pattern_file {args.pattern_file} is not of --data_type {args.data_type}, by its name")
    # The published script's name for its result has the flags' rows; which rows must be left out the file knows best.
    if args.corrected and (rows_of := re.search(r"_exp(\d+)-(\d+)", named)):
        args.start_exp, args.num_exp = int(rows_of[1]), int(rows_of[2]) - int(rows_of[1])
    patterns = read_patterns(args.pattern_file)
    if not patterns:
        raise ValueError(f"--pattern_file {args.pattern_file} holds no pattern")
    rules, ratio = "default" if args.corrected else "reference", 0.0 if args.if_all else 0.2
    triggers = triggers_of(patterns, min_score=args.pattern_threshold, ratio=ratio, merge=False, rules=rules)
    rows = texts_and_labels(what, what.read(args.data_dir, "dev"))
    folder = writable(args.output_dir)
    model, tokenizer = load_model(args, what)
    common: dict[str, Any] = {
        "batch_size": args.eval_batch_size,
        "truncate": args.max_seq_length,
        "progress": not args.quiet,
        "name": what.name,
    }
    number = "two" if args.if_all else "one"
    name = f"{args.data_type}_pattern_{number}_exp{args.start_exp}-{args.start_exp + args.num_exp}"
    done = folder / f"eval_{name}_done" if args.resume else None
    # The report first: what its flags ask for may not be there.
    chosen = _best(args, what, model, tokenizer, rows, patterns, common, done) if args.corrected else None
    report = attack(model, tokenizer, rows[0], rows[1], triggers, None, resume=done, **common)
    if process()[0]:
        return
    entries = json.loads(Path(args.pattern_file).read_text(encoding="utf-8"))
    victim = report.victims[0]
    order = [name for name in what.label_names if name in victim.class_names]
    scored = [
        {
            **entries[outcome.trigger.source],
            **{what.labels[what.label_names.index(of)]: victim.measure(outcome, of).accuracy for of in order},
        }
        for outcome, _ in victim.triggers()
        if outcome.trigger
    ]
    path = folder / f"eval_{name}.json"
    write_json(path, scored, sort_keys=False)
    print(f"{len(scored)} of {len(patterns)} patterns, each on {len(rows[0])} dev rows of {what.name}, in {path}")
    if chosen:
        chosen.save(folder / f"attack_{name}.json")
        write_page(chosen.table() + "\n", folder / f"attack_{name}.txt")
        write_html(plot_attack(chosen), folder / f"attack_{name}.html")
        print(chosen.table())


def _best(
    args: argparse.Namespace, what: Any, model: Any, tokenizer: Any, rows: Any, patterns: Any, common: Any, done: Any
) -> AttackReport:
    """The report of the best triggers, on rows that they neither come from nor were chosen on."""
    train = what.read(args.data_dir, "train")
    source = slice(args.start_exp, args.start_exp + args.num_exp)
    first, last = row_range("--selection_rows", args.selection_rows or _after(args), len(train))
    measured = set(rows[0])
    if args.data_type == "train" and first < source.stop and source.start < last:
        raise ValueError(
            f"--selection_rows {first}:{last} are among the rows {source.start}:{source.stop} that the patterns come "
            "from, by --start_exp and --num_exp; choose others"
        )
    selection = [row for row in train[first:last] if row.text not in measured]
    if not selection:
        raise ValueError(f"--selection_rows {first}:{last}: all of these training rows are dev rows too")
    triggers = triggers_of(patterns, min_score=args.pattern_threshold, ratio=0.0 if args.if_all else 0.2)
    if args.compose:
        triggers = [*compose_triggers(triggers), *triggers]
    if args.data_type == "dev":  # the rows that the triggers come from
        rows = rows[0][: source.start] + rows[0][source.stop :], rows[1][: source.start] + rows[1][source.stop :]
        if not rows[0]:
            raise ValueError(f"--num_exp {args.num_exp}: the patterns come from all dev rows; none is left to measure")
    return attack(
        model,
        tokenizer,
        rows[0],
        rows[1],
        triggers,
        selection=texts_and_labels(what, selection),
        k=args.triggers,
        candidates=args.candidates,
        vocabulary=[row.text for row in train[source] or train],
        control_seeds=args.control_seeds,
        resume=done / "chosen" if done else None,
        **common,
    )


def _after(args: argparse.Namespace) -> str:
    start = args.start_exp + args.num_exp if args.data_type == "train" else 0
    return f"{start}:{start + 300}"


def arguments() -> argparse.Namespace:
    """The command line; the flags from --resume on are new."""
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
    if args.start_exp < 0:
        parser.error(f"--start_exp is {args.start_exp}; it must be 0 or more")
    return args


if __name__ == "__main__":
    flags = arguments()
    run_script(lambda: main(flags))
