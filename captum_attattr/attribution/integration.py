"""From rows to integrals: runs one forward after another until every (example, layer) has its map.

Each (example, layer), on the joint path each example, is an integral that asks for nodes. The rows for them wait in
one queue, are cut into chunks whichever example or layer they belong to, and the values of a chunk are handed back to
the integrals. A finished integral is stored and dropped: memory follows the chunk's size and the panels of the
integrals under way, not how many layers, examples or rows there are.

On the layer path the values are gradients by what a row replaces, which are mapped to edges once, at the end (and where
an error is estimated); on the joint path, where a row recomputes its attention, they are the maps themselves.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import accumulate, pairwise, product

import torch
from torch import Tensor

from captum_attattr.attribution.inputs import Rule, fixed_rule
from captum_attattr.attribution.quadrature import ROUNDINGS, AdaptiveIntegral, FixedIntegral
from captum_attattr.attribution.rows import ALL, Chunk, Row
from captum_attattr.attribution.sweep import Sweep
from captum_attattr.exceptions import ConvergenceWarning, warn_caller
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.runs.memory import ChunkSize

TOKENS_PER_CHUNK = {"cpu": 2_000, "cuda": 8_192}
"""Rows times tokens of a forward by default; a CPU slows down above its caches' size."""
Integral = FixedIntegral | AdaptiveIntegral


@dataclass
class PathIntegral:
    """The attribution maps of a batch of B examples for L layers, and how exact they are.

    Attributes:
        attributions: per layer (B, H, Tq, Tk), float32 (float64 for models in float64).
        attention: per layer (B, H, Tq, Tk), A itself; empty unless it was asked for.
        output: (B,) F(A), the model's own output at the target.
        start: (L, B) F(B), the output with the layer's attention at its baseline; on the joint path with all given
            layers at theirs, for every layer the same.
        delta: (L, B) sum of the attributions minus (F(A) - F(B)); NaN on the joint path, where the layers share one
            budget.
        error: (L, B) estimated error of the map relative to its Euclidean norm; NaN under a fixed rule.
        nodes: (L, B) how many nodes were used.
        converged: (L, B) whether the error estimate met the tolerance (True under a fixed rule).
        rows: how many rows were run in all; on the layer path those of all layers at node 1 are one.
        path: "layer" or "joint".
        total_delta: (B,) on the joint path the sum of all layers' attributions minus (F(A) - F(B)); NaN on the layer
            path, where each layer is a whole budget.
        total_error: (B,) on the joint path the estimated error of all layers' maps together, relative to their
            Euclidean norm; NaN under a fixed rule and on the layer path.
        total_nodes: (B,) how many nodes were used in all.
    """

    attributions: list[Tensor]
    attention: list[Tensor]
    output: Tensor
    start: Tensor
    delta: Tensor
    error: Tensor
    nodes: Tensor
    converged: Tensor
    rows: int
    path: str
    total_delta: Tensor
    total_error: Tensor
    total_nodes: Tensor


