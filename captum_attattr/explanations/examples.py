"""What users call a text: texts, pairs, conversations, token ids, encodings, words; and lists of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from captum_attattr import checks
from captum_attattr.checks import integer

Text = str | tuple[str, str]
"""A text, or a pair such as (premise, hypothesis)."""

Example = Text | Sequence[Mapping[str, Any]] | Sequence[int] | Sequence[str] | Mapping[str, Any] | Tensor
"""A text or pair; a conversation (messages with "role" and "content"); token ids; an encoding; words."""

Texts = Iterable[Example] | Example
"""What `explain` takes: examples, or one alone."""

_OF_TOKENS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
"""Entries of an encoding that have a value for each token; the model's output depends on them."""

_NO_TEXT = ("inputs_embeds", "pixel_values", "pixel_values_videos", "input_features", "input_values")
"""Entries of an encoding that models take beside token ids, or instead of them."""


class Row(dict[str, Any]):
    """One text's row of an encoding: lists of T integers by name, and what `rows_of` adds."""


def is_encoding(given: Any) -> bool:
    """Return whether something is what a tokenizer returns: values by name, with the token ids."""
    return isinstance(given, Mapping) and "input_ids" in given


def is_message(given: Any) -> bool:
    """Return whether something is a message of a conversation."""
    return isinstance(given, Mapping) and "role" in given


def sequence_of(texts: Any, split_into_words: bool = False, name: str = "texts") -> Sequence[Any]:
    """Return examples as a sequence; one example alone as a sequence of one.

    A list is understood by its first entry: a message makes it one conversation, an integer one list of token ids,
    a string one list of words if texts are split into words. A sequence of examples is returned as it is, and read
    entry by entry; any other iterable is read whole.

    Args:
        texts: examples, or one alone.
        split_into_words: whether texts are lists of words.
        name: of the argument, for errors.

    Raises:
        TypeError: nothing that can be read, or a tuple of two strings (or of two texts' words), which could be a pair
            or two texts.
        ValueError: there is no example.
    """
    if isinstance(texts, Tensor | np.ndarray):
        texts = texts.tolist() if texts.ndim else [texts.item()]
    if isinstance(texts, str):
        return [texts]
    if is_encoding(texts):
        return rows_of(texts, name)
    if is_message(texts):
        raise TypeError(f"{name} is one message: use [message] for a conversation of one")
    if isinstance(texts, Mapping):
        raise _neither(name, texts)
    if hasattr(texts, "columns"):
        raise TypeError(
            f"{name} is a table ({type(texts).__name__}): give its column of texts, or pairs of two columns"
        )
    if isinstance(texts, bytes) or not isinstance(texts, Iterable):
        raise TypeError(f"{name} must be a list of texts or of pairs, got {type(texts).__name__}; use [text]")
    entries = texts if isinstance(texts, Sequence) else list(texts)
    if not len(entries):
        raise ValueError(f"{name} is empty: give at least one text or pair")
    first = entries[0]
    if isinstance(texts, tuple) and len(texts) == 2 and all(_is_part(entry, split_into_words) for entry in texts):
        kind = "strings" if isinstance(first, str) else "lists of words"
        raise TypeError(
            f"{name}={texts!r:.200} is a tuple of two {kind}: use [({texts[0]!r:.60}, {texts[1]!r:.60})] for one "
            f"pair, or [{texts[0]!r:.60}, {texts[1]!r:.60}] for two texts"
        )
    if _is_piece(first, split_into_words):
        return [list(entries)]
    return entries


def _is_part(entry: Any, split_into_words: bool) -> bool:
    """Return whether something may be one text of a pair."""
    words = split_into_words and isinstance(entry, list) and all(isinstance(word, str) for word in entry)
    return words or isinstance(entry, str)


def examples_one_by_one(texts: Any, split_into_words: bool = False) -> Iterable[Any]:
    """Return what `sequence_of` does, of anything else than a sequence or one example alone without reading it.

    Raises:
        TypeError: as `sequence_of`.
    """
    alone = isinstance(texts, str | bytes | Mapping | Tensor | np.ndarray) or not isinstance(texts, Iterable)
    if alone or hasattr(texts, "columns") or (isinstance(texts, Sequence) and len(texts)):
        return sequence_of(texts, split_into_words)
    return _as_they_come(texts, split_into_words)


def _as_they_come(texts: Iterable[Any], split_into_words: bool) -> Iterator[Any]:
    """Yield examples as they are read, or the one example that an iterator of messages, ids or words is."""
    entries = iter(texts)
    for first in entries:
        if _is_piece(first, split_into_words):
            yield [first, *entries]
        else:
            yield first
            yield from entries


