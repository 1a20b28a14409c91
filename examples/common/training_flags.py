"""The flags of the fine-tuning script: names of the published AttAttr code where it has them."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from demo_model import PACKAGE

from captum_attattr.tasks import TASKS
from common.command_line import OneLineParser
from common.trained_weights import TRAINABLE
from common.training_data import FILM_REVIEWS, task_name

ABOVE_ZERO = (
    *("train_batch_size", "eval_batch_size", "gradient_accumulation_steps"),
    *("lora_rank", "learning_rate", "num_train_epochs"),
)
MAY_CHANGE = {
    *("resume", "export", "data_dir", "output_dir", "eval_batch_size", "no_cuda", "do_eval"),
    *("local_rank", "loss_scale", "optim_recover_path"),
}
"""Flags that may differ between the start of a training and its resumption."""


def read_flags(argv: Sequence[str]) -> argparse.Namespace:
    """Read the script's command line; a missing, unknown or senseless value ends the program with a message.

    Args:
        argv: the flags.

    Returns:
        Their values.

    Raises:
        SystemExit: names the flag, its value and what would be right.
    """
    parser = OneLineParser(
        description="Fine-tunes and evaluates a sequence classifier.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _add_published_flags(parser)
    _add_new_flags(parser)
    args = parser.parse_args(argv)
    try:
        _check_values(args)
        _check_combinations(args)
        _check_output_dir(args)
    except ValueError as error:
        parser.error(str(error))
    return args


def _add_published_flags(parser: argparse.ArgumentParser) -> None:
    """Add what is read, what is done with it, and how, mostly as the published code has it."""
    add = parser.add_argument
    add("--task_name", required=True, type=task_name, help=f"{', '.join((FILM_REVIEWS, *TASKS))}; in any case")
    add("--data_dir", help=f"folder of the task's files; of {FILM_REVIEWS}, fetched if missing, also the .tar.gz file")
    add("--use_datasets", action="store_true", help="take the data from the package datasets, not from --data_dir")
    add("--bert_model", help=f"folder, hub name or exported file; if not given, the encoder in {PACKAGE}")
    add("--model_recover_path", help="weights to start from: a state dict of the whole classifier, as model.1.bin")
    add("--optim_recover_path", help="accepted; see --resume")
    add("--output_dir", required=True, help="folder for checkpoints, model, the results and the published code's files")
    add("--max_seq_length", type=int, default=128, help="tokens to which longer inputs are cut")
    add("--do_train", action="store_true", help="train")
    add("--do_eval", action="store_true", help="evaluate after every epoch and at the end")
    add("--eval_split", choices=("train", "dev", "test"), default="dev", help="what --do_eval evaluates")
    add("--num_train_examples", type=int, default=0, help="train on the first so many examples; 0 for all")
    add("--train_batch_size", type=int, default=32, help="inputs in one training step of a process")
    add("--eval_batch_size", type=int, default=64, help="inputs evaluated at once")
    add("--gradient_accumulation_steps", type=int, default=1, help="parts in which a training step's inputs are done")
    add("--learning_rate", type=float, default=5e-5, help="peak learning rate of AdamW")
    add("--num_train_epochs", type=float, default=3.0, help="passes over the training set")
    add("--group_by_length", action="store_true", help="batches of inputs of like length, which need less padding")
    add("--warmup_proportion", type=float, default=0.1, help="share of the steps in which the rate rises")
    add("--do_lower_case", action="store_true", help="lower-case; else as the tokenizer's own setting says")
    add("--no_cuda", action="store_true", help="stay on the CPU")
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument("--fp16", action="store_true", help="mixed precision with float16; needs a GPU")
    precision.add_argument("--bf16", action="store_true", help="mixed precision with bfloat16")
    add("--loss_scale", type=float, default=0, help="accepted; the scale of --fp16 is always dynamic")
    add("--local_rank", type=int, default=-1, help="accepted; processes are told apart by torchrun's variables")
    add("--seed", type=int, default=42, help="seed of first weights, order and dropout, not of the held-out set")


def _add_new_flags(parser: argparse.ArgumentParser) -> None:
    """Add which weights are trained, which are kept, and where they go."""
    add = parser.add_argument
    add("--trainable", choices=TRAINABLE, default="all", help="what is trained beside pooler and classifier")
    add("--lora_rank", type=int, default=8, help="rank of the updates of --trainable lora")
    add("--resume", action="store_true", help="go on from the last checkpoint in --output_dir; without one, start")
    add(
        "--keep_best",
        action="store_true",
        help="keep the epoch that is best on what --do_eval evaluates, not the last; its figure is then too good",
    )
    add("--export", metavar="FILE", help="safetensors file for what was trained, and only that, in half precision")


def _check_values(args: argparse.Namespace) -> None:
    """Check each flag on its own, and which data there is.

    Raises:
        ValueError: names the flag, its value and what would be right.
    """
    for flag in ABOVE_ZERO:
        if not 0 < getattr(args, flag) < float("inf"):
            raise ValueError(f"--{flag} is {getattr(args, flag)}; it must be above 0")
    if args.use_datasets == bool(args.data_dir):
        raise ValueError("give --data_dir or --use_datasets, one of them")
    if args.use_datasets and args.task_name == FILM_REVIEWS:
        raise ValueError(f"{FILM_REVIEWS} is not in datasets; give --data_dir, the folder that is to hold it")
    if args.num_train_examples < 0:
        raise ValueError(f"--num_train_examples is {args.num_train_examples}; it must be 0, for all, or above")
    if args.max_seq_length < 3:
        raise ValueError(f"--max_seq_length is {args.max_seq_length}; it must be 3 or more: [CLS], a word, [SEP]")
    if not 0 <= args.warmup_proportion < 1:
        raise ValueError(f"--warmup_proportion is {args.warmup_proportion}; it must be at least 0 and below 1")
    if not 0 <= args.seed < 2**32:
        raise ValueError(f"--seed is {args.seed}; it must be from 0 to {2**32 - 1}")


def _check_combinations(args: argparse.Namespace) -> None:
    """Check the flags that need or exclude each other.

    Raises:
        ValueError: names them.
    """
    if not (args.do_train or args.do_eval):
        raise ValueError("nothing to do: give --do_train, --do_eval or both")
    for flag in ("resume", "export", "keep_best"):
        if getattr(args, flag) and not args.do_train:
            raise ValueError(f"--{flag} needs --do_train")
    if args.keep_best and not args.do_eval:
        raise ValueError("--keep_best needs --do_eval, which says which epoch is the best")
    if args.train_batch_size % args.gradient_accumulation_steps:
        raise ValueError(
            f"--train_batch_size {args.train_batch_size} cannot be done in --gradient_accumulation_steps "
            f"{args.gradient_accumulation_steps} equal parts"
        )
    if args.fp16 and (args.no_cuda or not torch.cuda.is_available()):
        raise ValueError("--fp16 needs a GPU; --bf16 also works on the CPU")
    if args.export and not args.export.endswith(".safetensors"):
        raise ValueError(f"--export is {args.export!r}; the name must end in .safetensors")
    if args.do_train and (args.bert_model or "").endswith(".safetensors"):
        raise ValueError(f"--bert_model {args.bert_model!r} can only be evaluated; train a folder or hub name")


def _check_output_dir(args: argparse.Namespace) -> None:
    """Check that what is in the output folder is what the flags resume, and that nothing in it is overwritten.

    Raises:
        ValueError: names the folder, or the flag that has changed.
    """
    flags_file = Path(args.output_dir) / "opt.json"
    if args.resume and flags_file.is_file():
        _check_same(json.loads(flags_file.read_text(encoding="utf-8")), vars(args))
    if not args.do_train and flags_file.is_file():
        raise ValueError(
            f"{args.output_dir!r} holds a training's results; choose another --output_dir for an evaluation"
        )
    if args.do_train and not args.resume and checkpoints(args.output_dir):
        raise ValueError(f"{args.output_dir!r} holds checkpoints: --resume, or choose another --output_dir")


def _check_same(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Check that a training is resumed with the flags it was begun with.

    Raises:
        ValueError: another value of a flag that may not change.
    """
    for flag, value in before.items():
        if flag not in MAY_CHANGE and flag in now and now[flag] != value:
            raise ValueError(f"--resume: the training was begun with --{flag} {value}; it is {now[flag]} now")


def checkpoints(folder: str) -> list[Path]:
    """List a folder's complete checkpoints, the oldest first.

    Args:
        folder: the ``--output_dir`` of a training; it need not exist.

    Returns:
        Their folders; those of a training that died while it wrote them are left out.
    """
    # The Trainer writes trainer_state.json last.
    complete = [state.parent for state in Path(folder).glob("checkpoint-*/trainer_state.json")]
    return sorted(complete, key=lambda path: int(path.name.split("-")[1]))
