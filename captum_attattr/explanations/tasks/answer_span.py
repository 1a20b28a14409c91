"""Extractive question answering: the span of a context that answers a question.

F is P(first token) x P(last token), each a softmax over all tokens (Devlin et al., "BERT", NAACL 2019, section 4.2).
The product is the softmax over all pairs of tokens of the sum of their logits: a span is a class, first * T + last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from captum_attattr.checks import integer, scalar
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.tasks.whole_text import WholeText, all_targets

LONGEST = 30
"""Tokens of an answer that is predicted, as in BERT's and transformers' own evaluation on SQuAD."""


class Asked(NamedTuple):
    """Spans of which the model has to choose one: a text stands in the context more than once."""

    targets: list[int]
    contrasts: list[int]


class AnswerSpan(WholeText):
    """The task of a model that gives each token a logit for where an answer begins, and one for where it ends."""

    name: ClassVar[str] = "question_answering"
    several: ClassVar[bool] = True

    def read(self, output: Any, beside: Mapping[str, Tensor]) -> Tensor:
        """Return (B, T * T) the sum of two logits, for each pair of tokens.

        Raises:
            UnsupportedModelError: the model gives something else (beams, cells of a table).
        """
        begins, ends = getattr(output, "start_logits", None), getattr(output, "end_logits", None)
        logits = getattr(output, "logits", None)
        if begins is None and logits is not None and logits.dim() == 3 and logits.shape[-1] == 2:
            begins, ends = logits.unbind(-1)
        if begins is None or ends is None:
            raise UnsupportedModelError(
                f"{type(self.texts.model).__name__} gives no start_logits and end_logits: answers by other means than "
                "two logits for each token are not explained"
            )
        pairs: Tensor = begins[:, :, None] + ends[:, None, :]
        return pairs.flatten(1)

    def foresee(self, target: Any, contrast: Any) -> None:
        """Check nothing: an answer stands in a context or not."""

    def decisions(self, item: Encoded, target: Any, contrast: Any) -> list[Encoded]:
        """Return the pair of question and context once for each answer.

        An answer is a string that stands in the context, or a tuple of its first and last token, special ones counted.
        Of a string that stands there more than once, the place that the model finds most probable is taken.

        Raises:
            TypeError, ValueError: no pair, or an answer that is not in the context.
        """
        if not any(self._context(item)):
            raise ValueError(
                f"texts[{item.index}] has no context: question answering takes (question, context) pairs, got "
                f"{item.text!r:.100}"
            )
        contrasts = [] if contrast is None else self._spans(item, contrast, "contrast")
        found = []
        for each in all_targets(item.index, target):
            targets = [] if each is None else self._spans(item, each, "target")
            if len(targets) == len(contrasts) == 1 and targets == contrasts:
                raise ValueError(f"contrast {contrast!r} of texts[{item.index}] is its target: another is needed")
            one = replace(item, target=targets[0] if len(targets) == 1 else None)
            if len(targets) > 1 or len(contrasts) > 1:
                one = replace(one, asked=Asked(targets, contrasts))
            found.append(replace(one, contrast=contrasts[0] if contrasts else None))
        return found

    def undecided(self, item: Encoded) -> bool:
        """Return whether the model has to run before it is known which answer is explained."""
        return item.asked is not None or item.target is None

    def decided(self, item: Encoded, output: Any) -> list[Encoded]:
        """Return the text with the most probable of the spans that were asked for, or of all."""
        logits = self.read(output, {})[0]
        targets, contrasts = item.asked or Asked([], [])
        if contrasts:
            item = replace(item, contrast=_best(contrasts, logits))
        target = item.target
        if target is None:
            target = _best(targets, logits) if targets else self.predicted([item], logits[None])[0]
        return [self.against(item, target)]

    def predicted(self, items: Sequence[Encoded], values: Tensor) -> list[int]:
        """Return the best span of each context: its last token not before its first, at most 30 tokens."""
        length = items[0].length
        upper = torch.ones(length, length, dtype=torch.bool).triu().tril(LONGEST - 1)
        inside = torch.tensor([self._context(item) for item in items])
        allowed = (upper & inside[:, :, None] & inside[:, None, :]).flatten(1).to(values.device)
        return super().predicted(items, values.masked_fill(~allowed, -torch.inf))

    def label(self, item: Encoded, target: int) -> str:
        """Return the answer's text, as the context has it where the tokenizer tells that."""
        first, last = self.positions(item, target)
        if item.offsets and not item.special[first]:
            return self._text(item)[item.offsets[first][0] : item.offsets[last][1]]
        return str(self.texts.tokenizer.decode(item.ids[first : last + 1])).strip()

    def positions(self, item: Encoded, target: int) -> list[int]:
        """Return the answer's first and last token."""
        return list(divmod(target, item.length))

    def count(self, length: int) -> int:
        """Return T * T."""
        return length**2

    @staticmethod
    def _context(item: Encoded) -> list[bool]:
        """Return (T,) whether a token is of the context."""
        return [part == 1 and not special for part, special in zip(item.segments, item.special, strict=True)]

    @staticmethod
    def _text(item: Encoded) -> str:
        """Return the context."""
        return item.text if isinstance(item.text, str) else item.text[1]

    def _spans(self, item: Encoded, given: Any, what: str) -> list[int]:
        """Return the spans that an answer names.

        Raises:
            TypeError, ValueError: none.
        """
        given = scalar(given)
        if isinstance(given, str):
            places = self._places(item, given) if given.strip() else []
            if not places:
                raise ValueError(
                    f"{what} {given!r:.100} of texts[{item.index}] is an answer that is not in the context (which "
                    f"counts upper and lower case): {self._text(item)!r:.200}{self.cut}"
                )
            return [first * item.length + last for first, last in places]
        pair = [integer(part) for part in given] if isinstance(given, tuple | list) else []
        positions = [part for part in pair if part is not None]
        if len(pair) != 2 or len(positions) != 2:
            raise TypeError(
                f"{what} {given!r:.100} of texts[{item.index}] must be an answer: a string that stands in the context, "
                "or (first token, last token)"
            )
        first, last = positions
        context = self._context(item)
        inside = 0 <= first <= last < item.length and all(context[first : last + 1])
        if not inside and not (first == last == self._none(item)):
            words = [i for i, one in enumerate(context) if one]
            raise ValueError(
                f"{what} {given!r} of texts[{item.index}] is an answer that is not in the context, which has the "
                f"tokens {words[0]} to {words[-1]}"
            )
        return [first * item.length + last]

    def _none(self, item: Encoded) -> int:
        """Return the position that stands for no answer, [CLS] (SQuAD 2.0); -1 where there is none."""
        token = getattr(self.texts.tokenizer, "cls_token_id", None)
        return item.ids.index(token) if token in item.ids else -1

    def _places(self, item: Encoded, answer: str) -> list[tuple[int, int]]:
        """Return the first and last token of an answer, wherever it stands in the context."""
        context = [i for i, one in enumerate(self._context(item)) if one]
        if not item.offsets:
            return self._among_ids(item, answer, context)
        found = []
        answer = answer.strip()
        for begin in _occurrences(self._text(item), answer):
            end = begin + len(answer)
            tokens = [i for i in context if item.offsets[i][0] < end and item.offsets[i][1] > begin]
            if tokens and item.offsets[tokens[0]][0] <= begin and item.offsets[tokens[-1]][1] >= end:
                found.append((tokens[0], tokens[-1]))
        return list(dict.fromkeys(found))

    def _among_ids(self, item: Encoded, answer: str, context: list[int]) -> list[tuple[int, int]]:
        """Return where the tokens that an answer makes stand: of a tokenizer that does not tell where tokens begin."""
        tokenizer, ids = self.texts.tokenizer, item.ids
        found = []
        for text in dict.fromkeys((answer, f" {answer.strip()}", answer.strip())):
            wanted = list(tokenizer(text, add_special_tokens=False)["input_ids"])
            for i in context:
                last = i + len(wanted) - 1
                if wanted and last in context and ids[i : last + 1] == wanted:
                    found.append((i, last))
        return list(dict.fromkeys(found))


def _occurrences(text: str, part: str) -> Iterator[int]:
    """Yield where a text has a part."""
    at = text.find(part)
    while at >= 0:
        yield at
        at = text.find(part, at + 1)


def _best(targets: list[int], logits: Tensor) -> int:
    """Return the target of the largest logit."""
    return targets[int(logits[targets].argmax())]
