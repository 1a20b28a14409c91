"""Texts and pairs to tokens: checked, cut, and encoded as one model input each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_attattr.explanations.truncation import tokenize

Text = str | tuple[str, str]
"""A text, or a pair such as (premise, hypothesis)."""


@dataclass
class Encoded:
    """One text as the model takes it. T is how many tokens it has.

    Attributes:
        index: of the text in its list.
        text: the text or pair.
        encoding: the tokenizer's tensors by name, each (1, T).
        special: (T,) whether a token is special.
        segments: (T,) 0 for the first text of a pair and the tokens around it, 1 for the second.
        target: the class or token to explain; None for the predicted one.
        contrast: the class or token whose output is taken off that of the target; None for none.
    """

    index: int
    text: Text
    encoding: dict[str, Tensor]
    special: list[bool]
    segments: list[int]
    target: int | None = None
    contrast: int | None = None

    @property
    def ids(self) -> list[int]:
        """(T,) the tokens' ids."""
        ids: list[int] = self.encoding["input_ids"][0].tolist()
        return ids

    @property
    def length(self) -> int:
        """T."""
        return int(self.encoding["input_ids"].shape[1])


def encode_text(tokenizer: Any, index: int, text: Text, longest: int | None = None) -> Encoded:
    """Tokenize and check one text or pair.

    Args:
        tokenizer: any.
        index: of the text in its list, for the errors.
        text: the text or pair.
        longest: cut it to so many tokens; None to keep it whole.

    Raises:
        TypeError, ValueError: no text, or one without a token.
    """
    text = _checked_text(index, text)
    parts = (text,) if isinstance(text, str) else text
    with torch.device("cpu"):  # whatever torch's default is
        encoding = tokenize(tokenizer, parts, longest)
    special = [bool(flag) for flag in encoding.pop("special_tokens_mask")[0]]
    if all(special):
        raise ValueError(f"texts[{index}] = {text!r} holds no token")
    segments = [int(part or 0) for part in encoding.sequence_ids(0)] if encoding.is_fast else [0] * len(special)
    if len(parts) == 2 and "token_type_ids" in encoding:
        segments = encoding["token_type_ids"][0].tolist()
    return Encoded(index, text, dict(encoding), special, segments)


def _checked_text(index: int, text: Any) -> Text:
    """Return a text as a string, or a pair as a tuple of two.

    Raises:
        TypeError, ValueError: it is something else, or blank, or holds half a character.
    """
    if isinstance(text, str):
        parts: tuple[Any, ...] = (text,)
    elif isinstance(text, (tuple, list)) and len(text) == 2:
        parts = tuple(text)
    else:
        raise TypeError(f"texts[{index}] must be a text or a pair of texts, got {text!r}")
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"texts[{index}] must hold text, got {type(part).__name__}: {part!r}")
        if any("\ud800" <= character <= "\udfff" for character in part):
            raise ValueError(f"texts[{index}] = {text!r} holds half a character (a lone surrogate)")
    if not any(part.strip() for part in parts):  # one text of a pair may be empty, as in QQP
        raise ValueError(f"texts[{index}] = {text!r} is empty")
    return text if isinstance(text, str) else (parts[0], parts[1])


def check_tokenizer(tokenizer: Any) -> None:
    """Check that something is a tokenizer that knows words.

    Raises:
        TypeError: it is none; the message names its type.
        ValueError: it knows special tokens only.
    """
    wanted = ("pad", "convert_ids_to_tokens", "model_max_length")
    if not callable(tokenizer) or not all(hasattr(tokenizer, name) for name in wanted):
        raise TypeError(f"tokenizer must be the model's tokenizer, got {type(tokenizer).__name__}")
    special = getattr(tokenizer, "all_special_tokens", [])
    if hasattr(tokenizer, "__len__") and len(tokenizer) <= len(special):
        raise ValueError(f"the tokenizer knows no word, only {special}: its vocabulary is missing where it was loaded")
