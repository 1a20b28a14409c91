"""Compiled models (`torch.compile`): hooks and replaced attention do not reach code that is compiled already."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class _Stance:
    """The compiler's stance, which is one for the whole process, and who needs it to be eager."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._eager: Any = None

    def enter(self) -> None:
        with self._lock:
            if not self._users:
                try:
                    self._eager = torch.compiler.set_stance("force_eager")
                except RuntimeError:
                    raise ValueError(
                        "inside a function that is compiled, heads are not masked and attention is not attributed; "
                        "compile the model, and keep what changes it outside"
                    ) from None
            self._users += 1

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:  # the last one, whichever thread that is
                self._eager.__exit__(None, None, None)


_STANCE = _Stance()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Let everything run as it is written; what is compiled is kept, and used again afterwards.

    Compiled code calls only the hooks that were there when it was compiled. That holds for `torch.compile(model)`,
    `model.compile()`, single blocks, and a function around the model, of which the model does not know.

    Raises:
        ValueError: this is called by compiled code.
    """
    _STANCE.enter()
    try:
        yield
    finally:
        _STANCE.leave()


def plain(model: Any) -> Any:
    """The model that `torch.compile` has wrapped; everything else as it is."""
    return model._orig_mod if isinstance(model, nn.Module) and hasattr(model, "_orig_mod") else model


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and not compiled; each of its modules is put back into its own mode."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with uncompiled():
            yield
    finally:
        for module in training:
            module.training = True
