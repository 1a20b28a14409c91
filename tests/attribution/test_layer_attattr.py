"""What `LayerAttAttr` promises: the method's identities, Captum's contract, and independence of how it is run."""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import captum.attr
import pytest
import torch
from captum.attr import (
    GradientAttribution,
    IntegratedGradients,
    LayerAttribution,
    LayerConductance,
    LayerGradientXActivation,
    NoiseTunnel,
)
from captum.metrics import infidelity, infidelity_perturb_func_decorator, sensitivity_max
from torch import Tensor, nn
from toy import HEADS, LAYERS, LinearInAttention, probabilities, sentences, tiny_bart, tiny_bert
from transformers import AlbertConfig, AlbertForSequenceClassification, BertForSequenceClassification

from captum_attattr import ConvergenceWarning, LayerAttAttr, attention_layers
from captum_attattr.attribution.facts import _working_dtype

METHODS = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid")
BATCH, LENGTH = 3, 6


@pytest.fixture(scope="module")
def bert() -> BertForSequenceClassification:
    return tiny_bert()


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return sentences(BATCH, LENGTH)


@pytest.fixture
def every(bert: BertForSequenceClassification) -> LayerAttAttr:
    return LayerAttAttr(probabilities(bert), attention_layers(bert))


@pytest.fixture
def middle(bert: BertForSequenceClassification) -> LayerAttAttr:
    return LayerAttAttr(probabilities(bert), attention_layers(bert)[1])


def output_at(model: BertForSequenceClassification, ids: Tensor, layer: int, node: float, target: int) -> Tensor:
    """F(a A) without the package: a layer's context is linear in its attention, so it is scaled instead."""
    module = model.bert.encoder.layer[layer].attention.self
    handle = module.register_forward_hook(lambda module, args, output: (node * output[0], *output[1:]))
    try:
        with torch.no_grad():
            return probabilities(model)(ids)[:, target]
    finally:
        handle.remove()


