"""The rows of `thinkprm evaluate TASK --details`: solutions, what is true of them, and what a verifier says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from thinkprm_jax.records.inputs import problem_of
from thinkprm_jax.records.schema import (
    FORMAT_KEY,
    LEFT_OUT,
    Count,
    Probability,
    Record,
    Row,
    StepIndex,
    check_format,
    field_error,
)
from thinkprm_jax.records.verdicts import VerdictRecord


@dataclass(frozen=True)
class Outcome(Record):
    """What a verifier made of one solution whose truth is known.

    It holds nothing of any one kind of verifier: all of them are summed up alike.

    Attributes:
      first_error: the truth: index from 0, -1 for none.
      predicted: the first error found, -1 for none, None for unreadable. Of several chains the readable ones vote.
      score: probability that the solution is correct, the mean over the chains; None if there is no verdict.
      readable: chains that judged every step up to the first one they call incorrect.
      chains: of how many.
      steps_right: step verdicts that are right, summed over the chains; see
        :func:`thinkprm_jax.evaluation.metrics.steps_right`.
      steps_counted: of how many.
      tokens: sampled for the verdict, over all chains.
      groups: those of the case.
      error: why there is no verdict. Such a case counts as unreadable and its steps and its whole as wrongly
        judged; it has no part in the figures of the score.
      predicted_by_score: the first step whose mean score is below one half, -1 for none, None for no verdict.
        Scores exist for steps too that a chain was silent about.
      locates: whether the verifier judges steps at all; if not, nothing that concerns steps is known.
      contradictory: chains whose score of the whole says one thing and whose labels another; None where there is
        no verdict, and in files that do not say it.
    """

    first_error: StepIndex
    predicted: StepIndex | None
    score: Probability | None
    readable: Count
    chains: Count
    steps_right: Count
    steps_counted: Count
    tokens: Count = 0
    groups: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    predicted_by_score: StepIndex | None = None
    locates: bool = True
    contradictory: Count | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class LabelledSolutionRow(Row):
    """A solution and the truth about it, for `thinkprm evaluate solutions`: in the form of ProcessBench. Details
    of an evaluation are such rows, too.

    Attributes:
      id: how the data call it.
      problem: its field may be called `question`.
      steps: at least one.
      label: index from 0 of the first incorrect step, -1 for none.
      groups: name of a breakdown -> the group that the solution is in.
    """

    FORMAT = "labelled_solution"

    id: str | None = field(default=None, metadata=LEFT_OUT)
    problem: str
    steps: tuple[str, ...]
    label: StepIndex
    groups: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], place: str = "row", name: str = "") -> Self:
        check_format(content, (cls.FORMAT, EvaluationRow.FORMAT), cls.VERSION, place)
        known = {key: value for key, value in content.items() if key not in (FORMAT_KEY, "question")}
        if known.get("groups", {}) is None:
            del known["groups"]
        return super().from_dict({**known, "problem": problem_of(content, place)}, place, name)

    def check(self, place: str, prefix: str) -> None:
        if not self.steps:
            raise field_error(place, "steps", "is empty")
        check_step(self.label, len(self.steps), place, "label")


@dataclass(frozen=True, kw_only=True)
class EvaluationRow(Row):
    """A line of the details: what is judged, as in ProcessBench, and behind it the verdict and what it comes to.

    Attributes:
      index: of the solution in the data, from 0.
      id: how the data call it.
      problem, steps: the solution.
      label: the truth: index from 0 of the first incorrect step, -1 for none.
      groups: name of a breakdown -> the group that the solution is in.
      outcome: what the verdict comes to.
      outcomes_of_first: the same of its first chain, its first two, and so on to all but one.
      verdict: of the verifier.
      verifier: the settings that the verdict was made with.
    """

    FORMAT = "evaluation"
    MADE_BY = ("verifier",)

    index: Count
    id: str | None = field(default=None, metadata=LEFT_OUT)
    problem: str
    steps: tuple[str, ...]
    label: StepIndex
    groups: Mapping[str, str] = field(default_factory=dict)
    outcome: Outcome
    outcomes_of_first: tuple[Outcome, ...] = field(default=(), metadata=LEFT_OUT)
    verdict: VerdictRecord
    verifier: Mapping[str, Any] = field(default_factory=dict)

    def check(self, place: str, prefix: str) -> None:
        check_step(self.label, len(self.steps), place, "label")
        check_step(self.outcome.predicted, len(self.steps), place, "outcome.predicted")
        self.verdict.check_steps(len(self.steps), place, "verdict.")


def check_step(index: int | None, steps: int, place: str, name: str) -> None:
    """Raises `UserError` where it is the index of no step."""
    if index is not None and index >= steps:
        raise field_error(place, name, f"must be a step from 0 to {steps - 1}, or -1; it is {index}")
