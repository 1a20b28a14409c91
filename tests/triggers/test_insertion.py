"""Insertion: relative places, room, what comes back, and the published script's way by a plain transcription."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from toy import WORDS, tiny_tokenizer
from transformers import PreTrainedTokenizerFast

from captum_attattr import Trigger, insert_trigger
from captum_attattr.triggers.insertion import pieces_of, word_mark


def trigger(*tokens, positions=None, segments=None, **changes):
    count = len(tokens)
    positions = positions or [i / max(count - 1, 1) for i in range(count)]
    return Trigger(tokens, tuple(positions), tuple(segments or [0] * count), 1.0, 0, 0, 0, 0, **changes)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer(model_max_length=24)


def test_first_goes_first_and_last_goes_last(tokenizer):
    found = insert_trigger(trigger("good", "film"), "a b c", tokenizer)
    assert found.tokens == ("[CLS]", "good", "a", "b", "c", "film", "[SEP]")
    assert found.places == (1, 5)
    assert found.inserted == ("good", "film")
    assert found.text == "good a b c film"
    assert (found.original, found.cut) == ("a b c", 0)
    assert found.removed() == ("[CLS]", "a", "b", "c", "[SEP]")


def test_each_token_goes_into_its_own_segment(tokenizer):
    made = trigger("good", "film", "bad", positions=[0.0, 0.5, 1.0], segments=[0, 0, 1])
    found = insert_trigger(made, ("a b", "c"), tokenizer)
    assert found.tokens == ("[CLS]", "good", "a", "film", "b", "[SEP]", "c", "bad", "[SEP]")
    assert found.text == ("good a film b", "c bad")


def test_a_single_text_takes_the_tokens_of_both_segments(tokenizer):
    made = trigger("good", "film", "bad", positions=[0.0, 1.0, 0.4], segments=[0, 0, 1])
    assert insert_trigger(made, "a b c", tokenizer).tokens[1:-1] == ("good", "a", "bad", "b", "c", "film")


@pytest.mark.parametrize("seed", range(30))
def test_random_insertions_can_be_taken_back_and_keep_their_places(tokenizer, seed):
    """Whatever is inserted: the rest is the original (its beginning, where it was cut), places rise with positions."""
    draw = random.Random(seed)
    pair = draw.random() < 0.5
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(1 + pair)]
    count = draw.randint(1, 4)
    segments = sorted(draw.choices([0, 1] if pair else [0], k=count))
    positions = [draw.random() for _ in range(count)]
    made = sorted(zip(segments, positions, draw.choices(WORDS, k=count), strict=True))
    segments, positions, tokens = zip(*made, strict=True)
    text = tuple(texts) if pair else texts[0]
    limit = draw.choice([24, 12, 10])
    found = insert_trigger(trigger(*tokens, positions=positions, segments=segments), text, tokenizer, limit)
    whole = tokenizer(*texts).tokens()
    assert [found.tokens[place] for place in found.places] == list(tokens) == list(found.inserted)
    assert len(found.tokens) == min(len(whole) + count, limit)
    assert found.cut == len(whole) + count - len(found.tokens)
    rest = " ".join(found.removed()[1:-1]).split(" [SEP] ")
    for kept, original in zip(rest, texts, strict=True):
        assert kept
        assert original.startswith(kept)
    # Each stands where its text's length and its position say, unless a neighbour had to move it.
    split = found.tokens.index("[SEP]")
    for segment in set(segments):
        own = [p for p, s in zip(positions, segments, strict=True) if s == segment]
        places = [p for p in found.places if (p > split) == bool(segment)]
        start, end = (split + 1, len(found.tokens) - 1) if segment else (1, split)
        wanted = [start + round(position * (end - start - 1)) for position in own]
        assert all(abs(place - want) < len(own) for place, want in zip(places, wanted, strict=True))
        assert places == sorted(places)


def plain_reference(text, second, made, tokenizer, limit):
    """The published script's loop, written out: ratio times (length + inserted), no place twice in a row, then cut."""
    parts = []
    for segment, words in enumerate((text, second)):
        tokens = words.split() if words else None
        fresh = [(t, p) for t, p, s in zip(made.tokens, made.positions, made.segments, strict=True) if s == segment]
        if tokens is not None:
            length, before = len(tokens), -1
            for token, ratio in fresh:
                place = round((length + len(fresh)) * ratio)
                if place == before:
                    place += 1
                before = place
                tokens.insert(place, token)
            parts.append(tokens)
    if len(parts) == 1:
        parts[0] = parts[0][: limit - 2]
        return ["[CLS]", *parts[0], "[SEP]"]
    while len(parts[0]) + len(parts[1]) > limit - 3:
        (parts[0] if len(parts[0]) > len(parts[1]) else parts[1]).pop()
    return ["[CLS]", *parts[0], "[SEP]", *parts[1], "[SEP]"]


