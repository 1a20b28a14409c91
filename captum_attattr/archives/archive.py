"""`Archive`: the explanations of a data set on disk, read one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, overload

from torch import Tensor
from tqdm.auto import tqdm

from captum_attattr import checks
from captum_attattr.archives.index import INDEX, read_index
from captum_attattr.archives.shards import StoredBatch, opened
from captum_attattr.checks import checked_arguments
from captum_attattr.exceptions import ResultFileError
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.files import checked_path
from captum_attattr.runs.digests import file_digest


class Archive(Sequence[Explanation]):
    """What `explain_dataset` wrote: a sequence of explanations, each of which is read when it is asked for.

    The folder holds safetensors files (shards) and `index.json`, which says what is stored where. Opening an archive
    reads the index; an access reads one example, whatever the size of its shard. Processes and threads may read at the
    same time.

    Args:
        folder: the folder.

    Attributes:
        folder: the folder.
        about: what the explanations were made with: digests of model and data, options, batch size, form.

    Raises:
        TypeError: `folder` is no path.
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
        self.folder = checked_path(folder, "folder")
        index = read_index(self.folder / INDEX)
        if index is None:
            raise FileNotFoundError(f"{str(self.folder)!r} holds no archive: no file {INDEX}")
        if not index.finished:
            there = sum((self.folder / shard.file).exists() for shard in index.shards)
            raise ResultFileError(
                f"the run that writes {str(self.folder)!r} has not ended: {there} of {len(index.shards)} shards are "
                "there; start it again to resume it"
            )
        self._index = index
        self.about: dict[str, Any] = index.about

    def __len__(self) -> int:
        return len(self._index.positions)

    @overload
    def __getitem__(self, index: int) -> Explanation: ...

    @overload
    def __getitem__(self, index: slice) -> list[Explanation]: ...

    def __getitem__(self, index: int | slice) -> Explanation | list[Explanation]:
        """Read one example by its index in the data set, or several by a slice.

        Raises:
            TypeError: `index` is no integer and no slice of integers.
            IndexError: there is no such example.
            ResultFileError: the shard that holds it is missing, damaged or of another run.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        with self._batch(index) as (batch, row):
            return batch.explanation(row, self._index.labels)

    def layer(self, number: int, layer: int) -> Tensor:
        """Read one layer of one example, for maps that are large.

        Args:
            number: the example's index in the data set.
            layer: the layer's index, 0 for the one nearest to the input.

        Returns:
            (H, T, T) float32 attributions.

        Raises:
            TypeError: an index that is no integer.
            IndexError: there is no such example or layer.
            ResultFileError: as `archive[number]`.
        """
        form, wanted = self._index.form, _integer("layer", layer)
        if form.numbers is None:
            if not -form.layers <= wanted < form.layers:
                raise IndexError(f"layer {wanted} is not there: the model has {form.layers}")
            wanted %= form.layers
        elif wanted not in form.numbers:
            raise IndexError(f"layer {wanted} is not there: the archive has {', '.join(map(str, form.numbers))}")
        with self._batch(number) as (batch, row):
            return batch.layer(row, wanted if form.numbers is None else form.numbers.index(wanted))

    @checked_arguments
    def verify(self, *, repair: bool = False, progress: bool = True) -> list[str]:
        """Read every shard and compare it with the digest in the index.

        The call of `explain_dataset` that made the archive does the same, and makes what is damaged anew. This needs
        neither model nor data.

        Args:
            repair: delete the shards that are damaged, so that nothing reads them. The rest of the archive can be used
                meanwhile; the call that made the archive makes them again.
            progress: show a bar for what takes longer than two seconds.

        Returns:
            The names of the shards that are missing now; none if the archive is whole.

        Raises:
            ResultFileError: without `repair`, names the shards that are missing or damaged.
        """
        broken = []
        for shard in tqdm(self._index.shards, desc="verify", unit="shard", delay=2, disable=not progress):
            path = self.folder / shard.file
            if not path.is_file() or file_digest(path) != shard.sha256:
                broken.append(path)
                if repair:
                    path.unlink(missing_ok=True)
        if broken and not repair:
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            raise ResultFileError(
                f"missing or damaged: {', '.join(map(str, broken[:3]))}{more}; start the run that made the archive "
                "again, which makes them anew, or delete what is damaged with verify(repair=True)"
            )
        return [path.name for path in broken]

    def __repr__(self) -> str:
        return f"Archive({str(self.folder)!r}): {len(self)} examples"

    @contextmanager
    def _batch(self, index: int) -> Iterator[tuple[StoredBatch, int]]:
        """Open the batch that holds an example; yield it and the example's row."""
        example = _integer("the index of an example", index)
        if not -len(self) <= example < len(self):
            raise IndexError(f"example {example} is not in {str(self.folder)!r}: it holds 0 to {len(self) - 1}")
        in_shards, in_batches, row = self._index.positions[example].tolist()
        shard = self._index.shards[in_shards]
        with opened(self.folder / shard.file, self._index.run, shard.size) as file:
            yield StoredBatch(file, self._index.form, in_batches, shard.batches[in_batches]), row


def _integer(name: str, value: Any) -> int:
    """Return an integer of any library as Python's own."""
    index = checks.integer(value)
    if index is None:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}: {value!r:.60}")
    return index
