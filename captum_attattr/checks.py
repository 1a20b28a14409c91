"""Values checked where they come in: numbers of any library, names, lists, arrays.

Every function takes what a caller gave, returns it in the form that the package works with, and raises a TypeError or
ValueError that has the value and what would be right.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

Kind = TypeVar("Kind")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_REAL = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
_REAL |= {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}


def scalar(value: Any) -> Any:
    """Return a number or truth value of numpy, or a tensor that holds one, as Python's own; else the value itself."""
    if isinstance(value, np.generic) or (
        isinstance(value, Tensor | np.ndarray) and value.ndim == 0 and not getattr(value, "is_meta", False)
    ):
        return value.item()
    return value


def integer(value: Any) -> int | None:
    """Return an integer of any library as Python's own; None for everything else, bools included."""
    if isinstance(value, bool) or getattr(value, "dtype", None) in (torch.bool, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def real(value: Any) -> float | None:
    """Return a real number of any library as Python's own, NaN and infinity too; None for everything else.

    An integer that no float can hold is infinite.
    """
    exact: Any = scalar(value)
    if isinstance(exact, bool) or not isinstance(exact, Real):
        return None
    try:
        return float(exact)
    except OverflowError:
        return math.copysign(math.inf, -1 if exact < 0 else 1)


def at_least(smallest: int, value: Any, name: str, meaning: str = "") -> int:
    """Return an integer that is large enough as Python's own.

    Args:
        smallest: what is large enough.
        value: what was given.
        name: of the argument, for the message.
        meaning: what the smallest value stands for, for the message.

    Raises:
        ValueError: it is no integer, or too small.
    """
    count = integer(value)
    if count is None or count < smallest:
        raise ValueError(f"{name}={value!r} must be an int of {smallest} or more{meaning and f': {meaning}'}")
    return count


def index(name: str, value: Any, count: int) -> int:
    """Return an index among `count` as Python's own; `name` says of what.

    Raises:
        TypeError: it is no integer.
        ValueError: it is not from 0 to `count` - 1.
    """
    position = integer(value)
    if position is None:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}: {value!r}")
    if not 0 <= position < count:
        raise ValueError(f"{name} must be from 0 to {count - 1}, not {value}")
    return position


def row_of(name: str, value: Any, numbers: Sequence[int]) -> int:
    """Return where a number stands among others, of layers for example, that need not begin at 0 or be without gaps.

    Raises:
        TypeError: it is no integer.
        ValueError: it is not among them.
    """
    numbers = list(numbers)
    if numbers == list(range(len(numbers))):
        return index(name, value, len(numbers))
    number = integer(value)
    if number is None:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}: {value!r}")
    if number not in numbers:
        raise ValueError(f"{name} must be one of {', '.join(map(str, numbers))}, not {value}")
    return numbers.index(number)


def fraction(name: str, value: Any) -> float:
    """Return a number from 0 to 1 as Python's own.

    Raises:
        ValueError: it is something else.
    """
    share = real(value)
    if share is None or not 0 <= share <= 1:
        raise ValueError(f"{name}={value!r} must be a number from 0 to 1")
    return share


def finite(name: str, value: Any, *, unknown: bool = False) -> float:
    """Return a finite number as Python's own; `unknown` allows NaN.

    Raises:
        TypeError: it is no number.
        ValueError: it is not finite.
    """
    found = real(value)
    if found is None:
        raise TypeError(f"{name} must be a number, not {type(value).__name__}: {value!r}")
    if not np.isfinite(found) and not (unknown and np.isnan(found)):
        raise ValueError(f"{name} must be finite, not {found}")
    return found


def instance(name: str, value: Any, kind: type[Kind] | tuple[type[Kind], ...], wanted: str) -> Kind:
    """Return a value of a kind; `wanted` names the kind in words, "an Explanation".

    Raises:
        TypeError: it is of another kind.
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} must be {wanted}, not {type(value).__name__}: {value!r:.60}")
    return value


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """Return one of some texts.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r:.60} is unknown; use one of {', '.join(choices)}")
    return value


def sequence(name: str, value: Any) -> list[Any]:
    """Return a list of what a list, a tuple or another sequence holds; a text is none.

    Raises:
        TypeError: it is no sequence.
    """
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list, not {type(value).__name__}: {value!r:.60}")
    return list(value)


def listed(value: Any) -> Any:
    """Return an array, a tensor or a column of a table as a list; anything else, a single number too, as it is."""
    whole = getattr(value, "tolist", None)  # numpy's, torch's and pandas'
    return whole() if callable(whole) and getattr(value, "ndim", 0) != 0 else value


def iterable(name: str, value: Any) -> list[Any]:
    """Return a list of what a list, a set, a generator or another iterable gives; a text or a dict is none.

    Raises:
        TypeError: it is none.
    """
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a list, not {type(value).__name__}: {value!r:.60}")
    return list(value)


def characters(name: str, text: str) -> None:
    """Check that a text holds no half characters, which no tokenizer reads.

    Raises:
        ValueError: there is one.
    """
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"{name} = {text!r} holds half a character (a lone surrogate)")


def strings(name: str, value: Any, count: int | None = None) -> list[str]:
    """Return a list of texts, of `count` texts if that is given.

    Raises:
        TypeError: it is no list, or something in it is no text.
        ValueError: it holds more or fewer.
    """
    texts = sequence(name, value)
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{name} must be strings, not {type(text).__name__}: {text!r:.60}")
    _check_count(name, texts, count)
    return texts


