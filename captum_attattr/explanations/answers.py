"""The answer to a prompt: given as text or ids, or written by the model itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from captum_attattr import checks
from captum_attattr.explanations.encoding import Encoded, check_unpadded
from captum_attattr.explanations.examples import sequence_of
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.model.wrappers import OwnModel, parameters_of

_ONE_ANSWER = {"num_beams": 1, "num_return_sequences": 1, "return_dict_in_generate": False}
"""Of `generate`: its ids alone."""
USUAL_LENGTH = 20
"""Of an answer, where neither it nor its length is given; transformers' own."""


@dataclass(frozen=True)
class Writing:
    """How an answer is written, checked: the arguments of `explain_generation`."""

    max_new_tokens: int = USUAL_LENGTH
    do_sample: bool = False
    temperature: float | None = None
    seed: int | None = None

    @classmethod
    def of(cls, given: bool, max_new_tokens: Any, do_sample: Any, temperature: Any, seed: Any) -> Writing:
        """Check the arguments; `given` says whether the answer is there already.

        Raises:
            TypeError, ValueError: with the value and what would be right.
        """
        sample = checks.flag("do_sample", do_sample)
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        if given and (sample or any(value is not None for value in options.values())):
            name = next((name for name, value in options.items() if value is not None), "do_sample")
            raise ValueError(f"{name} is of an answer that the model writes, and generated is given: leave one out")
        for name in ("temperature", "seed"):
            if options[name] is not None and not sample:
                raise ValueError(f"{name}={options[name]!r} changes nothing without sampling: pass do_sample=True")
        length = USUAL_LENGTH if max_new_tokens is None else checks.at_least(1, max_new_tokens, "max_new_tokens")
        heat = None if temperature is None else checks.real(temperature)
        if temperature is not None and (heat is None or not 0 < heat < math.inf):
            raise ValueError(f"temperature={temperature!r} must be a number above 0")
        number = None if seed is None else checks.at_least(0, seed, "seed")
        if number is not None and number >= 2**64:
            raise ValueError(f"seed={seed!r} must be below 2**64")
        return cls(length, sample, heat, number)

    @property
    def name(self) -> str:
        """In words: "greedy", "sampled with the seed 3"."""
        if not self.do_sample:
            return "greedy"
        heat = "" if self.temperature is None else f" at the temperature {self.temperature:g}"
        return f"sampled{heat}" + ("" if self.seed is None else f" with the seed {self.seed}")


def encoded_prompt(texts: TextModel, prompt: Any) -> Encoded:
    """Return one prompt as the model takes it.

    Raises:
        TypeError, ValueError: none, or several, or nothing that `explain` takes; inputs that an answer has not.
    """
    examples = sequence_of(prompt, name="prompt")
    if len(examples) != 1:
        raise ValueError(f"prompt holds {len(examples)} texts, and one is explained at a time: give each by itself")
    try:
        item = texts.encode(0, examples[0])
    except (TypeError, ValueError) as error:
        told = str(error).replace("texts[0]", "prompt").replace(", or pass truncate=True", "")  # which is explain's
        raise type(error)(told) from None
    types = item.encoding["token_type_ids"][0].tolist() if "token_type_ids" in item.encoding else []
    if any(t for t, special in zip(types, item.special, strict=False) if not special) and _reads_types(texts.model):
        raise ValueError("prompt is a pair whose texts have types of their own, which an answer has not: give one text")
    if more := sorted(item.encoding.keys() - {"input_ids", "attention_mask", "token_type_ids"}):
        raise ValueError(f"prompt is an encoding with {more[0]!r}, which an answer has not: leave it out")
    return item


def _reads_types(model: Any) -> bool:
    """Return whether a part of a model takes token types; by name, since all take anything more."""
    return any("token_type_ids" in parameters_of(part) for part in model.modules())


