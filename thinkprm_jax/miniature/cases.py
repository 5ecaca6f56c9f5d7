"""Solutions that a solver wrote of the arithmetic task, with the step in which each goes wrong.

The task knows what is right at every step of a solution, so the truth about solutions that nobody made up on
purpose needs no person to read them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from thinkprm_jax.arithmetic.problems import ArithmeticProblem
from thinkprm_jax.arithmetic.solutions import first_error
from thinkprm_jax.arithmetic.task import solution_problem
from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.selection.runs import SearchedProblem
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.records.evaluation import LabelledSolutionRow
from thinkprm_jax.records.jsonl import get_field
from thinkprm_jax.records.search_folder import SearchedProblemRow


@dataclasses.dataclass(frozen=True)
class SolutionTruth:
    """Of one solution. steps: as the verifier is shown them. first_error: index from 0, -1 for none."""

    steps: tuple[str, ...]
    first_error: int


def arithmetic_problem(row: SearchedProblemRow, seed: int, split: str) -> ArithmeticProblem:
    """The problem of a row of a search.

    Raises:
      UserError: the row is not one of the arithmetic task with this seed and split.
    """
    number = get_field(row.completion.given, "index", int, row.place)
    problem = solution_problem(seed, number, split)
    if row.completion.problem != problem.text:
        raise UserError(
            f"{row.place}: the problem is not number {number} of the arithmetic split {split}, seed {seed}"
        )
    return problem


def truth_of(row: SearchedProblemRow, seed: int, split: str) -> list[SolutionTruth]:
    """Of every completion of the row. One without steps is wrong from the start."""
    problem = arithmetic_problem(row, seed, split)
    found = []
    for text in row.completion.completions:
        steps = split_solution(text)
        found.append(SolutionTruth(tuple(steps), first_error(problem, steps) if steps else 0))
    return found


def choose_cases(rows: Iterable[SearchedProblemRow], seed: int, split: str) -> list[LabelledSolutionRow]:
    """One solution of each problem, as rows for `thinkprm evaluate solutions`.

    In turn one that is right in every step and one that is not, as far as the problems have both: so half are
    right. One a problem, so that they are independent cases. More rows add cases behind those of fewer.
    """
    cases: list[LabelledSolutionRow] = []
    right = 0
    for row in rows:
        solutions = [truth for truth in truth_of(row, seed, split) if truth.steps]
        if not solutions:
            continue
        wants_right = 2 * right <= len(cases)
        chosen = next((truth for truth in solutions if (truth.first_error < 0) == wants_right), solutions[0])
        right += chosen.first_error < 0
        cases.append(_case(row, arithmetic_problem(row, seed, split), chosen))
    return cases


def _case(row: SearchedProblemRow, problem: ArithmeticProblem, truth: SolutionTruth) -> LabelledSolutionRow:
    error = "none" if truth.first_error < 0 else f"step {truth.first_error + 1}"
    return LabelledSolutionRow(
        id=str(row.completion.index),
        problem=problem.text,
        steps=truth.steps,
        label=truth.first_error,
        groups={"steps": str(len(truth.steps)), "family": problem.family, "error": error},
    )


def by_steps(
    problems: Sequence[SearchedProblem], rows: Sequence[SearchedProblemRow], seed: int, split: str
) -> list[SearchedProblem]:
    """The same searched problems, with a completion correct where all of its steps are, whatever its answer.

    Args:
      rows: of the file that ``problems`` were read from.
    """
    found = []
    for problem, row in zip(problems, rows, strict=True):
        correct = tuple(truth.first_error < 0 for truth in truth_of(row, seed, split))
        found.append(dataclasses.replace(problem, correct=correct))
    return found
