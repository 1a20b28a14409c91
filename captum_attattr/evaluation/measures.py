"""Measures of faithfulness, of the output F with only the top units of a ranking and without them.

Everything here is float64. N examples, K fractions of the units, C counts of units; F(all) is `full`, F(none) `empty`.
"""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from captum_attattr import checks
from captum_attattr.formatting import counted

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Those of the MIB benchmark's circuit track (Mueller et al. 2025)."""
FEWEST = 5
"""Examples that an interval needs."""

_TOO_FEW = f"it takes {FEWEST} or more"
_SMALL = 0.05  # of F(all) - F(none): below, a share of it is a division by next to nothing
_RESAMPLES = 5000
_BAND_RESAMPLES = 1000
_BATCH = 500  # resamples in memory at a time


class Interval(NamedTuple):
    """A mean over examples and the bounds of its interval; these are NaN where there are too few examples."""

    mean: float
    low: float
    high: float


def checked_fractions(name: str, value: Any) -> list[float]:
    """Return fractions of the units, above 0 to 1 and rising, as Python's own.

    Raises:
        TypeError, ValueError: they are something else, or there is none; the message begins with `name`.
    """
    fractions = checks.reals(name, checks.listed(value))
    if not fractions:
        raise ValueError(f"{name} is empty; give at least one fraction, such as 0.01")
    for position, fraction in enumerate(fractions):
        if not 0 < fraction <= 1:
            raise ValueError(f"{name} must be above 0 and at most 1, but [{position}] is {fraction}")
    _check_rising(name, fractions)
    return fractions


def checked_counts(name: str, value: Any) -> list[int]:
    """Return numbers of units, of 1 or more and rising, as Python's own.

    Raises:
        TypeError, ValueError: they are something else; the message begins with `name`.
    """
    counts = checks.integers(name, checks.listed(value), smallest=1)
    _check_rising(name, counts)
    return counts


def _check_rising(name: str, values: list[Any]) -> None:
    for position, (earlier, later) in enumerate(pairwise(values), start=1):
        if later <= earlier:
            raise ValueError(f"{name} must rise, but [{position}] is {later} after {earlier}")


def unit_counts(fractions: npt.ArrayLike, n: int) -> npt.NDArray[np.int64]:
    """Return how many units the top fractions of n are: max(1, round(k n)), (K,).

    Example:
        >>> unit_counts([0.001, 0.01, 0.1, 1], 144).tolist()
        [1, 1, 14, 144]
    """
    return np.maximum(1, np.rint(_floats(fractions) * n)).astype(np.int64)


