"""What outputs and gold labels mean: several labels at once, above all, in every method that takes labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from head_examples import GOLD, TEXTS, encoded
from sklearn.metrics import accuracy_score, f1_score
from torch import Tensor, nn
from toy import HEADS, LABELS, LAYERS, tiny_bert, tiny_tokenizer
from transformers import BertForSequenceClassification

from captum_attattr import (
    HeadImportance,
    effectiveness_analysis,
    explain,
    head_importance,
    mask_heads,
    pruning_curve,
)

NAMES = {0: "toxic", 1: "insult", 2: "threat"}
VECTORS = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1], [1, 0, 0], [0, 1, 1]]
ONE_EACH = [[int(i == label) for i in range(LABELS)] for label in GOLD]


def tagger(**changes: Any) -> BertForSequenceClassification:
    """A model of several labels, whose logits are on both sides of zero."""
    model = tiny_bert(seed=1, problem_type="multi_label_classification", **{"id2label": NAMES} | changes)
    with torch.no_grad():
        model.classifier.bias -= torch.cat([model(**encoded(text)).logits for text in TEXTS]).mean(0)
    return model


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    return tagger()


def scores(model: nn.Module, labels: Any, method: str, **options: Any) -> HeadImportance:
    return head_importance(model, tiny_tokenizer(), TEXTS, labels, method, progress=False, **options)


@torch.no_grad()
def logits(model: nn.Module, heads: Any = None) -> Tensor:
    """(N, C)"""
    if heads:
        with mask_heads(model, heads):
            return logits(model)
    return torch.cat([model(**encoded(text)).logits for text in TEXTS])


def loss(found: Tensor, wanted: Any) -> Tensor:
    """(N,) by its definition: minus the logarithm of what the labels' probabilities give the wanted ones."""
    wanted, p = torch.tensor(wanted), found.sigmoid()
    return -torch.where(wanted == 1, p, 1 - p).log().sum(1)


# -------------------------------------------------------------------------------------- several labels at once


def test_differences_are_those_of_all_labels_together(model):
    losses, right = (torch.zeros(LAYERS, HEADS, dtype=torch.double) for _ in range(2))
    whole = logits(model)
    gold = torch.tensor(VECTORS)
    for layer in range(LAYERS):
        for head in range(HEADS):
            less = logits(model, {layer: [head]})
            losses[layer, head] = (loss(less, VECTORS) - loss(whole, VECTORS)).mean()
            correct = [((each.sigmoid() > 0.5).int() == gold).all(1).double() for each in (whole, less)]
            right[layer, head] = (correct[0] - correct[1]).mean()
    torch.testing.assert_close(scores(model, VECTORS, "loss_difference").scores, losses, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scores(model, VECTORS, "accuracy_difference").scores, right)
    assert right.abs().max() > 0


def test_taylor_takes_the_loss_of_all_labels_together(model):
    outputs: list[Tensor] = []
    total = torch.zeros(LAYERS, HEADS, dtype=torch.double)
    for text, wanted in zip(TEXTS, VECTORS, strict=True):
        outputs.clear()
        hooks = [
            block.attention.output.dense.register_forward_pre_hook(lambda _, args: outputs.append(args[0]))
            for block in model.bert.encoder.layer
        ]
        gradients = torch.autograd.grad(loss(model(**encoded(text)).logits, [wanted]).sum(), outputs)
        for hook in hooks:
            hook.remove()
        for layer, (output, gradient) in enumerate(zip(outputs, gradients, strict=True)):
            total[layer] += (output * gradient).unflatten(-1, (HEADS, -1)).sum(-1).abs().sum((0, 1)).detach()
    found = scores(model, VECTORS, "taylor", normalize=False).scores
    torch.testing.assert_close(found, total / len(TEXTS), rtol=1e-4, atol=1e-6)