def assert_same(actual: Any, expected: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def relative(actual: Tensor, expected: Tensor) -> Tensor:
    """(B,) distance of maps in the Euclidean norm, relative to the expected one's."""
    return (actual - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)


# ------------------------------------------------------------------------------------------- completeness


@pytest.mark.parametrize("target", [0, 1, 2])
def test_each_layers_map_adds_up_to_what_its_attention_gives(every, bert, ids, target):
    maps = every.attribute(ids, target=target)
    full = probabilities(bert)(ids)[:, target].detach()
    for layer, map_ in enumerate(maps):
        gained = full - output_at(bert, ids, layer, 0.0, target)
        assert gained.abs().max() > 1e-3, "the toy model's attention must matter"
        assert_same(map_.sum((1, 2, 3)), gained, atol=2e-4)


@pytest.mark.parametrize(("method", "n_steps"), [("riemann_left", 3), ("riemann_trapezoid", 2), ("gausslegendre", 1)])
def test_delta_is_what_is_missing_from_completeness(every, bert, ids, method, n_steps):
    maps, deltas = every.attribute(ids, target=1, n_steps=n_steps, method=method, return_convergence_delta=True)
    full = probabilities(bert)(ids)[:, 1].detach()
    for layer, (map_, delta) in enumerate(zip(maps, deltas, strict=True)):
        expected = map_.sum((1, 2, 3)) - (full - output_at(bert, ids, layer, 0.0, 1))
        assert delta.shape == (BATCH,)
        assert expected.abs().max() > 1e-3, "a rule this coarse must miss something"
        assert_same(delta, expected, atol=2e-6)


@pytest.mark.parametrize("start", [None, 0.1, "uniform"])
def test_compute_convergence_delta_agrees_with_the_delta_returned(every, middle, ids, start):
    options = {"target": torch.tensor([1, 2, 0])}
    rule = {"n_steps": 3, "method": "riemann_left", "attention_baselines": start, "return_convergence_delta": True}
    maps, deltas = every.attribute(ids, **options, **rule)
    assert_same(every.compute_convergence_delta(maps, start, ids, **options), deltas)
    map_, delta = middle.attribute(ids, **options, **rule)
    assert_same(middle.compute_convergence_delta(map_, start, ids, **options), delta)
    assert max(float(d.abs().max()) for d in deltas) > 2e-4


def test_integrate_tells_both_ends_and_the_attention(every, bert, ids):
    result = every.integrate(ids, target=1, keep_attention=True)
    assert_same(result.output, probabilities(bert)(ids)[:, 1].detach())
    for layer in range(LAYERS):
        assert_same(result.start[layer], output_at(bert, ids, layer, 0.0, 1))
    assert_same(tuple(result.attention), every.attention(ids))
    assert result.nodes.shape == result.error.shape == result.converged.shape == (LAYERS, BATCH)
    assert int(result.nodes.sum()) == result.rows + (LAYERS - 1) * BATCH  # the layers share their row at node 1


def test_one_forward_serves_many_layers_and_examples(bert, ids):
    differentiated: list[int] = []

    def forward(ids: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # the forwards before check the model
            differentiated.append(len(ids))
        return probabilities(bert)(ids)

    LayerAttAttr(forward, attention_layers(bert)).attribute(ids, target=1, n_steps=4)
    assert differentiated == [BATCH * LAYERS * 5]  # 4 nodes, and node 0 for F(B)


# --------------------------------------------------------------------------------------------- closed form


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("method", [None, *METHODS])
def test_linear_model_has_its_closed_form(layers, method, ids):
    model = LinearInAttention(layers)
    lattr = LayerAttAttr(model, attention_layers(model))
    rule = {} if method is None else {"method": method, "n_steps": 5}
    maps, deltas = lattr.attribute(ids, target=1, return_convergence_delta=True, **rule)
    total = 1 - 1 / 5 if method == "riemann_trapezoid" else 1.0  # Captum's weights do not add up to 1
    for map_, attention, gradient, delta in zip(
        maps, lattr.attention(ids), model.gradient(ids, 1), deltas, strict=True
    ):
        assert_same(map_, total * attention * gradient)
        assert_same(delta, (total - 1) * (attention * gradient).sum((1, 2, 3)), atol=2e-6)


def test_linear_model_needs_no_more_than_the_first_rule(ids):
    model = LinearInAttention(2)
    result = LayerAttAttr(model, attention_layers(model)).integrate(ids, target=0, tolerance=1e-4)
    assert bool((result.nodes == 3).all())
    assert bool(result.converged.all())


@pytest.mark.parametrize("start", [0.3, -1, "uniform", "tensor", "broadcast"])
def test_linear_model_from_another_baseline(start, ids):
    model = LinearInAttention(2)
    lattr = LayerAttAttr(model, attention_layers(model))
    attention = lattr.attention(ids)
    generator = torch.Generator().manual_seed(1)
    values: Any = {
        "uniform": [torch.full_like(A, 1 / LENGTH) for A in attention],
        "tensor": [torch.rand(A.shape, generator=generator) for A in attention],
        "broadcast": [torch.rand(1, HEADS, 1, LENGTH), torch.rand(BATCH, 1, 1, 1)],
    }.get(start, [start] * 2)
    given = start if start == "uniform" or isinstance(start, (int, float)) else values
    maps = lattr.attribute(ids, target=2, attention_baselines=given)
    for map_, A, B, gradient in zip(maps, attention, values, model.gradient(ids, 2), strict=True):
        assert_same(map_, (A - B) * gradient)
    tuples = lattr.attribute(ids, target=2, attention_baselines=tuple(given) if isinstance(given, list) else given)
    assert_same(tuples, maps)


# ------------------------------------------------------------------------------------------------ symmetry


def test_permuted_heads_permute_the_maps(bert, ids):
    order = torch.tensor([2, 0, 3, 1])
    permuted = tiny_bert()
    attention = permuted.bert.encoder.layer[1].attention
    with torch.no_grad():
        for linear in (attention.self.query, attention.self.key, attention.self.value):
            linear.weight.copy_(linear.weight.unflatten(0, (HEADS, -1))[order].flatten(0, 1))
            linear.bias.copy_(linear.bias.unflatten(0, (HEADS, -1))[order].flatten(0, 1))
        projection = attention.output.dense.weight
        projection.copy_(projection.unflatten(1, (HEADS, -1))[:, order].flatten(1, 2))
    before, after = (
        LayerAttAttr(probabilities(model), attention_layers(model)).attribute(ids, target=1, n_steps=6)
        for model in (bert, permuted)
    )
    assert_same(after[0], before[0])
    assert_same(after[1], before[1][:, order])
    assert_same(after[2], before[2])
    assert (after[1] - before[1]).abs().max() > 1e-3


def test_batch_order_and_company_do_not_matter(every, ids):
    rule = {"n_steps": 6}
    together = every.attribute(ids, target=[1, 2, 0], **rule)
    order = torch.tensor([2, 0, 1])
    assert_same(every.attribute(ids[order], target=[0, 1, 2], **rule), tuple(m[order] for m in together))
    for i, target in enumerate([1, 2, 0]):
        assert_same(every.attribute(ids[i : i + 1], target=target, **rule), tuple(m[i : i + 1] for m in together))


@pytest.mark.parametrize("rule", [{"n_steps": 6}, {"n_steps": 4, "method": "riemann_left"}, {"tolerance": 1e-2}])
@pytest.mark.parametrize("internal_batch_size", [1, 2, 3, 7, None])
def test_internal_batch_size_does_not_matter(every, ids, rule, internal_batch_size):
    expected = every.attribute(ids, target=1, internal_batch_size=64, **rule)
    assert_same(every.attribute(ids, target=1, internal_batch_size=internal_batch_size, **rule), expected, atol=1e-5)


@pytest.mark.parametrize("internal_batch_size", [2, 3, 7, 20])
def test_internal_batch_size_bounds_the_rows_that_are_differentiated(bert, ids, internal_batch_size):
    rows: list[int] = []

    def forward(ids: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            rows.append(len(ids))
        return probabilities(bert)(ids)

    lattr = LayerAttAttr(forward, attention_layers(bert))
    lattr.attribute(ids, target=1, n_steps=9, internal_batch_size=internal_batch_size)
    assert max(rows) == internal_batch_size


def test_padding_changes_nothing_and_gets_nothing(every, ids):
    lengths = [6, 4, 5]
    padded, mask = torch.zeros(3, 9, dtype=torch.long), torch.zeros(3, 9, dtype=torch.long)
    for i, length in enumerate(lengths):
        padded[i, :length], mask[i, :length] = ids[i, :length], 1
    maps = every.attribute(padded, target=1, additional_forward_args=(mask,), n_steps=6)
    for i, length in enumerate(lengths):
        alone = every.attribute(ids[i : i + 1, :length], target=1, n_steps=6)
        for map_, expected in zip(maps, alone, strict=True):
            real = map_[i, :, :length, :length]
            assert_same(real, expected[0])
            assert int(map_[i].count_nonzero()) == int(real.count_nonzero())


def test_layers_can_be_given_in_any_order_and_number(every, bert, ids):
    maps = every.attribute(ids, target=1, n_steps=6)
    layers = attention_layers(bert)
    chosen = LayerAttAttr(probabilities(bert), [layers[2], layers[0]]).attribute(ids, target=1, n_steps=6)
    assert_same(chosen, (maps[2], maps[0]))
    for layer, expected in zip(layers, maps, strict=True):
        by_module = LayerAttAttr(probabilities(bert), layer.module)
        assert_same(by_module.attribute(ids, target=1, n_steps=6), expected)


def test_same_object_twice_gives_identical_results(every, ids):
    first = every.attribute(ids, target=1)
    every.attribute(sentences(2, 9, seed=5), target=0)
    for one, two in zip(first, every.attribute(ids, target=1), strict=True):
        assert torch.equal(one, two)


# ---------------------------------------------------------------------------------- other people's numbers


def test_one_right_step_is_captums_gradient_times_activation(ids):
    model = tiny_bert(attn_implementation="eager")  # whose attention modules return their probabilities
    forward = probabilities(model)
    for layer in attention_layers(model):
        _, expected = LayerGradientXActivation(forward, layer.module).attribute(ids, target=1)
        actual = LayerAttAttr(forward, layer).attribute(ids, target=1, n_steps=1, method="riemann_right")
        assert_same(actual, expected.detach())
        assert actual.abs().max() > 1e-3


@pytest.mark.parametrize(
    ("method", "n_steps"),
    [
        ("gausslegendre", 8),
        ("gausslegendre", 1),
        ("riemann_left", 16),
        ("riemann_right", 20),
        ("riemann_middle", 7),
        ("riemann_trapezoid", 9),
    ],
)
def test_captums_integrated_gradients_in_attention_space(bert, ids, method, n_steps):
    rule = {"method": method, "n_steps": n_steps}
    target = torch.tensor([1, 2, 0])
    maps = LayerAttAttr(probabilities(bert), attention_layers(bert)).attribute(ids, target=target, **rule)
    for layer, actual in zip(attention_layers(bert), maps, strict=True):
        lattr = LayerAttAttr(probabilities(bert), layer)
        captums = IntegratedGradients(lattr.attention_forward)
        expected = captums.attribute(lattr.attention(ids), target=target, additional_forward_args=(ids,), **rule)
        assert_same(actual, expected)


@pytest.mark.parametrize("multiply", [True, False])
def test_captums_integrated_gradients_from_a_baseline(bert, ids, multiply):
    lattr = LayerAttAttr(probabilities(bert), attention_layers(bert)[1], multiply_by_inputs=multiply)
    other = lattr.attention(ids.flip(0))
    captums = IntegratedGradients(lattr.attention_forward, multiply_by_inputs=multiply)
    expected = captums.attribute(
        lattr.attention(ids), baselines=other, target=1, additional_forward_args=(ids,), n_steps=8
    )
    assert_same(lattr.attribute(ids, target=1, attention_baselines=other, n_steps=8), expected)


def embedding_forward(model: BertForSequenceClassification) -> Callable[..., Tensor]:
    def forward(embeddings: Tensor, mask: Tensor | None = None) -> Tensor:
        return model(inputs_embeds=embeddings, attention_mask=mask).logits.softmax(-1)

    return forward


@pytest.fixture
def embeddings(bert, ids) -> Tensor:
    return bert.bert.embeddings.word_embeddings(ids).detach()


@pytest.mark.parametrize("several", [False, True])
def test_noise_tunnel_without_noise_is_the_plain_attribution(bert, embeddings, several):
    layers = attention_layers(bert)
    lattr = LayerAttAttr(embedding_forward(bert), layers if several else layers[1])
    mask = torch.ones(BATCH, LENGTH)
    mask[0, -2:] = 0
    options = {"target": torch.tensor([1, 2, 0]), "additional_forward_args": (mask,), "n_steps": 5}
    plain = lattr.attribute(embeddings, **options)
    assert_same(NoiseTunnel(lattr).attribute(embeddings, nt_samples=3, stdevs=0.0, **options), plain)
    noisy = NoiseTunnel(lattr).attribute(embeddings, nt_samples=3, stdevs=0.2, **options)
    for one, two in zip(noisy, plain, strict=True) if several else [(noisy, plain)]:
        assert one.shape == two.shape
        assert 1e-4 < (one - two).abs().max() < 1


def test_noise_tunnel_returns_the_delta_of_one_layer(bert, embeddings):
    lattr = LayerAttAttr(embedding_forward(bert), attention_layers(bert)[1])
    _, delta = NoiseTunnel(lattr).attribute(
        embeddings, nt_samples=2, stdevs=0.0, target=1, n_steps=2, baselines=0.0, return_convergence_delta=True
    )
    _, plain = lattr.attribute(embeddings, target=1, n_steps=2, baselines=0.0, return_convergence_delta=True)
    assert_same(delta, plain.repeat_interleave(2))


@pytest.mark.parametrize("count", [1, LAYERS])
def test_sensitivity_max_runs_for_a_list_of_layers(bert, embeddings, count):
    lattr = LayerAttAttr(embedding_forward(bert), attention_layers(bert)[:count])
    options = {"target": 1, "n_steps": 4, "n_perturb_samples": 2}
    assert_same(
        sensitivity_max(lattr.attribute, embeddings, lambda inputs: inputs, **options), torch.zeros(BATCH), atol=1e-4
    )
    shaken = sensitivity_max(lattr.attribute, embeddings, perturb_radius=0.1, **options)
    assert shaken.shape == (BATCH,)
    assert bool((shaken > 1e-3).all())


def changed(attention: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return tuple(change(A) for A in attention) if isinstance(attention, tuple) else change(attention)


@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_infidelity_of_a_linear_model_is_zero(ids, layers, multiply):
    model = LinearInAttention(layers)
    handles = attention_layers(model)
    lattr = LayerAttAttr(model, handles if layers > 1 else handles[0], multiply_by_inputs=multiply)

    @infidelity_perturb_func_decorator(lattr.multiplies_by_inputs)
    def perturb(attention: Any) -> Any:
        return changed(attention, lambda one: one * (1 + 0.5 * torch.rand_like(one)))

    torch.manual_seed(0)
    attention, maps = lattr.attention(ids), lattr.attribute(ids, target=1)
    options = {"additional_forward_args": (ids,), "target": 1, "n_perturb_samples": 4}
    value = infidelity(lattr.attention_forward, perturb, attention, maps, **options)
    assert value.shape == (BATCH,)
    assert value.max() < 1e-10
    wrong = tuple(2 * m for m in maps) if layers > 1 else 2 * maps
    assert infidelity(lattr.attention_forward, perturb, attention, wrong, **options).min() > 1e-8


@pytest.mark.parametrize("several", [False, True])
def test_infidelity_runs_in_attention_space(bert, ids, several):
    layers = attention_layers(bert)
    lattr = LayerAttAttr(probabilities(bert), layers if several else layers[0], multiply_by_inputs=False)

    @infidelity_perturb_func_decorator(False)
    def perturb(attention: Any) -> Any:
        return changed(attention, lambda one: one + 1e-2 * torch.randn_like(one))

    value = infidelity(
        lattr.attention_forward,
        perturb,
        lattr.attention(ids),
        lattr.attribute(ids, target=1),
        additional_forward_args=(ids,),
        target=1,
    )
    assert value.shape == (BATCH,)
    assert bool(value.isfinite().all())


def test_attention_forward_of_the_own_attention_is_the_model(every, middle, bert, ids):
    expected = probabilities(bert)(ids)
    assert_same(every.attention_forward(*every.attention(ids), ids), expected)
    assert_same(middle.attention_forward(middle.attention(ids), ids), expected)
    nothing = middle.attention_forward(torch.zeros_like(middle.attention(ids)), ids)[:, 1]
    assert_same(nothing.detach(), output_at(bert, ids, 1, 0.0, 1))


def test_attention_is_what_an_eager_model_returns(every, bert, ids):
    eager = tiny_bert(attn_implementation="eager")
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 5 + [0]])
    with torch.no_grad():
        expected = eager(ids, attention_mask=mask, output_attentions=True).attentions
    assert_same(every.attention(ids, additional_forward_args=(mask,)), expected)
    rows = every.attention(ids, mask)[0].sum(-1)
    assert_same(rows, torch.ones_like(rows))


# ------------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    "target",
    [
        2,
        -1,
        (2,),
        (-1,),
        torch.tensor(2),
        torch.tensor([2]),
        torch.tensor([2, 2, 2]),
        torch.tensor([-1, 2, -1]),
        torch.tensor([2, 2, 2], dtype=torch.int32),
        [2, 2, 2],
        [-1, 2, -1],
        [(2,), (2,), (-1,)],
    ],
    ids=str,
)
def test_every_way_to_say_the_same_target(middle, ids, target):
    expected = middle.attribute(ids, target=2, n_steps=3)
    assert_same(middle.attribute(ids, target=target, n_steps=3), expected, atol=0)
    delta = middle.compute_convergence_delta(expected, None, ids, target=target)
    assert_same(delta, middle.compute_convergence_delta(expected, None, ids, target=2), atol=0)


def test_each_example_has_its_own_target(middle, ids):
    singly = torch.cat([middle.attribute(ids[i : i + 1], target=t, n_steps=3) for i, t in enumerate([1, 2, 0])])
    for target in ([1, 2, 0], torch.tensor([1, 2, 0]), [(1,), (2,), (0,)]):
        assert_same(middle.attribute(ids, target=target, n_steps=3, internal_batch_size=5), singly)


def test_no_target_for_one_value_per_example(bert, ids):
    layer = attention_layers(bert)[1]
    expected = LayerAttAttr(probabilities(bert), layer).attribute(ids, target=1, n_steps=3)
    flat = LayerAttAttr(lambda ids: probabilities(bert)(ids)[:, 1], layer)
    column = LayerAttAttr(lambda ids: probabilities(bert)(ids)[:, 1:2], layer)
    assert_same(flat.attribute(ids, n_steps=3), expected)
    assert_same(column.attribute(ids, n_steps=3), expected)
    assert_same(column.attribute(ids, target=0, n_steps=3), expected)


def test_targets_of_outputs_with_more_dimensions(bert, ids):
    layer = attention_layers(bert)[1]
    plain = LayerAttAttr(probabilities(bert), layer)

    def logits_and_probabilities(ids: Tensor) -> Tensor:  # (B, 2, classes)
        logits = bert(ids).logits
        return torch.stack([logits, logits.softmax(-1)], dim=1)

    table = LayerAttAttr(logits_and_probabilities, layer)
    expected = plain.attribute(ids, target=[2, 0, 1], n_steps=3)
    assert_same(table.attribute(ids, target=[(1, 2), (1, 0), (1, -2)], n_steps=3), expected)
    assert_same(table.attribute(ids, target=(1, 2), n_steps=3), plain.attribute(ids, target=2, n_steps=3))
    assert_same(table.attribute(ids, target=(-1, -1), n_steps=3), plain.attribute(ids, target=2, n_steps=3))


# ------------------------------------------------------------------------------- additional_forward_args


def test_additional_arguments_reach_every_row(bert, ids):
    offsets = torch.randn(BATCH, 3, generator=torch.Generator().manual_seed(0))
    table, marker, scalar = torch.randn(5, 3, generator=torch.Generator().manual_seed(1)), object(), torch.tensor(2.0)
    met: set[int] = set()

    def forward(ids: Tensor, mask: Any, nested: Any, table_: Tensor, scalar_: Tensor, flag: Any, word: str) -> Tensor:
        rows = len(ids)
        met.add(rows)
        assert mask is None
        assert flag is marker
        assert word == "word"
        assert table_ is table
        assert scalar_ is scalar
        assert type(nested) is dict
        assert type(nested["list"]) is list
        assert type(nested["list"][1]) is tuple
        assert nested["list"][0] == 7
        offset = nested["list"][1][0]
        assert len(nested["offset"]) == len(offset) == rows
        return (bert(ids).logits + scalar_ * offset + nested["offset"] + table_[0]).softmax(-1)

    nested = {"offset": offsets, "list": [7, (2 * offsets,)]}
    arguments = (None, nested, table, scalar, marker, "word")
    maps = LayerAttAttr(forward, attention_layers(bert)).attribute(
        ids, target=1, additional_forward_args=arguments, n_steps=4
    )
    assert len(met) > 2
    whole = LayerAttAttr(
        lambda ids, offset: (bert(ids).logits + 5 * offset + table[0]).softmax(-1), attention_layers(bert)
    )
    assert_same(maps, whole.attribute(ids, target=1, additional_forward_args=offsets, n_steps=4), atol=1e-5)


def test_several_inputs_are_expanded_together(every, ids):
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 5 + [0]])
    expected = every.attribute(ids, target=1, additional_forward_args=(mask,), n_steps=4)
    assert_same(every.attribute((ids, mask), target=1, n_steps=4), expected, atol=0)
    assert_same(every.attribute(ids, target=1, additional_forward_args=mask, n_steps=4), expected, atol=0)


