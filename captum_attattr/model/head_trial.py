"""A cut tried before a model changes: on a copy of its modules, which holds the same tensors."""

from __future__ import annotations

import copy
import linecache
import traceback
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from captum_attattr.model.sample_inputs import first_line


@contextmanager
def trial(model: nn.Module) -> Iterator[dict[nn.Module, nn.Module]]:
    """Copy the modules of a model, to be cut and run; yield the copies by the module.

    Their tensors are those of the model: a copy takes no memory to speak of. A model that cannot be copied, or whose
    copy would run the model's own forward (one that was compiled or wrapped in place), stands for its copy, and is put
    back at the end as it was.
    """
    modules = list(model.modules())
    held = [(*m._parameters.values(), *m._buffers.values(), *vars(m).values()) for m in modules]
    same = {id(value): value for values in held for value in values if isinstance(value, Tensor)}
    try:
        if any("forward" in vars(module) for module in modules):
            raise TypeError("a forward of its own")
        copies = dict(zip(modules, copy.deepcopy(model, same).modules(), strict=True))
    except Exception:  # modules may hold anything
        restore = snapshot(model)
        try:
            yield {module: module for module in modules}
        finally:
            restore()
    else:
        yield copies


@contextmanager
def undone_on_error(model: nn.Module) -> Iterator[None]:
    """Restore a model where an error is raised inside."""
    restore = snapshot(model)
    try:
        yield
    except BaseException:
        restore()
        raise


def snapshot(model: nn.Module) -> Any:
    """Return a function that puts every attribute, parameter and hook of every module back as it is now."""
    modules = list(model.modules())
    before = [dict(vars(module)) for module in modules]
    inner = [(value, value.copy()) for attributes in before for value in attributes.values() if isinstance(value, dict)]

    def restore() -> None:
        for module, attributes in zip(modules, before, strict=True):
            vars(module).clear()
            vars(module).update(attributes)
        for value, copied in inner:  # in place: handles of hooks refer to these
            value.clear()
            value.update(copied)

    return restore


def failure(error: BaseException, modules: Collection[nn.Module]) -> str:
    """Return at what a forward failed: the expression in the forward of one of some modules, else of the innermost."""
    found: list[tuple[nn.Module, str]] = []
    for step, (frame, _) in zip(_steps(error), traceback.walk_tb(error.__traceback__), strict=True):
        module = frame.f_locals.get("self")
        torch_itself = str(frame.f_globals.get("__name__")).partition(".")[0] == "torch"
        if isinstance(module, nn.Module) and not torch_itself and frame.f_code.co_name == "forward":
            found.append((module, step))
    inside = [(module, step) for module, step in found if module in modules] or found
    where = f"{type(inside[-1][0]).__name__}.forward fails at {inside[-1][1]}" if inside else "its forward fails"
    return f"{where}: {first_line(error)}"


def _steps(error: BaseException) -> Iterator[str]:
    """Yield what every frame of a traceback was at: the expression, its file and its line."""
    at = error.__traceback__
    while at is not None:
        code = at.tb_frame.f_code
        first, last, start, stop = list(code.co_positions())[at.tb_lasti // 2]
        lines = [linecache.getline(code.co_filename, line) for line in range(first or 1, (last or 0) + 1)]
        if lines:
            lines[-1] = lines[-1].encode()[:stop].decode(errors="ignore")
            lines[0] = lines[0].encode()[start or 0 :].decode(errors="ignore")
        expression = " ".join(" ".join(lines).split())
        expression = expression if len(expression) <= 120 else f"{expression[:117]}..."
        yield f"`{expression}` ({Path(code.co_filename).name}, line {at.tb_lineno})"
        at = at.tb_next
