"""`Trigger`: a few words with their places in a text, and the files that hold triggers."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from captum_attattr import checks
from captum_attattr.checks import checked_arguments
from captum_attattr.files import from_entry, read_format, reading, write_json

RULES = ("default", "reference")
_FORMAT = "captum_attattr triggers"


@dataclass(frozen=True)
class Trigger:
    """A few words to be inserted into other inputs. A trigger checks itself when it is made.

    Attributes:
        tokens: the words or word pieces, in the order of their positions.
        positions: where each goes in its text, from 0 (first) to 1 (last). Under the rules "reference" the
            published script's ratio, p / (number of tokens) with p counted from 1.
        segments: 0 where a token goes into the first text, 1 for the second of a pair.
        score: the sum of the scores of the interactions that the tokens come from; under the rules "reference"
            of both interactions, also where `ratio` left the second one out.
        layer, head: where the strongest of them is; -1 where that is not known.
        source: the index of the example it comes from; -1 for a composed trigger.
        target: the class that the interactions speak for, the source's predicted one by default.
        gold: the gold class of the source; -1 where it is not known.
        sources: how many examples gave the same tokens; of a composed trigger, the sum of its parts'.
        rules: "default" or "reference": how `insert_trigger` places the tokens.

    Raises:
        TypeError, ValueError: a value of another type or range, or tokens, positions and segments that are not as
            many; the message names it.
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

    def __post_init__(self) -> None:
        tokens = checks.strings("tokens", self.tokens)
        positions = checks.reals("positions", self.positions, len(tokens))
        segments = checks.integers("segments", self.segments, len(tokens))
        check_rules(self.rules)
        checks.set_fields(
            self,
            tokens=tuple(tokens),
            positions=tuple(checks.fraction("position", position) for position in positions),
            segments=tuple(checks.index("segment", segment, 2) for segment in segments),
            score=checks.finite("score", self.score),
            layer=checks.at_least(-1, self.layer, "layer"),
            head=checks.at_least(-1, self.head, "head"),
            source=checks.at_least(-1, self.source, "source"),
            target=checks.integers("target", [self.target])[0],
            gold=checks.integers("gold", [self.gold])[0],
            sources=checks.at_least(1, self.sources, "sources"),
        )

    @property
    def name(self) -> str:
        """The tokens as they are read; those of a pair's second text after a bar."""
        parts = [[t for t, s in zip(self.tokens, self.segments, strict=True) if s == segment] for segment in (0, 1)]
        return " ".join([*parts[0], *(["|", *parts[1]] if parts[1] else [])]) or "(no word)"


def check_rules(rules: Any) -> None:
    """Check that rules are "default" or "reference".

    Raises:
        ValueError: they are something else.
    """
    if rules not in RULES:
        raise ValueError(f"rules={rules!r} is unknown; use 'default' or 'reference'")


def checked_triggers(triggers: Any) -> list[Trigger]:
    """Return a list of triggers.

    Raises:
        TypeError: it is no list or other iterable of triggers; the message has the index.
    """
    if isinstance(triggers, str) or not isinstance(triggers, Iterable):
        raise TypeError(f"triggers must be a list of Trigger, not {type(triggers).__name__}: {triggers!r:.60}")
    return [checks.instance(f"triggers[{i}]", trigger, Trigger, "a Trigger") for i, trigger in enumerate(triggers)]


@checked_arguments
def save_triggers(triggers: Iterable[Trigger], path: str | os.PathLike[str]) -> Path:
    """Write triggers to a JSON file, whole or not at all.

    Args:
        triggers: of `extract_triggers`, `triggers_of` or `compose_triggers`.
        path: the file; replaced if it exists.

    Returns:
        The path.

    Raises:
        TypeError: `triggers` holds something else, or `path` is no path.
        ValueError: the directory does not exist, or `path` is one.

    Example:
        >>> import tempfile
        >>> triggers = [Trigger(("dull", "film"), (0.0, 1.0), (0, 0), 0.5, layer=1, head=2, source=0, target=0)]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     load_triggers(save_triggers(triggers, f"{folder}/triggers.json")) == triggers
        True
    """
    entries = [asdict(trigger) for trigger in checked_triggers(triggers)]
    return write_json(path, {"format": _FORMAT, "version": 1, "triggers": entries})


@checked_arguments
def load_triggers(path: str | os.PathLike[str]) -> list[Trigger]:
    """Read what `save_triggers` wrote.

    Args:
        path: the file.

    Returns:
        The triggers, in the file's order.

    Raises:
        TypeError, FileNotFoundError: `path` is no path, or there is no such file.
        ResultFileError: not a file of `save_triggers`, or damaged; the message names the trigger and the value.
    """
    with reading(path, "triggers", "save_triggers") as file:
        entries = checks.sequence("triggers", read_format(file, _FORMAT)["triggers"])
        return [from_entry(Trigger, entry, f"triggers[{i}]") for i, entry in enumerate(entries)]
