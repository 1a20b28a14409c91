"""Freed memory goes back to the system, now and then."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from toy import tiny_bert, tiny_tokenizer

from captum_attattr import explain
from captum_attattr.runs import memory


@pytest.fixture
def trimmed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The calls of malloc_trim, of which the next may come at once."""
    calls: list[int] = []
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=calls.append))
    monkeypatch.setattr(memory, "_last", -memory.EVERY)
    monkeypatch.setattr(memory.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(memory.sys, "platform", "linux")
    return calls


def test_long_runs_give_memory_back_but_not_all_the_time(trimmed, monkeypatch):
    explain(tiny_bert(), tiny_tokenizer(), ["a b", "a b c", "a b c d"], n_steps=2, progress=False)
    assert trimmed == [0]
    monkeypatch.setattr(memory.time, "monotonic", lambda: memory.EVERY)
    memory.give_back()
    assert trimmed == [0, 0]


@pytest.mark.parametrize("system", ["darwin", "linux"])
def test_systems_without_such_a_function_do_nothing(trimmed, monkeypatch, system):
    monkeypatch.setattr(memory.sys, "platform", system)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: SimpleNamespace())
    memory.give_back()
    assert not trimmed


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be asked")
def test_pages_between_blocks_in_use_are_released(monkeypatch):
    def resident() -> float:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096 / 2**20

    blocks = [torch.ones(2**14) for _ in range(4000)]  # 64 KiB each, too small for pages of their own
    kept = blocks[::2]
    before = resident()
    del blocks
    monkeypatch.setattr(memory, "_last", -memory.EVERY)
    memory.give_back()
    assert resident() < before - 50
    assert all(block.sum() == 2**14 for block in kept)
