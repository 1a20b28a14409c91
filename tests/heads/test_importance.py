"""Head importance: every method against its definition written out plainly, its files, and what it refuses."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from head_examples import GOLD, TEXTS, encoded, importance, loss, undecided
from scipy.stats import spearmanr
from torch import Tensor, nn
from toy import HEADS, LABELS, LAYERS, tiny_bart, tiny_bert, tiny_llama, tiny_tokenizer
from transformers import BertForSequenceClassification, BertTokenizer, XLNetConfig, XLNetForSequenceClassification

from captum_attattr import (
    ConvergenceWarning,
    HeadImportance,
    ResultFileError,
    explain,
    head_importance,
    importance_correlation,
    mask_heads,
    prune_heads,
)
from captum_attattr.heads.scoring import METHODS


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    return undecided()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tiny_tokenizer()


def scores(model: nn.Module, method: str, **options: Any) -> HeadImportance:
    return head_importance(model, tiny_tokenizer(), TEXTS, GOLD, method, progress=False, **options)


# ------------------------------------------------------------------------------------ against definitions


@pytest.mark.parametrize("reduce", ["max", "sum", "mean"])
@pytest.mark.parametrize(("absolute", "target"), [(False, "gold"), (True, "gold"), (False, "predicted")])
def test_attattr_is_the_mean_over_examples_of_each_map_reduced(model, tokenizer, reduce, absolute, target):
    wanted = GOLD if target == "gold" else None
    maps = [e.attributions.double() for e in explain(model, tokenizer, TEXTS, wanted, progress=False)]
    maps = [m.abs() for m in maps] if absolute else maps
    plain = {"max": Tensor.amax, "sum": Tensor.sum, "mean": Tensor.mean}[reduce]
    each = torch.stack([plain(m, (2, 3)) for m in maps])
    found = scores(model, "attattr", reduce=reduce, absolute=absolute, target=target, tolerance=1e-3)
    torch.testing.assert_close(found.scores, each.mean(0), rtol=3e-3, atol=1e-6)
    torch.testing.assert_close(found.stderr, each.std(0) / len(TEXTS) ** 0.5, rtol=3e-3, atol=1e-6)
    assert found.count == len(TEXTS)


def test_attattr_integrates_less_sharply_than_explain_by_default_and_far_below_the_standard_error(model):
    usual, sharp = scores(model, "attattr"), scores(model, "attattr", tolerance=1e-5)
    gap = (usual.scores - sharp.scores).abs()
    assert 0 < gap.max() < 0.05 * usual.stderr.mean()
    assert usual.options["tolerance"] == 1e-2


def test_attattr_takes_a_fixed_rule(model, tokenizer):
    options = {"n_steps": 20, "method": "riemann_left"}
    maps = [e.attributions.double() for e in explain(model, tokenizer, TEXTS, GOLD, progress=False, **options)]
    expected = torch.stack([m.amax((2, 3)) for m in maps]).mean(0)
    found = scores(model, "attattr", n_steps=20, rule="riemann_left")
    torch.testing.assert_close(found.scores, expected, rtol=1e-4, atol=1e-7)
    assert (found.scores - scores(model, "attattr").scores).abs().max() > 1e-4


@pytest.mark.parametrize("method", ["taylor", "taylor_logits"])
@pytest.mark.parametrize("normalize", [True, False])
def test_taylor_is_the_gradient_times_the_heads_output_summed_over_tokens(model, method, normalize):
    total = torch.zeros(LAYERS, HEADS, dtype=torch.double)
    for text, label in zip(TEXTS, GOLD, strict=True):
        outputs: list[Tensor] = []

        def keep(_: nn.Module, args: Any, outputs: list[Tensor] = outputs) -> None:
            outputs.append(args[0])

        hooks = [block.attention.output.dense.register_forward_pre_hook(keep) for block in model.bert.encoder.layer]
        value = loss(model, text, label) if method == "taylor" else model(**encoded(text)).logits.sum()
        gradients = torch.autograd.grad(value, outputs)
        for hook in hooks:
            hook.remove()
        for layer, (output, gradient) in enumerate(zip(outputs, gradients, strict=True)):
            product = (output * gradient).unflatten(-1, (HEADS, -1)).sum(-1)  # (1, T, H)
            total[layer] += product.abs().sum((0, 1)).detach().cpu()
    expected = total / len(TEXTS)
    expected = expected / expected.norm(dim=1, keepdim=True) if normalize else expected
    found = scores(model, method, normalize=normalize).scores
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    if normalize:
        torch.testing.assert_close(found.norm(dim=1), torch.ones(LAYERS, dtype=torch.double))


@pytest.mark.parametrize("reduce", ["max", "mean"])
def test_attention_is_the_mean_of_each_attention_map_reduced(model, tokenizer, reduce):
    plain = {"max": Tensor.amax, "mean": Tensor.mean}[reduce]
    explanations = explain(model, tokenizer, TEXTS, GOLD, progress=False)
    expected = torch.stack([plain(e.attention.double(), (2, 3)) for e in explanations]).mean(0)
    torch.testing.assert_close(scores(model, "attention", reduce=reduce).scores, expected, rtol=1e-5, atol=1e-7)


@torch.no_grad()
def test_differences_are_what_one_head_alone_changes(model):
    lost, gained = torch.zeros(2, LAYERS, HEADS, dtype=torch.double)
    for text, label in zip(TEXTS, GOLD, strict=True):
        whole = model(**encoded(text)).logits.argmax().item() == label, loss(model, text, label)
        for layer in range(LAYERS):
            for head in range(HEADS):
                with mask_heads(model, {layer: [head]}):
                    right = model(**encoded(text)).logits.argmax().item() == label
                    gained[layer, head] += (loss(model, text, label) - whole[1]).item()
                lost[layer, head] += int(whole[0]) - int(right)
    assert lost.abs().max() > 0
    torch.testing.assert_close(scores(model, "accuracy_difference").scores, lost / len(TEXTS))
    torch.testing.assert_close(scores(model, "loss_difference").scores, gained / len(TEXTS), rtol=0, atol=1e-6)


def test_random_scores_follow_their_seed_and_see_nothing(model):
    one, same, other = (scores(model, "random", seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.scores, same.scores)
    assert not torch.equal(one.scores, other.scores)
    assert one.scores.shape == (LAYERS, HEADS)
    assert one.count == 0
    assert one.examples == []


@pytest.mark.parametrize("method", [method for method in METHODS if method != "random"])
def test_batches_do_not_matter(model, method):
    alone = scores(model, method, batch_size=1)
    together = scores(model, method, batch_size=4)
    torch.testing.assert_close(alone.scores, together.scores, rtol=2e-3 if method == "attattr" else 1e-4, atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_counts_for_nothing_on_either_side(model, side):
    options: dict[str, Any] = {"progress": False, "batch_size": 8, "reduce": "mean"}
    padded = head_importance(model, tiny_tokenizer(padding_side=side), TEXTS, GOLD, "attention", **options)
    options["batch_size"] = 1
    if side == "right":  # on the left, positions move with the padding, and attention with them
        alone = head_importance(model, tiny_tokenizer(), TEXTS, GOLD, "attention", **options)
        torch.testing.assert_close(padded.scores, alone.scores)
    # Each query's attention adds up to 1: the mean over a map without padding is one over its length.
    lengths = torch.tensor([encoded(text)["input_ids"].shape[1] for text in TEXTS], dtype=torch.double)
    torch.testing.assert_close(padded.scores, (1 / lengths).mean().expand(LAYERS, HEADS))


# ------------------------------------------------------------------------------------------ other models


def test_regression_scores_heads_by_squared_error():
    model = tiny_bert(seed=2, num_labels=1)
    values = [0.5, -1.0, 2.0, 0.0, 1.0, 3.0, -2.0]
    found = head_importance(model, tiny_tokenizer(), TEXTS, values, "loss_difference", progress=False)
    with torch.no_grad():
        each = []
        for text, value in zip(TEXTS, values, strict=True):
            whole = (model(**encoded(text)).logits.item() - value) ** 2
            with mask_heads(model, {1: [2]}):
                each.append((model(**encoded(text)).logits.item() - value) ** 2 - whole)
    assert found.scores[1, 2].item() == pytest.approx(np.mean(each), abs=1e-5)
    attr = head_importance(model, tiny_tokenizer(), TEXTS, values, "attattr", progress=False)
    maps = [e.attributions.amax((2, 3)) for e in explain(model, tiny_tokenizer(), TEXTS, progress=False)]
    torch.testing.assert_close(attr.scores, torch.stack(maps).mean(0).double(), rtol=3e-3, atol=1e-6)


def test_language_model_is_scored_by_its_next_token():
    model, tokenizer = tiny_llama(), tiny_tokenizer()
    found = head_importance(model, tokenizer, TEXTS[:4], ["film", "bad", 7, "a"], "taylor", progress=False)
    assert found.scores.shape == (LAYERS, HEADS)
    assert found.labels == sorted({"film", "bad", "a", tokenizer.decode([7])})


def test_encoder_decoder_is_scored_in_its_encoder():
    found = head_importance(tiny_bart(), tiny_tokenizer(), TEXTS[:3], [0, 1, 2], "taylor", progress=False)
    assert found.scores.shape == (2, HEADS)


@pytest.mark.parametrize("method", METHODS)
def test_heads_that_are_gone_have_no_score(method):
    model = tiny_bert(seed=1)
    gone = {0: [1], 1: list(range(HEADS))}
    prune_heads(model, gone)
    found = scores(model, method)
    expected = torch.zeros(LAYERS, HEADS, dtype=torch.bool)
    for layer, heads in gone.items():
        expected[layer, heads] = True
    assert torch.equal(found.scores.isnan(), expected)
    assert not {(0, 1), (1, 0)} & set(found.ranking())
    assert len(found.ranking()) == (~expected).sum()
    if method in ("taylor_logits", "loss_difference"):  # the others depend on heads that are masked, not gone
        with mask_heads(whole := tiny_bert(seed=1), gone):
            masked = scores(whole, method)
        torch.testing.assert_close(found.scores[~expected], masked.scores[~expected], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_model_is_left_as_it_was(unchanged, method):
    model = tiny_bert(seed=1).train()
    model.bert.encoder.layer[1].eval()
    quiet = scores(tiny_bert(seed=1), method)
    with unchanged(model):
        found = scores(model, method)
    assert torch.equal(found.scores, quiet.scores)  # no dropout


# ------------------------------------------------------------------------------------- results and files


@pytest.mark.parametrize("other", [None, [[0.1]], "taylor", SimpleNamespace(scores=torch.rand(LAYERS, HEADS))])
def test_correlation_takes_importances_alone(model, other):
    found = scores(model, "random")
    with pytest.raises(TypeError, match=f"must be results of head_importance, got {type(other).__name__}"):
        importance_correlation(found, other)


@pytest.mark.parametrize("path", [None, 3, b"scores"])
def test_what_is_no_path_is_named(model, path):
    with pytest.raises(TypeError, match="path must be a string or a path, not"):
        scores(model, "random").save(path)
    with pytest.raises(TypeError, match="path must be a string or a path, not"):
        HeadImportance.load(path)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="there is no /proc, where nobody can write")
def test_place_where_nothing_can_be_written_is_named(model):
    with pytest.raises(ValueError, match=r"'/proc/scores' cannot be written: "):
        scores(model, "random").save("/proc/scores")


def test_ranking_goes_by_score_and_then_by_place():
    found = importance([[3.0, 1.0, float("nan")], [1.0, 2.0, -1.0]])
    assert found.ranking() == [(1, 2), (0, 1), (1, 0), (1, 1), (0, 0)]
    assert found.ranking("most") == [(0, 0), (1, 1), (0, 1), (1, 0), (1, 2)]
    with pytest.raises(ValueError, match="order='last' is unknown; use 'least' or 'most'"):
        found.ranking("last")


def test_saved_importance_comes_back_whole(model, tmp_path):
    found = scores(model, "attattr", reduce="sum")
    again = HeadImportance.load(found.save(tmp_path / "importance.safetensors"))
    for name, value in vars(found).items():
        assert torch.equal(getattr(again, name), value) if isinstance(value, Tensor) else getattr(again, name) == value
    assert again.name == "attattr (reduce=sum)"
    assert again.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]


def test_damaged_files_are_refused_by_name(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        HeadImportance.load(tmp_path / "nothing")
    (tmp_path / "junk").write_bytes(b"junk" * 9)
    with pytest.raises(ResultFileError, match="junk"):
        HeadImportance.load(tmp_path / "junk")
    explanation = explain(model, tiny_tokenizer(), ["good"], progress=False)[0]
    with pytest.raises(ResultFileError, match="holds no head importance"):
        HeadImportance.load(explanation.save(tmp_path / "explanation"))


def test_correlation_is_that_of_scipy_over_common_heads():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.rand(2, 4, 5, generator=generator, dtype=torch.double)
    second[0, 0] = torch.nan
    found = importance_correlation(importance(first.tolist()), importance(second.tolist()))
    x, y = first.flatten()[1:], second.flatten()[1:]
    assert found.pearson == pytest.approx(torch.corrcoef(torch.stack((x, y)))[0, 1].item())
    assert found.spearman == pytest.approx(spearmanr(x, y).statistic)
    assert found.heads == 19
    same = importance_correlation(importance(first.tolist()), importance((first**3).tolist()))
    assert same.spearman == pytest.approx(1)
    assert same.pearson < 1
    assert np.isnan(importance_correlation(importance([[1.0, 1.0]]), importance([[1.0, 2.0]])).pearson)
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(4, 5\)"):
        importance_correlation(importance([[1.0, 1.0]]), importance(first.tolist()))


# ----------------------------------------------------------------------------------------------- mistakes

MISTAKES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "method": ({"method": "magic"}, ValueError, "method='magic' is unknown; use one of attattr, taylor"),
    "option": ({"method": "taylor", "reduce": "max"}, TypeError, "does not know reduce; its options are normalize"),
    "no options": ({"method": "loss_difference", "seed": 1}, TypeError, "does not know seed; it has no options"),
    "choice": ({"reduce": "median"}, ValueError, "reduce='median' is unknown; use one of 'max', 'sum', 'mean'"),
    "target": ({"target": 1}, ValueError, "target=1 is unknown"),
    "steps": ({"n_steps": 0}, ValueError, "n_steps=0 is too small"),
    "rule": ({"n_steps": 5, "rule": "simpson"}, ValueError, "simpson"),
    "no examples": ({"examples": []}, ValueError, "examples is empty"),
    "one text": ({"examples": "good"}, ValueError, "7 labels for 1 examples"),
    "empty text": ({"examples": ["good", " "], "labels": [0, 1]}, ValueError, "texts\\[1\\]"),
    "too few labels": ({"labels": GOLD[:-1]}, ValueError, "6 labels for 7 examples"),
    "label range": ({"labels": [*GOLD[:-1], LABELS]}, ValueError, "label 3 of texts\\[6\\] is out of range"),
    "label name": ({"labels": ["fine", *GOLD[1:]]}, ValueError, "label 'fine' of texts\\[0\\] is unknown"),
    "no label": ({"labels": [None, *GOLD[1:]]}, ValueError, "label None of texts\\[0\\]"),
    "float label": ({"labels": [0.5, *GOLD[1:]]}, TypeError, "label 0.5 of texts\\[0\\]"),
    "batch": ({"batch_size": 0}, ValueError, "batch_size=0"),
    "truncate": ({"truncate": 2}, ValueError, "truncate=2 must be True, False or a number of 3 or more"),
    "long text": ({"examples": ["a " * 30], "labels": [0]}, ValueError, "32 tokens and the model takes 24"),
    "model": ({"model": nn.Linear(2, 2)}, TypeError, "Linear"),
    "no model": ({"model": None}, TypeError, "got NoneType"),
    "methods": ({"method": ["attattr"]}, ValueError, "method=\\['attattr'\\] is unknown"),
    "no method": ({"method": None}, ValueError, "method=None is unknown"),
    "choices": ({"reduce": ["max"]}, ValueError, "reduce=\\['max'\\] is unknown"),
    "array": ({"reduce": np.array(["max", "sum"])}, ValueError, "is unknown; use one of 'max'"),
    "truth": ({"absolute": "yes"}, ValueError, "absolute='yes' is unknown; use one of True, False"),
    "no rule": ({"rule": None}, ValueError, "rule=None is unknown; use one of riemann_left"),
    "rule alone": ({"rule": "riemann_left"}, ValueError, "rule='riemann_left' is a fixed rule: say its number"),
    "negative seed": ({"method": "random", "seed": -1}, ValueError, "seed=-1 must be an int of 0 or more"),
    "named seed": ({"method": "random", "seed": "a"}, ValueError, "seed='a' must be"),
    "no seed": ({"method": "random", "seed": None}, ValueError, "seed=None must be"),
    "no tokenizer": ({"tokenizer": None}, TypeError, "tokenizer must be the model's tokenizer, got NoneType"),
    "name of one": ({"tokenizer": "bert-base"}, TypeError, "tokenizer must be the model's tokenizer, got str"),
    "vocabulary": (
        {"model": tiny_bert(vocab_size=20)},
        ValueError,
        "texts\\[0\\] has the token 'film' of number 32, and",
    ),
    "segments": ({"model": tiny_bert(type_vocab_size=1)}, ValueError, "texts\\[4\\] has the segment 1, and the model"),
    "not loaded": ({"model": tiny_bert().to("meta")}, ValueError, "'bert.embeddings.*' is on the meta device; load"),
    "two strings": ({"examples": ("a", "b"), "labels": [0]}, TypeError, "one pair, or \\['a', 'b'\\] for two texts"),
    "no text": (
        {"examples": [None], "labels": [0]},
        TypeError,
        "texts\\[0\\] must be a text or a pair of texts, got None",
    ),
    "half a character": ({"examples": ["\ud800"], "labels": [0]}, ValueError, "holds half a character"),
    "missing label": (
        {"labels": [float("nan"), *GOLD[1:]]},
        TypeError,
        "label nan of texts\\[0\\] must be an integer or",
    ),
    "batches": ({"batch_size": "3"}, ValueError, "batch_size='3' must be an int of 1 or more"),
    "resume": ({"resume": 3}, TypeError, "resume must be a string or a path, not int: 3"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named_before_the_model_runs(model, tokenizer, monkeypatch, name):
    changes, error, message = MISTAKES[name]
    arguments: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "examples": TEXTS, "labels": GOLD}
    monkeypatch.setattr(BertForSequenceClassification, "forward", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(error, match=message):
        head_importance(**arguments | {"progress": False} | changes)


@pytest.mark.parametrize("method", ["attattr", "taylor", "taylor_logits", "attention"])
def test_inference_mode_is_refused_where_gradients_are_needed(model, method):
    with pytest.raises(ValueError, match=r"torch\.inference_mode forbids; use torch\.no_grad"), torch.inference_mode():
        scores(model, method)
    with torch.inference_mode():
        made = tiny_bert(seed=1)
    with pytest.raises(ValueError, match=r"parameters were made under torch\.inference_mode"):
        scores(made, method)
    with torch.inference_mode():
        found = scores(made, "loss_difference").scores
    torch.testing.assert_close(found, scores(tiny_bert(seed=1), "loss_difference").scores)


@pytest.mark.parametrize("method", ["taylor", "loss_difference", "random"])
def test_default_device_of_torch_does_not_matter(model, method):
    """The model's device counts; meta stands for any other."""
    with torch.device("meta"):
        found = scores(model, method).scores
    assert torch.equal(found, scores(model, method).scores)


