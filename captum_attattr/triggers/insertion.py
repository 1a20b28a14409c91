"""Triggers put into texts: at the same relative position of the same segment, and never where truncation cuts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch

from captum_attattr import checks
from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.encoding import Encoded, Text, check_tokenizer, encode_text
from captum_attattr.explanations.special_tokens import special_ids
from captum_attattr.triggers.trigger import Trigger


@dataclass(frozen=True)
class Insertion:
    """A text with a trigger in it. An insertion checks itself when it is made.

    Attributes:
        text: how it reads: a text, or a pair. A model is given `tokens`; read again, the text may be cut into
            other tokens, where the trigger holds word pieces.
        tokens: all tokens that the model gets, special ones included.
        places: the positions in `tokens` of the trigger's tokens, from left to right.
        inserted: the tokens there; a token that the tokenizer does not have has become pieces of its word.
        original: the text that was given.
        cut: how many of the original's tokens gave way, at the ends of its texts; 0 unless it was too long.

    Raises:
        TypeError, ValueError: a value of another type, or positions that do not fit the tokens; the message names it.
    """

    text: Text
    tokens: tuple[str, ...]
    places: tuple[int, ...]
    inserted: tuple[str, ...]
    original: Text
    cut: int

    def __post_init__(self) -> None:
        tokens = checks.strings("tokens", self.tokens)
        places = checks.sequence("places", self.places)
        checks.set_fields(
            self,
            text=checks.text_or_pair("text", self.text),
            tokens=tuple(tokens),
            places=tuple(checks.index("each of places", place, len(tokens)) for place in places),
            inserted=tuple(checks.strings("inserted", self.inserted, len(places))),
            original=checks.text_or_pair("original", self.original),
            cut=checks.at_least(0, self.cut, "cut"),
        )

    def removed(self) -> tuple[str, ...]:
        """The tokens without the trigger's: those of the original, as far as they were not cut."""
        places = set(self.places)
        return tuple(token for position, token in enumerate(self.tokens) if position not in places)


@checked_arguments
def insert_trigger(trigger: Trigger, text_or_pair: Text, tokenizer: Any, max_length: int | None = None) -> Insertion:
    r"""Insert a trigger into a text or a pair.

    A token with the relative position r goes to position :math:`\mathrm{round}(r (n + m - 1))` of its text, which
    has n tokens before and n + m after the insertion; two tokens never get the same position. An input that has only
    one text takes the tokens of both segments. Where the whole would be too long, the end of the longer text gives
    way, never the trigger.

    A trigger of rules="reference" goes where the published script puts it: one token after the other, to position
    round((n + m) r); tokens of the second segment are left out where there is no second text; and the end of the
    longer text is cut afterwards, trigger or not.

    Args:
        trigger: of `extract_triggers`.
        text_or_pair: a text, or a (text, second text) pair.
        tokenizer: the tokenizer of the model that will read it. A token that it does not have is read as a word
            (after a "##" as the rest of one) and cut into tokens that it has.
        max_length: tokens that the input may have, special ones included; None for as many as the tokenizer's
            `model_max_length`.

    Returns:
        The text and the tokens, and where the trigger is in them.

    Raises:
        TypeError, ValueError: no trigger or text, a trigger without a token or of special tokens only, a text
            without room for it.

    Example:
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> _, tokenizer = load_demo_model()
        >>> trigger = Trigger(("dull", "film"), (0.0, 1.0), (0, 0), 0.5, layer=1, head=2, source=0, target=0)
        >>> insertion = insert_trigger(trigger, "a quiet story", tokenizer)
        >>> insertion.text, insertion.places
        ('dull a quiet story film', (1, 5))
    """
    checks.instance("trigger", trigger, Trigger, "a Trigger")
    check_tokenizer(tokenizer)
    if not trigger.tokens and trigger.rules != "reference":
        raise ValueError("the trigger holds no token, so there is nothing to insert")
    limit = int(tokenizer.model_max_length) if max_length is None else checks.at_least(3, max_length, "max_length")
    item = encode_text(tokenizer, 0, text_or_pair)
    made, positions = inserted(item, pieces_of(trigger, tokenizer), trigger.rules, limit)
    ids = made.ids
    return Insertion(
        text=_read(made, tokenizer),
        tokens=tuple(tokenizer.convert_ids_to_tokens(ids)),
        places=tuple(positions),
        inserted=tuple(tokenizer.convert_ids_to_tokens([ids[position] for position in positions])),
        original=item.text,
        cut=item.length + len(positions) - made.length,
    )


