"""Figures over many outcomes, each with its interval: of all of them, of groups, and what one verifier gains over
another on the same solutions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from thinkprm_jax.evaluation.intervals import (
    Estimate,
    Statistic,
    bootstrap_average,
    percentile_interval,
    share_estimate,
    widened,
)
from thinkprm_jax.evaluation.metrics import (
    auroc,
    binary_scores,
    brier_score,
    expected_calibration_error,
    first_error_hits,
    first_error_scores,
    point_biserial,
    spearman,
)
from thinkprm_jax.records.evaluation import Outcome

SUBSET = "subset"  # the breakdown whose groups a figure may average over


@dataclass(frozen=True)
class EvaluationSummary:
    """The figures over a set of outcomes; shares in [0, 1].

    What concerns steps is NaN, of no solutions, for a verifier that judges whole solutions only.

    Attributes:
      solutions, failed: how many there were, and how many of them got no verdict.
      readable_chains: of all chains, those that judged every step themselves, up to the first they call incorrect.
      contradictory_chains: of all chains, those whose score of the whole says one thing and whose labels another.
      step_accuracy: of all steps up to the true first error, those whose verdict in the chain is right.
      acc_error, acc_correct, first_error_f1: ProcessBench's measure, by the vote of the readable chains.
      first_error_f1_by_score: the same measure of the first step whose mean score is below one half.
      binary_f1: of "score >= 0.5" as a decision on whole solutions, positive = correct; no verdict is a wrong one.
      auroc, calibration_error, brier, point_biserial, spearman: of the score, over the solutions that have one.
      tokens: mean of the tokens sampled for a verdict.
    """

    solutions: int
    failed: int
    readable_chains: Estimate
    contradictory_chains: Estimate
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

    def figure(self, name: str) -> Estimate:
        """The figure of that name."""
        return getattr(self, name)


@dataclass(frozen=True)
class OutcomeColumns:
    """Outcomes as columns [N], so that a resample costs a few numpy calls. scores: NaN where there is none;
    contradictory: NaN where nobody counted."""

    hits: np.ndarray
    hits_by_score: np.ndarray
    has_error: np.ndarray
    locates: np.ndarray
    scores: np.ndarray
    readable: np.ndarray
    contradictory: np.ndarray
    chains: np.ndarray
    steps_right: np.ndarray
    steps_counted: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> OutcomeColumns:
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
            contradictory=column(outcome.contradictory for outcome in outcomes),
            chains=column(outcome.chains for outcome in outcomes),
            steps_right=column(outcome.steps_right for outcome in outcomes),
            steps_counted=column(outcome.steps_counted for outcome in outcomes),
            tokens=column(outcome.tokens for outcome in outcomes),
        )

    def __len__(self) -> int:
        return len(self.hits)

    def take(self, rows: np.ndarray) -> OutcomeColumns:
        """rows: int [n] indices, or bool [N]."""
        return OutcomeColumns(*(getattr(self, column.name)[rows] for column in dataclasses.fields(self)))

    def by_score(self) -> OutcomeColumns:
        """The same with the steps that the mean scores point at in place of what the chains say."""
        return dataclasses.replace(self, hits=self.hits_by_score)


ColumnsFigure = Callable[[OutcomeColumns], float]
ColumnsShares = Callable[[OutcomeColumns], tuple[Estimate, Estimate]]


def summarise(outcomes: Sequence[Outcome], resamples: int = 1000) -> EvaluationSummary:
    """All figures. Shares of solutions have Wilson's interval, the others the bootstrap's, over solutions."""
    columns = OutcomeColumns.of(outcomes)
    scored = columns.take(~np.isnan(columns.scores))
    located = columns.take(columns.locates)
    compared = located.take(~np.isnan(located.contradictory))
    # A prompt that does not fit costs nothing.
    spent = columns.take(~np.isnan(columns.scores) | (columns.tokens > 0))
    acc_error, acc_correct = first_error_shares(located)
    of_all = _bootstrap(columns, _OF_ALL, resamples)
    of_steps = _bootstrap(located, _OF_STEPS, resamples)
    of_scores = _bootstrap(scored, _OF_SCORES, resamples)
    by_score = first_error_shares(located.by_score())
    return EvaluationSummary(
        solutions=len(outcomes),
        failed=len(outcomes) - len(scored),
        readable_chains=_ratio_estimate(of_all["readable_chains"]),
        contradictory_chains=_ratio_estimate(
            _bootstrap(compared, _OF_COMPARED, resamples)["contradictory_chains"]
        ),
        step_accuracy=_ratio_estimate(of_steps["step_accuracy"]),
        acc_error=acc_error,
        acc_correct=acc_correct,
        first_error_f1=widened(of_steps["first_error_f1"], [(acc_error, acc_correct)]),
        first_error_f1_by_score=widened(of_steps["first_error_f1_by_score"], [by_score]),
        binary_f1=widened(of_all["binary_f1"], [whole_solution_shares(columns)]),
        tokens=_bootstrap(spent, _OF_TOKENS, resamples)["tokens"],
        **of_scores,
    )


def break_down(outcomes: Sequence[Outcome], resamples: int = 300) -> dict[str, dict[str, EvaluationSummary]]:
    """Breakdown -> group -> summary, groups in the order of their names."""
    names = dict.fromkeys(name for outcome in outcomes for name in outcome.groups)
    found: dict[str, dict[str, EvaluationSummary]] = {}
    for name in names:
        groups: dict[str, list[Outcome]] = {}
        for outcome in outcomes:
            if name in outcome.groups:
                groups.setdefault(outcome.groups[name], []).append(outcome)
        found[name] = {group: summarise(groups[group], resamples) for group in sorted(groups)}
    return found


def _bootstrap(
    columns: OutcomeColumns, figures: Mapping[str, ColumnsFigure], resamples: int
) -> dict[str, Estimate]:
    """:func:`bootstrap_estimate` of several figures, which share the resampled columns."""
    n, random = len(columns), np.random.default_rng(0)
    drawn = [columns.take(random.integers(0, n, n)) for _ in range(resamples if n else 0)]
    found = {}
    for name, figure in figures.items():
        interval = percentile_interval([figure(one) for one in drawn])
        found[name] = Estimate(figure(columns) if n else math.nan, interval.low, interval.high, n)
    return found


def _ratio_estimate(ratio: Estimate) -> Estimate:
    """Of chains or steps, several of which belong to one solution, so that solutions are resampled. Where all are
    alike a resample tells nothing: then Wilson's, of as many solutions."""
    alike = ratio.value in (0.0, 1.0)
    return share_estimate(round(ratio.value) * ratio.n, ratio.n) if alike else ratio


