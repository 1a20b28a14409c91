"""Integrals of array-valued functions: exact where they should be, and honest about their error elsewhere."""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from captum_attattr.attribution.quadrature import AdaptiveIntegral, FixedIntegral, nested_rule, norm

Scalar = Callable[[float], float]


@dataclass(frozen=True)
class Function:
    """An array-valued function, entry by entry, each with its antiderivative."""

    name: str
    entries: tuple[tuple[Scalar, Scalar], ...]

    def __call__(self, x: float) -> np.ndarray:
        return np.array([entry(x) for entry, _ in self.entries])

    def antiderivative(self, x: float) -> np.ndarray:
        return np.array([primitive(x) for _, primitive in self.entries])

    @property
    def integral(self) -> np.ndarray:
        return self.antiderivative(1.0) - self.antiderivative(0.0)


def portions(items: Sequence[Any], size: int | None) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size or max(1, len(items))):
        yield items[start : start + (size or len(items))]


def feed(
    integral: Any,
    function: Callable[[float], Any],
    antiderivative: Callable[[float], float] | None = None,
    order: Callable[[list[float]], list[float]] = list,
    size: int | None = None,
) -> list[list[float]]:
    """Answer an integral until it is done; returns the nodes of each round."""
    rounds = []
    while nodes := integral.todo():
        rounds.append(nodes)
        for some in portions(order(nodes), size):
            assert not integral.converged or isinstance(integral, FixedIntegral)
            known = [antiderivative(x) if antiderivative else math.nan for x in some]
            integral.receive(some, [function(x) for x in some], known)
        assert not integral.waiting
    return rounds


def adaptive(
    function: Function, tolerance: float, max_nodes: int = 2_000, known: bool = True, **options: Any
) -> AdaptiveIntegral:
    integral = AdaptiveIntegral(tolerance, max_nodes)
    feed(integral, function, (lambda x: float(function.antiderivative(x).sum())) if known else None, **options)
    return integral


def relative_error(integral: AdaptiveIntegral, function: Function) -> float:
    return norm(integral.total - function.integral) / norm(function.integral)


# ---------------------------------------------------------------------------------------------- the rules


DEGREES = {2: 1, 3: 3, 5: 7, 9: 13, 17: 25}
"""By the nodes of a rule: the highest degree of which it integrates every polynomial."""


@pytest.mark.parametrize("n", DEGREES)
def test_rule_is_exact_up_to_its_degree_and_no_further(n: int) -> None:
    nodes, weights = nested_rule(n)
    for degree in range(DEGREES[n] + 1):
        assert weights @ nodes**degree == pytest.approx(1 / (degree + 1), abs=1e-14)
    beyond = DEGREES[n] + 1  # even, as the rule is symmetric
    assert abs(weights @ (2 * nodes - 1) ** beyond - 1 / (beyond + 1)) > 1e-9


@pytest.mark.parametrize(
    ("function", "integral"),
    [(np.exp, math.e - 1), (lambda x: 1 / (1 + x), math.log(2)), (lambda x: np.cos(5 * x), math.sin(5) / 5)],
)
def test_rule_converges_on_smooth_functions(function: Callable[[Any], Any], integral: float) -> None:
    errors = [abs(weights @ function(nodes) - integral) for nodes, weights in map(nested_rule, (3, 5, 9, 17))]
    assert errors[3] < 1e-12
    assert all(fine < coarse / 10 or fine < 1e-14 for coarse, fine in pairwise(errors))


@pytest.mark.parametrize("n", DEGREES)
def test_rules_nest_and_are_symmetric_with_positive_weights(n: int) -> None:
    nodes, weights = nested_rule(n)
    assert len(nodes) == len(weights) == n
    if n < max(DEGREES):
        np.testing.assert_allclose(nested_rule(2 * n - 1)[0][::2], nodes, rtol=0, atol=1e-14)
    np.testing.assert_allclose(nodes[::-1], 1 - nodes, rtol=0, atol=1e-13)
    np.testing.assert_allclose(weights[::-1], weights, rtol=0, atol=1e-13)
    assert nodes[0] == 0.0
    assert nodes[-1] == 1.0
    assert (np.diff(nodes) > 0).all()
    assert (weights > 0).all()
    assert weights.sum() == pytest.approx(1)


