"""Decisions that are read at one token of a text, whose position goes with the model's inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from captum_attattr.checks import integer
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.tasks.whole_text import POSITION, WholeText, all_targets


class AtToken(WholeText):
    """A task whose F is one of the C outputs of a token.

    Attributes:
        every: the target that asks for all decisions about a text.
        form: how a target is written, for errors.
    """

    reads_one: ClassVar[bool] = True
    several: ClassVar[bool] = True
    every: ClassVar[str]
    form: ClassVar[str]

    def read(self, output: Any, beside: Mapping[str, Tensor]) -> Tensor:
        """Return (B, C) the logits of one token of each example."""
        logits: Tensor = output.logits
        rows = torch.arange(len(logits), device=logits.device)
        return logits[rows, beside[POSITION][:, 0].to(logits.device)]

    def foresee(self, target: Any, contrast: Any) -> None:
        """Check what can be known of a contrast without a text."""
        self.texts.target(0, contrast, "contrast")

    def decisions(self, item: Encoded, target: Any, contrast: Any) -> list[Encoded]:
        """Return a text once for each target: (token index, name or number), None for what the model decides."""
        against = self.texts.target(item.index, contrast, "contrast")
        places = self.places(item)
        found = []
        for each in all_targets(item.index, target):
            if isinstance(each, str) and each == self.every:
                found += self.all_of(item, places)
                continue
            one = self.one(item, each, places)
            if against is not None and one.target == against:
                raise ValueError(
                    f"contrast {contrast!r} of texts[{item.index}] is its target, {against}: another is needed"
                )
            found.append(one)
        return [replace(one, contrast=against) for one in found]

    def undecided(self, item: Encoded) -> bool:
        """Return whether the model has to run before it is known which decision is explained."""
        return item.asked is not None or item.target is None

    def decided(self, item: Encoded, output: Any) -> list[Encoded]:
        """Return a text with what the model decides about its token; of `asked`, see the tasks."""
        logits = output.logits[0]
        return [self.against(item, int(logits[item.position].argmax()))]

    def positions(self, item: Encoded, target: int) -> list[int]:
        """Return the token's position."""
        return [] if item.position is None else [item.position]

    def places(self, item: Encoded) -> list[int]:
        """Return the positions that a decision of a text may be about.

        Raises:
            ValueError: there is none.
        """
        return [i for i, special in enumerate(item.special) if not special]

    def all_of(self, item: Encoded, places: Sequence[int]) -> list[Encoded]:
        """Return a text once for each decision about it, as far as these are known without the model."""
        raise NotImplementedError

    def one(self, item: Encoded, target: Any, places: Sequence[int]) -> Encoded:
        """Return a text with one target that was asked for.

        Raises:
            TypeError, ValueError: the model or the text does not have it.
        """
        pair = tuple(target) if isinstance(target, tuple) else ()
        position = integer(pair[0]) if len(pair) == 2 else None
        if position is None:
            raise TypeError(f"target {target!r:.100} of texts[{item.index}] must be {self.form}")
        if position not in places:
            raise ValueError(self.misplaced(item, position, places))
        return replace(item, position=position, target=self.texts.target(item.index, pair[1]))

    def misplaced(self, item: Encoded, position: int, places: Sequence[int]) -> str:
        """Return the message about a position that no decision is about."""
        where = f"token {position} of texts[{item.index}]"
        if not 0 <= position < item.length:
            tokens = f"{places[0]} to {places[-1]}, special ones counted"
            return f"{where} is beyond the text, whose tokens are {tokens}{self.cut}"
        token = self.texts.tokenizer.convert_ids_to_tokens(item.ids)[position]
        return f"{where} is the special token {token!r}; those of the text are {places[0]} to {places[-1]}"
