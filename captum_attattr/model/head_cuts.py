"""What stays of every parameter of an attention layer when some of its heads go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_attattr.model import families
from captum_attattr.model.attention_layers import AttentionLayer
from captum_attattr.model.head_probe import Owners, Probed
from captum_attattr.model.projections import Heads, UnknownPartError, conv1d, is_map, not_cut, row_dim

_UNKNOWN = "it is not known which part of its {!r} belongs to which head"


class Cut(NamedTuple):
    """What stays of one parameter when heads are removed."""

    owner: nn.Module
    name: str
    dim: int
    keep: list[int]
    """The indices along `dim` that stay."""


class HeadCuts:
    """Tells the cuts of one layer.

    Args:
        of: the heads as they are now.
        keep: original indices of the heads that stay; whole groups.
        probe: what moves which head. Without one it is told by the names of maps.
    """

    def __init__(self, of: Heads, keep: Sequence[int], probe: Probed | None = None) -> None:
        self.of, self.layer, self.probe = of, of.layer, probe
        self.module: Any = of.layer.module
        self.stay = [of.indices.index(head) for head in keep]

    def cuts(self) -> list[Cut]:
        """Return what stays of every parameter.

        Raises:
            UnsupportedModelError: the layer's heads cannot be cut out; the message says why.
        """
        self._check_family()
        module: Any = self.module
        cuts = list(self._output_cuts())
        taken = {id(tensor) for tensor in ([] if self.of.output is None else self.of.output.parameters())}
        for name, part in module.named_modules():
            if not name or part is self.of.output or not is_map(part) or id(part.weight) in taken:
                continue
            taken |= {id(tensor) for tensor in part.parameters()}
            owners = self.probe.maps[name] if self.probe else None
            rows = self._map_rows(name, owners)
            if rows is not None:
                cuts += _row_cuts(self.layer, name, part, rows)
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if id(tensor) not in taken and not (name == "o" and self.of.output is None):
                cuts += self._tensor_cuts(name, tensor, self.probe.tensors.get(name) if self.probe else None)
        if self.probe:
            self._check_arguments(self.probe)
            self._check_apart([cut for cut in cuts if cut.owner is not self.of.output])
        bias = _bias_table(self.layer) if self.stay else None
        cuts += [Cut(bias, "relative_position_bias_table", 1, self.stay)] if bias else []
        return cuts

    def _check_apart(self, cuts: Sequence[Cut]) -> None:
        """Check that some map moves one head alone.

        Raises:
            UnsupportedModelError: all heads are mixed with each other, as by a norm before the output projection.
        """
        if any(is_map(cut.owner) or cut.owner is self.module for cut in cuts):
            return
        names = {part: name for name, part in self.module.named_modules()}
        reason = "no part of it moves one head alone: its heads are mixed with each other"
        norms = sorted({names.get(cut.owner, cut.name) for cut in cuts})
        raise not_cut(self.layer, f"its {norms[0]!r} normalises what all heads give together" if norms else reason)

    def _output_cuts(self) -> Iterator[Cut]:
        """Yield what stays of the output projection."""
        if self.of.output is None:
            yield Cut(self.module, "o", 1, self.stay)
            return
        output = _linear(self.layer, self.of.output)
        yield Cut(output, "weight", 1 - row_dim(output), _spread(self.stay, self.of.size))

    def _map_rows(self, name: str, owners: Owners | None) -> list[int] | None:
        """Return the rows of a map that stay; None where all do."""
        own = name.rpartition(".")[2]
        moved = owners is not None and any(owners.heads)
        if own in families.SHARED_TABLES and (owners is None or moved):
            return None  # other layers read it too: see head_adapters
        rows = self._named_rows(own) if "." not in name else None
        if owners is not None and moved:
            owned = self._owned(name, owners)
            return rows if rows is not None and owned == sorted(rows) else owned
        if rows is None and not self._after(name):
            raise not_cut(self.layer, _UNKNOWN.format(name), UnknownPartError)
        return rows

    def _named_rows(self, name: str) -> list[int] | None:
        """Return the rows of a map that stay, as its name tells; None where it does not."""
        heads, size = self.stay, self.of.size
        layout = families.FUSED.get((type(self.module).__name__, name))
        shared = _spread(sorted({head // (self.of.count // self.of.groups) for head in heads}), size)
        width = self.of.count * size
        if layout == "heads or shared":  # GPTBigCode: shared keys and values come after all queries
            layout = "groups" if getattr(self.module, "multi_query", False) else "heads"
        if layout == "heads":
            return _spread(heads, 3 * size)
        if layout == "blocks":
            return [start + row for start in (0, width, 2 * width) for row in _spread(heads, size)]
        if layout == "groups":
            keys, values = width, width + self.of.groups * size
            return _spread(heads, size) + [keys + row for row in shared] + [values + row for row in shared]
        if layout == "quarters":  # CodeGen: four blocks, each of some heads' queries, values and keys
            each, rows = width // 4, _spread(heads, size)
            block = len(rows) // 4  # heads may change their block
            order = [(rows[i * block : (i + 1) * block], part) for i in range(4) for part in range(3)]
            return [row // each * 3 * each + part * each + row % each for some, part in order for row in some]
        if name in families.QUERIES | families.MORE_MAPS:
            return _spread(heads, size)
        if name in families.KEYS | families.VALUES:
            return shared
        return list(self.stay) if name == families.SINKS else None

    def _tensor_cuts(self, name: str, tensor: Tensor, found: list[Owners] | None) -> Iterator[Cut]:
        """Yield what stays of a parameter or buffer that is no map's."""
        path, _, own = name.rpartition(".")
        owner: Any = self.module.get_submodule(path)
        shared = frozenset(range(self.of.count))
        if found is not None and any(any(owners.heads) for owners in found):
            along = [owners for owners in found if self.of.count > 1 and any(o and o != shared for o in owners.heads)]
            if len(along) > 1:
                raise not_cut(self.layer, f"its {name!r} moves heads along several dimensions")
            for owners in along:
                if not isinstance(tensor, nn.Parameter):
                    raise not_cut(self.layer, f"its buffer {name!r} has entries for each head")
                rows = self._owned(name, owners)
                if rows is not None:
                    yield Cut(owner, own, owners.dim, rows)
            return
        dim = families.BARE.get((type(self.module).__name__, name))
        if dim is not None:
            yield Cut(owner, own, dim, self.stay)
        elif isinstance(tensor, nn.Parameter) and not self._after(path) and name not in families.UNTOUCHED:
            rows = self._named_rows(name)
            if rows is None:
                raise not_cut(self.layer, _UNKNOWN.format(name), UnknownPartError)
            yield Cut(owner, own, 0, rows)

    def _after(self, path: str) -> bool:
        """Return whether a part that moves no head has its place after them, or is one that all heads share."""
        ran = self.probe is not None and path in self.probe.ran
        return bool(path) and (ran or path.partition(".")[0] in families.UNTOUCHED)

    def _owned(self, name: str, owners: Owners) -> list[int] | None:
        """Return the indices along a dimension that move a head that stays; None where each moves all heads.

        Raises:
            UnsupportedModelError: an index moves some heads that stay and some that go, or none at all.
        """
        shared, stay = frozenset(range(self.of.count)), frozenset(self.stay)
        if not self.stay:
            return []
        if all(moved == shared for moved in owners.heads):
            return None
        for moved in owners.heads:
            if not moved:
                raise not_cut(self.layer, f"a part of its {name!r} moves no head")
            if moved != shared and moved & stay and not moved <= stay and self._across_groups(moved):
                raise not_cut(
                    self.layer, f"heads {sorted(self.of.indices[i] for i in moved)} share parts of its {name!r}"
                )
        return [index for index, moved in enumerate(owners.heads) if moved == shared or moved & stay]

    def _across_groups(self, moved: frozenset[int]) -> bool:
        """Return whether some heads are not of one group, whose keys and values stay where a part of it goes."""
        each = self.of.count // self.of.groups
        return len({head // each for head in moved}) > 1

    def _check_arguments(self, probe: Probed) -> None:
        """Check that nothing comes from outside with an entry for each head, but what `head_adapters` indexes.

        Raises:
            UnsupportedModelError: something does.
        """
        shared = frozenset(range(self.of.count))
        for name, found in probe.arguments.items():
            if name == "hidden_states":  # channels of grouped convolutions (SqueezeBERT)
                continue
            for owners in found:
                apart = self.of.count > 1 and any(moved and moved != shared for moved in owners.heads)
                if apart and name not in families.head_arguments(self.module):
                    raise not_cut(self.layer, f"its argument {name!r} comes from outside, with entries for each head")

    def _check_family(self) -> None:
        """Check that nothing outside of the projections depends on the heads.

        Raises:
            UnsupportedModelError: says what does.
        """
        module: Any = self.module
        config = getattr(module, "config", None)
        names = [getattr(of, "model_type", "") for of in (config, getattr(self.layer.model, "config", None))]
        names.append(type(module).__name__)
        reason = next((families.NOT_CUT[name] for name in names if name in families.NOT_CUT), None)
        if type(module).__name__ == "SiglipAttention" and "embed_dim" in type(module).forward.__code__.co_varnames:
            reason = "this release of transformers shapes what its heads give by the model's hidden size"
        norm = getattr(module, "q_norm", None)
        if norm is not None and any(p.dim() == 1 and p.numel() > self.of.size for p in norm.parameters()):
            reason = "its queries are normalised over all heads together"
        if reason:
            raise not_cut(self.layer, reason)


def _linear(layer: AttentionLayer, part: Any) -> nn.Module:
    """Check that a map is a plain linear one, and return it.

    Raises:
        UnsupportedModelError: it is something else: an adapter, a quantized or a parametrized map.
    """
    names = {name for name, _ in part.named_parameters()} if isinstance(part, nn.Module) else set()
    plain = type(part) in (nn.Linear, conv1d(), nn.Embedding)
    plain = plain or (type(part) is nn.Conv1d and part.kernel_size == (1,) and part.groups == 1)
    if not plain or not {"weight"} <= names <= {"weight", "bias"}:
        what = "a bare parameter" if part is None else f"a {type(part).__name__} of {sorted(names)}"
        grouped = f" in {getattr(part, 'groups', 1)} groups of channels" * (getattr(part, "groups", 1) != 1)
        remedy = "merge adapters first, prune before quantization"
        raise not_cut(layer, f"one of its maps is {what}{grouped}, and only plain linear maps can be cut ({remedy})")
    return part  # type: ignore[no-any-return]


def _row_cuts(layer: AttentionLayer, name: str, part: Any, rows: list[int]) -> Iterator[Cut]:
    """Yield what stays of a map whose rows are heads; grouped convolutions keep their groups."""
    groups = getattr(part, "groups", 1)
    if type(part) is nn.Conv1d and part.kernel_size == (1,) and groups > 1:
        each = len(part.weight) // groups
        left = [sum(row // each == group for row in rows) for group in range(groups)]
        if len(set(left)) > 1 or not left[0]:
            reason = f"its {name!r} has {groups} groups of channels, which must lose the same numbers of heads each"
            raise not_cut(layer, reason)
        linear: Any = part
    else:
        linear = _linear(layer, part)
    yield Cut(linear, "weight", row_dim(linear), rows)
    if getattr(linear, "bias", None) is not None:
        yield Cut(linear, "bias", 0, rows)


def _bias_table(layer: AttentionLayer) -> nn.Module | None:
    """Return the layer's table of position biases (BEiT); None where it has none."""
    bias = getattr(layer.parent, "relative_position_bias", None)
    return bias if hasattr(bias, "relative_position_bias_table") else None


def _spread(blocks: Sequence[int], size: int) -> list[int]:
    """Return the indices of the entries in consecutive blocks of one size."""
    return [block * size + entry for block in blocks for entry in range(size)]


def cut_parameter(cut: Cut) -> nn.Parameter:
    """Return what stays of a parameter; nothing is assigned yet."""
    old: nn.Parameter = getattr(cut.owner, cut.name)
    with torch.inference_mode(False):  # what is made in that mode can never be trained
        index = torch.tensor(cut.keep, dtype=torch.long, device=old.device)
        left = old.detach().index_select(cut.dim, index).contiguous()
        return nn.Parameter(left, requires_grad=old.requires_grad)


def assign(owner: Any, name: str, parameter: nn.Parameter) -> None:
    """Put a parameter in its place, and set the sizes of its module."""
    setattr(owner, name, parameter)
    if name != "weight":
        return
    if isinstance(owner, nn.Linear):
        owner.out_features, owner.in_features = parameter.shape
    elif isinstance(owner, nn.Conv1d):
        owner.out_channels, owner.in_channels = parameter.shape[0], parameter.shape[1] * owner.groups
    elif isinstance(owner, nn.Embedding):
        owner.embedding_dim = parameter.shape[1]
    elif isinstance(owner, conv1d()):
        owner.nx, owner.nf = parameter.shape
