"""Texts from data sets as plotly can show them: escaped, of bounded length.

Tokens are not to be trusted: plotly reads a small HTML of its own in labels, so every text is escaped here; as
JSON in a page it is escaped again.
"""

from __future__ import annotations

import html
import math

from captum_attattr.formatting import cells, score, visible

LABEL = 14  # characters of a token on an axis; the hover shows the rest
NAME = 40  # characters of the name of a method, a curve or a metric
HOVER = 600  # characters of a token in a hover
HOVER_LINE = 60  # and in one line of it


CHARACTER = 6.2  # pixels of a character of an axis label


def escape(text: str) -> str:
    """`text` so that plotly shows it as it is: no tags, no entities, no TeX, no template.

    The isolates keep a right-to-left token from turning round the words beside it.
    """
    escaped = html.escape(text, quote=False).replace("$", "&#36;").replace("%", "&#37;")
    return f"\u2068{escaped}\u2069"


def label(token: str) -> str:
    """A token for an axis."""
    return escape(visible(token, LABEL))


def wrapped(token: str) -> str:
    """A token for a hover: all of it, on several lines if it is long."""
    shown = visible(token, HOVER)
    return "<br>".join(escape(shown[i : i + HOVER_LINE]) for i in range(0, len(shown), HOVER_LINE))


def length(token: str) -> int:
    """Pixels of a token's label."""
    return math.ceil(pixels(visible(token, LABEL)))


def pixels(text: str) -> float:
    """Of a text as it is."""
    return CHARACTER * cells(text)


def named(name: str) -> str:
    """The name of a method, a curve or a metric, for menus, legends and titles."""
    return escape(visible(name, NAME))


def predicted(what: str, of: str, target: int, value: float | None) -> str:
    """The title of a figure: what it is, and which prediction it explains."""
    return ", ".join(filter(None, [f"{what}: <b>{named(of.strip() or of)}</b> (target {target})", score(value)]))
