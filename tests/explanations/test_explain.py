"""`explain` and `explain_iter`: whole texts in, maps of real tokens out; wrong arguments named at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor, nn
from toy import (
    CLS,
    HEADS,
    LAYERS,
    SEP,
    VOCAB,
    WORDS,
    bert_config,
    probabilities,
    tiny_bart,
    tiny_bert,
    tiny_llama,
    tiny_tokenizer,
    unchanged,
)
from transformers import (
    BertForSequenceClassification,
    BertTokenizer,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

import captum_attattr.explanations.explain as explain_module
from captum_attattr import (
    ConvergenceWarning,
    Explanation,
    LayerAttAttr,
    attention_layers,
    explain,
    explain_iter,
)
from captum_attattr.formatting import output_value

TEXTS = ["good film", "a man a plot a work", ("a b", "c d e"), "bad", ("x", "y z"), "plot work"]
LENGTHS = [4, 8, 8, 3, 6, 4]
LIMIT = 24  # positions of the toy models


@pytest.fixture(scope="module")
def bert() -> PreTrainedModel:
    return tiny_bert()


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return tiny_llama()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def explained(bert, tokenizer) -> list[Explanation]:
    return explain(bert, tokenizer, TEXTS)


def assert_same(one: Explanation, two: Explanation, atol: float = 0) -> None:
    for field in dataclasses.fields(Explanation):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, Tensor):
            assert a.dtype == b.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=atol, equal_nan=True)
        elif isinstance(a, dict):
            assert {name: tensor.tolist() for name, tensor in a.items()} == {
                name: tensor.tolist() for name, tensor in b.items()
            }
        elif isinstance(a, float):
            assert a == pytest.approx(b, abs=atol, nan_ok=True)
        else:
            assert a == b, field.name


# ------------------------------------------------------------------------------------------- what comes out


def test_order_and_shapes(explained):
    assert [one.text for one in explained] == TEXTS
    assert [len(one.tokens) for one in explained] == LENGTHS
    for one, length in zip(explained, LENGTHS, strict=True):
        assert one.attributions.shape == one.attention.shape == (LAYERS, HEADS, length, length)
        assert one.delta.shape == one.error.shape == one.nodes.shape == (LAYERS,)
        assert len(one.special) == len(one.segments) == length
        for tensor in (one.attributions, one.attention, one.delta):
            assert (tensor.dtype, tensor.device.type, tensor.requires_grad) == (torch.float32, "cpu", False)


def test_maps_are_those_of_layer_attattr_on_the_text_alone(bert, tokenizer):
    for text in TEXTS:
        parts = (text,) if isinstance(text, str) else text
        encoding = tokenizer(*parts, return_tensors="pt")
        names = list(encoding)

        def forward(*tensors: Tensor, names: list[str] = names) -> Tensor:
            return bert(**dict(zip(names, tensors, strict=True))).logits.softmax(-1)

        lattr = LayerAttAttr(forward, attention_layers(bert))
        inputs = tuple(encoding.values())
        (one,) = explain(bert, tokenizer, [text], target=2)
        assert torch.equal(one.attributions, torch.cat(lattr.attribute(inputs, target=2)))
        torch.testing.assert_close(one.attention, torch.cat(lattr.attention(inputs)), rtol=0, atol=1e-6)
        assert one.probability == pytest.approx(forward(*inputs)[0, 2].item(), abs=1e-6)


def test_company_does_not_matter(bert, tokenizer):
    together = explain(bert, tokenizer, TEXTS, n_steps=6)
    for text, one in zip(TEXTS, together, strict=True):
        assert_same(explain(bert, tokenizer, [text], n_steps=6)[0], one, atol=1e-6)


def test_large_groups_are_split(bert, tokenizer, monkeypatch):
    texts = ["a b", "c d", "e f", "g h", "good film bad plot"]
    expected = explain(bert, tokenizer, texts, n_steps=6)
    sizes: list[int] = []
    integrate = LayerAttAttr.integrate

    def counted(self: LayerAttAttr, inputs: Tensor, *args: Any, **options: Any) -> Any:
        sizes.append(len(inputs))
        return integrate(self, inputs, *args, **options)

    monkeypatch.setattr(LayerAttAttr, "integrate", counted)
    monkeypatch.setattr(explain_module.Explainer, "MAPS_AT_ONCE", 2 * LAYERS * HEADS * 4**2)
    for one, two in zip(explain(bert, tokenizer, texts, n_steps=6), expected, strict=True):
        assert_same(one, two, atol=1e-6)
    assert sizes == [1, 2, 2]  # longest first


def test_each_layer_adds_up(explained, bert, tokenizer):
    for one in explained:
        layers = one.attributions.sum((1, 2, 3))
        starts = one.probability - layers + one.delta
        exact = scores_without(bert, tokenizer, one).softmax(-1)[:, one.target]
        torch.testing.assert_close(starts, exact, rtol=0, atol=1e-5)
        assert one.delta.abs().max() < 1e-3
        assert bool((one.error <= 1e-3).all())
        assert bool((one.nodes >= 5).all())


def scores_without(model: PreTrainedModel, tokenizer: Any, one: Explanation) -> Tensor:
    """(L, classes) the logits with one layer's attention at zero."""
    parts = (one.text,) if isinstance(one.text, str) else one.text
    encoding, values = tokenizer(*parts, return_tensors="pt"), []
    for block in model.bert.encoder.layer:
        module = block.attention.self
        handle = module.register_forward_hook(lambda module, args, output: (0 * output[0], *output[1:]))
        with torch.no_grad():
            values.append(model(**encoding).logits[0])
        handle.remove()
    return torch.stack(values)


