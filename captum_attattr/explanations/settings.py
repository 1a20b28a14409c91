"""What is asked of `explain` beside texts and targets: which output, along which path, how exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from captum_attattr.attribution.inputs import Rule, check_path, check_rule
from captum_attattr.checks import real, scalar
from captum_attattr.explanations.attributed_output import CHOICES, OUTPUTS

BASELINES = ("zero", "uniform", "sink")
"""Names of the start of a path; a number, of every attention probability, is one too."""


@dataclass(frozen=True)
class Settings:
    """Options of `explain`, checked as far as that needs no model.

    Attributes:
        rule: of the quadrature.
        output: "probability", "logit" or "log_probability"; None for the usual one of the model's task.
        path: "layer" or "joint".
        baseline: one of `BASELINES`, or a number.
    """

    rule: Rule
    output: str | None = None
    path: str = "layer"
    baseline: str | float = "zero"

    @classmethod
    def of(
        cls,
        *,
        output: Any = None,
        path: Any = "layer",
        baseline: Any = None,
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
        return cls(
            rule=check_rule(method, n_steps, tolerance, max_nodes, internal_batch_size),
            output=checked_output(output),
            path="joint" if check_path(path, True) else "layer",
            baseline=checked_baseline(baseline),
        )

    @property
    def integral(self) -> dict[str, Any]:
        """The arguments of `LayerAttAttr.integrate`."""
        return {
            **self.rule._asdict(),
            "path": self.path,
            "attention_baselines": None if self.baseline == "zero" else self.baseline,
        }

    def as_json(self) -> dict[str, Any]:
        """Return the options that tell a run from others: those of version 0.1, and others where they are not usual.

        The output must be None where it is the usual one of the model's task.
        """
        usual = Settings(self.rule)
        added = {name: getattr(self, name) for name in ("output", "path", "baseline")}
        return self.rule._asdict() | {name: value for name, value in added.items() if value != getattr(usual, name)}


def checked_output(output: Any) -> str | None:
    """Return what may be the name of an output; whether the model has it is checked with the model.

    Raises:
        ValueError: it is something else.
    """
    if output is not None and (not isinstance(output, str) or output not in OUTPUTS):
        raise ValueError(f"output={output!r:.60} is unknown; use one of {', '.join(map(repr, CHOICES))}")
    return output


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
