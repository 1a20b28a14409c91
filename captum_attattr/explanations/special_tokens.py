"""Special tokens: which a tokenizer has, and those that a text carries already, so that none is there twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def special_ids(tokenizer: Any) -> set[int]:
    """Return the ids of all special tokens: named ones, further ones, and those that were added as special.

    The unknown token is none, unless its id has another role too (GPT-2's <|endoftext|>).
    """
    ids = {int(i) for i in getattr(tokenizer, "all_special_ids", [])}
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    ids |= {int(i) for i, token in added.items() if getattr(token, "special", False)}
    unknown = getattr(tokenizer, "unk_token", None)
    if unknown is not None and not has_other_role(tokenizer, "unk_token"):
        ids.discard(tokenizer.unk_token_id)
    return ids


def has_other_role(tokenizer: Any, role: str) -> bool:
    """Return whether the token of a role, as "unk_token", has another role too."""
    named = getattr(tokenizer, "special_tokens_map", {})
    others = [value for name, value in named.items() if name != role]
    flat = [token for value in others for token in (value if isinstance(value, list | tuple) else [value])]
    return str(getattr(tokenizer, role)) in map(str, flat)


def once(ids: Sequence[int], added: Sequence[bool]) -> list[int]:
    """Return the positions that stay so that no special token is there twice: typed in the text, and added to it.

    Of what the text has right behind the tokens added before it, and right before those added behind it, the copies
    are left out: the longest end of the former, the longest beginning of the latter.

    Args:
        ids: (T,) of the tokens.
        added: (T,) whether the tokenizer added the token.

    Example:
        >>> once([0, 0, 7, 8, 2, 2], [True, False, False, False, False, True])  # <s> <s> good film </s> </s>
        [0, 2, 3, 5]
    """
    dropped: set[int] = set()
    for start, stop in _runs(added):
        run = list(ids[start:stop])
        for count in range(len(run), 0, -1):
            before = range(start - count, start)
            if start and before[0] >= 0 and [ids[i] for i in before] == run[:count] and not _any(added, before):
                dropped.update(before)
                break
        for count in range(len(run), 0, -1):
            behind = range(stop, stop + count)
            fits = behind[-1] < len(ids) and [ids[i] for i in behind] == run[-count:] and not _any(added, behind)
            if start == 0 and fits:
                dropped.update(behind)
                break
    return [i for i in range(len(ids)) if i not in dropped]


def _any(flags: Sequence[bool], positions: range) -> bool:
    """Return whether one of the flags is set."""
    return any(flags[i] for i in positions)


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the first position of each run of flags that are set, and the one after its last."""
    edges = [i for i in range(len(flags) + 1) if (i < len(flags) and flags[i]) != (i > 0 and flags[i - 1])]
    return list(zip(edges[::2], edges[1::2], strict=True))
