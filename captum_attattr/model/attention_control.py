"""A model's attention under control: read in a forward, replaced for some rows of the batch, restored afterwards.

Attention is reached by one of two routes:

* **interface**: most families send (query, key, value) through `transformers.AttentionInterface`. Inside an
  `AttentionControl` the model's configs name a function of this module, which calls the family's eager attention
  and, where rows are replaced, multiplies the replacement with the values.
* **softmax**: older families call softmax themselves. A `TorchFunctionMode` watches the one four-dimensional
  softmax of every attention layer and can replace rows of what it returns.
"""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_layers import (
    AttentionLayer,
    attention_calls,
    attention_configs,
    attention_route,
    family_name,
)
from captum_attattr.model.modes import attribute_set, uncompiled

_IMPLEMENTATION = "captum_attattr"
_SOFTMAX = frozenset({torch.softmax, torch.nn.functional.softmax, Tensor.softmax, torch.special.softmax})

_MASKED = -9_000
"""Masks subtract 10,000 or more from a score (BigBird least, most the lowest number of the type), biases less."""

_SOFTMAX_SHAPE = ", and its softmax must see (batch, heads, queries, keys), not a dimension that batch and heads share"


class Replacement(NamedTuple):
    """Attention that takes the place of the model's for some consecutive rows of the batch."""

    start: int
    """First row that is replaced."""
    attention: Tensor
    """(rows, H, Tq, Tk), in the dtype of the model's attention."""


Visitor = Callable[[int, Tensor], "Replacement | None"]
"""Called with (index in the list of layers, probabilities (B, H, Tq, Tk)) at every layer of a forward."""


class AttentionControl:
    """A model whose attention can be read and replaced; the model is restored when the context ends.

    Inside `with AttentionControl(layers) as control`, the model computes attention eagerly and its
    parameters need no gradient. Each forward whose attention is wanted runs inside `control.watch(visitor)`.

    Raises:
        UnsupportedModelError: a layer was not reached by a watched forward, reached twice, or reached in a way
            that does not show its attention.
    """

    def __init__(self, layers: Iterable[AttentionLayer]) -> None:
        self.layers = tuple(layers)
        self.model = self.layers[0].model
        self.runs = Counter(id(module) for _, module, _ in attention_calls(self.model))

    def __enter__(self) -> AttentionControl:
        self._stack = ExitStack()
        with ExitStack() as stack:
            stack.enter_context(_claimed(self.model))
            stack.enter_context(uncompiled())
            stack.enter_context(_eager_attention(self.model))
            # So that no graph is kept below the attention that is attributed.
            learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
            stack.enter_context(attribute_set(learning, "requires_grad", False))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @staticmethod
    def visible_keys() -> Tensor | None:
        """Return which keys the queries of the layer that is being visited may see; for use in a visitor.

        Returns:
            Booleans that broadcast to (B, H, Tq, Tk), from the mask and not from the probabilities, of which those of
            visible keys may round to 0; None where there is no mask.
        """
        watch = _WATCH.get()
        assert watch is not None, "no layer is being visited"
        return watch.visible

    @contextmanager
    def watch(self, visitor: Visitor, *, check_output: bool = False) -> Iterator[None]:
        """Let `visitor` see, and replace, the attention of every layer in the forward that runs inside.

        Args:
            visitor: see `Visitor`.
            check_output: verify that each layer's output is its attention times its values.
        """
        watch = _Watch(self.layers, visitor, check_output)
        with ExitStack() as stack:
            token = _WATCH.set(watch)
            stack.callback(_WATCH.reset, token)
            softmax_modules = {layer.module for layer in self.layers if layer.route == "softmax"}
            if softmax_modules:
                for module in softmax_modules:
                    stack.enter_context(_inside(module, watch))
                stack.enter_context(_SoftmaxMode(watch))
            yield
        missed = [layer for layer in self.layers if layer.key not in watch.seen]
        if missed:
            raise UnsupportedModelError(
                f"{family_name(self.model)}: the forward did not pass through {missed[0]!r}"
                + (f" and {len(missed) - 1} more layers" if len(missed) > 1 else "")
                + "; forward_func must run the model the layers come from"
                + _SOFTMAX_SHAPE * (missed[0].route == "softmax")
            )
        repeated = [layer for layer in self.layers if watch.calls[id(layer.module)] > self.runs[id(layer.module)]]
        if repeated:
            raise UnsupportedModelError(
                f"{family_name(self.model)}: the forward passed through {repeated[0]!r} more than once; "
                "forward_func must run the model once"
            )


