"""Context and attention: replacing either gives the same maps, and fused attention serves rows where it may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from families import FAMILIES, Family
from model.test_families import Subject
from torch import Tensor, nn
from toy import probabilities, sentences, tiny_bert, tiny_llama, unchanged

from captum_attattr import LayerAttAttr, attention_layers
from captum_attattr.model.attention_control import AttentionControl

SUPPORTED = [family for family in FAMILIES if family.route != "refused"]
IDS = sentences(3, 6)


@contextmanager
def space_forced(patch: pytest.MonkeyPatch, space: str) -> Iterator[list[str]]:
    """Every forward replaces what `space` says; yields what was asked for."""
    asked: list[str] = []
    watch = AttentionControl.watch

    def forced(self: AttentionControl, visitor: Any, *, space: str = "attention", **options: Any) -> Any:
        asked.append(space)
        return watch(self, visitor, space=forced_to, **options)

    forced_to = space
    with patch.context() as context:
        context.setattr(AttentionControl, "watch", forced)
        yield asked


def facts_of(lattr: LayerAttAttr) -> list[Any]:
    return list(lattr.known.values())


SINGLE = ("Mixtral", "GPT-OSS", "XGLM")
"""Their experts, or its mask, have no float64."""


def double(subject: Subject, batch: int, padding: int) -> tuple[Tensor, ...]:
    if subject.family.name in SINGLE:
        return subject.inputs(batch, padding)
    subject.model.double()
    return tuple(x.double() if x.is_floating_point() else x for x in subject.inputs(batch, padding))


@pytest.mark.parametrize("path", ["layer", "joint"])
@pytest.mark.parametrize("family", SUPPORTED, ids=lambda family: family.name)
def test_contexts_give_what_attention_gives(family: Family, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(family, family.kinds[-1])
    inputs = double(subject, 2, 2)
    options: dict[str, Any] = {"path": path, "n_steps": 3, "attention_baselines": 0.05}
    ours = subject.lattr.integrate(inputs, **options)
    assert {facts.space for facts in facts_of(subject.lattr)} == {
        "context" if family.route == "interface" else "attention"
    }
    with space_forced(monkeypatch, "attention") as asked:
        theirs = LayerAttAttr(subject.lattr.forward_func, subject.lattr.layers).integrate(inputs, **options)
    assert ("context" in asked) == (family.route == "interface")
    tolerance = 1e-6 if family.name in SINGLE else 1e-10
    for one, other in zip(ours.attributions, theirs.attributions, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance)
        assert one.abs().max() > 10 * tolerance
    torch.testing.assert_close(ours.start, theirs.start, rtol=0, atol=tolerance)
    torch.testing.assert_close(ours.output, theirs.output, rtol=0, atol=tolerance)


@pytest.mark.parametrize("start", [None, "uniform", "sink"])
@pytest.mark.parametrize("multiply", [True, False])
def test_spaces_agree_from_every_baseline(start: Any, multiply: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_llama().double()  # grouped heads

    def forward(ids: Tensor) -> Tensor:
        return model(input_ids=ids).logits[:, -1].softmax(-1)

    def maps() -> tuple[Tensor, ...]:
        lattr = LayerAttAttr(forward, attention_layers(model), multiply_by_inputs=multiply)
        return lattr.attribute(IDS, target=1, n_steps=3, attention_baselines=start)

    ours = maps()
    with space_forced(monkeypatch, "attention"):
        theirs = maps()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


# ------------------------------------------------------------------------------------------ fused attention


@pytest.fixture
def fused_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every call of fused attention whose gradient is wanted: of rows, not of what is learned first."""
    calls: list[int] = []
    original = nn.functional.scaled_dot_product_attention

    def counted(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if torch.is_grad_enabled():
            calls.append(len(query))
        return original(query, *args, **kwargs)

    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", counted)
    return calls


FUSED = ["BERT", "GPT-2", "Llama", "Mistral", "ModernBERT", "BART", "ViT"]
EAGER = {"GPT-OSS": "sinks", "Gemma2": "soft caps", "MPNet": "no interface"}
FAMILY = {family.name: family for family in FAMILIES}


@pytest.mark.parametrize("path", ["layer", "joint"])
@pytest.mark.parametrize("name", FUSED)
def test_fused_attention_serves_rows_and_agrees(name: str, path: str, fused_calls: list[int]) -> None:
    # In float32: many families' eager softmax is float32 whatever the model is, which fused attention is not.
    subject = Subject(FAMILY[name], FAMILY[name].kinds[0])
    inputs = subject.inputs(3, 2)
    subject.model.set_attn_implementation("sdpa")
    fused = subject.lattr.integrate(inputs, path=path, n_steps=3)
    assert len(fused_calls) >= len(subject.lattr.layers)
    assert max(fused_calls) > 1
    assert {id(layer.module) for layer in subject.lattr.layers} <= facts_of(subject.lattr)[0].fused
    subject.model.set_attn_implementation("eager")
    fused_calls.clear()
    eager = subject.lattr.integrate(inputs, path=path, n_steps=3)
    assert not fused_calls
    for one, other in zip(fused.attributions, eager.attributions, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("path", ["layer", "joint"])
@pytest.mark.parametrize("name", EAGER)
def test_attention_of_another_formula_is_never_fused(
    name: str, path: str, fused_calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Subject(FAMILY[name], FAMILY[name].kinds[0])
    inputs = double(subject, 3, 2)
    for config in {id(m.config): m.config for m in subject.model.modules() if hasattr(m, "config")}.values():
        if FAMILY[name].route == "interface":  # as if the family had been loaded so: the check alone decides
            monkeypatch.setattr(config, "_attn_implementation_internal", "sdpa")
    if FAMILY[name].route == "interface":
        with torch.no_grad(), AttentionControl(subject.lattr.layers) as control:
            assert set(control.usual.values()) == {"sdpa"}
            rows = [torch.arange(3)]
            with control.watch(lambda *_: None, space="context", check=True) as watch:
                subject.lattr.forward_func(*(x[rows[0]] for x in inputs))
            assert not watch.fused
    monkeypatch.undo()
    subject.lattr.integrate(inputs, path=path, n_steps=3)
    assert not facts_of(subject.lattr)[0].fused


def test_a_model_loaded_eager_stays_eager(fused_calls: list[int]) -> None:
    model = tiny_bert()
    model.set_attn_implementation("eager")
    lattr = LayerAttAttr(probabilities(model), attention_layers(model))
    for path in ("layer", "joint"):
        lattr.attribute(IDS, target=1, n_steps=3, path=path)
    assert not fused_calls
    assert not facts_of(lattr)[0].fused
    model.set_attn_implementation("sdpa")  # what is known is known of the implementation
    lattr.attribute(IDS, target=1, n_steps=3)
    assert fused_calls


# --------------------------------------------------------------------- forward functions that read the attention


@pytest.mark.parametrize("path", ["layer", "joint"])
def test_a_forward_that_reads_the_attentions_falls_back_to_them(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_bert().double()
    model.set_attn_implementation("eager")

    def forward(ids: Tensor) -> Tensor:
        result = model(ids, output_attentions=True)
        return result.logits.softmax(-1) * (1 + result.attentions[1][:, :, 0, 2].sum(1, keepdim=True))

    lattr = LayerAttAttr(forward, attention_layers(model))
    forward(IDS)  # transformers puts hooks of its own into the model
    with unchanged(model):
        result = lattr.integrate(IDS, target=1, path=path, tolerance=1e-6)
    assert {facts.space for facts in facts_of(lattr)} == {"attention"}
    torch.testing.assert_close(result.output, forward(IDS)[:, 1].detach(), rtol=0, atol=1e-12)
    if path == "joint":
        assert result.total_delta.abs().max() < 1e-6
        return
    assert result.delta.abs().max() < 1e-6
    expected = by_hand(model, forward, 1)
    torch.testing.assert_close(result.attributions[1], expected, rtol=0, atol=1e-6)


def by_hand(model: nn.Module, forward: Callable[[Tensor], Tensor], layer: int, nodes: int = 24) -> Tensor:
    """The map of one layer, with BERT's own eager function exchanged: no part of this package."""
    import numpy as np
    from transformers.models.bert import modeling_bert

    module = model.bert.encoder.layer[layer].attention.self
    own = modeling_bert.eager_attention_forward
    with torch.no_grad():
        attention = model(IDS, output_attentions=True).attentions[layer]
    points, weights = np.polynomial.legendre.leggauss(nodes)
    total = torch.zeros_like(attention)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        leaf = (point * attention).requires_grad_()

        def exchanged(who: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
            if who is not module:
                return own(who, query, key, value, *args, **kwargs)
            return (leaf @ value).transpose(1, 2), leaf  # noqa: B023  # it is called in this round

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(modeling_bert, "eager_attention_forward", exchanged)
            output = forward(IDS)[:, 1]
        total += weight * torch.autograd.grad(output.sum(), leaf)[0]
    return attention * total