def _is_piece(entry: Any, split_into_words: bool) -> bool:
    """Return whether something is a message, a token id or a word: a piece of an example, and none itself."""
    return is_message(entry) or integer(entry) is not None or (split_into_words and isinstance(entry, str))


def rows_of(encoding: Any, name: str = "texts") -> list[Row]:
    """Return the rows of a tokenizer's encoding, without their padding, as lists of integers by name.

    Of a fast tokenizer's encoding a row also has "segments", the sequence of each token (None for a special token),
    and "tokens".

    Raises:
        ValueError: token ids, a mask, types or positions that are not one integer for each token; something else than
            text that the model would see.
    """
    values = {str(key): _plain(value) for key, value in encoding.items() if value is not None}
    if other := next((key for key in _NO_TEXT if key in values), None):
        raise ValueError(f"{name} is an encoding with {other!r}: only texts are explained; leave it out")
    ids = values.get("input_ids")
    if not isinstance(ids, list) or not ids:
        raise ValueError(f"{name} is an encoding without a token id")
    if not isinstance(ids[0], list):
        values = {key: [value] for key, value in values.items()}
    fast = bool(getattr(encoding, "is_fast", False))
    rows = []
    for i, row in enumerate(values["input_ids"]):
        parts = _parts_of_row(values, i, f"row {i} of {name}")
        if fast and len(tokens := encoding.tokens(i)) == len(row):
            parts |= {"segments": encoding.sequence_ids(i), "tokens": tokens}
        kept = [j for j, seen in enumerate(parts.get("attention_mask", [1] * len(row))) if seen]
        rows.append(Row({key: [part[j] for j in kept] for key, part in parts.items()}))
    return rows


def _plain(value: Any) -> Any:
    """Return an array, or a list of arrays, as lists."""
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist()
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _parts_of_row(values: Mapping[str, Any], i: int, where: str) -> dict[str, list[int]]:
    """Return the values of one row of an encoding that have an integer for each token, by name.

    Raises:
        ValueError: one of `_OF_TOKENS` has not, or one of them is negative.
    """
    row, parts = values["input_ids"][i], {}
    count = len(row) if isinstance(row, list) else 0
    for key, value in values.items():
        part = value[i] if isinstance(value, list) and len(value) > i else None
        if key == "attention_mask" and isinstance(part, list) and all(seen in (0, 1) for seen in part):
            part = [int(seen) for seen in part]  # of bools and floats
        if isinstance(part, list) and len(part) == count and all(integer(entry) is not None for entry in part):
            parts[key] = part
        elif key in _OF_TOKENS:
            raise ValueError(f"{where} needs an integer for each of its {count} tokens as {key!r}, got {part!r:.100}")
        if key in _OF_TOKENS[1:] and min(parts[key], default=0) < 0:
            raise ValueError(f"{where} has {min(parts[key])} among its {key!r}")
        if key == "attention_mask" and max(parts[key], default=0) > 1:
            raise ValueError(
                f"{where} has {max(parts[key])} in its 'attention_mask', which is 1 of a token, 0 of padding"
            )
    return parts


def checked_example(index: int, given: Any, split_into_words: bool = False) -> Any:
    """Return one example in its plain form.

    Args:
        index: of the example in its list, for the errors.
        given: the example.
        split_into_words: whether a list of strings is one text's words.

    Returns:
        A string; a tuple of two strings; with `split_into_words` a list of strings, or a tuple of two; a list of
        messages; a list of integers; a row of `rows_of`.

    Raises:
        TypeError, ValueError: it is none of these; the message has the value and what would be right.
    """
    where = f"texts[{index}]"
    if isinstance(given, Row):
        return given
    if is_encoding(given):
        rows = rows_of(given, where)
        if len(rows) != 1:
            raise ValueError(f"{where} is an encoding of {len(rows)} texts; give the encoding itself for all of them")
        return rows[0]
    if isinstance(given, Iterator):
        raise TypeError(f"{where} is an iterator ({type(given).__name__}): make a list of its messages, ids or words")
    if isinstance(given, Tensor | np.ndarray) and given.ndim == 1:
        given = given.tolist()
    if isinstance(given, range) or (isinstance(given, tuple) and given and not isinstance(given[0], str | list)):
        given = list(given)  # messages or ids; a tuple of two texts, or of two lists of words, is a pair
    if isinstance(given, list) and not given:
        raise ValueError(f"{where} is an empty list: a conversation needs a message, and a text a token")
    if isinstance(given, list) and is_message(given[0]):
        return _checked_messages(where, given)
    if isinstance(given, list) and all(integer(entry) is not None for entry in given):
        return [integer(entry) for entry in given]
    return _checked_words(where, given) if split_into_words else _checked_text(where, given)


