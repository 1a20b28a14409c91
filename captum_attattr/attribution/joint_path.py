"""The joint path: the attention of all layers opened together, each layer recomputing its own.

With a gate M on every attention probability, so that a layer attends with B + M (A - B), A being what it computes
from its own hidden states, and all gates at a,

    Attr_lh = integral_0^1 dF/dM_lh da,

which carries the factor (A - B). One row gives every layer's map at its node, and the sum over layers, heads, queries
and keys is F(A) - F(B), B standing in all layers at once: the scores of different layers are parts of one budget. For
one layer alone it is the path of the paper.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator

import torch

from captum_attattr.attribution.inputs import Rule
from captum_attattr.attribution.integration import Integral, Integrator, PathIntegral, Task, Tasks, make_integral
from captum_attattr.attribution.rows import Row
from captum_attattr.attribution.sweep import Sweep

PATHS = ("layer", "joint")
_ALL = -1
"""The layer of a row that opens all layers."""


def check_path(path: object, multiply_by_inputs: bool) -> bool:
    """Return whether a path is the joint one.

    Raises:
        ValueError: it is unknown, or joint where the factor (A - B) is left out.
    """
    if path not in PATHS:
        raise ValueError(f"path={path!r} is unknown; use 'layer' or 'joint'")
    if path == "joint" and not multiply_by_inputs:
        raise ValueError(
            "path='joint': its scores are derivatives by gates, which carry the factor (A - B); leave "
            "multiply_by_inputs=False out, or use path='layer'"
        )
    return path == "joint"


class JointIntegrator(Integrator):
    """Integrates every example of a sweep over all layers at once.

    Args:
        sweep: prepared.
        rule: fixed or adaptive.
        limit, keep_attention, store: as in `Integrator`.
    """

    def __init__(
        self, sweep: Sweep, rule: Rule, *, limit: int | None, keep_attention: bool, store: torch.device
    ) -> None:
        ends = [0, *itertools.accumulate(shape.numel() for shape in sweep.shapes)]
        self.sections = [slice(*pair) for pair in itertools.pairwise(ends)]

        def make() -> Integral:
            return make_integral(rule, sweep.dtype, (0.0, 1.0), self.sections)

        super().__init__(sweep, make, limit=limit, multiply=True, keep_attention=keep_attention, store=store)

    def _keys(self) -> Iterator[tuple[int, int]]:
        return ((example, _ALL) for example in range(self.sweep.batch))

    def _run_rows(self, rows: list[Row], tasks: Tasks, queue: deque[Row], result: PathIntegral) -> int:
        chunk = self.sweep.run_joint(rows)
        outputs = chunk.values.tolist()
        maps = chunk.maps.to(self.store)
        by_example: dict[int, list[int]] = {}
        for i, row in enumerate(rows):
            by_example.setdefault(row.example, []).append(i)
            if row.node == 0.0:
                tasks[row.example, _ALL].start = outputs[i]
            if row.node == 1.0:
                result.output[row.example] = outputs[i]
                for kept, attention in zip(result.attention, chunk.attention[i], strict=self.keep_attention):
                    kept[row.example] = attention.to(self.store)
        finished = 0
        for example, indices in by_example.items():
            integral = tasks[example, _ALL].integral
            integral.receive([rows[i].node for i in indices], list(maps[indices]), [outputs[i] for i in indices])
            finished += self._go_on(example, _ALL, tasks, queue, result)
        return finished

    def _store(self, result: PathIntegral, example: int, layer: int, task: Task) -> None:
        integral = task.integral
        assert task.start is not None, "the nodes include 0"
        for maps, section, shape in zip(result.attributions, self.sections, self.sweep.shapes, strict=True):
            maps[example] = integral.total[section].reshape(shape)
        gained = float(result.output[example]) - task.start
        result.start[:, example] = task.start
        result.total_delta[example] = float(integral.total.double().sum()) - gained
        result.total_error[example] = integral.error
        result.error[:, example] = torch.tensor(integral.section_errors, dtype=torch.float64)
        result.nodes[:, example] = integral.evaluations
        result.converged[:, example] = integral.converged

    def _empty(self) -> PathIntegral:
        result = super()._empty()
        result.path = "joint"
        result.delta.fill_(torch.nan)
        return result
