"""Arguments of public functions, before anything else is done: no unknown names, and truth values where they belong."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

from captum_attattr.checks import flag

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def checked_arguments(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Return a function whose misspelt arguments are named with the nearest, and whose switches must be True or False.

    A switch is a parameter whose default is True or False, and whose annotation is `bool`. "no", 0 and None are refused
    there: Python takes the first for true and the others for false.

    Args:
        function: a public function. Where it takes `**options`, it checks their names itself.
    """
    signature = inspect.signature(function)
    parameters = signature.parameters
    open_ended = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    switches = {
        name for name, each in parameters.items() if isinstance(each.default, bool) and each.annotation == "bool"
    }

    @functools.wraps(function)
    def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        if not open_ended and (unknown := [name for name in kwargs if name not in parameters]):
            raise TypeError(f"{function.__qualname__} has no argument {unknown[0]!r}{nearest(unknown[0], parameters)}")
        for name in switches & kwargs.keys():
            flag(name, kwargs[name])
        return function(*args, **kwargs)

    return checked


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the words that ask for the name that was meant; "" where none is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
