"""The file that a run over a data set is resumed from: a line for every batch that is done."""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from captum_attattr.checks import integer
from captum_attattr.exceptions import ResultFileError, warn_caller
from captum_attattr.files import checked_path, hold
from captum_attattr.runs.digests import differences

_HEADER = "captum_attattr run"
_VERSION = 1
_CHECK = "crc32"
"""The entry of a batch that tells whether the others are as they were written."""


class Done(NamedTuple):
    """A batch that is done: the values of its examples, and the remarks on it."""

    values: list[Any]
    notes: list[str]


class Journal:
    """The file of a run: a line that says which run it is, then a line for every batch that is done.

    As a context it belongs to one process: the operating system's lock ends with the process, however that ends.

    Args:
        path: the file of the whole run. Processes other than the first write to `path`.rank1 ...
        about: what tells this run from others, as JSON.
        rank: of this process.

    Raises:
        TypeError, ValueError: no path of a file that can be written; when the context begins, a file that another
            run writes to.
    """

    def __init__(self, path: str | os.PathLike[str], about: dict[str, Any], rank: int) -> None:
        self.path = checked_path(path, "resume")
        special = self.path.exists() and not self.path.is_file()  # a directory, a device, a pipe
        if special or not self.path.parent.is_dir():
            raise ValueError(f"resume must be a file in a directory that exists, not {str(path)!r}")
        self.written = self.path if rank == 0 else self.path.with_name(f"{self.path.name}.rank{rank}")
        self.header = {_HEADER: _VERSION, **json.loads(json.dumps(about))}
        self._kept = self._batches = 0

    def __enter__(self) -> Journal:
        self._fresh = not self.written.exists()
        self._held = _held(self.written)
        return self

    def __exit__(self, *exc_info: object) -> None:
        status = os.fstat(self._held.fileno())
        if self._fresh and not status.st_size and _is_at(self.written, status):
            self.written.unlink()  # no batch was done: leave no trace
        self._held.close()

    def read(self, batches: Sequence[Sequence[int]]) -> dict[int, Done]:
        """Return the batches that are done, by whatever process.

        Args:
            batches: those of the run, the indices of their examples.

        Raises:
            ValueError: a file of another run, or damaged; the message has the line.

        Warns:
            UserWarning: the last line of a file was torn; that batch is done again.
        """
        done: dict[int, Done] = {}
        name = re.compile(re.escape(self.path.name) + r"(\.rank\d+)?")
        for path in sorted(self.path.parent.iterdir()):
            if name.fullmatch(path.name) and path.is_file():
                done.update(self._read(path, batches))
        shapes = {tuple(torch.tensor(entry.values, dtype=torch.float64).shape[1:]) for entry in done.values()}
        if len(shapes) > 1:
            raise ResultFileError(
                f"{str(self.path)!r} is damaged: its examples have values of the shapes {sorted(shapes)!s:.80}; delete "
                "it to start afresh"
            )
        self._kept, self._batches = len(done), len(batches)
        return done

    def _read(self, path: Path, batches: Sequence[Sequence[int]]) -> dict[int, Done]:
        """Return the batches that one file holds."""
        content = path.read_bytes()
        lines = content.split(b"\n")
        if ends_clean := not lines[-1]:
            lines.pop()
        done: dict[int, Done] = {}
        for line_number, line in enumerate(lines, 1):
            last = line_number == len(lines)
            entry = _parsed(line)
            begins_header = entry is None and json.dumps(self.header).encode().startswith(line)
            if line_number == 1 and not begins_header and _HEADER not in (entry or {}):
                raise ValueError(f"{str(path)!r} is no file of a run; choose another name for resume")
            if last and (entry is None or not ends_clean):
                warn_caller(f"the last line ({line_number}) of {str(path)!r} is torn: {line[:60]!r}; it is done again")
                if path == self.written:  # other processes mend their files
                    os.truncate(path, len(content) - len(line) - ends_clean)
            elif entry is None:
                raise _damaged(path, line_number, f"no JSON: {line[:60]!r}")
            elif line_number > 1:
                if problem := _problem(entry, batches):
                    raise _damaged(path, line_number, problem)
                done[entry["batch"]] = Done(entry["values"], entry.get("notes", []))
            elif entry != self.header:
                raise ValueError(
                    f"{str(path)!r} belongs to another run and is not continued ({differences(entry, self.header)}); "
                    "choose another file, or delete it"
                )
        return done

    def append(self, batch: int, done: Done) -> None:
        """Add a batch; its line is on the disk, whole, once this returns."""
        lines = [] if self.written.is_file() and self.written.stat().st_size else [self.header]
        notes = {"notes": done.notes} if done.notes else {}
        entry = {"batch": batch, "values": done.values, **notes}
        lines.append({**entry, _CHECK: _checksum(entry)})
        kept = f"{self._kept} of {self._batches} batches"
        with naming(self.written, kept), open(self.written, "ab") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())
            file.flush()
            os.fsync(file.fileno())
        self._kept += 1


