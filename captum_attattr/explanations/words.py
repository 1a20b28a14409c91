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

# Byte-level BPE writes a byte as the Latin-1 character of its number where that can be seen, and the others, from 0
# on, as the characters from 256 on.
_SEEN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_UNSEEN = [byte for byte in range(256) if byte not in _SEEN]
_BYTES = {chr(byte): byte for byte in _SEEN} | {chr(256 + i): byte for i, byte in enumerate(_UNSEEN)}


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


def readable(tokens: Sequence[str]) -> list[str]:
    """Tokens as a reader knows them: without the marks of words, and the bytes of byte-level BPE as text.

    What begins inside a word keeps WordPiece's "##". Part of a character, which has no text of its own, is "\ufffd".
    """
    if any(token.startswith(_CONTINUES) for token in tokens):
        return list(tokens)
    if any(token.startswith(_BEGINS[0]) for token in tokens):
        return [_without_space(_text_of_bytes(token)) for token in tokens]
    if any(token.startswith(_BEGINS[1]) for token in tokens):
        return [_without_space(token.replace(_BEGINS[1], " ")) for token in tokens]
    if any(token.endswith(_ENDS) for token in tokens):
        return [token.removesuffix(_ENDS) or token for token in tokens]
    return list(tokens)


def _text_of_bytes(token: str) -> str:
    if not all(c in _BYTES for c in token):  # a special token may be anything
        return token
    return bytes(_BYTES[c] for c in token).decode("utf-8", errors="replace")


def _without_space(text: str) -> str:
    """Without the space before a word; spaces alone stay."""
    return text[1:] if text.startswith(" ") and text.strip(" ") else text


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
