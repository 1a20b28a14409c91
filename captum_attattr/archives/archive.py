"""`Archive`: the explanations of a data set on disk, read one at a time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from torch import Tensor
from tqdm.auto import tqdm

from captum_attattr.archives.plan import Form
from captum_attattr.archives.shards import read_example, read_layer
from captum_attattr.exceptions import ResultFileError
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.files import replacing
from captum_attattr.runs.digests import data_digest

INDEX = "index.json"
"""The file that says what is where."""
_HEADER = "captum_attattr archive"
_VERSION = 1


class Archive(Sequence[Explanation]):
    """What `explain_dataset` wrote: a sequence of explanations, of which only those that are asked for are read.

    The folder holds safetensors files (shards) and `index.json`, which says what is where. Opening it reads the index,
    an access the one example, whatever the size of its shard. Processes and threads may read at the same time.

    Args:
        folder: the folder.

    Attributes:
        folder: the folder.
        about: what the explanations were made with: digests of model and data, options, batch size, form.

    Raises:
        FileNotFoundError: the folder holds no archive.
        ResultFileError: the index is damaged or of another version, or the run has not ended.

    Example:
        >>> import tempfile
        >>> from captum_attattr import explain_dataset
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> texts = ["a fine film", "dull and lifeless", "a film"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = explain_dataset(*load_demo_model(), texts, folder, progress=False)
        ...     archive = Archive(folder)
        ...     len(archive), archive[1].label, archive[-1].tokens, tuple(archive.layer(0, layer=5).shape)
        (3, 'negative', ['[CLS]', 'a', 'film', '[SEP]'], (12, 5, 5))
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        path = self.folder / INDEX
        index = read_index(path)
        if index is None:
            raise FileNotFoundError(f"{str(self.folder)!r} holds no archive: no file {INDEX}")
        if not index["finished"]:
            there = sum((self.folder / shard["file"]).exists() for shard in index["shards"])
            raise ResultFileError(
                f"the run that writes {str(self.folder)!r} has not ended: {there} of {len(index['shards'])} shards are "
                "there; start it again to go on"
            )
        try:
            self.about: dict[str, Any] = index["about"]
            self._run = run_digest(self.about)
            self._form = Form(**self.about["form"])
            self._labels = {int(target): label for target, label in index["labels"].items()}
            self._shards = [
                (self.folder / shard["file"], int(shard["bytes"]), str(shard["sha256"])) for shard in index["shards"]
            ]
            self._where = _places(index)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise ResultFileError(f"{str(path)!r} is damaged: {error!r}") from error

    def __len__(self) -> int:
        return len(self._where)

    @overload
    def __getitem__(self, number: int) -> Explanation: ...

    @overload
    def __getitem__(self, number: slice) -> list[Explanation]: ...

    def __getitem__(self, number: int | slice) -> Explanation | list[Explanation]:
        """One example by its number in the data set, or several by a slice.

        Raises:
            IndexError: there is no such example.
            ResultFileError: the shard that holds it is missing, damaged or of another run.
        """
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        path, batch, place = self._find(number)
        fields = read_example(path, self._run, self._form, batch, place)
        wanted = number % len(self)
        if fields.pop("number") != wanted:
            raise ResultFileError(f"{str(path)!r} does not hold example {wanted} where the index has it")
        fields["text"] = tuple(fields["text"]) if isinstance(fields["text"], list) else fields["text"]
        fields["special"] = [bool(flag) for flag in fields["special"]]
        return Explanation(label=self._labels[fields["target"]], **fields)

    def layer(self, number: int, layer: int) -> Tensor:
        """Read one layer of one example, for maps that are large.

        Args:
            number: the example's number.
            layer: the layer's, 0 for the one nearest to the input.

        Returns:
            (H, T, T) float32 attributions.

        Raises:
            IndexError: there is no such example or layer.
            ResultFileError: as `archive[number]`.
        """
        if not -self._form.layers <= layer < self._form.layers:
            raise IndexError(f"layer {layer} is not there: the model has {self._form.layers}")
        path, batch, place = self._find(number)
        return read_layer(path, self._run, self._form, batch, place, layer % self._form.layers)

    def verify(self, *, progress: bool = True) -> None:
        """Read every shard and compare it with the digest in the index.

        Args:
            progress: show a bar for what takes longer than two seconds.

        Raises:
            ResultFileError: names the shards that are missing or damaged. Start the run that made the archive again
                to have those made again that are missing.
        """
        with tqdm(total=len(self._shards), desc="verify", unit="shard", delay=2, disable=not progress) as bar:
            broken = []
            for path, _, digest in self._shards:
                if not path.is_file() or file_digest(path) != digest:
                    broken.append(str(path))
                bar.update()
        if broken:
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            raise ResultFileError(f"missing or damaged: {', '.join(broken[:3])}{more}")

    def __repr__(self) -> str:
        return f"Archive({str(self.folder)!r}): {len(self)} examples"

    def _find(self, number: int) -> tuple[Path, int, int]:
        """The shard that holds an example, the batch in it, and the place in that."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"example {number} is not in {str(self.folder)!r}: it holds 0 to {len(self) - 1}")
        shard, batch, place = self._where[number].tolist()
        path, expected, _ = self._shards[shard]
        if path.is_file() and path.stat().st_size != expected:
            raise ResultFileError(
                f"the shard {str(path)!r} is damaged: {path.stat().st_size} bytes, the index says {expected}"
            )
        return path, batch, place


def read_index(path: Path) -> dict[str, Any] | None:
    """The index of an archive, finished or not; None where there is no file.

    Raises:
        ResultFileError: a file of something else, or of another version.
    """
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise NotADirectoryError(f"{str(path.parent)!r} is no folder") from None
    except ValueError as error:
        raise ResultFileError(f"{str(path)!r} is no index of an archive: {error}") from error
    if not isinstance(index, dict) or _HEADER not in index:
        raise ResultFileError(f"{str(path)!r} is no index of an archive; choose another folder")
    if index[_HEADER] != _VERSION:
        raise ResultFileError(f"{str(path)!r} was written by another version of captum_attattr")
    missing = [name for name in ("finished", "about", "shards") if name not in index]
    if missing:
        raise ResultFileError(f"{str(path)!r} is damaged: it lacks {', '.join(missing)}")
    return index


def write_index(path: Path, index: dict[str, Any], shards: Sequence[dict[str, Any]]) -> None:
    """Write an index as JSON, with a line for each entry and each shard."""
    entries = {_HEADER: _VERSION, **index}
    lines = [f"{json.dumps(name)}: {json.dumps(value, sort_keys=True)}" for name, value in entries.items()]
    each = ",\n".join(json.dumps(shard) for shard in shards)
    with replacing(path) as temporary:
        temporary.write_text("{\n" + ",\n".join(lines) + f',\n"shards": [\n{each}\n]}}\n', encoding="utf-8")


def run_digest(about: dict[str, Any]) -> str:
    """What tells a run's shards from those of others."""
    return data_digest(json.dumps(about, sort_keys=True))


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _places(index: dict[str, Any]) -> Any:
    """(N, 3) the shard, the batch in it and the place in that of every example."""
    total = sum(len(batch) for shard in index["shards"] for batch in shard["batches"])
    where = np.full((total, 3), -1, dtype=np.int32)
    for number, shard in enumerate(index["shards"]):
        for batch, examples in enumerate(shard["batches"]):
            where[examples] = [(number, batch, place) for place in range(len(examples))]
    if (where < 0).any():
        raise ValueError("an example is missing, or there twice")
    return where