def test_known_rules() -> None:
    np.testing.assert_allclose(nested_rule(2)[1], [1 / 2, 1 / 2], rtol=1e-14)
    np.testing.assert_allclose(nested_rule(3)[1], [1 / 6, 4 / 6, 1 / 6], rtol=1e-14)
    lobatto = math.sqrt(3 / 7)
    np.testing.assert_allclose(nested_rule(5)[0], (1 + np.array([-1, -lobatto, 0, lobatto, 1])) / 2, atol=1e-14)
    np.testing.assert_allclose(nested_rule(5)[1], [9 / 180, 49 / 180, 64 / 180, 49 / 180, 9 / 180], rtol=1e-13)


@pytest.mark.parametrize("n", [1, 0, -3, 4, 6, 33])
def test_other_rules_there_are_not(n: int) -> None:
    with pytest.raises(ValueError, match=f"2, 3, 5, 9 or 17 nodes, got n={n}"):
        nested_rule(n)


# ---------------------------------------------------------------------------------------------- fixed rules


@pytest.mark.parametrize("size", [None, 1, 2, 5])
@pytest.mark.parametrize("turn", [list, sorted, lambda nodes: nodes[::-1]], ids=["as asked", "sorted", "reversed"])
def test_fixed_integral_is_the_weighted_sum_however_it_is_fed(
    size: int | None, turn: Callable[[list[float]], list[float]]
) -> None:
    nodes, weights = [0.9, 0.1, 0.5, 0.3, 0.0], [0.3, 0.2, 0.4, 0.1, 0.0]
    integral = FixedIntegral(nodes, weights)
    rounds = feed(integral, lambda x: np.array([x, x**2]), order=turn, size=size)
    assert rounds == [nodes]
    np.testing.assert_allclose(integral.total, [np.dot(weights, nodes), np.dot(weights, np.square(nodes))], rtol=1e-15)
    assert integral.evaluations == 5
    assert integral.converged
    assert math.isnan(integral.error)


def test_fixed_integral_waits_for_its_last_value() -> None:
    integral = FixedIntegral([0.0, 1.0], [0.5, 0.5])
    assert integral.todo() == [0.0, 1.0]
    assert integral.waiting
    integral.receive([1.0], [np.ones(1)], [0.0])
    assert integral.waiting
    integral.receive([0.0], [np.ones(1)], [0.0])
    assert not integral.waiting
    assert integral.todo() == []


def test_nodes_and_weights_must_match() -> None:
    with pytest.raises(ValueError, match="shorter"):
        FixedIntegral([0.0, 1.0], [1.0])


# ------------------------------------------------------------------------------------- functions to integrate


def line(slope: float, height: float) -> tuple[Scalar, Scalar]:
    return lambda x: slope * x + height, lambda x: slope * x * x / 2 + height * x


def log_cosh(u: float) -> float:
    return abs(u) + math.log1p(math.exp(-2 * abs(u)))  # + a constant


def switch(at: float, width: float) -> tuple[Scalar, Scalar]:
    """Goes from -1 to 1 around a place."""
    return lambda x: math.tanh((x - at) / width), lambda x: width * log_cosh((x - at) / width)


def bump(at: float, width: float) -> tuple[Scalar, Scalar]:
    """The derivative of such a switch: the integrand of a probability that flips."""

    def entry(x: float) -> float:
        u = (x - at) / width
        return 0.0 if abs(u) > 350 else 1 / (math.cosh(u) ** 2 * width)

    return entry, lambda x: math.tanh((x - at) / width)


def wave(frequency: float) -> tuple[Scalar, Scalar]:
    return lambda x: math.cos(frequency * x), lambda x: math.sin(frequency * x) / frequency


def kink(at: float) -> tuple[Scalar, Scalar]:
    return lambda x: abs(x - at), lambda x: (x - at) * abs(x - at) / 2


def jump(at: float) -> tuple[Scalar, Scalar]:
    return lambda x: float(x > at), lambda x: max(0.0, x - at)


