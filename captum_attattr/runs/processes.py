"""Several processes at one task, as `torchrun` and `accelerate launch` start them."""

from __future__ import annotations

import datetime
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch.torch_version import TorchVersion

Result = TypeVar("Result")

_TIMEOUT = datetime.timedelta(days=365)
"""How long one process waits for another; the default of half an hour is less than one may be ahead."""
_FREED_GROUPS_HANG = TorchVersion(torch.__version__) < TorchVersion("2.8")
"""Whether a group that is freed while its threads finish their work hangs (pytorch/pytorch#154976)."""
_ended: list[Any] = []  # groups that are kept for that reason


class Processes:
    """The processes of the default process group; one, if there is no group.

    Attributes:
        rank: this process's rank, 0 for the first.
        world: how many there are.
    """

    def __init__(self) -> None:
        grouped = distributed.is_available() and distributed.is_initialized()
        self.rank: int = distributed.get_rank() if grouped else 0
        self.world: int = distributed.get_world_size() if grouped else 1
        self._group: Any = None

    @classmethod
    @contextmanager
    def together(cls) -> Iterator[Processes]:
        """Yield the processes, with a group of their own that waits as long as another process takes."""
        processes = cls()
        if processes.world == 1:
            yield processes
            return
        processes._group = distributed.new_group(backend="gloo", timeout=_TIMEOUT)
        try:
            yield processes
        finally:
            distributed.destroy_process_group(processes._group)
            if _FREED_GROUPS_HANG:
                _ended.append(processes._group)

    def first_alone(self, action: Callable[[], Result]) -> Result:
        """Let the first process act; all return what it returns, or raise what it raises."""
        if self.world == 1:
            return action()
        outcome: list[Any] = [None, None]  # a result, or an error
        problem: Exception | None = None
        if self.rank == 0:
            try:
                outcome[0] = action()
            except Exception as error:
                problem, outcome[1] = error, _sendable(error)
        distributed.broadcast_object_list(outcome, group=self._group)
        if outcome[1] is not None:
            raise problem or outcome[1]
        result: Result = outcome[0]
        return result

    def gathered(self, mine: Any) -> list[Any]:
        """Return what each process brings, by rank; all have arrived when this returns."""
        if self.world == 1:
            return [mine]
        parts: list[Any] = [None] * self.world
        distributed.all_gather_object(parts, mine, group=self._group)
        return parts

    def raise_together(self, problem: Exception | None) -> None:
        """Raise in every process if one of them brings a problem: its own in that one, its message in the others."""
        messages = self.gathered(None if problem is None else str(problem))
        if problem is not None:
            raise problem
        for rank, message in enumerate(messages):
            if message is not None:
                raise ValueError(f"process {rank}: {message}")

    def share(self, tasks: Sequence[Result], cost: Callable[[Result], float]) -> list[Result]:
        """Return this process's share of tasks, in their order.

        The costliest task comes first; each goes to the process whose tasks cost least so far.
        """
        mine: list[int] = []
        loads = [0.0] * self.world
        costs = [cost(task) for task in tasks]
        for index in sorted(range(len(tasks)), key=lambda index: -costs[index]):
            least = loads.index(min(loads))
            loads[least] += costs[index]
            if least == self.rank:
                mine.append(index)
        return [tasks[index] for index in sorted(mine)]


def is_main_process() -> bool:
    """Return whether this process prints and writes for all: the first one, or the only one."""
    return Processes().rank == 0


def _sendable(error: Exception) -> Exception:
    """Return the error, or a RuntimeError with its text where it cannot be sent to other processes."""
    with suppress(Exception):  # it cannot be pickled, or its class does not take its arguments back
        if type(pickle.loads(pickle.dumps(error))) is type(error):
            return error
    return RuntimeError(f"{type(error).__name__}: {error}")
