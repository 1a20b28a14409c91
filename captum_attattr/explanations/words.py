"""Words out of their pieces: which tokens belong together, and their maps put together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# How tokenizers mark words: the pieces inside a word, or where a word begins or ends.
_INSIDE = "##"  # before a piece that continues a word: WordPiece
_CONTINUED = "@@"  # after a piece that the next one continues: BERTweet
_BEGINS = ("Ġ", "▁")  # a space before: byte-level BPE, SentencePiece
_WHITE = ("Ċ", "ĉ", "č")  # line feed, tab and carriage return of byte-level BPE
_ENDS = "</w>"  # CLIP, XLM, FlauBERT, BioGPT

# Byte-level BPE writes a printable byte as its Latin-1 character, and the other bytes, in order, as the characters
# from 256 on.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(_OTHERS)}


def words(tokens: Sequence[str], special: Sequence[bool]) -> list[list[int]]:
    """Group the positions of tokens by word; a special token stands alone.

    Args:
        tokens: (T,) as the tokenizer has them, marks included.
        special: (T,) whether a token is special.

    Returns:
        The positions of each word's pieces.

    Example:
        >>> words(["[CLS]", "good", "film", "##s", "[SEP]"], [True, False, False, False, True])
        [[0], [1], [2, 3], [4]]
    """
    ends, begins = any(token.endswith(_ENDS) for token in tokens), any(token.startswith(_BEGINS) for token in tokens)

    def inside(before: str, token: str) -> bool:
        if token.startswith(_INSIDE) or before.endswith(_CONTINUED):
            return True
        if ends:
            return not before.endswith(_ENDS)
        return begins and not token.startswith((*_BEGINS, *_WHITE)) and not before.endswith(_WHITE)

    groups: list[list[int]] = []
    for i, token in enumerate(tokens):
        if i > 0 and not special[i - 1] and not special[i] and inside(tokens[i - 1], token):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def readable(tokens: Sequence[str]) -> list[str]:
    """Return tokens as a reader knows them: without the marks of words, and the bytes of byte-level BPE as text.

    WordPiece's "##" stays. A token that is part of a character is "\ufffd".

    Example:
        >>> readable(["<s>", "good", "Ġfilm", "s", "</s>"])
        ['<s>', 'good', 'film', 's', '</s>']
    """
    if any(token.startswith(_INSIDE) for token in tokens):
        return list(tokens)
    if any(token.startswith(_BEGINS[0]) for token in tokens):
        return [_without_space(_text_of_bytes(token)) for token in tokens]
    if any(token.startswith(_BEGINS[1]) for token in tokens):
        return [_without_space(token.replace(_BEGINS[1], " ")) for token in tokens]
    if any(token.endswith(_ENDS) for token in tokens):
        return [token.removesuffix(_ENDS) or token for token in tokens]
    return list(tokens)


def _text_of_bytes(token: str) -> str:
    """Return the text that a token of byte-level BPE stands for."""
    if not all(c in _BYTES for c in token):  # a special token may be anything
        return token
    return bytes(_BYTES[c] for c in token).decode("utf-8", errors="replace")


def _without_space(text: str) -> str:
    """Return a text without the space before its word; spaces alone stay."""
    return text[1:] if text.startswith(" ") and text.strip(" ") else text


def joined(pieces: Sequence[str]) -> str:
    """Join a word's pieces, without the marks between them."""
    word, *rest = pieces
    for piece in rest:
        word = word.removesuffix(_CONTINUED) + piece.removeprefix(_INSIDE)
    return word


def summed(maps: Floats, positions: Sequence[Sequence[int]]) -> Floats:
    """Return maps (..., W, W) of words out of maps (..., T, T) of pieces, as sums over their pieces."""
    starts = [group[0] for group in positions]
    sums: Floats = np.add.reduceat(np.add.reduceat(maps, starts, -1), starts, -2)
    return sums


def attention_of(maps: Floats, positions: Sequence[Sequence[int]]) -> Floats:
    """Return the attention (..., W, W) of words: sums over a word's keys, means over its queries; rows add up to 1."""
    attention: Floats = summed(maps, positions) / np.array([len(group) for group in positions])[:, None]
    return attention
