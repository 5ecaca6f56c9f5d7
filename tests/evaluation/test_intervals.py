"""Figures with their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from thinkprm_jax.evaluation.intervals import (
    Estimate,
    bootstrap_average,
    bootstrap_estimate,
    estimate_from_json,
    estimate_json,
    mean_estimate,
    percentile_interval,
    share_estimate,
    show_gain,
    show_interval,
    widened,
    wilson_interval,
)


def mean_of(values: np.ndarray):
    return (lambda rows: float(values[rows].mean())), len(values)


def test_an_average_resamples_each_part_by_itself():
    # One part is all zeros, the other all ones: pooled, a resample would mix them; apart, nothing varies.
    found = bootstrap_average([mean_of(np.zeros(10)), mean_of(np.ones(30))], resamples=50)
    assert found == Estimate(0.5, 0.5, 0.5, 40)


def test_an_average_is_plain_and_its_interval_that_of_independent_parts():
    random = np.random.default_rng(0)
    parts = [random.normal(0.0, 1.0, 400), random.normal(4.0, 3.0, 100)]
    found = bootstrap_average([mean_of(part) for part in parts], resamples=2000)
    assert found.value == pytest.approx((parts[0].mean() + parts[1].mean()) / 2)
    half = 1.96 / 2 * math.sqrt(parts[0].var() / 400 + parts[1].var() / 100)
    assert found.low == pytest.approx(found.value - half, abs=0.03)
    assert found.high == pytest.approx(found.value + half, abs=0.03)


def test_an_average_with_an_empty_part_is_undefined():
    found = bootstrap_average([mean_of(np.ones(3)), mean_of(np.ones(0))])
    assert math.isnan(found.value)
    assert found.n == 3


def test_estimates_of_one_set_of_cases_are_resampled_alike():
    values = np.random.default_rng(0).random(50)
    twice = bootstrap_estimate(lambda rows: 2 * float(values[rows].mean()), 50)
    once = bootstrap_estimate(lambda rows: float(values[rows].mean()), 50)
    assert (twice.low, twice.high) == pytest.approx((2 * once.low, 2 * once.high))


def test_the_bootstrap_is_scipys():
    """The same rows are drawn, so the figures are the same to the last digit."""
    values = np.random.default_rng(0).random(50)
    ours = bootstrap_estimate(lambda rows: float(values[rows].mean()), 50, resamples=200, seed=3)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=200, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_the_bootstrap_of_a_mean_is_the_normal_interval():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    found = mean_estimate(values, resamples=2000)
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)
    assert found == mean_estimate(values, resamples=2000)


def test_the_bootstrap_leaves_out_resamples_without_a_class():
    labels = np.array([1, 0, 0])
    found = bootstrap_estimate(lambda rows: 1.0 if labels[rows].any() else math.nan, 3)
    assert (found.low, found.high) == (1.0, 1.0)
    assert math.isnan(bootstrap_estimate(lambda rows: math.nan, 3).low)
    assert math.isnan(bootstrap_estimate(lambda rows: 1.0, 0).low)


def test_percentile_interval_leaves_out_what_is_undefined():
    found = percentile_interval([math.nan, *range(101)], confidence=0.9)
    assert (found.low, found.high) == pytest.approx((5.0, 95.0))
    assert math.isnan(percentile_interval([math.nan]).low)


def test_wilson_interval_of_known_cases():
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for hits, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        found = wilson_interval(hits, n)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert wilson_interval(1000, 1000).high == 1.0
    assert math.isnan(wilson_interval(0, 0).low)


def test_an_interval_without_width_takes_the_bounds_of_its_shares():
    perfect = share_estimate(20, 20)
    found = widened(Estimate(1.0, 1.0, 1.0, 40), [(perfect, perfect)])
    assert (found.value, found.high, found.n) == (1.0, 1.0, 40)
    assert found.low == pytest.approx(perfect.low)
    other = Estimate(0.5, 0.4, 0.6, 40)
    assert widened(other, [(perfect, perfect)]) == other


def test_json_there_and_back():
    undefined = Estimate(math.nan, math.nan, math.nan, 0)
    assert estimate_json(undefined) == {"value": None, "low": None, "high": None, "n": 0}
    assert math.isnan(estimate_from_json(estimate_json(undefined)).value)
    estimate = Estimate(0.5, 0.25, 0.75, 8)
    assert estimate_from_json(estimate_json(estimate)) == estimate


def test_figures_for_people():
    assert show_gain(Estimate(0.061, -0.02, 0.169, 40), percent=False) == "+0.061 (-0.020 to +0.169)"
    assert show_gain(Estimate(0.061, -0.02, 0.169, 40), percent=True) == "+6.1 (-2.0 to +16.9)"
    assert show_gain(Estimate(0.0, 0.0, 0.0, 40), percent=True) == "0 (no case differs)"
    undefined = Estimate(math.nan, math.nan, math.nan, 0)
    assert (show_gain(undefined, True), show_interval(undefined, True)) == ("-", "-")


def test_a_share_of_nothing_bounds_nothing():
    recall = share_estimate(0, 20)
    found = widened(Estimate(0.0, 0.0, 0.0, 40), [(share_estimate(0, 0), recall)])
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(2 * recall.high / (1 + recall.high))