EXP = (lambda x: math.exp(3 * x), lambda x: math.exp(3 * x) / 3)
ROOT = (lambda x: math.sqrt(x), lambda x: x**1.5 / 1.5)
ROOT_AT_END = (lambda x: math.sqrt(1 - x), lambda x: -((1 - x) ** 1.5) / 1.5)
PEAK = (lambda x: 1 / (x + 0.01), lambda x: math.log(x + 0.01))
RUNGE = (lambda x: 1 / (1 + 100 * (x - 0.5) ** 2), lambda x: math.atan(10 * (x - 0.5)) / 10)

SMOOTH = (
    Function("line", (line(2.0, 1.0),)),
    Function("polynomial and line", ((lambda x: x**3, lambda x: x**4 / 4), line(-1.0, 1.0))),
    Function("exp", (EXP,)),
    Function("wave", (wave(20.0),)),
    Function("wave, exp and line", (wave(7.0), EXP, line(1.0, 0.0))),
    Function("wide switch", (switch(0.3789, 0.3), line(0.0, 0.5))),
)
SHARP = (
    Function("switch 1e-2", (switch(0.3789, 1e-2),)),
    Function("switch 1e-3", (switch(0.3789, 1e-3),)),
    Function("switch 1e-2 and line", (switch(0.41, 1e-2), line(0.3, 0.2))),
    Function("peak at an end", (PEAK,)),
    Function("Runge", (RUNGE,)),
    Function("root", (ROOT,)),
    Function("root at the far end", (ROOT_AT_END,)),
    Function("root and line", (ROOT, line(-1.0, 0.0))),
    Function("kink", (kink(1 / 3),)),
    Function("jump", (jump(1 / 3),)),
    Function("many waves", (wave(60.0), line(0.0, 1.0))),
)
# Rules that straddle a kink are all about as wrong, and the line hides half of it from the antiderivative.
UNLUCKY = (Function("kink and line", (kink(0.7), line(0.2, 1.0))),)
# Nothing of these is seen at the first three nodes.
HIDDEN = (
    Function("bump 1e-2", (bump(0.3789, 1e-2), line(0.0, 1.0))),
    Function("bump 1e-3", (bump(0.3789, 1e-3), line(0.0, 1.0))),
    Function("bump 1e-4", (bump(0.63, 1e-4), line(0.0, 1.0))),
    Function("two bumps", (bump(0.27, 1e-3), bump(0.63, 1e-3), line(0.0, 1.0))),
)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4, 1e-6, 1e-9)
ROUNDING = 1e-13


def by_name(function: Function) -> str:
    return function.name


# ---------------------------------------------------------------------------------------- adaptive integrals


@pytest.mark.parametrize("tolerance", TOLERANCES)
@pytest.mark.parametrize("function", SMOOTH + SHARP + UNLUCKY + HIDDEN, ids=by_name)
def test_error_is_below_the_tolerance_and_not_underestimated(function: Function, tolerance: float) -> None:
    integral = adaptive(function, tolerance)
    error = relative_error(integral, function)
    assert integral.converged
    assert error <= tolerance * (3 if function in UNLUCKY else 1) + ROUNDING
    assert error <= 3 * integral.error + ROUNDING
    assert integral.error <= tolerance


@pytest.mark.parametrize("tolerance", TOLERANCES)
@pytest.mark.parametrize("function", SMOOTH, ids=by_name)
def test_smooth_functions_need_no_antiderivative(function: Function, tolerance: float) -> None:
    integral = adaptive(function, tolerance, known=False)
    assert relative_error(integral, function) <= min(tolerance, 3 * integral.error) + ROUNDING
    with_it = adaptive(function, tolerance)
    assert with_it.evaluations == integral.evaluations


@pytest.mark.parametrize("function", HIDDEN, ids=by_name)
def test_hidden_bump_is_found_by_the_antiderivative_alone(function: Function) -> None:
    blind = adaptive(function, 1e-3, known=False)
    assert blind.evaluations == 3
    assert relative_error(blind, function) > 0.3
    assert adaptive(function, 1e-3).evaluations > 30


def entry_of(a: float, b: float, growth: float, frequency: float, phase: float) -> tuple[Scalar, Scalar]:
    """a exp(growth x) cos(frequency x + phase) + b."""
    power = complex(growth, frequency)
    start = complex(math.cos(phase), math.sin(phase)) * a

    def value(x: float) -> float:
        return (start * np.exp(power * x)).real + b

    def primitive(x: float) -> float:
        # (exp(p x) - 1) / p, by its series where p is small
        grown = np.expm1(power * x) / power if abs(power) > 1e-3 else x + power * x * x / 2 + power**2 * x**3 / 6
        return (start * grown).real + b * x

    return value, primitive


