"""The plan of a run over a data set: which examples go together, in which file, and where in it their numbers are.

Everything follows from the lengths of the texts, so that any process, today or after an interruption, makes the same
plan: the same batches, which give the same bits, and the same files down to the place of every byte.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RUN = "captum_attattr run"
"""The entry of a shard's header that says of which run it is."""
TYPES: dict[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "U8": np.dtype("u1"),
}
"""Number types by the names that safetensors gives them."""
ALIGNMENT = 8
"""Bytes; what is stored begins at multiples of its own size, so that readers can take it in place."""
SMALLEST, LARGEST, USUAL_COUNT = 2**20, 2**30, 64
"""A run is cut into 64 shards, or more or fewer of them where these would be above a GiB or below a MiB."""
MAPS_AT_ONCE = 2**27
"""Most attribution entries of a batch, which is in memory until it is written: half a GiB of float32."""


@dataclass(frozen=True)
class Form:
    """What is stored of an example: maps of L layers and H heads.

    Attributes:
        layers: L.
        heads: H.
        dtype: of the maps, "float32" or "float16".
        attention: whether the attention probabilities are stored beside the attributions.
    """

    layers: int
    heads: int
    dtype: str
    attention: bool

    @property
    def half(self) -> bool:
        """Whether maps are stored in two bytes a number."""
        return self.dtype == "float16"

    def entries(self, length: int) -> int:
        """Entries of the attributions of an example of so many tokens."""
        return self.layers * self.heads * length**2

    def tensors(self, batch: Batch) -> list[tuple[str, str, list[int]]]:
        """Name, type and shape of what is stored of a batch, in the order in which it is stored."""
        count, maps = len(batch.numbers), [len(batch.numbers), self.layers, self.heads, batch.length, batch.length]
        per_layer = [count, self.layers]
        # Types of 8 bytes first, then pairs of 4 bytes, then maps: nothing is misaligned where shapes are odd.
        found = [("target", "I64", [count]), ("prediction", "I64", [count]), ("probability", "F64", [count])]
        found += [("nodes", "I64", per_layer), ("delta", "F32", per_layer), ("error", "F32", per_layer)]
        if self.half:
            found.append(("unit", "F32", per_layer))
        names = ("attributions", "attention")[: 1 + self.attention]
        found += [(name, "F16" if self.half else "F32", maps) for name in names]
        used = sum(size(kind, shape) for _, kind, shape in found) + batch.texts
        return [*found, ("texts", "U8", [batch.texts + -used % ALIGNMENT])]


@dataclass(frozen=True)
class Batch:
    """Examples of one length that are explained, and stored, together.

    Attributes:
        numbers: their numbers in the data set.
        length: T, their tokens.
        texts: bytes of the JSON list that says what their texts are.
    """

    numbers: tuple[int, ...]
    length: int
    texts: int


def size(kind: str, shape: Sequence[int]) -> int:
    """Bytes of a tensor."""
    return TYPES[kind].itemsize * math.prod(shape)


def plan_batches(lengths: Any, texts: Any, form: Form, batch_size: int) -> list[Batch]:
    """Batches of examples of one length, the longest first.

    Args:
        lengths: (N,) tokens of every example.
        texts: (N,) bytes of the JSON that says what every example's text is.
        form: what is stored.
        batch_size: most examples of a batch.

    Returns:
        The batches; every example is in one of them.
    """
    order = np.lexsort((np.arange(len(lengths)), -np.asarray(lengths, dtype=np.int64)))
    batches: list[Batch] = []
    start = 0
    while start < len(order):
        length = int(lengths[order[start]])
        limit = start + min(batch_size, max(1, MAPS_AT_ONCE // form.entries(length)))
        end = start
        while end < min(limit, len(order)) and lengths[order[end]] == length:
            end += 1
        numbers = tuple(order[start:end].tolist())
        batches.append(Batch(numbers, length, _listed(int(texts[number]) for number in numbers)))
        start = end
    return batches


def plan_shards(batches: Sequence[Batch], form: Form, hidden: int, shard_bytes: int | None) -> list[list[Batch]]:
    """Cut batches into shards of about equal work, as far as whole batches allow.

    Args:
        batches: in order.
        form: what is stored.
        hidden: the model's hidden size.
        shard_bytes: size of a shard on average; None for a 64th of the whole, between a MiB and a GiB.

    Returns:
        The batches of each shard.
    """
    total = sum(size(kind, shape) for batch in batches for _, kind, shape in form.tensors(batch))
    usual = max(min(USUAL_COUNT, total // SMALLEST), -(-total // LARGEST))
    count = usual if shard_bytes is None else -(-total // shard_bytes)
    share = sum(work(batch, hidden) for batch in batches) / count
    shards: list[list[Batch]] = []
    done = 0.0
    for batch in batches:
        if done >= share * len(shards):
            shards.append([])
        shards[-1].append(batch)
        done += work(batch, hidden)
    return shards


def work(batch: Batch, hidden: int) -> float:
    """What a batch costs, up to a factor: a transformer block on T tokens multiplies T (6 hidden + T) times."""
    return float(len(batch.numbers) * batch.length * (6 * hidden + batch.length))


class Layout:
    """Where everything is in a shard's file.

    Attributes:
        batches: what it holds, in order.
        form: what is stored of them.
        header: its first bytes, as safetensors has them.
        ends: where the header, and then each batch, ends; the last is the file's size.
    """

    def __init__(self, batches: Sequence[Batch], form: Form, run: str) -> None:
        self.batches, self.form = list(batches), form
        entries: dict[str, Any] = {"__metadata__": {RUN: run}}
        offset, ends = 0, [0]
        for number, batch in enumerate(batches):
            for name, kind, shape in form.tensors(batch):
                place = [offset, offset + size(kind, shape)]
                entries[f"{number}.{name}"] = {"dtype": kind, "shape": shape, "data_offsets": place}
                offset = place[1]
            ends.append(offset)
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        self.header = len(text).to_bytes(8, "little") + text
        self.ends = [len(self.header) + end for end in ends]

    def whole_batches(self, length: int) -> int:
        """How many batches a file of so many bytes, at least those of the header, holds."""
        return sum(end <= length for end in self.ends[1:])


def _listed(sizes: Iterable[int]) -> int:
    """Bytes of a JSON list, without blanks, of things of these sizes."""
    return 1 + sum(size + 1 for size in sizes)
