"""Texts to a model's inputs: tokens checked, batches made."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.checks import at_least, integer, scalar
from captum_attattr.explanations.attributed_output import Outputs
from captum_attattr.explanations.explanation import Text as Text
from captum_attattr.explanations.truncation import tokenize
from captum_attattr.model.attention_layers import AttentionLayer, attention_layers, every_layer
from captum_attattr.model.families import OFFSET_POSITIONS, POSITION_LIMITS, causal_language_models
from captum_attattr.model.head_masks import active_gates
from captum_attattr.model.modes import plain
from captum_attattr.model.projections import Heads
from captum_attattr.runs.digests import data_digest, model_digest


@dataclass
class Encoded:
    """One text as the model takes it."""

    number: int
    """Its place in the list it comes from."""
    text: Text
    encoding: dict[str, Tensor]
    """The tokenizer's (1, T) tensors."""
    special: list[bool]
    segments: list[int]
    target: int | None

    @property
    def length(self) -> int:
        """T, its tokens."""
        return int(self.encoding["input_ids"].shape[1])


class TextModel(Outputs):
    """A sequence classifier or causal language model, and how its texts, outputs and targets are understood.

    Args:
        model: the model; its configuration says what its outputs mean. Of a compiled one, what was compiled.
        tokenizer: its tokenizer.
        truncate: cut texts that are too long instead of refusing them; a number cuts to at most so many tokens.

    Raises:
        TypeError: a model of another kind, or no tokenizer.
        ValueError: a decoder that classifies, whose configuration has no padding token; weights or a vocabulary that
            are not there.
        UnsupportedModelError: the model's attention cannot be read.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, truncate: bool | int) -> None:
        self.model: Any = plain(model)
        language = _is_language_model(self.model)
        check_tokenizer(tokenizer)
        config, model, truncate = self.model.config, self.model, scalar(truncate)
        super().__init__(config, tokenizer, language, _device(model))
        self.truncate, self.longest = bool(truncate), most_tokens(config, tokenizer)
        if truncate is not True and truncate is not False:
            most = integer(truncate)
            if most is None or most < 3:
                raise ValueError(f"truncate={truncate!r} must be True, False or a number of 3 or more tokens")
            self.longest = min(self.longest, most)
        self.kind = "encoder" if getattr(config, "is_encoder_decoder", False) else None
        self.layers: list[AttentionLayer] = attention_layers(model, self.kind)
        self.depth = len(every_layer(model, self.kind))
        decoder = any(layer.kind == "decoder" for layer in self.layers)
        if decoder and not self.language and getattr(config.get_text_config(), "pad_token_id", None) is None:
            raise ValueError(
                f"{type(model).__name__} cannot tell where the texts of a batch end: its config has no pad_token_id; "
                "set model.config.pad_token_id = tokenizer.pad_token_id, or tokenizer.eos_token_id where that is None"
            )
        # Positions may count padding on the left, and a decoder's any; an encoder's mask hides it on the right.
        right = getattr(tokenizer, "padding_side", "") == "right"
        self.pads = right and not decoder and getattr(tokenizer, "pad_token_id", None) is not None
        self.tokens, self.segments = _sizes(model)
        self.extra: dict[str, Any] = {}
        accepted = inspect.signature(model.forward).parameters
        self.accepted = None if any(p.kind is p.VAR_KEYWORD for p in accepted.values()) else set(accepted)
        if self.language and "use_cache" in accepted:
            self.extra["use_cache"] = False
        if self.language and "logits_to_keep" in accepted:
            self.extra["logits_to_keep"] = 1

    def encode(self, number: int, text: Text, target: Any = None) -> Encoded:
        """Tokenize and check one text."""
        limit = self.longest
        item = encode_text(self.tokenizer, number, text, limit if self.truncate else None)
        if item.length > limit:
            raise ValueError(
                f"texts[{number}] has {item.length} tokens and the model takes {limit}; shorten it, or pass "
                "truncate=True"
            )
        item.target = self.target(number, target)
        return self.taken(item)

    def taken(self, item: Encoded) -> Encoded:
        """A text with the tensors that the model accepts.

        Raises:
            ValueError: the model has no embedding of a token or a segment.
        """
        ids = item.encoding["input_ids"][0].tolist()
        if max(ids) >= self.tokens:
            token = self.tokenizer.convert_ids_to_tokens([max(ids)])[0]
            raise ValueError(
                f"texts[{item.number}] has the token {token!r} of number {max(ids)}, and the model knows {self.tokens} "
                "tokens: the tokenizer is another model's"
            )
        segment = int(item.encoding["token_type_ids"].max()) if "token_type_ids" in item.encoding else 0
        if segment >= self.segments:
            raise ValueError(
                f"texts[{item.number}] has the segment {segment}, and the model knows {self.segments}: the tokenizer "
                "is another model's"
            )
        accepted = self.accepted
        taken = {name: part for name, part in item.encoding.items() if accepted is None or name in accepted}
        return replace(item, encoding=taken)

    def encode_all(self, texts: Any) -> list[Encoded]:
        """Tokenize and check a list of texts."""
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            instead = "[text]" if isinstance(texts, str) else "list(...)"
            raise TypeError(f"examples must be a list of texts or of pairs, got {type(texts).__name__}; use {instead}")
        if not texts:
            raise ValueError("examples is empty: give at least one text or pair")
        return [self.encode(number, text) for number, text in enumerate(texts)]

    def fingerprint(self, items: Sequence[Encoded], gold: Tensor, batches: Sequence[Sequence[int]]) -> dict[str, Any]:
        """What tells a run over these examples from others: model, masks, tokens, labels, batches."""
        tokens = [{name: tensor[0].tolist() for name, tensor in item.encoding.items()} for item in items]
        data = data_digest(tokens, gold.tolist(), [list(batch) for batch in batches])
        about = {"model": model_digest(self.model), "data": data, "batch_size": max(map(len, batches))}
        return about | ({"masked": masked} if (masked := active_gates(self.model)) else {})

    def present(self, heads: int) -> Tensor:
        """(L, heads) whether a head is there, or `prune_heads` has taken it."""
        present = torch.zeros(self.depth, heads, dtype=torch.bool, device="cpu")
        for layer in self.layers:
            present[layer.index, list(layer.kept.indices) if layer.kept else slice(None)] = True
        return present

    @property
    def width(self) -> int:
        """H, heads of a layer in the original model."""
        return max(Heads(layer).original for layer in self.layers)

    def complete(self, values: Sequence[Tensor]) -> Tensor:
        """Values of every layer's heads, each (H, ...), as (L, H, ...): zeros where `prune_heads` took a head."""
        kept = [layer.kept for layer in self.layers]
        heads = max(k.of if k else len(value) for k, value in zip(kept, values, strict=True))
        whole = values[0].new_zeros(self.depth, heads, *values[0].shape[1:])
        for layer, k, value in zip(self.layers, kept, values, strict=True):
            whole[layer.index, list(k.indices) if k else slice(None)] = value
        return whole

    def batches(self, items: Sequence[Encoded], size: int) -> list[list[int]]:
        """Places of the items, longest first, at most `size` together; of one length where nothing can be padded.

        Raises:
            ValueError: `size` is no positive int.
        """
        size = at_least(1, size, "batch_size")
        places = sorted(range(len(items)), key=lambda i: (-items[i].length, i))
        batches: list[list[int]] = []
        for i in places:
            fits = bool(batches) and len(batches[-1]) < size
            if fits and (self.pads or items[batches[-1][0]].length == items[i].length):
                batches[-1].append(i)
            else:
                batches.append([i])
        return batches

    @staticmethod
    def costs(items: Sequence[Encoded], batches: Iterable[Sequence[int]]) -> list[float]:
        """What each batch takes, about: its tokens."""
        return [float(sum(items[place].length for place in batch)) for batch in batches]

    def inputs(self, items: Iterable[Encoded]) -> dict[str, Tensor]:
        """The model's arguments for a batch, padded as the tokenizer pads, on the model's device."""
        encodings = [item.encoding for item in items]
        if len({encoding["input_ids"].shape[1] for encoding in encodings}) == 1:
            batch = {name: torch.cat([encoding[name] for encoding in encodings]) for name in encodings[0]}
        else:
            plain = {name: [encoding[name][0].tolist() for encoding in encodings] for name in encodings[0]}
            with torch.device("cpu"):
                batch = dict(self.tokenizer.pad(plain, return_tensors="pt", verbose=False))
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, classes) or, of a language model, (B, vocabulary) for the next token; float32."""
        logits: Tensor = self.model(**inputs, **self.extra).logits
        return (logits[:, -1] if self.language else logits).float()

    def forward_function(self, names: Sequence[str]) -> Callable[..., Tensor]:
        """Return a function of the model's input tensors, in the order of `names`: F for every class, (B, C)."""

        def forward(*tensors: Tensor) -> Tensor:
            return self.probabilities(self.logits(dict(zip(names, tensors, strict=True))))

        return forward


