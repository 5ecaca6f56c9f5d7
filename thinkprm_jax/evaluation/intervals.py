"""A figure with its interval and the number of cases behind it: the only form in which this package states one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thinkprm_jax.evaluation.metrics import harmonic_mean

Statistic = Callable[[np.ndarray], float]  # int [rows] of cases, perhaps with repetitions -> the figure for them


@dataclass(frozen=True)
class Interval:
    """A confidence interval; low and high are part of it."""

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95% interval, and the number of cases (solutions, problems) behind it. NaN where there are
    none."""

    value: float
    low: float
    high: float
    n: int


def undefined(n: int = 0) -> Estimate:
    """The estimate of what these n cases do not define."""
    return Estimate(math.nan, math.nan, math.nan, n)


def wilson_interval(hits: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of the share of hits among n independent cases."""
    if not n:
        return Interval(math.nan, math.nan)
    from scipy.stats import binomtest

    found = binomtest(hits, n).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def share_estimate(hits: int, n: int) -> Estimate:
    """The share of hits among n independent cases, with Wilson's interval."""
    interval = wilson_interval(hits, n)
    return Estimate(hits / n if n else math.nan, interval.low, interval.high, n)


def bootstrap_estimate(statistic: Statistic, n: int, resamples: int = 1000, seed: int = 0) -> Estimate:
    """``statistic`` over all n cases, with the bootstrap's interval over cases.

    The same seed draws the same cases for every statistic, so figures of one set of cases move together.
    """
    return bootstrap_average([(statistic, n)], resamples, seed)


def mean_estimate(values: np.ndarray, resamples: int = 1000) -> Estimate:
    """The mean of a number of every case, float [n], with the bootstrap's interval."""
    return bootstrap_estimate(lambda rows: float(values[rows].mean()), len(values), resamples)


def bootstrap_average(parts: Sequence[tuple[Statistic, int]], resamples: int = 1000, seed: int = 0) -> Estimate:
    """The plain mean of several statistics, each over its own cases; a resample draws within each of them.

    Args:
      parts: (statistic, its number of cases). Where one is NaN (no case of a class) so is the average; a resample
        in which one is does not count.
    """
    n = sum(count for _, count in parts)
    if not parts or any(count == 0 for _, count in parts):
        return undefined(n)

    def average(draw: Callable[[int], np.ndarray]) -> float:
        return float(np.mean([statistic(draw(count)) for statistic, count in parts]))

    # scipy.stats.bootstrap draws the same rows (the tests compare them), but it gives no interval where a resample
    # has none of a class, refuses a single case, and cannot share its draws among several figures.
    random = np.random.default_rng(seed)
    interval = percentile_interval([average(lambda n: random.integers(0, n, n)) for _ in range(resamples)])
    return Estimate(average(np.arange), interval.low, interval.high, n)


def percentile_interval(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """The middle share of resampled figures, those that are NaN left out."""
    known = np.asarray(values, float)
    known = known[~np.isnan(known)]
    if not known.size:
        return Interval(math.nan, math.nan)
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))


def widened(estimate: Estimate, shares: Sequence[tuple[Estimate, Estimate]]) -> Estimate:
    """A mean of harmonic means of two shares, with an interval where the bootstrap has none.

    Where all cases are alike (nothing found, nothing missed) so are all resamples, which says nothing of how
    certain that is: an interval without width is replaced by the harmonic means of the shares' own bounds. A share
    of nothing (the precision of a verifier that never says yes) could be anything from 0 to 1.
    """
    if math.isnan(estimate.value) or estimate.low != estimate.high:
        return estimate
    low = float(np.mean([harmonic_mean(*(0.0 if not s.n else s.low for s in pair)) for pair in shares]))
    high = float(np.mean([harmonic_mean(*(1.0 if not s.n else s.high for s in pair)) for pair in shares]))
    return replace(estimate, low=min(estimate.value, low), high=max(estimate.value, high))


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    """{"value", "low", "high", "n"}; null where undefined, since JSON has no NaN."""
    return {name: null_for_nan(value) for name, value in asdict(estimate).items()}


def estimate_from_json(row: Mapping[str, Any]) -> Estimate:
    """What :func:`estimate_json` wrote.

    Raises:
      KeyError, TypeError: it is something else.
    """
    value, low, high = (math.nan if row[name] is None else float(row[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high, int(row["n"]))


def null_for_nan(value: float) -> float | None:
    return None if isinstance(value, float) and math.isnan(value) else value


def show(value: float, percent: bool | None) -> str:
    """For people. percent: as a percentage, as a plain number below 1, or (None) as a quantity; NaN is "-"."""
    if math.isnan(value):
        return "-"
    if percent is None:
        return f"{value:,.1f}"
    return f"{100 * value:.1f}%" if percent else f"{value:.3f}"


def show_gain(gain: Estimate, percent: bool) -> str:
    """A paired difference with its interval; a bootstrap finds none to give where no case differs."""
    scale, digits = (100, 1) if percent else (1, 3)
    value, low, high = (scale * number for number in (gain.value, gain.low, gain.high))
    if math.isnan(value):
        return "-"
    if value == low == high == 0:
        return "0 (no case differs)"
    return f"{value:+.{digits}f} ({low:+.{digits}f} to {high:+.{digits}f})"


def show_interval(estimate: Estimate, percent: bool | None) -> str:
    if math.isnan(estimate.low):
        return "-"
    return f"{show(estimate.low, percent)} to {show(estimate.high, percent)}"