class Piece(NamedTuple):
    """A token to be inserted, as a tokenizer has it."""

    token_id: int
    position: float
    """Relative, from 0 to 1."""
    segment: int


def pieces_of(trigger: Trigger, tokenizer: Any, source: Any = None) -> list[Piece]:
    """Return a trigger's tokens as a tokenizer has them: the same, or else pieces of the word that they are read as.

    Args:
        trigger: the trigger.
        tokenizer: that of the model to read it.
        source: the tokenizer of the model that the trigger comes from, where that is known. One that writes the
            beginnings of words in another way means another thing by the same token: "good" is a word for BERT,
            and the rest of one for RoBERTa, whose word is "Ġgood".

    Raises:
        ValueError: the tokenizer has nothing for one of them, or all of them are special.
    """
    unknown, mark = getattr(tokenizer, "unk_token_id", None), word_mark(tokenizer)
    source_mark = mark if source is None or source is tokenizer else word_mark(source)
    pieces = []
    for token, position, segment in zip(trigger.tokens, trigger.positions, trigger.segments, strict=True):
        token_id = tokenizer.convert_tokens_to_ids(token) if source_mark == mark else None
        if token_id is not None and (token_id != unknown or token == tokenizer.unk_token):
            ids = [int(token_id)]
        else:
            ids = _read_as_word(token, source_mark, tokenizer)
            if not ids or set(ids) == {unknown}:
                raise ValueError(f"the tokenizer has no token for {token!r} of the trigger {trigger.name!r}")
        pieces += [Piece(token_id, position, segment) for token_id in ids]
    special = special_ids(tokenizer)
    if pieces and trigger.rules != "reference" and all(piece.token_id in special for piece in pieces):
        raise ValueError(f"the trigger {trigger.name!r} holds special tokens only; a word is needed")
    return pieces


def word_mark(tokenizer: Any) -> str:
    """Return what a tokenizer puts before a word that follows another: "Ġ", "▁", or nothing."""
    last = tokenizer.convert_ids_to_tokens(tokenizer("a a", add_special_tokens=False, verbose=False)["input_ids"])[-1:]
    return next((mark for mark in ("Ġ", "▁") if last and last[0].startswith(mark)), "")


