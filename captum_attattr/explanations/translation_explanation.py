"""`TranslationExplanation`: one token of a text that an encoder-decoder wrote, with the maps of all its attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_attattr import checks
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.explanation_checks import inputs_by_name

KINDS = ("encoder", "decoder", "cross")
"""Of attention, as in `attention_layers`."""


@dataclass(frozen=True, eq=False, repr=False)
class TranslationExplanation(Explanation):
    """What every layer's attention did for one token that an encoder-decoder wrote, the source and what it had read.

    An `Explanation` of T = S + D tokens: first the S of the source, then the D that the decoder had read, those that it
    starts with and the answer so far. A layer is one attention module, and L counts all of them in the order in which
    they run: the encoder's, then of each decoder block its own and its cross attention. In `attributions` (L, H, T, T)
    a layer has scores where its queries and keys are: the encoder's in the first S rows and columns, the decoder's own
    in the last D, cross attention's in the last D rows and the first S columns; `encoder`, `decoder` and `cross` are
    these parts. So token scores, trees and views are of all three together: along the joint path everything adds up
    to F(A) - F(B). What runs the model again for a text (`removal_effects`, `faithfulness`) does not take it.

    Attributes:
        kinds: (L,) "encoder", "decoder" or "cross" of each layer.
        segments: (T,) 0 for the source, 1 for what the decoder had read.
        inputs: the model's inputs by name: `input_ids` and the like (1, S), `decoder_input_ids` (1, D).

    Raises:
        TypeError, ValueError: as `Explanation`; kinds or segments that are no such thing.
    """

    kinds: Sequence[str] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = [checks.one_of("kinds", kind, KINDS) for kind in checks.sequence("kinds", self.kinds)]
        if len(kinds) != len(self.layers):
            raise ValueError(f"kinds must have {len(self.layers)} entries, one for each layer, not {len(kinds)}")
        if self.segments != sorted(self.segments) or set(self.segments) != {0, 1}:
            raise ValueError("segments must be 0 for each token of the source, then 1 for each of the decoder's")
        checks.set_fields(self, kinds=kinds)

    @staticmethod
    def checked_inputs(inputs: Any, tokens: int) -> dict[str, Tensor]:
        """Return inputs by name, each of one example; the source and what is written have lengths of their own."""
        return inputs_by_name(inputs, lambda *_: (1, "T"))

    @property
    def source(self) -> int:
        """S, the tokens of the source."""
        return self.segments.count(0)

    @property
    def encoder(self) -> Tensor:
        """The maps of the encoder's layers, (encoder layers, H, S, S): between tokens of the source."""
        return self.part("encoder")

    @property
    def cross(self) -> Tensor:
        """The maps of cross attention, (decoder layers, H, D, S): what each token of the decoder read in the source."""
        return self.part("cross")

    @property
    def decoder(self) -> Tensor:
        """The maps of the decoder's own attention, (decoder layers, H, D, D)."""
        return self.part("decoder")

    def part(self, kind: str, *, attention: bool = False) -> Tensor:
        """Return the maps of one kind, by query and key.

        Args:
            kind: "encoder", "decoder" or "cross".
            attention: the attention probabilities instead of the attributions.

        Raises:
            ValueError: there is no such kind, or the attention was not kept.
        """
        maps = self.attention if attention else self.attributions
        if maps is None:
            raise ValueError("attention was not kept: explain with attention=True")
        chosen = [row for row, each in enumerate(self.kinds) if each == checks.one_of("kind", kind, KINDS)]
        return maps[chosen][(..., *places(kind, self.source))]


def places(kind: str, source: int) -> tuple[slice, slice]:
    """Return where the queries and the keys of a kind of attention are among S + D tokens."""
    of_source, of_decoder = slice(0, source), slice(source, None)
    return of_source if kind == "encoder" else of_decoder, of_decoder if kind == "decoder" else of_source


def placed(maps: Tensor, kind: str, source: int, tokens: int) -> Tensor:
    """Return maps (B, H, queries, keys) of one kind among all tokens, (B, H, T, T)."""
    whole = torch.zeros(*maps.shape[:2], tokens, tokens, dtype=maps.dtype, device=maps.device)
    whole[(..., *places(kind, source))] = maps
    return whole
