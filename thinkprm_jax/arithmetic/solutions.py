"""Solutions of the synthetic task: what their steps state, right or wrong, and in which words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from thinkprm_jax.arithmetic.chains import SHARES, StatedStep, StepPlan, evaluate, expression
from thinkprm_jax.arithmetic.problems import LARGEST, ArithmeticProblem, Draw
from thinkprm_jax.arithmetic.templates import ADD, ANSWER, MUL, PERCENT, SUB

ANSWER_OPENING = "The answer is \\boxed{"
_STEP = re.compile(r"(\d{1,4}) ?(% of|[-+*]) (\d{1,4}) = (\d{1,6})(?![\d%])")
_ANSWER_STEP = re.compile(re.escape(ANSWER_OPENING) + r"(\d{1,6})\}")
ERROR_WEIGHTS = {"result": 30, "operation": 25, "operand": 20, "stale": 25}
# Of solutions that end with the answer: before its place, and at its place.
MORE_ERROR_WEIGHTS = {**ERROR_WEIGHTS, "skipped": 15, "early": 15}
ANSWER_ERROR_WEIGHTS = {"answer": 50, "extra": 50}


def _wrong_result(draw: Draw, plan: StepPlan) -> StatedStep | None:
    right = plan.result
    kind = draw.weighted({"ten": 30, "digit": 45, "near": 25})
    if kind == "ten":  # a carry forgotten, or one too many
        wrong = right + draw.of((-10, 10))
    elif kind == "near":
        wrong = right + draw.of((-2, -1, 1, 2))
    else:
        digits = list(str(right))
        digits[draw.between(0, len(digits) - 1)] = str(draw.between(0, 9))
        wrong = int("".join(digits)) if digits[0] != "0" or len(digits) == 1 else right
    largest = 199
    if plan.operation == PERCENT:  # it will be multiplied back, and ten parts need a one-digit part
        parts = SHARES[plan.left]
        largest = 9 if parts == 10 else min(99, LARGEST // parts)
    if wrong == right or not 0 < wrong <= largest:
        return None
    return StatedStep(plan.left, plan.operation, plan.right, wrong)


def _wrong_operation(draw: Draw, plan: StepPlan) -> StatedStep | None:
    if plan.operation == PERCENT:
        left, operation, right = plan.right, SUB, plan.left  # takes the percentage for an amount
    else:
        left, right = plan.left, plan.right
        operation = draw.of([other for other in (ADD, SUB, MUL) if other != plan.operation])
    return _stated(left, operation, right)


def _wrong_operand(draw: Draw, problem: ArithmeticProblem, index: int) -> StatedStep | None:
    """A number that another place of the problem states."""
    plan, chained = problem.plans[index], problem.chained[index]
    side = draw.of([side for side in ("left", "right") if side != chained])
    if plan.operation == PERCENT:
        side = "right"
    number = draw.of(problem.numbers)
    if side == "left":
        return _stated(number, plan.operation, plan.right)
    return _stated(plan.left, plan.operation, number)


def _stale_operand(draw: Draw, problem: ArithmeticProblem, index: int) -> StatedStep | None:
    """An earlier value of the running quantity instead of the previous result."""
    plan, chained = problem.plans[index], problem.chained[index]
    if not chained:
        return None
    number = problem.plans[draw.between(0, index - 1)].left
    if chained == "left":
        return _stated(number, plan.operation, plan.right)
    return _stated(plan.left, plan.operation, number)


def _stated(left: int, operation: str, right: int) -> StatedStep | None:
    result = evaluate(left, operation, right)
    return None if result is None or result > 999 else StatedStep(left, operation, right, result)


def _wrong_answer(draw: Draw, problem: ArithmeticProblem) -> StatedStep | None:
    """An earlier value, or the right one badly copied."""
    if draw.chance(0.5):
        number: int | None = draw.of(
            [number for plan in problem.plans for number in (plan.left, plan.right, plan.result)]
        )
    else:
        wrong = _wrong_result(draw, problem.plans[-2])
        number = None if wrong is None else wrong.result
    return None if not number else StatedStep(number, ANSWER, 0, number)


def _extra_step(draw: Draw, problem: ArithmeticProblem) -> StatedStep | None:
    """An operation where the answer is due."""
    operation = draw.weighted({ADD: 4, SUB: 4, MUL: 2})
    number = draw.between(2, 9) if operation == MUL or draw.chance(0.3) else draw.of(problem.numbers)
    return _stated(problem.plans[-1].left, operation, number)


def correct_step(plan: StepPlan) -> StatedStep:
    return StatedStep(plan.left, plan.operation, plan.right, plan.result)


def with_answer(problem: ArithmeticProblem) -> ArithmeticProblem:
    """The same problem, whose last step states the answer."""
    return replace(problem, plans=(*problem.plans, problem.answer_plan), chained=(*problem.chained, "left"))


def break_solution(
    draw: Draw, problem: ArithmeticProblem, index: int, shown: int
) -> tuple[list[StatedStep], str] | None:
    """`shown` steps with their first error at step `index`, and its kind; None where this draw gives none.

    A step may be missing behind the error, or one too many be there: the solution that was broken had `shown`.
    """
    answers = problem.plans[-1].operation == ANSWER
    plan, rest = problem.plans[index], range(index + 1, shown)
    if plan.operation == ANSWER:
        kind = draw.weighted(ANSWER_ERROR_WEIGHTS)
    else:
        kind = draw.weighted(MORE_ERROR_WEIGHTS if answers else ERROR_WEIGHTS)
    if kind == "result":
        wrong = _wrong_result(draw, plan)
    elif kind == "operation":
        wrong = _wrong_operation(draw, plan)
    elif kind == "operand":
        wrong = _wrong_operand(draw, problem, index)
    elif kind == "stale":
        wrong = _stale_operand(draw, problem, index)
    elif kind == "answer":
        wrong = _wrong_answer(draw, problem)
    elif kind == "extra":
        wrong, rest = _extra_step(draw, problem), range(index, shown)
    elif kind == "skipped":
        wrong, rest = _skipped(problem, index), range(index + 2, shown)
    else:
        number = problem.plans[index - 1].result if index else draw.of(problem.numbers)
        wrong, rest = StatedStep(number, ANSWER, 0, number), range(0)
    # An error is one only if it changes the value (2 + 2 for 2 * 2 does not).
    if wrong is None or (wrong.result == plan.result and kind not in ("extra", "skipped", "early")):
        return None
    stated = [correct_step(plan) for plan in problem.plans[:index]] + [wrong]
    for place in rest:
        step = _following(problem, place, stated[-1].result)
        if step is None:
            return None
        stated.append(step)
    return stated, kind


def _skipped(problem: ArithmeticProblem, index: int) -> StatedStep | None:
    """The next step in place of this one."""
    if index == 0 or index + 1 == len(problem.plans):
        return None
    step = _following(problem, index + 1, problem.plans[index - 1].result)
    return None if step is None or step.operation == ANSWER else step  # that would be an early answer


def _following(problem: ArithmeticProblem, index: int, previous: int) -> StatedStep | None:
    """Step `index` where the step before it came to `previous`."""
    plan, chained = problem.plans[index], problem.chained[index]
    left, right = (previous if chained == side else getattr(plan, side) for side in ("left", "right"))
    return _stated(left, plan.operation, right)


def step_texts(draw: Draw, problem: ArithmeticProblem, stated: Sequence[StatedStep]) -> list[str]:
    """The solution's steps in words; one style a solution."""
    style = draw.weighted({"bare": 40, "unit": 30, "so": 30})
    wording = draw.of(problem.result_wordings)
    texts = []
    for step in stated:
        if step.operation == ANSWER:
            texts.append(answer_text(step.result))
            continue
        text = f"{expression(step.left, step.operation, step.right)} = {step.result}"
        if style == "unit" and problem.unit:
            text += f" {problem.unit}"
        elif style == "so":
            text += ", so " + ("the part is {r}" if step.operation == PERCENT else wording).format(r=step.result)
        texts.append(text + ".")
    return texts


def answer_text(value: int) -> str:
    """How a solution states its answer."""
    return f"{ANSWER_OPENING}{value}}}."


def read_step(text: str) -> StatedStep | None:
    """What a step says, by its beginning; None where it says nothing of the task's."""
    if match := _ANSWER_STEP.match(text):
        return StatedStep(int(match[1]), ANSWER, 0, int(match[1]))
    if match := _STEP.match(text):
        return StatedStep(int(match[1]), match[2], int(match[3]), int(match[4]))
    return None


def first_error(problem: ArithmeticProblem, steps: Sequence[str]) -> int:
    """Index from 0 of the first incorrect step of a solution that anybody wrote, or -1.

    A step is correct if it says what the problem's plan says at its place; behind the plan's last step only the
    answer is. A solution that stops early has no incorrect step.
    """
    plans = with_answer(problem).plans if problem.plans[-1].operation != ANSWER else problem.plans
    for index, text in enumerate(steps):
        if index == len(plans) or read_step(text) != correct_step(plans[index]):
            return index
    return -1
