"""Rows through the model: one forward and one backward give gradients for many (example, layer, node).

A row is one copy of one example. Clean rows run the model as it is. The row of (example e, layer l, node a)
is the run in which layer l of example e attends with B + a (A - B) instead of A; every other layer does what
it does by itself. All of them share one batch: at layer l only layer l's own rows are exchanged.

Below its layer a row is the clean row, so it need not be computed there: see `late_branching`. Where the blocks
cannot be cut, all rows run from the start.

On the joint path (`run_joint`) a row opens all layers at its node, each layer from the attention that it recomputes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from captum_attattr.attribution.baselines import AttentionBaselines, Baseline, baseline, check_baseline_shapes
from captum_attattr.attribution.inputs import Batch
from captum_attattr.attribution.late_branching import BlockRecorder, LateBranching
from captum_attattr.attribution.layers import check_model
from captum_attattr.attribution.rows import Chunk, JointChunk, LayerRows, Row, RowLayout
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_control import AttentionControl, Replacement
from captum_attattr.model.attention_layers import AttentionLayer

Evaluate = Callable[[Tensor], Tensor]
"""F of the examples with these indices (R,), as a tensor (R,): expands the batch and runs the model."""

EXAMPLES_AT_ONCE = 8
"""Examples of a forward before the model is under control, to see what F is by itself."""


@contextmanager
def prepared_sweep(layers: Sequence[AttentionLayer], batch: Batch, baselines: AttentionBaselines) -> Iterator[Sweep]:
    """Prepare a sweep over a batch; the model is restored at the end."""
    check_model(layers[0].model)
    with torch.no_grad():
        parts = torch.arange(batch.size, device=batch.device).chunk(-(-batch.size // EXAMPLES_AT_ONCE))
        uncontrolled = torch.cat([batch.evaluate(part) for part in parts])
    with AttentionControl(layers) as control:
        sweep = Sweep(control, batch.evaluate, baseline(baselines), batch.size, batch.device)
        sweep.prepare(uncontrolled)
        check_baseline_shapes(baselines, batch.size, sweep.shapes)
        yield sweep


class Sweep:
    """Runs rows of a batch through one model.

    Args:
        control: the model's attention, already under control.
        evaluate: see `Evaluate`.
        baseline: see `Baseline`.
        batch: how many examples there are.
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
        """(H, Tq, Tk) of every layer."""
        self.dtype = torch.float32
        """The type that the model computes in."""
        self.order: list[int] = []
        """The layers as they run."""
        self.branching: LateBranching | None = None
        self.outputs = torch.zeros(0)
        """F of the first examples, one or all, by the model's own attention implementation."""

    @torch.no_grad()
    def prepare(self, uncontrolled: Tensor) -> None:
        """Learn the shapes and the order of the layers, and verify that rows do what they should.

        Args:
            uncontrolled: F of the first examples, one or all, by the model's own attention implementation.

        Raises:
            UnsupportedModelError: the model computes something else once its attention is read or replaced.
        """
        shapes: dict[int, torch.Size] = {}

        def read(layer: int, attention: Tensor) -> None:
            self.order.append(layer)
            shapes[layer] = attention.shape[1:]
            self.dtype = _working_dtype(attention)
            if attention.shape[0] != 1:
                raise UnsupportedModelError(
                    f"{self.control.layers[layer]!r}: for one example its attention has shape "
                    f"{tuple(attention.shape)}; (1, heads, queries, keys) is needed"
                )

        self.outputs = uncontrolled
        recorder = BlockRecorder(self.control, self.evaluate)
        examples = torch.arange(len(uncontrolled), device=self.device)
        first = recorder.run(examples[:1], read)
        self._compare(0, uncontrolled[:1], first)
        self.shapes = [shapes[layer] for layer in range(len(self.control.layers))]
        for example in range(1, len(examples)):
            here = slice(example, example + 1)
            self._compare(example, uncontrolled[here], recorder.run(examples[here]))
        self.branching = recorder.branching()
        self._verify(first)

    def _compare(self, example: int, uncontrolled: Tensor, controlled: Tensor) -> None:
        """Refuse a model that computes something else eagerly."""
        if not _close(controlled, uncontrolled, self.dtype):
            raise UnsupportedModelError(
                "the model's output changes when its attention is computed eagerly: "
                f"F = {uncontrolled.item():.6g} by itself, {controlled.item():.6g} eagerly, for example {example}; its "
                "attention cannot be read faithfully (dropout in training mode, a cache that is used again and rows "
                "that are all padding do this)"
            )

    def _verify(self, alone: Tensor) -> None:
        """Verify that rows at node 1 are the clean run; give up late branching where they are so only without it.

        Args:
            alone: (1,) F of the first example, run without company.
        """
        # One in the first layer too: a hidden state between the blocks that has one row yet would broadcast.
        layers = self.order[0], self.order[len(self.order) // 2], self.order[-1]
        rows = [Row(example, layer, 1.0) for example, layer in zip((0, 0, self.batch - 1), layers, strict=True)]
        for branching in (self.branching, None):
            self.branching = branching
            try:
                chunk = self._run(rows, lambda *_: 0.0, backward=False)
            except (UnsupportedModelError, RuntimeError, ValueError, TypeError, IndexError):
                if branching is None:
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

    def run(self, rows: Sequence[Row], *, backward: bool = True) -> Chunk:
        """Run one forward for these rows and, unless only F is wanted, one backward."""
        return self._run(rows, self.baseline, backward=backward)

    def _run(self, rows: Sequence[Row], baseline: Baseline, *, backward: bool) -> Chunk:
        layout = RowLayout.of(rows, self.order, self.device)
        parts: dict[int, LayerRows] = {}
        paths: dict[int, Tensor] = {}

        def visit(layer: int, attention: Tensor) -> Replacement | None:
            self._check_shape(layer, attention)
            begin, end = layout.slices[layer]
            if begin == end:
                return None
            full = attention.detach()[layout.parents[begin:end]]
            full = full.to(torch.promote_types(full.dtype, torch.float32))
            visible = self.control.visible_keys()
            if visible is not None and visible.dim() == 4 and len(visible) == len(attention):
                visible = visible[layout.parents[begin:end]]
            start = baseline(layer, full, layout.examples[begin:end], visible)
            difference = full - start
            nodes = layout.nodes[begin:end, None, None, None].to(full.dtype)
            paths[layer] = (start + nodes * difference).to(attention.dtype).requires_grad_(backward)
            listed = layout.listed[begin - layout.clean : end - layout.clean]
            parts[layer] = LayerRows(listed, full, difference, torch.empty(0))
            return Replacement(begin, paths[layer])

        cut = self.branching.applied(layout) if self.branching else nullcontext()
        with torch.set_grad_enabled(backward), cut, self.control.watch(visit):
            values = self.evaluate(layout.examples)
        if values.shape[0] != len(layout.examples):
            raise UnsupportedModelError(
                f"forward_func returned {values.shape[0]} values for {len(layout.examples)} rows"
            )
        if backward:
            for layer, gradient in self._gradients(values, layout, paths).items():
                parts[layer].gradient = gradient.to(parts[layer].attention.dtype)
        clean, branched = values.detach().tensor_split([layout.clean])
        in_order = torch.empty_like(branched)
        in_order[torch.tensor(layout.listed, device=branched.device)] = branched
        examples = layout.examples[: layout.clean].tolist()
        return Chunk(in_order, dict(zip(examples, clean, strict=True)), parts)

    def _gradients(self, values: Tensor, layout: RowLayout, paths: dict[int, Tensor]) -> dict[int, Tensor]:
        """Return dF/dA of every layer's rows.

        Raises:
            ValueError: the forward function loses the gradient, or it is not finite at an output that is.
        """
        computed: Sequence[Tensor | None] = [None] * len(paths)
        if values.requires_grad:
            # Weights, not values[clean:].sum(): the caller may be under torch.no_grad.
            weights = torch.ones_like(values)
            weights[: layout.clean] = 0
            computed = torch.autograd.grad(values, list(paths.values()), weights, allow_unused=True)
        gradients = {}
        for (layer, path), gradient in zip(paths.items(), computed, strict=True):
            rows = slice(*layout.slices[layer])
            # A layer that F does not depend on has no gradient, and nothing to lose.
            if gradient is None:
                self._check_constant(layer, values[rows], values[layout.parents[rows]])
            gradients[layer] = torch.zeros_like(path) if gradient is None else gradient
            self._check_finite(layer, gradients[layer], layout.examples[rows])
        return gradients

    def run_joint(self, rows: Sequence[Row], *, backward: bool = True) -> JointChunk:
        """Run one forward for these rows, all layers open at their nodes, and, unless only F is wanted, one backward.

        A row's attention is B + a (A - B) at every layer, A being what the layer computes from the row's own hidden
        states, so that the chain of layers is part of the path. `Row.layer` is not used.
        """
        examples = torch.tensor([row.example for row in rows], device=self.device)
        wide = torch.promote_types(self.dtype, torch.float32)
        nodes = torch.tensor([row.node for row in rows], device=self.device, dtype=torch.double)[:, None, None, None]
        ends = [i for i, row in enumerate(rows) if row.node == 1.0]
        paths: dict[int, Tensor] = {}
        differences: dict[int, Tensor] = {}
        attentions: dict[int, list[Tensor]] = {i: [] for i in ends}

        def visit(layer: int, attention: Tensor) -> Replacement:
            self._check_shape(layer, attention)
            full = attention.to(wide)
            start = self.baseline(layer, full, examples, self.control.visible_keys())
            difference = full - start
            path = (start + nodes.to(wide) * difference).to(attention.dtype)
            paths[layer] = path if path.requires_grad or not backward else path.requires_grad_()
            differences[layer] = difference.detach()
            for i in ends:
                attentions[i].append(full[i].detach())
            return Replacement(0, paths[layer])

        with torch.set_grad_enabled(backward), self.control.watch(visit):
            values = self.evaluate(examples)
        maps = torch.zeros(0)
        if backward:
            layers = range(len(self.shapes))
            gradients = self._joint_gradients(values, [paths[layer] for layer in layers], examples)
            parts = [differences[layer] * gradient.to(wide) for layer, gradient in zip(layers, gradients, strict=True)]
            maps = torch.cat([part.flatten(1) for part in parts], dim=1)
        return JointChunk(values.detach(), maps, {i: self._in_order(attentions[i]) for i in ends})

    def _joint_gradients(self, values: Tensor, paths: list[Tensor], examples: Tensor) -> list[Tensor]:
        """Return dF/dA of every layer for rows of the joint path; raises as `_gradients` does."""
        computed: Sequence[Tensor | None] = [None] * len(paths)
        if values.requires_grad:
            computed = torch.autograd.grad(values, paths, torch.ones_like(values), allow_unused=True)
        if all(gradient is None for gradient in computed) and len(self.outputs) == self.batch:
            self._check_constant(0, values, self.outputs[examples])
        gradients = []
        for layer, (path, gradient) in enumerate(zip(paths, computed, strict=True)):
            gradients.append(torch.zeros_like(path) if gradient is None else gradient)
            self._check_finite(layer, gradients[-1], examples)
        return gradients

    def _in_order(self, visited: list[Tensor]) -> list[Tensor]:
        """Return what was met at the layers as they run in the order of the list of layers."""
        by_layer = dict(zip(self.order, visited, strict=True))
        return [by_layer[layer] for layer in range(len(self.shapes))]

    def _check_shape(self, layer: int, attention: Tensor) -> None:
        """Refuse attention whose shape changes with the batch."""
        if attention.shape[1:] != self.shapes[layer]:
            raise UnsupportedModelError(
                f"{self.control.layers[layer]!r}: its attention's shape changes with the batch, from "
                f"{tuple(self.shapes[layer])} to {tuple(attention.shape[1:])}"
            )

    def _check_constant(self, layer: int, values: Tensor, expected: Tensor) -> None:
        """Refuse a forward function that loses the gradient: without one, F must not change with the attention."""
        if not _close(values, expected, self.dtype):
            raise ValueError(
                f"forward_func's output changes with the attention of {self.control.layers[layer]!r} but carries "
                "no gradient to it; leave .detach() and torch.no_grad() out of forward_func"
            )

    def _check_finite(self, layer: int, gradient: Tensor, examples: Tensor) -> None:
        """Refuse gradients that are not finite at an output that is."""
        broken = (~torch.isfinite(gradient)).flatten(1).any(1).nonzero()
        if len(broken):
            raise ValueError(
                f"the gradient of forward_func's output to {self.control.layers[layer]!r} of example "
                f"{int(examples[broken[0]])} is not finite: forward_func has no derivative there, or it overflows and "
                "needs a wider floating-point type"
            )


def _working_dtype(attention: Tensor) -> torch.dtype:
    """Return the type that a model computes in; autocast leaves the softmax in float32."""
    device = attention.device.type
    autocast = attention.dtype == torch.float32 and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else attention.dtype


def _close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two evaluations of F agree to what the floating-point type of the model can hold."""
    eps = max(torch.finfo(kind).eps for kind in (actual.dtype, dtype, torch.float32))
    return torch.allclose(actual, expected.to(actual.dtype), rtol=eps**0.5, atol=min(300 * eps, eps**0.5))
