"""Numbers and texts as people read them: short, visible, with the right plural. Nothing is escaped here."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence


def visible(token: str, length: int) -> str:
    """Return at most `length` characters of a text from data, with what would act instead of being seen spelt out."""
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
    """Return the columns of a text in a terminal: wide characters take two, those that join the one before none."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)


def signed(value: float) -> str:
    """Return a number with its sign, in three digits."""
    return f"{value:+.3g}".replace("-", "−")


def number(value: float) -> str:
    """Return a number in three digits."""
    return f"{value:.3g}".replace("-", "−")


def counted(count: int, noun: str) -> str:
    """Return a count and its noun: "1 example", "2 examples"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def output_value(name: str, value: float | None, contrasted: bool = False) -> str:
    """Return what F is and its value: "probability 0.9", "logit difference −3.2"; "" if the value is not known.

    Args:
        name: what the model's task makes F; "" where that is not known, as in files of version 0.1: a value that no
            probability has is a score.
        value: F.
        contrasted: whether F is the difference of two outputs.
    """
    if value is None or not math.isfinite(value):
        return ""
    name = (name or ("probability" if 0 <= value <= 1 else "score")).replace("_", "-")
    return f"{name}{' difference' * contrasted} {number(value)}"


def path_name(path: str, baseline: str | float) -> str:
    """Return how F was integrated: "joint path from the baseline sink"; "" for the usual path from zeros."""
    whole = {"layer": "", "joint": "joint path"}[path]
    name = baseline if isinstance(baseline, str) else number(baseline)
    start = "" if baseline == "zero" else f"from the baseline {name}"
    return " ".join(filter(None, [whole, start]))


def whole_text(text: str | Sequence[str]) -> str:
    """Return a text, or both of a pair, as one."""
    return text if isinstance(text, str) else " ‖ ".join(text)


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
