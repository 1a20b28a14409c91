"""Digests of a shard's batches, in a file beside it until the run has ended: what a batch must be to count as done."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from captum_attattr.archives.plan import Layout
from captum_attattr.files import flush_folder

_LINE = 65  # bytes: 64 hexadecimal digits and the end of the line
_BLOCK = 2**22  # bytes read at once


class BatchDigests:
    """The file that holds the SHA-256 of each batch of a shard, a line for each, in order.

    A line is written after its batch has reached the disk. So whatever happens, even a power cut, a batch whose bytes
    have the digest of their line is whole; any other is done again.

    Args:
        shard: the path of the shard.
    """

    def __init__(self, shard: Path) -> None:
        self.path = shard.with_suffix(".sha256")

    def read(self) -> list[str]:
        """Return the lines; a last one that was cut off is none."""
        if not self.path.exists():
            return []
        content = self.path.read_bytes()
        lines = [content[start : start + _LINE] for start in range(0, len(content) - _LINE + 1, _LINE)]
        return [line[:-1].decode("ascii", "replace") for line in lines]

    def append(self, count: int, digests: Sequence[str]) -> None:
        """Write digests after the first `count` lines, to the disk, not only to the system's memory."""
        new = not self.path.exists()
        with open(self.path, "ab", buffering=0) as file:
            file.truncate(count * _LINE)
            data = memoryview("".join(f"{digest}\n" for digest in digests).encode())
            while data:
                data = data[file.write(data) :]
            os.fsync(file.fileno())
        if new:
            flush_folder(self.path.parent)

    def remove(self) -> None:
        """Remove the file, if it is there."""
        self.path.unlink(missing_ok=True)


def digests_of(file: IO[bytes], layout: Layout) -> list[str]:
    """Return the digests of the whole batches that an open shard holds."""
    length = os.fstat(file.fileno()).st_size
    digests: list[str] = []
    for start, end in zip(layout.ends, layout.ends[1 : 1 + layout.whole_batches(length)], strict=False):
        file.seek(start)
        digest = hashlib.sha256()
        for at in range(start, end, _BLOCK):
            digest.update(file.read(min(_BLOCK, end - at)))
        digests.append(digest.hexdigest())
    return digests


def same_from_start(found: Sequence[str], wanted: Sequence[str]) -> int:
    """Return how many digests are equal before the first that differs."""
    pairs = enumerate(zip(found, wanted, strict=False))
    return next((i for i, (ours, theirs) in pairs if ours != theirs), min(len(found), len(wanted)))