def test_curve_measures_exact_matches_and_the_loss(model):
    ranking = scores(model, VECTORS, "loss_difference")
    options: dict[str, Any] = {"steps": 3, "progress": False}
    found = pruning_curve(model, tiny_tokenizer(), TEXTS, VECTORS, ranking, **options)
    for step, count in enumerate(found.heads):
        left = logits(model, ranking.ranking()[:count])
        guessed = (left.sigmoid() > 0.5).int().numpy()
        assert found.metric[step] == pytest.approx(accuracy_score(VECTORS, guessed))
        assert found.loss[step] == pytest.approx(loss(left, VECTORS).mean().item(), rel=1e-5)
    assert found.metric_name == "accuracy"
    assert len(set(found.metric)) > 1

    def micro(predictions: list[list[int]], labels: list[list[int]]) -> float:
        return float(f1_score(labels, predictions, average="micro"))

    measured = pruning_curve(model, tiny_tokenizer(), TEXTS, VECTORS, ranking, metric=micro, **options)
    guessed = (logits(model).sigmoid() > 0.5).int().numpy()
    assert measured.metric[0] == pytest.approx(f1_score(VECTORS, guessed, average="micro"))


def test_attribution_is_of_the_one_gold_label(model):
    maps = [e.attributions.double() for e in explain(model, tiny_tokenizer(), TEXTS, GOLD, progress=False)]
    found = scores(model, ONE_EACH, "attattr")
    expected = torch.stack([map_.amax((2, 3)) for map_ in maps]).mean(0)
    torch.testing.assert_close(found.scores, expected, rtol=3e-3, atol=1e-6)
    assert found.labels == sorted({NAMES[label] for label in GOLD})
    with pytest.raises(ValueError, match=r"texts\[0\] has 2 gold labels.*give a text once for each of its labels"):
        scores(model, VECTORS, "attattr")
    with pytest.raises(ValueError, match=r"texts\[1\] has 0 gold labels.*use target='predicted'"):
        effectiveness_analysis(model, tiny_tokenizer(), TEXTS, [*ONE_EACH[:1], [0, 0, 0], *ONE_EACH[2:]])


def test_predicted_label_is_attributed_whatever_the_gold_ones_are(model):
    maps = [e.attributions.double() for e in explain(model, tiny_tokenizer(), TEXTS, progress=False)]
    expected = torch.stack([map_.amax((2, 3)) for map_ in maps]).mean(0)
    found = scores(model, VECTORS, "attattr", target="predicted")
    torch.testing.assert_close(found.scores, expected, rtol=3e-3, atol=1e-6)
    assert found.labels == ["insult", "threat", "toxic"]
    options: dict[str, Any] = {"target": "predicted", "n_steps": 4, "progress": False}
    analysis = effectiveness_analysis(model, tiny_tokenizer(), TEXTS, VECTORS, **options)
    whole, none = logits(model), logits(model, {layer: list(range(HEADS)) for layer in range(LAYERS)})
    for score in ("attribution", "attention"):
        first, last = analysis.loss[score]["prune"][0], analysis.loss[score]["prune"][-1]
        assert first == pytest.approx(loss(whole, VECTORS).mean().item(), rel=1e-5)
        assert last == pytest.approx(loss(none, VECTORS).mean().item(), rel=1e-5)
        guessed = (whole.sigmoid() > 0.5).int().numpy()
        assert analysis.metric[score]["keep"][-1] == pytest.approx(accuracy_score(VECTORS, guessed))


@pytest.mark.parametrize(
    "labels",
    [
        ONE_EACH,
        torch.tensor(ONE_EACH),
        np.array(ONE_EACH, dtype=bool),
        [torch.tensor(row, dtype=torch.float) for row in ONE_EACH],
        [tuple(np.array(row, dtype=np.float32)) for row in ONE_EACH],
        GOLD,
        [NAMES[label] for label in GOLD],
        [[NAMES[label]] for label in GOLD],
    ],
    ids=["lists", "tensor", "array", "tensors", "tuples", "numbers", "names", "lists of names"],
)
def test_labels_are_given_in_many_ways(model, labels):
    expected = scores(model, ONE_EACH, "loss_difference")
    assert torch.equal(scores(model, labels, "loss_difference").scores, expected.scores)
    rows = [["toxic", "threat"], *VECTORS[1:]]
    several = scores(model, rows, "loss_difference").scores
    assert torch.equal(several, scores(model, VECTORS, "loss_difference").scores)
    assert not torch.equal(several, expected.scores)


