"""What is asked of `explain` beside texts and targets: which output, along which path, how exactly."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch

from captum_attattr.attribution.inputs import Rule, check_path, check_rule
from captum_attattr.attribution.methods.table import ATTRIBUTIONS
from captum_attattr.checks import at_least, instance, integer, listed, real, scalar
from captum_attattr.explanations.attributed_output import CHOICES, OUTPUTS

BASELINES = ("zero", "uniform", "sink")
"""Names of the start of a path; a number, of every attention probability, is one too."""


@dataclass(frozen=True)
class Settings:
    """Options of `explain`, checked as far as that needs no model.

    Attributes:
        attribution: the method, one of `ATTRIBUTIONS`; "attattr" on the joint path too.
        rule: of the quadrature.
        output: "probability", "logit" or "log_probability"; None for the usual one of the model's task.
        path: "layer" or "joint".
        baseline: one of `BASELINES`, or a number.
        layers: those that are attributed, by their own numbers, in order; None for all.
        attention: whether the attention is kept.
        dtype: in which maps are kept.
    """

    rule: Rule
    output: str | None = None
    path: str = "layer"
    baseline: str | float = "zero"
    layers: tuple[int, ...] | None = None
    attention: bool = True
    dtype: torch.dtype = torch.float32
    attribution: str = "attattr"

    @classmethod
    def of(
        cls,
        *,
        attribution: Any = "attattr",
        output: Any = None,
        path: Any = None,
        baseline: Any = None,
        layers: Any = None,
        attention: Any = True,
        dtype: Any = torch.float32,
        n_steps: Any = None,
        method: Any = "gausslegendre",
        tolerance: Any = 1e-3,
        max_nodes: Any = 1_000,
        internal_batch_size: Any = None,
    ) -> Settings:
        """Check the arguments of `explain`.

        Raises:
            TypeError, ValueError: with the value and what would be right.
        """
        attribution, path = checked_attribution(attribution, path)
        rule = check_rule(method, n_steps, tolerance, max_nodes, internal_batch_size)
        entry = ATTRIBUTIONS[attribution]
        if entry.maps and rule._replace(internal_batch_size=None) != _USUAL_RULE:
            raise ValueError(f"n_steps, method, tolerance and max_nodes are of an integral, not {attribution!r}'s")
        if baseline is not None and not entry.start:
            raise ValueError(f"baseline={baseline!r:.60}: {attribution!r} follows no path; leave it out")
        if layers is not None and not entry.layers:
            raise ValueError(f"layers: {attribution!r} puts the maps of all layers together; leave it out")
        return cls(
            attribution=attribution,
            rule=rule,
            output=checked_output(output),
            path=path,
            baseline=checked_baseline(baseline),
            layers=checked_layers(layers),
            attention=instance("attention", scalar(attention), bool, "True or False"),
            dtype=checked_dtype(dtype),
        )

    def for_model(self, output: str | None, depth: int) -> Settings:
        """Return the settings as a model takes them.

        Args:
            output: None if it is the usual one of the model's task.
            depth: how many layers there are.

        Raises:
            ValueError: a layer that is not there.
        """
        layers = self.layers
        for position, layer in enumerate(layers or ()):
            if layer >= depth:
                raise ValueError(f"layers[{position}] must be from 0 to {depth - 1}, not {layer}")
        return replace(self, output=output, layers=None if layers == tuple(range(depth)) else layers)

    @property
    def name(self) -> str:
        """The method's name, the path's included."""
        return self.attribution + "_joint" * (self.path == "joint")

    @property
    def integral(self) -> dict[str, Any]:
        """The arguments of `LayerAttAttr.integrate`."""
        return {
            **self.rule._asdict(),
            "path": self.path,
            "attention_baselines": None if self.baseline == "zero" else self.baseline,
            "keep_attention": self.attention,
        }

    def as_json(self) -> dict[str, Any]:
        """Return the options that tell a run from others: those of version 0.1, and others where they are not usual.

        For settings of `for_model`; how maps are kept is not among them.
        """
        usual = Settings(self.rule)
        added = {name: getattr(self, name) for name in ("attribution", "output", "path", "baseline", "layers")}
        return self.rule._asdict() | {name: value for name, value in added.items() if value != getattr(usual, name)}


_USUAL_RULE = check_rule("gausslegendre", None, 1e-3, 1_000, None)


def checked_attribution(attribution: Any, path: Any) -> tuple[str, str]:
    """Return the name of a method, and the path that it integrates along.

    Raises:
        ValueError: an unknown method or path, or a method beside a path that is not its own.
    """
    if not isinstance(attribution, str) or attribution not in ATTRIBUTIONS:
        raise ValueError(f"attribution={attribution!r:.60} is unknown; use one of {', '.join(ATTRIBUTIONS)}")
    joint = attribution == "attattr_joint" if path is None else check_path(path, True)
    if joint and not attribution.startswith("attattr"):
        raise ValueError(f"path='joint' is of 'attattr', not of {attribution!r}; leave one of them out")
    if attribution == "attattr_joint" and not joint:
        raise ValueError("attribution='attattr_joint' is 'attattr' with path='joint', not 'layer': leave one out")
    return attribution.removesuffix("_joint"), "joint" if joint else "layer"


def checked_output(output: Any) -> str | None:
    """Return what may be the name of an output; whether the model has it is checked with the model.

    Raises:
        ValueError: it is something else.
    """
    if output is not None and (not isinstance(output, str) or output not in OUTPUTS):
        raise ValueError(f"output={output!r:.60} is unknown; use one of {', '.join(map(repr, CHOICES))}")
    return None if output is None else str(output)


def checked_baseline(baseline: Any) -> str | float:
    """Return the name of a path's start, or a number other than 0; "zero" for None and 0.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if baseline is None:
        return "zero"
    given = scalar(baseline)
    number = real(given)
    if number is not None and math.isfinite(number):
        return number or "zero"
    if isinstance(given, str) and given in BASELINES:
        return given
    kind = ValueError if isinstance(given, str) or number is not None else TypeError
    raise kind(f"baseline={baseline!r:.60} is unknown; use 'zero', 'uniform', 'sink' or a finite number")


DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}
"""Types that maps may be kept in."""


def checked_dtype(dtype: Any) -> torch.dtype:
    """Return a type of floating-point numbers, which may be given by its name.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    kind = ValueError if isinstance(dtype, str | torch.dtype) else TypeError
    raise kind(f"dtype={dtype!r:.60} is unknown; use {', '.join(f'torch.{name}' for name in DTYPES)}")


def checked_layers(layers: Any) -> tuple[int, ...] | None:
    """Return the layers to attribute, in order; None for all.

    Raises:
        TypeError: no list, or something in it is no integer.
        ValueError: none, one below 0, or one twice.
    """
    if layers is None:
        return None
    if isinstance(layers, str | bytes) or integer(layers) is not None or not isinstance(layers, Iterable):
        raise TypeError(f"layers={layers!r:.60} must be a list of layers' indices, or None for all")
    given = list(listed(layers))
    numbers: list[int] = []
    for position, layer in enumerate(given):
        if integer(layer) is None:
            raise TypeError(f"layers[{position}] must be an integer, not {type(layer).__name__}: {layer!r:.60}")
        numbers.append(at_least(0, layer, f"layers[{position}]"))
    if not numbers:
        raise ValueError("layers is empty: give at least one, or None for all")
    if twice := [layer for layer in numbers if numbers.count(layer) > 1]:
        raise ValueError(f"layers has {twice[0]} twice")
    return tuple(sorted(numbers))
