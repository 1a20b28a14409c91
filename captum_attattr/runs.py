"""Work over a data set: in batches, shared among processes, appended to a file as it is made, resumed from it.

The batches are planned beforehand, whoever does them: a run that was interrupted, or that had other processes,
does the same batches and ends with the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn
from tqdm.auto import tqdm

_HEADER = "captum_attattr run"
_VERSION = 1

Work = Callable[[list[int]], Tensor]
"""The values of some examples, given by their places in the data set: (examples, ...)."""


def run_batches(
    batches: Sequence[list[int]],
    work: Work,
    about: dict[str, Any],
    *,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    desc: str = "",
) -> Tensor:
    """Do every batch once, and put the examples' values together.

    Under `torchrun` (an initialised process group) every process does its share and all of them return the
    whole. With `resume` what a process has done is appended, batch by batch, to that file (other processes
    than the first append to `resume`.rank1 ...), and nothing that stands in these files is done again.

    Args:
        batches: places of the examples; all of them, each once.
        work: gives the values of a batch.
        about: what tells this run from others, as JSON: a file of another run is not continued.
        resume: the file; None to keep nothing.
        progress: show a bar for what takes longer than two seconds.
        desc: the bar's text.

    Returns:
        (N, ...) float64.

    Raises:
        ValueError: `resume` is a file of another run, or damaged.

    Warns:
        UserWarning: the last line of a file was torn; that batch is done again.
    """
    rank, world = _rank_and_world()
    journal = _Journal(Path(resume), about, rank) if resume is not None else None
    done: dict[int, list[Any]] = journal.read(len(batches)) if journal else {}
    _barrier(world)  # nobody appends before everybody has read
    todo = [number for number in range(len(batches)) if number not in done]
    bar = tqdm(
        total=sum(map(len, batches)),
        initial=sum(len(batches[number]) for number in done),
        desc=desc,
        unit="example",
        delay=2,
        disable=not progress or rank > 0,
    )
    mine: dict[int, list[Any]] = {}
    with bar:
        for place, number in enumerate(todo):
            if place % world == rank:
                mine[number] = work(batches[number]).double().cpu().tolist()
                if journal:
                    journal.append(number, mine[number])
            bar.update(len(batches[number]) if world == 1 or place % world == rank else 0)
    for part in _gathered(mine, world):
        done.update(part)
    by_place = {place: value for n, batch in enumerate(batches) for place, value in zip(batch, done[n], strict=True)}
    return torch.tensor([by_place[place] for place in range(len(by_place))], dtype=torch.float64)


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes; true where there is but one."""
    return _rank_and_world()[0] == 0


def model_digest(model: nn.Module) -> str:
    """What tells a model from others: every number of every weight, and the configuration."""
    digest = hashlib.sha256()
    config: Any = getattr(model, "config", None)
    if hasattr(config, "to_dict"):
        digest.update(json.dumps(config.to_dict(), sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        if tensor.numel():
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def data_digest(*parts: Any) -> str:
    """What tells a data set from others: token ids, labels, whatever JSON can hold."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def text_digests(texts: Iterable[Any]) -> list[str]:
    """One short digest for each text or pair, by which data sets are compared without keeping them."""
    return [hashlib.sha256(json.dumps(text).encode()).hexdigest()[:16] for text in texts]


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _barrier(world: int) -> None:
    if world > 1:
        torch.distributed.barrier()


def _gathered(mine: dict[int, list[Any]], world: int) -> list[dict[int, list[Any]]]:
    """What every process has done."""
    if world == 1:
        return [mine]
    parts: list[Any] = [None] * world
    torch.distributed.all_gather_object(parts, mine)
    return parts


class _Journal:
    """The file of a run: a line that says which run it is, then a line for every batch that is done."""

    def __init__(self, path: Path, about: dict[str, Any], rank: int) -> None:
        if path.is_dir() or not path.parent.is_dir():
            raise ValueError(f"resume must be a file in a directory that exists, not {str(path)!r}")
        self.path = path
        self.own = path if rank == 0 else path.with_name(f"{path.name}.rank{rank}")
        self.header = {_HEADER: _VERSION, **json.loads(json.dumps(about))}

    def read(self, batches: int) -> dict[int, list[Any]]:
        """The batches that are done, by whatever process."""
        done: dict[int, list[Any]] = {}
        for path in [self.path, *sorted(self.path.parent.glob(f"{self.path.name}.rank*"))]:
            if path.is_file():
                done.update(self._read(path, batches))
        return done

    def _read(self, path: Path, batches: int) -> dict[int, list[Any]]:
        content = path.read_bytes()
        lines = content.split(b"\n")
        ends_clean = lines[-1] == b""
        if ends_clean:
            lines.pop()
        done: dict[int, list[Any]] = {}
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
                done[entry["batch"]] = entry["values"]
        return done

    def _may_be_header(self, line: bytes) -> bool:
        """Whether a first line is the header of a run, or the beginning of this run's own."""
        entry = _parsed(line)
        own = json.dumps(self.header).encode()
        return own.startswith(line) if entry is None else _HEADER in entry

    def _drop_last(self, path: Path, content: bytes, number: int, line: bytes, ends_clean: bool) -> None:
        warnings.warn(
            f"the last line ({number}) of {str(path)!r} is torn: {line[:60]!r}; that batch is done again",
            UserWarning,
            stacklevel=6,
        )
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

    def append(self, batch: int, values: list[Any]) -> None:
        """Add a batch; the line is there whole once this returns."""
        lines = [] if self.own.is_file() and self.own.stat().st_size else [self.header]
        lines.append({"batch": batch, "values": values})
        with open(self.own, "ab") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines).encode())


def _is_batch(entry: dict[str, Any], batches: int) -> bool:
    number, values = entry.get("batch"), entry.get("values")
    known = isinstance(number, int) and not isinstance(number, bool) and 0 <= number < batches
    return entry.keys() == {"batch", "values"} and known and isinstance(values, list)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None
