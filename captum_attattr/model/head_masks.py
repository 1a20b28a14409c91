"""Heads weighted or switched off: a gate is a factor of what one head gives (Michel et al. 2019)."""

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
from captum_attattr.model.wrappers import language_tower

HeadSpec = Mapping[Any, Iterable[int]] | Iterable[tuple[Any, int]]
"""Heads: {layer: [heads]}, or (layer, head) pairs. A layer is an index, counted from the input as `attention_layers`
does in the unpruned model, or an `AttentionLayer`; a head is an index in the original model."""


@contextmanager
def mask_heads(model: nn.Module, heads: HeadSpec) -> Iterator[dict[str, list[int]]]:
    """Switch heads off for as long as the context lasts.

    What the heads give is multiplied by 0 before the output projection; nothing is renormalised, and attention
    itself, its implementation included, is left alone. Contexts inside one another add up. Compiled code would not
    see the change: inside the context nothing runs compiled, in no thread. A copy that is made inside (`deepcopy`,
    pickle) is not masked, and neither are saved weights (`save_pretrained`).

    Args:
        model: any model that `attention_layers` finds layers in.
        heads: ``{layer: [head, ...]}`` or (layer, head) pairs; a layer is an index, counted from the input as
            `attention_layers` does in the unpruned model (of a multimodal model, in its language model), or an
            `AttentionLayer` (cross attention and other towers too). Heads are indices in the original model; those that
            `prune_heads` has removed already are passed over.

    Yields:
        The heads that are off, by the name of their layer's module inside the model: of a multimodal model, the names
        say which tower.

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
        >>> with mask_heads(model, {0: [1, 3]}) as off:
        ...     masked = model(ids).last_hidden_state
        >>> off
        {'encoder.layer.0.attention.self': [1, 3]}
        >>> bool((masked - before).abs().max() > 0), torch.equal(model(ids).last_hidden_state, before)
        (True, True)
    """
    gates = {}
    chosen = selected_heads(model, heads)
    for layer, masked in chosen.items():
        gates[layer] = torch.tensor([float(head not in masked) for head in Heads(layer).indices], device="cpu")
    with head_gates(gates):
        yield named_heads(chosen)


def named_heads(heads: Mapping[AttentionLayer, Iterable[int]]) -> dict[str, list[int]]:
    """Return the heads that are there, by the name of their layer's module; with its call where weights are shared."""
    there = {layer: sorted(set(Heads(layer).indices).intersection(its)) for layer, its in heads.items()}
    return {layer.name + f", call {layer.call}" * bool(layer.call): its for layer, its in there.items() if its}


def selected_heads(model: nn.Module, heads: HeadSpec) -> dict[AttentionLayer, set[int]]:
    """Return the heads that a `HeadSpec` names, by layer; layers without a head left are not among them.

    Raises:
        TypeError, ValueError: see `mask_heads`.
    """
    layers = every_layer(model)
    pairs = _pairs(heads)
    if not pairs:
        raise ValueError(f"heads={heads!r} names no head; give at least one, as {{0: [1, 2]}}")
    wanted: dict[tuple[int, int], tuple[AttentionLayer, set[int]]] = {}
    for given, value in pairs:
        layer = _layer(model, layers, given)
        head = integer(value)
        if head is None:
            raise TypeError(f"head {value!r} of layer {given!r} must be an integer")
        count = Heads(layer).original
        if not 0 <= head < count:
            raise ValueError(f"head {head} of layer {given!r} is out of range: the layer has heads 0 to {count - 1}")
        wanted.setdefault(layer.key, (layer, set()))[1].add(head)
    return {layer: chosen for layer, chosen in wanted.values() if layer.kept is None or layer.kept.indices}


def _pairs(heads: Any) -> list[tuple[Any, Any]]:
    """Return the (layer, head) pairs of a `HeadSpec`; what layer and head are is not checked yet."""
    if isinstance(heads, Mapping):
        heads = [(layer, head) for layer, listed in heads.items() for head in _listed(layer, listed)]
    heads = _plain(heads)
    if isinstance(heads, str) or not isinstance(heads, Iterable):
        raise TypeError(f"heads must be {{layer: [heads]}} or (layer, head) pairs, got {heads!r}")
    pairs = [_plain(pair) for pair in heads]
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"heads must be {{layer: [heads]}} or (layer, head) pairs, got {pair!r} among them")
    return [(layer, head) for layer, head in pairs]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor | np.ndarray) else value


def _listed(layer: Any, heads: Any) -> Iterable[Any]:
    """Check that a layer's heads are some iterable."""
    heads = scalar(heads)
    if isinstance(heads, str) or not isinstance(heads, Iterable):
        raise TypeError(f"the heads of layer {layer!r} must be a list, got {heads!r}")
    return heads


