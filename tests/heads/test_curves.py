"""Pruning curves, their comparison, and the effectiveness analysis, against masks applied by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from head_examples import GOLD, TEXTS, encoded, importance, loss, undecided
from sklearn.metrics import auc
from torch.nn.utils.parametrizations import weight_norm
from toy import HEADS, LAYERS, tiny_bert, tiny_llama, tiny_tokenizer
from transformers import BertForSequenceClassification

from captum_attattr import (
    Effectiveness,
    HeadImportance,
    PruningComparison,
    PruningCurve,
    ResultFileError,
    UnsupportedModelError,
    compare_pruning,
    effectiveness_analysis,
    explain,
    head_importance,
    mask_heads,
    prune_heads,
    pruning_curve,
)

ALL = LAYERS * HEADS


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    return undecided()


@pytest.fixture(scope="module")
def ranking(model) -> HeadImportance:
    return head_importance(model, tiny_tokenizer(), TEXTS[:3], GOLD[:3], "loss_difference", progress=False)


def curve(model: Any, ranking: HeadImportance, **options: Any) -> PruningCurve:
    return pruning_curve(model, tiny_tokenizer(), TEXTS, GOLD, ranking, **{"progress": False} | options)


# ------------------------------------------------------------------------------------------------- curves


@pytest.mark.parametrize("order", ["least", "most"])
@torch.no_grad()
def test_every_point_is_the_model_with_its_heads_masked(model, ranking, order):
    found = curve(model, ranking, order=order, steps=5)
    assert found.heads == [0, 3, 6, 9, 12]
    assert found.total == ALL
    heads = ranking.ranking(order)
    assert [tuple(pair) for pair in found.ranking] == heads
    for step, count in enumerate(found.heads):
        right, losses = [], []
        for text, label in zip(TEXTS, GOLD, strict=True):
            with mask_heads(model, heads[:count] or [(0, 0)]):
                masked = model(**encoded(text)).logits.argmax().item(), loss(model, text, label).item()
            whole = model(**encoded(text)).logits.argmax().item(), loss(model, text, label).item()
            prediction, value = masked if count else whole
            right.append(prediction == label)
            losses.append(value)
        assert found.metric[step] == pytest.approx(np.mean(right))
        assert found.loss[step] == pytest.approx(np.mean(losses), rel=1e-5)
    assert len(set(found.loss)) == 5


def test_steps_take_as_many_heads_as_the_published_script(model, ranking):
    assert curve(model, ranking).heads == [k * ALL // 10 for k in range(11)]
    assert curve(model, ranking, steps=2).heads == [0, ALL]


def test_rows_of_ranking_and_evaluation_are_told_apart(model, ranking):
    found = curve(model, ranking)
    assert (found.ranking_rows, found.evaluation_rows, found.shared_rows) == (3, len(TEXTS), 3)
    apart = pruning_curve(model, tiny_tokenizer(), TEXTS[3:], GOLD[3:], ranking, progress=False)
    assert (apart.ranking_rows, apart.evaluation_rows, apart.shared_rows) == (3, len(TEXTS) - 3, 0)


def test_area_is_the_mean_height(model, ranking):
    found = curve(model, ranking)
    assert found.area == pytest.approx(auc(np.array(found.heads) / ALL, found.metric))
    assert found.at(0.5) == 5
    assert found.heads[found.at(0.3)] == 4  # 3.6 heads


def test_metric_may_be_named_or_be_a_function(model, ranking):
    def wrong(predictions: list[float], labels: list[float]) -> float:
        return float(np.mean([p != label for p, label in zip(predictions, labels, strict=True)]))

    plain, named = curve(model, ranking), curve(model, ranking, metric="matthews")
    assert (plain.metric_name, named.metric_name) == ("accuracy", "matthews")
    function = curve(model, ranking, metric=wrong)
    assert function.metric_name == "wrong"
    assert function.metric == pytest.approx([1 - value for value in plain.metric])


def test_regression_is_measured_by_pearsons_correlation():
    model, values = tiny_bert(seed=2, num_labels=1), [0.5, -1.0, 2.0, 0.0, 1.0, 3.0, -2.0]
    ranking = head_importance(model, tiny_tokenizer(), TEXTS, values, "random")
    found = pruning_curve(model, tiny_tokenizer(), TEXTS, values, ranking, steps=2, progress=False)
    assert found.metric_name == "pearson"
    with torch.no_grad():
        outputs = [model(**encoded(text)).logits.item() for text in TEXTS]
    assert found.metric[0] == pytest.approx(np.corrcoef(outputs, values)[0, 1], abs=1e-5)


def test_structural_curve_cuts_what_the_mask_switches_off(model, ranking, unchanged):
    with unchanged(model):
        found = curve(model, ranking, steps=5, structural=True)
    assert found.metric == curve(model, ranking, steps=5).metric
    whole = undecided()
    assert found.parameters[0] == sum(p.numel() for p in whole.parameters())
    prune_heads(whole, ranking.ranking()[:6])
    assert found.parameters[2] == sum(p.numel() for p in whole.parameters())
    assert all(now < before for before, now in zip(found.parameters, found.parameters[1:], strict=False))
    assert all(value > 0 for value in found.latency)


def test_structural_curve_takes_key_value_groups_together():
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    labels = ["film", "bad", "a", "b", "c", "d", "man"]
    scores = importance([[0.1, 0.9, 0.2, 0.3], [0.0, 0.1, 0.7, 0.9], [0.5, 0.5, 0.4, 0.8]])
    found = pruning_curve(model, tokenizer, TEXTS, labels, scores, steps=7, structural=True, progress=False)
    assert found.heads == [0, 2, 4, 6, 8, 10, 12]
    # Groups of two by their mean: layer 1 (0.05), layer 0 (0.25 and 0.5), layer 2 (0.5 and 0.6), layer 1 (0.8).
    groups = [(1, {0, 1}), (0, {2, 3}), (0, {0, 1}), (2, {0, 1}), (2, {2, 3}), (1, {2, 3})]
    taken = [(found.ranking[i][0], {found.ranking[i][1], found.ranking[i + 1][1]}) for i in range(0, 12, 2)]
    assert taken == groups
    single = pruning_curve(model, tokenizer, TEXTS, labels, scores, steps=3, progress=False)
    assert [tuple(pair) for pair in single.ranking] == scores.ranking()


@pytest.mark.parametrize("structural", [True, False])
def test_comparison_takes_the_same_units_in_every_curve(structural):
    """Of a grouped-query model: groups where heads are cut out, heads where they are not."""
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    labels = ["film", "bad", "a", "b", "c", "d", "man"]
    scores = importance([[0.1, 0.9, 0.2, 0.3], [0.0, 0.1, 0.7, 0.9], [0.5, 0.5, 0.4, 0.8]])
    options: dict[str, Any] = {"steps": 5, "structural": structural, "random_seeds": 2, "progress": False}
    found = compare_pruning(model, tokenizer, TEXTS, labels, [scores], **options)
    curves = [*found.curves, *found.random]
    assert len({tuple(each.heads) for each in curves}) == 1
    assert curves[0].heads == ([0, 2, 6, 8, 12] if structural else [0, 3, 6, 9, 12])
    for each in curves:
        pairs = [{tuple(each.ranking[i]), tuple(each.ranking[i + 1])} for i in range(0, ALL, 2)]
        groups = [{(layer, head), (layer, head + 1)} for layer in range(LAYERS) for head in (0, 2)]
        assert all(pair in groups for pair in pairs) == structural
    assert [bool(each.latency) for each in curves] == [structural, False, False, False]
    least, most = found.curves
    own: dict[str, Any] = {"steps": 5, "together": structural, "progress": False}
    assert pruning_curve(model, tokenizer, TEXTS, labels, scores, **own).loss == least.loss
    assert pruning_curve(model, tokenizer, TEXTS, labels, scores, order="most", **own) == most


def test_curve_of_a_pruned_model_goes_over_what_is_left(ranking):
    model = undecided()
    prune_heads(model, {0: [1], 1: list(range(HEADS))})
    found = curve(model, ranking, steps=2, structural=True)
    assert found.total == ALL - HEADS - 1
    assert found.heads == [0, found.total]


# --------------------------------------------------------------------------------------------- comparison


def test_comparison_holds_every_method_in_both_orders_and_random_ones(model, ranking, tmp_path, monkeypatch):
    other = head_importance(model, tiny_tokenizer(), TEXTS, GOLD, "taylor", progress=False)
    options: dict[str, Any] = {"steps": 4, "random_seeds": 3, "progress": False}
    found = compare_pruning(model, tiny_tokenizer(), TEXTS, GOLD, [ranking, other], **options)
    assert [(c.name, c.order) for c in found.curves] == [
        ("loss_difference", "least"),
        ("taylor", "least"),
        ("loss_difference", "most"),
        ("taylor", "most"),
    ]
    assert found.curves[1].metric == curve(model, other, steps=4).metric
    assert [c.name for c in found.random] == ["random", "random (seed=1)", "random (seed=2)"]
    assert len({tuple(map(tuple, c.ranking)) for c in found.random}) == 3
    assert all(c.shared_rows == 0 for c in found.random)
    assert found.curves[0].parameters
    assert not found.curves[2].parameters
    table = found.table()
    assert f"{found.curves[0].area:.4f}" in table
    assert f"{np.mean([c.area for c in found.random]):.4f}" in table
    kept = compare_pruning(
        model, tiny_tokenizer(), TEXTS, GOLD, [ranking, other], resume=tmp_path / "kept", structural=False, **options
    )
    assert len(list((tmp_path / "kept").iterdir())) == 7
    with monkeypatch.context() as patch:
        patch.setattr(BertForSequenceClassification, "forward", lambda *_, **__: pytest.fail("all is done"))
        again = compare_pruning(
            model,
            tiny_tokenizer(),
            TEXTS,
            GOLD,
            [ranking, other],
            resume=tmp_path / "kept",
            structural=False,
            **options,
        )
    assert again == kept
    assert PruningComparison.load(found.save(tmp_path / "curves.json")) == found
    (tmp_path / "junk.json").write_text('{"curves": [{}], "random": []}')
    with pytest.raises(ResultFileError, match="junk"):
        PruningComparison.load(tmp_path / "junk.json")
    with pytest.raises(FileNotFoundError):
        PruningComparison.load(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps=0 must be an int of 2 or more"),
        ({"steps": 1}, ValueError, "steps=1"),
        ({"steps": None}, ValueError, "steps=None must be an int of 2 or more"),
        ({"steps": True}, ValueError, "steps=True"),
        ({"order": None}, ValueError, "order=None is unknown"),
        ({"metric": lambda *_: None}, TypeError, "metric '<lambda>' must return a number, got NoneType: None"),
        ({"metric": lambda *_: [0.5]}, TypeError, "must return a number, got list"),
        ({"structural": True, "together": False}, ValueError, "together=False: with structural=True heads of one"),
        ({"importance": None}, TypeError, "importance must be a HeadImportance, got NoneType"),
        ({"resume": 3}, TypeError, "resume must be a string or a path, not int"),
        ({"steps": 2.0}, ValueError, "steps=2.0"),
        ({"order": "last"}, ValueError, "order='last' is unknown"),
        ({"metric": "f1"}, ValueError, "metric='f1' is unknown; use one of accuracy"),
        ({"metric": 3}, TypeError, "metric=3"),
        ({"metric": "pearson"}, ValueError, "metric='pearson' does not fit a model that gives classes"),
        ({"importance": importance([[1.0, 2.0]])}, ValueError, r"importance has \(1, 2\).*the model \(3, 4\)"),
        ({"importance": [[1.0]]}, TypeError, "importance must be a HeadImportance, got list"),
        ({"examples": []}, ValueError, "examples is empty"),
        ({"labels": GOLD[:2]}, ValueError, "2 labels for 7 examples"),
        ({"batch_size": -1}, ValueError, "batch_size=-1"),
    ],
)
def test_mistake_is_named_before_the_model_runs(model, ranking, monkeypatch, changes, error, message):
    arguments: dict[str, Any] = {"model": model, "tokenizer": tiny_tokenizer(), "examples": TEXTS, "labels": GOLD}
    monkeypatch.setattr(BertForSequenceClassification, "forward", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(error, match=message):
        pruning_curve(**arguments | {"importance": ranking} | changes)


def test_equal_names_are_refused_before_any_work_and_a_dict_names_them(model, ranking, monkeypatch):
    other = head_importance(model, tiny_tokenizer(), TEXTS[3:], GOLD[3:], "loss_difference", progress=False)
    options: dict[str, Any] = {"steps": 2, "random_seeds": 0, "structural": False, "progress": False}
    given = {"first rows": ranking, "last rows": other}
    found = compare_pruning(model, tiny_tokenizer(), TEXTS, GOLD, given, orders=["most"], **options)
    assert [c.name for c in found.curves] == list(given)
    monkeypatch.setattr(BertForSequenceClassification, "forward", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match="two importances are called 'loss_difference'"):
        compare_pruning(model, tiny_tokenizer(), TEXTS, GOLD, [ranking, other], **options)
    with pytest.raises(ValueError, match="orders='least' must be a list"):
        compare_pruning(model, tiny_tokenizer(), TEXTS, GOLD, [ranking], orders="least", **options)


BAD_COMPARISONS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "one importance": ({"importances": importance([[1.0]])}, TypeError, "must be a list or a dict, got HeadImportance"),
    "generator": ({"importances": iter([])}, TypeError, "must be a list or a dict, got list_iterator"),
    "no importance": ({"importances": {}}, ValueError, "importances is empty"),
    "something else": ({"importances": ["taylor"]}, TypeError, "results of head_importance, got str among them"),
    "number for a name": ({"importances": {1: "ranking"}}, TypeError, r"names .* must be strings, got \[1\]"),
    "another model's": ({"importances": {"own": "ranking", "other": "small"}}, ValueError, r"importance has \(1, 2\)"),
    "unknown order": ({"orders": ["least", "last"]}, ValueError, r"orders=\['least', 'last'\] must be a list with"),
    "order twice": ({"orders": ["least", "least"]}, ValueError, "must be a list with 'least', 'most' or both"),
    "no order": ({"orders": []}, ValueError, r"orders=\[\] must be"),
    "nothing for orders": ({"orders": None}, ValueError, "orders=None must be"),
    "unhashable order": ({"orders": [["least"]]}, ValueError, "orders="),
    "negative seeds": ({"random_seeds": -1}, ValueError, "random_seeds=-1 must be an int of 0 or more"),
    "half a seed": ({"random_seeds": 2.5}, ValueError, "random_seeds=2.5"),
    "true seeds": ({"random_seeds": True}, ValueError, "random_seeds=True"),
    "steps": ({"steps": 0}, ValueError, "steps=0"),
    "metric": ({"metric": "pearson"}, ValueError, "metric='pearson' does not fit"),
    "labels": ({"labels": GOLD[1:]}, ValueError, "6 labels for 7 examples"),
    "number for a folder": ({"resume": 7}, TypeError, "resume must be a string or a path, not int: 7"),
    "file for a folder": ({"resume": __file__}, ValueError, "must be a folder, and cannot be made"),
}


@pytest.mark.parametrize("name", BAD_COMPARISONS)
def test_mistake_in_a_comparison_is_named_before_any_work(model, ranking, monkeypatch, tmp_path, name):
    changes, error, message = BAD_COMPARISONS[name]
    given: dict[str, Any] = {"importances": [ranking], "resume": tmp_path / "curves"} | changes
    if isinstance(given["importances"], dict):
        known = {"ranking": ranking, "small": importance([[1.0, 2.0]])}
        given["importances"] = {key: known[value] for key, value in given["importances"].items()}
    monkeypatch.setattr(BertForSequenceClassification, "forward", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(error, match=message):
        compare_pruning(**{"model": model, "tokenizer": tiny_tokenizer(), "examples": TEXTS, "labels": GOLD} | given)
    assert not (tmp_path / "curves").exists()


def test_heads_that_cannot_be_cut_out_are_named_before_any_work(model, ranking, monkeypatch):
    adapted = undecided()
    monkeypatch.setattr(BertForSequenceClassification, "forward", lambda *_, **__: pytest.fail("the model ran"))
    weight_norm(adapted.bert.encoder.layer[2].attention.self.query)
    with pytest.raises(UnsupportedModelError, match="only plain linear maps can be cut"):
        curve(adapted, ranking, structural=True)
    with pytest.raises(UnsupportedModelError, match="only plain linear maps can be cut"):
        compare_pruning(adapted, tiny_tokenizer(), TEXTS, GOLD, [ranking], progress=False)
    with mask_heads(model, {0: [1]}), pytest.raises(ValueError, match="inside mask_heads"):
        curve(model, ranking, structural=True)


def test_numbers_of_numpy_are_numbers(model, ranking):
    plain = curve(model, ranking, steps=3, batch_size=4, truncate=5)
    assert curve(model, ranking, steps=np.int64(3), batch_size=np.int32(4), truncate=np.uint8(5)) == plain
    options: dict[str, Any] = {"structural": False, "progress": False}
    found = compare_pruning(
        model, tiny_tokenizer(), TEXTS, GOLD, {"a": ranking}, steps=np.int64(2), random_seeds=np.int64(1), **options
    )
    assert len(found.random) == 1


def test_curves_of_names_that_look_alike_have_files_of_their_own(model, ranking, tmp_path):
    other = head_importance(model, tiny_tokenizer(), TEXTS, GOLD, "taylor", progress=False)
    given = {"a b": ranking, "a-b": other, "random": other, "x" * 300: ranking}
    options: dict[str, Any] = {"steps": 2, "structural": False, "progress": False, "random_seeds": 1}
    found = compare_pruning(model, tiny_tokenizer(), TEXTS, GOLD, given, resume=tmp_path, **options)
    assert len(list(tmp_path.iterdir())) == 9
    assert compare_pruning(model, tiny_tokenizer(), TEXTS, GOLD, given, resume=tmp_path, **options) == found


def test_importance_of_a_pruned_model_does_not_rank_the_whole_one(model):
    pruned = undecided()
    prune_heads(pruned, {0: [1]})
    partial = head_importance(pruned, tiny_tokenizer(), TEXTS, GOLD, "taylor", progress=False)
    with pytest.raises(ValueError, match=r"no score for 1 heads of the model, the first \(layer, head\) \(0, 1\)"):
        curve(model, partial)


def test_heads_are_not_removed_inside_a_mask(model):
    whole = undecided()
    with mask_heads(whole, {0: [1]}), pytest.raises(ValueError, match="inside mask_heads"):
        prune_heads(whole, {0: [1]})


def test_comparison_of_nothing_is_refused(model):
    with pytest.raises(ValueError, match="importances is empty"):
        compare_pruning(model, tiny_tokenizer(), TEXTS, GOLD, [])


# ------------------------------------------------------------------------------------------ effectiveness


@torch.no_grad()
def test_each_example_loses_or_keeps_its_own_strongest_heads(model):
    found = effectiveness_analysis(model, tiny_tokenizer(), TEXTS, GOLD, batch_size=3, progress=False)
    assert found.heads == list(range(HEADS + 1))
    assert found.rows == len(TEXTS)
    with torch.enable_grad():
        explanations = explain(model, tiny_tokenizer(), TEXTS, GOLD, progress=False)
    for score in ("attribution", "attention"):
        for mode in ("prune", "keep"):
            for k in range(HEADS + 1):
                right, losses = [], []
                for text, label, explanation in zip(TEXTS, GOLD, explanations, strict=True):
                    maps = explanation.attributions if score == "attribution" else explanation.attention
                    ranked = maps.amax((2, 3)).argsort(dim=1, descending=True)
                    off = ranked[:, :k] if mode == "prune" else ranked[:, k:]
                    heads = [(layer, int(head)) for layer in range(LAYERS) for head in off[layer]]
                    if heads:
                        with mask_heads(model, heads):
                            prediction, value = model(**encoded(text)).logits.argmax(), loss(model, text, label)
                    else:
                        prediction, value = model(**encoded(text)).logits.argmax(), loss(model, text, label)
                    right.append(prediction.item() == label)
                    losses.append(value.item())
                assert found.metric[score][mode][k] == pytest.approx(np.mean(right))
                assert found.loss[score][mode][k] == pytest.approx(np.mean(losses), rel=1e-4)


def test_both_ends_of_the_effectiveness_curves_are_the_whole_and_the_empty_model(model):
    found = effectiveness_analysis(model, tiny_tokenizer(), TEXTS, GOLD, progress=False, n_steps=4, target="predicted")
    whole, empty = found.loss["attribution"]["prune"][0], found.loss["attribution"]["prune"][-1]
    assert not math.isclose(whole, empty, rel_tol=1e-3)
    for by_mode in found.loss.values():
        assert by_mode["prune"][0] == pytest.approx(by_mode["keep"][-1]) == pytest.approx(whole)
        assert by_mode["prune"][-1] == pytest.approx(by_mode["keep"][0]) == pytest.approx(empty)
    assert found.options["n_steps"] == 4


def test_effectiveness_is_saved_resumed_and_leaves_the_model_alone(model, tmp_path, unchanged):
    options: dict[str, Any] = {"resume": tmp_path / "run.jsonl", "progress": False}
    with unchanged(model):
        found = effectiveness_analysis(model, tiny_tokenizer(), TEXTS, GOLD, **options)
    assert effectiveness_analysis(model, tiny_tokenizer(), TEXTS, GOLD, **options) == found
    assert Effectiveness.load(found.save(tmp_path / "effectiveness.json")) == found
    with pytest.raises(ValueError, match="another run"):
        effectiveness_analysis(model, tiny_tokenizer(), TEXTS, GOLD, reduce="sum", **options)
    (tmp_path / "junk").write_text("{}")
    with pytest.raises(ResultFileError, match="junk"):
        Effectiveness.load(tmp_path / "junk")
    with pytest.raises(TypeError, match="does not know seed"):
        effectiveness_analysis(model, tiny_tokenizer(), TEXTS, GOLD, seed=1)


def test_effectiveness_of_a_pruned_model_leaves_out_what_is_gone():
    model = undecided()
    prune_heads(model, {0: [1], 1: list(range(HEADS))})
    found = effectiveness_analysis(model, tiny_tokenizer(), TEXTS[:3], GOLD[:3], progress=False)
    for mode in ("prune", "keep"):
        assert len(found.loss["attention"][mode]) == HEADS + 1
    assert found.loss["attribution"]["prune"][3] == pytest.approx(found.loss["attribution"]["keep"][0], abs=1)


def test_steps_beyond_the_heads_are_not_measured_twice(model, ranking):
    found = curve(model, ranking, steps=40)
    assert found.heads == list(range(LAYERS * HEADS + 1))
    assert len(found.metric) == len(found.loss) == len(found.heads)
