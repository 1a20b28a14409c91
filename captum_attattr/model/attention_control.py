"""A model's attention under control: read in a forward, replaced for some rows of the batch, restored afterwards.

Attention is reached by one of two routes:

* **interface**: most families send (query, key, value) through `transformers.AttentionInterface`. Inside an
  `AttentionControl` the model's configs name a function of this module, which calls the family's own attention and
  lets a visitor replace what it returns.
* **softmax**: older families call softmax, or torch's fused attention, themselves; see `softmax_route`.

What is replaced is, on the interface, the layer's context A V (`space="context"`): the rest of the model sees the
attention through it alone, so rows need no matrix of queries by keys, and the model's fused attention serves them
where it computes the same. In `space="attention"`, and always on the softmax route, the probabilities A are replaced.
"""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.exceptions import ModelInUseError, UnsupportedModelError
from captum_attattr.model.attention_layers import (
    AttentionLayer,
    attention_calls,
    attention_configs,
    attention_route,
    family_name,
)
from captum_attattr.model.modes import attribute_set, uncompiled
from captum_attattr.model.softmax_route import softmax_watched

_IMPLEMENTATION = "captum_attattr"
_IMPLEMENTATION_NAME = "_attn_implementation_internal"
"""The attribute behind configs' property, whose setter would change sub-configs as well."""

_MASKED = -9_000
"""Masks subtract 10,000 or more from a score (BigBird least, most the lowest number of the type), biases less."""

_FUSED_ROUNDINGS = 64
"""Roundings by which fused attention may differ from the eager function, relative to its largest entry."""


@dataclass(eq=False)
class LayerCall:
    """One layer's attention in a forward of R rows, as a visitor sees it."""

    tensor: Tensor
    """What can be replaced: the context (R, Tq, H, D), or the probabilities (R, H, Tq, Tk)."""
    mask: Tensor | None
    """Added to the scores, or booleans of what is visible; the scores themselves where the mask is in them already."""
    value: Tensor | None = None
    """(R, Hkv, Tk, D), where `tensor` is the context."""
    _eager: Callable[[Tensor], Tensor] | None = None

    @property
    def shape(self) -> torch.Size:
        """(H, Tq, Tk)"""
        if self.value is None:
            return self.tensor.shape[1:]
        return torch.Size((self.tensor.shape[2], self.tensor.shape[1], self.value.shape[2]))

    def attention(self, rows: Tensor) -> Tensor:
        """Return the probabilities of these rows, (n, H, Tq, Tk)."""
        return self.tensor[rows.to(self.tensor.device)] if self._eager is None else self._eager(rows)

    def visible(self, rows: Tensor) -> Tensor | None:
        """Return which keys the queries of these rows may see.

        Returns:
            Booleans that broadcast to (n, H, Tq, Tk), from the mask and not from the probabilities, of which those of
            visible keys may round to 0; None where there is no mask.
        """
        if self.mask is None:
            return None
        by_row = self.mask.dim() == 4 and len(self.mask) == len(self.tensor)
        mask = self.mask[rows.to(self.mask.device)] if by_row else self.mask
        return mask if mask.dtype == torch.bool else mask > _MASKED


Visitor = Callable[[int, LayerCall], Tensor | None]
"""Called with (index in the list of layers, its call) at every layer of a forward; returns what replaces `tensor`."""


