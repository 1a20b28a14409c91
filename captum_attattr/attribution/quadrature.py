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
"""A panel's nodes have the indices 0..FINEST; a rule of n nodes takes every (FINEST / (n - 1))-th of them."""
FIRST, LAST = 3, FINEST + 1
"""Nodes of a panel's first rule, and of its last one before it is halved."""
LOWERED = {3: 0.5, 5: 1.0, 9: 1.0, 17: 1.0}
"""By the nodes of a rule: the power of the errors' decrease by which an estimate is lowered, see `AdaptiveIntegral`."""
PROMISING = {3: 0.7, 5: 0.5, 9: 0.25, 17: 0.0}
"""By the nodes of a rule: the decrease below which its panel goes on to the next rule rather than being halved."""
ROUNDINGS = 16
"""Roundings, in units of the last place, that a value is taken to have gathered on its way through a model."""
NARROWEST = 1e-12
"""A panel below this width is not halved: floating point could not tell the nodes of much narrower ones apart."""


@cache
def nested_rule(n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Nodes and weights of the nested Lobatto rules with 2, 3, 5, 9 and 17 nodes on [0, 1].

    The rule of 2 nodes is the trapezium's. Each further one keeps the nodes of the one before and adds, between
    every two of them, the one that raises the degree most (Kronrod's extension, repeated by Patterson, "The optimum
    addition of points to quadrature formulae", 1968): Simpson's rule, Lobatto's rule of 5 nodes, its Kronrod extension,
    and the extension of that. They integrate polynomials up to degree 1, 3, 7, 13 and 25 exactly; Clenshaw-Curtis rules
    of as many nodes reach 1, 3, 5, 9 and 17.

    With :math:`\omega` the polynomial whose roots are the old nodes, the polynomial E of the new ones fulfils
    :math:`\int \omega E x^k \, dx = 0` for every k below its degree.

    Args:
        n: how many nodes.

    Returns:
        (nodes (n,), ascending, both ends among them; weights (n,), all positive, adding up to 1).

    Raises:
        ValueError: n is not 2, 3, 5, 9 or 17.

    Example:
        >>> nodes, weights = nested_rule(5)
        >>> round(float(weights @ nodes**7), 12)
        0.125
    """
    if n not in (2, 3, 5, 9, 17):
        raise ValueError(f"the nested rules have 2, 3, 5, 9 or 17 nodes, got n={n}")
    nodes = np.array([-1.0, 1.0])
    while len(nodes) < n:
        nodes = _extended(nodes)
    integrals = np.eye(1, n)[0]  # of the Legendre polynomials over [-1, 1], halved
    weights = np.linalg.solve(np.polynomial.legendre.legvander(nodes, n - 1).T, integrals)
    return (1 + nodes) / 2, weights


def _extended(nodes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return nodes symmetric about 0 in [-1, 1] with the best further ones between them."""
    x, w = np.polynomial.legendre.leggauss(2 * len(nodes))
    kept = np.prod(x[:, None] - nodes, axis=1) * w
    # E is even or odd as its degree is; by symmetry all conditions of even k hold.
    degree = len(nodes) - 1
    powers = x[:, None] ** np.arange(degree % 2, degree, 2)
    tests = x[:, None] ** np.arange(1, degree, 2)
    lower = np.linalg.solve((tests * kept[:, None]).T @ powers, -(tests * kept[:, None]).T @ x**degree)
    coefficients = np.zeros(degree + 1)
    coefficients[degree % 2 : degree : 2], coefficients[degree] = lower, 1.0
    return np.sort(np.concatenate([nodes, np.polynomial.polynomial.polyroots(coefficients).real]))


def norm(values: Any) -> float:
    """Return the Euclidean (Frobenius) norm of an array or tensor, of entries whose squares underflow too."""
    largest = float(abs(values).max())
    if largest == 0 or not math.isfinite(largest):  # a NaN among the entries makes it NaN
        return largest
    return largest * math.sqrt(float(((values / largest) ** 2).sum()))


class ArraySpace:
    """How values are measured: here by their own entries; see `edges.Edges` for those that stand for maps."""

    def measure(self, values: Sequence[Any]) -> list[tuple[float, float]]:
        """Return each value's Euclidean norm, and the sum of its entries' absolute values."""
        return [(norm(value), float(abs(value).sum())) for value in values]

    def gain(self, value: Any) -> float:
        """Return the sum of a value's entries: an integral's is what F gains."""
        return float(value.sum())


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

    section_errors = math.nan

    def __init__(self, nodes: Sequence[float], weights: Sequence[float]) -> None:
        self.weights = dict(zip(nodes, weights, strict=True))
        self.space = ArraySpace()
        self.evaluations = 0
        self.total: Any = None

    def todo(self) -> list[float]:
        """Return all nodes, once."""
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
    """A part [low, high] of the interval, with the values at its nodes as they come in."""

    def __init__(self, low: float, high: float, known: dict[int, tuple[Any, float]], rule: int = FIRST) -> None:
        self.low, self.high = low, high
        self.known = known  # by the node's index: the integrand's value and F, which is NaN where it is not known
        self.rule = rule
        self.total: Any = None
        self.size = self.spread = self.error = self.step_error = self.ratio = math.inf
        self.magnitude = self.gap = 0.0
        self.section_errors: NDArray[np.float64] = np.zeros(0)

    def node(self, index: int) -> float:
        return float(self.low + (self.high - self.low) * nested_rule(LAST)[0][index])

    def missing(self) -> list[int]:
        return [index for index in _nodes(self.rule) if index not in self.known]

    def integral(self, n: int) -> Any:
        return sum(weight * self.known[index][0] for index, weight in self._weights(n))

    def _weights(self, n: int) -> list[tuple[int, float]]:
        weights = (self.high - self.low) * nested_rule(n)[1]
        return list(zip(_nodes(n), weights.tolist(), strict=True))

    def judge(self, space: ArraySpace, sections: Sequence[slice]) -> None:
        """Integrate by the present rule, and compare with the two coarser rules in it and with the ends."""
        self.total = self.integral(self.rule)
        if not math.isfinite(space.gain(self.total)):
            return
        half = (self.rule + 1) // 2
        coarse = self.integral(half)
        # Of Simpson's rule only one coarser rule can be told apart; the step before it is the integral itself.
        before = coarse - self.integral((half + 1) // 2) if self.rule > FIRST else self.total
        ends = self._weights(FIRST)
        measured = space.measure([self.total, self.total - coarse, before, *(self.known[i][0] for i, _ in ends)])
        (self.size, self.spread), (step, _), (previous, _), *magnitudes = measured
        if not math.isfinite(self.size):
            return
        self.ratio = step / previous if previous > 0 else math.inf if step > 0 else 0.0
        lowered = min(1.0, self.ratio) ** LOWERED[self.rule]
        self.step_error = step * lowered
        self.section_errors = lowered * np.array([norm((self.total - coarse)[section]) for section in sections])
        self.magnitude = sum(weight * size for (_, weight), (size, _) in zip(ends, magnitudes, strict=True))
        if self.rule == LAST:  # a panel of the last rule can only be halved, which needs these three
            self.known = {index: self.known[index] for index in (0, FINEST // 2, FINEST)}
        gained = self.known[FINEST][1] - self.known[0][1]
        self.gap = abs(space.gain(self.total) - gained) if math.isfinite(gained) else 0.0

    def refined(self) -> list[_Panel]:
        """Return the panels to go on with: the same one with the next rule where that promises more, or its halves."""
        if self.ratio < PROMISING[self.rule]:
            return [_Panel(self.low, self.high, dict(self.known), 2 * self.rule - 1)]
        low, centre, high = (self.known[index] for index in (0, FINEST // 2, FINEST))
        middle = self.node(FINEST // 2)
        return [
            _Panel(self.low, middle, {0: low, FINEST: centre}),
            _Panel(middle, self.high, {0: centre, FINEST: high}),
        ]


def _nodes(n: int) -> range:
    """Return the indices of a rule's nodes in a panel."""
    return range(0, LAST, FINEST // (n - 1))


class AdaptiveIntegral:
    r"""An integral whose nodes are chosen until its estimated error is small.

    Each panel starts with the rule of 3 nodes, goes on to 5, 9 and 17, all nested (see `nested_rule`), while that
    shrinks its error, and is halved otherwise; a half keeps the three values that it shares with its parent.
    In every round the panels that carry the error are refined, as in any globally adaptive integrator
    (Gander and Gautschi, "Adaptive Quadrature - Revisited", 2000).

    The error of a panel is the larger of two estimates, added up over the panels. With :math:`S_n` the rule of
    n nodes, the first is :math:`e \min(1, e / e')` for :math:`e = \|S_n - S_{n/2}\|`,
    :math:`e' = \|S_{n/2} - S_{n/4}\|`: the coarser rule's error, lowered by how fast the errors shrink (for an
    analytic integrand they shrink faster: by their degrees the error of :math:`S_n` would be :math:`e (e / e')^2`).
    With 3 nodes e' is :math:`\|S_3\|`, and the lowering its square root.
    The second needs no smoothness: where the sum of the integrand's entries is the derivative of a known F, it
    is how far the panel's total is from the difference of F at its ends, as a share of the integral's
    absolute sum. A feature that falls between the nodes of all three rules still shows there.

    Where values are not finite, or their sum is not, the error is infinite, and no more nodes are asked for: none
    could help.

    Args:
        tolerance: the estimated error wanted, relative to the Euclidean norm of the integral.
        max_nodes: no new round is begun that would need more nodes than this.
        precision: relative rounding error of the values, `ROUNDINGS` times their floating-point type's
            epsilon. This share of the integral of their norms, and one rounding of the largest F, are part of
            the estimate, and no improvement is looked for below it.
        sections: parts of one-dimensional values whose errors are wanted one by one, in `section_errors`: the first
            of the two estimates, relative to the part's Euclidean norm.

    Attributes:
        space: how values are measured; it may be set until the last values of the first round are received.
    """

    def __init__(
        self, tolerance: float, max_nodes: int, precision: float = 0.0, sections: Sequence[slice] = ()
    ) -> None:
        self.tolerance, self.max_nodes, self.precision, self.sections = tolerance, max_nodes, precision, sections
        self.space = ArraySpace()
        self.panels = [_Panel(0.0, 1.0, {})]
        self.evaluations = 0
        self.total: Any = None
        self.error = math.inf
        self.converged = False
        self._largest_antiderivative = 0.0
        self._finite = True
        self._target = 0.0
        self._fresh = self.panels
        self._pending: dict[float, tuple[_Panel, int]] = {}

    def todo(self) -> list[float]:
        """Return the nodes of the next round; none when the integral is done."""
        if self.total is not None:
            self._fresh = self._refine()
        for panel in self._fresh:
            for index in panel.missing():
                self._pending[panel.node(index)] = panel, index
        return list(self._pending)

    def receive(self, nodes: Sequence[float], values: Sequence[Any], antiderivatives: Sequence[float]) -> None:
        """Take the values at some of the round's nodes; the last portion completes the round.

        Args:
            nodes: (n,) nodes that `todo` asked for.
            values: n arrays, the integrand there.
            antiderivatives: (n,) F there; NaN where the entries' sum is no derivative of a known function.
        """
        for node, value, antiderivative in zip(nodes, values, antiderivatives, strict=True):
            panel, index = self._pending.pop(node)
            panel.known[index] = value, antiderivative
            if math.isfinite(antiderivative):
                self._largest_antiderivative = max(self._largest_antiderivative, abs(antiderivative))
        self.evaluations += len(nodes)
        if not self._pending:
            self._judge()

    @property
    def waiting(self) -> bool:
        """Whether values that were asked for are still missing."""
        return bool(self._pending)

    def _judge(self) -> None:
        """Add up the panels and their errors."""
        for panel in self._fresh:
            panel.judge(self.space, self.sections)
        self.total = sum(panel.total for panel in self.panels)
        size, spread = self.panels[0].size, self.panels[0].spread
        if len(self.panels) > 1:
            ((size, spread),) = self.space.measure([self.total])
        self._finite = math.isfinite(size) and math.isfinite(spread)
        if not self._finite:
            self.error = math.inf
            return
        noise = self.precision * self._largest_antiderivative
        scale = size / spread if spread > 0 else 1.0  # where all values vanish the gap alone tells of an error
        for panel in self.panels:
            panel.error = max(panel.step_error, scale * max(0.0, panel.gap - noise))
        # The values' own rounding, and that of F: near F = 1 a gradient carries 1 - F, known to one rounding of F.
        rounding = self.precision * sum(panel.magnitude for panel in self.panels)
        rounding += scale * noise / ROUNDINGS if spread > 0 else 0.0
        error = sum(panel.error for panel in self.panels)
        self._target = max(self.tolerance * size - rounding, rounding)
        self.converged = error <= self._target
        if size > 0:
            self.error = (error + rounding) / size
        else:
            self.error = math.inf if error + rounding > 0 else 0.0

    @property
    def section_errors(self) -> list[float]:
        """The estimated error of each section relative to its Euclidean norm."""
        errors = sum((panel.section_errors for panel in self.panels), np.zeros(len(self.sections)))
        sizes = [norm(self.total[section]) for section in self.sections]
        return [
            float(e) / size if size > 0 else math.inf if e > 0 else 0.0 for e, size in zip(errors, sizes, strict=True)
        ]

    def _refine(self) -> list[_Panel]:
        """Refine the panels that carry the error; none when it is small enough or the nodes are used up."""
        if self.converged or not self._finite:
            return []
        refined: dict[_Panel, list[_Panel]] = {}
        rest = sum(panel.error for panel in self.panels)
        for panel in sorted(self.panels, key=lambda panel: -panel.error):
            if rest <= self._target:
                break
            if panel.high - panel.low >= NARROWEST:
                rest -= panel.error
                refined[panel] = panel.refined()
        fresh = [panel for panels in refined.values() for panel in panels]
        if self.evaluations + sum(len(panel.missing()) for panel in fresh) > self.max_nodes:
            return []
        self.panels = [panel for panel in self.panels if panel not in refined] + fresh
        return fresh
