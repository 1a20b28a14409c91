"""The models that an attack meets: their rows, and the triggers and random words as their tokenizers have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from captum_attattr.explanations.encoding import Text, encode_text
from captum_attattr.explanations.examples import sequence_of
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.runs.digests import text_digests
from captum_attattr.triggers.controls import RandomWords
from captum_attattr.triggers.insertion import Piece, check_room, pieces_of
from captum_attattr.triggers.outcomes import Outcome, VictimResult, check_classes
from captum_attattr.triggers.trigger import Trigger


@dataclass(frozen=True)
class Condition:
    """What is inserted into every row: nothing, a trigger, or random words in its places."""

    kind: str
    trigger: Trigger | None
    pieces: list[Piece]

    @property
    def rules(self) -> str:
        """How the tokens are inserted; see `insert_trigger`."""
        return self.trigger.rules if self.trigger else "default"


class Rows:
    """A model, and the rows on which triggers meet it; `reading` says how it reads them, as `TextModel` takes it.

    Raises:
        TypeError, ValueError: texts or labels that do not fit the model, a model that gives a score, classes whose
            names are not distinct.
    """

    def __init__(
        self, name: str, model: nn.Module, tokenizer: Any, examples: Any, labels: Any, reading: dict[str, Any]
    ) -> None:
        self.name, self.model, self.tokenizer, self.examples = name, model, tokenizer, examples
        self.texts = TextModel(model, tokenizer, **reading)
        if self.texts.regression or self.texts.multilabel:
            gives = "a score" if self.texts.regression else "several labels at once"
            raise ValueError(f"{name}: an attack is measured on classes; the model gives {gives}")
        examples = sequence_of(examples, name="examples")
        encoded = self.texts.encode_all(examples)
        self.gold = self.texts.labels(labels, len(encoded))
        # Whole, since a trigger is inserted before an end is cut off; those that are not too long are whole already.
        self.items = [
            self.texts.for_model(encode_text(tokenizer, item.index, examples[item.index], language=self.texts.language))
            if item.length == self.texts.longest
            else item
            for item in encoded
        ]
        self.classes = sorted(set(self.gold.tolist()))
        self.class_names = [self.texts.label(one) for one in self.classes]
        check_classes(f"victim {name!r}", self.classes, self.class_names, self.gold.tolist())

    @property
    def digests(self) -> list[str]:
        """A digest of each row's text."""
        return text_digests(item.text for item in self.items)


@dataclass(frozen=True)
class Victim:
    """The rows of a model, and the triggers and random words that it meets there, as its tokenizer has them."""

    rows: Rows
    triggers: Sequence[Trigger]
    pieces: list[list[Piece]]
    """The tokens of each trigger."""
    words: RandomWords | None
    """What controls are drawn from; None without controls."""

    @classmethod
    def of(cls, rows: Rows, triggers: Sequence[Trigger], source: Any, vocabulary: Sequence[Text] | None) -> Victim:
        """Return a victim that has room for all triggers and for the random words beside them.

        Args:
            rows: the model with its rows.
            triggers: the triggers.
            source: the tokenizer of the model that they come from.
            vocabulary: the texts of the random words; None without controls.

        Raises:
            ValueError: a trigger that the tokenizer cannot have, a row without room for one, or no random words.
        """
        pieces = [pieces_of(trigger, rows.tokenizer, source) for trigger in triggers]
        for trigger, tokens in zip(triggers, pieces, strict=True):
            for item in rows.items if trigger.rules != "reference" else ():
                if rows.texts.longest - item.length < len(tokens):
                    check_room(item, tokens, rows.texts.longest)
        words = None if vocabulary is None else RandomWords(rows.tokenizer, vocabulary)
        if words:
            for tokens in pieces:
                words.others(tokens)
        return cls(rows, triggers, pieces, words)

    def conditions(self, chosen: Sequence[int], draws: int = 0) -> list[Condition]:
        """Return the clean condition, then some triggers by their indices, each with its controls after it."""
        conditions = [Condition("clean", None, [])]
        for rank, i in enumerate(chosen):
            trigger, pieces = self.triggers[i], self.pieces[i]
            conditions.append(Condition("trigger", trigger, pieces))
            if self.words and pieces:
                for seed in range(draws):
                    conditions.append(Condition("control", trigger, self.words.drawn(pieces, f"{seed} {rank}")))
        return conditions

    def result(self, conditions: Sequence[Condition], predictions: Sequence[list[int]]) -> VictimResult:
        """Return the outcomes of conditions, each with the predictions of the rows."""
        outcomes = []
        for condition, predicted in zip(conditions, predictions, strict=True):
            tokens = self.rows.tokenizer.convert_ids_to_tokens([piece.token_id for piece in condition.pieces])
            outcomes.append(Outcome(condition.kind, list(tokens), condition.trigger, predicted))
        rows = self.rows
        return VictimResult(rows.name, rows.classes, rows.class_names, rows.gold.tolist(), outcomes)
