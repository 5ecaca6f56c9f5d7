"""A solution and the truth about it, and what a verifier made of it.

An outcome holds nothing of any one kind of verifier: all of them are summed up alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
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


@dataclass(frozen=True)
class Outcome:
    """What a verifier made of one case.

    Attributes:
      first_error: the truth.
      predicted: the first error found, -1 for none, None for unreadable. Of several chains the readable ones vote.
      score: probability that the solution is correct, the mean over the chains; None if there is no verdict.
      readable, chains: chains that judged every step up to the first one they call incorrect, of how many.
      steps_right, steps_counted: summed over the chains; see :func:`thinkprm_jax.evaluation.metrics.steps_right`.
      tokens: sampled for the verdict, over all chains.
      groups: those of the case.
      error: why there is no verdict. Such a case counts as unreadable and its steps and its whole as wrongly
        judged; it has no part in the figures of the score.
      predicted_by_score: the first step whose mean score is below one half, -1 for none, None for no verdict.
        Scores exist for steps too that a chain was silent about.
      locates: whether the verifier judges steps at all; if not, nothing that concerns steps is known.
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
    predicted_by_score: int | None = None
    locates: bool = True
