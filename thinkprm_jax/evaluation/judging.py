"""What verdicts come to on solutions whose first error is known: one outcome a solution, one summary of many.

    Case (a solution and the truth)  +  Verdict  ->  Outcome  ->  Summary (figures with their intervals)

An outcome holds nothing of ThinkPRM: a verifier of another kind makes its own and shares the rest.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from thinkprm_jax.evaluation.metrics import (
    auroc,
    binary_f1,
    bootstrap_interval,
    expected_calibration_error,
    first_error_hits,
    first_error_scores_of_hits,
    steps_right,
    wilson_interval,
)
from thinkprm_jax.text.prompts import THINK_CLOSE
from thinkprm_jax.text.verdicts import read_chain

if TYPE_CHECKING:
    from thinkprm_jax.verifier.discriminative import DiscriminativePRM, StepVerdict
    from thinkprm_jax.verifier.thinkprm import ThinkPRM, Verdict


@dataclass(frozen=True)
class Case:
    """A solution and the truth about it.

    first_error: index from 0 of the first incorrect step, or -1.
    groups: how to break the figures down: name of a breakdown -> the group in it.
    """

    problem: str
    steps: tuple[str, ...]
    first_error: int
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def labels(self) -> list[int]:
        """1 up to the first error, 0 from there on."""
        return [int(self.first_error < 0 or step < self.first_error) for step in range(len(self.steps))]


@dataclass(frozen=True)
class Outcome:
    """What a verifier made of one case.

    Attributes:
      first_error: the truth.
      predicted: the first error found, -1 for none, None for unreadable.
      score: probability that the solution is correct; None if there is no verdict.
      readable, chains: chains that judged every step up to the first one they call incorrect, of how many.
      steps_right, steps_counted: summed over the chains; see :func:`thinkprm_jax.evaluation.metrics.steps_right`.
      tokens: sampled for the verdict, over all chains.
      groups: those of the case.
      error: why there is no verdict. Such a case counts as unreadable and its steps as wrong, and has no part in
        the figures of the score.
    """

    first_error: int
    predicted: int | None
    score: float | None
    readable: int
    chains: int
    steps_right: int
    steps_counted: int
    tokens: int = 0
    groups: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class Estimate:
    """A figure, its 95% interval, and the number of solutions behind it. NaN where there are none."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Summary:
    """The figures over a set of outcomes; shares in [0, 1].

    solutions, failed: how many there were, and how many of them got no verdict.
    readable_chains: of all chains, those that judged every step themselves, up to the first they call incorrect.
    step_accuracy: of all steps up to the true first error, those whose verdict in the chain is right.
    acc_error, acc_correct, first_error_f1: ProcessBench's measure.
    binary_f1: of "score >= 0.5" as a decision on whole solutions, positive = correct.
    auroc, calibration_error: of the score.
    tokens: mean of the tokens sampled for a verdict.
    """

    solutions: int
    failed: int
    readable_chains: Estimate
    step_accuracy: Estimate
    acc_error: Estimate
    acc_correct: Estimate
    first_error_f1: Estimate
    binary_f1: Estimate
    auroc: Estimate
    calibration_error: Estimate
    tokens: Estimate


def judge(
    verifier: ThinkPRM | DiscriminativePRM, cases: Sequence[Case]
) -> Iterator[tuple[int, Verdict | StepVerdict, Outcome]]:
    """(index of the case, verdict, outcome) as they finish, in any order."""
    from thinkprm_jax.verifier.discriminative import StepVerdict

    for index, verdict in verifier.verify((case.problem, case.steps) for case in cases):
        if isinstance(verdict, StepVerdict):
            yield index, verdict, compare_steps(cases[index], verdict)
        else:
            yield index, verdict, compare(cases[index], verdict, verifier.n)


def compare(case: Case, verdict: Verdict, chains: int) -> Outcome:
    """What a ThinkPRM verdict of that many chains says of the case.

    Only what the chains wrote counts as read, no verdict that was forced. Of several chains the readable ones
    vote, as :attr:`Verdict.step_labels` says.
    """
    labels = case.labels
    if verdict.error is not None:
        return _no_verdict(case, chains, verdict.error)
    reads = [read_chain(chain.output.rpartition(THINK_CLOSE)[0], len(labels)) for chain in verdict.chains]
    readable = tuple(chain for chain, read in zip(verdict.chains, reads, strict=True) if read.complete)
    steps = [steps_right(read.labels, labels) for read in reads]
    return Outcome(
        first_error=case.first_error,
        predicted=dataclasses.replace(verdict, chains=readable).first_error if readable else None,
        score=verdict.prefix_score,
        readable=len(readable),
        chains=len(reads),
        steps_right=sum(right for right, _ in steps),
        steps_counted=sum(counted for _, counted in steps),
        tokens=sum(chain.output_tokens for chain in verdict.chains),
        groups=case.groups,
    )


