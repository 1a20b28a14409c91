"""What is run before the first row: little, and of what is known already nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from toy import tiny_bert, tiny_llama

from captum_attattr import LayerAttAttr, attention_layers


class Counted:
    """A model's probabilities, and the rows of each of its forwards: without and with gradients."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.checking: list[int] = []
        self.differentiated: list[int] = []

    def __call__(self, ids: Tensor, mask: Tensor) -> Tensor:
        (self.differentiated if torch.is_grad_enabled() else self.checking).append(len(ids))
        logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return (logits if logits.dim() == 2 else logits[:, -1]).softmax(-1)

    @contextmanager
    def call(self) -> Iterator[None]:
        self.checking.clear()
        self.differentiated.clear()
        yield


def batch(rows: int, length: int, padded: bool, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Words and mask; of a padded batch every example but the first has another length."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 30, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    if padded:
        for row in range(1, rows):
            mask[row, length - row % (length - 1) :] = 0
    return ids * mask, mask


def alone(model: Any, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """The maps of each example by an object of its own."""
    maps = []
    for row in range(len(ids)):
        lattr = LayerAttAttr(Counted(model), attention_layers(model))
        maps.append(lattr.attribute((ids[row : row + 1], mask[row : row + 1]), target=0, n_steps=4))
    return [torch.cat([each[layer] for each in maps]) for layer in range(len(maps[0]))]


@pytest.mark.parametrize("build", [tiny_bert, tiny_llama])
@pytest.mark.parametrize("n_steps", [None, 4])
def test_a_second_call_runs_the_examples_once_before_its_rows(build: Any, n_steps: int | None) -> None:
    counted = Counted(build())
    lattr = LayerAttAttr(counted, attention_layers(counted.model))
    first, second = batch(3, 7, True), batch(3, 7, False, seed=1)
    lattr.attribute(first, target=0, n_steps=n_steps)
    assert len(counted.checking) > 1
    with counted.call():
        lattr.attribute(second, target=0, n_steps=n_steps)
    # By itself; where node 1 is not wanted, as of Gauss-Legendre nodes, the clean run needs no gradients either.
    assert counted.checking == [3] * (1 if n_steps is None else 2)
    assert counted.differentiated[0] == 3 or n_steps


@pytest.mark.parametrize("build", [tiny_bert, tiny_llama])
def test_a_padded_batch_needs_three_forwards_before_its_rows(build: Any) -> None:
    counted = Counted(build())
    LayerAttAttr(counted, attention_layers(counted.model)).attribute(batch(32, 9, True), target=0)
    # The batch by itself, one example that is learned from, and the verification.
    assert counted.checking == [32, 1, 3]


@pytest.mark.parametrize("build", [tiny_bert, tiny_llama])
@pytest.mark.parametrize("order", [(True, False), (False, True), (True, True)], ids=str)
def test_what_is_learned_of_one_batch_is_right_for_another(build: Any, order: tuple[bool, bool]) -> None:
    """Only padded batches bring the blocks a mask; other lengths are other shapes."""
    model: nn.Module = build()
    lattr = LayerAttAttr(Counted(model), attention_layers(model))
    for seed, (padded, length) in enumerate(zip(order + order, (7, 7, 9, 6), strict=True)):
        ids, mask = batch(4, length, padded, seed)
        together = lattr.attribute((ids, mask), target=0, n_steps=4)
        for ours, theirs in zip(together, alone(model, ids, mask), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_another_length_is_learned_by_one_example() -> None:
    counted = Counted(tiny_bert())
    lattr = LayerAttAttr(counted, attention_layers(counted.model))
    lattr.attribute(batch(3, 7, True), target=0)
    with counted.call():
        lattr.attribute(batch(3, 9, True), target=0)
    assert counted.checking == [3, 1]
