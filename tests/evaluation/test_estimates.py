"""Figures with their intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from thinkprm_jax.evaluation.estimates import (
    Estimate,
    bootstrap_average,
    bootstrap_estimate,
    estimate_from_json,
    estimate_json,
    share_estimate,
    show_gain,
    show_interval,
    widened,
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


def test_an_interval_without_width_takes_the_bounds_of_its_shares():
    perfect = share_estimate(1.0, 20)
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
    recall = share_estimate(0.0, 20)
    found = widened(Estimate(0.0, 0.0, 0.0, 40), [(share_estimate(math.nan, 0), recall)])
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high == pytest.approx(2 * recall.high / (1 + recall.high))