def encode_text(tokenizer: Any, number: int, text: Text, longest: int | None = None) -> Encoded:
    """Tokenize and check one text or pair.

    Args:
        tokenizer: any.
        number: its place in a list, for the errors.
        text: the text or pair.
        longest: cut it to so many tokens; None to keep it whole.

    Raises:
        TypeError, ValueError: no text, or one without a token.
    """
    text = _checked(number, text)
    parts = (text,) if isinstance(text, str) else text
    with torch.device("cpu"):  # whatever torch's default is
        encoding = tokenize(tokenizer, parts, longest)
    special = [bool(flag) for flag in encoding.pop("special_tokens_mask")[0]]
    length = encoding["input_ids"].shape[1]
    if length == 0 or all(special):
        raise ValueError(f"texts[{number}] = {text!r} holds no token")
    segments = [int(part or 0) for part in encoding.sequence_ids(0)] if encoding.is_fast else [0] * length
    if len(parts) == 2 and "token_type_ids" in encoding:
        segments = encoding["token_type_ids"][0].tolist()
    return Encoded(number, text, dict(encoding), special, segments, None)


def _is_language_model(model: nn.Module) -> bool:
    """Whether the model predicts next tokens (True) or classes (False).

    Raises:
        TypeError: neither, as far as its class tells.
    """
    names = {kind.__name__ for kind in type(model).__mro__}
    if any(name.endswith("ForSequenceClassification") for name in names):
        return False
    if names & causal_language_models():
        return True
    raise TypeError(
        "expected a model for sequence classification or a causal language model, got "
        f"{type(model).__name__}; for others give LayerAttAttr a forward function of your own"
    )


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse what is no tokenizer.

    Raises:
        TypeError: names its type.
    """
    wanted = ("pad", "convert_ids_to_tokens", "model_max_length")
    if not callable(tokenizer) or not all(hasattr(tokenizer, name) for name in wanted):
        raise TypeError(f"tokenizer must be the model's tokenizer, got {type(tokenizer).__name__}")
    special = getattr(tokenizer, "all_special_tokens", [])
    if hasattr(tokenizer, "__len__") and len(tokenizer) <= len(special):
        raise ValueError(f"the tokenizer knows no word, only {special}: its vocabulary is missing where it was loaded")


def _device(model: nn.Module) -> torch.device:
    """Where a model's inputs go.

    Raises:
        ValueError: weights that are not there.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(
                f"the weights of {type(model).__name__} are not there: {name!r} is on the meta device; load them, "
                "without offloading (what is moved in only when it is used is on that device too)"
            )
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _sizes(model: Any) -> tuple[int, int]:
    """How many tokens and how many segments a model has embeddings of."""
    try:
        tokens = int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError):
        tokens = 0
    return tokens or 2**62, getattr(model.config.get_text_config(), "type_vocab_size", 0) or 2**62


