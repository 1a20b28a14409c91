"""A result of faithfulness: it checks itself, its numbers are the measures', it is read as it was written."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from results import faithfulness

from captum_attattr import Faithfulness, ResultFileError
from captum_attattr.evaluation import measures
from captum_attattr.evaluation.result import MEASURES

N, K, C = 20, 5, 3


def test_means_and_values_are_those_of_the_measures() -> None:
    result = faithfulness(keep_absolute=torch.rand(N, K, dtype=torch.float64))
    f, g = (measures.recovered(result.full, result.empty, each) for each in (result.keep, result.keep_absolute))
    expected = {
        "comprehensiveness": (result.full[:, None] - result.delete).mean(1),
        "sufficiency": (result.full[:, None] - result.keep).mean(1),
        "top_comprehensiveness": (result.full[:, None] - result.delete_top).mean(1),
        "top_sufficiency": (result.full[:, None] - result.keep_top).mean(1),
        "cpr": measures.cpr(result.fractions, f),  # by signed score
        "cmd": measures.cmd(result.fractions, g),  # by absolute score
    }
    assert set(expected) == set(MEASURES)
    for name, values in expected.items():
        torch.testing.assert_close(result.values(name), torch.as_tensor(values), msg=name)
        assert getattr(result, name) == pytest.approx(float(values.mean()))
        assert result.interval(name) == measures.interval(values)[1:]
        assert result.interval(name, 0.5) == measures.interval(values, 0.5)[1:]


def test_a_circuit_that_does_all_from_the_first_unit_on() -> None:
    result = faithfulness()
    whole = result.full[:, None].expand(N, K)
    perfect = faithfulness(full=result.full, empty=result.empty, keep=whole, keep_absolute=whole)
    assert perfect.cpr == pytest.approx(1 - 0.001)
    assert perfect.cmd == pytest.approx(0)
    assert perfect.sufficiency == pytest.approx(0)


@pytest.mark.parametrize(("output", "left_out"), [("probability", 2), ("logit", 1)])
def test_examples_on_which_attention_does_nothing_are_left_out_and_counted(output: str, left_out: int) -> None:
    """.02 is little of a probability; of the largest difference, .1, it is a fifth."""
    full, empty = torch.full((N,), 0.6), torch.full((N,), 0.5)
    full[3], full[5] = 0.52, 0.5
    result = faithfulness(full=full, empty=empty, output=output)
    assert result.left_out == left_out
    assert result.values("cpr").isnan().nonzero().flatten().tolist() == ([3, 5] if left_out == 2 else [5])
    assert not result.values("sufficiency").isnan().any()
    assert math.isfinite(result.cpr)
    assert f"({left_out} left out)" in repr(result)
    assert result.table().count(f"({left_out} left out)") == 2


def test_all_examples_left_out() -> None:
    result = faithfulness(full=[0.5] * N, empty=[0.5] * N)
    assert result.left_out == N
    assert math.isnan(result.cpr)
    assert math.isnan(result.cmd)
    assert "20 left out" in result.table()
    with pytest.warns(UserWarning, match="cpr: no interval of 0 examples"):
        assert np.isnan(result.interval("cpr")).all()


def test_no_small_sets() -> None:
    nothing = np.empty((N, 0))
    result = faithfulness(counts=[], keep_top=nothing, delete_top=nothing)
    assert math.isnan(result.top_sufficiency)
    assert "top 1" not in result.table()
    assert "top" in faithfulness().table()


@pytest.mark.parametrize("count", [1, 4])
def test_few_examples_have_means_and_one_warning(count: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = faithfulness(count)
        assert repr(result)
        assert math.isfinite(result.cpr)
    for ask in (lambda: result.interval("cmd"), result.table):
        with pytest.warns(UserWarning, match=f"no interval of {count} example") as warned:
            ask()
        assert len(warned) == 1
    with pytest.warns(UserWarning, match="no interval"):
        assert " to " not in result.table().split("probability: 0.9")[0].replace("top 1 to 4", "")


def test_table_has_curves_and_small_sets_beside_the_means() -> None:
    result = faithfulness(attribution="attattr", path="joint", baseline="sink")
    lines = result.table().splitlines()
    assert lines[0] == (
        "attattr, joint path from the baseline sink: probability, 20 examples, edges removed: their attention is 0"
    )
    assert [line.split("  ")[0] for line in lines[2:8]] == [
        "comprehensiveness",
        "sufficiency",
        "comprehensiveness, top 1 to 4",
        "sufficiency, top 1 to 4",
        "CPR",
        "CMD",
    ]
    cells = [line.split() for line in lines[10:]]
    assert [" ".join(line[:-2]) for line in cells] == ["0.1 %", "1 %", "10 %", "50 %", "100 %", "1", "2", "4"]
    assert [float(line[-2]) for line in cells[:K]] == result.keep.mean(0).numpy().round(3).tolist()
    assert [float(line[-1]) for line in cells[K:]] == result.delete_top.mean(0).numpy().round(3).tolist()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "attattr"),
        ({"attribution": "attattr_joint", "path": "joint"}, "attattr_joint"),
        ({"path": "joint"}, "attattr, joint path"),
        ({"attribution": "gradient_attention", "baseline": 0.25}, "gradient_attention, from the baseline 0.25"),
    ],
)
def test_name_tells_what_is_not_usual(changes: Any, name: str) -> None:
    assert faithfulness(**changes).name == name


def test_repr_is_short_whatever_the_names_are() -> None:
    assert len(repr(faithfulness(attribution="a\u202e\n" * 400))) <= 500
    assert "\n" not in repr(faithfulness(attribution="a\nb"))


# ------------------------------------------------------------------------------------------ wrong parts

WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no example": ({"full": []}, ValueError, r"full must have the shape \(N,\), all above 0, not \(0,\)"),
    "text for numbers": ({"full": "abc"}, TypeError, "full must be an array of numbers, not str"),
    "full of two axes": ({"full": np.ones((N, 1))}, ValueError, r"full must have the shape \(N,\)"),
    "NaN in full": ({"full": [math.nan] * N}, ValueError, r"full must be finite, but full\[0\] is nan"),
    "empty of other examples": ({"empty": [0.5]}, ValueError, r"empty must have the shape \(20,\), not \(1,\)"),
    "keep of other fractions": ({"keep": np.ones((N, 2))}, ValueError, r"keep must have the shape \(20, 5\), not"),
    "ragged delete": ({"delete": [[1.0], [1.0, 2.0]]}, ValueError, "delete must be an array, but its rows"),
    "infinite delete": ({"delete": np.full((N, K), np.inf)}, ValueError, r"delete\[0, 0\] is inf"),
    "absolute turned": ({"keep_absolute": np.ones((K, N))}, ValueError, "keep_absolute must have the shape"),
    "other counts": ({"counts": [1, 2]}, ValueError, r"keep_top must have the shape \(20, 2\), not \(20, 3\)"),
    "truth for numbers": ({"delete_top": np.ones((N, C)) > 0}, TypeError, "delete_top must be an array of real"),
    "no fraction": ({"fractions": []}, ValueError, "fractions is empty"),
    "fraction above one": ({"fractions": [0.1, 0.2, 0.3, 0.4, 2]}, ValueError, r"at most 1, but \[4\] is 2"),
    "fractions twice": ({"fractions": [0.1, 0.1, 0.3, 0.4, 1]}, ValueError, "fractions must rise"),
    "count of nothing": ({"counts": [0, 1, 2]}, ValueError, "counts must be 1 or more"),
    "units of other examples": ({"units": [3]}, ValueError, r"units must have the shape \(20,\), not \(1,\)"),
    "no unit": ({"units": [0] * N}, ValueError, "units must be 1 or more"),
    "unknown unit": ({"unit": "word"}, ValueError, "unit='word' is unknown; use one of edge, head, token, layer_edge"),
    "list for a unit": ({"unit": ["edge"]}, ValueError, r"unit=\['edge'\] is unknown"),
    "unknown removal": ({"removal": "mean"}, ValueError, "removal='mean' is unknown; use one of zero, sink, replace"),
    "unknown path": ({"path": "curved"}, ValueError, "path='curved' is unknown; use one of layer, joint"),
    "number for an attribution": ({"attribution": 3}, TypeError, "attribution must be a string, not int"),
    "number for an output": ({"output": None}, TypeError, "output must be a string, not NoneType"),
    "list for a baseline": ({"baseline": []}, TypeError, "baseline must be a number"),
    "no heads": ({"heads": np.ones((3, 0))}, ValueError, r"heads must have the shape \(3, H\)"),
    "infinite head": ({"heads": np.full((3, 4), np.inf)}, ValueError, "heads must be finite"),
    "layers of other heads": ({"layers": [0, 1]}, ValueError, r"heads must have the shape \(2, H\)"),
    "layer twice": ({"layers": [0, 1, 1]}, ValueError, "layers must be different ones"),
}


@pytest.mark.parametrize(("changes", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_parts(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        faithfulness(**changes)


@pytest.mark.parametrize("name", ["", "CPR", "accuracy", None])
def test_unknown_measure(name: Any) -> None:
    for ask in (faithfulness().values, faithfulness().interval):
        with pytest.raises(ValueError, match="is unknown; use one of comprehensiveness, sufficiency"):
            ask(name)


@pytest.mark.parametrize("confidence", [0, 1, 2, "a", None, math.nan])
def test_wrong_confidence(confidence: Any) -> None:
    with pytest.raises(ValueError, match="confidence="):
        faithfulness().interval("cpr", confidence)


def test_lists_keep_their_precision() -> None:
    assert faithfulness(1, full=[0.1], empty=[0.3]).full.tolist() == [0.1]
    single = faithfulness(full=torch.full((N,), 0.1))
    assert single.full.dtype == torch.float64
    assert single.full[0].item() == np.float32(0.1)


# ------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"baseline": 0.5, "attribution": "bäd \ud800", "heads": np.full((3, 4), np.nan)},
        {"counts": [], "keep_top": np.empty((N, 0)), "delete_top": np.empty((N, 0)), "layers": [2, 5, 7]},
    ],
)
def test_read_as_it_was_written(tmp_path: Path, changes: Any) -> None:
    result = faithfulness(**changes)
    again = Faithfulness.load(result.save(tmp_path / "result.safetensors"))
    for field in fields(result):
        one, other = getattr(result, field.name), getattr(again, field.name)
        if isinstance(one, torch.Tensor):
            torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
        else:
            assert one == other, field.name


def test_damaged_files(tmp_path: Path) -> None:
    path = faithfulness().save(tmp_path / "result.safetensors")
    whole = path.read_bytes()
    damaged = {
        "cut": whole[:-8],
        "another unit": whole.replace(b'\\"edge\\"', b'\\"word\\"'),
        "no such part": whole.replace(b'"keep_top"', b'"kept_top"'),
        "a newer version": whole.replace(b'\\"version\\": 1', b'\\"version\\": 2'),
        "json": b"{}",
    }
    for name, content in damaged.items():
        assert content != whole, name
        path.write_bytes(content)
        with pytest.raises(ResultFileError, match=r"result\.safetensors"):
            Faithfulness.load(path)
    with pytest.raises(FileNotFoundError):
        Faithfulness.load(tmp_path / "nothing")


# ------------------------------------------------------------------------------------------ circuits


class Config:
    """The sizes of a model."""

    def __init__(self, layers: int, heads: int, size: int = 64, **more: Any) -> None:
        self.num_hidden_layers, self.num_attention_heads, self.hidden_size = layers, heads, size
        self.__dict__ |= more


def circuit(path: Path, heads: Any, fraction: float = 1.0, **options: Any) -> Any:
    layers = options.pop("layers", list(range(len(heads))))
    result = faithfulness(heads=heads, layers=layers)
    return json.loads(result.save_circuit(path / "circuit.json", fraction, **options).read_text("utf-8"))


@pytest.mark.parametrize(("layers", "heads", "edges"), [(12, 12, 32_491), (26, 8, 74_218), (6, 4, 1_108)])
def test_a_whole_circuit_has_the_edges_that_the_benchmark_counts(
    tmp_path: Path, layers: int, heads: int, edges: int
) -> None:
    """The MIB benchmark's numbers of edges of GPT-2, Gemma 2 2B and its InterpBench model."""
    found = circuit(tmp_path, np.ones((layers, heads)))
    assert len(found["edges"]) == edges
    assert len(found["nodes"]) == layers * (heads + 1) + 2
    assert all(entry["in_graph"] for part in ("nodes", "edges") for entry in found[part].values())


