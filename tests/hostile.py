"""Texts that would act if they were not shown literally, and how to find what a figure or a page made of them."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<b>bold</b>",
    "<a href='https://evil.example'>link</a>",
    "\"double\" and 'single'",
    "&amp;",
    "&#60;b&#62;",
    "שלום עולם",
    "\u202eturned",
    "👩‍👩‍👧‍👦",
    "two\nlines\r\nand\ttab",
    "x" * 300,
    "$E=mc^2$",
    "%{x} %{meta}",
    "half \ud800 pair",
    "nul \x00 bell \x07",
    "",
    "  ",
    "the",
    "the",
]


def every_text(value: Any) -> list[str]:
    """All strings of a figure's JSON: what plotly may read as text."""
    if isinstance(value, dict):
        return [text for each in value.values() for text in every_text(each)]
    if isinstance(value, list | tuple):
        return [text for each in value for text in every_text(each)]
    return [value] if isinstance(value, str) else []


class Page(HTMLParser):
    """What a browser's parser would make of a page: its elements, and the texts outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] != "script":
            self.texts.append(data)
