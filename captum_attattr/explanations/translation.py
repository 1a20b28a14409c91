"""Encoder-decoders that write a text for another (T5, BART, Marian ...): the source read, the answer begun, and scored.

A source of S tokens goes through the encoder; the decoder starts with a token or two of its own and reads what it has
written. F is the output for the token that comes next. It depends on three kinds of attention: the encoder's, among the
source; cross attention, of the decoder's tokens to the source; the decoder's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_attattr.attribution.column_sums import Keys
from captum_attattr.attribution.integration import PathIntegral
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.explanations.answer_scores import AnswerScorer
from captum_attattr.explanations.answers import Prompt, Writing
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.explainer import Explainer, TokenAttAttr
from captum_attattr.explanations.explanation import Explanation
from captum_attattr.explanations.settings import Settings
from captum_attattr.explanations.special_tokens import special_ids
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.explanations.translation_explanation import TranslationExplanation, placed
from captum_attattr.formatting import whole_text
from captum_attattr.model.attention_layers import AttentionLayer, attention_calls, every_layer
from captum_attattr.model.wrappers import TEXT_TO_TEXT, writes_from_source

SOURCE_IDS, DECODER_IDS = "input_ids", "decoder_input_ids"


@dataclass
class Translated(Encoded):
    """A source with what has been written for it: T = S + D tokens."""

    @property
    def ids(self) -> list[int]:
        """(T,) the ids of the source, then the decoder's."""
        written: list[int] = self.encoding[DECODER_IDS][0].tolist()
        return super().ids + written

    @property
    def length(self) -> int:
        """T."""
        return super().length + int(self.encoding[DECODER_IDS].shape[1])


class TranslationModel(TextModel):
    """An encoder-decoder. Its layers are all attention modules: the encoder's, then those of each decoder block."""

    def __init__(self, model: nn.Module, tokenizer: Any, truncate: bool | int, **reading: Any) -> None:
        super().__init__(model, tokenizer, truncate, **reading | {"tasks": (TEXT_TO_TEXT,)})
        if getattr(tokenizer, "separate_vocabs", False):
            raise UnsupportedModelError(
                f"{type(tokenizer).__name__} has a vocabulary for each language (separate_vocabs), so that an id has "
                "two names; models with one for both are explained"
            )
        order = {name: i for i, (name, *_) in enumerate(attention_calls(self.model))}
        try:
            every = [layer for kind in ("encoder", "decoder", "cross") for layer in every_layer(self.model, kind)]
        except ValueError as error:
            raise UnsupportedModelError(f"{error}: source and answer need attention of their own") from None
        every.sort(key=lambda layer: (layer.kind != "encoder", order[layer.name]))
        self.kinds = [layer.kind for layer in every]
        every = [replace(layer, index=i) for i, layer in enumerate(every)]
        self.layers: list[AttentionLayer] = [layer for layer in every if layer.kept is None or layer.kept.indices]
        self.depth = len(every)
        own, across = ([i for i, kind in enumerate(self.kinds) if kind == each] for each in ("decoder", "cross"))
        self.note = (
            f"layers 0 to {self.kinds.count('encoder') - 1} are the encoder's; {', '.join(map(str, own))} the "
            f"decoder's own attention; {', '.join(map(str, across))} its attention to the source"
        )


class TranslationAttAttr(TokenAttAttr):
    """Attributes to attention among the tokens of a source and those of the decoder."""

    def check_shapes(self, inputs: tuple[Any, ...], shapes: Sequence[torch.Size]) -> None:
        """Check that every layer has a map of these tokens: of the source, of those that the decoder has read, or both.

        Raises:
            UnsupportedModelError: the model pools its tokens, or puts positions of its own beside them.
        """
        source, written = (tensor.shape[1] for tensor in inputs[:2])  # the order of `TranslationScorer.encoded`
        for layer, (_, rows, columns) in zip(self.layers, shapes, strict=True):
            queries = source if layer.kind == "encoder" else written
            if (rows, columns) != (queries, written if layer.kind == "decoder" else source):
                raise UnsupportedModelError(
                    f"{layer!r} has maps of {rows} x {columns} for {source} tokens of a source and {written} of the "
                    "decoder: the model pools its tokens, or puts positions of its own beside them. LayerAttAttr "
                    "attributes maps of any size"
                )


