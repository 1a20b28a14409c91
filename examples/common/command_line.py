"""What the scripts with the published code's flags share: flags, how they end, their model, their files."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from transformers.utils.logging import disable_progress_bar

from captum_attattr.files import replacing
from captum_attattr.tasks import Task
from common.classifier import load_classifier
from common.training_flags import OneLineParser

LONGEST_LINE = 600
"""Characters of a message."""


def flag_parser(description: str | None) -> OneLineParser:
    """A parser with the flags that all scripts have; names and defaults are the published code's.

    Args:
        description: for --help.
    """
    parser = OneLineParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--task_name", required=True, help="the task, in any case: MNLI, SST-2 ...")
    add("--data_dir", required=True, help="folder with the task's tsv files")
    add("--bert_model", required=True, help="folder or hub name: architecture and tokenizer; any supported family")
    add("--model_file", help="weights of the fine-tuned model: a file or a folder; by default those of --bert_model")
    add("--output_dir", required=True, help="folder for the results; made if it is missing")
    add("--max_seq_length", type=int, default=128, help="tokens to which longer inputs are cut")
    add("--do_lower_case", action="store_true", help="lower-case; else as the tokenizer's own setting says")
    add("--no_cuda", action="store_true", help="stay on the CPU")
    add("--local_rank", type=int, default=-1, help="accepted; processes are told apart by torchrun's variables")
    add("--seed", type=int, default=42, help="accepted; what is random here has seeds of its own")
    add("--layer_norm_eps", type=float, help="of the layer norms, where --bert_model does not say the right one")
    add("--quiet", action="store_true", help="no progress bars")
    return parser


def check_flags(parser: OneLineParser, args: argparse.Namespace, *counts: str) -> None:
    """End the program where a number makes no sense.

    Args:
        parser: says so.
        args: the flags.
        counts: names of the flags that count something.
    """
    if (eps := args.layer_norm_eps) is not None and not 0 < eps < float("inf"):
        parser.error(f"--layer_norm_eps is {eps}; it must be above 0")
    for name, least, why in (*((count, 1, "") for count in counts), ("max_seq_length", 3, ": [CLS], a word, [SEP]")):
        if (value := getattr(args, name)) is not None and value < least:
            parser.error(f"--{name} is {value}; it must be {least} or more{why}")


def run_script(work: Callable[[], object]) -> None:
    """Do a script's work; what goes wrong is one line on stderr and exit status 2, and so are warnings without 2.

    Args:
        work: the work.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]  # the one that transformers shows while it loads
    name = Path(sys.argv[0]).name
    grouped = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"{name}: warning: {_line(message)}", file=sys.stderr)
            if grouped:
                torch.distributed.init_process_group("gloo")
            work()
        if grouped:  # whose threads must have ended when the interpreter does
            torch.distributed.destroy_process_group()
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        known = isinstance(error, ImportError | OSError | RuntimeError | TypeError | ValueError) and str(error).strip()
        print(f"{name}: error: {_line(error if known else repr(error))}", file=sys.stderr)
        sys.exit(2)


def _line(said: object) -> str:
    """In one line, and not too long."""
    line = " ".join(str(said).split())
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."


def load_model(args: argparse.Namespace, what: Task) -> tuple[Any, Any]:
    """The model and tokenizer that the flags name, on this process's device.

    Args:
        args: the flags.
        what: the task.

    Returns:
        Model and tokenizer.

    Raises:
        OSError: no such model; the message has the flags.
        ValueError: weights that do not fit it, or the task.
    """
    try:
        model, tokenizer = load_classifier(
            args.bert_model, args.model_file, what, args.do_lower_case, args.layer_norm_eps
        )
    except OSError as error:
        raise OSError(f"--bert_model {args.bert_model}, --model_file {args.model_file}: {error}") from error
    if torch.cuda.is_available() and not args.no_cuda:
        model.to(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return model, tokenizer


def writable(folder: str) -> Path:
    """Make the folder for the results, and find out whether it can be written.

    Args:
        folder: --output_dir.

    Returns:
        Its path.

    Raises:
        OSError: it cannot be made or written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"--output_dir {folder} cannot be written: {error.strerror}") from error
    return Path(folder)


def process() -> tuple[int, int]:
    """This process's number, and how many there are."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def write_json(path: Path, value: Any, sort_keys: bool = True) -> None:
    """Write JSON as the published code does.

    Args:
        path: the file.
        value: what it is to hold.
        sort_keys: whether entries are sorted by name.
    """
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=sort_keys) + "\n", encoding="utf-8")
