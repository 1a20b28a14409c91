"""Random words, the controls of triggers: drawn from the tokens of some texts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from captum_attattr.explanations.encoding import Text, encode_text
from captum_attattr.explanations.special_tokens import special_ids
from captum_attattr.triggers.insertion import Piece


class RandomWords:
    """The distinct tokens of some texts, by kind: beginnings of words, and the pieces that follow.

    Args:
        tokenizer: it makes the tokens, and its special ones are left out.
        texts: texts or pairs.

    Raises:
        ValueError: there is no text.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[Text]) -> None:
        self.tokenizer = tokenizer
        if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
            raise ValueError("vocabulary must be a list of texts, at least one")
        distinct: set[int] = set()
        for i, text in enumerate(texts):
            item = encode_text(tokenizer, i, text)
            distinct.update(t for t, special in zip(item.ids, item.special, strict=True) if not special)
        self.by_kind: dict[tuple[bool, bool], list[int]] = {}
        for token_id in sorted(distinct - special_ids(tokenizer)):
            self.by_kind.setdefault(self._kind(token_id), []).append(token_id)

    def _kind(self, token_id: int) -> tuple[bool, bool]:
        """Return what a token's marks say: whether it continues a word, and whether it begins one."""
        token = str(self.tokenizer.convert_ids_to_tokens(token_id))
        return token.startswith("##"), token.startswith(("Ġ", "▁"))

    def others(self, pieces: Sequence[Piece]) -> list[int]:
        """Return the tokens that a trigger does not have.

        Raises:
            ValueError: there is none.
        """
        taken = {piece.token_id for piece in pieces}
        others = [token_id for ids in self.by_kind.values() for token_id in ids if token_id not in taken]
        if not others:
            raise ValueError("vocabulary holds no token beside the trigger's; give more texts")
        return others

    def drawn(self, pieces: Sequence[Piece], seed: str) -> list[Piece]:
        """Return random tokens in place of a trigger's, each of the same kind if there is one."""
        draw, others, taken = random.Random(seed), self.others(pieces), {piece.token_id for piece in pieces}
        fresh = []
        for piece in pieces:
            alike = [token_id for token_id in self.by_kind.get(self._kind(piece.token_id), []) if token_id not in taken]
            fresh.append(piece._replace(token_id=draw.choice(alike or others)))
        return fresh
