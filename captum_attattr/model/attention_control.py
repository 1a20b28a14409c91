"""Where a transformer's attention is: find its layers, read their probabilities, replace them.

This is the only room that knows how transformers builds attention. There are two routes:

* **interface**: most families send (query, key, value) through `transformers.AttentionInterface`. For the
  length of a `AttentionControl` the model's configs name a function of ours, which calls the family's own
  eager attention and, where rows are replaced, multiplies the replacement with the values.
* **softmax**: older families call softmax themselves. A `TorchFunctionMode` watches the one four-dimensional
  softmax of every attention layer and can exchange rows of what it returns.
"""

from __future__ import annotations

import inspect
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask

from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.modes import uncompiled

_IMPLEMENTATION = "captum_attattr"
_SOFTMAX = frozenset({torch.softmax, torch.nn.functional.softmax, Tensor.softmax, torch.special.softmax})

_SOFTMAX_SHAPE = ", and its softmax must see (batch, heads, queries, keys), not a dimension that batch and heads share"

# Families whose attention is not one full (queries x keys) matrix per head, by config.model_type.
_REFUSED = {
    **dict.fromkeys(("longformer", "led", "longt5"), "its attention is windowed: there is no full query-by-key matrix"),
    **dict.fromkeys(
        ("swin", "swinv2", "swin2sr", "maskformer-swin", "donut-swin", "clap_audio_model", "hiera"),
        "its attention is windowed: batch and windows share one dimension",
    ),
    "falcon": "its attention is fused: it calls scaled_dot_product_attention itself, past the interface",
    "reformer": "its attention is hashed: there is no full query-by-key matrix",
    "nystromformer": "its attention is a low-rank product: there is no full query-by-key matrix",
    "yoso": "its attention is hashed: there is no full query-by-key matrix",
}
# Families outside the interface whose attention looks back only.
_CAUSAL = frozenset({"bloom", "mpt", "codegen", "gptj", "gpt_neo", "xglm", "falcon", "ctrl", "openai-gpt"})
_CROSS_NAMES = frozenset({"encoder_attn", "encdecattention", "crossattention", "cross_attn", "cross_attention"})


class Replacement(NamedTuple):
    """Attention to use in place of the model's own, for some consecutive rows of the batch."""

    start: int
    """First row that is replaced."""
    attention: Tensor
    """(rows, H, Tq, Tk), in the model's own attention dtype."""


class KeptHeads(NamedTuple):
    """What `prune_heads` left of a layer; an attribute `kept_heads` of its module."""

    numbers: tuple[int, ...]
    """The heads that are left, by their numbers in the original model."""
    of: int
    """How many heads the layer had in the original model."""


Visitor = Callable[[int, Tensor], "Replacement | None"]
"""Called with (position in the layer list, probabilities (B, H, Tq, Tk)) at every layer of a forward."""


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One attention layer of a model, as `attention_layers` finds it.

    Attributes:
        model: the module that was searched; switching the attention touches its configs only.
        module: the attention module itself (shared by several layers where weights are shared, as in ALBERT).
        name: the module's dotted name inside `model`.
        kind: "encoder", "decoder" (self-attention of an encoder or decoder) or "cross".
        index: number of the layer among those of its kind, input side first.
        call: which call of `module` in one forward is meant; 0 unless weights are shared.
        route: "interface" or "softmax", the two ways in.
    """

    model: nn.Module
    module: nn.Module
    name: str
    kind: str
    index: int
    call: int
    route: str

    def __repr__(self) -> str:
        call = f", call={self.call}" if self.call else ""
        return f"AttentionLayer({self.kind} {self.index}: {self.name}{call})"

    @property
    def kept(self) -> KeptHeads | None:
        """What `prune_heads` left of the layer; None if nothing was removed."""
        kept: KeptHeads | None = getattr(self.module, "kept_heads", None)
        return kept

    @property
    def key(self) -> tuple[int, int]:
        """What tells this layer from the model's others while a forward runs."""
        return id(self.module), self.call


# ------------------------------------------------------------------------------------------ finding layers


