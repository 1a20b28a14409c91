"""token_scores: the joint path's column sums in a few rows, and every other method's."""

from __future__ import annotations

import pytest
import torch
from toy import tiny_bert, tiny_llama, tiny_tokenizer

from captum_attattr import explain, plot_tokens, token_scores
from captum_attattr.attribution.methods.table import ATTRIBUTIONS

TEXTS = ["a good film plot", ("bad man", "work"), "good"]


def scored(model, **options):
    return token_scores(model, tiny_tokenizer(), TEXTS, progress=False, **options)


@pytest.mark.parametrize("method", ATTRIBUTIONS)
@pytest.mark.parametrize("make", [tiny_bert, tiny_llama])
def test_scores_are_those_of_the_explanations(method, make):
    model, tokenizer, entry = make(), tiny_tokenizer(), ATTRIBUTIONS[method]
    texts = ["a good film plot", "good"]
    options = {"tolerance": 1e-2} if entry.maps is None else {}
    options |= {"baseline": "sink"} if entry.start else {}
    explanations = explain(model, tokenizer, texts, attribution=method, progress=False, **options)
    for one, explanation in zip(
        token_scores(model, tokenizer, texts, attribution=method, progress=False), explanations, strict=True
    ):
        torch.testing.assert_close(one.scores, explanation.token_scores())
        assert one.tokens == explanation.tokens
        assert (one.label, one.attribution, one.baseline) == (explanation.label, method, explanation.baseline)
        assert one.value == pytest.approx(explanation.value)


@pytest.mark.parametrize("make", [tiny_bert, tiny_llama])
def test_scores_add_up_beyond_the_sink(make):
    model = make()
    few, many = (token_scores(model, tiny_tokenizer(), ["a good film"], n_steps=n, progress=False)[0] for n in (8, 64))
    assert abs(many.total_delta) < 1e-5
    assert abs(few.total_delta) < 1e-3
    torch.testing.assert_close(few.scores, many.scores, rtol=0, atol=2e-3)


def test_few_rows_are_run():
    model, rows = tiny_bert(), []
    model.bert.encoder.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    explained = token_scores(model, tiny_tokenizer(), ["a good film"] * 8, progress=False)
    assert len(explained) == 8
    assert sum(rows) <= 8 * 10 + 40  # for each a few nodes and two ends, and what is looked at beforehand


def test_words_are_put_together_and_drawn():
    found = scored(tiny_bert(), output="logit", target=1, contrast=0)
    words = found[1].words()
    assert [word.text for word in words] == ["[CLS]", "bad", "man", "[SEP]", "work", "[SEP]"]
    assert sum(word.score for word in words) == pytest.approx(float(found[1].scores.sum()), abs=1e-5)
    assert found[0].table(2).count("\n") == 2
    figure = plot_tokens(found)
    assert len([note for note in figure.layout.annotations if note.bgcolor]) == 6 + 6 + 3
    assert "<iframe" in found._repr_html_()
    assert "<iframe" in found[0]._repr_html_()
    assert len(repr(found[0])) <= 500
    with pytest.raises(ValueError, match="layer=1: these scores are of all layers"):
        plot_tokens(found, layer=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attribution": "lime"}, "attribution='lime' is unknown"),
        ({"attribution": "rollout", "n_steps": 8}, "n_steps, method, tolerance and max_nodes are of an integral"),
        ({"attribution": "attention", "baseline": "sink"}, "follows no path"),
        ({"attribution": "rollout", "tolerance": 0.1}, "n_steps, method, tolerance and max_nodes are of an integral"),
        ({"tolerance": 0}, "tolerance=0 must be"),
        ({"n_steps": 0}, "n_steps=0 is too small"),
        ({"target": 7}, "target 7 of texts"),
    ],
)
def test_mistakes_are_named_before_the_model_runs(options, message):
    model = tiny_bert()
    model.bert.forward = lambda *_, **__: pytest.fail("the model ran")
    with pytest.raises(ValueError, match=message):
        scored(model, **options)
