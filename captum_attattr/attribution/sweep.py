"""Rows through the model: one forward and one backward give gradients for many (example, layer, node).

A row is one copy of one example. Clean rows run the model as it is. The row of (example e, layer l, node a)
is the run in which layer l of example e attends with B + a (A - B) instead of A; every other layer does what
it does by itself. All of them share one batch: at layer l only layer l's own rows are exchanged.

Below its layer a row is the clean row, so it need not be computed there (late branching): before each block,
every tensor that carries the batch is cut to the rows that have branched so far, and copies of the clean rows
are added for those that branch here. Where the blocks cannot be cut, all rows run from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from captum_attattr.attribution.late_branching import BlockRecorder, LateBranching
from captum_attattr.attribution.rows import Chunk, LayerRows, Row, RowLayout
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_control import AttentionControl, Replacement

Evaluate = Callable[[Tensor], Tensor]
"""F of the examples with these numbers (rows,), as a tensor (rows,): expands the batch and runs the model."""
Read = Callable[[int, Tensor], None]
"""Takes a layer's position and its attention (rows, H, Tq, Tk)."""
Baseline = Callable[[int, Tensor, Tensor], "Tensor | float"]
"""B for (layer, attention (n, H, Tq, Tk), examples (n,)), of a shape that broadcasts to the attention's."""


