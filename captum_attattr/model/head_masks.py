"""Heads weighted or switched off: a gate is a number that multiplies what one head gives (Michel et al. 2019)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_attattr.checks import integer, scalar
from captum_attattr.model.attention_layers import AttentionLayer, every_layer
from captum_attattr.model.modes import uncompiled
from captum_attattr.model.projections import Heads

HeadSpec = Mapping[Any, Iterable[int]] | Iterable[tuple[Any, int]]
"""Heads: {layer: [heads]}, or (layer, head) pairs. A layer is its number in a model whose heads are all there, or
an `AttentionLayer`; heads are numbered as in the original model."""


@contextmanager
def mask_heads(model: nn.Module, heads: HeadSpec) -> Iterator[None]:
    """Switch heads off for as long as the context lasts.

    What the heads give is multiplied by 0 before the output projection; nothing is renormalised, and attention
    itself, its implementation included, is left alone. Contexts inside one another add up. Compiled code would not
    see the change: inside the context nothing runs compiled, in no thread.

    Args:
        model: any model that `attention_layers` finds layers in.
        heads: ``{layer: [head, ...]}`` or (layer, head) pairs; a layer is a number, counted from the input as
            `attention_layers` does in the unpruned model, or an `AttentionLayer` (cross attention too). Heads
            are numbered as in the original model; those that are gone already are passed over.

    Raises:
        TypeError, ValueError: no head at all, or a layer or head that the model does not have; a context inside a
            function that is compiled.
        UnsupportedModelError: the layer's output projection is not known.

    Example:
        >>> import torch
        >>> from transformers import BertConfig, BertModel
        >>> model = BertModel(BertConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=4,
        ...                              intermediate_size=24, vocab_size=10)).eval()
        >>> ids = torch.tensor([[1, 5, 6, 2]])
        >>> before = model(ids).last_hidden_state
        >>> with mask_heads(model, {0: [1, 3]}):
        ...     masked = model(ids).last_hidden_state
        >>> bool((masked - before).abs().max() > 0), torch.equal(model(ids).last_hidden_state, before)
        (True, True)
    """
    gates = {}
    for layer, numbers in selected_heads(model, heads).items():
        of = Heads(layer)
        gates[layer] = torch.tensor([float(number not in numbers) for number in of.numbers], device="cpu")
    with head_gates(gates):
        yield


def selected_heads(model: nn.Module, heads: HeadSpec) -> dict[AttentionLayer, set[int]]:
    """The heads that are meant, by layer; layers without a head left are not among them.

    Raises:
        TypeError, ValueError: see `mask_heads`.
    """
    layers = every_layer(model)
    pairs = _pairs(heads)
    if not pairs:
        raise ValueError(f"heads={heads!r} names no head; give at least one, as {{0: [1, 2]}}")
    wanted: dict[tuple[int, int], tuple[AttentionLayer, set[int]]] = {}
    for given, head in pairs:
        layer = _layer(model, layers, given)
        number = integer(head)
        if number is None:
            raise TypeError(f"head {head!r} of layer {given!r} must be an integer")
        count = Heads(layer).original
        if not 0 <= number < count:
            raise ValueError(f"head {number} of layer {given!r} is out of range: the layer has heads 0 to {count - 1}")
        wanted.setdefault(layer.key, (layer, set()))[1].add(number)
    return {layer: numbers for layer, numbers in wanted.values() if layer.kept is None or layer.kept.numbers}


def _pairs(heads: Any) -> list[tuple[Any, Any]]:
    if isinstance(heads, Mapping):
        heads = [(layer, number) for layer, numbers in heads.items() for number in _listed(layer, numbers)]
    heads = _plain(heads)
    if isinstance(heads, str) or not isinstance(heads, Iterable):
        raise TypeError(f"heads must be {{layer: [heads]}} or (layer, head) pairs, got {heads!r}")
    pairs = [_plain(pair) for pair in heads]
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"heads must be {{layer: [heads]}} or (layer, head) pairs, got {pair!r} among them")
    return [(layer, number) for layer, number in pairs]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor | np.ndarray) else value


def _listed(layer: Any, numbers: Any) -> Iterable[Any]:
    numbers = scalar(numbers)
    if isinstance(numbers, str) or not isinstance(numbers, Iterable):
        raise TypeError(f"the heads of layer {layer!r} must be a list, got {numbers!r}")
    return numbers


def _layer(model: nn.Module, layers: list[AttentionLayer], given: Any) -> AttentionLayer:
    if isinstance(given, AttentionLayer):
        if all(given.module is not module for module in model.modules()):
            raise ValueError(f"{given!r} is no layer of this {type(model).__name__}")
        return next((layer for layer in layers if layer.key == given.key), given)
    number = integer(given)
    if number is None:
        raise TypeError(f"layer {given!r} must be a number or one of attention_layers(model)")
    if not 0 <= number < len(layers):
        raise ValueError(f"layer {number} is out of range: the model has layers 0 to {len(layers) - 1}")
    return layers[number]


@contextmanager
def head_gates(gates: Mapping[AttentionLayer, Tensor]) -> Iterator[None]:
    """Multiply what heads give by gates, in every forward inside the context.

    Args:
        gates: per layer a tensor that broadcasts to (B, T, H): (H,) for all examples and tokens alike. It may
            require gradients; at 1, d loss / d gate is <d loss / d head output, head output>.
    """
    hooks: dict[nn.Module, dict[int, tuple[AttentionLayer, Tensor]]] = {}
    bare: dict[int, Tensor] = {}
    for layer, gate in gates.items():
        output = Heads(layer).output
        if output is None:
            bare[id(layer.module.o)] = gate
        else:
            hooks.setdefault(output, {})[layer.call] = layer, gate
    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        for output, calls in hooks.items():
            hook = _Gate(calls)
            stack.callback(output.register_forward_pre_hook(hook).remove)
            if hook.runs > 1:
                stack.callback(_caller(hook.layer).register_forward_pre_hook(hook.start).remove)
        if bare:
            stack.enter_context(_BareOutput(bare))
        yield


def _caller(layer: AttentionLayer) -> nn.Module:
    """The module that runs a shared layer over and over: the parent of the list that the layer stands in."""
    parts = layer.name.split(".")
    prefixes = [".".join(parts[:i]) for i in range(1, len(parts))]
    stack = next((p for p in prefixes if isinstance(layer.model.get_submodule(p), nn.ModuleList)), "")
    return layer.model.get_submodule(stack.rpartition(".")[0])


def active_gates(model: nn.Module) -> list[list[Any]]:
    """The gates that work on a model now, as [layer, call, gate's numbers]; empty without any."""
    hooks = [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]
    gates = [gate for hook in hooks if isinstance(hook, _Gate) for gate in hook.calls.items()]
    found = [[layer.name, call, gate.detach().cpu().tolist()] for call, (layer, gate) in gates]
    modes: list[Any] = torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return found + [["bare", 0, list(mode.gates)] for mode in modes if isinstance(mode, _BareOutput)]


class _Gate:
    """Gates an output projection's input; where layers share it (ALBERT), each of a forward's calls by its own gate."""

    def __init__(self, calls: dict[int, tuple[AttentionLayer, Tensor]]) -> None:
        self.calls = calls
        self.layer = next(iter(calls.values()))[0]
        self.runs = sum(other.module is self.layer.module for other in every_layer(self.layer.model, self.layer.kind))
        self.number = 0

    def __reduce__(self) -> Any:
        """A copy of a model is its own: what is switched off in the original is on in it."""
        return _Open, ()

    def start(self, *_: Any) -> None:
        """A pass over the shared layers begins; the one before may have broken off."""
        self.number = 0

    def __call__(self, projection: nn.Module, args: Any) -> Any:
        number, self.number = self.number, (self.number + 1) % self.runs
        if number not in self.calls:
            return None
        states, gate = args[0], self.calls[number][1].to(args[0])
        if isinstance(projection, nn.Conv1d):  # (B, H D, T)
            states = states.transpose(1, 2)
        gated = (states.unflatten(-1, (gate.shape[-1], -1)) * gate[..., None]).flatten(-2)
        return (gated.transpose(1, 2) if isinstance(projection, nn.Conv1d) else gated, *args[1:])


class _Open:
    """What a copy has in the place of a gate."""

    def __call__(self, *_: Any) -> None:
        """Change nothing."""

    start = __call__


class _BareOutput(TorchFunctionMode):
    """Gates the heads of XLNet, whose output projection is a parameter: einsum(ibnd,hnd->ibh) of heads and it."""

    def __init__(self, gates: dict[int, Tensor]) -> None:
        super().__init__()
        self.gates = gates

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.einsum and len(args) == 3 and id(args[2]) in self.gates:
            gate = self.gates[id(args[2])].to(args[1])
            if gate.dim() > 1:  # (B, T, H), where XLNet has (T, B, H)
                gate = gate.transpose(0, 1)
            args = (args[0], args[1] * gate[..., None], args[2])
        return func(*args, **(kwargs or {}))
