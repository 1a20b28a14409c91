"""What the two pruning scripts share: the published code's flags, steps and files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from captum_attattr import (
    HeadImportance,
    head_importance,
    plot_heads,
    plot_pruning_curve,
    pruning_curve,
    tasks,
    write_html,
)
from common.atomic_files import write_json
from common.command_line import (
    add_attribution_flags,
    check_flags,
    flag_parser,
    load_model,
    rank_and_world_size,
    run_script,
    writable,
)
from common.task_rows import row_range, texts_and_labels


def read_flags(argv: Sequence[str], description: str, kind: str) -> argparse.Namespace:
    """Read the command line; the names and defaults are the published code's, the last flags are new."""
    parser = flag_parser(description)
    add = parser.add_argument
    add("--num_examples", type=int, default=200, help="how many dev rows, from the first on, rank the heads")
    add("--batch_size", type=int, default=20, help="with --num_batch: nodes of the sum, if attributions rank the heads")
    add("--num_batch", type=int, default=1, help="see --batch_size")
    add("--eval_batch_size", type=int, default=256, help="rows in one forward pass")
    add("--published", action="store_true", help="the paper's definitions instead of the code's")
    add(
        "--evaluation_rows", default="all", metavar="START:END", help="dev rows of the curve; 200: leaves out the first"
    )
    add("--structural", action="store_true", help="also cut the heads out, and measure parameters and latency")
    add("--resume", action="store_true", help="keep what is done in --output_dir, and go on from there")
    if kind == "attr":
        add_attribution_flags(parser)
    args = parser.parse_args(argv)
    check_flags(parser, args, "num_examples", "batch_size", "num_batch", "eval_batch_size")
    return args


def run(
    argv: Sequence[str], kind: str, description: str, method: Callable[[argparse.Namespace], dict[str, Any]]
) -> None:
    """Rank the heads on the first dev rows, prune in 11 steps, write the files.

    Args:
        argv: the command line.
        kind: "attr" or "taylor", which the files' names hold.
        description: for --help.
        method: the method of `head_importance` and its options, from the flags.
    """
    args = read_flags(argv, description, kind)
    run_script(lambda: _run(args, kind, method(args)), args)


def _run(args: argparse.Namespace, kind: str, options: dict[str, Any]) -> None:
    """Read, rank, prune, and write from the first process."""
    task = tasks.task(args.task_name)
    rows = task.read(args.data_dir, "dev")
    ranking = slice(min(args.num_examples, len(rows)))
    given = ":" if args.evaluation_rows == "all" else args.evaluation_rows
    evaluation = slice(*row_range("--evaluation_rows", given, len(rows)))
    folder = writable(args.output_dir)
    model, tokenizer = load_model(args, task)
    texts, labels = texts_and_labels(task, rows)
    common: dict[str, Any] = {"truncate": args.max_seq_length, "progress": not args.quiet}
    importance = head_importance(
        model,
        tokenizer,
        texts[ranking],
        labels[ranking],
        batch_size=args.eval_batch_size if kind == "taylor" else min(args.eval_batch_size, 32),
        resume=folder / f"head_importance_{kind}.jsonl" if args.resume else None,
        **common,
        **options,
    )
    curve = pruning_curve(
        model,
        tokenizer,
        texts[evaluation],
        labels[evaluation],
        importance,
        metric=task.metric,
        structural=args.structural,
        batch_size=args.eval_batch_size,
        resume=folder / f"prune_result_{kind}.jsonl" if args.resume else None,
        **common,
    )
    if rank_and_world_size()[0]:
        return
    write_json(folder / f"head_importance_{kind}.json", _published_scores(importance, kind, args.published))
    write_json(folder / f"prune_result_{kind}.json", curve.metric)
    importance.save(folder / f"head_importance_{kind}.safetensors")
    write_html(plot_heads(importance), folder / f"head_importance_{kind}.html")
    write_html(plot_pruning_curve(curve), folder / f"prune_result_{kind}.html")
    print(f"heads ranked by {importance.name} on dev rows 0 to {ranking.stop - 1}")
    print(f"{task.metric} on dev rows {evaluation.start} to {evaluation.stop - 1}", end="")
    print(f", {curve.shared_rows} of them in the ranking too")
    for heads, value in zip(curve.heads, curve.metric, strict=True):
        print(f"  {heads:4d} of {curve.total} heads off: {value:.4f}")
    print(f"results in {folder}/")


def _published_scores(importance: HeadImportance, kind: str, mean: bool) -> list[Any]:
    """Return scores as the published code writes them: a list for each layer, or sums (or means) in one list."""
    if kind == "taylor":
        return list(importance.scores.tolist())
    return list((importance.scores * (1 if mean else importance.count)).flatten().tolist())
