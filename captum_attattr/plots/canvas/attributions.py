"""One colour for each way to attribute or to score heads, the same in all figures."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable

from captum_attattr.plots.canvas.lines import line_colours
from captum_attattr.plots.canvas.theme import GREY, Theme

_ORDER = (  # of the colours of lines: attention is blue and attribution orange, as in all figures
    "attention",
    "attattr",
    "attattr_joint",
    "gradient_attention",
    "chefer",
    "rollout",
    "alti",
    "attnlrp",
)

_HEADS = {"taylor": 3, "taylor_logits": 4, "loss_difference": 5, "accuracy_difference": 6}
"""Methods that score heads alone; such a figure has none of the attributions of the same colours."""
_COUNT = 8  # colours of lines


def ranking_colours(names: Iterable[str]) -> dict[str, dict[Theme, str]]:
    """Return the colours of rankings of heads, by name: each method its own, in every figure the same.

    A second ranking of a method, and names that are no method's, take colours that are left.

    Args:
        names: as `HeadImportance.name` has them: "attattr", "attattr (path=joint)", "taylor" ...
    """
    places: dict[str, int] = {}
    for name in (given := list(dict.fromkeys(names))):
        plain = name.strip("\u2068\u2069")
        method = re.split(r"[ (]", plain, maxsplit=1)[0]
        if method == "attattr" and "path=joint" in plain:
            method = "attattr_joint"
        place = _ORDER.index(method) if method in _ORDER else _HEADS.get(method)
        if place is not None and place not in places.values():
            places[name] = place
    left = [place for place in range(_COUNT) if place not in places.values()] or list(range(_COUNT))
    others = [name for name in given if name not in places]
    places |= {name: left[i % len(left)] for i, name in enumerate(others)}
    return {name: line_colours(places[name]) for name in given}


def attribution_colours(attribution: str, path: str = "layer") -> dict[Theme, str]:
    """Return the colours of an attribution on light and on dark pages; random is grey.

    Args:
        attribution: as `explain` has it; other names have a colour too, which they share with one of these.
        path: "joint" makes "attattr_joint" of "attattr".
    """
    if attribution == "random":
        return GREY
    if attribution == "attattr" and path == "joint":
        attribution = "attattr_joint"
    known = attribution in _ORDER
    return line_colours(_ORDER.index(attribution) if known else zlib.crc32(attribution.encode("utf-8", "replace")))
