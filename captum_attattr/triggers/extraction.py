"""Adversarial triggers made of attribution maps: the words whose interactions carried decisions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from captum_attattr.checks import at_least, checked_arguments, instance, integer, iterable, listed
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.triggers.patterns import Interaction, Pattern, check_options, pattern_of
from captum_attattr.triggers.trigger import Trigger as Trigger
from captum_attattr.triggers.trigger import checked_triggers

_MARKERS = frozenset({"[CLS]", "[SEP]"})
"""What the published script takes out at insertion."""


@checked_arguments
def extract_triggers(
    explanations: Iterable[Explanation],
    labels: Sequence[int] | None = None,
    *,
    pairs: int = 2,
    ratio: float = 0.2,
    min_score: float = 0.02,
    special_tokens: bool = False,
    merge: bool = True,
    rules: str = "default",
) -> list[Trigger]:
    r"""Turn attribution maps into triggers.

    For every example the entries :math:`\mathrm{Attr}_h(A^l)_{ij}` of all layers and heads are ranked, and the
    tokens i and j of the strongest become a trigger, with their relative positions and segments (Hao et al. 2021,
    section on adversarial attack). An interaction counts with its highest score over layers and heads, and only
    if it brings a token that the stronger ones have not brought.

    rules="reference" is the published script's choice: the two largest entries of the one map (layer and head)
    that holds the largest entry, special tokens and a token's attention to itself included. [CLS] and [SEP] are
    taken out at insertion, so such a trigger may hold no word at all; none is merged; and since that script
    stops at the first pattern below the threshold, it loses the last one if none is below.

    Args:
        explanations: any iterable; each is read once, and let go.
        labels: the index of the gold class of each; None where it is not known.
        pairs: interactions of a trigger, at most; two have up to four tokens.
        ratio: a further interaction is left out if its score is below `ratio` times the first's.
        min_score: triggers with a lower `score` are left out.
        special_tokens: whether interactions with a special token count; the trigger is then the other token.
            Special tokens themselves are never part of a trigger.
        merge: put triggers with the same tokens, segments and target together: the one with the highest score
            stays, and counts its sources.
        rules: "default" or "reference".

    Returns:
        The triggers, highest score first.

    Raises:
        TypeError, ValueError: options out of range, more or fewer labels than explanations, no explanation above
            the threshold, or only special tokens above it.

    Example:
        >>> from captum_attattr import explain
        >>> from demo_model import load_demo_model  # examples/demo_model.py
        >>> text = "Seldom has a movie so closely matched the spirit of a man and his work ."
        >>> explanations = explain(*load_demo_model(), [text], progress=False)
        >>> [trigger.tokens for trigger in extract_triggers(explanations)]
        [('matched', 'spirit', 'of')]
    """
    pairs, *_ = check_options(pairs, ratio, min_score, rules)
    if isinstance(explanations, Explanation) or not isinstance(explanations, Iterable):
        raise TypeError(f"explanations must be several, not {type(explanations).__name__}; use [explanation]")
    labels = listed(labels)
    if labels is not None and not hasattr(labels, "__len__"):
        raise TypeError(f"labels must be a list of numbers, not {type(labels).__name__}")
    patterns: list[Pattern] = []
    for i, explanation in enumerate(explanations):
        instance(f"explanations[{i}]", explanation, Explanation, "an Explanation")
        if labels is not None and i >= len(labels):
            raise ValueError(f"{len(labels)} labels for more explanations; give one for each")
        label: Any = -1 if labels is None else labels[i]
        gold = integer(label)
        if gold is None:
            raise TypeError(f"labels must be indices of classes, but [{i}] is {label!r}")
        patterns.append(pattern_of(explanation, i, gold, pairs, special_tokens, rules))
    if labels is not None and len(labels) != len(patterns):
        raise ValueError(f"{len(labels)} labels for {len(patterns)} explanations; give one for each")
    return triggers_of(patterns, ratio=ratio, min_score=min_score, merge=merge, rules=rules)


@checked_arguments
def triggers_of(
    patterns: Sequence[Pattern],
    *,
    ratio: float = 0.2,
    min_score: float = 0.02,
    merge: bool = True,
    rules: str = "default",
) -> list[Trigger]:
    """Make triggers of the strongest interactions of many examples.

    Args:
        patterns: what `find_patterns` returned, or `read_patterns` read.
        ratio, min_score, merge, rules: as in `extract_triggers`.

    Returns:
        The triggers, highest score first.

    Raises:
        TypeError, ValueError: no pattern, none above the threshold, or only special tokens above it.

    Example:
        >>> interactions = ((0.5, 1, 2, 0, 1),)  # score, layer, head, query, key
        >>> pattern = Pattern(interactions, ("dull", "film"), (False, False), (0, 0), target=0, gold=1, source=0)
        >>> [trigger.name for trigger in triggers_of([pattern])]
        ['dull film']
    """
    _, ratio, min_score = check_options(2, ratio, min_score, rules)
    patterns = [
        instance(f"patterns[{i}]", pattern, Pattern, "a Pattern")
        for i, pattern in enumerate(iterable("patterns", patterns))
    ]
    if not patterns:
        raise ValueError("there is no pattern, and so no trigger: give at least one explanation")
    ranked = sorted(patterns, key=lambda pattern: -pattern.score)
    if rules == "reference":
        above = [pattern for pattern in ranked if pattern.interactions and pattern.score >= min_score]
        if not above:
            raise _too_weak(ranked[0].score, min_score)
        if len(ranked) == 1:
            raise ValueError("rules='reference' leaves the last pattern out, and there is but one")
        # Its loop ends at the first pattern below the threshold, or else at the last one, and leaves that out.
        return [reference_trigger(pattern, ratio) for pattern in above[: len(ranked) - 1]]
    made = sorted((_trigger(pattern, ratio) for pattern in ranked if pattern.interactions), key=lambda t: -t.score)
    strong = [trigger for trigger in made if trigger.score >= min_score]
    if not strong:
        raise _too_weak(made[0].score if made else 0.0, min_score)
    with_words = [trigger for trigger in strong if trigger.tokens]
    if not with_words:
        raise ValueError(f"all {len(strong)} patterns above min_score={min_score} hold special tokens only")
    return _merged(with_words) if merge else with_words


def _too_weak(best: float, min_score: float) -> ValueError:
    """Return the error that says how strong the strongest trigger is."""
    why = "" if best > 0 else "; no example has a positive interaction between words (see special_tokens)"
    return ValueError(f"no trigger has a score of min_score={min_score} or more; the highest is {best:.4g}{why}")


def _trigger(pattern: Pattern, ratio: float) -> Trigger:
    """Return the trigger of a pattern by the default rules; it holds no token where the pattern has no word."""
    strong, words = _strong(pattern.interactions, ratio), pattern.words
    positions = [position for position in _positions(strong) if words[position]]
    text: dict[int, list[int]] = {0: [], 1: []}  # positions of each segment's tokens
    for position, segment in enumerate(pattern.segments):
        if not pattern.special[position]:
            text[segment].append(position)
    segments = [pattern.segments[position] for position in positions]
    relative = [
        text[segment].index(position) / max(len(text[segment]) - 1, 1)
        for position, segment in zip(positions, segments, strict=True)
    ]
    made = _made(pattern, positions, relative, segments)
    return replace(made, score=math.fsum(score for score, *_ in strong))


def reference_trigger(pattern: Pattern, ratio: float) -> Trigger:
    """Return the trigger that the published script makes of a pattern; it may hold no token."""
    tokens, end = pattern.tokens, pattern.separator
    gone = _MARKERS | {token for token, special in zip(tokens, pattern.special, strict=True) if special}
    positions = [p for p in _positions(_strong(pattern.interactions[:2], ratio)) if tokens[p] not in gone]
    # [CLS] is counted, so that the first token's ratio is above 0 and the last one's is 1.
    last = {0: end - 1, 1: len(tokens) - 1 - end - int(tokens[-1] in gone)}
    segments = [int(p > end) for p in positions]
    relative = [(p - end * s) / max(last[s], 1) for p, s in zip(positions, segments, strict=True)]
    return replace(_made(pattern, positions, relative, segments), rules="reference")


def _strong(interactions: Sequence[Interaction], ratio: float) -> list[Interaction]:
    """Return the first interaction, and those that are not too weak beside it."""
    (first, *_), rest = interactions[0], interactions[1:]
    return [*interactions[:1], *(one for one in rest if not ratio or (first and one[0] / first >= ratio))]


def _positions(interactions: Sequence[Interaction]) -> list[int]:
    """Return the positions of the tokens, each once, from left to right."""
    return sorted({position for *_, query, key in interactions for position in (query, key)})


def _made(pattern: Pattern, positions: list[int], relative: list[float], segments: list[int]) -> Trigger:
    """Return a trigger of the tokens at some positions of a pattern."""
    return Trigger(
        tokens=tuple(pattern.tokens[position] for position in positions),
        positions=tuple(relative),
        segments=tuple(segments),
        score=pattern.score,
        layer=pattern.interactions[0][1],
        head=pattern.interactions[0][2],
        source=pattern.source,
        target=pattern.target,
        gold=pattern.gold,
    )


def _merged(triggers: list[Trigger]) -> list[Trigger]:
    """Return triggers with the same tokens, segments and target as one each, the first of them."""
    merged: dict[tuple[tuple[str, ...], tuple[int, ...], int], Trigger] = {}
    for trigger in triggers:  # the highest score comes first, and stays
        key = trigger.tokens, trigger.segments, trigger.target
        first = merged.get(key)
        merged[key] = replace(first, sources=first.sources + trigger.sources) if first else trigger
    return list(merged.values())


@checked_arguments
def compose_triggers(triggers: Sequence[Trigger], max_words: int = 5) -> list[Trigger]:
    """Combine the strongest triggers of each class.

    Args:
        triggers: of `extract_triggers`; the order is theirs.
        max_words: tokens of a composed trigger, at most (Hao et al. 2021 use fewer than five).

    Returns:
        For every class that has two triggers or more, one trigger of their tokens: whole triggers as long as they
        fit, the strongest first, each token of a text once, all in the order of their positions. Classes in the order
        of their strongest.

    Raises:
        TypeError, ValueError: no trigger, or `max_words` below 2.

    Example:
        >>> strong = Trigger(("dull", "film"), (0.0, 1.0), (0, 0), 0.5, layer=1, head=2, source=0, target=0)
        >>> weak = Trigger(("poor",), (0.5,), (0,), 0.3, layer=2, head=0, source=3, target=0)
        >>> compose_triggers([strong, weak])[0].name
        'dull poor film'
    """
    max_words, triggers = at_least(2, max_words, "max_words"), checked_triggers(triggers)
    if not triggers:
        raise ValueError("triggers is empty: give at least one trigger")
    composed = []
    for target in dict.fromkeys(trigger.target for trigger in triggers):
        parts: list[tuple[int, float, str]] = []  # (segment, position, token)
        used: list[Trigger] = []
        for trigger in (t for t in triggers if t.target == target):
            given = zip(trigger.segments, trigger.positions, trigger.tokens, strict=True)
            new = [part for part in given if all((part[0], part[2]) != (p[0], p[2]) for p in parts)]
            if new and len(parts) + len(new) <= max_words:
                parts += new
                used.append(trigger)
        if len(used) > 1:
            composed.append(_composed(sorted(parts), used))
    return composed


def _composed(parts: Sequence[tuple[int, float, str]], used: Sequence[Trigger]) -> Trigger:
    """Return one trigger of the parts, (segment, position, token), of several."""
    segments, positions, tokens = zip(*parts, strict=True)
    return replace(
        used[0],
        tokens=tokens,
        positions=positions,
        segments=segments,
        score=math.fsum(trigger.score for trigger in used),
        source=-1,
        gold=-1,
        sources=sum(trigger.sources for trigger in used),
    )
