"""Files that appear whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives an empty folder to write in, whose files are renamed into ``folder`` once all are written.

    Nothing is moved if the block raises.

    Args:
        folder: where the files go; made if missing.

    Yields:
        A temporary folder on the same disk, removed afterwards.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".partial-") as partial:
        yield Path(partial)
        for file in sorted(Path(partial).iterdir()):
            os.replace(file, target / file.name)
