"""Encoder-decoders that write: F is their own, three kinds of maps add up, answers in all forms, mistakes."""

from __future__ import annotations

import pytest
import results
import torch
import transformers
from device import place
from tiny_families import exists, tiny_model
from toy import CLS, PAD, SEP, VOCAB, tiny_llama, tiny_tokenizer, tiny_writer, unchanged
from transformers import (
    BertConfig,
    BertLMHeadModel,
    EncoderDecoderConfig,
    EncoderDecoderModel,
    MBart50Tokenizer,
    MBartTokenizer,
    ProphetNetConfig,
    ProphetNetForConditionalGeneration,
    T5Tokenizer,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES

from captum_attattr import (
    Explanation,
    GenerationExplanation,
    LayerAttAttr,
    TranslationExplanation,
    UnsupportedModelError,
    attention_layers,
    attribution_tree,
    explain,
    explain_generation,
    faithfulness,
    plot_attention,
    plot_flow,
    plot_generation,
    plot_tokens,
    plot_tree,
    removal_effects,
    write_html,
    write_report,
)
from captum_attattr.attribution.methods.table import ATTRIBUTIONS, WITH_HEADS
from captum_attattr.explanations import answer_scores, text_model
from captum_attattr.model.head_pruning import prune_heads
from captum_attattr.model.wrappers import writes_from_source

pytestmark = pytest.mark.filterwarnings("ignore::captum_attattr.ConvergenceWarning")
SOURCE, IDS = "a good film", [CLS, 4, 30, 32, SEP]
ANSWER = "plot man work b c d e f g h"  # more tokens than share a forward
FAMILIES = ["T5", "MT5", "UMT5", "Bart", "MBart", "Pegasus", "MarianMTModel", "M2M100", "Blenderbot", "PLBart"]


def made(model=None, source=SOURCE, tokenizer=None, **options):
    options = options if "max_new_tokens" in options else {"generated": ANSWER} | options
    model = model or tiny_writer()
    return explain_generation(model, tokenizer or tiny_tokenizer(), source, progress=False, **options)


def own_probabilities(model, result, source=5):
    """Of every token of the answer, each behind its prefix alone."""
    device, found = next(model.parameters()).device, []
    for end in range(len(result.prompt_tokens), len(result.ids)):
        ids = torch.tensor([result.ids], device=device)
        with torch.no_grad():
            logits = model(input_ids=ids[:, :source], decoder_input_ids=ids[:, source:end], use_cache=False).logits
        found.append(float(logits[0, -1].softmax(-1)[result.ids[end]]))
    return found


def two_berts():
    """An encoder-decoder put together of two models."""
    torch.manual_seed(0)
    sizes = {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = BertConfig(**sizes, intermediate_size=48, initializer_range=0.2).to_dict()
    decoder = BertConfig(**config | {"is_decoder": True, "add_cross_attention": True})
    model = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(BertConfig(**config), decoder)).eval()
    model.config.decoder_start_token_id, model.config.pad_token_id = CLS, PAD
    return place(model)


@pytest.mark.parametrize("name", [*FAMILIES, "two BERTs"])
def test_f_is_the_models_own_probability_and_a_row_adds_up(name):
    model = two_berts() if name == "two BERTs" else tiny_writer(name)
    try:
        result = made(model, generated="plot man work", n_steps=32)
    except UnsupportedModelError as error:
        if name == "UMT5" and "eager and fused attention of this family differ" in str(error):
            pytest.skip("this release's fused attention of UMT5 is another one than its eager attention")
        raise
    start = CLS if name == "two BERTs" else PAD
    assert result.ids == [*IDS, start, CLS, 33, 34, 35]  # the tokenizer begins with [CLS], and so does what is written
    assert result.prompt_tokens[:5] == ["[CLS]", "a", "good", "film", "[SEP]"]
    assert result.tokens == ["plot", "man", "work"]
    assert result.special == [True, False, False, False, True, True, True, False, False, False]
    assert result.matrix.shape == (3, 10)
    assert result.scorer.causal
    assert result.values.tolist() == pytest.approx(own_probabilities(model, result), abs=1e-5)
    assert result.values.tolist() == pytest.approx(result.probabilities.tolist(), abs=1e-6)
    kept = made(model, generated="plot man work", n_steps=32, keep="maps")
    torch.testing.assert_close(kept.matrix, result.matrix, rtol=0, atol=1e-5)
    torch.testing.assert_close(kept.total_delta, result.total_delta, rtol=0, atol=1e-5)
    assert (result.total_delta.abs() < 0.005 * result.matrix.abs().sum(1)).all()


OTHERS = ["bigbird_pegasus", "blenderbot-small", "fsmt", "mvp", "nllb-moe", "seamless_m4t", "switch_transformers"]


@pytest.mark.parametrize("name", [*OTHERS, "seamless_m4t_v2", "t5gemma"])
def test_other_families(name):
    """All that transformers lists as writing text for text, and that are not refused, as small as can be."""
    if not exists(name):
        pytest.skip(f"this transformers has no {name}")
    names = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
    model = place(tiny_model(name, [getattr(transformers, names[name])]))
    model.generation_config.decoder_start_token_id = 1
    result = made(model, generated=[33, 34, 35], n_steps=2)
    assert result.scorer.causal
    assert result.values.tolist() == pytest.approx(own_probabilities(model, result), abs=1e-5)
    explanation = result.explanations[2]
    torch.testing.assert_close(result.matrix[2, :8], explanation.token_scores().float(), rtol=0, atol=1e-6)
    assert (len(explanation.encoder), len(explanation.decoder), len(explanation.cross)) == (3, 3, 3)


@pytest.mark.parametrize("path", ["joint", "layer"])
@pytest.mark.parametrize("name", ["T5", "Bart"])
def test_maps_are_those_of_a_forward_written_by_hand(name, path):
    model = tiny_writer(name).double()
    result = made(model, path=path, baseline="uniform", n_steps=3)
    token = 8
    end = len(result.prompt_tokens) + token
    ids, written = (torch.tensor([part], device=place(torch.empty(0)).device) for part in (IDS, result.ids[5:end]))

    def forward(source, decoder):
        return model(input_ids=source, decoder_input_ids=decoder).logits[:, -1].softmax(-1)

    kinds = {kind: attention_layers(model, kind) for kind in ("encoder", "decoder", "cross")}
    lattr = LayerAttAttr(forward, [layer for layers in kinds.values() for layer in layers])
    options = {"path": path, "attention_baselines": "uniform", "n_steps": 3, "target": result.ids[end]}
    maps, delta = lattr.attribute((ids, written), return_convergence_delta=True, **options)
    parts = dict(zip(kinds, (maps[:3], maps[3:5], maps[5:]), strict=True))
    explanation = result.explanations[token]
    assert isinstance(explanation, TranslationExplanation)
    assert explanation.kinds == [*["encoder"] * 3, *["decoder", "cross"] * 2]
    count = written.shape[1]
    assert (explanation.encoder.shape, explanation.cross.shape) == ((3, 4, 5, 5), (2, 4, count, 5))
    assert explanation.decoder.shape == (2, 4, count, count)
    for kind, expected in parts.items():
        torch.testing.assert_close(explanation.part(kind), torch.cat(expected).cpu().float(), rtol=0, atol=1e-6)
    assert sum(float(explanation.part(kind).sum()) for kind in kinds) == pytest.approx(
        float(explanation.attributions.sum()), abs=1e-5
    )
    source = torch.cat(parts["encoder"]).sum((0, 1, 2)) + torch.cat(parts["cross"]).sum((0, 1, 2))
    row = torch.cat((source, torch.cat(parts["decoder"]).sum((0, 1, 2)))).cpu().float()
    row = row if path == "joint" else row / len(maps)
    torch.testing.assert_close(result.matrix[token, :end], row, rtol=0, atol=1e-6)
    assert not result.matrix[token, end:].any()
    if path == "joint":
        assert float(result.total_delta[token]) == pytest.approx(float(delta), abs=1e-6)
    else:
        by_layer = {"encoder": delta[:3], "decoder": delta[3:5], "cross": delta[5:]}
        for kind, expected in by_layer.items():
            rows = [row for row, each in enumerate(explanation.kinds) if each == kind]
            torch.testing.assert_close(explanation.delta[rows], torch.cat(expected).cpu().float(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"output": "log_probability"},
        {"output": "logit", "contrast": "z"},
        {"layers": [0, 3, 4]},
        {"layers": [1]},
        {"layers": [5, 6], "internal_batch_size": 3},
    ],
)
def test_a_row_is_that_of_the_tokens_own_explanation(options):
    result = made(tiny_writer().double(), n_steps=3, **options)
    for token in (0, 9):
        explanation = result.explanations[token]
        end = len(result.prompt_tokens) + token
        torch.testing.assert_close(result.matrix[token, :end], explanation.token_scores(), rtol=0, atol=1e-5)
        assert float(result.values[token]) == pytest.approx(explanation.value, abs=1e-5)
        assert float(result.total_delta[token]) == pytest.approx(explanation.total_delta, abs=1e-5)
        assert explanation.layers == result.layers == options.get("layers", list(range(7)))
        assert explanation.tokens == [*result.prompt_tokens, *result.tokens][:end]
        assert (explanation.source, explanation.positions) == (5, [end - 1])
        assert explanation.note == (
            "layers 0 to 2 are the encoder's; 3, 5 the decoder's own attention; 4, 6 its attention to the source"
        )


