"""What a search asks for: pieces of solutions, and verdicts on them. The searches are pure functions over this.

    generate   a continuation                ->  the piece that was written
    verify     a problem, a solution so far  ->  a judgement

Both give a handle at once, and work on all that they were asked for together, whoever asked.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Literal, Protocol

from thinkprm_jax.errors import RequestError
from thinkprm_jax.records.verdicts import VerdictRecord
from thinkprm_jax.sampler.handle import Handle, StepLoop
from thinkprm_jax.search.voting import Strategy, aggregate

Finish = Literal["step", "stop", "length"]


@dataclasses.dataclass(frozen=True)
class Problem:
    """number: of the row in the data set, counted from 0; with the recipe's seed it decides the sampling."""

    number: int
    text: str


@dataclasses.dataclass(frozen=True)
class Continuation:
    """A solution that is to go on.

    Attributes:
      prefix: ids of the solution so far, as they were sampled.
      seed: the piece depends on this, the problem and the prefix, and on nothing beside it.
      max_tokens: of the piece, at least 1.
      one_step: end behind the first step; False: go on to the end of the solution.
      greedy: take the likeliest tokens, whatever the temperature of the search.
    """

    problem: Problem
    prefix: tuple[int, ...]
    seed: int
    max_tokens: int
    one_step: bool
    greedy: bool = False


@dataclasses.dataclass(frozen=True)
class Piece:
    """What a continuation wrote.

    Attributes:
      ids: its own ids, without those of the prefix.
      text: of the whole solution so far, prefix included.
      finish: "step" (the solution can go on), "stop" (it ended itself) or "length" (no room for more).
      tokens: sampled for it, the one that ended it included.
      error: why there is none (the prompt does not fit, say); the rest is empty then.
    """

    ids: tuple[int, ...] = ()
    text: str = ""
    finish: Finish = "length"
    tokens: int = 0
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What the verifier says of a solution so far.

    Attributes:
      scores: one a step; the last one is that of the whole: by "last" it is the verifier's own score, by "min",
        "prod" and "mean" the steps count too. () where there is no verdict.
      record: the verdict, with the steps as the verifier was shown them.
      tokens: the verifier sampled for it.
      error: why there is no verdict. failure: the same, as it was raised.
    """

    scores: tuple[float, ...] = ()
    record: VerdictRecord | None = None
    tokens: int = 0
    error: str | None = None
    failure: RequestError | None = None

    @classmethod
    def of_record(cls, record: VerdictRecord, tokens: int, failure: RequestError | None = None) -> Judgement:
        """failure: why the record holds no scores."""
        if record.error is not None or record.prefix_score is None:
            return cls((), record, tokens, record.error, failure)
        return cls((*(record.step_scores or ())[:-1], record.prefix_score), record, tokens)


class Engine(Protocol):
    """Writes and judges.

    side_by_side: generator and verifier may step in two threads.
    loops: what steps them, the generator's first; those of them that there are.
    """

    @property
    def side_by_side(self) -> bool: ...

    @property
    def loops(self) -> Sequence[StepLoop]: ...

    def generate(self, continuation: Continuation) -> Handle[Piece]: ...

    def verify(self, problem: Problem, solution: str) -> Handle[Judgement]: ...


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """What the searches are told; see the recipe for what each means.

    n: solutions a problem; beam_width: candidates that one beam or one tree makes a round (M).
    as_search_and_learn: its rules of which candidates go on and which come out.
    """

    n: int = 4
    beam_width: int = 4
    num_iterations: int = 40
    lookahead: int = 0
    max_tokens: int = 2048
    seed: int = 42
    agg_strategy: Strategy = "last"
    filter_duplicates: bool = False
    sort_completed: bool = False
    as_search_and_learn: bool = False


@dataclasses.dataclass(frozen=True)
class Beam:
    """A solution, finished or not.

    Attributes:
      tokens: sampled for the tokens it consists of, its end included.
      finish: None while it can go on, else "stop" or "length".
      seen: the text that was judged, where lookahead goes beyond the solution's own.
    """

    problem: Problem
    ids: tuple[int, ...] = ()
    text: str = ""
    tokens: int = 0
    finish: Literal["stop", "length"] | None = None
    seen: str = ""
    judgement: Judgement | None = None
    error: str | None = None

    def score(self, strategy: Strategy) -> float:
        """For comparisons: below every other where there is no verdict."""
        scores = self.judgement.scores if self.judgement is not None else ()
        value = aggregate(list(scores), strategy) if scores else None
        return float("-inf") if value is None else value


@dataclasses.dataclass
class SearchResult:
    """What a search found for one problem.

    Attributes:
      solutions: in the order they were found (by falling score with sort_completed).
      generated_tokens: all that the generator sampled: candidates that were dropped and lookahead included.
      verifier_tokens, verifications: what was spent on judging.
      rounds: of generation.
      error: why there is no solution at all.
    """

    solutions: list[Beam] = dataclasses.field(default_factory=list)
    generated_tokens: int = 0
    verifier_tokens: int = 0
    verifications: int = 0
    rounds: int = 0
    error: str | None = None


def beam_seed(seed: int, problem: int, round: int, beam: int, ahead: int = 0) -> int:
    """In [0, 2**63): what the sampling of one candidate depends on, beside its context.

    ahead: steps of lookahead before this one.
    """
    digest = hashlib.sha256(f"{seed} {problem} {round} {beam} {ahead}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
