"""What `explain` keeps: some layers, no attention, fewer bytes; layers go by their own numbers wherever told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from explanations.test_explain import assert_same
from toy import WORDS, tiny_bart, tiny_bert, tiny_llama, tiny_tokenizer, unchanged

import captum_attattr.explanations.explain as explain_module
from captum_attattr import (
    Archive,
    ConvergenceWarning,
    Explanation,
    LayerAttAttr,
    attention_layers,
    attribution_tree,
    explain,
    explain_dataset,
    explain_iter,
    extract_triggers,
    find_patterns,
    load_tree,
    plot_attention,
    plot_flow,
    plot_tree,
    prune_heads,
    save_tree,
    tree_text,
    write_report,
)

TEXTS = ["good film", ("a b", "c d e"), "bad work"]
BERT = tiny_bert(num_hidden_layers=5)


def explained(model: Any = BERT, texts: Any = TEXTS, **options: Any) -> list[Explanation]:
    return explain(model, tiny_tokenizer(), texts, **{"n_steps": 4, "progress": False} | options)


@pytest.fixture(scope="module")
def whole() -> list[Explanation]:
    return explained()


@pytest.fixture(scope="module")
def some() -> list[Explanation]:
    return explained(layers=[1, 3])


# ---------------------------------------------------------------------------------------------- some layers


@pytest.mark.parametrize(
    "layers",
    [[1, 3], (3, 1), range(1, 4, 2), np.array([1, 3]), torch.tensor([3, 1]), {1, 3}, [np.int64(1), 3]],
    ids=repr,
)
def test_some_layers_have_the_maps_that_they_have_among_all(layers, whole):
    for one, every in zip(explained(layers=layers), whole, strict=True):
        assert (one.layers, every.layers) == ([1, 3], [0, 1, 2, 3, 4])
        for name in ("attributions", "attention", "delta", "error", "nodes"):
            torch.testing.assert_close(
                getattr(one, name), getattr(every, name)[[1, 3]], rtol=0, atol=1e-6, equal_nan=True
            )
        assert one.value == pytest.approx(every.value, abs=1e-6)


@pytest.mark.parametrize("model", [BERT, tiny_llama()], ids=lambda model: type(model).__name__)
def test_on_the_joint_path_only_their_gates_open(model):
    (one,) = explained(model, ["good film"], layers=[0, 2], path="joint")
    chosen = [layer for layer in attention_layers(model) if layer.index in (0, 2)]

    def forward(*tensors: torch.Tensor) -> torch.Tensor:
        logits = model(**dict(zip(one.inputs, tensors, strict=True))).logits
        return (logits[:, -1] if logits.dim() == 3 else logits).softmax(-1)

    result = LayerAttAttr(forward, chosen).integrate(
        tuple(one.inputs.values()), target=one.target, n_steps=4, path="joint"
    )
    torch.testing.assert_close(one.attributions, torch.cat(result.attributions), rtol=0, atol=1e-6)
    assert one.total_delta == pytest.approx(float(result.total_delta), abs=1e-5)


def test_all_layers_named_are_all_layers(whole):
    for one, every in zip(explained(layers=range(5)), whole, strict=True):
        assert_same(one, every)


def test_layers_of_an_encoder_decoder_are_its_encoders():
    whole, one = (explained(tiny_bart(), ["good film"], layers=layers)[0] for layers in (None, [1]))
    torch.testing.assert_close(one.attributions, whole.attributions[1:], rtol=0, atol=1e-6)


def test_layers_without_heads_are_zeros_and_alone_refused():
    model = tiny_bert()
    prune_heads(model, {1: range(4), 2: [0]})
    (one,) = explained(model, ["a b"], layers=[1, 2])
    assert one.layers == [1, 2]
    assert not one.attributions[0].any()
    assert not one.attributions[1, 0].any()
    assert one.attributions[1, 1:].any()
    with unchanged(model), pytest.raises(ValueError, match=r"layers=\[1\]: `prune_heads` took all of their heads"):
        explained(model, ["a b"], layers=[1])


def test_edges_and_token_scores_go_by_the_layers_own_numbers(some, whole):
    for one, every in zip(some, whole, strict=True):
        wanted = [edge for edge in every.strongest(10**6) if edge[0] in (1, 3)]
        assert [edge[:4] for edge in one.strongest(20)] == [edge[:4] for edge in wanted[:20]]
        torch.testing.assert_close(one.token_scores(3), every.token_scores(3), rtol=0, atol=1e-6)
        mean = (every.token_scores(1) + every.token_scores(3)) / 2
        torch.testing.assert_close(one.token_scores(), mean, rtol=0, atol=1e-6)
        for wrong in (0, 2, 4, -1):
            with pytest.raises(ValueError, match=f"layer must be one of 1, 3, not {wrong}"):
                one.token_scores(wrong)
        with pytest.raises(TypeError, match=r"layer must be an integer, not float: 1.0"):
            one.token_scores(1.0)


def test_files_and_explain_iter_have_them(some, tmp_path):
    again = explain_iter(BERT, tiny_tokenizer(), TEXTS, layers=[1, 3], n_steps=4, progress=False)
    for one, two in zip(some, again, strict=True):
        assert_same(one, two, atol=1e-6)
        assert_same(Explanation.load(one.save(tmp_path / "x")), one)


def test_trees_go_by_the_layers_own_numbers(some, whole, tmp_path):
    for one, every in zip(some, whole, strict=True):
        tree, expected = attribution_tree(one, 0.1), attribution_tree(every, 0.1, layers=[1, 3])
        assert dict(tree.nodes(data=True)) == dict(expected.nodes(data=True))
        for edge in expected.edges:
            assert tree.edges[edge]["layer"] == expected.edges[edge]["layer"]
            assert tree.edges[edge]["score"] == pytest.approx(expected.edges[edge]["score"], abs=1e-5)
        assert tree.graph["layers"] == [1, 3]
        assert "layers 1, 3 alone" in tree_text(tree)
        with pytest.raises(ValueError, match="each of layers must be one of 1, 3, not 2"):
            attribution_tree(one, layers=[2])
        plot_tree(tree, one)
        plot_tree(expected, every)
    with pytest.raises(ValueError, match="attention does not fit tree"):
        plot_tree(attribution_tree(whole[0], layers=[0, 2], threshold=0.01), some[0])


def test_figures_go_by_the_layers_own_numbers(some, whole, tmp_path: Path):
    one = some[1]
    names = {trace.name for trace in plot_attention(one, layer=3).data if trace.name}
    assert {"attribution 1 0", "difference 3 3"} <= names
    assert "attribution 0 0" not in names
    menus = {menu.name: [button.label for button in menu.buttons] for menu in plot_attention(one).layout.updatemenus}
    assert menus["layer"] == ["layer 1", "layer 3"]
    flow = plot_flow(one, layer=3, share=1.0)
    assert list(flow.layout.yaxis.ticktext) == ["layer 1", "layer 3"]
    assert "(layer 3, sum over heads)" in flow.layout.annotations[0].text
    hovers = next(trace for trace in flow.data if trace.name == "edges").hovertemplate
    assert {re.search(r"layer (\d)", hover)[1] for hover in hovers} == {"3"}
    for figure in (plot_attention, plot_flow):
        with pytest.raises(ValueError, match="layer must be one of 1, 3, not 0"):
            figure(one, layer=0)
    text = write_report(one, tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<th scope=row>(\d)</th>", text) == ["1", "3"]


def test_triggers_go_by_the_layers_own_numbers(some):
    patterns = find_patterns(BERT, tiny_tokenizer(), TEXTS, layers=[1, 3], n_steps=4, progress=False)
    for pattern, one in zip(patterns, some, strict=True):
        for score, layer, head, query, key in pattern.interactions:
            assert float(one.attributions[one.layers.index(layer), head, query, key]) == pytest.approx(score, abs=1e-6)
    for name in ("target", "contrast"):
        with pytest.raises(TypeError, match=f"find_patterns takes one {name} for all examples, not a list"):
            find_patterns(BERT, tiny_tokenizer(), TEXTS, progress=False, **{name: [0, 1, 0]})
    assert {trigger.layer for trigger in extract_triggers(some, min_score=0.0, merge=False)} <= {1, 3}


# --------------------------------------------------------------------------------------------- no attention


@pytest.fixture(scope="module")
def bare() -> list[Explanation]:
    return explained(attention=False)


def test_without_attention_all_else_is_the_same(bare, whole, tmp_path):
    for one, every in zip(bare, whole, strict=True):
        assert one.attention is None
        assert torch.equal(one.attributions, every.attributions)
        assert torch.equal(one.delta, every.delta)
        loaded = Explanation.load(one.save(tmp_path / "x"))
        assert loaded.attention is None
        assert_same(loaded, one)


@pytest.mark.parametrize("view", ["attention", "difference"])
def test_views_that_need_the_attention_say_so(bare, view):
    message = f"view='{view}' needs the attention, which this explanation does not hold; explain with attention=True"
    with pytest.raises(ValueError, match=message):
        plot_attention(bare[0], view=view)


def test_other_views_do_without(bare, whole, tmp_path: Path):
    one, every = bare[1], whole[1]
    figure = plot_attention(one)
    assert [menu.name for menu in figure.layout.updatemenus] == ["layer", "head", "colours"]
    assert figure.layout.meta["hint"].endswith("The attention was not kept.")
    hovers = {trace.name.split()[0]: trace.hovertemplate for trace in figure.data if trace.hovertemplate}
    assert hovers["attention"] == "attention not kept<extra></extra>"
    tree, expected = attribution_tree(one), attribution_tree(every)
    assert {data["attention"] for *_, data in tree.edges(data=True)} == {None}
    assert [edge[:2] for edge in tree.edges] == [edge[:2] for edge in expected.edges]
    for ending in ("json", "graphml"):
        again = load_tree(save_tree(tree, tmp_path / f"tree.{ending}"))
        assert dict(again.edges) == dict(tree.edges)
    drawn = [trace.hovertemplate for trace in plot_tree(tree, one).data if str(trace.name).startswith("edge")]
    assert drawn
    assert not any("attention" in hover for hover in drawn)
    assert tree_text(tree) == tree_text(expected)
    assert plot_flow(one).to_json() == plot_flow(every).to_json()
    text = write_report(one, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The attention was not kept." in text


# ------------------------------------------------------------------------------------------- fewer bytes


@pytest.mark.parametrize("dtype", [torch.float16, "bfloat16", torch.bfloat16, torch.float64, "float32"], ids=str)
def test_maps_are_kept_in_the_type_asked_for(dtype, whole, tmp_path):
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    for one, every in zip(explained(dtype=dtype), whole, strict=True):
        assert one.attributions.dtype == one.attention.dtype == wanted
        for name in ("attributions", "attention"):
            torch.testing.assert_close(getattr(one, name), getattr(every, name).to(wanted))
        loaded = Explanation.load(one.save(tmp_path / "x"))
        assert_same(loaded, one)
        assert one.token_scores().dtype == (torch.float64 if wanted == torch.float64 else torch.float32)
        torch.testing.assert_close(one.token_scores().float(), every.token_scores(), rtol=2e-2, atol=2e-3)
        assert abs(one.strongest(1)[0][-1] - every.strongest(1)[0][-1]) < 1e-2
        attribution_tree(one, threshold=0.1)
        plot_attention(one)
        plot_flow(one)
        write_report(one, tmp_path / "report.html")


def test_scores_that_half_precision_does_not_hold_are_refused():
    model = tiny_bert()
    with torch.no_grad():
        model.classifier.weight.mul_(1e6)
    message = r"dtype=torch.float16 holds numbers up to 65,504, and texts\[1\] has scores beyond that; use torch.bf"
    with unchanged(model), pytest.raises(ValueError, match=message):
        explained(model, output="logit", dtype=torch.float16)
    explained(model, output="logit", dtype=torch.bfloat16)


# ---------------------------------------------------------------------------------------------- archives


@pytest.mark.parametrize(
    "options",
    [{"layers": [1, 3]}, {"layers": [4], "attention": False, "dtype": torch.float16}, {"attention": False}],
    ids=str,
)
def test_archives_keep_what_explain_keeps(options, tmp_path):
    archive = explain_dataset(BERT, tiny_tokenizer(), TEXTS, tmp_path, n_steps=4, progress=False, **options)
    for index, (found, one) in enumerate(zip(archive, explained(**options), strict=True)):
        assert found.layers == one.layers
        assert (found.attention is None) == (one.attention is None)
        torch.testing.assert_close(found.attributions, one.attributions.float(), rtol=1e-3, atol=1e-6)
        for layer in one.layers:
            expected = found.attributions[one.layers.index(layer)]
            torch.testing.assert_close(archive.layer(index, layer), expected, rtol=0, atol=0)
    if "layers" in options:
        with pytest.raises(IndexError, match="layer 0 is not there: the archive has " + "|".join(["1, 3", "4"])):
            archive.layer(0, 0)
    reopened = Archive(tmp_path)
    reopened.verify()
    assert reopened[1].layers == archive[1].layers


def test_archives_of_other_layers_are_told_apart_and_all_of_them_are_the_usual(tmp_path):
    given: Any = (BERT, tiny_tokenizer(), TEXTS)
    explain_dataset(*given, tmp_path / "some", layers=[1, 3], n_steps=2, progress=False)
    with pytest.raises(ValueError, match=r"options.layers \[1, 3\] there, \[1, 2\] now"):
        explain_dataset(*given, tmp_path / "some", layers=[1, 2], n_steps=2, progress=False)
    explain_dataset(*given, tmp_path / "all", n_steps=2, progress=False)
    before = {path.name: path.read_bytes() for path in (tmp_path / "all").iterdir()}
    explain_dataset(*given, tmp_path / "all", layers=range(5), n_steps=2, progress=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "all").iterdir()} == before


def test_archives_name_layers_that_did_not_converge_by_their_numbers(tmp_path):
    with pytest.warns(ConvergenceWarning, match=r"example \d, layer [24]: "):
        explain_dataset(
            BERT, tiny_tokenizer(), TEXTS, tmp_path, layers=[2, 4], max_nodes=5, tolerance=1e-6, progress=False
        )


# ----------------------------------------------------------------------------------------------- progress


def test_the_bar_moves_within_one_long_text(monkeypatch):
    shown: list[str] = []
    real = explain_module.tqdm

    def watched(*args: Any, **options: Any) -> Any:
        bar = real(*args, **{**options, "delay": 0, "mininterval": 0})
        monkeypatch.setattr(bar, "display", lambda *args, **options: shown.append(str(bar)))
        return bar

    monkeypatch.setattr(explain_module, "tqdm", watched)
    explained(texts=[" ".join(WORDS[:20]), "a b"], n_steps=9, internal_batch_size=4, progress=True)
    for done in (0, 1):  # tqdm would wait for a second text after the first one
        rows = [int(match[1]) for line in shown if (match := re.search(rf"{done}/2 .*, (\d+) rows", line))]
        assert len(set(rows)) > 10
        assert rows == sorted(rows)
        assert max(rows) >= 9 * 5
    assert "2/2" in shown[-1]


# ------------------------------------------------------------------------------------------------ mistakes

WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "empty": ({"layers": []}, ValueError, "layers is empty: give at least one, or None for all"),
    "empty array": ({"layers": np.array([], dtype=int)}, ValueError, "layers is empty"),
    "repeated": ({"layers": [1, 3, 1]}, ValueError, "layers has 1 twice"),
    "below": ({"layers": [1, -1]}, ValueError, r"layers\[1\]=-1 must be an int of 0 or more"),
    "above": ({"layers": [1, 5]}, ValueError, r"layers\[1\] must be from 0 to 4, not 5"),
    "one": ({"layers": 1}, TypeError, "layers=1 must be a list of layers' indices, or None for all"),
    "text": ({"layers": "01"}, TypeError, "layers='01' must be a list"),
    "truth": ({"layers": True}, TypeError, "layers=True must be a list"),
    "fraction": ({"layers": [1.0]}, TypeError, r"layers\[0\] must be an integer, not float: 1.0"),
    "truths": ({"layers": [True, False]}, TypeError, r"layers\[0\] must be an integer, not bool"),
    "matrix": ({"layers": np.array([[1]])}, TypeError, r"layers\[0\] must be an integer, not list"),
    "attention": ({"attention": "no"}, TypeError, "attention must be True or False, not str: 'no'"),
    "attention's number": ({"attention": 1}, TypeError, "attention must be True or False, not int: 1"),
    "dtype": ({"dtype": "half"}, ValueError, "dtype='half' is unknown"),
    "dtype of integers": ({"dtype": torch.int8}, ValueError, "dtype=.*int8'? is unknown"),
}
FUNCTIONS: dict[str, Any] = {
    "explain": lambda folder, *given, **options: explain(*given, ["a"], **options),
    "explain_iter": lambda folder, *given, **options: explain_iter(*given, ["a"], **options),
    "explain_dataset": lambda folder, *given, **options: explain_dataset(*given, ["a"], folder, **options),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_named_before_any_work(function, name, tmp_path, monkeypatch):
    options, error, message = WRONG[name]
    monkeypatch.setattr(BERT.bert, "forward", lambda *args, **kwargs: pytest.fail("the model ran"))
    with unchanged(BERT), pytest.raises(error, match=message):
        FUNCTIONS[function](tmp_path / "archive", BERT, tiny_tokenizer(), **options)
    assert not list(tmp_path.iterdir())


def test_a_dtype_that_is_none_is_refused():
    for dtype in (None, 16, ["float16"]):
        with pytest.raises(TypeError, match=r"dtype=.* is unknown; use torch.float16, torch.bfloat16, torch.float32"):
            explained(dtype=dtype)