class AttentionControl:
    """A model whose attention can be read and replaced; the model is restored when the context ends.

    Inside `with AttentionControl(layers) as control`, the model's parameters need no gradient, and it computes
    attention eagerly but for the modules in `fused`. Each forward whose attention is wanted runs inside
    `control.watch(visitor)`.

    Raises:
        UnsupportedModelError: a layer was not reached by a watched forward, reached twice, or reached in a way
            that does not show its attention.
    """

    def __init__(self, layers: Iterable[AttentionLayer]) -> None:
        self.layers = tuple(layers)
        self.model = self.layers[0].model
        self.runs = Counter(id(module) for _, module, _ in attention_calls(self.model))
        self.fused: Collection[int] = ()
        """Ids of the modules whose fused attention is known to compute what their eager function does."""
        self.usual = {id(c): c._attn_implementation_internal or "eager" for c in attention_configs(self.model)}

    def __enter__(self) -> AttentionControl:
        self._stack = ExitStack()
        with ExitStack() as stack:
            stack.enter_context(claimed(self.model))
            stack.enter_context(uncompiled())
            stack.enter_context(_eager_attention(self.model))
            # So that no graph is kept below the attention that is attributed.
            learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            stack.enter_context(attribute_set(learning, "requires_grad", False))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @contextmanager
    def plainly_eager(self) -> Iterator[None]:
        """Let the model compute its attention by transformers' own eager functions."""
        with attribute_set(attention_configs(self.model), _IMPLEMENTATION_NAME, "eager"):
            yield

    @contextmanager
    def watch(self, visitor: Visitor, *, space: str = "attention", check: bool = False) -> Iterator[_Watch]:
        """Let `visitor` see, and replace, the attention of every layer in the forward that runs inside.

        Args:
            visitor: see `Visitor`.
            space: what is replaced on the interface, "context" or "attention".
            check: verify that each layer's output is its attention times its values, and see which modules' fused
                attention computes the same (in `fused` of what is yielded).
        """
        watch = _Watch(self, visitor, space, check)
        with ExitStack() as stack:
            token = _WATCH.set(watch)
            stack.callback(_WATCH.reset, token)
            softmax_modules = {layer.module for layer in self.layers if layer.route == "softmax"}
            if softmax_modules:
                stack.enter_context(softmax_watched(softmax_modules, watch.visit_softmax))
            if check:
                stack.enter_context(_counted({layer.module for layer in self.layers}, watch.forwards))
            yield watch
        missed = [layer for layer in self.layers if layer.key not in watch.seen]
        if missed:
            raise UnsupportedModelError(f"{family_name(self.model)}: {_why_missed(missed, watch)}")
        repeated = [layer for layer in self.layers if watch.calls[id(layer.module)] > self.runs[id(layer.module)]]
        if repeated:
            usual = self.runs[id(repeated[0].module)]
            raise UnsupportedModelError(f"{family_name(self.model)}: {_why_repeated(repeated[0], usual, watch)}")


class _Watch:
    """The layers that one watched forward has passed so far."""

    def __init__(self, control: AttentionControl, visitor: Visitor, space: str, check: bool) -> None:
        self.index = {layer.key: i for i, layer in enumerate(control.layers)}
        self.control = control
        self.visitor = visitor
        self.space = space
        self.check = check
        self.fused: set[int] = set()
        self.calls: dict[int, int] = {}
        self.seen: set[tuple[int, int]] = set()
        self.forwards: Counter[int] = Counter()
        """How often each module ran, by its id; counted where `check` is set."""

    def visit(self, module: nn.Module, call: LayerCall) -> Tensor | None:
        """Show the visitor a layer's attention, if the layer is one of the list."""
        key = id(module), self.calls.get(id(module), 0)
        self.calls[id(module)] = key[1] + 1
        if key not in self.index:
            return None
        self.seen.add(key)
        return self.visitor(self.index[key], call)

    def visit_softmax(self, module: nn.Module, attention: Tensor, scores: Tensor) -> Tensor | None:
        """Show the visitor the attention of a layer that calls softmax itself."""
        return self.visit(module, LayerCall(attention, scores))


