"""Rows through the model: one forward and one backward give gradients for many (example, layer, node).

A row is one copy of one example. The row of (example e, layer l, node a) is the run in which layer l of example e
attends with B + a (A - B) instead of A; every other layer does what it does by itself. Rows of many layers, nodes and
examples share one batch: at layer l only layer l's own rows are exchanged.

Below its layer a row is its example as it is, so it need not be computed there: see `late_branching`. Where the blocks
cannot be cut, all rows run from the start. At node 1 the rows of all layers are the same run, which is made once for
each example and gives every layer's gradient there.

On the joint path a row opens all layers together, each recomputing its own attention: with a gate M on every
attention probability, so that a layer attends with B + M (A - B), A being what it computes from the row's own hidden
states, and all gates at a,

    Attr_lh = integral_0^1 dF/dM_lh da,

which carries the factor (A - B). One row gives every layer's map at its node, and the sum over layers, heads, queries
and keys is F(A) - F(B), B standing in all layers at once: the scores of different layers are parts of one budget. For
one layer alone it is the path of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from captum_attattr.attribution.baselines import Baseline
from captum_attattr.attribution.edges import Edges
from captum_attattr.attribution.facts import Evaluate, Facts, close
from captum_attattr.attribution.late_branching import BlockRecorder, CleanRun, Path, Site, block_hooks
from captum_attattr.attribution.rows import ALL, Chunk, LayerRows, Row, RowLayout
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_control import AttentionControl, LayerCall, Visitor, times_values
from captum_attattr.runs.memory import out_of_memory

Calls = dict[int, LayerCall]
"""By layer, in a run."""


@dataclass
class CleanExample:
    """One example as it is: the run that it was part of, F(A), and per layer the gradient at node 1 if asked for."""

    run: CleanRun
    output: Tensor
    gradients: list[Tensor]


@dataclass(eq=False)
class Sweep:
    """Runs rows of a batch through one model.

    Attributes:
        control: the model's attention, already under control.
        evaluate: see `Evaluate`.
        baseline: see `Baseline`; None for zeros.
        facts: what is known of the model for inputs of this form.
        uncontrolled: (B,) F of every example by the model's own attention implementation, where the inputs are.
        device: where the inputs are.
        multiply: whether maps carry the factor (A - B).
        keep_attention: whether rows at node 1 that open all layers give the attention.
        clean: the examples that have been run as they are, until they are dropped.
        edges: by example and layer those of rows that have been run, until they are dropped.
    """

    control: AttentionControl
    evaluate: Evaluate
    baseline: Baseline | None
    facts: Facts
    uncontrolled: Tensor
    device: torch.device
    multiply: bool = True
    keep_attention: bool = False
    clean: dict[int, CleanExample] = field(default_factory=dict, init=False)
    edges: dict[tuple[int, int], Edges] = field(default_factory=dict, init=False)

    @property
    def batch(self) -> int:
        """How many examples there are."""
        return len(self.uncontrolled)

    def __post_init__(self) -> None:
        self.control.fused = self.facts.fused

    def run_clean(self, examples: Sequence[int], *, backward: bool) -> None:
        """Run examples as they are, with every layer's gradient where rows at node 1 are wanted."""
        branching = self.facts.branching
        clean = CleanRun(examples, branching.dimensions if branching else {})
        tensors: dict[int, Tensor] = {}

        def visit(layer: int, call: LayerCall) -> Tensor | None:
            self._check_shape(layer, call)
            if backward:
                tensors[layer] = call.tensor if call.tensor.requires_grad else call.tensor.detach().requires_grad_()
            return tensors.get(layer)

        rows = torch.tensor(examples, device=self.device)
        with torch.set_grad_enabled(backward), block_hooks(branching.stacks if branching else [], clean.enter):
            outputs = self._outputs(rows, visit)
        self._compare(rows, outputs)
        if branching:
            recorder = BlockRecorder(self.control, self.evaluate, self.facts.space, branching)
            with torch.no_grad():
                recorder.learn(rows, clean.calls)
            if not recorder.stacks:
                self.facts.branching = None
        gradients = self.gradients(outputs, tensors, rows)
        for row, example in enumerate(examples):
            by_layer = [self.or_zeros(gradients[layer], tensors[layer])[row] for layer in range(len(tensors))]
            self.clean[example] = CleanExample(clean, outputs.detach()[row], by_layer)

    @torch.no_grad()
    def read(self, examples: Sequence[int], visit: Callable[[int, LayerCall], None]) -> Tensor:
        """Return F of examples as they are, and show `visit` their attention."""
        rows = torch.tensor(examples, device=self.device)

        def checked(layer: int, call: LayerCall) -> None:
            self._check_shape(layer, call)
            visit(layer, call)

        outputs = self._outputs(rows, checked)
        self._compare(rows, outputs)
        return outputs

    def run(self, rows: Sequence[Row], *, backward: bool = True) -> Chunk:
        """Run one forward for these rows and, unless only F is wanted, one backward.

        Examples of rows that open one layer must have been run as they are; the first time rows of them are verified.

        Raises:
            UnsupportedModelError: the model computes something else once its attention is replaced.
            ValueError: the gradient is lost or not finite.
        """
        if any(row.layer == ALL for row in rows):
            return self._run_open(rows, backward=backward)
        if not self.facts.verified:
            self._verify(rows[0].example, rows[-1].example)
        return self._run(rows, backward=backward)

    @torch.no_grad()
    def run_changed(self, rows: Sequence[Row], change: Callable[[int, LayerCall, list[int]], Tensor | None]) -> Tensor:
        """Return F of rows whose attention is changed at their layer and at any above it; without gradients.

        Args:
            rows: their examples must have been run as they are.
            change: called at every layer with its index, its call, and the indices of the call's rows in `rows`;
                returns what replaces the call's tensor.
        """
        if not self.facts.verified:
            self._verify(rows[0].example, rows[-1].example)
        layout = RowLayout.of(rows, self.facts.order, self.device)

        def visit(layer: int, call: LayerCall) -> Tensor | None:
            self._check_shape(layer, call)
            return change(layer, call, layout.listed[: len(call.tensor)])

        cut: AbstractContextManager[None] = nullcontext()
        if self.facts.branching:
            cut = self.facts.branching.applied(layout, self._clean_rows)
        with cut:
            return Chunk.of(self._outputs(layout.examples, visit), layout).outputs

    def _verify(self, *examples: int) -> None:
        """Verify that rows at node 1 are the clean run; where they are so only without, blocks are not cut.

        No block is given one row alone or all of them: of a forward function that reads a hidden state between the
        blocks the first would broadcast, and the second not tell.

        Raises:
            UnsupportedModelError: they are not.
        """
        order = self.facts.order
        layers = order[0], order[len(order) // 2], order[-1]
        rows = [Row(examples[i % 2], layer, 1.0) for i, layer in enumerate(layers)][: 1 if self.facts.packed else None]
        expected = torch.stack([self.clean[row.example].output for row in rows])
        for branching in (self.facts.branching, None):
            self.facts.branching = branching
            try:
                outputs = self._run(rows, backward=False, least=2).outputs
            except (UnsupportedModelError, RuntimeError, ValueError, TypeError, IndexError, KeyError) as error:
                if branching is None or out_of_memory(error):
                    raise
                continue
            self.edges.clear()  # a second call, which does not verify, gives the same bits
            if close(outputs, expected, self.facts.dtype):
                self.facts.verified = True
                return
        raise UnsupportedModelError(
            "replacing a layer's attention by itself, in a batch, changes the model's output, from "
            f"{expected.tolist()} to {outputs.tolist()}; examples of one batch must not influence each other"
        )

    def _run(self, rows: Sequence[Row], *, backward: bool, least: int = 1) -> Chunk:
        """Run rows that open one layer each; see `LateBranching.applied` for `least`."""
        layout = RowLayout.of(rows, self.facts.order, self.device)
        paths: dict[int, Tensor] = {}

        def visit(layer: int, call: LayerCall) -> Tensor | None:
            self._check_shape(layer, call)
            begin, end = layout.slices[layer]
            if begin == end:
                return None
            path = self._on_path(layer, call, layout).to(call.tensor.dtype).requires_grad_(backward)
            paths[layer] = path
            return torch.cat((call.tensor[:begin], path, call.tensor[end:]))

        cut: AbstractContextManager[None] = nullcontext()
        if self.facts.branching:
            cut = self.facts.branching.applied(layout, self._clean_rows, least)
        with torch.set_grad_enabled(backward), cut:
            outputs = self._outputs(layout.examples, visit)
        chunk = Chunk.of(outputs, layout)
        if backward:
            gradients = self.gradients(outputs, paths, layout.examples, layout.slices)
            for layer, path in paths.items():
                part = slice(*layout.slices[layer])
                if gradients[layer] is None:
                    expected = torch.stack([self.clean[e].output for e in layout.examples[part].tolist()])
                    self._check_independent(outputs[part], expected, layer)
                chunk.layers[layer] = LayerRows(layout.listed[part], self.or_zeros(gradients[layer], path))
        return chunk

    def _on_path(self, layer: int, call: LayerCall, layout: RowLayout) -> Tensor:
        """Return what takes the place of a layer's rows, and keep the edges of those examples that are new."""
        begin, end = layout.slices[layer]
        examples = layout.examples[begin:end].tolist()
        parts = []
        for example, group in groupby(range(begin, end), key=lambda row: examples[row - begin]):
            own = list(group)
            first = torch.tensor(own[:1], device=self.device)
            if (example, layer) not in self.edges:
                edges = Edges.of(layer, call, first, layout.examples[first], self.baseline)
                edges.multiply = self.multiply
                self.edges[example, layer] = edges
            parts.append(self.edges[example, layer].at(layout.nodes[own[0] : own[-1] + 1]))
        return torch.cat(parts)

    def _run_open(self, rows: Sequence[Row], *, backward: bool) -> Chunk:
        """Run rows that open all layers."""
        layout, outputs, calls, paths = self.opened(rows, backward=backward)
        clean = layout.nodes == 1
        chunk = Chunk.of(outputs, layout)
        if not backward:
            return chunk
        gradients = self.gradients(outputs, paths, layout.examples)
        everything = torch.arange(len(rows), device=self.device)
        maps = []
        for layer in range(len(paths)):
            if gradients[layer] is None:
                begun = (layout.nodes == 0).nonzero().flatten()
                self._check_constant(layer, layout.examples[begun])
            edges = Edges.of(layer, calls.pop(layer), everything, layout.examples, self.baseline)
            found = edges.maps(self.or_zeros(gradients.pop(layer), paths.pop(layer)))
            maps.append(found.flatten(1).to(self.device))
            if self.keep_attention:
                for row in clean.nonzero().flatten().tolist():
                    chunk.attention.setdefault(int(layout.examples[row]), []).append(edges.attention[row])
        chunk.layers[ALL] = LayerRows(layout.listed, torch.cat(maps, 1))
        return chunk

    def opened(self, rows: Sequence[Row], *, backward: bool) -> tuple[RowLayout, Tensor, Calls, dict[int, Tensor]]:
        """Run rows forward that open all layers: their layout, F, and by layer its call and what was replaced in it."""
        layout = RowLayout.of(rows, self.facts.order, self.device)
        calls: Calls = {}
        paths: dict[int, Tensor] = {}
        everything = torch.arange(len(rows), device=self.device)

        def visit(layer: int, call: LayerCall) -> Tensor:
            self._check_shape(layer, call)
            calls[layer] = call
            step = call.tensor.to(torch.promote_types(call.tensor.dtype, torch.float32))
            nodes = layout.nodes.view(-1, 1, 1, 1).to(step)
            start = self._start_of_open(layer, call, everything, layout.examples)
            path = (start + nodes * (step - start)).to(call.tensor.dtype)
            paths[layer] = path if path.requires_grad or not backward else path.requires_grad_()
            return paths[layer]

        with torch.set_grad_enabled(backward):
            outputs = self._outputs(layout.examples, visit)
        clean = layout.nodes == 1
        self._compare(layout.examples[clean], outputs[clean])
        return layout, outputs, calls, paths

    def _start_of_open(self, layer: int, call: LayerCall, rows: Tensor, examples: Tensor) -> Tensor | float:
        """Return what stands in place of a layer's rows at B, with its gradient by the layers below."""
        if self.baseline is None:
            return 0.0
        attention = call.attention(rows)
        attention = attention.to(torch.promote_types(attention.dtype, torch.float32))
        start = self.baseline(layer, attention, examples, call.visible(rows))
        start = start.expand_as(attention) if isinstance(start, Tensor) else torch.full_like(attention, start)
        return start if call.value is None else times_values(start, call.value.to(start.dtype))

    def _outputs(self, examples: Tensor, visit: Visitor) -> Tensor:
        """Return F of rows that are copies of these examples, with their attention shown to `visit`."""
        with self.control.watch(visit, space=self.facts.space):
            outputs = self.evaluate(examples)
        if outputs.shape[0] != len(examples):
            raise UnsupportedModelError(f"forward_func returned {outputs.shape[0]} values for {len(examples)} rows")
        return outputs

    def gradients(
        self,
        outputs: Tensor,
        tensors: Mapping[int, Tensor],
        examples: Tensor,
        slices: Mapping[int, tuple[int, int]] | None = None,
        *,
        again: bool = False,
    ) -> dict[int, Tensor | None]:
        """Return dF by every layer's tensor, None where there is none; `again` allows another one of the same run.

        Raises:
            ValueError: it is not finite at an output that is.
        """
        computed: Sequence[Tensor | None] = [None] * len(tensors)
        if outputs.requires_grad and tensors:
            # Weights, not outputs.sum(): the caller may be under torch.no_grad.
            weights = torch.ones_like(outputs)
            computed = torch.autograd.grad(
                outputs, list(tensors.values()), weights, allow_unused=True, retain_graph=again
            )
        for layer, gradient in zip(tensors, computed, strict=True):
            broken = (
                [] if gradient is None else (~torch.isfinite(gradient)).flatten(1).any(1).nonzero().flatten().tolist()
            )
            if broken:
                begin = slices[layer][0] if slices is not None else 0
                raise ValueError(
                    f"the gradient of forward_func's output to {self.control.layers[layer]!r} of example "
                    f"{int(examples[begin + broken[0]])} is not finite: forward_func has no derivative there, or "
                    "it overflows and needs a wider floating-point type"
                )
        return dict(zip(tensors, computed, strict=True))

    @staticmethod
    def or_zeros(gradient: Tensor | None, tensor: Tensor) -> Tensor:
        """Return a gradient as floats of 32 bits at least; zeros where there is none."""
        dtype = torch.promote_types(tensor.dtype, torch.float32)
        return torch.zeros_like(tensor, dtype=dtype) if gradient is None else gradient.detach().to(dtype)

    def _check_independent(self, outputs: Tensor, expected: Tensor, layer: int) -> None:
        """Refuse an output that changes with a layer's attention but carries no gradient to it.

        A layer that F does not depend on has no gradient, and nothing to lose.

        Raises:
            ValueError: says which layer.
        """
        if not close(outputs, expected, self.facts.dtype):
            raise ValueError(
                f"forward_func's output changes with the attention of {self.control.layers[layer]!r} but carries "
                "no gradient to it; leave .detach() and torch.no_grad() out of forward_func"
            )

    def _check_constant(self, layer: int, examples: Tensor) -> None:
        """Refuse an output that carries no gradient to a layer though it changes with its attention."""
        if len(examples):
            opened = [Row(example, layer, 0.0) for example in examples.tolist()]
            self.run_clean(examples.tolist(), backward=False)
            outputs = self.run(opened, backward=False).outputs
            self._check_independent(outputs, torch.stack([self.clean[row.example].output for row in opened]), layer)
            for row in opened:
                del self.clean[row.example], self.edges[row.example, layer]

    def _compare(self, examples: Tensor, outputs: Tensor) -> None:
        """Refuse a model whose output is not the one that it computes by itself.

        Raises:
            UnsupportedModelError: says which example's.
        """
        expected = self.uncontrolled[examples]
        if not close(outputs, expected, self.facts.dtype):
            row = int((outputs - expected).abs().argmax())
            raise UnsupportedModelError(
                f"the model's output in a batch with its attention read is {outputs[row].item():.6g} for example "
                f"{int(examples[row])}, {expected[row].item():.6g} by itself; examples of one batch must not influence "
                "each other"
            )

    def _clean_rows(self, examples: Tensor, site: Site, path: Path) -> list[Tensor]:
        """Return what the clean runs of these examples brought a block, run by run."""
        by_run = groupby(examples.tolist(), key=lambda example: self.clean[example].run)
        return [run.rows(list(group), site, path) for run, group in by_run]

    def _check_shape(self, layer: int, call: LayerCall) -> None:
        """Refuse attention whose shape changes with the batch."""
        shape, known = call.shape, self.facts.shapes[layer]
        if shape != known:
            raise UnsupportedModelError(
                f"{self.control.layers[layer]!r}: its attention's shape changes with the batch, from "
                f"{tuple(known)} to {tuple(shape)}"
            )
