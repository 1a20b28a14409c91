"""What an explanation says, in words: which tokens, which links."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import PATCH
from captum_attattr.formatting import output_value, signed, visible
from captum_attattr.plots.canvas.sentence import Floats, Sentence, shown

_HALF = 0.5  # of what speaks for the decision: so much makes a word, or some of them, "mostly"
_MOST_WORDS = 3
_LINKS_OF_A_WORD = 2
_MORE = 2.0  # times as much against the decision as for it: what is against it is told first
_AGAINST = 0.25  # of the strongest word, or link, on the other side: from here one is named
_FEW, _FAINT = 10, 0.05  # a weaker link is named if fewer are stronger, down to this share of the strongest
_SMALL_LINK = 0.2  # of the strongest link of a word: a weaker one is not named
_WORD_LENGTH = 40  # characters
_SIDES = {1: "for", -1: "against"}


class Link(NamedTuple):
    """One interaction, summed over heads."""

    layer: int
    query: int
    key: int
    score: float


def decision(explanation: Explanation) -> str:
    """Return the HTML of the first line: what the model says, and how strongly."""
    value = value_of(explanation)
    telling = explanation.telling
    label = telling.around(f"<b><bdi>{html.escape(shown(explanation.label))}</bdi></b>", _quoted_text)
    if explanation.prediction == explanation.target:
        line = f"The model says{':' * bool(telling.kind)} {label}"
        value = "; ".join(filter(None, [telling.place * bool(telling.kind), value]))
    else:
        line = f"The model does not choose {label} ({telling.place}), which is explained here"
    if explanation.contrast is not None:
        line += f", here against <b><bdi>{html.escape(shown(explanation.contrast))}</bdi></b>"
    return f"{line} ({html.escape(value)})" if value else line


def _quoted_text(word: str) -> str:
    return f"“<bdi>{html.escape(shown(word))}</bdi>”"


def value_of(explanation: Explanation) -> str:
    """Return what F is and its value; "" if that is not known."""
    return output_value(explanation.output, explanation.value, explanation.contrast is not None)


def findings(sentence: Sentence, links: Floats, numbers: Sequence[int], *, causal: bool = False) -> str:
    """Return the HTML of a line of findings; each phrase is a button that shows what it names.

    What speaks for the decision comes first, unless more than twice as much speaks against it.

    Args:
        sentence: the words.
        links: (L, T, T) the attributions, summed over heads.
        numbers: the layers' own numbers.
        causal: whether no token sees what follows; attention that goes nowhere else then rests on the first one.
    """
    if not np.abs(links).max(initial=0) > 0:
        return "Nothing to tell: the attributions of all heads are 0, or cancel out."
    groups = _groups(sentence, causal)
    amounts = {sign: sum(max(sign * group.score, 0.0) for group in groups) for sign in (1, -1)}
    sign = -1 if amounts[-1] > _MORE * amounts[1] else 1
    total, told, named = 0.0, [], []
    ordered = groups[::sign]
    for group in ordered[:_MOST_WORDS]:
        if sign * group.score > 0 and total < _HALF * amounts[sign]:
            total += sign * group.score
            read = _links_of(group.tokens, links, sign)
            named += read
            phrases = ", ".join(_phrase(link, sentence, numbers, "it") for link in read)
            told.append(": ".join(filter(None, [_word(group, sentence, causal), phrases])))
    share = f"these have {100 * total / amounts[sign]:.0f} %:" if amounts[sign] else ""
    start = ["Mostly", f"Spread over many {sentence.nouns}, of which {share}"]
    if sign < 0:
        start = ["Mostly against it:", f"Against it many {sentence.nouns}, of which {share}"]
    main = f"{start[total < _HALF * amounts[sign]]} {'; '.join(told)}." if told else ""
    other = _other(ordered, sentence, -sign)
    parts = [other, main] if sign < 0 else [main, other]
    for side in (sign, -sign):
        link = _strongest(links, side)
        if side * link.score > 0 and link not in named and (side == sign or _counts(link, links)):
            phrase = _phrase(link, sentence, numbers)
            parts.append(f"The strongest link {_SIDES[side]} it: {phrase}.")
    return " ".join(filter(None, parts))


class _Group(NamedTuple):
    """A word, wherever it stands in the text."""

    words: list[int]
    """the strongest first"""
    tokens: list[int]
    score: float


def _groups(sentence: Sentence, causal: bool) -> list[_Group]:
    """Return the words of a text by falling score, equal ones together but for special tokens and where all rests."""
    scores = sentence.scores[-1]
    places: dict[Any, list[int]] = {}
    for i, (word, special) in enumerate(zip(sentence.words, sentence.special, strict=True)):
        places.setdefault(i if special or (causal and not i) else word.lower(), []).append(i)
    groups = [
        _Group(
            sorted(words, key=lambda i: -abs(float(scores[i]))),
            [token for i in words for token in sentence.positions[i]],
            float(scores[words].sum()),
        )
        for words in places.values()
    ]
    return sorted(groups, key=lambda group: -group.score)


def _quoted(i: int, sentence: Sentence) -> str:
    """Return a word for a finding; a special token and a patch need no quotes."""
    name = f"<bdi>{html.escape(visible(sentence.words[i], _WORD_LENGTH))}</bdi>"
    return name if sentence.special[i] or PATCH.fullmatch(sentence.words[i]) else f"“{name}”"


def _word(group: _Group, sentence: Sentence, causal: bool) -> str:
    times = f" ({len(group.words)} times)" if len(group.words) > 1 else ""
    text = f"{_quoted(group.words[0], sentence)}{times} {signed(group.score)}"
    rests = " (the first token, where attention rests)" if causal and group.words == [0] else ""
    return f'<button type="button" class="phrase" data-word="{group.words[0]}">{text}</button>{rests}'


def _links_of(tokens: list[int], links: Floats, sign: int) -> list[Link]:
    """Return the links that read a word and speak for the decision, or against it, the strongest first."""
    columns = links[:, :, tokens]
    order = np.argsort(-sign * columns, axis=None, kind="stable")[:_LINKS_OF_A_WORD]
    chosen: list[Link] = []
    for at in order:
        layer, query, place = (int(part) for part in np.unravel_index(at, columns.shape))
        score, key = float(columns[layer, query, place]), tokens[place]
        weak = sign * score < _SMALL_LINK * abs(chosen[0].score) if chosen else sign * score <= 0
        if weak:
            break
        chosen.append(Link(layer, query, key, score))
    return chosen


def _strongest(links: Floats, sign: int) -> Link:
    layer, query, key = (int(part) for part in np.unravel_index(int((sign * links).argmax()), links.shape))
    return Link(layer, query, key, float(links[layer, query, key]))


def _counts(link: Link, links: Floats) -> bool:
    """Whether the strongest link on the other side is to be named: it is not small, or one of the strongest of all."""
    sizes = np.abs(links)
    share = abs(link.score) / float(sizes.max())
    return share >= _AGAINST or (share >= _FAINT and int((sizes > abs(link.score)).sum()) < _FEW)


def _word_of(token: int, sentence: Sentence) -> int:
    return next(i for i, word in enumerate(sentence.positions) if token in word)


def _phrase(link: Link, sentence: Sentence, numbers: Sequence[int], what: str = "") -> str:
    """Return a link as a button; `what` is how its key is called, by default its word."""
    words = [_word_of(token, sentence) for token in (link.query, link.key)]
    reader, read = (_quoted(word, sentence) for word in words)
    read = "itself" if words[0] == words[1] else what or read
    text = f"{reader} read {read} in layer {numbers[link.layer]} ({signed(link.score)})"
    return f'<button type="button" class="phrase" data-link="{link.layer},{link.query},{link.key}">{text}</button>'


def _other(ordered: Sequence[_Group], sentence: Sentence, sign: int) -> str:
    """Return the strongest word on the side that is not told first, if it counts."""
    best, side = ordered[-1], _SIDES[sign]
    if sign * best.score <= 0 and sign > 0:
        return f"No {sentence.noun} speaks for it."
    if sign * best.score <= 0 or abs(best.score) < _AGAINST * abs(ordered[0].score):
        return f"No {sentence.noun} clearly speaks {side} it."
    return f"{side.capitalize()} it: {_word(best, sentence, False)}."
