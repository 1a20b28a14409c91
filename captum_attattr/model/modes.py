"""How a model runs while it is looked at: in evaluation mode, and not compiled.

Hooks and replaced attention do not reach code that `torch.compile` has compiled already.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


class _Stance:
    """The compiler's stance, one for the whole process: eager as long as anyone needs it to be."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._eager: Any = None

    def enter(self) -> None:
        """Make the stance eager, if it is not yet."""
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
        """Restore the stance, if nobody else needs it to be eager."""
        with self._lock:
            self._users -= 1
            if not self._users:  # the last user, in whichever thread
                self._eager.__exit__(None, None, None)


_STANCE = _Stance()


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run everything uncompiled inside the context; compiled code is kept, and used again afterwards.

    Compiled code calls only the hooks that were there when it was compiled. That holds for `torch.compile(model)`,
    `model.compile()`, single blocks, and a function around the model, of which the model does not know.

    Raises:
        ValueError: the context begins inside compiled code.
    """
    _STANCE.enter()
    try:
        yield
    finally:
        _STANCE.leave()


@contextmanager
def attribute_set(owners: Iterable[Any], name: str, value: Any) -> Iterator[None]:
    """Give an attribute of several objects one value inside the context; each has its old value back afterwards."""
    before = [(owner, getattr(owner, name)) for owner in owners]
    try:
        for owner, _ in before:
            setattr(owner, name, value)
        yield
    finally:
        for owner, old in before:
            setattr(owner, name, old)


def plain(model: Any) -> Any:
    """Return the model that `torch.compile` has wrapped; anything else unchanged."""
    return model._orig_mod if isinstance(model, nn.Module) and hasattr(model, "_orig_mod") else model


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Run a model in evaluation mode, uncompiled; the mode of each of its modules is restored afterwards."""
    with attribute_set(model.modules(), "training", False), uncompiled():
        yield