def test_tokenizer_without_a_vocabulary_is_refused(model):
    empty = BertTokenizer()
    with pytest.raises(ValueError, match=r"the tokenizer knows no word, only .*'\[CLS\]'.*: its vocabulary is missing"):
        head_importance(model, empty, TEXTS, GOLD)


def test_numbers_of_numpy_are_numbers(model, tokenizer, tmp_path):
    options: dict[str, Any] = {"batch_size": np.int64(3), "truncate": np.int32(9), "progress": False}
    found = head_importance(
        model,
        tokenizer,
        TEXTS,
        [np.int64(label) for label in GOLD],
        n_steps=np.int64(4),
        absolute=np.True_,
        tolerance=np.float32(0.01),
        resume=tmp_path / "scores.jsonl",
        **options,
    )
    plain = head_importance(model, tokenizer, TEXTS, GOLD, n_steps=4, absolute=True, batch_size=3, progress=False)
    torch.testing.assert_close(found.scores, plain.scores, rtol=0, atol=0)
    assert found.options["n_steps"] == 4
    assert found.name == "attattr (absolute=True, n_steps=4, tolerance=0.009999999776482582)"
    assert HeadImportance.load(found.save(tmp_path / "found.safetensors")).options == found.options
    for seed in (np.int64(3), torch.tensor(3)):
        chance = head_importance(model, tokenizer, TEXTS, GOLD, "random", seed=seed)
        assert torch.equal(chance.scores, scores(model, "random", seed=3).scores)
        assert chance.options == {"seed": 3}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", [method for method in METHODS if method not in ("attattr", "random")])
