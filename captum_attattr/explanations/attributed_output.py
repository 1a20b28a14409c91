"""What a text model's outputs mean: classes, next tokens, several labels at once or a score, and the gold labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_attattr.checks import scalar


class Outputs:
    """How the outputs and labels of a model are understood.

    Args:
        config: the model's configuration.
        tokenizer: its tokenizer; that of a language model names the classes.
        language: whether the classes are the tokens that come next.
        device: where the model's outputs are.
    """

    def __init__(self, config: Any, tokenizer: Any, language: bool, device: torch.device) -> None:
        self.config, self.tokenizer, self.language, self.device = config, tokenizer, language, device

    @property
    def multilabel(self) -> bool:
        """Whether every output is a label of its own that an example has or not."""
        return not self.language and getattr(self.config, "problem_type", None) == "multi_label_classification"

    @property
    def regression(self) -> bool:
        """Whether the output is a score, not a class."""
        regression = getattr(self.config, "problem_type", None) == "regression" or self.config.num_labels == 1
        return not self.language and not self.multilabel and regression

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
        if isinstance(target, bool) or not isinstance(target, Integral):
            several = (
                ", or config.problem_type 'multi_label_classification'" if isinstance(target, list | tuple) else ""
            )
            raise TypeError(f"{what} {target!r} of texts[{number}] must be an integer or a name{several}")
        wanted = int(target)
        size = self.config.get_text_config().vocab_size if self.language else self.config.num_labels
        if not 0 <= wanted < size:
            raise ValueError(f"{what} {target} of texts[{number}] is out of range: the model has {size}")
        return wanted

    def label(self, target: int) -> str:
        """The name of a class or token."""
        if self.language:
            return str(self.tokenizer.decode([target]))
        return str(self.config.id2label.get(target, target))

    def names(self, gold: Tensor) -> list[str]:
        """The names of the gold labels that some text has, each once; scores have none."""
        if self.regression:
            return []
        numbers = gold.nonzero()[:, 1] if gold.dim() > 1 else gold
        return sorted({self.label(value) for value in numbers.tolist()})

    def labels(self, labels: Any, count: int) -> Tensor:
        """The gold labels as numbers: (N,) classes, tokens or scores, or (N, C) 0 or 1 for each of several labels.

        Raises:
            TypeError, ValueError: not as many as texts, or a label that the model does not have.
        """
        numbers = isinstance(labels, (Tensor, np.ndarray)) and labels.ndim > 0
        if isinstance(labels, str) or not (numbers or isinstance(labels, Sequence)):
            raise TypeError(f"labels must be a list with one label for each text, got {type(labels).__name__}")
        if len(labels) != count:
            raise ValueError(f"{len(labels)} labels for {count} examples")
        plain = [scalar(label) for label in (labels.tolist() if isinstance(labels, (Tensor, np.ndarray)) else labels)]
        if self.regression:
            return torch.tensor(self._scores(plain), dtype=torch.float32, device=self.device)
        if self.multilabel:
            return torch.tensor([self._indicators(i, label) for i, label in enumerate(plain)], device=self.device)
        classes = [self.target(i, label, "label") for i, label in enumerate(plain)]
        if None in classes:
            raise ValueError(f"label None of texts[{classes.index(None)}]: a class is needed")
        return torch.tensor(classes, device=self.device)

    def _scores(self, labels: list[Any]) -> list[float]:
        if self.config.num_labels > 1:
            raise ValueError(f"the model gives {self.config.num_labels} scores for a text; only one can be compared")
        for i, label in enumerate(labels):
            if isinstance(label, bool) or not isinstance(label, Real) or not math.isfinite(label):
                raise ValueError(f"label {label!r} of texts[{i}] must be a finite number, the score")
        return [float(label) for label in labels]

    def _indicators(self, number: int, given: Any) -> list[float]:
        """0 or 1 for each of the model's labels, of one text."""
        size = self.config.num_labels
        plain = given.tolist() if isinstance(given, (Tensor, np.ndarray)) else given
        names = plain if isinstance(plain, (list, tuple)) else [plain]
        if names is plain and len(plain) == size and all(isinstance(one, Real) and one in (0, 1) for one in plain):
            return [float(one) for one in plain]
        if size == 1 and not isinstance(plain, str):  # is 0 the label's number, or does the text not have it?
            raise ValueError(f"label {given!r} of texts[{number}]: the model has one label; [1] or [0] is needed")
        if names is not plain or (names and all(isinstance(name, str) for name in names)):
            found = [self.target(number, name, "label") for name in names]
            if None not in found:
                return [float(i in found) for i in range(size)]
        raise ValueError(
            f"label {given!r} of texts[{number}]: the model tells {size} labels apart that a text has or not; give "
            f"{size} numbers, each 0 or 1, or the names of the text's labels"
        )

    def losses(self, logits: Tensor, gold: Tensor) -> Tensor:
        """(B,) cross entropy (of several labels, the sum of theirs), or the squared error of a regression."""
        if self.regression:
            return (logits.squeeze(-1) - gold).square()
        if self.multilabel:
            return nn.functional.binary_cross_entropy_with_logits(logits, gold, reduction="none").sum(-1)
        return nn.functional.cross_entropy(logits, gold, reduction="none")

    def predictions(self, logits: Tensor) -> Tensor:
        """(B,) the class or token of the largest logit, or the score; (B, C) 0 or 1 of several labels."""
        if self.multilabel:
            return (logits > 0).to(logits)  # a probability above a half
        return logits.squeeze(-1) if self.regression else logits.argmax(-1)

    def right(self, logits: Tensor, gold: Tensor) -> Tensor:
        """(B,) whether the prediction is the gold class, or all of several labels are."""
        same = self.predictions(logits) == gold
        return same.all(-1) if self.multilabel else same

    def outcomes(self, logits: Tensor, gold: Tensor) -> Tensor:
        """(B, 1 + P), on the CPU: the loss, and the P numbers of the prediction, one or one for each of the labels."""
        predictions = self.predictions(logits).cpu().double().reshape(len(logits), -1)
        return torch.cat((self.losses(logits, gold).cpu().double()[:, None], predictions), dim=1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """What is attributed: softmax, sigmoid of a multi-label model, the score itself of a regression."""
        if self.regression:
            return logits
        return logits.sigmoid() if self.multilabel else logits.softmax(-1)
