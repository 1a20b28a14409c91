"""Shards on disk: written batch by batch, resumed after an interruption, and read one example at a time."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from captum_attattr.archives.batch_digests import BatchDigests, digests_of, same_from_start
from captum_attattr.archives.plan import RUN, TYPES, Batch, Form, Layout
from captum_attattr.checks import names_match
from captum_attattr.exceptions import ResultFileError, warn_caller
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.files import flush_folder, hold
from captum_attattr.runs.digests import file_digest
from captum_attattr.runs.journal import naming

_UNUSUAL = {"scheme", "note", "contrast", "contrast_target", "path", "baseline"}
"""Entries of a text's JSON that are there where they are not the usual ones."""
_OF_A_PART = {"task", "positions", "label"}
"""Entries of a text's JSON that are there together, where the decision is about a part of it."""
_AGAIN = "start the run that made the archive again, which makes anew what is damaged or missing"


def check_whole(path: Path, layout: Layout, sha256: str | None) -> bool:
    """Return whether a shard is there as it was written; set aside what is damaged, to have it made again.

    Args:
        path: the shard.
        layout: what it holds.
        sha256: of its file, once the run has ended. Until then the digests of its batches decide; version 0.1 wrote
            none, and its shards get theirs here.

    Raises:
        ResultFileError: a file of its name is there, of another run.

    Warns:
        UserWarning: it is damaged.
    """
    if not path.exists():
        return False
    digests = BatchDigests(path)
    with open(path, "rb") as file:
        like = _header_is_right(path, file, layout) and path.stat().st_size == layout.ends[-1]
        if sha256 is not None:
            right = like and file_digest(path) == sha256
        else:
            found, wanted = digests_of(file, layout) if like else [], digests.read()
            if like and not wanted:
                wanted = found
                digests.append(0, found)
            right = like and found == wanted
    if not right:
        warn_caller(f"{str(path)!r} is damaged: what is damaged in it is made again")
        os.replace(path, part_of(path))
    return right


def batches_done(path: Path, layout: Layout) -> int:
    """Return how many batches of a shard are on disk, whole or not, by their bytes and the digests beside them."""
    if path.exists():
        return len(layout.batches)
    part = part_of(path)
    return min(layout.whole_batches(part.stat().st_size), len(BatchDigests(path).read())) if part.exists() else 0


def part_of(path: Path) -> Path:
    """Return the name of a shard that is not whole yet."""
    return path.with_suffix(".part")


