"""From rows to integrals: fills one forward after another until every (example, layer) has its map.

Each (example, layer) is an integral that asks for nodes. The rows they ask for wait in one queue, are cut
into chunks as they come, whichever example or layer they belong to, and what a chunk gives is handed back.
An integral that is done leaves; so what is held at any moment follows the chunk's size and the panels of the
integrals under way, not the number of layers, examples or rows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from captum_attattr.attribution.quadrature import AdaptiveIntegral, FixedIntegral
from captum_attattr.attribution.rows import Chunk, Row
from captum_attattr.attribution.sweep import Sweep

TOKENS_PER_CHUNK = {"cpu": 3_000, "cuda": 8_192}
"""Rows times tokens of a forward when nothing else is asked for; a CPU slows down above its caches' size."""


@dataclass
class PathIntegral:
    """Attribution maps of a batch and how they came about; L layers, B examples.

    Attributes:
        attributions: per layer (B, H, Tq, Tk), float32 (float64 for models in float64).
        attention: per layer (B, H, Tq, Tk), A itself; empty unless it was asked for.
        output: (B,) F(A), the model's own output at the target.
        start: (L, B) F(B), the output with the layer's attention at its baseline.
        delta: (L, B) sum of the attributions minus (F(A) - F(B)).
        error: (L, B) estimated error of the map relative to its Euclidean norm; NaN under a fixed rule.
        nodes: (L, B) number of nodes used.
        converged: (L, B) whether the error estimate met the tolerance (True under a fixed rule).
        rows: number of rows run in all, clean rows not counted.
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


Integral = FixedIntegral | AdaptiveIntegral


@dataclass
class _Task:
    """One example at one layer."""

    integral: Integral
    start: Tensor | None = None
    difference: Tensor | None = None


class Integrator:
    """Integrates every (example, layer) of a sweep.

    Args:
        sweep: prepared.
        make_integral: a new integral; its nodes must include 0, where F(B) is read off.
        limit: most rows of one forward, clean rows included; None for a default by device, which halves
            itself when memory runs out.
        multiply: True for (A - B) times the integral of dF/dA, False for the integral alone.
        keep_attention: also return A.
        store: where the results go.
    """

    def __init__(
        self,
        sweep: Sweep,
        make_integral: Callable[[], Integral],
        *,
        limit: int | None,
        multiply: bool,
        keep_attention: bool,
        store: torch.device,
    ) -> None:
        self.sweep = sweep
        self.make_integral = make_integral
        self.limit = limit
        self.multiply = multiply
        self.keep_attention = keep_attention
        self.store = store

    def run(self, progress: Callable[[int], object]) -> PathIntegral:
        """Run everything; `progress` is called with the number of integrals that have just finished."""
        result = self._empty()
        waiting: Iterator[tuple[int, int]] = product(range(self.sweep.batch), range(len(self.sweep.shapes)))
        tasks: dict[tuple[int, int], _Task] = {}
        queue: deque[Row] = deque()
        limit = self.limit or self._default_limit()
        while True:
            while len(queue) < limit and (place := next(waiting, None)):
                tasks[place] = _Task(self.make_integral())
                queue.extend(Row(*place, node) for node in tasks[place].integral.todo())
            if not queue:
                return result
            rows = _take_rows(queue, limit)
            try:
                chunk = self.sweep.run(rows)
            except torch.OutOfMemoryError:
                if self.limit is not None or len(rows) == 1:
                    raise
                limit = max(2, limit // 2)
                queue.extendleft(reversed(rows))
                torch.cuda.empty_cache()
                continue
            result.rows += len(rows)
            finished = self._hand_out(rows, chunk, tasks, queue, result)
            progress(finished)

    def _hand_out(
        self,
        rows: list[Row],
        chunk: Chunk,
        tasks: dict[tuple[int, int], _Task],
        queue: deque[Row],
        result: PathIntegral,
    ) -> int:
        """Give every integral its values, queue what they ask for next, and store those that are done."""
        for example, value in chunk.clean.items():
            result.output[example] = value
        finished = 0
        values = chunk.values.cpu()
        for layer in list(chunk.layers):
            part = chunk.layers.pop(layer)
            if self.multiply:
                part.gradient *= part.difference
            places: dict[int, list[int]] = {}
            for i, number in enumerate(part.rows):
                places.setdefault(rows[number].example, []).append(i)
            for example, at in places.items():
                task = tasks[example, layer]
                nodes = [rows[part.rows[i]].node for i in at]
                if 0.0 in nodes:
                    task.start = values[part.rows[at[nodes.index(0.0)]]]
                if task.difference is None:
                    task.difference = part.difference[at[0]].to(self.store, copy=True)
                    if self.keep_attention:
                        result.attention[layer][example] = part.attention[at[0]].to(self.store)
                # Without the factor (A - B) the map's sum is not what F gains.
                outputs = [float(values[part.rows[i]]) if self.multiply else math.nan for i in at]
                task.integral.receive(nodes, list(part.gradient[at].to(self.store)), outputs)
                if task.integral.waiting:
                    continue
                more = [Row(example, layer, node) for node in task.integral.todo()]
                queue.extendleft(reversed(more))
                if not more:
                    self._store(result, example, layer, tasks.pop((example, layer)))
                    finished += 1
        return finished

    def _store(self, result: PathIntegral, example: int, layer: int, task: _Task) -> None:
        integral = task.integral
        assert task.start is not None, "the nodes include 0"
        result.attributions[layer][example] = integral.total
        result.start[layer, example] = task.start
        total = integral.total if self.multiply else integral.total * task.difference
        gained = float(result.output[example]) - float(task.start)
        result.delta[layer, example] = float(total.double().sum()) - gained
        result.error[layer, example] = integral.error
        result.nodes[layer, example] = integral.evaluations
        result.converged[layer, example] = integral.converged

    def _empty(self) -> PathIntegral:
        batch, layers = self.sweep.batch, len(self.sweep.shapes)
        dtype = torch.promote_types(self.sweep.dtype, torch.float32)
        store: dict[str, Any] = {"device": self.store}

        def maps() -> list[Tensor]:
            return [torch.zeros(batch, *shape, dtype=dtype, **store) for shape in self.sweep.shapes]

        return PathIntegral(
            attributions=maps(),
            attention=maps() if self.keep_attention else [],
            output=torch.zeros(batch, dtype=dtype, **store),
            start=torch.zeros(layers, batch, dtype=dtype, **store),
            delta=torch.zeros(layers, batch, dtype=dtype, **store),
            error=torch.zeros(layers, batch, dtype=torch.float64, **store),
            nodes=torch.zeros(layers, batch, dtype=torch.long, **store),
            converged=torch.zeros(layers, batch, dtype=torch.bool, **store),
            rows=0,
        )

    def _default_limit(self) -> int:
        tokens = max(shape[-2] for shape in self.sweep.shapes)
        return max(2, TOKENS_PER_CHUNK.get(self.sweep.device.type, TOKENS_PER_CHUNK["cuda"]) // tokens)


def _take_rows(queue: deque[Row], limit: int) -> list[Row]:
    """Rows off the queue's head: at least one, and no more than fit together with their clean rows."""
    rows: list[Row] = []
    examples: set[int] = set()
    while queue:
        examples.add(queue[0].example)
        if rows and len(rows) + 1 + len(examples) > limit:
            break
        rows.append(queue.popleft())
    return rows
