"""Texts, pairs, conversations, ids and encodings to tokens: checked, cut, and encoded as one model input each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from captum_attattr.explanations.examples import Text, checked_example
from captum_attattr.explanations.special_tokens import has_other_role, once, special_ids
from captum_attattr.explanations.truncation import tokenize

__all__ = ["Encoded", "Text", "check_tokenizer", "encode_text"]


@dataclass
class Encoded:
    """One text as the model takes it. T is how many tokens it has.

    Attributes:
        index: of the text in its list.
        text: the text or pair; of a conversation what its template makes of it, of ids what they decode to.
        encoding: the tokenizer's tensors by name, each (1, T).
        special: (T,) whether a token is special, whether the text has it or the tokenizer added it.
        segments: (T,) 0 for the first text of a pair and the tokens around it, 1 for the second.
        target: the class, token or answer to explain; None for the predicted one.
        contrast: the class, token or answer whose output is taken off the target's; None for none.
        position: the token at which alone the output is read; None where that is not one token, or not known yet.
        asked: what the task has yet to decide by the model's own output; None for nothing.
        offsets: (T,) where each token begins and ends in its text; empty if the tokenizer does not tell.
    """

    index: int
    text: Text
    encoding: dict[str, Tensor]
    special: list[bool]
    segments: list[int]
    target: int | None = None
    contrast: int | None = None
    position: int | None = None
    asked: Any = None
    offsets: Sequence[tuple[int, int]] = ()

    @property
    def ids(self) -> list[int]:
        """(T,) the tokens' ids."""
        ids: list[int] = self.encoding["input_ids"][0].tolist()
        return ids

    @property
    def length(self) -> int:
        """T."""
        return int(self.encoding["input_ids"].shape[1])

    @property
    def form(self) -> Any:
        """What examples have in common, beside their length, that go through the model together."""
        return tuple((name, tuple(tensor.shape)) for name, tensor in self.encoding.items())


def encode_text(
    tokenizer: Any,
    index: int,
    text: Any,
    longest: int | None = None,
    *,
    split_into_words: bool = False,
    language: bool = True,
) -> Encoded:
    """Tokenize and check one text or pair, conversation, list of ids or encoding.

    A text that carries its special tokens already gets none twice. Ids and encodings stay as they are; a conversation
    goes through the tokenizer's chat template, which writes its own special tokens.

    Args:
        tokenizer: any.
        index: of the text in its list, for the errors.
        text: as `checked_example` takes it.
        longest: cut it to so many tokens; None to keep it whole.
        split_into_words: whether a list of strings is one text's words.
        language: whether the model predicts next tokens: an answer is begun, or gone on with, behind a conversation.

    Raises:
        TypeError, ValueError: nothing of these, or one without a token; no chat template; ids that the tokenizer does
            not have.
    """
    given = checked_example(index, text, split_into_words)
    if isinstance(given, dict):
        return _encoded_ids(tokenizer, index, given, longest)
    if isinstance(given, list) and isinstance(given[0], int):
        return _encoded_ids(tokenizer, index, {"input_ids": given}, longest)
    options: dict[str, Any] = {}
    parts = given if isinstance(given, tuple) else (given,)
    if isinstance(given, list) and isinstance(given[0], dict):
        parts, options = (_rendered(tokenizer, index, given, language),), {"add_special_tokens": False}
    words = not isinstance(parts[0], str)
    if words:
        options["is_split_into_words"] = True
    with torch.device("cpu"):  # whatever torch's default is
        encoding = _tokenized(tokenizer, index, parts, longest, options)
    added = [bool(flag) for flag in encoding.pop("special_tokens_mask")[0]]
    ids: list[int] = encoding["input_ids"][0].tolist()
    special = set(special_ids(tokenizer))
    flags = [flag or token in special for token, flag in zip(ids, added, strict=True)]
    read = tuple(" ".join(part) if words else part for part in parts)
    shown = read[0] if len(read) == 1 else (read[0], read[1])
    if all(flags):
        raise ValueError(f"texts[{index}] = {shown!r:.300} holds no token" + " beside special ones" * (not all(added)))
    segments = _segments(tokenizer, encoding, parts, added, options) if len(parts) == 2 else [0] * len(ids)
    kept = once(ids, added)
    offsets = _offsets(encoding, parts) if encoding.is_fast else ()
    return Encoded(
        index,
        shown,
        {name: tensor[:, kept] for name, tensor in encoding.items()},
        [flags[i] for i in kept],
        [segments[i] for i in kept],
        offsets=[offsets[i] for i in kept if offsets],
    )


