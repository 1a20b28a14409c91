"""Texts and labels given on a command line: as arguments, or as columns of a CSV or TSV file."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any


def read_rows(path: str, needs_labels: bool) -> tuple[list[Any], list[str]]:
    """Read texts, or pairs of texts, and labels from a file whose first line names the columns.

    Args:
        path: a file with commas, or with tabs where its name ends in .tsv. The columns are `text`, or `text` and
            `text2` for pairs, and `label`; others are left alone.
        needs_labels: whether the column `label` must be there.

    Returns:
        Texts or pairs, and labels as they stand. No labels where they are not needed.

    Raises:
        OSError: the file cannot be read.
        ValueError: it lacks a column, a row lacks a field or has an empty one, or there is no row.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t" if Path(path).suffix == ".tsv" else ",")
            columns, rows = list(reader.fieldnames or []), list(reader)
    except OSError as error:
        raise OSError(f"--data {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"--data {path}: no table in UTF-8: {error}") from error
    wanted = ["text", *["label"] * needs_labels]
    if missing := [name for name in wanted if name not in columns]:
        raise ValueError(
            f"--data {path}: no column {' or '.join(map(repr, missing))} in its first line, which names "
            f"{', '.join(map(repr, columns)) or 'none'}; text, label and, for pairs, text2 are needed"
        )
    if not rows:
        raise ValueError(f"--data {path} has no row below its first line")
    used = [name for name in ("text", "text2", *["label"] * needs_labels) if name in columns]
    for line, row in enumerate(rows, 2):
        if lacking := [name for name in used if row[name] is None or (name != "text2" and not row[name].strip())]:
            raise ValueError(f"--data {path}, row {line - 1}: no {lacking[0]}")
    texts = [(row["text"], row["text2"]) if "text2" in columns else row["text"] for row in rows]
    return texts, [row["label"] for row in rows] if needs_labels else []