def test_tokens_segments_and_specials(explained):
    single, pair = explained[0], explained[2]
    assert single.tokens == ["[CLS]", "good", "film", "[SEP]"]
    assert single.special == [True, False, False, True]
    assert single.segments == [0] * 4
    assert pair.tokens == ["[CLS]", "a", "b", "[SEP]", "c", "d", "e", "[SEP]"]
    assert pair.special == [True, False, False, True, False, False, False, True]
    assert pair.segments == [0, 0, 0, 0, 1, 1, 1, 1]


def test_segments_of_a_tokenizer_without_token_types(bert):
    tokenizer = tiny_tokenizer(model_input_names=["input_ids", "attention_mask"])
    one = explain(bert, tokenizer, [("a b", "c d e")], n_steps=2)[0]
    words = [segment for segment, special in zip(one.segments, one.special, strict=True) if not special]
    assert words == [0, 0, 1, 1, 1]


def test_word_pieces_of_a_bert_tokenizer(bert, tmp_path):
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "film", "##s", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    one = explain(bert, tokenizer, ["Good films zzz"], n_steps=2)[0]
    assert one.tokens == ["[CLS]", "good", "film", "##s", "[UNK]", "[SEP]"]
    assert one.special == [True, False, False, False, False, True]


# ------------------------------------------------------------------------------------------------- targets


def test_target_is_the_prediction_unless_said_otherwise(explained, bert, tokenizer):
    for one in explained:
        parts = (one.text,) if isinstance(one.text, str) else one.text
        with torch.no_grad():
            scores = bert(**tokenizer(*parts, return_tensors="pt")).logits.softmax(-1)[0]
        assert one.target == one.prediction == int(scores.argmax())
        assert one.label == f"LABEL_{one.target}"
        assert one.probability == pytest.approx(float(scores.max()), abs=1e-6)


def test_target_by_number_and_by_name(tokenizer):
    model = tiny_bert(id2label={0: "contradiction", 1: "entailment", 2: "neutral"})
    by_number = explain(model, tokenizer, ["a b", "good film"], 2, n_steps=3)
    by_name = explain(model, tokenizer, ["a b", "good film"], "neutral", n_steps=3)
    for one, two in zip(by_number, by_name, strict=True):
        assert (one.target, one.label) == (2, "neutral")
        assert one.prediction != 2
        assert_same(one, two)


def test_a_target_for_each_text(bert, tokenizer):
    texts = ["a b", "good film", "bad work", "c"]
    mixed = explain(bert, tokenizer, texts, [0, "LABEL_2", None, 2], n_steps=3)
    assert [one.target for one in mixed] == [0, 2, mixed[2].prediction, 2]
    for text, one in zip(texts, mixed, strict=True):
        assert_same(one, explain(bert, tokenizer, [text], one.target, n_steps=3)[0], atol=1e-6)


