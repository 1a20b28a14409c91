"""The attention layers of a model: found by how they compute attention, in the order in which they run."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from torch import nn

from captum_attattr.checks import checked_arguments
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.families import (
    CAUSAL_OUTSIDE_INTERFACE,
    CROSS_ATTENTION_NAMES,
    NO_MATRIX,
    PACKED,
    PACKED_ENDS,
    REFUSED,
    SHARES_LAYERS,
)
from captum_attattr.model.wrappers import language_tower


class KeptHeads(NamedTuple):
    """What `prune_heads` left of a layer; an attribute `kept_heads` of its module."""

    indices: tuple[int, ...]
    """The heads that are left, by their indices in the original model."""
    of: int
    """Heads of the layer in the original model."""


@dataclass(frozen=True, eq=False)
class AttentionLayer:
    """One attention layer of a model, as `attention_layers` finds it.

    Attributes:
        model: the module that was searched; switching the attention touches its configs only.
        module: the attention module itself (shared by several layers where weights are shared, as in ALBERT).
        name: the module's dotted name inside `model`.
        kind: "encoder", "decoder" (self-attention of an encoder or decoder) or "cross".
        index: the layer's index among those of its kind, input side first.
        call: the index of this layer's call among the calls of `module` in one forward; 0 unless weights are shared.
        route: "interface" or "softmax": how its attention is reached (see `attention_control`).
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
        """What `prune_heads` left of the layer; None where nothing was removed."""
        kept: KeptHeads | None = getattr(self.module, "kept_heads", None)
        return kept

    @property
    def key(self) -> tuple[int, int]:
        """The module's identity and the call: unique among the layers of a model for as long as it lives."""
        return id(self.module), self.call

    @property
    def packs(self) -> bool:
        """Whether all images of a forward are one packed sequence, of which only one image alone has a single map."""
        kind: Any = type(self.module)
        return kind.__name__ in PACKED or PACKED_ENDS in inspect.signature(kind.forward).parameters

    @property
    def stack(self) -> str | None:
        """The name of the outermost `nn.ModuleList` above the layer; None outside any."""
        parts = self.name.split(".")
        prefixes = (".".join(parts[:i]) for i in range(1, len(parts)))
        return next((p for p in prefixes if isinstance(self.model.get_submodule(p), nn.ModuleList)), None)

    @property
    def parent(self) -> Any:
        """The module around the attention module."""
        return self.model.get_submodule(self.name.rpartition(".")[0])


@checked_arguments
def attention_layers(model: nn.Module, kind: str | None = None) -> list[AttentionLayer]:
    """Every self-attention layer of a transformer, input side first.

    Of a multimodal model that generates text, these are the layers of its language model; give one of its towers
    (`model.model.vision_tower`) for the layers of that.

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
    layers = [layer for layer in every_layer(model, kind) if layer.kept is None or layer.kept.indices]
    if not layers:
        raise UnsupportedModelError(f"{family_name(model)} has no attention head left: all have been pruned")
    return layers


def every_layer(model: nn.Module, kind: str | None = None) -> list[AttentionLayer]:
    """Find what `attention_layers` finds, and the layers that have no head left."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if kind not in (None, "encoder", "decoder", "cross"):
        raise ValueError(f"kind={kind!r} is unknown; use None, 'encoder', 'decoder' or 'cross'")
    _refuse_unsupported(model)
    layers: list[AttentionLayer] = []
    counts = {"encoder": 0, "decoder": 0, "cross": 0}
    tower = language_tower(model)
    for name, module, call in attention_calls(model):
        if tower and not name.startswith(f"{tower}."):
            continue  # of images or sounds
        its = _kind(name, module, model)
        layers.append(AttentionLayer(model, module, name, its, counts[its], call, attention_route(module) or ""))
        counts[its] += 1
    if not layers:
        raise UnsupportedModelError(
            f"{family_name(model)} has no attention layer that goes through transformers' attention interface or "
            "that calls softmax itself in a class named ...Attention; docs/guide/models.md lists the supported families"
        )
    wanted = ("encoder", "decoder") if kind is None else (kind,)
    chosen = [layer for want in wanted for layer in layers if layer.kind == want]
    if not chosen:
        has = ", ".join(f"{n} {k}" for k, n in counts.items() if n)
        raise ValueError(f"{family_name(model)} has no {kind} attention; it has {has}")
    return chosen


def attention_calls(model: nn.Module) -> Iterator[tuple[str, nn.Module, int]]:
    """Yield (name, module, call) of every attention layer in the order of execution."""
    attention = [(name, module) for name, module in model.named_modules() if attention_route(module)]
    shared = next((m for m in model.modules() if type(m).__name__ == SHARES_LAYERS), None)
    if shared is None:
        yield from ((name, module, 0) for name, module in attention)
        return
    # ALBERT shares weights: layer i runs every inner layer of group i // (layers / groups).
    config: Any = shared.config
    inner = config.inner_group_num
    calls: dict[int, int] = {}
    for i in range(config.num_hidden_layers):
        group = int(i / (config.num_hidden_layers / config.num_hidden_groups))
        for name, module in attention[group * inner : (group + 1) * inner]:
            call = calls.get(id(module), 0)
            calls[id(module)] = call + 1
            yield name, module, call


