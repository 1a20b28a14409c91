"""Examples with gold labels for the tests of head importance, and a tiny classifier that cannot decide about them."""

from __future__ import annotations

from typing import Any

import torch
from device import place
from torch import Tensor, nn
from toy import tiny_bert, tiny_tokenizer
from transformers import BertForSequenceClassification

from captum_attattr import HeadImportance
from captum_attattr.heads.scoring import METHODS

TEXTS = ["good film", "a bad plot", "man", "good work good man", ("good film", "bad"), "a b c d e f g", "plot b"]
GOLD = [0, 2, 1, 0, 1, 2, 2]


def undecided() -> BertForSequenceClassification:
    """A classifier whose predictions differ between texts, and change when a head goes."""
    model = tiny_bert(seed=1)
    with torch.no_grad():
        for _ in range(2):
            model.classifier.bias -= torch.cat([model(**encoded(text)).logits for text in TEXTS]).mean(0)
    return model


def encoded(text: Any) -> dict[str, Tensor]:
    """The (1, T) inputs of a text or a pair."""
    parts = (text,) if isinstance(text, str) else text
    return place(dict(tiny_tokenizer()(*parts, return_tensors="pt")))


def loss(model: nn.Module, text: Any, label: int) -> Tensor:
    """The cross entropy of one example."""
    return nn.functional.cross_entropy(model(**encoded(text)).logits, place(torch.tensor([label])))


def importance(values: Any, method: str = "taylor", **options: Any) -> HeadImportance:
    """A result with the given scores, (L, H)."""
    table = torch.tensor(values, dtype=torch.double)
    return HeadImportance(table, table.abs() / 10, 5, method, METHODS[method].options | options, ["a"], ["0" * 16], "m")
