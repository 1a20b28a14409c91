"""Measures of faithfulness: their closed forms, other people's code, and samples too small for them."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from scipy import stats

from captum_attattr.evaluation import measures

FRACTIONS = np.array(measures.FRACTIONS)
GENERATOR = np.random.default_rng(0)


def linear(contributions: np.ndarray, order: np.ndarray, fractions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """keep and delete of outputs .1 + the sum of the units that are there, (N, K) each."""
    counts = measures.unit_counts(fractions, contributions.shape[1])
    ranked = np.take_along_axis(contributions, order, 1)
    keep = 0.1 + np.stack([ranked[:, :count].sum(1) for count in counts], 1)
    delete = 0.1 + np.stack([ranked[:, count:].sum(1) for count in counts], 1)
    return keep, delete


def test_an_output_that_adds_up() -> None:
    """What is kept and what is deleted share the output out, so both measures of the right ranking are known."""
    contributions = GENERATOR.random((7, 200))
    full, empty = 0.1 + contributions.sum(1), np.full(7, 0.1)
    keep, delete = linear(contributions, np.argsort(-contributions, 1), FRACTIONS)
    np.testing.assert_allclose(keep[:, -1], full)
    np.testing.assert_allclose(delete[:, -1], empty)
    np.testing.assert_allclose(
        measures.comprehensiveness(full, delete) + measures.sufficiency(full, keep), full - empty
    )
    worst, _ = linear(contributions, np.argsort(contributions, 1), FRACTIONS)
    f, low = (measures.recovered(full, empty, each) for each in (keep, worst))
    assert (measures.sufficiency(full, keep) < measures.sufficiency(full, worst)).all()
    assert (measures.cpr(FRACTIONS, f) > measures.cpr(FRACTIONS, low)).all()
    assert (measures.cmd(FRACTIONS, f) < measures.cmd(FRACTIONS, low)).all()
    # As long as nothing overshoots, the two areas make up the whole width.
    np.testing.assert_allclose(measures.cpr(FRACTIONS, f) + measures.cmd(FRACTIONS, f), np.ptp(FRACTIONS))


@pytest.mark.parametrize("fractions", [[0.001, 1.0], [0.01, 0.1, 0.5], measures.FRACTIONS])
def test_a_curve_that_is_one_everywhere(fractions: Any) -> None:
    ones = np.ones((3, len(fractions)))
    np.testing.assert_allclose(measures.cpr(fractions, ones), max(fractions) - min(fractions))
    np.testing.assert_allclose(measures.cmd(fractions, ones), 0)


def test_distance_counts_overshooting_and_the_ratio_takes_it_for_good() -> None:
    """Which is why CPR never stands without CMD."""
    twice = np.full((1, len(FRACTIONS)), 2.0)
    assert measures.cpr(FRACTIONS, twice) > np.ptp(FRACTIONS)
    np.testing.assert_allclose(measures.cmd(FRACTIONS, twice), np.ptp(FRACTIONS))


def test_one_fraction_has_no_integral() -> None:
    assert np.isnan(measures.cpr([0.1], [[0.5]])).all()
    assert np.isnan(measures.cmd([0.1], [[0.5]])).all()


def test_recovered_share_of_nothing_is_unknown() -> None:
    shares = measures.recovered([1, 1], [0, 1], [[0.5, 1], [0.5, 1]])
    assert shares[0].tolist() == [0.5, 1]
    assert np.isnan(shares[1]).all()


@pytest.mark.parametrize(
    ("full", "empty", "probability", "kept"),
    [
        ([0.9, 0.54, 0.5, 0.44], [0.5, 0.5, 0.5, 0.5], True, [True, False, False, True]),
        ([-10, -0.4, 3.0], [0, 0, 0], False, [True, False, True]),  # 5 % of 10
        ([0.001, 0.002], [0, 0], False, [True, True]),
        ([0.001, 0.002], [0, 0], True, [False, False]),
        ([3.0, 3.0], [3.0, 3.0], False, [False, False]),
    ],
)
def test_examples_on_which_attention_does_nothing_are_left_out(full, empty, probability, kept) -> None:
    assert measures.kept_examples(full, empty, probability).tolist() == kept


@pytest.mark.parametrize(
    ("fractions", "n", "counts"),
    [
        (measures.FRACTIONS, 4608, [5, 9, 23, 46, 92, 230, 461, 922, 2304, 4608]),
        ([0.001, 0.5, 1], 1, [1, 1, 1]),
        ([0.1], 25, [round(2.5)]),
    ],
)
def test_numbers_of_units(fractions, n, counts) -> None:
    assert measures.unit_counts(fractions, n).tolist() == counts == [max(1, round(k * n)) for k in fractions]


def test_equal_scores_rank_in_their_order() -> None:
    assert measures.top_units([0, 2, 1, 2, 0], 4).tolist() == [1, 3, 2, 0]
    many = np.tile([0.0, 1.0], 500)
    assert measures.top_units(many, 1000).tolist() == [*range(1, 1000, 2), *range(0, 1000, 2)]


# ------------------------------------------------------------------------------------------ intervals


def test_interval_is_scipys_and_does_not_change() -> None:
    values = GENERATOR.exponential(size=40)
    found = measures.interval(values)
    assert found == measures.interval(values) != measures.interval(values, seed=1)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", random_state=np.random.default_rng(5)
    ).confidence_interval
    assert found.mean == values.mean()
    np.testing.assert_allclose(found[1:], expected, atol=0.05 * np.ptp(expected))
    narrow = measures.interval(values, confidence=0.5)
    assert found.low < narrow.low < values.mean() < narrow.high < found.high


def test_interval_holds_the_mean_as_often_as_it_says() -> None:
    held = [
        found.low <= 0.5 <= found.high for found in (measures.interval(GENERATOR.random(30), 0.9) for _ in range(200))
    ]
    assert 0.8 <= np.mean(held) <= 0.97


def test_left_out_examples_do_not_count() -> None:
    values = GENERATOR.random(10)
    assert measures.interval([*values, math.nan, math.nan]) == measures.interval(values)


@pytest.mark.parametrize(
    ("values", "mean", "reason"),
    [
        ([1], 1, "no interval of 1 example: it takes 5 or more"),
        ([1, 2, 3, 4], 2.5, "no interval of 4 examples"),
        ([1, 2, 3, 4, math.nan], 2.5, "no interval of 4 examples"),
        ([0.1] * 9, 0.1, "no interval: all 9 examples have the same value"),
    ],
)
def test_small_samples_have_a_mean_and_one_warning(values, mean, reason) -> None:
    with pytest.warns(UserWarning, match=reason) as warned:
        found = measures.interval(values)
    assert len(warned) == 1
    assert found.mean == pytest.approx(mean)
    assert np.isnan(found[1:]).all()


@pytest.mark.parametrize("values", [[], [math.nan]])
def test_no_example_is_an_error(values) -> None:
    with pytest.raises(ValueError, match="no example has a value"):
        measures.interval(values)
    assert np.isnan(measures.quiet_interval(values)).all()


def test_bands_are_intervals_of_each_column() -> None:
    values = GENERATOR.random((12, 3))
    values[:, 2] = 0.7
    low, high = measures.bands(values)
    for column in range(2):
        assert (low[column], high[column]) == pytest.approx(measures.interval(values[:, column])[1:], abs=0.02)
    assert (low[2], high[2]) == pytest.approx((0.7, 0.7))
    assert np.isnan(measures.bands(values[:4])).all()


# ------------------------------------------------------------------------------------------ correlations, stability


def test_correlations_are_scipys() -> None:
    scores, effects = GENERATOR.random((2, 30))
    with_gap = np.r_[scores, math.nan], np.r_[effects, 3.0]
    expected = stats.spearmanr(scores, effects).statistic, stats.pearsonr(scores, effects).statistic
    assert measures.correlations(*with_gap) == pytest.approx(expected)
    assert measures.correlations(scores, -scores) == pytest.approx((-1, -1))


@pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0, 2.0], [1.0, math.nan, math.nan]])
def test_correlations_of_nothing_are_unknown(scores) -> None:
    assert np.isnan(measures.correlations(scores, range(len(scores)))).all()


def test_nearly_constant_scores_still_have_ranks() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert measures.correlations([1.0, 1 + 1e-15, 1 + 2e-15], [1, 2, 3])[0] == pytest.approx(1)


def test_stability_is_one_where_examples_agree_and_low_where_they_do_not() -> None:
    same = np.tile(GENERATOR.random(72), (20, 1))
    assert measures.stability(same) == 1
    noise = GENERATOR.standard_normal((20, 72))
    chance = measures.stability(noise)
    assert 0 < chance < 0.6
    assert measures.stability(noise) == chance != measures.stability(noise, seed=1)
    assert chance < measures.stability(noise + 2 * same) < 1
    missing = np.c_[same, np.full(20, math.nan)]
    assert measures.stability(missing) == 1
    assert math.isnan(measures.stability(missing[:, -1:]))
    with pytest.warns(UserWarning, match="no stability of 3 examples"):
        assert math.isnan(measures.stability(same[:3]))


def test_stability_of_a_sample_that_names_two_sets() -> None:
    """Every example names head 0, and head 1 or head 2: a resample agrees in both, or in one of three."""
    scores = np.array([[9.0, 1.0, 0.0, -1.0]] * 6 + [[9.0, 0.0, 1.0, -1.0]] * 5)
    agree = stats.binom.sf(5, 11, 6 / 11)
    found = measures.stability(scores, top=0.5, resamples=4000)
    assert found == pytest.approx(agree + (1 - agree) / 3, abs=0.02)


# ------------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([], ValueError, "fractions is empty; give at least one"),
        ([0, 0.5], ValueError, r"above 0 and at most 1, but \[0\] is 0"),
        ([0.5, 1.5], ValueError, r"\[1\] is 1.5"),
        ([0.5, 0.1], ValueError, r"fractions must rise, but \[1\] is 0.1 after 0.5"),
        ([0.1, 0.1], ValueError, r"fractions must rise, but \[1\] is 0.1 after 0.1"),
        ([0.1, math.nan], ValueError, "must be finite"),
        ("0.1", TypeError, "fractions must be a list, not str"),
        (0.1, TypeError, "fractions must be a list, not float"),
        ([0.1, "a"], TypeError, "must be numbers"),
        ([0.1, True], TypeError, "must be numbers"),
    ],
)
def test_wrong_fractions(value, error, message) -> None:
    with pytest.raises(error, match=message):
        measures.checked_fractions("fractions", value)


def test_fractions_of_any_library() -> None:
    for given in ((0.25, 1), np.array([0.25, 1]), torch.tensor([0.25, 1]), pandas.Series([0.25, 1], index=[7, 5])):
        found = measures.checked_fractions("fractions", given)
        assert found == [0.25, 1.0]
        assert set(map(type, found)) == {float}


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([0, 1], ValueError, "counts must be 1 or more"),
        ([2, 1], ValueError, r"counts must rise, but \[1\] is 1 after 2"),
        ([1.5], TypeError, "counts must be integers"),
        (3, TypeError, "counts must be a list"),
    ],
)
def test_wrong_counts(value, error, message) -> None:
    with pytest.raises(error, match=message):
        measures.checked_counts("counts", value)
    assert measures.checked_counts("counts", (1, np.int64(4))) == [1, 4]