def attention_route(module: nn.Module) -> str | None:
    """Return the route by which a module computes attention, "interface" or "softmax"; None if it does not."""
    kind: Any = type(module)  # mypy takes a module class for unhashable
    return _class_route(kind)


@cache
def _class_route(kind: Any) -> str | None:
    """Tell a class's route by the names that its methods use: no attribute says whether a module computes attention."""
    from transformers import PreTrainedModel

    if issubclass(kind, PreTrainedModel) or kind.__module__.startswith("torch.") or kind.__name__.endswith(NO_MATRIX):
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
    """Tell "encoder", "decoder" and "cross" attention apart."""
    parts = name.lower().split(".")
    if CROSS_ATTENTION_NAMES.intersection(parts) or "CrossAttention" in type(module).__name__:
        return "cross"
    if any(getattr(config, "is_encoder_decoder", False) for config in attention_configs(model)):
        decoder = any(part.startswith("decoder") or part.endswith("_decoder") for part in parts)
        return "decoder" if decoder else "encoder"
    causal = getattr(module, "is_causal", None)
    if causal is None:  # the softmax route's modules do not say
        config = getattr(module, "config", None) or next(iter(attention_configs(model)), None)
        causal = getattr(config, "model_type", "") in CAUSAL_OUTSIDE_INTERFACE
    return "decoder" if causal else "encoder"


def attention_configs(model: nn.Module) -> list[Any]:
    """Return every distinct config that some part of the model reads its attention implementation from."""
    configs = (getattr(module, "config", None) for module in model.modules())
    return list({id(c): c for c in configs if hasattr(c, "_attn_implementation_internal")}.values())


def family_name(model: nn.Module) -> str:
    """Name a model in messages: its class and its model type."""
    types = [config.model_type for config in attention_configs(model) if getattr(config, "model_type", "")]
    return f"{type(model).__name__} (model type {types[0]!r})" if types else type(model).__name__


def _refuse_unsupported(model: nn.Module) -> None:
    """Refuse the families whose attention is not one full matrix per head.

    Raises:
        UnsupportedModelError: says why.
    """
    for config in attention_configs(model):
        reason = REFUSED.get(getattr(config, "model_type", ""))
        if getattr(config, "attention_type", "") == "block_sparse":
            reason = (
                "its attention is block-sparse: there is no full query-by-key matrix; "
                "load it with attention_type='original_full'"
            )
        if reason:
            raise UnsupportedModelError(f"{family_name(model)} is not supported: {reason}")


def block_stacks(layers: Iterable[AttentionLayer]) -> list[list[nn.Module]] | None:
    """Return the stacks of blocks that the layers are in, or None where a layer is outside any stack.

    A stack is the outermost `nn.ModuleList` above a layer: `encoder.layer` of BERT, `encoder.block` and
    `decoder.block` of T5. Between two blocks of a stack the only thing that changes is the hidden state.
    """
    stacks: dict[str, list[nn.Module]] = {}
    for layer in layers:
        if layer.stack is None:
            return None
        stacks.setdefault(layer.stack, list(layer.model.get_submodule(layer.stack).children()))
    return list(stacks.values())


def without_attention(layers: Iterable[AttentionLayer]) -> str:
    """Say which blocks around the layers have no attention of queries and keys, as those of hybrid models.

    Returns:
        "layer 0 is block 3 of 4; blocks 0, 1, 2 (linear attention) have no full attention and are not attributed"; ""
        where every block has a layer.
    """
    blocks: dict[tuple[nn.Module, str], dict[int, AttentionLayer]] = {}
    for layer in layers:
        if layer.stack is not None and layer.kind != "cross":
            block = int(layer.name.removeprefix(f"{layer.stack}.").partition(".")[0])
            blocks.setdefault((layer.model, layer.stack), {})[block] = layer
    notes = []
    for (model, stack), found in blocks.items():
        every = list(model.get_submodule(stack).children())
        missing: dict[str, list[int]] = {}
        for i, kind in enumerate(_block_kinds(every, next(iter(found.values())))):
            if i not in found:
                missing.setdefault(kind, []).append(i)
        if missing:
            one = len(found) == 1
            numbers = f"layer{'s' * (not one)} {_listed(layer.index for layer in found.values())}"
            these = f"{'is block' if one else 'are blocks'} {_listed(found)} of {len(every)}"
            rest = "; ".join(f"blocks {_listed(indices)} ({kind})" for kind, indices in missing.items())
            notes.append(f"{numbers} {these}; {rest} have no full attention and are not attributed")
    return "; ".join(notes)


def _block_kinds(blocks: list[nn.Module], layer: AttentionLayer) -> list[str]:
    """Name the kind of every block of a stack: by its class where they have several, or else as the config does."""
    if len({type(block) for block in blocks}) > 1:
        return [type(block).__name__ for block in blocks]
    config: Any = getattr(layer.module, "config", None)
    for name in ("layer_types", "layers_block_type"):
        kinds = getattr(config, name, None)
        if isinstance(kinds, list) and len(kinds) == len(blocks):
            return [str(kind).replace("_", " ") for kind in kinds]
    return [type(block).__name__ for block in blocks]


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