@dataclass
class Prompt:
    """A prompt, and the answers to it.

    Attributes:
        texts: the model.
        item: the prompt as the model takes it.
        start: the tokens that a decoder starts with, where what it writes does not follow the prompt itself.
    """

    texts: TextModel
    item: Encoded
    start: list[int] = field(default_factory=list, init=False)

    @property
    def ids(self) -> list[int]:
        """What the model has read before the answer's first token."""
        return self.item.ids + self.start

    @property
    def room(self) -> int:
        """How many tokens an answer may have: the model reads the prompt and all of it but the last."""
        return self.texts.longest - self.item.length + 1

    def check_length(self, count: int, name: str) -> None:
        """Check that there is room for an answer of so many tokens.

        Raises:
            ValueError: there is not.
        """
        if count > self.room:
            before = f"the decoder starts with {len(self.start)}" if self.start else f"prompt has {self.item.length}"
            raise ValueError(
                f"{before} tokens and {name} {count} more, and the model reads {self.texts.longest} at most; shorten "
                "one of them"
            )

    def given(self, generated: Any) -> list[int]:
        """Return the (G,) ids of an answer that is given, as text or as ids.

        Raises:
            TypeError: it is neither.
            ValueError: it holds no token, or one that the tokenizer does not have; as `split`.
        """
        if isinstance(generated, str):
            checks.characters("generated", generated)
            ids = self.split(generated)
            self._check_words(generated, ids)
        else:
            ids = self.without_start(_ids(generated))
            check_unpadded(self.texts.tokenizer, "generated", ids)
        if not ids:
            raise ValueError(f"generated={generated!r:.60} holds no token")
        return self._known(ids, "generated has")

    def _check_words(self, generated: str, ids: list[int]) -> None:
        """Check that the tokenizer knows what an answer's text holds.

        Raises:
            ValueError: there is something that it does not know.
        """
        tokenizer = self.texts.tokenizer
        unknown = tokenizer.unk_token_id
        if unknown in ids and str(tokenizer.unk_token) not in generated:
            before = str(tokenizer.decode(ids[: ids.index(unknown)]))
            raise ValueError(
                f"generated={generated!r:.60} holds something that the tokenizer reads as {tokenizer.unk_token!r}, "
                f"behind {before!r:.60}: the model cannot write it; give ids to explain that token all the same"
            )

    def _known(self, ids: list[int], having: str) -> list[int]:
        """Return the ids of an answer, which model and tokenizer must have."""
        for what, known in (("tokenizer", len(self.texts.tokenizer)), ("model", self.texts.size)):
            if strange := [i for i in ids if i >= known]:
                raise ValueError(f"{having} the token id {strange[0]}, and the {what} knows 0 to {known - 1}")
        return ids

    def split(self, generated: str) -> list[int]:
        """Return the ids of a text as the tokenizer splits it behind the prompt.

        Raises:
            ValueError: a token there is part of the prompt and of the text, or the tokens of the prompt become others.
        """
        tokenizer, prompt = self.texts.tokenizer, self.item.text
        before = prompt if isinstance(prompt, str) else prompt[-1]
        own, both = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (before, before + generated))
        if both[: len(own)] != own:
            first = next((i for i, pair in enumerate(zip(own, both, strict=False)) if pair[0] != pair[1]), len(both))
            ends, joined = (tokenizer.decode(ids[first : first + 4]) for ids in (own, both))
            raise ValueError(
                f"generated={generated!r:.60} does not follow the prompt as the tokenizer splits them: the prompt's "
                f"end {ends!r} becomes {joined!r}; move the space between them, or give the ids that the model wrote"
            )
        return [int(i) for i in both[len(own) :]]

    def without_start(self, ids: list[int]) -> list[int]:
        """Return the ids of an answer without what stands before it.

        Raises:
            ValueError: the prompt, which the answer may repeat, but only as a text.
        """
        prompt = self.item.ids
        if len(ids) > len(prompt) and ids[: len(prompt)] == prompt:
            raise ValueError(
                "generated begins with the ids of the prompt, as generate() returns them: give the answer alone, "
                f"generated[{len(prompt)}:]; or a text, where the answer does repeat the prompt"
            )
        return ids

    def written(self, writing: Writing) -> list[int]:
        """Return the (G,) ids that the model's own `generate` writes, in evaluation mode.

        A seed counts for this answer alone: torch's generators are put back.

        Raises:
            ValueError: the model has no `generate`, or writes a token that the tokenizer does not have.
        """
        texts = self.texts
        model: Any = texts.model.inner if isinstance(texts.model, OwnModel) else texts.model
        if not callable(getattr(model, "generate", None)):
            raise ValueError(f"{type(model).__name__} has no generate(): give the answer, as generated=...")
        inputs = {name: part for name, part in texts.inputs([self.item]).items() if name in parameters_of(model)}
        config = getattr(model, "generation_config", None)
        padding = next((i for i in (texts.tokenizer.pad_token_id, texts.tokenizer.eos_token_id) if i is not None), None)
        options: dict[str, Any] = {"do_sample": writing.do_sample, "pad_token_id": padding, **_ONE_ANSWER}
        options |= {"tokenizer": texts.tokenizer} if getattr(config, "stop_strings", None) else {}
        if not writing.do_sample:
            options |= {name: None for name in ("temperature", "top_p", "top_k") if hasattr(config, name)}
        elif writing.temperature is not None:
            options["temperature"] = writing.temperature
        with evaluation_mode(texts.model), _seeded(writing.seed, texts.device):
            return self._known(self.write(model, inputs, writing, options), f"{type(model).__name__} writes")

    def write(self, model: Any, inputs: dict[str, Tensor], writing: Writing, options: dict[str, Any]) -> list[int]:
        """Return the ids that `generate` writes behind the prompt."""
        ids = model.generate(**inputs, max_new_tokens=writing.max_new_tokens, **options)
        return [int(i) for i in ids[0, self.item.length :].tolist()]


def _ids(generated: Any) -> list[int]:
    """Return ids, which may be the one row of an array or a tensor.

    Raises:
        TypeError: they are something else.
        ValueError: one is negative.
    """
    one = generated[0] if getattr(generated, "ndim", 0) == 2 and len(generated) == 1 else generated
    ids = checks.listed(one)
    ids = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, bytes | Mapping | Tensor) else ids
    if not isinstance(ids, list) or not all(checks.integer(i) is not None for i in ids):
        raise TypeError(f"generated must be the answer's text or its token ids, not {generated!r:.100}")
    return checks.integers("generated", ids, smallest=0)


@contextmanager
def _seeded(seed: int | None, device: torch.device) -> Iterator[None]:
    """Seed torch's generators inside the context, and put them back; do nothing without a seed."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