class _Watch:
    """The layers that one watched forward has passed so far."""

    def __init__(self, layers: Iterable[AttentionLayer], visitor: Visitor, check_output: bool) -> None:
        self.index = {layer.key: i for i, layer in enumerate(layers)}
        self.visitor = visitor
        self.check_output = check_output
        self.calls: dict[int, int] = {}
        self.seen: set[tuple[int, int]] = set()
        self.inside: list[nn.Module] = []
        self.visible: Tensor | None = None

    def visit(self, module: nn.Module, attention: Tensor, visible: Tensor | None) -> Replacement | None:
        """Show the visitor a layer's attention, if the layer is one of the list."""
        key = id(module), self.calls.get(id(module), 0)
        self.calls[id(module)] = key[1] + 1
        if key not in self.index:
            return None
        self.seen.add(key)
        self.visible = visible
        return self.visitor(self.index[key], attention)


# One watch per thread (and per context): two threads may attribute two models at once.
_WATCH: ContextVar[_Watch | None] = ContextVar("captum_attattr_watch", default=None)


def _attention_interface(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Compute the family's eager attention, and replace the rows that the watch asks for."""
    kind: Any = type(module)
    output, attention = _eager(kind)(module, query, key, value, attention_mask, **kwargs)
    watch = _WATCH.get()
    if watch is None:
        return output, attention
    if watch.check_output:
        _check_output(module, output, attention, value)
    visible = None if attention_mask is None else _visible(attention_mask[..., : attention.shape[-1]])
    replacement = watch.visit(module, attention, visible)
    if replacement is not None:
        start, rows = replacement
        stop = start + len(rows)
        output = _replaced(output, start, _times_values(rows, value[start:stop]))
        attention = _replaced(attention, start, rows)  # for a forward function that reads the attentions
    return output, attention


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


def _visible(scores: Tensor) -> Tensor:
    """Return where a mask, or scores to which a mask has been added, leave a key visible."""
    return scores if scores.dtype == torch.bool else scores > _MASKED


def _times_values(attention: Tensor, value: Tensor) -> Tensor:
    """Multiply (n, H, Tq, Tk) by (n, Hkv, Tk, D), grouped heads repeated, to (n, Tq, H, D)."""
    groups = attention.shape[1] // value.shape[1]
    if groups > 1:
        value = value.repeat_interleave(groups, dim=1)
    return (attention @ value).transpose(1, 2)


def _replaced(whole: Tensor, start: int, rows: Tensor) -> Tensor:
    """Return `whole` with `rows` in place of its rows from `start` on."""
    return torch.cat((whole[:start], rows, whole[start + len(rows) :]))


def _check_output(module: nn.Module, output: Tensor, attention: Tensor, value: Tensor) -> None:
    """Check that a layer's output is attention times values.

    Raises:
        UnsupportedModelError: it is something else.
    """
    expected = _times_values(attention, value)
    scale = output.abs().max() + 1e-30
    close = output.shape == expected.shape and bool(
        (output - expected).abs().max() <= torch.finfo(output.dtype).eps ** 0.5 * scale
    )
    if not close:
        raise UnsupportedModelError(
            f"{type(module).__name__}: its output is not attention times values (it is rescaled or mixed "
            "afterwards), so replacing the attention would not give the model's own function"
        )


class _SoftmaxMode(TorchFunctionMode):
    """Shows the watch each attention layer's softmax, and replaces the rows that it asks for."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _SOFTMAX or not self.watch.inside or result.dim() != 4:
            return result
        scores = (args[0] if args else (kwargs or {})["input"]).detach()
        replacement = self.watch.visit(self.watch.inside[-1], result, _visible(scores))
        return result if replacement is None else _replaced(result, *replacement)


@contextmanager
def _inside(module: nn.Module, watch: _Watch) -> Iterator[None]:
    """Keep `module` at the end of `watch.inside` while it is being computed."""
    before = module.register_forward_pre_hook(lambda m, _: watch.inside.append(m))

    def leave(*_: object) -> None:
        if watch.inside and watch.inside[-1] is module:  # not where another hook has raised before ours was called
            watch.inside.pop()

    after = module.register_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()


_CLAIMED: set[int] = set()
"""Ids of the attention modules and configs of every model that is under control now."""
_CLAIM = threading.Lock()


@contextmanager
def _claimed(model: nn.Module) -> Iterator[None]:
    """Claim the model's attention for one control, and have the interface's function registered until the last ends."""
    parts = {id(module) for module in model.modules() if attention_route(module)} | {
        id(config) for config in attention_configs(model)
    }
    with _CLAIM:
        if not _CLAIMED.isdisjoint(parts):
            raise RuntimeError(
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
    # The attribute behind the property: the property's setter would change sub-configs as well.
    name = "_attn_implementation_internal"
    eager = [config for config in configs if id(config) in outside]
    replaced = [config for config in configs if id(config) not in outside]
    with attribute_set(eager, name, "eager"), attribute_set(replaced, name, _IMPLEMENTATION):
        yield
