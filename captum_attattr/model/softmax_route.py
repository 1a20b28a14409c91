"""The softmax route: the attention of modules that call softmax, or torch's fused attention, themselves.

A `TorchFunctionMode` watches, inside attention modules, softmax of (batch, heads, queries, keys), softmax of
(batch x heads, queries, keys), and `scaled_dot_product_attention`, which is computed step by step in its place.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from captum_attattr.model.families import HEAD_COUNTS

_SOFTMAX = frozenset({torch.softmax, torch.nn.functional.softmax, Tensor.softmax, torch.special.softmax})
_FUSED: Any = torch.nn.functional.scaled_dot_product_attention

Visit = Callable[[nn.Module, Tensor, Tensor], Tensor | None]
"""Called with a module, its attention (R, H, Tq, Tk) and the scores before softmax; returns what replaces it."""


@contextmanager
def softmax_watched(modules: Iterable[nn.Module], visit: Visit) -> Iterator[None]:
    """Show `visit` the attention of modules in the forward that runs inside."""
    mode = _SoftmaxMode(visit)
    with ExitStack() as stack:
        for module in modules:
            stack.enter_context(_inside(module, mode.inside))
        stack.enter_context(mode)
        yield


class _SoftmaxMode(TorchFunctionMode):
    """Shows each attention module's softmax, and replaces the rows that are asked for."""

    def __init__(self, visit: Visit) -> None:
        super().__init__()
        self.visit = visit
        self.inside: list[nn.Module] = []
        """The modules that run now, the innermost last."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        if self.inside and func is _FUSED:
            return self._fused(*args, **options)
        result = func(*args, **options)
        if not self.inside or func not in _SOFTMAX:
            return result
        over = args[1] if len(args) > 1 else options.get("dim")
        if over not in (-1, result.dim() - 1):  # keys are last; ConvBERT's kernels are not attention
            return result
        module = self.inside[-1]
        heads = _heads(module) if result.dim() == 3 else 0
        if result.dim() != 4 and not (heads and len(result) % heads == 0):
            return result
        scores = (args[0] if args else options["input"]).detach()
        if result.dim() == 4:
            replaced = self.visit(module, result, scores)
            return result if replaced is None else replaced
        replaced = self.visit(module, result.unflatten(0, (-1, heads)), scores.unflatten(0, (-1, heads)))
        return result if replaced is None else replaced.flatten(0, 1)

    def _fused(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Compute what `scaled_dot_product_attention` documents, and show its attention."""
        if query.dim() != 4:
            return _FUSED(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)  # type: ignore[no-any-return]
        if enable_gqa:
            groups = query.shape[1] // key.shape[1]
            key, value = (states.repeat_interleave(groups, dim=1) for states in (key, value))
        scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
        elif attn_mask is not None:
            scores = scores + attn_mask
        attention = torch.dropout(scores.softmax(-1), dropout_p, dropout_p > 0)
        replaced = self.visit(self.inside[-1], attention, scores.detach())
        return (attention if replaced is None else replaced) @ value


def _heads(module: nn.Module) -> int:
    """Return how many heads a module says it has; 0 where it does not."""
    counts = (vars(module).get(name) for name in HEAD_COUNTS)
    return next((count for count in counts if isinstance(count, int)), 0)


@contextmanager
def _inside(module: nn.Module, running: list[nn.Module]) -> Iterator[None]:
    """Keep `module` at the end of `running` while this thread computes it."""
    thread = threading.get_ident()

    def enter(*_: object) -> None:
        if threading.get_ident() == thread:
            running.append(module)

    def leave(*_: object) -> None:
        # Not where another hook has raised before ours was called.
        if threading.get_ident() == thread and running[-1:] == [module]:
            running.pop()

    before = module.register_forward_pre_hook(enter)
    after = module.register_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()