def test_arguments_of_the_user_are_not_changed(every, ids):
    mask = torch.ones(BATCH, LENGTH)
    nested = [ids.clone(), mask.clone()]
    every.attribute(ids, target=1, additional_forward_args=(mask,), n_steps=2)
    assert torch.equal(ids, nested[0])
    assert torch.equal(mask, nested[1])


# ----------------------------------------------------------------------------------------------- baselines


@pytest.mark.parametrize("tolerance", [1e-3, None])
def test_baseline_equal_to_the_attention_gives_nothing(every, ids, tolerance):
    rule = {"tolerance": tolerance} if tolerance else {"n_steps": 3}
    maps, deltas = every.attribute(
        ids, target=1, attention_baselines=every.attention(ids), return_convergence_delta=True, **rule
    )
    for map_, delta in zip(maps, deltas, strict=True):
        # Nothing but rounding: the attention was computed in a batch of another size.
        assert map_.abs().max() < 1e-7
        assert_same(delta, torch.zeros(BATCH), atol=1e-6)


def test_uniform_baseline_gives_no_weight_to_masked_keys(ids):
    model = LinearInAttention()
    lattr = LayerAttAttr(model, attention_layers(model)[0])
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 5 + [0]])
    attention = lattr.attention(ids, mask)
    uniform = (mask / mask.sum(1, keepdim=True))[:, None, None, :]
    assert not attention[1, :, :, 4:].any()
    maps = lattr.attribute(ids, target=1, additional_forward_args=mask, attention_baselines="uniform")
    assert_same(maps, (attention - uniform) * model.gradient(ids, 1)[0])
    assert not maps[1, :, :, 4:].any()