def top_units(scores: npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """Return the positions of the `count` highest scores, the highest first, equal ones in their order."""
    return np.argsort(-_floats(scores), kind="stable")[:count].astype(np.int64)


def comprehensiveness(full: npt.ArrayLike, delete: npt.ArrayLike) -> Floats:
    r"""Return what the output loses without the top units: :math:`\frac{1}{K} \sum_k F(\mathrm{all}) - delete(k)`.

    High is good (DeYoung et al. 2020, as the area over the perturbation curve).

    Args:
        full: (N,) F(all).
        delete: (N, K) F without the top units.

    Returns:
        (N,)

    Example:
        >>> comprehensiveness([0.9, 0.8], [[0.5, 0.1], [0.8, 0.8]]).round(3).tolist()
        [0.6, 0.0]
    """
    return _floats((_floats(full)[:, None] - _floats(delete)).mean(1))


def sufficiency(full: npt.ArrayLike, keep: npt.ArrayLike) -> Floats:
    r"""Return what the output lacks with the top units alone: :math:`\frac{1}{K} \sum_k F(\mathrm{all}) - keep(k)`.

    Low is good (DeYoung et al. 2020).

    Args:
        full: (N,) F(all).
        keep: (N, K) F with only the top units.

    Returns:
        (N,)
    """
    return comprehensiveness(full, keep)


def recovered(full: npt.ArrayLike, empty: npt.ArrayLike, keep: npt.ArrayLike) -> Floats:
    r"""Return :math:`f(k) = \frac{keep(k) - F(\mathrm{none})}{F(\mathrm{all}) - F(\mathrm{none})}`, (N, K).

    It is 1 where the units kept do what all do, and not bounded. NaN where F(all) = F(none).
    """
    whole, none = _floats(full)[:, None], _floats(empty)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (_floats(keep) - none) / (whole - none)
    return np.where(np.isfinite(share), share, np.nan)


def cpr(fractions: npt.ArrayLike, f: npt.ArrayLike) -> Floats:
    r"""Return the circuit performance ratio :math:`\int f(k)\,dk` over the fractions, by the trapezoidal rule.

    High is good; units are ranked by signed score (Mueller et al. 2025). A curve that is 1 everywhere has the width
    of the range of fractions. Never read it without `cmd`, since f is not bounded.

    Args:
        fractions: (K,); of one there is no integral, but NaN.
        f: (N, K) of `recovered`.

    Returns:
        (N,)

    Example:
        >>> cpr([0.1, 0.5, 1], [[1, 1, 1], [0, 0.5, 1]]).round(3).tolist()
        [0.9, 0.475]
    """
    from scipy.integrate import trapezoid

    k, values = _floats(fractions), _floats(f)
    if len(k) < 2:
        return np.full(len(values), np.nan)
    return _floats(trapezoid(values, k, axis=1))


def cmd(fractions: npt.ArrayLike, f: npt.ArrayLike) -> Floats:
    r"""Return the circuit-model distance :math:`\int |1 - f(k)|\,dk` over the fractions, by the trapezoidal rule.

    Low is good; units are ranked by absolute score (Mueller et al. 2025). A curve that is 1 everywhere has 0.

    Args:
        fractions: (K,)
        f: (N, K) of `recovered`.

    Returns:
        (N,)

    Example:
        >>> cmd([0.1, 0.5, 1], [[1, 1, 1], [0, 1.5, 1]]).round(3).tolist()
        [0.0, 0.425]
    """
    return cpr(fractions, np.abs(1 - _floats(f)))


def kept_examples(full: npt.ArrayLike, empty: npt.ArrayLike, probability: bool) -> Bools:
    """Return which examples CPR and CMD are taken over, (N,).

    Others have so small a difference F(all) - F(none) that no share of it means anything: below .05 for
    probabilities, below 5 % of the sample's largest difference for other outputs.

    Example:
        >>> kept_examples([0.9, 0.52], [0.5, 0.5], probability=True).tolist()
        [True, False]
        >>> kept_examples([40, 3, 1], [0, 0, 0], probability=False).tolist()
        [True, True, False]
    """
    differences = np.abs(_floats(full) - _floats(empty))
    smallest = _SMALL if probability else _SMALL * differences.max(initial=0.0)
    return (differences >= smallest) & (differences > 0)


def interval(values: npt.ArrayLike, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean over examples, and its bootstrap interval over them (percentiles; `scipy.stats.bootstrap`).

    The same values and seed give the same interval. Of few examples it is too narrow: of 10 it has the mean in it some
    89 times in 100, of 20 some 91, where 95 are asked for.

    Args:
        values: (N,); NaN for examples that are left out.
        confidence: the probability that the interval has the mean in it.
        seed: of the resamples.

    Raises:
        ValueError: there is no value.

    Warns:
        UserWarning: there are fewer than five values, or all are equal: the bounds are NaN.

    Example:
        >>> [round(each, 2) for each in interval([0, 1, 0, 1, 1, 0, 0, 1, 1, 0])]
        [0.5, 0.2, 0.8]
    """
    known = _floats(values)
    if not (known := known[~np.isnan(known)]).size:
        raise ValueError("no example has a value: there is no mean")
    found = quiet_interval(known, confidence, seed)
    if np.isnan(found.low):
        warnings.warn(why_no_interval(known), UserWarning, stacklevel=2)
    return found


def why_no_interval(values: npt.ArrayLike) -> str:
    """Return why some values have no interval."""
    count = int((~np.isnan(_floats(values))).sum())
    if count < FEWEST:
        return f"no interval of {counted(count, 'example')}: {_TOO_FEW}"
    return f"no interval: all {count} examples have the same value"


def quiet_interval(values: npt.ArrayLike, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Return what `interval` does without a warning; NaN for the mean too where there is no value."""
    known = _floats(values)
    if not (known := known[~np.isnan(known)]).size:
        return Interval(np.nan, np.nan, np.nan)
    mean = float(known.mean())
    if len(known) < FEWEST or np.ptp(known) <= 1e-12 * np.abs(known).max():
        return Interval(mean, np.nan, np.nan)
    low, high = _bootstrap(known[:, None], confidence, seed, _RESAMPLES)
    return Interval(mean, float(low[0]), float(high[0]))


def bands(values: npt.ArrayLike, confidence: float = 0.95, seed: int = 0) -> tuple[Floats, Floats]:
    """Return the bounds of the bootstrap intervals of several means over the same examples.

    Args:
        values: (N, K); the columns are resampled together.
        confidence, seed: as `interval` has them.

    Returns:
        (K,) low and (K,) high: NaN for fewer than five examples, both the mean where all examples are equal.
    """
    columns = _floats(values)
    if len(columns) < FEWEST:
        nothing = np.full(columns.shape[1], np.nan)
        return nothing, nothing
    return _bootstrap(columns, confidence, seed, _BAND_RESAMPLES)


def _bootstrap(columns: Floats, confidence: float, seed: int, resamples: int) -> tuple[Floats, Floats]:
    from scipy.stats import bootstrap

    found = bootstrap(
        (columns,),
        np.mean,
        n_resamples=resamples,
        batch=_BATCH,
        vectorized=True,
        axis=0,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return np.asarray(found.low, np.float64), np.asarray(found.high, np.float64)


def correlations(scores: npt.ArrayLike, effects: npt.ArrayLike) -> tuple[float, float]:
    """Return Spearman's and Pearson's correlation of scores with the measured effects of removing what they score.

    Pairs with a NaN are left out; both are NaN for fewer than two pairs, and where one side is constant.

    Example:
        >>> [round(each, 3) for each in correlations([0.1, 0.2, 0.3], [1, 2, 4])]
        [1.0, 0.982]
    """
    from scipy.stats import pearsonr, spearmanr

    x, y = _floats(scores), _floats(effects)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of scores that are nearly constant: their ranks are none the less
        return float(spearmanr(x, y).statistic), float(pearsonr(x, y).statistic)


def stability(head_scores: npt.ArrayLike, top: float = 0.1, resamples: int = 200, seed: int = 0) -> float:
    r"""Return how far the top heads stay the same when other examples of the same kind are taken.

    The mean over bootstrap resamples of the Jaccard index :math:`|S \cap S_b| / |S \cup S_b|` of the top heads S of the
    mean over all examples with those :math:`S_b` of the mean over a resample.

    Args:
        head_scores: (N, heads) scores of every head for every example; heads with a NaN are left out.
        top: the fraction of the heads that are the top ones.
        resamples: how many.
        seed: of the resamples.

    Returns:
        From 0 to 1.

    Warns:
        UserWarning: there are fewer than five examples: the result is NaN. It is NaN too where no head has a score.
    """
    scores = _floats(head_scores)
    scores = scores[:, ~np.isnan(scores).any(0)]
    if len(scores) < FEWEST:
        warnings.warn(f"no stability of {counted(len(scores), 'example')}: {_TOO_FEW}", UserWarning, stacklevel=2)
        return np.nan
    if not scores.shape[1]:
        return np.nan
    count = int(unit_counts([top], scores.shape[1])[0])
    whole = set(top_units(scores.mean(0), count).tolist())
    generator = np.random.default_rng(seed)
    shared = np.empty(resamples)
    for each in range(resamples):
        mean = scores[generator.integers(len(scores), size=len(scores))].mean(0)
        shared[each] = len(whole & set(top_units(mean, count).tolist()))
    return float((shared / (2 * count - shared)).mean())


def _floats(values: npt.ArrayLike) -> Floats:
    return np.asarray(values, np.float64)