def _why_missed(layers: list[AttentionLayer], watch: _Watch) -> str:
    """Say why the attention of layers was not seen in a forward."""
    more = f" and {len(layers) - 1} more layers" if len(layers) > 1 else ""
    if watch.forwards[id(layers[0].module)]:
        return (
            f"{layers[0]!r}{more} ran, and its attention was not seen: it is computed by a kernel of its own (fused or "
            "quantised), in chunks, or in another shape than (batch, heads, queries, keys)"
        )
    return (
        f"the forward did not pass through {layers[0]!r}{more}; forward_func must run the model the layers come from, "
        "on inputs that reach them (images for a tower of images)"
    )


def _why_repeated(layer: AttentionLayer, usual: int, watch: _Watch) -> str:
    """Say why a layer was passed more often than it should be."""
    count, ran = watch.calls[id(layer.module)], watch.forwards[id(layer.module)]
    if ran and ran <= usual:
        return (
            f"{layer!r} computes attention {count} times in one forward (in chunks, for each image, or as maps that it "
            "subtracts), so that it has no single map" + "; give one image at a time" * layer.packs
        )
    return (
        f"the forward passed through {layer!r} more than once ({count} times); forward_func must run the model once, "
        "and a layer that the model itself runs again (in steps, or for each image) has no single map"
    )


@contextmanager
def _counted(modules: Iterable[nn.Module], forwards: Counter[int]) -> Iterator[None]:
    """Count the forwards of modules, by id."""
    with ExitStack() as stack:
        for module in modules:
            handle = module.register_forward_pre_hook(lambda module, *_: forwards.update((id(module),)))
            stack.callback(handle.remove)
        yield


# One watch per thread (and per context): two threads may attribute two models at once.
_WATCH: ContextVar[_Watch | None] = ContextVar("captum_attattr_watch", default=None)