def test_input_baselines_give_the_attention_of_other_inputs(every, ids):
    other = sentences(BATCH, LENGTH, seed=9)
    expected = every.attribute(ids, target=1, attention_baselines=every.attention(other), n_steps=4)
    assert_same(every.attribute(ids, other, 1, n_steps=4), expected)
    assert_same(every.attribute(ids, (other,), 1, n_steps=4), expected)
    one = every.attribute(ids, target=1, attention_baselines=every.attention(other[:1]), n_steps=4)
    assert_same(every.attribute(ids, other[:1], 1, n_steps=4), one)
    number = every.attribute(ids, target=1, attention_baselines=every.attention(torch.full_like(ids, 7)), n_steps=4)
    assert_same(every.attribute(ids, 7, 1, n_steps=4), number)
    assert (number[0] - expected[0]).abs().max() > 1e-3


def test_none_and_zero_are_the_same_baseline(every, ids):
    zeros = [torch.zeros(1, 1, 1, 1)] * LAYERS
    expected = every.attribute(ids, target=1, n_steps=4)
    for start in (None, 0, 0.0, zeros):
        assert_same(every.attribute(ids, target=1, attention_baselines=start, n_steps=4), expected, atol=0)


# ---------------------------------------------------------------------------------------- Captum's contract


