"""What scripts with the published code's flags share: the flags, their model, and how a script ends."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from transformers.utils.logging import disable_progress_bar

from captum_attattr.commands.endings import OneLineParser as OneLineParser  # as the package's own command line
from captum_attattr.commands.endings import guarded  # likewise
from captum_attattr.tasks import Task
from common.atomic_files import staged
from common.classifier import load_classifier


def flag_parser(
    description: str | None, seed: str = "accepted; what is random here has seeds of its own"
) -> OneLineParser:
    """Make a parser with the flags that all scripts have; names and defaults are the published code's.

    Args:
        description: for --help.
        seed: what --seed decides, for --help.
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
    add("--seed", type=int, default=42, help=seed)
    add("--layer_norm_eps", type=float, help="of the layer norms, where --bert_model does not say the right one")
    add("--quiet", action="store_true", help="no progress bars")
    return parser


def add_attribution_flags(parser: OneLineParser) -> None:
    """Add the flags that say what is attributed, along which path; the defaults are the paper's.

    Args:
        parser: gets them.
    """
    add = parser.add_argument
    add("--output", choices=("probability", "logit", "log_probability"), help="F; the probability if not given")
    add("--path", choices=("layer", "joint"), default="layer", help="open one layer at a time, or all together")
    add("--baseline", type=_baseline, default="zero", help="where the path starts: zero, uniform, sink or a number")


def _baseline(given: str) -> str | float:
    """Return a number, or a name that is checked later."""
    try:
        return float(given)
    except ValueError:
        return given


def attribution_options(args: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_attribution_flags` asked for, as arguments of `explain`; nothing for the defaults.

    Args:
        args: the flags.
    """
    usual = {"output": None, "path": "layer", "baseline": "zero"}
    return {name: getattr(args, name) for name in usual if getattr(args, name) != usual[name]}


def check_flags(parser: OneLineParser, args: argparse.Namespace, *counts: str) -> None:
    """End the program where a flag's value makes no sense.

    Args:
        parser: ends it.
        args: the flags.
        counts: names of the flags that count something, and so are 1 or more.
    """
    if (eps := args.layer_norm_eps) is not None and not 0 < eps < float("inf"):
        parser.error(f"--layer_norm_eps is {eps}; it must be above 0")
    for name, least in {**dict.fromkeys(counts, 1), "max_seq_length": 3, "start_exp": 0}.items():
        if (value := getattr(args, name, None)) is not None and value < least:
            why = ": [CLS], a word, [SEP]" if name == "max_seq_length" else ""
            parser.error(f"--{name} is {value}; it must be {least} or more{why}")


def run_script(work: Callable[[], object], args: argparse.Namespace | None = None) -> None:
    """Do a script's work; an error becomes one line on stderr and exit status 2, a warning one line.

    Args:
        work: the work.
        args: the flags, of which messages speak.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]  # the one that transformers shows while it loads
    grouped = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized()

    def in_group() -> None:
        if grouped:
            torch.distributed.init_process_group("gloo")
        work()
        if grouped:  # whose threads must have ended when the interpreter does
            torch.distributed.destroy_process_group()

    flags = {name: f"--{name}" for name in vars(args or argparse.Namespace())}
    if status := guarded(Path(sys.argv[0]).name, in_group, flags):
        sys.exit(status)


def load_model(args: argparse.Namespace, task: Task) -> tuple[Any, Any]:
    """Load the model and tokenizer that the flags name, on this process's device.

    Args:
        args: the flags.
        task: the task.

    Returns:
        Model and tokenizer.

    Raises:
        OSError: no such model; the message has the flags.
        ValueError: weights that do not fit it, or the task.
    """
    try:
        model, tokenizer = load_classifier(
            args.bert_model, args.model_file, task, args.do_lower_case, args.layer_norm_eps
        )
    except OSError as error:
        raise OSError(f"--bert_model {args.bert_model}, --model_file {args.model_file}: {error}") from error
    if torch.cuda.is_available() and not args.no_cuda:
        model.to(f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
    return model, tokenizer


def writable(folder: str | os.PathLike[str], given: str | None = None) -> Path:
    """Make a folder for results and check that it can be written, before work whose result would be lost.

    Args:
        folder: the folder.
        given: the flag and its value, for the message; by default `folder` is that of --output_dir.

    Returns:
        Its path.

    Raises:
        OSError: it cannot be made or written.
    """
    try:
        with staged(folder):
            pass
    except OSError as error:
        raise OSError(f"{given or f'--output_dir {folder}'} cannot be written: {error.strerror}") from error
    return Path(folder)


def rank_and_world_size() -> tuple[int, int]:
    """Return this process's rank, and how many processes torchrun has started; 0 and 1 without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