def _tokenized(tokenizer: Any, index: int, parts: Any, longest: int | None, options: dict[str, Any]) -> Any:
    """Return the tokenizer's (1, T) tensors.

    Raises:
        ValueError: the tokenizer does not take words.
    """
    try:
        return tokenize(tokenizer, parts, longest, **options)
    except (AssertionError, NotImplementedError, TypeError, ValueError) as error:
        if "is_split_into_words" not in options:
            raise
        raise ValueError(f"texts[{index}] is split into words, and the tokenizer does not take them: {error}") from None


def _rendered(tokenizer: Any, index: int, messages: list[dict[str, Any]], language: bool) -> str:
    """Return the text that the chat template makes of a conversation.

    Raises:
        ValueError: there is no template, or it refuses the messages.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            f"texts[{index}] is a conversation, and the tokenizer has no chat template: set tokenizer.chat_template, "
            "or give the text as the model was trained to read it"
        )
    ends = messages[-1]["role"] == "assistant"  # a complete conversation, or an answer that the model goes on with
    options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": language and not ends}
    options["continue_final_message"] = language and ends and messages[-1].get("content") is not None
    try:
        if not any(isinstance(message.get("content"), list) for message in messages):
            return str(tokenizer.apply_chat_template(messages, **options))
        return _rendered_parts(tokenizer, messages, options)
    except Exception as error:  # whatever a template raises
        raise ValueError(f"the tokenizer's chat template refuses texts[{index}]: {error}") from error


def _rendered_parts(tokenizer: Any, messages: list[dict[str, Any]], options: dict[str, Any]) -> str:
    """Return the text of a conversation some of whose contents are lists of texts.

    They are joined for a template that takes strings alone: it refuses lists, or writes them as Python does.
    """
    lists = [message["content"] for message in messages if isinstance(message.get("content"), list)]
    try:
        text = str(tokenizer.apply_chat_template(messages, **options))
    except Exception:  # whatever a template raises
        text = str(lists[0])
    if not any(str(content) in text for content in lists):
        return text
    joined = []
    for message in messages:
        content = message.get("content")
        texts = "".join(part["text"] for part in content) if isinstance(content, list) else content
        joined.append(message | {"content": texts})
    return str(tokenizer.apply_chat_template(joined, **options))


def _encoded_ids(tokenizer: Any, index: int, row: dict[str, Any], longest: int | None) -> Encoded:
    """Return token ids, or a row of an encoding, as the model takes them.

    Raises:
        ValueError: an id that the tokenizer does not have, no token but special ones, tokens of another tokenizer, or
            padding without a mask.
    """
    if "attention_mask" not in row:
        instead = ", or give the tokenizer's encoding with its attention_mask"
        check_unpadded(tokenizer, f"texts[{index}]", row["input_ids"], instead)
    row = {name: part[:longest] for name, part in row.items()}
    ids, segments, tokens = row["input_ids"], row.pop("segments", None), row.pop("tokens", None)
    known = len(tokenizer) if hasattr(tokenizer, "__len__") else None
    strange = next((i for i in ids if i < 0 or (known is not None and i >= known)), None)
    if strange is not None:
        raise ValueError(f"texts[{index}] has the token id {strange}, and the tokenizer knows 0 to {(known or 0) - 1}")
    own = tokenizer.convert_ids_to_tokens(ids)
    if tokens is not None and tokens != own:
        first = next(i for i, (theirs, ours) in enumerate(zip(tokens, own, strict=True)) if theirs != ours)
        raise ValueError(
            f"texts[{index}] is an encoding of another tokenizer: its token {first} is {tokens[first]!r}, and "
            f"{ids[first]} is {own[first]!r} here"
        )
    special = special_ids(tokenizer)
    flags = [i in special for i in ids]
    if all(flags):
        raise ValueError(f"texts[{index}] = {list(ids)!r:.200} holds no token beside special ones")
    names = [name for name in row if name not in ("special_tokens_mask", "labels", "length")]
    with torch.device("cpu"):
        encoding = {name: torch.tensor([row[name]]) for name in names}
        encoding.setdefault("attention_mask", torch.ones(1, len(ids), dtype=torch.long))
        if "token_type_ids" in getattr(tokenizer, "model_input_names", ()):
            encoding.setdefault("token_type_ids", torch.zeros(1, len(ids), dtype=torch.long))
    types = [0] * len(ids) if segments is None else [part or 0 for part in segments]
    if any(row.get("token_type_ids", [])):
        types = list(row["token_type_ids"])
    pair = sorted({part for part, flag in zip(types, flags, strict=True) if not flag}) == [0, 1]
    parts = [[i for i, part, f in zip(ids, types, flags, strict=True) if part == s and not f] for s in (0, 1)]
    text = (tokenizer.decode(parts[0]), tokenizer.decode(parts[1])) if pair else str(tokenizer.decode(ids))
    return Encoded(index, text, encoding, flags, types)


def check_unpadded(tokenizer: Any, name: str, ids: Sequence[int], instead: str = "") -> None:
    """Refuse ids with padding at an end, which the model would read; one token may be there for another role.

    Raises:
        ValueError: says how many, and what to do.
    """
    pad = getattr(tokenizer, "pad_token_id", None)
    most = int(pad is not None and has_other_role(tokenizer, "pad_token"))
    for where, order in (("begins", ids), ("ends", ids[::-1])):
        count = next((i for i, token in enumerate(order) if token != pad), len(ids))
        if most < count < len(ids):
            raise ValueError(
                f"{name} {where} with {count} token{'s' * (count > 1)} of padding ({tokenizer.pad_token!r}, id "
                f"{pad}), which the model would read: leave them out{instead}"
            )


def _offsets(encoding: Any, parts: Sequence[Any]) -> list[tuple[int, int]]:
    """Return where each token begins and ends in its text; of words in what they make with blanks between them."""
    offsets: list[tuple[int, int]] = list(encoding.encodings[0].offsets)
    if isinstance(parts[0], str):
        return offsets
    begins = [[0, *accumulate(len(word) + 1 for word in part)] for part in parts]
    places = zip(offsets, encoding.word_ids(0), encoding.sequence_ids(0), strict=True)
    shifts = [((a, b), 0 if word is None else begins[part][word]) for (a, b), word, part in places]
    return [(a + shift, b + shift) for (a, b), shift in shifts]


def _segments(
    tokenizer: Any, encoding: Any, parts: Sequence[Any], added: Sequence[bool], options: dict[str, Any]
) -> list[int]:
    """Return the text of a pair that each token is of: the token types where they tell the two apart."""
    types = encoding["token_type_ids"][0].tolist() if "token_type_ids" in encoding else []
    content = [i for i, flag in enumerate(added) if not flag]
    if len({types[i] for i in content if types}) > 1:
        return list(types)
    if encoding.is_fast:
        return [int(part or 0) for part in encoding.sequence_ids(0)]
    # A slow tokenizer: the texts are the two runs between special tokens, or one run that holds both.
    gaps = [i for i, j in zip(content[1:], content, strict=False) if i - j > 1]
    if len(gaps) == 1:
        start = gaps[0]
    else:
        lengths = [len(tokenizer(part, **(options | {"add_special_tokens": False}))["input_ids"]) for part in parts]
        start = (
            content[_first_kept(lengths, len(content))]
            if len(content) > _first_kept(lengths, len(content))
            else len(added)
        )
    return [int(i >= start and not added[i]) for i in range(len(added))]


def _first_kept(lengths: Sequence[int], room: int) -> int:
    """Return how many tokens of the first text are left where the longer text was cut first."""
    first, second = lengths
    while first + second > room:
        first, second = (first - 1, second) if first > second else (first, second - 1)
    return first


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