@pytest.mark.parametrize("rule", [{"n_steps": 5}, {"tolerance": 1e-4}])
def test_not_multiplied_maps_times_the_difference_are_the_default(bert, ids, rule):
    layers = attention_layers(bert)
    default = LayerAttAttr(probabilities(bert), layers)
    plain = LayerAttAttr(probabilities(bert), layers, multiply_by_inputs=False)
    assert default.multiplies_by_inputs is True
    assert plain.multiplies_by_inputs is False
    options = {"target": 1, "attention_baselines": "uniform", "return_convergence_delta": True, **rule}
    expected, deltas = default.attribute(ids, **options)
    maps, plain_deltas = plain.attribute(ids, **options)
    for map_, A, full in zip(maps, default.attention(ids), expected, strict=True):
        assert_same(map_ * (A - 1 / LENGTH), full, atol=1e-4 if "tolerance" in rule else 1e-6)
        assert map_.abs().max() > 2 * full.abs().max()
    assert_same(plain_deltas, deltas, atol=1e-4 if "tolerance" in rule else 1e-6)


def test_it_is_a_captum_layer_attribution(every):
    assert isinstance(every, LayerAttribution)
    assert isinstance(every, GradientAttribution)
    assert every.has_convergence_delta() is True
    with pytest.raises(NotImplementedError):
        every.attribute_future()
    assert inspect.isfunction(LayerAttAttr.attribute.__wrapped__)
    assert every.get_name() == "Layer Att Attr"  # Captum derives it from the class's name


