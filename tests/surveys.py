"""Surveys of every family that transformers ships: each in a process of its own, resumed, and written as a page."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tiny_families import model_types

SECONDS = 240
"""After which a family is given up."""


@dataclass
class Row:
    """What came out for one family."""

    family: str
    outcome: str
    model: str = ""
    """The class that was built."""
    detail: str = ""
    """Why it was refused, or not built; what is broken."""

    def said(self) -> str:
        """What stands in the last column of the page."""
        return self.detail


def apart_from_us(survey: Callable[[str], Row], family: str, seconds: int = SECONDS) -> dict[str, Any]:
    """Survey a family in a process of its own, which may crash or hang."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=lambda: send.send(asdict(survey(family))))
    process.start()
    send.close()
    try:
        row = receive.recv() if receive.poll(seconds) else asdict(Row(family, "not built", "", f"over {seconds} s"))
    except EOFError:
        row = asdict(Row(family, "not built", "", "the process died (memory)"))
    process.kill()
    process.join()
    return dict(row)


def cell(text: str, most: int = 220) -> str:
    """A text as a cell of a Markdown table."""
    text = text.replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) < most else f"{text[: most - 3]}..."


def versions() -> str:
    """The versions that a page names."""
    return f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}"


def main(
    doc: str | None,
    survey: Callable[[str], Row],
    row_of: Callable[..., Row],
    table: Callable[[Sequence[Any]], str],
    arguments: Iterable[str] | None = None,
) -> None:
    """Run a survey's command: families by name, `--lines` to go on with, `--write` for the page."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", help="model types; all by default")
    parser.add_argument("--lines", type=Path, help="append a line for each family; those in the file are not run again")
    parser.add_argument("--write", type=Path, help="write the page to this file")
    given = parser.parse_args(None if arguments is None else list(arguments))
    warnings.filterwarnings("ignore")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    known: dict[str, Any] = {}
    if given.lines and given.lines.exists():
        known = {row["family"]: row_of(**row) for row in map(json.loads, given.lines.read_text().splitlines())}
    rows: list[Any] = []
    for family in given.families or model_types():
        row = known.get(family) or row_of(**apart_from_us(survey, family))
        rows.append(row)
        if family not in known:
            print(f"{row.family} | {row.model} | {row.outcome} | {row.said()}", flush=True)
            if given.lines:
                with given.lines.open("a") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
    print(Counter(row.outcome for row in rows))
    if given.write:
        given.write.write_text(table(rows), encoding="utf-8")
    sys.exit(any(row.outcome == "broken" for row in rows))
