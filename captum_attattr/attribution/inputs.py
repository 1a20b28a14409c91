"""What users hand to `attribute()`, in Captum's forms: checked early, and expanded to rows.

Captum's private helpers are imported here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from captum._utils.common import (
    _format_additional_forward_args,
    _format_baseline,
    _select_targets,
)
from captum.attr._utils.approximation_methods import SUPPORTED_METHODS, approximation_parameters
from torch import Tensor

from captum_attattr.checks import integer, real

Target = Any
"""None, an int, a tuple of ints, a tensor, a list of ints or a list of tuples: see Captum's TargetType."""


@dataclass
class Batch:
    """A batch of examples that can be run again with any of its rows, any number of times.

    Attributes:
        forward: the user's forward function.
        inputs: tensors with the batch in dimension 0.
        additional: further positional arguments; tensors of the batch's size in dimension 0 are expanded,
            also inside dicts, lists and tuples, everything else is passed on.
        target: Captum's target, for these examples.
    """

    forward: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    additional: tuple[Any, ...]
    target: Target

    @property
    def size(self) -> int:
        """How many examples there are."""
        return int(self.inputs[0].shape[0])

    @property
    def device(self) -> torch.device:
        """Where the inputs are."""
        return self.inputs[0].device

    def form(self, sizes: bool = True) -> Hashable:
        """Return what batches have in common whose arguments differ in values and number of examples alone.

        Without `sizes` the tensors' sizes may differ too, as those of texts of other lengths do.
        """
        return _form((self.inputs, self.additional), self.size, sizes)

    def most_padded(self) -> int:
        """Return the example with the most zeros: one that brings a mask where any does."""
        tensors = [tensor for tensor in _leaves((self.inputs, self.additional)) if not tensor.is_floating_point()]
        zeros = [(t == 0).flatten(1).sum(1).cpu() for t in tensors if t.dim() > 1 and len(t) == self.size]
        return int(torch.stack(zeros).sum(0).argmax()) if zeros else 0

    def arguments(self, rows: Tensor) -> tuple[Any, ...]:
        """Return the forward function's arguments for these examples."""
        inputs = tuple(tensor.detach().index_select(0, rows.to(tensor.device)) for tensor in self.inputs)
        return (*inputs, *(_take(value, rows, self.size) for value in self.additional))

    def evaluate(self, rows: Tensor) -> Tensor:
        """Return F of these examples, (rows,), where the inputs are.

        Raises:
            TypeError: the forward function returns no tensor.
            ValueError: its output has no value per example, the target does not fit it, or it is not finite.
        """
        output = self.forward(*self.arguments(rows))
        check_output(output, len(rows), self.target)
        target = self.target
        # Captum takes negative numbers alone and in tuples, but not in lists and tensors.
        if isinstance(target, list):
            target = [target[row] for row in rows.tolist()]
            target = [index if isinstance(index, tuple) else index % output.shape[1] for index in target]
        elif isinstance(target, Tensor) and target.numel() > 1:
            target = target.to(output.device, torch.long)[rows.to(output.device)] % output.shape[1]
        values: Tensor = _select_targets(output, target).reshape(len(rows)).to(self.device)
        broken = (~torch.isfinite(values.detach())).nonzero()
        if len(broken):
            row = int(broken[0])
            raise ValueError(
                f"forward_func returned {values[row].item()} for example {int(rows[row])} of {self.size}; "
                "attribution needs a finite output"
            )
        return values


def _leaves(value: Any) -> Iterator[Tensor]:
    """Yield the tensors inside dicts, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _leaves(tuple(value.values()))
    elif type(value) in (list, tuple):
        for item in value:
            yield from _leaves(item)


def _form(value: Any, size: int, sizes: bool) -> Hashable:
    """Return the types and, if wanted, shapes inside an argument, whose tensors may hold `size` examples."""
    if isinstance(value, Tensor):
        rows = value.shape[:1] == (size,)
        return rows, tuple(value.shape[rows:]) if sizes else value.dim(), value.dtype
    if isinstance(value, Mapping):
        return tuple((str(key), _form(item, size, sizes)) for key, item in value.items())
    if type(value) in (list, tuple):
        return tuple(_form(item, size, sizes) for item in value)
    return value if isinstance(value, (bool, int, float, str, type(None))) else id(value)


def _take(value: Any, rows: Tensor, size: int) -> Any:
    """Return an argument with its tensors of the batch's size expanded to rows, inside dicts, lists and tuples too."""
    if isinstance(value, Tensor):
        expand = value.dim() > 0 and value.shape[0] == size
        return value.detach().index_select(0, rows.to(value.device)) if expand else value
    if isinstance(value, Mapping):
        return type(value)({key: _take(item, rows, size) for key, item in value.items()})  # type: ignore[call-arg]
    if type(value) in (list, tuple):
        return type(value)(_take(item, rows, size) for item in value)
    return value