def test_arguments_come_in_captums_order():
    ours = list(inspect.signature(LayerAttAttr.attribute).parameters.values())
    captums = list(inspect.signature(LayerConductance.attribute).parameters)
    positional = [p.name for p in ours if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == [name for name in captums if name in positional]
    left_out = {"attribute_to_layer_input", "grad_kwargs"}
    assert set(captums) - set(positional) <= left_out
    constructor = list(inspect.signature(LayerAttAttr).parameters)
    assert constructor == list(inspect.signature(captum.attr.LayerIntegratedGradients).parameters)


def test_arguments_can_be_given_by_position(middle, ids):
    expected = middle.attribute(
        ids, target=1, n_steps=3, method="riemann_left", internal_batch_size=4, return_convergence_delta=True
    )
    assert_same(middle.attribute(ids, None, 1, None, 3, "riemann_left", 4, True), expected, atol=0)


def test_return_types_follow_how_layers_were_given(bert, ids):
    layers = attention_layers(bert)
    shape = (BATCH, HEADS, LENGTH, LENGTH)
    for one in (layers[0], layers[0].module):
        lattr = LayerAttAttr(probabilities(bert), one)
        map_, delta = lattr.attribute(ids, target=1, n_steps=2, return_convergence_delta=True)
        assert isinstance(lattr.attribute(ids, target=1, n_steps=2), Tensor)
        assert (map_.shape, delta.shape) == (shape, (BATCH,))
        assert lattr.attention(ids).shape == shape
    modules = [layer.module for layer in layers]
    for several in ([layers[0]], tuple(layers), modules[:1], nn.ModuleList(modules[:1]), nn.ModuleList(modules)):
        lattr = LayerAttAttr(probabilities(bert), several)
        maps, deltas = lattr.attribute(ids, target=1, n_steps=2, return_convergence_delta=True)
        attention = lattr.attention(ids)
        for result in (lattr.attribute(ids, target=1, n_steps=2), maps, deltas, attention):
            assert isinstance(result, tuple)
            assert len(result) == len(several)
        assert {m.shape for m in maps} == {a.shape for a in attention} == {shape}
        assert {m.dtype for m in maps} == {torch.float32}
        assert not any(m.requires_grad for m in maps)


def test_one_module_that_is_several_layers_gives_several_maps(ids):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "embedding_size": 16, "num_attention_heads": 4, "intermediate_size": 48}
    model = AlbertForSequenceClassification(AlbertConfig(vocab_size=40, num_hidden_layers=3, **sizes)).eval()
    layers = attention_layers(model)
    expected = LayerAttAttr(probabilities(model), layers).attribute(ids, target=1, n_steps=3)
    by_module = LayerAttAttr(probabilities(model), layers[0].module).attribute(ids, target=1, n_steps=3)
    assert_same(by_module, expected)
    assert_same(
        LayerAttAttr(probabilities(model), layers[1]).attribute(ids, target=1, n_steps=3), expected[1], atol=1e-6
    )


def test_captum_sees_the_layer(middle, bert):
    assert middle.layer is middle.layers[0]
    assert middle.layers[0].module is bert.bert.encoder.layer[1].attention.self
    assert callable(middle.forward_func)


# ------------------------------------------------------------------------------------ modes, types, threads


def test_it_works_under_no_grad(every, ids):
    expected = every.attribute(ids, target=1)
    with torch.no_grad():
        actual = every.attribute(ids, target=1)
        assert not torch.is_grad_enabled()
    assert_same(actual, expected, atol=0)


