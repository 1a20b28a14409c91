"""Words out of their pieces: which tokens belong together, how they read, and their maps put together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from captum_attattr.explanations.schemes import CONTINUED, ENDS, INSIDE, SPACE, guessed, scheme_of

Floats = npt.NDArray[np.float64]

# Byte-level BPE writes a printable byte as its Latin-1 character, and the other bytes, in order, as the characters
# from 256 on.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {chr(256 + i): byte for i, byte in enumerate(_OTHERS)}

_BYTE = re.compile("<0x([0-9A-F]{2})>")  # a byte of SentencePiece
_NO_SPACES = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")  # Han, kana
_LONGEST = 4  # bytes of a character
PATCH = re.compile(r"patch \d+,\d+")
"""The name of a patch of a picture; a tokenizer's own tokens have no spaces."""
_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def words(tokens: Sequence[str], special: Sequence[bool], scheme: str = "") -> list[list[int]]:
    """Group the positions of tokens by word; a special token stands alone.

    Tokens that hold parts of one character are never separated. Where a script writes no spaces (Chinese, Japanese),
    each token is a word.

    Args:
        tokens: (T,) as the tokenizer has them, marks included.
        special: (T,) whether a token is special.
        scheme: of the tokenizer, one of `SCHEMES`; "" for what the tokens look like.

    Returns:
        The positions of each word's pieces.

    Example:
        >>> words(["[CLS]", "good", "film", "##s", "[SEP]"], [True, False, False, False, True], "wordpiece")
        [[0], [1], [2, 3], [4]]
    """
    scheme = scheme or guessed(tokens)
    parts = [_bytes_of(token, scheme) for token in tokens]
    groups: list[list[int]] = []
    for i in range(len(tokens)):
        if i > 0 and not special[i - 1] and not special[i] and _inside(tokens, parts, i, scheme):
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def read_words(tokens: Sequence[str], special: Sequence[bool], scheme: str = "") -> tuple[list[list[int]], list[str]]:
    """Return the words of a text: the positions of the tokens of each, and how each reads."""
    positions = words(tokens, special, scheme)
    return positions, readable([joined([tokens[i] for i in word], scheme) for word in positions], scheme)


def _inside(tokens: Sequence[str], parts: Sequence[bytes], i: int, scheme: str) -> bool:
    """Return whether a token continues the word of the one before."""
    before, token = tokens[i - 1], tokens[i]
    if PATCH.fullmatch(before) or PATCH.fullmatch(token):
        return False
    if scheme == "wordpiece":
        return token.startswith(INSIDE) and token != INSIDE
    if scheme == "continued":
        return before.endswith(CONTINUED) and before != CONTINUED
    if scheme in ("ends", "byte_ends"):
        return not before.endswith(ENDS)
    if scheme == "words":
        return False
    if parts[i][:1] and 0x80 <= parts[i][0] < 0xC0:  # goes on with a character
        return True
    first = b"".join(parts[i : i + _LONGEST]).decode(errors="replace")[:1]
    last = b"".join(parts[max(0, i - _LONGEST) : i]).decode(errors="replace")[-1:]
    if first.isspace() or last in ("\n", "\t", "\r"):
        return False
    return not (_NO_SPACES.match(first) or _NO_SPACES.match(last))


def readable(tokens: Sequence[str], scheme: str = "") -> list[str]:
    """Return tokens as a reader knows them: without the marks of words, and bytes as the text that they stand for.

    WordPiece's "##" and the "@@" of BERTweet stay. Tokens that are parts of one character read as that character with
    their number; bytes that are no character by their numbers, "<0xC3>", as SentencePiece writes them.

    Args:
        tokens: as the tokenizer has them, or words of `joined`.
        scheme: as in `words`.

    Example:
        >>> readable(["<s>", "good", "Ġfilm", "s", "</s>"], "bytes")
        ['<s>', 'good', 'film', 's', '</s>']
        >>> readable(["▁", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>"], "sentencepiece")
        [' ', '😀₁', '😀₂', '😀₃', '😀₄']
    """
    scheme = scheme or guessed(tokens)
    if scheme in ("wordpiece", "continued", "words"):
        return list(tokens)
    if scheme == "ends":
        return [token.removesuffix(ENDS) or token for token in tokens]
    return [_without_space(text) for text in _texts_of([_bytes_of(token, scheme) for token in tokens])]


def text_of(tokenizer: Any, ids: Sequence[int]) -> str:
    """Return the text of tokens together, as the tokenizer decodes it; bytes that are no character as in `readable`.

    A token may be a part of a character alone: tokenizers decode it to "\ufffd", whatever its bytes, or to nothing. One
    that the model has and the tokenizer has not is "token 553".
    """
    decoded = str(tokenizer.decode(ids))
    if decoded and "\ufffd" not in decoded:
        return decoded
    scheme, tokens = scheme_of(tokenizer), tokenizer.convert_ids_to_tokens(ids)
    parts = [_utf8(f"token {i}") if t is None else _bytes_of(t, scheme) for i, t in zip(ids, tokens, strict=True)]
    return _texts_of([b"".join(parts)])[0]


def _bytes_of(token: str, scheme: str) -> bytes:
    """Return the bytes of the text that a token stands for."""
    if scheme == "byte_ends":
        token = token.removesuffix(ENDS) or token
    if scheme in ("bytes", "byte_ends") and all(c in _BYTES for c in token):  # a special token may be anything
        return bytes(_BYTES[c] for c in token)
    if scheme == "byte_characters" and all(ord(c) < 256 for c in token):
        return bytes(map(ord, token))
    if scheme == "sentencepiece":
        pieces = _BYTE.split(token.replace(SPACE, " "))  # every other one is a byte
        return b"".join(bytes([int(p, 16)]) if i % 2 else _utf8(p) for i, p in enumerate(pieces))
    return _utf8(token)


def _utf8(text: str) -> bytes:
    """Return the bytes of a text; halves of surrogate pairs, which no bytes stand for, read as "?"."""
    return text.encode(errors="replace")


def _texts_of(parts: Sequence[bytes]) -> list[str]:
    """Return the text of each token out of the bytes of all of them."""
    data = b"".join(parts)
    owners = [i for i, part in enumerate(parts) for _ in part]
    texts = [""] * len(parts)
    position = 0
    while position < len(data):
        lead = data[position]
        length = 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        try:
            character = data[position : position + length].decode()
        except UnicodeDecodeError:
            character, length = f"<0x{lead:02X}>", 1
        its = list(dict.fromkeys(owners[position : position + length]))
        for number, owner in enumerate(its, start=1):
            texts[owner] += character + (str(number).translate(_SUBSCRIPTS) if len(its) > 1 else "")
        position += length
    return texts


def _without_space(text: str) -> str:
    """Return a text without the space before its word; spaces alone stay."""
    return text[1:] if text.startswith(" ") and text.strip(" ") else text


def joined(pieces: Sequence[str], scheme: str = "") -> str:
    """Join a word's pieces, without the marks between them; `scheme` is as in `words`."""
    scheme = scheme or guessed(pieces)
    word, *rest = pieces
    for piece in rest:
        if scheme == "continued":
            word = word.removesuffix(CONTINUED)
        word += piece.removeprefix(INSIDE) if scheme == "wordpiece" else piece
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
