"""A model whose values stay as they are, and whose gradients follow the rules of `attnlrp`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_attattr.attribution.late_branching import map_tensors
from captum_attattr.attribution.methods.norms import linear_norm
from captum_attattr.exceptions import UnsupportedModelError
from captum_attattr.model.attention_layers import AttentionLayer, family_name

# Functions of torch by name, methods and operators of tensors too, without the underscores around them.
PRODUCTS = frozenset(
    {"mul", "multiply", "rmul", "imul", "matmul", "rmatmul", "imatmul", "bmm", "mm", "mv", "dot", "vdot", "inner"}
    | {"outer", "ger", "einsum", "tensordot", "linear", "bilinear", "kron", "grouped_mm"}
)
SUMS_OF_PRODUCTS = frozenset({"baddbmm", "addmm", "addbmm", "addmv", "addr", "addcmul"})  # of all but the first operand
DIVISIONS = frozenset({"div", "divide", "truediv", "true_divide", "itruediv", "floor_divide"})
ACTIVATIONS = frozenset(
    {"gelu", "silu", "relu", "relu6", "tanh", "sigmoid", "elu", "selu", "celu", "leaky_relu", "mish", "hardswish"}
    | {"hardsigmoid", "hardtanh", "softsign", "softplus", "logsigmoid", "prelu", "clamp", "clip", "clamp_min"}
    | {"clamp_max"}
)
WITHOUT_RULE = frozenset(
    {"exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "log_softmax", "logsumexp", "pow", "rpow", "ipow"}
    | {"float_power", "square", "sqrt", "rsqrt", "reciprocal", "rtruediv", "rdiv", "erf", "erfc", "abs", "sin", "cos"}
    | {"tan", "asin", "acos", "atan", "sinh", "cosh", "logit", "prod", "cumprod", "norm", "vector_norm", "normalize"}
    | {"cosine_similarity", "cdist", "var", "std", "addcdiv", "lerp", "glu", "layer_norm", "rms_norm", "group_norm"}
    | {"batch_norm", "instance_norm", "scaled_dot_product_attention", "multi_head_attention_forward"}
)
NOT_ACTIVATIONS = (nn.Softmax, nn.Softmax2d, nn.Softmin, nn.LogSoftmax, nn.MultiheadAttention, nn.GLU)


class _Instead(torch.autograd.Function):
    """A value that hands its gradient to another tensor of its shape."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, other: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None, gradients[0]


def instead(value: Tensor, other: Tensor) -> Tensor:
    """Return `value` with the gradient of `other`."""
    result: Tensor = _Instead.apply(value.detach(), other.to(value.dtype))  # type: ignore[no-untyped-call]
    return result


def share(tensor: Tensor, of: int) -> Tensor:
    """Return a tensor that is handed one part of its gradient."""
    return instead(tensor, tensor / of)


def identity_rule(given: Tensor, value: Tensor) -> Tensor:
    """Return f(x) with the gradient f(x) / x."""
    ratio = value.detach() / given.detach()
    return instead(value, given * torch.where(torch.isfinite(ratio), ratio, 0.0))


def is_activation(module: nn.Module) -> bool:
    """Whether a module is an activation function of torch's or of transformers'."""
    home = type(module).__module__
    return home in ("torch.nn.modules.activation", "transformers.activations") and not isinstance(
        module, NOT_ACTIVATIONS
    )


def is_norm(module: nn.Module) -> bool:
    """Whether a module is called a norm; whether it is one `linear_norm` tells."""
    return "Norm" in type(module).__name__ and next(module.children(), None) is None


