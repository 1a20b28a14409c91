"""Several processes at one task, as `torchrun` and `accelerate launch` start them."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as distributed

Result = TypeVar("Result")

_PATIENCE = datetime.timedelta(days=365)
"""How long one process waits for another; the usual half an hour is less than one may be ahead."""


class Processes:
    """The processes of the default process group; one, if there is no group.

    Attributes:
        rank: this process's number, 0 for the first.
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
        """The processes, with a group of their own that waits as long as it takes."""
        processes = cls()
        if processes.world == 1:
            yield processes
            return
        processes._group = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        try:
            yield processes
        finally:
            distributed.destroy_process_group(processes._group)

    def first_alone(self, action: Callable[[], Result]) -> Result:
        """Let the first process do something; all get what it returns, or raise what it raises."""
        said: list[Any] = [None, None]
        if self.rank == 0:
            try:
                said[0] = action()
            except (OSError, ValueError) as error:
                said[1] = error
        if self.world > 1:
            distributed.broadcast_object_list(said, group=self._group)
        if said[1] is not None:
            raise said[1]
        result: Result = said[0]
        return result

    def gathered(self, mine: Any) -> list[Any]:
        """What each process brings, in their order; all have arrived when this returns."""
        if self.world == 1:
            return [mine]
        parts: list[Any] = [None] * self.world
        distributed.all_gather_object(parts, mine, group=self._group)
        return parts

    def share(self, things: Sequence[Result], weight: Callable[[Result], float]) -> list[Result]:
        """This process's share of things that weigh something: dealt out heaviest first, to whoever has least."""
        shares: list[list[int]] = [[] for _ in range(self.world)]
        loads = [0.0] * self.world
        weights = [weight(thing) for thing in things]
        for place in sorted(range(len(things)), key=lambda place: -weights[place]):
            least = loads.index(min(loads))
            shares[least].append(place)
            loads[least] += weights[place]
        return [things[place] for place in sorted(shares[self.rank])]
