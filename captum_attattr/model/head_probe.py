"""Which rows of which map move which head: seen in gradients, not read off names.

One forward runs with noise added to what the maps of an attention module give, so that trained zeros, saturation or
symmetry hide nothing. The gradient of one head's entries before the output projection, with respect to what a map
gives or to a bare parameter, is zero exactly where that head does not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_attattr.model.projections import Heads, is_map, row_dim
from captum_attattr.model.sample_inputs import Runs, run

_ROUNDING = 1e-6
"""Of the largest gradient: less is no influence."""


class Owners(NamedTuple):
    """Whose a parameter, buffer or argument is, index by index along one dimension."""

    dim: int
    heads: list[frozenset[int]]
    """For each index the heads that it moves, by position among those of the layer now."""


class Probed(NamedTuple):
    """What the probe of one attention module found."""

    maps: dict[str, Owners]
    """By the name of a linear map or an embedding in the module: what its outputs move."""
    tensors: dict[str, list[Owners]]
    """By the name of any other parameter or buffer: what it moves, along each of its dimensions."""
    ran: frozenset[str]
    """The names of the modules inside that ran."""
    arguments: dict[str, list[Owners]]
    """By the name of a tensor that the forward is given: what it moves, along each of its dimensions."""


def probed(runs: Runs, layers: Sequence[Heads]) -> dict[nn.Module, Probed]:
    """Run the model once, and find in every layer what each head depends on.

    Args:
        runs: forwards that pass through the layers.
        layers: with a head left.

    Returns:
        By the attention module.
    """
    probes = [_Probe(heads) for heads in {heads.layer.module: heads for heads in layers}.values()]
    watched = [tensor for probe in probes for tensor in (*probe.tensors.values(), *probe.weights.values())]
    learning = [tensor for tensor in watched if not tensor.requires_grad]
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for probe in probes:
            stack.enter_context(probe.watching())
        for tensor in learning:
            tensor.requires_grad_(True)
            stack.callback(tensor.requires_grad_, False)
        for part, inputs in runs.calls:
            run(part, inputs)
        return {probe.heads.layer.module: probe.found() for probe in probes}


class _Probe:
    """Watches one attention module in a forward."""

    def __init__(self, heads: Heads) -> None:
        self.heads = heads
        module: Any = heads.layer.module
        maps = {n: m for n, m in module.named_modules() if n and is_map(m) and m is not heads.output}
        self.maps: dict[str, nn.Module] = maps
        inside = {f"{name}.{own}" for name, part in maps.items() for own, _ in part.named_parameters()}
        output = {id(p) for p in heads.output.parameters()} if heads.output is not None else set()
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        self.tensors: dict[str, Tensor] = {
            name: tensor
            for name, tensor in tensors.items()
            if name not in inside and id(tensor) not in output and tensor.is_floating_point() and tensor.is_leaf
            if not (name == "o" and heads.output is None)
        }
        self.weights: dict[str, Tensor] = {name: cast(Tensor, part.weight) for name, part in maps.items()}
        self.given: dict[str, list[Tensor]] = {name: [] for name in maps}
        self.arguments: dict[str, list[Tensor]] = {}
        self.contexts: list[Tensor] = []
        self.ran: set[str] = set()
        self.generator = torch.Generator().manual_seed(0)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hook the module, its maps and its output projection."""
        module: Any = self.heads.layer.module
        with ExitStack() as stack:
            handles = [part.register_forward_hook(self._noisy(name)) for name, part in self.maps.items()]
            handles += [part.register_forward_hook(self._run(name)) for name, part in module.named_modules()]
            handles.append(module.register_forward_pre_hook(self._apart, with_kwargs=True))
            if self.heads.output is None:
                stack.enter_context(_BareContext(module, self.contexts))
            else:
                handles.append(self.heads.output.register_forward_pre_hook(self._context))
            for handle in handles:
                stack.callback(handle.remove)
            yield

    def _run(self, name: str) -> Any:
        return lambda *_: self.ran.add(name)

    def _noisy(self, name: str) -> Any:
        def hook(_: nn.Module, __: Any, given: Any) -> Any:
            if not isinstance(given, Tensor) or not given.is_floating_point():
                return given
            noise = torch.randn(given.shape, generator=self.generator).to(given)
            mixed = given / (given.detach().float().std().nan_to_num(0).to(given) * 2 + 1e-3) + noise
            mixed = mixed if mixed.requires_grad else mixed.requires_grad_(True)
            self.given[name].append(mixed)
            return mixed.clone()  # what follows may write into it

        return hook

    def _apart(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Cut the graph at the module's arguments: only what is inside it matters."""

        def apart(name: str, value: Any) -> Any:
            if isinstance(value, tuple) and all(isinstance(part, Tensor) for part in value):
                return tuple(apart(f"{name}[{i}]", part) for i, part in enumerate(value))
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return value
            value = value.detach().requires_grad_(True)
            self.arguments.setdefault(name, []).append(value)
            return value.clone()

        named = (*argument_names(module), *("*",) * len(args))
        args = tuple(apart(name, value) for name, value in zip(named, args, strict=False))
        return args, {name: apart(name, value) for name, value in kwargs.items()}

    def _context(self, _: nn.Module, args: Any) -> None:
        self.contexts.append(args[0])

    def found(self) -> Probed:
        """Return whose everything is, from one backward pass for each head."""
        wanted: list[tuple[str, str, Tensor]] = [
            *(("map", name, given) for name, all_given in self.given.items() for given in all_given),
            *(("weight", name, self.weights[name]) for name, all_given in self.given.items() if not all_given),
            *(("tensor", name, tensor) for name, tensor in self.tensors.items()),
            *(("argument", name, value) for name, values in self.arguments.items() for value in values),
        ]
        count = self.heads.count
        moved: dict[tuple[str, str], list[list[Tensor]]] = {}
        for head in range(count):
            loss = sum((self._entries(context, head) for context in self.contexts), torch.zeros(()))
            sources = [tensor for *_, tensor in wanted]
            gradients: Any = [None] * len(sources)
            if loss.requires_grad:
                gradients = torch.autograd.grad(loss, sources, retain_graph=True, allow_unused=True)
            for (kind, name, tensor), gradient in zip(wanted, gradients, strict=True):
                gradient = torch.zeros_like(tensor) if gradient is None else gradient
                lines = moved.setdefault((kind, name), [[] for _ in range(count)])[head]
                lines.append(gradient.abs())
        maps: dict[str, Owners] = {}
        tensors: dict[str, list[Owners]] = {}
        arguments: dict[str, list[Owners]] = {}
        for (kind, name), by_head in moved.items():
            if kind == "map":
                maps[name] = _owners(by_head, 1 if isinstance(self.maps[name], nn.Conv1d) else by_head[0][0].dim() - 1)
            elif kind == "weight":
                maps[name] = _owners(by_head, row_dim(self.maps[name]))
            else:
                target, rounding = (tensors, 0.0) if kind == "tensor" else (arguments, _ROUNDING)
                target[name] = [_owners(by_head, dim, rounding) for dim in range(by_head[0][0].dim())]
        return Probed(maps, tensors, frozenset(self.ran), arguments)

    def _entries(self, context: Tensor, head: int) -> Tensor:
        """Return a random weighting of one head's entries of what the output projection is given."""
        if isinstance(self.heads.output, nn.Conv1d):
            context = context.transpose(1, 2)
        if self.heads.output is not None:
            context = torch.unflatten(context, -1, (self.heads.count, -1))
        entries = context[..., head, :]
        return (entries * torch.randn(entries.shape, generator=self.generator).to(entries)).sum()


def _owners(by_head: list[list[Tensor]], dim: int, rounding: float = 0.0) -> Owners:
    """Return which heads move with each index of a dimension, over all calls of a map.

    Of arguments what is below rounding of the largest gradient is none: the one key that a first token sees has no
    influence. What maps give and parameters are seen by all tokens.
    """
    length = by_head[0][0].shape[dim]
    lines = []
    for calls in by_head:
        same = [moved for moved in calls if moved.dim() > dim and moved.shape[dim] == length and moved.numel()]
        most = [moved.transpose(0, dim).reshape(length, -1).float().amax(1) for moved in same]
        lines.append(torch.stack(most).amax(0) if most else torch.zeros(length))
    sizes = torch.stack(lines)  # (H, length)
    moved = ~(sizes <= rounding * sizes.max()) if sizes.numel() else sizes.bool()
    return Owners(dim, [frozenset(moved[:, index].nonzero()[:, 0].tolist()) for index in range(length)])


def argument_names(module: nn.Module) -> list[str]:
    """Return the names of a forward's positional arguments."""
    forward: Any = type(module).forward
    code = getattr(getattr(forward, "__wrapped__", forward), "__code__", None)
    return list(code.co_varnames[1 : code.co_argcount]) if code else []


class _BareContext(TorchFunctionMode):
    """Sees the heads of XLNet, whose output projection is a parameter: einsum(ibnd,hnd->ibh) of heads and it."""

    def __init__(self, module: Any, contexts: list[Tensor]) -> None:
        super().__init__()
        self.module, self.contexts = module, contexts

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.einsum and len(args) == 3 and args[2] is self.module.o:
            self.contexts.append(args[1])
        return func(*args, **(kwargs or {}))
