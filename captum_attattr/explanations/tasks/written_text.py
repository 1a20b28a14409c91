"""The token that comes next in a text that an encoder-decoder writes for another."""

from __future__ import annotations

from typing import ClassVar

from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.tasks.whole_text import WholeText


class WrittenText(WholeText):
    """The next token of a text that is written for a source; it is decided at the last token that is written."""

    name: ClassVar[str] = "next_token"

    def positions(self, item: Encoded, target: int) -> list[int]:
        """Return the token behind which the next one comes."""
        return [item.length - 1]
