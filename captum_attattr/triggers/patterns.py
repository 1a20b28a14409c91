"""The strongest interactions of many examples, which triggers are made of."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_attattr.checks import at_least, scalar
from captum_attattr.explanations.encoding import Text
from captum_attattr.explanations.explain import explain
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.runs.batches import run_batches

RULES = ("default", "reference")
_NO_WORDS = frozenset({"[UNK]", "<unk>", "[MASK]", "<mask>", "[PAD]", "<pad>"})

Interaction = tuple[float, int, int, int, int]
"""(score, layer, head, query, key)."""


@dataclass(frozen=True)
class Pattern:
    """The strongest interactions of one example: what a trigger is made of, and a line of the published files.

    Attributes:
        interactions: (score, layer, head, query, key), the highest score first; layer and head are -1 where a
            file does not tell them.
        tokens: the example's tokens.
        special: (T,) whether a token is special.
        segments: (T,) 0 for the first text of a pair, 1 for the second.
        target: the class whose probability was attributed.
        gold: the gold class; -1 where it is not known.
        source: the example's number.
    """

    interactions: tuple[Interaction, ...]
    tokens: tuple[str, ...]
    special: tuple[bool, ...]
    segments: tuple[int, ...]
    target: int
    gold: int
    source: int

    @property
    def words(self) -> list[bool]:
        """(T,) whether a token is a word or a piece of one, neither special nor unknown."""
        return _words(self.tokens, self.special)

    @property
    def separator(self) -> int:
        """Where the first text ends: the place of the first [SEP], or of what stands for it, or T without any."""
        if "[SEP]" in self.tokens:
            return self.tokens.index("[SEP]")
        return next((i for i, special in enumerate(self.special) if special and i > 0), len(self.tokens))

    @property
    def score(self) -> float:
        """The sum of the interactions' scores."""
        return math.fsum(interaction[0] for interaction in self.interactions)


