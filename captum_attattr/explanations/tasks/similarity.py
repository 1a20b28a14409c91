"""Sentence similarity by a bi-encoder: the cosine of two texts' vectors, as sentence-transformers makes them.

Each text goes through the encoder by itself (Reimers, Gurevych, "Sentence-BERT", EMNLP 2019); its vector is the mean of
its tokens' last hidden states, special ones included, or the first token's. One text is explained, and the other's
vector is a constant: F = cos(u, v).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from captum_attattr.checks import integer, scalar
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.explanations.decided import SIDES
from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.explanation_checks import OF_OTHER
from captum_attattr.explanations.tasks.whole_text import OTHER, WholeText, all_targets
from captum_attattr.model.modes import evaluation_mode

if TYPE_CHECKING:
    from captum_attattr.explanations.text_model import TextModel


class Similarity(WholeText):
    """The task of an encoder without a head.

    Attributes:
        pooling: "mean" or "cls".
    """

    name: ClassVar[str] = "similarity"
    several: ClassVar[bool] = True

    def __init__(self, texts: TextModel) -> None:
        super().__init__(texts)
        self.pooling = "cls" if texts.task_name == "similarity_cls" else pooling_of(texts.given, texts.config)

    def vectors(self, output: Any) -> Tensor:
        """Return (B, D) the texts' vectors, of the model's output for texts of one length.

        Raises:
            UnsupportedModelError: it has no hidden states, or vectors of its own.
        """
        if getattr(output, "text_embeds", None) is not None:
            raise UnsupportedModelError(
                f"{type(self.texts.model).__name__} makes vectors of its own (text_embeds), behind a projection, which "
                "is not explained"
            )
        hidden = getattr(output, "last_hidden_state", None)
        if hidden is None:
            raise UnsupportedModelError(
                f"{type(self.texts.model).__name__} gives no last_hidden_state: similarity takes encoders without head"
            )
        vectors: Tensor = (hidden[:, 0] if self.pooling == "cls" else hidden.mean(1)).float()
        return vectors

    def read(self, output: Any, beside: Mapping[str, Tensor]) -> Tensor:
        """Return (B, 1) the cosines with the other texts."""
        vectors = self.vectors(output)
        return cosine_similarity(vectors, beside[OTHER].to(vectors.device), dim=-1)[:, None]

    def encoded(self, text: Any, encode: Callable[[Any], Encoded]) -> Encoded:
        """Return the first text of a pair, which waits for its decision with the second.

        Raises:
            ValueError: no pair.
        """
        if not isinstance(text, tuple) or len(text) != 2:
            raise ValueError(f"similarity is of two texts: give (text, second text) pairs, not {text!r:.200}")
        first, second = map(encode, text)
        return replace(first, asked=(first, second))

    def prepared(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return inputs with the other texts' vectors in the place of their inputs."""
        texts = self.texts
        others = {name.removeprefix(OF_OTHER): part for name, part in inputs.items() if name.startswith(OF_OTHER)}
        with evaluation_mode(texts.model), torch.no_grad():
            vectors = self.vectors(texts.model(**others, **texts.extra))
        return {name: part for name, part in inputs.items() if not name.startswith(OF_OTHER)} | {OTHER: vectors}

    def foresee(self, target: Any, contrast: Any) -> None:
        """Check which text is explained.

        Raises:
            TypeError, ValueError: neither.
        """
        for each in all_targets(0, target):
            _side(0, each)

    def decisions(self, item: Encoded, target: Any, contrast: Any) -> list[Encoded]:
        """Return one text of the pair, or both: "first" or 0, "second" or 1; None for the first."""
        pair: tuple[Encoded, Encoded] = item.asked
        found = []
        for each in all_targets(item.index, target):
            side = _side(item.index, each)
            one, other = pair[side], pair[1 - side]
            beside = {f"{OF_OTHER}{name}": part for name, part in other.encoding.items()}
            text = (str(pair[0].text), str(pair[1].text))
            segments = [side] * one.length
            found.append(replace(one, encoding=one.encoding | beside, text=text, segments=segments, target=0))
        return found

    def label(self, item: Encoded, target: int) -> str:
        """Return the other text."""
        return str(item.text[1 - item.segments[0]])

    def positions(self, item: Encoded, target: int) -> list[int]:
        """Return the first token, where that alone makes the vector; none where all do."""
        return [0] if self.pooling == "cls" else []

    def count(self, length: int) -> int:
        """Return 1."""
        return 1


def _side(index: int, given: Any) -> int:
    """Return which text of a pair is explained.

    Raises:
        TypeError, ValueError: neither.
    """
    given = scalar(given)
    side = 0 if given is None else SIDES.index(given) if given in SIDES else integer(given)
    if side is None:
        raise TypeError(f"target {given!r:.60} of texts[{index}] must be 'first' or 'second': the text to explain")
    if side not in (0, 1):
        raise ValueError(f"target {side} of texts[{index}] must be 0 or 1: the text to explain")
    return side


def pooling_of(given: Any, config: Any) -> str:
    """Return how a model makes vectors: of a SentenceTransformer, or a folder of one; "mean" elsewhere.

    Args:
        given: the model, in whatever is around it.
        config: of the transformers model; it says from which folder that came.

    Raises:
        UnsupportedModelError: by other means than a mean or the first token, or with a layer behind.
    """
    parts = list(given.children()) if "SentenceTransformer" in {kind.__name__ for kind in type(given).__mro__} else []
    kinds, said = [type(part).__name__ for part in parts], dict[str, Any]()
    if parts:
        said = next((part.get_config_dict() for part in parts if type(part).__name__ == "Pooling"), {})
    else:
        folder = Path(str(getattr(config, "_name_or_path", "") or "-"))
        kinds = [str(entry.get("type", "")) for entry in _read(folder / "modules.json") or []]
        said = _read(folder / "1_Pooling" / "config.json") or {}
    if any(kind.endswith("Dense") for kind in kinds):
        raise UnsupportedModelError("the model puts a dense layer behind its vectors, which is not explained")
    modes = [str(name).removeprefix("pooling_mode_") for name, on in said.items() if on is True and "_mode_" in name]
    modes = [str(said["pooling_mode"])] if "pooling_mode" in said else modes or ["mean"]
    known = {"mean_tokens": "mean", "cls_token": "cls", "mean": "mean", "cls": "cls"}
    if len(modes) != 1 or modes[0] not in known:
        raise UnsupportedModelError(f"the model makes vectors by {modes}; the mean and the first token are explained")
    return known[modes[0]]


def _read(file: Path) -> Any:
    """Return what a JSON file holds; None where there is none."""
    return json.loads(file.read_text("utf-8")) if file.is_file() else None
