"""Results of heads check themselves: what is damaged or of another kind is refused where it is made or read."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from captum_attattr import (
    Correlation,
    Effectiveness,
    HeadImportance,
    PruningComparison,
    PruningCurve,
    ResultFileError,
    importance_correlation,
)

MISSING = object()
NESTED = "[" * 100_000 + "]" * 100_000


def importance(**changes: Any) -> HeadImportance:
    content: dict[str, Any] = {
        "scores": torch.tensor([[0.5, torch.nan, -0.1], [0.2, 0.3, 0.4]], dtype=torch.float64),
        "stderr": torch.full((2, 3), torch.nan, dtype=torch.float64),
        "count": 1,
        "method": "taylor",
        "options": {"normalize": False},
        "labels": ["good", "bäd \ud800"],
        "examples": ["0" * 16],
        "model": "digest",
    }
    return HeadImportance(**content | changes)


def curve(**changes: Any) -> PruningCurve:
    content: dict[str, Any] = {
        "name": "täylor",
        "order": "least",
        "heads": [0, 1, 3],
        "total": 3,
        "metric_name": "accuracy",
        "metric": [0.9, 0.5, float("nan")],
        "loss": [0.1, float("inf"), 2],
        "ranking": [[0, 1], [1, 0], [0, 0]],
        "ranking_rows": 4,
        "evaluation_rows": 5,
        "shared_rows": 2,
        "parameters": [100, 90, 80],
        "latency": [1.0, 0.9, 0.5],
    }
    return PruningCurve(**content | changes)


def comparison() -> PruningComparison:
    return PruningComparison([curve(), curve(order="most", parameters=[], latency=[])], [curve(name="random")])


def effectiveness(**changes: Any) -> Effectiveness:
    curves = {score: {"prune": [0.9, 0.5], "keep": [0.5, 0.9]} for score in ("attribution", "attention")}
    content = {"heads": [0, 1], "metric_name": "accuracy", "metric": curves, "loss": copy.deepcopy(curves), "rows": 5}
    return Effectiveness(**content | {"options": {"target": "gold"}} | changes)


# ------------------------------------------------------------------------------------------ as arguments

WRONG_IMPORTANCES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "text for scores": (
        {"scores": "ab"},
        TypeError,
        "scores of 'taylor (normalize=False)' must be an array of numbers",
    ),
    "truth for scores": ({"scores": torch.ones(2, 3) > 0}, TypeError, "an array of real numbers, not of torch.bool"),
    "complex scores": ({"scores": torch.ones(2, 3) * 1j}, TypeError, "not of torch.complex64"),
    "scores of one layer": ({"scores": torch.ones(3)}, ValueError, "must have the shape (L, H), not (3,)"),
    "no heads": ({"scores": torch.ones(2, 0)}, ValueError, "must have the shape (L, H), not (2, 0)"),
    "infinite score": ({"scores": [[0.0, 1.0, -np.inf]]}, ValueError, "NaN for no head, but [0, 2] is -inf"),
    "no finite score": ({"scores": [[np.nan] * 3] * 2}, ValueError, "no finite score: all of its 6 heads are NaN"),
    "errors of other heads": ({"stderr": torch.ones(3, 2)}, ValueError, "shape (2, 3) of its scores, not (3, 2)"),
    "infinite error": (
        {"stderr": [[np.inf] * 3] * 2},
        ValueError,
        "stderr of 'taylor (normalize=False)' must be finite",
    ),
    "negative error": ({"stderr": [[-1.0] * 3] * 2}, ValueError, "must be finite and not negative"),
    "negative count": ({"count": -1}, ValueError, "count=-1 must be an int of 0 or more"),
    "count and a half": ({"count": 1.5}, ValueError, "count=1.5"),
    "true count": ({"count": True}, ValueError, "count=True"),
    "unknown method": ({"method": "magic"}, ValueError, "method='magic' is unknown; use one of attattr, taylor"),
    "list for a method": ({"method": ["taylor"]}, ValueError, "method=['taylor'] is unknown"),
    "unknown option": ({"options": {"reduce": "max"}}, TypeError, "does not know reduce; its options are normalize"),
    "option's value": ({"options": {"normalize": []}}, ValueError, "normalize=[] is unknown; use one of True, False"),
    "list for options": ({"options": ["normalize"]}, TypeError, "options must be a dict, not list"),
    "number for an option": ({"options": {1: 2}}, TypeError, "names of options must be strings, not int: 1"),
    "quadrature": (
        {"method": "attattr", "options": {"rule": "simpson", "n_steps": 3}},
        ValueError,
        "rule='simpson' is unknown",
    ),
    "no labels": ({"labels": {}}, TypeError, "labels must be a list, not dict: {}"),
    "number for a label": ({"labels": ["a", 1]}, TypeError, "labels must be strings, not int: 1"),
    "text for labels": ({"labels": "ab"}, TypeError, "labels must be a list, not str: 'ab'"),
    "text for examples": ({"examples": "ab"}, TypeError, "examples must be a list, not str"),
    "number for the model": ({"model": 3}, TypeError, "model must be a digest, not int: 3"),
}
WRONG_CURVES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "number for a name": ({"name": 3}, TypeError, "the name of a curve must be a string, not int: 3"),
    "unknown order": (
        {"order": "first"},
        ValueError,
        "the order of curve 'täylor' must be 'least' or 'most', not 'first'",
    ),
    "list for an order": ({"order": ["least"]}, ValueError, "must be 'least' or 'most', not ['least']"),
    "no step": ({"heads": [], "metric": [], "loss": []}, ValueError, "curve 'täylor' has no step"),
    "half a head": ({"heads": [0, 1.5, 3]}, TypeError, "heads of curve 'täylor' must be integers, but [1] is 1.5"),
    "true heads": ({"heads": [0, True, 3]}, TypeError, "but [1] is True"),
    "negative heads": ({"heads": [-1, 1, 3]}, ValueError, "must be 0 or more, but [0] is -1"),
    "falling heads": ({"heads": [0, 3, 1]}, ValueError, "must rise from step to step, not [0, 3, 1]"),
    "heads twice": ({"heads": [0, 1, 1]}, ValueError, "must rise from step to step"),
    "more heads than there are": ({"total": 2, "ranking": []}, ValueError, "0 to total=2 heads off, not 0 to 3"),
    "no head at all": ({"total": 0}, ValueError, "total=0 must be an int of 1 or more"),
    "text for a total": ({"total": "3"}, ValueError, "total='3'"),
    "no metric": ({"metric": None}, TypeError, "metric of curve 'täylor' must be a list, not NoneType"),
    "text in a metric": ({"metric": [1, 2, "a"]}, TypeError, "metric of curve 'täylor' must be numbers"),
    "truth in a loss": ({"loss": [1, 2, True]}, TypeError, "loss of curve 'täylor' must be numbers"),
    "short metric": (
        {"metric": [1]},
        ValueError,
        "metric of curve 'täylor' must have one value for each of the 3 steps",
    ),
    "long loss": ({"loss": [1] * 4}, ValueError, "each of the 3 steps, not the shape (4,)"),
    "no finite metric": ({"metric": [np.nan] * 3}, ValueError, "curve 'täylor' has no finite accuracy"),
    "number for a metric's name": ({"metric_name": 1}, TypeError, "metric_name of curve 'täylor' must be a string"),
    "short ranking": ({"ranking": [[0, 0]]}, ValueError, "must hold each of its total=3 heads once, or be empty"),
    "head ranked twice": ({"ranking": [[0, 0], [0, 0], [1, 1]]}, ValueError, "each of its total=3 heads once"),
    "long ranking": ({"ranking": [[0, 0], [0, 0], [1, 1], [1, 0]]}, ValueError, "each of its total=3 heads once"),
    "head of three": ({"ranking": [[0, 0, 0]]}, ValueError, "ranking[0] of curve 'täylor' must have the shape (2,)"),
    "negative layer": ({"ranking": [[-1, 0]]}, ValueError, "ranking[0] of curve 'täylor' must be 0 or more"),
    "negative rows": ({"ranking_rows": -1}, ValueError, "ranking_rows=-1"),
    "more shared than evaluated": ({"shared_rows": 6}, ValueError, "must be among its 5 evaluation rows"),
    "no parameter": ({"parameters": [0, 1, 1]}, ValueError, "must be above 0 at the first step, not 0"),
    "half a parameter": ({"parameters": [1.5, 1, 1]}, TypeError, "parameters of curve 'täylor' must be integers"),
    "short parameters": ({"parameters": [5]}, ValueError, "parameters of curve 'täylor' must have one value"),
    "short latency": ({"latency": [1.0]}, ValueError, "latency of curve 'täylor' must have one value"),
    "unknown latency": ({"latency": [np.nan] * 3}, ValueError, "latency of curve 'täylor' must be finite"),
    "negative latency": ({"latency": [1, -1, 1]}, ValueError, "latency of curve 'täylor' must be 0 or more, not -1"),
}
ONE = {"prune": [0.9, 0.5], "keep": [0.5, 0.9]}
WRONG_EFFECTIVENESSES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no step": ({"heads": []}, ValueError, "effectiveness has no step: heads is empty"),
    "text for heads": ({"heads": "01"}, TypeError, "heads must be a list, not str"),
    "falling heads": ({"heads": [1, 0]}, ValueError, "heads must rise from step to step"),
    "one step": (
        {"heads": [0]},
        ValueError,
        "metric['attribution']['prune'] must have one value for each of the 1 steps",
    ),
    "no metric": ({"metric": {}}, ValueError, "metric of the effectiveness lacks ['attribution']['prune']"),
    "one score": ({"loss": {"attribution": ONE}}, ValueError, "loss of the effectiveness lacks ['attention']['prune']"),
    "one mode": ({"loss": {"attribution": {"prune": [1, 2]}}}, ValueError, "lacks ['attribution']['keep']"),
    "list of curves": ({"loss": [ONE, ONE]}, TypeError, "loss must be a dict, not list"),
    "curve for a score": ({"loss": {"attribution": [1, 2]}}, TypeError, "loss['attribution'] must be a dict, not list"),
    "third score": ({"loss": {"attribution": ONE, "attention": ONE, "x": ONE}}, ValueError, "loss holds more than"),
    "third mode": ({"loss": {"attribution": ONE | {"x": [1, 2]}}}, ValueError, "loss['attribution'] holds more than"),
    "text for a value": (
        {"metric": {"attribution": {"prune": ["a", 1], "keep": [0, 1]}}},
        TypeError,
        "metric['attribution']['prune'] must be numbers, not ['a', 1]",
    ),
    "no finite metric": (
        {"metric": {"attribution": ONE, "attention": ONE | {"keep": [np.nan] * 2}}},
        ValueError,
        "metric['attention']['keep'] has no finite value: [nan, nan]",
    ),
    "number for a metric's name": ({"metric_name": 1}, TypeError, "metric_name must be a string, not int"),
    "negative rows": ({"rows": -1}, ValueError, "rows=-1 must be an int of 0 or more"),
    "no options": ({"options": None}, TypeError, "options must be a dict, not NoneType"),
    "number for an option": ({"options": {1: 1}}, TypeError, "names of options must be strings"),
}
WRONG = [
    *((importance, *row) for row in WRONG_IMPORTANCES.values()),
    *((curve, *row) for row in WRONG_CURVES.values()),
    *((effectiveness, *row) for row in WRONG_EFFECTIVENESSES.values()),
]
NAMES = [*WRONG_IMPORTANCES, *WRONG_CURVES, *WRONG_EFFECTIVENESSES]


@pytest.mark.parametrize(("make", "changes", "error", "message"), WRONG, ids=NAMES)
def test_result_refuses_a_wrong_part_by_name(make: Any, changes: Any, error: type[Exception], message: str) -> None:
    make()
    with pytest.raises(error, match=re.escape(message)):
        make(**changes)


@pytest.mark.parametrize(
    ("curves", "random", "error", "message"),
    [
        (3, [], TypeError, "curves must be a list, not int: 3"),
        ([], {"a": 1}, TypeError, "random must be a list, not dict"),
        ([3], [], TypeError, "curves must be curves that pruning_curve gives, not int: 3"),
        ([], ["random"], TypeError, "random must be curves that pruning_curve gives, not str"),
        ([curve(), curve()], [], ValueError, "two curves are called 'täylor', least important first"),
        ([curve()], [curve(metric_name="f1")], ValueError, "must have the same metric, not 'accuracy' and 'f1'"),
    ],
)
def test_comparison_refuses_what_cannot_be_compared(
    curves: Any, random: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        PruningComparison(curves, random)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ((1.5, 0.0, 4), ValueError, "pearson must be from -1 to 1, not 1.5"),
        ((0.0, -2.0, 4), ValueError, "spearman must be from -1 to 1"),
        ((0.0, np.inf, 4), ValueError, "spearman must be finite"),
        (("a", 0.0, 4), TypeError, "pearson must be a number, not str"),
        ((0.0, 0.0, 1), ValueError, "heads=1 must be an int of 2 or more"),
        ((0.0, 0.0, True), ValueError, "heads=True"),
    ],
)
def test_correlation_refuses_what_is_none(values: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        Correlation(*values)


def test_correlation_of_an_importance_with_itself_is_one_in_spite_of_rounding() -> None:
    for seed in range(50):
        scores = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * 1e-3 + 1
        found = importance_correlation(*2 * [importance(scores=scores, stderr=scores)])
        assert found.pearson == pytest.approx(1, abs=1e-6)


def test_results_take_arrays_and_numbers_of_any_library_as_pythons_own() -> None:
    given = importance(scores=np.float32([[1, 2, 3]]), stderr=[[0, 0, np.nan]], count=np.int32(7))
    assert (given.scores.dtype, given.stderr.dtype, type(given.count)) == (torch.float64, torch.float64, int)
    with torch.device("meta"):  # stands for any other default
        assert importance(scores=[[1.0, 2.0, 3.0]], stderr=given.stderr).scores.tolist() == [[1, 2, 3]]
    numbers = {"heads": (np.int64(0), torch.tensor(1), 3), "metric": [np.float32(1), torch.tensor(0.5), 0]}
    assert curve(**numbers, total=np.int8(3)) == curve(metric=[1.0, 0.5, 0.0])
    assert effectiveness(heads=[np.int64(0), np.uint8(1)], rows=np.int16(5)) == effectiveness()


# --------------------------------------------------------------------------------------------- as files


def same(first: Any, second: Any) -> bool:
    return all(
        torch.equal(value.nan_to_num(9), getattr(second, name).nan_to_num(9))
        if isinstance(value, Tensor)
        else repr(value) == repr(getattr(second, name))
        for name, value in vars(first).items()
    )


RESULTS: dict[str, Any] = {"importance": importance, "comparison": comparison, "effectiveness": effectiveness}


@pytest.mark.parametrize("kind", RESULTS)
def test_saved_result_comes_back_whole(kind: str, tmp_path: Path) -> None:
    """NaN, infinity, text beyond ASCII and halves of surrogate pairs included."""
    given = RESULTS[kind]()
    assert same(type(given).load(given.save(tmp_path / "result")), given)


def changed(content: Any, path: tuple[Any, ...], value: Any) -> Any:
    """JSON with an entry replaced, added or taken out."""
    if not path:
        return value
    content = copy.deepcopy(content)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is MISSING:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return content


DAMAGED_COMPARISONS: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "list": ((), [], "its content must be an object, not list"),
    "number": ((), 3, "its content must be an object, not int"),
    "nothing": ((), None, "its content must be an object, not NoneType"),
    "empty": ((), {}, "it lacks or adds ['curves', 'random']"),
    "key missing": (("random",), MISSING, "it lacks or adds ['random']"),
    "key added": (("version",), 2, "it lacks or adds ['version']"),
    "object for a list": (("curves",), {}, "curves must be a list, not dict"),
    "number for a curve": (("curves", 0), 3, "a curve must be an object, not int"),
    "curve's key missing": (("random", 0, "loss"), MISSING, "it lacks or adds ['loss']"),
    "curve's key added": (("random", 0, "self"), 3, "it lacks or adds ['self']"),
    "curve twice": (("curves", 1, "order"), "least", "two curves are called"),
    **{
        name: (("curves", 0, next(iter(row[0]))), *row[0].values(), row[2])
        for name, row in WRONG_CURVES.items()
        if len(row[0]) == 1
    },
}
DAMAGED_EFFECTIVENESSES: dict[str, tuple[tuple[Any, ...], Any, str]] = {
    "list": ((), [], "its content must be an object, not list"),
    "empty": ((), {}, "it lacks or adds ['heads', 'loss', 'metric', 'metric_name', 'options', 'rows']"),
    "key missing": (("rows",), MISSING, "it lacks or adds ['rows']"),
    "key added": (("version",), 2, "it lacks or adds ['version']"),
    **{
        name: ((next(iter(row[0])),), *row[0].values(), row[2])
        for name, row in WRONG_EFFECTIVENESSES.items()
        if name != "number for an option"
    },
}
DAMAGED_JSON = [
    *((comparison, *row) for row in DAMAGED_COMPARISONS.values()),
    *((effectiveness, *row) for row in DAMAGED_EFFECTIVENESSES.values()),
]


def refused(kind: type[Any], path: Path, message: str) -> None:
    """Loading names the path, what is wrong, and what to do."""
    with pytest.raises(ResultFileError, match=re.escape(message)) as caught:
        kind.load(path)
    text = str(caught.value)
    assert text.startswith(f"{str(path)!r} ")
    assert text.endswith("make it again") or f"give a file that {kind.__name__}.save wrote, and make it again" in text


@pytest.mark.parametrize(("make", "path", "value", "message"), DAMAGED_JSON)
def test_damaged_json_is_refused_by_what_is_wrong(
    make: Any, path: tuple[Any, ...], value: Any, message: str, tmp_path: Path
) -> None:
    given = make()
    file = given.save(tmp_path / "result.json")
    file.write_text(json.dumps(changed(json.loads(file.read_text()), path, value)))
    refused(type(given), file, message)


DAMAGED_IMPORTANCES: dict[str, tuple[dict[str, Any], str]] = {
    "key missing": ({"count": MISSING}, "it lacks or adds ['count']"),
    "key added": ({"curves": []}, "it lacks or adds ['curves']"),
    "method by name": ({"self": 1}, "it lacks or adds ['self']"),
    "tensor missing": ({"stderr": MISSING}, "it lacks or adds ['stderr']"),
    "tensor added": ({"more": torch.ones(1)}, "it lacks or adds ['more']"),
    "no version": ({"version": MISSING}, "another version of captum_attattr (format None; this one reads 1 to 1)"),
    "newer version": ({"version": 2}, "another version of captum_attattr (format 2; this one reads 1 to 1)"),
    "text for a version": ({"version": "1"}, "(format '1'; this one reads 1 to 1)"),
    "true version": ({"version": True}, "(format True; this one reads 1 to 1)"),
    **{
        name: (changes, message)
        for name, (changes, _, message) in WRONG_IMPORTANCES.items()
        if not any(isinstance(value, str | list) for key, value in changes.items() if key in ("scores", "stderr"))
        and name != "number for an option"
    },
}


@pytest.mark.parametrize("name", DAMAGED_IMPORTANCES)
def test_damaged_importance_is_refused_by_what_is_wrong(name: str, tmp_path: Path) -> None:
    changes, message = DAMAGED_IMPORTANCES[name]
    content = {"version": 1, **vars(importance()), **changes}
    parts = {key: value for key, value in content.items() if value is not MISSING}
    tensors = {key: parts.pop(key) for key in list(parts) if isinstance(parts[key], Tensor)}
    path = tmp_path / "importance.safetensors"
    save_file(tensors, path, {"captum_attattr head importance": json.dumps(parts)})
    refused(HeadImportance, path, message)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "it lacks 'captum_attattr head importance'"),
        ({}, "it lacks 'captum_attattr head importance'"),
        ({"captum_attattr": "{}"}, "it lacks 'captum_attattr head importance'"),
        ({"captum_attattr head importance": ""}, "Expecting value"),
        ({"captum_attattr head importance": "[]"}, "another version of captum_attattr (format None"),
        ({"captum_attattr head importance": "3"}, "another version of captum_attattr (format None"),
        ({"captum_attattr head importance": NESTED}, "it is nested too deeply"),
    ],
)
def test_importance_with_another_header_is_refused(header: Any, message: str, tmp_path: Path) -> None:
    save_file({"scores": torch.ones(1, 1)}, tmp_path / "file", header)
    refused(HeadImportance, tmp_path / "file", message)


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize("content", ["", "junk", "{", NESTED, '{"a":' * 100_000, "\0" * 64, "9" * 5000], ids=range(7))
def test_file_of_something_else_is_refused(kind: str, content: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content.encode() + b"\xff" * (content == "junk"))
    refused(type(RESULTS[kind]()), path, "holds no ")


@pytest.mark.parametrize("kind", RESULTS)
def test_results_of_each_other_are_refused(kind: str, tmp_path: Path) -> None:
    for other, make in RESULTS.items():
        if other != kind:
            refused(type(RESULTS[kind]()), make().save(tmp_path / other), "holds no ")


@pytest.mark.parametrize("kind", RESULTS)
@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (None, TypeError, "path must be a string or a path, not NoneType"),
        (3, TypeError, "path must be a string or a path, not int: 3"),
        (b"file", TypeError, "path must be a string or a path, not bytes"),
        ("nothing", FileNotFoundError, "no file 'nothing'"),
        (".", FileNotFoundError, "no file '.'"),
        ("a\0b", ValueError, "path must not have a NUL byte, which no file's name can"),
    ],
)
def test_what_is_no_file_is_named(kind: str, path: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        type(RESULTS[kind]()).load(path)


# -------------------------------------------------------------------------------------- what curves say


def test_area_of_lines_is_exact_with_every_numpy() -> None:
    """numpy.trapezoid is there since 2.0 only, numpy.trapz before."""
    given = curve(metric=[1.0, 0.4, 0.0])
    assert given.area == pytest.approx((1.0 + 0.4) / 2 / 3 + (0.4 + 0.0) / 2 * 2 / 3)
    assert curve(metric=[0.3] * 3).area == pytest.approx(0.3)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), True, None, "half"])
def test_fraction_of_heads_is_from_0_to_1(share: Any) -> None:
    with pytest.raises(ValueError, match="must be a number from 0 to 1"):
        curve().at(share)


@pytest.mark.parametrize(("share", "step"), [(0, 0), (np.float32(0.3), 1), (torch.tensor(0.9), 2), (1, 2)])
def test_step_of_a_fraction_is_the_nearest(share: Any, step: int) -> None:
    assert curve().at(share) == step


def test_table_has_a_line_for_every_ranking_and_says_when_there_is_none() -> None:
    given = PruningComparison(
        [
            curve(name=name, order=order, metric=[1.0, value, 0.0])
            for name, order, value in (("b", "most", 0.2), ("a", "least", 0.4), ("b", "least", 0.6))
        ],
        [],
    )
    assert [line.split() for line in given.table().splitlines()[2:]] == [
        ["b", "0.4667", "0.2667"],
        ["a", "0.3667", "-"],
    ]
    assert PruningComparison([], []).table() == "no curves"
    assert replace(given, curves=(), random=[curve(metric=[1, 1, 1])]).table().endswith("     1.0000")