def _read_as_word(token: str, mark: str, tokenizer: Any) -> list[int]:
    """Return the ids of a token that a tokenizer does not have; it comes from one that writes `mark` before words."""
    begins = token.startswith(mark or ("Ġ", "▁")) or (not mark and not token.startswith("##"))
    word = token.removeprefix("##").strip("Ġ▁") or token
    rest = tokenizer.convert_tokens_to_ids("##" + word) if not begins else None
    if rest is not None and rest != getattr(tokenizer, "unk_token_id", None):
        return [rest]
    ids: list[int] = tokenizer(" " * begins + word, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def check_room(item: Encoded, pieces: Sequence[Piece], limit: int) -> None:
    """Check that a text keeps at least one of its tokens in each segment once these are inserted.

    Raises:
        ValueError: it does not; the message says how many tokens there are.
    """
    spans = _spans(item)
    special = item.length - sum(stop - start for start, stop in spans.values())
    count = len(pieces) if len(spans) == 1 else sum(piece.segment in spans for piece in pieces)
    if limit - special - count < len(spans):
        raise ValueError(
            f"texts[{item.index}] has no room for the trigger: of {limit} tokens {special} are special and {count} "
            "the trigger's; a longer limit or a shorter trigger is needed"
        )


def inserted(item: Encoded, pieces: Sequence[Piece], rules: str, limit: int) -> tuple[Encoded, list[int]]:
    """Return an encoded text with tokens inserted, and their positions in it; `item` is left as it is.

    Args:
        item: the text, whole.
        pieces: of `pieces_of`.
        rules: "default" or "reference"; see `insert_trigger`.
        limit: tokens that the result may have.

    Raises:
        ValueError: no room.
    """
    spans = _spans(item)
    if rules != "reference":
        check_room(item, pieces, limit)
        if len(spans) == 1:
            pieces = [piece._replace(segment=next(iter(spans))) for piece in pieces]
        pieces = sorted(pieces, key=lambda piece: piece.position)
    fresh = {segment: [piece for piece in pieces if piece.segment == segment] for segment in spans}
    old = {segment: list(range(start, stop)) for segment, (start, stop) in spans.items()}
    room = limit - item.length + sum(map(len, old.values()))
    mixed: dict[int, list[int | Piece]]
    if rules == "reference":
        mixed = {segment: _in_turn(old[segment], fresh[segment]) for segment in spans}
        _shorten(list(mixed.values()), room)
    else:
        _shorten(list(old.values()), room - sum(map(len, fresh.values())))
        mixed = {segment: _side_by_side(old[segment], fresh[segment]) for segment in spans}
    whole: list[int | Piece] = []
    by_start = {start: (stop, mixed[segment]) for segment, (start, stop) in spans.items()}
    position = 0
    while position < item.length:
        position, part = by_start.get(position, (position + 1, [position]))
        whole += part
    return _spliced(item, whole, spans), [i for i, entry in enumerate(whole) if isinstance(entry, Piece)]


def _spans(item: Encoded) -> dict[int, tuple[int, int]]:
    """Return the first position of each segment's words, and the one after the last."""
    spans: dict[int, tuple[int, int]] = {}
    for position, (segment, special) in enumerate(zip(item.segments, item.special, strict=True)):
        if not special:
            spans[segment] = spans.get(segment, (position,))[0], position + 1
    return spans


def _shorten(parts: Sequence[list[Any]], room: int) -> None:
    """Cut the end of the longest part, of the last one among equals, until all of them fit."""
    while sum(map(len, parts)) > max(room, 0):
        max(reversed(parts), key=len).pop()


def _side_by_side(old: list[int], fresh: Sequence[Piece]) -> list[int | Piece]:
    """Return the old positions and the new tokens, each new one at its relative position of the result."""
    last = len(old) + len(fresh) - 1
    result: list[int | Piece] = []
    rest = iter(old)
    for i, piece in enumerate(fresh):
        position = min(max(round(piece.position * last), len(result)), last - (len(fresh) - 1 - i))
        result += [next(rest) for _ in range(position - len(result))]
        result.append(piece)
    return [*result, *rest]


def _in_turn(old: list[int], fresh: Sequence[Piece]) -> list[int | Piece]:
    """Return the old positions and the new tokens, inserted one after the other as by the published script."""
    result: list[int | Piece] = list(old)
    before = -1
    for piece in fresh:
        position = round((len(old) + len(fresh)) * piece.position)
        before = position = position + (position == before)
        result.insert(position, piece)
    return result


def _spliced(item: Encoded, whole: list[int | Piece], spans: dict[int, tuple[int, int]]) -> Encoded:
    """Return the text of old positions and new tokens; a new one takes type and mask of its segment's first token."""
    sources = torch.tensor([spans[entry.segment][0] if isinstance(entry, Piece) else entry for entry in whole])
    encoding = {name: tensor[:, sources] for name, tensor in item.encoding.items()}
    for i, entry in enumerate(whole):
        if isinstance(entry, Piece):
            encoding["input_ids"][0, i] = entry.token_id
    chosen = sources.tolist()
    return replace(
        item,
        encoding=encoding,
        special=[item.special[i] for i in chosen],
        segments=[item.segments[i] for i in chosen],
    )


def _read(item: Encoded, tokenizer: Any) -> Text:
    """Return how an encoded text reads."""
    texts = []
    for segment in (0, 1) if isinstance(item.text, tuple) else (0,):
        words = [
            i for i, s, flag in zip(item.ids, item.segments, item.special, strict=True) if s == segment and not flag
        ]
        texts.append(tokenizer.decode(words))
    return (texts[0], texts[1]) if len(texts) == 2 else str(texts[0])
