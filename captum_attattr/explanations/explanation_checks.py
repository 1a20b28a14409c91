"""Checks of what an explanation is made of: shapes against each other, names, ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from captum_attattr import checks
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.explanations.attributed_output import OUTPUTS

_MOST_SEGMENTS = 255
OF_OTHER = "other_"
"""Begins the names of the inputs of a second text, with which the explained one is compared."""


def maps_of_tokens(name: str, value: Any, tokens: int) -> Tensor:
    """Return maps (L, H, T, T) that fit the tokens."""
    maps = checks.tensor(name, value, ("L", "H", "T", "T")).detach()
    rows, columns = maps.shape[2:]
    if rows != tokens or columns != tokens:
        plural = "" if tokens == 1 else "s"
        raise ValueError(f"{name} must be {tokens} x {tokens} for {tokens} token{plural}, not {rows} x {columns}")
    return maps if maps.is_floating_point() else maps.float()


def rising_layers(layers: Any, count: int) -> list[int]:
    """Return the layers' own numbers, which rise; those from 0 on if there are none."""
    if isinstance(layers, tuple) and not layers:
        return list(range(count))
    numbers = checks.integers("layers", layers, count, smallest=0)
    for before, after in pairwise(numbers):
        if after <= before:
            raise ValueError(f"layers must rise, but {after} follows {before}")
    return numbers


def segments_of_tokens(segments: Any, tokens: int) -> list[int]:
    """Return the segments of the tokens; some tokenizers have one of their own for a special token."""
    checked = checks.integers("segments", segments, tokens, smallest=0)
    if max(checked) > _MOST_SEGMENTS:
        raise ValueError(f"segments must be from 0 to {_MOST_SEGMENTS}, not {max(checked)}")
    return checked


def method_name(attribution: Any, path: str) -> str:
    """Return the name of the method; if it is not given, that of the paper on this path."""
    if attribution == "":
        return "attattr_joint" if path == "joint" else "attattr"
    checks.one_of("attribution", attribution, tuple(ATTRIBUTIONS))
    if (attribution == "attattr_joint") != (path == "joint"):
        raise ValueError(f"attribution={attribution!r} does not go with path={path!r}")
    return str(attribution)


def estimated_error(name: str, value: Any) -> float:
    """Return an estimated error, which may not be known, or infinite."""
    error = checks.real(value)
    if error is None:
        raise TypeError(f"{name} must be a number, not {type(value).__name__}: {value!r:.60}")
    if error < 0:
        raise ValueError(f"{name} must be 0 or more, not {error}")
    return error


def contrast_fields(label: Any, index: Any, target: int) -> dict[str, Any]:
    """Return the name and the index of what the target is contrasted with, or None of both."""
    if label is None and index is None:
        return {"contrast": None, "contrast_target": None}
    contrast = {
        "contrast": checks.instance("contrast", label, str, "a string, beside contrast_target"),
        "contrast_target": checks.at_least(0, index, "contrast_target"),
    }
    if contrast["contrast_target"] == target:
        raise ValueError(f"contrast_target={index} is the target: another class is needed")
    return contrast


def output_name(output: Any, probability: float) -> str:
    """Return what F is; if that is not given, what its value allows."""
    outside = probability < 0 or probability > 1  # NaN, not known, is not
    if output == "":
        return "score" if outside else "probability"
    checks.one_of("output", output, OUTPUTS)
    if outside and output != "score":
        raise ValueError(f"probability must be from 0 to 1, not {probability}; of a regression, output is 'score'")
    return str(output)


def inputs_by_name(inputs: Any, shape: Callable[[str, Any], Sequence[Any]]) -> dict[str, Tensor]:
    """Return inputs by name, each of the shape that a function gives for it."""
    if not isinstance(inputs, Mapping):
        raise TypeError(f"inputs must be a dict of tensors, not {type(inputs).__name__}")
    if not inputs:
        raise ValueError("inputs is empty: give None where the inputs are not known")
    return {
        checks.instance("the name of an input", name, str, "a string"): checks.tensor(
            f"inputs[{name!r}]", value, shape(name, value)
        )
        for name, value in inputs.items()
    }


def positions_of_tokens(positions: Any, tokens: int) -> list[int]:
    """Return positions of tokens, in order."""
    checked = checks.integers("positions", list(positions) if isinstance(positions, tuple) else positions, smallest=0)
    if checked != sorted(checked) or max(checked, default=0) >= tokens:
        raise ValueError(f"positions must rise, from 0 to {tokens - 1}, not {checked}")
    return checked
