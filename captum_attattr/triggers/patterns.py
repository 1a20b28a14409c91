"""The strongest interactions of many examples, which triggers are made of."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.checks import checked_arguments
from captum_attattr.explanations.encoding import Text
from captum_attattr.explanations.examples import sequence_of
from captum_attattr.explanations.explain import explain
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.runs.batches import run_batches
from captum_attattr.triggers.trigger import check_rules

_NO_WORDS = frozenset({"[UNK]", "<unk>", "[MASK]", "<mask>", "[PAD]", "<pad>"})

Interaction = tuple[float, int, int, int, int]
"""(score, layer, head, query, key)."""


@dataclass(frozen=True)
class Pattern:
    """The strongest interactions of one example: what a trigger is made of, and a line of the published files.

    A pattern checks itself when it is made.

    Attributes:
        interactions: (score, layer, head, query, key), the highest score first; layer and head are -1 where a
            file does not tell them.
        tokens: the example's tokens.
        special: (T,) whether a token is special.
        segments: (T,) 0 for the first text of a pair, 1 for the second.
        target: the class whose probability was attributed.
        gold: the gold class; -1 where it is not known.
        source: the example's index.

    Raises:
        TypeError, ValueError: a value of another type or range, or sizes that differ; the message names it.
    """

    interactions: tuple[Interaction, ...]
    tokens: tuple[str, ...]
    special: tuple[bool, ...]
    segments: tuple[int, ...]
    target: int
    gold: int
    source: int

    def __post_init__(self) -> None:
        tokens = checks.strings("tokens", self.tokens)
        special = checks.flags("special", self.special, len(tokens))
        segments = checks.integers("segments", self.segments, len(tokens), smallest=0)
        for segment in (s for s, flag in zip(segments, special, strict=True) if not flag):  # XLNet gives <cls> the 2
            checks.index("the segment of a word", segment, 2)
        interactions = checks.sequence("interactions", self.interactions)
        checks.set_fields(
            self,
            interactions=tuple(_interaction(entry, len(tokens)) for entry in interactions),
            tokens=tuple(tokens),
            special=tuple(special),
            segments=tuple(segments),
            target=checks.integers("target", [self.target])[0],
            gold=checks.integers("gold", [self.gold])[0],
            source=checks.integers("source", [self.source])[0],
        )

    @property
    def words(self) -> list[bool]:
        """(T,) whether a token is a word or a piece of one, neither special nor unknown."""
        return _words(self.tokens, self.special)

    @property
    def separator(self) -> int:
        """The position at which the first text ends: of the first [SEP], or of what stands for it, or T without any."""
        if "[SEP]" in self.tokens:
            return self.tokens.index("[SEP]")
        return next((i for i, special in enumerate(self.special) if special and i > 0), len(self.tokens))

    @property
    def score(self) -> float:
        """The sum of the interactions' scores."""
        return math.fsum(interaction[0] for interaction in self.interactions)


def _interaction(entry: Any, count: int) -> Interaction:
    """Return an interaction of `count` tokens, checked."""
    parts = checks.sequence("each of interactions", entry)
    if len(parts) != 5:
        raise ValueError(f"interactions must be (score, layer, head, query, key), not {entry!r:.60}")
    layer, head = (checks.at_least(-1, part, name) for name, part in zip(("layer", "head"), parts[1:3], strict=True))
    query, key = (checks.index(name, part, count) for name, part in zip(("query", "key"), parts[3:], strict=True))
    return checks.finite("the score of an interaction", parts[0]), layer, head, query, key