def compare_steps(case: Case, verdict: StepVerdict) -> Outcome:
    """What a discriminative verdict says of the case: one readable "chain" without a token.

    Steps behind the first one that it calls incorrect count as without a verdict, as they are in a chain, although
    it scores each step by itself: so the figures of both kinds of verifier mean the same.
    """
    if verdict.error is not None:
        return _no_verdict(case, 1, verdict.error)
    found = verdict.first_error
    read = [label if found < 0 or step <= found else None for step, label in enumerate(verdict.step_labels)]
    right, counted = steps_right(read, case.labels)
    return Outcome(
        first_error=case.first_error,
        predicted=found,
        score=verdict.prefix_score,
        readable=1,
        chains=1,
        steps_right=right,
        steps_counted=counted,
        groups=case.groups,
    )


def _no_verdict(case: Case, chains: int, error: Exception) -> Outcome:
    counted = steps_right([None] * len(case.steps), case.labels)[1]
    return Outcome(
        first_error=case.first_error,
        predicted=None,
        score=None,
        readable=0,
        chains=chains,
        steps_right=0,
        steps_counted=chains * counted,
        groups=case.groups,
        error=str(error),
    )


def summarise(outcomes: Sequence[Outcome], resamples: int = 1000) -> Summary:
    """All figures. Shares of solutions have Wilson's interval, the others the bootstrap's, over solutions."""
    table = _Table.of(outcomes)
    scored = _Table.of([outcome for outcome in outcomes if outcome.score is not None])

    def bootstrapped(data: _Table, statistic: Callable[[_Table], float]) -> Estimate:
        n = len(data.hits)
        interval = bootstrap_interval(lambda rows: statistic(data.take(rows)), n, resamples)
        return Estimate(statistic(data), interval.low, interval.high, n)

    def share(value: float, n: int) -> Estimate:
        interval = wilson_interval(value, n)
        return Estimate(value, interval.low, interval.high, n)

    found = first_error_scores_of_hits(table.hits, table.has_error)
    steps = bootstrapped(table, lambda t: _ratio(t.steps_right, t.steps_counted))
    if steps.value in (0.0, 1.0):  # where all are alike a resample tells nothing
        steps = share(steps.value, len(outcomes))
    return Summary(
        solutions=len(outcomes),
        failed=len(outcomes) - len(scored.hits),
        # Chains of one solution are no independent cases: the interval is that of as many solutions.
        readable_chains=share(_ratio(table.readable, table.chains), len(outcomes)),
        step_accuracy=steps,
        acc_error=share(found.acc_error, found.errors),
        acc_correct=share(found.acc_correct, found.corrects),
        first_error_f1=bootstrapped(table, lambda t: first_error_scores_of_hits(t.hits, t.has_error).f1),
        binary_f1=bootstrapped(scored, lambda t: binary_f1(t.scores >= 0.5, ~t.has_error)),
        auroc=bootstrapped(scored, lambda t: auroc(t.scores, ~t.has_error)),
        calibration_error=bootstrapped(scored, lambda t: expected_calibration_error(t.scores, ~t.has_error)),
        tokens=bootstrapped(scored, lambda t: _ratio(t.tokens, np.ones_like(t.tokens))),
    )


def break_down(outcomes: Sequence[Outcome], resamples: int = 1000) -> dict[str, dict[str, Summary]]:
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
class _Table:
    """Outcomes as columns [N], so that a resample costs a few numpy calls."""

    hits: np.ndarray
    has_error: np.ndarray
    scores: np.ndarray
    readable: np.ndarray
    chains: np.ndarray
    steps_right: np.ndarray
    steps_counted: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> _Table:
        truth = [outcome.first_error for outcome in outcomes]

        def column(values: Iterable[float | None]) -> np.ndarray:
            return np.array([math.nan if value is None else value for value in values], float)

        return cls(
            hits=first_error_hits([outcome.predicted for outcome in outcomes], truth),
            has_error=np.array(truth, int) >= 0,
            scores=column(outcome.score for outcome in outcomes),
            readable=column(outcome.readable for outcome in outcomes),
            chains=column(outcome.chains for outcome in outcomes),
            steps_right=column(outcome.steps_right for outcome in outcomes),
            steps_counted=column(outcome.steps_counted for outcome in outcomes),
            tokens=column(outcome.tokens for outcome in outcomes),
        )

    def take(self, rows: np.ndarray) -> _Table:
        return _Table(*(getattr(self, column.name)[rows] for column in dataclasses.fields(self)))


def _ratio(part: np.ndarray, whole: np.ndarray) -> float:
    total = whole.sum()
    return float(part.sum() / total) if total else math.nan
