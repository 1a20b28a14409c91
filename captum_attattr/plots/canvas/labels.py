"""Texts from data sets as plotly can show them: escaped, and of bounded length.

Tokens are not to be trusted: plotly reads some HTML tags in labels, so every text is escaped here; as JSON in a page
it is escaped again.
"""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from captum_attattr.explanations.decided import Telling
from captum_attattr.formatting import cells, output_value, path_name, visible

NAME_LENGTH = 40  # characters of the name of a method, a curve or a metric
HOVER_LENGTH = 600  # characters of a token in a hover
_HOVER_LINE = 60  # characters in one line of it
_TOKEN_LENGTH = 14  # characters of a token on an axis; the hover shows the rest

CHARACTER_WIDTH = 6.2  # pixels of a character of an axis label


def escape(text: str) -> str:
    """Return a text that plotly shows literally: no tags, no entities, no TeX, no template.

    The isolates around it keep a right-to-left token from turning round the words beside it.
    """
    escaped = html.escape(text, quote=False).replace("$", "&#36;").replace("%", "&#37;")
    return f"\u2068{escaped}\u2069"


def token_label(token: str) -> str:
    """Return a token for an axis: its beginning, if it is long."""
    return escape(visible(token, _TOKEN_LENGTH))


def hover_label(token: str) -> str:
    """Return a token, or another text, for a hover: the whole of it, on several lines if it is long."""
    shown = visible(token, HOVER_LENGTH)
    return "<br>".join(escape(shown[i : i + _HOVER_LINE]) for i in range(0, len(shown), _HOVER_LINE))


def name_label(name: str) -> str:
    """Return the name of a method, a curve, a class or a metric for menus, legends and titles."""
    return escape(visible(name, NAME_LENGTH))


def name_labels(names: Sequence[str]) -> list[str]:
    """Return the names of things in one figure; long ones that would read alike are cut at the other end, or not."""
    return next(labels for labels in _cut(names) if len(set(labels)) == len(set(names)))


def _cut(names: Sequence[str]) -> Iterator[list[str]]:
    whole = [visible(name, 6 * len(name) + 1) for name in names]  # a character is spelt out in six at most
    yield [name_label(name) for name in names]
    yield [escape(name if len(name) <= NAME_LENGTH else "…" + name[1 - NAME_LENGTH :]) for name in whole]
    yield [escape(name) for name in whole]
    yield [escape(f"{name} ({i})") for i, name in enumerate(whole, 1)]  # differ in what is not shown


def fitted(text: str, width: int) -> str:
    """Return a text for a title or an axis, cut to at most `width` pixels."""
    count = int(width / CHARACTER_WIDTH)
    while count > 1 and text_width(visible(text, count)) > width:
        count -= 1
    return escape(visible(text, count))


def text_width(text: str) -> float:
    """Return the width of a text in pixels, in the font of axis labels."""
    return CHARACTER_WIDTH * cells(text)


def wrapped(text: str, width: float) -> str:
    """Return a text, in plotly's HTML, in lines of at most `width` pixels, where its words allow that."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        bare = html.unescape(re.sub("<[^<>]*>|[\u2068\u2069]", "", longer))
        if 1.15 * text_width(bare) <= width:  # titles are larger than labels
            lines[-1] = longer
        else:
            lines.append(word)
    return "<br>".join(filter(None, lines))


def token_width(token: str) -> int:
    """Return the width of a token's label in pixels."""
    return math.ceil(text_width(visible(token, _TOKEN_LENGTH)))


def right_to_left(texts: Iterable[str]) -> bool:
    """Return whether most letters are of a script that runs to the left."""
    kinds = [unicodedata.bidirectional(character) for text in texts for character in text]
    return sum(kind in ("R", "AL") for kind in kinds) > sum(kind == "L" for kind in kinds)


def prediction_title(what: str, explained: Mapping[str, Any]) -> str:
    """Return the title of a figure: what it shows, which output it explains against what, along which path.

    Args:
        what: the figure shows.
        explained: the fields of an explanation, or the attributes of a tree.
    """
    names = [explained["label"], explained.get("contrast")]
    label, contrast = (name and f"<b>{name_label(name.strip() or name)}</b>" for name in names)
    telling = Telling.of(explained)
    against = "" if names[1] is None else f" against {contrast}"
    value = output_value(
        explained.get("output", ""), explained.get("value", explained["probability"]), names[1] is not None
    )
    how = path_name(explained.get("path", "layer"), explained.get("baseline", "zero"))
    prediction = f"{what}: {telling.around(str(label), name_label)} ({telling.place}){against}"
    return ", ".join(filter(None, [prediction, value, how]))