@pytest.mark.parametrize("name", ATTRIBUTIONS)
def test_every_method_or_its_refusal(name):
    model = tiny_writer()
    if name not in WITH_HEADS:
        with pytest.raises(ValueError, match=f"attribution='{name}' follows one row of tokens.*has two; use one of"):
            made(model, generated="plot man", attribution=name)
        return
    result = made(model, generated="plot man", attribution=name)
    assert result.explanations[1].attribution == result.attribution == name
    torch.testing.assert_close(result.matrix[1, :8], result.explanations[1].token_scores().float())
    assert result.span(0, 2).scores.shape == (8,)


def test_a_span_is_the_sum_of_its_tokens_log_probabilities():
    model = tiny_writer("Bart").double()
    result = made(model, output="log_probability")
    for begin, end in ((0, 10), (2, 5)):
        span = result.span(begin, end)
        expected = result.matrix[begin:end].sum(0)[: 7 + end - 1]
        torch.testing.assert_close(span.scores, expected, rtol=0, atol=1e-5)
        assert span.value == pytest.approx(float(result.values[begin:end].sum()), abs=1e-5)
        assert span.tokens == [*result.prompt_tokens, *result.tokens][: 7 + end - 1]
    assert result.span("man work").label == "man work"


# --------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize("forced", [None, 30])
@pytest.mark.parametrize("name", ["T5", "Bart"])
def test_the_model_writes_as_its_own_generate_does(name, forced):
    model = tiny_writer(name)
    model.generation_config.forced_bos_token_id = forced
    result = made(model, max_new_tokens=6, n_steps=1)
    start = [PAD] if forced is None else [PAD, forced]
    assert result.ids[: 5 + len(start)] == IDS + start
    ids = torch.tensor([IDS], device=next(model.parameters()).device)
    own = model.generate(ids, max_new_tokens=6 + len(start) - 1, do_sample=False, num_beams=1)[0].tolist()
    assert result.ids[5:] == own
    assert len(result.tokens) == 6 or result.ids[-1] == SEP
    assert (result.written, result.answer) == ("greedy", tiny_tokenizer().decode(own[len(start) :]))
    assert result.values.tolist() == pytest.approx(own_probabilities(model, result), abs=1e-5)
    for ids in (own, own[1:], own[len(start) :]):  # as generate has them, labels, and the answer alone
        again = made(model, generated=ids, n_steps=1)
        assert again.ids == result.ids
        assert torch.equal(again.matrix, result.matrix)


