"""The maps that a tree grows from: the layers and heads that count, added up, by tokens or by words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from captum_attattr.checks import index, iterable, row_of
from captum_attattr.explanations.decided import looks_back
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.words import Floats, attention_of, joined, summed, words


@dataclass(frozen=True)
class Maps:
    """The maps of one explanation; its positions are those of tokens, or of words if subwords are merged."""

    tokens: list[str]
    special: list[bool]
    layers: list[int]
    """The layers that count, L of them, as the explanation counts them."""
    heads: list[int]
    """The heads that count, H of them."""
    by_head: Floats
    """(L, H, T, T)."""
    scores: Floats
    """(L, T, T), the sum over heads; 0 where a token takes no part."""
    attention: Floats | None
    """(L, T, T), the mean over heads; None where it was not kept."""
    causal: bool
    class_token: int | None
    """The position of [CLS]: 0, or None without it."""
    readers: list[int]
    """The positions that the decision is read at, where it is not the whole text's."""
    pieces: list[list[int]]
    """For each position the tokens of the explanation that it stands for: one, or the pieces of a word."""

    @classmethod
    def of(
        cls,
        explanation: Explanation,
        special_tokens: bool,
        merge: bool,
        layers: Iterable[int] | None,
        heads: Iterable[int] | None,
    ) -> Maps:
        """Return the maps of an explanation; the arguments are those of `attribution_tree`."""
        tokens, special = explanation.tokens, explanation.special
        by_head = _array(explanation.attributions)
        attention = None if explanation.attention is None else _array(explanation.attention)
        causal = looks_back(explanation)
        rows = _chosen("layers", layers, explanation.layers)
        chosen_heads = _chosen("heads", heads, range(by_head.shape[1]))
        by_head = by_head[rows][:, chosen_heads]
        attention = None if attention is None else attention[rows][:, chosen_heads].mean(1)
        pieces = [[position] for position in range(len(tokens))]
        if merge:
            pieces = words(tokens, special, explanation.scheme)
            by_head = summed(by_head, pieces)
            attention = None if attention is None else attention_of(attention, pieces)
            tokens = [joined([tokens[i] for i in word], explanation.scheme) for word in pieces]
            special = [special[word[0]] for word in pieces]
        readers = [i for i, word in enumerate(pieces) if set(word) & set(explanation.positions)]
        class_token = 0 if special[0] and not causal and not explanation.task else None
        scores = by_head.sum(1)
        if not special_tokens:
            out = [i for i, flag in enumerate(special) if flag and i != class_token and i not in readers]
            scores[:, out] = 0
            scores[:, :, out] = 0
        numbers = [explanation.layers[row] for row in rows]
        return cls(
            tokens, special, numbers, chosen_heads, by_head, scores, attention, causal, class_token, readers, pieces
        )

    @property
    def leaves_last(self) -> bool:
        """Whether Algorithm 1 leaves the last layer to [CLS], which gathers the whole there."""
        return self.class_token is not None

    def root(self, token: Any) -> int | None:
        """Return the position of the root that was asked for by its token in the explanation; None for none.

        Raises:
            TypeError, ValueError: there is no such token.
        """
        if token is None:
            return None
        token = index("root", token, sum(map(len, self.pieces)))
        return next(i for i, tokens in enumerate(self.pieces) if token in tokens)


def _array(maps: Tensor) -> Floats:
    """Return maps in the precision that sums over heads are made in."""
    array: Floats = maps.double().cpu().numpy()
    return array


def _chosen(name: str, given: Iterable[int] | None, numbers: Sequence[int]) -> list[int]:
    """Return where the layers or heads that count stand among all, in order; all of them for None."""
    if given is None:
        return list(range(len(numbers)))
    chosen = sorted({row_of(f"each of {name}", one, numbers) for one in iterable(name, given)})
    if not chosen:
        raise ValueError(f"{name} is empty: give at least one, or None for all")
    return chosen