def test_models_of_other_precision_are_scored(method, dtype):
    close = {torch.float16: 2e-2, torch.bfloat16: 0.2, torch.float64: 1e-4}[dtype]
    found, plain = (scores(each, method).scores for each in (undecided().to(dtype), undecided()))
    if method != "accuracy_difference":  # predictions may turn over
        torch.testing.assert_close(found, plain, rtol=close, atol=close)
    assert found.isfinite().all()


@pytest.mark.parametrize("method", ["taylor", "loss_difference"])
def test_scores_that_overflow_name_their_text_and_are_not_kept(method, tokenizer, tmp_path):
    model = undecided()
    with torch.no_grad():  # the word of one text alone
        model.bert.embeddings.word_embeddings.weight[tokenizer("man")["input_ids"][1]] = torch.nan
    path = tmp_path / "scores.jsonl"
    with pytest.raises(ValueError, match=r"the scores of texts\[2\] are not finite: the model's numbers overflow"):
        head_importance(model, tokenizer, TEXTS[:3], GOLD[:3], method, batch_size=1, resume=path, progress=False)
    assert path.read_bytes().count(b"\n") == 3  # the two before it


def test_accuracy_of_a_score_is_refused():
    with pytest.raises(ValueError, match="use 'loss_difference'"):
        head_importance(
            tiny_bert(num_labels=1), tiny_tokenizer(), ["good"], [1.0], "accuracy_difference", progress=False
        )
    with pytest.raises(ValueError, match="label nan of texts\\[0\\] must be a finite number"):
        head_importance(tiny_bert(num_labels=1), tiny_tokenizer(), ["good"], [float("nan")], progress=False)