def attention_layers(model: nn.Module, kind: str | None = None) -> list[AttentionLayer]:
    """Every self-attention layer of a transformer, input side first.

    Args:
        model: a transformers model, or any module that holds one.
        kind: None for all self-attention layers (an encoder's before a decoder's); "encoder", "decoder" or
            "cross" for the layers of that kind only.

    Returns:
        One handle per layer, to be given to `LayerAttAttr`; layers that `prune_heads` left no head are not
        among them.

    Raises:
        UnsupportedModelError: no attention that can be read, or a windowed, hashed or fused one.
        ValueError: `kind` is unknown, or the model has no layer of that kind.

    Example:
        >>> from transformers import BertConfig, BertModel
        >>> model = BertModel(BertConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        ...                              intermediate_size=24, vocab_size=10))
        >>> attention_layers(model)
        [AttentionLayer(encoder 0: encoder.layer.0.attention.self), \
AttentionLayer(encoder 1: encoder.layer.1.attention.self)]
    """
    layers = [layer for layer in every_layer(model, kind) if layer.kept is None or layer.kept.numbers]
    if not layers:
        raise UnsupportedModelError(f"{_family(model)} has no attention head left: all have been pruned")
    return layers


def every_layer(model: nn.Module, kind: str | None = None) -> list[AttentionLayer]:
    """What `attention_layers` finds, and the layers that have no head left."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if kind not in (None, "encoder", "decoder", "cross"):
        raise ValueError(f"kind={kind!r} is unknown; use None, 'encoder', 'decoder' or 'cross'")
    _refuse_unsupported(model)
    layers: list[AttentionLayer] = []
    counts = {"encoder": 0, "decoder": 0, "cross": 0}
    for name, module, call in _attention_calls(model):
        found = _kind(name, module, model)
        layers.append(AttentionLayer(model, module, name, found, counts[found], call, _route(module) or ""))
        counts[found] += 1
    if not layers:
        raise UnsupportedModelError(
            f"{_family(model)} has no attention layer that goes through transformers' attention interface or "
            "that calls softmax itself; the README's table lists the supported families"
        )
    wanted = ("encoder", "decoder") if kind is None else (kind,)
    chosen = [layer for want in wanted for layer in layers if layer.kind == want]
    if not chosen:
        has = ", ".join(f"{n} {k}" for k, n in counts.items() if n)
        raise ValueError(f"{_family(model)} has no {kind} attention; it has {has}")
    return chosen


def _attention_calls(model: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
    """(name, module, call) of every attention layer in the order of execution."""
    found = [(name, module) for name, module in model.named_modules() if _route(module)]
    shared = next((m for m in model.modules() if type(m).__name__ == "AlbertTransformer"), None)
    if shared is None:
        yield from ((name, module, 0) for name, module in found)
        return
    # ALBERT shares weights: layer i runs every inner layer of group i // (layers / groups).
    config: Any = shared.config
    inner = config.inner_group_num
    calls: dict[int, int] = {}
    for i in range(config.num_hidden_layers):
        group = int(i / (config.num_hidden_layers / config.num_hidden_groups))
        for name, module in found[group * inner : (group + 1) * inner]:
            call = calls.get(id(module), 0)
            calls[id(module)] = call + 1
            yield name, module, call


def _route(module: nn.Module) -> str | None:
    """By which route a module computes attention; None if it does not."""
    kind: Any = type(module)  # mypy takes a module class for unhashable
    return _class_route(kind)


@cache
def _class_route(kind: Any) -> str | None:
    if issubclass(kind, PreTrainedModel) or kind.__module__.startswith("torch."):
        return None
    names: set[str] = set()
    for base in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        for function in vars(base).values():
            code = getattr(inspect.unwrap(function), "__code__", None) if callable(function) else None
            names.update(code.co_names if code else ())
    if "ALL_ATTENTION_FUNCTIONS" in names:
        return "interface"
    softmax = any(name.lower() == "softmax" for name in names)
    return "softmax" if softmax and "Attention" in kind.__name__ else None


def _kind(name: str, module: nn.Module, model: nn.Module) -> str:
    parts = name.lower().split(".")
    if _CROSS_NAMES.intersection(parts) or "CrossAttention" in type(module).__name__:
        return "cross"
    if any(getattr(config, "is_encoder_decoder", False) for config in _configs(model)):
        return "decoder" if any(part.startswith("decoder") for part in parts) else "encoder"
    causal = getattr(module, "is_causal", None)
    if causal is None:  # the softmax route's modules do not say
        config = getattr(module, "config", None) or next(iter(_configs(model)), None)
        causal = getattr(config, "model_type", "") in _CAUSAL
    return "decoder" if causal else "encoder"


def _configs(model: nn.Module) -> list[Any]:
    """Every distinct config that some part of the model reads its attention implementation from."""
    configs = (getattr(module, "config", None) for module in model.modules())
    return list({id(c): c for c in configs if hasattr(c, "_attn_implementation_internal")}.values())


def _family(model: nn.Module) -> str:
    types = [config.model_type for config in _configs(model) if getattr(config, "model_type", "")]
    return f"{type(model).__name__} (model type {types[0]!r})" if types else type(model).__name__


def _refuse_unsupported(model: nn.Module) -> None:
    for config in _configs(model):
        reason = _REFUSED.get(getattr(config, "model_type", ""))
        if getattr(config, "attention_type", "") == "block_sparse":
            reason = (
                "its attention is block-sparse: there is no full query-by-key matrix; "
                "load it with attention_type='original_full'"
            )
        if reason:
            raise UnsupportedModelError(f"{_family(model)} is not supported: {reason}")


# ------------------------------------------------------------------------- reading and replacing attention


class AttentionControl:
    """A model whose attention can be watched; the model is restored when the context ends.

    Inside `with AttentionControl(layers) as control`, the model computes attention eagerly and its
    parameters need no gradient. Each forward that is to be seen runs inside `control.watch(visitor)`.

    Raises:
        UnsupportedModelError: a layer was not reached by a watched forward, reached twice, or reached in a way
            that does not show its attention.
    """

    def __init__(self, layers: Iterable[AttentionLayer]) -> None:
        self.layers = tuple(layers)
        self.model = self.layers[0].model
        self.runs = Counter(id(module) for _, module, _ in _attention_calls(self.model))

    def __enter__(self) -> AttentionControl:
        self._stack = ExitStack()
        with ExitStack() as stack:
            stack.enter_context(_claimed(self.model))
            stack.enter_context(uncompiled())
            stack.enter_context(_eager_attention(self.model))
            stack.enter_context(_no_parameter_gradients(self.model))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

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
                f"{_family(self.model)}: the forward did not pass through {missed[0]!r}"
                + (f" and {len(missed) - 1} more layers" if len(missed) > 1 else "")
                + "; forward_func must run the model the layers come from"
                + _SOFTMAX_SHAPE * (missed[0].route == "softmax")
            )
        repeated = [layer for layer in self.layers if watch.calls[id(layer.module)] > self.runs[id(layer.module)]]
        if repeated:
            raise UnsupportedModelError(
                f"{_family(self.model)}: the forward passed through {repeated[0]!r} more than once; "
                "forward_func must run the model once"
            )


class _Watch:
    """What one watched forward has met so far."""

    def __init__(self, layers: Iterable[AttentionLayer], visitor: Visitor, check_output: bool) -> None:
        self.position = {layer.key: i for i, layer in enumerate(layers)}
        self.visitor = visitor
        self.check_output = check_output
        self.calls: dict[int, int] = {}
        self.seen: set[tuple[int, int]] = set()
        self.inside: list[nn.Module] = []

    def visit(self, module: nn.Module, attention: Tensor) -> Replacement | None:
        key = id(module), self.calls.get(id(module), 0)
        self.calls[id(module)] = key[1] + 1
        if key not in self.position:
            return None
        self.seen.add(key)
        return self.visitor(self.position[key], attention)


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
    """The family's own eager attention, with the watched rows exchanged."""
    kind: Any = type(module)
    output, attention = _eager(kind)(module, query, key, value, attention_mask, **kwargs)
    watch = _WATCH.get()
    if watch is None:
        return output, attention
    if watch.check_output:
        _check_output(module, output, attention, value)
    replacement = watch.visit(module, attention)
    if replacement is not None:
        start, rows = replacement
        stop = start + len(rows)
        output = _exchange(output, start, _times_values(rows, value[start:stop]))
        attention = _exchange(attention, start, rows)  # for a forward function that reads the attentions
    return output, attention


