"""Metrics against hand-worked cases and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest

from thinkprm_jax.evaluation.metrics import (
    FirstErrorScores,
    auroc,
    binary_scores,
    brier_score,
    expected_calibration_error,
    first_error_hits,
    first_error_scores,
    harmonic_mean,
    point_biserial,
    reliability_bins,
    spearman,
    steps_right,
)


def scores_of(predictions: list[int | None], labels: list[int]) -> FirstErrorScores:
    return first_error_scores(first_error_hits(predictions, labels), np.array(labels) >= 0)


def test_first_error_scores_by_hand():
    #                      hit  wrong step  missed  unreadable | hit  false alarm  unreadable
    found = scores_of([2, 1, -1, None, -1, 0, None], [2, 2, 0, 1, -1, -1, -1])
    assert (found.errors, found.corrects) == (4, 3)
    assert found.acc_error == pytest.approx(1 / 4)
    assert found.acc_correct == pytest.approx(1 / 3)
    assert found.f1 == pytest.approx(2 / 7)


def test_harmonic_mean_of_published_figures():
    assert round(harmonic_mean(62.32, 81.87), 2) == 70.77
    assert harmonic_mean(0.0, 0.0) == 0.0
    assert harmonic_mean(0.0, 1.0) == 0.0


def test_first_error_scores_without_one_of_the_kinds():
    found = scores_of([1, 0], [1, 1])
    assert found.acc_error == 0.5
    assert math.isnan(found.acc_correct)
    assert math.isnan(found.f1)
    assert math.isnan(scores_of([], []).f1)
    with pytest.raises(ValueError, match="2 predictions for 1 labels"):
        scores_of([1, 0], [1])


def test_binary_scores_by_hand():
    said = [True, True, True, False, False]
    truth = [True, True, False, True, False]
    found = binary_scores(said, truth)
    assert found.precision == pytest.approx(2 / 3)
    assert found.recall == pytest.approx(2 / 3)
    assert found.f1 == pytest.approx(2 / 3)
    assert found.accuracy == pytest.approx(3 / 5)
    assert binary_scores([False, False], [True, False]).f1 == 0.0
    assert math.isnan(binary_scores([True, False], [False, False]).f1)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
        ([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 1.0),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], 0.0),
        ([0.5, 0.5, 0.5], [1, 0, 1], 0.5),
        ([0.5, 0.5, 0.9], [1, 0, 1], 0.75),
    ],
)
def test_auroc_of_known_cases(scores, labels, expected):
    assert auroc(scores, labels) == pytest.approx(expected)


@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_auroc_equals_the_count_of_pairs(levels):
    random = np.random.default_rng(levels)
    scores = random.integers(0, levels, 80) / levels
    labels = random.random(80) < 0.4
    right, wrong = scores[labels][:, None], scores[~labels][None, :]
    assert auroc(scores, labels) == pytest.approx(np.mean((right > wrong) + 0.5 * (right == wrong)))


def test_auroc_of_one_class_or_of_no_number():
    assert math.isnan(auroc([0.1, 0.9], [1, 1]))
    assert math.isnan(auroc([], []))
    with pytest.raises(ValueError, match="finite"):
        auroc([0.1, math.nan], [1, 0])


def test_calibration_by_hand():
    scores = [0.05, 0.15, 0.95, 0.91, 1.0]
    labels = [0, 1, 1, 0, 1]
    bins = reliability_bins(scores, labels)
    assert [bin.count for bin in bins] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 3]
    assert bins[9].mean_score == pytest.approx(2.86 / 3)
    assert bins[9].share_correct == pytest.approx(2 / 3)
    assert math.isnan(bins[5].mean_score)
    gaps = 1 * 0.05 + 1 * 0.85 + 3 * (2.86 / 3 - 2 / 3)
    assert expected_calibration_error(scores, labels) == pytest.approx(gaps / 5)
    assert expected_calibration_error([0.0, 1.0], [0, 1]) == 0.0
    assert math.isnan(expected_calibration_error([], []))
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        expected_calibration_error([1.2], [1])


def test_steps_count_up_to_the_true_first_error():
    assert steps_right([1, 0, 0], [1, 0, 0]) == (2, 2)
    assert steps_right([1, 1, 1], [1, 0, 0]) == (1, 2)  # the error was not seen
    assert steps_right([0, 0, 0], [1, 1, 1]) == (0, 3)  # an alarm at the first step costs all three
    assert steps_right([1, None, None], [1, 1, 1]) == (1, 3)  # not judged is not right
    with pytest.raises(ValueError, match="1 predictions for 2 labels"):
        steps_right([1], [1, 0])


def test_brier_score_and_correlations_by_hand():
    scores, labels = [0.9, 0.4, 0.2, 0.6], [1, 1, 0, 0]
    assert brier_score(scores, labels) == pytest.approx((0.01 + 0.36 + 0.04 + 0.36) / 4)
    # Deviations from the means: 0.375, -0.125, -0.325, 0.075 and +-0.5.
    assert point_biserial(scores, labels) == pytest.approx(0.25 / math.sqrt(0.2675))
    # Ranks 4, 2, 1, 3 against 3.5, 3.5, 1.5, 1.5: products of the deviations sum to 2, squares to 5 and 4.
    assert spearman(scores, labels) == pytest.approx(2 / math.sqrt(5 * 4))
    assert spearman([0.1, 0.2, 0.9], [0, 0, 1]) == spearman([1, 2, 900], [0, 0, 1])  # ranks alone matter


def test_a_correlation_with_what_never_varies_is_undefined():
    for correlation in (point_biserial, spearman):
        assert math.isnan(correlation([0.1, 0.9], [1, 1]))
        assert math.isnan(correlation([0.3, 0.3], [0, 1]))
        assert math.isnan(correlation([], []))


@pytest.mark.parametrize("levels", [3, 10_000])
def test_scikit_learn_and_scipy_agree(levels):
    from scipy import stats
    from sklearn import metrics

    random = np.random.default_rng(levels)
    scores = random.integers(0, levels + 1, 200) / levels
    labels = random.random(200) < 0.2 + 0.6 * scores
    said = scores >= 0.5
    assert auroc(scores, labels) == pytest.approx(metrics.roc_auc_score(labels, scores))
    pairs = labels.sum() * (~labels).sum()
    assert auroc(scores, labels) == pytest.approx(
        stats.mannwhitneyu(scores[labels], scores[~labels]).statistic / pairs
    )
    assert brier_score(scores, labels) == pytest.approx(metrics.brier_score_loss(labels, scores))
    found = binary_scores(said, labels)
    assert found.f1 == pytest.approx(metrics.f1_score(labels, said))
    assert found.precision == pytest.approx(metrics.precision_score(labels, said))
    assert found.recall == pytest.approx(metrics.recall_score(labels, said))
    assert found.accuracy == pytest.approx(metrics.accuracy_score(labels, said))
    assert point_biserial(scores, labels) == pytest.approx(stats.pointbiserialr(labels, scores).statistic)
    assert spearman(scores, labels) == pytest.approx(stats.spearmanr(scores, labels).statistic)


def test_reliability_bins_are_those_of_scikit_learn():
    from sklearn import calibration

    random = np.random.default_rng(0)
    scores = random.random(300)
    labels = random.random(300) < scores**2
    shares, means = calibration.calibration_curve(labels, scores, n_bins=10)
    bins = [bin for bin in reliability_bins(scores, labels) if bin.count]
    assert [bin.share_correct for bin in bins] == pytest.approx(list(shares))
    assert [bin.mean_score for bin in bins] == pytest.approx(list(means))
    gaps = sum(bin.count * abs(bin.mean_score - bin.share_correct) for bin in bins)
    assert expected_calibration_error(scores, labels) == pytest.approx(gaps / 300)
