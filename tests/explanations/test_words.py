"""Tokens that people can read: every scheme of tokenizers with texts of several scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from toy import BYTES, CORPUS, byte_level, tiny_bert, tiny_llama, tiny_tokenizer
from transformers import ByT5Tokenizer, CanineTokenizer, PreTrainedTokenizerFast
from transformers.models.bertweet.tokenization_bertweet import BertweetTokenizer

from captum_attattr import Explanation, attribution_tree, explain, explain_dataset, explain_generation
from captum_attattr.explanations.schemes import SCHEMES, scheme_of
from captum_attattr.explanations.words import joined, readable, words

TEXTS = ("good films", "хороший фильм", "فيلم جيد", "a 😀🙂 film", "## a @@ b </w>", "naïve café")
CHINESE = "我喜欢电影"


def fast(core: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def clip_like() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    core.decoder = decoders.ByteLevel()
    options: dict[str, Any] = {"initial_alphabet": BYTES, "end_of_word_suffix": "</w>", "show_progress": False}
    core.train_from_iterator(CORPUS + BYTES, trainers.BpeTrainer(vocab_size=600, **options))
    return fast(core)


def sentence_piece() -> PreTrainedTokenizerFast:
    """Llama 2's: spaces as ▁, and bytes for what it does not know."""
    vocabulary = {"<unk>": 0} | {f"<0x{byte:02X}>": 1 + byte for byte in range(256)}
    vocabulary |= {token: 257 + i for i, token in enumerate("▁abdfgilmosхорш")}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return fast(core)


def word_piece() -> PreTrainedTokenizerFast:
    letters = sorted(set("".join((*TEXTS, CHINESE))) - {" "})
    vocabulary = {"<unk>": 0, "good": 1, "film": 2, "##s": 3}
    vocabulary |= {token: 4 + i for i, token in enumerate([*letters, *(f"##{letter}" for letter in letters)])}
    vocabulary = {token: i for i, token in enumerate(vocabulary)}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return fast(core)


def bertweet(folder: Path) -> BertweetTokenizer:
    (folder / "vocab.txt").write_text("g@@ 1\no@@ 1\nd 1\n", encoding="utf-8")
    (folder / "bpe.codes").write_text("a b 1\n", encoding="utf-8")
    return BertweetTokenizer(str(folder / "vocab.txt"), str(folder / "bpe.codes"))


TOKENIZERS = {
    "bytes": byte_level,
    "byte_ends": clip_like,
    "sentencepiece": sentence_piece,
    "wordpiece": word_piece,
    "byte_characters": ByT5Tokenizer,
    "characters": CanineTokenizer,
}


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("scheme", TOKENIZERS)
def test_words_read_as_the_text_has_them(scheme, text):
    tokenizer: Any = TOKENIZERS[scheme]()
    assert scheme_of(tokenizer) == scheme
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False)["input_ids"])
    groups = words(tokens, [False] * len(tokens), scheme)
    assert [i for group in groups for i in group] == list(range(len(tokens)))
    merged = [joined([tokens[i] for i in group], scheme) for group in groups]
    read = [part.removesuffix("</w>") if scheme == "byte_ends" else part for part in readable(merged, scheme)]
    assert "".join("".join(read).split()) == "".join(text.split())
    if scheme != "byte_ends" or "</w>" not in text:  # CLIP cuts at punctuation
        assert [part.strip() for part in read] == text.split()
    assert not any("\ufffd" in name for name in readable(tokens, scheme))


@pytest.mark.parametrize("scheme", [name for name in TOKENIZERS if name not in ("wordpiece", "byte_ends")])
def test_chinese_is_read_character_by_character_never_cut(scheme):
    tokenizer: Any = TOKENIZERS[scheme]()
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(CHINESE, add_special_tokens=False)["input_ids"])
    groups = words(tokens, [False] * len(tokens), scheme)
    read = readable([joined([tokens[i] for i in group], scheme) for group in groups], scheme)
    assert "".join(read).strip() == CHINESE
    assert len([part for part in read if part.strip()]) == len(CHINESE)


PARTS = ["<0xF0>", "<0x9F>", "<0x98>", "<0x80>"]


