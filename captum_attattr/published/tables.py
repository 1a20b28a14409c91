"""Tables of examples: a text or a pair in each row, and its label; tab- or comma-separated, or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from captum_attattr.checks import strings
from captum_attattr.files import existing_file


class Example(NamedTuple):
    """One example of a data set.

    Attributes:
        text: a text, or a pair such as (premise, hypothesis); as `explain` takes them.
        label: the index of a class; for regression a score; -1 where the table has no labels.
    """

    text: str | tuple[str, str]
    label: int | float


def read_table(
    path: str | os.PathLike[str],
    *,
    text: str,
    second: str | None = None,
    label: str | None = None,
    labels: Sequence[str] | None = None,
) -> list[Example]:
    r"""Read a table of any columns.

    Args:
        path: a .csv file (quoted as usual), a .tsv file (never quoted, as GLUE's), or a .jsonl, .ndjson or .json
            file with one object on each line; UTF-8; .csv and .tsv with a header.
        text: the column of the text.
        second: the column of the second text of a pair.
        label: the column of the label; None for a table without labels.
        labels: the classes as the file writes them, in order; None if the column holds numbers: classes if all of
            them are whole, else scores.

    Returns:
        The examples, in the file's order.

    Raises:
        TypeError: `path` is no path, or `labels` no list of strings.
        FileNotFoundError: no such file.
        ValueError: another ending, an empty file, a missing column, or, with the line's number, a malformed
            line, an empty text or a label that is not in `labels`.

    Example:
        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "films.csv")
        ...     _ = path.write_text('review,mark\n"gorgeous, witty",good\n')
        ...     read_table(path, text="review", label="mark", labels=["bad", "good"])
        [Example(text='gorgeous, witty', label=1)]
    """
    path = existing_file(path)
    classes = None if labels is None else strings("labels", labels)
    columns = [column for column in (text, second, label) if column is not None]
    if path.suffix.lower() in (".csv", ".tsv"):
        lines = _comma_separated(path) if path.suffix.lower() == ".csv" else tab_separated(path)
        rows = pick_columns(path, lines, columns)
    elif path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        rows = _json_lines(path, columns)
    else:
        raise ValueError(f"{str(path)!r} must end in .csv, .tsv, .jsonl, .ndjson or .json")

    def read_label(value: str) -> int | float:
        if label is None:
            return -1
        if classes is None:
            return read_number(value)
        if value not in classes:
            raise ValueError(f"label {value!r} is not one of {', '.join(classes)}")
        return classes.index(value)

    examples = []
    for line_number, row in rows:
        texts, cell = (row, "") if label is None else (row[:-1], row[-1])
        examples.append(make_example(f"{path}, line {line_number}", texts, cell, read_label))
    if all(float(example.label).is_integer() for example in examples):
        examples = [Example(example.text, int(example.label)) for example in examples]
    return not_empty(path, examples)


def read_number(value: str) -> float:
    """Return a label that is a finite number."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"label {value!r} is not a number")
    return number


def make_example(
    where: str,
    texts: Sequence[str],
    label: str,
    read_label: Callable[[str], int | float],
    empty: bool = False,
) -> Example:
    """Return the example of the row at `where`; `empty` says whether a text may be empty."""
    if not empty and not all(text.strip() for text in texts):
        raise ValueError(f"{where}: an empty text")
    try:
        value = read_label(label)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return Example(texts[0] if len(texts) == 1 else (texts[0], texts[1]), value)


def not_empty(where: object, examples: list[Example]) -> list[Example]:
    """Return the examples, of which there must be one."""
    if not examples:
        raise ValueError(f"{where} is empty: it holds no example")
    return examples


def _text(path: Path) -> str:
    """Return what a text file holds, without a byte-order mark."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 text ({error.reason})") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank, with their numbers."""
    # Not splitlines(), which ends lines at characters that GLUE's texts hold.
    for line_number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip(" \r"):
            yield line_number, line.removesuffix("\r")


def tab_separated(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Return line numbers and cells; a quote is a character like any other."""
    return ((line_number, line.split("\t")) for line_number, line in _lines(path))


def _comma_separated(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and cells, quoted as usual."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: {error}") from None


def pick_columns(
    path: Path,
    rows: Iterator[tuple[int, list[str]]],
    wanted: Sequence[str],
    header: Sequence[str] | None = None,
    lenient: bool = False,
) -> Iterator[Any]:
    """Yield the wanted columns of each row, with the row's line number.

    Args:
        path: the file, for the errors.
        rows: line numbers and cells.
        wanted: names of columns.
        header: the columns' names; None where the first row holds them.
        lenient: yield None for a row of too few or too many columns, instead of raising.
    """
    if header is None:
        _, first = next(rows, (0, []))
        if not first:
            raise ValueError(f"{path} is empty: not even a header")
        header = [name.strip() for name in first]
        for name in wanted:
            if header.count(name) != 1:
                problem = "no column" if name not in header else "more than one column"
                raise ValueError(f"{path} has {problem} {name!r}; its header has {', '.join(map(repr, header))}")
    columns = [header.index(name) for name in wanted]
    for line_number, row in rows:
        if len(row) != len(header) and not lenient:
            names = ", ".join(header)
            raise ValueError(f"{path}, line {line_number}: {len(row)} columns; {len(header)} are expected ({names})")
        yield line_number, [row[column] for column in columns] if len(row) == len(header) else None


def _json_lines(path: Path, wanted: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield line numbers and the wanted values of the JSON object on each line."""
    for line_number, line in _lines(path):
        where = f"{path}, line {line_number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", error)
            raise ValueError(f"{where}: not JSON ({reason}); one object on each line is expected") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: a JSON object is expected, not {line[:40]!r}")
        for name in wanted:
            if name not in row:
                raise ValueError(f"{where}: no {name!r}; it has {', '.join(map(repr, row))}")
            if isinstance(row[name], bool) or not isinstance(row[name], str | int | float):
                raise ValueError(f"{where}: {name!r} must be a text or a number, not {row[name]!r:.80}")
        yield line_number, [str(row[name]) for name in wanted]
