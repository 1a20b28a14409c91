"""What people have: texts, pairs, conversations, ids, encodings, words; special tokens that are there already."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from toy import tiny_bert, tiny_llama, tiny_tokenizer
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerFast

from captum_attattr import explain, explain_dataset, explain_iter, extract_triggers, find_patterns, head_importance
from captum_attattr.explanations.encoding import encode_text
from captum_attattr.explanations.special_tokens import special_ids

TEMPLATE = (
    "{{ '[CLS]' }}{% for m in messages %}{{ m['role'] + ' ' + m['content'] + ' [SEP]' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' assistant' }}{% endif %}"
)
QUIET: dict[str, Any] = {"n_steps": 1, "progress": False}
CHAT = [{"role": "user", "content": "good film"}, {"role": "assistant", "content": "a plot"}]
IDS = tiny_tokenizer()("good film")["input_ids"]
BEGUN = "[CLS]user good film [SEP] assistant"


@pytest.fixture(scope="module")
def bert() -> PreTrainedModel:
    return tiny_bert()


@pytest.fixture(scope="module")
def llama() -> PreTrainedModel:
    return tiny_llama()


def chatting(**options: Any) -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer(**options)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def check_output(model: PreTrainedModel, explanation: Any) -> None:
    """F is what the model itself says of the inputs."""
    with torch.no_grad():
        logits = model(**explanation.inputs).logits.float()
    logits = logits[:, -1] if logits.dim() == 3 else logits
    assert abs(float(logits.softmax(-1)[0, explanation.target]) - explanation.value) < 1e-5


FORMS = {
    "one text": ("good film", ["good film"]),
    "tuple of three": (("good", "film", "a"), ["good", "film", "a"]),
    "set": ({"good film"}, ["good film"]),
    "generator": ((t for t in ["good film", "a"]), ["good film", "a"]),
    "deque": (deque(["good film", "a"]), ["good film", "a"]),
    "array": (np.array(["good film", "a"]), ["good film", "a"]),
    "dict's values": ({1: "good film"}.values(), ["good film"]),
    "pairs": ([("good", "film")], [("good", "film")]),
    "conversation": (CHAT[:1], [BEGUN]),
    "conversations": (
        [CHAT[:1], CHAT],
        [BEGUN, "[CLS]user good film [SEP]assistant a plot"],
    ),
    "ids": (IDS, ["[CLS] good film [SEP]"]),
    "lists of ids": ([IDS, IDS[:2]], ["[CLS] good film [SEP]", "[CLS] good"]),
    "tensor of ids": (torch.tensor(IDS), ["[CLS] good film [SEP]"]),
    "tensor of rows": (torch.tensor([IDS, IDS]), ["[CLS] good film [SEP]"] * 2),
    "tensors": ([torch.tensor(IDS), np.array(IDS)], ["[CLS] good film [SEP]"] * 2),
    "tuples of ids": ([tuple(IDS), range(4, 6)], ["[CLS] good film [SEP]", "a b"]),
    "tuple of messages": ([tuple(CHAT[:1])], [BEGUN]),
    "iterator of messages": (lambda: iter(CHAT[:1]), [BEGUN]),
    "iterator of ids": (lambda: (i for i in IDS), ["[CLS] good film [SEP]"]),
    "iterator of conversations": (lambda: iter([CHAT[:1]] * 2), [BEGUN] * 2),
    "padded encoding": (
        tiny_tokenizer()(["good film a", "good film"], padding=True),
        ["[CLS] good film a [SEP]", "[CLS] good film [SEP]"],
    ),
    "texts in parts": (
        [{"role": "user", "content": [{"type": "text", "text": "good "}, {"type": "text", "text": "film"}]}],
        [BEGUN],
    ),
    "padding inside": ([[*IDS[:2], 0, *IDS[2:]]], ["[CLS] good [PAD] film [SEP]"]),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("function", ["explain", "explain_iter"])
def test_every_form_is_read(llama, name, function, tmp_path):
    given, read = FORMS[name]
    if name == "generator":
        given = iter(list(read))
    if callable(given):
        given = given()
    call = {"explain": explain, "explain_iter": explain_iter}[function]
    found = list(call(llama, chatting(), given, **QUIET))
    assert [one.text for one in found] == read
    for one in found:
        check_output(llama, one)


def test_columns_of_a_table_are_lists_and_the_table_is_refused(bert):
    table = pandas.DataFrame({"text": ["good film", "a"], "label": [2, 1], "layer": [1, 0]}, index=[7, 5])
    found = explain(bert, tiny_tokenizer(), table.text, table.label, layers=table.layer, **QUIET)
    assert [(one.text, one.target, list(one.layers)) for one in found] == [("good film", 2, [0, 1]), ("a", 1, [0, 1])]
    importance = head_importance(bert, tiny_tokenizer(), table.text, table.label, method="taylor", progress=False)
    wanted = head_importance(bert, tiny_tokenizer(), ["good film", "a"], [2, 1], method="taylor", progress=False)
    torch.testing.assert_close(importance.scores, wanted.scores)
    assert [one.gold for one in find_patterns(bert, tiny_tokenizer(), table.text, table.label, **QUIET)] == [2, 1]
    assert extract_triggers(found, table.label, min_score=0.0)[0].gold == 2
    for function in (explain, lambda *given, **options: list(explain_iter(*given, **options))):
        with pytest.raises(TypeError, match=r"texts is a table \(DataFrame\): give its column of texts"):
            function(bert, tiny_tokenizer(), table[["text"]], **QUIET)


def test_archives_and_heads_take_them_too(bert, tmp_path):
    tokenizer = chatting()
    given = [CHAT, IDS, tokenizer(["a plot"]), "good"]
    direct = explain(bert, tokenizer, given, **QUIET)
    archive = explain_dataset(bert, tokenizer, given, tmp_path / "run", **QUIET)
    for one, other in zip(direct, archive, strict=True):
        assert (one.text, one.tokens, one.special) == (other.text, other.tokens, other.special)
        torch.testing.assert_close(one.attributions, other.attributions)
    assert len(head_importance(bert, tokenizer, given, [0, 1, 2, 0], method="taylor", progress=False).examples) == 4
    patterns = find_patterns(bert, tokenizer, given, progress=False, n_steps=1)
    assert [list(pattern.tokens) for pattern in patterns] == [one.tokens for one in direct]


def test_an_encoding_is_taken_row_by_row_without_padding(bert):
    tokenizer = tiny_tokenizer()
    texts = ["good film", "a man a plot a"]
    wanted = explain(bert, tokenizer, texts, **QUIET)
    plain = {k: v.tolist() for k, v in tokenizer(texts, padding=True, return_tensors="np").items()}
    for given in (
        tokenizer(texts),
        tokenizer(texts, padding=True, return_tensors="pt"),
        tokenizer(texts, padding=True, return_offsets_mapping=True, return_special_tokens_mask=True),
        BatchEncoding(plain),
        BatchEncoding(plain | {"attention_mask": torch.tensor(plain["attention_mask"]).bool(), "labels": [0, 1]}),
        BatchEncoding(plain | {"attention_mask": np.array(plain["attention_mask"], dtype=float), "position_ids": None}),
        plain,
        [tokenizer(text) for text in texts],
    ):
        found = explain(bert, tokenizer, given, **QUIET)
        for one, other in zip(found, wanted, strict=True):
            assert (one.tokens, one.special, one.segments) == (other.tokens, other.special, other.segments)
            torch.testing.assert_close(one.attributions, other.attributions)
    pair = explain(bert, tokenizer, tokenizer("good film", "a plot"), **QUIET)[0]
    assert pair.text == ("good film", "a plot")
    assert pair.segments == explain(bert, tokenizer, [("good film", "a plot")], **QUIET)[0].segments


def test_an_encoding_may_be_made_longer(bert):
    tokenizer = tiny_tokenizer()
    encoding = tokenizer("good film")
    for name, more in {"input_ids": 30, "attention_mask": 1, "token_type_ids": 0}.items():
        encoding[name].append(more)
    [found] = explain(bert, tokenizer, encoding, **QUIET)
    assert found.tokens == ["[CLS]", "good", "film", "[SEP]", "good"]
    check_output(bert, found)


def test_words_are_taken_where_that_is_said(bert):
    tokenizer = tiny_tokenizer()
    wanted = explain(bert, tokenizer, ["good film"], **QUIET)[0]
    for given in (["good", "film"], [["good", "film"]]):
        [found] = explain(bert, tokenizer, given, split_into_words=True, **QUIET)
        assert (found.tokens, found.text) == (wanted.tokens, "good film")
    [pair] = explain(bert, tokenizer, [(["good", "film"], ["a"])], split_into_words=True, **QUIET)
    assert pair.text == ("good film", "a")
    assert pair.segments == [0, 0, 0, 0, 1, 1]


def column(values: Any) -> pandas.Series:
    """A column of some rows of a table: its labels of rows are no positions."""
    return pandas.Series(values, index=[7, 5])


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor, column])
def test_targets_and_numerals(bert, kind):
    found = explain(bert, tiny_tokenizer(), ["good", "film"], [2, 1] if kind is tuple else kind([2, 1]), **QUIET)
    assert [one.target for one in found] == [2, 1]
    assert explain(bert, tiny_tokenizer(), "good", "1", **QUIET)[0].target == 1


def test_numerals_that_are_names_and_names_that_are_twice(bert):
    named = tiny_bert(id2label={0: "2", 1: "1", 2: "0"})
    assert explain(named, tiny_tokenizer(), "good", "0", **QUIET)[0].target == 2
    stars = tiny_bert(id2label={0: "1", 1: "2", 2: "3"})
    assert explain(stars, tiny_tokenizer(), "good", "3", **QUIET)[0].target == 2
    with pytest.raises(ValueError, match=r"'0' of texts\[0\] is unknown.*whose names are numerals.*as an int"):
        explain(stars, tiny_tokenizer(), "good", "0", **QUIET)
    twice = tiny_bert(id2label={0: "yes", 1: "yes", 2: "no"})
    with pytest.raises(ValueError, match=r"'yes' of texts\[0\] names the classes \[0, 1\]: give the number"):
        explain(twice, tiny_tokenizer(), "good", "yes", **QUIET)


# ----------------------------------------------------------------------------------------- special tokens, once


def schemes(single: str, pair: str) -> PreTrainedTokenizerFast:
    """A tokenizer with <s> 0, </s> 1, a 2, b 3, <unk> 4, <m> 5, which puts them around texts as is said."""
    vocabulary = {"<s>": 0, "</s>": 1, "a": 2, "b": 3, "<unk>": 4, "<m>": 5}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = [("<s>", 0), ("</s>", 1)]
    core.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=tokens)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<m>"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


ONCE = {
    "none typed": ("<s> $A </s>", "a b", "<s> a b </s>"),
    "both typed": ("<s> $A </s>", "<s> a b </s>", "<s> a b </s>"),
    "first typed": ("<s> $A </s>", "<s> a", "<s> a </s>"),
    "last typed": ("<s> $A </s>", "a </s>", "<s> a </s>"),
    "inside": ("<s> $A </s>", "a </s> b", "<s> a </s> b </s>"),
    "BOS only": ("<s> $A", "<s> a", "<s> a"),
    "EOS only": ("$A </s>", "a </s>", "a </s>"),
    "nothing added": ("$A", "<s> a </s>", "<s> a </s>"),
    "two at the end": ("$A </s> <s>", "a </s> <s>", "a </s> <s>"),
    "one of two": ("$A </s> <s>", "a </s>", "a </s> <s>"),
    "pair": ("<s> $A </s>", ("<s> a </s>", "b </s>"), "<s> a </s> </s> b </s>"),
    "plain pair": ("<s> $A </s>", ("a", "b"), "<s> a </s> </s> b </s>"),
}


@pytest.mark.parametrize("name", ONCE)
def test_no_special_token_is_there_twice(name):
    single, text, wanted = ONCE[name]
    tokenizer = schemes(single, "<s> $A </s> </s> $B </s>")
    item = encode_text(tokenizer, 0, text)
    tokens = tokenizer.convert_ids_to_tokens(item.ids)
    assert " ".join(tokens) == wanted
    assert item.special == [token in ("<s>", "</s>", "<m>") for token in tokens]
    assert {tensor.shape[1] for tensor in item.encoding.values()} == {len(tokens)}


def test_typed_special_tokens_are_special_and_the_unknown_one_is_not():
    tokenizer = schemes("<s> $A", "<s> $A $B")
    tokenizer.add_tokens(["<|turn|>"], special_tokens=True)
    assert encode_text(tokenizer, 0, "a <m> <|turn|> strange").special == [True, False, True, True, False]
    assert encode_text(tokenizer, 0, [2, 5, 6, 4]).special == [False, True, True, False]
    tokenizer.eos_token = "<unk>"  # as GPT-2's only special token
    assert 4 in special_ids(tokenizer)


def test_a_conversation_has_one_first_token_and_an_answer_is_gone_on_with(llama):
    tokenizer = chatting()
    begun, gone_on = explain(llama, tokenizer, [CHAT[:1], CHAT], **QUIET)
    assert begun.text == BEGUN
    assert gone_on.tokens[-1] == "plot"
    assert begun.tokens.count("[CLS]") == gone_on.tokens.count("[CLS]") == 1
    assert begun.special[0]


def test_segments_of_pairs_without_token_types():
    tokenizer = schemes("<s> $A </s>", "<s> $A </s> $B </s>")
    assert encode_text(tokenizer, 0, ("a a", "b")).segments == [0, 0, 0, 0, 1, 0]
    joined = schemes("$A", "$A $B")
    assert encode_text(joined, 0, ("a a", "b")).segments == [0, 0, 1]


# ------------------------------------------------------------------------------------------------- bad input

MISTAKES: dict[str, tuple[Any, type[Exception], str]] = {
    "tuple of two": (("a", "b"), TypeError, r"use \[\('a', 'b'\)\] for one pair, or \['a', 'b'\] for two texts"),
    "list of two in a list": (
        [["a", "b"]],
        TypeError,
        r"texts\[0\] is a list of 2 strings.*for a pair.*split_into_words",
    ),
    "list of three": ([["a", "b", "c"]], TypeError, "one text's words"),
    "one message": (CHAT[0], TypeError, r"use \[message\]"),
    "mapping": ({"a": 1}, TypeError, r"texts is a dict without 'role' .* or 'input_ids': it has 'a'$"),
    "nothing in it": ({}, TypeError, "it has nothing$"),
    "embeddings": ({"inputs_embeds": [[0.5]]}, TypeError, "tokens are named by their ids, and 'inputs_embeds' alone"),
    "embeddings of one": ([{"inputs_embeds": [[0.5]]}], TypeError, r"texts\[0\] is a dict .* 'inputs_embeds' alone"),
    "bytes": (b"a", TypeError, "got bytes"),
    "no message": ([[]], ValueError, r"texts\[0\] is an empty list"),
    "empty messages": ([{"role": "user", "content": ""}], ValueError, "the messages of .* are empty"),
    "no content": ([{"role": "user"}], ValueError, r"message 0 of texts\[0\] has no 'content'"),
    "half a message": ([[CHAT[0], "good"]], TypeError, r"message 1 of texts\[0\] must be a dict with 'role'"),
    "other keys": (
        [{"from": "human", "value": "a"}],
        TypeError,
        r"texts\[0\] is a dict without 'role' \(a message has",
    ),
    "number": ([{"role": "user", "content": 3}], TypeError, r"the content of message 0 of texts\[0\] must be a string"),
    "picture": (
        [{"role": "user", "content": [{"type": "image", "url": "a"}, {"type": "text", "text": "a"}]}],
        ValueError,
        r"message 0 of texts\[0\] has a part of type 'image': only texts",
    ),
    "parts of strings": ([{"role": "user", "content": ["a"]}], TypeError, "must have parts like"),
    "role": ([{"role": 3, "content": "a"}], TypeError, "must be a dict with 'role'"),
    "large id": ([[2, 99]], ValueError, r"texts\[0\] has the token id 99, and the tokenizer knows 0 to"),
    "negative id": ([[2, -1]], ValueError, "has the token id -1"),
    "special ids only": ([[2, 3]], ValueError, "holds no token beside special ones"),
    "float ids": (torch.tensor([1.5, 2]), TypeError, "must be a text or a pair of texts, got 1.5"),
    "typed special tokens only": ("[CLS] [SEP]", ValueError, "holds no token beside special ones"),
    "several rows in a list": (
        [{"input_ids": [[4, 5], [6, 7]]}],
        ValueError,
        "an encoding of 2 texts; give the encoding",
    ),
    "encoding of strings": (
        {"input_ids": [["good", "film"]]},
        ValueError,
        "an integer for each of its 2 tokens as 'inp",
    ),
    "encoding of fractions": ({"input_ids": torch.tensor([[2.0, 4.0]])}, ValueError, r"row 0 of texts .*'input_ids'"),
    "encoding in three dimensions": ({"input_ids": [[IDS]]}, ValueError, "an integer for each of its 1 tokens"),
    "mask of other tokens": (
        {"input_ids": [IDS], "attention_mask": [[1] * 9]},
        ValueError,
        "an integer for each of its 4 tokens as 'attention_mask'",
    ),
    "mask of fewer texts": (
        {"input_ids": [IDS, IDS], "attention_mask": [[1] * 4]},
        ValueError,
        "row 1 of texts needs .*'attention_mask', got None",
    ),
    "mask of one dimension": ({"input_ids": [IDS], "attention_mask": [1] * 4}, ValueError, "'attention_mask', got 1"),
    "mask of twos": ({"input_ids": [IDS], "attention_mask": [[2] * 4]}, ValueError, "has 2 in its 'attention_mask'"),
    "negative types": ({"input_ids": IDS, "token_type_ids": [-1] * 4}, ValueError, "has -1 among its 'token_type_ids'"),
    "negative positions": (
        [{"input_ids": IDS, "position_ids": [-1] * 4}],
        ValueError,
        r"texts\[0\] has -1 among its 'pos",
    ),
    "image": (
        {"input_ids": [IDS], "pixel_values": torch.zeros(1, 3, 2, 2)},
        ValueError,
        "with 'pixel_values': only texts",
    ),
    "positions past the last": (
        {"input_ids": IDS, "position_ids": [21, 22, 23, 24]},
        ValueError,
        r"texts\[0\] has 24 among its 'position_ids', and the model knows the positions 0 to 23",
    ),
    "padded ids": (torch.tensor([IDS, [*IDS[:2], 0, 0]]), ValueError, r"texts\[1\] ends with 2 tokens of padding"),
    "ids padded on the left": ([[0, *IDS]], ValueError, r"begins with 1 token of padding \('\[PAD\]', id 0\)"),
    "iterator in a list": ([iter(IDS)], TypeError, r"texts\[0\] is an iterator \(list_iterator\): make a list of its"),
    "a message among texts": (["good", CHAT[0]], TypeError, r"texts\[1\] is one message.*\[\[message, ...\], ...\]"),
    "empty encoding": ({"input_ids": []}, ValueError, "an encoding without a token id"),
    "other tokenizer": (
        schemes("<s> $A", "<s> $A $B")("a b"),
        ValueError,
        "an encoding of another tokenizer: its token 0 is '<s>'",
    ),
    "long ids": ([[2, *[31] * 30]], ValueError, r"texts\[0\] has 31 tokens and the model takes 24"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_named_before_the_model_runs(name, monkeypatch):
    given, error, message = MISTAKES[name]
    model = tiny_bert()
    monkeypatch.setattr(model, "forward", lambda *_, **__: pytest.fail("the model ran"))
    with pytest.raises(error, match=message):
        explain(model, chatting(), given, **QUIET)


def test_a_conversation_needs_a_template_that_takes_it(bert):
    with pytest.raises(ValueError, match=r"no chat template: set tokenizer\.chat_template"):
        explain(bert, tiny_tokenizer(), CHAT, **QUIET)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ValueError, match=r"chat template refuses texts\[0\]: roles must alternate"):
        explain(bert, tokenizer, CHAT, **QUIET)


def test_a_template_that_takes_parts_gets_them_and_one_that_prints_them_does_not(llama):
    parts = [{"role": "user", "content": [{"type": "text", "text": "good"}, {"type": "text", "text": "film"}]}]
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }} {% endfor %}{% endfor %}"
    )
    assert explain(llama, tokenizer, parts, **QUIET)[0].text == "good film "
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert explain(llama, tokenizer, parts, **QUIET)[0].text == "goodfilm"


def test_target_of_several_tokens_says_which(llama):
    with pytest.raises(ValueError, match=r"'good film' of texts\[0\] is 2 tokens \['good', 'film'\]"):
        explain(llama, tiny_tokenizer(), "a", "good film", **QUIET)


def test_target_that_the_tokenizer_does_not_know_is_refused(llama):
    tokenizer = tiny_tokenizer()
    with pytest.raises(ValueError, match=r"target 'zzz' of texts\[0\] is no word of the tokenizer: it reads as"):
        explain(llama, tokenizer, "a", "zzz", **QUIET)
    assert explain(llama, tokenizer, "a", tokenizer.unk_token, **QUIET)[0].target == tokenizer.unk_token_id


def test_words_are_refused_where_texts_are_given(bert):
    with pytest.raises(TypeError, match="must be a list of words, since split_into_words=True"):
        explain(bert, tiny_tokenizer(), [("a", "b")], split_into_words=True, **QUIET)
    with pytest.raises(TypeError, match=r"two lists of words: use \[\(\['a'\], \['b'\]\)\] for one pair, or \[\['a'\]"):
        explain(bert, tiny_tokenizer(), (["a"], ["b"]), split_into_words=True, **QUIET)
    with pytest.raises(TypeError, match="split_into_words"):
        explain(bert, tiny_tokenizer(), ["a"], split_into_words="yes", **QUIET)


def test_a_padding_token_with_another_role_may_stand_once(llama):
    tokenizer = tiny_tokenizer(pad_token="[SEP]", eos_token="[SEP]")
    [one] = explain(llama, tokenizer, [IDS], **QUIET)
    assert one.tokens == ["[CLS]", "good", "film", "[SEP]"]
    with pytest.raises(ValueError, match="ends with 2 tokens of padding"):
        explain(llama, tokenizer, [[*IDS, IDS[-1]]], **QUIET)
