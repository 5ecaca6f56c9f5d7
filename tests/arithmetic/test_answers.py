"""Solutions of the synthetic task that state their answer: the errors that come with it, and the rounds."""

from __future__ import annotations

import re

import pytest

from thinkprm_jax.arithmetic.chains import StepPlan
from thinkprm_jax.arithmetic.problems import ArithmeticProblem
from thinkprm_jax.arithmetic.solutions import ANSWER_OPENING, first_error
from thinkprm_jax.arithmetic.source import ArithmeticChains
from thinkprm_jax.arithmetic.task import (
    ArithmeticExample,
    ArithmeticForm,
    belongs_to_test,
    example,
    make_example,
    make_solution,
)
from thinkprm_jax.arithmetic.templates import ANSWER
from thinkprm_jax.protocol.prompts import TRIGGERS
from thinkprm_jax.protocol.reading import read_chain

ALWAYS = ArithmeticForm(answers=1.0, rounds=0.0)


@pytest.fixture(scope="module")
def answered() -> list[ArithmeticExample]:
    return [make_example(4, index, "train", ALWAYS) for index in range(2500)]


def test_the_plain_form_is_the_stream_of_the_first_recipes():
    assert [example(3, index) for index in range(40)] == [
        example(3, index, "train", ArithmeticForm()) for index in range(40)
    ]


def test_labels_follow_from_the_problem(answered: list[ArithmeticExample]):
    """Recomputed from what the steps state and what they should, not from the generator's flags."""
    for item in answered:
        plans = [(plan.left, plan.operation, plan.right, plan.result) for plan in item.problem.plans]
        stated = [(step.left, step.operation, step.right, step.result) for step in item.stated]
        wrong = [index for index, step in enumerate(stated) if index >= len(plans) or step != plans[index]]
        first = wrong[0] if wrong else len(stated)
        assert item.chain.labels == [int(index < first) for index in range(len(stated))]
        assert item.first_error == (first if wrong else -1)


def test_chains_say_what_the_labels_say(answered: list[ArithmeticExample]):
    for item in answered:
        read = read_chain(item.chain.chain, len(item.chain.steps))
        assert list(read.labels) == item.chain.labels
        assert read.complete


def test_every_kind_of_error_occurs(answered: list[ArithmeticExample]):
    kinds = {item.error_kind for item in answered}
    assert kinds == {None, "result", "operation", "operand", "stale", "skipped", "early", "answer", "extra"}


def test_a_whole_correct_solution_ends_with_its_answer(answered: list[ArithmeticExample]):
    whole = [item for item in answered if item.chain.correct and len(item.stated) == len(item.problem.plans)]
    assert len(whole) > 300
    for item in whole:
        assert item.chain.steps[-1] == f"{ANSWER_OPENING}{item.problem.answer}}}."


def test_the_question_is_quoted_where_the_answer_is_due(answered: list[ArithmeticExample]):
    for item in answered:
        assert item.problem.plans[-1].operation == ANSWER
        assert item.problem.plans[-1].evidence in item.problem.text + "?"


def test_an_early_answer_is_told_by_the_event_that_is_left(answered: list[ArithmeticExample]):
    early = next(item for item in answered if item.error_kind == "early")
    evidence = early.problem.plans[early.first_error].evidence
    last = early.chain.chain.rsplit("\n\n", 1)[-1]
    assert last.startswith(f"Step {early.first_error + 1}: {evidence} means ")
    assert last.endswith("different. The step is \\boxed{incorrect}")


def test_rounds_are_drawn_by_their_weights():
    form = ArithmeticForm(answers=1.0, rounds=1.0, round_weights=(0, 0, 1), steps_of_rounds=100)
    for index in range(100):
        chain = example(9, index, "train", form).chain
        assert all(trigger in chain for trigger in TRIGGERS)


@pytest.mark.parametrize("wrong", [{"answers": 1.5}, {"rounds": -0.1}, {"round_weights": (0, 0)}])
def test_a_form_that_cannot_be_is_refused(wrong: dict):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ArithmeticForm(**wrong)


def test_the_form_is_part_of_the_fingerprint():
    assert ArithmeticChains(1, "train", 0).fingerprint != ArithmeticChains(1, "train", 0, ALWAYS).fingerprint


def test_solutions_are_judged_as_they_were_made(answered: list[ArithmeticExample]):
    for item in answered:
        assert first_error(item.problem, item.chain.steps) == item.first_error


@pytest.mark.parametrize(
    ("steps", "first"),
    [
        (["2 * 9 = 18.", "The answer is \\boxed{18}."], -1),
        (["2 * 9 = 18, so it is 18.", "The answer is \\boxed{18}.", "18 + 1 = 19."], 2),
        (["2 * 9 = 18."], -1),
        (["9 * 2 = 18."], 0),
        (["2 * 9 = 181."], 0),
        (["2 * 9 = 18%."], 0),
        (["The number is 18."], 0),
        ([""], 0),
        ([], -1),
    ],
)
def test_a_solution_that_anybody_wrote_is_judged(steps: list[str], first: int):
    problem = ArithmeticProblem("What is 2 * 9?", "expression", (StepPlan("2 * 9", 2, "*", 9, 18),), ("",), (2, 9))
    assert first_error(problem, steps) == first


@pytest.mark.parametrize("split", ["train", "test", "unseen"])
def test_worked_solutions_are_right(split: str):
    for index in range(300):
        solved = make_solution(6, index, split)
        steps = solved.solution.split("\n\n")
        assert solved == make_solution(6, index, split)
        assert steps[-1] == f"{ANSWER_OPENING}{solved.answer}}}."
        for step in steps[:-1]:
            left, operation, right, result = re.match(r"(\d+) ?(% of|[-+*]) (\d+) = (\d+)", step).groups()
            value = int(left) * int(right) // 100 if operation == "% of" else eval(f"{left}{operation}{right}")
            assert value == int(result)
        assert re.findall(r"\d+", steps[-2].split("=")[1])[0] == solved.answer
        if split != "unseen":
            assert belongs_to_test(solved.problem) == (split == "test")