@pytest.mark.parametrize("seed", range(40))
def test_reference_rules_insert_as_the_published_loop(tokenizer, seed):
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(1, 9))) for _ in range(1 + (seed % 2))]
    count = draw.randint(0, 4)
    segments = sorted(draw.choices([0, 1], k=count))
    positions = [draw.random() for _ in range(count)]
    made = trigger(*draw.choices(WORDS, k=count), positions=positions, segments=segments, rules="reference")
    limit = draw.choice([24, 12, 8])
    expected = plain_reference(texts[0], texts[1] if len(texts) > 1 else None, made, tokenizer, limit)
    found = insert_trigger(made, texts[0] if len(texts) == 1 else tuple(texts), tokenizer, limit)
    assert list(found.tokens) == expected


def test_reference_rules_may_cut_the_trigger_and_the_default_never(tokenizer):
    text = " ".join("abcdefgh")
    reference = trigger("good", positions=[1.0], rules="reference")
    assert "good" not in insert_trigger(reference, text, tokenizer, 8).tokens
    found = insert_trigger(replace(reference, rules="default"), text, tokenizer, 8)
    assert found.tokens == ("[CLS]", "a", "b", "c", "d", "e", "good", "[SEP]")
    assert found.cut == 3


def test_a_token_of_another_vocabulary_is_read_as_a_word(tokenizer):
    found = insert_trigger(trigger("Ġgood", "##bad"), "a b", tokenizer)
    assert found.inserted == ("good", "bad")
    with pytest.raises(ValueError, match=r"no token for 'xyzzy' of the trigger 'xyzzy'"):
        insert_trigger(trigger("xyzzy"), "a b", tokenizer)


@pytest.mark.parametrize(
    ("made", "text", "limit", "message"),
    [
        (trigger("good", "film"), "a b", 4, "no room for the trigger: of 4 tokens 2 are special and 2 the trigger's"),
        (trigger("good"), ("a", "b"), 5, "no room for the trigger: of 5 tokens 3 are special and 1 the trigger's"),
        (trigger(), "a b", 24, "holds no token"),
        (trigger("[CLS]", "[SEP]"), "a b", 24, "holds special tokens only"),
        (trigger("good"), "  ", 24, "is empty"),
        (trigger("good"), "a", 2, "max_length=2 must be"),
        (trigger(""), "a", 24, "the tokenizer has no token for ''"),
    ],
)
def test_what_cannot_be_inserted(tokenizer, made, text, limit, message):
    with pytest.raises(ValueError, match=message):
        insert_trigger(made, text, tokenizer, limit)


def test_other_types_are_refused(tokenizer):
    with pytest.raises(TypeError, match="trigger must be a Trigger, not str: 'good'"):
        insert_trigger("good", "a", tokenizer)
    with pytest.raises(TypeError, match="tokenizer must be the model's tokenizer, got NoneType"):
        insert_trigger(trigger("good"), "a", None)
    with pytest.raises(TypeError, match=r"must be a text or a pair"):
        insert_trigger(trigger("good"), ("a", "b", "c"), tokenizer)


def test_tokens_go_to_their_places_whatever_their_order(tokenizer):
    made = trigger("good", "bad", positions=[1.0, 0.0])
    assert insert_trigger(made, "a b", tokenizer).text == "bad a b good"


def marked(mark: str, *vocabulary: str) -> PreTrainedTokenizerFast:
    """A tokenizer that writes `mark` for a blank, or "##" before the rest of a word."""
    ids = {token: i for i, token in enumerate(("<unk>", "a", "Ġa", "▁a", *vocabulary))}
    if mark:
        core = Tokenizer(models.BPE(ids, [], unk_token="<unk>", ignore_merges=True))
        core.normalizer = normalizers.Replace(" ", mark)
        core.pre_tokenizer = pre_tokenizers.Split(mark, "merged_with_next")
    else:
        core = Tokenizer(models.WordPiece(ids, unk_token="<unk>"))
        core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")


def test_a_word_stays_a_word_for_tokenizers_that_mark_words_otherwise():
    bert, roberta, llama = (
        marked("", "good", "ing", "##ing"),
        marked("Ġ", "good", "Ġgood", "ing"),
        marked("▁", "good", "▁good", "ing"),
    )
    assert [word_mark(tokenizer) for tokenizer in (bert, roberta, llama)] == ["", "Ġ", "▁"]
    expected = {("good", "##ing"): bert, ("Ġgood", "ing"): roberta, ("▁good", "ing"): llama}
    for tokens, source in expected.items():
        for wanted, tokenizer in expected.items():
            found = pieces_of(trigger(*tokens), tokenizer, source)
            assert tuple(tokenizer.convert_ids_to_tokens([piece.token_id for piece in found])) == wanted
