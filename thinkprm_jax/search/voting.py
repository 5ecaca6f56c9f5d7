"""From scores and answers to one completion: aggregation of step scores, selection, pass@N.

Pure functions over plain lists. They do what search-and-learn does, so that its recorded runs can be compared: at
every power of two up to N, over the FIRST N completions in their order. A tie goes to what stands first.

A completion without an answer (None) takes part: all of them are one group, which can win. A completion whose
verification failed has the score None: it is behind every score, and adds nothing to its group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Strategy = Literal["last", "min", "prod", "mean"]
METHODS = ("naive", "weighted", "majority")
_COLUMNS = {"weighted": "pred_weighted", "majority": "pred_maj", "naive": "pred_naive"}  # search-and-learn's names


@dataclass(frozen=True)
class Choice:
    """The completion that a method chose.

    index: of the completion; for weighted and majority, the first one of the winning group. answer: that
    completion's answer, None where it has none. value: what won: the score (naive; None where no completion has
    one), the group's sum of scores (weighted), its number of votes (majority).
    """

    index: int
    answer: str | None
    value: float | None


@dataclass(frozen=True)
class Selection:
    """What each method chooses among the first n completions.

    pass_any: whether one of them is correct; pass_at: the unbiased estimate of pass@n from all completions. Both
    are None where it is not known which completions are correct.
    """

    n: int
    naive: Choice
    weighted: Choice
    majority: Choice
    pass_any: bool | None
    pass_at: float | None


def aggregate(step_scores: Sequence[float], strategy: Strategy = "last") -> float | None:
    """One score of a solution from those of its steps; None where there are no steps."""
    if strategy not in get_args(Strategy):
        raise ValueError(f"the strategy must be one of {', '.join(get_args(Strategy))}, not {strategy!r}")
    if not step_scores:
        return None
    if strategy == "last":
        return step_scores[-1]
    if strategy == "min":
        return min(step_scores)
    return math.prod(step_scores) if strategy == "prod" else math.fsum(step_scores) / len(step_scores)


def powers_of_two(n: int) -> list[int]:
    """1, 2, 4, ... up to n."""
    return [1 << power for power in range(n.bit_length())]


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The chance that k of n completions, drawn without replacement, hold one of the `correct` ones: the unbiased
    estimate of pass@k."""
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {correct} correct among {n} completions")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def select_naive(answers: Sequence[str | None], scores: Sequence[float | None]) -> Choice:
    """The completion with the highest score."""
    index = max(range(len(scores)), key=lambda i: _rank(scores[i]))
    return Choice(index, answers[index], scores[index])


def _rank(score: float | None) -> float:
    return -math.inf if score is None else score


def select_weighted(
    answers: Sequence[str | None], keys: Sequence[str | None], scores: Sequence[float | None]
) -> Choice:
    """The answer whose completions' scores have the largest sum; equal answers share a key."""
    return _largest_group(answers, keys, [score or 0.0 for score in scores])


def select_majority(answers: Sequence[str | None], keys: Sequence[str | None]) -> Choice:
    """The answer of the most completions; equal answers share a key."""
    return _largest_group(answers, keys, [1] * len(answers))


def _largest_group(answers: Sequence[str | None], keys: Sequence[str | None], weights: Sequence[float]) -> Choice:
    first: dict[str | None, int] = {}
    sums: dict[str | None, float] = {}
    for index, (key, weight) in enumerate(zip(keys, weights, strict=True)):
        first.setdefault(key, index)
        sums[key] = sums.get(key, 0) + weight
    winner = max(sums, key=sums.__getitem__)  # the first of equals: dicts keep their order
    return Choice(first[winner], answers[first[winner]], sums[winner])


def select(
    answers: Sequence[str | None],
    keys: Sequence[str | None],
    scores: Sequence[float | None],
    correct: Sequence[bool] | None = None,
    at: Sequence[int] | None = None,
) -> dict[int, Selection]:
    """The choices at every power of two n up to the number of completions, over the first n of them.

    For each completion, in order: answers, what it says (`extract_answer`); keys, one spelling of
    equal answers (`vote_keys`), under which they vote together; scores, aggregated; correct, whether it is right.
    at: the numbers n, from 1 to that of the completions, where others are wanted (a beam search may have finished
    a number of its own).
    """
    lengths = {len(answers), len(keys), len(scores)} | ({len(correct)} if correct is not None else set())
    if len(lengths) != 1 or not answers:
        raise ValueError(f"one answer, key and score a completion, at least one: got {sorted(lengths)}")
    if any(score is not None and math.isnan(score) for score in scores):
        raise ValueError("a score is not a number")
    sizes = powers_of_two(len(answers)) if at is None else at
    if not all(1 <= n <= len(answers) for n in sizes):
        raise ValueError(f"cannot select among the first {list(sizes)} of {len(answers)} completions")
    right = sum(correct) if correct is not None else 0
    selections = {}
    for n in sizes:
        selections[n] = Selection(
            n=n,
            naive=select_naive(answers[:n], scores[:n]),
            weighted=select_weighted(answers[:n], keys[:n], scores[:n]),
            majority=select_majority(answers[:n], keys[:n]),
            pass_any=any(correct[:n]) if correct is not None else None,
            pass_at=pass_at_k(len(answers), right, n) if correct is not None else None,
        )
    return selections


def prediction_columns(selections: Mapping[int, Selection]) -> dict[str, str]:
    """`pred_weighted@1`, `pred_maj@1`, `pred_naive@1`, `pred_weighted@2`, ...: the chosen answers in a box, under
    search-and-learn's names; `\\boxed{}` where a completion without an answer was chosen."""
    return {
        f"{column}@{n}": f"\\boxed{{{getattr(selection, method).answer or ''}}}"
        for n, selection in selections.items()
        for method, column in _COLUMNS.items()
    }
