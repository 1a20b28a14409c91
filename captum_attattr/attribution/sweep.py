"""Rows through the model: one forward and one backward give gradients for many (example, layer, node).

A row is one copy of one example. Clean rows run the model as it is. The row of (example e, layer l, node a)
is the run in which layer l of example e attends with B + a (A - B) instead of A; every other layer does what
it does by itself. All of them share one batch: at layer l only layer l's own rows are exchanged.

Below its layer a row is the clean row, so it need not be computed there: see `late_branching`. Where the blocks
cannot be cut, all rows run from the start.

On the joint path a row opens all layers together, each recomputing its own attention: with a gate M on every
attention probability, so that a layer attends with B + M (A - B), A being what it computes from the row's own hidden
states, and all gates at a,

    Attr_lh = integral_0^1 dF/dM_lh da,

which carries the factor (A - B). One row gives every layer's map at its node, and the sum over layers, heads, queries
and keys is F(A) - F(B), B standing in all layers at once: the scores of different layers are parts of one budget. For
one layer alone it is the path of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor

from captum_attattr.attribution.baselines import AttentionBaselines, Baseline, baseline, check_baseline_shapes
from captum_attattr.attribution.inputs import Batch
from captum_attattr.attribution.late_branching import BlockRecorder, LateBranching
from captum_attattr.attribution.layers import check_model
from captum_attattr.attribution.rows import ALL, Chunk, LayerRows, Row, RowLayout
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


@dataclass(eq=False)
class Sweep:
    """Runs rows of a batch through one model.

    Attributes:
        control: the model's attention, already under control.
        evaluate: see `Evaluate`.
        baseline: see `Baseline`.
        batch: how many examples there are.
        device: where the inputs are.
        shapes: (H, Tq, Tk) of every layer.
        dtype: the type that the model computes in.
        order: the layers as they run.
        branching: how the blocks are cut; None where they are not.
    """

    control: AttentionControl
    evaluate: Evaluate
    baseline: Baseline
    batch: int
    device: torch.device
    shapes: list[torch.Size] = field(default_factory=list, init=False)
    dtype: torch.dtype = field(default=torch.float32, init=False)
    order: list[int] = field(default_factory=list, init=False)
    branching: LateBranching | None = field(default=None, init=False)

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
            # Of rows that open all layers it depends on the layers below, whose gradients run through it.
            full = attention if layout.joint else attention.detach()[layout.parents[begin:end]]
            full = full.to(torch.promote_types(full.dtype, torch.float32))
            visible = self.control.visible_keys()
            if visible is not None and visible.dim() == 4 and len(visible) == len(attention):
                visible = visible[layout.parents[begin:end]]
            start = baseline(layer, full, layout.examples[begin:end], visible)
            difference = full - start
            nodes = layout.nodes[begin:end, None, None, None].to(full.dtype)
            paths[layer] = (start + nodes * difference).to(attention.dtype).requires_grad_(backward)
            listed = layout.listed[begin - layout.clean : end - layout.clean]
            parts[layer] = LayerRows(listed, full.detach(), difference.detach(), torch.empty(0))
            return Replacement(begin, paths[layer])

        cut = self.branching.applied(layout) if self.branching and not layout.joint else nullcontext()
        with torch.set_grad_enabled(backward), cut, self.control.watch(visit):
            values = self.evaluate(layout.examples)
        if values.shape[0] != len(layout.examples):
            raise UnsupportedModelError(
                f"forward_func returned {values.shape[0]} values for {len(layout.examples)} rows"
            )
        if backward:
            for layer, gradient in self._gradients(values, layout, paths).items():
                parts[layer].gradient = gradient.to(parts[layer].attention.dtype)
            if layout.joint:
                parts = {ALL: _side_by_side([parts[layer] for layer in range(len(self.shapes))])}
        clean, branched = values.detach().tensor_split([layout.clean])
        in_order = torch.empty_like(branched)
        in_order[torch.tensor(layout.listed, device=branched.device)] = branched
        outputs = dict(zip(layout.examples[: layout.clean].tolist(), clean, strict=True))
        if layout.joint:
            outputs = {row.example: value for row, value in zip(rows, in_order, strict=True) if row.node == 1.0}
        return Chunk(in_order, outputs, parts)

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
            if gradient is None and layout.joint:
                opened = [Row(example, layer, 0.0) for example in layout.examples[layout.nodes == 0].tolist()]
                if opened:
                    self.run(opened)
            elif gradient is None and not _close(values[rows], values[layout.parents[rows]], self.dtype):
                raise ValueError(
                    f"forward_func's output changes with the attention of {self.control.layers[layer]!r} but carries "
                    "no gradient to it; leave .detach() and torch.no_grad() out of forward_func"
                )
            gradients[layer] = torch.zeros_like(path) if gradient is None else gradient
            broken = (~torch.isfinite(gradients[layer])).flatten(1).any(1).nonzero()
            if len(broken):
                raise ValueError(
                    f"the gradient of forward_func's output to {self.control.layers[layer]!r} of example "
                    f"{int(layout.examples[rows][broken[0]])} is not finite: forward_func has no derivative there, or "
                    "it overflows and needs a wider floating-point type"
                )
        return gradients

    def _check_shape(self, layer: int, attention: Tensor) -> None:
        """Refuse attention whose shape changes with the batch."""
        if attention.shape[1:] != self.shapes[layer]:
            raise UnsupportedModelError(
                f"{self.control.layers[layer]!r}: its attention's shape changes with the batch, from "
                f"{tuple(self.shapes[layer])} to {tuple(attention.shape[1:])}"
            )


def _side_by_side(parts: Sequence[LayerRows]) -> LayerRows:
    """Return rows that open all layers as one part, each row's entries of all layers in one vector."""
    names = ("attention", "difference", "gradient")
    vectors = [torch.cat([getattr(part, name).flatten(1) for part in parts], dim=1) for name in names]
    return LayerRows(parts[0].rows, *vectors)


def _working_dtype(attention: Tensor) -> torch.dtype:
    """Return the type that a model computes in; autocast leaves the softmax in float32."""
    device = attention.device.type
    autocast = attention.dtype == torch.float32 and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if autocast else attention.dtype


def _close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> bool:
    """Whether two evaluations of F agree to what the floating-point type of the model can hold."""
    eps = max(torch.finfo(kind).eps for kind in (actual.dtype, dtype, torch.float32))
    return torch.allclose(actual, expected.to(actual.dtype), rtol=eps**0.5, atol=min(300 * eps, eps**0.5))
