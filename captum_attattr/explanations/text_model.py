"""A model and its tokenizer: from texts to inputs, batches, logits and the output that is attributed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.checks import at_least, integer, scalar
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.explanations.attributed_output import Outputs
from captum_attattr.explanations.encoding import Encoded, check_tokenizer, encode_text
from captum_attattr.explanations.examples import sequence_of
from captum_attattr.explanations.schemes import scheme_of
from captum_attattr.explanations.special_tokens import special_ids
from captum_attattr.explanations.tasks.table import TASKS
from captum_attattr.explanations.tasks.whole_text import BESIDE, CONTRAST, POSITION
from captum_attattr.model.attention_layers import (
    AttentionLayer,
    attention_layers,
    every_layer,
    family_name,
    without_attention,
)
from captum_attattr.model.families import OFFSET_POSITIONS, POSITION_LIMITS, POSITION_TABLES, STREAMS
from captum_attattr.model.head_masks import active_gates
from captum_attattr.model.projections import Heads, head_count
from captum_attattr.model.wrappers import WHOLE_TEXTS, parameters_of, understood
from captum_attattr.runs.digests import data_digest, model_digest

_UNLIMITED = 2**62


class TextModel(Outputs):
    """A sequence classifier or causal language model, and how its texts, outputs and targets are understood.

    Args:
        model: the model; its configuration says what its outputs mean. Of a compiled one, what was compiled.
        tokenizer: its tokenizer.
        truncate: cut texts that are too long instead of refusing them; an integer cuts to at most so many tokens.
        task: one of `TASKS`, of a model whose class does not tell it; None for what its outputs tell.
        split_into_words: whether lists of strings are texts split into words.
        tasks: those that are taken.

    Attributes:
        given: the model in whatever is around it.
        task_name: the model's task.
        task: what its decisions are, and where F is read.
        longest: tokens that a text may have, special ones included.
        kind: of the layers that are attributed, as in `attention_layers`.
        layers: the attention layers that have a head left.
        depth: L, the layers with those that have none left.
        note: which blocks of a hybrid model are not among the layers, see `without_attention`.
        pads: whether texts of several lengths can go through the model together.
        extra: options of every forward.
        scheme: how the tokenizer writes words, as in `schemes.SCHEMES`.

    Raises:
        TypeError: a model of another kind, or no tokenizer.
        ValueError: a decoder that classifies, whose configuration has no padding token; weights or a vocabulary that
            are not there.
        UnsupportedModelError: the model's attention cannot be read.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        truncate: bool | int,
        *,
        task: str | None = None,
        split_into_words: bool = False,
        tasks: Sequence[str] = WHOLE_TEXTS,
    ) -> None:
        self.model: Any
        self.given = model
        self.model, self.task_name = understood(model, task, lambda: _some_tokens(tokenizer), tasks)
        check_tokenizer(tokenizer)
        self.scheme = scheme_of(tokenizer)
        config, model = self.model.config, self.model
        super().__init__(config, tokenizer, self.task_name, device_of(model))
        if self.language and (reason := STREAMS.get(getattr(config, "model_type", ""))):
            raise UnsupportedModelError(f"{family_name(model)} {reason}")
        self.task = TASKS[self.task_name](self)
        self.split_into_words = checks.instance("split_into_words", split_into_words, bool, "True or False")
        self.truncate, self.longest = _truncation(truncate, most_tokens(config, tokenizer))
        self.kind = "encoder" if getattr(config, "is_encoder_decoder", False) else None
        self.layers: list[AttentionLayer] = attention_layers(model, self.kind)
        every = every_layer(model, self.kind)
        self.depth, self.note = len(every), without_attention(every)
        decoder = any(layer.kind == "decoder" for layer in self.layers)
        pooled = not self.language and not self.task.name
        if decoder and pooled and getattr(config.get_text_config(), "pad_token_id", None) is None:
            raise ValueError(
                f"{type(model).__name__} cannot tell where the texts of a batch end: its config has no pad_token_id; "
                "set model.config.pad_token_id = tokenizer.pad_token_id, or tokenizer.eos_token_id where that is None"
            )
        # Positions may count padding on the left, and a decoder's any; an encoder's mask hides it on the right.
        right = getattr(tokenizer, "padding_side", "") == "right"
        self.pads = right and not decoder and getattr(tokenizer, "pad_token_id", None) is not None
        self._token_count, self._segment_count, self._position_count = _embedding_counts(model)
        parameters = parameters_of(model)
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self._accepted = None if anything else set(parameters)
        options: dict[str, int] = {"use_cache": False} if self.language or self.task.name else {}
        options |= {"logits_to_keep": 1} if self.language else {}
        self.extra = {name: value for name, value in options.items() if name in parameters}

    # ------------------------------------------------------------------------------------------ texts to inputs

    def encode(self, index: int, text: Any, target: Any = None, contrast: Any = None) -> Encoded:
        """Tokenize and check one text with one target; `index` is its index in its list, for the errors.

        Raises:
            TypeError, ValueError: a text or target that the model does not take, or several targets.
        """
        items = self.encode_each(index, text, target, contrast)
        if len(items) > 1:
            raise ValueError(f"target {target!r:.100} of texts[{index}]: one explanation for each text is made here")
        return items[0]

    def encode_each(self, index: int, text: Any, target: Any = None, contrast: Any = None) -> list[Encoded]:
        """Tokenize and check one text, and return it once for each target; see `encode`."""
        item = self.task.encoded(text, lambda given: self._encoded(index, given))
        return self.task.decisions(item, target, contrast)

    def _encoded(self, index: int, text: Any) -> Encoded:
        """Tokenize and check one text, without a target."""
        item = encode_text(
            self.tokenizer,
            index,
            text,
            self.longest if self.truncate else None,
            split_into_words=self.split_into_words,
            language=self.language,
        )
        if item.length > self.longest:
            raise ValueError(
                f"texts[{index}] has {item.length} tokens and the model takes {self.longest}; shorten it, or pass "
                "truncate=True"
            )
        return self.for_model(item)

    def for_model(self, item: Encoded) -> Encoded:
        """Return a text with only the tensors that the model accepts.

        Raises:
            ValueError: the model has no embedding of a token, a segment or a position.
        """
        largest = max(item.ids)
        if largest >= self._token_count:
            token = self.tokenizer.convert_ids_to_tokens([largest])[0]
            raise ValueError(
                f"texts[{item.index}] has the token {token!r} of number {largest}, and the model knows "
                f"{self._token_count} tokens: the tokenizer is another model's"
            )
        segment = int(item.encoding["token_type_ids"].max()) if "token_type_ids" in item.encoding else 0
        if segment >= self._segment_count:
            raise ValueError(
                f"texts[{item.index}] has the segment {segment}, and the model knows {self._segment_count}: the "
                "tokenizer is another model's"
            )
        position = int(item.encoding["position_ids"].max()) if "position_ids" in item.encoding else 0
        if position >= self._position_count:
            raise ValueError(
                f"texts[{item.index}] has {position} among its 'position_ids', and the model knows the positions 0 to "
                f"{self._position_count - 1}"
            )
        accepted = item.encoding.keys() if self._accepted is None else self._accepted
        return replace(item, encoding={name: part for name, part in item.encoding.items() if name in accepted})

    def encode_all(self, texts: Any) -> list[Encoded]:
        """Tokenize and check a list of texts."""
        return [
            self.encode(index, text)
            for index, text in enumerate(sequence_of(texts, self.split_into_words, name="examples"))
        ]

    def batches(self, items: Sequence[Encoded], size: int) -> list[list[int]]:
        """Return indices of the items, longest first, at most `size` a batch; of one length if nothing can be padded.

        Raises:
            ValueError: `size` is no positive int.
        """
        size = at_least(1, size, "batch_size")
        batches: list[list[int]] = []
        for i in sorted(range(len(items)), key=lambda i: (-items[i].length, i)):
            fits = bool(batches) and len(batches[-1]) < size
            if fits and (self.pads or items[batches[-1][0]].length == items[i].length):
                batches[-1].append(i)
            else:
                batches.append([i])
        return batches

    @staticmethod
    def costs(items: Sequence[Encoded], batches: Iterable[Sequence[int]]) -> list[float]:
        """Return how long each batch takes, roughly, for sharing them: its tokens."""
        return [float(sum(items[i].length for i in batch)) for batch in batches]

    def inputs(self, items: Iterable[Encoded]) -> dict[str, Tensor]:
        """Return the model's arguments for a batch, padded as the tokenizer pads, on the model's device."""
        encodings = [item.encoding for item in items]
        if len({encoding["input_ids"].shape[1] for encoding in encodings}) == 1:
            batch = {name: torch.cat([encoding[name] for encoding in encodings]) for name in encodings[0]}
        else:
            lists = {name: [encoding[name][0].tolist() for encoding in encodings] for name in encodings[0]}
            with torch.device("cpu"):
                batch = dict(self.tokenizer.pad(lists, return_tensors="pt", verbose=False))
        return self.task.prepared({name: tensor.to(self.device) for name, tensor in batch.items()})

    def fingerprint(self, items: Sequence[Encoded], gold: Tensor, batches: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Return what tells a run over these examples from others: model, masks, tokens, labels, batches."""
        tokens = [{name: tensor[0].tolist() for name, tensor in item.encoding.items()} for item in items]
        data = data_digest(tokens, gold.tolist(), [list(batch) for batch in batches])
        entries = {"model": model_digest(self.model), "data": data, "batch_size": max(map(len, batches))}
        return entries | ({"masked": masked} if (masked := active_gates(self.model)) else {})

    # -------------------------------------------------------------------------------------- inputs to outputs

    def logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return (B, C) what F is made of, float32: a logit for each class, next token or span.

        Args:
            inputs: of the model, as the task has prepared them, and those of `beside` but for the contrast.
        """
        own = {name: tensor for name, tensor in inputs.items() if name not in BESIDE}
        beside = {name: tensor for name, tensor in inputs.items() if name in BESIDE}
        return self.task.read(self.output_of(own), beside).float()

    def output_of(self, inputs: dict[str, Tensor]) -> Any:
        """Return the output of the model for a batch of `inputs`."""
        return self.model(**inputs, **self.extra)

    def beside(self, contrasts: Sequence[int | None], positions: Sequence[int | None] = ()) -> dict[str, Tensor]:
        """Return what goes with the inputs of a batch into F, by name, each (B, 1).

        Args:
            contrasts: the target that each example is contrasted with; all None for none.
            positions: the token at which each example's F is read; none where that is the task's own.
        """
        given = {POSITION: list(positions), CONTRAST: list(contrasts)}
        return {
            name: torch.tensor([[value] for value in values], device=self.device)
            for name, values in given.items()
            if values and values[0] is not None
        }

    def forward_function(self, names: Iterable[str], output: str | None = None) -> Callable[..., Tensor]:
        """Return F, the output that is attributed, as a function of the model's input tensors.

        Args:
            names: of the inputs, in the order in which the function takes them: those of a batch of `inputs`, then
                those of `beside`. The output of what is contrasted is taken off all outputs.
            output: of `chosen_output`; None for the probability of each class, or of each next token; of a multi-label
                model, of each label; of a regression, the score.

        Returns:
            A function of tensors (B, T), one for each name, that returns (B, C).
        """
        order = list(names)

        def forward(*tensors: Tensor) -> Tensor:
            inputs = dict(zip(order, tensors, strict=True))
            against = inputs.pop(CONTRAST, None)
            values = self.values(self.logits(inputs), output or self.output)
            return values if against is None else values - values.gather(1, against.to(values.device))

        return forward

    def meet(self, explanation: Any) -> None:
        """Get ready to run an explained example again, where that needs something of it."""

    # ------------------------------------------------------------------------------------------ layers and heads

    @property
    def width(self) -> int:
        """H, heads of a layer in the original model; of the layer with the most."""
        return max(Heads(layer).original for layer in self.layers)

    def present(self, heads: int) -> Tensor:
        """Return (L, heads) whether a head is there; False where `prune_heads` took it, or a layer has fewer."""
        present = torch.zeros(self.depth, heads, dtype=torch.bool, device="cpu")
        for layer in self.layers:
            present[layer.index, list(layer.kept.indices) if layer.kept else slice(head_count(layer))] = True
        return present

    def chosen_layers(self, numbers: Sequence[int]) -> list[AttentionLayer]:
        """Return the layers of some numbers that have a head left."""
        return [layer for layer in self.layers if layer.index in numbers]

    def complete(
        self, values: Sequence[Tensor], numbers: Sequence[int] | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the layers' values of heads, each (H, ...), as (L, H, ...): zeros where `prune_heads` took a head.

        Layers with fewer heads than others (Laguna) have zeros behind theirs.

        Args:
            values: of `chosen_layers`.
            numbers: of the layers; None for all.
            dtype: of the result; None for that of the values.
        """
        numbers = range(self.depth) if numbers is None else numbers
        layers = self.chosen_layers(numbers)
        heads = max(layer.kept.of if layer.kept else len(value) for layer, value in zip(layers, values, strict=True))
        whole = values[0].new_zeros(len(numbers), heads, *values[0].shape[1:], dtype=dtype or values[0].dtype)
        for layer, value in zip(layers, values, strict=True):
            indices = list(layer.kept.indices) if layer.kept else slice(len(value))
            whole[numbers.index(layer.index), indices] = value.to(whole)
        return whole

    def by_layer(self, values: Tensor, numbers: Sequence[int] | None = None) -> Tensor:
        """Return one value for each layer as (L,): zero where `prune_heads` took all heads."""
        numbers = range(self.depth) if numbers is None else numbers
        whole = values.new_zeros(len(numbers))
        whole[[numbers.index(layer.index) for layer in self.chosen_layers(numbers)]] = values
        return whole


def _truncation(truncate: Any, longest: int) -> tuple[bool, int]:
    """Return whether texts are cut, and how many tokens they may have.

    Raises:
        ValueError: `truncate` is neither a truth value nor an integer of 3 or more.
    """
    truncate = scalar(truncate)
    if isinstance(truncate, bool):
        return truncate, longest
    most = integer(truncate)
    if most is None or most < 3:
        raise ValueError(f"truncate={truncate!r} must be True, False or a number of 3 or more tokens")
    return True, min(longest, most)


def _some_tokens(tokenizer: Any) -> dict[str, Tensor]:
    """Return an example of what a model takes: four tokens that are not special."""
    check_tokenizer(tokenizer)
    special = special_ids(tokenizer)
    usual = (i for i in range(len(tokenizer)) if i not in special)
    return encode_text(tokenizer, 0, (list(islice(usual, 4)) * 4)[:4]).encoding


def device_of(model: nn.Module) -> torch.device:
    """Return where a model's inputs go.

    Raises:
        ValueError: weights that are not there.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise ValueError(
                f"the weights of {type(model).__name__} are not there: {name!r} is on the meta device; load them, "
                'without offloading (what a device_map puts on "cpu" or "disk" beside a GPU is on that device too)'
            )
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _embedding_counts(model: Any) -> tuple[int, int, int]:
    """Return how many tokens, segments and positions a model has embeddings of."""
    try:
        tokens = int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError):
        tokens = 0
    segments = getattr(model.config.get_text_config(), "type_vocab_size", 0)
    tables = ((name.rpartition(".")[2], part) for name, part in model.named_modules())
    positions = [
        table.num_embeddings - getattr(table, "offset", 0)
        for name, table in tables
        if name in POSITION_TABLES and isinstance(table, nn.Embedding)
    ]
    return tokens or _UNLIMITED, segments or _UNLIMITED, min(positions, default=_UNLIMITED)


def most_tokens(config: Any, tokenizer: Any) -> int:
    """Return how many tokens model and tokenizer take at most."""
    config = config.get_text_config()
    positions = next(filter(None, (getattr(config, name, None) for name in POSITION_LIMITS)), _UNLIMITED)
    if getattr(config, "position_embedding_type", "") != "relative" and config.model_type in OFFSET_POSITIONS:
        positions -= config.pad_token_id + 1
    return int(min(positions if positions > 0 else _UNLIMITED, tokenizer.model_max_length))  # XLNet says -1: no limit
