"""Finds adversarial triggers: for every example the two interactions that carried its decision most.

Writes {train|dev}_adver_pattern_exp{A}-{B}.json, highest scores first. By default the published script's rules: the
one map with the largest entry, a left sum, special tokens included, SST-2 rows under 15 tokens left out. With
--corrected: the strongest interactions between words over all layers and heads, integrated to the tolerance.
"""

from __future__ import annotations

import argparse

from common.command_line import (
    add_attribution_flags,
    attribution_options,
    check_flags,
    flag_parser,
    load_model,
    rank_and_world_size,
    run_script,
    writable,
)
from common.task_rows import class_task, texts_and_labels

from captum_attattr import Pattern, find_patterns
from captum_attattr.published.pattern_files import write_patterns  # a file format that only the scripts need

MIN_TOKENS = 15
"""The published script leaves out SST-2's rows with fewer."""


def main(args: argparse.Namespace) -> None:
    """Read the rows, find their patterns, write them."""
    task = class_task(args.task_name)
    rows = task.read(args.data_dir, args.data_type)[args.start_exp : args.start_exp + args.num_exp]
    if not rows:
        raise ValueError(f"--start_exp {args.start_exp} is beyond the last row of {task.name}'s {args.data_type} set")
    folder = writable(args.output_dir)
    model, tokenizer = load_model(args, task)
    if task.name == "sst-2" and not args.corrected:
        rows = [row for row in rows if len(tokenizer(row.text)["input_ids"]) >= MIN_TOKENS]
        if not rows:
            raise ValueError(f"--num_exp {args.num_exp}: none of these rows has {MIN_TOKENS} tokens; see --corrected")
    texts, labels = texts_and_labels(task, rows)
    name = f"{args.data_type}_adver_pattern_exp{args.start_exp}-{args.start_exp + args.num_exp}"
    published = {"n_steps": args.batch_size * args.num_batch, "method": "riemann_left", "rules": "reference"}
    patterns = find_patterns(
        model,
        tokenizer,
        texts,
        labels,
        truncate=args.max_seq_length,
        resume=folder / f"{name}.jsonl" if args.resume else None,
        progress=not args.quiet,
        **({} if args.corrected else published),
        **attribution_options(args),
    )
    if rank_and_world_size()[0]:
        return
    # The file has the task's classes; the model may have them in another order.
    classes = [task.label_names.index(name) for _, name in sorted(model.config.id2label.items())]
    renumbered = [Pattern(**{**vars(p), "target": classes[p.target], "gold": classes[p.gold]}) for p in patterns]
    path = write_patterns(renumbered, folder / f"{name}.json")
    kept = sum(bool(pattern.interactions) for pattern in patterns)
    print(f"{kept} patterns of {len(rows)} rows of {task.name}'s {args.data_type} set in {path}")


def arguments() -> argparse.Namespace:
    """Read the command line; the last flags are new."""
    parser = flag_parser(__doc__)
    add = parser.add_argument
    add("--batch_size", type=int, default=16, help="with --num_batch: the nodes of the left sum are their product")
    add("--num_batch", type=int, default=4, help="see --batch_size")
    add("--zero_baseline", action="store_true", help="accepted; it is the default of --baseline")
    add("--start_exp", type=int, default=0, help="the first row")
    add("--num_exp", type=int, default=500, help="how many rows")
    add("--data_type", choices=("train", "dev"), default="train", help="the set that the rows are of")
    add_attribution_flags(parser)
    add("--resume", action="store_true", help="keep what is done in --output_dir, and go on from there")
    add("--corrected", action="store_true", help="interactions between words only, over all layers and heads")
    args = parser.parse_args()
    check_flags(parser, args, "batch_size", "num_batch", "num_exp")
    return args


if __name__ == "__main__":
    flags = arguments()
    run_script(lambda: main(flags), flags)
