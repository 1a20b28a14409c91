"""Where a command's results go, tried before the work that they are made of."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from captum_attattr.files import checked_path


def result_file(given: str | os.PathLike[str], resume: str | None = None, beside: str = ".html") -> Path:
    """Return --output, a file of results, after making its folder.

    Args:
        given: the flag's value.
        resume: that of --resume.
        beside: the ending of a second file, which is written beside it.

    Raises:
        OSError, ValueError: nothing can be written there, or one of the files would be written over another.
    """
    output = checked_path(given, "--output")
    if output.suffix == beside:
        raise ValueError(f"--output {output}: another file of that name is written beside it; give it another ending")
    if output.exists() and not output.is_file():
        raise ValueError(f"--output {output} is no file, which is needed: give it a name in that folder")
    if resume is not None and output.resolve() == checked_path(resume, "--resume").resolve():
        raise ValueError(f"--output and --resume are both {output}: give one of them another name")
    result_folder(output.parent)
    return output


def result_folder(given: str | os.PathLike[str]) -> Path:
    """Return --output, a folder for results, after making it and writing there.

    Raises:
        OSError: it cannot be made, or nothing can be written in it.
    """
    folder = checked_path(given, "--output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"--output: nothing can be written in the folder {folder}: {error.strerror}") from error
    return folder
