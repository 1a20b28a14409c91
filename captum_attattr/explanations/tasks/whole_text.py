"""Decisions about a whole text: its class, its score, or the token that comes next. Base of the other tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from captum_attattr.explanations.encoding import Encoded

if TYPE_CHECKING:
    from captum_attattr.explanations.text_model import TextModel


POSITION, OTHER, CONTRAST = "position", "other", "contrast"
"""Names, beside those of the model's inputs, of what F depends on: the token at which it is read (B, 1), the vector of
another text (B, D), the target whose output is taken off (B, 1)."""
BESIDE = (POSITION, OTHER, CONTRAST)


def all_targets(index: int, target: Any) -> list[Any]:
    """Return the targets of a text, of which one or a list was given.

    Raises:
        ValueError: the list is empty.
    """
    if isinstance(target, list) and not target:
        raise ValueError(f"target of texts[{index}] is an empty list: give one or more, or None for the model's own")
    return target if isinstance(target, list) else [target]


class WholeText:
    """A task whose F is one of C outputs for a text.

    A target is an integer, the index of its output; what users call it is understood by `decisions`.

    Args:
        texts: the model; it says what outputs are called and what F is made of them.

    Attributes:
        name: of the task in explanations; "" where the decision is about the whole text.
        reads_one: whether F is read at one token of a text, whose position goes with the inputs.
        several: whether a list of targets asks for several decisions about one text.
    """

    name: ClassVar[str] = ""
    reads_one: ClassVar[bool] = False
    several: ClassVar[bool] = False

    def __init__(self, texts: TextModel) -> None:
        self.texts = texts

    def read(self, output: Any, beside: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (B, C) that F is made of.

        Args:
            output: of the model.
            beside: what else F depends on, by name, of `BESIDE`.
        """
        logits: Tensor = output.logits
        return logits[:, -1] if self.texts.language else logits

    def encoded(self, text: Any, encode: Callable[[Any], Encoded]) -> Encoded:
        """Return a text as the model takes it; `encode` makes it of one sequence of tokens."""
        return encode(text)

    def prepared(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return inputs as `TextModel.logits` takes them, of those that texts and explanations hold."""
        return inputs

    def foresee(self, target: Any, contrast: Any) -> None:
        """Check what is asked for of all texts, before there is one.

        Raises:
            TypeError, ValueError: there is no such decision, whatever the text.
        """
        self.texts.contrasted(0, target, contrast)

    def decisions(self, item: Encoded, target: Any, contrast: Any) -> list[Encoded]:
        """Return a text once for each decision about it that is asked for.

        Args:
            item: the text.
            target: what a user names: None for what the model decides.
            contrast: likewise; None for none.

        Raises:
            TypeError, ValueError: there is no such decision.
        """
        target, contrast = self.texts.contrasted(item.index, target, contrast)
        return [replace(item, target=target, contrast=contrast)]

    def undecided(self, item: Encoded) -> bool:
        """Return whether the model has to run before it is known which decision is explained."""
        return item.asked is not None or (item.contrast is not None and item.target is None)

    def decided(self, item: Encoded, output: Any) -> list[Encoded]:
        """Return a text that is `undecided` once for each decision that the model's output makes of what was asked.

        Raises:
            ValueError: it is contrasted with itself.
        """
        return [self.against(item, self.predicted([item], self.read(output, {}))[0])]

    def against(self, item: Encoded, target: int) -> Encoded:
        """Return a text with the target that the model's output chose.

        Raises:
            ValueError: it is contrasted with that.
        """
        if target == item.contrast:
            raise ValueError(
                f"contrast {self.label(item, target)!r} of texts[{item.index}] is what the model predicts; give "
                "the target to contrast it with, or another contrast"
            )
        return replace(item, target=target, asked=None)

    def predicted(self, items: Sequence[Encoded], values: Tensor) -> list[int]:
        """Return what the model decides about each text, of its outputs (B, C): logits, or what rises with them."""
        predicted: list[int] = values.argmax(-1).tolist()
        return predicted

    def label(self, item: Encoded, target: int) -> str:
        """Return the name of a target."""
        return self.texts.label(target)

    def positions(self, item: Encoded, target: int) -> list[int]:
        """Return the tokens that a decision is about; none if that is the whole text."""
        return []

    def count(self, length: int) -> int:
        """Return C, of a text of so many tokens."""
        return self.texts.size

    @property
    def cut(self) -> str:
        """What to say, behind what is not there, of texts that may have been cut; "" where none is."""
        return f"; truncate leaves {self.texts.longest} tokens of a text" if self.texts.truncate else ""
