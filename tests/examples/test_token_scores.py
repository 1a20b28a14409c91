"""Captum's token scores in the benchmarks, on tiny models: of F as explained, and Captum's own numbers."""

import pytest
import torch
from captum.attr import LayerIntegratedGradients
from token_scores import counted_rows, gradient_x_input, integrated_gradients, leave_one_out
from toy import PAD, UNK, tiny_bert, tiny_llama, tiny_tokenizer

from captum_attattr import explain
from captum_attattr.explanations.text_model import TextModel

OPTIONS = ({}, {"output": "logit", "contrast": 0, "target": 1})


@pytest.fixture(params=[tiny_bert, tiny_llama], ids=["encoder", "decoder"])
def texts(request):
    return TextModel(request.param(), tiny_tokenizer(), False)


def explained(texts, text="good film a plot", **options):
    return explain(texts.model, texts.tokenizer, [text], attribution="attention", progress=False, **options)[0]


@pytest.mark.parametrize("options", OPTIONS)
def test_integrated_gradients_add_up(texts, options):
    explanation = explained(texts, **options)
    encoder = not texts.language
    if not encoder:  # the embedding of its padding is 0, where RMSNorm jumps: no rule adds up from there
        texts.tokenizer.pad_token = "[UNK]"
    for start in ("padding", "zero") if encoder else ("padding",):
        with counted_rows(texts.model) as rows:
            scores = integrated_gradients(texts, explanation, start, n_steps=200)
        assert sum(rows) >= 200
        replaced = explanation.inputs["input_ids"].where(
            torch.tensor([explanation.special]), texts.tokenizer.pad_token_id
        )
        embeddings = texts.model.get_input_embeddings()(replaced) * (start == "padding")
        further = {name: tensor for name, tensor in explanation.inputs.items() if name != "input_ids"}
        with torch.no_grad():
            values = texts.values(texts.logits({"inputs_embeds": embeddings, **further}), explanation.output)[0]
        empty = values[explanation.target] - (0 if explanation.contrast_target is None else values[0])
        assert float(scores.sum()) == pytest.approx(explanation.value - float(empty), abs=2e-3)


def test_it_is_integrated_gradients_of_the_embedding_layer():
    texts = TextModel(tiny_bert(), tiny_tokenizer(), False)
    explanation = explained(texts)
    method = LayerIntegratedGradients(
        lambda ids: texts.model(ids).logits.softmax(-1), texts.model.bert.embeddings.word_embeddings
    )
    ids = explanation.inputs["input_ids"]
    theirs = method.attribute(ids, ids.where(torch.tensor([explanation.special]), PAD), explanation.target, n_steps=50)
    assert torch.allclose(integrated_gradients(texts, explanation).float(), theirs.sum(-1)[0], atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_gradient_times_input_is_the_slope_of_a_scaled_embedding(texts, options):
    explanation = explained(texts, **options)
    further = {name: tensor for name, tensor in explanation.inputs.items() if name != "input_ids"}
    embeddings = texts.model.get_input_embeddings()(explanation.inputs["input_ids"]).detach()

    def value(scale):
        values = texts.values(
            texts.logits({"inputs_embeds": embeddings * scale[None, :, None], **further}), explanation.output
        )[0]
        return values[explanation.target] - (0 if explanation.contrast_target is None else values[0])

    slopes = torch.autograd.functional.jacobian(value, torch.ones(len(explanation.tokens)))
    assert torch.allclose(gradient_x_input(texts, explanation).float(), slopes, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_leaving_one_out_is_the_output_without_the_token(texts, options):
    explanation = explained(texts, **options)
    effects = leave_one_out(texts, explanation, UNK)
    ids = explanation.inputs["input_ids"].clone()
    ids[0, 2] = UNK
    with torch.no_grad():
        values = texts.values(texts.logits({**explanation.inputs, "input_ids": ids}), explanation.output)[0]
    without = values[explanation.target] - (0 if explanation.contrast_target is None else values[0])
    assert effects.shape == (len(explanation.tokens),)
    assert float(effects[2]) == pytest.approx(explanation.value - float(without), abs=1e-6)
