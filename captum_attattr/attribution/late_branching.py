"""Late branching: a row enters the blocks only where its attention differs from the clean one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.attribution.rows import RowLayout
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_control import AttentionControl
from captum_attattr.model.attention_layers import block_stacks

Path = tuple[Any, ...]


Site = tuple[int, int]
"""(id of a block, number of its call): where one block is run in a forward."""


def _tensors(value: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """Every tensor in nested tuples, lists and dicts, with the keys that lead to it."""
    if isinstance(value, Tensor):
        yield path, value
    elif type(value) is dict:
        for key, item in value.items():
            yield from _tensors(item, (*path, key))
    elif type(value) in (tuple, list):
        for i, item in enumerate(value):
            yield from _tensors(item, (*path, i))


def _map_tensors(value: Any, change: Callable[[Path, Tensor], Tensor], path: Path = ()) -> Any:
    """The same nest with every tensor changed."""
    if isinstance(value, Tensor):
        return change(path, value)
    if type(value) is dict:
        return {key: _map_tensors(item, change, (*path, key)) for key, item in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_map_tensors(item, change, (*path, i)) for i, item in enumerate(value))
    return value


@dataclass
class _Visit:
    """One run of a block while recording."""

    site: Site
    stack: int
    shapes: dict[Path, torch.Size]
    layers: list[int] = field(default_factory=list)


class BlockRecorder:
    """Watches blocks in runs of one row and of two rows, to learn which dimensions hold the rows."""

    def __init__(self, control: AttentionControl) -> None:
        self.stacks = block_stacks(control.layers)
        self.runs: list[list[_Visit]] = []
        self.pairs: list[tuple[list[_Visit], list[_Visit]]] = []
        """The same example in one row and in two."""

    @contextmanager
    def record(self, visits: list[int]) -> Iterator[None]:
        """Record one forward; `visits` grows by the attention layers as they run."""
        run: list[_Visit] = []
        calls: dict[int, int] = {}
        met: list[int] = []

        def enter(block: nn.Module, args: Any, kwargs: Any, stack: int) -> None:
            site = id(block), calls.get(id(block), 0)
            calls[id(block)] = site[1] + 1
            met.append(len(visits))
            run.append(_Visit(site, stack, {p: t.shape for p, t in _tensors((args, kwargs))}))

        with _block_hooks(self.stacks or [], enter):
            yield
        met.append(len(visits))
        if met[0] > 0:  # a layer ran before the first block
            self.stacks = None
        for visit, begin, end in zip(run, met, met[1:], strict=False):
            visit.layers = visits[begin:end]
        self.runs.append(run)

    def met_new(self) -> bool:
        """Whether the last run's blocks got tensors that no pair has."""
        known = {(visit.site, path) for one, _ in self.pairs for visit in one for path in visit.shapes}
        return not self.pairs or any((v.site, path) not in known for v in self.runs[-1] for path in v.shapes)

    def pair(self) -> None:
        """The last two runs are of one example, in one row and in two."""
        self.pairs.append((self.runs[-2], self.runs[-1]))

    def branching(self) -> LateBranching | None:
        """How to cut the blocks, or None where they cannot be cut."""
        if not self.stacks:
            return None
        visits = self.runs[0]
        if any([v.site for v in run] != [v.site for v in visits] for run in self.runs):
            return None
        stacks = [visit.stack for visit in visits]
        if sorted(range(len(stacks)), key=lambda i: stacks.index(stacks[i])) != list(range(len(stacks))):
            return None  # stacks take turns: there is no moment at which one has ended
        dims: dict[tuple[Site, Path], tuple[int, int]] = {}
        for one, two in self.pairs:
            for a, b in zip(one, two, strict=True):
                if a.shapes.keys() != b.shapes.keys():
                    return None
                for path, shape in a.shapes.items():
                    changed = [d for d, (m, n) in enumerate(zip(shape, b.shapes[path], strict=True)) if m != n]
                    if not changed:
                        continue
                    if len(changed) > 1 or b.shapes[path][changed[0]] != 2 * shape[changed[0]]:
                        return None
                    dims[a.site, path] = changed[0], shape[changed[0]]
        last = [i + 1 == len(visits) or stacks[i + 1] != stacks[i] for i in range(len(visits))]
        return LateBranching(self.stacks, visits, last, dims)


@contextmanager
def _block_hooks(stacks: list[list[nn.Module]], hook: Callable[[nn.Module, Any, Any, int], Any]) -> Iterator[None]:
    with ExitStack() as handles:
        for number, stack in enumerate(stacks):
            for block in stack:

                def before(block: nn.Module, args: Any, kwargs: Any, number: int = number) -> Any:
                    return hook(block, args, kwargs, number)

                handle = block.register_forward_pre_hook(before, with_kwargs=True)
                handles.callback(handle.remove)
        yield


class LateBranching:
    """Keeps every row out of the blocks below the one where it branches."""

    def __init__(
        self,
        stacks: list[list[nn.Module]],
        visits: list[_Visit],
        last: list[bool],
        dims: dict[tuple[Site, Path], tuple[int, int]],
    ) -> None:
        self.stacks = stacks
        self.visits = visits
        self.last = last
        self.dims = dims

    @contextmanager
    def applied(self, layout: RowLayout) -> Iterator[None]:
        """Cut the blocks of the forward that runs inside."""
        total = len(layout.examples)
        active: dict[Site, int] = {}
        rows = layout.clean
        for visit, last in zip(self.visits, self.last, strict=True):
            rows = max([rows] + [layout.slices[layer][1] for layer in visit.layers])
            # After a stack's last block the model may do anything with the hidden state: give it all rows.
            active[visit.site] = total if last else rows
        calls: dict[int, int] = {}
        current = total

        def cut(block: nn.Module, args: Any, kwargs: Any, _: int) -> Any:
            nonlocal current
            site = id(block), calls.get(id(block), 0)
            calls[id(block)] = site[1] + 1
            before, current = current, active[site]

            def change(path: Path, tensor: Tensor) -> Tensor:
                dim, each = self.dims.get((site, path), (-1, 1))
                if dim < 0:
                    return tensor
                rows = tensor.shape[dim] // each
                if rows == total:
                    return tensor.narrow(dim, 0, current * each)
                if rows != before:
                    raise UnsupportedModelError(
                        f"{type(block).__name__}: a tensor of {rows} rows where {before} were expected"
                    )
                return extend_rows(tensor, layout.parents[before:current], dim, each)

            return _map_tensors((args, kwargs), change)

        with _block_hooks(self.stacks, cut):
            yield


def extend_rows(tensor: Tensor, parents: Tensor, dim: int, each: int) -> Tensor:
    """`tensor` with a copy of the row of each parent added; a row is `each` consecutive places in `dim`."""
    if not len(parents):
        return tensor
    places = parents if each == 1 else (parents[:, None] * each + torch.arange(each, device=parents.device)).ravel()
    return torch.cat((tensor, tensor.index_select(dim, places.to(tensor.device))), dim)
