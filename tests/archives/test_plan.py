"""The plan of a run: every example once, equal lengths together, equal work apart, bytes where the header says."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_attattr.archives.plan import (
    ALIGNMENT,
    MAPS_AT_ONCE,
    TYPES,
    Batch,
    Form,
    Layout,
    plan_batches,
    plan_shards,
    work,
)
from captum_attattr.runs.processes import Processes

FORM = Form(layers=3, heads=5, dtype="float32", attention=True)
FORMS = [Form(3, 5, dtype, attention) for dtype in ("float32", "float16") for attention in (True, False)]
FORMS += [replace(form, value=True, total=True, inputs=True) for form in FORMS[:2]]


def planned(lengths: list[int], form: Form = FORM, batch_size: int = 4) -> list[Batch]:
    return plan_batches(np.array(lengths), np.arange(len(lengths)) + 7, form, batch_size)


@settings(deadline=None)
@given(st.lists(st.integers(3, 12), min_size=1, max_size=60), st.integers(1, 7), st.sampled_from(FORMS))
def test_every_example_is_in_one_batch_of_its_length(lengths, batch_size, form):
    batches = planned(lengths, form, batch_size)
    assert sorted(example for batch in batches for example in batch.examples) == list(range(len(lengths)))
    for batch in batches:
        assert {lengths[example] for example in batch.examples} == {batch.length}
        assert len(batch.examples) <= batch_size
        assert list(batch.examples) == sorted(batch.examples)
        texts = ["x" * (example + 5) for example in batch.examples]
        assert batch.texts == len(json.dumps(texts, separators=(",", ":")))
    assert [batch.length for batch in batches] == sorted((batch.length for batch in batches), reverse=True)


def test_batches_are_as_large_as_they_may_be():
    assert [len(batch.examples) for batch in planned([5] * 10)] == [4, 4, 2]
    length = math.isqrt(MAPS_AT_ONCE // (2 * 15))  # of which two fit in memory
    assert [len(batch.examples) for batch in planned([length] * 5)] == [2, 2, 1]


@settings(deadline=None)
@given(st.lists(st.integers(3, 60), min_size=1, max_size=200), st.sampled_from([None, 1, 3_000, 10**9]))
def test_shards_hold_the_batches_in_order(lengths, shard_bytes):
    batches = planned(lengths)
    shards = plan_shards(batches, FORM, 32, shard_bytes)
    assert [batch for shard in shards for batch in shard] == batches
    assert all(shards)


def test_processes_have_equally_much_to_do():
    generator, form = np.random.default_rng(0), Form(6, 12, "float32", True)
    shards = plan_shards(planned(generator.integers(4, 60, 2_000).tolist(), form, 32), form, 384, None)
    assert 55 <= len(shards) <= 64
    processes, costs, dealt = Processes(), [], []
    processes.world = 3
    for processes.rank in range(3):
        share = processes.share(range(len(shards)), lambda number: sum(work(batch, 384) for batch in shards[number]))
        costs.append(sum(work(batch, 384) for number in share for batch in shards[number]))
        dealt += share
        assert share == sorted(share)
    assert sorted(dealt) == list(range(len(shards)))
    assert max(costs) < 1.02 * min(costs)


@settings(deadline=None)
@given(st.lists(st.integers(3, 9), min_size=1, max_size=20), st.sampled_from(FORMS), st.integers(1, 3))
def test_layout_is_dense_and_aligned(lengths, form, batch_size):
    batches = planned(lengths, form, batch_size)
    layout = Layout(batches, form, "run")
    size = int.from_bytes(layout.header[:8], "little")
    assert len(layout.header) == 8 + size == layout.ends[0]
    entries = json.loads(layout.header[8:])
    assert entries.pop("__metadata__") == {"captum_attattr run": "run"}
    end = 0
    for name, entry in entries.items():
        begin, after = entry["data_offsets"]
        assert begin == end, name
        width = TYPES[entry["dtype"]].itemsize
        assert after - begin == width * math.prod(entry["shape"])
        assert (layout.ends[0] + begin) % width == 0
        end = after
    assert layout.ends[0] + end == layout.ends[-1]
    assert all(place % ALIGNMENT == 0 for place in layout.ends)


def test_whole_batches_are_those_that_end_before_the_file_does():
    layout = Layout(planned([5, 4, 3]), FORM, "run")
    for number, end in enumerate(layout.ends):
        assert layout.whole_batches(end) == number
        assert layout.whole_batches(end + 1) == number
        if number:
            assert layout.whole_batches(end - 1) == number - 1