def test_gradients_and_flags_of_the_model_are_untouched(ids):
    model = tiny_bert()
    model.bert.embeddings.requires_grad_(False)
    probabilities(model)(ids)[:, 0].sum().backward()
    gradients = {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()}
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    LayerAttAttr(probabilities(model), attention_layers(model)).attribute(ids, target=1, n_steps=3)
    assert flags == {name: p.requires_grad for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (gradients[name] is None)
        assert parameter.grad is None or torch.equal(parameter.grad, gradients[name])


def test_a_frozen_model_can_be_attributed(every, ids):
    model = tiny_bert().requires_grad_(False)
    frozen = LayerAttAttr(probabilities(model), attention_layers(model))
    assert_same(frozen.attribute(ids, target=1, n_steps=3), every.attribute(ids, target=1, n_steps=3), atol=0)


def test_inputs_that_require_gradients_get_none(bert, embeddings):
    embeddings.requires_grad_(True)
    map_ = LayerAttAttr(embedding_forward(bert), attention_layers(bert)[0]).attribute(embeddings, target=1, n_steps=2)
    assert embeddings.grad is None
    assert not map_.requires_grad


def test_training_mode_warns(ids):
    quiet = tiny_bert(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    lattr = LayerAttAttr(probabilities(quiet), attention_layers(quiet))
    expected = lattr.attribute(ids, target=1, n_steps=3)
    for part in (quiet, quiet.bert.encoder.layer[1]):
        part.train()
        with pytest.warns(UserWarning, match=r"training mode.*model\.eval\(\)"):
            assert_same(lattr.attribute(ids, target=1, n_steps=3), expected)
        assert part.training
        quiet.eval()


def test_double_precision_stays_double(every, ids):
    model = tiny_bert().double()
    lattr = LayerAttAttr(probabilities(model), attention_layers(model))
    maps, deltas = lattr.attribute(ids, target=1, n_steps=24, return_convergence_delta=True)
    assert {m.dtype for m in maps} == {d.dtype for d in deltas} == {torch.float64}
    assert max(float(d.abs().max()) for d in deltas) < 1e-10
    for map_, single in zip(maps, every.attribute(ids, target=1, n_steps=24), strict=True):
        assert_same(map_.float(), single)


@contextmanager
def convergence_warnings_allowed() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


LOW = {torch.bfloat16: 0.08, torch.float16: 0.01}


@pytest.mark.parametrize("rule", [{}, {"n_steps": 8}], ids=["adaptive", "fixed"])
@pytest.mark.parametrize("softmax_type", ["own", "float32"])
@pytest.mark.parametrize("dtype", list(LOW), ids=str)
def test_models_in_half_precision(every, ids, dtype, softmax_type, rule):
    model = tiny_bert().to(dtype)

    def forward(ids: Tensor) -> Tensor:
        logits = model(ids).logits
        return (logits.float() if softmax_type == "float32" else logits).softmax(-1)

    lattr = LayerAttAttr(forward, attention_layers(model))
    with convergence_warnings_allowed():
        maps = lattr.attribute(ids, target=1, **rule)
    assert {m.dtype for m in maps} == {torch.float32}
    for map_, expected in zip(maps, every.attribute(ids, target=1), strict=True):
        assert relative(map_, expected).max() < LOW[dtype]


def test_half_precision_says_that_rounding_is_the_limit(ids):
    model = tiny_bert().bfloat16()
    lattr = LayerAttAttr(probabilities(model), attention_layers(model))
    with pytest.warns(ConvergenceWarning, match="as far as torch.bfloat16 rounding allows"):
        lattr.attribute(ids, target=1)


@pytest.mark.parametrize("rule", [{}, {"n_steps": 8}], ids=["adaptive", "fixed"])
@pytest.mark.parametrize("where", ["around", "inside", "inside, float32 softmax"])
def test_autocast(every, bert, ids, where, rule):
    def forward(ids: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=where != "around" or torch.is_autocast_enabled("cpu")):
            logits = bert(ids).logits
        return (logits.float() if "float32" in where else logits).softmax(-1)

    lattr = LayerAttAttr(forward, attention_layers(bert))
    expected = every.attribute(ids, target=1)
    with convergence_warnings_allowed(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=where == "around"):
        maps = lattr.attribute(ids, target=1, **rule)
    assert {m.dtype for m in maps} == {torch.float32}
    for map_, single in zip(maps, expected, strict=True):
        assert relative(map_, single).max() < LOW[torch.bfloat16]
        assert relative(map_, single).max() > 1e-4, "autocast was not in force"


def test_working_precision_under_autocast_is_autocasts():
    # On CUDA autocast computes the softmax in float32 between products in half precision.
    single, double = torch.zeros(1), torch.zeros(1, dtype=torch.float64)
    assert _working_dtype(single) is torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert _working_dtype(single) is torch.bfloat16
        assert _working_dtype(double) is torch.float64
        assert _working_dtype(single.half()) is torch.float16


def test_two_threads_attribute_two_models(ids):
    models = [tiny_bert(seed) for seed in (0, 1)]
    lattrs = [LayerAttAttr(probabilities(model), attention_layers(model)) for model in models]
    expected = [lattr.attribute(ids, target=1, n_steps=4) for lattr in lattrs]
    found: dict[int, Any] = {}
    start = threading.Barrier(2)

    def work(number: int) -> None:
        start.wait()
        found[number] = [lattrs[number].attribute(ids, target=1, n_steps=4, internal_batch_size=4) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        for maps in found[number]:
            assert_same(maps, expected[number])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_completeness_on_cuda(every, bert, ids):
    model = tiny_bert().cuda()
    lattr = LayerAttAttr(probabilities(model), attention_layers(model))
    options = {"n_steps": 12, "return_convergence_delta": True}
    maps, deltas = lattr.attribute(ids.cuda(), target=torch.tensor([1, 2, 0]), **options)
    for map_, delta, expected in zip(maps, deltas, every.attribute(ids, target=[1, 2, 0], n_steps=12), strict=True):
        assert map_.is_cuda
        assert delta.abs().max() < 1e-4
        assert_same(map_.cpu(), expected, atol=1e-4)


# ----------------------------------------------------------------------------------------- adaptive default


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize(("seed", "spread"), [(0, 0.1), (1, 0.1), (2, 0.2)])
def test_default_is_as_close_as_it_says(ids, seed, spread, tolerance):
    model = tiny_bert(seed, initializer_range=spread)
    lattr = LayerAttAttr(probabilities(model), attention_layers(model))
    result = lattr.integrate(ids, target=1, tolerance=tolerance)
    assert bool(result.converged.all())
    exact = lattr.attribute(ids, target=1, n_steps=96)
    for map_, expected, error in zip(result.attributions, exact, result.error, strict=True):
        assert bool((error <= tolerance).all())
        assert bool((relative(map_, expected) < tolerance).all())


def test_default_tolerance_is_a_thousandth(every, ids):
    assert_same(every.attribute(ids, target=1), every.attribute(ids, target=1, tolerance=1e-3), atol=0)
    exact = every.attribute(ids, target=1, n_steps=96)
    for map_, expected in zip(every.attribute(ids, target=1), exact, strict=True):
        assert bool((relative(map_, expected) < 1e-3).all())


def test_nodes_are_chosen_per_example_and_layer(every, ids):
    coarse, fine = (every.integrate(ids, target=1, tolerance=t) for t in (1e-2, 1e-5))
    assert bool((fine.nodes >= coarse.nodes).all())
    assert int(fine.nodes.sum()) > int(coarse.nodes.sum())
    assert len(set(every.integrate(ids, target=1, tolerance=1e-4).nodes.flatten().tolist())) > 1


def test_a_converged_map_is_not_warned_about(bert):
    # Error estimates close to the tolerance: what is reported must be what was decided upon.
    lattr = LayerAttAttr(probabilities(bert), attention_layers(bert))
    for seed in range(4):
        for target in range(3):
            result = lattr.integrate(sentences(seed=seed), target=target)
            assert bool((result.error[result.converged] <= 1e-3).all())


def test_ceiling_warns_with_example_layer_and_error(every, ids):
    with pytest.warns(ConvergenceWarning) as caught:
        result = every.integrate(ids, target=1, tolerance=1e-6, max_nodes=5)
    assert len(caught) == 1
    message = str(caught[0].message)
    above = (result.error > 1e-6).nonzero().tolist()
    assert bool((result.nodes == 5).all())
    assert not result.converged.any()
    assert len(above) == LAYERS * BATCH
    for layer, example in above:
        assert f"example {example}, encoder layer {layer}: {float(result.error[layer, example]):.1e}" in message
    assert message.startswith(f"{len(above)} of {LAYERS * BATCH} ")
    assert "9 stopped at max_nodes" in message


def test_ceiling_bounds_the_nodes(every, ids):
    for max_nodes in (5, 12, 40):
        with convergence_warnings_allowed():
            result = every.integrate(ids, target=1, tolerance=1e-9, max_nodes=max_nodes)
        assert int(result.nodes.max()) <= max_nodes


def test_fixed_rule_has_no_error_estimate(every, ids):
    result = every.integrate(ids, target=1, n_steps=3, method="riemann_left")
    assert bool(result.error.isnan().all())
    assert bool(result.converged.all())
    assert bool((result.nodes == 3).all())  # node 0 is among them


def test_progress_bar_goes_to_stderr_and_only_on_demand(every, ids, capsys):
    every.attribute(ids, target=1, n_steps=2)
    assert capsys.readouterr() == ("", "")
    every.attribute(ids, target=1, n_steps=2, show_progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "AttAttr" in err
    assert f"{LAYERS * BATCH}/{LAYERS * BATCH}" in err


# ---------------------------------------------------------------------------------- encoders with decoders


def test_encoder_decoder_and_cross_attention_in_one_call():
    model = tiny_bart()
    ids = sentences(2, 5)
    mask = torch.tensor([[1] * 5, [1] * 4 + [0]])
    ids[1] = torch.tensor([2, 9, 10, 3, 0])  # the classifier reads the last end-of-sentence token
    layers = [*attention_layers(model, "cross"), *attention_layers(model)]
    assert [layer.kind for layer in layers] == ["cross"] * 2 + ["encoder"] * 2 + ["decoder"] * 2
    lattr = LayerAttAttr(probabilities(model), layers)
    options = {"target": 1, "additional_forward_args": mask, "n_steps": 8}
    maps, deltas = lattr.attribute(ids, return_convergence_delta=True, **options)
    full = probabilities(model)(ids, mask)[:, 1].detach()
    for layer, map_, delta in zip(layers, maps, deltas, strict=True):
        handle = layer.module.out_proj.register_forward_pre_hook(lambda module, args: (torch.zeros_like(args[0]),))
        without = probabilities(model)(ids, mask)[:, 1].detach()
        handle.remove()
        assert (full - without).abs().max() > 1e-4
        assert_same(map_.sum((1, 2, 3)), full - without, atol=1e-5)
        assert delta.abs().max() < 1e-5
        assert_same(LayerAttAttr(probabilities(model), layer).attribute(ids, **options), map_)
    cross, encoder, decoder = maps[0], maps[2], maps[4]
    assert not encoder[1, :, :, 4:].any()
    assert not cross[1, :, :, 4:].any()
    assert not torch.triu(decoder, 1).any()


def test_adaptive_rule_over_all_kinds_of_layers():
    model = tiny_bart()
    ids = sentences(2, 5)
    layers = [*attention_layers(model), *attention_layers(model, "cross")]
    lattr = LayerAttAttr(probabilities(model), layers)
    exact = lattr.attribute(ids, target=2, n_steps=48)
    for map_, expected in zip(lattr.attribute(ids, target=2), exact, strict=True):
        assert bool((relative(map_, expected) < 1e-3).all())