def test_one_label_alone_is_still_a_label():
    """Of a model with one output a number would be ambiguous: 0 is the label's number, or says that it is not there."""
    model = tagger(num_labels=1, id2label={0: "toxic"})
    wanted = [[1], [0], [1], [1], [0], [0], [1]]
    found = scores(model, wanted, "loss_difference").scores
    expected = (loss(logits(model, {1: [2]}), wanted) - loss(logits(model), wanted)).mean()
    assert found[1, 2].item() == pytest.approx(expected.item(), abs=1e-6)
    for label in (0, 1, True):
        with pytest.raises(ValueError, match=r"the model has one label; \[1\] or \[0\] is needed"):
            scores(model, [label] * len(TEXTS), "taylor")
    explanation = explain(model, tiny_tokenizer(), TEXTS[:1], progress=False)[0]
    assert explanation.probability == pytest.approx(logits(model)[0].sigmoid().item(), abs=1e-6)


BAD_LABELS: dict[str, tuple[Any, type[Exception], str]] = {
    "short": ([1, 0], ValueError, r"label \[1, 0\] of texts\[0\]: the model tells 3 labels apart.* give 3 numbers"),
    "long": ([1, 0, 1, 0], ValueError, "give 3 numbers, each 0 or 1, or the names"),
    "two": ([0, 2, 1], ValueError, r"label \[0, 2, 1\] of texts\[0\]"),
    "half": ([0, 0.5, 1], ValueError, "each 0 or 1"),
    "nan": ([0, float("nan"), 1], ValueError, "each 0 or 1"),
    "empty": ([], ValueError, r"label \[\] of texts\[0\]"),
    "nested": ([[1, 0, 1]], ValueError, "each 0 or 1"),
    "name": (["toxic", "rude"], ValueError, r"label 'rude' of texts\[0\] is unknown; the model has"),
    "mixed": (["toxic", 1], ValueError, "each 0 or 1"),
    "none": (None, ValueError, "label None"),
    "number": (3, ValueError, r"label 3 of texts\[0\] is out of range: the model has 3"),
    "float": (1.5, TypeError, r"label 1.5 of texts\[0\] must be an integer or a name"),
    "set": ({"toxic"}, TypeError, "must be an integer or a name"),
}


@pytest.mark.parametrize("name", BAD_LABELS)
def test_bad_labels_are_named_before_the_model_runs(model, monkeypatch, name):
    label, error, message = BAD_LABELS[name]
    monkeypatch.setattr(BertForSequenceClassification, "forward", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(error, match=message):
        scores(model, [label, *VECTORS[1:]], "taylor")


@pytest.mark.parametrize("metric", ["matthews", "pearson"])
def test_metric_of_single_classes_is_refused(model, metric):
    ranking = scores(model, VECTORS, "random")
    with pytest.raises(ValueError, match=f"metric='{metric}' does not fit a model of several labels; use 'accuracy'"):
        pruning_curve(model, tiny_tokenizer(), TEXTS, VECTORS, ranking, metric=metric)


# ------------------------------------------------------------------------------------------------ other models


def test_vectors_for_a_model_of_single_classes_are_refused():
    with pytest.raises(TypeError, match=r"label \[1, 0, 1\] of texts\[0\] must be an integer or a name"):
        scores(tiny_bert(), VECTORS, "taylor")


def test_regression_of_several_scores_is_refused():
    model = tiny_bert(problem_type="regression")
    with pytest.raises(ValueError, match="the model gives 3 scores for a text; only one can be compared"):
        scores(model, [0.5] * len(TEXTS), "loss_difference")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.tensor(1), "labels must be a list with one label for each text, got Tensor"),
        (np.array("a"), "got ndarray"),
        ((label for label in GOLD), "got generator"),
        ({0: 1}, "got dict"),
        (None, "got NoneType"),
        (float("nan"), "got float"),
    ],
)
def test_labels_that_are_no_list_are_refused(labels, message):
    with pytest.raises(TypeError, match=message):
        scores(tiny_bert(), labels, "taylor")
