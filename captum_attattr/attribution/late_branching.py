"""Late branching: a row enters the blocks only where its attention differs from the clean one.

Every example is run once as it is, and the tensors that reach each block are kept. A batch of rows then starts with a
single one. Before each block, every tensor among its arguments that carries the batch is cut to the rows that have
branched so far, and what the clean runs brought there is added for the rows that branch inside the block. Which
dimension of a tensor holds the rows is learned beforehand, from runs of the same example in one row and in two.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_attattr.attribution.rows import RowLayout
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_control import AttentionControl, LayerCall
from captum_attattr.model.attention_layers import block_stacks

Path = tuple[Any, ...]
"""The keys that lead to a tensor in nested tuples, lists and dicts."""
Site = tuple[nn.Module, int]
"""A block, and which of its calls in one forward is meant."""


class RowDimension(NamedTuple):
    """Where a tensor holds the rows."""

    dim: int
    width: int
    """How many consecutive indices of `dim` are one row: more than 1 where batch and heads share a dimension."""


Dimensions = dict[tuple[Site, Path], RowDimension | None]
"""Of every tensor that a block was given; None where it holds no rows."""


@dataclass
class BlockCall:
    """One call of a block in a recorded forward."""

    site: Site
    shapes: dict[Path, torch.Size]
    """The shapes of the tensors among its arguments."""
    layers: list[int] = field(default_factory=list)
    """The attention layers that ran before the next block was called."""


class BlockRecorder:
    """Learns from recorded forwards how the blocks can be cut.

    Args:
        control: the model's attention, already under control.
        evaluate: F of the examples with these indices.
        space: see `AttentionControl.watch`.
        known: what was learned before; `learn` adds to its dimensions.
    """

    def __init__(
        self,
        control: AttentionControl,
        evaluate: Callable[[Tensor], Tensor],
        space: str,
        known: LateBranching | None = None,
    ) -> None:
        self.control = control
        self.evaluate = evaluate
        self.space = space
        self.stacks = block_stacks(control.layers) or []
        """Emptied where the blocks turn out not to be cut."""
        self.single: list[BlockCall] = known.single if known else []
        self.dimensions: Dimensions = known.dimensions if known else {}

    def run(self, example: Tensor, read: Callable[[int, LayerCall], None]) -> tuple[Tensor, set[int]]:
        """Check one example, and show `read` its attention.

        Returns:
            F, and the ids of modules whose fused attention computes what their eager function does.
        """
        self.single.clear()
        return self._record(example, self.single, read, check=True)

    def learn(self, rows: Tensor, calls: list[BlockCall]) -> None:
        """Learn the dimensions of what blocks were given in a run of these rows.

        They are compared with the run of one example, or with a run of one row more: not all examples bring a block the
        same tensors, only padded ones bring a mask, for instance.
        """
        if all((call.site, path) in self.dimensions for call in calls for path in call.shapes):
            return
        other, count = self.single, 1
        if len(rows) == 1 or [(c.site, c.shapes.keys()) for c in other] != [(c.site, c.shapes.keys()) for c in calls]:
            other, count = [], len(rows) + 1
            self._record(torch.cat((rows, rows[:1])), other)
        if self.stacks and not self._learn(calls, len(rows), other, count):
            self.stacks = []

    def _record(
        self,
        rows: Tensor,
        calls: list[BlockCall],
        read: Callable[[int, LayerCall], None] | None = None,
        check: bool = False,
    ) -> tuple[Tensor, set[int]]:
        """Return F of some rows, and which modules' fused attention can be used; list the calls of blocks."""

        def enter(site: Site, arguments: Any) -> None:
            calls.append(BlockCall(site, {path: tensor.shape for path, tensor in _tensors(arguments)}))

        def visit(layer: int, call: LayerCall) -> None:
            if calls:
                calls[-1].layers.append(layer)
            else:  # this layer is in no block
                self.stacks = []
            if read:
                read(layer, call)

        with block_hooks(self.stacks, enter), self.control.watch(visit, space=self.space, check=check) as watch:
            value = self.evaluate(rows)
        if [call.site for call in calls] != [call.site for call in self.single]:
            self.stacks = []
        return value, watch.fused

    def _learn(self, calls: list[BlockCall], rows: int, others: list[BlockCall], count: int) -> bool:
        """Compare the shapes of two runs of so many rows; return whether they tell where the rows are."""
        for call, other in zip(calls, others, strict=True):
            if call.shapes.keys() != other.shapes.keys():
                return False
            for path, shape in call.shapes.items():
                more = other.shapes[path]
                if len(shape) != len(more):
                    return False
                changed = [dim for dim, (m, n) in enumerate(zip(shape, more, strict=True)) if m != n]
                if len(changed) > 1 or any(shape[d] * count != more[d] * rows or shape[d] % rows for d in changed):
                    return False
                if changed:
                    self.dimensions[call.site, path] = RowDimension(changed[0], shape[changed[0]] // rows)
                else:
                    self.dimensions.setdefault((call.site, path), None)
        return True

    def branching(self) -> LateBranching | None:
        """Return how to cut the blocks, or None where they cannot be cut."""
        if not self.stacks:
            return None
        stack_of = {block: i for i, stack in enumerate(self.stacks) for block in stack}
        stacks = [(stack, list(calls)) for stack, calls in groupby(self.single, lambda call: stack_of[call.site[0]])]
        if len({stack for stack, _ in stacks}) < len(stacks):
            return None  # stacks take turns: there is no moment at which one has ended
        return LateBranching(self.stacks, [calls for _, calls in stacks], self.dimensions, self.single)


@dataclass
class LateBranching:
    """Keeps every row out of the blocks below the one where it branches.

    Attributes:
        stacks: the model's blocks.
        calls: per stack that runs, the calls of its blocks in order.
        dimensions: where the tensors that blocks are given hold the rows.
        single: the calls in a run of one example.
    """

    stacks: list[list[nn.Module]]
    calls: list[list[BlockCall]]
    dimensions: Dimensions
    single: list[BlockCall]

    @contextmanager
    def applied(
        self, layout: RowLayout, clean: Callable[[Tensor, Site, Path], list[Tensor]], least: int = 1
    ) -> Iterator[None]:
        """Cut the blocks of the forward that runs inside.

        Args:
            layout: its rows.
            clean: what the clean runs of these examples brought a block, as tensors to be put side by side.
            least: rows of every block at least.
        """
        total = len(layout.examples)
        wanted = self._rows_of_calls(layout, least)
        current = total

        def cut(site: Site, arguments: Any) -> Any:
            nonlocal current
            before, current = current, wanted[site]

            def change(path: Path, tensor: Tensor) -> Tensor:
                dimension = self.dimensions.get((site, path))
                if dimension is None:
                    return tensor
                dim, width = dimension
                rows = tensor.shape[dim] // width
                if rows == total:
                    return tensor.narrow(dim, 0, current * width)
                if rows != before:
                    raise UnsupportedModelError(
                        f"{type(site[0]).__name__}: a tensor of {rows} rows where {before} were expected"
                    )
                joining = layout.examples[before:current]
                return torch.cat([tensor, *clean(joining, site, path)], dim) if len(joining) else tensor

            return map_tensors(arguments, change)

        with block_hooks(self.stacks, cut):
            yield

    def _rows_of_calls(self, layout: RowLayout, least: int) -> dict[Site, int]:
        """Return how many rows each call of a block gets: those that have branched, and `least` of them."""
        counts: dict[Site, int] = {}
        rows = min(least, len(layout.examples))
        for calls in self.calls:
            for call in calls:
                rows = max([rows, *(layout.slices[layer][1] for layer in call.layers)])
                counts[call.site] = rows
            # After a stack's last block the model may do anything with the hidden state: give it all rows.
            counts[calls[-1].site] = len(layout.examples)
        return counts


class CleanRun:
    """What some examples brought every block in a run as they are.

    Args:
        examples: their indices.
        dimensions: see `LateBranching`.
    """

    def __init__(self, examples: Sequence[int], dimensions: Dimensions) -> None:
        self.row = {example: row for row, example in enumerate(examples)}
        self.dimensions = dimensions
        self.calls: list[BlockCall] = []
        self._tensors: dict[tuple[Site, Path], Tensor] = {}

    def enter(self, site: Site, arguments: Any) -> None:
        """Keep what a block is given."""
        given = dict(_tensors(arguments))
        self.calls.append(BlockCall(site, {path: tensor.shape for path, tensor in given.items()}))
        for path, tensor in given.items():
            if self.dimensions.get((site, path), True):
                self._tensors[site, path] = tensor.detach()

    def rows(self, examples: Sequence[int], site: Site, path: Path) -> Tensor:
        """Return the rows of these examples in what a block was given."""
        dimension = self.dimensions[site, path]
        assert dimension is not None
        dim, width = dimension
        tensor = self._tensors[site, path]
        indices = [self.row[example] * width + offset for example in examples for offset in range(width)]
        return tensor.index_select(dim, torch.tensor(indices, device=tensor.device))


@contextmanager
def block_hooks(stacks: list[list[nn.Module]], hook: Callable[[Site, Any], Any]) -> Iterator[None]:
    """Call `hook` with site and (args, kwargs) before each block of one forward; what it returns replaces these.

    What other threads run at the same time is let alone.
    """
    calls = Counter[nn.Module]()
    thread = threading.get_ident()

    def before(block: nn.Module, args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != thread:
            return None
        calls[block] += 1
        return hook((block, calls[block] - 1), (args, kwargs))

    with ExitStack() as handles:
        for stack in stacks:
            for block in stack:
                handle = block.register_forward_pre_hook(before, with_kwargs=True)
                handles.callback(handle.remove)
        yield


def _tensors(value: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Yield every tensor in nested tuples, lists and dicts, with the keys that lead to it."""
    if isinstance(value, Tensor):
        yield path, value
    elif type(value) is dict:
        for key, item in value.items():
            yield from _tensors(item, (*path, key))
    elif type(value) in (tuple, list):
        for i, item in enumerate(value):
            yield from _tensors(item, (*path, i))


def map_tensors(value: Any, change: Callable[[Path, Tensor], Tensor], path: Path = ()) -> Any:
    """Return the same nest with every tensor changed."""
    if isinstance(value, Tensor):
        return change(path, value)
    if type(value) is dict:
        return {key: map_tensors(item, change, (*path, key)) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map_tensors(item, change, (*path, i)) for i, item in enumerate(value))
    return value
