"""Writes the attribution scores and the attention of a task's dev rows.

Of the rows of --example_index, attr_zero_base_exp{N}.json and att_score_zero_base_exp{N}.json, one line a layer, as
the published code does: left sum of --batch_size times --num_batch nodes, predicted class (other names with --output,
--path or --baseline). With --num_examples, of the
first so many rows at once, an archive (read it with captum_attattr.Archive) in attr_zero_base_{N}/; a run that was
interrupted goes on when it is started again, and torchrun or accelerate launch share it among processes.
"""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.command_line import (
    OneLineParser,
    add_attribution_flags,
    attribution_options,
    check_flags,
    flag_parser,
    load_model,
    rank_and_world_size,
    run_script,
    writable,
)

from captum_attattr import Archive, ConvergenceWarning, Explanation, explain_dataset, explain_iter, tasks
from captum_attattr.published.attribution_files import write_maps  # a file format that only the scripts need

SYNTAX = "numbers and ranges START:END (without END), separated by commas, as 5,16,20:30"


def read_flags() -> argparse.Namespace:
    """Read the command line: the published code's flags, then new ones."""
    parser: OneLineParser = flag_parser(__doc__)
    add = parser.add_argument
    add("--get_att_attr", action="store_true", help="write attributions")
    add("--get_att_score", action="store_true", help="write attention")
    add("--batch_size", type=int, default=16, help="with --num_batch: the nodes of the sum are their product")
    add("--num_batch", type=int, default=4, help="see --batch_size")
    add("--zero_baseline", action="store_true", default=True, help="accepted; it is the default of --baseline")
    add("--example_index", help=f"dev rows: {SYNTAX}; 5 if not given")
    rules = parser.add_mutually_exclusive_group()
    rules.add_argument("--adaptive", action="store_true", help="choose nodes until the estimated error is small")
    rules.add_argument("--published", action="store_true", help="the paper's right sum instead of the left sum")
    add_attribution_flags(parser)
    add("--tolerance", type=float, default=1e-3, help="estimated relative error of a map that --adaptive allows")
    add("--num_examples", type=int, help="the first so many dev rows, as an archive (all, if there are fewer)")
    add("--json", action="store_true", help="with --num_examples: write the JSON files too")
    add("--float16", action="store_true", help="with --num_examples: half the room, three digits")
    args = parser.parse_args()
    check_flags(parser, args, "batch_size", "num_batch", "num_examples")
    if not (args.get_att_attr or args.get_att_score):
        parser.error("nothing to write: give --get_att_attr, --get_att_score or both")
    if args.num_examples and args.example_index is not None:
        parser.error("give --num_examples or --example_index, not both")
    if args.num_examples and not args.get_att_attr:
        parser.error("--num_examples writes attributions; give --get_att_attr as well")
    if not 0 < args.tolerance < 1:
        parser.error(f"--tolerance is {args.tolerance}; it must be above 0 and below 1")
    for name in ("json", "float16"):
        if getattr(args, name) and not args.num_examples:
            parser.error(f"--{name} needs --num_examples")
    return args


def example_indices(given: str, count: int, file: Path) -> list[int]:
    """Return the rows that --example_index names, each once, in the order given.

    Args:
        given: its value.
        count: how many rows there are.
        file: where they are, for the message.

    Raises:
        ValueError: another syntax, or a row that is not there.
    """
    indices: list[int] = []
    for part in given.split(","):
        if not (match := re.fullmatch(r"\s*(\d+)(:(\d+))?\s*", part)):
            raise ValueError(f"--example_index {given!r} must be {SYNTAX}")
        start, end = int(match[1]), int(match[3] or int(match[1]) + 1)
        if start >= end:
            raise ValueError(f"--example_index {part}: a range is START:END, and END is beyond it")
        if end > count:
            raise ValueError(f"--example_index {part}: {file} holds {count} examples, 0 to {count - 1}")
        indices += range(start, end)
    return list(dict.fromkeys(indices))


def main(args: argparse.Namespace) -> None:
    """Read the rows, and explain them to an archive or to files."""
    task = tasks.task(args.task_name)
    texts = [row.text for row in task.read(args.data_dir, "dev")]
    if args.num_examples:
        indices = list(range(len(texts[: args.num_examples])))
    else:
        indices = example_indices(args.example_index or "5", len(texts), Path(args.data_dir) / task.files["dev"])
    folder = writable(args.output_dir)
    model, tokenizer = load_model(args, task)
    options: dict[str, Any] = {"truncate": args.max_seq_length, "progress": not args.quiet, **attribution_options(args)}
    if args.adaptive:
        options["tolerance"] = args.tolerance
    else:
        rule = "riemann_right" if args.published else "riemann_left"
        options |= {"method": rule, "n_steps": args.batch_size * args.num_batch}
    rank, world_size = rank_and_world_size()
    if args.num_examples:
        options |= {"attention": args.get_att_score, "dtype": "float16" if args.float16 else "float32"}
        target = folder / f"attr_{start_name(args)}_{len(indices)}"
        archive: Archive = explain_dataset(model, tokenizer, texts[: len(indices)], target, **options)
        if not rank:
            print(f"{len(archive)} examples: {archive.folder}")
        if args.json:
            mine = indices[rank::world_size]
            write_files(args, folder, mine, (archive[index] for index in mine))
        return
    options["attention"] = args.get_att_score
    mine = indices[rank::world_size]
    warnings.simplefilter("ignore", ConvergenceWarning)  # it counts examples from 0, in `mine`; here they have names
    explanations = explain_iter(model, tokenizer, [texts[index] for index in mine], **options)
    write_files(args, folder, mine, warn_of_errors(explanations, mine, args.tolerance))


def warn_of_errors(explanations: Iterable[Explanation], indices: list[int], tolerance: float) -> Iterable[Explanation]:
    """Pass explanations on, and warn of each whose estimated error is above --tolerance."""
    for index, explanation in zip(indices, explanations, strict=True):
        joint = explanation.path == "joint"
        worst = explanation.total_error if joint else float(explanation.error.max())
        if worst > tolerance:
            where = "all layers" if joint else f"layer {int(explanation.error.argmax())}"
            message = f"example {index}, {where}: estimated error {worst:.1e} is above --tolerance"
            warnings.warn(message, stacklevel=1)
        yield explanation


def write_files(
    args: argparse.Namespace, folder: Path, indices: list[int], explanations: Iterable[Explanation]
) -> None:
    """Write the published code's files of each explanation, and print a line."""
    for index, explanation in zip(indices, explanations, strict=True):
        maps = {"attr": explanation.attributions} if args.get_att_attr else {}
        if args.get_att_score and explanation.attention is not None:
            maps["att_score"] = explanation.attention
        start = start_name(args)
        files = [write_maps(each, folder / f"{kind}_{start}_exp{index}.json") for kind, each in maps.items()]
        print(f"example {index}: {explanation.label!r}, F = {explanation.value:.4f}: {' '.join(map(str, files))}")


def start_name(args: argparse.Namespace) -> str:
    """Return the part of the files' names that says what was attributed: the published "zero_base", or what differs."""
    names = [str(args.baseline), "base", *["joint"] * (args.path == "joint"), args.output or "probability"]
    return "_".join(names).removesuffix("_probability")


if __name__ == "__main__":
    flags = read_flags()
    run_script(lambda: main(flags), flags)
