"""Compiled models: masks and attributions reach them, and what is compiled is used again afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch._dynamo
from head_examples import GOLD, TEXTS
from packaging.version import Version
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from toy import HEADS, sentences, tiny_bert, tiny_tokenizer

from captum_attattr import (
    LayerAttAttr,
    attention_layers,
    effectiveness_analysis,
    explain,
    head_importance,
    load_pruned,
    mask_heads,
    prune_heads,
    pruning_curve,
    save_pruned,
)
from captum_attattr.model.modes import uncompiled

Run = Callable[[Tensor], Tensor]
MASK = {0: [1], 2: [0, 1]}
ALL = list(range(HEADS))


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def wrapped(backend: Any) -> tuple[Any, Run]:
    model = torch.compile(tiny_bert(seed=1), backend=backend)
    return model, lambda ids: model(ids).logits


def in_place(backend: Any) -> tuple[Any, Run]:
    model = tiny_bert(seed=1)
    model.compile(backend=backend)
    return model, lambda ids: model(ids).logits


def blocks(backend: Any) -> tuple[Any, Run]:
    model = tiny_bert(seed=1)
    for block in model.bert.encoder.layer:
        block.compile(backend=backend)
    return model, lambda ids: model(ids).logits


def forward(backend: Any) -> tuple[Any, Run]:
    model = tiny_bert(seed=1)
    model.forward = torch.compile(model.forward, backend=backend)
    return model, lambda ids: model(ids).logits


def around(backend: Any) -> tuple[Any, Run]:
    """The model does not know."""
    model = tiny_bert(seed=1)
    return model, torch.compile(lambda ids: model(ids).logits, backend=backend)


def stance() -> str:
    return str(torch._dynamo.eval_frame._stance.stance)


compiles = pytest.mark.skipif(
    Version(torch.__version__) < Version("2.7"), reason="torch 2.6 cannot compile what transformers wraps a forward in"
)
each_way = pytest.mark.parametrize(
    "compiled", [pytest.param(way, marks=compiles) for way in (wrapped, in_place, blocks, forward, around)]
)


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return sentences()


@pytest.fixture(scope="module")
def plain() -> Any:
    return tiny_bert(seed=1)


@torch.no_grad()
def masked(model: nn.Module, ids: Tensor) -> Tensor:
    with mask_heads(model, MASK):
        return model(ids).logits


@each_way
@torch.no_grad()
def test_mask_reaches_compiled_code_which_is_used_again_afterwards(compiled, plain, ids):
    counter = CompileCounter()
    model, run = compiled(counter)
    own = run(ids)
    frames = counter.frame_count
    assert frames > 0
    with mask_heads(model, MASK):
        torch.testing.assert_close(run(ids), masked(plain, ids), rtol=1e-5, atol=1e-5)
    assert (own - masked(plain, ids)).abs().max() > 1e-3
    assert torch.equal(run(ids), own)
    assert counter.frame_count == frames


@each_way
@torch.no_grad()
def test_what_runs_first_inside_a_mask_is_not_compiled_with_it(compiled, plain, ids):
    counter = CompileCounter()
    model, run = compiled(counter)
    with mask_heads(model, MASK):
        torch.testing.assert_close(run(ids), masked(plain, ids), rtol=1e-5, atol=1e-5)
    assert counter.frame_count == 0
    torch.testing.assert_close(run(ids), plain(ids).logits, rtol=1e-5, atol=1e-5)
    assert counter.frame_count > 0


@each_way
def test_compiled_model_is_attributed_as_the_plain_one(compiled, plain, ids):
    model, run = compiled("eager")
    with torch.no_grad():
        run(ids)
    found = LayerAttAttr(lambda i: run(i).softmax(-1), attention_layers(model)).attribute(ids, target=1, n_steps=3)
    wanted = LayerAttAttr(lambda i: plain(i).logits.softmax(-1), attention_layers(plain))
    for ours, theirs in zip(found, wanted.attribute(ids, target=1, n_steps=3), strict=True):
        torch.testing.assert_close(ours, theirs)


@each_way
@torch.no_grad()
def test_heads_are_cut_out_of_compiled_code(compiled, ids, tmp_path):
    model, run = compiled("eager")
    own = run(ids)
    other = tiny_bert(seed=1)
    for heads in (MASK, {1: ALL}):
        prune_heads(model, heads)
        prune_heads(other, heads)
        torch.testing.assert_close(run(ids), other(ids).logits, rtol=1e-5, atol=1e-5)
        assert (run(ids) - own).abs().max() > 1e-3
    loaded = load_pruned(save_pruned(model, tmp_path))
    torch.testing.assert_close(loaded(ids).logits, other(ids).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("compiled", [wrapped, in_place])
def test_scores_curves_and_explanations_are_those_of_the_plain_model(compiled, plain):
    model, _ = compiled("eager")
    both: list[Any] = []
    digests: list[str] = []
    options: dict[str, Any] = {"progress": False}
    for each in (model, plain):
        given = (each, tiny_tokenizer(), TEXTS, GOLD)
        importance = head_importance(*given, "loss_difference", **options)
        curve = pruning_curve(*given, importance, steps=3, structural=True, **options)
        effect = effectiveness_analysis(*given, n_steps=3, **options)
        maps = [explanation.attributions for explanation in explain(*given[:3], n_steps=3, **options)]
        both.append((importance.scores, curve.loss, curve.parameters, effect.loss, maps))
        digests.append(importance.model)
    torch.testing.assert_close(both[0], both[1])
    assert digests[0] == digests[1]


def test_stance_is_put_back_by_the_last_of_overlapping_contexts():
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with uncompiled():
            inside.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    with torch.compiler.set_stance("eager_on_recompile"):
        with suppress(KeyError), uncompiled(), uncompiled():
            thread.start()
            assert inside.wait(60)
            raise KeyError
        assert stance() == "force_eager"  # the other thread is still inside
        leave.set()
        thread.join()
        assert stance() == "eager_on_recompile"
    assert stance() == "default"


def test_compiled_function_cannot_leave_its_own_compilation(ids):
    def run(ids: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        with uncompiled():  # as mask_heads does
            return ids + 1

    with pytest.raises(ValueError, match="inside a function that is compiled, heads are not masked"):
        torch.compile(run, backend="eager")(ids)
    assert stance() == "default"
