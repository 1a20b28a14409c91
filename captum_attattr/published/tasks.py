"""The tasks of the published AttAttr code: their files, columns, label order and metric."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from captum_attattr.exceptions import warn_caller
from captum_attattr.files import checked_path
from captum_attattr.published.tables import (
    Example,
    make_example,
    not_empty,
    pick_columns,
    read_number,
    tab_separated,
)


@dataclass(frozen=True, eq=False)
class Task:
    """Where a task's files are, what their columns mean, and how predictions are measured.

    Attributes:
        name: the published code's name, in lower case.
        metric: "accuracy", "matthews" or "pearson".
        labels: the classes as the files write them, in the published code's order; empty for regression.
        label_names: their readable names, in the same order.
        columns: the names of the columns of the text, the second text if the task has pairs, and the label.
        hub: path and configuration for `datasets.load_dataset`; None if the task is not there.
        hub_columns: `columns` as `datasets` names them, where they differ.
        hub_dev: what `datasets` calls the split "dev".
        files: the file of each split, relative to the data folder.
        header: the columns' names where the files have no header; None where their first line is one.
        split_column: the column of the split's name, where one file holds all splits; None elsewhere.
        undecided: the label of rows that are left out; None if there are none.
        lenient: as the published code does for QQP, leave out rows with missing columns, keep empty texts, and
            strip double quotes from both ends of a text.
    """

    name: str
    metric: str
    labels: tuple[str, ...]
    label_names: tuple[str, ...]
    columns: tuple[str, ...]
    hub: tuple[str, str] | None = None
    hub_columns: tuple[str, ...] = ()
    hub_dev: str = "validation"
    files: Mapping[str, str] = field(default_factory=lambda: {"train": "train.tsv", "dev": "dev.tsv"})
    header: tuple[str, ...] | None = None
    split_column: str | None = None
    undecided: str | None = None
    lenient: bool = False

    @property
    def pair(self) -> bool:
        """Whether an example is a pair of texts."""
        return len(self.columns) == 3

    @property
    def regression(self) -> bool:
        """Whether labels are scores, so that a model has one output and F is that output, without a softmax."""
        return not self.labels

    @property
    def num_labels(self) -> int:
        """The number of outputs of a model for the task."""
        return len(self.labels) or 1

    def read(self, data_dir: str | os.PathLike[str], split: str = "dev") -> list[Example]:
        r"""Read one split from the task's own files (GLUE's, SciTail's, SICK's).

        A tab always ends a column and a quote is a character like any other, which is how GLUE is written;
        only a line feed (with or without a carriage return before it) ends a line. A byte-order mark and
        blank lines are skipped. MNLI's rows without an agreed label ("-"; GLUE's own files hold none, the
        published code fails on them) and QQP's rows with missing columns (the published code skips them, too)
        are left out with a warning that names the lines. CoLA's files have no header: their first line is an
        example here, which the published code drops, so that its example N has the index N + 1 here.

        Args:
            data_dir: the folder with the files.
            split: "train" or "dev"; for SciTail and SICK also "test".

        Returns:
            The examples, in the file's order.

        Raises:
            TypeError, FileNotFoundError: no path, or no such folder or file.
            ValueError: an unknown split; an empty file; a missing column; a malformed line or a label that
                the task does not have, with the line's number.

        Example:
            >>> import pathlib, tempfile
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     _ = pathlib.Path(folder, "dev.tsv").write_text("sentence\tlabel\na fine film\t1\n")
            ...     task("SST-2").read(folder)
            [Example(text='a fine film', label=1)]
        """
        self._check_split(split)
        path = checked_path(data_dir, "data_dir") / self.files[split]
        if not path.is_file():
            raise FileNotFoundError(f"no file {str(path)!r}, the {split} split of {self.name}")
        examples, left_out = [], []
        wanted = [self.split_column, *self.columns] if self.split_column else list(self.columns)
        for line_number, row in pick_columns(path, tab_separated(path), wanted, self.header, self.lenient):
            if row is None or row[-1] == self.undecided:
                left_out.append(line_number)
            elif not self.split_column or row.pop(0) == _SICK_SPLITS[split]:
                examples.append(self._example(f"{path}, line {line_number}", row))
        if left_out:
            lines = ", ".join(map(str, left_out[:5])) + (", ..." if len(left_out) > 5 else "")
            what = "rows without all columns or an agreed label are left out"
            warn_caller(f"{path}: {len(left_out)} {what}: line {lines}")
        return not_empty(path, examples)

    def read_hub(self, split: str = "dev") -> list[Example]:
        """Read one split with the package `datasets`, from its cache or the Hugging Face hub.

        Labels are matched by name, since the hub's order is not always the published code's (MNLI).

        Args:
            split: as in `read`.

        Returns:
            The examples, in order.

        Raises:
            ImportError: `datasets` is not installed.
            OSError: the hub cannot be reached and the cache does not hold the data.
            ValueError: an unknown split; the task is not on the hub, or has other columns or labels there.
        """
        self._check_split(split)
        if self.hub is None:
            raise ValueError(f"{self.name} cannot be read with datasets; give the folder of its files")
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise ImportError("the package datasets is not installed: pip install datasets") from error
        rows = load_dataset(*self.hub, split=self.hub_dev if split == "dev" else split)
        where, columns = f"{self.name} of datasets", self.hub_columns or self.columns
        for column in columns:
            if column not in rows.column_names:
                raise ValueError(f"{where} has no column {column!r}; it has {', '.join(map(repr, rows.column_names))}")
        names = getattr(rows.features[columns[-1]], "names", None)
        examples = []
        for index, row in enumerate(rows):
            *texts, label = (row[column] for column in columns)
            if names and label in range(len(names)):
                label = names[label]
            examples.append(self._example(f"{where}, row {index}", [*texts, str(label)]))
        return not_empty(where, examples)

    def _check_split(self, split: str) -> None:
        """Check that the task has labels for a split."""
        if split not in self.files:
            raise ValueError(f"{self.name} has no split {split!r} with labels; it has {', '.join(self.files)}")

    def _example(self, where: str, row: Sequence[str]) -> Example:
        """Return the example of a row at `where`."""
        texts = [text.strip('"') for text in row[:-1]] if self.lenient else row[:-1]
        return make_example(where, texts, row[-1], self._label, self.lenient)

    def _label(self, value: str) -> int | float:
        """Return the index of a class, by either of its names; for regression the score."""
        if self.regression:
            return read_number(value)
        for names in (self.labels, self.label_names):
            if value in names:
                return names.index(value)
        raise ValueError(f"label {value!r} is not one of {self.name}'s: {', '.join(self.labels)}")


_SICK_SPLITS = {"train": "TRAIN", "dev": "TRIAL", "test": "TEST"}
_BINARY, _ENTAILS = ("0", "1"), ("entailment", "not_entailment")
_THREE_WAY, _EQUIVALENT = ("contradiction", "entailment", "neutral"), ("not_equivalent", "equivalent")
_SENTENCES, _PREMISE = ("sentence1", "sentence2", "label"), ("premise", "hypothesis", "label")


def _glue(name: str, labels: tuple[str, ...], names: tuple[str, ...], *columns: str, **more: Any) -> Task:
    """Return a task of GLUE."""
    values = {"metric": "accuracy", "hub": ("nyu-mll/glue", name.replace("-", "")), **more}
    return Task(name=name, labels=labels, label_names=names, columns=columns, **values)


def _mnli(name: str, kind: str) -> Task:
    """Return MNLI with its matched or its mismatched set."""
    files = {"train": "train.tsv", "dev": f"dev_{kind}.tsv"}
    more = {"hub": ("nyu-mll/glue", "mnli"), "hub_columns": _PREMISE, "hub_dev": f"validation_{kind}"}
    columns = ("sentence1", "sentence2", "gold_label")
    return _glue(name, _THREE_WAY, _THREE_WAY, *columns, files=files, undecided="-", **more)


_ALL = (
    _glue(
        "cola",
        _BINARY,
        ("unacceptable", "acceptable"),
        "sentence",
        "label",
        metric="matthews",
        header=("source", "label", "mark", "sentence"),
    ),
    _mnli("mnli", "matched"),
    _mnli("mnli-mm", "mismatched"),
    _glue("mrpc", _BINARY, _EQUIVALENT, "#1 String", "#2 String", "Quality", hub_columns=_SENTENCES),
    _glue("rte", _ENTAILS, _ENTAILS, *_SENTENCES),
    Task(
        "scitail",
        "accuracy",
        ("neutral", "entails"),
        ("neutral", "entails"),
        _PREMISE,
        hub=("allenai/scitail", "tsv_format"),
        files={split: f"scitail_1.0_{split}.tsv" for split in ("train", "dev", "test")},
        header=_PREMISE,
    ),
    _glue("sst-2", _BINARY, ("negative", "positive"), "sentence", "label"),
    _glue(
        "qqp",
        _BINARY,
        ("not_duplicate", "duplicate"),
        "question1",
        "question2",
        "is_duplicate",
        hub_columns=("question1", "question2", "label"),
        lenient=True,
    ),
    _glue("qnli", _ENTAILS, _ENTAILS, "question", "sentence", "label"),
    _glue("wnli", _BINARY, ("not_entailment", "entailment"), *_SENTENCES),
    _glue("sts-b", (), (), "sentence1", "sentence2", "score", metric="pearson", hub_columns=_SENTENCES),
    Task(
        "sick",
        "accuracy",
        tuple(name.upper() for name in _THREE_WAY),
        _THREE_WAY,
        ("sentence_A", "sentence_B", "entailment_label"),
        files=dict.fromkeys(_SICK_SPLITS, "SICK.txt"),
        split_column="SemEval_set",
    ),
)
TASKS: Mapping[str, Task] = {entry.name: entry for entry in _ALL}
"""Every task by its name: the published code's ten, MNLI's mismatched set, and SICK."""


def task(name: str) -> Task:
    """Find a task by its name.

    Args:
        name: one of `TASKS`, in any case, with or without hyphens, underscores and blanks.

    Returns:
        The task.

    Raises:
        ValueError: no such task; the message lists the known ones.

    Example:
        >>> task("SST2").label_names
        ('negative', 'positive')
        >>> task("sts_b").metric, task("MNLI").labels
        ('pearson', ('contradiction', 'entailment', 'neutral'))
    """
    plain = re.sub(r"[-_ ]", "", str(name).lower())
    plain = {"mnlimatched": "mnli", "mnlimismatched": "mnlimm"}.get(plain, plain)
    for known, entry in TASKS.items():
        if known.replace("-", "") == plain:
            return entry
    raise ValueError(f"unknown task {name!r}; known are {', '.join(TASKS)}")
