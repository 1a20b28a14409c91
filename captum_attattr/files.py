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
        ValueError: `path` is a directory, its directory does not exist, or nothing can be written there.
    """
    path = checked_path(path)
    if path.is_dir():
        raise ValueError(f"path must be a file, but {path} is a directory")
    if not path.parent.is_dir():
        raise ValueError(f"the directory {path.parent} does not exist: make it first, or choose another path")
    # In the same directory, since a rename is atomic within one file system only.
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        try:
            temporary.touch()
        except OSError as error:
            raise ValueError(f"{str(path)!r} cannot be written: {error.strerror}") from error
        mode = temporary.stat().st_mode  # some writers make their files private; everybody's umask decides here
        try:
            yield temporary
            temporary.chmod(mode)
            temporary.replace(path)
        except OSError as error:  # a full disk
            if error.errno is None or error.filename not in (None, str(temporary)):
                raise
            raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def existing_file(path: str | os.PathLike[str]) -> Path:
    """The path of a file that is there.

    Raises:
        TypeError: `path` is no path.
        FileNotFoundError: there is no such file.
    """
    if not checked_path(path).is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    return Path(path)


def checked_path(path: str | os.PathLike[str]) -> Path:
    """What was given as a path.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a string or a path, not {type(path).__name__}: {path!r}")
    return Path(path)
