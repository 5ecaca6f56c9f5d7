"""The synthetic task of the bundled models: word problems and expressions of two to four steps, one operation a step.

Sums and differences of numbers below 100, products of a digit and a number with a result below 200, and 50, 25, 20 or 10 percent
of a number below 100. A solution is correct, or has a first error (a wrong result, operation, operand, or a stale running value),
and its later steps follow from that error.

`example(seed, index, split)` is a pure function. A problem belongs to "train" or "test" by a hash of its text, whatever the seed;
"unseen" problems use other wordings.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from thinkprm_jax.data.arithmetic_chains import (
    SHARES,
    StatedStep,
    StepPlan,
    evaluate,
    expression,
    write_chain,
)
from thinkprm_jax.data.arithmetic_templates import (
    ADD,
    ARTICLES,
    DOMAINS,
    EXPRESSION_QUESTIONS,
    EXPRESSION_SHAPES,
    FAMILY_WEIGHTS,
    MEN,
    MUL,
    ORDER,
    PERCENT,
    SUB,
    THINGS,
    WOMEN,
    Domain,
)
from thinkprm_jax.data.chains import Chain

SPLITS = ("train", "test", "unseen")
STEP_WEIGHTS = {2: 40, 3: 38, 4: 22}
# Share of problems whose events begin with a word of order, by the number of events: the more, the harder to count.
ORDERED_SHARE = {0: 0.0, 1: 0.5, 2: 0.7, 3: 1.0, 4: 1.0}
ERROR_WEIGHTS = {"result": 30, "operation": 25, "operand": 20, "stale": 25}
ERROR_SHARE = {"train": 0.62, "test": 0.5, "unseen": 0.5}
PREFIX_SHARE = 0.25  # of examples that show only the first steps of a solution
ROUNDS_SHARE = 0.07  # of training chains that check the steps more than once
_TEST_BUCKETS = 10  # one in this many problem texts is a test problem
_LARGEST = 198  # of all results; operands stay below 100

Item = TypeVar("Item")


class Draw:
    """Random choices from random() alone, the one sequence Python promises to keep across versions."""

    def __init__(self, key: str) -> None:
        self._random = random.Random(int.from_bytes(blake2b(key.encode(), digest_size=8).digest())).random

    def chance(self, share: float) -> bool:
        return self._random() < share

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._random() * (high - low + 1))

    def of(self, items: Sequence[Item]) -> Item:
        return items[int(self._random() * len(items))]

    def weighted(self, weights: dict[Item, int]) -> Item:
        place = self._random() * sum(weights.values())
        for item, weight in weights.items():
            place -= weight
            if place < 0:
                return item
        return item


@dataclass(frozen=True)
class Problem:
    """text: the problem. plans: its correct steps. chained[i]: which operands of step i are the previous result ("left", "right").
    numbers: those the text states. result_wordings, unit: how solutions phrase values ({r})."""

    text: str
    family: str
    plans: tuple[StepPlan, ...]
    chained: tuple[str, ...]
    numbers: tuple[int, ...]
    result_wordings: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class Example:
    """One example with what the evaluation by kinds needs. error_kind is None for a correct (partial) solution."""

    problem: Problem
    stated: tuple[StatedStep, ...]
    error_kind: str | None
    first_error: int
    chain: Chain


def belongs_to_test(problem: str) -> bool:
    """Whether a problem text is in the test part of the texts that "train" and "test" share."""
    return int.from_bytes(blake2b(problem.encode(), digest_size=8).digest()) % _TEST_BUCKETS == 0


def make_problem(draw: Draw, split: str = "train") -> Problem:
    """A random problem of the split."""
    while True:
        family = draw.weighted(FAMILY_WEIGHTS)
        if family == "expression":
            problem = _expression_problem(draw, split)
        else:
            problem = _story_problem(draw, draw.of(_BY_FAMILY[family]), split)
        if problem is not None and (split == "unseen" or belongs_to_test(problem.text) == (split == "test")):
            return problem


_BY_FAMILY = {
    family: [domain for domain in DOMAINS if domain.family == family] for family in FAMILY_WEIGHTS
}


def _operand(draw: Draw, value: int, operation: str, last: bool) -> int | None:
    """A number to combine with the running value, or None where there is no room for one."""
    limit = _LARGEST if last else 99
    high = {ADD: min(99, limit - value), SUB: value - 1, MUL: min(9, limit // max(value, 1))}[operation]
    return draw.between(2, high) if high >= 2 else None


def _quote(text: str, order: str) -> tuple[str, str]:
    """The sentence, and the evidence: what stands between its brackets, or all up to there where a word of order begins it."""
    before, evidence, after = re.split(r"[\[\]]", text)
    if order:
        return f"{order} {before}{evidence}{after}", f"{order} {before}{evidence}"
    sentence = before + evidence + after
    return sentence[0].upper() + sentence[1:], evidence


class _Story:
    """A story problem under construction: its sentences, steps and numbers so far."""

    def __init__(self, draw: Draw, domain: Domain, split: str) -> None:
        self.draw, self.domain, self.split = draw, domain, split
        woman = draw.chance(0.5)
        name = draw.of(WOMEN if woman else MEN)
        pronoun = ("she" if woman else "he") if draw.chance(0.7) else name
        self.fields: dict[str, object] = {
            "N": name,
            "s": pronoun,
            "O": draw.of(MEN if woman else WOMEN),
            "x": draw.of(THINGS),
            "y": draw.of(ARTICLES),
        }
        self.sentences: list[str] = []
        self.plans: list[StepPlan] = []
        self.chained: list[str] = []
        self.numbers: list[int] = []

    def add_step(self, evidence: str, left: int, operation: str, right: int, chained: str) -> None:
        result = evaluate(left, operation, right)
        assert result is not None
        self.plans.append(StepPlan(evidence, left, operation, right, result))
        self.chained.append(chained)

    def say(self, wording: str, order: str = "", **numbers: int) -> str:
        sentence, evidence = _quote(wording.format_map({**self.fields, **numbers}), order)
        self.sentences.append(sentence)
        self.numbers += numbers.values()
        return evidence

    def open(self, last_step: int) -> int | None:
        """The opening sentence and the steps it brings: the running value, and for one number its evidence as a pending step."""
        draw, wording = self.draw, self.draw.of(self.domain.openings.of(self.split))
        if self.domain.opening_operation is None:
            value = draw.between(5, 99)
            self.opening_evidence = self.say(wording, n=value)
            return value
        self.opening_evidence = ""
        if self.domain.opening_operation == MUL:
            a = draw.between(2, 9)
            b = draw.between(2, 99 // a)
            self.add_step(self.say(wording, a=a, b=b), a, MUL, b, "")
            return a * b
        percent = draw.of(tuple(SHARES))
        part = draw.between(2, 99 // SHARES[percent])
        whole = part * SHARES[percent]
        value = whole - part if self.domain.apply == SUB else whole + part
        if value > (_LARGEST if last_step == 1 else 99):
            return None
        evidence = self.say(wording, b=whole, p=percent)
        self.add_step(evidence, percent, PERCENT, whole, "")
        self.add_step(evidence.split()[-1], whole, self.domain.apply, part, "right")
        return value

    def continue_with_events(self, value: int, last_step: int) -> bool:
        """Adds events until the problem has all its steps; False where none fits."""
        draw = self.draw
        events = [event for event in self.domain.events if event.wordings.of(self.split)]
        ordered = draw.chance(ORDERED_SHARE[last_step + 1 - len(self.plans)])
        while len(self.plans) <= last_step:
            last = len(self.plans) == last_step
            operation = draw.weighted({ADD: 4, SUB: 4, MUL: 2})
            fitting = [event for event in events if event.operation == operation]
            number = _operand(draw, value, operation, last)
            if not fitting or number is None or number in self.numbers:
                self.tries = getattr(self, "tries", 0) + 1
                if self.tries > 20:
                    return False
                continue
            event = draw.of(fitting)
            events.remove(event)
            order = draw.of(ORDER[len(self.plans)]) if ordered else ""
            evidence = self.say(draw.of(event.wordings.of(self.split)), order, n=number)
            if not self.plans:
                evidence = f"{self.opening_evidence}, {evidence}"
            self.add_step(evidence, value, operation, number, "left" if self.plans else "")
            value = self.plans[-1].result
        return True


def _story_problem(draw: Draw, domain: Domain, split: str) -> Problem | None:
    story = _Story(draw, domain, split)
    last_step = draw.weighted(STEP_WEIGHTS) - 1
    value = story.open(last_step)
    if value is None or not story.continue_with_events(value, last_step):
        return None
    if len(set(story.numbers)) < len(story.numbers):
        return None  # a number that occurs twice would make its quotation ambiguous
    question = draw.of(domain.questions.of(split)).format_map(story.fields)
    fields = {**story.fields, "r": "{r}"}
    return Problem(
        text=" ".join([*story.sentences, question]),
        family=domain.family,
        plans=tuple(story.plans),
        chained=tuple(story.chained),
        numbers=tuple(story.numbers),
        result_wordings=tuple(text.format_map(fields) for text in domain.results),
        unit=domain.unit.format_map(fields),
    )


def _expression_problem(draw: Draw, split: str) -> Problem | None:
    shape = draw.of(EXPRESSION_SHAPES.of(split))
    first = draw.between(2, 9) if shape[0] == MUL else draw.between(5, 99)
    numbers, plans, text, value = [first], [], str(first), first
    for index, operation in enumerate(shape):
        last = index == len(shape) - 1
        if index == 0 and operation == MUL:
            number: int | None = draw.between(2, 99 // first)
        else:
            number = _operand(draw, value, operation, last)
        if number is None or number in numbers:
            return None
        numbers.append(number)
        if operation == MUL and index > 0:
            text = f"({text})"
        text += f" {operation} {number}"
        evidence = f"{operation} {number}" if index else text
        result = evaluate(value, operation, number)
        plans.append(StepPlan(evidence, value, operation, number, result))
        value = result
    return Problem(
        text=draw.of(EXPRESSION_QUESTIONS.of(split)).format(e=text),
        family="expression",
        plans=tuple(plans),
        chained=("",) + ("left",) * (len(plans) - 1),
        numbers=tuple(numbers),
        result_wordings=("it is {r}", "the number is {r}"),
    )


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
        largest = 9 if parts == 10 else min(99, _LARGEST // parts)
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


def _wrong_operand(draw: Draw, problem: Problem, index: int) -> StatedStep | None:
    """A number that another place of the problem states."""
    plan, chained = problem.plans[index], problem.chained[index]
    side = draw.of([side for side in ("left", "right") if side != chained])
    if plan.operation == PERCENT:
        side = "right"
    number = draw.of(problem.numbers)
    if side == "left":
        return _stated(number, plan.operation, plan.right)
    return _stated(plan.left, plan.operation, number)


def _stale_operand(draw: Draw, problem: Problem, index: int) -> StatedStep | None:
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


def _correct(plan: StepPlan) -> StatedStep:
    return StatedStep(plan.left, plan.operation, plan.right, plan.result)


def _break(draw: Draw, problem: Problem, index: int, shown: int) -> tuple[list[StatedStep], str] | None:
    """`shown` stated steps whose first error is step `index`, and the kind of error; None where this draw gives none."""
    kind = draw.weighted(ERROR_WEIGHTS)
    plan = problem.plans[index]
    if kind == "result":
        wrong = _wrong_result(draw, plan)
    elif kind == "operation":
        wrong = _wrong_operation(draw, plan)
    elif kind == "operand":
        wrong = _wrong_operand(draw, problem, index)
    else:
        wrong = _stale_operand(draw, problem, index)
    # An error is one only if it changes the value (2 + 2 for 2 * 2 does not).
    if wrong is None or wrong.result == plan.result:
        return None
    stated = [_correct(plan) for plan in problem.plans[:index]] + [wrong]
    for plan, chained in zip(problem.plans[index + 1 : shown], problem.chained[index + 1 : shown], strict=True):
        previous = stated[-1].result
        left, right = (previous if chained == side else getattr(plan, side) for side in ("left", "right"))
        step = _stated(left, plan.operation, right)
        if step is None:
            return None
        stated.append(step)
    return stated, kind


def step_texts(draw: Draw, problem: Problem, stated: Sequence[StatedStep]) -> list[str]:
    """The solution's steps in words; one style a solution."""
    style = draw.weighted({"bare": 40, "unit": 30, "so": 30})
    wording = draw.of(problem.result_wordings)
    texts = []
    for step in stated:
        text = f"{expression(step.left, step.operation, step.right)} = {step.result}"
        if style == "unit" and problem.unit:
            text += f" {problem.unit}"
        elif style == "so":
            text += ", so " + ("the part is {r}" if step.operation == PERCENT else wording).format(r=step.result)
        texts.append(text + ".")
    return texts


