"""Examples with gold labels, ready for a model: encoded, in batches, run so that an interruption costs one batch."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from captum_attattr.exceptions import ConvergenceWarning, warn_caller
from captum_attattr.explanations.encoding import Encoded, Text
from captum_attattr.explanations.text_model import TextModel
from captum_attattr.model.modes import evaluation_mode
from captum_attattr.runs.batches import run_batches
from captum_attattr.runs.processes import is_main_process

Work = Callable[[int, list[int], list[str]], Tensor]
"""Gives the values of some examples, (B, ...), by the step and the examples' indices; it appends each map that did
not converge to the list."""


@dataclass(frozen=True)
class LabelledExamples:
    """Examples with gold labels, checked. N examples.

    Attributes:
        texts: the model, and how it takes texts.
        items: the examples, encoded.
        gold: (N,) their labels; (N, C) of a multi-label model.
        batches: the indices of the examples that go through the model together.
    """

    texts: TextModel
    items: list[Encoded]
    gold: Tensor
    batches: list[list[int]]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        tokenizer: Any,
        examples: Sequence[Text],
        labels: Sequence[Any],
        batch_size: int,
        truncate: bool | int,
        **reading: Any,
    ) -> LabelledExamples:
        """Check and encode examples and labels, as `head_importance` takes them; `reading` says how texts are read.

        Raises:
            TypeError, ValueError: see `head_importance`.
        """
        texts = TextModel(model, tokenizer, truncate, **reading)
        items = texts.encode_all(examples)
        return cls(texts, items, texts.labels(labels, len(items)), texts.batches(items, batch_size))

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What tells a run over these examples from others."""
        return self.texts.fingerprint(self.items, self.gold, self.batches)

    def run(
        self,
        work: Work,
        about: dict[str, Any],
        *,
        steps: int = 1,
        resume: str | os.PathLike[str] | None,
        progress: bool,
        desc: str,
    ) -> Tensor:
        """Run every example at every step, with the model in evaluation mode.

        Args:
            work: gives the values of a batch.
            about: what tells this run from others over the same examples.
            steps: how often every example is run, S.
            resume, progress, desc: as in `run_batches`.

        Returns:
            (S, N, ...) float64.

        Warns:
            ConvergenceWarning: once, for all maps that did not converge, those of resumed batches included.
        """
        count = len(self.items)
        batches = [[step * count + index for index in batch] for step in range(steps) for batch in self.batches]
        unconverged: list[str] = []

        def at_step(positions: list[int]) -> Tensor:
            return work(positions[0] // count, [position % count for position in positions], unconverged)

        with evaluation_mode(self.texts.model):
            values = run_batches(
                batches,
                at_step,
                {**about, **self.fingerprint},
                resume=resume,
                progress=progress,
                desc=desc,
                notes=unconverged,
                costs=self.texts.costs(self.items, self.batches) * steps,
            )
        if unconverged and is_main_process():
            first = "; ".join(unconverged[:10]) + ("; ..." if len(unconverged) > 10 else "")
            warn_caller(
                f"{len(unconverged)} attribution maps have an estimated relative error above the tolerance: {first}",
                ConvergenceWarning,
            )
        return values.reshape(steps, count, *values.shape[1:])