def make_batch(forward: Callable[..., Any], inputs: Any, additional: Any, target: Target) -> Batch:
    """Check a call's inputs and target, as far as that can be done without running the model.

    Raises:
        TypeError: inputs that are no tensors, a target of a wrong type.
        ValueError: an empty batch, inputs of different batch sizes, a target of the wrong length, tensors
            made in inference mode.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("attribution needs gradients, which torch.inference_mode forbids; use torch.no_grad()")
    tensors = inputs if isinstance(inputs, tuple) else (inputs,)
    if not tensors or not all(isinstance(t, Tensor) for t in tensors):
        raise TypeError(f"inputs must be a tensor or a tuple of tensors, got {_describe(inputs)}")
    for tensor in tensors:
        if tensor.dim() == 0 or tensor.shape[0] != tensors[0].shape[0]:
            shapes = [tuple(t.shape) for t in tensors]
            raise ValueError(f"all inputs need the same batch size in dimension 0, got shapes {shapes}")
        if tensor.is_inference():
            raise ValueError("an input was made under torch.inference_mode; clone it outside of that mode first")
    if tensors[0].shape[0] == 0:
        raise ValueError(f"inputs hold no example: shape {tuple(tensors[0].shape)}")
    target = check_target(target, tensors[0].shape[0])
    return Batch(forward, tensors, _format_additional_forward_args(additional) or (), target)


def check_target(target: Target, size: int) -> Target:
    """Check the type and the length of a target; return it with Python's own integers.

    Raises:
        TypeError: not one of Captum's forms.
        ValueError: as many targets as there are examples are needed.
    """
    if isinstance(target, Tensor):
        if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
            raise TypeError(f"target must hold integers, got a tensor of {target.dtype}")
        if target.numel() != 1 and tuple(target.shape) != (size,):
            raise ValueError(f"target has shape {tuple(target.shape)}; for {size} examples ({size},) is needed")
        return target
    if isinstance(target, list):
        if len(target) != size:
            raise ValueError(f"target lists {len(target)} classes for {size} examples")
        indices = [tuple(map(integer, one)) if isinstance(one, tuple) else integer(one) for one in target]
        for i, index in enumerate(indices):
            missing = None in index if isinstance(index, tuple) else index is None
            if missing or type(index) is not type(indices[0]):
                raise TypeError(f"target[{i}] is {target[i]!r}; all must be ints, or all tuples of ints")
        return indices
    if isinstance(target, tuple):
        parts = tuple(part if isinstance(part, slice) else integer(part) for part in target)
        if None in parts:
            raise TypeError(
                f"target={target!r}: a tuple target holds ints, one for each output dimension after the first"
            )
        return parts
    if target is not None and integer(target) is None:
        raise TypeError(f"target={target!r}: an int, a tuple, a tensor, a list or None is needed")
    return integer(target)


def check_output(output: Any, rows: int, target: Target) -> None:
    """Check that a forward function's output gives one value for every row.

    Raises:
        TypeError: not a tensor.
        ValueError: the wrong number of rows, no target where there are several values, a target out of range.
    """
    if not isinstance(output, Tensor):
        hint = "; return .logits.softmax(-1) of it" if hasattr(output, "logits") else ""
        raise TypeError(f"forward_func must return a tensor, got {type(output).__name__}{hint}")
    if not output.is_floating_point():
        raise TypeError(f"forward_func must return real numbers, got a tensor of {output.dtype}, which has no gradient")
    if output.dim() == 0 or output.shape[0] != rows:
        raise ValueError(
            f"forward_func returned shape {tuple(output.shape)} for {rows} examples; dimension 0 must be the examples"
        )
    sizes = tuple(output.shape[1:])
    wide = any(size != 1 for size in sizes)
    if target is None:
        if wide:
            raise ValueError(
                f"forward_func returned {sizes} values for every example: say which one with target="
                + ("0 .. " + str(sizes[0] - 1) if len(sizes) == 1 else "(one index for each dimension)")
            )
        return
    targets = target.reshape(-1).tolist() if isinstance(target, Tensor) else target
    for wanted in targets if isinstance(targets, list) else [targets]:
        index = wanted if isinstance(wanted, tuple) else (wanted,)
        if len(index) != len(sizes):
            raise ValueError(
                f"target {wanted!r} has {len(index)} indices for an output of {len(sizes)} dimensions per example "
                f"{sizes}"
            )
        for part, size in zip(index, sizes, strict=True):
            if isinstance(part, slice):
                raise TypeError(f"target {wanted!r}: a slice selects several values; one value per example is needed")
            if not -size <= part < size:
                raise ValueError(f"target {wanted!r} is out of range: the output has {sizes} values per example")


def check_path(path: object, multiply_by_inputs: bool) -> bool:
    """Return whether a path is the joint one.

    Raises:
        ValueError: it is unknown, or joint where the factor (A - B) is left out.
    """
    if path not in ("layer", "joint"):
        raise ValueError(f"path={path!r} is unknown; use 'layer' or 'joint'")
    if path == "joint" and not multiply_by_inputs:
        raise ValueError(
            "path='joint': its scores are derivatives by gates, which carry the factor (A - B); leave "
            "multiply_by_inputs=False out, or use path='layer'"
        )
    return path == "joint"


MOST_NODES = 100_000
"""Of a fixed rule; more are a mistake, and would fill the memory."""


class Rule(NamedTuple):
    """The numbers that steer the quadrature, checked: see `LayerAttAttr.attribute`."""

    method: str
    n_steps: int | None
    tolerance: float
    max_nodes: int
    internal_batch_size: int | None


def check_rule(
    method: Any, n_steps: Any, tolerance: Any, max_nodes: Any, internal_batch_size: Any, name: str = "method"
) -> Rule:
    """Check the numbers that steer the quadrature; return them as Python's own.

    `name` is what the argument `method` is called where it was given.

    Raises:
        TypeError, ValueError: with the value and what would be right.
    """
    if not isinstance(method, str) or method not in SUPPORTED_METHODS:
        raise ValueError(f"{name}={method!r} is unknown; use one of {', '.join(SUPPORTED_METHODS)}")
    if n_steps is None and method != "gausslegendre":
        raise ValueError(f"{name}={method!r} is a fixed rule: say its number of nodes, as n_steps=50")
    least = 2 if method == "riemann_trapezoid" else 1
    steps = None if n_steps is None else _count("n_steps", n_steps, least, " or None")
    rows = None if internal_batch_size is None else _count("internal_batch_size", internal_batch_size, 1, " or None")
    most = _count("max_nodes", max_nodes, 5)
    if steps is not None and steps > MOST_NODES:
        raise ValueError(f"n_steps={steps} is too large: at most {MOST_NODES:,}")
    error = real(tolerance)
    if error is None or not 0 < error < 1:
        raise ValueError(f"tolerance={tolerance!r} must be a number between 0 and 1")
    return Rule(method, steps, error, most, rows)


def _count(name: str, value: Any, least: int, alternative: str = "") -> int:
    """Return an integer of any library as Python's own.

    Raises:
        TypeError: it is no integer.
        ValueError: it is too small.
    """
    count = integer(value)
    if count is None:
        raise TypeError(f"{name}={value!r} must be an int{alternative}")
    if count < least:
        raise ValueError(f"{name}={count} is too small: at least {least} is needed")
    return count


def fixed_rule(method: str, n_steps: int) -> tuple[list[float], list[float]]:
    """Return nodes and weights of Captum's named rules on [0, 1].

    Captum's own Riemann tables refuse one node, and their nodes are rounded to float32; these are not.
    Captum's "riemann_trapezoid" gives weights that add up to 1 - 1/n.
    """
    offsets = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}
    if method in offsets:
        return [(k + offsets[method]) / n_steps for k in range(n_steps)], [1 / n_steps] * n_steps
    weights, nodes = approximation_parameters(method)
    return list(nodes(n_steps)), list(weights(n_steps))


def check_store(store: Any, default: torch.device) -> torch.device:
    """Return the device on which results are kept.

    Raises:
        TypeError, ValueError: neither None nor a device that torch knows.
    """
    if store is None:
        return default
    index = integer(store)
    if index is None and not isinstance(store, (str, torch.device)):
        raise TypeError(f"store={store!r} must be a device, as 'cpu', or None")
    try:
        return torch.device(store if index is None else index)
    except RuntimeError as error:
        raise ValueError(f"store={store!r} is no device: {error}") from None


def baseline_inputs(baselines: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return Captum's input baselines as tensors of the inputs' shapes.

    Raises:
        ValueError, TypeError: baselines that do not fit the inputs.
    """
    given = baselines if isinstance(baselines, tuple) else (baselines,)
    values = tuple(value if (number := real(value)) is None else number for value in given)
    if not all(isinstance(value, (Tensor, float)) for value in values):
        raise TypeError(f"baselines must be tensors or numbers, got {_describe(baselines)}")
    values = _format_baseline(values, inputs)
    if len(values) != len(inputs):
        raise ValueError(f"{len(values)} baselines for {len(inputs)} inputs")
    result = []
    for value, tensor in zip(values, inputs, strict=True):
        if isinstance(value, Tensor):
            if tuple(value.shape) not in {tuple(tensor.shape), (1, *tensor.shape[1:])}:
                raise ValueError(f"a baseline has shape {tuple(value.shape)}, its input {tuple(tensor.shape)}")
            full = value.to(tensor).expand_as(tensor)
        elif math.isfinite(value):
            full = torch.full_like(tensor, value)
        else:
            raise ValueError(f"baselines={baselines!r} must be finite")
        if not tensor.is_floating_point() and bool((full != value).any()):
            raise ValueError(f"baselines={baselines!r} does not fit inputs of {tensor.dtype}: it would be rounded")
        result.append(full)
    return tuple(result)


def _describe(value: Any) -> str:
    """Return the name of a value's type, and of its parts'."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{type(value).__name__} of {', '.join(sorted({type(v).__name__ for v in value})) or 'nothing'}"
    return type(value).__name__