AttentionInterface.register(_IMPLEMENTATION, _attention_interface)
# Without a mask function of the same name the model would get no mask at all, silently.
AttentionMaskInterface.register(_IMPLEMENTATION, eager_mask)


@cache
def _eager(kind: Any) -> Callable[..., tuple[Tensor, Tensor]]:
    """The eager attention function that a module class falls back to."""
    for base in kind.__mro__:
        forward = vars(base).get("forward")
        function = inspect.unwrap(forward).__globals__.get("eager_attention_forward") if forward else None
        if function is not None:
            return function  # type: ignore[no-any-return]  # found by name in another module
    raise UnsupportedModelError(
        f"{kind.__name__} goes through the attention interface without an eager_attention_forward beside it"
    )


def _times_values(attention: Tensor, value: Tensor) -> Tensor:
    """(n, H, Tq, Tk) times (n, Hkv, Tk, D), grouped heads repeated, as (n, Tq, H, D)."""
    groups = attention.shape[1] // value.shape[1]
    if groups > 1:
        value = value.repeat_interleave(groups, dim=1)
    return (attention @ value).transpose(1, 2)


def _exchange(whole: Tensor, start: int, rows: Tensor) -> Tensor:
    """`whole` with `rows` in place of its rows from `start` on."""
    return torch.cat((whole[:start], rows, whole[start + len(rows) :]))


