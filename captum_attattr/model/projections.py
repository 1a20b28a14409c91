"""The linear maps around an attention layer, and which of their rows and columns belong to which head.

Rows of the query, key and value projections belong to heads, and so do columns of the output projection. A head can
be switched off, weighted or removed there, whatever computes the attention in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model import families
from captum_attattr.model.attention_layers import AttentionLayer


class Cut(NamedTuple):
    """What stays of one parameter when heads are removed."""

    owner: nn.Module
    name: str
    dim: int
    keep: list[int]
    """The indices along `dim` that stay."""


class Heads:
    """The heads of one layer, and their rows and columns in the maps around it.

    Args:
        layer: the layer.

    Attributes:
        count: heads that are left, H.
        groups: key-value heads that they share; as many as heads, unless heads are grouped.
        size: the size of one head, D.
        output: the output projection; None where it is no module (XLNet, whose `o` is a bare parameter).
        indices: the heads that are left, by their indices in the original model.
        original: heads in the original model.

    Raises:
        UnsupportedModelError: no output projection of the layer is known.
    """

    def __init__(self, layer: AttentionLayer) -> None:
        self.layer = layer
        module: Any = layer.module
        self.size: int = next((getattr(module, name) for name in families.HEAD_SIZES if hasattr(module, name)), 0)
        self.output = _output(layer)
        bare = getattr(module, "o", None)
        width = bare.shape[1:].numel() if isinstance(bare, Tensor) else _inputs(self.output)
        if not self.size or width % self.size or not (width or layer.kept):
            has = "" if self.output is None else f"; it has a {type(self.output).__name__}"
            raise UnsupportedModelError(f"{layer!r}: no output projection is known of {type(module).__name__}{has}")
        self.count = width // self.size
        self.groups = self.count // getattr(module, "num_key_value_groups", 1)
        kept = layer.kept
        self.indices = kept.indices if kept else tuple(range(self.count))
        self.original = kept.of if kept else self.count

    def group_of(self, head: int) -> list[int]:
        """Return the heads that share keys and values with one, itself included, by original indices."""
        each = self.count // self.groups
        first = self.indices.index(head) // each * each
        return list(self.indices[first : first + each])

    def cuts(self, keep: Sequence[int]) -> list[Cut]:
        """Return what stays of every parameter when only some heads stay.

        Args:
            keep: original indices of the heads that stay; whole groups.

        Raises:
            UnsupportedModelError: the layer's heads cannot be cut out; the message says why.
        """
        self._check_family()
        heads = [self.indices.index(head) for head in keep]
        output = _linear(self.layer, self.output)
        cuts = [Cut(output, "weight", 0 if isinstance(output, _conv1d()) else 1, _spread(heads, self.size))]
        module: Any = self.layer.module
        for name, part in [*module.named_children(), *module.named_parameters(recurse=False)]:
            if part is output or name in families.UNTOUCHED:
                continue
            rows = self._rows(name, heads)
            if rows is not None:
                cuts += _row_cuts(self.layer, name, part, rows)
            elif isinstance(part, nn.Parameter) or any(True for _ in part.parameters()):
                raise _not_cut(self.layer, f"it is not known which part of its {name!r} belongs to which head")
        bias = _bias_table(self.layer) if keep else None
        return [*cuts, *([Cut(bias, "relative_position_bias_table", 1, heads)] if bias else [])]

    def _rows(self, name: str, heads: list[int]) -> list[int] | None:
        """Return the rows of a part of the attention module that belong to some heads; None where it is not known."""
        layout = families.FUSED.get((type(self.layer.module).__name__, name))
        if layout == "heads":
            return _spread(heads, 3 * self.size)
        if layout == "blocks":
            width = self.count * self.size
            return [start + row for start in (0, width, 2 * width) for row in _spread(heads, self.size)]
        if name in families.QUERIES | families.MORE_MAPS:
            return _spread(heads, self.size)
        if name in families.KEYS | families.VALUES:
            return _spread(sorted({head // (self.count // self.groups) for head in heads}), self.size)
        return heads if name == families.SINKS else None

    def _check_family(self) -> None:
        """Check that nothing outside of the projections depends on the heads.

        Raises:
            UnsupportedModelError: says what does.
        """
        module: Any = self.layer.module
        config = getattr(module, "config", None)
        types = (getattr(of, "model_type", "") for of in (config, getattr(self.layer.model, "config", None)))
        reason = next((families.NOT_CUT[name] for name in types if name in families.NOT_CUT), None)
        if getattr(config, "use_shared_relative_position_bias", False):  # BEiT
            reason = families.SHARED_BIAS
        if type(module).__name__ == "SiglipAttention" and "embed_dim" in type(module).forward.__code__.co_varnames:
            reason = "this release of transformers shapes what its heads give by the model's hidden size"
        norm = getattr(module, "q_norm", None)
        if norm is not None and any(p.numel() > self.size for p in norm.parameters()):
            reason = "its queries are normalised over all heads together"
        if reason:
            raise _not_cut(self.layer, reason)

    def set_counts(self, count: int) -> None:
        """Set the attributes of the module that say how many heads it has."""
        module: Any = self.layer.module
        values = {
            **dict.fromkeys(families.HEAD_COUNTS, count),
            **dict.fromkeys(families.ALL_HEADS_SIZES, count * self.size),
            "num_key_value_heads": count * self.groups // self.count,
        }
        for name, value in values.items():
            if hasattr(module, name):
                setattr(module, name, value)


def _not_cut(layer: AttentionLayer, reason: str) -> UnsupportedModelError:
    """Return the error for heads that cannot be cut out."""
    kind = type(layer.module).__name__
    return UnsupportedModelError(
        f"{layer!r}: heads of {kind} cannot be removed: {reason}; mask_heads switches them off"
    )


def head_count(layer: AttentionLayer) -> int:
    """Return how many heads a layer has in the original model, also where they cannot be masked: 1 if nothing says.

    It is asked of the layer: layers may differ, and a composite config does not say.
    """
    try:
        return Heads(layer).original
    except UnsupportedModelError:
        config: Any = getattr(layer.module, "config", None)
        counts = (getattr(of, name, None) for of in (layer.module, config) for name in families.HEAD_COUNTS)
        return next((count for count in counts if isinstance(count, int)), 1)


def _output(layer: AttentionLayer) -> nn.Module | None:
    """Return the output projection, inside the attention module or beside it; None if there is no such module."""
    for name in families.OUTPUTS:
        inside = getattr(layer.module, name, None)
        if isinstance(inside, nn.Module):
            return inside
    for path in families.OUTPUTS_BESIDE:
        try:
            return layer.parent.get_submodule(path)  # type: ignore[no-any-return]
        except AttributeError:
            continue
    return None


def _inputs(projection: Any) -> int:
    """Return the inputs of a projection: the columns of its map."""
    if isinstance(projection, _conv1d()):
        return int(projection.weight.shape[0])
    return int(getattr(projection, "in_features", 0) or getattr(projection, "in_channels", 0))


def _conv1d() -> Any:
    """Return the class of GPT-2's linear maps, whose weight is (inputs, outputs), not (outputs, inputs)."""
    from transformers.pytorch_utils import Conv1D

    return Conv1D