def first_error_f1(columns: OutcomeColumns) -> float:
    """NaN for a verifier that names no steps."""
    if not columns.locates.all():
        return math.nan
    return first_error_scores(columns.hits, columns.has_error).f1


def first_error_shares(columns: OutcomeColumns) -> tuple[Estimate, Estimate]:
    """(acc_error, acc_correct), whose harmonic mean is :func:`first_error_f1`."""
    errors, corrects = columns.hits[columns.has_error], columns.hits[~columns.has_error]
    return share_estimate(int(errors.sum()), len(errors)), share_estimate(int(corrects.sum()), len(corrects))


def score_auroc(columns: OutcomeColumns) -> float:
    """Over the solutions that have a score."""
    has_score = ~np.isnan(columns.scores)
    return auroc(columns.scores[has_score], ~columns.has_error[has_score])


def whole_solution_f1(columns: OutcomeColumns) -> float:
    """F1 of the decision on whole solutions, positive = correct. Not the first-error F1."""
    return binary_scores(_decisions(columns), ~columns.has_error).f1


def whole_solution_shares(columns: OutcomeColumns) -> tuple[Estimate, Estimate]:
    """(precision, recall), whose harmonic mean is :func:`whole_solution_f1`."""
    said, is_correct = _decisions(columns), ~columns.has_error
    both = int((said & is_correct).sum())
    return share_estimate(both, int(said.sum())), share_estimate(both, int(is_correct.sum()))


def _decisions(columns: OutcomeColumns) -> np.ndarray:
    """bool [N]: "correct" where the score is at least one half; the wrong decision where there is no score."""
    return np.where(np.isnan(columns.scores), columns.has_error, columns.scores >= 0.5)