@pytest.mark.parametrize("known", [True, False], ids=["F known", "F unknown"])
@pytest.mark.parametrize("tolerance", TOLERANCES[1:])
@pytest.mark.parametrize("seed", range(25))
def test_smooth_random_functions(seed: int, tolerance: float, known: bool) -> None:
    """Of many entries, as maps are: of a single one any three rules can agree by chance."""
    draw = np.random.default_rng(seed).uniform((-2, -2, -3, 0, 0), (2, 2, 3, 8, 6), (16, 5))
    function = Function("random", tuple(entry_of(*entry) for entry in draw.tolist()))
    size, spread = norm(function.integral), max(abs(function(x)).max() for x in np.linspace(0, 1, 9))
    if size < 1e-2 * spread or spread == 0:  # relative to an integral that cancels, nothing is small
        return
    integral = adaptive(function, tolerance, known=known)
    assert integral.converged
    error = relative_error(integral, function)
    assert error <= tolerance + ROUNDING
    assert error <= 3 * integral.error + ROUNDING


def test_zero_function() -> None:
    for tolerance in (1e-1, 1e-9):
        integral = AdaptiveIntegral(tolerance, 100, precision=1e-6)
        assert len(feed(integral, lambda x: np.zeros((2, 3)), lambda x: 0.7)) == 1
        assert integral.converged
        assert integral.error == 0.0
        np.testing.assert_array_equal(integral.total, np.zeros((2, 3)))


def test_integral_that_cancels_has_no_small_relative_error() -> None:
    """The three-node sum of these values is exactly zero; what its error is relative to it, nobody can say."""
    weights = nested_rule(3)[1]
    values = iter([1.0, -weights[0] / weights[1], 0.0])
    integral = AdaptiveIntegral(1e-3, 3)
    feed(integral, lambda x: np.array(next(values)))
    assert integral.total == 0.0
    assert not integral.converged
    assert integral.error == math.inf


@pytest.mark.parametrize("max_nodes", [5, 6, 10, 11, 30, 31, 100])
def test_ceiling(max_nodes: int) -> None:
    function = Function("switch 1e-4", (switch(0.3789, 1e-4), line(1.0, 0.3)))
    integral = adaptive(function, 1e-12, max_nodes)
    assert 3 <= integral.evaluations <= max_nodes
    assert not integral.converged
    assert integral.error > 1e-12
    assert relative_error(integral, function) <= 3 * integral.error
    assert integral.todo() == []
    assert not integral.waiting
    enough = adaptive(function, 1e-12)
    assert enough.converged
    assert enough.evaluations > max_nodes


@pytest.mark.parametrize("function", SMOOTH + SHARP + HIDDEN, ids=by_name)
def test_no_value_is_asked_for_twice(function: Function) -> None:
    calls: list[float] = []
    integral = AdaptiveIntegral(1e-6, 2_000)

    def count(x: float) -> np.ndarray:
        calls.append(x)
        return function(x)

    rounds = feed(integral, count, lambda x: float(function.antiderivative(x).sum()))
    assert len(rounds[0]) == 3
    assert len(set(calls)) == len(calls) == integral.evaluations == sum(map(len, rounds))
    assert all(0 <= x <= 1 for x in calls)


