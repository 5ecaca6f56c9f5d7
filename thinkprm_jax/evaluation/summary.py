"""Figures over many outcomes, each with its interval."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thinkprm_jax.evaluation.estimates import Estimate, share_estimate, widened
from thinkprm_jax.evaluation.metrics import (
    auroc,
    binary_f1,
    binary_scores,
    brier_score,
    expected_calibration_error,
    first_error_hits,
    first_error_scores_of_hits,
    percentile_interval,
    point_biserial,
    spearman,
)
from thinkprm_jax.evaluation.outcomes import Outcome


@dataclass(frozen=True)
class Summary:
    """The figures over a set of outcomes; shares in [0, 1].

    solutions, failed: how many there were, and how many of them got no verdict.
    readable_chains: of all chains, those that judged every step themselves, up to the first they call incorrect.
    step_accuracy: of all steps up to the true first error, those whose verdict in the chain is right.
    acc_error, acc_correct, first_error_f1: ProcessBench's measure, by the vote of the readable chains.
    first_error_f1_by_score: the same measure of the first step whose mean score is below one half.
    binary_f1: of "score >= 0.5" as a decision on whole solutions, positive = correct; no verdict is a wrong one.
    auroc, calibration_error, brier, point_biserial, spearman: of the score, over the solutions that have one.
    tokens: mean of the tokens sampled for a verdict.
    What concerns steps is NaN, of no solutions, for a verifier that judges whole solutions only.
    """

    solutions: int
    failed: int
    readable_chains: Estimate
    step_accuracy: Estimate
    acc_error: Estimate
    acc_correct: Estimate
    first_error_f1: Estimate
    first_error_f1_by_score: Estimate
    binary_f1: Estimate
    auroc: Estimate
    calibration_error: Estimate
    brier: Estimate
    point_biserial: Estimate
    spearman: Estimate
    tokens: Estimate


def summarise(outcomes: Sequence[Outcome], resamples: int = 1000) -> Summary:
    """All figures. Shares of solutions have Wilson's interval, the others the bootstrap's, over solutions."""
    table = Table.of(outcomes)
    scored = table.take(~np.isnan(table.scores))
    located = table.take(table.locates)
    spent = table.take(~np.isnan(table.scores) | (table.tokens > 0))  # a prompt that does not fit costs nothing
    acc_error, acc_correct = first_error_shares(located)
    of_all = _bootstrap(table, {"binary_f1": whole_solution_f1}, resamples)
    of_steps = _bootstrap(located, _OF_STEPS, resamples)
    steps = of_steps["step_accuracy"]
    if steps.value in (0.0, 1.0):  # where all are alike a resample tells nothing
        steps = share_estimate(steps.value, len(located.hits))
    return Summary(
        solutions=len(outcomes),
        failed=len(outcomes) - len(scored.hits),
        # Chains of one solution are no independent cases: the interval is that of as many solutions.
        readable_chains=share_estimate(_ratio(table.readable, table.chains), len(outcomes)),
        step_accuracy=steps,
        acc_error=acc_error,
        acc_correct=acc_correct,
        first_error_f1=widened(of_steps["first_error_f1"], [(acc_error, acc_correct)]),
        first_error_f1_by_score=widened(
            of_steps["first_error_f1_by_score"], [first_error_shares(by_score(located))]
        ),
        binary_f1=widened(of_all["binary_f1"], [whole_solution_shares(table)]),
        tokens=_bootstrap(spent, {"tokens": lambda t: float(t.tokens.mean())}, resamples)["tokens"],
        **_bootstrap(scored, _OF_SCORES, resamples),
    )


def _bootstrap(
    table: Table, statistics: Mapping[str, Callable[[Table], float]], resamples: int
) -> dict[str, Estimate]:
    """:func:`bootstrap_estimate` of several statistics, which share the resampled tables."""
    n, random = len(table.hits), np.random.default_rng(0)
    drawn = [table.take(random.integers(0, n, n)) for _ in range(resamples if n else 0)]
    found = {}
    for name, statistic in statistics.items():
        interval = percentile_interval([statistic(one) for one in drawn])
        found[name] = Estimate(statistic(table) if n else math.nan, interval.low, interval.high, n)
    return found


def break_down(outcomes: Sequence[Outcome], resamples: int = 300) -> dict[str, dict[str, Summary]]:
    """Breakdown -> group -> summary, groups in the order of their names."""
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.groups)
    result: dict[str, dict[str, Summary]] = {}
    for name in names:
        groups: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            if name in outcome.groups:
                groups.setdefault(outcome.groups[name], []).append(outcome)
        result[name] = {group: summarise(groups[group], resamples) for group in sorted(groups)}
    return result


@dataclass(frozen=True)
class Table:
    """Outcomes as columns [N], so that a resample costs a few numpy calls. scores: NaN where there is none."""

    hits: np.ndarray
    hits_by_score: np.ndarray
    has_error: np.ndarray
    locates: np.ndarray
    scores: np.ndarray
    readable: np.ndarray
    chains: np.ndarray
    steps_right: np.ndarray
    steps_counted: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Table:
        truth = [outcome.first_error for outcome in outcomes]

        def column(values: Iterable[float | None]) -> np.ndarray:
            return np.array([math.nan if value is None else value for value in values], float)

        return cls(
            hits=first_error_hits([outcome.predicted for outcome in outcomes], truth),
            hits_by_score=first_error_hits([outcome.predicted_by_score for outcome in outcomes], truth),
            has_error=np.array(truth, int) >= 0,
            locates=np.array([outcome.locates for outcome in outcomes], bool),
            scores=column(outcome.score for outcome in outcomes),
            readable=column(outcome.readable for outcome in outcomes),
            chains=column(outcome.chains for outcome in outcomes),
            steps_right=column(outcome.steps_right for outcome in outcomes),
            steps_counted=column(outcome.steps_counted for outcome in outcomes),
            tokens=column(outcome.tokens for outcome in outcomes),
        )

    def take(self, rows: np.ndarray) -> Table:
        """rows: int [n] indices, or bool [N]."""
        return Table(*(getattr(self, column.name)[rows] for column in dataclasses.fields(self)))


Shares = Callable[[Table], tuple[Estimate, Estimate]]
_OF_STEPS: dict[str, Callable[[Table], float]] = {
    "step_accuracy": lambda t: _ratio(t.steps_right, t.steps_counted),
    "first_error_f1": lambda t: first_error_f1(t),
    "first_error_f1_by_score": lambda t: first_error_f1(by_score(t)),
}
_OF_SCORES: dict[str, Callable[[Table], float]] = {
    "auroc": lambda t: score_auroc(t),
    "calibration_error": lambda t: expected_calibration_error(t.scores, ~t.has_error),
    "brier": lambda t: brier_score(t.scores, ~t.has_error),
    "point_biserial": lambda t: point_biserial(t.scores, ~t.has_error),
    "spearman": lambda t: spearman(t.scores, ~t.has_error),
}


def first_error_f1(table: Table) -> float:
    """NaN for a verifier that names no steps."""
    return first_error_scores_of_hits(table.hits, table.has_error).f1 if table.locates.all() else math.nan


def first_error_shares(table: Table) -> tuple[Estimate, Estimate]:
    """(acc_error, acc_correct), whose harmonic mean is :func:`first_error_f1`."""
    found = first_error_scores_of_hits(table.hits, table.has_error)
    return share_estimate(found.acc_error, found.errors), share_estimate(found.acc_correct, found.corrects)


def by_score(table: Table) -> Table:
    """The same with the steps that the mean scores point at in place of what the chains say."""
    return dataclasses.replace(table, hits=table.hits_by_score)


def score_auroc(table: Table) -> float:
    """Over the solutions that have a score."""
    has_score = ~np.isnan(table.scores)
    return auroc(table.scores[has_score], ~table.has_error[has_score])


def whole_solution_f1(table: Table) -> float:
    return binary_f1(whole_solution_decisions(table), ~table.has_error)


def whole_solution_shares(table: Table) -> tuple[Estimate, Estimate]:
    """(precision, recall), whose harmonic mean is :func:`whole_solution_f1`."""
    said, is_correct = whole_solution_decisions(table), ~table.has_error
    found = binary_scores(said, is_correct)
    return share_estimate(found.precision, int(said.sum())), share_estimate(found.recall, int(is_correct.sum()))


def whole_solution_decisions(table: Table) -> np.ndarray:
    """bool [N]: "correct" where the score is at least one half; the wrong decision where there is no score."""
    return np.where(np.isnan(table.scores), table.has_error, table.scores >= 0.5)


def _ratio(part: np.ndarray, whole: np.ndarray) -> float:
    total = whole.sum()
    return float(part.sum() / total) if total else math.nan
