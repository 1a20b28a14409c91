"""Writes the attribution scores and the attention of a task's dev rows.

Of the rows of --example_index, attr_zero_base_exp{N}.json and att_score_zero_base_exp{N}.json, one line a layer, as
the published code does: left sum of --batch_size times --num_batch nodes, predicted class. With --num_examples, of the
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

from common.command_line import check_flags, flag_parser, load_model, process, run_script, writable
from common.training_flags import OneLineParser

from captum_attattr import ConvergenceWarning, Explanation, explain_dataset, explain_iter
from captum_attattr.published.attribution_files import write_maps
from captum_attattr.tasks import task

SYNTAX = "numbers and ranges START:END (without END), separated by commas, as 5,16,20:30"


def read_flags() -> argparse.Namespace:
    """The command line: the published code's flags, then new ones."""
    parser: OneLineParser = flag_parser(__doc__)
    add = parser.add_argument
    add("--get_att_attr", action="store_true", help="write attributions")
    add("--get_att_score", action="store_true", help="write attention")
    add("--batch_size", type=int, default=16, help="with --num_batch: the nodes of the sum are their product")
    add("--num_batch", type=int, default=4, help="see --batch_size")
    add("--zero_baseline", action="store_true", default=True, help="accepted; the path starts at zero attention")
    add("--example_index", help=f"dev rows: {SYNTAX}; 5 if not given")
    rules = parser.add_mutually_exclusive_group()
    rules.add_argument("--adaptive", action="store_true", help="choose nodes until the estimated error is small")
    rules.add_argument("--published", action="store_true", help="the paper's right sum instead of the left sum")
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


def example_numbers(given: str, count: int, where: Path) -> list[int]:
    """The rows that --example_index names, each once.

    Args:
        given: its value.
        count: how many rows there are.
        where: their file, for the message.

    Returns:
        Their numbers, in the order given.

    Raises:
        ValueError: another syntax, or a row that is not there.
    """
    numbers: dict[int, None] = {}
    for part in given.split(","):
        if not (found := re.fullmatch(r"\s*(\d+)(:(\d+))?\s*", part)):
            raise ValueError(f"--example_index {given!r} must be {SYNTAX}")
        start, end = int(found[1]), int(found[3] or int(found[1]) + 1)
        if start >= end:
            raise ValueError(f"--example_index {part}: a range is START:END, and END is beyond it")
        if end > count:
            raise ValueError(f"--example_index {part}: {where} holds {count} examples, 0 to {count - 1}")
        numbers.update(dict.fromkeys(range(start, end)))
    return list(numbers)


def main(args: argparse.Namespace) -> None:
    """Read, explain, write.

    Args:
        args: the flags.
    """
    what = task(args.task_name)
    texts = [row.text for row in what.read(args.data_dir, "dev")]
    if args.num_examples:
        texts = texts[: args.num_examples]
        numbers = list(range(len(texts)))
    else:
        numbers = example_numbers(args.example_index or "5", len(texts), Path(args.data_dir) / what.files["dev"])
    folder = writable(args.output_dir)
    model, tokenizer = load_model(args, what)
    options: dict[str, Any] = {"truncate": args.max_seq_length, "progress": not args.quiet}
    if args.adaptive:
        options["tolerance"] = args.tolerance
    else:
        rule = "riemann_right" if args.published else "riemann_left"
        options |= {"method": rule, "n_steps": args.batch_size * args.num_batch}
    rank, world = process()
    explanations: Iterable[Explanation]
    if args.num_examples:
        options |= {"attention": args.get_att_score, "dtype": "float16" if args.float16 else "float32"}
        archive = explain_dataset(model, tokenizer, texts, folder / f"attr_zero_base_{len(texts)}", **options)
        if not rank:
            print(f"{len(archive)} examples: {archive.folder}")
        numbers = list(range(len(texts))[rank::world]) if args.json else []
        explanations = (archive[number] for number in numbers)
    else:
        numbers = numbers[rank::world]
        warnings.simplefilter("ignore", ConvergenceWarning)  # which counts the examples that are explained
        explanations = explain_iter(model, tokenizer, [texts[number] for number in numbers], **options)
    for number, explanation in zip(numbers, explanations, strict=True):
        if not args.num_examples and (worst := float(explanation.error.max())) > args.tolerance:
            layer = int(explanation.error.argmax())
            warnings.warn(
                f"example {number}, layer {layer}: estimated error {worst:.1e} is above --tolerance", stacklevel=1
            )
        kinds = {"attr": explanation.attributions} if args.get_att_attr else {}
        kinds |= {"att_score": explanation.attention} if args.get_att_score else {}
        files = [write_maps(maps, folder / f"{kind}_zero_base_exp{number}.json") for kind, maps in kinds.items()]
        print(
            f"example {number}: {explanation.label!r}, F = {explanation.probability:.4f}: {' '.join(map(str, files))}"
        )


if __name__ == "__main__":
    flags = read_flags()
    run_script(lambda: main(flags))