def test_long_texts_are_cut_on_demand(model, tokenizer):
    options: dict[str, Any] = {"method": "taylor", "progress": False}
    cut = head_importance(model, tokenizer, ["a b c d e f g"], [0], truncate=5, **options)
    short = head_importance(model, tokenizer, ["a b c"], [0], **options)
    assert torch.equal(cut.scores, short.scores)


def test_maps_that_did_not_converge_are_told_once_by_the_examples_own_numbers(model, tokenizer):
    with pytest.warns(ConvergenceWarning) as caught:
        head_importance(model, tokenizer, TEXTS, GOLD, batch_size=2, tolerance=1e-9, max_nodes=5, progress=False)
    (warning,) = caught
    assert f"{len(TEXTS) * LAYERS} attribution maps" in str(warning.message)
    assert "example 5, encoder layer 0" in str(warning.message)  # the longest comes first


def test_weight_that_a_decoders_first_token_must_give_itself_does_not_count():
    """It is 1 in every head: without leaving it out all heads would be alike."""
    llama, text = tiny_llama(), "a b c d e"
    found = head_importance(llama, tiny_tokenizer(), [text], [5], "attention", progress=False).scores
    maps = torch.stack(list(explain(llama, tiny_tokenizer(), [text], n_steps=1, progress=False)[0].attention))
    assert maps.flatten(2).amax(2).eq(1).all()
    torch.testing.assert_close(found, maps[:, :, 1:].flatten(2).amax(2).double())
    assert found.unique().numel() > 1


