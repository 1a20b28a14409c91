"""What a text model's outputs mean: classes, next tokens, several labels at once or a score, and the gold labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr import checks
from captum_attattr.checks import integer, listed, real, scalar
from captum_attattr.explanations.words import text_of
from captum_attattr.model.wrappers import SIMILARITIES, TEXT_TO_TEXT

CHOICES = ("probability", "logit", "log_probability")
"""What may be asked for."""
OUTPUTS = (*CHOICES, "score")
"""What F may be: an output of a class, token or label, or a regression's score."""


class Outputs:
    """How the outputs and labels of a model are understood.

    Args:
        config: the model's configuration.
        tokenizer: its tokenizer; that of a language model names the classes.
        task: one of `model.wrappers.TASKS`, or `TEXT_TO_TEXT`.
        device: where the model's outputs are.
    """

    def __init__(self, config: Any, tokenizer: Any, task: str, device: torch.device) -> None:
        self.config, self.tokenizer, self.device = config, tokenizer, device
        self.language = task in ("next_token", TEXT_TO_TEXT)
        """Whether the classes are the tokens that come next."""
        self.vocabulary = self.language or task == "masked_lm"
        """Whether the classes are tokens."""
        self._classifies = task == "classification"
        self._compares = task in SIMILARITIES

    @property
    def multilabel(self) -> bool:
        """Whether the outputs are labels of which an example may have any number."""
        return self._classifies and getattr(self.config, "problem_type", None) == "multi_label_classification"

    @property
    def regression(self) -> bool:
        """Whether the output is a score, not a class."""
        regression = getattr(self.config, "problem_type", None) == "regression" or self.config.num_labels == 1
        return self._compares or (self._classifies and not self.multilabel and regression)

    @property
    def _scoring(self) -> str:
        """What gives a score, for errors."""
        return "the task is similarity, which" if self._compares else "the model is a regression, which"

    # ---------------------------------------------------------------------------------------------- the output

    @property
    def output(self) -> str:
        """What F usually is: "probability", or "score" where the model is a regression."""
        return "score" if self.regression else "probability"

    def chosen_output(self, output: str | None, contrasted: bool = False) -> str:
        """Return what F is called, one of `OUTPUTS`.

        Args:
            output: what was asked for: "probability", "logit" or "log_probability"; of a regression "logit", which is
                the score; None for the task's own.
            contrasted: whether F is the difference of two outputs.

        Raises:
            ValueError: it means nothing for a regression, or for anything else.
        """
        if not self.regression:
            if output == "score":
                raise ValueError(f"output='score' is a regression's; use one of {', '.join(map(repr, CHOICES))}")
            return output or "probability"
        if output not in (None, "logit", "score"):
            raise ValueError(f"output={output!r}: {self._scoring} has a score only; use 'logit'")
        if contrasted:
            raise ValueError(f"contrast: {self._scoring} gives a score and no classes; leave it out")
        return "score"

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return softmax, sigmoid of a multi-label model, the score itself of a regression."""
        if self.regression:
            return logits
        return logits.sigmoid() if self.multilabel else logits.softmax(-1)

    def values(self, logits: Tensor, output: str) -> Tensor:
        """Return the output of that name, as `chosen_output` returned it, of every class."""
        if output == "log_probability":
            return nn.functional.logsigmoid(logits) if self.multilabel else logits.log_softmax(-1)
        return logits if output == "logit" else self.probabilities(logits)

    def predictions(self, logits: Tensor) -> Tensor:
        """Return (B,) the class or token of the largest logit, or the score; (B, C) 0 or 1 of several labels."""
        if self.multilabel:
            return (logits > 0).to(logits)  # a probability above a half
        return logits.squeeze(-1) if self.regression else logits.argmax(-1)

    def losses(self, logits: Tensor, gold: Tensor) -> Tensor:
        """Return (B,) cross entropy (of several labels, the sum of theirs), or the squared error of a regression."""
        gold = gold.to(logits.device)  # the last layers may be elsewhere than the first
        if self.regression:
            return (logits.squeeze(-1) - gold).square()
        if self.multilabel:
            return nn.functional.binary_cross_entropy_with_logits(logits, gold, reduction="none").sum(-1)
        return nn.functional.cross_entropy(logits, gold, reduction="none")

    def right(self, logits: Tensor, gold: Tensor) -> Tensor:
        """Return (B,) whether the prediction is the gold class, or all of several labels are."""
        same = self.predictions(logits) == gold.to(logits.device)
        return same.all(-1) if self.multilabel else same

    def outcomes(self, logits: Tensor, gold: Tensor) -> Tensor:
        """Return (B, 1 + P) on the CPU: the loss, then the prediction: one entry, or one for each of several labels."""
        predictions = self.predictions(logits).cpu().double().reshape(len(logits), -1)
        return torch.cat((self.losses(logits, gold).cpu().double()[:, None], predictions), dim=1)

    # ---------------------------------------------------------------------------------------------- the labels

    @property
    def size(self) -> int:
        """How many classes or tokens there are."""
        return int(self.config.get_text_config().vocab_size if self.vocabulary else self.config.num_labels)

    def target(self, index: int, target: Any, what: str = "target") -> int | None:
        """Return the index of a class, or the id of a token; None stays None.

        Args:
            index: of the text in its list, for the errors.
            target: an integer of any library, or a name.
            what: names the argument in errors.

        Raises:
            TypeError, ValueError: it is something else, or the model does not have it.
        """
        target = scalar(target)
        if target is None:
            return None
        if isinstance(target, str):
            return self._named(index, target, what)
        wanted = integer(target)
        if wanted is None:
            several = (
                ", or config.problem_type 'multi_label_classification'" if isinstance(target, list | tuple) else ""
            )
            raise TypeError(f"{what} {target!r} of texts[{index}] must be an integer or a name{several}")
        if not 0 <= wanted < self.size:
            raise ValueError(f"{what} {wanted} of texts[{index}] is out of range: the model has {self.size}")
        return wanted

    def contrasted(self, index: int, target: Any, contrast: Any) -> tuple[int | None, int | None]:
        """Return the target and what it is contrasted with, each as `target` does.

        Raises:
            TypeError, ValueError: as `target`, or both are the same.
        """
        first, second = self.target(index, target), self.target(index, contrast, "contrast")
        if first is not None and first == second:
            raise ValueError(f"contrast {contrast!r} of texts[{index}] is its target, {first}: another class is needed")
        return first, second

    def _named(self, index: int, name: str, what: str) -> int:
        """Return the index of the class, or the id of the token, of a name."""
        if self.vocabulary:
            checks.characters(f"{what} of texts[{index}]", name)
            ids = self.tokenizer(name, add_special_tokens=False)["input_ids"]
            if len(ids) != 1:
                tokens, spaced = self.tokenizer.convert_ids_to_tokens(ids), f" {name.strip()}"
                one = name != spaced and len(self.tokenizer(spaced, add_special_tokens=False)["input_ids"]) == 1
                raise ValueError(
                    f"{what} {name!r} of texts[{index}] is {len(ids)} tokens {tokens}; one is needed"
                    + f", as {spaced!r} is" * one
                )
            unknown = getattr(self.tokenizer, "unk_token", None)
            if unknown and ids[0] == self.tokenizer.unk_token_id and name.strip() != unknown:
                raise ValueError(
                    f"{what} {name!r} of texts[{index}] is no word of the tokenizer: it reads as {unknown!r}"
                )
            return int(ids[0])
        labels = self._class_names
        found = [i for i, label in labels.items() if label == name]
        numerals = any(label.isdecimal() for label in labels.values())  # "1 star" is none, "1" of "1" to "5" is
        if not found and not numerals and any(str(i) == name for i in labels):  # a number that no class is called
            return int(name)
        if not found:
            names = sorted(labels.values())
            numbers = ", whose names are numerals: as a number it would have to be an int" * numerals
            raise ValueError(f"{what} {name!r} of texts[{index}] is unknown; the model has {names}{numbers}")
        if len(found) > 1:
            raise ValueError(f"{what} {name!r} of texts[{index}] names the classes {found}: give the number")
        return found[0]

    def label(self, target: int) -> str:
        """Return the name of a class or token."""
        if self.vocabulary:
            return text_of(self.tokenizer, [target])
        return self._class_names.get(target, str(target))

    @property
    def _class_names(self) -> dict[int, str]:
        """The names of the classes; their numbers may be strings in a configuration that was not loaded."""
        return {int(i): str(name) for i, name in self.config.id2label.items()}

    def names(self, gold: Tensor) -> list[str]:
        """Return the names of the gold labels that some text has, each once; scores have none."""
        if self.regression:
            return []
        targets = gold.nonzero()[:, 1] if gold.dim() > 1 else gold
        return sorted({self.label(target) for target in targets.tolist()})

    def labels(self, labels: Any, count: int) -> Tensor:
        """Return the gold labels as a tensor.

        Args:
            labels: a list or array with an entry for each text.
            count: how many texts there are.

        Returns:
            (N,) classes, tokens or scores, or (N, C) 0 or 1 for each of several labels.

        Raises:
            TypeError, ValueError: not as many as texts, or a label that the model does not have.
        """
        entries = listed(labels)
        if isinstance(entries, str) or not isinstance(entries, Sequence):
            raise TypeError(f"labels must be a list with one label for each text, got {type(labels).__name__}")
        if len(entries) != count:
            raise ValueError(f"{len(entries)} labels for {count} examples")
        if self.regression:
            return torch.tensor(self._scores(list(entries)), dtype=torch.float32, device=self.device)
        if self.multilabel:
            return torch.tensor([self._indicators(i, label) for i, label in enumerate(entries)], device=self.device)
        classes = [self.target(i, label, "label") for i, label in enumerate(entries)]
        if None in classes:
            raise ValueError(f"label None of texts[{classes.index(None)}]: a class is needed")
        return torch.tensor(classes, device=self.device)

    def _scores(self, labels: list[Any]) -> list[float]:
        """Return the gold scores of a regression."""
        if self.config.num_labels > 1:
            raise ValueError(f"the model gives {self.config.num_labels} scores for a text; only one can be compared")
        scores = []
        for index, label in enumerate(labels):
            score = real(label)
            if score is None or not math.isfinite(score):
                raise ValueError(f"label {label!r} of texts[{index}] must be a finite number, the score")
            scores.append(score)
        return scores

    def _indicators(self, index: int, given: Any) -> list[float]:
        """Return 0 or 1 for each of the model's labels, of one text."""
        size = self.config.num_labels
        label = scalar(listed(given))
        several = isinstance(label, list | tuple)
        entries = [scalar(entry) for entry in (label if several else [label])]
        if several and len(entries) == size and all(isinstance(one, Real) and one in (0, 1) for one in entries):
            return [float(one) for one in entries]
        if size == 1 and not isinstance(label, str):  # is 0 the label's index, or does the text not have it?
            raise ValueError(f"label {given!r} of texts[{index}]: the model has one label; [1] or [0] is needed")
        if not several or (entries and all(isinstance(name, str) for name in entries)):
            targets = [self.target(index, name, "label") for name in entries]
            if None not in targets:
                return [float(i in targets) for i in range(size)]
        raise ValueError(
            f"label {given!r} of texts[{index}]: the model tells {size} labels apart that a text has or not; give "
            f"{size} numbers, each 0 or 1, or the names of the text's labels"
        )