@pytest.mark.parametrize(
    ("function", "counts"),
    [
        pytest.param(Function("", (line(1.0, 2.0),)), [3], id="exact at once"),
        # 5 nodes hold the 3 of before, 9 the 5, 17 the 9
        pytest.param(
            Function("", ((lambda x: math.exp(3 * x), lambda x: math.exp(3 * x) / 3),)), [3, 2, 4, 8], id="nested"
        ),
        # two halves share the ends and the middle with the whole: 2 x 3 - 1 nodes, of which 3 are known
        pytest.param(
            Function("halved", ((lambda x: math.exp(6 * x), lambda x: math.exp(6 * x) / 6),)), [3, 2], id="halved"
        ),
    ],
)
def test_rounds_ask_only_for_what_is_new(function: Function, counts: list[int]) -> None:
    rounds = feed(AdaptiveIntegral(1e-14, sum(counts)), function, lambda x: float(function.antiderivative(x).sum()))
    assert [len(nodes) for nodes in rounds] == counts
    asked = sorted(x for nodes in rounds for x in nodes)
    expected = [0.0, 0.25, 0.5, 0.75, 1.0] if function.name == "halved" else nested_rule(len(asked))[0]
    np.testing.assert_allclose(asked, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("function", SMOOTH + SHARP + HIDDEN, ids=by_name)
def test_order_and_size_of_portions_change_nothing(function: Function) -> None:
    whole = adaptive(function, 1e-4)
    shuffle = random.Random(0).sample
    for size in (1, 2, 3, 7):
        other = adaptive(function, 1e-4, order=lambda nodes: shuffle(nodes, len(nodes)), size=size)
        assert other.evaluations == whole.evaluations
        assert other.error == whole.error
        np.testing.assert_array_equal(other.total, whole.total)


def test_partial_answers_are_waited_for() -> None:
    integral = AdaptiveIntegral(1e-3, 100)
    nodes = integral.todo()
    for x in nodes[:-1]:
        integral.receive([x], [np.array(x)], [0.0])
        assert integral.waiting
        assert not integral.converged
        assert integral.error == math.inf
    integral.receive(nodes[-1:], [np.array(nodes[-1])], [0.5])
    assert not integral.waiting
    assert integral.converged


def test_rounding_stops_refinement() -> None:
    """Where values carry noise, no more nodes are spent on it than their precision is worth."""
    noise = random.Random(0)
    precision = 1e-4

    def noisy(x: float) -> np.ndarray:
        return np.array(math.exp(x) * (1 + precision * noise.uniform(-1, 1)))

    strict = AdaptiveIntegral(1e-9, 300)
    feed(strict, noisy)
    assert not strict.converged
    aware = AdaptiveIntegral(1e-9, 300, precision)
    feed(aware, noisy)
    assert aware.converged
    assert aware.evaluations <= 17
    assert precision / 2 < aware.error < 10 * precision  # and it does not claim the tolerance
    assert abs(aware.total - (math.e - 1)) / (math.e - 1) <= aware.error


def test_gap_within_rounding_of_the_antiderivative_is_no_gap() -> None:
    noise = random.Random(0)

    def known(x: float) -> float:
        return 100 + x + 100 * 1e-6 * noise.uniform(-0.5, 0.5)

    for precision, rounds in ((1e-6, 1), (0.0, 2)):
        integral = AdaptiveIntegral(1e-6, 5, precision)
        assert len(feed(integral, lambda x: np.ones(1), known)) == rounds


@pytest.mark.parametrize("function", [SMOOTH[4], SHARP[2], HIDDEN[0]], ids=by_name)
def test_numpy_and_torch_alike(function: Function) -> None:
    def matrix(x: float) -> np.ndarray:
        return np.outer(function(x), [1.0, -2.0])

    def known(x: float) -> float:
        return -float(function.antiderivative(x).sum())

    arrays, tensors = AdaptiveIntegral(1e-6, 1_000), AdaptiveIntegral(1e-6, 1_000)
    feed(arrays, matrix, known)
    feed(tensors, lambda x: torch.from_numpy(matrix(x)), known)
    assert isinstance(arrays.total, np.ndarray)
    assert isinstance(tensors.total, torch.Tensor)
    assert tensors.evaluations == arrays.evaluations
    assert tensors.error == pytest.approx(arrays.error, rel=1e-9)
    np.testing.assert_allclose(tensors.total.numpy(), arrays.total, rtol=0, atol=1e-14)


@pytest.mark.parametrize("power", [-100, -80, -40, 60, 100])
def test_scale_of_the_integrand_does_not_matter(power: int) -> None:
    """An unlikely word's probability of 1e-20 is attributed as carefully as one of 0.5, in float32 too."""
    function, runs = SHARP[2], []
    for scale in (1.0, 2.0**power):
        integral = AdaptiveIntegral(1e-4, 1_000, 1e-6)
        feed(
            integral,
            lambda x, scale=scale: torch.tensor(function(x), dtype=torch.float32) * scale,
            lambda x, scale=scale: float(function.antiderivative(x).sum()) * scale,
        )
        runs.append(integral)
    assert runs[1].evaluations == runs[0].evaluations > 20
    assert runs[1].error == pytest.approx(runs[0].error, rel=1e-4)
    torch.testing.assert_close(runs[1].total / 2.0**power, runs[0].total, rtol=1e-6, atol=0)


def test_jump_is_bisected_until_floating_point_ends() -> None:
    integral = adaptive(Function("jump", (jump(1 / 3),)), 1e-14, 5_000)
    assert not integral.converged
    assert integral.total == pytest.approx(2 / 3, abs=1e-12)


# --------------------------------------------------------------------------------- what is not known or not finite

POINTS = [float(x) for x in nested_rule(17)[0]]
FIRST_NODES, SECOND_NODES = POINTS[::8], POINTS[4::8]
assert AdaptiveIntegral(1e-3, 5).todo() == FIRST_NODES


def outcome(integral: AdaptiveIntegral) -> tuple[Any, ...]:
    return integral.evaluations, integral.error, integral.converged, integral.total.tolist()


@pytest.mark.parametrize("unknown", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("where", range(5))
@pytest.mark.parametrize("function", [SMOOTH[4], SHARP[2], HIDDEN[0]], ids=by_name)
def test_antiderivative_that_is_not_known_at_one_node(function: Function, where: int, unknown: float) -> None:
    """At the interval's ends it leaves the outer panels to the rules alone; elsewhere nothing hangs on it."""
    missing = POINTS[4 * where]

    def known(x: float) -> float:
        return unknown if x == missing else float(function.antiderivative(x).sum())

    integral, whole = AdaptiveIntegral(1e-4, 2_000, 1e-12), AdaptiveIntegral(1e-4, 2_000, 1e-12)
    feed(integral, function, known)
    feed(whole, function, lambda x: float(function.antiderivative(x).sum()))
    assert integral.converged
    assert math.isfinite(integral.error)
    if where in (1, 3):  # nodes of the second rule; the middle becomes an end when the panel is halved
        assert outcome(integral) == outcome(whole)


@pytest.mark.parametrize("function", SMOOTH + SHARP, ids=by_name)
def test_antiderivative_that_is_known_nowhere_may_be_nan_or_infinite(function: Function) -> None:
    of_nan = adaptive(function, 1e-4, known=False)
    for unknown in (math.inf, -math.inf):
        integral = AdaptiveIntegral(1e-4, 2_000)
        feed(integral, function, lambda x, unknown=unknown: unknown)
        assert outcome(integral) == outcome(of_nan)


@pytest.mark.parametrize("array", [np.array, torch.tensor], ids=["numpy", "torch"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("entry", range(3))
@pytest.mark.parametrize("known", [True, False], ids=["F known", "F unknown"])
@pytest.mark.parametrize("node", [*FIRST_NODES, *SECOND_NODES])
def test_value_that_is_not_finite_ends_the_integral_with_an_infinite_error(
    node: float, known: bool, entry: int, value: float, array: Callable[[list[float]], Any]
) -> None:
    def function(x: float) -> Any:
        values = [math.exp(3 * x), x, 1.0]
        if x == node:
            values[entry] = value
        return array(values)

    integral = AdaptiveIntegral(1e-9, 1_000, 1e-12)
    rounds = feed(integral, function, (lambda x: math.exp(3 * x) / 3 + x * x / 2 + x) if known else None)
    assert len(rounds) == (1 if node in FIRST_NODES else 2)
    assert integral.error == math.inf
    assert not integral.converged
    assert integral.evaluations == sum(map(len, rounds))


def test_values_that_overflow_only_together_end_the_integral_too() -> None:
    integral = AdaptiveIntegral(1e-3, 1_000)
    assert len(feed(integral, lambda x: torch.full((100,), 3e38), lambda x: x)) == 1
    assert integral.error == math.inf
    assert not integral.converged


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("array", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_norm_of_what_is_not_finite(array: Callable[[list[float]], Any], value: float, place: int) -> None:
    values = [0.0, 1.0, -2.0, 0.0]
    values[place] = value
    assert not math.isfinite(norm(array(values)))