def test_where_a_model_was_loaded_from_does_not_matter(model, tmp_path, monkeypatch):
    """A run is gone on with after the folder was moved, or named otherwise."""
    monkeypatch.chdir(tmp_path)
    model.save_pretrained("one")
    (tmp_path / "one").rename("two")
    loaded = [BertForSequenceClassification.from_pretrained(name).eval() for name in ("two", "./two", tmp_path / "two")]
    for each in (model, *loaded):
        scores(each, "taylor", resume=tmp_path / "scores.jsonl")
    assert scores(loaded[0], "taylor").model == scores(model, "taylor").model


def test_models_without_a_longest_text_take_any():
    """XLNet says -1."""
    torch.manual_seed(0)
    config = XLNetConfig(vocab_size=40, d_model=32, n_layer=2, n_head=4, d_inner=48, num_labels=3)
    assert config.max_position_embeddings == -1
    xlnet = XLNetForSequenceClassification(config).eval()
    found = head_importance(xlnet, tiny_tokenizer(), ["a b c", "d e"], [0, 1], "taylor", truncate=True, progress=False)
    assert found.scores.shape == (2, 4)


def test_rows_that_bound_memory_are_no_part_of_a_name(model):
    assert scores(model, "attattr", internal_batch_size=2).name == "attattr"
    assert scores(model, "attattr", internal_batch_size=2, reduce="sum").name == "attattr (reduce=sum)"


