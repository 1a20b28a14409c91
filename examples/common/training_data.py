"""The training and the held-out examples of a task, for fine-tuning."""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from captum_attattr import tasks
from captum_attattr.explanations.truncation import tokenize  # so that training cuts pairs as explaining does
from captum_attattr.tables import Example
from common.film_reviews import LABELS, find_archive, read_film_reviews

FILM_REVIEWS = "film-reviews"


class TaskData(NamedTuple):
    """A task's examples.

    Attributes:
        train: the examples that are trained on.
        held_out: the examples that are evaluated.
        labels: the names of a model's outputs, in order; one for regression.
        metric: the name of the task's metric.
        written: the classes as the task's files write them, in the order of `labels`; none for regression.
        segment: what the published code calls the held-out set in its files' names.
    """

    train: Sequence[Example]
    held_out: Sequence[Example]
    labels: tuple[str, ...]
    metric: str
    written: tuple[str, ...] = LABELS
    segment: str = "dev"


def task_name(name: str) -> str:
    """Return the name of a task.

    Args:
        name: the name as a user writes it.

    Returns:
        "film-reviews", or the name in `captum_attattr.tasks.TASKS`.

    Raises:
        argparse.ArgumentTypeError: there is no such task; the message lists the known ones.
    """
    if name.lower() == FILM_REVIEWS:
        return FILM_REVIEWS
    try:
        return tasks.task(name).name
    except ValueError:
        known = ", ".join((FILM_REVIEWS, *tasks.TASKS))
        raise argparse.ArgumentTypeError(f"unknown task {name!r}; known are {known}") from None


def read_task_data(args: argparse.Namespace) -> TaskData:
    """Read the examples that the flags ask for.

    Args:
        args: ``task_name``, ``data_dir``, ``use_datasets``, ``do_train``, ``do_eval``, ``eval_split`` and
            ``num_train_examples``.

    Returns:
        The examples; for training only if there is training, for evaluation only if there is evaluation.

    Raises:
        ImportError: the package `datasets` is asked for and not installed.
        OSError: a file cannot be read.
        RuntimeError: the film reviews cannot be fetched.
        ValueError: the data is malformed, or has no such split.
    """
    train: Sequence[Example] = []
    held_out: Sequence[Example] = []
    labels: tuple[str, ...] = LABELS
    written: tuple[str, ...] = LABELS
    metric, segment = "accuracy", args.eval_split
    if args.task_name == FILM_REVIEWS:
        if args.eval_split != "dev":
            raise ValueError(f"{FILM_REVIEWS} has no split {args.eval_split!r}; it has dev, the held-out sentences")
        train, held_out = read_film_reviews(find_archive(args.data_dir))
    else:
        task = tasks.task(args.task_name)
        labels, metric, written = task.label_names or ("score",), task.metric, task.labels
        if task.name.startswith("mnli"):  # of which there are two
            segment = Path(task.files.get(segment, segment)).stem
        read = task.read_hub if args.use_datasets else partial(task.read, args.data_dir)
        # The held-out set before training, which takes long: a mistake in it must not be seen only afterwards.
        if args.do_eval:
            held_out = read(args.eval_split)
        if args.do_train:
            train = read("train")
    return TaskData(train[: args.num_train_examples or None], held_out, labels, metric, written, segment)


def encode(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, length: int, order: Sequence[int] = ()
) -> list[dict[str, Any]]:
    """Tokenize examples, pairs as pairs.

    Args:
        examples: the examples; they may be none.
        tokenizer: the model's tokenizer.
        length: tokens to which longer inputs are cut, the longer text of a pair first.
        order: the index of the model's output for each class of the task; the class itself if it is empty.

    Returns:
        One unpadded input with its label for each example.
    """
    if not examples:
        return []
    inputs = tokenizer([example.text for example in examples], truncation=True, max_length=length)
    labels = [order[int(example.label)] if order else example.label for example in examples]
    columns = {**inputs, "labels": labels}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for row, example in zip(rows, examples, strict=True):
        if len(row["input_ids"]) == length and not isinstance(example.text, str):  # a pair that may have been cut
            cut = tokenize(tokenizer, example.text, length)
            row.update({name: cut[name][0].tolist() for name in row.keys() & cut.keys()})
    return rows