def test_a_text_that_carries_its_special_tokens_gets_none_twice():
    plain, carried = (made(generated=answer, n_steps=1) for answer in ("plot man", "[CLS] plot man [SEP]"))
    assert carried.prompt_tokens == plain.prompt_tokens
    assert carried.tokens == ["plot", "man", "[SEP]"]
    torch.testing.assert_close(carried.matrix[:2, :9], plain.matrix, rtol=0, atol=1e-6)


def test_pairs_are_sources_where_the_model_has_no_types_for_them():
    result = made(source=[("a good", "film")], generated="plot", n_steps=1)
    assert result.prompt == ("a good", "film")
    assert result.values.tolist() == pytest.approx(own_probabilities(tiny_writer(), result, source=6), abs=1e-5)
    with pytest.raises(ValueError, match=r"prompt is a pair whose texts have types of their own.*: give one text"):
        made(two_berts(), source=[("a good", "film")])


def test_sampling_goes_by_its_seed():
    model = tiny_writer("Bart")
    first, again, other = (made(model, max_new_tokens=6, do_sample=True, seed=s, n_steps=1) for s in (1, 1, 2))
    assert first.ids == again.ids != other.ids
    assert first.written == "sampled with the seed 1"


VOCABULARY = [*((f"<{name}>", 0.0) for name in ("s", "pad", "/s", "unk")), ("▁", -3.0)]
VOCABULARY += [(f"▁{word}", -1.0) for word in ("a", "good", "film", "un", "bon")]


