"""From verdicts to outcomes: one outcome a solution, whatever kind of verifier judged it.

    Case (a solution and the truth)  +  verdict  ->  Outcome  ->  Summary (figures with their intervals)

What a verdict says of the steps is read from its chains; a verifier without chains speaks by its step scores.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thinkprm_jax.evaluation.estimates import Estimate
from thinkprm_jax.evaluation.metrics import steps_right
from thinkprm_jax.evaluation.outcomes import Case, Outcome
from thinkprm_jax.protocol.prompts import THINK_CLOSE
from thinkprm_jax.protocol.reading import read_chain

if TYPE_CHECKING:
    from thinkprm_jax.verifier.registry import AnyVerdict, Verifier

__all__ = ["Case", "Estimate", "Outcome", "compare", "first_chains", "judge"]


@dataclass(frozen=True)
class Reading:
    """What one chain says of the steps by itself, without anything that was forced.

    labels: for each step 1, 0 or None (not judged). first_error: index from 0, -1 for none, None: unreadable, some
    step before the first one it calls incorrect has no verdict.
    """

    labels: Sequence[int | None]
    first_error: int | None


def judge(verifier: Verifier, cases: Sequence[Case]) -> Iterator[tuple[int, AnyVerdict, Outcome]]:
    """(index of the case, verdict, outcome) as they finish, in any order."""
    for index, verdict in verifier.verify((case.problem, case.steps) for case in cases):
        yield index, verdict, compare(cases[index], verdict, verifier.n, verifier.judges_steps)


def compare(case: Case, verdict: AnyVerdict, chains: int = 1, locates: bool = True) -> Outcome:
    """What a verdict of that many chains says of the case.

    Args:
      locates: the verifier judges steps, not only whole solutions.
    """
    readings = _readings(verdict, len(case.steps), locates)
    tokens = verdict.output_tokens
    if verdict.error is not None:
        return _no_verdict(case, len(readings) or chains, tokens, verdict.error, locates)
    by_score = _by_score(verdict, len(case.steps)) if locates else None
    readable = [reading.first_error for reading in readings if reading.first_error is not None]
    counts = [steps_right(reading.labels, case.labels) for reading in readings] if locates else []
    return Outcome(
        first_error=case.first_error,
        predicted=_vote(readable, by_score) if locates else None,
        score=verdict.prefix_score,
        readable=len(readable),
        chains=len(readings),
        steps_right=sum(right for right, _ in counts),
        steps_counted=sum(counted for _, counted in counts),
        tokens=tokens,
        groups=case.groups,
        predicted_by_score=by_score,
        locates=locates,
    )


def first_chains(verdict: AnyVerdict, count: int) -> AnyVerdict:
    """The verdict of the first ``count`` of its chains: the one that a run with that n would have given, since a
    chain's sampling depends on its number and not on how many there are."""
    return dataclasses.replace(verdict, chains=verdict.chains[:count])


def _readings(verdict: AnyVerdict, steps: int, locates: bool) -> list[Reading]:
    from thinkprm_jax.verifier.script import ChainVerdict

    chains: Sequence[Any] | None = getattr(verdict, "chains", None)
    if chains is None:
        # Steps behind the first one that it calls incorrect count as without a verdict, as they are in a chain,
        # although it scores each step by itself: so the figures of both kinds of verifier mean the same.
        return [] if verdict.error is not None else [_reading_of(verdict.first_error, steps)]
    found = []
    for chain in chains:
        if isinstance(chain, ChainVerdict):
            read = read_chain(chain.output.rpartition(THINK_CLOSE)[0], steps)
            first_error = -1 if read.first_error is None else read.first_error
            found.append(Reading(read.labels, first_error if read.complete else None))
        elif locates:
            found.append(_reading_of(chain.first_error, steps))
        else:  # -1 stands for "read": a whole solution's verdict has no place
            found.append(Reading([None] * steps, None if chain.label is None else -1))
    return found


def _reading_of(first_error: int | None, steps: int) -> Reading:
    """Of a verdict that names the first error alone."""
    if first_error is None:
        return Reading([None] * steps, None)
    judged = steps if first_error < 0 else first_error + 1
    labels = [int(step != first_error) if step < judged else None for step in range(steps)]
    return Reading(labels, first_error)


def _vote(indices: Sequence[int], by_score: int | None) -> int | None:
    """The index that most chains give; among equally many, the one of the mean step scores, or the first seen."""
    if not indices:
        return None
    counts = Counter(indices)
    most = max(counts.values())
    leaders = [index for index, count in counts.items() if count == most]
    return by_score if by_score in leaders else leaders[0]


def _by_score(verdict: AnyVerdict, steps: int) -> int | None:
    """The first step whose mean score is below one half, -1 for none; None where there are no scores of steps."""
    if not hasattr(verdict, "chains"):
        return verdict.first_error
    scores = verdict.step_scores
    if len(scores) != steps:  # a judge none of whose chains says where
        return None
    return next((step for step, score in enumerate(scores) if score < 0.5), -1)


def _no_verdict(case: Case, chains: int, tokens: int, error: Exception, locates: bool) -> Outcome:
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
