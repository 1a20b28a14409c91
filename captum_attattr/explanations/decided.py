"""How a decision is told: what its label is, of which word, and which tokens it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from captum_attattr.explanations.words import read_words
from captum_attattr.notebooks import Shown

SIDES = ("first", "second")
"""Texts of a pair that are compared."""


class Telling(NamedTuple):
    """The words around a label: answer "Paris" (tokens 7 to 8).

    Attributes:
        kind: what the label is; "" for a class or a next token.
        word: of which word it is the label; "" where that is not one word.
        place: which tokens the decision is about; "target 3", the number of the label, where it is the whole text.
    """

    kind: str
    word: str
    place: str

    @classmethod
    def of(cls, explained: Mapping[str, Any]) -> Telling:
        """Return the words for the decision of an explanation, whose fields these are, or of a tree's attributes."""
        if stored := explained.get("telling"):
            return cls(*stored)
        if explained.get("task") == "question_answering":
            first, last = explained["positions"]
            return cls("answer", "", f"token {first}" if first == last else f"tokens {first} to {last}")
        if explained.get("task") == "token_classification":
            (at,) = explained["positions"]
            groups, texts = read_words(*(explained[name] for name in ("tokens", "special", "scheme")))
            word = next(text for group, text in zip(groups, texts, strict=True) if at in group)
            return cls("entity", word, f"token {at}")
        if explained.get("task") == "masked_lm":
            return cls("word", "", f"mask at token {explained['positions'][0]}")
        if explained.get("task") == "similarity":
            return cls("similarity to", "", f"of the {SIDES[explained['segments'][0]]} text")
        return cls("", "", f"target {explained['target']}")

    def around(self, label: str, quoted: Callable[[str], str] = str) -> str:
        """Return a label within its words, without the place; `quoted` makes of the word what stands there."""
        of = f"of {quoted(self.word)}" if self.word else ""
        return " ".join(filter(None, [self.kind, label, of]))


class Decided(Shown):
    """A result about one decision on one text."""

    label: str
    task: str
    positions: Sequence[int]

    @property
    def telling(self) -> Telling:
        """The words around its label."""
        return Telling.of(vars(self))

    def decision(self, quoted: Callable[[str], str] = str) -> str:
        """Return the decision in words; `quoted` makes of label and word what stands there."""
        return self.telling.around(quoted(self.label), quoted)


def looks_back(explanation: Any) -> bool:
    """Return whether no token of an explanation reads a later one, as in a decoder, which decides at the last token."""
    # Attention alone does not tell: the published files may lack it, or the attributions may be of one layer.
    maps = [part for part in (explanation.attributions, explanation.attention) if part is not None]
    return len(explanation.tokens) > 1 and not any(bool(part.triu(1).any()) for part in maps)