def _linear(layer: AttentionLayer, part: Any) -> nn.Module:
    """Check that a map is a plain linear one, and return it.

    Raises:
        UnsupportedModelError: it is something else: an adapter, a quantized or a parametrized map.
    """
    names = {name for name, _ in part.named_parameters()} if isinstance(part, nn.Module) else set()
    if type(part) not in (nn.Linear, _conv1d()) or not {"weight"} <= names <= {"weight", "bias"}:
        what = "a bare parameter" if part is None else f"a {type(part).__name__} of {sorted(names)}"
        remedy = "merge adapters first, prune before quantization"
        raise _not_cut(layer, f"one of its maps is {what}, and only plain linear maps can be cut ({remedy})")
    return part  # type: ignore[no-any-return]


def _row_cuts(layer: AttentionLayer, name: str, part: Any, rows: list[int]) -> Iterator[Cut]:
    """Yield what stays of a map, bias or sink whose rows are heads."""
    if isinstance(part, nn.Parameter):
        yield Cut(layer.module, name, 0, rows)
        return
    linear: Any = _linear(layer, part)
    yield Cut(linear, "weight", 1 if isinstance(linear, _conv1d()) else 0, rows)
    if linear.bias is not None:
        yield Cut(linear, "bias", 0, rows)


def _bias_table(layer: AttentionLayer) -> nn.Module | None:
    """Return the layer's table of position biases (BEiT); None where it has none."""
    bias = getattr(layer.parent, "relative_position_bias", None)
    return bias if hasattr(bias, "relative_position_bias_table") else None


def _spread(blocks: Sequence[int], size: int) -> list[int]:
    """Return the indices of the entries in consecutive blocks of one size."""
    return [block * size + entry for block in blocks for entry in range(size)]


def apply_cut(cut: Cut) -> None:
    """Replace one parameter by what stays of it, and set the sizes of its module."""
    old: nn.Parameter = getattr(cut.owner, cut.name)
    with torch.inference_mode(False):  # what is made in that mode can never be trained
        index = torch.tensor(cut.keep, dtype=torch.long, device=old.device)
        new = nn.Parameter(old.detach().index_select(cut.dim, index).contiguous(), requires_grad=old.requires_grad)
    setattr(cut.owner, cut.name, new)
    owner: Any = cut.owner
    if cut.name == "weight" and isinstance(owner, nn.Linear):
        owner.out_features, owner.in_features = new.shape
    elif cut.name == "weight" and isinstance(owner, _conv1d()):
        owner.nx, owner.nf = new.shape