def _layer(model: nn.Module, layers: list[AttentionLayer], given: Any) -> AttentionLayer:
    """Return the layer of a model that an index or a handle names."""
    if isinstance(given, AttentionLayer):
        if all(given.module is not module for module in model.modules()):
            raise ValueError(f"{given!r} is no layer of this {type(model).__name__}")
        return next((layer for layer in layers if layer.key == given.key), given)
    index = integer(given)
    if index is None:
        raise TypeError(f"layer {given!r} must be a number or one of attention_layers(model)")
    if not 0 <= index < len(layers):
        tower = language_tower(model)
        whose = f"its language model ({tower})" if tower else "the model"
        other = "; give layers of attention_layers(TOWER) for another tower" * bool(tower)
        raise ValueError(f"layer {index} is out of range: {whose} has layers 0 to {len(layers) - 1}{other}")
    return layers[index]


@contextmanager
def head_gates(gates: Mapping[AttentionLayer, Tensor]) -> Iterator[None]:
    """Multiply what heads give by gates, in every forward inside the context.

    Args:
        gates: per layer a tensor that broadcasts to (B, T, H): (H,) for all examples and tokens alike. It may
            require gradients; at 1, d loss / d gate is <d loss / d head output, head output>.
    """
    hooks: dict[nn.Module, dict[int, tuple[AttentionLayer, Tensor]]] = {}
    bare: list[tuple[AttentionLayer, Tensor]] = []
    for layer, gate in gates.items():
        output = Heads(layer).output
        if output is None:
            bare.append((layer, gate))
        else:
            hooks.setdefault(output, {})[layer.call] = layer, gate
    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        for output, calls in hooks.items():
            hook = _Gate(calls)
            stack.callback(output.register_forward_pre_hook(hook).remove)
            if hook.runs > 1:
                # What runs a shared layer several times: the parent of the list that holds it.
                caller = hook.layer.model.get_submodule((hook.layer.stack or "").rpartition(".")[0])
                stack.callback(caller.register_forward_pre_hook(hook.start).remove)
        if bare:
            stack.enter_context(_BareOutput(bare))
        yield


def active_gates(model: nn.Module) -> list[list[Any]]:
    """Return the gates that are active on a model, as [layer's name, call, gate's values]; empty without any.

    Equal masks of equal models give equal lists, in any process; nested masks give what one mask of all their heads
    gives.
    """
    hooks = [hook for module in model.modules() for hook in module._forward_pre_hooks.values()]
    gates = [pair for hook in hooks if isinstance(hook, _Gate) for pair in hook.calls.values()]
    modes: list[Any] = torch.overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    gates += [pair for mode in modes if isinstance(mode, _BareOutput) for pair in mode.gates]
    products: dict[tuple[int, str, int], Tensor] = {}
    positions = {module: (position, name) for position, (name, module) in enumerate(model.named_modules())}
    for layer, gate in gates:
        if layer.module in positions:  # else the mode belongs to another model
            key = *positions[layer.module], layer.call
            products[key] = products.get(key, 1) * gate.detach().cpu()
    return [[name, call, gate.tolist()] for (_, name, call), gate in sorted(products.items(), key=lambda item: item[0])]


class _Gate:
    """Multiplies an output projection's input by a gate; where layers share it (ALBERT), a gate for each call."""

    def __init__(self, calls: dict[int, tuple[AttentionLayer, Tensor]]) -> None:
        self.calls = calls
        self.layer = next(iter(calls.values()))[0]
        self.runs = sum(other.module is self.layer.module for other in every_layer(self.layer.model, self.layer.kind))
        self.next_call = 0

    def __reduce__(self) -> Any:
        """Leave a copy of the model unmasked: nothing would ever remove its gates."""
        return _Open, ()

    def start(self, *_: Any) -> None:
        """Begin a pass over the shared layers; the one before may have broken off."""
        self.next_call = 0

    def __call__(self, projection: nn.Module, args: Any) -> Any:
        call, self.next_call = self.next_call, (self.next_call + 1) % self.runs
        if call not in self.calls:
            return None
        states, gate = args[0], self.calls[call][1].to(args[0])
        if isinstance(projection, nn.Conv1d):  # (B, H D, T)
            states = states.transpose(1, 2)
        gated = (states.unflatten(-1, (gate.shape[-1], -1)) * gate[..., None]).flatten(-2)
        return (gated.transpose(1, 2) if isinstance(projection, nn.Conv1d) else gated, *args[1:])


class _Open:
    """The hook of a copied model in place of a gate: it changes nothing."""

    def __call__(self, *_: Any) -> None:
        """Return None, which leaves a module's input as it is."""

    start = __call__


class _BareOutput(TorchFunctionMode):
    """Gates the heads of XLNet, whose output projection is a parameter: einsum(ibnd,hnd->ibh) of heads and it."""

    def __init__(self, gates: list[tuple[AttentionLayer, Tensor]]) -> None:
        super().__init__()
        self.gates = gates

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.einsum and len(args) == 3:
            for layer, gate in self.gates:
                if args[2] is layer.module.o:
                    gate = gate.to(args[1])
                    gate = gate.transpose(0, 1) if gate.dim() > 1 else gate  # (B, T, H), where XLNet has (T, B, H)
                    args = (args[0], args[1] * gate[..., None], args[2])
        return func(*args, **(kwargs or {}))
