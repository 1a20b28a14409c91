"""Memory that long runs give back to the system."""

from __future__ import annotations

import ctypes
import sys
import time

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
