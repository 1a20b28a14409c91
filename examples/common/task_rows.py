"""Rows of a task as the library takes them: texts and labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from captum_attattr import tasks
from captum_attattr.tables import Example
from captum_attattr.tasks import Task


def texts_and_labels(task: Task, rows: Sequence[Example]) -> tuple[list[Any], list[Any]]:
    """Return texts and gold labels, these by name: the model may have the task's classes in another order."""
    labels = [row.label if task.regression else task.label_names[int(row.label)] for row in rows]
    return [row.text for row in rows], labels


def class_task(name: str) -> Task:
    """Return the task of this name, if it has classes.

    Raises:
        ValueError: an unknown task, or one with scores.
    """
    task = tasks.task(name)
    if task.regression:
        raise ValueError(f"--task_name {name}: its labels are scores; triggers need classes")
    return task


def row_range(flag: str, given: str, count: int) -> tuple[int, int]:
    """Return the first row that a flag names as START:END, and the one after the last.

    Raises:
        ValueError: another form, or a range without a row.
    """
    try:
        start, end = [int(part) if part else None for part in given.split(":")]
    except ValueError:
        raise ValueError(f"{flag} {given!r} must be START:END, as 200: or 200:1000") from None
    first, last = start or 0, count if end is None else min(end, count)
    if not 0 <= first < last:
        raise ValueError(f"{flag} {given!r} holds no row; the file has {count}")
    return first, last