def test_languages_come_first():
    """Of mBART-50 the tokenizer writes the target's language first; the first mBART's decoder starts with it."""
    tokenizer = MBart50Tokenizer(vocab=[("</s>" if w == "</s>" else w, p) for w, p in VOCABULARY], src_lang="en_XX")
    tokenizer.tgt_lang = "fr_XX"
    french = tokenizer.convert_tokens_to_ids("fr_XX")
    sizes = {"vocab_size": len(tokenizer), "decoder_start_token_id": tokenizer.eos_token_id}
    model = tiny_writer("MBart", **sizes)
    result = made(model, tokenizer=tokenizer, generated="un bon film")
    assert result.prompt_tokens == ["en_XX", "▁a", "▁good", "▁film", "</s>", "</s>", "fr_XX"]
    assert result.tokens == ["▁un", "▁bon", "▁film"]
    assert result.words().answer == ["un", "bon", "film"]
    assert result.special[5:] == [True, True, False, False, False]
    model.generation_config.forced_bos_token_id = french
    assert made(model, tokenizer=tokenizer, generated="un bon film").ids == result.ids
    written = made(model, tokenizer=tokenizer, max_new_tokens=2)
    assert written.prompt_tokens == result.prompt_tokens
    tokenizer.tgt_lang = "de_DE"
    with pytest.raises(ValueError, match=r"generated begins with \['de_DE'\] as the tokenizer writes it.*\['fr_XX'\]"):
        made(model, tokenizer=tokenizer, generated="un bon film")
    first = MBartTokenizer(vocab=VOCABULARY, src_lang="en_XX", tgt_lang="fr_XX")
    french = first.convert_tokens_to_ids("fr_XX")
    model = tiny_writer("MBart", vocab_size=len(first), decoder_start_token_id=french)
    result = made(model, tokenizer=first, generated="un bon film")
    assert result.prompt_tokens == ["▁a", "▁good", "▁film", "</s>", "en_XX", "fr_XX"]
    assert result.tokens == ["▁un", "▁bon", "▁film"]


def test_the_target_side_of_a_tokenizer_splits_answers():
    tokenizer = T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *VOCABULARY[4:]], extra_ids=0)
    model = tiny_writer("T5", vocab_size=len(tokenizer), decoder_start_token_id=0)
    result = made(model, tokenizer=tokenizer, generated="un bon film")
    assert result.prompt_tokens == ["▁a", "▁good", "▁film", "</s>", "<pad>"]
    assert result.tokens == ["▁un", "▁bon", "▁film"]  # no end token: give ids to have it too
    assert made(model, tokenizer=tokenizer, generated=tokenizer("un bon")["input_ids"]).tokens[-1] == "</s>"
    with pytest.raises(ValueError, match=r"'<unk>', behind 'un ?': the model cannot write it; give ids"):
        made(model, tokenizer=tokenizer, generated="un gros film")
    unknown = tokenizer("un gros")["input_ids"]
    assert made(model, tokenizer=tokenizer, generated=unknown).ids[5:] == unknown