def test_a_circuit_of_the_top_heads(tmp_path: Path) -> None:
    found = circuit(tmp_path, [[0.1, -0.9], [0.5, math.nan]], 0.5, config=Config(3, 2))
    assert found["cfg"] == {"n_layers": 3, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 64}
    nodes = found["nodes"]
    assert list(nodes) == ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1", "a2.h0", "a2.h1", "m2", "logits"]
    assert {name: node["score"] for name, node in nodes.items() if "score" in node} == {
        "a0.h0": 0.1,
        "a0.h1": -0.9,
        "a1.h0": 0.5,
    }
    # max(1, round(.5 x 3)) = 2 of the three; what has no score stays.
    assert [name for name, node in nodes.items() if not node["in_graph"]] == ["a0.h1"]
    edges = found["edges"]
    assert {"input->a0.h0<q>", "a0.h0->m0", "m0->a1.h1<v>", "a1.h0->a2.h0<k>", "m2->logits", "input->logits"} <= {
        *edges
    }
    assert not any("a0.h1" in name for name in edges)
    assert "m0->a0.h0<q>" not in edges
    assert set(map(str, edges.values())) == {"{'score': 0.0, 'in_graph': True}"}


@pytest.mark.parametrize("more", [{"use_parallel_residual": True}, {"model_type": "gptj"}])
def test_an_mlp_beside_the_attention_does_not_read_it(tmp_path: Path, more: Any) -> None:
    found = circuit(tmp_path, [[1.0, 1.0]], config=Config(1, 2, **more))
    assert found["cfg"]["parallel_attn_mlp"]
    assert "input->m0" in found["edges"]
    assert "a0.h0->m0" not in found["edges"]


