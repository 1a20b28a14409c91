"""One colour for each way to attribute, the same in all figures."""

from __future__ import annotations

import zlib

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
