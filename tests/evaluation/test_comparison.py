"""compare_attributions: what it says is what explain, faithfulness and removal_effects say one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from toy import tiny_bert, tiny_llama, tiny_tokenizer

from captum_attattr import (
    AttributionComparison,
    ResultFileError,
    compare_attributions,
    explain,
    faithfulness,
    removal_effects,
)
from captum_attattr.attribution.methods.table import ATTRIBUTIONS

TEXTS = ["a good film plot", "bad man work", "good bad good bad", ("good film", "bad plot"), "work", "man good"]


def compared(model: Any, attributions: Any = None, **options: Any) -> AttributionComparison:
    return compare_attributions(model, tiny_tokenizer(), TEXTS, attributions, progress=False, **options)


@pytest.mark.parametrize("unit", ["edge", "head", "token", "layer_edge"])
def test_everything_is_what_the_other_functions_say(unit):
    model, tokenizer = tiny_bert(), tiny_tokenizer()
    found = compared(model, unit=unit, baseline="sink", output="logit", target=1)
    telling = {"token": None, "layer_edge": "layers"}.get(unit, "heads")
    assert found.names == [n for n, entry in ATTRIBUTIONS.items() if telling is None or getattr(entry, telling)]
    assert found.texts == TEXTS
    for name, result in found.results.items():
        baseline = "sink" if ATTRIBUTIONS[name].start else None
        explanations = explain(
            model, tokenizer, TEXTS, 1, attribution=name, baseline=baseline, output="logit", progress=False
        )
        usual = faithfulness(model, tokenizer, explanations, unit=unit, progress=False)
        for part in ("full", "empty", "keep", "delete", "keep_absolute", "keep_top", "delete_top", "heads"):
            torch.testing.assert_close(getattr(result, part), getattr(usual, part), rtol=0, atol=2e-4, equal_nan=True)
        assert (result.attribution, result.output, result.baseline) == (name, "logit", baseline or "zero")
        if unit in ("head", "token"):
            for i, explanation in enumerate(explanations):
                effects = removal_effects(model, tokenizer, explanation, unit=unit, top=10**6)
                pair = found.methods[name].correlations["all"][i].tolist()
                assert pair == pytest.approx([effects.spearman, effects.pearson], abs=2e-3, nan_ok=True)


def test_single_edges_are_the_largest_of_all_methods_and_some_at_random():
    found = compared(tiny_llama(), ["gradient_attention", "attattr"])
    assert found.names == ["gradient_attention", "attattr", "random"]
    for name in found.names:
        assert found.methods[name].correlations.keys() == {"top", "random"}
    assert found.correlation("gradient_attention", "random").mean > 0.8
    assert abs(found.correlation("random", "random").mean) < 0.3


def test_rows_and_seconds_are_the_methods_own():
    found = compared(tiny_bert(), ["attattr", "gradient_attention"])
    rows = {name: float(one.rows.sum()) for name, one in found.methods.items()}
    assert rows["attattr"] > 3 * rows["gradient_attention"] >= 3 * len(TEXTS)
    assert all((one.seconds > 0).all() for one in found.methods.values())


def test_methods_that_refuse_a_family_are_left_out_and_told(monkeypatch):
    from captum_attattr import UnsupportedModelError
    from captum_attattr.evaluation import comparison

    def refused(request: Any) -> Any:
        raise UnsupportedModelError("this family has its own norm")

    entry = ATTRIBUTIONS["attnlrp"]._replace(maps=refused)
    monkeypatch.setitem(comparison.ATTRIBUTIONS, "attnlrp", entry)
    with pytest.warns(UserWarning, match="'attnlrp' is left out: this family has its own norm"):
        found = compared(tiny_bert(), unit="token")
    assert set(found.names) == ATTRIBUTIONS.keys() - {"attnlrp"}
    with pytest.raises(UnsupportedModelError, match="this family"):  # who asks for it hears it
        compared(tiny_bert(), ["attnlrp"], unit="token")


def test_options_by_name():
    options = {"zeros": {"attribution": "attattr_joint"}, "sink": {"path": "joint", "baseline": "sink", "n_steps": 4}}
    found = compared(tiny_bert(), options)
    assert found.names == ["zeros", "sink", "random"]
    assert found.results["sink"].baseline == "sink"
    assert found.results["sink"].path == found.results["zeros"].path == "joint"


def test_it_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    model = tiny_bert()
    whole = compared(model, ["gradient_attention"])
    file = tmp_path / "run.jsonl"
    from captum_attattr.evaluation import comparison

    done, text = [], comparison._Comparing.text

    def killed(self: Any, item: Any) -> Any:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(item.index)
        return text(self, item)

    monkeypatch.setattr(comparison._Comparing, "text", killed)
    with pytest.raises(KeyboardInterrupt):
        compared(model, ["gradient_attention"], resume=file)
    done.clear()
    found = compared(model, ["gradient_attention"], resume=file)
    assert len(done) == 3
    assert torch.equal(found.results["gradient_attention"].keep, whole.results["gradient_attention"].keep)
    for other in ({"unit": "head"}, {"output": "logit"}, {"fractions": [0.5]}, {"baseline": "sink"}):
        with pytest.raises(ValueError, match="another run"):
            compared(model, ["gradient_attention"], resume=file, **other)


def test_differences_are_paired():
    found = compared(tiny_bert(), ["attattr", "attention"])
    pair = [found.results[name].values("comprehensiveness") for name in ("attattr", "attention")]
    difference = found.difference("comprehensiveness", "attattr", "attention")
    assert difference.mean == pytest.approx(float((pair[0] - pair[1]).mean()))
    assert difference.low <= difference.mean <= difference.high
    table = found.table()
    assert "minus attattr" in table
    assert "Spearman, top" in table
    assert all(name in table for name in found.names)
    assert found.stability.keys() == set(found.names)
    assert 0 < found.stability["attattr"] <= 1
    assert len(repr(found)) <= 500
    assert "<iframe" in found._repr_html_()


def test_few_texts_have_no_intervals_and_say_so():
    found = compare_attributions(tiny_bert(), tiny_tokenizer(), TEXTS[:3], ["attention"], progress=False)
    asked = {
        "no interval of 3 examples": found.table,
        "difference in cpr: no interval": lambda: found.difference("cpr", "attention", "random"),
        "spearman, top: no interval": lambda: found.correlation("attention", "top"),
    }
    for message, ask in asked.items():
        with pytest.warns(UserWarning, match=message) as told:
            ask()
        assert len(told) == 1
        assert told[0].filename == __file__


def test_saved_and_loaded(tmp_path):
    found = compared(tiny_bert(), unit="token")
    loaded = AttributionComparison.load(found.save(tmp_path / "c.json"))
    assert loaded.table() == found.table()
    assert loaded.texts == found.texts
    assert math.isnan(loaded.stability["chefer"])
    text = (tmp_path / "c.json").read_text()
    assert "NaN" not in text
    for broken in (text[:-40], text.replace('"version": 1', '"version": 9'), "{}", text.replace('"rows"', '"row"')):
        (tmp_path / "d.json").write_text(broken)
        with pytest.raises(ResultFileError, match=r"d\.json"):
            AttributionComparison.load(tmp_path / "d.json")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"attributions": []}, ValueError, "attributions is empty"),
        ({"attributions": "attattr"}, TypeError, r"must be a list; use \['attattr'\]"),
        ({"attributions": ["lime"]}, ValueError, "attribution='lime' is unknown; use one of attattr"),
        ({"attributions": ["attattr", "attattr"]}, ValueError, "names one method twice"),
        ({"attributions": [3]}, TypeError, "attributions must be strings"),
        ({"attributions": {"a": {"output": "logit"}}}, ValueError, r"attributions\['a'\] has the option 'output'"),
        ({"attributions": {"random": {"attribution": "attattr"}}}, ValueError, "are random scores"),
        ({"attributions": ["rollout"]}, ValueError, "'rollout' puts heads together"),
        ({"attributions": ["chefer"], "unit": "layer_edge"}, ValueError, "'chefer' puts layers together"),
        ({"fractions": [2]}, ValueError, "fractions must be above 0"),
        ({"target": 9}, ValueError, "target 9 of texts"),
        ({"target": 0, "contrast": [None, *[1] * 5]}, ValueError, "some texts have a contrast and others have none"),
        ({"baseline": "mean"}, ValueError, "baseline='mean' is unknown"),
    ],
)
def test_mistakes_are_named_before_the_model_runs(options, kind, message):
    model = tiny_bert()
    model.bert.forward = lambda *_, **__: pytest.fail("the model ran")
    with pytest.raises(kind, match=message):
        compared(model, **options)
