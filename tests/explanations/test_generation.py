"""Generations: each token's scores are those of its prefix explained alone, spans, files, and mistakes."""

from __future__ import annotations

import re

import pandas
import pytest
import results
import torch
from device import place
from families import FAMILIES
from toy import CLS, PAD, SEP, byte_level, tiny_bert, tiny_llama, tiny_tokenizer, tiny_writer, unchanged
from transformers import GPT2Config, GPT2LMHeadModel, XLNetConfig, XLNetLMHeadModel

from captum_attattr import (
    ConvergenceWarning,
    GenerationExplanation,
    ResultFileError,
    explain,
    explain_generation,
    plot_tokens,
)
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.explanations import answer_scores

pytestmark = pytest.mark.filterwarnings("ignore::captum_attattr.ConvergenceWarning")
PROMPT = "a good film"
ANSWER = " plot man work b c d e f g h"  # more tokens than share a forward


def made(model=None, prompt=PROMPT, **options):
    options = options if "max_new_tokens" in options else {"generated": ANSWER} | options
    return explain_generation(model or tiny_llama(), tiny_tokenizer(), prompt, progress=False, **options)


def alone(model, result, token, **options):
    end = len(result.prompt_tokens) + token
    given = {"target": [result.ids[end]], "progress": False} | options
    return explain(model, tiny_tokenizer(), [result.ids[:end]], **given)[0]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output": "log_probability"},
        {"output": "logit", "contrast": "z"},
        {"baseline": "uniform", "n_steps": 3, "layers": [0, 2]},
        {"internal_batch_size": 3},
        {"baseline": 0.5, "n_steps": 3},  # a start at which what follows is read too
    ],
)
def test_a_row_is_the_prefix_explained_alone(options):
    """Rows of the text as a whole, so that queries behind the token must not count."""
    model = tiny_llama().double()
    result = made(model, **options)
    assert result.tokens == ANSWER.split()
    assert result.matrix.shape == (10, 15)
    given = {"path": "joint", "baseline": "sink", "n_steps": 8} | options
    for token in (0, 7, 8, 9):
        explanation = alone(model, result, token, **given)
        scores, end = explanation.token_scores().float(), 5 + token
        torch.testing.assert_close(result.matrix[token, :end], scores, rtol=0, atol=1e-5)
        assert not result.matrix[token, end:].any()
        assert float(result.values[token]) == pytest.approx(explanation.value, abs=1e-5)
        assert float(result.probabilities[token]) == pytest.approx(explanation.probability, abs=1e-6)
        assert result.predictions[token] == explanation.prediction
        assert float(result.total_delta[token]) == pytest.approx(explanation.total_delta, abs=1e-5)


