"""The joint path: all layers opened together, written out with gates beside it, and the sink as a baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES
from model.test_families import Subject
from torch import Tensor, nn
from toy import (
    HEADS,
    LAYERS,
    PAD,
    LinearInAttention,
    probabilities,
    sentences,
    tiny_bart,
    tiny_bert,
    tiny_llama,
    unchanged,
)

from captum_attattr import ConvergenceWarning, LayerAttAttr, attention_layers
from captum_attattr.attribution.baselines import baseline
from captum_attattr.model.attention_control import AttentionControl, LayerCall
from captum_attattr.model.head_masks import head_gates

BATCH, LENGTH = 3, 6
IDS = sentences(BATCH, LENGTH)
SUPPORTED = [family for family in FAMILIES if family.route != "refused"]


def gated(model: nn.Module, forward: Callable[..., Tensor], ids: Tensor, start: str, nodes: int = 64) -> list[Tensor]:
    """The joint path as its formula has it: a gate on every probability, one Gauss-Legendre node after another."""
    layers = attention_layers(model)
    points, weights = np.polynomial.legendre.leggauss(nodes)
    total: list[Any] = [0.0] * len(layers)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        gates: dict[int, Tensor] = {}

        def gate(layer: int, call: LayerCall, point: float = point, gates: dict[int, Tensor] = gates) -> Tensor:
            attention = call.tensor
            gates[layer] = torch.full_like(attention, point).requires_grad_()
            begin = torch.zeros_like(attention)
            if start == "sink":
                begin[..., 0] = attention.sum(-1)
            return begin + gates[layer] * (attention - begin)

        with AttentionControl(layers) as control, torch.enable_grad(), control.watch(gate):
            output = forward(ids)[:, 1]
        gradients = torch.autograd.grad(output.sum(), [gates[layer] for layer in range(len(layers))])
        total = [part + weight * gradient for part, gradient in zip(total, gradients, strict=True)]
    return total


def next_token(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda ids: model(input_ids=ids).logits[:, -1].softmax(-1)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], Callable[..., Tensor]]]] = {
    "encoder": (tiny_bert, probabilities),
    "grouped heads, causal": (tiny_llama, next_token),
}


@pytest.mark.parametrize("start", [None, "sink"])
@pytest.mark.parametrize("name", MODELS)
def test_maps_are_those_of_gates_on_every_probability(name, start):
    make, function = MODELS[name]
    model = make()
    forward = function(model)
    lattr = LayerAttAttr(forward, attention_layers(model))
    result = lattr.integrate(IDS, target=1, path="joint", attention_baselines=start, tolerance=1e-4)
    expected = torch.cat([part.flatten(1) for part in gated(model, forward, IDS, start or "zero")], 1)
    ours = torch.cat([part.flatten(1) for part in result.attributions], 1)
    error = (ours - expected).norm(dim=1) / expected.norm(dim=1)
    assert float(error.max()) < 1e-4
    assert bool((error <= result.total_error * 1.1 + 2e-6).all())
    assert result.total_error.max() < 1e-4
    assert result.total_delta.abs().max() < 1e-5
    assert result.delta.isnan().all()
    assert result.total_nodes.tolist() == result.nodes[0].tolist()


def test_the_whole_adds_up_and_each_layer_has_an_error():
    model = tiny_bert()
    lattr = LayerAttAttr(probabilities(model), attention_layers(model))
    options: dict[str, Any] = {"target": 1, "path": "joint", "tolerance": 1e-4}
    maps, delta = lattr.attribute(IDS, return_convergence_delta=True, **options)
    result = lattr.integrate(IDS, keep_attention=True, **options)
    total = sum(map_.flatten(1).sum(1) for map_ in maps)
    torch.testing.assert_close(total, result.output - result.start[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(result.output, probabilities(model)(IDS)[:, 1], rtol=0, atol=1e-6)
    assert delta.shape == (BATCH,)
    torch.testing.assert_close(delta, result.total_delta, rtol=0, atol=1e-7)
    assert result.error.shape == (LAYERS, BATCH)
    assert bool((result.error < 1e-2).all())
    for ours, own in zip(result.attention, lattr.attention(IDS), strict=True):
        torch.testing.assert_close(ours, own, rtol=0, atol=1e-6)
    again = lattr.compute_convergence_delta(maps, None, IDS, target=1, path="joint")
    torch.testing.assert_close(again, delta, rtol=0, atol=1e-6)


@pytest.mark.parametrize("start", [None, 0.1, "uniform", "sink"])
def test_one_layer_alone_is_the_path_of_the_paper(start):
    model = tiny_bert()
    layer = attention_layers(model)[1]
    lattr = LayerAttAttr(probabilities(model), layer)
    options: dict[str, Any] = {"target": 1, "attention_baselines": start, "n_steps": 8}
    joint, delta = lattr.attribute(IDS, path="joint", return_convergence_delta=True, **options)
    paper, own = lattr.attribute(IDS, return_convergence_delta=True, **options)
    torch.testing.assert_close(joint, paper, rtol=0, atol=1e-6)
    torch.testing.assert_close(delta, own, rtol=0, atol=1e-6)


def test_layers_that_are_not_given_recompute_their_attention_and_stay_closed():
    model = tiny_bert()
    layers = attention_layers(model)
    some = LayerAttAttr(probabilities(model), layers[1:]).integrate(IDS, target=1, path="joint")
    gates = {layer: torch.zeros(HEADS) for layer in layers[1:]}
    with torch.no_grad(), head_gates(gates):
        empty = probabilities(model)(IDS)[:, 1]
    torch.testing.assert_close(some.start[0], empty, rtol=0, atol=1e-6)
    assert len(some.attributions) == LAYERS - 1
    assert some.total_delta.abs().max() < 1e-5


def test_a_model_that_is_linear_in_its_attention_has_one_answer():
    model = LinearInAttention(layers=3, length=LENGTH)
    lattr = LayerAttAttr(model, [block.attention.self for block in model.bert.encoder.layer])
    maps = lattr.attribute(IDS, target=1, path="joint", n_steps=2)
    attention = lattr.attention(IDS)
    for ours, own, gradient in zip(maps, attention, model.gradient(IDS, 1), strict=True):
        torch.testing.assert_close(ours, own * gradient, rtol=0, atol=1e-5)


@pytest.mark.parametrize("limit", [1, 2, 5, None])
def test_chunks_and_company_do_not_matter(limit):
    model = tiny_bert()
    lattr = LayerAttAttr(probabilities(model), attention_layers(model))
    whole = lattr.attribute(IDS, target=1, path="joint", n_steps=6, internal_batch_size=limit)
    for example in range(BATCH):
        alone = lattr.attribute(IDS[example : example + 1], target=1, path="joint", n_steps=6)
        for ours, theirs in zip(whole, alone, strict=True):
            torch.testing.assert_close(ours[example : example + 1], theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle"])
def test_fixed_rules_approach_the_adaptive_one(method):
    model = tiny_bert()
    lattr = LayerAttAttr(probabilities(model), attention_layers(model))
    expected = torch.cat([m.flatten(1) for m in lattr.attribute(IDS, target=1, path="joint", tolerance=1e-5)], 1)
    steps = 12 if method == "gausslegendre" else 200
    result = lattr.integrate(IDS, target=1, path="joint", n_steps=steps, method=method)
    ours = torch.cat([m.flatten(1) for m in result.attributions], 1)
    assert float((ours - expected).norm() / expected.norm()) < (1e-4 if method == "gausslegendre" else 2e-2)
    assert result.total_error.isnan().all()
    assert result.error.isnan().all()
    assert result.converged.all()


@pytest.mark.parametrize("family", SUPPORTED, ids=lambda family: family.name)
def test_every_family_adds_up(family):
    subject = Subject(family, family.kinds[0])
    inputs = subject.inputs(2, 4)
    with unchanged(subject.model):
        result = subject.lattr.integrate(inputs, path="joint", n_steps=12)
    gained = (result.output - result.start[0]).abs().max()
    assert result.total_delta.abs().max() < 2e-2 * gained + 1e-5
    torch.testing.assert_close(result.output, subject(*inputs).detach(), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------- the sink


def test_the_sink_is_the_first_key_that_the_mask_shows():
    """Left padding hides the first keys; a key in sight may have a probability of 0 all the same."""
    model = tiny_llama()
    with torch.no_grad():
        model.model.layers[0].self_attn.q_proj.weight.mul_(2e3)  # scores so large that most probabilities are 0
    ids = torch.cat([torch.full((BATCH, 2), PAD), IDS], dim=1)
    mask = (ids != PAD).long()
    sink, starts = baseline("sink"), []

    def forward(ids: Tensor, mask: Tensor) -> Tensor:
        return model(input_ids=ids, attention_mask=mask).logits[:, -1].softmax(-1)

    layers = attention_layers(model)
    lattr = LayerAttAttr(forward, layers)
    attention = lattr.attention(ids, mask)
    assert bool((attention[0][:, :, 4:, 2] == 0).any())

    def read(layer: int, call: LayerCall) -> None:
        rows = torch.arange(BATCH)
        starts.append(sink(layer, call.attention(rows), rows, call.visible(rows)))

    with AttentionControl(layers) as control, torch.no_grad():
        for space in ("attention", "context"):
            with control.watch(read, space=space):
                forward(ids, mask)
    assert len(starts) == 2 * LAYERS
    for start in starts:
        torch.testing.assert_close(start[:, :, 2:, 2], torch.ones(BATCH, HEADS, LENGTH))
        assert float(start[:, :, 2:].sum()) == pytest.approx(BATCH * HEADS * LENGTH)
    result = lattr.integrate(ids, None, 1, mask, path="joint", attention_baselines="sink", n_steps=16)
    assert result.total_delta.isfinite().all()


def test_edges_of_the_sink_have_the_factor_a_minus_one():
    model = LinearInAttention(layers=2, length=LENGTH)
    lattr = LayerAttAttr(model, [block.attention.self for block in model.bert.encoder.layer])
    for path in ("layer", "joint"):
        maps = lattr.attribute(IDS, target=1, path=path, attention_baselines="sink", n_steps=2)
        for ours, own, gradient in zip(maps, lattr.attention(IDS), model.gradient(IDS, 1), strict=True):
            expected = own * gradient
            expected[..., 0] = (own[..., 0] - 1) * gradient[..., 0]
            torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


# -------------------------------------------------------------------------------------------------- mistakes


def test_what_does_not_converge_is_named():
    model = tiny_bert()
    lattr = LayerAttAttr(probabilities(model), attention_layers(model))
    with pytest.warns(ConvergenceWarning, match=r"3 of 3 sets of maps .*max_nodes.*example \d, all layers") as caught:
        lattr.attribute(IDS, target=1, path="joint", tolerance=1e-9, max_nodes=5)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        ({"path": "both"}, {}, "path='both' is unknown; use 'layer' or 'joint'"),
        ({"path": None}, {}, "path=None is unknown"),
        ({"path": "joint"}, {"multiply_by_inputs": False}, "path='joint': its scores are derivatives by gates"),
        ({"attention_baselines": "sinks"}, {}, "attention_baselines='sinks' is unknown; use 'uniform', 'sink'"),
    ],
)
def test_mistakes_are_named_before_the_model_runs(options, more, message):
    calls = []

    def forward(ids: Tensor) -> Tensor:
        calls.append(ids)
        return probabilities(model)(ids)

    model = tiny_bert()
    lattr = LayerAttAttr(forward, attention_layers(model), **more)
    with pytest.raises(ValueError, match=message):
        lattr.attribute(IDS, target=1, **options)
    assert not calls


def test_forward_functions_that_cannot_be_attributed_are_refused():
    model = tiny_bert()

    def twice(ids: Tensor) -> Tensor:
        return probabilities(model)(ids) + probabilities(model)(ids)

    def detached(ids: Tensor) -> Tensor:
        return probabilities(model)(ids).detach()

    def detached_below(ids: Tensor) -> Tensor:
        """Without a gradient to the first layer, with one to the others."""
        block = model.bert.encoder.layer[1]
        handle = block.register_forward_pre_hook(lambda _, args: (args[0].detach(), *args[1:]))
        try:
            return probabilities(model)(ids)
        finally:
            handle.remove()

    lost = "changes with the attention of .*encoder 0.* carries no gradient"
    for forward, message in ((twice, "more than once"), (detached, lost), (detached_below, lost)):
        for path in ("layer", "joint"):
            with unchanged(model), pytest.raises(ValueError, match=message):
                LayerAttAttr(forward, attention_layers(model)).attribute(IDS, target=1, path=path)


def test_layers_that_the_output_does_not_depend_on_have_no_map():
    model = tiny_bert()

    def first_layers(ids: Tensor) -> Tensor:
        states: Tensor = model(ids, output_hidden_states=True).hidden_states[1]
        return states[:, 0].softmax(-1)

    lattr = LayerAttAttr(first_layers, attention_layers(model))
    for path in ("layer", "joint"):
        maps = lattr.attribute(IDS, target=1, path=path, n_steps=3)
        assert [bool(map_.any()) for map_ in maps] == [True] + [False] * (LAYERS - 1)


def test_cross_attention_joins_in():
    model = tiny_bart()
    layers = attention_layers(model, "cross")

    def forward(ids: Tensor) -> Tensor:
        return model(input_ids=ids).logits.softmax(-1)

    result = LayerAttAttr(forward, layers).integrate(IDS, target=1, path="joint", attention_baselines="sink")
    assert result.total_delta.abs().max() < 1e-5


def test_a_model_may_be_in_wider_types():
    model = tiny_bert().double()
    lattr = LayerAttAttr(probabilities(model), attention_layers(model))
    result = lattr.integrate(IDS, target=1, path="joint", tolerance=1e-8)
    assert result.attributions[0].dtype == torch.float64
    assert result.total_delta.abs().max() < 1e-9


@pytest.mark.parametrize("path", ["layer", "joint"])
def test_no_sink_where_nothing_is_attended(path: str) -> None:
    """Cross attention to a source that is all padding; other starts take it."""
    model = tiny_bart().model
    model.set_attn_implementation("eager")  # fused attention gives such rows other numbers, and they are refused
    layers = attention_layers(model, "cross")
    source, target = torch.randint(3, 30, (2, 5)), torch.randint(3, 30, (2, 4))
    mask = torch.tensor([[1, 1, 1, 1, 0], [0, 0, 0, 0, 0]])

    def forward(source: Tensor, mask: Tensor, target: Tensor) -> Tensor:
        hidden: Tensor = model(input_ids=source, attention_mask=mask, decoder_input_ids=target)[0]
        return hidden[:, -1].softmax(-1)

    lattr = LayerAttAttr(forward, layers)
    options: Any = {"target": 0, "n_steps": 3, "path": path}
    with pytest.raises(ValueError, match="'sink': no query of example 1 sees any key"):
        lattr.attribute((source, mask, target), attention_baselines="sink", **options)
    lattr.attribute((source, mask, target), **options)