class Sweep:
    """Runs rows of a batch through one model.

    Args:
        control: the model's attention, already under control.
        evaluate: see `Evaluate`.
        baseline: see `Baseline`.
        batch: number of examples.
        device: where the inputs are.
    """

    def __init__(
        self,
        control: AttentionControl,
        evaluate: Evaluate,
        baseline: Baseline,
        batch: int,
        device: torch.device,
    ) -> None:
        self.control = control
        self.evaluate = evaluate
        self.baseline = baseline
        self.batch = batch
        self.device = device
        self.shapes: list[torch.Size] = []
        self.dtype = torch.float32
        self.order: list[int] = []
        self.branching: LateBranching | None = None

    def prepare(self, own: Tensor) -> None:
        """Learn the shapes and the order of the layers, and verify that rows do what they should.

        Args:
            own: F of the first examples, one or all, by the model's own attention implementation.

        Raises:
            UnsupportedModelError: the model computes something else once its attention is read or replaced.
        """
        first = torch.zeros(1, dtype=torch.long, device=self.device)
        with torch.no_grad():
            visits: list[int] = []
            shapes: dict[int, torch.Size] = {}

            def read(layer: int, attention: Tensor) -> None:
                visits.append(layer)
                shapes[layer] = attention.shape[1:]
                self.dtype = _working_dtype(attention)
                if attention.shape[0] != 1:
                    raise UnsupportedModelError(
                        f"{self.control.layers[layer]!r}: for one example its attention has shape "
                        f"{tuple(attention.shape)}; (1, heads, queries, keys) is needed"
                    )

            recorder = BlockRecorder(self.control)
            controlled = self._learn(recorder, first, visits, read)
            self._compare(own[:1], controlled, 0)
            self.shapes = [shapes[layer] for layer in range(len(self.control.layers))]
            self.order = visits
            for rows in torch.arange(1, len(own), device=self.device)[:, None]:
                self._compare(own[rows], self._learn(recorder, rows), int(rows[0]))
            self.branching = recorder.branching()
            self._verify(controlled)

    def _learn(
        self, recorder: BlockRecorder, row: Tensor, visits: list[int] | None = None, read: Read | None = None
    ) -> Tensor:
        """F of one example, whose blocks are recorded; run twice over where it brings them tensors not met before.

        A mask, for one, comes with the examples that are padded and with no others.
        """
        with (
            recorder.record([] if visits is None else visits),
            self.control.watch(read or _pass_over, check_output=read is not None),
        ):
            value = self.evaluate(row)
        if recorder.met_new():
            with recorder.record([]), self.control.watch(_pass_over):
                self.evaluate(row.repeat(2))
            recorder.pair()
        return value

    def _compare(self, own: Tensor, controlled: Tensor, first: int) -> None:
        """Refuse a model that computes something else eagerly, for consecutive examples from `first` on."""
        for example, (alone, eager) in enumerate(zip(own, controlled, strict=True), first):
            if not _close(eager, alone, self.dtype):
                raise UnsupportedModelError(
                    f"the model's output changes when its attention is computed eagerly: F = {alone.item():.6g} by "
                    f"itself, {eager.item():.6g} eagerly, for example {example}; its attention cannot be read "
                    "faithfully (dropout in training mode, a cache that is used again and rows that are all padding "
                    "do this)"
                )

    def _verify(self, alone: Tensor) -> None:
        """Rows at node 1 are the clean run, alone or not; with late branching, or else without it."""
        last = self.batch - 1
        # One in the first layer too: a hidden state between the blocks that has one row yet would broadcast.
        places = (0, self.order[0]), (0, self.order[len(self.order) // 2]), (last, self.order[-1])
        rows = [Row(*place, 1.0) for place in places]
        for attempt in (self.branching, None):
            self.branching = attempt
            try:
                chunk = self._run(rows, backward=False, baseline=lambda *_: 0.0)
            except (UnsupportedModelError, RuntimeError, ValueError, TypeError, IndexError):
                if attempt is None:
                    raise
                continue
            expected = torch.stack([chunk.clean[row.example] for row in rows])
            together = chunk.clean[0].reshape(1)
            if _close(chunk.values, expected, self.dtype) and _close(together, alone, self.dtype):
                return
        raise UnsupportedModelError(
            "replacing a layer's attention by itself, in a batch, changes the model's output, from "
            f"{[*alone.tolist(), *expected.tolist()]} to {[*together.tolist(), *chunk.values.tolist()]}; "
            "examples of one batch must not influence each other"
        )

    def _check_constant(self, values: Tensor, layout: RowLayout, layer: int) -> None:
        """Refuse a forward function that loses the gradient; a layer that F does not depend on has none."""
        rows = slice(*layout.slices[layer])
        if not _close(values[rows], values[layout.parents[rows]], self.dtype):
            raise ValueError(
                f"forward_func's output changes with the attention of {self.control.layers[layer]!r} but carries no "
                "gradient to it; leave .detach() and torch.no_grad() out of forward_func"
            )

    def _check_finite(self, gradient: Tensor, layout: RowLayout, layer: int) -> None:
        """Refuse gradients that overflow or do not exist, at an output that is finite."""
        broken = (~torch.isfinite(gradient)).flatten(1).any(1).nonzero()
        if len(broken):
            example = int(layout.examples[layout.slices[layer][0] + int(broken[0])])
            raise ValueError(
                f"the gradient of forward_func's output to {self.control.layers[layer]!r} of example {example} is not "
                "finite: forward_func has no derivative there, or it overflows and needs a wider floating-point type"
            )

    def run(self, rows: Sequence[Row], *, backward: bool = True) -> Chunk:
        """One forward for these rows and, unless only F is wanted, one backward."""
        return self._run(rows, backward=backward, baseline=self.baseline)

    def _run(self, rows: Sequence[Row], *, backward: bool, baseline: Baseline) -> Chunk:
        layout = RowLayout.of(rows, self.order, self.device)
        leaves: dict[int, LayerRows] = {}
        paths: dict[int, Tensor] = {}

        def visit(layer: int, attention: Tensor) -> Replacement | None:
            if attention.shape[1:] != self.shapes[layer]:
                raise UnsupportedModelError(
                    f"{self.control.layers[layer]!r}: its attention's shape changes with the batch, from "
                    f"{tuple(self.shapes[layer])} to {tuple(attention.shape[1:])}"
                )
            start, stop = layout.slices[layer]
            if start == stop:
                return None
            full = attention.detach()[layout.parents[start:stop]]
            full = full.to(torch.promote_types(full.dtype, torch.float32))
            start_point = baseline(layer, full, layout.examples[start:stop])
            difference = full - start_point
            nodes = layout.nodes[start:stop, None, None, None].to(full.dtype)
            path = (start_point + nodes * difference).to(attention.dtype).requires_grad_(backward)
            leaves[layer] = LayerRows(layout.numbers[start:stop], full, difference, torch.empty(0))
            paths[layer] = path
            return Replacement(start, path)

        cut = self.branching.applied(layout) if self.branching else nullcontext()
        with torch.set_grad_enabled(backward), cut, self.control.watch(visit):
            values = self.evaluate(layout.examples)
        if values.shape[0] != len(layout.examples):
            raise UnsupportedModelError(
                f"forward_func returned {values.shape[0]} values for {len(layout.examples)} rows"
            )
        if backward:
            layers = list(paths)
            gradients = _gradients(values, layout.clean, [paths[layer] for layer in layers])
            for layer, gradient in zip(layers, gradients, strict=True):
                if gradient is None:
                    self._check_constant(values, layout, layer)
                    gradient = torch.zeros_like(paths[layer])
                self._check_finite(gradient, layout, layer)
                leaves[layer].gradient = gradient.to(leaves[layer].attention.dtype)
        clean, branched = values[: layout.clean], values[layout.clean :]
        in_order = torch.empty_like(branched.detach())
        in_order[torch.tensor(layout.numbers[layout.clean :], device=branched.device)] = branched.detach()
        examples = layout.examples[: layout.clean].tolist()
        return Chunk(in_order, dict(zip(examples, clean.detach(), strict=True)), leaves)


def _pass_over(*_: Any) -> None:
    """Leaves attention as it is."""


def _gradients(values: Tensor, clean: int, paths: list[Tensor]) -> Sequence[Tensor | None]:
    """d values / d path for every path, clean rows left out; None where no graph leads to it."""
    if not values.requires_grad:
        return [None] * len(paths)
    # Weights, not values[clean:].sum(): the caller may be under torch.no_grad.
    weights = torch.ones_like(values)
    weights[:clean] = 0
    return torch.autograd.grad(values, paths, weights, allow_unused=True)


def _working_dtype(attention: Tensor) -> torch.dtype:
    """The type that a model computes in; autocast leaves the softmax in float32."""
    device = attention.device.type
    autocast = attention.dtype == torch.float32 and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else attention.dtype


def _close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two evaluations of F agree to what the floating-point type of the model can hold."""
    eps = max(torch.finfo(kind).eps for kind in (actual.dtype, dtype, torch.float32))
    return torch.allclose(actual, expected.to(actual.dtype), rtol=eps**0.5, atol=min(300 * eps, eps**0.5))


# ---------------------------------------------------------------------------------------- late branching