@contextmanager
def relevance_rules(layers: Sequence[AttentionLayer]) -> Iterator[None]:
    """Let gradients follow the rules in the forward that runs inside, wherever it is in the layers' model.

    What other threads run at the same time is let alone.

    Raises:
        UnsupportedModelError: something nonlinear without a rule stands between the attention and the output.
    """
    rules = _Rules(layers)
    thread = threading.get_ident()

    def mine(hook: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: hook(*args) if threading.get_ident() == thread else None

    with ExitStack() as stack:
        for module in layers[0].model.modules():
            before = module.register_forward_pre_hook(mine(rules.enter), with_kwargs=True)
            after = module.register_forward_hook(mine(rules.leave), with_kwargs=True)
            stack.callback(before.remove)
            stack.callback(after.remove)
        stack.enter_context(rules)
        yield


class _Rules(TorchFunctionMode):
    """The rules for functions, and hooks with those for modules."""

    def __init__(self, layers: Sequence[AttentionLayer]) -> None:
        super().__init__()
        self.model = layers[0].model
        self.attention = {id(layer.module) for layer in layers}
        self.inside: list[nn.Module] = []
        """The modules of the model that are running; outside of any, gradients are their own."""
        self.whole: nn.Module | None = None
        """The running module that has a rule of its own: what it does inside has none."""

    def enter(self, module: nn.Module, args: Any, kwargs: Any) -> Any:
        """A module begins."""
        self.inside.append(module)
        if self.whole is None and (is_activation(module) or is_norm(module)):
            self.whole = module
        return self._marked(args, kwargs) if id(module) in self.attention else None

    def leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        """A module ends; return what takes the place of its output."""
        self.inside.pop()
        if self.whole is not module:
            return None
        self.whole = None
        carrying = _carrying((args, kwargs))
        if not carrying:
            return None
        given = carrying[0]
        if len(carrying) == 1 and isinstance(output, Tensor) and output.shape == given.shape:
            if is_activation(module):
                return identity_rule(given, output)
            norm = linear_norm(module, given.detach(), output.detach())
            if norm:
                return instead(output, norm(given.to(norm.scale.dtype)))
        raise self._without_rule(f"what {type(module).__name__} computes", module)

    @staticmethod
    def _marked(args: Any, kwargs: Any) -> Any:
        """Let the hidden states of the first layer carry a gradient, as those of the others do: products share it."""
        states = next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor) and v.is_floating_point()), None)
        if states is None or states.requires_grad:
            return None
        marked = states.detach().requires_grad_()
        exchanged = {key: marked if value is states else value for key, value in kwargs.items()}
        return tuple(marked if value is states else value for value in args), exchanged

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        full = getattr(func, "__name__", "")
        name = full.strip("_")
        if not self.inside or self.whole is not None or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if name in PRODUCTS or name in SUMS_OF_PRODUCTS:
            return self._product(func, name, full, args, kwargs)
        if name in ACTIVATIONS and len(_carrying((args, kwargs))) == 1:
            return self._activation(func, full, args, kwargs)
        if name in WITHOUT_RULE and _carrying((args, kwargs)):
            raise self._without_rule(name, self.inside[-1])
        if name in DIVISIONS and _carrying((args[1:], kwargs)):
            raise self._without_rule("a division by hidden states", self.inside[-1])
        return func(*args, **kwargs)

    @staticmethod
    def _product(func: Any, name: str, full: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return a product whose factors share its gradient."""
        added = args[:1] if name in SUMS_OF_PRODUCTS else ()
        count = len(_carrying((args[len(added) :], kwargs)))
        if count < 2:
            return func(*args, **kwargs)

        def shared(value: Any) -> Any:
            return map_tensors(value, lambda _, tensor: share(tensor, count) if tensor.requires_grad else tensor)

        result = func(*added, *shared(args[len(added) :]), **shared(kwargs))
        return args[0].copy_(result) if _in_place(full) and not added else result

    @staticmethod
    def _activation(func: Any, full: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return what an activation function makes of its argument, by the identity rule."""
        (given,) = _carrying((args, kwargs))
        plain = map_tensors((args, kwargs), lambda _, tensor: tensor.detach().clone())
        with torch.no_grad():
            value = func(*plain[0], **plain[1])
        result = identity_rule(given, value)
        return args[0].copy_(result) if _in_place(full) else result

    def _without_rule(self, what: str, module: nn.Module) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"{family_name(self.model)}: AttnLRP has no rule for {what}, in {type(module).__name__}; use 'attattr', "
            "'gradient_attention' or 'chefer'"
        )


def _in_place(name: str) -> bool:
    """Whether a function writes what it returns into its first argument: `mul_`, `__imul__`."""
    return name.startswith("__i") or (name.endswith("_") and not name.endswith("__"))


def _carrying(value: Any) -> list[Tensor]:
    """Return the tensors in nested tuples, lists and dicts that carry a gradient."""
    if isinstance(value, Tensor):
        return [value] if value.requires_grad else []
    if isinstance(value, dict):
        return _carrying(tuple(value.values()))
    return [tensor for item in value for tensor in _carrying(item)] if isinstance(value, tuple | list) else []