def _attention_interface(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Compute the family's attention, and replace what the watch asks for."""
    kind: Any = type(module)
    watch = _WATCH.get()
    states = query, key, value, attention_mask
    if watch is None:
        return _eager(kind)(module, *states, **kwargs)
    in_context = watch.space == "context"
    attention = None
    if in_context and not watch.check and id(module) in watch.control.fused:
        output = _fused(module, *states, **kwargs)
    else:
        output, attention = _eager(kind)(module, *states, **kwargs)
    if watch.check and attention is not None:
        _check_output(module, output, attention, value)
        usual = watch.control.usual.get(id(getattr(module, "config", None)), "eager")
        if usual != "eager" and _fused_agrees(module, output, *states, **kwargs):
            watch.fused.add(id(module))

    def eager(rows: Tensor) -> Tensor:
        rows = rows.to(value.device)
        chosen: list[Any] = [_of_rows(state, rows, len(value)) for state in states]
        options = {name: _of_rows(option, rows, len(value)) for name, option in kwargs.items()}
        return _eager(kind)(module, *chosen, **options)[1]

    mask = None if attention_mask is None else attention_mask[..., : key.shape[-2]]
    if in_context:
        replaced = watch.visit(module, LayerCall(output, mask, value, eager))
        return output if replaced is None else replaced.contiguous(), None  # as families' functions return it
    assert attention is not None, "eager attention returns its probabilities"
    replaced = watch.visit(module, LayerCall(attention, mask))
    if replaced is not None:  # the attention too, for a forward function that reads the attentions
        output, attention = times_values(replaced, value).contiguous(), replaced
    return output, attention


def _of_rows(state: Any, rows: Tensor, count: int) -> Any:
    """Return the rows of a tensor that holds `count` of them; vectors and matrices hold none (sinks, a head each)."""
    return state[rows] if isinstance(state, Tensor) and state.dim() > 2 and len(state) == count else state


def _fused(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> Tensor:
    """Compute attention by torch's fused function, (R, Tq, H, D)."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    kwargs["is_causal"] = False  # the mask says it
    output: Tensor = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)[0]
    return output


def _fused_agrees(module: nn.Module, expected: Tensor, *states: Any, **kwargs: Any) -> bool:
    """Whether fused attention computes what the eager function did."""
    try:
        output = _fused(module, *states, **kwargs)
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return False
    tolerance = _FUSED_ROUNDINGS * torch.finfo(expected.dtype).eps * expected.abs().max()
    return output.shape == expected.shape and bool((output - expected).abs().max() <= tolerance)


@cache
def _eager(kind: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    """Return the eager attention function that a module class falls back to."""
    for base in kind.__mro__:
        forward = vars(base).get("forward")
        function = inspect.unwrap(forward).__globals__.get("eager_attention_forward") if forward else None
        if function is not None:
            return function  # type: ignore[no-any-return]  # found by name in another module
    raise UnsupportedModelError(
        f"{kind.__name__} goes through the attention interface without an eager_attention_forward beside it"
    )


def times_values(attention: Tensor, value: Tensor) -> Tensor:
    """Multiply (n, H, Tq, Tk) by (n, Hkv, Tk, D), grouped heads repeated, to (n, Tq, H, D)."""
    groups = attention.shape[1] // value.shape[1]
    if groups > 1:
        value = value.repeat_interleave(groups, dim=1)
    return (attention @ value).transpose(1, 2)


def _check_output(module: nn.Module, output: Tensor, attention: Tensor, value: Tensor) -> None:
    """Check that a layer's output is attention times values.

    Raises:
        UnsupportedModelError: it is something else.
    """
    expected = times_values(attention, value)
    tolerance = torch.finfo(output.dtype).eps ** 0.5 * (output.abs().max() + 1e-30)
    if output.shape != expected.shape or not bool((output - expected).abs().max() <= tolerance):
        raise UnsupportedModelError(
            f"{type(module).__name__}: its output is not attention times values (it is rescaled or mixed "
            "afterwards), so replacing the attention would not give the model's own function"
        )


_CLAIMED: set[int] = set()
"""Ids of the attention modules and configs of every model that is under control now."""
_CLAIM = threading.Lock()


@contextmanager
def claimed(model: nn.Module) -> Iterator[None]:
    """Claim the model's attention for one control, and have the interface's function registered until the last ends."""
    parts = {id(module) for module in model.modules() if attention_route(module)} | {
        id(config) for config in attention_configs(model)
    }
    with _CLAIM:
        if not _CLAIMED.isdisjoint(parts):
            raise ModelInUseError(
                f"{family_name(model)} is being attributed already (in another thread, or further up this call); "
                "one model can be attributed once at a time"
            )
        _CLAIMED.update(parts)
        _register()
    try:
        yield
    finally:
        with _CLAIM:
            _CLAIMED.difference_update(parts)
            if not _CLAIMED:
                _unregister()


def _register() -> None:
    """Give transformers the function that its configs are going to name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(_IMPLEMENTATION, _attention_interface)
    # Without a mask function of the same name the model would get no mask at all, silently.
    AttentionMaskInterface.register(_IMPLEMENTATION, eager_mask)


def _unregister() -> None:
    """Take the function back: transformers has a method for the first step only."""
    from transformers import AttentionInterface, AttentionMaskInterface

    for interface in (AttentionInterface, AttentionMaskInterface):
        interface._global_mapping.pop(_IMPLEMENTATION, None)


@contextmanager
def _eager_attention(model: nn.Module) -> Iterator[None]:
    """Let every part of the model compute attention eagerly, through the interface's function where it can."""
    configs = attention_configs(model)
    # A family outside the interface would not know the function's name, and go wrong silently.
    routes = [(attention_route(module), getattr(module, "config", None)) for module in model.modules()]
    outside = {id(config) for route, config in routes if route == "softmax"}
    if all(route != "interface" for route, _ in routes):
        outside = {id(config) for config in configs}
    eager = [config for config in configs if id(config) in outside]
    replaced = [config for config in configs if id(config) not in outside]
    with (
        attribute_set(eager, _IMPLEMENTATION_NAME, "eager"),
        attribute_set(replaced, _IMPLEMENTATION_NAME, _IMPLEMENTATION),
    ):
        yield
