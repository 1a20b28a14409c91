"""The file that a run over a data set can be resumed from: a line for every batch that is done."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import IO, Any, NamedTuple

from captum_attattr.exceptions import warn_caller

try:
    import fcntl
except ImportError:  # Windows: two runs at once are not noticed there
    fcntl = None  # type: ignore[assignment]

_HEADER = "captum_attattr run"
_VERSION = 1


class Done(NamedTuple):
    """What is done of a run: the values of a batch, and what was noted about it."""

    values: list[Any]
    notes: list[str]


class Journal:
    """The file of a run: a line that says which run it is, then a line for every batch that is done.

    As a context it belongs to one process: the operating system's lock goes with the process, however that ends.

    Args:
        path: the file of the whole run. Other processes than the first write to `path`.rank1 ...
        about: what tells this run from others, as JSON.
        rank: the number of this process.

    Raises:
        TypeError, ValueError: no path of a file that can be written; when the context begins, a file that another
            run writes to.
    """

    def __init__(self, path: str | os.PathLike[str], about: dict[str, Any], rank: int) -> None:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(f"resume must be a path, got {type(path).__name__}: {path!r}")
        self.path = Path(path)
        if self.path.is_dir() or not self.path.parent.is_dir():
            raise ValueError(f"resume must be a file in a directory that exists, not {str(path)!r}")
        self.own = self.path if rank == 0 else self.path.with_name(f"{self.path.name}.rank{rank}")
        self.header = {_HEADER: _VERSION, **json.loads(json.dumps(about))}

    def __enter__(self) -> Journal:
        self._fresh = not self.own.exists()
        self._held = _locked(self.own)
        return self

    def __exit__(self, *exc_info: object) -> None:
        made = os.fstat(self._held.fileno())
        if self._fresh and not made.st_size and _is_at(self.own, made):
            self.own.unlink()  # nothing was done: no trace
        self._held.close()

    def read(self, batches: int) -> dict[int, Done]:
        """The batches that are done, by whatever process.

        Args:
            batches: how many the run has.

        Raises:
            ValueError: a file of another run, or damaged.

        Warns:
            UserWarning: the last line of a file was torn; that batch is done again.
        """
        done: dict[int, Done] = {}
        others = re.compile(re.escape(self.path.name) + r"\.rank\d+")
        parts = [path for path in sorted(self.path.parent.iterdir()) if others.fullmatch(path.name)]
        for path in [self.path, *parts]:
            if path.is_file():
                done.update(self._read(path, batches))
        return done

    def _read(self, path: Path, batches: int) -> dict[int, Done]:
        content = path.read_bytes()
        lines = content.split(b"\n")
        ends_clean = lines[-1] == b""
        if ends_clean:
            lines.pop()
        done: dict[int, Done] = {}
        for number, line in enumerate(lines, 1):
            last = number == len(lines)
            entry = _parsed(line)
            if number == 1 and not self._may_be_header(line):
                raise ValueError(f"{str(path)!r} is no file of a run; choose another name for resume")
            if entry is None or (last and not ends_clean):
                if not last:
                    raise ValueError(f"{str(path)!r} is damaged at line {number}: {line[:60]!r}; remove that line")
                self._drop_last(path, content, number, line, ends_clean)
                break
            if number == 1:
                self._check(path, entry)
            elif not _is_batch(entry, batches):
                raise ValueError(f"{str(path)!r}: line {number} is no batch of this run: {line[:60]!r}")
            else:
                done[entry["batch"]] = Done(entry["values"], entry.get("notes", []))
        return done

    def _may_be_header(self, line: bytes) -> bool:
        """Whether a first line is the header of a run, or the beginning of this run's own."""
        entry = _parsed(line)
        own = json.dumps(self.header).encode()
        return own.startswith(line) if entry is None else _HEADER in entry

    def _drop_last(self, path: Path, content: bytes, number: int, line: bytes, ends_clean: bool) -> None:
        warn_caller(f"the last line ({number}) of {str(path)!r} is torn: {line[:60]!r}; that batch is done again")
        if path == self.own:  # other processes mend their own
            os.truncate(path, len(content) - len(line) - ends_clean)

    def _check(self, path: Path, entry: dict[str, Any]) -> None:
        if entry == self.header:
            return
        differing = [name for name in self.header.keys() | entry.keys() if self.header.get(name) != entry.get(name)]
        shown = {n: (f"{entry.get(n)!r:.40}", f"{self.header.get(n)!r:.40}") for n in sorted(differing)}
        changes = ", ".join(f"{n} {there} there, {now} now" for n, (there, now) in shown.items())
        raise ValueError(
            f"{str(path)!r} belongs to another run and is not continued ({changes}); choose another file, or delete it"
        )

    def append(self, batch: int, done: Done) -> None:
        """Add a batch; the line is there whole once this returns."""
        lines = [] if self.own.is_file() and self.own.stat().st_size else [self.header]
        notes = {"notes": done.notes} if done.notes else {}
        lines.append({"batch": batch, "values": done.values, **notes})
        with open(self.own, "ab") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())


def _locked(path: Path) -> IO[bytes]:
    """A file, made if it is missing, that no other run holds."""
    while True:
        try:
            file = open(path, "ab")  # noqa: SIM115 (open as long as the run lasts)
        except OSError as error:
            raise ValueError(f"resume file {str(path)!r} cannot be written: {error.strerror}") from error
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise ValueError(
                f"{str(path)!r} is in use: another run that has not ended writes to it; wait for that one, or choose "
                "another file for resume"
            ) from None
        except OSError:
            return file  # a file system without locks
        if _is_at(path, os.fstat(file.fileno())):
            return file
        file.close()  # a run that ended without a batch has removed it since it was opened


def _is_at(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), status)
    except FileNotFoundError:
        return False


def _is_batch(entry: dict[str, Any], batches: int) -> bool:
    number, values, notes = entry.get("batch"), entry.get("values"), entry.get("notes", [])
    known = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < batches
    noted = isinstance(notes, list) and all(isinstance(note, str) for note in notes)
    return (
        {"batch", "values"} <= entry.keys() <= {"batch", "values", "notes"}
        and known
        and isinstance(values, list)
        and noted
    )


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
