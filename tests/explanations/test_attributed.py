"""What `explain` attributes: any output of a class, or the difference of two; along either path, from any start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from explanations.test_explain import assert_same
from torch import Tensor, nn
from toy import tiny_bert, tiny_llama, tiny_tokenizer, unchanged

from captum_attattr import Explanation, LayerAttAttr, attention_layers, explain, explain_dataset, explain_iter

TEXTS = ["good film", ("a b", "c d e"), "bad work"]
MULTI_LABEL, REGRESSION = {"problem_type": "multi_label_classification"}, {"num_labels": 1}
MODELS: dict[str, Any] = {
    "classifier": tiny_bert(),
    "multi-label": tiny_bert(**MULTI_LABEL),
    "language model": tiny_llama(),
}
OUTPUTS = {
    "probability": lambda logits, model: logits.sigmoid() if model == "multi-label" else logits.softmax(-1),
    "logit": lambda logits, model: logits,
    "log_probability": lambda logits, model: (
        nn.functional.logsigmoid(logits) if model == "multi-label" else logits.log_softmax(-1)
    ),
}
COMBINATIONS = [(model, output, contrast) for model in MODELS for output in OUTPUTS for contrast in (None, 0)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def explained(model: Any, texts: Any = TEXTS, target: Any = 2, **options: Any) -> list[Explanation]:
    return explain(model, tiny_tokenizer(), texts, target, progress=False, **options)


def outputs(model: str, output: str, one: Explanation) -> Tensor:
    """(C,) the output of every class."""
    with torch.no_grad():
        logits = MODELS[model](**one.inputs).logits
    return OUTPUTS[output](logits[0, -1] if model == "language model" else logits[0], model)


@pytest.mark.parametrize(("model", "output", "contrast"), COMBINATIONS)
def test_value_is_the_output_asked_for_and_probability_stays_the_targets(model, output, contrast):
    for one in explained(MODELS[model], output=output, contrast=contrast, n_steps=1):
        values = outputs(model, output, one)
        expected = values[2] - (0 if contrast is None else values[contrast])
        assert one.value == pytest.approx(float(expected), abs=1e-5)
        assert one.probability == pytest.approx(float(outputs(model, "probability", one)[2]), abs=1e-6)
        assert (one.output, one.contrast_target) == (output, contrast)
        names = MODELS[model].config.id2label if model != "language model" else {0: tiny_tokenizer().decode([0])}
        assert one.contrast == (None if contrast is None else names[contrast])


@pytest.mark.parametrize(("model", "output", "contrast"), COMBINATIONS)
def test_maps_are_those_of_layer_attattr_for_that_function(model, output, contrast):
    for one in explained(MODELS[model], output=output, contrast=contrast, n_steps=4):
        names = list(one.inputs)

        def forward(*tensors: Tensor, names: list[str] = names) -> Tensor:
            logits = MODELS[model](**dict(zip(names, tensors, strict=True))).logits
            values = OUTPUTS[output](logits[:, -1] if model == "language model" else logits, model)
            return values[:, 2] - (0 if contrast is None else values[:, contrast])

        lattr = LayerAttAttr(forward, attention_layers(MODELS[model]))
        maps, deltas = lattr.attribute(tuple(one.inputs.values()), n_steps=4, return_convergence_delta=True)
        torch.testing.assert_close(one.attributions, torch.cat(maps), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(one.delta, torch.cat(deltas), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("path", ["layer", "joint"])
def test_a_contrast_is_the_difference_of_two_explanations(output, path):
    options: dict[str, Any] = {"output": output, "n_steps": 5, "path": path}
    for model in MODELS.values():
        sides = zip(
            explained(model, contrast=1, **options),
            explained(model, target=2, **options),
            explained(model, target=1, **options),
            strict=True,
        )
        for both, first, second in sides:
            torch.testing.assert_close(both.attributions, first.attributions - second.attributions, rtol=0, atol=2e-6)
            assert both.value == pytest.approx(first.value - second.value, abs=1e-5)


def test_of_classes_that_share_a_softmax_log_probabilities_differ_as_logits_do():
    names = ("logit", "log_probability")
    for model in ("classifier", "multi-label"):
        logits, log_probabilities = (explained(MODELS[model], output=name, contrast=0, n_steps=4) for name in names)
        maps = [(a.attributions, b.attributions) for a, b in zip(logits, log_probabilities, strict=True)]
        assert all((a - b).abs().max() < 2e-5 for a, b in maps) == (model == "classifier")


def test_where_the_probability_is_flat_the_other_outputs_are_not():
    model = tiny_bert()
    with torch.no_grad():
        model.classifier.weight.mul_(4)
        model.classifier.bias.add_(torch.tensor([0.0, 0.0, 14.0]))
    sizes = {name: explained(model, output=name)[0].attributions.abs().max() for name in ("probability", "logit")}
    contrast = explained(model, output="log_probability", contrast=0)[0]
    assert explained(model)[0].probability > 0.99
    assert sizes["probability"] < 1e-2
    assert sizes["logit"] > 1e-1
    assert contrast.attributions.abs().max() > 1e-1


def test_the_usual_options_spelt_out_change_no_bit(tokenizer):
    for model in MODELS.values():
        usual = explained(model, target=None)
        spelt = explained(model, target=None, output="probability", path="layer", baseline="zero", contrast=None)
        for one, two in zip(usual, spelt, strict=True):
            assert_same(one, two)


def test_a_regression_has_its_score_alone():
    model = tiny_bert(**REGRESSION)
    (usual,) = explained(model, ["good film"], None, n_steps=2)
    for output in ("logit", "score"):  # "score" is what the explanation calls it
        (one,) = explained(model, ["good film"], None, n_steps=2, output=output)
        assert_same(one, usual)
    assert (usual.output, usual.value) == ("score", usual.probability)


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_contrasts_are_one_for_all_or_one_for_each(kind):
    model = MODELS["classifier"]
    each = explained(model, target=[0, 1, 2], contrast=kind([1, 2, 0]), n_steps=2)
    assert [(one.target, one.contrast_target, one.contrast) for one in each] == [
        (0, 1, "LABEL_1"),
        (1, 2, "LABEL_2"),
        (2, 0, "LABEL_0"),
    ]
    for position, one in enumerate(each):
        (alone,) = explained(model, TEXTS[position : position + 1], position, contrast=(position + 1) % 3, n_steps=2)
        assert_same(one, alone, atol=1e-6)


def test_some_texts_of_one_length_may_have_no_contrast():
    texts = ["good film", "bad work", "a b"]
    mixed = explained(MODELS["classifier"], texts, contrast=["LABEL_0", None, 1], n_steps=2)
    assert [one.contrast for one in mixed] == ["LABEL_0", None, "LABEL_1"]
    for text, one in zip(texts, mixed, strict=True):
        assert_same(one, explained(MODELS["classifier"], [text], contrast=one.contrast, n_steps=2)[0], atol=1e-6)


def test_what_is_predicted_is_contrasted_with_another_class_only():
    model = MODELS["classifier"]
    predicted = [one.target for one in explained(model, target=None, n_steps=1)]
    others = [(target + 1) % 3 for target in predicted]
    for one, target in zip(explained(model, target=None, contrast=others, n_steps=2), predicted, strict=True):
        assert one.target == one.prediction == target
    with unchanged(model), pytest.raises(ValueError, match=r"contrast 'LABEL_.' of texts\[1\] is what the model predi"):
        explained(model, target=None, contrast=[others[0], predicted[1], others[2]])


# ----------------------------------------------------------------------------------------- paths and starts


@pytest.mark.parametrize("path", ["layer", "joint"])
@pytest.mark.parametrize("baseline", [None, "zero", 0, "uniform", "sink", 0.125, np.float32(0.125)], ids=repr)
@pytest.mark.parametrize("model", ["classifier", "language model"])
def test_paths_and_starts_are_those_of_layer_attattr(model, path, baseline):
    """Of texts of one length, which are integrated together."""
    texts = ["good film", "bad work"]
    found = explained(MODELS[model], texts, path=path, baseline=baseline)
    inputs = {name: torch.cat([one.inputs[name] for one in found]) for name in found[0].inputs}

    def forward(*tensors: Tensor) -> Tensor:
        logits = MODELS[model](**dict(zip(inputs, tensors, strict=True))).logits
        return (logits[:, -1] if model == "language model" else logits).softmax(-1)

    start = baseline if baseline not in (None, "zero") else None
    result = LayerAttAttr(forward, attention_layers(MODELS[model])).integrate(
        tuple(inputs.values()), target=2, attention_baselines=start, path=path
    )
    for row, one in enumerate(found):
        assert (one.path, one.baseline) == (path, start if start else "zero")
        maps = torch.stack([map_[row] for map_ in result.attributions])
        torch.testing.assert_close(one.attributions, maps, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(one.error, result.error[:, row].float(), rtol=0, atol=1e-4)
        gained = one.value - result.start[:, row]
        if path == "joint":
            assert one.delta.isnan().all()
            assert one.total_delta == pytest.approx(float(one.attributions.sum() - gained[0]), abs=1e-5)
            assert abs(one.total_delta) < 1e-3
            assert 0 <= one.total_error <= 1e-3
            assert one.total_nodes == int(one.nodes[0])
        else:
            torch.testing.assert_close(one.delta, one.attributions.sum((1, 2, 3)) - gained, rtol=0, atol=1e-5)
            assert np.isnan([one.total_delta, one.total_error]).all()
            assert one.total_nodes == int(one.nodes.sum())


def test_on_the_joint_path_token_scores_add_up_to_the_whole():
    for one in explained(MODELS["classifier"], path="joint", baseline="uniform"):
        torch.testing.assert_close(one.token_scores().sum(), one.attributions.sum(), rtol=1e-5, atol=1e-6)
        by_layer = [one.token_scores(layer) for layer in range(3)]
        torch.testing.assert_close(one.token_scores(), torch.stack(by_layer).sum(0), rtol=1e-5, atol=1e-6)


OTHERS: list[dict[str, Any]] = [
    {"output": "logit"},
    {"output": "log_probability", "contrast": 0},
    {"path": "joint"},
    {"path": "joint", "baseline": "sink", "contrast": 1},
    {"baseline": 0.25},
]


@pytest.mark.parametrize("options", OTHERS, ids=str)
def test_explanations_come_back_from_files_and_from_explain_iter(options, tokenizer, tmp_path):
    found = explained(MODELS["classifier"], **options, n_steps=3)
    for one in found:
        assert_same(Explanation.load(one.save(tmp_path / "x")), one)
    again = explain_iter(MODELS["classifier"], tokenizer, TEXTS, 2, n_steps=3, progress=False, **options)
    for one, two in zip(found, again, strict=True):
        assert_same(one, two)


# ------------------------------------------------------------------------------------------------- mistakes

WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "output": ({"output": "odds"}, ValueError, "output='odds' is unknown; use one of 'probability', 'logit', 'log_p"),
    "output's kind": ({"output": 1}, ValueError, "output=1 is unknown"),
    "output's case": ({"output": "Logit"}, ValueError, "output='Logit' is unknown"),
    "output of a list": ({"output": ["logit"]}, ValueError, r"output=\['logit'\] is unknown"),
    "a regression's": ({"output": "score"}, ValueError, "output='score' is a regression's; use one of 'probability'"),
    "contrast of the target": (
        {"target": 1, "contrast": 1},
        ValueError,
        r"contrast 1 of texts\[0\] is its target, 1: another class is needed",
    ),
    "contrast of the target's name": (
        {"target": 1, "contrast": "LABEL_1"},
        ValueError,
        "contrast 'LABEL_1' of .* is its",
    ),
    "no class": ({"contrast": 3}, ValueError, r"contrast 3 of texts\[0\] is out of range: the model has 3"),
    "class below 0": ({"contrast": -1}, ValueError, "contrast -1 of .* is out of range"),
    "no name": ({"contrast": "joy"}, ValueError, r"contrast 'joy' of texts\[0\] is unknown; the model has \['LABEL_0'"),
    "contrast's kind": ({"contrast": 0.5}, TypeError, "contrast 0.5 of .* must be an integer or a name"),
    "contrast's bool": ({"contrast": True}, TypeError, "contrast True of .* must be an integer or a name"),
    "path": ({"path": "both"}, ValueError, "path='both' is unknown; use 'layer' or 'joint'"),
    "path's kind": ({"path": 3}, ValueError, "path=3 is unknown; use 'layer' or 'joint'"),
    "baseline": (
        {"baseline": "zeros"},
        ValueError,
        "baseline='zeros' is unknown; use 'zero', 'uniform', 'sink' or a f",
    ),
    "baseline's size": ({"baseline": float("inf")}, ValueError, "baseline=inf is unknown; use .* or a finite number"),
    "no number": ({"baseline": float("nan")}, ValueError, "baseline=nan is unknown"),
    "baseline's kind": ({"baseline": [0.0]}, TypeError, r"baseline=\[0.0\] is unknown"),
    "baseline's bool": ({"baseline": True}, TypeError, "baseline=True is unknown"),
    "a baseline of maps": ({"baseline": torch.zeros(2)}, TypeError, "baseline=tensor.* is unknown"),
}
FUNCTIONS: dict[str, Any] = {
    "explain": lambda folder, *given, **options: explain(*given, ["a"], **options),
    "explain_iter": lambda folder, *given, **options: explain_iter(*given, ["a"], **options),
    "explain_dataset": lambda folder, *given, **options: explain_dataset(*given, ["a"], folder, **options),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named_before_any_work(function, name, tokenizer, tmp_path, monkeypatch):
    changes, error, message = WRONG[name]
    model = MODELS["classifier"]
    monkeypatch.setattr(model.bert, "forward", lambda *args, **kwargs: pytest.fail("the model ran"))
    with unchanged(model), pytest.raises(error, match=message):
        FUNCTIONS[function](tmp_path / "archive", model, tokenizer, **{"target": 2} | changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"output": "probability"},
            "output='probability': the model is a regression, which has a score only; use 'log",
        ),
        ({"output": "log_probability"}, "the model is a regression"),
        ({"contrast": 0}, "contrast: the model is a regression, which gives a score and no classes; leave it out"),
    ],
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_regression_has_no_other_output(function, options, message, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=message):
        FUNCTIONS[function](tmp_path / "archive", tiny_bert(**REGRESSION), tokenizer, **options)


def test_lists_of_contrasts_have_one_for_each_text(tokenizer, tmp_path):
    model = MODELS["classifier"]
    for function in ("explain", "explain_dataset"):
        with pytest.raises(ValueError, match="contrast lists 2 entries for 1 texts"):
            FUNCTIONS[function](tmp_path, model, tokenizer, contrast=[0, 1])
    with pytest.raises(TypeError, match="explain_iter takes one contrast for all texts; use explain for a list of co"):
        explain_iter(model, tokenizer, ["a"], contrast=[0])


def test_tokens_of_a_language_model_are_contrasted_by_text(tokenizer):
    one = explained(MODELS["language model"], ["a b"], "good", contrast="bad", n_steps=1)[0]
    assert (one.label, one.contrast) == ("good", "bad")
    with pytest.raises(ValueError, match=r"contrast 'good film' of texts\[0\] is 2 tokens"):
        explained(MODELS["language model"], ["a b"], "good", contrast="good film")