class TranslationExplainer(Explainer):
    """Explains the next token of texts that are written for a source; items are `Translated`."""

    texts: TranslationModel
    kind = TranslationExplanation

    def __init__(
        self, model: nn.Module, tokenizer: Any, truncate: bool | int, settings: Settings, *more: Any, **reading: Any
    ) -> None:
        super().__init__(model, tokenizer, truncate, settings, *more, **reading)
        if not ATTRIBUTIONS[settings.attribution].heads:
            whole = [name for name, entry in ATTRIBUTIONS.items() if entry.heads]
            raise ValueError(
                f"attribution={settings.attribution!r} follows one row of tokens through the layers, and "
                f"{type(self.texts.model).__name__} has two; use one of {', '.join(map(repr, whole))}"
            )

    def read(self, model: nn.Module, tokenizer: Any, truncate: bool | int, **reading: Any) -> TextModel:
        """Return the model as its inputs and outputs are understood."""
        return TranslationModel(model, tokenizer, truncate, **reading)

    def attribution_of(self, forward: Callable[..., Tensor]) -> TokenAttAttr:
        """Return what attributes the outputs of a forward function."""
        return TranslationAttAttr(forward, self.layers)

    def explanation(
        self, item: Encoded, target: int, prediction: int, probability: float, result: PathIntegral, row: int
    ) -> Explanation:
        """Return the explanation of one row of a batch, whose maps are put among all tokens."""
        source, kinds = item.segments.count(0), [layer.kind for layer in self.layers]
        attributions, attention = (
            [placed(map_, kind, source, item.length) for map_, kind in zip(maps, kinds, strict=bool(maps))]
            for maps in (result.attributions, result.attention)
        )
        whole = replace(result, attributions=attributions, attention=attention)
        return super().explanation(item, target, prediction, probability, whole, row)

    def made(self, item: Encoded, **found: Any) -> Explanation:
        """Return the explanation of an example, of what was read and what was found."""
        return super().made(item, kinds=[self.texts.kinds[number] for number in self.numbers], **found)


class TranslationScorer(AnswerScorer):
    """Scores the tokens of an answer that an encoder-decoder wrote; S, of the prompt, is what the encoder reads."""

    looks_back = True  # the decoder does, and nothing else changes with what is written

    def encoded(self, end: int, target: int | None = None, contrast: int | None = None) -> Encoded:
        """Return the source with what was written up to a token, as the model takes it."""
        texts = self.explainer.texts
        item = texts.encode(0, self.ids[: self.source], target, contrast)
        written, special = self.ids[self.source : end], special_ids(texts.tokenizer)
        with torch.device("cpu"):
            ids = {SOURCE_IDS: item.encoding[SOURCE_IDS], DECODER_IDS: torch.tensor([written])}
        return Translated(
            index=item.index,
            text=(whole_text(item.text), str(texts.tokenizer.decode(written))),
            encoding=ids | item.encoding,
            special=item.special + [i in special for i in written],
            segments=[0] * self.source + [1] * len(written),
            target=item.target,
            contrast=item.contrast,
        )

    def keys(self, item: Encoded) -> Keys:
        """Return which tokens the columns of the layers' maps are: the source's, or the decoder's own."""
        first = [self.source if layer.kind == "decoder" else 0 for layer in self.explainer.layers]
        return Keys(first, item.length)


