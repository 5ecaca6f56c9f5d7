"""Verdicts as they stand in files, and the rows of `thinkprm score`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.inputs import SolutionRow, parse_solution
from thinkprm_jax.records.jsonl import get_field
from thinkprm_jax.records.schema import (
    FORMAT_KEY,
    LEFT_OUT,
    Count,
    Label,
    Probability,
    Record,
    Row,
    StepIndex,
    check_format,
    decode,
    field_error,
)


@dataclass(frozen=True)
class ChainRecord(Record):
    """What one chain says.

    Attributes:
      output: its text, with the decision at the end.
      prefix_score: probability that all given steps are correct; None where it cannot be read.
      step_labels: 1 correct, 0 incorrect, one a step; () where it judges the solution as a whole.
      step_scores: P(correct), one a step, 0 behind the first incorrect one; () likewise.
      step_forced: whether the chain never judged the step by itself and was made to; () of a judge.
      finish_reason: "stop", "length" (its budget) or "context" (no room left).
      output_tokens: sampled; None where nobody counted.
      label: of a judge alone: 1 correct, 0 incorrect, of the whole; None unreadable.
      first_error: of a judge alone: the first incorrect step from 0, -1 for none, None where it does not say.
      forced: of a judge alone: whether it was asked for a decision; None of others.
      contradictory: whether the score says one thing and the labels another; None where it has not both, and in
        files that do not say it.
    """

    output: str
    prefix_score: Probability | None
    step_labels: tuple[Label, ...]
    step_scores: tuple[Probability, ...] = ()
    step_forced: tuple[bool, ...] = field(default=(), metadata=LEFT_OUT)
    finish_reason: str | None = None
    output_tokens: Count | None = field(default=None, metadata=LEFT_OUT)
    label: Label | None = None
    first_error: StepIndex | None = None
    forced: bool | None = None
    contradictory: bool | None = field(default=None, metadata=LEFT_OUT)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], place: str = "row", name: str = "") -> Self:
        if "prefix_score" not in content and "score" in content:  # of judges, in files before version 1
            content = {"prefix_score": content["score"], **content}
        return super().from_dict(content, place, name)

    def to_dict(self) -> dict[str, Any]:
        row = super().to_dict()
        if self.forced is None:
            for name in ("label", "first_error", "forced"):
                del row[name]
        return row

    def check_steps(self, steps: int, place: str, prefix: str) -> None:
        """Raises `UserError` where a list of the steps has not one entry for each."""
        check_lengths(self, ("step_labels", "step_scores", "step_forced"), steps, place, prefix)


@dataclass(frozen=True)
class VerdictRecord(Record):
    """A verdict: scores and labels, or ``error``, why there are none.

    Attributes:
      prefix_score: probability that all given steps are correct: the mean over the chains.
      step_scores: one a step, means over the chains; of a verifier that does not judge steps the score of the
        whole alone.
      step_labels: 1 correct, 0 incorrect, one a step; () likewise.
      steps: as the verifier was shown them, where the solution came as one text; None where they stand in the row.
      step_spans: where each of them stands in that text: start and end in characters (code points), without its
        label. The text between them may differ from the step in marks of bold type and line ends.
      chains: () of a verifier that writes none; of a verdict with ``error`` those that could not be read.
      error: why there is no verdict.
      contradictory: whether the score says one thing (correct above one half) and the labels of the steps another;
        None where there are none, and in files that do not say it.
      weight_version: how often the verifier's weights had been changed since it was loaded.
    """

    prefix_score: Probability | None = field(default=None, metadata=LEFT_OUT)
    step_scores: tuple[Probability, ...] | None = field(default=None, metadata=LEFT_OUT)
    step_labels: tuple[Label, ...] | None = field(default=None, metadata=LEFT_OUT)
    error: str | None = field(default=None, metadata=LEFT_OUT)
    contradictory: bool | None = field(default=None, metadata=LEFT_OUT)
    steps: tuple[str, ...] | None = field(default=None, metadata=LEFT_OUT)
    step_spans: tuple[tuple[Count, ...], ...] | None = field(default=None, metadata=LEFT_OUT)
    chains: tuple[ChainRecord, ...] = field(default=(), metadata=LEFT_OUT)
    weight_version: Count = field(default=0, metadata=LEFT_OUT)

    def check(self, place: str, prefix: str) -> None:
        if self.error is None:
            for name in ("prefix_score", "step_scores", "step_labels"):
                if getattr(self, name) is None:
                    raise UserError(f"{place}: the field `{prefix}{name}` is missing")
        if self.steps is not None:
            self.check_steps(len(self.steps), place, prefix)
        if self.step_spans is not None:
            _check_spans(self.step_spans, place, f"{prefix}step_spans")

    def check_steps(self, steps: int, place: str, prefix: str) -> None:
        """Raises `UserError` where a list of the steps has not one entry for each."""
        lists = ("step_labels", "step_scores") if self.step_labels else ()
        check_lengths(self, (*lists, "step_spans"), steps, place, prefix)
        for index, chain in enumerate(self.chains):
            chain.check_steps(steps, place, f"{prefix}chains[{index}].")

    @property
    def output_tokens(self) -> int:
        """Sampled for it, over all chains."""
        return sum(chain.output_tokens or 0 for chain in self.chains)


def check_lengths(record: Record, names: Sequence[str], wanted: int, place: str, prefix: str) -> None:
    """Raises `UserError` where a list of the steps has entries, and not one for each step."""
    for name in names:
        values = getattr(record, name)
        if values and len(values) != wanted:
            raise field_error(place, prefix + name, f"has {len(values)} entries for {wanted} steps")


def _check_spans(spans: Sequence[Sequence[int]], place: str, name: str) -> None:
    """Raises `UserError` where spans are no pairs, or not one behind the other."""
    end = 0
    for index, span in enumerate(spans):
        if len(span) != 2 or not end <= span[0] <= span[1]:
            raise field_error(place, f"{name}[{index}]", "must be a start and an end behind the span before it")
        end = span[1]


@dataclass(frozen=True)
class VerdictRow(Row):
    """A line that `thinkprm score` writes: the input row and the verdicts on its solutions.

    In the file the fields of the input come first, then ``verdict``, or ``verdicts`` for the ``completions`` of a
    row, then ``verifier``.

    Attributes:
      solution: the input row with its problem and the steps of each solution.
      verdicts: one for each solution.
      verifier: the settings that the verdicts were made with.
    """

    FORMAT = "verdict"
    MADE_BY = ("verifier",)

    solution: SolutionRow
    verdicts: tuple[VerdictRecord, ...]
    verifier: Mapping[str, Any]

    @property
    def problem(self) -> str:
        return self.solution.problem

    @property
    def verdict(self) -> VerdictRecord:
        """The only one.

        Raises:
          ValueError: the row has completions, and so as many verdicts.
        """
        if self.solution.many:
            raise ValueError("the row has completions: see its verdicts")
        return self.verdicts[0]

    def judged(self) -> Iterator[tuple[tuple[str, ...], VerdictRecord]]:
        """(steps as they were judged, verdict) of each solution."""
        for steps, verdict in zip(self.solution.solutions, self.verdicts, strict=True):
            yield steps if verdict.steps is None else verdict.steps, verdict

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], place: str = "row", name: str = "") -> Self:
        check_format(content, (cls.FORMAT,), cls.VERSION, place)
        own = ("verdict", "verdicts", "verifier", FORMAT_KEY)
        solution = parse_solution({key: value for key, value in content.items() if key not in own}, place)
        if solution.many:
            found = get_field(content, "verdicts", list, place)
            if len(found) != len(solution.solutions):
                what = f"has {len(found)} for {len(solution.solutions)} completions"
                raise field_error(place, "verdicts", what)
            names = [f"verdicts[{index}]" for index in range(len(found))]
        else:
            found, names = [get_field(content, "verdict", object, place)], ["verdict"]
        verdicts: tuple[VerdictRecord, ...] = tuple(
            decode(VerdictRecord, verdict, place, called) for verdict, called in zip(found, names, strict=True)
        )
        for steps, verdict, called in zip(solution.solutions, verdicts, names, strict=True):
            if verdict.steps is None:
                verdict.check_steps(len(steps), place, f"{called}.")
        return cls(solution, verdicts, decode(Mapping[str, Any], content.get("verifier", {}), place, "verifier"))

    def to_dict(self) -> dict[str, Any]:
        verdicts = [verdict.to_dict() for verdict in self.verdicts]
        return {
            **self.solution.row,
            **({"verdicts": verdicts} if self.solution.many else {"verdict": verdicts[0]}),
            "verifier": dict(self.verifier),
            FORMAT_KEY: f"{self.FORMAT}/{self.VERSION}",
        }
