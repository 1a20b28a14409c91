"""Masked language models: the word at a mask; F is the probability of the token there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

from captum_attattr.checks import integer, scalar
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.tasks.at_token import AtToken


class MaskedWord(AtToken):
    """The task of a model that gives each token, of which some are masks, a logit for each token of its vocabulary."""

    name: ClassVar[str] = "masked_lm"
    every: ClassVar[str] = "all masks"
    form: ClassVar[str] = (
        "a word or token id for the first mask, (token index of a mask, word or id), 'all masks', or None for what the "
        "model puts at the first mask"
    )

    def places(self, item: Encoded) -> list[int]:
        """Return where the masks are.

        Raises:
            ValueError: the text has none.
        """
        mask = getattr(self.texts.tokenizer, "mask_token_id", None)
        if mask is None:
            raise ValueError("the tokenizer has no mask token, which masked language models need: set mask_token")
        found = [i for i, token in enumerate(item.ids) if token == mask]
        if not found:
            raise ValueError(
                f"texts[{item.index}] has no mask: put {self.texts.tokenizer.mask_token!r} where the model is to tell "
                f"the word in {item.text!r:.200}{self.cut}"
            )
        return found

    def all_of(self, item: Encoded, places: Sequence[int]) -> list[Encoded]:
        """Return the text once for each mask."""
        return [replace(item, position=position) for position in places]

    def one(self, item: Encoded, target: Any, places: Sequence[int]) -> Encoded:
        """Return a text with one target that was asked for; of a word alone, at the first mask."""
        given = scalar(target)
        if given is None or isinstance(given, str) or integer(given) is not None:
            return super().one(item, (places[0], given), places)
        return super().one(item, target, places)

    def misplaced(self, item: Encoded, position: int, places: Sequence[int]) -> str:
        """Return the message about a position that has no mask."""
        where = f"token {position} of texts[{item.index}]"
        told = f"its masks are the tokens {', '.join(map(str, places))}, special ones counted"
        if not 0 <= position < item.length:
            return f"{where} is beyond the text; {told}{self.cut}"
        token = self.texts.tokenizer.convert_ids_to_tokens(item.ids)[position]
        return f"{where} is {token!r}, which is no mask; {told}"
