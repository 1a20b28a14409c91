"""Head importance of any output, path and start: `explain`'s maps reduced; journals and files tell them apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from head_examples import GOLD, TEXTS, undecided
from toy import tiny_bert, tiny_tokenizer

from captum_attattr import ConvergenceWarning, HeadImportance, effectiveness_analysis, explain, head_importance

OTHERS = [(label + 1) % 3 for label in GOLD]
OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "logit": ({"output": "logit"}, "attattr (output=logit)"),
    "contrast": ({"output": "logit", "contrast": OTHERS}, "attattr (output=logit, contrast=one each)"),
    "joint": ({"path": "joint"}, "attattr (path=joint)"),
    "sink": ({"path": "joint", "baseline": "sink"}, "attattr (path=joint, baseline=sink)"),
    "number": ({"baseline": 0.25}, "attattr (baseline=0.25)"),
    "usual": ({"output": "probability", "path": "layer", "baseline": 0, "contrast": None}, "attattr"),
}


def scores(**options: Any) -> HeadImportance:
    usual = {"n_steps": 4, "progress": False}
    return head_importance(undecided(), tiny_tokenizer(), TEXTS, GOLD, **usual | options)


@pytest.mark.parametrize("name", OPTIONS)
def test_scores_are_those_of_explains_maps(name, tmp_path):
    options, title = OPTIONS[name]
    explanations = explain(undecided(), tiny_tokenizer(), TEXTS, GOLD, n_steps=4, progress=False, **options)
    expected = torch.stack([one.attributions.double().amax((2, 3)) for one in explanations]).mean(0)
    found = scores(**options)
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-6)
    shown = "n_steps=4" if title == "attattr" else f"n_steps=4, {title[9:-1]}"
    assert found.name == f"attattr ({shown})"
    loaded = HeadImportance.load(found.save(tmp_path / "scores"))
    assert (loaded.options, loaded.name) == (found.options, found.name)


def test_one_contrast_serves_examples_of_other_labels():
    texts, gold = zip(*[(text, label) for text, label in zip(TEXTS, GOLD, strict=True) if label], strict=True)
    options: dict[str, Any] = {"n_steps": 3, "progress": False}
    one, name, each = (
        head_importance(undecided(), tiny_tokenizer(), list(texts), list(gold), contrast=contrast, **options)
        for contrast in (0, "LABEL_0", [0] * len(texts))
    )
    assert torch.equal(one.scores, name.scores)
    assert torch.equal(one.scores, each.scores)


@pytest.mark.parametrize("name", OPTIONS)
def test_journals_tell_them_apart(name, tmp_path):
    options, _ = OPTIONS[name]
    path = tmp_path / "scores.jsonl"
    usual = scores(resume=path)
    if name == "usual":
        assert torch.equal(scores(resume=path, **options).scores, usual.scores)
        return
    with pytest.raises(ValueError, match="options"):
        scores(resume=path, **options)


def test_the_joint_path_converges_as_a_whole():
    with pytest.warns(ConvergenceWarning, match=r"7 attribution maps .*: example \d, all layers: "):
        scores(path="joint", n_steps=None, max_nodes=5, tolerance=1e-7)


def test_effectiveness_takes_them_too():
    options: dict[str, Any] = {"n_steps": 2, "progress": False}
    usual, contrasted = (
        effectiveness_analysis(undecided(), tiny_tokenizer(), TEXTS, GOLD, **options, **more)
        for more in ({}, {"output": "logit", "contrast": OTHERS, "path": "joint"})
    )
    assert usual.metric["attention"] == contrasted.metric["attention"]
    assert usual.loss["attribution"] != contrasted.loss["attribution"]


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "output": ({"output": "odds"}, ValueError, "output='odds' is unknown; use one of 'probability', 'logit'"),
    "path": ({"path": "both"}, ValueError, "path='both' is unknown; use 'layer' or 'joint'"),
    "baseline": ({"baseline": "zeros"}, ValueError, "baseline='zeros' is unknown"),
    "baseline's kind": ({"baseline": [0]}, TypeError, r"baseline=\[0\] is unknown"),
    "gold": ({"contrast": 2}, ValueError, r"contrast 2 of texts\[1\] is the gold label, and that is attributed: g"),
    "gold by name": ({"contrast": "LABEL_2"}, ValueError, r"contrast 2 of texts\[1\] is the gold label"),
    "no class": ({"contrast": 3}, ValueError, r"contrast 3 of texts\[0\] is out of range: the model has 3"),
    "kind": ({"contrast": 0.5}, TypeError, r"contrast 0.5 of texts\[0\] must be an integer or a name"),
    "list": ({"contrast": [0, 1]}, ValueError, "contrast lists 2 entries for 7 texts"),
    "other method": ({"method": "attention", "path": "joint"}, TypeError, "method='attention' does not know path"),
}


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named_before_any_work(name, tmp_path, monkeypatch):
    options, error, message = WRONG[name]
    model = undecided()
    monkeypatch.setattr(model.bert, "forward", lambda *args, **kwargs: pytest.fail("the model ran"))
    with pytest.raises(error, match=message):
        head_importance(model, tiny_tokenizer(), TEXTS, GOLD, resume=tmp_path / "scores.jsonl", **options)
    assert not list(tmp_path.iterdir())


def test_what_is_predicted_is_contrasted_with_another_class_only():
    predicted = [one.target for one in explain(undecided(), tiny_tokenizer(), TEXTS, n_steps=1)]
    with pytest.raises(ValueError, match=r"contrast \d of texts\[\d\] is what the model predicts"):
        scores(target="predicted", contrast=predicted)


def test_a_regression_has_its_score_alone():
    model = tiny_bert(num_labels=1)
    given: Any = (model, tiny_tokenizer(), TEXTS, [0.5] * len(TEXTS))
    usual, logit = (head_importance(*given, n_steps=2, progress=False, output=name) for name in (None, "logit"))
    assert torch.equal(usual.scores, logit.scores)
    with pytest.raises(ValueError, match="the model is a regression, which has a score only"):
        head_importance(*given, output="probability")
