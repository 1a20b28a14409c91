"""Texts to a model's inputs, and what its outputs mean: tokens checked, targets and labels found, batches made."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from captum_attattr.attention import AttentionLayer, attention_layers, every_layer
from captum_attattr.gates import active_gates
from captum_attattr.projections import Heads
from captum_attattr.runs import data_digest, model_digest
from captum_attattr.truncation import tokenize

Text = str | tuple[str, str]
"""A text, or a pair such as (premise, hypothesis)."""


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


class TextModel:
    """A sequence classifier or causal language model, and how its texts, outputs and targets are understood.

    Args:
        model: the model; its configuration says what its outputs mean.
        tokenizer: its tokenizer.
        truncate: cut texts that are too long instead of refusing them; a number cuts to at most so many tokens.

    Raises:
        TypeError: a model of another kind.
        ValueError: a decoder that classifies, whose configuration has no padding token.
        UnsupportedModelError: the model's attention cannot be read.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, truncate: bool | int) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.language = _is_language_model(model)
        config: Any = model.config
        self.config = config
        self.truncate, self.longest = bool(truncate), _longest(config, tokenizer)
        if truncate is not True and truncate is not False:
            if not isinstance(truncate, int) or truncate < 3:
                raise ValueError(f"truncate={truncate!r} must be True, False or a number of 3 or more tokens")
            self.longest = min(self.longest, truncate)
        self.kind = "encoder" if getattr(config, "is_encoder_decoder", False) else None
        self.layers: list[AttentionLayer] = attention_layers(model, self.kind)
        self.depth = len(every_layer(model, self.kind))
        decoder = any(layer.kind == "decoder" for layer in self.layers)
        if decoder and not self.language and config.pad_token_id is None:
            raise ValueError(
                f"{type(model).__name__} cannot tell where the texts of a batch end: its config has no pad_token_id; "
                "set model.config.pad_token_id = tokenizer.pad_token_id, or tokenizer.eos_token_id where that is None"
            )
        # Positions may count padding on the left, and a decoder's any; an encoder's mask hides it on the right.
        right = getattr(tokenizer, "padding_side", "") == "right"
        self.pads = right and not decoder and getattr(tokenizer, "pad_token_id", None) is not None
        self.device = next(model.parameters()).device
        self.extra: dict[str, Any] = {}
        accepted = inspect.signature(model.forward).parameters
        if self.language and "use_cache" in accepted:
            self.extra["use_cache"] = False
        if self.language and "logits_to_keep" in accepted:
            self.extra["logits_to_keep"] = 1

    @property
    def regression(self) -> bool:
        """Whether the output is a score, not a class."""
        regression = getattr(self.config, "problem_type", None) == "regression"
        return not self.language and (regression or self.config.num_labels == 1)

    def encode(self, number: int, text: Text, target: Any = None) -> Encoded:
        """Tokenize and check one text."""
        text = _checked(number, text)
        parts = (text,) if isinstance(text, str) else text
        limit = self.longest
        encoding = tokenize(self.tokenizer, parts, limit if self.truncate else None)
        special = [bool(flag) for flag in encoding.pop("special_tokens_mask")[0]]
        length = encoding["input_ids"].shape[1]
        if length > limit:
            raise ValueError(
                f"texts[{number}] has {length} tokens and the model takes {limit}; shorten it, or pass truncate=True"
            )
        if length == 0 or all(special):
            raise ValueError(f"texts[{number}] = {text!r} holds no token")
        segments = [int(part or 0) for part in encoding.sequence_ids(0)] if encoding.is_fast else [0] * length
        if len(parts) == 2 and "token_type_ids" in encoding:
            segments = encoding["token_type_ids"][0].tolist()
        return Encoded(number, text, dict(encoding), special, segments, self.target(number, target))

    def encode_all(self, texts: Any) -> list[Encoded]:
        """Tokenize and check a list of texts."""
        if isinstance(texts, str) or not isinstance(texts, Sequence):
            raise TypeError(f"examples must be a list of texts or of pairs, got {type(texts).__name__}; use [text]")
        if not texts:
            raise ValueError("examples is empty: give at least one text or pair")
        return [self.encode(number, text) for number, text in enumerate(texts)]

    def target(self, number: int, target: Any, what: str = "target") -> int | None:
        """The number of a class or token that was asked for; None stays None. `what` names it in errors."""
        if target is None:
            return None
        if isinstance(target, str) and self.language:
            ids = self.tokenizer(target, add_special_tokens=False)["input_ids"]
            if len(ids) != 1:
                tokens = self.tokenizer.convert_ids_to_tokens(ids)
                raise ValueError(f"{what} {target!r} of texts[{number}] is {len(ids)} tokens {tokens}; one is needed")
            return int(ids[0])
        if isinstance(target, str):
            labels = {str(label): int(i) for i, label in self.config.id2label.items()}
            if target not in labels:
                raise ValueError(f"{what} {target!r} of texts[{number}] is unknown; the model has {sorted(labels)}")
            return labels[target]
        if isinstance(target, bool) or not isinstance(target, (int, Integral)):
            raise TypeError(f"{what} {target!r} of texts[{number}] must be a number or a name")
        wanted, size = int(target), self.config.vocab_size if self.language else self.config.num_labels
        if not 0 <= wanted < size:
            raise ValueError(f"{what} {target} of texts[{number}] is out of range: the model has {size}")
        return wanted

    def fingerprint(self, items: Sequence[Encoded], gold: Tensor, batches: Sequence[Sequence[int]]) -> dict[str, Any]:
        """What tells a run over these examples from others: model, masks, tokens, labels, batches."""
        tokens = [{name: tensor[0].tolist() for name, tensor in item.encoding.items()} for item in items]
        data = data_digest(tokens, gold.tolist(), [list(batch) for batch in batches])
        about = {"model": model_digest(self.model), "data": data, "batch_size": max(map(len, batches))}
        return about | ({"masked": masked} if (masked := active_gates(self.model)) else {})

    def labels(self, labels: Any, items: Sequence[Encoded]) -> Tensor:
        """The gold labels as numbers, (N,): classes, tokens, or the scores of a regression.

        Raises:
            TypeError, ValueError: not as many as texts, or a label that the model does not have.
        """
        if isinstance(labels, str) or not isinstance(labels, (Sequence, Tensor, np.ndarray)):
            raise TypeError(f"labels must be a list, got {type(labels).__name__}")
        if len(labels) != len(items):
            raise ValueError(f"{len(labels)} labels for {len(items)} examples")
        plain = labels.tolist() if isinstance(labels, (Tensor, np.ndarray)) else list(labels)
        if not self.regression:
            numbers = [self.target(i, label, "label") for i, label in enumerate(plain)]
            if None in numbers:
                raise ValueError(f"label None of texts[{numbers.index(None)}]: a class is needed")
            return torch.tensor(numbers, device=self.device)
        for i, label in enumerate(plain):
            if isinstance(label, bool) or not isinstance(label, Real) or not math.isfinite(label):
                raise ValueError(f"label {label!r} of texts[{i}] must be a finite number, the score")
        return torch.tensor(plain, dtype=torch.float32, device=self.device)

    def present(self, heads: int) -> Tensor:
        """(L, heads) whether a head is there, or `prune_heads` has taken it."""
        present = torch.zeros(self.depth, heads, dtype=torch.bool)
        for layer in self.layers:
            present[layer.index, list(layer.kept.numbers) if layer.kept else slice(None)] = True
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
            whole[layer.index, list(k.numbers) if k else slice(None)] = value
        return whole

    def label(self, target: int) -> str:
        """The name of a class or token."""
        if self.language:
            return str(self.tokenizer.decode([target]))
        return str(self.config.id2label.get(target, target))

    def batches(self, items: Sequence[Encoded], size: int) -> list[list[int]]:
        """Places of the items, longest first, at most `size` together; of one length where nothing can be padded.

        Raises:
            ValueError: `size` is no positive int.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"batch_size={size!r} must be an int of 1 or more")
        places = sorted(range(len(items)), key=lambda i: (-items[i].length, i))
        batches: list[list[int]] = []
        for i in places:
            fits = bool(batches) and len(batches[-1]) < size
            if fits and (self.pads or items[batches[-1][0]].length == items[i].length):
                batches[-1].append(i)
            else:
                batches.append([i])
        return batches

    def inputs(self, items: Iterable[Encoded]) -> dict[str, Tensor]:
        """The model's arguments for a batch, padded as the tokenizer pads, on the model's device."""
        encodings = [item.encoding for item in items]
        if len({encoding["input_ids"].shape[1] for encoding in encodings}) == 1:
            batch = {name: torch.cat([encoding[name] for encoding in encodings]) for name in encodings[0]}
        else:
            plain = {name: [encoding[name][0].tolist() for encoding in encodings] for name in encodings[0]}
            batch = dict(self.tokenizer.pad(plain, return_tensors="pt", verbose=False))
        return {name: tensor.to(self.device) for name, tensor in batch.items()}

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """(B, classes) or, of a language model, (B, vocabulary) for the next token; float32."""
        logits: Tensor = self.model(**inputs, **self.extra).logits
        return (logits[:, -1] if self.language else logits).float()

    def losses(self, logits: Tensor, gold: Tensor) -> Tensor:
        """(B,) cross entropy, or the squared error of a regression."""
        if self.regression:
            return (logits.squeeze(-1) - gold).square()
        if getattr(self.config, "problem_type", None) == "multi_label_classification":
            wanted = nn.functional.one_hot(gold, logits.shape[-1]).to(logits)
            return nn.functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(-1)
        return nn.functional.cross_entropy(logits, gold, reduction="none")

    def predictions(self, logits: Tensor) -> Tensor:
        """(B,) the class or token of the largest logit, or the score of a regression."""
        return logits.squeeze(-1) if self.regression else logits.argmax(-1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """What is attributed: softmax, sigmoid of a multi-label model, the score itself of a regression."""
        if self.regression:
            return logits
        if getattr(self.config, "problem_type", None) == "multi_label_classification":
            return logits.sigmoid()
        return logits.softmax(-1)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode; each of its modules is put back into its own mode."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def _is_language_model(model: nn.Module) -> bool:
    """Whether the model predicts next tokens (True) or classes (False).

    Raises:
        TypeError: neither, as far as its class tells.
    """
    names = {kind.__name__ for kind in type(model).__mro__}
    if any(name.endswith("ForSequenceClassification") for name in names):
        return False
    if names & set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()):
        return True
    raise TypeError(
        "expected a model for sequence classification or a causal language model, got "
        f"{type(model).__name__}; for others give LayerAttAttr a forward function of your own"
    )


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
        if not part.strip():
            raise ValueError(f"texts[{number}] = {text!r} is empty")
    return text if isinstance(text, str) else (parts[0], parts[1])


def _longest(config: Any, tokenizer: Any) -> int:
    """Most tokens that model and tokenizer take."""
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 2**62
    if getattr(config, "position_embedding_type", "") != "relative" and config.model_type in _OFFSET_POSITIONS:
        positions -= config.pad_token_id + 1
    return int(min(positions, tokenizer.model_max_length))


# Families whose positions start after the padding token's.
_OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet", "longformer", "xlm-roberta-xl", "esm"})
