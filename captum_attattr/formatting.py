"""Texts from data sets as plotly can show them: visible, escaped, of bounded length.

Tokens are not to be trusted: plotly reads a small HTML of its own in labels, so every text is escaped here; as
JSON in a page it is escaped again.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any


def visible(token: str, length: int) -> str:
    """At most `length` characters of `token`, with what would act instead of being seen spelt out."""
    token = token.replace("\r\n", "↵").replace("\n", "↵").replace("\t", "⇥")
    if not token.strip():
        return "␣" * min(len(token), length) or "∅"
    # Controls, text direction, halves of pairs, line separators; not the joiners inside emoji and scripts.
    acting = ("Cc", "Cf", "Cs", "Zl", "Zp")
    shown = "".join(
        c if c in "\u200c\u200d" or unicodedata.category(c) not in acting else f"\\u{ord(c):04x}" for c in token
    )
    return shown if len(shown) <= length else shown[: length - 1].rstrip("\u200d\ufe0f ") + "…"


def cells(text: str) -> int:
    """Columns of a text in a terminal: wide characters take two, those that join the one before none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)


def signed(value: float) -> str:
    """A number with its sign, in three digits."""
    return f"{value:+.3g}".replace("-", "−")


def number(value: float) -> str:
    """A number in three digits."""
    return f"{value:.3g}".replace("-", "−")


def counted(count: int, noun: str) -> str:
    """ "1 example", "2 examples"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def score(value: float | None) -> str:
    """What a prediction is worth: "probability 0.9"; "score −3.2" for a regression model; "" if it is not known."""
    if value is None or not math.isfinite(value):
        return ""
    return f"{'probability' if 0 <= value <= 1 else 'score'} {number(value)}"


def whole_text(text: str | Sequence[str]) -> str:
    """A text, or both of a pair, as one."""
    return text if isinstance(text, str) else " ‖ ".join(text)


def counting(about: Mapping[str, Any]) -> list[str]:
    """The layers and heads that count in a tree, if not all do: "head 3 alone", "layers 0, 2 alone"."""
    chosen = {name: about.get(name) for name in ("layers", "heads")}
    return [
        f"{name if len(numbers) > 1 else name[:-1]} {', '.join(map(str, numbers))} alone"
        for name, numbers in chosen.items()
        if numbers
    ]


def file_size(count: float) -> str:
    """Return a number of bytes for people: "3.2 GB"."""
    unit = "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if count >= 1000:
            count, unit = count / 1000, larger
    return f"{count:.3g} {unit}"


def duration(seconds: float) -> str:
    """Return a time for people: "40 s", "12 min", "3 h"."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(1, round(seconds))} s"
