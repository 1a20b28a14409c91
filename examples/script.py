"""What the scripts around a fine-tuned model share: the published code's flags, loading, errors in one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from classifier import load_classifier
from classifier_flags import OneLineParser

from captum_attattr.tables import Example
from captum_attattr.tasks import Task, task


def common_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that the published scripts have in common, and the new ones for long runs."""
    parser = OneLineParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--task_name", required=True, help="the task, in any case: MNLI, SST-2 ...")
    add("--data_dir", required=True, help="folder with the task's tsv files")
    add("--bert_model", required=True, help="folder or hub name: architecture and tokenizer")
    add("--model_file", help="weights of the fine-tuned model: a file or a folder; by default those of --bert_model")
    add("--output_dir", required=True, help="folder for the results; made if it is missing")
    add("--max_seq_length", type=int, default=128, help="tokens to which longer inputs are cut")
    add("--do_lower_case", action="store_true", help="lower-case; else as the tokenizer's own setting says")
    add("--no_cuda", action="store_true", help="stay on the CPU")
    add("--local_rank", type=int, default=-1, help="accepted; processes are told apart by torchrun's variables")
    add("--resume", action="store_true", help="keep what is done in --output_dir, and go on from there")
    add("--quiet", action="store_true", help="no progress bars")
    return parser


def at_least_one(parser: argparse.ArgumentParser, args: argparse.Namespace, *names: str) -> None:
    """End the program where one of these flags is below 1."""
    for name in names:
        if getattr(args, name) < 1:
            parser.error(f"--{name} is {getattr(args, name)}; it must be 1 or more")


def in_one_line(work: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run a script; what is wrong is said in one line on stderr, with exit status 2."""
    try:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo")
        work(args)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"{Path(sys.argv[0]).name}: error: {first}", file=sys.stderr)
        sys.exit(2)


def load(args: argparse.Namespace, what: Task) -> tuple[Any, Any]:
    """The model, on its device, and its tokenizer."""
    try:
        model, tokenizer = load_classifier(args.bert_model, args.model_file, what, args.do_lower_case)
    except OSError as error:
        raise OSError(f"--bert_model {args.bert_model}, --model_file {args.model_file}: {error}") from error
    if torch.cuda.is_available() and not args.no_cuda:
        model.to(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return model, tokenizer


def texts_and_labels(what: Task, rows: Sequence[Example]) -> tuple[list[Any], list[Any]]:
    """Texts, and gold labels by name: the model may have the task's classes in another order."""
    labels = [row.label if what.regression else what.label_names[int(row.label)] for row in rows]
    return [row.text for row in rows], labels


def class_task(name: str) -> Task:
    """A task with classes.

    Raises:
        ValueError: an unknown task, or one with scores.
    """
    what = task(name)
    if what.regression:
        raise ValueError(f"--task_name {name}: its labels are scores; triggers need classes")
    return what


def row_range(flag: str, given: str, count: int) -> tuple[int, int]:
    """The rows that a flag names as START:END.

    Raises:
        ValueError: another form, or no row.
    """
    try:
        start, end = [int(part) if part else None for part in given.split(":")]
    except ValueError:
        raise ValueError(f"{flag} {given!r} must be START:END, as 200: or 200:1000") from None
    first, last = start or 0, count if end is None else min(end, count)
    if not 0 <= first < last:
        raise ValueError(f"{flag} {given!r} holds no row; the file has {count}")
    return first, last


def is_first_process() -> bool:
    """Whether this process writes the files."""
    return int(os.environ.get("RANK", "0")) == 0
