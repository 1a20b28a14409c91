"""A text whose words are tinted by their scores, as HTML that reads as the text does."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.token_scores import TokenScores
from captum_attattr.explanations.words import read_words
from captum_attattr.formatting import signed, visible
from captum_attattr.plots.canvas.labels import right_to_left

Floats = npt.NDArray[np.float64]

_FAINTEST = 0.04  # of the largest score: below it a word has no tint
_LONG = 80  # words, from which a text is set smaller
_NAMED, _NAME = 3, 16  # special tokens that are named, and characters of such a name


class Sentence(NamedTuple):
    """The words of an explanation. W words, T tokens."""

    words: list[str]
    positions: list[list[int]]
    """the tokens of each word"""
    special: list[bool]
    segments: list[int]
    scores: Floats
    """(L + 1, W) by layer; the last row is that of all layers: their mean, on the joint path their sum"""
    noun: str = "word"
    """what one of them is called"""

    @classmethod
    def of(cls, explanation: Explanation | TokenScores) -> Sentence:
        """Put the tokens of an explanation together as words, and add up their scores."""
        positions, texts = read_words(explanation.tokens, explanation.special, explanation.scheme)
        rows = [*map(explanation.token_scores, explanation.layers), explanation.token_scores()]
        tokens = np.stack([row.double().numpy(force=True) for row in rows])
        return cls(
            texts,
            positions,
            [explanation.special[word[0]] for word in positions],
            [explanation.segments[word[0]] for word in positions],
            np.stack([tokens[:, word].sum(1) for word in positions], 1),
            getattr(explanation, "noun", "word"),
        )

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Sentence:
        """Return the words of a page, whose fields are JSON."""
        return cls(**{**fields, "scores": np.array(fields["scores"])})

    @property
    def nouns(self) -> str:
        """What several of them are called."""
        return self.noun + ("es" if self.noun.endswith("ch") else "s")

    def largest_of(self, row: int = -1) -> float:
        """Return the largest score of a word in a row, in size; 1 where all are 0."""
        return float(np.abs(self.scores[row]).max()) or 1.0

    @property
    def framed(self) -> list[str]:
        """The special tokens, which have a frame."""
        return [word for word, special in zip(self.words, self.special, strict=True) if special]

    @property
    def right_to_left(self) -> bool:
        """Whether most letters of the text are of a script that runs to the left."""
        return right_to_left(word for word, special in zip(self.words, self.special, strict=True) if not special)


def shown(text: str) -> str:
    """Return the whole of a text from data, with what would act spelt out; not escaped for HTML."""
    return visible(text, 6 * len(text) + 1)  # "\\u202e" is the longest that a character becomes


def tint(score: float, largest: float) -> str:
    """Return the style of a word: its share of the largest score, and the sign."""
    share = min(abs(score) / largest, 1.0)
    if share < _FAINTEST:
        return ""
    return f"--share:{share:.3f};--tint:var(--{'for' if score > 0 else 'against'})"


def sentence_html(sentence: Sentence, row: int = -1) -> str:
    """Return the words as spans, with real spaces between, so that the text can be copied.

    Args:
        sentence: the words.
        row: that of the scores which tint them; the last one is that of all layers together.
    """
    scores, largest = sentence.scores[row], sentence.largest_of(row)
    parts: list[str] = []
    for i, (word, special, segment) in enumerate(zip(sentence.words, sentence.special, sentence.segments, strict=True)):
        if i and segment != sentence.segments[i - 1] and not special:
            parts.append('<span class="divider" aria-label="second text">‖</span>')
        kind = "word special" if special else "word"
        told = html.escape(f"{shown(word)}: {signed(float(scores[i]))}", quote=True)
        style = tint(float(scores[i]), largest)
        parts.append(
            f'<span class="{kind}" data-word="{i}" style="{style}" title="{told}">'
            f"<bdi>{html.escape(shown(word))}</bdi></span>"
        )
    direction = ' dir="rtl"' if sentence.right_to_left else ""
    kind = "sentence long" if len(sentence.words) > _LONG else "sentence"
    return f'<p class="{kind}"{direction}>{" ".join(parts)}</p>'


def scale_html(largest: float, output: str, note: str = "") -> str:
    """Return the legend of the tints: from against to for, in points of the output; `note` is of `special_note`."""
    end = f"{largest:.3g}"
    return (
        f'<p class="scale"><span>against −{end}</span><span class="ramp" aria-hidden="true"></span>'
        f"<span>+{end} for, in points of the {html.escape(output)}</span>{note}</p>"
    )


def special_note(names: Iterable[str], reader: str = "") -> str:
    """Return an element that says what framed tokens are; "" where there are none.

    Args:
        names: of the special tokens, as often as they stand there.
        reader: the one where the decision is read; "" if it is read elsewhere.
    """
    every = [f"<bdi>{html.escape(visible(name, _NAME))}</bdi>" for name in dict.fromkeys(names)]
    if not every:
        return ""
    told = ", ".join(every[:_NAMED]) + ", …" * (len(every) > _NAMED)
    where = f"; the decision is read at <bdi>{html.escape(visible(reader, _NAME))}</bdi>" if reader else ""
    return f'<span class="framed">In frames: special tokens ({told}), added to what was given{where}.</span>'


def words_json(sentence: Sentence) -> dict[str, Any]:
    """Return the words as scripts read them; scores in four digits."""
    return {
        "words": [shown(word) for word in sentence.words],
        "positions": sentence.positions,
        "special": sentence.special,
        "scores": [[float(f"{score:.4g}") for score in row] for row in sentence.scores],
    }


def layer_menu(rows: Sequence[Mapping[str, Any]], layer: int | None) -> str:
    """Return the HTML of a menu of the layers that all rows have; `layer` is chosen, None for all together."""
    layers = [each for each in rows[0]["layers"] if all(each in row["layers"] for row in rows)]
    whole = "sum over layers" if all(row["joint"] for row in rows) else "all layers"
    options = "".join(
        f'<option value="{each}"{" selected" if each == layer else ""}>layer {each}</option>' for each in layers
    )
    return f'<label>scores of <select id="layer"><option value="">{whole}</option>{options}</select></label>'