@checked_arguments
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
    task: str | None = None,
    split_into_words: bool = False,
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
    **options: Any,
) -> list[Pattern]:
    """Explain examples and keep only their strongest interactions, so that any number of examples fits in memory.

    `triggers_of` makes triggers of the result. Under `torchrun`, with a process group, every process does a
    share of the batches.

    Args:
        model, tokenizer, examples, batch_size, truncate, task, split_into_words, resume, progress: as in
            `head_importance`.
        labels: the gold class of each example, its index or its name; None where it is not known.
        pairs, special_tokens, rules: as in `extract_triggers`.
        options: those of `explain`: `n_steps`, `method`, `tolerance`, `output`, `path` ...; no lists of targets.

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
    for name in ("target", "contrast"):
        if isinstance(checks.listed(options.get(name)), list):
            raise TypeError(f"find_patterns takes one {name} for all examples, not a list")
    reading: dict[str, Any] = {"task": task, "split_into_words": split_into_words}
    texts = TextModel(model, tokenizer, truncate, **reading)
    if texts.regression or texts.multilabel:
        gives = "a score" if texts.regression else "several labels at once"
        raise ValueError(f"triggers are found for classes; the model gives {gives}")
    examples = sequence_of(examples, split_into_words, name="examples")
    items = texts.encode_all(examples)
    gold = texts.labels(labels, len(items)) if labels is not None else torch.full((len(items),), -1)
    batches = texts.batches(items, batch_size)
    fingerprint = {"patterns": [pairs, special_tokens, rules], "options": options}
    fingerprint |= texts.fingerprint(items, gold, batches)

    def work(batch: list[int]) -> Tensor:
        some = [examples[i] for i in batch]
        settings = {"attention": False} | reading | options  # patterns are of attributions
        explanations = explain(model, tokenizer, some, truncate=truncate, progress=False, **settings)
        patterns = [pattern_of(one, 0, -1, pairs, special_tokens, rules) for one in explanations]
        return torch.stack([_packed(pattern, pairs) for pattern in patterns])

    with evaluation_mode(model):
        costs = texts.costs(items, batches)
        values = run_batches(batches, work, fingerprint, resume=resume, progress=progress, desc="triggers", costs=costs)
    return [
        Pattern(
            interactions=_unpacked(values[i]),
            tokens=tuple(tokenizer.convert_ids_to_tokens(item.ids)),
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
    """Return the strongest interactions of one explanation, by the rules of `extract_triggers`."""
    explanation.check_heads("a pattern")
    maps = explanation.attributions
    array = maps.to(torch.promote_types(maps.dtype, torch.float32)).cpu().numpy()  # numpy has no bfloat16
    if rules == "reference":
        interactions = _largest_of_one_map(array)
    else:
        word = np.array(_words(explanation.tokens, explanation.special))
        partner = np.array(explanation.special) if special_tokens else np.zeros_like(word)
        interactions = _largest_of_all(array, word, partner, pairs)
    numbers = explanation.layers
    return Pattern(
        interactions=tuple((score, numbers[row], head, i, j) for score, row, head, i, j in interactions),
        tokens=tuple(explanation.tokens),
        special=tuple(explanation.special),
        segments=tuple(explanation.segments),
        target=explanation.target,
        gold=gold,
        source=source,
    )


def _words(tokens: Sequence[str], special: Sequence[bool]) -> list[bool]:
    """Return (T,), whether a token is a word; a special token that was typed into the text is none either."""
    no_words = _NO_WORDS | {token for token, flag in zip(tokens, special, strict=True) if flag}
    return [token not in no_words for token in tokens]


def _largest_of_one_map(maps: npt.NDArray[Any]) -> tuple[Interaction, ...]:
    """Return the two largest entries of the map that holds the largest entry, as the published script does."""
    _, heads, length, _ = maps.shape
    layer, head = divmod(int(maps.argmax()) // length**2, heads)
    flat = maps[layer, head].reshape(-1)
    largest = [(float(flat[i]), layer, head, *divmod(int(i), length)) for i in np.argsort(flat)[::-1][:2]]
    return tuple(largest if len(largest) == 2 else largest * 2)  # one token: one entry


def _largest_of_all(
    maps: npt.NDArray[Any], word: npt.NDArray[Any], partner: npt.NDArray[Any], pairs: int
) -> tuple[Interaction, ...]:
    """Return the strongest interactions that bring new words: of a word with another, or with a special `partner`."""
    _, heads, length, _ = maps.shape
    by_map = maps.reshape(-1, length, length)
    best, best_map = by_map.max(0), by_map.argmax(0)
    allowed = np.outer(word, word) | np.outer(word, partner) | np.outer(partner, word)
    np.fill_diagonal(allowed, False)
    chosen: list[Interaction] = []
    seen: set[int] = set()
    for entry in np.argsort(-np.where(allowed, best, -np.inf), axis=None, kind="stable"):
        query, key = divmod(int(entry), length)
        if len(chosen) == pairs or not allowed[query, key] or best[query, key] <= 0:
            break
        words = {position for position in (query, key) if word[position]}
        if words - seen:
            seen |= words
            layer, head = divmod(int(best_map[query, key]), heads)
            chosen.append((float(best[query, key]), layer, head, query, key))
    return tuple(chosen)


def check_options(pairs: Any, ratio: Any, min_score: Any, rules: Any) -> tuple[int, float, float]:
    """Return options of `extract_triggers`, with numbers of Python.

    Raises:
        ValueError: an option that means nothing, or does not go with another.
    """
    pairs = checks.at_least(1, pairs, "pairs")
    reals = [checks.real(value) for value in (ratio, min_score)]
    for name, given, value in zip(("ratio", "min_score"), (ratio, min_score), reals, strict=True):
        if value is None or not 0 <= value < math.inf:
            raise ValueError(f"{name}={given!r} must be a number of 0 or more")
    ratio, min_score = reals
    if ratio > 1:
        raise ValueError(f"ratio={ratio!r} must be at most 1, the share of the first interaction's score")
    check_rules(rules)
    if rules == "reference" and pairs != 2:
        raise ValueError(f"pairs={pairs} does not go with rules='reference', which takes two")
    return pairs, ratio, min_score


def _packed(pattern: Pattern, pairs: int) -> Tensor:
    """Return (1 + pairs, 5): the target, then the interactions, NaN where there is none."""
    packed = torch.full((1 + max(pairs, 2), 5), torch.nan, dtype=torch.float64)
    packed[0, 0] = pattern.target
    for row, interaction in enumerate(pattern.interactions, 1):
        packed[row] = torch.tensor(interaction, dtype=torch.float64)
    return packed


def _unpacked(packed: Tensor) -> tuple[Interaction, ...]:
    """Return the interactions that were packed."""
    rows = [row for row in packed[1:].tolist() if not math.isnan(row[0])]
    return tuple((score, int(layer), int(head), int(query), int(key)) for score, layer, head, query, key in rows)
