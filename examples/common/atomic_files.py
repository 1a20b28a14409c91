"""Files that appear whole or not at all: written in a temporary folder beside their path, then renamed."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


@contextmanager
def staged(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Give an empty folder to write in, whose files are renamed into ``folder`` once all are written.

    If the block raises, or the program is interrupted in it, no file is moved and none of the new ones is left.

    Args:
        folder: where the files go; made if missing.

    Yields:
        A temporary folder on the same disk, removed afterwards.

    Raises:
        OSError: the files cannot be written, as on a full disk; the message has their path.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".partial-") as name:
        partial = Path(name)
        try:
            mode = _mode_of_new_files(partial)
            yield partial
            for file in sorted(partial.iterdir()):
                if file.is_file():
                    file.chmod(mode)
                    with file.open("rb+") as content:
                        os.fsync(content.fileno())
                os.replace(file, target / file.name)
        except SafetensorError as error:
            raise OSError(f"{str(target)!r} cannot be written: {error}") from error
        except OSError as error:
            path = Path(str(error.filename or partial))
            if error.errno is None or not path.is_relative_to(partial):
                raise
            raise OSError(error.errno, error.strerror, str(target / path.relative_to(partial))) from error


def _mode_of_new_files(folder: Path) -> int:
    """Return the permissions that the user's umask gives to files; safetensors makes its files private."""
    file = folder / "mode"
    file.touch()
    mode = file.stat().st_mode
    file.unlink()
    return mode


def write_bytes(path: str | os.PathLike[str], content: bytes | memoryview) -> None:
    """Write or replace one file, whole or not at all; its folder is made if missing."""
    path = Path(path)
    with staged(path.parent) as folder, (folder / path.name).open("wb") as file:
        file.write(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write or replace one text file in UTF-8, whole or not at all; its folder is made if missing."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], content: Any, sort_keys: bool = True) -> None:
    """Write JSON as the published code does: indented, its entries sorted by name."""
    write_text(path, json.dumps(content, indent=2, sort_keys=sort_keys) + "\n")
