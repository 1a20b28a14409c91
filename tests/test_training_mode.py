"""Functions that take texts give the numbers of evaluation mode, whatever mode the model is in, and put it back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from toy import tiny_bert, tiny_tokenizer, unchanged

from captum_attattr import (
    attack,
    compare_attributions,
    compare_pruning,
    effectiveness_analysis,
    explain,
    explain_dataset,
    explain_iter,
    extract_triggers,
    faithfulness,
    find_patterns,
    head_importance,
    pruning_curve,
    removal_effects,
    token_scores,
)

TEXTS = ["a b c", "good film", "bad plot man", "work a d e"]
LABELS = [0, 1, 2, 1]
QUIET = {"progress": False}


def maps(explanations: Any) -> list[Any]:
    return [(e.attributions, e.value, e.prediction) for e in explanations]


def importance(model: nn.Module, **options: Any) -> Any:
    return head_importance(model, tiny_tokenizer(), TEXTS, LABELS, **options, **QUIET)


def triggers() -> Any:
    return extract_triggers(explain(tiny_bert(), tiny_tokenizer(), TEXTS, n_steps=2, **QUIET), min_score=0.0)[:1]


FUNCTIONS: dict[str, Any] = {
    "explain": lambda model, _: maps(explain(model, tiny_tokenizer(), TEXTS, n_steps=2, **QUIET)),
    "explain_iter": lambda model, _: maps(explain_iter(model, tiny_tokenizer(), TEXTS, window=2, n_steps=2, **QUIET)),
    "explain_dataset": lambda model, path: maps(
        explain_dataset(model, tiny_tokenizer(), TEXTS, path / "archive", n_steps=2, **QUIET)
    ),
    "token_scores": lambda model, _: [one.scores for one in token_scores(model, tiny_tokenizer(), TEXTS, **QUIET)],
    **{
        method: lambda model, _, method=method: maps(
            explain(model, tiny_tokenizer(), TEXTS, attribution=method, **QUIET)
        )
        for method in ("gradient_attention", "attention", "chefer", "rollout", "alti", "attnlrp", "random")
    },
    "removal_effects": lambda model, _: (
        removal_effects(model, tiny_tokenizer(), explain(tiny_bert(), tiny_tokenizer(), TEXTS[0], n_steps=2)[0]).effects
    ),
    "faithfulness": lambda model, _: (
        faithfulness(
            model, tiny_tokenizer(), explain(tiny_bert(), tiny_tokenizer(), TEXTS, n_steps=2, **QUIET), **QUIET
        ).keep
    ),
    "compare_attributions": lambda model, _: (
        compare_attributions(model, tiny_tokenizer(), TEXTS, ["gradient_attention"], **QUIET)
        .results["gradient_attention"]
        .keep
    ),
    "find_patterns": lambda model, _: find_patterns(model, tiny_tokenizer(), TEXTS, n_steps=2, **QUIET),
    "head_importance": lambda model, _: importance(model, n_steps=2).scores,
    "taylor": lambda model, _: importance(model, method="taylor").scores,
    "loss_difference": lambda model, _: importance(model, method="loss_difference").scores,
    "pruning_curve": lambda model, _: (
        pruning_curve(model, tiny_tokenizer(), TEXTS, LABELS, importance(tiny_bert(), n_steps=2), steps=3, **QUIET).loss
    ),
    "compare_pruning": lambda model, _: (
        compare_pruning(
            model,
            tiny_tokenizer(),
            TEXTS,
            LABELS,
            [importance(tiny_bert(), n_steps=2)],
            steps=3,
            random_seeds=1,
            structural=False,
            **QUIET,
        )
        .curves[0]
        .loss
    ),
    "effectiveness_analysis": lambda model, _: (
        effectiveness_analysis(model, tiny_tokenizer(), TEXTS, LABELS, n_steps=2, **QUIET).loss
    ),
    "attack": lambda model, _: (
        attack(model, tiny_tokenizer(), TEXTS, LABELS, triggers(), vocabulary=["a", "b"], **QUIET).victims
    ),
}


def equal(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(equal, one, two))
    return bool(one == two)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_mode_of_the_model_does_not_matter(name, tmp_path):
    """Half of the modules are left training, as a frozen encoder is while its head is trained."""
    found = []
    for mode in ("evaluation", "training", "both"):
        model = tiny_bert(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
        if mode != "evaluation":
            model.train()
        if mode == "both":
            model.bert.encoder.layer[0].eval()
        folder = tmp_path / mode
        folder.mkdir()
        with unchanged(model):
            found.append(FUNCTIONS[name](model, folder))
    assert equal(found[0], found[1])
    assert equal(found[0], found[2])


def test_between_two_explanations_of_an_iterator_the_model_is_in_its_mode():
    model = tiny_bert(hidden_dropout_prob=0.5).train()
    for _ in explain_iter(model, tiny_tokenizer(), TEXTS, window=2, n_steps=2, **QUIET):
        assert model.training
        assert model.bert.encoder.layer[0].training
