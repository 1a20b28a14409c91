"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path`, which becomes `path` when the block ends without an error.

    Whoever reads `path` meanwhile sees the old file or the new one, whole; after an error only the old one is left.

    Args:
        path: the file to be; its directory must exist.

    Yields:
        The temporary path to write to.

    Raises:
        TypeError: `path` is no path.
        ValueError: `path` is a directory, or its directory does not exist.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a string or a path, not {type(path).__name__}: {path!r}")
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"path must be a file, but {path} is a directory")
    if not path.parent.is_dir():
        raise ValueError(f"the directory {path.parent} does not exist: make it first, or choose another path")
    # In the same directory, since a rename is atomic within one file system only.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # some writers make their files private; everybody's umask decides here
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
