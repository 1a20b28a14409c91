"""Token classification: the label of a token, such as that of a named entity; F is the token's probability of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.tasks.at_token import AtToken
from captum_attattr.explanations.words import words

OUTSIDE = ("O", "OUTSIDE")
"""Names, in upper case, of the label of a token that is of no entity."""


class EntityTag(AtToken):
    """The task of a model that gives each token a logit for each label.

    An entity is a run of words whose labels are of one type: of the same name behind "B-", "I-" and the like, and no
    "B-" within. A word is labelled by its first token.
    """

    name: ClassVar[str] = "token_classification"
    every: ClassVar[str] = "all entities"
    form: ClassVar[str] = "(token index, label), 'all entities', or None for the strongest one"

    def all_of(self, item: Encoded, places: Sequence[int]) -> list[Encoded]:
        """Return the text, to be decided by the model's output."""
        return [replace(item, asked=self.every)]

    def one(self, item: Encoded, target: Any, places: Sequence[int]) -> Encoded:
        """Return a text with one target that was asked for; of None, to be decided by the model's output."""
        return replace(item, asked="strongest") if target is None else super().one(item, target, places)

    def decided(self, item: Encoded, output: Any) -> list[Encoded]:
        """Return a text with its strongest entity, or once for each of its entities, at the entity's first token.

        The strongest is the label, other than "O", of the highest probability; among those that are their word's
        prediction, where there are such.
        """
        if item.asked is None:
            return super().decided(item, output)
        likely = output.logits[0].float().softmax(-1).cpu()
        predicted = likely.argmax(-1)
        inside = torch.tensor([self.texts.label(i).upper() not in OUTSIDE for i in range(likely.shape[-1])])
        begins = self._begins(item)
        if item.asked == self.every:
            return [
                self.against(replace(item, position=i), int(predicted[i]))
                for i in self._entities(predicted, inside, begins)
            ]
        if not inside.any():
            raise ValueError(f"texts[{item.index}] has no entity: the model has no label but {self.texts.label(0)!r}")
        rank = likely + torch.nn.functional.one_hot(predicted, likely.shape[-1])
        rank = rank.masked_fill(~inside, -1)[begins]
        word, label = divmod(int(rank.argmax()), likely.shape[-1])
        return [self.against(replace(item, position=begins[word]), label)]

    def _begins(self, item: Encoded) -> list[int]:
        """Return the first token of each word."""
        tokens = self.texts.tokenizer.convert_ids_to_tokens(item.ids)
        return [word[0] for word in words(tokens, item.special, self.texts.scheme) if not item.special[word[0]]]

    def _entities(self, predicted: Tensor, inside: Tensor, begins: Sequence[int]) -> list[int]:
        """Return the first token of each entity."""
        found, before = [], ""
        for i in begins:
            name = self.texts.label(int(predicted[i])) if inside[predicted[i]] else ""
            mark, _, kind = name.rpartition("-")
            if name and (kind != before or mark.upper() in ("B", "S", "U")):
                found.append(i)
            before = kind
        return found
