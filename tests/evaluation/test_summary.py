"""Figures of a task, and paired differences in them."""

from __future__ import annotations

import math

import pytest

from thinkprm_jax.evaluation.summary import AUROC, FIRST_ERROR, WHOLE_SOLUTION
from thinkprm_jax.evaluation.tasks.processbench import task_figures
from thinkprm_jax.records.evaluation import Outcome


def outcome(truth: int, predicted: int | None, score: float | None = 0.9, subset: str = "math", **more) -> Outcome:
    return Outcome(truth, predicted, score, 1, 1, 1, 1, groups={"subset": subset}, **more)


def accuracies(subset: str, found: int, errors: int, kept: int, corrects: int) -> list[Outcome]:
    """So many of the errors found, so many of the correct ones left alone."""
    wrong = [outcome(0, 0 if i < found else -1, subset=subset) for i in range(errors)]
    return wrong + [outcome(-1, -1 if i < kept else 0, subset=subset) for i in range(corrects)]


def test_published_accuracies_give_the_published_f1():
    found = FIRST_ERROR.estimate(accuracies("math", 6232, 10_000, 8187, 10_000), resamples=2)
    assert round(100 * found.value, 2) == 70.77


def test_the_average_is_of_the_subsets_and_not_of_the_solutions():
    outcomes = accuracies("gsm8k", 2, 2, 2, 2) + accuracies("math", 10, 40, 10, 40)
    average, _ = task_figures(["gsm8k", "math"])
    assert average.estimate(outcomes, resamples=20).value == pytest.approx((1.0 + 0.25) / 2)
    assert FIRST_ERROR.estimate(outcomes, resamples=20).value == pytest.approx(12 / 42)


def test_the_papers_figure_is_of_its_two_subsets_alone():
    keys = {figure.key: figure.subsets for figure in task_figures(["gsm8k", "olympiadbench", "omnimath"])}
    assert keys["binary_f1_paper_average"] == ("olympiadbench", "omnimath")
    assert "binary_f1_paper_average" not in {figure.key for figure in task_figures(["gsm8k", "math"])}


def test_a_difference_is_paired():
    ours = accuracies("math", 30, 50, 30, 50)
    theirs = [outcome(o.first_error, o.predicted, 0.1) for o in ours]
    # Both err on the very same solutions, so nothing about the difference is uncertain.
    found = FIRST_ERROR.gain(ours, theirs, resamples=50)
    assert (found.value, found.low, found.high, found.n) == (0.0, 0.0, 0.0, 100)
    assert WHOLE_SOLUTION.gain(ours, theirs, resamples=50).low > 0


def test_a_difference_of_different_cases_is_refused():
    with pytest.raises(ValueError, match="different cases"):
        FIRST_ERROR.gain([outcome(0, 0)], [outcome(1, 0)])


def test_no_verdict_is_the_wrong_decision_on_whole_solutions():
    decided = [outcome(-1, -1, 0.9), outcome(0, 0, 0.1)]
    silent = [outcome(-1, None, None), outcome(0, None, None)]
    assert WHOLE_SOLUTION.estimate(decided, resamples=2).value == 1.0
    # One correct solution missed, one incorrect passed: 2 * 1 / (2 * 1 + 2).
    assert WHOLE_SOLUTION.estimate(decided + silent, resamples=2).value == 0.5


def test_a_verifier_that_names_no_step_has_no_first_error_figure():
    outcomes = [outcome(-1, None, 0.9, locates=False), outcome(0, None, 0.1, locates=False)]
    assert math.isnan(FIRST_ERROR.estimate(outcomes, resamples=2).value)
    assert AUROC.estimate(outcomes, resamples=2).value == 1.0