# ----------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("keep", ["scores", "maps"])
def test_files_bring_everything_back(tmp_path, keep):
    model = tiny_writer("Bart")
    result = made(model, generated="plot man work", keep=keep, contrast="z", output="logit", layers=[1, 4], n_steps=3)
    loaded = GenerationExplanation.load(result.save(tmp_path / "generation.safetensors"))
    results.assert_same_generation(loaded, result)
    if keep == "maps":
        assert torch.equal(loaded.explanations[1].encoder, result.explanations[1].encoder)
        assert loaded.explanations[1].inputs["decoder_input_ids"].tolist() == [[PAD, CLS, 33]]
    again = loaded.attach(model, tiny_tokenizer())
    torch.testing.assert_close(again.span(0, 2).scores, result.span(0, 2).scores)
    one = again.explanations[2]
    assert torch.equal(one.attributions, result.explanations[2].attributions)
    same = Explanation.load(one.save(tmp_path / "one.safetensors"))
    assert isinstance(same, TranslationExplanation)
    assert same.kinds == one.kinds == ["encoder", "cross"]
    assert torch.equal(same.cross, one.cross)
    assert same.text == one.text == ("[CLS] a good film [SEP]", "[PAD] [CLS] plot man")


class KilledError(Exception):
    pass


def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch):
    model, path, done = tiny_writer(), tmp_path / "run.jsonl", []
    whole = made(model)
    work = answer_scores.AnswerScorer.work

    def killed(self, tokens):
        if done:
            raise KilledError
        done.append(tokens)
        return work(self, tokens)

    monkeypatch.setattr(answer_scores.AnswerScorer, "work", killed)
    with pytest.raises(KilledError):
        made(model, resume=path)
    monkeypatch.setattr(answer_scores.AnswerScorer, "work", work)
    assert torch.equal(made(model, resume=path).matrix, whole.matrix)