def test_regression_attributes_the_score(tokenizer):
    model = tiny_bert(num_labels=1)
    one = explain(model, tokenizer, ["good film"])[0]
    with torch.no_grad():
        score = float(model(**tokenizer("good film", return_tensors="pt")).logits)
    assert (one.target, one.prediction) == (0, 0)
    assert one.probability == pytest.approx(score, abs=1e-5)
    assert not 0 <= score <= 1
    gained = one.attributions.sum((1, 2, 3))
    assert bool((gained.abs() > 0.01 * abs(score)).all())
    torch.testing.assert_close(score - gained, scores_without(model, tokenizer, one).squeeze(-1), rtol=0, atol=5e-3)


def test_multi_label_attributes_the_labels_own_probability(tokenizer):
    model = tiny_bert(problem_type="multi_label_classification")
    with torch.no_grad():
        scores = model(**tokenizer("good film", return_tensors="pt")).logits.sigmoid()[0].tolist()
    for target in range(3):
        one = explain(model, tokenizer, ["good film"], target)[0]
        assert one.probability == pytest.approx(scores[target], abs=1e-6)
        assert one.prediction == max(range(3), key=scores.__getitem__)
        assert one.delta.abs().max() < 1e-3


def test_language_model_explains_the_next_token(llama, tokenizer):
    for text in ("good film", "a plot"):
        encoding = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            scores = llama(**encoding).logits[0, -1].softmax(-1)
        one = explain(llama, tokenizer, [text])[0]
        assert one.target == one.prediction == int(scores.argmax())
        assert one.label == tokenizer.decode([one.target])
        assert one.probability == pytest.approx(float(scores.max()), abs=1e-6)
        assert one.delta.abs().max() < 1e-3
        assert not torch.triu(one.attributions, 1).any(), "a causal model attends to the past only"
        assert one.attributions.abs().max() > 1e-4


class LlamaOfAllPositions(LlamaForCausalLM):
    """A language model that cannot be told to keep the last position's logits only."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Any:
        return super().forward(input_ids=input_ids, attention_mask=attention_mask)


def test_next_token_of_a_model_that_returns_all_positions(llama, tokenizer):
    model = LlamaOfAllPositions(llama.config).eval()
    model.load_state_dict(llama.state_dict())
    for one, two in zip(*(explain(m, tokenizer, ["good film", "a"], n_steps=3) for m in (model, llama)), strict=True):
        assert_same(one, two, atol=1e-6)


def test_language_models_target_by_number_and_by_text(llama, tokenizer):
    number = tokenizer.convert_tokens_to_ids("work")
    by_number = explain(llama, tokenizer, ["good film", "a"], number, n_steps=3)
    by_text = explain(llama, tokenizer, ["good film", "a"], "work", n_steps=3)
    for one, two in zip(by_number, by_text, strict=True):
        assert (one.target, one.label) == (number, "work")
        assert one.prediction != number
        assert_same(one, two)


def test_an_encoder_decoders_encoder_is_explained(tokenizer):
    model = tiny_bart()
    one = explain(model, tokenizer, ["good film"], 1)[0]
    encoding = tokenizer("good film", return_tensors="pt")
    lattr = LayerAttAttr(probabilities(model), attention_layers(model, "encoder"))
    maps = lattr.attribute(encoding["input_ids"], target=1, additional_forward_args=encoding["attention_mask"])
    torch.testing.assert_close(one.attributions, torch.cat(maps), rtol=0, atol=1e-6)


# ----------------------------------------------------------------------------------------- F and its inputs

MULTI_LABEL, REGRESSION = {"problem_type": "multi_label_classification"}, {"num_labels": 1}


@pytest.mark.parametrize(
    ("model", "target", "function"),
    [
        (tiny_bert(), None, lambda logits: logits[0].softmax(-1)),
        (tiny_bert(), 2, lambda logits: logits[0].softmax(-1)),
        (tiny_bert(**REGRESSION), None, lambda logits: logits[0]),
        (tiny_bert(**MULTI_LABEL), 1, lambda logits: logits[0].sigmoid()),
        (tiny_llama(), None, lambda logits: logits[0, -1].softmax(-1)),
        (tiny_llama(), "work", lambda logits: logits[0, -1].softmax(-1)),
        (tiny_bart(), 0, lambda logits: logits[0].softmax(-1)),
    ],
    ids=["prediction", "class", "regression", "multi-label", "next token", "token", "encoder-decoder"],
)
def test_the_inputs_give_the_value_again(tokenizer, model, target, function):
    """Whatever other texts were explained at once, and of pairs too."""
    texts = [text for text in TEXTS if isinstance(text, str) or not model.config.is_encoder_decoder]
    for one in explain(model, tokenizer, texts, target, n_steps=1):
        assert one.inputs is not None
        assert {tensor.shape for tensor in one.inputs.values()} == {(1, len(one.tokens))}
        with torch.no_grad():
            values = function(model(**one.inputs).logits)
        assert one.value == one.probability == pytest.approx(float(values[one.target]), abs=1e-5)


def test_the_output_is_named_by_the_task_and_not_by_its_value(tokenizer):
    """A regression's score may be in [0, 1]."""
    model = tiny_bert(**REGRESSION)
    outside = explain(model, tokenizer, ["good film"], n_steps=1)[0]
    with torch.no_grad():
        model.classifier.bias += 0.5 - outside.probability
    inside = explain(model, tokenizer, ["good film"], n_steps=1)[0]
    assert inside.probability == pytest.approx(0.5, abs=1e-5)
    assert (outside.output, inside.output) == ("score", "score")
    assert output_value(inside.output, inside.value) == "score 0.5"
    for other in (tiny_bert(), tiny_bert(**MULTI_LABEL), tiny_llama()):
        assert explain(other, tokenizer, ["good film"], n_steps=1)[0].output == "probability"


