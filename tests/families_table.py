"""Prints the table of supported families; with `--write docs/guide/models.md` puts it between that page's markers."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from families import FAMILIES, Family

BEGIN, END = "<!-- families -->", "<!-- /families -->"


def table(families: Iterable[Family] = FAMILIES) -> str:
    """The Markdown between the markers: what is attributed by which route, what cannot be pruned or is refused, why."""
    supported: dict[tuple[str, str], list[str]] = {}
    uncut: dict[str, list[str]] = {}
    refused: dict[str, list[str]] = {}
    for family in families:
        if family.route == "refused":
            refused.setdefault(family.reason, []).append(family.name)
        else:
            supported.setdefault((family.route, ", ".join(family.kinds)), []).append(family.name)
            if family.uncut:
                uncut.setdefault(family.uncut, []).append(family.name)
    lines = ["| families | route | kinds attributed |", "|---|---|---|"]
    lines += [f"| {', '.join(names)} | {route} | {kinds} |" for (route, kinds), names in supported.items()]
    lines += ["", "`mask_heads` switches heads off in all of these, and `prune_heads` removes them in all but:", ""]
    lines += [f"- {', '.join(names)}: {reason}" for reason, names in uncut.items()]
    lines += ["", "Refused, with an error that says why:", ""]
    lines += [f"- {', '.join(names)}: {reason}" for reason, names in refused.items()]
    return "\n".join(lines) + "\n"


def section(text: str) -> tuple[int, int]:
    """Where the text between the markers begins and ends.

    Raises:
        ValueError: the markers are missing, doubled or in the wrong order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"the text needs one {BEGIN} and, after it, one {END}")
    return text.index(BEGIN) + len(BEGIN), text.index(END)


def write(path: Path) -> None:
    """Put the table between a file's markers; the file is the old one or the new one at any moment."""
    text = path.read_text(encoding="utf-8")
    begin, end = section(text)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        new = Path(folder) / path.name
        new.write_text(f"{text[:begin]}\n{table()}{text[end:]}", encoding="utf-8")
        new.chmod(path.stat().st_mode)
        os.replace(new, path)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", metavar="FILE", type=Path, help="replace the table in this file")
    path = parser.parse_args(arguments).write
    if path is None:
        print(table(), end="")
        return
    try:
        write(path)
    except (OSError, ValueError) as error:
        parser.error(f"{path}: {error}")


if __name__ == "__main__":
    main()
