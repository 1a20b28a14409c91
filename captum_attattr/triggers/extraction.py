"""Adversarial triggers: the words whose interactions carried decisions, found in attribution maps."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from captum_attattr.checks import at_least, integer
from captum_attattr.exceptions import ResultFileError
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.files import existing_file, replacing
from captum_attattr.triggers.patterns import RULES, Interaction, Pattern, check_options, pattern_of

_FORMAT = "captum_attattr triggers"
_MARKERS = frozenset({"[CLS]", "[SEP]"})
"""What the published script takes out at insertion."""


@dataclass(frozen=True)
class Trigger:
    """A few words to be inserted into other inputs.

    Attributes:
        tokens: the words or word pieces, in the order of their places.
        positions: where each goes in its text, from 0 (first) to 1 (last). Under the rules "reference" the
            published script's ratio, p / (number of tokens) with p counted from 1.
        segments: 0 where a token goes into the first text, 1 for the second of a pair.
        score: the sum of the scores of the interactions that the tokens come from; under the rules "reference"
            of both interactions, also where `ratio` left the second one out.
        layer, head: where the strongest of them is; -1 where that is not known.
        source: the number of the example it comes from; -1 for a composed trigger.
        target: the class that the interactions speak for, the source's predicted one by default.
        gold: the gold class of the source; -1 where it is not known.
        sources: in how many examples the same tokens were found; of a composed trigger, the sum of its parts'.
        rules: "default" or "reference": how `insert_trigger` places the tokens.
    """

    tokens: tuple[str, ...]
    positions: tuple[float, ...]
    segments: tuple[int, ...]
    score: float
    layer: int
    head: int
    source: int
    target: int
    gold: int = -1
    sources: int = 1
    rules: str = "default"

    @property
    def name(self) -> str:
        """The tokens as they are read; those of a pair's second text after a bar."""
        parts = [[t for t, s in zip(self.tokens, self.segments, strict=True) if s == segment] for segment in (0, 1)]
        return " ".join([*parts[0], *(["|", *parts[1]] if parts[1] else [])]) or "(no word)"


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
    tokens i and j of the strongest become a trigger, with their relative places and segments (Hao et al. 2021,
    section on adversarial attack). An interaction counts with its highest score over layers and heads, and only
    if it brings a token that the stronger ones have not brought.

    rules="reference" is the published script's choice: the two largest entries of the one map (layer and head)
    that holds the largest entry, special tokens and a token's attention to itself included. [CLS] and [SEP] are
    taken out at insertion, so such a trigger may hold no word at all; none is merged; and since that script
    stops at the first pattern below the threshold, it loses the last one if none is below.

    Args:
        explanations: any iterable; each is read once, and let go.
        labels: the gold class of each, as a number; None where it is not known.
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
        TypeError, ValueError: numbers out of range, as many labels as explanations are not given, maps that are
            not finite, no explanation above the threshold, or only special tokens above it.

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
        raise TypeError(f"explanations must be several, got {type(explanations).__name__}; use [explanation]")
    if labels is not None and not hasattr(labels, "__len__"):
        raise TypeError(f"labels must be a list of numbers, got {type(labels).__name__}")
    patterns: list[Pattern] = []
    for number, explanation in enumerate(explanations):
        if not isinstance(explanation, Explanation):
            raise TypeError(f"explanations[{number}] must be an Explanation, got {type(explanation).__name__}")
        if labels is not None and number >= len(labels):
            raise ValueError(f"{len(labels)} labels for more explanations; give one for each")
        label = -1 if labels is None else labels[number]
        gold = integer(label)
        if gold is None:
            raise TypeError(f"labels[{number}] must be the number of a class, got {label!r}")
        patterns.append(pattern_of(explanation, number, gold, pairs, special_tokens, rules))
    if labels is not None and len(labels) != len(patterns):
        raise ValueError(f"{len(labels)} labels for {len(patterns)} explanations; give one for each")
    return triggers_of(patterns, ratio=ratio, min_score=min_score, merge=merge, rules=rules)


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
        ValueError: no pattern, none above the threshold, or only special tokens above it.
    """
    _, ratio, min_score = check_options(2, ratio, min_score, rules)
    patterns = list(patterns)
    for number, pattern in enumerate(patterns):
        if not isinstance(pattern, Pattern):
            raise TypeError(f"patterns[{number}] must be a Pattern, got {type(pattern).__name__}")
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
    why = "" if best > 0 else "; no example has a positive interaction between words (see special_tokens)"
    return ValueError(f"no trigger has a score of min_score={min_score} or more; the highest is {best:.4g}{why}")


def _trigger(pattern: Pattern, ratio: float) -> Trigger:
    words = pattern.words
    strong = _strong(pattern.interactions, ratio)
    places = [place for place in _places(strong) if words[place]]
    order: dict[int, list[int]] = {0: [], 1: []}
    for place, segment in enumerate(pattern.segments):
        if not pattern.special[place]:
            order[segment].append(place)
    relative = []
    for place in places:
        own = order[pattern.segments[place]]
        relative.append(own.index(place) / (len(own) - 1) if len(own) > 1 else 0.0)
    made = _made(pattern, places, relative, [pattern.segments[place] for place in places])
    return replace(made, score=math.fsum(score for score, *_ in strong))


def reference_trigger(pattern: Pattern, ratio: float) -> Trigger:
    """The trigger that the published script makes of a pattern; it may hold no token."""
    tokens, end = pattern.tokens, pattern.separator
    gone = _MARKERS | {token for token, special in zip(tokens, pattern.special, strict=True) if special}
    places = [place for place in _places(_strong(pattern.interactions[:2], ratio)) if tokens[place] not in gone]
    # [CLS] is counted, so that the first token's ratio is above 0 and the last one's is 1.
    last = {0: end - 1, 1: len(tokens) - 2 - end}
    segments = [int(p > end) for p in places]
    relative = [(p - end * s) / max(last[s], 1) for p, s in zip(places, segments, strict=True)]
    return replace(_made(pattern, places, relative, segments), rules="reference")


def _strong(interactions: Sequence[Interaction], ratio: float) -> list[Interaction]:
    """The first interaction, and those that are not too weak beside it."""
    first = interactions[0][0]
    return [
        *interactions[:1],
        *(one for one in interactions[1:] if not ratio or (first and one[0] / first >= ratio)),
    ]


def _places(interactions: Sequence[Interaction]) -> list[int]:
    """Positions of the tokens, each once, from left to right."""
    return sorted({place for *_, query, key in interactions for place in (query, key)})


def _made(pattern: Pattern, places: list[int], relative: list[float], segments: list[int]) -> Trigger:
    return Trigger(
        tokens=tuple(pattern.tokens[place] for place in places),
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
    found: dict[Any, Trigger] = {}
    for trigger in triggers:  # the highest score comes first, and stays
        key = trigger.tokens, trigger.segments, trigger.target
        first = found.get(key)
        found[key] = replace(first, sources=first.sources + trigger.sources) if first else trigger
    return list(found.values())


def compose_triggers(triggers: Sequence[Trigger], max_words: int = 5) -> list[Trigger]:
    """Combine the strongest triggers of each class.

    Args:
        triggers: of `extract_triggers`; the order is theirs.
        max_words: tokens of a composed trigger, at most (Hao et al. 2021 use fewer than five).

    Returns:
        For every class that has two triggers or more, one trigger of their tokens: whole triggers as long as they
        fit, the strongest first, each token of a text once, all in the order of their places. Classes in the order
        of their strongest.

    Raises:
        TypeError, ValueError: no trigger, or `max_words` below 2.
    """
    max_words, triggers = at_least(2, max_words, "max_words"), list(triggers)
    if not triggers:
        raise ValueError("triggers is empty: give at least one trigger")
    for number, trigger in enumerate(triggers):
        check_trigger(trigger, f"triggers[{number}]")
    composed = []
    for target in dict.fromkeys(trigger.target for trigger in triggers):
        parts: list[tuple[int, float, str]] = []
        used: list[Trigger] = []
        for trigger in (t for t in triggers if t.target == target):
            own = zip(trigger.segments, trigger.positions, trigger.tokens, strict=True)
            new = [part for part in own if all((part[0], part[2]) != (p[0], p[2]) for p in parts)]
            if new and len(parts) + len(new) <= max_words:
                parts += new
                used.append(trigger)
        if len(used) > 1:
            segments, positions, tokens = zip(*sorted(parts), strict=True)
            composed.append(
                replace(
                    used[0],
                    tokens=tokens,
                    positions=positions,
                    segments=segments,
                    score=math.fsum(trigger.score for trigger in used),
                    source=-1,
                    gold=-1,
                    sources=sum(trigger.sources for trigger in used),
                )
            )
    return composed


def save_triggers(triggers: Sequence[Trigger], path: str | os.PathLike[str]) -> Path:
    """Write triggers to a JSON file, whole or not at all.

    Args:
        triggers: any.
        path: the file; replaced if it exists.

    Returns:
        The path.

    Raises:
        ValueError: the directory does not exist, or `path` is one.
    """
    content = {"format": _FORMAT, "version": 1, "triggers": [asdict(trigger) for trigger in triggers]}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return Path(path)


def load_triggers(path: str | os.PathLike[str]) -> list[Trigger]:
    """Read what `save_triggers` wrote.

    Args:
        path: the file.

    Returns:
        The triggers, in the file's order.

    Raises:
        FileNotFoundError: there is no such file.
        ResultFileError: not a file of `save_triggers`, or damaged; the message names the entry and the key.
    """
    file = existing_file(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT or content["version"] != 1:
            raise ValueError("another format or version")
        return [trigger_from(entry, f"trigger {number}") for number, entry in enumerate(content["triggers"])]
    except (ValueError, KeyError, TypeError) as error:
        raise ResultFileError(f"{str(path)!r} holds no triggers: {error}") from error


def trigger_from(entry: Any, where: str) -> Trigger:
    """A trigger of its JSON form.

    Raises:
        ValueError: another form; the message names the key.
    """
    names = [field.name for field in fields(Trigger)]
    if not isinstance(entry, dict) or entry.keys() != set(names):
        raise ValueError(f"{where} must have the keys {', '.join(names)}")
    for name in ("tokens", "positions", "segments"):
        if not isinstance(entry[name], list) or len(entry[name]) != len(entry["tokens"]):
            raise ValueError(f"{where}: {name!r} must be a list, as long as 'tokens'")
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in entry.items()}
    trigger = Trigger(**values)
    check_trigger(trigger, where)
    return trigger


def check_trigger(trigger: Any, where: str) -> None:
    """Refuse what is no trigger, or has numbers that mean nothing.

    Raises:
        TypeError, ValueError: names the value.
    """
    if not isinstance(trigger, Trigger):
        raise TypeError(f"{where} must be a Trigger, got {type(trigger).__name__}")
    for name in ("score", "layer", "head", "source", "target", "gold", "sources"):
        value = getattr(trigger, name)
        if not isinstance(value, int | float if name == "score" else int) or not math.isfinite(value):
            raise ValueError(f"{where}: {name}={value!r} must be {'a finite' if name == 'score' else 'a whole'} number")
    tokens: Any = trigger.tokens
    if isinstance(tokens, str):
        raise ValueError(f"{where}: tokens={tokens!r} must be several texts, as ({tokens!r},)")
    if not len(trigger.tokens) == len(trigger.positions) == len(trigger.segments):
        raise ValueError(f"{where}: tokens, positions and segments must be as many, got {trigger!r}")
    if trigger.rules not in RULES:
        raise ValueError(f"{where}: rules={trigger.rules!r} is unknown; use 'default' or 'reference'")
    wrong: list[Any] = [token for token in trigger.tokens if not isinstance(token, str) or not token]
    wrong += [place for place in trigger.positions if not isinstance(place, int | float) or not 0 <= place <= 1]
    wrong += [segment for segment in trigger.segments if segment not in (0, 1)]
    if wrong:
        raise ValueError(
            f"{where}: {wrong[0]!r} makes no sense; tokens are texts, positions from 0 to 1, segments 0 or 1"
        )