def test_trees_and_views_take_them(tmp_path):
    result = made(generated="plot man work", n_steps=3)
    explanation = result.explanations[2]
    tree = attribution_tree(explanation, threshold=0.01)
    assert tree.graph["root"] == len(explanation.tokens) - 1
    for figure in (
        plot_tree(tree),
        plot_attention(explanation, layer=3, head=0),
        plot_flow(explanation),
        plot_tokens(explanation),
        plot_generation(result),
    ):
        assert figure.to_json()
    page = write_report(explanation, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "4, 6 its attention to the source" in page
    whole = write_html(plot_generation(result), tmp_path / "answer.html").read_text(encoding="utf-8")
    assert "<h2>source</h2>" in whole
    assert "<h2>prompt</h2>" not in whole
    assert "<iframe" in result._repr_html_()
    assert result.words().sources == ["[CLS]", "a", "good", "film", "[SEP]", "[PAD]", "[CLS]", "plot", "man", "work"]
    for function, given in ((removal_effects, explanation), (faithfulness, [explanation])):
        for model, name in ((tiny_writer(), "T5ForConditionalGeneration"), (tiny_llama(), r"explanations\[0\]")):
            with pytest.raises(TypeError, match=f"^{name} is of an encoder-decoder that writes, which is not run"):
                function(model, tiny_tokenizer(), given)


def test_heads_that_are_gone_have_zeros_and_the_model_stays():
    model = tiny_writer("Bart")
    with unchanged(model):
        model.train()
        expected = made(model, generated="plot man", n_steps=2).explanations[1].attributions
        model.eval()
    prune_heads(model, [(0, 1)])
    found = made(model, generated="plot man", n_steps=2).explanations[1].attributions
    assert found.shape == expected.shape
    assert not found[0, 1].any()
    assert expected[0, 1].any()


MISTAKES = [
    ({"source": ""}, ValueError, "prompt = '' is empty"),
    ({"source": ["a", "b"]}, ValueError, "prompt holds 2 texts, and one is explained at a time"),
    ({"source": "a " * 30}, ValueError, "prompt has 32 tokens and the model takes 24; shorten it$"),
    ({"generated": ""}, ValueError, "generated='' holds no token"),
    ({"generated": []}, ValueError, "holds no token"),
    ({"generated": 3}, TypeError, "generated must be the answer's text or its token ids, not 3"),
    ({"generated": [4, 999]}, ValueError, "generated has the token id 999, and the tokenizer knows 0 to"),
    ({"generated": [4, 5, SEP, PAD, PAD]}, ValueError, r"generated ends with 2 tokens of padding .*: leave them out$"),
    ({"generated": "plot quux"}, ValueError, r"reads as '\[UNK\]', behind 'plot': the model cannot write it"),
    ({"generated": "a " * 24}, ValueError, "the decoder starts with 2 tokens and generated has 24 more.*reads 24 at"),
    ({"max_new_tokens": 25}, ValueError, "the decoder starts with 1 tokens and max_new_tokens asks for 25 more"),
    ({"max_new_tokens": 3, "seed": 1}, ValueError, "changes nothing without sampling"),
    ({"contrast": "plot"}, ValueError, "contrast 'plot' is token 0 of the answer itself"),
    ({"layers": [7]}, ValueError, r"layers\[0\] must be from 0 to 6"),
    ({"task": "next_token"}, ValueError, "task='next_token' is unknown"),
]


@pytest.mark.parametrize(("options", "error", "message"), MISTAKES)
def test_mistakes_are_named_before_the_model_runs(options, error, message):
    model = tiny_writer("Bart")
    model.model.forward = lambda *_, **__: pytest.fail("the model ran")
    with pytest.raises(error, match=message):
        made(model, **options)


def test_models_and_tokenizers_that_do_not_fit():
    model = tiny_writer("Bart")
    tokenizer = tiny_tokenizer()
    tokenizer.separate_vocabs = True
    with pytest.raises(UnsupportedModelError, match="has a vocabulary for each language"):
        made(model, tokenizer=tokenizer)
    with pytest.raises(TypeError, match="explain_generation explains what it writes"):
        explain(model, tiny_tokenizer(), SOURCE)
    with pytest.raises(ValueError, match="generated has the token id 35, and the model knows 0 to 34"):
        made(tiny_writer("Bart", vocab_size=35), generated=[4, 35])
    for config in (model.generation_config, model.config):
        config.decoder_start_token_id = config.bos_token_id = None
    with pytest.raises(ValueError, match="does not say what its decoder starts with"):
        made(model)


CHOICES = [
    {},
    *({"layers": layers} for layers in ([2], [3], [3, 5], [4])),
    *({"attribution": name} for name in ("gradient_attention", "attention")),
    {"keep": "maps"},
    {"path": "layer"},
]


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_maps_that_are_not_of_the_tokens_are_refused_whatever_is_asked_for(options, monkeypatch):
    """ProphetNet predicts in streams beside its tokens: cross attention has rows of both, its own has none of them."""
    sizes = {"vocab_size": 36, "hidden_size": 32, "num_encoder_layers": 2, "num_decoder_layers": 2, "dropout": 0.0}
    heads = {"num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4, "decoder_start_token_id": CLS}
    streams = place(ProphetNetForConditionalGeneration(ProphetNetConfig(**sizes, **heads)).eval())
    with pytest.raises(UnsupportedModelError, match="predicts in streams of its own beside the tokens"):
        made(streams, **options)
    monkeypatch.setattr(text_model, "STREAMS", {})
    if options.get("layers") in ([2], [4]):  # the decoder's own attention alone looks as it should
        return
    told = r"cross .* maps of \d+ x 5 for 5 tokens of a source and \d+ of the decoder.* positions of its own beside"
    with pytest.raises(UnsupportedModelError, match=told):
        made(streams, **options)


def test_source_and_answer_need_attention_of_their_own():
    config = BertConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    apart = two_berts()
    apart.decoder = BertLMHeadModel(BertConfig(**config.to_dict() | {"is_decoder": True}))
    with pytest.raises(UnsupportedModelError, match=r"has no cross attention.*need attention of their own"):
        made(apart)


def test_what_writes_from_a_source():
    import toy

    assert writes_from_source(tiny_writer())
    assert not any(map(writes_from_source, (toy.tiny_bart(), toy.tiny_llama(), toy.tiny_bert(), None)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kinds": ["encoder"]}, "kinds must have 7 entries, one for each layer, not 1"),
        ({"kinds": ["self"] * 7}, "kinds='self' is unknown"),
        ({"segments": [0] * 9}, "segments must be 0 for each token of the source, then 1"),
    ],
)
def test_explanations_check_themselves(changed, message):
    explanation = made(generated="plot man work", n_steps=1, attention=False).explanations[2]
    with pytest.raises(ValueError, match="attention was not kept"):
        explanation.part("cross", attention=True)
    with pytest.raises(ValueError, match=message):
        TranslationExplanation(**vars(explanation) | changed)
