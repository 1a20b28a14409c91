"""keep and delete curves measured on a model: against gates written out, and what must hold whatever the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import tiny_bert, tiny_llama, tiny_tokenizer, unchanged

from captum_attattr import (
    AttributionComparison,
    Explanation,
    Faithfulness,
    attention_layers,
    compare_attributions,
    explain,
    faithfulness,
    plot_faithfulness,
)
from captum_attattr.model.attention_control import AttentionControl, LayerCall

TEXTS = ["a good film plot", "bad man work", "good bad good bad"]
MODELS: dict[str, Callable[[], Any]] = {"encoder": tiny_bert, "decoder": tiny_llama}
FRACTIONS = (0.01, 0.1, 0.5, 1.0)


def explained(model: Any, **options: Any) -> list[Explanation]:
    return explain(model, tiny_tokenizer(), TEXTS, progress=False, **options)


def measured(model: Any, explanations: Any, **options: Any) -> Faithfulness:
    return faithfulness(model, tiny_tokenizer(), explanations, **{"fractions": FRACTIONS, "progress": False} | options)


def gated(model: Any, explanation: Explanation, gates: Tensor, sink: bool = False) -> float:
    """F with gates (L, H, T, T) on the attention that every layer computes."""

    def visit(layer: int, call: LayerCall) -> Tensor:
        attention = call.tensor * gates[layer]
        if sink:
            attention[..., 0] += (call.tensor * ~gates[layer]).sum(-1)
        return attention

    with torch.no_grad(), AttentionControl(attention_layers(model)) as control, control.watch(visit):
        logits = model(**explanation.inputs).logits
    logits = logits[:, -1] if logits.dim() == 3 else logits
    return float(logits.softmax(-1)[0, explanation.target])


def top(scores: Tensor, count: int) -> Tensor:
    """The first `count` by falling score, equal ones by index, as booleans."""
    order = np.argsort(-scores.double().flatten().numpy(), kind="stable")[:count]
    chosen = torch.zeros(scores.numel(), dtype=torch.bool)
    chosen[torch.from_numpy(order)] = True
    return chosen.view_as(scores)


def by_unit(explanation: Explanation, unit: str) -> Tensor:
    maps = explanation.attributions
    if unit == "token":
        return explanation.token_scores()[None, None, None]
    if unit == "head":
        return maps.double().sum((2, 3), keepdim=True)
    return maps if unit == "edge" else maps.sum(1, keepdim=True)


@pytest.mark.parametrize("unit", ["edge", "layer_edge", "head", "token"])
@pytest.mark.parametrize("removal", ["zero", "sink"])
@pytest.mark.parametrize("name", MODELS)
def test_curves_are_those_of_gates_written_out(name, removal, unit):
    model = MODELS[name]()
    explanations = explained(model, attribution="gradient_attention")
    with unchanged(model):
        found = measured(model, explanations, unit=unit, removal=removal, counts=[1, 3])
    for i, explanation in enumerate(explanations):
        scores = by_unit(explanation, unit)
        n = scores.numel()
        assert found.units[i] == n

        def f(gates: Tensor, explanation: Explanation = explanation) -> float:
            return gated(model, explanation, gates.expand_as(explanation.attributions), removal == "sink")

        assert float(found.full[i]) == pytest.approx(f(torch.ones_like(scores, dtype=torch.bool)), abs=2e-6)
        assert float(found.empty[i]) == pytest.approx(f(torch.zeros_like(scores, dtype=torch.bool)), abs=2e-6)
        for k, fraction in enumerate(FRACTIONS):
            count = max(1, round(fraction * n))
            assert float(found.keep[i, k]) == pytest.approx(f(top(scores, count)), abs=2e-6)
            assert float(found.delete[i, k]) == pytest.approx(f(~top(scores, count)), abs=2e-6)
            assert float(found.keep_absolute[i, k]) == pytest.approx(f(top(scores.abs(), count)), abs=2e-6)
        for c, count in enumerate((1, 3)):
            assert float(found.keep_top[i, c]) == pytest.approx(f(top(scores, count)), abs=2e-6)
            assert float(found.delete_top[i, c]) == pytest.approx(f(~top(scores, count)), abs=2e-6)
    assert torch.equal(found.keep[:, -1], found.full)
    torch.testing.assert_close(found.delete[:, -1], found.empty, rtol=0, atol=2e-6)
    heads = torch.stack([e.attributions.double().sum((2, 3)) for e in explanations]).mean(0)
    torch.testing.assert_close(found.heads, heads)


@pytest.mark.parametrize("limit", [1, 5])
def test_curves_do_not_depend_on_batches_or_company(limit):
    model = tiny_llama()
    explanations = explained(model, path="joint", baseline="sink")
    whole = measured(model, explanations)
    parts = [measured(model, [one], internal_batch_size=limit) for one in explanations]
    for name in ("full", "empty", "keep", "delete", "keep_absolute", "keep_top", "delete_top"):
        apart = torch.cat([getattr(part, name) for part in parts])
        torch.testing.assert_close(getattr(whole, name), apart, rtol=0, atol=2e-6)
    assert (whole.attribution, whole.path, whole.baseline) == ("attattr_joint", "joint", "sink")


def test_layers_that_were_not_explained_stay():
    model = tiny_bert()
    explanations = explained(model, layers=[0, 2])
    found = measured(model, explanations)
    gates = torch.zeros(3, 4, 1, 1, dtype=torch.bool)
    gates[1] = True
    for i, explanation in enumerate(explanations):
        assert float(found.empty[i]) == pytest.approx(gated(model, explanation, gates), abs=2e-6)
    assert found.layers == [0, 2]


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_replaced_in_the_text(name):
    model, tokenizer = MODELS[name](), tiny_tokenizer()
    explanations = explained(model, attribution="rollout")
    found = measured(model, explanations, unit="token", removal="replace", special=False, counts=[1])
    other = tokenizer.mask_token_id or tokenizer.eos_token_id or tokenizer.pad_token_id
    for i, explanation in enumerate(explanations):
        ids = explanation.inputs["input_ids"]
        last = len(explanation.tokens) - 1
        free = [j for j, one in enumerate(explanation.special) if not one and (name == "encoder" or 0 < j < last)]
        assert found.units[i] == len(free)
        scores = explanation.token_scores()
        first = max(free, key=lambda j: (float(scores[j]), -j))
        for values, replaced in ((found.delete_top, [first]), (found.keep_top, [j for j in free if j != first])):
            changed = ids.clone()
            changed[0, replaced] = other
            with torch.no_grad():
                logits = model(**explanation.inputs | {"input_ids": changed}).logits
            logits = logits[:, -1] if logits.dim() == 3 else logits
            expected = float(logits.softmax(-1)[0, explanation.target])
            assert float(values[i, 0]) == pytest.approx(expected, abs=2e-6)


def test_scores_of_one_s_own_are_ranked():
    model = tiny_bert()
    explanations = explained(model, attribution="gradient_attention")
    usual = measured(model, explanations)
    own = measured(model, explanations, scores=[one.attributions for one in explanations], name="mine")
    assert torch.equal(own.keep, usual.keep)
    assert own.attribution == "mine"
    assert own.heads.isnan().all()
    tokens = measured(model, explanations, unit="token", scores=[one.token_scores() for one in explanations], name="x")
    assert torch.equal(tokens.keep, measured(model, explanations, unit="token").keep)


def test_a_method_that_names_the_edges_beats_chance():
    """The measures see the difference between scores and their opposite."""
    model = tiny_bert()
    explanations = explained(model)
    found = measured(model, explanations)
    opposite = measured(model, explanations, scores=[-one.attributions for one in explanations], name="opposite")
    assert found.comprehensiveness > opposite.comprehensiveness
    assert found.sufficiency < opposite.sufficiency


BAD: list[tuple[dict[str, Any], Any, str]] = [
    ({"fractions": [0.5, 0.1]}, ValueError, r"fractions must rise, but \[1\] is 0.1 after 0.5"),
    ({"fractions": [0.5, 0.5]}, ValueError, "fractions must rise"),
    ({"fractions": [0, 0.5]}, ValueError, r"fractions must be above 0 and at most 1, but \[0\] is 0"),
    ({"fractions": [1.5]}, ValueError, "fractions must be above 0 and at most 1"),
    ({"fractions": []}, ValueError, "fractions is empty"),
    ({"fractions": ["a"]}, TypeError, "fractions must be numbers"),
    ({"counts": [0]}, ValueError, "counts must be 1 or more"),
    ({"unit": "word"}, ValueError, "unit='word' is unknown; use one of edge, head, token, layer_edge"),
    ({"removal": "mean"}, ValueError, "removal='mean' is unknown; use one of zero, sink, replace"),
    ({"removal": "replace"}, ValueError, "unit='token' is needed, not 'edge'"),
    ({"special": False}, ValueError, "it goes with unit='token', not 'edge'"),
    ({"scores": [torch.zeros(1)]}, ValueError, "scores and name go together"),
    ({"scores": [torch.zeros(1)] * 3, "name": " "}, ValueError, "name=' ' is empty"),
    ({"scores": [torch.zeros(1)] * 3, "name": 3}, TypeError, "name must be a string"),
    ({"scores": [torch.zeros(1)], "name": "x"}, ValueError, "1 scores for 3 explanations"),
    ({"scores": [torch.zeros(5)] * 3, "name": "x"}, ValueError, r"scores\[0\] must have the shape"),
    ({"internal_batch_size": 0}, ValueError, "internal_batch_size=0"),
    ({"progress": "no"}, TypeError, "progress"),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD, ids=lambda value: str(value)[:40])
def test_mistakes_are_named_before_the_model_runs(options, kind, message):
    model = tiny_bert()
    explanations = explained(model)
    model.bert.forward = lambda *_, **__: pytest.fail("the model ran")
    with pytest.raises(kind, match=message):
        measured(model, explanations, **options)


def test_explanations_that_do_not_belong_together_are_refused():
    model = tiny_bert()
    plain = explained(model)
    wrong = {
        "attribution": explained(model, attribution="attention"),
        "output": explained(model, output="logit"),
        "path": [dataclasses.replace(one, path="joint", attribution="") for one in plain],
        "baseline": explained(model, baseline="uniform"),
        "layers": explained(model, layers=[0]),
    }
    against = explained(model, target=1, contrast=0)
    model.bert.forward = lambda *_, **__: pytest.fail("the model ran")
    for place in range(3):
        mixed = [against[i] if i == place else plain[i] for i in range(3)]
        with pytest.raises(ValueError, match="some explanations have a contrast and others have none"):
            measured(model, mixed)
    for name, others in wrong.items():
        named = "attribution" if name == "path" else name
        with pytest.raises(ValueError, match=rf"explanations\[1\] has {named} .*: measure them apart"):
            measured(model, [plain[0], others[1]])
    for nothing in ([], ()):
        with pytest.raises(ValueError, match="explanations is empty"):
            measured(model, nothing)
    for other in (None, 3, plain[0], "texts"):
        with pytest.raises(TypeError, match="explanations"):
            measured(model, other)
    with pytest.raises(ValueError, match="'rollout' puts heads together"):
        measured(tiny_bert(), explained(tiny_bert(), attribution="rollout"))
    with pytest.raises(ValueError, match="'rollout' puts layers together"):
        measured(tiny_bert(), explained(tiny_bert(), attribution="rollout"), unit="layer_edge")


def test_few_examples_have_no_interval_and_say_so():
    model = tiny_bert()
    found = measured(model, explained(model))
    with pytest.warns(UserWarning, match="no interval of 3 examples"):
        low, high = found.interval("comprehensiveness")
    assert np.isnan([low, high]).all()


def test_that_f_is_a_difference_is_kept_and_told(tmp_path: Path) -> None:
    model = tiny_bert()
    options = {"target": 1, "contrast": 0, "output": "logit"}
    alone = measured(model, explained(model, **options))
    beside = compare_attributions(
        model, tiny_tokenizer(), TEXTS, ["attention"], fractions=[1], progress=False, **options
    )
    compared = AttributionComparison.load(beside.save(tmp_path / "compared.json"))
    for one in (alone, Faithfulness.load(alone.save(tmp_path / "alone")), *compared.results.values()):
        assert one.contrasted
        assert one.output_name == "logit difference"
        with pytest.warns(UserWarning, match="5 or more"):  # of intervals
            assert "logit difference: " in one.table()
    assert "logit difference" in plot_faithfulness(alone).layout.title.text
    plain = measured(model, explained(model))
    assert not plain.contrasted
    assert plain.output_name == "probability"