class ShardWriter:
    """A shard that is being written, from its header or from where it was left; for use in a `with` block.

    The file holds whole batches, in order, and at most a piece of one more, which the next writer cuts off. Until the
    last batch is in it, its name ends in ".part". A batch counts once it and its digest have reached the disk; from
    the first one that does not have the bytes of its digest, batches are written again.

    Args:
        path: the shard's name.
        layout: what it will hold.

    Raises:
        BlockingIOError: another process is writing it.
        OSError: it cannot be written; the message has the path.
        ResultFileError: the file that is there is of another run.

    Warns:
        UserWarning: batches that counted are damaged.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self.part, self.layout = path, part_of(path), layout
        self.digests = BatchDigests(path)
        self.done = 0
        """How many batches are in the file."""

    def __enter__(self) -> ShardWriter:
        self._file = open(self.part, "a+b", buffering=0)
        try:
            if hold(self._file) is False:
                what = "another process is writing it; wait until it has ended (those of one run need a process group)"
                raise BlockingIOError(errno.EWOULDBLOCK, what, str(self.part))
            self._resume()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _resume(self) -> None:
        """Cut the file off after the last batch that is right; begin it where there is none."""
        wanted = self.digests.read()
        if _header_is_right(self.part, self._file, self.layout):
            self.done = same_from_start(digests_of(self._file, self.layout), wanted)
            with self._naming():
                self._file.truncate(self.layout.ends[self.done])
        else:
            with self._naming():
                self._file.truncate(0)
            self._write(memoryview(self.layout.header))
            flush_folder(self.part.parent)
        if damaged := len(wanted) - self.done:
            warn_caller(f"{damaged} of {len(wanted)} batches in {str(self.part)!r} are damaged: they are done again")
            with self._naming():
                self.digests.append(self.done, [])

    def append(self, explanations: Sequence[Explanation], texts: bytes) -> None:
        """Write the next batch, and then its digest.

        Args:
            explanations: of its examples, in its order.
            texts: the JSON list of its texts.

        Raises:
            OSError: the disk is full, or the like; what was written before stays.
            ValueError: maps of another shape than planned.
        """
        digest = hashlib.sha256()
        for piece in _pieces(self.layout.batches[self.done], self.layout.form, explanations, texts):
            self._write(piece)
            digest.update(piece)
        with self._naming():
            os.fsync(self._file.fileno())
            self.digests.append(self.done, [digest.hexdigest()])
        self.done += 1

    def finish(self) -> None:
        """Give the file, which holds all of its batches, its name."""
        with self._naming():
            os.fsync(self._file.fileno())
            self._file.close()  # Windows does not rename open files
            os.replace(self.part, self.path)
            flush_folder(self.path.parent)

    def _write(self, data: memoryview) -> None:
        """Write all of the data, which an unbuffered file may take in pieces."""
        with self._naming():
            while data:
                data = data[self._file.write(data) :]

    def _naming(self) -> AbstractContextManager[None]:
        """Say in an error from writing how much of the file is kept."""
        return naming(self.part, f"{self.done} of {len(self.layout.batches)} batches of this file")


def _pieces(batch: Batch, form: Form, explanations: Sequence[Explanation], texts: bytes) -> Iterator[memoryview]:
    """Yield the bytes of a batch, in the order of `Form.tensors`."""
    planned = (form.layers, form.heads, batch.length, batch.length)
    for example, explanation in zip(batch.examples, explanations, strict=True):
        shape = tuple(explanation.attributions.shape)
        if shape != planned:
            raise ValueError(f"the maps of example {example} are {shape}; {planned} were planned (L, H, T, T)")
    units = [_unit(explanation.attributions) for explanation in explanations] if form.half else []
    for name, kind, sizes in form.tensors(batch):
        if name == "texts":
            yield memoryview(texts.ljust(sizes[0]))
        elif name in ("attributions", "attention"):
            for i, explanation in enumerate(explanations):
                maps: Tensor = getattr(explanation, name)
                if form.half and name == "attributions":
                    maps = maps / units[i][:, None, None, None]
                yield _bytes(maps.numpy(), kind)
        else:
            values = units if name == "unit" else [getattr(explanation, name) for explanation in explanations]
            yield _bytes(np.stack([np.asarray(value) for value in values]), kind)


def _unit(maps: Tensor) -> Tensor:
    """Return (L,) powers of two that bring each layer's largest entry near the largest of half precision."""
    exponent = torch.frexp(maps.flatten(1).abs().amax(1)).exponent
    return torch.ldexp(torch.ones(len(maps)), (exponent - 15).clamp_min(-126))


def _bytes(values: Any, kind: str) -> memoryview:
    """Return the bytes of an array in a type of safetensors."""
    return np.ascontiguousarray(values, dtype=TYPES[kind]).data.cast("B")


def _header_is_right(path: Path, file: IO[bytes], layout: Layout) -> bool:
    """Return whether an open file begins with the header that was planned.

    Raises:
        ResultFileError: it begins with the header of another file, which must not be lost.
    """
    file.seek(0)
    header = file.read(len(layout.header))
    if header == layout.header:
        return True
    try:
        entries = json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])
    except ValueError:  # damaged, or cut off
        return False
    if isinstance(entries, dict) and entries.get("__metadata__") != {RUN: layout.run}:
        raise ResultFileError(f"{str(path)!r} belongs to another run, or is damaged; move it away, and start again")
    return False