class StepsForSequenceClassification(BertForSequenceClassification):
    """A classifier whose logits are whole numbers, so that no gradient goes through them."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.round()
        return output


def test_maps_of_zeros_that_cannot_be_right_have_an_infinite_error(tokenizer, tmp_path):
    model = StepsForSequenceClassification(bert_config()).eval()
    model.load_state_dict(tiny_bert().state_dict())
    with pytest.warns(ConvergenceWarning, match="inf"):
        one = explain(model, tokenizer, ["good film"])[0]
    assert bool(one.error.isinf().any())
    assert not one.attributions.any()
    assert_same(Explanation.load(one.save(tmp_path / "x")), one)


# -------------------------------------------------------------------------------------- options and modes


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_other_precisions_come_back_in_single_precision(explained, tokenizer, dtype):
    model = tiny_bert().to(dtype)
    if dtype is torch.bfloat16:
        with pytest.warns(ConvergenceWarning, match="as far as torch.bfloat16 rounding allows"):
            found = explain(model, tokenizer, TEXTS)
    else:
        found = explain(model, tokenizer, TEXTS)
    for one, expected in zip(found, explained, strict=True):
        assert {t.dtype for t in (one.attributions, one.attention, one.delta, one.error)} == {torch.float32}
        distance = (one.attributions - expected.attributions).norm() / expected.attributions.norm()
        assert distance < (0.1 if dtype is torch.bfloat16 else 2e-3)


def test_options_reach_the_quadrature(bert, tokenizer):
    fixed = explain(bert, tokenizer, ["good film"], n_steps=7, method="riemann_left", internal_batch_size=3)[0]
    assert fixed.nodes.tolist() == [7] * LAYERS
    assert bool(fixed.error.isnan().all())
    loose, tight = (explain(bert, tokenizer, ["good film"], tolerance=t)[0] for t in (1e-1, 1e-5))
    assert int(tight.nodes.sum()) > int(loose.nodes.sum())
    with pytest.warns(ConvergenceWarning):
        capped = explain(bert, tokenizer, ["good film"], tolerance=1e-6, max_nodes=5)[0]
    assert capped.nodes.tolist() == [5] * LAYERS


def test_truncate_cuts_what_is_too_long(bert, tokenizer):
    text, pair = " ".join("a" * 50), (" ".join("a" * 30), " ".join("b" * 30))
    short, long, both = explain(bert, tokenizer, ["a", text, pair], truncate=True, n_steps=2)
    assert short.tokens == ["[CLS]", "a", "[SEP]"]
    assert (len(long.tokens), long.tokens[-1]) == (LIMIT, "[SEP]")
    assert (len(both.tokens), both.tokens.count("[SEP]"), set(both.segments)) == (LIMIT, 2, {0, 1})
    assert long.text == text
    longest = " ".join("a" * (LIMIT - 2))
    assert len(explain(bert, tokenizer, [longest], n_steps=2)[0].tokens) == LIMIT


def test_the_tokenizers_own_limit_counts_too(bert):
    tokenizer = tiny_tokenizer(model_max_length=5)
    with pytest.raises(ValueError, match=r"texts\[0\] has 6 tokens and the model takes 5"):
        explain(bert, tokenizer, ["a b c d"])
    assert len(explain(bert, tokenizer, ["a b c d"], truncate=True, n_steps=2)[0].tokens) == 5


def test_it_works_under_no_grad_and_leaves_the_model_alone(explained, bert, tokenizer):
    with unchanged(bert), torch.no_grad():
        found = explain(bert, tokenizer, TEXTS)
    for one, two in zip(found, explained, strict=True):
        assert_same(one, two)


@pytest.mark.parametrize("progress", [True, False])
def test_what_is_done_soon_shows_no_bar(bert, tokenizer, capsys, progress):
    explain(bert, tokenizer, ["a"], n_steps=2, progress=progress)
    assert capsys.readouterr() == ("", "")


def test_bar_of_what_takes_longer_can_be_switched_off(bert, tokenizer, capsys, monkeypatch):
    def impatient(*args: Any, delay: float, bar: Any = explain_module.tqdm, **options: Any) -> Any:
        assert delay == 2
        return bar(*args, **options)

    monkeypatch.setattr(explain_module, "tqdm", impatient)
    explain(bert, tokenizer, ["a", "b"], n_steps=2, progress=False)
    list(explain_iter(bert, tokenizer, ["a", "b"], n_steps=2, progress=False))
    assert capsys.readouterr() == ("", "")
    explain(bert, tokenizer, ["a", "b"], n_steps=2)
    assert "2/2" in capsys.readouterr().err
    list(explain_iter(bert, tokenizer, ["a", "b", "c"], n_steps=2))
    assert "3/3" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------- explain_iter


def many(count: int) -> list[Any]:
    words = list(WORDS[:26])
    return [" ".join(words[i % 5 : i % 5 + 1 + i % 4]) if i % 3 else ("good", words[i % 26]) for i in range(count)]


def test_explain_iter_equals_explain_on_a_long_generator(bert, tokenizer):
    texts = many(41)
    expected = explain(bert, tokenizer, texts, n_steps=3)
    found = list(explain_iter(bert, tokenizer, (text for text in texts), n_steps=3, window=7))
    assert [one.text for one in found] == texts
    for one, two in zip(found, expected, strict=True):
        assert_same(one, two, atol=1e-6)


def test_explain_iter_reads_one_window_at_a_time(bert, tokenizer):
    read: list[int] = []

    def source() -> Iterator[str]:
        for i in range(10**9):
            read.append(i)
            yield "a b"

    found = explain_iter(bert, tokenizer, source(), window=3, n_steps=2, progress=False)
    assert not read
    for number in range(7):
        next(found)
        assert len(read) == 3 * (number // 3 + 1)
    found.close()


def test_explain_iter_takes_targets_options_and_nothing(bert, tokenizer):
    assert list(explain_iter(bert, tokenizer, [])) == []
    one = next(explain_iter(bert, tokenizer, ["a b c"], "LABEL_2", n_steps=4, method="riemann_left", truncate=True))
    assert_same(one, explain(bert, tokenizer, ["a b c"], 2, n_steps=4, method="riemann_left")[0])


def test_explain_iter_names_a_bad_text_by_its_place_and_gives_those_before(bert, tokenizer):
    found = explain_iter(bert, tokenizer, ["a", "b", "c", " ", "d"], window=2, n_steps=2)
    assert [next(found).text, next(found).text] == ["a", "b"]
    with unchanged(bert), pytest.raises(ValueError, match=r"texts\[3\] = ' ' is empty"):
        next(found)


def test_the_model_is_free_between_two_explanations(bert, tokenizer):
    found = explain_iter(bert, tokenizer, ["a", "b"], window=1, n_steps=2)
    with unchanged(bert):
        next(found)
        explain(bert, tokenizer, ["c"], n_steps=2)
        next(found)


def unread() -> Iterator[str]:
    """Texts that must not be asked for."""
    pytest.fail("a text was read")
    yield "a"


NOW: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "texts": ({"texts": 5}, TypeError, "texts must be a list of texts or of pairs, got int"),
    "model": ({"model": nn.Linear(2, 2)}, TypeError, "module around one, got Linear"),
    "tokenizer": ({"tokenizer": None}, TypeError, "tokenizer must be the model's tokenizer, got NoneType"),
    "target": ({"target": "joy"}, ValueError, "target 'joy' of .* is unknown"),
    "target's range": ({"target": 3}, ValueError, "target 3 of .* is out of range"),
    "target's kind": ({"target": 1.5}, TypeError, "target 1.5 of .* must be an integer or a name"),
    "targets": ({"target": [0]}, TypeError, "one target for all texts"),
    "window": ({"window": 0}, ValueError, "window=0 is too small: at least 1 is needed"),
    "window's kind": ({"window": 2.0}, TypeError, "window=2.0 must be an int"),
    "window's bool": ({"window": True}, TypeError, "window=True must be an int"),
    "window's name": ({"window": "2"}, TypeError, "window='2' must be an int"),
    "truncate": ({"truncate": 2}, ValueError, "truncate=2 must be True, False or a number of 3 or more tokens"),
    "truncate's kind": ({"truncate": "long"}, ValueError, "truncate='long' must be True, False or a number"),
    "n_steps": ({"n_steps": 0}, ValueError, "n_steps=0 is too small"),
    "n_steps' kind": ({"n_steps": 2.0}, TypeError, "n_steps=2.0 must be an int"),
    "method": ({"method": "simpson"}, ValueError, "method='simpson' is unknown"),
    "fixed rule": ({"method": "riemann_left"}, ValueError, "is a fixed rule: say its number of nodes"),
    "tolerance": ({"tolerance": 0}, ValueError, "tolerance=0 must be a number between 0 and 1"),
    "max_nodes": ({"max_nodes": 1}, ValueError, "max_nodes=1 is too small: at least 5 is needed"),
    "internal_batch_size": ({"internal_batch_size": 0}, ValueError, "internal_batch_size=0 is too small"),
    "unknown option": ({"steps": 3}, TypeError, "has no argument 'steps'; did you mean 'n_steps'"),
}


@pytest.mark.parametrize("name", NOW)
def test_explain_iter_names_mistakes_when_it_is_called(bert, tokenizer, name):
    """Not when the first explanation is asked for; and `explain` says the same."""
    changes, error, message = NOW[name]
    given = {"model": bert, "tokenizer": tokenizer, "texts": unread()} | changes
    with pytest.raises(error, match=message):
        explain_iter(**given)
    if "window" not in given and name not in ("texts", "targets"):
        with pytest.raises(error, match=message):
            explain(**given | {"texts": ["a"]})


def test_explain_iter_leaves_the_model_alone_until_it_is_asked(bert, tokenizer, monkeypatch):
    monkeypatch.setattr(bert.bert, "forward", lambda *args, **kwargs: pytest.fail("the model ran"))
    explain_iter(bert, tokenizer, unread(), 2)


# ----------------------------------------------------------------------------------------------- numbers

SECOND = {
    "int": 2,
    "numpy": np.int64(2),
    "unsigned": np.uint8(2),
    "array": np.array(2),
    "tensor": torch.tensor(2),
    "short tensor": torch.tensor(2, dtype=torch.int16),
    "name": "LABEL_2",
    "numpy's name": np.str_("LABEL_2"),
    "list": [2],
    "list of tensors": [torch.tensor(2)],
    "array of one": np.array([2]),
    "tensor of one": torch.tensor([2]),
    "array of names": np.array(["LABEL_2"]),
}


@pytest.mark.parametrize("target", SECOND.values(), ids=SECOND)
def test_targets_are_numbers_of_any_library(bert, tokenizer, target):
    (one,) = explain(bert, tokenizer, ["a b"], target, n_steps=1)
    assert (type(one.target), one.target, one.label) == (int, 2, "LABEL_2")
    if not isinstance(target, list) and np.ndim(target) == 0:
        (again,) = explain_iter(bert, tokenizer, ["a b"], target, n_steps=1)
        assert_same(one, again)


@pytest.mark.parametrize("integer", [int, np.int64, np.uint8, np.array, torch.tensor], ids=lambda kind: kind.__name__)
def test_windows_and_lengths_are_numbers_of_any_library(bert, tokenizer, integer):
    texts = ["a b c d e", "b", "c"]
    found = list(explain_iter(bert, tokenizer, texts, window=integer(2), truncate=integer(4), n_steps=1))
    assert [len(one.tokens) for one in found] == [4, 3, 3]


@pytest.mark.parametrize("truth", [True, np.True_, np.array(True), torch.tensor(True)], ids=repr)
def test_truth_values_of_any_library_truncate(bert, tokenizer, truth):
    assert len(explain(bert, tokenizer, [LONG], truncate=truth, n_steps=1)[0].tokens) == LIMIT
    with pytest.raises(ValueError, match="has 32 tokens and the model takes 24"):
        explain(bert, tokenizer, [LONG], truncate=truth ^ True, n_steps=1)


# ----------------------------------------------------------------------------------------------- mistakes


class Case(NamedTuple):
    name: str
    call: Callable[[PreTrainedModel, Any], Any]
    error: type[Exception]
    message: str


def texts(*given: Any, **options: Any) -> Callable[[PreTrainedModel, Any], Any]:
    return lambda model, tokenizer: explain(model, tokenizer, *given, **options)


def windows(*given: Any, **options: Any) -> Callable[[PreTrainedModel, Any], Any]:
    return lambda model, tokenizer: list(explain_iter(model, tokenizer, *given, **options))


LONG = " ".join("a" * 30)
CASES = (
    Case("an empty text", texts(""), ValueError, r"texts\[0\] = '' is empty"),
    Case("None", texts(None), TypeError, "got NoneType"),
    Case("a number", texts(5), TypeError, "got int"),
    Case("empty list", texts([]), ValueError, "texts is empty"),
    Case("one empty", texts(["a", ""]), ValueError, r"texts\[1\] = '' is empty"),
    Case("one blank", texts(["a", " \n"]), ValueError, r"texts\[1\] = ' \\n' is empty"),
    Case("empty pair", texts([("", " ")]), ValueError, r"texts\[0\] = \('', ' '\) is empty"),
    Case("number", texts(["a", 3]), TypeError, r"texts\[1\] must be a text or a pair of texts, got 3"),
    Case("bytes", texts([b"a"]), TypeError, r"texts\[0\] must be a text or a pair of texts, got b'a'"),
    Case("no text", texts([None]), TypeError, r"texts\[0\] .* got None"),
    Case("pair of one", texts([("a",)]), TypeError, r"pair of texts, got \('a',\)"),
    Case("pair of three", texts([("a", "b", "c")]), TypeError, "pair of texts, got"),
    Case("pair with number", texts([("a", 1)]), TypeError, r"texts\[0\] must hold text, got int: 1"),
    Case("too long", texts(["a", LONG]), ValueError, r"texts\[1\] has 32 tokens and the model takes 24.*truncate=True"),
    Case("pair too long", texts([(LONG, "a")]), ValueError, r"texts\[0\] has 34 tokens and the model takes 24"),
    Case("class too large", texts(["a"], 3), ValueError, r"target 3 of texts\[0\] is out of range: the model has 3"),
    Case("class below 0", texts(["a"], -1), ValueError, r"target -1 of texts\[0\] is out of range"),
    Case("label", texts(["a"], "joy"), ValueError, r"'joy' of texts\[0\] is unknown; the model has \['LABEL_0', 'LA"),
    Case("float", texts(["a"], 1.0), TypeError, r"target 1.0 of texts\[0\] must be an integer or a name"),
    Case("bool", texts(["a"], True), TypeError, r"target True of texts\[0\] must be an integer"),
    Case("numpy's bool", texts(["a"], np.True_), TypeError, r"target True of texts\[0\] must be an integer"),
    Case("tensor of a bool", texts(["a"], torch.tensor(True)), TypeError, r"target True of texts\[0\] must be an int"),
    Case("tensor of a float", texts(["a"], torch.tensor(1.0)), TypeError, r"target 1.0 of texts\[0\] must be an int"),
    Case("numpy's float", texts(["a"], np.float32(1)), TypeError, r"target 1.0 of texts\[0\] must be an integer"),
    Case(
        "tuple", texts(["a"], (1,)), TypeError, r"target \(1,\) of texts\[0\] must be an integer or a name, or config"
    ),
    Case("matrix", texts(["a"], np.array([[1]])), TypeError, r"target \[1\] of texts\[0\] must be an integer"),
    Case("array too short", texts(["a", "b"], np.array([0])), ValueError, "target lists 1 entries for 2 texts"),
    Case("one of a list", texts(["a", "b"], [0, 7]), ValueError, r"target 7 of texts\[1\] is out of range"),
    Case("list too short", texts(["a", "b"], [0]), ValueError, "target lists 1 entries for 2 texts"),
    Case("method", texts(["a"], method="simpson"), ValueError, "method='simpson' is unknown"),
    Case("steps", texts(["a"], n_steps=0), ValueError, "n_steps=0 is too small"),
    Case("iter: an empty text", windows(""), ValueError, r"texts\[0\] = '' is empty"),
    Case("iter: None", windows(None), TypeError, "got NoneType"),
    Case("iter: list of targets", windows(["a"], [0]), TypeError, "one target for all texts; use explain"),
    Case("iter: array of targets", windows(["a"], np.array([0])), TypeError, "one target for all texts; use explain"),
    Case("iter: window", windows(["a"], window=0), ValueError, "window=0 is too small: at least 1"),
    Case("iter: option", windows(["a"], steps=3), TypeError, "has no argument 'steps'; did you mean 'n_steps'"),
    Case("iter: label", windows(["a"], "joy"), ValueError, "'joy' of .* is unknown"),
    Case("iter: too long", windows(["a", LONG]), ValueError, r"texts\[1\] has 32 tokens"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_mistake_is_named(bert, tokenizer, case):
    with unchanged(bert), pytest.raises(case.error, match=case.message):
        case.call(bert, tokenizer)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_mistakes_are_found_before_the_model_runs(bert, tokenizer, case, monkeypatch):
    monkeypatch.setattr(bert.bert, "forward", lambda *args, **kwargs: pytest.fail("the model ran"))
    with pytest.raises(case.error):
        case.call(bert, tokenizer)


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("good film", ValueError, r"target 'good film' of texts\[0\] is 2 tokens \['good', 'film'\]; one is needed"),
        ("", ValueError, r"target '' of texts\[0\] is 0 tokens"),
        (VOCAB, ValueError, f"target {VOCAB} .* out of range: the model has {VOCAB}"),
        (-1, ValueError, "target -1 .* out of range"),
        (1.5, TypeError, "must be an integer or a name"),
    ],
)
def test_unknown_tokens_of_a_language_model(llama, tokenizer, target, error, message):
    with unchanged(llama), pytest.raises(error, match=message):
        explain(llama, tokenizer, ["a b"], target)


def test_classes_of_a_configuration_may_be_numbered_by_strings(tokenizer):
    model = tiny_bert()
    model.config.id2label = {"0": "no", "1": "maybe", "2": "yes"}
    assert [one.label for one in explain(model, tokenizer, ["a", "b"], ["yes", 1], n_steps=1)] == ["yes", "maybe"]


@pytest.mark.parametrize("name", ["BertModel", "BertForMultipleChoice", "BertForNextSentencePrediction"])
def test_models_of_other_tasks_are_refused(tokenizer, name):
    model = getattr(transformers, name)(bert_config()).eval()
    with pytest.raises(
        TypeError, match=f"sequence classification or a causal language model, got {name}.*LayerAttAttr"
    ):
        explain(model, tokenizer, ["a"])


@pytest.mark.parametrize("model", [None, "bert-base-uncased", nn.Linear(2, 2)], ids=str)
def test_what_is_no_transformer_is_refused(tokenizer, model):
    with pytest.raises(TypeError, match=f"(causal language model|module around one), got {type(model).__name__}"):
        explain(model, tokenizer, ["a"])


def test_special_tokens_of_the_toy_are_what_the_models_think():
    tokenizer = tiny_tokenizer()
    assert (tokenizer.cls_token_id, tokenizer.sep_token_id, len(tokenizer)) == (CLS, SEP, len(WORDS) + 4)
    assert len(tokenizer) <= VOCAB


def test_one_text_of_a_pair_may_be_empty(bert):
    """As a few of QQP's are."""
    (explanation,) = explain(bert, tiny_tokenizer(), [("a b", "")], progress=False)
    assert explanation.tokens[:4] == ["[CLS]", "a", "b", "[SEP]"]


def test_steps_that_would_fill_the_memory_are_refused(bert):
    with pytest.raises(ValueError, match="n_steps=10000000000 is too large: at most 100,000"):
        explain(bert, tiny_tokenizer(), ["a"], n_steps=10**10, progress=False)
