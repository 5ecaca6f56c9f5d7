"""Aggregation, selection and pass@N, against cases worked by hand."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thinkprm_jax.search.voting import (
    Choice,
    aggregate,
    pass_at_k,
    powers_of_two,
    prediction_columns,
    select,
    select_majority,
    select_naive,
    select_weighted,
)


@pytest.mark.parametrize(
    ("strategy", "score"), [("last", 0.5), ("min", 0.25), ("prod", 0.125), ("mean", pytest.approx(1.75 / 3))]
)
def test_aggregate(strategy: str, score: float) -> None:
    assert aggregate([1.0, 0.25, 0.5], strategy) == score


def test_a_solution_without_steps_has_no_score() -> None:
    assert aggregate([], "prod") is None


def test_an_unknown_strategy_is_refused_even_without_steps() -> None:
    with pytest.raises(ValueError, match="max"):
        aggregate([], "max")


@pytest.mark.parametrize(("n", "powers"), [(0, []), (1, [1]), (2, [1, 2]), (7, [1, 2, 4]), (8, [1, 2, 4, 8])])
def test_powers_of_two(n: int, powers: list[int]) -> None:
    assert powers_of_two(n) == powers


def test_naive_takes_the_highest_score() -> None:
    assert select_naive(["a", "b", "c"], [0.2, 0.9, 0.3]) == Choice(1, "b", 0.9)


def test_naive_takes_the_first_of_equal_scores() -> None:
    assert select_naive(["a", "b", "c"], [0.2, 0.9, 0.9]).index == 1


def test_a_missing_score_is_behind_every_score() -> None:
    assert select_naive(["a", "b"], [None, 0.0]) == Choice(1, "b", 0.0)


def test_naive_without_any_score_takes_the_first() -> None:
    assert select_naive(["a", "b"], [None, None]) == Choice(0, "a", None)


def test_weighted_sums_scores_under_one_key() -> None:
    choice = select_weighted(["2", "1/2", "0.5"], ["2", "half", "half"], [0.75, 0.5, 0.5])
    assert choice == Choice(1, "1/2", 1.0)


def test_weighted_takes_the_first_of_equal_sums() -> None:
    assert select_weighted(["a", "b", "b"], ["a", "b", "b"], [0.5, 0.25, 0.25]).index == 0


def test_a_missing_score_adds_nothing() -> None:
    assert select_weighted(["a", "a", "b"], ["a", "a", "b"], [None, 0.25, 0.5]) == Choice(2, "b", 0.5)


def test_majority_counts_keys() -> None:
    assert select_majority(["x", "1/2", "0.5"], ["x", "half", "half"]) == Choice(1, "1/2", 2)


def test_majority_takes_the_group_seen_first_of_equal_ones() -> None:
    assert select_majority(["b", "a", "a", "b"], ["b", "a", "a", "b"]) == Choice(0, "b", 2)


def test_completions_without_an_answer_are_one_group_that_can_win() -> None:
    answers = [None, "a", None]
    assert select_majority(answers, answers) == Choice(0, None, 2)


def test_selection_looks_at_the_first_n_only() -> None:
    selections = select(["a", "b", "c", "d"], ["a", "b", "c", "d"], [0.1, 0.2, 0.3, 0.4])
    assert [(n, selection.naive.answer) for n, selection in selections.items()] == [(1, "a"), (2, "b"), (4, "d")]


def test_selection_at_given_numbers() -> None:
    assert list(select(["a"] * 3, ["a"] * 3, [0.5] * 3, at=[3])) == [3]


def test_pass_at_n_over_the_first_n_and_from_all() -> None:
    selections = select(["a"] * 4, ["a"] * 4, [0.5] * 4, correct=[False, False, True, False])
    assert [selection.pass_any for selection in selections.values()] == [False, False, True]
    assert [selection.pass_at for selection in selections.values()] == [0.25, 0.5, 1.0]


def test_pass_is_unknown_where_correctness_is() -> None:
    selection = select(["a"], ["a"], [0.5])[1]
    assert (selection.pass_any, selection.pass_at) == (None, None)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (([], [], []), "at least one"),
        ((["a"], ["a"], [0.5, 0.5]), "one answer, key and score"),
        ((["a"], ["a", "b"], [0.5]), "one answer, key and score"),
        ((["a"], ["a"], [0.5], [True, False]), "one answer, key and score"),
        ((["a"], ["a"], [math.nan]), "not a number"),
        ((["a"], ["a"], [0.5], None, [2]), "among the first"),
        ((["a"], ["a"], [0.5], None, [0]), "among the first"),
    ],
)
def test_lists_that_do_not_fit_are_refused(arguments: tuple, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        select(*arguments)


def test_columns_have_the_names_of_search_and_learn() -> None:
    selections = select(["7", None], ["7", None], [0.25, 0.5])
    assert prediction_columns(selections) == {
        "pred_weighted@1": r"\boxed{7}",
        "pred_maj@1": r"\boxed{7}",
        "pred_naive@1": r"\boxed{7}",
        "pred_weighted@2": r"\boxed{}",
        "pred_maj@2": r"\boxed{7}",
        "pred_naive@2": r"\boxed{}",
    }


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_correct_one(n: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize("arguments", [(4, 5, 1), (4, 1, 5), (4, 1, 0), (4, -1, 1)])
def test_impossible_draws_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="completions"):
        pass_at_k(*arguments)
