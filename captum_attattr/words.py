"""Words out of their pieces: which tokens belong together, and their maps put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# How tokenizers mark words. WordPiece and BERTweet's BPE mark the pieces inside, others where a word begins or ends.
_CONTINUES, _GOES_ON = "##", "@@"
_BEGINS = ("Ġ", "▁")  # a space before: byte-level BPE, SentencePiece
_WHITE = ("Ċ", "ĉ", "č")  # line feed, tab and carriage return of byte-level BPE
_ENDS = "</w>"  # CLIP, XLM, FlauBERT, BioGPT


def words(tokens: Sequence[str], special: Sequence[bool]) -> list[list[int]]:
    """The positions of each word's pieces; a special token stands alone.

    Args:
        tokens: (T,) as the tokenizer has them, marks included.
        special: (T,).
    """
    ends, begins = any(token.endswith(_ENDS) for token in tokens), any(token.startswith(_BEGINS) for token in tokens)

    def inside(before: str, token: str) -> bool:
        if token.startswith(_CONTINUES) or before.endswith(_GOES_ON):
            return True
        if ends:
            return not before.endswith(_ENDS)
        return begins and not token.startswith((*_BEGINS, *_WHITE)) and not before.endswith(_WHITE)

    found: list[list[int]] = []
    for i, token in enumerate(tokens):
        if i > 0 and not special[i - 1] and not special[i] and inside(tokens[i - 1], token):
            found[-1].append(i)
        else:
            found.append([i])
    return found


def joined(pieces: Sequence[str]) -> str:
    """A word of its pieces, without the marks between them."""
    first, *rest = pieces
    for piece in rest:
        first = first.removesuffix(_GOES_ON) + piece.removeprefix(_CONTINUES)
    return first


def summed(maps: Floats, positions: Sequence[Sequence[int]]) -> Floats:
    """Maps (..., T, T) of pieces as maps of words: what the pieces have adds up."""
    starts = [group[0] for group in positions]
    found: Floats = np.add.reduceat(np.add.reduceat(maps, starts, -1), starts, -2)
    return found


def attention_of(maps: Floats, positions: Sequence[Sequence[int]]) -> Floats:
    """Attention (..., T, T) of words: the sum over a word's keys, the mean over its queries; rows add up to 1."""
    found: Floats = summed(maps, positions) / np.array([len(group) for group in positions])[:, None]
    return found
