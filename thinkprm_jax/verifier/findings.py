"""What chains say, and the numbers that a verdict is made of. Data of every kind of verifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from thinkprm_jax.errors import RequestError
from thinkprm_jax.protocol.reading import contradicts
from thinkprm_jax.records import ChainRecord


class Unlocated(RequestError):
    """The verifier says that there is an error and not where."""


@dataclass(frozen=True)
class Reading:
    """What a chain, or a verifier without chains, says by itself, without anything that was forced.

    Attributes:
      label: 1 the solution is correct, 0 it is not, None unreadable.
      first_error: index from 0 of the first incorrect step, -1 for none, None where it is not said.
      step_labels: [steps], 1, 0 or None (not judged).
    """

    label: int | None
    first_error: int | None
    step_labels: tuple[int | None, ...]

    @property
    def readable(self) -> bool:
        return self.label is not None

    @classmethod
    def of_first_error(cls, first_error: int | None, steps: int) -> Reading:
        """Of one that names the first error alone; None: unreadable. Behind the error nothing is judged."""
        if first_error is None:
            return cls(None, None, (None,) * steps)
        judged = steps if first_error < 0 else first_error + 1
        labels = tuple(int(step != first_error) if step < judged else None for step in range(steps))
        return cls(int(first_error < 0), first_error, labels)


@dataclass(frozen=True)
class ChainVerdict:
    """What one chain of a verifier says; of every kind that writes.

    Attributes:
      output: the text. Of ThinkPRM closed, with the decision line and the likelier answer, without forced step
        verdicts; of a judge as it came.
      prefix_score: probability that all given steps are correct; None where it cannot be read.
      step_labels: 1 correct, 0 incorrect; 0 for every step after the first incorrect one. () where the chain says
        nothing of steps; so are step_scores and step_forced.
      step_scores: P(correct) against P(incorrect) where the verdict of the step stands. After the first incorrect
        step nothing is measured and the score is 0.0, as the label: what builds on an error is not correct, and
        the minimum, the product and the last of the scores stay meaningful. Of a judge the labels.
      step_forced: the chain itself never judged the step, and was made to.
      finish_reason: of the last round. "stop": the chain ended itself; "length": max_gen_tokens; "context":
        max_length left no room.
      output_tokens: tokens sampled.
      reading: what the chain itself says.
      forced: whether the score was asked for, since the output holds no readable verdict; None of ThinkPRM, whose
        score is always asked for.
    """

    output: str
    prefix_score: float | None
    step_labels: tuple[int, ...]
    step_scores: tuple[float, ...]
    step_forced: tuple[bool, ...]
    finish_reason: str
    reading: Reading
    output_tokens: int = 0
    forced: bool | None = None

    @property
    def contradictory(self) -> bool | None:
        """Whether its score of the whole says one thing and its labels another; None: it has not both."""
        return contradicts(self.prefix_score, self.step_labels)

    @property
    def record(self) -> ChainRecord:
        """The chain as it stands in a file."""
        return ChainRecord(
            self.output,
            self.prefix_score,
            self.step_labels,
            self.step_scores,
            self.step_forced,
            self.finish_reason,
            self.output_tokens,
            None if self.forced is None else self.reading.label,
            None if self.forced is None else self.reading.first_error,
            self.forced,
            self.contradictory,
        )


@dataclass(frozen=True)
class Findings:
    """The numbers of a verdict.

    Attributes:
      prefix_score: probability that all given steps are correct.
      step_scores: one a step; of a verdict that says nothing of steps the score of the whole alone.
      step_labels: 1 correct, 0 incorrect, one a step; () where the verdict says nothing of steps.
      first_error: index from 0 of the first incorrect step, -1 for none, None: there is one and it is not said
        where.
    """

    prefix_score: float
    step_scores: tuple[float, ...]
    step_labels: tuple[int, ...]
    first_error: int | None


# How a kind makes one verdict of n chains; RequestError where none of them can be read.
Combine = Callable[[Sequence[ChainVerdict]], Findings]
