"""The verification chains of the synthetic task: what the bundled verifier is taught to write.

A step is checked in three moves: quote the evidence and say what it means (`buys 7 means 12 + 7`), compare with
what the step says, then compute digit by digit, units first, and compare the result. Each token is a copy or a
fact about digits that stand side by side: a model of a few million parameters can learn those, a person can read.
A step that states the answer is checked in the same way: the question is quoted, and means the last result.
"""

from __future__ import annotations

from dataclasses import dataclass

from thinkprm_jax.arithmetic.templates import ADD, ANSWER, MUL, PERCENT, SUB
from thinkprm_jax.protocol.prompts import LEAD_IN, TRIGGERS

SAYS = "The step says"
SHARES = {50: 2, 25: 4, 20: 5, 10: 10}  # p% is one part of this many


@dataclass(frozen=True)
class StepPlan:
    """What a step should say: `left operation right = result`, and the words of the problem that ask for it.

    The answer's step has the operation ANSWER: left and result are the value, right is 0.
    """

    evidence: str
    left: int
    operation: str
    right: int
    result: int


@dataclass(frozen=True)
class StatedStep:
    """What a step of a solution does say; see :class:`StepPlan` of answers."""

    left: int
    operation: str
    right: int
    result: int


def evaluate(left: int, operation: str, right: int) -> int | None:
    """The value, or None where it is no whole number or negative."""
    if operation == ADD:
        return left + right
    if operation == SUB:
        return left - right if left >= right else None
    if operation == MUL:
        return left * right
    if operation == ANSWER:
        return left
    value, rest = divmod(left * right, 100)
    return value if rest == 0 else None


def expression(left: int, operation: str, right: int) -> str:
    """`12 + 7`, `25% of 80`; of an answer its value."""
    if operation == ANSWER:
        return str(left)
    return f"{left}% of {right}" if operation == PERCENT else f"{left} {operation} {right}"


def scratch(left: int, operation: str, right: int) -> str:
    """The digit work of one operation. Operands below 100; a product has a one-digit factor."""
    if operation == MUL:
        return _product(left, right)
    (left_tens, left_units), (right_tens, right_units) = divmod(left, 10), divmod(right, 10)
    if operation == ADD:
        units = left_units + right_units
        tens = left_tens + right_tens + units // 10
        return f"{left_units}+{right_units}={units}, {left_tens}+{right_tens}+{units // 10}={tens}"
    borrow = int(left_units < right_units)
    units = 10 * borrow + left_units
    tens = left_tens - right_tens - borrow
    return f"{units}-{right_units}={units - right_units}, {left_tens}-{right_tens}-{borrow}={tens}"


def _product(left: int, right: int) -> str:
    factor, other = (left, right) if left < 10 else (right, left)
    if other < 10:
        return f"{factor}*{other}={factor * other}"
    tens, units = divmod(other, 10)
    carry = factor * units // 10
    return f"{factor}*{units}={factor * units}, {factor}*{tens}+{carry}={factor * tens + carry}"


def _check(plan: StepPlan, stated: StatedStep) -> tuple[str, bool]:
    need = expression(plan.left, plan.operation, plan.right)
    says = expression(stated.left, stated.operation, stated.right)
    head = f"{plan.evidence} means {need}. {SAYS} {says}, "
    if need != says:
        return head + "different.", False
    if plan.operation == ANSWER:
        return head + "same.", True
    if plan.operation == PERCENT:
        # Multiplied back: the part the step states, times the number of parts, must give the whole.
        parts = SHARES[plan.left]
        work = scratch(parts, MUL, stated.result)
        product, target = parts * stated.result, plan.right
        tail = f"It is one of {parts}. {work}, so {product}. It needs {target}, "
    else:
        product, target = plan.result, stated.result
        tail = f"{scratch(plan.left, plan.operation, plan.right)}, so {product}. {SAYS} {target}, "
    same = product == target
    return f"{head}same. {tail}{'same' if same else 'different'}.", same


def write_pass(plans: list[StepPlan], stated: list[StatedStep]) -> tuple[str, bool]:
    """One pass over the given steps, ended by the first incorrect one, and whether all were correct."""
    parts = []
    for index, (plan, step) in enumerate(zip(plans, stated, strict=False), start=1):
        text, correct = _check(plan, step)
        verdict = "correct" if correct else "incorrect"
        parts.append(f"Step {index}: {text} The step is \\boxed{{{verdict}}}")
        if not correct:
            return "\n\n".join(parts), False
    return "\n\n".join(parts), True


def write_chain(plans: list[StepPlan], stated: list[StatedStep], gaps: list[str]) -> str:
    """The lead-in and 1 + len(gaps) passes, separated by the trigger phrases in order.

    gaps: what stands before each phrase: a blank line, or two as budget forcing leaves them where it took back
        `</think>` but not the newline before.
    """
    body, _ = write_pass(plans, stated)
    chain = f"{LEAD_IN}\n\n{body}"
    for index, gap in enumerate(gaps):
        phrase = TRIGGERS[index % len(TRIGGERS)]
        chain += f"{gap}{phrase}{'' if phrase.endswith('?') else '.'}\n\n{body}"
    return chain
