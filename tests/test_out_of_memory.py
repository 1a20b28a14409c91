"""Where memory runs out, work is done in smaller parts, whatever the function; too much for one example is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_training_mode import FUNCTIONS
from torch import Tensor
from toy import tiny_bert, unchanged


def small_device(model: Any, most: int) -> list[int]:
    """Let the model hold only so many rows; return a list of how many rows failed."""
    failed: list[int] = []

    def check(_: Any, args: Any) -> None:
        if len(args[0]) > most:
            failed.append(len(args[0]))
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.bert.encoder.register_forward_pre_hook(check)
    return failed


def numbers(found: Any) -> list[Tensor]:
    """The tensors in a nest of results."""
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, (list, tuple)):
        return [tensor for one in found for tensor in numbers(one)]
    return [torch.tensor(float(found))] if isinstance(found, (int, float)) else []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_smaller_parts_give_the_same(name, tmp_path):
    expected = FUNCTIONS[name](tiny_bert(), tmp_path)
    model = tiny_bert()
    # What is done anew with other rows is verified in a batch of three.
    failed = small_device(
        model, 1 if name in ("gradient_attention", "attention", "chefer", "rollout", "attnlrp", "random") else 3
    )
    (tmp_path / "small").mkdir()
    with unchanged(model):
        found = FUNCTIONS[name](model, tmp_path / "small")
    assert failed
    for one, two in zip(numbers(found), numbers(expected), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=2e-6, check_dtype=False, equal_nan=True)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_example_that_is_too_much_is_named(name, tmp_path):
    model = tiny_bert()
    small_device(model, 0)
    with unchanged(model), pytest.raises(torch.OutOfMemoryError, match="memory is too small for one row"):
        FUNCTIONS[name](model, tmp_path)
