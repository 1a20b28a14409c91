"""Shards on disk: written from head to end, gone on with after an interruption, and read one example at a time."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from captum_attattr.archives.plan import RUN, TYPES, Batch, Form, Layout
from captum_attattr.exceptions import ResultFileError
from captum_attattr.explanations.explanation import Explanation

fcntl: Any
try:
    import fcntl
except ImportError:  # on Windows nobody is kept from starting the same run twice
    fcntl = None


def is_whole(path: Path, layout: Layout) -> bool:
    """Whether a shard is there.

    Raises:
        ResultFileError: a file of its name is there, of another run or size.
    """
    if not path.exists():
        return False
    with open(path, "rb") as file:
        found = file.read(len(layout.header))
    length = path.stat().st_size
    if length != layout.ends[-1]:
        raise ResultFileError(
            f"{str(path)!r} is damaged: it has {length} bytes and should have {layout.ends[-1]}; delete it, and start "
            "again to have it made again"
        )
    _check_header(path, found, layout)
    return True


def bytes_done(path: Path, layout: Layout) -> int:
    """Bytes of a shard that are on disk, whole or not."""
    for candidate in (path, part_of(path)):
        if candidate.exists():
            return min(candidate.stat().st_size, layout.ends[-1])
    return 0


def part_of(path: Path) -> Path:
    """The name of a shard that is not whole yet."""
    return path.with_suffix(".part")


class ShardWriter:
    """A shard being written, from its head or from where it was left; for use in a `with` block.

    The file holds whole batches, in order, and at most a piece of one more, which the next writer cuts off. When the
    last batch is in, it gets its name; until then that ends in ".part".

    Args:
        path: the shard's name.
        layout: what it is to hold.

    Raises:
        BlockingIOError: another process is writing it.
        OSError: it cannot be written; the message has the path.
        ResultFileError: what is there is of another run.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self.part, self.layout = path, part_of(path), layout
        self.done = 0
        """How many batches are in."""

    def __enter__(self) -> ShardWriter:
        self._file = open(self.part, "a+b", buffering=0)
        try:
            self._lock()
            length = os.fstat(self._file.fileno()).st_size
            if length < len(self.layout.header):  # new, or cut off in its header
                self._file.truncate(0)
                self._write(memoryview(self.layout.header))
            else:
                self._file.seek(0)
                _check_header(self.part, self._file.read(len(self.layout.header)), self.layout)
                self.done = self.layout.whole_batches(length)
                self._file.truncate(self.layout.ends[self.done])
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def append(self, explanations: Sequence[Explanation], texts: bytes) -> None:
        """Write the next batch.

        Args:
            explanations: of its examples, in its order.
            texts: what its texts are, as JSON.

        Raises:
            OSError: the disk is full, or the like; what was written before stays.
            ValueError: maps of another shape than planned.
        """
        for piece in _pieces(self.layout.batches[self.done], self.layout.form, explanations, texts):
            self._write(piece)
        self.done += 1

    def finish(self) -> None:
        """Give the file, which holds all of its batches, its name."""
        with _named(self.part):
            os.fsync(self._file.fileno())
            self._file.close()  # Windows does not rename open files
            os.replace(self.part, self.path)

    def _write(self, data: memoryview) -> None:
        with _named(self.part):
            while data:  # an unbuffered file may take less than it is given
                data = data[self._file.write(data) :]

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # gone with the process, however it ends
        except BlockingIOError as error:
            what = "another process is writing it; wait until that has ended (those of one run need a process group)"
            raise BlockingIOError(error.errno, what, str(self.part)) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP):  # not every file system has locks
                raise


def read_example(path: Path, run: str, form: Form, batch: int, place: int) -> dict[str, Any]:
    """Read one example of a shard, and of its maps nothing else.

    Args:
        path: the shard.
        run: the run that it must be of.
        form: what is stored.
        batch, place: where the example is.

    Returns:
        The fields of an `Explanation` except its label, and the example's "number".

    Raises:
        ResultFileError: the file is missing, damaged, or of another run.
    """
    with opened(path, run) as file:
        found = {name: _tensor(file, batch, name, place) for name in ("target", "prediction", "probability")}
        fields: dict[str, Any] = {name: tensor.item() for name, tensor in found.items()}
        fields |= {name: _tensor(file, batch, name, place) for name in ("delta", "error", "nodes")}
        for name in ("attributions", "attention")[: 1 + form.attention]:
            fields[name] = _tensor(file, batch, name, place).float()
        if form.half:
            fields["attributions"] *= _tensor(file, batch, "unit", place)[:, None, None, None]
        texts = bytes(file.get_tensor(f"{batch}.texts").numpy())
        fields.setdefault("attention", torch.zeros_like(fields["attributions"]))
        fields |= json.loads(texts)[place]
        return fields


def read_layer(path: Path, run: str, form: Form, batch: int, place: int, layer: int) -> Tensor:
    """Read (H, T, T) attributions of one layer of one example; else as `read_example`."""
    with opened(path, run) as file:
        maps: Tensor = file.get_slice(f"{batch}.attributions")[place, layer].float()
        return maps * _tensor(file, batch, "unit", place)[layer] if form.half else maps.clone()


@contextmanager
def opened(path: Path, run: str) -> Iterator[Any]:
    """A shard as safetensors opens it; what goes wrong is a `ResultFileError` that names the file."""
    if not path.is_file():
        raise ResultFileError(f"the shard {str(path)!r} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(RUN) != run:
                raise ResultFileError(f"{str(path)!r} belongs to another run than the index beside it")
            yield file
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
        if isinstance(error, ResultFileError):
            raise
        raise ResultFileError(f"the shard {str(path)!r} is damaged: {error}") from error


def _tensor(file: Any, batch: int, name: str, place: int) -> Tensor:
    # A copy: what safetensors returns keeps the whole file mapped.
    tensor: Tensor = file.get_slice(f"{batch}.{name}")[place].clone()
    return tensor


def _pieces(batch: Batch, form: Form, explanations: Sequence[Explanation], texts: bytes) -> Iterator[memoryview]:
    """The bytes of a batch, in the order of `Form.tensors`."""
    for number, explanation in zip(batch.numbers, explanations, strict=True):
        expected = (form.layers, form.heads, batch.length, batch.length)
        if explanation.attributions.shape != expected:
            found = tuple(explanation.attributions.shape)
            raise ValueError(f"the maps of example {number} are {found}; {expected} were planned (L, H, T, T)")
    units = [_unit(explanation.attributions) for explanation in explanations] if form.half else []
    for name, kind, sides in form.tensors(batch):
        if name == "texts":
            yield memoryview(texts.ljust(sides[0]))
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
    """(L,) powers of two that bring the largest of a layer's numbers near the largest of half precision."""
    exponent = torch.frexp(maps.flatten(1).abs().amax(1)).exponent
    return torch.ldexp(torch.ones(len(maps)), (exponent - 15).clamp_min(-126))


def _bytes(values: Any, kind: str) -> memoryview:
    return np.ascontiguousarray(values, dtype=TYPES[kind]).data.cast("B")


def _check_header(path: Path, found: bytes, layout: Layout) -> None:
    if found != layout.header:
        raise ResultFileError(f"{str(path)!r} belongs to another run, or is damaged; move it away, and start again")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say in an error from writing which file it was, and that the run can be gone on with."""
    try:
        yield
    except OSError as error:
        message = f"{error.strerror} (what is done is kept: start again to go on)"
        raise OSError(error.errno, message, str(path)) from error
