"""The exact effect of removing an edge, a head or a token: against gates written out, one at a time."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from toy import tiny_bert, tiny_llama, tiny_tokenizer, unchanged

from captum_attattr import Explanation, attention_layers, explain, prune_heads, removal_effects
from captum_attattr.model.attention_control import AttentionControl, LayerCall

TEXT = "a good film plot"
MODELS: dict[str, Callable[[], Any]] = {"encoder": tiny_bert, "decoder": tiny_llama}


def explained(model: Any, text: Any = TEXT, **options: Any) -> Explanation:
    return explain(model, tiny_tokenizer(), [text], progress=False, **options)[0]


def without(model: Any, explanation: Explanation, closed: Callable[[int], Any], sink: bool = False) -> float:
    """F with some entries of each layer's attention closed: `closed` gives an index into (H, T, T), or None."""

    def visit(layer: int, call: LayerCall) -> Tensor | None:
        index = closed(layer)
        if index is None:
            return None
        attention = call.tensor.clone()
        attention[(slice(None), *index)] = 0
        if sink:
            attention[..., 0] += call.tensor.sum(-1) - attention.sum(-1)
        return attention

    with torch.no_grad(), AttentionControl(attention_layers(model)) as control, control.watch(visit):
        logits = model(**explanation.inputs).logits
    logits = logits[:, -1] if logits.dim() == 3 else logits
    return float(logits.softmax(-1)[0, explanation.target])


@pytest.mark.parametrize("removal", ["zero", "sink"])
@pytest.mark.parametrize("name", MODELS)
def test_edges_heads_and_tokens_are_removed_as_written_out(name, removal):
    model = MODELS[name]()
    explanation = explained(model)
    sink = removal == "sink"
    edges = list(itertools.islice(itertools.product(range(3), range(4), range(1, 5), range(4)), 0, None, 7))
    with unchanged(model):
        found = removal_effects(model, tiny_tokenizer(), explanation, edges, removal=removal)
    assert [edge[:4] for edge in found.edges] == edges
    for (layer, *entry), score, effect in zip(edges, found.scores, found.effects, strict=True):
        expected = without(
            model, explanation, lambda at, layer=layer, entry=entry: entry if at == layer else None, sink
        )
        assert float(effect) == pytest.approx(found.value - expected, abs=2e-6)
        assert float(score) == float(explanation.attributions[layer, *entry])
    heads = removal_effects(model, tiny_tokenizer(), explanation, unit="head", removal=removal)
    assert len(heads.edges) == 12
    for edge, effect in zip(heads.edges, heads.effects, strict=True):
        expected = without(model, explanation, lambda at, e=edge: (e.head,) if at == e.layer else None, sink)
        assert float(effect) == pytest.approx(found.value - expected, abs=2e-6)
        # Entries of both signs, added in another order.
        assert edge.score == pytest.approx(float(explanation.attributions[edge.layer, edge.head].sum()), abs=1e-7)
    tokens = removal_effects(model, tiny_tokenizer(), explanation, unit="token", removal=removal)
    for edge, effect in zip(tokens.edges, tokens.effects, strict=True):
        key = edge.position
        expected = without(model, explanation, lambda at, key=key: (..., key), sink)
        assert float(effect) == pytest.approx(found.value - expected, abs=2e-6)


def test_the_largest_are_taken_and_layers_keep_their_numbers():
    model = tiny_bert()
    explanation = explained(model, layers=[2, 0])
    found = removal_effects(model, tiny_tokenizer(), explanation, top=5)
    assert len(found.edges) == 5
    assert [abs(edge.score) for edge in found.edges] == sorted((abs(e.score) for e in found.edges), reverse=True)
    assert abs(found.edges[0].score) == pytest.approx(float(explanation.attributions.abs().max()))
    by_number = removal_effects(model, tiny_tokenizer(), explanation, [(2, 1, 0, 3)])
    expected = without(model, explanation, lambda at: (1, 0, 3) if at == 2 else None)
    assert float(by_number.effects[0]) == pytest.approx(found.value - expected, abs=2e-6)
    assert "layer 2, head 1: [CLS] <- film" in by_number.table()
    with pytest.raises(ValueError, match=r"edges\[0\]: layer must be one of 0, 2, not 1"):
        removal_effects(model, tiny_tokenizer(), explanation, [(1, 0, 0, 0)])


def test_the_strongest_can_be_given_as_they_are():
    model = tiny_bert()
    explanation = explained(model)
    found = removal_effects(model, tiny_tokenizer(), explanation, explanation.strongest(4))
    assert found.edges == explanation.strongest(4)


def test_pruned_heads_have_no_effect():
    model = tiny_bert()
    prune_heads(model, {1: [0, 2]})
    explanation = explained(model)
    heads = removal_effects(model, tiny_tokenizer(), explanation, [(1, 0), (1, 1), (1, 2), (1, 3)], unit="head")
    assert heads.effects[0] == heads.effects[2] == 0
    assert heads.effects[1] != 0 != heads.effects[3]


@pytest.mark.parametrize("limit", [1, 3, None])
def test_batches_do_not_matter(limit):
    model = tiny_llama()
    explanation = explained(model, attribution="gradient_attention")
    found = removal_effects(model, tiny_tokenizer(), explanation, internal_batch_size=limit)
    usual = removal_effects(model, tiny_tokenizer(), explanation)
    torch.testing.assert_close(found.effects, usual.effects, rtol=0, atol=1e-6)