def text_or_pair(name: str, value: Any) -> str | tuple[str, str]:
    """Return a text, or a pair of texts.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"{name} must be a string or a pair of strings, not {value!r:.60}")
    first, second = strings(name, value)
    return first, second


def integers(name: str, value: Any, count: int | None = None, smallest: int | None = None) -> list[int]:
    """Return a list of integers as Python's own, of `count` if that is given, each `smallest` or more.

    Raises:
        TypeError: it is no list, or something in it is no integer.
        ValueError: it holds more or fewer, or one that is too small.
    """
    entries = sequence(name, value)
    for position, entry in enumerate(entries):
        whole = integer(entry)
        if whole is None:
            raise TypeError(f"{name} must be integers, but [{position}] is {entry!r:.60}")
        if smallest is not None and whole < smallest:
            raise ValueError(f"{name} must be {smallest} or more, but [{position}] is {whole}")
        entries[position] = whole
    _check_count(name, entries, count)
    return entries


def reals(name: str, value: Any, count: int | None = None, *, unknown: bool = False) -> list[float]:
    """Return a list of finite numbers as Python's own, of `count` if that is given; `unknown` allows NaN.

    Raises:
        TypeError: it is no list, or something in it is no number.
        ValueError: it holds more or fewer, or one that is not finite.
    """
    entries = sequence(name, value)
    for position, entry in enumerate(entries):
        number = real(entry)
        if number is None:
            raise TypeError(f"{name} must be numbers, but [{position}] is {entry!r:.60}")
        if not np.isfinite(number) and not (unknown and np.isnan(number)):
            raise ValueError(f"{name} must be finite, but [{position}] is {number}")
        entries[position] = number
    _check_count(name, entries, count)
    return entries


def flag(name: str, value: Any) -> bool:
    """Return a truth value of any library as Python's own; 0, 1, "no" and None are none.

    Raises:
        TypeError: it is none.
    """
    found = scalar(value)
    if not isinstance(found, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}: {value!r:.60}")
    return found


def flags(name: str, value: Any, count: int | None = None) -> list[bool]:
    """Return a list of truth values (or 0 and 1) as Python's own, of `count` if that is given.

    Raises:
        TypeError: it is no list, or something in it is no truth value.
        ValueError: it holds more or fewer.
    """
    entries = [scalar(entry) for entry in sequence(name, value)]
    for position, entry in enumerate(entries):
        if not isinstance(entry, int) or entry not in (0, 1):
            raise TypeError(f"{name} must be True or False, but [{position}] is {entry!r:.60}")
    _check_count(name, entries, count)
    return [bool(entry) for entry in entries]


def _check_count(name: str, entries: Sequence[Any], count: int | None) -> None:
    if count is not None and len(entries) != count:
        raise ValueError(f"{name} must have the shape ({count},), not ({len(entries)},)")


def numbers(name: str, value: Any) -> Tensor:
    """Return an array of real numbers, of any shape, as a tensor.

    Raises:
        TypeError: it holds no real numbers.
    """
    try:
        # torch's default device is not the device of a tensor that is given, nor where results are kept.
        array = value if isinstance(value, Tensor) else torch.as_tensor(value, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise TypeError(f"{name} must be an array of numbers, not {type(value).__name__}: {value!r:.60}") from None
    if array.dtype not in _REAL:
        raise TypeError(f"{name} must be an array of real numbers, not of {array.dtype}")
    if array.layout != torch.strided or array.is_meta or array.is_nested:
        raise TypeError(f"{name} must be a dense tensor with its values, not {array.layout} on {array.device}")
    return array.detach()


def tensor(
    name: str, value: Any, shape: Sequence[int | str], *, unknown: bool = False, infinite: bool = False
) -> Tensor:
    """Return an array of numbers of a given shape as a tensor.

    Args:
        name: what it is called, for the message.
        value: a tensor, or what `torch.as_tensor` takes.
        shape: a size for each dimension; a letter where any size of one or more will do.
        unknown: whether NaN is allowed.
        infinite: whether infinity is.

    Raises:
        TypeError: it holds no real numbers.
        ValueError: it has another shape, or is not finite; the message has the first position.
    """
    array = numbers(name, value)
    fits = array.dim() == len(shape) and all(
        size > 0 if isinstance(wanted, str) else size == wanted for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits:
        letters = ", all above 0" if any(isinstance(wanted, str) for wanted in shape) else ""
        wanted_shape = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
        raise ValueError(f"{name} must have the shape {wanted_shape}{letters}, not {tuple(array.shape)}")
    broken = (array.isnan() & (not unknown)) | (array.isinf() & (not infinite))
    if broken.any():
        first = broken.nonzero()[0].tolist()
        raise ValueError(f"{name} must be finite, but {name}{first} is {array[tuple(first)].item()}")
    return array


def names_match(given: Iterable[str], wanted: Iterable[str]) -> None:
    """Check that the entries of a file are those that are wanted.

    Raises:
        ValueError: some are missing, or there are others.
    """
    if differing := set(given) ^ set(wanted):
        raise ValueError(f"it lacks or adds {sorted(differing)}")


def set_fields(made: object, **values: Any) -> None:
    """Set fields of a frozen dataclass to their checked values, in its `__post_init__`."""
    for name, value in values.items():
        object.__setattr__(made, name, value)


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