def _ratio(part: np.ndarray, whole: np.ndarray) -> float:
    total = whole.sum()
    return float(part.sum() / total) if total else math.nan


_OF_ALL: dict[str, ColumnsFigure] = {
    "binary_f1": whole_solution_f1,
    "readable_chains": lambda c: _ratio(c.readable, c.chains),
}
_OF_COMPARED: dict[str, ColumnsFigure] = {"contradictory_chains": lambda c: _ratio(c.contradictory, c.chains)}
_OF_STEPS: dict[str, ColumnsFigure] = {
    "step_accuracy": lambda c: _ratio(c.steps_right, c.steps_counted),
    "first_error_f1": first_error_f1,
    "first_error_f1_by_score": lambda c: first_error_f1(c.by_score()),
}
_OF_SCORES: dict[str, ColumnsFigure] = {
    "auroc": score_auroc,
    "calibration_error": lambda c: expected_calibration_error(c.scores, ~c.has_error),
    "brier": lambda c: brier_score(c.scores, ~c.has_error),
    "point_biserial": lambda c: point_biserial(c.scores, ~c.has_error),
    "spearman": lambda c: spearman(c.scores, ~c.has_error),
}
_OF_TOKENS: dict[str, ColumnsFigure] = {"tokens": lambda c: float(c.tokens.mean())}


@dataclass(frozen=True)
class TaskFigure:
    """A figure that a task is known by.

    Attributes:
      key: its name in JSON. name: in full, for people. axis: at the axis of a picture.
      of: the figure of a set of outcomes.
      shares: the two that it is the harmonic mean of, if it is one.
      subsets: it is the mean of the figures of these subsets; None: of all outcomes together.
    """

    key: str
    name: str
    of: ColumnsFigure
    shares: ColumnsShares | None = None
    axis: str = "F1"
    subsets: tuple[str, ...] | None = None

    def estimate(self, outcomes: Sequence[Outcome], resamples: int = 1000) -> Estimate:
        """n counts all solutions behind it."""
        parts = self._columns(outcomes)
        found = bootstrap_average([self._statistic(columns) for columns in parts], resamples)
        return found if self.shares is None else widened(found, [self.shares(columns) for columns in parts])

    def gain(self, ours: Sequence[Outcome], theirs: Sequence[Outcome], resamples: int = 1000) -> Estimate:
        """How much the figure of ``ours`` is above that of ``theirs``, two sets of outcomes for the same cases in
        the same order: both are resampled together (paired), so what is hard for both does not widen the interval.

        Raises:
          ValueError: they are of different cases.
        """
        if [outcome.first_error for outcome in ours] != [outcome.first_error for outcome in theirs]:
            raise ValueError("the outcomes are of different cases")
        pairs = zip(self._columns(ours), self._columns(theirs), strict=True)
        return bootstrap_average([self._gain_statistic(a, b) for a, b in pairs], resamples)

    def _columns(self, outcomes: Sequence[Outcome]) -> list[OutcomeColumns]:
        if self.subsets is None:
            return [OutcomeColumns.of(outcomes)]
        of_subset = {name: [r for r in outcomes if r.groups.get(SUBSET) == name] for name in self.subsets}
        return [OutcomeColumns.of(found) for found in of_subset.values()]

    def _statistic(self, columns: OutcomeColumns) -> tuple[Statistic, int]:
        return lambda rows: self.of(columns.take(rows)), len(columns)

    def _gain_statistic(self, ours: OutcomeColumns, theirs: OutcomeColumns) -> tuple[Statistic, int]:
        return lambda rows: self.of(ours.take(rows)) - self.of(theirs.take(rows)), len(ours)


FIRST_ERROR = TaskFigure("first_error_f1", "first-error F1", first_error_f1, first_error_shares, "first-error F1")
WHOLE_SOLUTION = TaskFigure(
    "binary_f1", "binary F1 (positive = correct)", whole_solution_f1, whole_solution_shares, "binary F1"
)
AUROC = TaskFigure("auroc", "AUROC of the score", score_auroc, axis="AUROC")
