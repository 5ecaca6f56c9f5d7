"""A verifier as the reward of reinforcement learning: solutions in, numbers out, whatever the trainer."""

from __future__ import annotations

import collections
import dataclasses
import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.rewards.texts import problem_in, solution_in
from thinkprm_jax.rewards.tokens import Decode, Span, token_spans

Form = Literal["score", "steps"]
AGGREGATIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.fmean,
    "min": min,
    "prod": math.prod,
    "last": lambda scores: scores[-1],
}


class JudgedSolution(Protocol):
    """What a reward needs of a verdict."""

    @property
    def error(self) -> Exception | None: ...
    @property
    def prefix_score(self) -> float: ...
    @property
    def step_scores(self) -> Sequence[float]: ...
    @property
    def step_spans(self) -> Sequence[Span] | None: ...


class Pending(Protocol):
    """What a reward needs of a verdict on its way."""

    def result(self, timeout: float | None = None) -> Any: ...
    def cancel(self) -> bool: ...


class Judge(Protocol):
    """What a reward needs of a verifier: every kind of ours has it."""

    def submit_solution(self, problem: str, solution: str, step_budget: int | None = None) -> Any: ...


@dataclass
class RewardCounts:
    """What became of the completions so far.

    Attributes:
      judged: those with a verdict. failed: those that got ``on_error``.
      reasons: how often each reason was, in the words of the verifier.
    """

    judged: int = 0
    failed: int = 0
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


@dataclass(frozen=True)
class StepRewards:
    """The rewards of a completion's steps.

    Attributes:
      scores: of each step, the probability that it is correct; 0 behind the first incorrect one.
      spans: (start, end) of each step in the text of the completion, in characters.
      tokens: (first, behind the last) of each step among the completion's ids.
      score: of the whole.
    """

    scores: tuple[float, ...]
    spans: tuple[Span, ...]
    tokens: tuple[Span, ...]
    score: float

    def at_ends(self, length: int) -> list[float]:
        """A reward a token, [length]: each step's at its last token, 0 elsewhere."""
        rewards = [0.0] * length
        for score, (first, end) in zip(self.scores, self.tokens, strict=True):
            rewards[min(max(end - 1, first), length - 1)] += score
        return rewards


