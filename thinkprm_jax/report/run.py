"""What a page shows: problems, their solutions, the verdicts on them and the chains behind those.

Whatever a run was read from (a search, an evaluation, `thinkprm score`), it becomes these types. Scores are
probabilities in [0, 1]; a first error is an index from 0, -1 for none; None is unknown, always.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from thinkprm_jax.protocol.reading import contradicts
from thinkprm_jax.records.evaluation import Outcome


@dataclass(frozen=True)
class VerdictMark:
    """A step verdict in the text of a chain. step: the one it decides; None: another counts in its place."""

    text: str
    label: int
    step: int | None


@dataclass(frozen=True)
class ReportChain:
    """One chain.

    Attributes:
      parts: its thinking, cut at the verdicts in it. ending: what follows the thinking, the decision in it.
      score: of the whole solution.
      labels: one a step, or none where the chain judged the solution as a whole.
      scores: one a step or none; None behind the first incorrect step, where nothing is measured.
      forced: for each step whether the chain never judged it, and was made to.
      first_error: by the labels; None where it was not said.
      readable: it judged every step by itself, up to the first it calls incorrect.
      finish: "stop", or what cut it off. tokens: sampled.
    """

    parts: tuple[str | VerdictMark, ...]
    ending: str
    score: float | None
    labels: tuple[int, ...]
    scores: tuple[float | None, ...]
    forced: tuple[bool, ...]
    first_error: int | None
    readable: bool
    finish: str | None = None
    tokens: int | None = None

    @property
    def contradictory(self) -> bool:
        """Its score of the whole says one thing and its labels another."""
        return bool(contradicts(self.score, self.labels))


@dataclass(frozen=True)
class ReportSolution:
    """A solution and what is known of it.

    Attributes:
      score: what it is ranked by. verdict_score: P(correct) of the verdict; the same one unless a search
        aggregates over steps.
      labels, scores: of the verdict, one a step, or none. A score is None where no chain measured it.
      predicted: the first error by the verdict; None for unreadable or none given.
      error: why there is no verdict.
      truth: the true first error. correct: whether it is right: by the truth, or by its answer.
      finish: "stop", or what cut the solution off. tokens: of the solution.
    """

    steps: tuple[str, ...]
    score: float | None = None
    verdict_score: float | None = None
    labels: tuple[int, ...] = ()
    scores: tuple[float | None, ...] = ()
    predicted: int | None = None
    chains: tuple[ReportChain, ...] = ()
    error: str | None = None
    truth: int | None = None
    correct: bool | None = None
    answer: str | None = None
    finish: str | None = None
    tokens: int | None = None

    @property
    def judged(self) -> bool:
        return self.verdict_score is not None

    @property
    def wrong(self) -> bool:
        """There is a verdict, and it is not the truth: on the first error where that is known, else as a whole."""
        if self.verdict_score is None:
            return False
        if self.truth is not None:
            return self.predicted != self.truth
        return self.correct is not None and (self.verdict_score >= 0.5) != self.correct

    @property
    def agreeing(self) -> int:
        """Chains that name the commonest first error, or that say neither; 0 without chains."""
        votes = collections.Counter(chain.first_error for chain in self.chains)
        return max(votes.values(), default=0)

    @property
    def spread(self) -> float:
        """Difference between the highest and the lowest score of a chain."""
        scores = [chain.score for chain in self.chains if chain.score is not None]
        return max(scores) - min(scores) if scores else 0.0

    @property
    def disputed(self) -> bool:
        """The chains name different first errors, or their scores lie on both sides of one half."""
        sides = {chain.score >= 0.5 for chain in self.chains if chain.score is not None}
        return self.agreeing < len(self.chains) or len(sides) > 1

    @property
    def disagreement(self) -> float:
        """For sorting: the share of chains outside the majority, plus the spread of the scores."""
        return (1 - self.agreeing / len(self.chains) if self.chains else 0.0) + self.spread


@dataclass(frozen=True)
class ReportPick:
    """A selection: what it is called (`weighted@4`), the answer it chose, and the solutions that have it."""

    name: str
    answer: str | None
    solutions: tuple[int, ...]

    @property
    def method(self) -> str:
        return self.name.partition("@")[0]

    @property
    def n(self) -> int:
        return int(self.name.partition("@")[2])


@dataclass(frozen=True)
class ReportProblem:
    """name: an id or a number from 1. answer: the reference. groups: breakdown -> group.

    error: why the search has no solution of it.
    """

    name: str
    text: str
    solutions: tuple[ReportSolution, ...]
    answer: str | None = None
    picks: tuple[ReportPick, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True)
class ReportRun:
    """A run, as read.

    Attributes:
      kind: "search", "evaluation" or "score". source: the file or folder.
      settings: a table for people: heading -> text.
      accuracy: of a search, by N: accuracy.json. outcomes: of an evaluation, as recorded.
      notes: what a reader has to know before the figures, like "the run is not finished".
    """

    kind: str
    source: str
    problems: tuple[ReportProblem, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    accuracy: Mapping[str, Any] | None = None
    outcomes: Sequence[Outcome] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProblemFilter:
    """A filter. ``holds`` is a function of a problem; label and help are for people."""

    key: str
    label: str
    help: str

    def holds(self, problem: ReportProblem) -> bool:
        return _TESTS[self.key](problem)


FILTERS = (
    ProblemFilter("wrong", "Wrong", "the verdict on a solution is not the truth"),
    ProblemFilter(
        "disputed", "Chains disagree", "chains of a solution name different first errors or decide differently"
    ),
    ProblemFilter(
        "unreadable", "Unreadable", "a chain did not judge every step up to the first it calls incorrect"
    ),
    ProblemFilter("forced", "Forced", "a chain was made to judge a step that it had passed over"),
    ProblemFilter("contradictory", "Contradictory", "the score of a chain says one thing and its labels another"),
    ProblemFilter("failed", "Not judged", "a solution got no verdict, or the problem no solution"),
    ProblemFilter("cut", "Cut off", "a solution or a chain met its limit of tokens"),
    ProblemFilter("missed", "Missed", "there is a correct solution, and the selection took another"),
    ProblemFilter("hopeless", "None correct", "none of the solutions is correct"),
)


def chosen(problem: ReportProblem) -> int | None:
    """The solution that stands for the problem: the best-scored one, as `naive` takes it."""
    scored = [
        (solution.score, -index) for index, solution in enumerate(problem.solutions) if solution.score is not None
    ]
    return -max(scored)[1] if scored else None


def missed(problem: ReportProblem) -> bool:
    """One solution is correct, but the last selection of the search (weighted, at the largest N) is not."""
    right = {index for index, solution in enumerate(problem.solutions) if solution.correct}
    final = max(
        (pick for pick in problem.picks if pick.method == "weighted"), key=lambda pick: pick.n, default=None
    )
    return bool(right) and final is not None and not right.intersection(final.solutions)


def _any(test: Any) -> Any:
    return lambda problem: any(test(solution) for solution in problem.solutions)


_TESTS = {
    "wrong": _any(lambda s: s.wrong),
    "disputed": _any(lambda s: s.disputed),
    "unreadable": _any(lambda s: any(not chain.readable for chain in s.chains)),
    "forced": _any(lambda s: any(any(chain.forced) for chain in s.chains)),
    "contradictory": _any(lambda s: any(chain.contradictory for chain in s.chains)),
    "failed": lambda problem: problem.error is not None or any(s.error is not None for s in problem.solutions),
    "cut": _any(lambda s: is_cut(s.finish) or any(is_cut(chain.finish) for chain in s.chains)),
    "missed": missed,
    "hopeless": lambda problem: len(problem.solutions) != 1 and all(s.correct is False for s in problem.solutions),
}


def is_cut(finish: str | None) -> bool:
    return finish in ("length", "context")