def example(seed: int, index: int, split: str = "train") -> Chain:
    """The chain of one example: a pure function of its arguments."""
    return make_example(seed, index, split).chain


def make_example(seed: int, index: int, split: str = "train") -> Example:
    """One example: a pure function of its arguments.

    Training mixes in prefixes of solutions and chains of several rounds; the other splits have one round always.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
    draw = Draw(f"{seed}/{index}/{split}")
    while True:
        problem = make_problem(draw, split)
        steps = len(problem.plans)
        shown = draw.between(1, steps - 1) if draw.chance(PREFIX_SHARE) else steps
        if not draw.chance(ERROR_SHARE[split]):
            stated, kind, first_error = [_correct(plan) for plan in problem.plans[:shown]], None, -1
            break
        first_error = draw.between(0, shown - 1)
        # The place of the error is kept while its kind is redrawn, so that first errors stay uniform over the steps.
        broken = next(filter(None, (_break(draw, problem, first_error, shown) for _ in range(8))), None)
        if broken is not None:
            stated, kind = broken
            break
    gaps: list[str] = []
    judged = shown if kind is None else first_error + 1
    if split == "train" and draw.chance(ROUNDS_SHARE):
        rounds = min(draw.weighted({2: 75, 3: 20, 4: 5}), 6 // judged)  # long ones would cost too many tokens
        gaps = [draw.of(("\n\n", "\n\n\n")) for _ in range(rounds - 1)]
    chain = Chain(
        problem=problem.text,
        steps=step_texts(draw, problem, stated),
        chain=write_chain(list(problem.plans), stated, gaps),
        labels=[int(kind is None or step < first_error) for step in range(shown)],
        correct=kind is None,
    )
    return Example(problem, tuple(stated), kind, first_error, chain)