class Reward:
    """A reward function: called as TRL's and Tunix's trainers call theirs, from any thread.

    Example:

        prm = ThinkPRM("mini")
        reward = prm.reward(on_error=0.0)
        reward(prompts=["What is 2 + 3 + 4?"] * 2, completions=["2 + 3 = 5.\\n\\n5 + 4 = 9.", ""])
        print(reward.counts.failed)  # 1: the empty one

    A completion that cannot be judged (an empty one, one that is too long, a lone surrogate) gets ``on_error`` and
    is counted; the others of its batch are judged. What occurs twice in a batch is judged once.

    Args:
      verifier: of any kind.
      form: "score": the probability that the whole is correct; "steps": the scores of the steps, aggregated.
      aggregate: of steps: "mean" (a share of the steps, since behind the first error they count 0), "min", "prod"
        or "last".
      digits: of rewards, behind the point; None: all. GRPO divides by the spread of a group, so that 1e-5 and 2e-5
        are as far apart as 0 and 1 where nothing is rounded.
      on_error: the reward of what cannot be judged. None, as TRL takes it: no reward; Tunix wants a number.
      problem: the column that holds the problem; without it, the prompt (of a chat the last words of the user).
      after: the solution is what stands behind this text in a completion ("</think>"); all of it, where it
        does not occur. before: and it ends before this text (the end of a turn, where a trainer leaves it in).
      step_budget: tokens that a chain may think a step of the solution; it is then made to decide.
      timeout: seconds for a batch; what is not judged by then gets ``on_error``.
    Raises:
      UserError: a setting that cannot work.

    Attributes:
      counts: what became of all completions so far.
    """

    def __init__(
        self,
        verifier: Judge,
        *,
        form: Form = "score",
        aggregate: str = "mean",
        digits: int | None = None,
        on_error: float | None = None,
        problem: str = "problem",
        after: str = "",
        before: str = "",
        step_budget: int | None = None,
        timeout: float | None = None,
    ) -> None:
        if form not in ("score", "steps"):
            raise UserError(f'form is {form!r}, it must be "score" or "steps"')
        if aggregate not in AGGREGATIONS:
            raise UserError(f"aggregate is {aggregate!r}, it must be one of {', '.join(AGGREGATIONS)}")
        if digits is not None and digits < 0:
            raise UserError(f"digits is {digits}, it must be at least 0")
        if step_budget is not None and step_budget < 1:
            raise UserError(f"step_budget is {step_budget}, it must be at least 1")
        if timeout is not None and not timeout > 0:
            raise UserError(f"timeout is {timeout}, it must be above 0")
        self.verifier, self.form, self.aggregate, self.on_error = verifier, form, aggregate, on_error
        self.digits = digits
        self.problem, self.after, self.before = problem, after, before
        self.step_budget, self.timeout = step_budget, timeout
        self.counts = RewardCounts()
        self._lock = threading.Lock()
        self.__name__ = f"thinkprm_{form}"  # trainers call its column so

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """The rewards of completions, in order.

        Args:
          prompts: a text or a chat each. completions: a text or a chat each.
          columns: other columns of the data, a list each; what else a trainer passes does not count, but for
            TRL's ``log_metric``, which is told the share that could not be judged.
        Raises:
          UserError: the lists do not go together.
        """
        verdicts = self.judge(prompts, completions, columns)
        rewards = [self.on_error if verdict is None else self.value(verdict) for _, verdict in verdicts]
        log = columns.get("log_metric")
        if callable(log) and rewards:
            log(f"{self.__name__}/not_judged", sum(verdict is None for _, verdict in verdicts) / len(rewards))
        return rewards

    def value(self, verdict: JudgedSolution) -> float:
        """The reward of a verdict."""
        if self.form == "score":
            value = float(verdict.prefix_score)
        else:
            value = float(AGGREGATIONS[self.aggregate](list(verdict.step_scores)))
        return value if self.digits is None else round(value, self.digits)

    def dense(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        decode: Decode,
        **columns: Any,
    ) -> list[StepRewards | None]:
        """The rewards of the steps of each completion, and which tokens write them; None: it cannot be judged.

        Args:
          prompts, completions, columns: as of a call.
          completion_ids: the ids that the policy sampled, whose text a completion is.
          decode: of ids to that text, such as ``lambda ids: tokenizer.decode(ids, skip_special_tokens=True)``.
        """
        check_columns("completion_ids", prompts, completion_ids)
        found: list[StepRewards | None] = []
        verdicts = self.judge(prompts, completions, columns)
        for (offset, verdict), completion, ids in zip(verdicts, completions, completion_ids, strict=True):
            if verdict is None:
                found.append(None)
                continue
            try:
                found.append(_dense(verdict, solution_in(completion), offset, ids, decode))
            except RequestError as error:
                self._count(error, -1)
                found.append(None)
        return found

    def judge(
        self, prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any] | None = None
    ) -> list[tuple[int, Any]]:
        """(where the solution begins in the completion, its verdict, or None where there is none), in order."""
        check_columns("completions", prompts, completions)
        problems = (columns or {}).get(self.problem)
        if problems is not None:
            check_columns(self.problem, prompts, problems)
        under_way: dict[tuple[str, str], Pending] = {}
        asked: list[tuple[int, tuple[str, str]] | RequestError] = []
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        try:
            for number, completion in enumerate(completions):
                try:
                    offset, solution = self._solution(completion)
                    problem = problem_in(prompts[number] if problems is None else problems[number])
                except RequestError as error:
                    asked.append(error)
                    continue
                item = (problem, solution)
                if item not in under_way:
                    under_way[item] = self.verifier.submit_solution(*item, self.step_budget)
                asked.append((offset, item))
            return [self._result(one, under_way, deadline) for one in asked]
        finally:
            for handle in under_way.values():
                handle.cancel()  # where an exception or an interrupt ends the batch

    def _solution(self, completion: Any) -> tuple[int, str]:
        """(where it begins in the completion, the solution)."""
        text = solution_in(completion)
        offset = text.rfind(self.after) + len(self.after) if self.after and self.after in text else 0
        text = text[offset:]
        return offset, text.split(self.before, 1)[0] if self.before else text

    def _result(
        self,
        asked: tuple[int, tuple[str, str]] | RequestError,
        under_way: Mapping[tuple[str, str], Pending],
        deadline: float | None,
    ) -> tuple[int, Any]:
        if isinstance(asked, RequestError):
            self._count(asked)
            return 0, None
        offset, item = asked
        left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
        try:
            verdict = under_way[item].result(left)
        except TimeoutError:
            self._count(RequestError("it was not judged in time"))
            return offset, None
        self._count(verdict.error)
        return offset, verdict if verdict.error is None else None

    def _count(self, error: Exception | None, judged: int = 0) -> None:
        with self._lock:
            self.counts.judged += judged + (error is None)
            self.counts.failed += error is not None
            if error is not None:
                self.counts.reasons[str(error)] += 1


def _dense(verdict: Any, text: str, offset: int, ids: Sequence[int], decode: Decode) -> StepRewards:
    if len(verdict.step_scores) != len(verdict.step_spans or ()):
        raise RequestError("the verifier does not judge steps")
    spans = tuple((start + offset, end + offset) for start, end in verdict.step_spans)
    tokens = tuple(token_spans(ids, text, spans, decode))
    return StepRewards(tuple(verdict.step_scores), spans, tokens, verdict.prefix_score)


def check_columns(name: str, prompts: Sequence[Any], others: Sequence[Any]) -> None:
    """UserError unless both are lists of one length."""
    for what, value in (("prompts", prompts), (name, others)):
        if isinstance(value, str) or not hasattr(value, "__len__"):
            raise UserError(f"{what} must be a list, it is {type(value).__name__}")
    if len(prompts) != len(others):
        raise UserError(f"there are {len(prompts)} prompts and {len(others)} {name}")
