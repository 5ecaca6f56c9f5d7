"""From verdicts to outcomes: what a verifier made of a solution whose errors are known.

    EvaluationCase (a solution and the truth)  +  verdict  ->  Outcome  ->  EvaluationSummary (figures)

What a verdict says of the steps is read from its chains; a verifier without chains speaks by its step scores. An
outcome holds nothing of any one kind of verifier: all of them are summed up alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from thinkprm_jax.evaluation.metrics import steps_right
from thinkprm_jax.records.evaluation import Outcome

if TYPE_CHECKING:
    from thinkprm_jax.verifier.base import Verdict, Verifier


@dataclass(frozen=True)
class EvaluationCase:
    """A solution and the truth about it.

    first_error: index from 0 of the first incorrect step, or -1.
    groups: how to break the figures down: name of a breakdown -> the group in it.
    id: how its data set calls it.
    """

    problem: str
    steps: tuple[str, ...]
    first_error: int
    groups: Mapping[str, str] = field(default_factory=dict)
    id: str | None = None

    @property
    def labels(self) -> list[int]:
        """1 up to the first error, 0 from there on."""
        return [int(self.first_error < 0 or step < self.first_error) for step in range(len(self.steps))]


def judge_cases(verifier: Verifier, cases: Iterable[EvaluationCase]) -> Iterator[tuple[int, Verdict, Outcome]]:
    """(index of the case, verdict, outcome) as they finish, in any order. Cases are taken as there is room."""
    open_cases: dict[int, EvaluationCase] = {}

    def items() -> Iterator[tuple[str, Sequence[str]]]:
        for index, case in enumerate(cases):
            open_cases[index] = case
            yield case.problem, case.steps

    for index, verdict in verifier.verify(items()):
        yield index, verdict, outcome_of(open_cases.pop(index), verdict, verifier.n)


def outcome_of(case: EvaluationCase, verdict: Verdict, chains: int = 1) -> Outcome:
    """What a verdict of that many chains says of the case."""
    readings, locates = verdict.readings, verdict.locates
    tokens = verdict.output_tokens
    if verdict.error is not None:
        return _no_verdict(case, len(readings) or chains, tokens, verdict.error, locates)
    by_score = _by_score(verdict, len(case.steps)) if locates else None
    readable = [reading for reading in readings if reading.readable]
    first_errors = [reading.first_error for reading in readable if reading.first_error is not None]
    counts = [steps_right(reading.step_labels, case.labels) for reading in readings] if locates else []
    return Outcome(
        first_error=case.first_error,
        predicted=_vote(first_errors, by_score) if locates else None,
        score=verdict.prefix_score,
        readable=len(readable),
        chains=len(readings),
        steps_right=sum(right for right, _ in counts),
        steps_counted=sum(counted for _, counted in counts),
        tokens=tokens,
        groups=case.groups,
        predicted_by_score=by_score,
        locates=locates,
        contradictory=sum(map(bool, _contradictions(verdict))),
    )


def _contradictions(verdict: Verdict) -> list[bool | None]:
    """Of each chain, or of a verdict without chains, whether its score contradicts its labels."""
    if not verdict.chains:
        return [verdict.contradictory]
    return [chain.contradictory for chain in verdict.chains]


def _vote(indices: Sequence[int], by_score: int | None) -> int | None:
    """The index that most chains give; among equally many, the one of the mean step scores, or the first seen."""
    if not indices:
        return None
    counts = Counter(indices)
    most = max(counts.values())
    leaders = [index for index, count in counts.items() if count == most]
    return by_score if by_score in leaders else leaders[0]


def _by_score(verdict: Verdict, steps: int) -> int | None:
    """The first step whose mean score is below one half, -1 for none; None where there are no scores of steps."""
    if not verdict.chains:
        return verdict.first_error
    scores = verdict.step_scores
    if len(scores) != steps:  # a judge none of whose chains says where
        return None
    return next((step for step, score in enumerate(scores) if score < 0.5), -1)


def _no_verdict(case: EvaluationCase, chains: int, tokens: int, error: Exception, locates: bool) -> Outcome:
    counted = steps_right([None] * len(case.steps), case.labels)[1] if locates else 0
    return Outcome(
        first_error=case.first_error,
        predicted=None,
        score=None,
        readable=0,
        chains=chains,
        steps_right=0,
        steps_counted=chains * counted,
        tokens=tokens,
        groups=case.groups,
        error=str(error),
        locates=locates,
    )