def _neither(where: str, given: Mapping[Any, Any]) -> TypeError:
    """Return the error about a dict that is no message and no encoding."""
    named = next((name for name in _NO_TEXT if name in given), None)
    told = f"; tokens are named by their ids, and {named!r} alone does not tell them" if named else ""
    keys = ", ".join(map(repr, given)) or "nothing"
    wanted = "'role' (a message has 'role' and 'content') or 'input_ids'"
    return TypeError(f"{where} is a dict without {wanted}: it has {keys:.200}{told}")


def _checked_text(where: str, text: Any) -> Text:
    """Return a string, or a tuple of two."""
    if isinstance(text, list) and all(isinstance(part, str) for part in text):
        pair = " (text, second text) for a pair;" if len(text) == 2 else ""
        raise TypeError(
            f"{where} is a list of {len(text)} strings, {text!r:.100}:{pair} with split_into_words=True it is one "
            "text's words"
        )
    if isinstance(text, Mapping) and not is_message(text):
        raise _neither(where, text)
    if is_message(text):
        raise TypeError(
            f"{where} is one message, {text!r:.100}: a conversation is a list of messages, and several are lists in a "
            "list, [[message, ...], ...]"
        )
    if not isinstance(text, str) and not (isinstance(text, tuple) and len(text) == 2):
        raise TypeError(
            f"{where} must be a text or a pair of texts, got {text!r:.200}; conversations, token ids and encodings are "
            "taken too"
        )
    parts: tuple[Any, ...] = (text,) if isinstance(text, str) else text
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"{where} must hold text, got {type(part).__name__}: {part!r}")
        checks.characters(where, part)
    if not any(part.strip() for part in parts):  # one text of a pair may be empty, as in QQP
        raise ValueError(f"{where} = {text!r} is empty")
    return str(text) if isinstance(text, str) else (str(parts[0]), str(parts[1]))  # of numpy too


def _checked_words(where: str, text: Any) -> list[str] | tuple[list[str], list[str]]:
    """Return a text's words, or those of a pair."""
    if isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, list) for part in text):
        return _strings(where, text[0]), _strings(where, text[1])
    return _strings(where, text)


def _strings(where: str, given: Any) -> list[str]:
    """Return words, checked."""
    if not isinstance(given, list) or not all(isinstance(word, str) for word in given):
        raise TypeError(f"{where} must be a list of words, since split_into_words=True; got {given!r:.200}")
    for word in given:
        checks.characters(where, word)
    if not any(word.strip() for word in given):
        raise ValueError(f"{where} = {given!r:.200} is empty")
    return list(given)


def _checked_messages(where: str, messages: list[Any]) -> list[dict[str, Any]]:
    """Return the messages of a conversation."""
    for j, message in enumerate(messages):
        if not is_message(message) or not isinstance(message["role"], str):
            raise TypeError(f"message {j} of {where} must be a dict with 'role' and 'content', got {message!r:.200}")
        content = message.get("content")
        if isinstance(content, str):
            checks.characters(where, content)
        elif isinstance(content, list):
            _check_parts(f"message {j} of {where}", content)
        elif content is None and len(message) == 1:
            raise ValueError(f"message {j} of {where} has no 'content': {message!r:.200}")
        elif content is not None:
            raise TypeError(f"the content of message {j} of {where} must be a string, got {content!r:.200}")
    if not any(message.get("content") for message in messages):
        raise ValueError(f"the messages of {where} are empty: {messages!r:.200}")
    return [dict(message) for message in messages]


def _check_parts(where: str, content: list[Any]) -> None:
    """Check that the parts of a message are texts.

    Raises:
        TypeError, ValueError: one is none; an image, a sound.
    """
    for part in content:
        if not isinstance(part, Mapping) or not isinstance(part.get("text", ""), str):
            raise TypeError(f"{where} must have parts like {{'type': 'text', 'text': '...'}}, got {part!r:.200}")
        if "text" not in part or part.get("type", "text") != "text":
            raise ValueError(f"{where} has a part of type {part.get('type')!r}: only texts are explained; leave it out")
        checks.characters(where, part["text"])
