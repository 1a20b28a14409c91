"""Memory: given back to the system by long runs, and chunks that shrink where there is too little."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Callable

import torch

EVERY = 5.0
"""Seconds: giving back takes some milliseconds, and fetching the pages again as many."""

_last = time.monotonic()


def give_back() -> None:
    """Give freed memory back to the system, at most every five seconds.

    glibc keeps what was freed between blocks that are in use, and finds no room there for a tensor of another size:
    over batches of many lengths a process grows by the hour though it holds no more. `malloc_trim` releases those
    pages. Nothing happens where the C library has no such function.
    """
    global _last
    now = time.monotonic()
    if now - _last < EVERY or not sys.platform.startswith("linux"):
        return
    _last = now
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the system, has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)  # of torch's allocator on CPUs


class ChunkSize:
    """How many rows are run at once; halved when memory runs out.

    Args:
        rows: to begin with.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def shrink(self, error: BaseException, rows: int) -> None:
        """Halve the size after an error of a chunk of this many rows.

        Raises:
            torch.OutOfMemoryError: memory is too small for one row.
            BaseException: the error, where it is another one.
        """
        if not out_of_memory(error):
            raise error
        if rows <= 1:
            raise torch.OutOfMemoryError(
                f"memory is too small for one row, one example run once (internal_batch_size=1): {error}"
            ) from error
        self.rows = max(1, min(self.rows, rows) // 2)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def in_chunks(count: int, rows: int, run: Callable[[range], None]) -> None:
    """Call a function with one range after another of so many indices; again with half where memory runs out.

    Args:
        count: how many indices there are.
        rows: most of a range, to begin with.
        run: what is called.

    Raises:
        torch.OutOfMemoryError: memory is too small for one.
    """
    size = ChunkSize(rows)
    begin = 0
    while begin < count:
        part = range(begin, min(begin + size.rows, count))
        try:
            run(part)
        except (RuntimeError, MemoryError) as error:
            size.shrink(error, len(part))
        else:
            begin = part.stop
