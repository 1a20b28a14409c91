"""What an attention module is told when heads are gone: its counts, and what comes from outside with all heads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_attattr.model import families
from captum_attattr.model.attention_layers import AttentionLayer, every_layer
from captum_attattr.model.head_probe import argument_names
from captum_attattr.model.projections import Heads

HOWS = ("counts", "widths", "division", "config")
"""What a module is told, each with those before it: its counts of heads; attributes as wide as all heads together;
a count by which any width is divided into heads of the old size; the counts in a view of its config."""


class HeadCount(int):
    """A number of heads by which any width is divided into heads of their size: BLIP divides the model's by it."""

    size: int

    def __new__(cls, count: int, size: int) -> HeadCount:
        """Make a count that knows the size of one head."""
        self = super().__new__(cls, count)
        self.size = size
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return HeadCount, (int(self), self.size)

    def __rfloordiv__(self, width: int) -> int:
        return self.size


class HeadsConfig:
    """A view of a config, with other counts of heads: for modules that read them there when they run (Phi-3)."""

    def __init__(self, base: Any, counts: dict[str, int]) -> None:
        vars(self).update(base=base, counts=counts)

    def __getattr__(self, name: str) -> Any:
        if name in ("base", "counts"):  # while it is being copied
            raise AttributeError(name)
        return self.counts[name] if name in self.counts else getattr(self.base, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.base, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.base, name)


def tell(heads: Heads, count: int, how: str) -> None:
    """Set what an attention module says of its heads.

    Args:
        heads: of the module as they were.
        count: heads that are left.
        how: one of `HOWS`.
    """
    module: Any = heads.layer.module
    each = heads.count // heads.groups
    groups = min(heads.groups, -(-count // each))
    level = HOWS.index(how)
    many = HeadCount(count, heads.size) if level >= HOWS.index("division") else count
    for name, value in list(vars(module).items()):
        new = _size(name, value, heads, many, groups, level)
        if new is not None:
            setattr(module, name, new)
    if hasattr(module, "num_key_value_groups") and groups:
        module.num_key_value_groups = count // groups
    if level >= HOWS.index("config") and hasattr(module, "config"):
        base = module.config.base if isinstance(module.config, HeadsConfig) else module.config
        counts = {name: count for name in families.HEAD_COUNTS if hasattr(base, name)}
        counts |= {name: groups for name in families.GROUP_COUNTS if hasattr(base, name)}
        module.config = HeadsConfig(base, counts)
    if type(module).__name__ == "CodeGenAttention":
        module._split_heads = _split_whole


def _size(name: str, value: Any, heads: Heads, count: int, groups: int, level: int) -> int | None:
    """Return what an attribute of a module is to be; None where it stays."""
    if type(value) not in (int, HeadCount) or name in families.HEAD_SIZES:
        return None
    shared = any(part in name for part in ("kv", "key_value"))
    if name in families.HEAD_COUNTS or (
        "head" in name and not shared and value == heads.count and not any(part in name for part in ("dim", "size"))
    ):
        return count
    if name in families.GROUP_COUNTS:
        return groups
    if name in families.ALL_HEADS_SIZES:
        return int(count) * heads.size
    if level >= HOWS.index("widths"):
        if shared and value == heads.groups * heads.size:
            return groups * heads.size
        if value == heads.count * heads.size:
            return int(count) * heads.size
    return None


def _split_whole(x: Tensor, n_head: int, dim_head: int, mp_num: int) -> Tensor:
    """Split CodeGen's queries, keys or values into heads, of which a block of the four need not have a whole number."""
    return x.reshape(*x.shape[:-2], n_head, dim_head)


# ---------------------------------------------------------------------------------------- biases from outside


class HeadAxis:
    """A hook that takes the heads that are left out of arguments with an entry for each head of the original model."""

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments, indexed."""
        names = (*argument_names(module), *("*",) * len(args))
        args = tuple(self._left(module, name, value) for name, value in zip(names, args, strict=False))
        return args, {name: self._left(module, name, value) for name, value in kwargs.items()}

    @staticmethod
    def _left(module: Any, name: str, value: Any) -> Any:
        """Return an argument with (..., n heads, queries, keys) with those heads only that are left."""
        least = 4 if name == "attention_mask" else 3
        if name not in families.head_arguments(module) or not isinstance(value, Tensor) or value.dim() < least:
            return value
        kept = module.kept_heads
        axis = value.dim() - 3
        if value.shape[axis] % kept.of:  # one for all heads, or indexed already
            return value
        index = torch.tensor(kept.indices, dtype=torch.long, device=value.device)
        return torch.unflatten(value, axis, (-1, kept.of)).index_select(axis + 1, index).flatten(axis, axis + 1)


class OwnBias:
    """A hook that makes a layer of T5 compute its position bias itself: that of the first layer has other heads."""

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return the arguments without the bias."""
        return args, kwargs | {"position_bias": None}


class Columns:
    """A hook on a table of position biases: it gives the columns of the heads that are left."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, _: Any, __: Any, bias: Tensor) -> Tensor:
        """Return the bias of the module's heads, (..., heads)."""
        kept = getattr(self.module, "kept_heads", None)
        return bias if kept is None else bias[..., list(kept.indices)]


class ColumnsOf:
    """Another layer's table of position biases, read for the heads of this one; it owns no parameter."""

    def __init__(self, table: nn.Embedding, module: nn.Module) -> None:
        self.table, self.columns = table, Columns(module)

    @property
    def weight(self) -> Tensor:
        """The whole table."""
        return self.table.weight

    def __call__(self, buckets: Tensor) -> Tensor:
        """Return the bias of the module's heads, (..., heads)."""
        return self.columns(None, None, nn.functional.embedding(buckets, self.table.weight))


def adapt(model: nn.Module, layer: AttentionLayer) -> None:
    """Make a layer that has lost heads, and layers that share its position bias, take only what belongs to it."""
    module: Any = layer.module
    if hasattr(module, "has_relative_attention_bias") and hasattr(module, "compute_bias"):
        peers = [peer.module for peer in every_layer(model, layer.kind) if peer.stack == layer.stack]
        table = next((p.relative_attention_bias for p in peers if "relative_attention_bias" in p._modules), None)
        for peer in peers:
            _own_bias(peer, table)
        return
    hooked = any(isinstance(hook, HeadAxis) for hook in module._forward_pre_hooks.values())
    if not hooked and families.head_arguments(module).intersection(argument_names(module)):
        module.register_forward_pre_hook(HeadAxis(), with_kwargs=True)


def _own_bias(module: Any, table: Any) -> None:
    """Make a layer compute the position bias of its heads from its own table, or (T5) from the shared one."""
    own = module._modules.get("relative_attention_bias")
    hooks = [*module._forward_pre_hooks.values(), *(own._forward_hooks.values() if own is not None else ())]
    if any(isinstance(hook, OwnBias | Columns) for hook in hooks):
        return
    given = "position_bias" in argument_names(module)  # UMT5 has a table in every layer, and is given no bias
    if given:
        module.register_forward_pre_hook(OwnBias(), with_kwargs=True)
    if own is not None:
        own.register_forward_hook(Columns(module))
    elif given and table is not None:
        module.relative_attention_bias = ColumnsOf(table, module)
        module.has_relative_attention_bias = True


def told(module: nn.Module) -> str:
    """Return how a class is known to be told of its heads."""
    return families.TOLD.get(type(module).__name__, HOWS[0])