def test_scores_of_a_regression_are_not_listed_as_labels():
    found = head_importance(tiny_bert(num_labels=1), tiny_tokenizer(), ["a b", "c"], [0.1, 2], "taylor", progress=False)
    assert found.labels == []


# --------------------------------------------------------------------------------- numbers of any library

WHOLE: list[Any] = [2, np.int64(2), np.uint8(2), torch.tensor(2), torch.tensor([2])]
NO_WHOLE: list[Any] = [True, np.True_, torch.tensor(True), 2.5, np.float64(2), "2", [2], np.array([2, 2])]
REAL: list[Any] = [0.25, np.float32(0.25), np.float64(0.25), torch.tensor(0.25), Fraction(1, 4)]
NO_REAL: list[Any] = [True, np.False_, "0.25", None, [0.25], torch.tensor([0.25, 0.25]), float("nan"), 0.25j]


def given(name: str, value: Any) -> dict[str, Any]:
    """An argument of `head_importance` and the method that takes it."""
    more = {"tolerance": 0.5} if name == "max_nodes" else {}
    return {name: value, "method": {"seed": "random", "batch_size": "taylor"}.get(name, "attattr"), **more}


@pytest.mark.parametrize("name", ["n_steps", "max_nodes", "internal_batch_size", "batch_size", "seed"])
@pytest.mark.parametrize("value", WHOLE, ids=repr)
def test_whole_numbers_of_any_library_are_taken(model, name, value):
    least = 3 if name == "max_nodes" else 0  # 5 nodes are the least
    found = scores(model, **given(name, value + least))
    plain = scores(model, **given(name, 2 + least))
    assert found.options == plain.options
    assert type(found.options.get(name, 0)) is int
    assert torch.equal(found.scores, plain.scores)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (name, value)
        for name in ("n_steps", "max_nodes", "internal_batch_size", "batch_size", "seed")
        for value in NO_WHOLE
    ]
    + [(name, None) for name in ("max_nodes", "batch_size", "seed")],  # the others may be left to the quadrature
    ids=repr,
)
def test_what_is_no_whole_number_is_refused_before_the_model_runs(model, monkeypatch, name, value):
    monkeypatch.setattr(BertForSequenceClassification, "forward", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises((TypeError, ValueError), match=f"{name}=.* must be an int"):
        scores(model, **given(name, value))


@pytest.mark.parametrize("value", REAL, ids=repr)
def test_tolerance_of_any_library_is_taken(model, value):
    assert scores(model, "attattr", tolerance=value).options["tolerance"] == 0.25


@pytest.mark.parametrize("value", NO_REAL, ids=repr)
def test_what_is_no_tolerance_is_refused_before_the_model_runs(model, monkeypatch, value):
    monkeypatch.setattr(BertForSequenceClassification, "forward", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=r"tolerance=.* must be a number between 0 and 1"):
        scores(model, "attattr", tolerance=value)


@pytest.mark.parametrize("value", [True, np.True_, torch.tensor(True), 1, np.int64(1)], ids=repr)
def test_truth_values_of_any_library_are_taken(model, value):
    assert scores(model, "attattr", absolute=value, n_steps=2).options["absolute"] is True


@pytest.mark.parametrize("method", METHODS)
def test_misspelt_option_lists_those_that_the_method_knows(model, method):
    known = ", ".join(METHODS[method].options)
    with pytest.raises(
        TypeError, match=f"does not know reduse; {f'its options are {known}' if known else 'it has no'}"
    ):
        scores(model, method, reduse="max")


@pytest.mark.parametrize("value", ["simpson", None, 3, ["riemann_left"], np.array(["a", "b"])], ids=repr)
def test_unknown_rule_is_called_as_the_caller_calls_it(model, value):
    with pytest.raises(ValueError, match=r"^rule=.* is unknown; use one of riemann_left"):
        scores(model, "attattr", rule=value, n_steps=3)


def test_warning_of_maps_that_did_not_converge_is_at_the_callers_line(model, tokenizer):
    with pytest.warns(ConvergenceWarning) as caught:
        head_importance(model, tokenizer, TEXTS[:1], GOLD[:1], tolerance=1e-9, max_nodes=5, progress=False)
    assert caught[0].filename == __file__
