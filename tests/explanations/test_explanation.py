"""`Explanation`: it checks itself, comes back from a file as it was, and sums up what its maps hold."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from explanations.test_explain import TEXTS, assert_same
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from toy import HEADS, LAYERS, tiny_bert, tiny_tokenizer

from captum_attattr import Explanation, ResultFileError, explain

SINCE_1 = {"value", "inputs", "output", "contrast", "contrast_target", "path", "baseline"}
SINCE_1 |= {"total_delta", "total_error", "total_nodes", "layers", "scheme", "attribution"}


@pytest.fixture(scope="module")
def explained() -> list[Explanation]:
    return explain(tiny_bert(), tiny_tokenizer(), TEXTS)


@pytest.fixture
def one(explained) -> Explanation:
    return explained[2]


# --------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_a_file_gives_back_exactly_what_was_saved(explained, number, tmp_path):
    path = tmp_path / "explanation.safetensors"
    assert explained[number].save(path) == path
    assert_same(Explanation.load(path), explained[number])
    assert_same(Explanation.load(str(path)), explained[number])
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_odd_texts_and_missing_errors_survive_a_file(tmp_path):
    text = 'good "film" ünï 电影 😀 \\ \u2028 \t </script>'
    one = explain(tiny_bert(), tiny_tokenizer(), [text], n_steps=2)[0]
    assert bool(one.error.isnan().all())
    assert_same(Explanation.load(one.save(str(tmp_path / "odd name é"))), one)


def test_views_are_saved_as_they_look(one, tmp_path):
    view = dataclasses.replace(one, attributions=one.attributions.mT, attention=one.attributions.mT)
    assert_same(Explanation.load(view.save(tmp_path / "x")), view)


def test_saving_replaces_an_old_file(explained, tmp_path):
    path = explained[0].save(tmp_path / "x")
    explained[1].save(path)
    assert_same(Explanation.load(path), explained[1])
    assert len(list(tmp_path.iterdir())) == 1


def test_a_file_can_be_read_by_whom_the_umask_lets(one, tmp_path):
    (tmp_path / "plain").touch()
    mode = one.save(tmp_path / "x").stat().st_mode
    assert stat.S_IMODE(mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_failed_save_leaves_the_old_file_and_no_other(explained, tmp_path, monkeypatch, error):
    path = explained[0].save(tmp_path / "x")
    before = path.read_bytes()

    def fail(tensors: Any, target: Any, metadata: Any = None) -> None:
        Path(target).write_bytes(b"half a fi")
        raise error("no space left")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    for target in (path, tmp_path / "new"):
        with pytest.raises(error, match="no space left"):
            explained[1].save(target)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x"]


def test_failed_rename_leaves_the_old_file_and_no_other(explained, tmp_path, monkeypatch):
    path = explained[0].save(tmp_path / "x")
    before = path.read_bytes()

    def fail(*args: Any) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(os, "replace", fail)
    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="read-only"):
        explained[1].save(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["x"]


def test_bad_places_to_save(one, tmp_path):
    with pytest.raises((ValueError, OSError), match="nowhere"):
        one.save(tmp_path / "nowhere" / "x")
    with pytest.raises((ValueError, OSError), match="directory"):
        one.save(tmp_path)
    with pytest.raises(TypeError):
        one.save(None)
    assert not list(tmp_path.iterdir())


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file '.*nothing\.safetensors'"):
        Explanation.load(tmp_path / "nothing.safetensors")
    with pytest.raises(FileNotFoundError):
        Explanation.load(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:20],
        lambda data: data + b"\0",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:40] + b"\xff" + data[41:],
        lambda data: b"\0" * 64,
        lambda data: b"tokens\tscores\n" * 9,
        lambda data: pickle.dumps({"tokens": []}),
    ],
)
def test_damaged_file_is_refused_by_name(one, tmp_path, damage):
    path = one.save(tmp_path / "x.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ResultFileError, match=r"x\.safetensors' holds no explanation"):
        Explanation.load(path)


def parts(one: Explanation) -> tuple[dict[str, Tensor], dict[str, Any]]:
    values = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    for name in SINCE_1:
        del values[name]
    tensors = {name: value.contiguous() for name, value in values.items() if isinstance(value, Tensor)}
    return tensors, {name: value for name, value in values.items() if name not in tensors}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (lambda rest: None, "holds no explanation"),
        (lambda rest: {"format": "pt"}, "holds no explanation"),
        (lambda rest: {"captum_attattr": "{"}, "holds no explanation"),
        (lambda rest: {"captum_attattr": "[]"}, "another version"),
        (lambda rest: {"captum_attattr": "null"}, "another version"),
        (lambda rest: {"captum_attattr": json.dumps(rest)}, "another version"),
        (lambda rest: {"captum_attattr": json.dumps({"version": 5, **rest})}, "another version"),
        (lambda rest: {"captum_attattr": json.dumps({"version": 1, "text": "a"})}, r"lacks or adds \['label', 'pred"),
        (lambda rest: {"captum_attattr": json.dumps({"version": 1, "more": 1, **rest})}, r"adds \['more'\]"),
    ],
)
def test_foreign_file_is_refused_by_name(one, tmp_path, header, message):
    tensors, rest = parts(one)
    save_file(tensors, tmp_path / "x", metadata=header(rest))
    with pytest.raises(ResultFileError, match=f"x' .*{message}"):
        Explanation.load(tmp_path / "x")


def test_file_with_other_tensors_is_refused(one, tmp_path):
    _, rest = parts(one)
    save_file(
        {"weight": torch.zeros(3)}, tmp_path / "x", metadata={"captum_attattr": json.dumps({"version": 1, **rest})}
    )
    with pytest.raises(ResultFileError, match=r"\['attention', 'attributions', .*'weight'\]"):
        Explanation.load(tmp_path / "x")


def test_result_file_error_is_a_value_error():
    assert issubclass(ResultFileError, ValueError)


@pytest.mark.parametrize(("probability", "output"), [(0.875, "probability"), (-3.25, "score"), (1.5, "score")])
def test_files_of_version_1_load(tmp_path, probability, output):
    """As 0.1 wrote them: without value, inputs and output."""
    tensors = {"attributions": torch.randn(2, 3, 4, 4), "attention": torch.rand(2, 3, 4, 4), "delta": torch.zeros(2)}
    tensors |= {"error": torch.full((2,), torch.nan), "nodes": torch.tensor([5, 9])}
    rest = {"tokens": ["[CLS]", "a", "b", "[SEP]"], "target": 1, "label": "positive", "probability": probability}
    rest |= {"prediction": 1, "text": ["a", "b"], "segments": [0, 0, 1, 1], "special": [True, False, False, True]}
    save_file(tensors, tmp_path / "x", metadata={"captum_attattr": json.dumps({"version": 1, **rest})})
    loaded = Explanation.load(tmp_path / "x")
    assert (loaded.value, loaded.inputs, loaded.output) == (probability, None, output)
    assert (loaded.contrast, loaded.path, loaded.baseline, loaded.total_nodes) == (None, "layer", "zero", 14)
    for name, tensor in tensors.items():
        torch.testing.assert_close(getattr(loaded, name), tensor, rtol=0, atol=0, equal_nan=True)
    for name, value in (rest | {"text": ("a", "b")}).items():
        assert getattr(loaded, name) == value
    assert_same(Explanation.load(loaded.save(tmp_path / "again")), loaded)


def test_files_of_version_2_load(one, tmp_path):
    """As they were before outputs other than probabilities: with value, inputs and output, and nothing later."""
    path = one.save(tmp_path / "x")
    with safe_open(path, framework="pt") as file:
        content = json.loads(file.metadata()["captum_attattr"]) | {"version": 2}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    for name in SINCE_1 - {"value", "inputs", "output"}:
        del content[name]
    save_file(tensors, tmp_path / "y", metadata={"captum_attattr": json.dumps(content)})
    assert_same(Explanation.load(tmp_path / "y"), dataclasses.replace(one, scheme=""))


NESTED = "[" * 100_000

# What a file's tensors and header are changed to: by name, or the whole header's text; None takes a name out.
HOSTILE: dict[str, tuple[dict[str, Any], Any, str]] = {
    "tokens are a number": ({}, {"tokens": 5}, "tokens must be a list, not int: 5"),
    "tokens are a text": ({}, {"tokens": "abcdefgh"}, "tokens must be a list, not str"),
    "tokens are numbers": ({}, {"tokens": [1] * 8}, "tokens must be strings, not int: 1"),
    "too few tokens": ({}, {"tokens": ["a"]}, "attributions must be 1 x 1 for 1 token, not 8 x 8"),
    "no token": ({}, {"tokens": []}, "attributions must be 0 x 0 for 0 tokens, not 8 x 8"),
    "maps are not square": ({"attributions": torch.zeros(3, 4, 8, 7)}, {}, "attributions must be 8 x 8 .*, not 8 x 7"),
    "maps of one layer only": ({"attention": torch.zeros(1, 4, 8, 8)}, {}, r"attention has the shape \(1, 4, 8, 8\)"),
    "maps of three dimensions": (
        {"attention": torch.zeros(4, 8, 8)},
        {},
        r"attention must have the shape \(L, H, T, T",
    ),
    "no layer": ({"attributions": torch.zeros(0, 4, 8, 8)}, {}, r"all above 0, not \(0, 4, 8, 8\)"),
    "maps of integers": ({"attributions": torch.zeros(3, 4, 8, 8).int()}, {}, "must hold floating-point numbers, not"),
    "maps of truth values": ({"attention": torch.zeros(3, 4, 8, 8) > 0}, {}, "must hold floating-point numbers, not"),
    "maps with NaN": ({"attributions": torch.full((3, 4, 8, 8), torch.nan)}, {}, r"attributions\[0, 0, 0, 0\] is nan"),
    "delta of another length": ({"delta": torch.zeros(2)}, {}, r"delta must have the shape \(3,\), not \(2,\)"),
    "inputs of another length": ({"inputs.input_ids": torch.zeros(1, 7)}, {}, r"inputs\['input_ids'\] must have the"),
    "another tensor": ({"weight": torch.zeros(1)}, {}, r"it lacks or adds \['weight'\]"),
    "a tensor twice": ({}, {"delta": 3}, "multiple values"),
    "no attention": ({"attention": None}, {}, r"it lacks or adds \['attention'\]"),
    "no text": ({}, {"text": None}, r"it lacks or adds \['text'\]"),
    "no tokens": ({}, {"tokens": None}, r"it lacks or adds \['tokens'\]"),
    "three texts": ({}, {"text": ["a", "b", "c"]}, "text must be a string or a pair of strings, not .'a', 'b', 'c'"),
    "text of numbers": ({}, {"text": [1, 2]}, "text must be strings, not int: 1"),
    "special of strings": ({}, {"special": ["yes"] * 8}, r"special must be True or False, but \[0\] is 'yes'"),
    "special of another length": ({}, {"special": [True]}, r"special must have the shape \(8,\), not \(1,\)"),
    "segments of fractions": ({}, {"segments": [0.5] * 8}, r"segments must be integers, but \[0\] is 0.5"),
    "target of a name": ({}, {"target": "positive"}, "target='positive' must be an int of 0 or more"),
    "target of an object": ({}, {"target": {"a": 1}}, "target={'a': 1} must be an int of 0 or more"),
    "label of a number": ({}, {"label": 3}, "label must be a string, not int: 3"),
    "probability of a text": ({}, {"probability": "high"}, "probability must be a number, not str: 'high'"),
    "infinite probability": ({}, {"probability": float("inf")}, "probability must be finite, not inf"),
    "attribution of another kind": ({}, {"attribution": "guess"}, "attribution='guess' is unknown"),
    "attribution of another path": ({}, {"attribution": "attattr_joint"}, "does not go with path='layer'"),
    "output of another kind": ({}, {"output": "odds"}, "output='odds' is unknown; use one of probability, logit"),
    "output that does not fit": ({}, {"probability": 3.0}, "probability must be from 0 to 1, not 3.0"),
    "header is a list": ({}, "[1, 2]", "was written by another version"),
    "header is a number": ({}, "7", "was written by another version"),
    "header is nested": ({}, NESTED, "it is nested too deeply"),
    "header is half": ({}, '{"version": 2, "tok', "holds no explanation"),
    "header is another one": ({}, None, "it lacks 'captum_attattr'"),
    "a later version": (
        {},
        {"version": 5},
        r"format 5; this one reads 1 to 4\): read it with that version, or make it",
    ),
    "version of a truth value": ({}, {"version": True}, "format True"),
    "no version": ({}, {"version": None}, "format None"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_with_path_reason_and_remedy(one, tmp_path, name):
    changed, header, message = HOSTILE[name]
    values = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
    inputs = {f"inputs.{key}": tensor for key, tensor in values.pop("inputs").items()}
    tensors = inputs | {key: values.pop(key) for key, value in list(values.items()) if isinstance(value, Tensor)}
    tensors = {key: value.contiguous() for key, value in (tensors | changed).items() if value is not None}
    if isinstance(header, dict):
        content = {"version": 4, **values} | header
        content = {key: value for key, value in content.items() if key not in header or value is not None}
        header = json.dumps(content)
    save_file(tensors, tmp_path / "x", metadata={"format": "pt"} if header is None else {"captum_attattr": header})
    with pytest.raises(ResultFileError, match=message) as error:
        Explanation.load(tmp_path / "x")
    assert repr(str(tmp_path / "x")) in str(error.value)
    assert "make it again" in str(error.value)


@pytest.mark.parametrize("path", [None, 3, b"x", ["x"]], ids=repr)
def test_what_is_no_path_is_refused(path):
    with pytest.raises(TypeError, match="path must be a string or a path, not "):
        Explanation.load(path)


# -------------------------------------------------------------------------------------- it checks itself


def made(**changes: Any) -> Explanation:
    """An explanation of 2 layers, 3 heads and 4 tokens."""
    values: dict[str, Any] = {
        "tokens": ["[CLS]", "good", "film", "[SEP]"],
        "attributions": torch.arange(96.0).reshape(2, 3, 4, 4),
        "attention": torch.full((2, 3, 4, 4), 0.25),
        "delta": torch.zeros(2),
        "error": torch.zeros(2),
        "nodes": torch.tensor([5, 9]),
        "target": 1,
        "label": "positive",
        "probability": 0.875,
        "prediction": 1,
        "text": "good film",
        "segments": [0, 0, 0, 0],
        "special": [True, False, False, True],
        "value": 0.875,
        "inputs": {"input_ids": torch.tensor([[2, 4, 5, 3]])},
        "output": "probability",
    }
    return Explanation(**values | changes)


NAN, INF = float("nan"), float("inf")
MAPS = torch.zeros(2, 3, 4, 4)
NO_TENSOR = [None, "maps", [["a"]], {"a": 1}, len]
NO_NUMBER = [None, "1", [1], True, 1j]
NO_INDEX = [*NO_NUMBER, -1, 1.0, NAN, 2**70 * -1]
NO_MAPS = [
    *(
        *NO_TENSOR,
        MAPS > 0,
        MAPS.to(torch.complex64),
        MAPS[0],
        MAPS[:, :, :3],
        MAPS[:, :, :, :3],
        MAPS[:0],
        MAPS[:, :0],
    ),
    *(MAPS[:1], MAPS[:, :2], MAPS + NAN, MAPS + INF, torch.zeros(2, 3, 5, 5), torch.zeros(2, 3, 0, 0)),
]
NO_LAYERS = [*NO_TENSOR, torch.zeros(3), torch.zeros(0), torch.zeros(2, 1), torch.tensor(1.0), torch.zeros(2) > 0]
WRONG: dict[str, list[Any]] = {
    "tokens": [None, 5, "abcd", ["a"] * 3, [], [1, 2, 3, 4], ["a", "b", "c", None], {"a"}],
    "attributions": NO_MAPS,
    "attention": NO_MAPS[1:],
    "delta": [*NO_LAYERS, torch.tensor([0.0, INF])],
    "error": NO_LAYERS,
    "nodes": [*NO_LAYERS, torch.tensor([5.0, NAN]), torch.tensor([5.0, INF])],
    "target": NO_INDEX,
    "label": [None, 3, b"a", ["a"]],
    "probability": [*NO_NUMBER, INF, -INF, -0.1, 1.1],
    "prediction": NO_INDEX,
    "text": [None, 3, b"a", [], (), ("a",), ("a", "b", "c"), ("a", 1), ["a", "b"]],
    "contrast": [3, b"a", ["a"], "negative"],  # a name without its index
    "contrast_target": [0, 1, -1, 1.5, "2"],  # without its name
    "path": [None, 0, "", "both", ["layer"]],
    "attribution": [None, 3, "guess", "attattr_joint"],
    "baseline": ["", "zeros", [0.0], INF, NAN, True, 1j],
    "layers": [0, "01", [0], [0, 1, 2], [1, 0], [1, 1], [0.0, 1.0], [-1, 0], [True, False]],
    "scheme": [None, 0, "wordpieces", ["bytes"]],
    "note": [None, 0, ["a"]],
    "total_delta": [*NO_NUMBER, INF],
    "total_error": [*NO_NUMBER, -1.0],
    "total_nodes": [*NO_INDEX[1:]],
    "segments": [None, 0, "0000", [0] * 3, [], [0.0] * 4, [None] * 4, [-1] * 4, [True] * 4],
    "special": [None, True, "abcd", [True] * 3, [], ["yes"] * 4, [None] * 4, [2] * 4, [NAN] * 4],
    "value": [*NO_NUMBER[1:], INF, -INF],
    "inputs": [
        *(0, "", "ids", [], {}, MAPS, {1: torch.ones(1, 4)}, {"input_ids": None}, {"input_ids": "ids"}),
        *({"input_ids": torch.ones(4)}, {"input_ids": torch.ones(1, 3)}, {"input_ids": torch.ones(2, 4)}),
        {"input_ids": torch.full((1, 4), NAN)},
    ],
    "output": [None, 0, "odds", "Probability", "log-probability", ["probability"]],
    "task": [None, 0, "answers", "Question_answering", ["question_answering"]],
    "positions": [None, 3, "12", [4], [-1], [2, 1], [0.5], [None], {"a"}],
}


def test_every_field_is_in_the_table():
    assert WRONG.keys() == {field.name for field in dataclasses.fields(Explanation)}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values], ids=lambda v: f"{v!r:.40}"
)
def test_a_field_that_does_not_fit_is_named(name, value):
    with pytest.raises((TypeError, ValueError), match=name.removesuffix("s")):
        made(**{name: value})
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(made(), **{name: value})


RIGHT: dict[str, tuple[Any, Any]] = {
    "maps of numpy": ({"attributions": np.zeros((2, 3, 4, 4))}, ("attributions", torch.zeros(2, 3, 4, 4).double())),
    "maps in lists": ({"attributions": MAPS.tolist()}, ("attributions", MAPS)),
    "maps of integers": ({"attributions": MAPS.int()}, ("attributions", MAPS)),
    "tuple of tokens": ({"tokens": ("a", "b", "c", "d")}, ("tokens", ["a", "b", "c", "d"])),
    "unknown delta": ({"delta": torch.full((2,), INF * 0)}, ("delta", torch.full((2,), NAN))),
    "infinite error": ({"error": torch.tensor([NAN, INF])}, ("error", torch.tensor([NAN, INF]))),
    "numpy's target": ({"target": np.int64(2)}, ("target", 2)),
    "tensor's target": ({"target": torch.tensor(2)}, ("target", 2)),
    "numpy's probability": ({"probability": np.float32(0.5)}, ("probability", 0.5)),
    "tensor's value": ({"value": torch.tensor(-2.0)}, ("value", -2.0)),
    "value not given": ({"value": None, "probability": 0.25}, ("value", 0.25)),
    "whole probability": ({"probability": 1}, ("probability", 1.0)),
    "score": ({"probability": -3.25, "output": "score"}, ("probability", -3.25)),
    "logit": ({"output": "logit", "value": -3.25}, ("value", -3.25)),
    "log-probability": ({"output": "log_probability", "value": -0.125}, ("output", "log_probability")),
    "contrast": ({"contrast": "negative", "contrast_target": 0, "value": -0.5}, ("contrast", "negative")),
    "contrast of numpy": ({"contrast": "negative", "contrast_target": np.int64(0)}, ("contrast_target", 0)),
    "joint path": ({"path": "joint", "delta": torch.full((2,), INF * 0)}, ("path", "joint")),
    "total delta not known": ({}, ("total_delta", NAN)),
    "total error": ({"total_error": np.float32(INF)}, ("total_error", INF)),
    "total nodes of the layers": ({}, ("total_nodes", 14)),
    "total nodes of all layers together": ({"total_nodes": torch.tensor(9)}, ("total_nodes", 9)),
    "no attention": ({"attention": None}, ("attention", None)),
    "layers not given": ({}, ("layers", [0, 1])),
    "layers of a range": ({"layers": range(3, 5)}, ("layers", [3, 4])),
    "layers of numpy": ({"layers": [np.int64(2), np.int64(5)]}, ("layers", [2, 5])),
    "maps of half precision": ({"attributions": MAPS.bfloat16()}, ("attributions", MAPS.bfloat16())),
    "sink": ({"baseline": "sink"}, ("baseline", "sink")),
    "number": ({"baseline": np.float32(0.5)}, ("baseline", 0.5)),
    "number 0": ({"baseline": 0}, ("baseline", "zero")),
    "score in [0, 1]": ({"output": "score"}, ("output", "score")),
    "output not given": ({"output": ""}, ("output", "probability")),
    "output of a score not given": ({"probability": -3.25, "output": ""}, ("output", "score")),
    "output of what is not known": ({"probability": NAN, "output": ""}, ("output", "probability")),
    "pair": ({"text": ("a", "")}, ("text", ("a", ""))),
    "flags of numpy": ({"special": list(np.array([1, 0, 0, 1], dtype=bool))}, ("special", [True, False, False, True])),
    "flags as integers": ({"special": [1, 0, 0, 1]}, ("special", [True, False, False, True])),
    "segments of numpy": ({"segments": list(np.array([0, 0, 1, 1]))}, ("segments", [0, 0, 1, 1])),
    "no inputs": ({"inputs": None}, ("inputs", None)),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_fits_is_kept_as_pythons_own(name, tmp_path):
    changes, (field, expected) = RIGHT[name]
    explanation = made(**changes)
    for one in (explanation, Explanation.load(explanation.save(tmp_path / "x"))):
        value = getattr(one, field)
        assert type(value) is type(expected)
        if isinstance(expected, Tensor):
            torch.testing.assert_close(value, expected, rtol=0, atol=0, equal_nan=True)
        else:
            assert value == expected or (value != value and expected != expected)


# ------------------------------------------------------------------------------------------ token_scores


def test_token_scores_are_the_columns_sums():
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    one = made(attributions=maps)
    for key in range(4):
        by_layer = [sum(float(maps[i, h, q, key]) for h in range(3) for q in range(4)) for i in range(2)]
        assert float(one.token_scores()[key]) == pytest.approx(sum(by_layer) / 2, abs=1e-6)
        for layer in (0, np.int64(1), torch.tensor(1)):
            assert float(one.token_scores(layer)[key]) == pytest.approx(by_layer[int(layer)], abs=1e-6)
    torch.testing.assert_close(made().token_scores(0), torch.tensor([12 * 22.0 + 12 * k for k in range(4)]))


def test_token_scores_add_up_to_what_the_layers_gained(explained):
    for one in explained:
        gained = one.attributions.sum((1, 2, 3))
        torch.testing.assert_close(one.token_scores().sum(), gained.mean(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(one.token_scores(2).sum(), gained[2], rtol=1e-4, atol=1e-6)


def test_on_the_joint_path_the_sum_of_the_layers_stands_for_their_mean():
    torch.testing.assert_close(made(path="joint").token_scores(), 2 * made().token_scores())
    torch.testing.assert_close(made(path="joint").token_scores(1), made().token_scores(1))


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (2, ValueError, "layer must be from 0 to 1, not 2"),
        (-1, ValueError, "layer must be from 0 to 1, not -1"),
        (0.0, TypeError, "layer must be an integer, not float: 0.0"),
        (True, TypeError, "layer must be an integer, not bool: True"),
        ("0", TypeError, "layer must be an integer, not str: '0'"),
        ([0], TypeError, "layer must be an integer, not list"),
    ],
)
def test_layers_that_are_not_there_have_no_token_scores(layer, error, message):
    with pytest.raises(error, match=message):
        made().token_scores(layer)


# ----------------------------------------------------------------------------------------------- strongest


def test_strongest_sorts_all_interactions(explained):
    for one in explained:
        everything = one.strongest(10**6)
        assert len(everything) == one.attributions.numel()
        scores = [score for *_, score in everything]
        assert scores == sorted(scores, reverse=True)
        for layer, head, query, key, score in everything[:20] + everything[-20:]:
            assert float(one.attributions[layer, head, query, key]) == score
        assert one.strongest(3) == everything[:3]
        assert len(one.strongest()) == 10


def test_strongest_without_special_tokens(one):
    found = one.strongest(10**6, special=False)
    words = {i for i, special in enumerate(one.special) if not special}
    assert len(found) == LAYERS * HEADS * len(words) ** 2
    assert {query for _, _, query, _, _ in found} == {key for _, _, _, key, _ in found} == words
    everything = [row for row in one.strongest(10**6) if row[2] in words and row[3] in words]
    assert sorted(found) == sorted(everything)
