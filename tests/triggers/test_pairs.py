"""Triggers of pairs: whatever a tokenizer says of segments, each token is of its text and goes back into it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from toy import SEP, tiny_bert
from toy import WORDS as PLAIN
from transformers import PreTrainedTokenizerFast
from transformers.models.phobert.tokenization_phobert import PhobertTokenizer

from captum_attattr import Trigger, explain, extract_triggers, find_patterns, insert_trigger, triggers_of
from captum_attattr.explanations.encoding import encode_text

FIRST, SECOND = ("good", "film", "man"), ("bad", "plot", "work", "z")
PAIR = (" ".join(FIRST), " ".join(SECOND))
OTHER = ("a b c", "d e")


def fast(pair: str, *names: str) -> PreTrainedTokenizerFast:
    """Words with <s> 0 and </s> 1 around pairs as is said; `names` of what the tokenizer returns."""
    vocabulary = {"<s>": 0, "</s>": 1, "<unk>": 2, "<pad>": 3} | {word: SEP + 1 + i for i, word in enumerate(PLAIN)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    single = pair.partition("$A")[0] + "$A"
    special = [("<s>", 0), ("</s>", 1)]
    core.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=special)
    roles = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    roles["model_input_names"] = ["input_ids", "attention_mask", *names]
    return PreTrainedTokenizerFast(tokenizer_object=core, **roles)


class Joined(PhobertTokenizer):
    """A slow tokenizer that puts one text behind the other, with nothing between."""

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: Any = None) -> list[int]:
        return token_ids_0 + (token_ids_1 or [])

    def get_special_tokens_mask(self, token_ids_0: list[int], token_ids_1: Any = None, _: bool = False) -> list[int]:
        return [0] * (len(token_ids_0) + len(token_ids_1 or []))

    def create_token_type_ids_from_sequences(self, token_ids_0: list[int], token_ids_1: Any = None) -> list[int]:
        return [0] * (len(token_ids_0) + len(token_ids_1 or []))


def slow(folder: Path, kind: type[PhobertTokenizer] = PhobertTokenizer, *names: str) -> PhobertTokenizer:
    """PhoBERT's: <s> text </s> </s> text </s>, and no segments."""
    (folder / "vocab.txt").write_text("".join(f"{word} 1\n" for word in PLAIN), encoding="utf-8")
    merges = sorted(
        {(word[:i], word[i] + "</w>" * (i + 1 == len(word))) for word in PLAIN for i in range(1, len(word))}
    )
    (folder / "bpe.codes").write_text("".join(f"{a} {b} 1\n" for a, b in merges), encoding="utf-8")
    options = {"model_input_names": ["input_ids", "attention_mask", *names]}
    return kind(str(folder / "vocab.txt"), str(folder / "bpe.codes"), **options)


TOKENIZERS: dict[str, Any] = {
    "fast, segments": lambda _: fast("<s> $A </s> $B:1 </s>:1", "token_type_ids"),
    "fast, all 0": lambda _: fast("<s> $A </s> </s> $B </s>", "token_type_ids"),
    "fast, no segments": lambda _: fast("<s> $A </s> </s> $B </s>"),
    "fast, nothing between": lambda _: fast("$A $B"),
    "slow, no segments": lambda folder: slow(folder),
    "slow, all 0": lambda folder: slow(folder, PhobertTokenizer, "token_type_ids"),
    "slow, nothing between": lambda folder: slow(folder, Joined),
}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request, tmp_path):
    return TOKENIZERS[request.param](tmp_path)


def test_each_word_of_a_trigger_is_of_its_text(tokenizer):
    model = tiny_bert(vocab_size=60)
    found = extract_triggers(
        explain(model, tokenizer, [PAIR], n_steps=3, progress=False), pairs=8, ratio=0, min_score=0
    )
    patterns = find_patterns(model, tokenizer, [PAIR], pairs=8, n_steps=3, progress=False)
    for made in (*found, *triggers_of(patterns, ratio=0, min_score=0)):
        assert set(made.segments) == {0, 1}
        for token, segment in zip(made.tokens, made.segments, strict=True):
            assert token in (SECOND if segment else FIRST)


def test_each_word_goes_into_its_text(tokenizer):
    made = Trigger(("good", "film", "bad"), (0.0, 1.0, 0.0), (0, 0, 1), 1.0, 0, 0, 0, 0)
    found = insert_trigger(made, OTHER, tokenizer)
    assert found.text == ("good a b c film", "bad d e")
    assert [found.tokens[place] for place in found.places] == ["good", "film", "bad"]
    assert list(found.removed()) == tokenizer.convert_ids_to_tokens(tokenizer(*OTHER)["input_ids"])


@pytest.mark.parametrize("limit", [9, 8])
def test_where_a_pair_is_cut_its_second_text_begins_where_it_does(tokenizer, limit):
    item = encode_text(tokenizer, 0, (" ".join("abcdefg"), " ".join("uvwxyz")), limit)
    tokens = tokenizer.convert_ids_to_tokens(item.ids)
    assert len(tokens) == limit
    for token, segment, special in zip(tokens, item.segments, item.special, strict=True):
        assert special or segment == (token in "uvwxyz")
