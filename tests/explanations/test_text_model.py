"""A model and its tokenizer: F as a function of the inputs, inputs that the model takes, gold labels of any library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toy import LAYERS, tiny_bert, tiny_llama, tiny_tokenizer
from transformers import BertForSequenceClassification

from captum_attattr import prune_heads
from captum_attattr.explanations.text_model import TextModel

TEXTS = ["good film", "a man a plot", ("a b", "c d e")]
MULTI_LABEL = {"problem_type": "multi_label_classification"}
NAMES = {0: "toxic", 1: "insult", 2: "threat"}


@pytest.mark.parametrize(
    ("model", "function"),
    [
        (tiny_bert(), lambda logits: logits.softmax(-1)),
        (tiny_bert(num_labels=1), lambda logits: logits),
        (tiny_bert(problem_type="regression"), lambda logits: logits),
        (tiny_bert(**MULTI_LABEL), lambda logits: logits.sigmoid()),
    ],
    ids=["classes", "regression", "several scores", "multi-label"],
)
def test_forward_function_is_the_output_of_every_class(model, function):
    """Of padded texts, in whichever order the inputs are named."""
    texts = TextModel(model, tiny_tokenizer(), False)
    named = texts.inputs(texts.encode_all(TEXTS))
    assert named["input_ids"].shape == (3, 8)
    with torch.no_grad():
        expected = function(model(**named).logits)
        for order in (list(named), list(reversed(named))):
            values = texts.forward_function(order)(*(named[name] for name in order))
            torch.testing.assert_close(values, expected)
    with pytest.raises(ValueError, match="zip"):
        texts.forward_function(named)(named["input_ids"])


def test_forward_function_of_a_language_model_is_the_next_tokens_probability():
    model = tiny_llama()
    texts = TextModel(model, tiny_tokenizer(), False)
    named = texts.inputs(texts.encode_all(["good film", "a plot"]))
    with torch.no_grad():
        values = texts.forward_function(named)(*named.values())
        torch.testing.assert_close(values, model(**named).logits[:, -1].softmax(-1))


class NarrowForSequenceClassification(BertForSequenceClassification):
    """A classifier that takes no token types."""

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        return super().forward(input_ids=input_ids, attention_mask=attention_mask)


def test_a_model_is_given_the_inputs_that_it_takes():
    model = NarrowForSequenceClassification(tiny_bert().config).eval()
    (item,) = TextModel(model, tiny_tokenizer(), False).encode_all(["good film"])
    assert set(item.encoding) == {"input_ids", "attention_mask"}


def test_values_by_layer_are_zero_where_all_heads_are_gone():
    model = tiny_bert()
    prune_heads(model, {1: [0, 1, 2, 3]})
    texts = TextModel(model, tiny_tokenizer(), False)
    assert texts.by_layer(torch.tensor([5, 7])).tolist() == [5, 0, 7]
    assert texts.depth == LAYERS


CLASSES = [2, 0, 1]
OF_ANY_LIBRARY: dict[str, Any] = {
    "ints": CLASSES,
    "tuple": tuple(CLASSES),
    "array": np.array(CLASSES),
    "small array": np.array(CLASSES, dtype=np.uint8),
    "tensor": torch.tensor(CLASSES),
    "numpy's ints": [np.int16(i) for i in CLASSES],
    "tensors": [torch.tensor(i) for i in CLASSES],
    "tensors of one": [torch.tensor([i]) for i in CLASSES],
    "names": [NAMES[i] for i in CLASSES],
    "numpy's names": [np.str_(NAMES[i]) for i in CLASSES],
    "array of names": np.array([NAMES[i] for i in CLASSES]),
    "a mixture": ["threat", np.int64(0), torch.tensor(1)],
}


@pytest.mark.parametrize("labels", OF_ANY_LIBRARY.values(), ids=OF_ANY_LIBRARY)
def test_labels_are_numbers_of_any_library(labels):
    texts = TextModel(tiny_bert(id2label=NAMES), tiny_tokenizer(), False)
    gold = texts.labels(labels, 3)
    assert (gold.dtype, gold.tolist()) == (torch.long, CLASSES)


@pytest.mark.parametrize(
    "label", [True, np.True_, torch.tensor(True), np.array(False), 1.0, np.float32(1), torch.tensor(1.0), [1]], ids=repr
)
def test_labels_that_are_no_integers_are_refused(label):
    texts = TextModel(tiny_bert(), tiny_tokenizer(), False)
    with pytest.raises(TypeError, match=r"label .* of texts\[1\] must be an integer or a name"):
        texts.labels([0, label, 1], 3)


SCORES: dict[str, Any] = {
    "floats": [0.5, -1.0, 2.0],
    "ints": [1, 2, 3],
    "array": np.array([0.5, 1.5, 2.5], dtype=np.float16),
    "tensor": torch.tensor([0.5, 1.5, 2.5]),
    "numpy's floats": [np.float32(0.5), np.float64(1.5), np.int8(2)],
    "tensors": [torch.tensor(0.5), torch.tensor(1), torch.tensor(2.5, dtype=torch.bfloat16)],
}


@pytest.mark.parametrize("labels", SCORES.values(), ids=SCORES)
def test_scores_are_numbers_of_any_library(labels):
    gold = TextModel(tiny_bert(num_labels=1), tiny_tokenizer(), False).labels(labels, 3)
    assert (gold.dtype, gold.tolist()) == (torch.float32, [float(label) for label in labels])


@pytest.mark.parametrize(
    "label", [True, np.True_, torch.tensor(True), "0.5", None, 1j, float("nan"), np.float32("inf"), [0.5]], ids=repr
)
def test_scores_that_are_no_finite_numbers_are_refused(label):
    texts = TextModel(tiny_bert(num_labels=1), tiny_tokenizer(), False)
    with pytest.raises(ValueError, match=r"label .* of texts\[1\] must be a finite number, the score"):
        texts.labels([0.5, label, 1.5], 3)


ROW = [1.0, 0.0, 1.0]
INDICATORS: dict[str, Any] = {
    "ints": [1, 0, 1],
    "bools": [True, False, True],
    "array": np.array([1, 0, 1]),
    "array of bools": np.array([True, False, True]),
    "tensor": torch.tensor(ROW),
    "numpy's ints": [np.int64(1), np.int8(0), np.True_],
    "tensors": [torch.tensor(1), torch.tensor(0.0), torch.tensor(True)],
    "names": ["toxic", "threat"],
    "numpy's names": [np.str_("threat"), np.str_("toxic")],
    "array of names": np.array(["toxic", "threat"]),
}


@pytest.mark.parametrize("label", INDICATORS.values(), ids=INDICATORS)
def test_several_labels_are_numbers_of_any_library(label):
    texts = TextModel(tiny_bert(id2label=NAMES, **MULTI_LABEL), tiny_tokenizer(), False)
    assert texts.labels([label, [0, 0, 0]], 2).tolist() == [ROW, [0, 0, 0]]
    for one in (1, np.int64(1), torch.tensor(1), np.array(1), "insult", np.str_("insult")):
        assert texts.labels([one], 1).tolist() == [[0, 1, 0]]