@contextmanager
def opened(path: Path, run: str, size: int | None = None) -> Iterator[Any]:
    """Open a shard with safetensors; whatever its content makes wrong in the block is one error that has the path.

    Args:
        path: the shard.
        run: the digest of the run that it must be of.
        size: the bytes that it must have; None where that is known already.

    Raises:
        ResultFileError: the file is missing, damaged, or of another run.
    """
    if not path.is_file():
        raise ResultFileError(f"the shard {str(path)!r} is missing; {_AGAIN}")
    try:
        if size is not None and path.stat().st_size != size:
            raise ValueError(f"{path.stat().st_size} bytes, the index says {size}")
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(RUN) != run:
                raise ResultFileError(f"{str(path)!r} belongs to another run than the index beside it; {_AGAIN}")
            yield file
    except ResultFileError:
        raise
    except (SafetensorError, ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        raise ResultFileError(f"the shard {str(path)!r} is damaged: {error}; {_AGAIN}") from error


class StoredBatch:
    """A batch of an open shard. What is asked for is read from the file, and nothing else of the maps.

    Args:
        file: the shard, `opened`.
        form: what is stored of an example.
        index: of the batch in the shard.
        examples: of the batch.

    Raises:
        ValueError: a tensor of another type or shape than the form says.
    """

    def __init__(self, file: Any, form: Form, index: int, examples: Sequence[int]) -> None:
        self.form, self.examples = form, examples
        length, texts = (file.get_slice(f"{index}.{name}").get_shape()[-1] for name in ("attributions", "texts"))
        self._tensors: dict[str, Any] = {}
        for name, kind, shape in form.tensors(Batch(tuple(examples), length, texts)):
            part = self._tensors[name] = file.get_slice(f"{index}.{name}")
            if (part.get_dtype(), part.get_shape()) != (kind, shape):
                stored = f"{part.get_dtype()} {part.get_shape()}"
                raise ValueError(f"{index}.{name} must be {kind} {shape}, and is {stored}")

    def layer(self, row: int, layer: int) -> Tensor:
        """Read (H, T, T) attributions of one layer of one example."""
        maps: Tensor = self._tensors["attributions"][row, layer].float()
        return maps * self._values("unit", row)[layer] if self.form.half else maps.clone()

    def explanation(self, row: int, labels: Mapping[int, str]) -> Explanation:
        """Read one example.

        Raises:
            TypeError, ValueError: values that no explanation has.
        """
        scalars = ["target", "prediction", "probability", *["value"] * self.form.value]
        scalars += ["total_nodes", "total_delta", "total_error"] * self.form.total
        fields: dict[str, Any] = {name: self._values(name, row).item() for name in scalars}
        fields |= {name: self._values(name, row) for name in ("delta", "error", "nodes")}
        fields["attributions"] = self._values("attributions", row).float()
        if self.form.half:
            fields["attributions"] *= self._values("unit", row)[:, None, None, None]
        fields["attention"] = self._values("attention", row).float() if self.form.attention else None
        if self.form.numbers is not None:
            fields["layers"] = list(self.form.numbers)
        if fields["target"] not in labels:
            raise ValueError(f"the index has no label of the target {fields['target']}")
        return Explanation(**{"label": labels[fields["target"]]} | fields | self._text(row))

    def _values(self, name: str, row: int) -> Tensor:
        """Read one row of a tensor: a copy, since what safetensors returns keeps the whole file mapped."""
        values: Tensor = self._tensors[name][row].clone()
        return values

    def _text(self, row: int) -> dict[str, Any]:
        """Read the fields of one example that are JSON."""
        entry: dict[str, Any] = json.loads(bytes(self._tensors["texts"][:].numpy()))[row]
        wanted = {"number", "text", "tokens", "segments", "special"}
        if self.form.inputs:
            wanted |= {"inputs", "output"} | (set(entry) & _UNUSUAL) | (_OF_A_PART if "task" in entry else set())
        names_match(entry, wanted)
        if entry.pop("number") != self.examples[row]:
            raise ValueError(f"it does not hold example {self.examples[row]} where the index has it")
        if isinstance(entry["text"], list):
            entry["text"] = tuple(entry["text"])
        if self.form.inputs:
            entry["inputs"] = {name: torch.tensor([ids]) for name, ids in entry["inputs"].items()}
        return entry