@pytest.mark.filterwarnings("ignore::captum_attattr.ConvergenceWarning")
@pytest.mark.parametrize("scheme", ["bytes", "byte_ends", "sentencepiece", "byte_characters"])
def test_a_part_of_a_character_is_named_by_its_bytes(scheme):
    """Tokenizers decode all such tokens to the same replacement character, or to nothing."""
    tokenizer: Any = TOKENIZERS[scheme]()
    ids = tokenizer("😀", add_special_tokens=False)["input_ids"][-4:]
    model, options = tiny_llama(vocab_size=700), {"n_steps": 1, "progress": False}
    assert [explain(model, tokenizer, "a b", i, **options)[0].label for i in ids] == PARTS
    one = explain(model, tokenizer, "a b", ids[0], contrast=ids[1], **options)[0]
    assert (one.label, one.contrast) == ("<0xF0>", "<0x9F>")
    result = explain_generation(model, tokenizer, "a b", generated=ids, **options)
    assert [each.label for each in result.explanations] == [result.row(i).label for i in range(4)] == PARTS
    assert (result.words().answer, result.span(0, 4).label.removesuffix("</w>")) == (["😀"], "😀")
    assert result.span(1, 3).label == "<0x9F><0x98>"
    cut = explain_generation(model, tokenizer, "a b", generated=ids[:3], **options)  # by max_new_tokens, say
    assert cut.words().answer == ["<0xF0><0x9F><0x98>"]


def test_a_token_that_the_tokenizer_does_not_have_is_named_by_its_id():
    one = explain(tiny_llama(vocab_size=700), byte_level(), "a b", 553, n_steps=1, progress=False)[0]
    assert one.label == "token 553"


def test_a_word_that_is_one_token_behind_a_space_is_found_there():
    tokenizer, model = byte_level(), tiny_llama(vocab_size=700)
    tokenizer.add_tokens([" film"])
    assert explain(model, tokenizer, "a b", " film", n_steps=1, progress=False)[0].label == " film"
    with pytest.raises(ValueError, match=r"target 'film' of texts\[0\] is 2 tokens .*; one is needed, as ' film' is$"):
        explain(model, tokenizer, "a b", "film", progress=False)
    with pytest.raises(ValueError, match=r"target 'good' of texts\[0\] is 2 tokens .*; one is needed$"):
        explain(model, tokenizer, "a b", "good", progress=False)


def test_marks_are_those_of_the_scheme_alone():
    tokens = ["##", "a", "b@@", "c</w>", "▁d", "Ġe"]
    assert words(tokens, [False] * 6, "words") == [[i] for i in range(6)]
    assert readable(tokens, "words") == tokens
    assert words(["x", "##", "##y"], [False] * 3, "wordpiece") == [[0], [1, 2]]
    assert words(["a@@", "b", "@@", "c"], [False] * 4, "continued") == [[0, 1], [2], [3]]


def test_other_ways_to_know_the_scheme(tmp_path):
    assert scheme_of(bertweet(tmp_path)) == "continued"
    assert scheme_of(byte_level(decoder=False)) == "bytes"
    assert scheme_of(tiny_tokenizer()) == "words"

    class Ends:
        def convert_tokens_to_string(self, tokens: list[str]) -> str:
            return "".join(tokens).replace("</w>", " ").strip()

    assert scheme_of(Ends()) == "ends"
    assert set(TOKENIZERS) | {"continued", "ends", "words"} == set(SCHEMES)


def test_explanations_archives_and_trees_carry_the_scheme(tmp_path):
    tokenizer, model = word_piece(), tiny_bert(vocab_size=200)
    one = explain(model, tokenizer, "good films a", n_steps=1, progress=False)[0]
    assert one.scheme == "wordpiece"
    assert one.tokens == ["good", "film", "##s", "a"]
    assert Explanation.load(one.save(tmp_path / "one.safetensors")).scheme == "wordpiece"
    archive = explain_dataset(model, tokenizer, ["good films a"], tmp_path / "archive", n_steps=1, progress=False)
    assert archive[0].scheme == "wordpiece"
    tree = attribution_tree(one, merge_subwords=True)
    assert tree.graph["scheme"] == "wordpiece"
    assert tree.graph["tokens"] == ["good", "films", "a"]