def _check_output(module: nn.Module, output: Tensor, attention: Tensor, value: Tensor) -> None:
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
    """Shows the watch each attention layer's softmax, and exchanges the rows it asks for."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _SOFTMAX or not self.watch.inside or result.dim() != 4:
            return result
        replacement = self.watch.visit(self.watch.inside[-1], result)
        return result if replacement is None else _exchange(result, *replacement)


@contextmanager
def _inside(module: nn.Module, watch: _Watch) -> Iterator[None]:
    """Keep `watch.inside` telling whether `module` is being computed."""
    before = module.register_forward_pre_hook(lambda m, _: watch.inside.append(m))

    def leave(*_: object) -> None:
        if watch.inside and watch.inside[-1] is module:  # else somebody's hook has raised before ours entered
            watch.inside.pop()

    after = module.register_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()


_CLAIMED: set[int] = set()
"""Ids of the attention modules and configs of all models that are under control now."""
_CLAIM = threading.Lock()


@contextmanager
def _claimed(model: nn.Module) -> Iterator[None]:
    """Keep everybody else from controlling the model's attention."""
    parts = {id(module) for module in model.modules() if _route(module)} | {id(config) for config in _configs(model)}
    with _CLAIM:
        if not _CLAIMED.isdisjoint(parts):
            raise RuntimeError(
                f"{_family(model)} is being attributed already (in another thread, or further up this call); "
                "one model can be attributed once at a time"
            )
        _CLAIMED.update(parts)
    try:
        yield
    finally:
        with _CLAIM:
            _CLAIMED.difference_update(parts)


@contextmanager
def _eager_attention(model: nn.Module) -> Iterator[None]:
    """Let every part of the model compute attention eagerly, where it can through our own function."""
    # The attribute behind the property: the property's setter would spread to sub-configs in between.
    old = [(config, config._attn_implementation_internal) for config in _configs(model)]
    # A family outside the interface would take our name for one of its own and go wrong silently.
    outside = {
        id(module.config) for module in model.modules() if _route(module) == "softmax" and hasattr(module, "config")
    }
    if not any(_route(module) == "interface" for module in model.modules()):
        outside = {id(config) for config, _ in old}
    try:
        for config, _ in old:
            config._attn_implementation_internal = "eager" if id(config) in outside else _IMPLEMENTATION
        yield
    finally:
        for config, current in old:
            config._attn_implementation_internal = current


@contextmanager
def _no_parameter_gradients(model: nn.Module) -> Iterator[None]:
    """Switch requires_grad off, so that no graph is kept below the attention that is attributed."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in wanted:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanted:
            parameter.requires_grad_(True)


# -------------------------------------------------------------------------------- the blocks around attention


def block_stacks(layers: Iterable[AttentionLayer]) -> list[list[nn.Module]] | None:
    """The stacks of blocks that the layers stand in, or None where a layer stands outside any stack.

    A stack is the outermost `nn.ModuleList` above a layer: `encoder.layer` of BERT, `encoder.block` and
    `decoder.block` of T5. Between two blocks of a stack the only thing that changes is the hidden state.
    """
    stacks: dict[str, list[nn.Module]] = {}
    for layer in layers:
        parts = layer.name.split(".")
        prefixes = (".".join(parts[:i]) for i in range(1, len(parts)))
        name = next((p for p in prefixes if isinstance(layer.model.get_submodule(p), nn.ModuleList)), None)
        if name is None:
            return None
        stacks.setdefault(name, list(layer.model.get_submodule(name).children()))
    return list(stacks.values())
