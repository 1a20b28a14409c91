"""What an explanation says, in words: which tokens, which links, how sure."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import PATCH
from captum_attattr.formatting import number, output_value, signed
from captum_attattr.plots.canvas.sentence import Floats, Sentence, shown

_HALF = 0.5  # of what speaks for the decision: so much makes a word, or some of them, "mostly"
_MOST_WORDS = 3
_LINKS_OF_A_WORD = 2
_AGAINST = 0.25  # of the strongest word for: from here a word against is named
_SMALL_LINK = 0.2  # of the strongest link of a word: a weaker one is not named


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


def findings(sentence: Sentence, links: Floats, numbers: Sequence[int]) -> str:
    """Return the HTML of a line of findings; each phrase is a button that shows what it names.

    Args:
        sentence: the words.
        links: (L, T, T) the attributions, summed over heads.
        numbers: the layers' own numbers.
    """
    if not np.abs(links).max(initial=0) > 0:
        return "Nothing to tell: the attributions of all heads are 0, or cancel out."
    groups = _groups(sentence)
    positive = sum(max(group.score, 0.0) for group in groups)
    if positive <= 0:
        none = f"No {sentence.noun} speaks for it."
        return f"{none} {_against(groups, sentence)}{_opposed(sentence, links, numbers)}".strip()
    named: list[_Group] = []
    total = 0.0
    for group in groups[:_MOST_WORDS]:
        if group.score > 0 and total < _HALF * positive:
            named.append(group)
            total += group.score
    told = []
    for group in named:
        read = [_read(link, sentence, numbers) for link in _links_of(group.tokens, links)]
        told.append(_word(group, sentence) + (f": {', '.join(read)}" if read else ""))
    start = "Mostly"
    if total < _HALF * positive:
        start = f"Spread over many {sentence.nouns}, of which these have {100 * total / positive:.0f} %:"
    return f"{start} {'; '.join(told)}. {_against(groups, sentence)}{_opposed(sentence, links, numbers)}".strip()


class _Group(NamedTuple):
    """A word, wherever it stands in the text."""

    words: list[int]
    """the strongest first"""
    tokens: list[int]
    score: float


def _groups(sentence: Sentence) -> list[_Group]:
    """Return the words of a text, equal ones together, by falling score; a special token stands alone."""
    scores = sentence.scores[-1]
    places: dict[Any, list[int]] = {}
    for i, (word, special) in enumerate(zip(sentence.words, sentence.special, strict=True)):
        places.setdefault(i if special else word.lower(), []).append(i)
    groups = [
        _Group(
            sorted(words, key=lambda i: -abs(float(scores[i]))),
            [token for i in words for token in sentence.positions[i]],
            float(scores[words].sum()),
        )
        for words in places.values()
    ]
    return sorted(groups, key=lambda group: -group.score)


def certainty(explanation: Explanation) -> str:
    """Return the text of how exact the numbers are."""
    delta, error = (part.double().numpy(force=True) for part in (explanation.delta, explanation.error))
    maps, sums = "every layer's map", "each layer adds up to what its attention did"
    if explanation.path == "joint":  # one integral for all layers
        delta, error = np.array([explanation.total_delta]), np.array([explanation.total_error])
        maps, sums = "all maps together", "all layers together add up to what attention did"
    parts = []
    known = error[~np.isnan(error)]
    if len(known) and math.isfinite(known.max()):
        parts.append(f"the estimated error of {maps} is at most {number(100 * float(known.max()))} %")
    elif len(known):
        parts.append("one layer's map is known to be wrong")
    else:
        parts.append("the error was not estimated")
    if np.isfinite(delta).all():
        parts.append(f"{sums} within {number(float(np.abs(delta).max()))}")
    return f"How exact: {'; '.join(parts)}."


def _quoted(i: int, sentence: Sentence) -> str:
    """Return a word for a finding; a special token and a patch need no quotes."""
    name = f"<bdi>{html.escape(shown(sentence.words[i]))}</bdi>"
    return name if sentence.special[i] or PATCH.fullmatch(sentence.words[i]) else f"“{name}”"


def _word(group: _Group, sentence: Sentence) -> str:
    times = f" ({len(group.words)} times)" if len(group.words) > 1 else ""
    text = f"{_quoted(group.words[0], sentence)}{times} {signed(group.score)}"
    return f'<button type="button" class="phrase" data-word="{group.words[0]}">{text}</button>'


def _links_of(tokens: list[int], links: Floats) -> list[Link]:
    """Return the links that read a word and speak for the decision, the strongest first."""
    size = links.shape[-1]
    columns = links[:, :, tokens]
    order = np.argsort(-columns, axis=None, kind="stable")[: 4 * _LINKS_OF_A_WORD]
    chosen: list[Link] = []
    for at in order:
        layer, query, place = (int(part) for part in np.unravel_index(at, columns.shape))
        score, key = float(columns[layer, query, place]), tokens[place]
        if query in tokens and size > 1:  # a word that reads itself is not told as a link
            continue
        if score <= 0 or len(chosen) == _LINKS_OF_A_WORD or (chosen and score < _SMALL_LINK * chosen[0].score):
            break
        chosen.append(Link(layer, query, key, score))
    return chosen


def _opposed(sentence: Sentence, links: Floats, numbers: Sequence[int]) -> str:
    """Return the strongest link against the decision, if it is near the strongest one for it."""
    at = int(links.argmin())
    layer, query, key = (int(part) for part in np.unravel_index(at, links.shape))
    score = float(links[layer, query, key])
    if score >= 0 or -score < _HALF * float(links.max()):
        return ""
    reader, read = (_quoted(_word_of(token, sentence), sentence) for token in (query, key))
    text = f"{reader} read {read} in layer {numbers[layer]} ({signed(score)})"
    phrase = f'<button type="button" class="phrase" data-link="{layer},{query},{key}">{text}</button>'
    return f" The strongest link against it: {phrase}."


def _word_of(token: int, sentence: Sentence) -> int:
    return next(i for i, word in enumerate(sentence.positions) if token in word)


def _read(link: Link, sentence: Sentence, numbers: Sequence[int]) -> str:
    reader = _quoted(_word_of(link.query, sentence), sentence)
    text = f"{reader} read it in layer {numbers[link.layer]} ({signed(link.score)})"
    return f'<button type="button" class="phrase" data-link="{link.layer},{link.query},{link.key}">{text}</button>'


def _against(groups: list[_Group], sentence: Sentence) -> str:
    strongest, worst = groups[0].score, groups[-1]
    if worst.score >= 0 or -worst.score < _AGAINST * strongest:
        return f"No {sentence.noun} clearly speaks against it." if strongest > 0 else ""
    return f"Against it: {_word(worst, sentence)}."
