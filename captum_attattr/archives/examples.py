"""The texts of a data set: each as the model takes it, and the JSON that is stored of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from captum_attattr.explanations.encoding import Encoded
from captum_attattr.explanations.explainer import Explainer


class Pairs(NamedTuple):
    """The target of each text of a data set, and what it is contrasted with."""

    targets: Sequence[Any]
    contrasts: Sequence[Any]


class Examples:
    """The texts of a data set, each tokenized whenever it is needed.

    Args:
        explainer: tells how texts and targets are understood, and what is attributed.
        texts: of the data set.
        pairs: of each of them.
        inputs: whether the model's inputs, and what is attributed, are stored.
    """

    def __init__(self, explainer: Explainer, texts: Sequence[Any], pairs: Pairs, inputs: bool) -> None:
        self.explainer, self.texts, self.pairs, self.inputs = explainer, texts, pairs, inputs
        self.model = explainer.texts
        usual = {"path": "layer", "baseline": "zero"}
        given = {name: getattr(explainer.settings, name) for name in usual}
        self.attributed = {"output": explainer.output, "scheme": explainer.texts.scheme} | {
            name: value for name, value in given.items() if value != usual[name]
        }
        self.attributed |= {"note": explainer.texts.note} if explainer.texts.note else {}

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[Encoded, bytes]:
        """Return a text as the model takes it, and the JSON that is stored of it."""
        item = self.model.encode(index, self.texts[index], self.pairs.targets[index], self.pairs.contrasts[index])
        if self.model.task.name:
            item = self.explainer.decided_one(item)
        stored = {
            "number": index,
            "text": item.text,
            "tokens": self.model.tokenizer.convert_ids_to_tokens(item.encoding["input_ids"][0].tolist()),
            "segments": item.segments,
            "special": [int(flag) for flag in item.special],
        }
        if self.inputs:
            stored["inputs"] = {name: tensor[0].tolist() for name, tensor in item.encoding.items()}
            stored |= self.attributed
            if item.contrast is not None:
                stored |= {"contrast": self.model.task.label(item, item.contrast), "contrast_target": item.contrast}
            stored |= self._part(item)
        return item, json.dumps(stored, separators=(",", ":")).encode()

    def _part(self, item: Encoded) -> dict[str, Any]:
        """Return what a decision about a part of a text is called, and where that is; nothing for a whole text."""
        task = self.model.task
        if not task.name or item.target is None:
            return {}
        return {
            "task": task.name,
            "positions": task.positions(item, item.target),
            "label": task.label(item, item.target),
        }