@dataclass
class Source(Prompt):
    """A source, and the tokens that the decoder starts with: its own, and what has to come first, as a language."""

    def __post_init__(self) -> None:
        self._forced = self._configured("forced_bos_token_id")
        first = self._configured("decoder_start_token_id")
        first = self._configured("bos_token_id") if first is None else first
        if first is None:
            raise ValueError(
                f"{type(self.texts.model).__name__} does not say what its decoder starts with: set "
                "model.generation_config.decoder_start_token_id"
            )
        self.start = [first] + ([] if self._forced is None else [self._forced])

    def _configured(self, name: str) -> int | None:
        """Return an id that says how the model begins to write, or None."""
        configs = (getattr(self.texts.model, each, None) for each in ("generation_config", "config"))
        return next((int(i) for config in configs if isinstance(i := getattr(config, name, None), int)), None)

    @property
    def room(self) -> int:
        """How many tokens an answer may have: the decoder does not read the last one."""
        return self.texts.longest - len(self.start) + 1

    def split(self, generated: str) -> list[int]:
        """Return the ids of a text as the tokenizer's target side splits it, without special tokens at its end.

        Those before it, as a language, are what the decoder starts with.

        Raises:
            ValueError: the tokenizer starts with other tokens than the model.
        """
        tokenizer = self.texts.tokenizer
        whole = tokenizer(text_target=generated)["input_ids"]
        ids: list[int] = tokenizer(text_target=generated, add_special_tokens=False)["input_ids"]
        at = next((i for i in range(len(whole)) if whole[i : i + len(ids)] == ids), 0)
        leading = [int(i) for i in whole[:at]]
        if self._forced is None:
            self.start += leading
        elif leading not in ([], [self._forced]):
            wanted, forced = (tokenizer.convert_ids_to_tokens(each) for each in (leading, [self._forced]))
            raise ValueError(
                f"generated begins with {wanted} as the tokenizer writes it, and the model with {forced}: set "
                "model.generation_config.forced_bos_token_id, or the tokenizer's tgt_lang"
            )
        return self.without_start([int(i) for i in ids])  # a text may carry its special tokens

    def without_start(self, ids: list[int]) -> list[int]:
        """Return the ids of an answer, without those that the decoder starts with if they are there."""
        for begun in (self.start, self.start[1:]):
            if begun and len(ids) > len(begun) and ids[: len(begun)] == begun:
                return ids[len(begun) :]
        return ids

    def write(self, model: Any, inputs: dict[str, Tensor], writing: Writing, options: dict[str, Any]) -> list[int]:
        """Return the ids that the model writes; what it has to begin with is not of the answer."""
        count = writing.max_new_tokens + len(self.start) - 1
        options = options | {"max_new_tokens": count, "decoder_start_token_id": self.start[0]}
        ids: list[int] = model.generate(**inputs, **options)[0].tolist()
        self.start = ids[: len(self.start)]
        return ids[len(self.start) :]


class Answering(NamedTuple):
    """How answers of a kind of model are explained."""

    explainer: type[Explainer]
    prompt: type[Prompt]
    scorer: type[AnswerScorer]

    @classmethod
    def of(cls, model: Any) -> Answering:
        """Return how those of a model are."""
        if isinstance(model, nn.Module) and writes_from_source(model):
            return cls(TranslationExplainer, Source, TranslationScorer)
        return cls(Explainer, Prompt, AnswerScorer)

    @property
    def given(self) -> str:
        """What answers are written from: "prompt", or "source" of an encoder-decoder."""
        return "source" if self.prompt is Source else "prompt"

    def of_model(self, model: Any, tokenizer: Any, settings: Settings, contrasted: bool, task: str | None) -> Explainer:
        """Return what explains the answers of a model.

        Raises:
            TypeError, ValueError: as `Explainer`; the model writes no text.
        """
        explainer = self.explainer(model, tokenizer, False, settings, contrasted, task=task)
        texts = explainer.texts
        if not texts.language:
            does = "classifies texts" if texts.task_name == "classification" else f"is for {texts.task_name}"
            raise ValueError(f"{type(texts.model).__name__} {does.replace('_', ' ')} and writes none: use explain")
        return explainer
