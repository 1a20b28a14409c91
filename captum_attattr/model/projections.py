"""The linear maps around an attention layer, and which of their rows and columns belong to which head.

Queries, keys and values are made by maps whose rows are heads, and what the heads give is put together by an
output projection whose columns are heads. So a head can be switched off, weighted or removed there, whatever
computes the attention in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_layers import AttentionLayer

_SIZES = ("head_dim", "attention_head_size", "head_size", "d_head", "key_value_proj_dim")
_OUTPUTS = ("o_proj", "out_proj", "out_lin", "c_proj", "Wo", "dense", "o", "projection")
_OUTPUTS_BESIDE = ("output.dense", "post_attention.conv1d")

_QUERIES = ("query", "q_proj", "q_lin", "q", "query_proj")
_KEYS = ("key", "k_proj", "k_lin", "k", "key_proj")
_VALUES = ("value", "v_proj", "v_lin", "v", "value_proj")
# More maps, biases and sinks whose rows are heads: DeBERTa's positions, LUKE's entities, GPT-OSS's sinks.
_MORE = (
    *("pos_key_proj", "pos_query_proj", "pos_proj", "pos_q_proj", "q_bias", "v_bias"),
    *("w2e_query", "e2w_query", "e2e_query", "sinks"),
)
# Maps that give queries, keys and values at once: one after the other, or of each head together.
_FUSED = {
    ("GPT2Attention", "c_attn"): "blocks",
    ("ModernBertAttention", "Wqkv"): "blocks",
    ("GPTNeoXAttention", "query_key_value"): "heads",
    ("DisentangledSelfAttention", "in_proj"): "heads",
}
_UNTOUCHED = frozenset({"q_norm", "k_norm", "LayerNorm"})  # of one head's size, or after the output
_COUNTS = ("num_heads", "n_heads", "num_attention_heads", "n_head")
_WIDTHS = ("all_head_size", "split_size")

_SHARED_BIAS = "its position bias has a column for each head and is shared by all layers"
# Families whose heads are known outside of the attention module too, by config.model_type.
_NOT_CUT = {
    **dict.fromkeys(("t5", "mt5", "umt5", "mpnet", "bloom", "mpt"), _SHARED_BIAS),
    "phi3": "it splits its queries, keys and values by the head count of the model's config",
}


class Cut(NamedTuple):
    """Which places of one parameter stay when heads are removed."""

    owner: nn.Module
    name: str
    dim: int
    keep: list[int]


class Heads:
    """How the heads of one layer lie in the maps around it.

    Args:
        layer: the layer.

    Attributes:
        count: the heads that are there, H.
        groups: the key-value heads that they share; as many as heads, unless heads are grouped.
        size: the numbers of one head, D.
        output: the output projection; None where it is no module (XLNet, whose `o` is a bare parameter).

    Raises:
        UnsupportedModelError: the layer has no output projection that is known.
    """

    def __init__(self, layer: AttentionLayer) -> None:
        self.layer = layer
        module: Any = layer.module
        self.size: int = next((getattr(module, name) for name in _SIZES if hasattr(module, name)), 0)
        self.output = _output(layer)
        bare = getattr(module, "o", None)
        width = bare.shape[1:].numel() if isinstance(bare, Tensor) else _inputs(self.output)
        if not self.size or width % self.size or not (width or layer.kept):
            found = "" if self.output is None else f"; it has a {type(self.output).__name__}"
            raise UnsupportedModelError(f"{layer!r}: no output projection is known of {type(module).__name__}{found}")
        self.count = width // self.size
        self.groups = self.count // getattr(module, "num_key_value_groups", 1)
        kept = layer.kept
        self.numbers = kept.numbers if kept else tuple(range(self.count))
        """The heads' numbers in the original model."""
        self.original = kept.of if kept else self.count
        """How many heads there were in the original model."""

    def group_of(self, number: int) -> list[int]:
        """The heads, by original numbers, that share keys and values with one."""
        each = self.count // self.groups
        first = self.numbers.index(number) // each * each
        return list(self.numbers[first : first + each])

    def cuts(self, keep: Sequence[int]) -> list[Cut]:
        """What stays of every parameter when only some heads stay.

        Args:
            keep: original numbers of the heads that stay; whole groups.

        Raises:
            UnsupportedModelError: the layer's heads cannot be cut out; the message says why.
        """
        self._check_family()
        places = [self.numbers.index(number) for number in keep]
        groups = sorted({place // (self.count // self.groups) for place in places})
        width = self.count * self.size
        output = _checked_map(self.layer, self.output)
        cuts = [Cut(output, "weight", 0 if isinstance(output, Conv1D) else 1, _spread(places, self.size))]
        known = set(_UNTOUCHED)
        module: Any = self.layer.module
        for name, part in [*module.named_children(), *module.named_parameters(recurse=False)]:
            layout = _FUSED.get((type(module).__name__, name))
            if layout == "heads":
                rows = _spread(places, 3 * self.size)
            elif layout == "blocks":
                rows = [start + row for start in (0, width, 2 * width) for row in _spread(places, self.size)]
            elif name in _QUERIES or name in _MORE:
                rows = _spread(places, 1 if name == "sinks" else self.size)
            elif name in _KEYS or name in _VALUES:
                rows = _spread(groups, self.size)
            elif part is output or name in known or not any(True for _ in _parameters(part)):
                continue
            else:
                raise UnsupportedModelError(
                    f"{self.layer!r}: heads of {type(module).__name__} cannot be removed: it is not known which part "
                    f"of its {name!r} belongs to which head; mask_heads switches them off"
                )
            cuts += _rows(self.layer, module, name, part, rows)
        bias = _bias_table(self.layer) if keep else None
        return [*cuts, *([Cut(bias, "relative_position_bias_table", 1, places)] if bias else [])]

    def _check_family(self) -> None:
        module: Any = self.layer.module
        model_type = getattr(getattr(module, "config", None), "model_type", "")
        root = getattr(getattr(self.layer.model, "config", None), "model_type", "")
        reason = _NOT_CUT.get(model_type) or _NOT_CUT.get(root)
        if getattr(getattr(module, "config", None), "use_shared_relative_position_bias", False):  # BEiT
            reason = _SHARED_BIAS
        if type(module).__name__ == "SiglipAttention" and "embed_dim" in type(module).forward.__code__.co_varnames:
            reason = "this release of transformers shapes what its heads give by the model's hidden size"
        full = getattr(module, "q_norm", None)
        if full is not None and any(p.numel() > self.size for p in full.parameters()):
            reason = "its queries are normalised over all heads together"
        if reason:
            raise UnsupportedModelError(
                f"{self.layer!r}: heads of {type(module).__name__} cannot be removed: {reason}; "
                "mask_heads switches them off"
            )

    def set_counts(self, count: int) -> None:
        """Tell the module how many heads it has now."""
        module: Any = self.layer.module
        for name in _COUNTS:
            if hasattr(module, name):
                setattr(module, name, count)
        for name in _WIDTHS:
            if hasattr(module, name):
                setattr(module, name, count * self.size)
        if hasattr(module, "num_key_value_heads"):
            module.num_key_value_heads = count * self.groups // self.count


def _output(layer: AttentionLayer) -> nn.Module | None:
    """The output projection, inside the attention module or beside it."""
    for name in _OUTPUTS:
        inside = getattr(layer.module, name, None)
        if isinstance(inside, nn.Module):
            return inside
    parent = layer.model.get_submodule(layer.name.rpartition(".")[0])
    for path in _OUTPUTS_BESIDE:
        try:
            return parent.get_submodule(path)
        except AttributeError:
            continue
    return None


def _inputs(projection: Any) -> int:
    """Columns of a projection, its inputs."""
    if isinstance(projection, Conv1D):
        return int(projection.weight.shape[0])
    return int(getattr(projection, "in_features", 0) or getattr(projection, "in_channels", 0))


def _checked_map(layer: AttentionLayer, part: Any) -> nn.Module:
    names = {name for name, _ in part.named_parameters()} if isinstance(part, nn.Module) else set()
    if type(part) not in (nn.Linear, Conv1D) or not {"weight"} <= names <= {"weight", "bias"}:
        what = "a bare parameter" if part is None else f"a {type(part).__name__} of {sorted(names)}"
        raise UnsupportedModelError(
            f"{layer!r}: heads of {type(layer.module).__name__} cannot be removed: one of its maps is {what}, and only "
            "plain linear maps can be cut (merge adapters first, prune before quantization); mask_heads switches "
            "heads off"
        )
    return part  # type: ignore[no-any-return]


def _rows(layer: AttentionLayer, module: nn.Module, name: str, part: Any, rows: list[int]) -> Iterator[Cut]:
    if isinstance(part, nn.Parameter):
        yield Cut(module, name, 0, rows)
        return
    linear: Any = _checked_map(layer, part)
    yield Cut(linear, "weight", 1 if isinstance(linear, Conv1D) else 0, rows)
    if linear.bias is not None:
        yield Cut(linear, "bias", 0, rows)


def _parameters(part: Any) -> Iterator[nn.Parameter]:
    return iter([part]) if isinstance(part, nn.Parameter) else part.parameters()


def _bias_table(layer: AttentionLayer) -> nn.Module | None:
    """BEiT's table of position biases, of which every layer has its own."""
    parent: Any = layer.model.get_submodule(layer.name.rpartition(".")[0])
    bias = getattr(parent, "relative_position_bias", None)
    return bias if hasattr(bias, "relative_position_bias_table") else None


def _spread(blocks: Sequence[int], size: int) -> list[int]:
    """The places of consecutive blocks of one size."""
    return [block * size + place for block in blocks for place in range(size)]


def apply_cut(cut: Cut) -> None:
    """Replace one parameter by what stays of it, and tell its module the new size."""
    old: nn.Parameter = getattr(cut.owner, cut.name)
    with torch.inference_mode(False):  # what is made in that mode can never be trained
        index = torch.tensor(cut.keep, dtype=torch.long, device=old.device)
        new = nn.Parameter(old.detach().index_select(cut.dim, index).contiguous(), requires_grad=old.requires_grad)
    setattr(cut.owner, cut.name, new)
    owner: Any = cut.owner
    if cut.name == "weight" and isinstance(owner, nn.Linear):
        owner.out_features, owner.in_features = new.shape
    elif cut.name == "weight" and isinstance(owner, Conv1D):
        owner.nx, owner.nf = new.shape