def default_limit(sweep: Sweep, given: int | None = None) -> int:
    """Return how many rows a forward has at most: as many as given, else a default by device; one of packed models."""
    if sweep.facts.packed:
        return 1
    if given:
        return given
    tokens = max(max(shape[-2:]) for shape in sweep.facts.shapes)
    return max(1, TOKENS_PER_CHUNK.get(sweep.device.type, TOKENS_PER_CHUNK["cuda"]) // tokens)


def make_integral(rule: Rule, dtype: torch.dtype, shapes: Sequence[torch.Size] = ()) -> Integral:
    """Return a new integral of values that were computed in `dtype`; its nodes include 0, which gives F(B).

    Args:
        rule: fixed or adaptive.
        dtype: the model's.
        shapes: on the joint path those of all layers' maps, whose entries the values hold side by side; the nodes
            include 1 then, which gives F(A).
    """
    if rule.n_steps is None:
        sections = [slice(*ends) for ends in pairwise(accumulate((shape.numel() for shape in shapes), initial=0))]
        return AdaptiveIntegral(rule.tolerance, rule.max_nodes, ROUNDINGS * torch.finfo(dtype).eps, sections)
    nodes, weights = fixed_rule(rule.method, rule.n_steps)
    missing = [end for end in ((0.0, 1.0) if shapes else (0.0,)) if end not in nodes]
    return FixedIntegral([*nodes, *missing], [*weights, *[0.0] * len(missing)])


def warn_unconverged(
    result: PathIntegral, layers: Sequence[AttentionLayer], tolerance: float, dtype: torch.dtype
) -> None:
    """Name the examples (and, on the layer path, the layers) whose estimated error is above the tolerance."""
    joint = result.path == "joint"
    names = ["all layers"] if joint else [f"{layer.kind} layer {layer.index}" for layer in layers]
    errors = result.total_error[None] if joint else result.error
    converged = result.converged[:1] if joint else result.converged
    above = [
        (error, f"example {example}, {name}: {error:.1e}")
        for name, row in zip(names, errors.tolist(), strict=True)
        for example, error in enumerate(row)
        if error > tolerance  # NaN, of a fixed rule, is not
    ]
    if not above:
        return
    above.sort(key=lambda entry: -entry[0])
    named = "; ".join(words for _, words in above[:10])
    stuck = int((~converged).sum())
    why = f"{stuck} stopped at max_nodes" if stuck else f"as far as {dtype} rounding allows"
    maps = "sets of maps" if joint else "attribution maps"
    warn_caller(
        f"{len(above)} of {errors.numel()} {maps} have an estimated relative error above the "
        f"tolerance {tolerance:g} ({why}): {named}" + ("; ..." if len(above) > 10 else ""),
        ConvergenceWarning,
    )


@dataclass
class Task:
    """One example at one layer or, on the joint path, at all of them."""

    integral: Integral
    start: float | None = None
    """F(B)"""


Tasks = dict[tuple[int, int], Task]
"""By example and layer, which is `ALL` on the joint path."""


@dataclass(eq=False)
class Integrator:
    """Integrates every (example, layer) of a sweep, or every example over all layers.

    Attributes:
        sweep: prepared.
        make_integral: a new integral; its nodes must include 0, where F(B) is read off.
        limit: most rows of one forward; None for a default by device. It is halved when memory runs out.
        store: where the results go.
        joint: whether all layers are opened together.
        pairs: the (example, layer) of every integral.
    """

    sweep: Sweep
    make_integral: Callable[[], Integral]
    _: KW_ONLY
    limit: int | None
    store: torch.device
    joint: bool = False

    def __post_init__(self) -> None:
        layers = [ALL] if self.joint else range(len(self.sweep.facts.shapes))
        self.pairs = list(product(range(self.sweep.batch), layers))
        self._left = Counter(example for example, _ in self.pairs)

    def run(self, progress: Callable[[int, int], object]) -> PathIntegral:
        """Run everything; `progress` is called with how many integrals have just finished, and how many rows run."""
        result = self._empty()
        unbegun = iter(self.pairs)
        tasks: Tasks = {}
        queue: deque[Row] = deque()
        size = ChunkSize(default_limit(self.sweep, self.limit))
        while True:
            while len(queue) < size.rows and (pair := next(unbegun, None)):
                queue.extend(self._begin(pair, tasks, size, result))
            if not queue:
                result.total_nodes[:] = result.nodes[0] if self.joint else result.nodes.sum(0)
                return result
            rows = [queue.popleft() for _ in range(min(len(queue), size.rows))]
            try:
                chunk = self.sweep.run(rows)
            except (RuntimeError, MemoryError) as error:
                size.shrink(error, len(rows))
                queue.extendleft(reversed(rows))
                continue
            finished = self._hand_out(rows, chunk, tasks, queue, result)
            result.rows += len(rows)
            progress(finished, result.rows)

    def _begin(self, pair: tuple[int, int], tasks: Tasks, size: ChunkSize, result: PathIntegral) -> list[Row]:
        """Begin an integral; return the rows for its first nodes."""
        example, layer = pair
        task = tasks[pair] = Task(self.make_integral())
        nodes = task.integral.todo()
        if self.joint:
            return [Row(example, layer, node) for node in nodes]
        while example not in self.sweep.clean:
            examples = range(example, min(example + size.rows, self.sweep.batch))
            try:
                self.sweep.run_clean(examples, backward=1.0 in nodes)
            except (RuntimeError, MemoryError) as error:
                size.shrink(error, len(examples))
                continue
            result.rows += len(examples) * (1.0 in nodes)
        clean = self.sweep.clean[example]
        result.output[example] = clean.output
        if 1.0 in nodes:  # rows of all layers are one there
            task.integral.receive([1.0], [clean.gradients[layer]], [self._antiderivative(float(clean.output))])
        return [Row(example, layer, node) for node in nodes if node != 1.0]

    def _antiderivative(self, output: float) -> float:
        """Return F where its gain is the sum of a map; without the factor (A - B) no antiderivative is known."""
        return output if self.sweep.multiply else math.nan

    def _hand_out(self, rows: list[Row], chunk: Chunk, tasks: Tasks, queue: deque[Row], result: PathIntegral) -> int:
        """Give every integral its values, queue the rows for its next nodes, and store those that are done."""
        outputs = chunk.outputs.tolist()
        for row, output in zip(rows, chunk.outputs, strict=True):
            if self.joint and row.node == 1.0:
                result.output[row.example] = output
        for example, attention in chunk.attention.items():
            for layer, matrix in enumerate(attention):
                result.attention[layer][example].copy_(matrix)
        finished = 0
        for layer in list(chunk.layers):
            part = chunk.layers.pop(layer)
            by_example: dict[int, list[int]] = {}
            for i, index in enumerate(part.rows):
                by_example.setdefault(rows[index].example, []).append(i)
            for example, indices in by_example.items():
                task = tasks[example, layer]
                nodes = [rows[part.rows[i]].node for i in indices]
                known = [outputs[part.rows[i]] for i in indices]
                if 0.0 in nodes:
                    task.start = known[nodes.index(0.0)]
                if not self.joint:
                    task.integral.space = self.sweep.edges[example, layer]
                values = part.values[indices].to(self.store) if self.joint else part.values[indices]
                task.integral.receive(nodes, list(values), [self._antiderivative(output) for output in known])
                if not task.integral.waiting:
                    more = [Row(example, layer, node) for node in task.integral.todo()]
                    queue.extendleft(reversed(more))
                    if not more:
                        self._store(result, example, layer, tasks.pop((example, layer)))
                        finished += 1
        return finished

    def _store(self, result: PathIntegral, example: int, layer: int, task: Task) -> None:
        """Put a finished integral among the results, and drop what only it needed."""
        integral = task.integral
        assert task.start is not None, "the nodes include 0"
        gain = float(result.output[example]) - task.start
        if self.joint:
            parts = torch.split(integral.total, [map_[example].numel() for map_ in result.attributions])
            for map_, part in zip(result.attributions, parts, strict=True):
                map_[example].copy_(part.view_as(map_[example]))
            result.total_delta[example] = float(integral.total.double().sum()) - gain
            result.total_error[example] = integral.error
            result.error[:, example] = torch.tensor(integral.section_errors, dtype=torch.float64)
        else:
            edges = self.sweep.edges.pop((example, layer))
            map_ = edges.maps(integral.total[None])[0]
            result.attributions[layer][example].copy_(map_)
            if result.attention:
                result.attention[layer][example].copy_(edges.attention[0])
            total = map_ if self.sweep.multiply else map_ * edges.difference[0]
            result.delta[layer, example] = float(total.double().sum()) - gain
            result.error[layer, example] = integral.error
            self._left[example] -= 1
            if not self._left[example]:
                del self.sweep.clean[example]
        layers = slice(None) if self.joint else layer
        result.start[layers, example] = task.start
        result.nodes[layers, example] = integral.evaluations
        result.converged[layers, example] = integral.converged

    def _empty(self) -> PathIntegral:
        """Return the results with room for every map."""
        batch, layers = self.sweep.batch, len(self.sweep.facts.shapes)
        dtype = torch.promote_types(self.sweep.facts.dtype, torch.float32)
        zeros = partial(torch.zeros, device=self.store)
        unknown = partial(torch.full, fill_value=math.nan, device=self.store)

        def maps() -> list[Tensor]:
            return [zeros(batch, *shape, dtype=dtype) for shape in self.sweep.facts.shapes]

        return PathIntegral(
            attributions=maps(),
            attention=maps() if self.sweep.keep_attention else [],
            output=zeros(batch, dtype=dtype),
            start=zeros(layers, batch, dtype=dtype),
            delta=unknown((layers, batch), dtype=dtype),
            error=zeros(layers, batch, dtype=torch.float64),
            nodes=zeros(layers, batch, dtype=torch.long),
            converged=zeros(layers, batch, dtype=torch.bool),
            rows=0,
            path="joint" if self.joint else "layer",
            total_delta=unknown((batch,), dtype=dtype),
            total_error=unknown((batch,), dtype=torch.float64),
            total_nodes=zeros(batch, dtype=torch.long),
        )
