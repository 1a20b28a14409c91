"""Rows of a task as the scripts hand them to the library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from captum_attattr.tables import Example
from captum_attattr.tasks import Task, task


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
