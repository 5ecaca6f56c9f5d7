"""The figures of merit as pure functions of predictions and labels.

N solutions. A share of nothing (no row with an error, one class only) is NaN, never 0 or 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class FirstErrorScores:
    """Finding the first error, as ProcessBench scores it. Shares in [0, 1].

    Attributes:
      acc_error: of the solutions with an error, those whose first error was found at its very step.
      acc_correct: of the correct solutions, those in which no error was found.
      f1: harmonic mean of the two.
      errors, corrects: how many solutions of each there are.
    """

    acc_error: float
    acc_correct: float
    f1: float
    errors: int
    corrects: int


@dataclass(frozen=True)
class BinaryScores:
    """A yes/no decision on whole solutions; yes is the positive class. Without a case that is yes, f1 is NaN.

    This f1 is not the first-error F1.
    """

    precision: float
    recall: float
    f1: float
    accuracy: float


@dataclass(frozen=True)
class ReliabilityBin:
    """Solutions scored within [low, high): how sure the verifier was, and how often it was right to be."""

    low: float
    high: float
    count: int
    mean_score: float
    share_correct: float


def harmonic_mean(a: float, b: float) -> float:
    """2ab / (a + b), and 0 where both are 0."""
    return 2 * a * b / (a + b) if a + b else 0.0


def first_error_hits(predictions: Sequence[int | None], labels: Sequence[int]) -> np.ndarray:
    """bool [N]: prediction equals label.

    Both hold the index from 0 of the first incorrect step, or -1; a prediction is None where it is unreadable.
    """
    _check_lengths(predictions, labels)
    pairs = zip(predictions, labels, strict=True)
    return np.array([found is not None and found == label for found, label in pairs], bool)


def first_error_scores(hits: np.ndarray, has_error: np.ndarray) -> FirstErrorScores:
    """hits: bool [N], of :func:`first_error_hits`: an unreadable chain is a wrong one. has_error: bool [N]."""
    has_error = np.asarray(has_error, bool)
    acc_error, acc_correct = _mean(hits[has_error]), _mean(hits[~has_error])
    errors = int(has_error.sum())
    return FirstErrorScores(
        acc_error, acc_correct, harmonic_mean(acc_error, acc_correct), errors, len(has_error) - errors
    )


def binary_scores(predictions: ArrayLike, labels: ArrayLike) -> BinaryScores:
    """predictions, labels: bool [N], True = correct."""
    said, is_so = _flags(predictions), _flags(labels)
    _check_lengths(said, is_so)
    both = int((said & is_so).sum())
    positives = int(said.sum()) + int(is_so.sum())
    return BinaryScores(
        precision=_mean(is_so[said]),
        recall=_mean(said[is_so]),
        f1=2 * both / positives if is_so.any() else math.nan,
        accuracy=_mean(said == is_so),
    )


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Probability that a correct solution scores above an incorrect one; a tie counts one half.

    Args:
      scores: float [N], finite. labels: bool [N], True = correct.
    """
    scores, labels = _scores(scores), _flags(labels)
    _check_lengths(scores, labels)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return math.nan
    # Mann-Whitney's U from the ranks. scipy.stats.mannwhitneyu makes a p-value too, which takes 20 times as long,
    # and a bootstrap asks a thousand times.
    ranks = _ranks(scores)
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def brier_score(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean of (score - label)^2: 0 is best, and 0.25 is what always saying one half gets.

    Args:
      scores: float [N], probabilities that the solution is correct. labels: bool [N].
    """
    scores, labels = _scores(scores), _flags(labels)
    _check_lengths(scores, labels)
    return _mean((scores - labels) ** 2)


def point_biserial(scores: ArrayLike, labels: ArrayLike) -> float:
    """Pearson's correlation of a score with being correct; NaN where either is the same for all.

    Args:
      scores: float [N], finite. labels: bool [N].
    """
    return _correlation(_scores(scores), _flags(labels).astype(float))


def spearman(scores: ArrayLike, labels: ArrayLike) -> float:
    """Spearman's rank correlation of the same two; equal scores share their mean rank."""
    return _correlation(_ranks(_scores(scores)), _ranks(_flags(labels).astype(float)))


def reliability_bins(scores: ArrayLike, labels: ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Bins of equal width over [0, 1]; the last one holds 1.0 too. An empty bin has NaN means.

    Args:
      scores: float [N], probabilities that the solution is correct. labels: bool [N].
    """
    scores, labels = _probabilities(scores), _flags(labels)
    _check_lengths(scores, labels)
    indices = _bin_indices(scores, bins)
    found = []
    for index in range(bins):
        inside = indices == index
        share = _mean(labels[inside])
        found.append(
            ReliabilityBin(index / bins, (index + 1) / bins, int(inside.sum()), _mean(scores[inside]), share)
        )
    return found


def expected_calibration_error(scores: ArrayLike, labels: ArrayLike, bins: int = 10) -> float:
    """Mean over the solutions of |mean score - share correct| of the bin each falls into; see
    :func:`reliability_bins`."""
    scores, labels = _probabilities(scores), _flags(labels)
    _check_lengths(scores, labels)
    indices = _bin_indices(scores, bins)
    # A bin's gap times its count is the difference of its sums.
    gaps = np.bincount(indices, scores, bins) - np.bincount(indices, labels, bins)
    return float(np.abs(gaps).sum() / len(scores)) if len(scores) else math.nan


def steps_right(read: Sequence[int | None], labels: Sequence[int]) -> tuple[int, int]:
    """(right, counted) for one solution, over its steps up to and including the first error.

    A step is right where the label read from the chain (1, 0, None = not judged) is the true one. All these steps
    count, whatever the verifier did: those behind an error that it alone saw are wrong. Steps behind the true
    first error have no verdict of their own and do not count.
    """
    _check_lengths(read, labels)
    counted = list(labels).index(0) + 1 if 0 in labels else len(labels)
    return sum(read[step] == labels[step] for step in range(counted)), counted


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if values.size else math.nan


def _probabilities(values: ArrayLike) -> np.ndarray:
    scores = _scores(values)
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        raise ValueError("probabilities must lie within [0, 1]")
    return scores


def _bin_indices(scores: np.ndarray, bins: int) -> np.ndarray:
    """int [N]: the bin that each score falls into."""
    return np.minimum((scores * bins).astype(int), bins - 1)


def _ranks(values: np.ndarray) -> np.ndarray:
    """float [N], from 1; equal values share the mean of their ranks."""
    from scipy.stats import rankdata  # takes a second to load: not before a figure needs it

    return rankdata(values)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's; NaN where one of the two is the same for all."""
    _check_lengths(a, b)
    if not len(a) or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def _flags(values: ArrayLike) -> np.ndarray:
    return np.asarray(values, bool)


def _scores(values: ArrayLike) -> np.ndarray:
    scores = np.asarray(values, float)
    if not np.isfinite(scores).all():
        raise ValueError("a score is not a finite number")
    return scores


def _check_lengths(predictions: Sequence | np.ndarray, labels: Sequence | np.ndarray) -> None:
    if len(predictions) != len(labels):
        raise ValueError(f"{len(predictions)} predictions for {len(labels)} labels")
