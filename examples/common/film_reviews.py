"""Film-review sentences with human ratings, from the source distribution of vaderSentiment (MIT licence)."""

import html
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import IO, cast

from captum_attattr.tables import Example
from common.atomic_files import staged

ARCHIVE = "vaderSentiment-3.3.2.tar.gz"
LABELS = ("negative", "positive")
HELD_OUT = 1000
MIN_RATING = 0.5
SPLIT_SEED = 0


def find_archive(path: str | os.PathLike[str]) -> Path:
    """Find the vaderSentiment source distribution, fetching it with pip if its folder lacks it.

    Args:
        path: the ``.tar.gz`` file, or the folder that holds it or is to hold it.

    Returns:
        The path of the ``.tar.gz`` file.

    Raises:
        ValueError: ``path`` names a file that is missing, or one that is no ``.tar.gz``.
        RuntimeError: pip could not fetch the distribution.
    """
    path = Path(path)
    if path.name.endswith(".tar.gz"):
        if not path.is_file():
            raise ValueError(f"{str(path)!r} is no file; give {ARCHIVE} or the folder that is to hold it")
        return path
    if path.exists() and not path.is_dir():
        raise ValueError(f"{str(path)!r} is neither a folder nor a .tar.gz file; give {ARCHIVE} or its folder")
    archive = path / ARCHIVE
    if not archive.is_file():
        with staged(path) as folder:
            _download(folder)
        if not archive.is_file():
            raise RuntimeError(f"pip left no {ARCHIVE} in {str(path)!r}; fetch that file from PyPI by hand")
    return archive


def _download(folder: Path) -> None:
    """Fetch the distribution into a folder.

    Raises:
        RuntimeError: pip failed; the message has its reason.
    """
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:"]
    done = subprocess.run(
        [*pip, "vaderSentiment==3.3.2", "--dest", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"pip could not fetch {ARCHIVE}; put that file (from PyPI) into --data_dir by hand.\n"
            f"pip said: {done.stderr.strip()}"
        )


def read_film_reviews(archive: str | os.PathLike[str]) -> tuple[list[Example], list[Example]]:
    """Read the rated sentences and split them into a training and a held-out set.

    Sentences with an absolute mean rating below 0.5 are left out. The label is 1 if the rating is above 0, else 0.
    Of texts equal up to case and spacing only the first is kept, so that none is in both sets. The split is
    the same every time: a model's held-out sentences never depend on the seed of its training.

    Args:
        archive: the vaderSentiment source distribution, a ``.tar.gz`` file.

    Returns:
        The training sentences and the 1,000 held-out sentences.

    Raises:
        ValueError: the archive lacks the ratings, a line is malformed, or there are too few sentences.
    """
    reviews: dict[str, Example] = {}
    for line_number, line in enumerate(_rated_lines(archive), start=1):
        fields = line.split("\t")
        try:
            rating, text = float(fields[1]), html.unescape(fields[2]).strip()
        except (IndexError, ValueError):
            raise ValueError(f"{archive}: line {line_number} is {line!r}, not 'id<TAB>rating<TAB>text'") from None
        if abs(rating) >= MIN_RATING:
            reviews.setdefault(" ".join(text.casefold().split()), Example(text, int(rating > 0)))
    if len(reviews) <= HELD_OUT:
        raise ValueError(f"{archive} holds {len(reviews)} distinct sentences; more than {HELD_OUT} are needed")
    shuffled = list(reviews.values())
    random.Random(SPLIT_SEED).shuffle(shuffled)
    return shuffled[HELD_OUT:], shuffled[:HELD_OUT]


def _rated_lines(archive: str | os.PathLike[str]) -> list[str]:
    """Return the lines ``id<TAB>mean rating<TAB>text`` of the archive inside the archive."""
    try:
        with (
            tarfile.open(archive) as outer,
            tarfile.open(fileobj=_member(outer, "/hutto_ICWSM_2014.tar.gz")) as inner,
        ):
            text = _member(inner, "/movieReviewSnippets_GroundTruth.txt").read().decode("utf-8")
    except (tarfile.TarError, LookupError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(archive)!r} is not the vaderSentiment source distribution: {error}") from error
    # Not splitlines(): some sentences hold characters that it takes for line ends.
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _member(archive: tarfile.TarFile, ending: str) -> IO[bytes]:
    """Open the file of an archive whose name has this ending.

    Raises:
        LookupError: there is none.
    """
    for member in archive.getmembers():
        if member.isfile() and member.name.endswith(ending):
            return cast(IO[bytes], archive.extractfile(member))
    raise LookupError(f"no file ending in {ending}")
