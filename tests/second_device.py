"""A strict second device without a GPU: PrivateUse1 in Python, whose tensors keep their values in CPU tensors.

    import second_device
    second_device.install()
    model.to("second")

As on CUDA, an operation that gets a tensor of this device and one of the CPU raises. A single number (no dimensions)
and CPU indices in `tensor[indices]` are allowed, a CPU generator for random numbers of this device is not. It shows
where devices are mixed up, and nothing else: there are no streams, no autocast, no kernels of its own; it is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import backend_registration
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_leaves, tree_map

NAME = "second"
_libraries: list[torch.library.Library] = []  # what they register goes with them

# What brings tensors from one device to another, and what reads a value back.
_CROSSING = {"aten::_to_copy", "aten::copy_", "aten::_copy_from", "aten::_copy_from_and_resize", "aten::set_"}
_READING = {"aten::_local_scalar_dense", "aten::item", "aten::equal", "aten::is_nonzero"}
_INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_", "aten::_unsafe_index"}
# These make an empty tensor and resize it, which a wrapper cannot be: they are made on the CPU, then wrapped.
_RESIZING = ("arange", "arange.start", "arange.start_step", "linspace", "randperm", "eye", "eye.m")


class SecondTensor(torch.Tensor):
    """A tensor of the device: `values` are its values, on the CPU, and of the same strides."""

    values: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, values: Tensor, requires_grad: bool = False) -> SecondTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=torch.device(NAME, 0),
            requires_grad=requires_grad,
        )
        made.values = values
        return made

    @classmethod
    def __torch_dispatch__(cls, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(op, args, kwargs or {})

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """With this, `module.to(...)` changes parameters in place, so that tied ones stay tied."""
        return ["values"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: Any) -> SecondTensor:
        return SecondTensor(parts["values"])

    def __deepcopy__(self, memo: dict[int, Any]) -> SecondTensor:
        if id(self) not in memo:
            copied = SecondTensor(self.values.clone(), self.requires_grad)
            memo[id(self)] = nn.Parameter(copied, self.requires_grad) if isinstance(self, nn.Parameter) else copied
        return memo[id(self)]

    # Below, what C++ would do by the data's address, which a wrapper does not have.

    def data_ptr(self) -> int:
        return self.values.data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.values.untyped_storage()

    def new_tensor(self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)

    def tolist(self) -> Any:
        return self.values.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if not force:
            raise TypeError(f"can't convert {NAME}:0 device type tensor to numpy. Use Tensor.cpu() first.")
        return self.detach().cpu().numpy(force=True)

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __getitem__(self, index: Any) -> Any:
        return Tensor.__getitem__(self, _indices(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        Tensor.__setitem__(self, _indices(index), value)

    def __repr__(self, **_: Any) -> str:
        return f"SecondTensor({self.values!r})"


def _indices(index: Any) -> Any:
    """Lists as tensors: inside `torch`, their copies would not come by `_run`."""
    if isinstance(index, tuple):
        return tuple(map(_indices, index))
    return torch.tensor(index) if isinstance(index, list) and index else index


def _is_second(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _refuse_the_cpu(name: str, args: Any, kwargs: Any) -> None:
    """Raise where an operation on tensors of the device meets something of the CPU."""
    if name in _CROSSING:
        return
    checked = (args[0], args[2:]) if name in _INDEXED else args
    plain = [x for x in tree_leaves((checked, kwargs)) if type(x) is not SecondTensor and isinstance(x, Tensor)]
    if any(x.dim() for x in plain):
        shapes = ", ".join(str(tuple(x.shape)) for x in plain)
        raise RuntimeError(f"Expected all tensors to be on the same device, but {name} got {NAME}:0 and cpu ({shapes})")
    if any(isinstance(x, torch.Generator) for x in tree_leaves((args, kwargs))):
        raise RuntimeError(f"Expected a '{NAME}' device type for generator but found 'cpu' ({name})")


def _down(x: Any) -> Any:
    if isinstance(x, SecondTensor):
        return x.values
    return torch.device("cpu") if isinstance(x, torch.device) and x.type == NAME else x


def _up(x: Any) -> Any:
    return SecondTensor(x) if isinstance(x, Tensor) and type(x) is not SecondTensor else x


def _run(op: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on the values and wrap what it returns, unless it was asked for on the CPU."""
    name = op._schema.name
    device = kwargs.get("device")
    ours = any(isinstance(x, SecondTensor) for x in tree_leaves((args, kwargs)))
    if ours:
        _refuse_the_cpu(name, args, kwargs)
    if name == "aten::is_pinned":
        return False
    returned = op(*tree_map(_down, args), **tree_map(_down, kwargs))
    if "out" in kwargs:
        return kwargs["out"]
    if op._schema.is_mutable and args and isinstance(args[0], Tensor) and isinstance(returned, Tensor):
        return args[0]  # in place
    if name in _READING or (device is not None and not _is_second(device)):
        return returned
    return tree_map(_up, returned) if ours or _is_second(device) else returned


def _by_the_cpu(made: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.tensor` and `torch.as_tensor`, whose copy to a device would not come by `_run` either."""

    def tensor(data: Any, *args: Any, device: Any = None, requires_grad: bool = False, **options: Any) -> Tensor:
        if not _is_second(device):
            wanted = {"requires_grad": True} if requires_grad else {}
            return made(data, *args, device=device, **options | wanted)
        return made(data, *args, **options).to(device).requires_grad_(requires_grad)

    return tensor


def _aten(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def _made(op: Any, *args: Any, **kwargs: Any) -> Any:
    return _run(op, args, kwargs)


def _implementations() -> Iterator[tuple[str, Callable[..., Any]]]:
    for name in _RESIZING:
        yield name, partial(_made, _aten(name))


def install() -> None:
    """Make the device known to torch, once in a process; there is no way back."""
    if _libraries:
        return
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    others = torch.library.Library("_", "IMPL")
    others.fallback(_made, dispatch_key="PrivateUse1")
    aten = torch.library.Library("aten", "IMPL")
    for name, run in _implementations():
        aten.impl(name, run, "PrivateUse1")
    _libraries.extend((others, aten))
    _device_constructors()  # `with torch.device(...)` knows functions by identity: it must have seen torch's own
    torch.tensor, torch.as_tensor = _by_the_cpu(torch.tensor), _by_the_cpu(torch.as_tensor)
    torch.accelerator.synchronize = lambda device=None: None  # there is nothing to wait for
