"""Triggers: the interactions they are made of, by plain loops; merging, composing, files, refusals."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from toy import tiny_bert, tiny_tokenizer

from captum_attattr import (
    Explanation,
    Pattern,
    Trigger,
    compose_triggers,
    explain,
    extract_triggers,
    find_patterns,
    triggers_of,
)

PAIR = ["[CLS]", "a", "good", "film", "[SEP]", "bad", "plot", "[SEP]"]


def explanation(maps: torch.Tensor, tokens: list[str] | None = None, **changes: Any) -> Explanation:
    tokens = tokens or ["[CLS]", *"abcdefghijkl"[: maps.shape[-1] - 2], "[SEP]"]
    end = tokens.index("[SEP]") if "[SEP]" in tokens else len(tokens)
    unknown = torch.zeros(len(maps))
    given: dict[str, Any] = {
        "tokens": tokens,
        "attributions": maps,
        "attention": maps,
        "delta": unknown,
        "error": unknown,
        "nodes": unknown.long(),
        "target": 1,
        "label": "1",
        "probability": 0.9,
        "prediction": 1,
        "text": "text",
        "segments": [int(i > end) for i in range(len(tokens))],
        "special": [token in ("[CLS]", "[SEP]") for token in tokens],
    }
    return Explanation(**given | changes)


def hand_made(*entries: tuple[float, int, int, int, int], tokens: list[str] = PAIR) -> Explanation:
    """Zeros, but for (score, layer, head, query, key)."""
    maps = torch.zeros(2, 3, len(tokens), len(tokens))
    for score, *place in entries:
        maps[tuple(place)] = score
    return explanation(maps, tokens)


def test_hand_made_pair_with_two_interactions():
    found = hand_made((0.5, 1, 2, 2, 6), (0.3, 0, 1, 3, 2), (0.9, 0, 0, 0, 4))  # the largest is of special tokens
    (trigger,) = extract_triggers([found], [0])
    assert trigger.tokens == ("good", "film", "plot")
    assert trigger.positions == (0.5, 1.0, 1.0)  # of "a good film" and of "bad plot"
    assert trigger.segments == (0, 0, 1)
    assert (trigger.layer, trigger.head, trigger.target, trigger.gold, trigger.source) == (1, 2, 1, 0, 0)
    assert trigger.score == pytest.approx(0.8)
    assert trigger.name == "good film | plot"


def test_ratio_leaves_the_second_interaction_out():
    found = hand_made((0.5, 1, 2, 2, 6), (0.3, 0, 1, 3, 2))
    assert extract_triggers([found], ratio=0.61)[0].tokens == ("good", "plot")
    assert extract_triggers([found], ratio=0.59)[0].tokens == ("good", "film", "plot")
    assert extract_triggers([found], pairs=1)[0].tokens == ("good", "plot")


def test_an_interaction_that_brings_no_new_token_is_passed_over():
    found = hand_made((0.5, 0, 0, 2, 3), (0.4, 1, 1, 3, 2), (0.3, 0, 0, 1, 2))
    (trigger,) = extract_triggers([found])
    assert trigger.tokens == ("a", "good", "film")
    assert trigger.score == pytest.approx(0.8)


def test_interactions_with_special_tokens_count_if_asked_for_and_give_the_other_token():
    found = hand_made((0.9, 0, 0, 0, 3), (0.8, 0, 0, 0, 4), (0.5, 1, 2, 2, 6))
    assert extract_triggers([found])[0].tokens == ("good", "plot")
    assert extract_triggers([found], special_tokens=True)[0].tokens == ("good", "film", "plot")


def test_unknown_tokens_and_self_attention_are_no_interaction_of_words():
    tokens = ["[CLS]", "[UNK]", "good", "film", "[SEP]"]
    found = hand_made((0.9, 0, 0, 1, 2), (0.8, 0, 0, 2, 2), (0.1, 0, 1, 3, 2), tokens=tokens)
    assert extract_triggers([found])[0].tokens == ("good", "film")


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("special_tokens", [False, True])
def test_random_maps_as_by_plain_loops(seed, special_tokens):
    """Every interaction with its highest score, the highest first, as long as it brings a new word."""
    generator = torch.Generator().manual_seed(seed)
    length = 4 + seed
    maps = torch.randn(2, 3, length, length, generator=generator)
    one = explanation(maps)
    best = {}
    for query, key in itertools.product(range(length), repeat=2):
        words = [i for i in (query, key) if not one.special[i]]
        if query != key and (len(words) == 2 or (special_tokens and len(words) == 1)):
            best[query, key] = float(maps[:, :, query, key].max())
    seen, chosen = set(), []
    for (query, key), score in sorted(best.items(), key=lambda pair: -pair[1]):
        words = {i for i in (query, key) if not one.special[i]}
        if words - seen and len(chosen) < 3 and score > 0:
            seen |= words
            chosen.append((score, query, key))
    (trigger,) = extract_triggers([one], pairs=np.int64(3), ratio=np.float32(0), special_tokens=special_tokens)
    assert trigger.tokens == tuple(one.tokens[i] for i in sorted(seen))
    assert trigger.score == pytest.approx(sum(score for score, *_ in chosen))


@pytest.mark.parametrize("seed", range(8))
def test_reference_rules_as_by_plain_loops(seed):
    maps = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(seed))
    entries = [(float(maps[place]), *place) for place in itertools.product(*map(range, maps.shape))]
    best = max(entries)
    second = sorted((entry for entry in entries if entry[1:3] == best[1:3]), reverse=True)[1]
    one = explanation(maps)
    weak = explanation(maps * 0.001)
    (trigger,) = extract_triggers([one, weak], rules="reference", ratio=0.0)  # the threshold ends at the weak one
    places = sorted({*best[3:], *second[3:]} - {0, 5})
    assert trigger.tokens == tuple(one.tokens[place] for place in places)
    assert trigger.positions == tuple(place / 4 for place in places)
    assert trigger.score == pytest.approx(best[0] + second[0])


def test_reference_rules_lose_the_last_pattern_if_none_is_below_the_threshold():
    patterns = [hand_made((score, 0, 0, 2, 3)) for score in (0.5, 0.3, 0.4)]
    found = extract_triggers(patterns, rules="reference")
    assert [trigger.source for trigger in found] == [0, 2]
    assert [trigger.source for trigger in extract_triggers(patterns, merge=False)] == [0, 2, 1]
    assert len(extract_triggers(patterns, rules="reference", min_score=0.35)) == 2


def test_reference_rules_keep_triggers_without_a_word():
    found = extract_triggers([hand_made((0.5, 0, 0, 0, 4)), hand_made((0.1, 0, 0, 2, 3))], rules="reference")
    assert found[0].tokens == ()
    assert found[0].name == "(no word)"


def test_the_same_trigger_of_several_examples_is_one():
    maps = [hand_made((score, 0, 0, 2, 3)) for score in (0.3, 0.5)]
    other = replace(hand_made((0.4, 0, 0, 2, 3)), target=0)
    found = extract_triggers([*maps, other])
    assert [(trigger.source, trigger.sources, trigger.target) for trigger in found] == [(1, 2, 1), (2, 1, 0)]
    assert len(extract_triggers([*maps, other], merge=False)) == 3


def test_composed_triggers_hold_whole_triggers_up_to_the_limit():
    def made(tokens, target, score):
        positions = tuple(i / 10 for i in range(len(tokens)))
        return Trigger(tuple(tokens), positions, (0,) * len(tokens), score, 0, 0, 0, target)

    triggers = [made("abc", 0, 3.0), made("de", 1, 2.0), made("dfg", 0, 1.0), made("cx", 0, 0.5)]
    (composed,) = compose_triggers(triggers)
    assert sorted(composed.tokens) == ["a", "b", "c", "x"]  # "dfg" would make it six words
    assert composed.positions == tuple(sorted(composed.positions))
    assert (composed.target, composed.source, composed.score, composed.sources) == (0, -1, 3.5, 2)
    assert len(compose_triggers(triggers, max_words=6)[0].tokens) == 6


@pytest.fixture(scope="module")
def toy():
    return tiny_bert(seed=1), tiny_tokenizer()


def test_patterns_of_a_model_are_those_of_its_explanations(toy, tmp_path):
    texts = ["good film", ("bad plot a", "good work"), "man a b c d", "bad work"]
    labels = [0, 1, 2, 0]
    found = find_patterns(*toy, texts, labels, batch_size=2, progress=False, resume=tmp_path / "run")
    triggers = triggers_of(found, min_score=0.0)
    expected = extract_triggers(explain(*toy, texts, progress=False), labels, min_score=0.0)
    assert [t.tokens for t in triggers] == [t.tokens for t in expected]
    assert [t.gold for t in triggers] == [t.gold for t in expected]
    assert [t.score for t in triggers] == pytest.approx([t.score for t in expected], rel=2e-3)
    content = (tmp_path / "run").read_bytes().splitlines(keepends=True)
    (tmp_path / "run").write_bytes(b"".join(content[:-1]))
    assert find_patterns(*toy, texts, labels, batch_size=2, progress=False, resume=tmp_path / "run") == found
    with pytest.raises(ValueError, match="belongs to another run"):
        find_patterns(*toy, texts, labels, batch_size=2, pairs=1, progress=False, resume=tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pairs": 0}, "pairs=0 must be"),
        ({"ratio": -1}, "ratio=-1 must be"),
        ({"ratio": 1.5}, "ratio=1.5 must be at most 1"),
        ({"min_score": float("nan")}, "min_score=nan must be"),
        ({"rules": "mine"}, "rules='mine' is unknown"),
        ({"rules": "reference", "pairs": 3}, "pairs=3 does not go with rules='reference'"),
        ({"rules": "reference", "pairs": 1}, "pairs=1 does not go with rules='reference'"),
        ({"rules": "reference"}, "leaves the last pattern out, and there is but one"),
        ({"rules": "reference", "min_score": 0.6}, r"min_score=0.6 or more; the highest is 0.5"),
        ({"labels": [0, 1]}, "2 labels for 1 explanations"),
        ({"labels": []}, "0 labels for more explanations"),
        ({"min_score": 0.6}, r"min_score=0.6 or more; the highest is 0.5"),
    ],
)
def test_senseless_options(options, message):
    with pytest.raises(ValueError, match=message):
        extract_triggers([hand_made((0.5, 0, 0, 2, 3))], **options)


def test_nothing_to_make_a_trigger_of():
    with pytest.raises(ValueError, match="no pattern"):
        extract_triggers([])
    with pytest.raises(ValueError, match="no example has a positive interaction between words"):
        extract_triggers([hand_made((0.5, 0, 0, 0, 4))])
    with pytest.raises(TypeError, match=r"explanations\[0\] must be an Explanation, not str: 'text'"):
        extract_triggers(["text"])
    only_special = Pattern(((0.9, 0, 0, 0, 2),), ("[CLS]", "a", "[SEP]"), (True, False, True), (0, 0, 0), 1, 1, 0)
    with pytest.raises(ValueError, match=r"all 1 patterns above min_score=0.02 hold special tokens only"):
        triggers_of([only_special])
    with pytest.raises(ValueError, match="max_words=1 must be"):
        compose_triggers(extract_triggers([hand_made((0.5, 0, 0, 2, 3))]), max_words=1)
    with pytest.raises(ValueError, match="triggers is empty"):
        compose_triggers([])


def test_score_is_that_of_the_interactions_that_the_trigger_holds():
    weak_second = [hand_made((0.5, 0, 0, 2, 3), (0.09, 0, 0, 1, 6)), hand_made((0.55, 0, 0, 2, 6))]
    found = extract_triggers(weak_second)
    assert [(len(trigger.tokens), trigger.score) for trigger in found] == [
        (2, pytest.approx(0.55)),
        (2, pytest.approx(0.5)),
    ]
    with pytest.raises(ValueError, match=r"min_score=0.56 or more; the highest is 0.55"):
        extract_triggers(weak_second, min_score=0.56)
    published = extract_triggers([*weak_second, hand_made((0.01, 0, 0, 2, 3))], rules="reference")
    assert published[0].score == pytest.approx(0.59)  # its threshold counts both interactions


def test_special_tokens_that_were_typed_are_no_words():
    tokens = ["[CLS]", "a", "[SEP]", "b", "[MASK]", "[SEP]"]
    maps = torch.zeros(1, 1, 6, 6)
    maps[0, 0, 1, 2], maps[0, 0, 3, 4], maps[0, 0, 1, 3] = 0.9, 0.8, 0.1
    typed = explanation(maps, tokens, special=[True, False, False, False, False, True])
    assert [trigger.tokens for trigger in extract_triggers([typed])] == [("a", "b")]


@pytest.mark.parametrize(
    ("tokens", "special", "entries", "expected"),
    [
        (["the", "film"], [False, False], [(0, 1)], (("the", "film"), (0.0, 1.0))),
        (["film"], [False], [(0, 0)], (("film",), (0.0,))),
        (["<s>", "a", "b", "</s>"], [True, False, False, True], [(2, 0), (1, 3)], (("a", "b"), (0.5, 1.0))),
        (["a", "b", "c", "</s>"], [False, False, False, True], [(2, 3), (0, 2)], (("a", "c"), (0.0, 1.0))),
        (["a", "[SEP]", "b", "c"], [False, True, False, False], [(2, 3), (0, 2)], (("a", "b", "c"), (0.0, 0.5, 1.0))),
    ],
)
def test_reference_rules_where_other_tokens_or_none_stand_for_the_separator(tokens, special, entries, expected):
    maps = torch.zeros(1, 1, len(tokens), len(tokens))
    for place, score in zip(entries, (0.5, 0.4), strict=False):
        maps[(0, 0, *place)] = score
    one = explanation(maps, tokens, special=special, segments=[0] * len(tokens))
    found = extract_triggers([one, explanation(maps / 1000, tokens, special=special)], rules="reference", ratio=0.1)
    assert (found[0].tokens, found[0].positions) == expected


def test_other_types_are_named():
    one = hand_made((0.5, 0, 0, 2, 3))
    with pytest.raises(TypeError, match=r"use \[explanation\]"):
        extract_triggers(one)
    with pytest.raises(TypeError, match=r"labels must be indices of classes, but \[0\] is 'good'"):
        extract_triggers([one], ["good"])
    with pytest.raises(TypeError, match="labels must be a list of numbers, not generator"):
        extract_triggers([one], (i for i in [1]))
    assert extract_triggers([one], np.array([1]))[0].gold == 1
    found = extract_triggers([one])
    with pytest.raises(TypeError, match=r"patterns\[0\] must be a Pattern, not Trigger"):
        triggers_of(found)
    with pytest.raises(TypeError, match=r"triggers\[0\] must be a Trigger, not str: 'good'"):
        compose_triggers(["good"])
    other = replace(found[0], tokens=("x", "y"))
    assert compose_triggers(each for each in [*found, other]) == compose_triggers([*found, other])
