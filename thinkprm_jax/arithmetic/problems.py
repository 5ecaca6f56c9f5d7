"""Problems of the synthetic task: stories and expressions, and the steps that solve them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

from thinkprm_jax.arithmetic.chains import SHARES, StepPlan, evaluate
from thinkprm_jax.arithmetic.templates import (
    ADD,
    ANSWER,
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

LARGEST = 198  # of all results; operands stay below 100
STEP_WEIGHTS = {2: 40, 3: 38, 4: 22}
# Share of problems whose events begin with a word of order, by the number of events: the more, the harder to
# count.
ORDERED_SHARE = {0: 0.0, 1: 0.5, 2: 0.7, 3: 1.0, 4: 1.0}

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
class ArithmeticProblem:
    """A problem and its solution.

    plans: the correct steps. chained[i]: which operand of step i is the previous result ("left", "right" or "").
    numbers: those that the text states. result_wordings, unit: how solutions phrase values ({r}). closing: the
    words of the question that a chain quotes where the answer is due.
    """

    text: str
    family: str
    plans: tuple[StepPlan, ...]
    chained: tuple[str, ...]
    numbers: tuple[int, ...]
    result_wordings: tuple[str, ...] = ()
    unit: str = ""
    closing: str = "?"

    @property
    def answer(self) -> int:
        return self.plans[-1].result

    @property
    def answer_plan(self) -> StepPlan:
        """What the step behind the last one should say."""
        return StepPlan(self.closing, self.answer, ANSWER, 0, self.answer)


_BY_FAMILY = {family: [domain for domain in DOMAINS if domain.family == family] for family in FAMILY_WEIGHTS}


def random_problem(draw: Draw, split: str) -> ArithmeticProblem | None:
    """A problem in the wordings of `split`, or None where the numbers drawn do not work out."""
    family = draw.weighted(FAMILY_WEIGHTS)
    if family == "expression":
        return _expression_problem(draw, split)
    return _story_problem(draw, draw.of(_BY_FAMILY[family]), split)


def _operand(draw: Draw, value: int, operation: str, last: bool) -> int | None:
    """A number to combine with the running value, or None where there is no room for one."""
    limit = LARGEST if last else 99
    high = {ADD: min(99, limit - value), SUB: value - 1, MUL: min(9, limit // max(value, 1))}[operation]
    return draw.between(2, high) if high >= 2 else None


def _quote(text: str, order: str) -> tuple[str, str]:
    """The sentence and its evidence: the words in brackets, or all up to their end after a word of order."""
    before, evidence, after = re.split(r"[\[\]]", text)
    if order:
        return f"{order} {before}{evidence}{after}", f"{order} {before}{evidence}"
    sentence = before + evidence + after
    return sentence[0].upper() + sentence[1:], evidence


def _plan_step(evidence: str, left: int, operation: str, right: int) -> StepPlan:
    result = evaluate(left, operation, right)
    assert result is not None
    return StepPlan(evidence, left, operation, right, result)


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
        self.opening_evidence = ""
        self._misses = 0  # draws that fitted nowhere

    def add_step(self, evidence: str, left: int, operation: str, right: int, chained: str) -> None:
        self.plans.append(_plan_step(evidence, left, operation, right))
        self.chained.append(chained)

    def say(self, wording: str, order: str = "", **numbers: int) -> str:
        sentence, evidence = _quote(wording.format_map({**self.fields, **numbers}), order)
        self.sentences.append(sentence)
        self.numbers += numbers.values()
        return evidence

    def open(self, last_step: int) -> int | None:
        """Says the opening sentence and adds the steps it brings. Returns the running value, None if too large."""
        draw, wording = self.draw, self.draw.of(self.domain.openings.of(self.split))
        if self.domain.opening_operation is None:
            value = draw.between(5, 99)
            self.opening_evidence = self.say(wording, n=value)
            return value
        if self.domain.opening_operation == MUL:
            a = draw.between(2, 9)
            b = draw.between(2, 99 // a)
            self.add_step(self.say(wording, a=a, b=b), a, MUL, b, "")
            return a * b
        assert self.domain.apply is not None
        percent = draw.of(tuple(SHARES))
        part = draw.between(2, 99 // SHARES[percent])
        whole = part * SHARES[percent]
        value = whole - part if self.domain.apply == SUB else whole + part
        if value > (LARGEST if last_step == 1 else 99):
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
                self._misses += 1
                if self._misses > 20:
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


def _story_problem(draw: Draw, domain: Domain, split: str) -> ArithmeticProblem | None:
    story = _Story(draw, domain, split)
    last_step = draw.weighted(STEP_WEIGHTS) - 1
    value = story.open(last_step)
    if value is None or not story.continue_with_events(value, last_step):
        return None
    if len(set(story.numbers)) < len(story.numbers):
        return None  # a number that occurs twice would make its quotation ambiguous
    question = draw.of(domain.questions.of(split)).format_map(story.fields)
    fields = {**story.fields, "r": "{r}"}
    return ArithmeticProblem(
        text=" ".join([*story.sentences, question]),
        family=domain.family,
        plans=tuple(story.plans),
        chained=tuple(story.chained),
        numbers=tuple(story.numbers),
        result_wordings=tuple(text.format_map(fields) for text in domain.results),
        unit=domain.unit.format_map(fields),
        closing=" ".join(question.split()[:2]),
    )


def _expression_problem(draw: Draw, split: str) -> ArithmeticProblem | None:
    shape = draw.of(EXPRESSION_SHAPES.of(split))
    first = draw.between(2, 9) if shape[0] == MUL else draw.between(5, 99)
    numbers, text, value = [first], str(first), first
    plans: list[StepPlan] = []
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
        plans.append(_plan_step(evidence, value, operation, number))
        value = plans[-1].result
    return ArithmeticProblem(
        text=draw.of(EXPRESSION_QUESTIONS.of(split)).format(e=text),
        family="expression",
        plans=tuple(plans),
        chained=("",) + ("left",) * (len(plans) - 1),
        numbers=tuple(numbers),
        result_wordings=("it is {r}", "the number is {r}"),
    )
