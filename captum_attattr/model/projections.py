"""The linear maps around an attention layer, and which of their rows and columns belong to which head.

Rows of the query, key and value projections belong to heads, and so do columns of the output projection. A head can
be switched off, weighted or removed there, whatever computes the attention in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from torch import Tensor, nn

from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model import families
from captum_attattr.model.attention_layers import AttentionLayer


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
        UnsupportedModelError: no output projection of the layer is known, or nothing says how many heads it has.
    """

    def __init__(self, layer: AttentionLayer) -> None:
        self.layer = layer
        module: Any = layer.module
        self.size: int = next((getattr(module, name) for name in families.HEAD_SIZES if hasattr(module, name)), 0)
        self.output = _output(layer)
        bare = getattr(module, "o", None)
        width = bare.shape[1:].numel() if isinstance(bare, Tensor) else _inputs(self.output)
        counts = (vars(module).get(name) for name in families.HEAD_COUNTS)
        count: int = next((count for count in counts if isinstance(count, int)), 0)
        if not self.size and (count or layer.kept):
            self.size = width // count if count else 1
        if width and not self.size:
            raise UnsupportedModelError(
                f"{layer!r}: {type(module).__name__} does not say how many heads it has: it needs an attribute with "
                f"their number, one of {', '.join(families.HEAD_COUNTS)}"
            )
        if not self.size or width % self.size or not (width or layer.kept):
            has = "" if self.output is None else f"; it has a {type(self.output).__name__}"
            raise UnsupportedModelError(f"{layer!r}: no output projection is known of {type(module).__name__}{has}")
        self.count = width // self.size
        self.groups = self.count // getattr(module, "num_key_value_groups", 1)
        kept = layer.kept
        self.indices = kept.indices if kept else tuple(range(self.count))
        self.original = kept.of if kept else self.count

    @property
    def left(self) -> int:
        """How many heads the output projection has columns of now; `count` is of when this was made."""
        bare = getattr(self.layer.module, "o", None)
        width = bare.shape[1:].numel() if isinstance(bare, Tensor) else _inputs(self.output)
        return width // self.size

    def group_of(self, head: int) -> list[int]:
        """Return the heads that can only go with one, itself included, by original indices: those of its group.

        Where all heads share the same keys and values (multi-query attention) each can go alone.
        """
        return [head] if self.groups == 1 and not self.layer.kept else self._sharing(head)

    def _sharing(self, head: int) -> list[int]:
        """Return the heads that share keys and values with one."""
        each = self.count // self.groups
        first = self.indices.index(head) // each * each
        return list(self.indices[first : first + each])

    def check_plain(self) -> None:
        """Check that no parameter of the layer is quantised or sharded, before the model runs.

        Raises:
            UnsupportedModelError: one is.
        """
        for name, parameter in self._named_parameters():
            check_tensor(self.layer, name, parameter)

    def check_finite(self) -> None:
        """Check that every parameter of the layer is finite: gradients of others tell nothing.

        Raises:
            ValueError: one holds NaN or infinity.
        """
        for name, parameter in self._named_parameters():
            if not parameter.isfinite().all():
                raise ValueError(f"{self.layer!r}: its {name!r} holds NaN or infinity; mend the weights first")

    def _named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the parameters of the module and of its output projection."""
        for part in (self.layer.module, *([] if self.output is None else [self.output])):
            yield from part.named_parameters()

    def check_keep(self, keep: Sequence[int]) -> None:
        """Check that heads which share keys and values go together, or that all that stay share the same ones.

        Raises:
            ValueError: a part of a group is to go.
        """
        each = self.count // self.groups
        if len({self.indices.index(head) // each for head in keep}) <= 1:
            return
        for head in keep:
            group = self._sharing(head)
            gone = [other for other in group if other not in keep]
            if gone:
                raise ValueError(
                    f"heads {gone} of {self.layer!r} share their keys and values with head {head}: a key-value group "
                    f"is removed as a whole; give all of {group}, or switch heads off with mask_heads"
                )


class UnknownPartError(UnsupportedModelError):
    """The name of a part of an attention module does not tell which of its rows belong to which head."""


def not_cut(
    layer: AttentionLayer, reason: str, error: type[UnsupportedModelError] = UnsupportedModelError
) -> UnsupportedModelError:
    """Return the error for heads that cannot be cut out."""
    kind = type(layer.module).__name__
    return error(f"{layer!r}: heads of {kind} cannot be removed: {reason}; mask_heads switches them off")


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
        if is_map(inside) or (isinstance(inside, nn.Module) and name not in families.LESS_SURE_OUTPUTS):
            return inside
    for path in families.OUTPUTS_BESIDE:
        try:
            return layer.parent.get_submodule(path)  # type: ignore[no-any-return]
        except AttributeError:
            continue
    return None


def _inputs(projection: Any) -> int:
    """Return the inputs of a projection: the columns of its map."""
    if isinstance(projection, conv1d()):
        return int(projection.weight.shape[0])
    return int(getattr(projection, "in_features", 0) or getattr(projection, "in_channels", 0))


@cache
def conv1d() -> Any:
    """Return the class of GPT-2's linear maps, whose weight is (inputs, outputs), not (outputs, inputs)."""
    from transformers.pytorch_utils import Conv1D

    return Conv1D


def is_map(part: Any) -> bool:
    """Return whether a module is a linear map, a convolution or a table: its outputs are rows of its weight."""
    return isinstance(part, nn.Linear | nn.Conv1d | nn.Embedding | conv1d())


def row_dim(part: nn.Module) -> int:
    """Return the dimension of a map's weight that its outputs are on."""
    return 1 if isinstance(part, nn.Embedding | conv1d()) else 0


def check_tensor(layer: AttentionLayer, name: str, tensor: Tensor) -> None:
    """Check that a parameter can be cut: floating point, in memory, and a plain tensor.

    Raises:
        UnsupportedModelError: it is quantised, sharded, or not floating point.
    """
    if type(tensor) is not nn.Parameter:
        raise not_cut(layer, f"its {name!r} is a {type(tensor).__name__}, no plain tensor: prune before quantization")
    if not tensor.is_floating_point() or tensor.dtype.itemsize == 1:
        raise not_cut(layer, f"its {name!r} is {tensor.dtype}: prune before quantization")
