"""The plan of a run over a data set: which examples form a batch, in which file it is stored, and at which bytes.

Everything follows from the lengths of the texts. So every process, today or after an interruption, makes the same
plan: the same batches, which give the same bits, and the same files, byte for byte.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np

from captum_attattr.checks import at_least, instance, integers, set_fields

RUN = "captum_attattr run"
"""The entry of a shard's header that tells its run from others."""
TYPES: dict[str, np.dtype[Any]] = {
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "U8": np.dtype("u1"),
}
"""Types of tensors by the names that safetensors gives them."""
ALIGNMENT = 8
"""Bytes. Every tensor begins at a multiple of its entries' size, so that a reader can map it without a copy."""
SMALLEST, LARGEST, USUAL_COUNT = 2**20, 2**30, 64
"""A run is cut into 64 shards; into more or fewer where these would be above a GiB or below a MiB."""
FLAGS = ("inputs", "value", "total")
OPTIONAL = (*FLAGS, "numbers")
"""Fields of a form that later versions added, each false or None in a form that lacks it."""
MAPS_AT_ONCE = 2**27
"""The most attribution entries of a batch, which stays in memory until it is written: half a GiB of float32."""


@dataclass(frozen=True)
class Form:
    """What is stored of an example: maps of L layers and H heads.

    Attributes:
        layers: L.
        heads: H.
        dtype: of the maps, "float32" or "float16".
        attention: whether the attention probabilities are stored beside the attributions.
        inputs: whether the model's inputs and the name of its output are stored beside the text; version 0.1 stored
            neither.
        value: whether F(A) is stored beside the target's probability, which it is not.
        total: whether delta, error and nodes of all layers together are stored: those of the joint path.

        numbers: the layers' own, L of them, where these are not all of the model's; else None.

    Raises:
        TypeError, ValueError: a value of another type or out of range; the message names it.
    """

    layers: int
    heads: int
    dtype: str
    attention: bool
    inputs: bool = False
    value: bool = False
    total: bool = False
    numbers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        at_least(1, self.layers, "layers")
        at_least(1, self.heads, "heads")
        if self.dtype not in ("float32", "float16"):
            raise ValueError(f"dtype={self.dtype!r} is unknown; use 'float32' or 'float16'")
        instance("attention", self.attention, bool, "True or False")
        if self.numbers is not None:
            numbers = tuple(integers("numbers", self.numbers, self.layers, smallest=0))
            if sorted(set(numbers)) != list(numbers):
                raise ValueError(f"numbers must rise, not {numbers}")
            set_fields(self, numbers=numbers)
        for name in FLAGS:
            instance(name, getattr(self, name), bool, "True or False")

    def as_json(self) -> dict[str, Any]:
        """Return the fields, without those of what is not stored: the forms that older versions wrote."""
        return {name: value for name, value in asdict(self).items() if value or name not in OPTIONAL}

    def number(self, row: int) -> int:
        """Return a layer's own number."""
        return row if self.numbers is None else self.numbers[row]

    @property
    def half(self) -> bool:
        """Whether an entry of a map takes two bytes."""
        return self.dtype == "float16"

    def entries(self, length: int) -> int:
        """Return how many attributions an example of `length` tokens has."""
        return self.layers * self.heads * length**2

    def tensors(self, batch: Batch) -> list[tuple[str, str, list[int]]]:
        """Return name, type and shape of each tensor of a batch, in the order in which they are stored."""
        count = len(batch.examples)
        by_layer, maps = [count, self.layers], [count, self.layers, self.heads, batch.length, batch.length]
        # Types of 8 bytes first, then pairs of 4 bytes, then maps: odd shapes misalign nothing.
        tensors = [("target", "I64", [count]), ("prediction", "I64", [count]), ("probability", "F64", [count])]
        tensors += [("nodes", "I64", by_layer), ("delta", "F32", by_layer), ("error", "F32", by_layer)]
        if self.value:
            tensors.append(("value", "F64", [count]))
        if self.total:
            tensors += [
                ("total_nodes", "I64", [count]),
                ("total_delta", "F64", [count]),
                ("total_error", "F64", [count]),
            ]
        if self.half:
            tensors.append(("unit", "F32", by_layer))
        names = ("attributions", "attention")[: 1 + self.attention]
        tensors += [(name, "F16" if self.half else "F32", maps) for name in names]
        used = sum(size(kind, shape) for _, kind, shape in tensors) + batch.texts
        return [*tensors, ("texts", "U8", [batch.texts + -used % ALIGNMENT])]


@dataclass(frozen=True)
class Batch:
    """Examples of one length, which are explained and stored together.

    Attributes:
        examples: their indices in the data set.
        length: T, their tokens.
        texts: bytes of the JSON list of their texts.
    """

    examples: tuple[int, ...]
    length: int
    texts: int


def size(kind: str, shape: Sequence[int]) -> int:
    """Return the bytes of a tensor."""
    return TYPES[kind].itemsize * math.prod(shape)


def plan_batches(lengths: Any, texts: Any, form: Form, batch_size: int) -> list[Batch]:
    """Put examples of one length into batches, the longest first.

    Args:
        lengths: (N,) tokens of each example.
        texts: (N,) bytes of the JSON of each example's text.
        form: what is stored.
        batch_size: the most examples of a batch.

    Returns:
        The batches; every example is in one of them.
    """
    batches: list[Batch] = []
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    for length, group in groupby(order, key=lambda example: int(lengths[example])):
        count = min(batch_size, max(1, MAPS_AT_ONCE // form.entries(length)))
        while examples := tuple(islice(group, count)):
            commas_and_brackets = len(examples) + 1
            batches.append(Batch(examples, length, sum(int(texts[i]) for i in examples) + commas_and_brackets))
    return batches


def plan_shards(batches: Sequence[Batch], form: Form, hidden: int, shard_bytes: int | None) -> list[list[Batch]]:
    """Cut batches into shards of about equal work, as far as whole batches allow.

    Args:
        batches: in order.
        form: what is stored.
        hidden: the model's hidden size.
        shard_bytes: the average size of a shard; None for a 64th of the whole, between a MiB and a GiB.

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
    """Return what a batch costs, up to a factor: a block on T tokens multiplies T (6 hidden + T) times."""
    return float(len(batch.examples) * batch.length * (6 * hidden + batch.length))


class Layout:
    """The bytes of a shard's file: its header, and where each of its batches ends.

    Attributes:
        batches: of the shard, in order.
        form: what is stored of them.
        header: the file's first bytes, as safetensors defines them.
        ends: where the header ends, then each batch; the last end is the file's size.
    """

    def __init__(self, batches: Sequence[Batch], form: Form, run: str) -> None:
        self.batches, self.form = list(batches), form
        entries: dict[str, Any] = {"__metadata__": {RUN: run}}
        offset, ends = 0, [0]
        for index, batch in enumerate(batches):
            for name, kind, shape in form.tensors(batch):
                offsets = [offset, offset + size(kind, shape)]
                entries[f"{index}.{name}"] = {"dtype": kind, "shape": shape, "data_offsets": offsets}
                offset = offsets[1]
            ends.append(offset)
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        self.header = len(text).to_bytes(8, "little") + text
        self.ends = [len(self.header) + end for end in ends]

    def whole_batches(self, length: int) -> int:
        """Return how many whole batches a file of `length` bytes, at least those of the header, holds."""
        return sum(end <= length for end in self.ends[1:])
