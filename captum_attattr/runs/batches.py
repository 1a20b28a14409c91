"""Work over a data set: in batches, shared among processes, appended to a file as they are done, resumed from it.

The batches are planned beforehand, whoever does them: a run that was interrupted, or that had other processes,
does the same batches and ends with the same values.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_attattr.runs.journal import Done, Journal
from captum_attattr.runs.memory import ChunkSize, give_back
from captum_attattr.runs.processes import Processes

Work = Callable[[list[int]], Tensor]
"""Gives the values of some examples, (examples, ...), by their indices in the data set."""


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
    """Do every batch once, and put the values of the examples together.

    Under `torchrun` (an initialised process group) every process does its share and all of them return the
    whole. With `resume` what a process has done is appended, batch by batch, to that file (other processes
    than the first append to `resume`.rank1 ...), and nothing that stands in these files is done again.

    Args:
        batches: indices of the examples; all of them, each once.
        work: gives the values of a batch, or of a part of it: where memory runs out, a batch is halved.
        about: what tells this run from others, as JSON: a file of another run is refused.
        resume: the file; None to keep nothing.
        progress: show a bar for what takes longer than two seconds.
        desc: the bar's text.
        notes: an empty list to which `work` may append remarks on its batch. At the end it holds those on all
            batches, in their order, whichever process or earlier run did them.
        costs: what each batch takes, in any unit, so that processes get equal shares; None for its examples.

    Returns:
        (N, ...) float64.

    Raises:
        TypeError, ValueError: `resume` is no file that can be written, is in use by another run that has not
            ended, belongs to another run, or is damaged. All processes raise where one does.
        torch.OutOfMemoryError: memory is too small for one example.

    Warns:
        UserWarning: the last line of a file was torn; that batch is done again.
    """
    notes = [] if notes is None else notes
    counts = [len(batch) for batch in batches]
    costs = costs or counts
    with ExitStack() as stack:
        processes = stack.enter_context(Processes.together())
        journal, problem = None, None
        done: dict[int, Done] = {}
        if resume is not None:
            try:
                journal = stack.enter_context(Journal(resume, about, processes.rank))
                done = journal.read(batches)
            except Exception as error:  # the other processes must not wait for this one
                problem = error
        done = _agreed(done, problem, processes)  # nobody appends before everybody has read
        mine: dict[int, Done] = {}
        todo = [index for index in range(len(batches)) if index not in done]
        with tqdm(
            total=sum(counts),
            initial=sum(counts[index] for index in done),
            desc=desc,
            unit="example",
            delay=2,
            disable=not progress or processes.rank > 0,
        ) as bar:
            for index in processes.share(todo, lambda index: costs[index]):
                notes.clear()
                values = _worked(work, batches[index], notes).tolist()
                mine[index] = Done(values, list(notes))
                if journal:
                    journal.append(index, mine[index])
                bar.update(counts[index])
                give_back()
        for part in processes.gathered(mine):
            done.update(part)
    notes[:] = [note for index in range(len(batches)) for note in done[index].notes]
    by_example = {
        example: value for i, batch in enumerate(batches) for example, value in zip(batch, done[i].values, strict=True)
    }
    return torch.tensor([by_example[example] for example in range(len(by_example))], dtype=torch.float64, device="cpu")


def _worked(work: Work, batch: list[int], notes: list[str]) -> Tensor:
    """Return the values of a batch; where memory runs out, of its halves, one after the other.

    Raises:
        torch.OutOfMemoryError: memory is too small for one example.
    """
    noted = len(notes)
    try:
        return work(batch).cpu().double()
    except (RuntimeError, MemoryError) as error:
        ChunkSize(len(batch)).shrink(error, len(batch))
    del notes[noted:]
    half = len(batch) // 2
    return torch.cat([_worked(work, part, notes) for part in (batch[:half], batch[half:])])


def _agreed(done: dict[int, Done], problem: Exception | None, processes: Processes) -> dict[int, Done]:
    """Return what is done by whatever process; raise in all of them what one has met."""
    processes.raise_together(problem)
    # Processes that do not share a disk have read different files.
    if len(set(map(tuple, processes.gathered(sorted(done))))) > 1:
        done = {index: entry for part in processes.gathered(done) for index, entry in part.items()}
    return done
