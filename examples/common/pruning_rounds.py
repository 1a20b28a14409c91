"""What `prune_iteratively.py` reads: its flags, and the rows that rank, train and measure."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import TrainingArguments

from captum_attattr.heads.scoring import METHODS  # the names that --method takes
from captum_attattr.tasks import Task
from common.classifier import output_names
from common.command_line import check_flags, flag_parser
from common.task_rows import texts_and_labels
from common.training_data import encode


def read_flags(argv: Sequence[str], description: str) -> argparse.Namespace:
    """Read the command line; a value that makes no sense ends the program with a message."""
    parser = flag_parser(description, seed="of the order of the training rows, and of dropout")
    add = parser.add_argument
    add("--method", choices=METHODS, default="taylor", help="what ranks the heads")
    add("--num_examples", type=int, default=200, help="how many training rows rank the heads")
    add("--rounds", type=int, default=5, help="how often heads go")
    add("--share", type=float, default=0.1, help="of all heads, what goes in a round")
    add("--steps", type=int, default=30, help="training steps after each round")
    add("--train_batch_size", type=int, default=32, help="rows of a training step")
    add("--eval_batch_size", type=int, default=64, help="rows of a forward that is measured")
    add("--learning_rate", type=float, default=5e-5, help="of AdamW; constant")
    args = parser.parse_args(argv)
    check_flags(parser, args, "num_examples", "rounds", "steps", "train_batch_size", "eval_batch_size")
    if not 0 < args.share * args.rounds <= 1:
        parser.error(f"--rounds {args.rounds} of --share {args.share} are {args.share * args.rounds:.2f} of all heads")
    if not 0 <= args.seed < 2**32:
        parser.error(f"--seed is {args.seed}; it must be from 0 to {2**32 - 1}")
    if not 0 < args.learning_rate < float("inf"):
        parser.error(f"--learning_rate is {args.learning_rate}; it must be above 0")
    return args


class Rows(NamedTuple):
    """Rows of a task. The training rows are in a random order, which --seed decides.

    Attributes:
        ranking: texts and labels of the first training rows, as `head_importance` takes them.
        train: the training rows of all rounds, encoded for the Trainer.
        dev: the dev rows, encoded.
        timed: texts and labels of the dev rows.
    """

    ranking: tuple[list[Any], list[Any]]
    train: list[dict[str, Any]]
    dev: list[dict[str, Any]]
    timed: tuple[list[Any], list[Any]]


def read_rows(args: argparse.Namespace, task: Task, model: Any, tokenizer: Any) -> Rows:
    """Read what the flags ask for.

    Raises:
        OSError, ValueError: files that cannot be read, or that hold too few rows.
    """
    train, dev = list(task.read(args.data_dir, "train")), task.read(args.data_dir, "dev")
    wanted = args.rounds * args.steps * args.train_batch_size
    if len(train) < wanted:
        raise ValueError(f"--rounds x --steps x --train_batch_size are {wanted} rows; {args.data_dir} has {len(train)}")
    random.Random(args.seed).shuffle(train)
    outputs = output_names(model.config)
    order = [outputs.index(name) for name in task.label_names]
    return Rows(
        texts_and_labels(task, train[: args.num_examples]),
        encode(train[:wanted], tokenizer, args.max_seq_length, order),
        encode(dev, tokenizer, args.max_seq_length, order),
        texts_and_labels(task, dev),
    )


def training_arguments(args: argparse.Namespace) -> TrainingArguments:
    """Return the Trainer's settings: one pass over the rows, a constant rate, no checkpoints."""
    use_cpu = args.no_cuda or not torch.cuda.is_available()
    return TrainingArguments(
        args.output_dir,
        per_device_train_batch_size=args.train_batch_size,
        per_device_eval_batch_size=args.eval_batch_size,
        num_train_epochs=1,
        learning_rate=args.learning_rate,
        lr_scheduler_type="constant",
        save_strategy="no",
        report_to="none",
        disable_tqdm=args.quiet,
        seed=args.seed,
        use_cpu=use_cpu,
        dataloader_pin_memory=not use_cpu,
    )