def _checked(number: int, text: Any) -> Text:
    if isinstance(text, str):
        parts: tuple[Any, ...] = (text,)
    elif isinstance(text, (tuple, list)) and len(text) == 2:
        parts = tuple(text)
    else:
        raise TypeError(f"texts[{number}] must be a text or a pair of texts, got {text!r}")
    for part in parts:
        if not isinstance(part, str):
            raise TypeError(f"texts[{number}] must hold text, got {type(part).__name__}: {part!r}")
        if any("\ud800" <= character <= "\udfff" for character in part):
            raise ValueError(f"texts[{number}] = {text!r} holds half a character (a lone surrogate)")
    if not any(part.strip() for part in parts):  # one text of a pair may be empty, as in QQP
        raise ValueError(f"texts[{number}] = {text!r} is empty")
    return text if isinstance(text, str) else (parts[0], parts[1])


def most_tokens(config: Any, tokenizer: Any) -> int:
    """Most tokens that model and tokenizer take."""
    config = config.get_text_config()
    positions = next(filter(None, (getattr(config, name, None) for name in POSITION_LIMITS)), 2**62)
    if getattr(config, "position_embedding_type", "") != "relative" and config.model_type in OFFSET_POSITIONS:
        positions -= config.pad_token_id + 1
    return int(min(positions if positions > 0 else 2**62, tokenizer.model_max_length))  # XLNet says -1: any number