@pytest.mark.parametrize("name", [*(name for name in ATTRIBUTIONS if name != "attattr_joint"), "attattr_joint"])
def test_every_method(name):
    model, entry = tiny_llama(), ATTRIBUTIONS[name]
    result = made(model, generated=" plot man", attribution=name)
    options = ({"n_steps": 8} if entry.maps is None else {}) | ({"baseline": "sink"} if entry.start else {})
    explanation = alone(model, result, 1, attribution=name, **options)
    torch.testing.assert_close(result.matrix[1, :6], explanation.token_scores().float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(result.explanations[1].attributions, explanation.attributions)
    assert result.explanations[1].attribution == result.attribution == name
    span = result.span(0, 2)
    assert span.tokens == [*result.prompt_tokens, "plot"]
    assert span.scores.shape == (6,)


@pytest.mark.parametrize(
    "name",
    [
        each.name
        for each in FAMILIES
        if each.task == "lm" and each.route != "refused" and each.layers.keys() == {"decoder"}
    ],
)
def test_families(name):
    """Parallel blocks, sliding windows, scaled attention: the whole text serves every prefix."""
    model = next(each for each in FAMILIES if each.name == name).build().eval()
    result = made(model, generated=" plot man work", n_steps=4)
    explanation = alone(model, result, 1, path="joint", baseline="sink", n_steps=4)
    torch.testing.assert_close(result.matrix[1, :6], explanation.token_scores().float(), rtol=0, atol=1e-5)
    assert result.scorer.causal


def test_f_is_the_models_own_probability():
    model = tiny_llama()
    result = made(model, max_new_tokens=6)
    assert result.written == "greedy"
    ids = torch.tensor([result.ids], device=next(model.parameters()).device)
    with torch.no_grad():
        likely = model(ids).logits.log_softmax(-1)[0, 4:-1].gather(1, ids[0, 5:, None])[:, 0].cpu()
        assert result.ids == model.generate(ids[:, :5], max_new_tokens=6, do_sample=False)[0].tolist()
    torch.testing.assert_close(result.values, likely.exp(), rtol=0, atol=1e-5)
    span = result.span(1, 4)
    assert span.value == pytest.approx(float(likely[1:4].sum()), abs=1e-5)
    assert span.probability == pytest.approx(float(likely[1:4].sum().exp()), abs=1e-5)


def test_a_span_is_the_sum_of_its_tokens_log_probabilities():
    """F is a sum, and so is its gradient: scores of a span are those of its tokens, each along the same path."""
    model = tiny_llama().double()
    result = made(model, output="log_probability")
    for begin, end in ((0, 10), (2, 5), (9, 10)):
        span = result.span(begin, end)
        expected = result.matrix[begin:end].sum(0)[: 5 + end - 1]
        torch.testing.assert_close(span.scores, expected, rtol=0, atol=1e-5)
        assert span.total_delta == pytest.approx(float(result.total_delta[begin:end].sum()), abs=1e-5)
    layerwise = made(model, output="log_probability", path="layer", generated=" plot man")
    span = layerwise.span(0)
    torch.testing.assert_close(span.scores, layerwise.matrix.sum(0)[:6], rtol=0, atol=1e-5)


def test_a_span_is_found_by_its_text():
    result = made()
    assert result.span("man work").label == result.span(1, 3).label == "man work"
    torch.testing.assert_close(result.span("man work").scores, result.span(1, 3).scores)
    assert result.span("d e f g h").value == result.span(5).value
    for text, message in (("z", "stands not in the answer"), (" ", "stands 9 times in the answer")):
        with pytest.raises(ValueError, match=message):
            result.span(text)


@pytest.mark.filterwarnings("error::captum_attattr.ConvergenceWarning")
def test_too_few_nodes_are_told():
    model = tiny_llama()
    result = made(model)
    result.span(0)
    with torch.no_grad():
        model.lm_head.weight.mul_(60)
    with pytest.warns(ConvergenceWarning, match=r"of 10 miss F\(A\) - F\(B\).*n_steps=1 is too few here.*n_steps=4"):
        result = made(model, n_steps=1)
    with pytest.warns(ConvergenceWarning, match="of 1 miss"):
        result.span(0)


@pytest.mark.parametrize("keep", ["scores", "maps"])
def test_explanations_are_kept_or_computed_on_demand(keep):
    model = tiny_llama()
    result = made(model, generated=" plot man work", keep=keep, dtype="float64", attention=False)
    explanation = alone(model, result, 2, path="joint", baseline="sink", n_steps=8, dtype="float64", attention=False)
    found = result.explanations[2]
    assert torch.equal(found.attributions, explanation.attributions)
    assert found.attention is None
    assert (found is result.explanations[2]) == (keep == "maps")
    assert [each.label for each in result.explanations[1:]] == ["man", "work"]
    torch.testing.assert_close(result.matrix, made(model, generated=" plot man work").matrix, rtol=0, atol=1e-6)
    assert found.token_scores().float().tolist() == pytest.approx(result.row(2).scores.tolist(), abs=1e-6)


def test_a_model_that_looks_ahead_is_explained_prefix_by_prefix(monkeypatch):
    """Positions stretched with the length of the text: one forward would not serve all prefixes."""
    model = tiny_llama()
    forward = model.model.forward
    embed = model.model.embed_tokens

    def stretched(*args, input_ids=None, **kwargs):
        hidden = embed(input_ids) * (1 + input_ids.shape[1] / 10)
        return forward(*args, **kwargs | {"inputs_embeds": hidden})

    monkeypatch.setattr(model.model, "forward", stretched)
    result = made(model, generated=" plot man work")
    explanation = alone(model, result, 1, path="joint", baseline="sink", n_steps=8)
    torch.testing.assert_close(result.matrix[1, :6], explanation.token_scores().float(), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="reads tokens differently once others follow"):
        result.span(0, 2)


def test_sampling_goes_by_its_seed_and_leaves_torchs_own():
    model = tiny_llama(vocab_size=len(tiny_tokenizer()))  # it may write every one
    state = torch.random.get_rng_state()
    first, again, other = (made(model, max_new_tokens=6, do_sample=True, seed=s, n_steps=1) for s in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.ids == again.ids != other.ids
    assert first.written == "sampled with the seed 1"
    hot = made(model, max_new_tokens=6, do_sample=True, seed=1, temperature=1e-4, n_steps=1)
    assert hot.ids == made(model, max_new_tokens=6, n_steps=1).ids
    assert hot.written == "sampled at the temperature 0.0001 with the seed 1"


@pytest.mark.parametrize(
    "changes",
    [
        {"return_dict_in_generate": True, "output_scores": True, "output_attentions": True},
        {"num_beams": 4, "num_return_sequences": 2},
        {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0},
        {"max_length": 3},
        {"use_cache": False},
    ],
    ids=str,
)
def test_one_answer_is_written_whatever_the_models_configuration_asks_for(changes):
    plain, model = made(max_new_tokens=4, n_steps=1), tiny_llama()
    for name, value in changes.items():
        setattr(model.generation_config, name, value)
    assert made(model, max_new_tokens=4, n_steps=1).ids == plain.ids


def test_an_answer_stops_at_the_models_own_strings():
    tokenizer, model = byte_level(), tiny_llama(vocab_size=271)
    options = {"max_new_tokens": 8, "n_steps": 1, "progress": False}
    plain = explain_generation(model, tokenizer, "a b", **options)
    assert tokenizer.decode(plain.ids[-1:]) == "##"
    model.generation_config.stop_strings = ["##"]
    assert explain_generation(model, tokenizer, "a b", **options | {"max_new_tokens": 12}).ids == plain.ids
    with pytest.raises(ValueError, match=r"LlamaForCausalLM writes the token id \d+, and the tokenizer knows 0 to 270"):
        explain_generation(tiny_llama(vocab_size=700), tokenizer, "a b", **options)


def test_padding_that_a_model_writes_is_one_of_its_tokens():
    result = made(generated=[33, PAD, PAD, 34])
    assert result.tokens == ["plot", "[PAD]", "[PAD]", "man"]
    with torch.no_grad():
        likely = tiny_llama()(place(torch.tensor([result.ids]))).logits[0, 4:-1].softmax(-1)
    assert result.values.tolist() == pytest.approx([float(p[i]) for p, i in zip(likely, result.ids[5:], strict=True)])


def test_training_mode_and_everything_else_stay():
    model = tiny_llama(attention_dropout=0.5).train()
    with unchanged(model):
        result = made(model, max_new_tokens=3)
        result.span(0, 2)
        assert result.explanations[0].value == pytest.approx(float(result.values[0]))
    assert model.training
    torch.testing.assert_close(result.matrix, made(model.eval(), max_new_tokens=3).matrix)


def test_xlnet_looks_ahead():
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48}
    model = XLNetLMHeadModel(XLNetConfig(**sizes, pad_token_id=PAD, bos_token_id=CLS, eos_token_id=SEP)).eval()
    result = made(place(model), generated=" plot man")
    assert not result.scorer.causal
    explanation = alone(model, result, 1, path="joint", baseline="sink", n_steps=8)
    torch.testing.assert_close(result.matrix[1, :6], explanation.token_scores().float(), rtol=0, atol=1e-7)


def test_gradients_are_there_under_no_grad():
    expected = made(generated=" plot man")
    with torch.no_grad():
        result = made(generated=" plot man")
        result.span(0, 2)
        assert result.explanations[1].value == pytest.approx(float(result.values[1]))
    assert torch.equal(result.matrix, expected.matrix)


@pytest.mark.parametrize(
    "prompt",
    [
        PROMPT,
        [PROMPT],
        [CLS, 4, 30, 32, SEP],
        torch.tensor([CLS, 4, 30, 32, SEP]),
        tiny_tokenizer()(PROMPT),
        tiny_tokenizer()([PROMPT], return_tensors="pt"),
    ],
)
def test_prompts_and_answers_in_all_forms(prompt):
    model = tiny_llama()
    expected = made(model, generated=" plot man", n_steps=2)
    ids = expected.ids[5:]
    rows = torch.tensor(ids), torch.tensor([ids]), torch.tensor(ids).numpy(), pandas.Series(ids)
    for answer in (" plot man", ids, tuple(ids), iter(ids), range(ids[0], ids[-1] + 1), *rows):
        result = made(model, prompt=prompt, generated=answer, n_steps=2)
        assert result.tokens == ["plot", "man"]
        torch.testing.assert_close(result.matrix, expected.matrix)


def test_a_prompt_with_more_than_tokens_is_refused():
    """GPT-2 adds embeddings of types and positions: F of the ids alone would be another one."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 60, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 24}
    model = place(GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.2)).eval())
    with pytest.raises(ValueError, match=r"prompt is a pair whose texts have types of their own.*: give one text"):
        made(model, prompt=[("a good", "film")])
    with pytest.raises(ValueError, match=r"prompt is an encoding with 'position_ids'.*: leave it out"):
        made(model, prompt={"input_ids": [4, 5, 6], "position_ids": [0, 5, 6]})
    result = made(tiny_llama(), prompt=[("a good", "film")], n_steps=1)  # which has no types
    assert result.prompt == ("a good", "film")


def test_a_conversation_is_a_prompt():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}b"
    chat = [{"role": "a", "content": "good film"}]
    result = explain_generation(tiny_llama(), tokenizer, chat, generated=" plot", progress=False)
    assert result.prompt_tokens == ["a", "good", "film", "b"]
    assert result.prompt == "a good film b"
    assert result.text == "a good film b" + result.answer


def test_contrasts_for_all_tokens_or_each():
    model = tiny_llama().double()
    result = made(model, generated=" plot man work", output="logit", contrast=["z", None, 5])
    assert result.contrast == ["z", None, "b"]
    for token, contrast in enumerate(["z", None, 5]):
        given = {"contrast": contrast, "output": "logit", "path": "joint", "baseline": "sink", "n_steps": 8}
        explanation = alone(model, result, token, **given)
        end = 5 + token
        torch.testing.assert_close(result.matrix[token, :end], explanation.token_scores().float(), rtol=0, atol=1e-5)
        assert result.row(token).contrast == explanation.contrast
        assert float(result.values[token]) == pytest.approx(explanation.value, abs=1e-5)


def test_words_add_up_and_are_drawn():
    result = made(generated=" plot man work")
    words = result.words()
    assert words.answer == ["plot", "man", "work"]
    assert words.sources == ["[CLS]", "a", "good", "film", "[SEP]", *words.answer]
    torch.testing.assert_close(words.scores, result.matrix)
    assert result.table(2).count("\n") == 3
    assert all(line.count("+") + line.count("−") == 2 for line in result.table(2).splitlines()[1:])
    assert "<iframe" in result._repr_html_()
    assert len(repr(result)) <= 500
    assert plot_tokens([result.row(1), result.span(0, 2)]).layout.annotations


@pytest.mark.parametrize("keep", ["scores", "maps"])
def test_files_bring_everything_back(tmp_path, keep):
    model = tiny_llama()
    result = made(model, generated=" plot man work", keep=keep, contrast="z", output="logit", layers=[1], n_steps=3)
    loaded = GenerationExplanation.load(result.save(tmp_path / "generation.safetensors"))
    results.assert_same_generation(loaded, result)
    if keep == "maps":
        assert torch.equal(loaded.explanations[1].attributions, result.explanations[1].attributions)
    else:
        with pytest.raises(ValueError, match="explanations needs the model"):
            _ = loaded.explanations
    with pytest.raises(ValueError, match=r"span needs the model.*attach"):
        loaded.span(0, 1)
    again = loaded.attach(model, tiny_tokenizer())
    torch.testing.assert_close(again.span(0, 2).scores, result.span(0, 2).scores)
    assert again.explanations[0].layers == [1]
    torch.testing.assert_close(again.explanations[0].attributions, result.explanations[0].attributions)
    for seed in range(1, 4):
        with pytest.raises(ValueError, match=r"the model is another one: it gives token \d of the answer the prob"):
            loaded.attach(tiny_llama(seed=seed), tiny_tokenizer())
    loaded.attach(tiny_llama().to(torch.bfloat16), tiny_tokenizer())
    with pytest.raises(ValueError, match="the model is another one: it writes from a source, not from a prompt"):
        loaded.attach(tiny_writer(), tiny_tokenizer())
    with pytest.raises(ValueError, match="classifies texts and writes none: use explain"):
        loaded.attach(tiny_bert(), tiny_tokenizer())
    with pytest.raises(ValueError, match="the tokenizer is another one"):
        loaded.attach(model, byte_level())
    (tmp_path / "cut").write_bytes((tmp_path / "generation.safetensors").read_bytes()[:-9])
    with pytest.raises(ResultFileError, match="holds no explanation of a generation"):
        GenerationExplanation.load(tmp_path / "cut")


class KilledError(Exception):
    pass


@pytest.mark.parametrize("options", [{}, {"path": "layer", "n_steps": 2}])
def test_a_run_that_was_killed_goes_on(tmp_path, monkeypatch, options):
    model, path = tiny_llama(), tmp_path / "run.jsonl"
    whole = made(model, **options)
    work, done = answer_scores.AnswerScorer.work, []

    def killed(self, tokens):
        if done:
            raise KilledError
        done.append(tokens)
        return work(self, tokens)

    with monkeypatch.context() as patch:
        patch.setattr(answer_scores.AnswerScorer, "work", killed)
        with pytest.raises(KilledError):
            made(model, resume=path, **options)
    done.clear()

    def counted(self, tokens):
        done.extend(tokens)
        return work(self, tokens)

    monkeypatch.setattr(answer_scores.AnswerScorer, "work", counted)
    result = made(model, resume=path, **options)
    assert 0 < len(done) < 10
    assert torch.equal(result.matrix, whole.matrix)
    assert torch.equal(result.values, whole.values)
    with pytest.raises(ValueError, match="belongs to another run"):
        made(model, resume=path, output="logit", **options)
    with pytest.raises(ValueError, match="belongs to another run"):
        made(model, resume=path, prompt="a bad film", **options)


MISTAKES = [
    ({"prompt": ""}, ValueError, "prompt = '' is empty"),
    ({"prompt": []}, ValueError, "prompt is empty"),
    ({"prompt": None}, TypeError, "prompt must be a list of texts"),
    ({"prompt": [CLS, SEP]}, ValueError, "prompt = .* holds no token beside special ones"),
    ({"prompt": ["a", "b"]}, ValueError, "prompt holds 2 texts, and one is explained at a time"),
    ({"generated": ""}, ValueError, "generated='' holds no token"),
    ({"generated": []}, ValueError, "holds no token"),
    ({"generated": 3}, TypeError, "generated must be the answer's text or its token ids, not 3"),
    ({"generated": torch.tensor(4)}, TypeError, r"or its token ids, not tensor\(4\)"),
    ({"generated": torch.ones(2, 2, dtype=torch.long)}, TypeError, "generated must be the answer's text or its token"),
    ({"generated": {"input_ids": [4]}}, TypeError, "generated must be the answer's text or its token ids"),
    ({"generated": " \ud800"}, ValueError, "holds half a character"),
    ({"generated": " quux"}, ValueError, r"reads as '\[UNK\]', behind '': the model cannot write it; give ids"),
    ({"generated": [CLS, 4, 30, 32, SEP, 33]}, ValueError, r"begins with the ids of the prompt.*, generated\[5:\]; or"),
    ({"contrast": "\ud800"}, ValueError, "holds half a character"),
    ({"max_new_tokens": 3, "do_sample": True, "seed": 2**64}, ValueError, r"seed=\d+ must be below 2\*\*64"),
    ({"generated": ["a"]}, TypeError, "generated must be the answer's text or its token ids"),
    ({"generated": [4, 999]}, ValueError, "generated has the token id 999, and the tokenizer knows 0 to"),
    ({"generated": [4, -1]}, ValueError, "generated must be 0 or more"),
    ({"generated": [4, 5, PAD, PAD]}, ValueError, r"generated ends with 2 tokens of padding .*: leave them out$"),
    ({"generated": "s and"}, ValueError, "generated='s and' does not follow the prompt.*'film' becomes"),
    ({"generated": " a" * 21}, ValueError, "prompt has 5 tokens and generated has 21 more, and the model reads 24"),
    ({"generated": " a", "max_new_tokens": 3}, ValueError, "max_new_tokens is of an answer that the model writes"),
    ({"generated": " a", "do_sample": True}, ValueError, "do_sample is of an answer that the model writes"),
    ({"max_new_tokens": 0}, ValueError, "max_new_tokens=0 must be an int of 1 or more"),
    ({"max_new_tokens": 2.5}, ValueError, "max_new_tokens=2.5 must be an int"),
    ({"max_new_tokens": 21}, ValueError, "prompt has 5 tokens and max_new_tokens asks for 21 more.*reads 24"),
    ({"max_new_tokens": 3, "seed": 1}, ValueError, "seed=1 changes nothing without sampling: pass do_sample=True"),
    ({"max_new_tokens": 3, "temperature": 1.0}, ValueError, "temperature=1.0 changes nothing without sampling"),
    ({"max_new_tokens": 3, "do_sample": True, "temperature": 0}, ValueError, "temperature=0 must be a number above 0"),
    ({"max_new_tokens": 3, "do_sample": True, "seed": -1}, ValueError, "seed=-1 must be an int of 0 or more"),
    ({"keep": "all"}, ValueError, "keep='all' is unknown; use one of scores, maps"),
    ({"keep": "maps", "resume": "run.jsonl"}, ValueError, "resume keeps scores, not keep='maps'"),
    ({"max_new_tokens": 3, "do_sample": True, "resume": "run.jsonl"}, ValueError, "pass a seed"),
    ({"resume": "missing/run.jsonl"}, ValueError, "resume must be a file in a directory that exists"),
    ({"max_new_tokens": 3, "contrast": ["a"]}, ValueError, "a list of contrasts goes with an answer that is given"),
    ({"contrast": ["z"]}, ValueError, "contrast lists 1 entries for the 10 tokens"),
    ({"contrast": "plot"}, ValueError, "contrast 'plot' is token 0 of the answer itself"),
    ({"max_new_tokens": 3, "contrast": 999}, ValueError, "contrast 999 of texts.* is out of range"),
    ({"attribution": "attattr_joint", "path": "layer"}, ValueError, "'attattr_joint' is 'attattr' with path='joint'"),
    ({"attribution": "rollout", "n_steps": 3}, ValueError, "are of an integral"),
    ({"layers": [7]}, ValueError, r"layers\[0\] must be from 0 to 2"),
]


@pytest.mark.parametrize(("options", "error", "message"), MISTAKES)
def test_mistakes_are_named_before_the_model_runs(options, error, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny_llama()
    model.model.forward = lambda *_, **__: pytest.fail("the model ran")
    with pytest.raises(error, match=message):
        made(model, **options)
    assert not list(tmp_path.iterdir())


def test_a_classifier_writes_nothing():
    with pytest.raises(ValueError, match="BertForSequenceClassification classifies texts and writes none: use explain"):
        made(tiny_bert())


def test_an_answer_that_repeats_the_prompt_is_given_as_a_text():
    result = made(prompt=[4, 30, 32], generated=f" {PROMPT}", n_steps=1)
    assert result.tokens == result.prompt_tokens == PROMPT.split()


@pytest.mark.parametrize(
    ("span", "error", "message"),
    [
        ((3, 3), ValueError, "end=3 must be above begin=3"),
        ((11,), ValueError, "begin must be from 0 to 9, not 11"),
        ((0, 12), ValueError, "end must be from 0 to 10, not 12"),
        (("man", 3), ValueError, "says where the span ends"),
        ((1.5,), TypeError, "begin must be an integer"),
    ],
)
def test_spans_that_are_none(span, error, message):
    with pytest.raises(error, match=message):
        made(n_steps=1).span(*span)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokens": []}, "must hold one token or more"),
        ({"probabilities": torch.full((2,), 2.0)}, "probabilities must be from 0 to 1"),
        ({"matrix": torch.ones(2, 7)}, "matrix must be 0 for each token itself and those behind it"),
        ({"matrix": torch.zeros(2, 6)}, re.escape("matrix must have the shape (2, 7)")),
        ({"contrast": [None]}, "contrast and contrast_ids must have 2 entries"),
        ({"path": "layer"}, "path='layer' is unknown"),
        ({"values": torch.tensor([1.0, float("nan")])}, "values must be finite"),
    ],
)
def test_results_check_themselves(changed, message):
    import results

    assert results.generation(5, 2)
    with pytest.raises(ValueError, match=message):
        results.generation(5, 2, **changed)