@contextmanager
def naming(path: Path, kept: str) -> Iterator[None]:
    """Say in an error from writing which file it was, how much is kept, and that the run can be resumed."""
    try:
        yield
    except OSError as error:
        message = f"{error.strerror} (what is done is kept, {kept}: start again to go on)"
        raise OSError(error.errno, message, str(path)) from error


def _held(path: Path) -> IO[bytes]:
    """Open a file, made if it is missing, that no other run holds."""
    while True:
        try:
            file = open(path, "ab")  # noqa: SIM115 (open as long as the run lasts)
        except OSError as error:
            raise ValueError(f"resume file {str(path)!r} cannot be written: {error.strerror}") from error
        if hold(file) is False:
            file.close()
            raise ValueError(
                f"{str(path)!r} is in use: another run that has not ended writes to it; wait for that one, or choose "
                "another file for resume"
            )
        if _is_at(path, os.fstat(file.fileno())):
            return file
        file.close()  # a run that ended without a batch has removed it since it was opened


def _is_at(path: Path, status: os.stat_result) -> bool:
    """Return whether a path is still the file of this status."""
    try:
        return os.path.samestat(os.stat(path), status)
    except FileNotFoundError:
        return False


def _damaged(path: Path, line: int, problem: str) -> ResultFileError:
    """Return the error about a line that another one follows, or that was written to its end."""
    return ResultFileError(
        f"{str(path)!r} is damaged at line {line}: {problem}; remove that line and start again: only its batch is done "
        "again"
    )


def _problem(entry: dict[str, Any], batches: Sequence[Sequence[int]]) -> str:
    """Return what makes a line no batch of this run, as it was written; "" where nothing does."""
    batch, notes = integer(entry.get("batch")), entry.get("notes", [])
    if (
        not {"batch", "values"} <= entry.keys() <= {"batch", "values", "notes", _CHECK}
        or batch is None
        or not 0 <= batch < len(batches)
        or not isinstance(entry["values"], list)
        or not isinstance(notes, list)
        or not all(isinstance(note, str) for note in notes)
    ):
        return f"no batch of this run: {entry!r:.60}"
    values, examples = entry["values"], len(batches[batch])
    try:
        torch.tensor(values, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return f"batch {batch} holds no array of numbers: {values!r:.60}"
    if len(values) != examples:
        return f"batch {batch} holds the values of {len(values)} examples, not of {examples}"
    written = {name: value for name, value in entry.items() if name != _CHECK}
    if _CHECK in entry and entry[_CHECK] != _checksum(written):  # version 0.1 wrote none
        return f"batch {batch} does not hold what was written: its {_CHECK} is another"
    return ""


def _checksum(entry: dict[str, Any]) -> str:
    """Return the checksum of a line's entries."""
    return f"{zlib.crc32(json.dumps(entry).encode()):08x}"


def _parsed(line: bytes) -> dict[str, Any] | None:
    """Return the JSON object in a line; None where there is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None
