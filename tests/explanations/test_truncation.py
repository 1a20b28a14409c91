"""Texts that are too long: cut as BERT's own code cuts them, token by token."""

from __future__ import annotations

import random

import pytest
from toy import WORDS, tiny_tokenizer

from captum_attattr.explanations.truncation import tokenize


def cut_by_hand(first: list[str], second: list[str], limit: int) -> list[str]:
    """What BERT's run_classifier.py does with a pair."""
    first, second = list(first), list(second)
    while len(first) + len(second) > limit - 3:
        (first if len(first) > len(second) else second).pop()
    return ["[CLS]", *first, "[SEP]", *second, "[SEP]"]


@pytest.mark.parametrize("limit", range(5, 20))
def test_pairs_are_cut_one_token_after_another(limit):
    tokenizer, choose, differing = tiny_tokenizer(), random.Random(limit), 0
    for _ in range(60):
        texts = [choose.choices(WORDS, k=choose.randint(1, 12)) for _ in range(2)]
        parts = " ".join(texts[0]), " ".join(texts[1])
        encoding = tokenize(tokenizer, parts, limit)
        ids = encoding["input_ids"][0].tolist()
        tokens = cut_by_hand(*texts, limit)
        assert tokenizer.convert_ids_to_tokens(ids) == tokens
        first = tokens.index("[SEP]") + 1
        assert encoding["token_type_ids"].tolist() == [[0] * first + [1] * (len(tokens) - first)]
        assert encoding["attention_mask"].tolist() == [[1] * len(tokens)]
        assert encoding["special_tokens_mask"][0].tolist() == [int(token[0] == "[") for token in tokens]
        assert [part or 0 for part in encoding.sequence_ids(0)] == [
            int(i >= first and token != "[SEP]") for i, token in enumerate(tokens)
        ]
        differing += ids != tokenizer(*parts, truncation=True, max_length=limit)["input_ids"]
    if limit % 2 == 0 and limit > 5:  # the tokenizer's own cut is another where an odd number is left
        assert differing


def test_one_text_is_cut_at_its_end_and_nothing_else_is_cut():
    tokenizer = tiny_tokenizer()
    assert tokenize(tokenizer, ["a b c d"], 4)["input_ids"].tolist() == tokenizer(["a b"])["input_ids"]
    whole = tokenizer("a b c", "d e f g")["input_ids"]
    for limit in (None, 10, 11):
        assert tokenize(tokenizer, ["a b c", "d e f g"], limit)["input_ids"].tolist() == [whole]


def test_the_tokenizer_is_as_it_was():
    tokenizer = tiny_tokenizer()
    tokenize(tokenizer, ["a b c d e", "f g h i j"], 8)
    assert len(tokenizer("a b c d e", "f g h i j")["input_ids"]) == 13
    assert (
        tokenizer("a b c d e", "f g h i j", truncation=True, max_length=8)["input_ids"]
        == tiny_tokenizer()("a b c d e", "f g h i j", truncation=True, max_length=8)["input_ids"]
    )
