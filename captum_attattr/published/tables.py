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


class Example(NamedTuple):
    """One row of a data set.

    Attributes:
        text: a text, or a pair such as (premise, hypothesis); as `explain` takes them.
        label: the number of a class; for regression a score; -1 where the table has no labels.
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
    r"""Read a table of one's own.

    Args:
        path: a .csv file (quoted as usual), a .tsv file (never quoted, as GLUE's), or a .jsonl, .ndjson or .json
            file with one object on each line; UTF-8; .csv and .tsv with a header.
        text: the column of the text.
        second: the column of the second text of a pair.
        label: the column of the label; None for a table without labels.
        labels: the classes as the file writes them, in order; None if the column holds numbers (whole numbers
            are then classes, others scores).

    Returns:
        The examples, in the file's order.

    Raises:
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
    path = existing(Path(path))
    columns = [column for column in (text, second, label) if column is not None]
    if path.suffix.lower() in (".csv", ".tsv"):
        cells = _comma_separated(path) if path.suffix.lower() == ".csv" else tab_separated(path)
        rows = pick_columns(path, cells, columns)
    elif path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        rows = _json_lines(path, columns)
    else:
        raise ValueError(f"{str(path)!r} must end in .csv, .tsv, .jsonl, .ndjson or .json")

    def read_label(value: str) -> int | float:
        if label is None:
            return -1
        if labels is None:
            return read_number(value)
        if value not in labels:
            raise ValueError(f"label {value!r} is not one of {', '.join(labels)}")
        return list(labels).index(value)

    examples = []
    for number, row in rows:
        texts, mark = (row, "") if label is None else (row[:-1], row[-1])
        examples.append(make_example(f"{path}, line {number}", texts, mark, read_label))
    if all(float(example.label).is_integer() for example in examples):
        examples = [Example(example.text, int(example.label)) for example in examples]
    return not_empty(path, examples)


def read_number(value: str) -> float:
    """A finite number."""
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
    """One example of a row at `where`; `empty` texts are refused unless that is allowed."""
    if not empty and not all(text.strip() for text in texts):
        raise ValueError(f"{where}: an empty text")
    try:
        number = read_label(label)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    return Example(texts[0] if len(texts) == 1 else (texts[0], texts[1]), number)


def not_empty(where: object, found: list[Example]) -> list[Example]:
    """The examples, if there is one."""
    if not found:
        raise ValueError(f"{where} is empty: it holds no example")
    return found


def existing(path: Path, what: str = "") -> Path:
    """The path, if there is such a file."""
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}{what}")
    return path


def _text(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 text ({error.reason})") from None


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    # Not splitlines(): GLUE's texts hold characters that it takes for line ends.
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip(" \r"):
            yield number, line.removesuffix("\r")


def tab_separated(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells; a quote is a character like any other."""
    return ((number, line.split("\t")) for number, line in _lines(path))


def _comma_separated(path: Path) -> Iterator[tuple[int, list[str]]]:
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
    """The wanted columns of each row, with the row's line number; None for a row with a wrong number of columns."""
    if header is None:
        _, first = next(rows, (0, []))
        if not first:
            raise ValueError(f"{path} is empty: not even a header")
        header = [name.strip() for name in first]
        for name in wanted:
            if header.count(name) != 1:
                problem = "no column" if name not in header else "more than one column"
                raise ValueError(f"{path} has {problem} {name!r}; its header has {', '.join(map(repr, header))}")
    places = [header.index(name) for name in wanted]
    for number, row in rows:
        if len(row) != len(header) and not lenient:
            names = ", ".join(header)
            raise ValueError(f"{path}, line {number}: {len(row)} columns; {len(header)} are expected ({names})")
        yield number, [row[place] for place in places] if len(row) == len(header) else None


def _json_lines(path: Path, wanted: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{where}: not JSON ({error.msg}); one object on each line is expected") from None
        if not isinstance(row, dict):
            raise ValueError(f"{where}: a JSON object is expected, not {line[:40]!r}")
        for name in wanted:
            if name not in row:
                raise ValueError(f"{where}: no {name!r}; it has {', '.join(map(repr, row))}")
            if not isinstance(row[name], str | int | float):
                raise ValueError(f"{where}: {name!r} must be a text or a number, not {row[name]!r}")
        yield number, [str(row[name]) for name in wanted]
