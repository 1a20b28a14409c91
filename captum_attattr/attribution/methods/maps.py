"""What a method is asked for, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from captum_attattr.attribution.baselines import AttentionBaselines
from captum_attattr.attribution.facts import Facts
from captum_attattr.attribution.inputs import Batch
from captum_attattr.attribution.integration import PathIntegral, default_limit
from captum_attattr.attribution.preparation import prepared_sweep
from captum_attattr.attribution.sweep import Sweep
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.runs.memory import in_chunks


@dataclass
class Request:
    """A batch of B examples, and the layers whose attention is scored.

    Attributes:
        layers: as in `LayerAttAttr`.
        batch: the examples, which can be run again in any rows.
        known: what was learned of the model from batches before; added to.
        baselines: the start B of the path whose direction, A - B, the scores follow.
        limit: most rows of one forward; None for a default by device.
        keep_attention: whether the attention is wanted too.
        check: refuses shapes (H, Tq, Tk) of layers, before any is scored; None for none.
    """

    layers: Sequence[AttentionLayer]
    batch: Batch
    known: dict[object, Facts] = field(default_factory=dict)
    baselines: AttentionBaselines = 0.0
    limit: int | None = None
    keep_attention: bool = False
    check: Callable[[Sequence[torch.Size]], object] | None = None

    @contextmanager
    def chunks(self) -> Iterator[tuple[Sweep, Callable[[Callable[[range], None]], None]]]:
        """Prepare a sweep; yield it, and what calls a function with the examples of one chunk after another."""
        with prepared_sweep(self.layers, self.batch, self.baselines, self.known) as sweep:
            sweep.keep_attention = self.keep_attention
            if self.check is not None:
                self.check(sweep.facts.shapes)

            def each(run: Callable[[range], None]) -> None:
                in_chunks(sweep.batch, default_limit(sweep, self.limit), run)

            yield sweep, each


@dataclass
class Maps:
    """Scores of a batch of B examples.

    Attributes:
        attributions: per layer (B, H, T, T), rows queries and columns keys; of methods that do not tell heads apart
            (B, 1, T, T); of methods that do not tell layers apart one such map.
        output: (B,) F(A), the model's output at the target.
        attention: per layer (B, H, T, T), A; empty where it was not asked for.
        rows: how many rows were run.
    """

    attributions: list[Tensor]
    output: Tensor
    attention: list[Tensor]
    rows: int

    def as_integral(self) -> PathIntegral:
        """Return the scores in the form of an integral that has no error, nodes or convergence delta."""
        batch, layers = len(self.output), len(self.attributions)
        unknown = torch.full((layers, batch), torch.nan)
        return PathIntegral(
            attributions=self.attributions,
            attention=self.attention,
            output=self.output,
            start=unknown,
            delta=unknown,
            error=unknown,
            nodes=torch.zeros(layers, batch, dtype=torch.long),
            converged=torch.ones(layers, batch, dtype=torch.bool),
            rows=self.rows,
            path="layer",
            total_delta=unknown[0],
            total_error=unknown[0],
            total_nodes=torch.zeros(batch, dtype=torch.long),
        )


def room(sweep: Sweep) -> list[Tensor]:
    """Return zeros for the maps (B, H, T, T) of every layer, on the CPU."""
    dtype = torch.promote_types(sweep.facts.dtype, torch.float32)
    options: dict[str, Any] = {"dtype": dtype, "device": "cpu"}
    return [torch.zeros(sweep.batch, *shape, **options) for shape in sweep.facts.shapes]


Method = Callable[[Request], Maps]
