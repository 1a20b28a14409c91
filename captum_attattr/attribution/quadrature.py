"""Integrals over [0, 1] of array-valued functions: a fixed rule, or nested nodes chosen as values come in.

No model and no device here. Both kinds of integral are fed from outside: `todo()` says at which nodes the
integrand is wanted next, `receive()` takes the values, in any portions, and after the last portion `todo()`
says what is wanted now, until `done`. Values are arrays of one shape that can be added, scaled and multiplied
elementwise (numpy arrays or torch tensors).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

FINEST = 16
"""A panel's nodes are numbered 0..FINEST; a rule of n nodes takes every (FINEST / (n - 1))-th of them."""
FIRST, LAST = 5, FINEST + 1
"""Nodes of the first rule that a panel is given and of the last one before it is halved."""
ROUNDINGS = 16
"""Roundings, in units of the last place, that a value is taken to have gathered on its way through a model."""
NARROWEST = 1e-12
"""A panel below this width is left as it is: floating point could not tell a half's nodes apart much longer."""


@cache
def clenshaw_curtis(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Nodes and weights of the Clenshaw-Curtis rule with n >= 2 nodes on [0, 1].

    The nodes are :math:`x_k = (1 - \cos(\pi k / (n - 1))) / 2`, both ends included; every node of the rule
    with n nodes is a node of the one with 2n - 1. The weights integrate polynomials below degree n exactly
    (Clenshaw and Curtis, 1960).

    Args:
        n: number of nodes.

    Returns:
        (nodes (n,), ascending; weights (n,), adding up to 1).

    Raises:
        ValueError: n is below 2.

    Example:
        >>> nodes, weights = clenshaw_curtis(5)
        >>> round(float(weights @ nodes**3), 12)
        0.25
    """
    if n < 2:
        raise ValueError(f"a Clenshaw-Curtis rule has at least 2 nodes, got n={n}")
    angles = np.pi * np.arange(n) / (n - 1)
    degrees = np.arange(n)
    # Chebyshev polynomials T_j at the nodes, and their integrals over [-1, 1]: 2 / (1 - j^2) for even j.
    moments = np.where(degrees % 2 == 0, 2 / (1 - degrees.astype(float) ** 2 + (degrees % 2)), 0.0)
    weights = np.linalg.solve(np.cos(np.outer(degrees, angles)), moments) / 2
    return (1 - np.cos(angles)) / 2, weights


def norm(values: Any) -> float:
    """Euclidean (Frobenius) norm of an array or tensor, of entries whose squares underflow too."""
    largest = float(abs(values).max())
    return largest * math.sqrt(float(((values / largest) ** 2).sum())) if largest > 0 else largest


class FixedIntegral:
    """The weighted sum over given nodes.

    Args:
        nodes: (n,) where the integrand is wanted, ends included where their values are of use to the caller.
        weights: (n,) 0 for nodes that do not count.
    """

    error = math.nan
    """A single fixed rule has no estimate of its error."""
    converged = True
    """It never asks for more."""

    def __init__(self, nodes: Sequence[float], weights: Sequence[float]) -> None:
        self.weights = dict(zip(nodes, weights, strict=True))
        self.evaluations = 0
        self.total: Any = None

    def todo(self) -> list[float]:
        """All nodes; asked for once."""
        return [] if self.evaluations else list(self.weights)

    def receive(self, nodes: Sequence[float], values: Sequence[Any], antiderivatives: Sequence[float]) -> None:
        """Add the integrand's values at some of the nodes."""
        for node, value in zip(nodes, values, strict=True):
            weighted = self.weights[node] * value
            self.total = weighted if self.total is None else self.total + weighted
        self.evaluations += len(nodes)

    @property
    def waiting(self) -> bool:
        """Whether values that were asked for are still missing."""
        return self.evaluations < len(self.weights)


class _Panel:
    """A part [low, high] of the interval, with what is known at its nodes so far."""

    def __init__(self, low: float, high: float, known: dict[int, tuple[Any, float]], rule: int = FIRST) -> None:
        self.low, self.high = low, high
        self.known = known  # by number of the node: the integrand's value, and F
        self.rule = rule
        self.total: Any = None
        self.magnitude = 0.0
        self.step_error = self.gap = self.ratio = math.inf

    def node(self, number: int) -> float:
        return float(self.low + (self.high - self.low) * clenshaw_curtis(LAST)[0][number])

    def missing(self) -> list[int]:
        return [i for i in range(0, LAST, FINEST // (self.rule - 1)) if i not in self.known]

    def integral(self, n: int) -> Any:
        weights = (self.high - self.low) * clenshaw_curtis(n)[1]
        places = range(0, LAST, FINEST // (n - 1))
        return sum(float(weight) * self.known[i][0] for weight, i in zip(weights, places, strict=True))

    def judge(self) -> None:
        """Integrate by the present rule, and compare with the two coarser rules in it and with the ends."""
        half = (self.rule + 1) // 2
        self.total, coarse, coarser = (
            self.integral(self.rule),
            self.integral(half),
            self.integral((half + 1) // 2),
        )
        step, previous = norm(self.total - coarse), norm(coarse - coarser)
        self.ratio = step / previous if previous > 0 else 0.0
        self.step_error = step * min(1.0, self.ratio) ** 0.5
        weights = (self.high - self.low) * clenshaw_curtis(FIRST)[1]
        places = range(0, LAST, FINEST // (FIRST - 1))
        self.magnitude = sum(float(w) * norm(self.known[i][0]) for w, i in zip(weights, places, strict=True))
        if self.rule == LAST:  # a panel of the last rule can only be halved, which needs these three
            self.known = {i: self.known[i] for i in (0, FINEST // 2, FINEST)}
        self.gap = abs(float(self.total.sum()) - (self.known[FINEST][1] - self.known[0][1]))

    def refined(self) -> list[_Panel]:
        """The same panel with the next rule, keeping all values."""
        return [_Panel(self.low, self.high, dict(self.known), 2 * self.rule - 1)]

    def halves(self) -> list[_Panel]:
        """Two panels that keep the values at this one's ends and middle."""
        low, centre, high = (self.known[i] for i in (0, FINEST // 2, FINEST))
        middle = self.node(FINEST // 2)
        return [
            _Panel(self.low, middle, {0: low, FINEST: centre}),
            _Panel(middle, self.high, {0: centre, FINEST: high}),
        ]


class AdaptiveIntegral:
    r"""An integral whose nodes are chosen until its estimated error is small.

    Each panel starts with the 5-node Clenshaw-Curtis rule, goes on to 9 and 17 nodes, all nested, while that
    shrinks its error, and is halved otherwise; a half keeps the three values that it shares with its parent.
    In every round the panels that carry the error are refined, as in any globally adaptive integrator
    (Gander and Gautschi, "Adaptive Quadrature - Revisited", 2000).

    The error of a panel is the larger of two estimates, added up over the panels. With :math:`S_n` the rule of
    n nodes, the first is :math:`e \sqrt{\min(1, e / e')}` for :math:`e = \|S_n - S_{n/2}\|`,
    :math:`e' = \|S_{n/2} - S_{n/4}\|`: the coarser rule's error, lowered by how fast the errors shrink.
    The second needs no smoothness: where the sum of the integrand's entries is the derivative of a known F, it
    is how far the panel's total is from the difference of F at its ends, as a share of the integral's
    absolute sum. A feature that falls between the nodes of all three rules still shows there.

    Args:
        tolerance: the estimated error wanted, relative to the Euclidean norm of the integral.
        max_nodes: no new round is begun that would need more nodes than this.
        precision: relative rounding error of the values, `ROUNDINGS` times their floating-point type's
            epsilon. This share of the integral of their norms, and one rounding of the largest F, are part of
            the estimate, and no improvement is looked for below it.
    """

    def __init__(self, tolerance: float, max_nodes: int, precision: float = 0.0) -> None:
        self.tolerance, self.max_nodes, self.precision = tolerance, max_nodes, precision
        self.panels = [_Panel(0.0, 1.0, {})]
        self.evaluations = 0
        self.total: Any = None
        self.error = math.inf
        self.converged = False
        self._largest_antiderivative = 0.0
        self._errors: dict[int, float] = {}
        self._fresh = self.panels
        self._places: dict[float, tuple[_Panel, int]] = {}

    def todo(self) -> list[float]:
        """The nodes of the next round; empty when the integral is done."""
        if self.total is not None:
            self._fresh = self._refine()
        for panel in self._fresh:
            for number in panel.missing():
                self._places[panel.node(number)] = panel, number
        return list(self._places)

    def receive(self, nodes: Sequence[float], values: Sequence[Any], antiderivatives: Sequence[float]) -> None:
        """Take what was found at some of the round's nodes; the last portion completes the round.

        Args:
            nodes: (n,) nodes that `todo` asked for.
            values: n arrays, the integrand there.
            antiderivatives: (n,) F there; NaN where the entries' sum is no derivative of a known function.
        """
        for node, value, antiderivative in zip(nodes, values, antiderivatives, strict=True):
            panel, number = self._places.pop(node)
            panel.known[number] = value, antiderivative
            self._largest_antiderivative = max(self._largest_antiderivative, abs(antiderivative))
        self.evaluations += len(nodes)
        if not self._places:
            self._judge()

    @property
    def waiting(self) -> bool:
        """Whether values that were asked for are still missing."""
        return bool(self._places)

    def _judge(self) -> None:
        """Add up the panels and their errors."""
        for panel in self._fresh:
            panel.judge()
        self.total = sum(panel.total for panel in self.panels)
        size, spread = norm(self.total), float(abs(self.total).sum())
        noise = self.precision * self._largest_antiderivative
        scale = size / spread if spread > 0 else 1.0  # where all values vanish the gap alone tells of an error
        # max() keeps its first argument where the second is NaN, that is where F is not known
        self._errors = {id(panel): max(panel.step_error, scale * max(0.0, panel.gap - noise)) for panel in self.panels}
        error = sum(self._errors.values())
        # The values' own rounding, and that of F: near F = 1 a gradient carries 1 - F, known to one rounding of F.
        rounding = self.precision * sum(panel.magnitude for panel in self.panels)
        rounding += scale * noise / ROUNDINGS if spread > 0 else 0.0
        self._target = max(self.tolerance * size - rounding, rounding)
        self.converged = error <= self._target
        self.error = (error + rounding) / size if size > 0 else math.inf if error + rounding > 0 else 0.0

    def _refine(self) -> list[_Panel]:
        """Refine the panels that carry the error; empty when it is small enough or the nodes are used up."""
        if self.converged:
            return []
        plan: list[tuple[_Panel, list[_Panel]]] = []
        rest = sum(self._errors.values())
        for panel in sorted(self.panels, key=lambda panel: -self._errors[id(panel)]):
            if rest <= self._target / 2:
                break
            if panel.high - panel.low < NARROWEST:
                continue
            rest -= self._errors[id(panel)]
            promising = panel.ratio < (0.5 if panel.rule == FIRST else 0.25)
            plan.append((panel, panel.refined() if panel.rule < LAST and promising else panel.halves()))
        fresh = [panel for _, panels in plan for panel in panels]
        if self.evaluations + sum(len(panel.missing()) for panel in fresh) > self.max_nodes:
            return []
        replaced = {id(panel) for panel, _ in plan}
        self.panels = [panel for panel in self.panels if id(panel) not in replaced] + fresh
        return fresh