def find_patterns(
    model: nn.Module,
    tokenizer: Any,
    examples: Sequence[Text],
    labels: Sequence[Any] | None = None,
    *,
    pairs: int = 2,
    special_tokens: bool = False,
    rules: str = "default",
    batch_size: int = 32,
    truncate: bool | int = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> list[Pattern]:
    """Explain examples and keep only their strongest interactions, so that any number of examples fits in memory.

    `triggers_of` makes triggers of the result. Under `torchrun`, with a process group, every process does a
    share of the batches.

    Args:
        model, tokenizer, examples, batch_size, truncate, resume, progress: as in `head_importance`.
        labels: the gold class of each example, a number or a name; None where it is not known.
        pairs, special_tokens, rules: as in `extract_triggers`.
        options: the quadrature's, as in `explain`: `n_steps`, `method`, `tolerance` ...

    Returns:
        One pattern for each example, in order; without interactions where no score is positive.

    Raises:
        As `explain` and `extract_triggers`; ValueError for a `resume` file of another run.

    Example:
        >>> from captum_attattr import triggers_of
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> text = "Seldom has a movie so closely matched the spirit of a man and his work ."
        >>> patterns = find_patterns(*load_demo_model(), [text], progress=False)
        >>> triggers_of(patterns)[0].tokens
        ('matched', 'spirit', 'of')
    """
    pairs, *_ = check_options(pairs, 0.0, 0.0, rules)
    texts = TextModel(model, tokenizer, truncate)
    if texts.regression or texts.multilabel:
        gives = "a score" if texts.regression else "several labels at once"
        raise ValueError(f"triggers are found for classes; the model gives {gives}")
    items = texts.encode_all(examples)
    known = labels is not None
    gold = texts.labels(labels, len(items)) if known else torch.full((len(items),), -1)
    batches = texts.batches(items, batch_size)
    about = {"patterns": [pairs, special_tokens, rules], "options": options, **texts.fingerprint(items, gold, batches)}

    def work(places: list[int]) -> Tensor:
        found = explain(model, tokenizer, [examples[i] for i in places], truncate=truncate, progress=False, **options)
        return torch.stack([_packed(pattern_of(one, 0, -1, pairs, special_tokens, rules), pairs) for one in found])

    with evaluation_mode(model):
        costs = texts.costs(items, batches)
        values = run_batches(batches, work, about, resume=resume, progress=progress, desc="triggers", costs=costs)
    return [
        Pattern(
            interactions=_unpacked(values[i]),
            tokens=tuple(tokenizer.convert_ids_to_tokens(item.encoding["input_ids"][0].tolist())),
            special=tuple(item.special),
            segments=tuple(item.segments),
            target=int(values[i, 0, 0]),
            gold=int(gold[i]),
            source=i,
        )
        for i, item in enumerate(items)
    ]


def pattern_of(
    explanation: Explanation, source: int, gold: int, pairs: int, special_tokens: bool, rules: str
) -> Pattern:
    """The strongest interactions of one explanation, by the rules of `extract_triggers`."""
    maps = np.asarray(explanation.attributions)
    tokens, special = list(explanation.tokens), list(explanation.special)
    if maps.ndim != 4 or maps.shape[2:] != (len(tokens), len(tokens)) or 0 in maps.shape:
        raise ValueError(f"explanation {source}: maps of shape {maps.shape} do not fit {len(tokens)} tokens")
    if not np.isfinite(maps).all():
        raise ValueError(f"explanation {source}: its attributions are not finite")
    if rules == "reference":
        interactions = _largest_of_one_map(maps)
    else:
        word = np.array(_words(tokens, special))
        partner = np.array(special) if special_tokens else np.zeros_like(word)
        interactions = _largest_of_all(maps, word, partner, pairs)
    return Pattern(
        interactions=interactions,
        tokens=tuple(tokens),
        special=tuple(special),
        segments=tuple(explanation.segments),
        target=explanation.target,
        gold=gold,
        source=source,
    )


def _words(tokens: Sequence[str], special: Sequence[bool]) -> list[bool]:
    """(T,) whether a token is a word; a special token is none where it was typed into the text either."""
    no_words = _NO_WORDS | {token for token, flag in zip(tokens, special, strict=True) if flag}
    return [token not in no_words for token in tokens]


def _largest_of_one_map(maps: np.ndarray[Any, Any]) -> tuple[Interaction, ...]:
    """The published script's: the two largest entries of the map that holds the largest entry."""
    _, heads, length, _ = maps.shape
    layer, head = divmod(int(maps.argmax()) // length**2, heads)
    flat = maps[layer, head].reshape(-1)
    best = np.argsort(flat)[::-1][:2]
    found = [(float(flat[place]), layer, head, *divmod(int(place), length)) for place in best]
    return tuple(found if len(found) == 2 else found * 2)  # one token: one entry


def _largest_of_all(
    maps: np.ndarray[Any, Any], word: np.ndarray[Any, Any], partner: np.ndarray[Any, Any], pairs: int
) -> tuple[Interaction, ...]:
    """The strongest interactions that bring new words; of a word with another, or with a special `partner`."""
    _, heads, length, _ = maps.shape
    by_map = maps.reshape(-1, length, length)
    best, where = by_map.max(0), by_map.argmax(0)
    allowed = np.outer(word, word) | np.outer(word, partner) | np.outer(partner, word)
    np.fill_diagonal(allowed, False)
    found: list[Interaction] = []
    seen: set[int] = set()
    for place in np.argsort(-np.where(allowed, best, -np.inf), axis=None, kind="stable"):
        query, key = divmod(int(place), length)
        if len(found) == pairs or not allowed[query, key] or best[query, key] <= 0:
            break
        words = {position for position in (query, key) if word[position]}
        if words - seen:
            seen |= words
            layer, head = divmod(int(where[query, key]), heads)
            found.append((float(best[query, key]), layer, head, query, key))
    return tuple(found)


def check_options(pairs: Any, ratio: Any, min_score: Any, rules: Any) -> tuple[int, float, float]:
    """Refuse options of `extract_triggers` that mean nothing; the numbers come back as Python's own."""
    pairs, ratio, min_score = at_least(1, pairs, "pairs"), scalar(ratio), scalar(min_score)
    for name, value in (("ratio", ratio), ("min_score", min_score)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise ValueError(f"{name}={value!r} must be a number of 0 or more")
    if ratio > 1:
        raise ValueError(f"ratio={ratio!r} must be at most 1, the share of the first interaction's score")
    if rules not in RULES:
        raise ValueError(f"rules={rules!r} is unknown; use 'default' or 'reference'")
    if rules == "reference" and pairs != 2:
        raise ValueError(f"pairs={pairs} does not go with rules='reference', which takes two")
    return pairs, float(ratio), float(min_score)


def _packed(pattern: Pattern, pairs: int) -> Tensor:
    """(1 + pairs, 5): the target, then the interactions, NaN where there is none."""
    packed = torch.full((1 + max(pairs, 2), 5), torch.nan, dtype=torch.float64)
    packed[0, 0] = pattern.target
    for row, interaction in enumerate(pattern.interactions, 1):
        packed[row] = torch.tensor(interaction, dtype=torch.float64)
    return packed


def _unpacked(packed: Tensor) -> tuple[Interaction, ...]:
    rows = [row for row in packed[1:].tolist() if not math.isnan(row[0])]
    return tuple((score, int(layer), int(head), int(query), int(key)) for score, layer, head, query, key in rows)