def test_outputs_and_contrasts_are_the_explanation_s():
    model = tiny_bert()
    explanation = explained(model, output="logit", contrast=0, target=2)
    found = removal_effects(model, tiny_tokenizer(), explanation, top=2)
    assert found.value == pytest.approx(explanation.value, abs=1e-5)


def test_correlations_are_scipy_s():
    from scipy.stats import pearsonr, spearmanr

    model = tiny_bert()
    found = removal_effects(model, tiny_tokenizer(), explained(model), top=40)
    assert found.spearman == pytest.approx(spearmanr(found.scores, found.effects).statistic)
    assert found.pearson == pytest.approx(pearsonr(found.scores, found.effects).statistic)


def test_edges_may_stand_in_an_array():
    model = tiny_bert()
    explanation, edges = explained(model), [(0, 1, 2, 3), (1, 0, 0, 1)]
    listed = removal_effects(model, tiny_tokenizer(), explanation, edges)
    for array in (np.array(edges), torch.tensor(edges)):
        assert removal_effects(model, tiny_tokenizer(), explanation, array).edges == listed.edges


@pytest.mark.parametrize("unit", ["edge", "head", "token"])
def test_edges_may_stand_in_a_table_by_the_names_of_its_columns(unit):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    model = tiny_bert()
    explanation = explained(model)
    listed = removal_effects(model, tiny_tokenizer(), explanation, top=5, unit=unit)
    table = pandas.DataFrame(listed.edges)
    for rows in (table, table[table.columns[::-1]], table.assign(word="a").drop(columns="score").iloc[::-1]):
        found = removal_effects(model, tiny_tokenizer(), explanation, rows, unit=unit)
        assert found.edges == (listed.edges if "score" in rows else listed.edges[::-1])
    first = table.columns[0]
    with pytest.raises(ValueError, match=rf"edges has no column '{first}': a table needs {first}"):
        removal_effects(model, tiny_tokenizer(), explanation, table.rename(columns=str.upper), unit=unit)
    with pytest.raises(TypeError, match=rf"edges\[0\]: {first} must be an integer"):
        removal_effects(model, tiny_tokenizer(), explanation, table.astype(float) + 0.5, unit=unit)


def test_an_output_that_is_not_known_is_not_another_model_s():
    model = tiny_bert()
    unknown = dataclasses.replace(explained(model), probability=float("nan"), value=None)
    found = removal_effects(model, tiny_tokenizer(), unknown, top=3)
    assert torch.equal(found.effects, removal_effects(model, tiny_tokenizer(), explained(model), top=3).effects)


def test_files_of_version_0_1_run_again_by_their_text():
    model = tiny_bert()
    old = dataclasses.replace(explained(model), inputs=None)
    found = removal_effects(model, tiny_tokenizer(), old, top=3)
    assert torch.equal(found.effects, removal_effects(model, tiny_tokenizer(), explained(model), top=3).effects)
    other = dataclasses.replace(old, text="a good good plot")
    with pytest.raises(ValueError, match="cannot be run again: it does not hold its inputs"):
        removal_effects(model, tiny_tokenizer(), other)


ALTI_LIKE = {"attribution": "rollout"}


@pytest.mark.parametrize(
    ("options", "more", "kind", "message"),
    [
        ({"top": 0}, {}, ValueError, "top=0 must be an int of 1 or more"),
        ({"unit": "layer"}, {}, ValueError, "unit='layer' is unknown; use one of edge, head, token"),
        ({"removal": "mask"}, {}, ValueError, "removal='mask' is unknown; use one of zero, sink"),
        ({"edges": []}, {}, ValueError, "edges is empty"),
        ({"edges": [(0, 1)]}, {}, TypeError, r"edges\[0\]=\(0, 1\) must be \(layer, head, query, key\)"),
        ({"edges": [(0, 4, 0, 0)]}, {}, ValueError, r"edges\[0\]: head must be from 0 to 3, not 4"),
        ({"edges": [(0, 0, 0, 6)]}, {}, ValueError, r"edges\[0\]: key must be from 0 to 5, not 6"),
        ({"edges": [9], "unit": "token"}, {}, ValueError, r"edges\[0\]: position must be from 0 to 5, not 9"),
        ({"edges": ["ab"], "unit": "head"}, {}, TypeError, r"edges\[0\]='ab' must be \(layer, head\)"),
        ({}, ALTI_LIKE, ValueError, "unit='edge' needs a map for each layer and head"),
        ({"unit": "head"}, ALTI_LIKE, ValueError, "unit='head' needs a map for each layer and head"),
        ({"internal_batch_size": 0}, {}, ValueError, "internal_batch_size=0 must be an int of 1 or more"),
    ],
)
def test_mistakes_are_named_before_an_edge_is_removed(options, more, kind, message):
    model = tiny_bert()
    explanation = explained(model, **more)
    model.bert.forward = lambda *_, **__: pytest.fail("the model ran")
    with pytest.raises(kind, match=message):
        removal_effects(model, tiny_tokenizer(), explanation, **options)


@pytest.mark.parametrize("other", ["weights", "heads", "depth", "task"])
def test_explanations_of_another_model_are_refused(other):
    explanation = explained(tiny_bert())
    changed: dict[str, dict[str, Any]] = {
        "weights": {"seed": 5},
        "heads": {"num_attention_heads": 8},
        "depth": {"num_hidden_layers": 2},
        "task": {"num_labels": 1},
    }
    with pytest.raises(ValueError, match=r"explanations\[0\] is of another model"):
        removal_effects(tiny_bert(**changed[other]), tiny_tokenizer(), explanation)
