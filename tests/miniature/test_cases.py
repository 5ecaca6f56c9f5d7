"""Solutions of the arithmetic task with the step in which each goes wrong."""

from __future__ import annotations

import pytest

from thinkprm_jax.arithmetic.task import make_solution
from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.selection.runs import SearchedProblem
from thinkprm_jax.miniature.cases import by_steps, choose_cases, truth_of
from thinkprm_jax.records import CompletionRow, LabelledSolutionRow
from thinkprm_jax.records.search_folder import SearchedProblemRow

SEED, SPLIT = 3, "test"


def right(index: int) -> str:
    return make_solution(SEED, index, SPLIT).solution


def wrong_from(index: int, step: int) -> str:
    """The right solution up to there, then a step that no problem has."""
    steps = right(index).split("\n\n")
    return "\n\n".join([*steps[:step], "7 + 7 = 15.", *steps[step + 1 :]])


def row(index: int, *completions: str) -> SearchedProblemRow:
    given = {"index": index, "problem": make_solution(SEED, index, SPLIT).problem}
    completion = CompletionRow(given=given, completions=completions)
    return SearchedProblemRow(f"completions.jsonl:{index + 1}", completion)


def choose(*rows: SearchedProblemRow) -> list[LabelledSolutionRow]:
    return choose_cases(rows, SEED, SPLIT)


def test_the_step_that_goes_wrong_is_found() -> None:
    found = row(5, right(5), wrong_from(5, 1), "")
    assert [truth.first_error for truth in truth_of(found, SEED, SPLIT)] == [-1, 1, 0]


def test_a_row_of_other_problems_is_refused() -> None:
    found = row(5, right(5))
    with pytest.raises(UserError, match=r"completions.jsonl:6: the problem is not number 5 .* seed 4"):
        truth_of(found, SEED + 1, SPLIT)


def test_half_of_the_cases_are_right() -> None:
    cases = choose(*(row(index, wrong_from(index, 0), right(index)) for index in range(6)))
    assert [case.label for case in cases] == [-1, 0, -1, 0, -1, 0]


def test_a_problem_without_the_wanted_kind_gives_the_other_and_is_made_up_for() -> None:
    rows = [
        row(0, right(0)),
        row(1, right(1)),
        row(2, right(2), wrong_from(2, 1)),
        row(3, right(3), wrong_from(3, 0)),
    ]
    assert [case.label for case in choose(*rows)] == [-1, -1, 1, 0]


def test_more_problems_add_cases_behind_the_others() -> None:
    rows = [row(index, wrong_from(index, 1), right(index)) for index in range(5)]
    assert choose(*rows)[:3] == choose(*rows[:3])


def test_a_case_is_a_row_for_the_evaluation_of_solutions() -> None:
    (case,) = choose(row(0, "", wrong_from(0, 1)))
    steps = wrong_from(0, 1).split("\n\n")
    assert (case.id, case.steps, case.label) == ("0", tuple(steps), 1)
    assert case.groups["error"] == "step 2"


def test_a_right_answer_behind_a_wrong_step_is_not_correct_by_steps() -> None:
    found = row(2, right(2), wrong_from(2, 0))
    problem = SearchedProblem(found.completion.problem, ("1", "1"), (0.9, 0.8), (True, True))
    (by_step,) = by_steps([problem], [found], SEED, SPLIT)
    assert by_step.correct == (True, False)
    assert by_step.scores == problem.scores
