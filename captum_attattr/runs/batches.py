"""Work over a data set: in batches, shared among processes, appended to a file as it is made, resumed from it.

The batches are planned beforehand, whoever does them: a run that was interrupted, or that had other processes,
does the same batches and ends with the same numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from tqdm.auto import tqdm

from captum_attattr.exceptions import ResultFileError
from captum_attattr.runs.journal import Done, Journal
from captum_attattr.runs.memory import give_back

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
    notes: list[str] | None = None,
    costs: Sequence[float] | None = None,
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
        notes: an empty list to which `work` may append what it has to say about its batch. At the end it holds
            what was said about all batches, in their order, whichever process or earlier run did them.
        costs: what each batch takes, in any unit, so that processes get equal shares; None for its examples.

    Returns:
        (N, ...) float64.

    Raises:
        TypeError, ValueError: `resume` is no file that can be written, is in use by another run that has not
            ended, belongs to another run, or is damaged. All processes raise where one does.

    Warns:
        UserWarning: the last line of a file was torn; that batch is done again.
    """
    rank, world = _rank_and_world()
    notes = [] if notes is None else notes
    with ExitStack() as stack:
        journal: Journal | None = None
        done: dict[int, Done] = {}
        problem: Exception | None = None
        if resume is not None:
            try:
                journal = stack.enter_context(Journal(resume, about, rank))
                done = journal.read(len(batches))
                for number, entry in done.items():
                    if len(entry.values) != (size := len(batches[number])):
                        held = f"batch {number} holds the values of {len(entry.values)} examples, not of {size}"
                        raise ResultFileError(f"{str(resume)!r} is damaged: {held}; delete it to start afresh")
            except Exception as error:  # the other processes must not wait for this one
                problem = error
        done = _agreed(done, problem, world)  # nobody appends before everybody has read
        mine: dict[int, Done] = {}
        todo = [number for number in range(len(batches)) if number not in done]
        with _bar(batches, done, desc, progress and rank == 0) as bar:
            for number in _share(todo, costs or list(map(len, batches)), rank, world):
                notes.clear()
                values = work(batches[number]).cpu().double().tolist()
                mine[number] = Done(values, list(notes))
                if journal:
                    journal.append(number, mine[number])
                bar.update(len(batches[number]))
                give_back()
        for part in _gathered(mine, world):
            done.update(part)
    notes[:] = [note for number in range(len(batches)) for note in done[number].notes]
    by_place = {
        place: value for n, batch in enumerate(batches) for place, value in zip(batch, done[n].values, strict=True)
    }
    return torch.tensor([by_place[place] for place in range(len(by_place))], dtype=torch.float64, device="cpu")


def _share(todo: list[int], costs: Sequence[float], rank: int, world: int) -> list[int]:
    """One process's batches: the costliest first, each to the process that has least to do so far."""
    loads, share = [0.0] * world, []
    for number in sorted(todo, key=lambda number: (-costs[number], number)):
        least = loads.index(min(loads))
        loads[least] += costs[number]
        if least == rank:
            share.append(number)
    return sorted(share)


def is_main_process() -> bool:
    """Whether this process is the one that prints and writes; true where there is but one."""
    return _rank_and_world()[0] == 0


def _rank_and_world() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _bar(batches: Sequence[list[int]], done: dict[int, Done], desc: str, shown: bool) -> tqdm[Any]:
    counts = {number: len(batch) for number, batch in enumerate(batches)}
    initial = sum(counts[number] for number in done)
    return tqdm(total=sum(counts.values()), initial=initial, desc=desc, unit="example", delay=2, disable=not shown)


def _gathered(mine: Any, world: int) -> list[Any]:
    """What every process has."""
    if world == 1:
        return [mine]
    parts: list[Any] = [None] * world
    torch.distributed.all_gather_object(parts, mine)
    return parts


def _agreed(done: dict[int, Done], problem: Exception | None, world: int) -> dict[int, Done]:
    """What is done by whatever process, in the order of the batches; raises in all processes what one has met."""
    problems = _gathered(None if problem is None else str(problem), world)
    if problem is not None:
        raise problem
    for rank, message in enumerate(problems):
        if message is not None:
            raise ValueError(f"process {rank}: {message}")
    # Processes that do not share a disk have read different files.
    if len(set(map(tuple, _gathered(sorted(done), world)))) > 1:
        done = {number: entry for part in _gathered(done, world) for number, entry in part.items()}
    return done