def test_circuit_sizes_come_from_a_transformers_model(tmp_path: Path) -> None:
    from toy import tiny_bert

    model = tiny_bert()
    config = model.config
    scores = np.ones((config.num_hidden_layers, config.num_attention_heads))
    for given in (model, config):
        cfg = circuit(tmp_path, scores, config=given)["cfg"]
        assert (cfg["n_layers"], cfg["d_model"]) == (config.num_hidden_layers, config.hidden_size)


@pytest.mark.parametrize(
    ("heads", "options", "error", "message"),
    [
        ([[math.nan] * 2], {}, ValueError, "no head has a score"),
        ([[1.0, 2.0]], {"fraction": 0}, ValueError, "fraction must be above 0 and at most 1"),
        ([[1.0, 2.0]], {"fraction": 1.5}, ValueError, "fraction must be above 0 and at most 1"),
        ([[1.0, 2.0]], {"fraction": "a"}, TypeError, "fraction must be numbers"),
        ([[1.0, 2.0]], {"config": Config(1, 3)}, ValueError, "config has 1 layers of 3 heads, but the scores are"),
        ([[1.0, 2.0]], {"config": Config(1, 2), "layers": [4]}, ValueError, "layers up to 4 with 2 heads"),
        ([[1.0, 2.0]], {"config": 3}, TypeError, "config must be the model's"),
    ],
)
def test_wrong_circuits_write_nothing(tmp_path: Path, heads: Any, options: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        circuit(tmp_path, heads, **options)
    assert not list(tmp_path.iterdir())
