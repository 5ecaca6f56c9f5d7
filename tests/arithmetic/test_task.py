"""The synthetic task: deterministic, true to its labels, split without overlap."""

from __future__ import annotations

import random
import re
import time

import pytest

from thinkprm_jax.arithmetic.chains import StatedStep, evaluate, expression, scratch
from thinkprm_jax.arithmetic.task import ArithmeticExample, belongs_to_test, example, make_example
from thinkprm_jax.arithmetic.templates import ARTICLES, DOMAINS, FAMILY_WEIGHTS, MEN, ORDER, THINGS, WOMEN
from thinkprm_jax.protocol.prompts import LEAD_IN, TRIGGERS
from thinkprm_jax.protocol.reading import read_chain

COUNT = 1500


@pytest.fixture(scope="module", params=["train", "test", "unseen"])
def examples(request: pytest.FixtureRequest) -> list[ArithmeticExample]:
    count = COUNT if request.param != "test" else COUNT // 2
    return [make_example(11, index, request.param) for index in range(count)]


def test_pure_function_of_seed_index_and_split():
    random.seed(0)
    first = [example(3, index) for index in range(50)]
    random.random()
    assert [example(3, index) for index in reversed(range(50))][::-1] == first
    assert [example(4, index) for index in range(50)] != first
    assert [example(3, index, "test") for index in range(50)] != first


def test_examples_do_not_change_between_versions():
    """The bundled model was trained on this very stream."""
    chain = example(0, PINNED[0])
    assert (chain.problem, chain.steps, chain.chain) == PINNED[1:]


def test_split_is_checked():
    with pytest.raises(ValueError, match="split"):
        example(0, 0, "validation")


def test_labels_follow_from_the_problem(examples: list[ArithmeticExample]):
    """Recomputed from the plans, not from the generator's own flags."""
    for item in examples:
        plans = item.problem.plans
        wrong = [
            (step.left, step.operation, step.right, step.result)
            != (plan.left, plan.operation, plan.right, plan.result)
            for step, plan in zip(item.stated, plans, strict=False)
        ]
        first = wrong.index(True) if any(wrong) else len(wrong)
        assert item.chain.labels == [int(index < first) for index in range(len(wrong))]
        assert item.chain.correct == (not any(wrong))
        assert len(item.chain.steps) == len(item.stated) <= len(plans)
        if any(wrong):
            assert item.first_error == first
            # An error is wrong in its value too, and what precedes it holds.
            assert item.stated[first].result != plans[first].result


def test_chain_says_what_the_labels_say(examples: list[ArithmeticExample]):
    for item in examples:
        chain = item.chain
        assert chain.chain.startswith(f"{LEAD_IN}\n\nStep 1: ")
        read = read_chain(chain.chain, len(chain.steps))
        assert list(read.labels) == chain.labels
        assert read.complete
        assert read.first_error == (None if chain.correct else item.first_error)
        assert chain.chain.endswith(f"\\boxed{{{'correct' if chain.correct else 'incorrect'}}}")


def test_plans_are_true_and_within_the_limits(examples: list[ArithmeticExample]):
    for item in examples:
        for plan in item.problem.plans:
            assert evaluate(plan.left, plan.operation, plan.right) == plan.result
            assert 0 < min(plan.left, plan.right) <= max(plan.left, plan.right) < 100
            assert 0 < plan.result <= 198
        assert len(set(item.problem.numbers)) == len(item.problem.numbers)
        for number in item.problem.numbers:
            assert re.search(rf"(?<!\d){number}(?!\d)", item.problem.text)


def test_evidence_is_quoted_from_the_problem(examples: list[ArithmeticExample]):
    for item in examples:
        for index, plan in enumerate(item.problem.plans):
            # The first step of a story with one number in its opening quotes two sentences.
            parts = plan.evidence.split(", ") if index == 0 else [plan.evidence]
            assert plan.evidence in item.problem.text or all(part in item.problem.text for part in parts)


def test_expressions_evaluate_to_the_last_result():
    seen = 0
    for index in range(400):
        item = make_example(5, index, "test")
        if item.problem.family == "expression":
            text = re.search(r"[(\d][\d()+*\- ]*", item.problem.text)[0]
            assert eval(text) == item.problem.plans[-1].result  # our own digits and operators
            seen += 1
    assert seen > 20


def test_later_steps_follow_from_the_error(examples: list[ArithmeticExample]):
    for item in examples:
        for index in range(1, len(item.stated)):
            step, chained = item.stated[index], item.problem.chained[index]
            if index != item.first_error and chained:
                assert getattr(step, chained) == item.stated[index - 1].result
        for index, step in enumerate(item.stated):
            if index != item.first_error or item.error_kind != "result":
                assert evaluate(step.left, step.operation, step.right) == step.result


def test_steps_state_what_they_compute(examples: list[ArithmeticExample]):
    for item in examples:
        for step, text in zip(item.stated, item.chain.steps, strict=True):
            assert text.startswith(f"{expression(step.left, step.operation, step.right)} = {step.result}")
            assert text.endswith(".")
            assert "\n" not in text


def test_mix(examples: list[ArithmeticExample]):
    share = sum(not item.chain.correct for item in examples) / len(examples)
    kinds = {item.error_kind for item in examples}
    assert kinds == {None, "result", "operation", "operand", "stale"}
    assert {item.problem.family for item in examples} == set(FAMILY_WEIGHTS)
    rounds = sum(any(phrase in item.chain.chain for phrase in TRIGGERS) for item in examples)
    partial = sum(len(item.stated) < len(item.problem.plans) for item in examples) / len(examples)
    assert 0.15 < partial < 0.35
    assert 0.4 < share < 0.68
    assert (rounds > 0) == (item_split(examples) == "train")


def item_split(examples: list[ArithmeticExample]) -> str:
    return "train" if examples[0] == make_example(11, 0, "train") else "other"


def test_first_errors_reach_every_place():
    places = {(len(item.stated), item.first_error) for item in (make_example(2, index) for index in range(3000))}
    assert {(count, place) for count in (1, 2, 3, 4) for place in range(-1, count)} <= places


def test_rounds_repeat_the_pass_with_the_phrases_in_order():
    found = 0
    for index in range(1500):
        chain = example(7, index).chain.removeprefix(f"{LEAD_IN}\n\n")
        parts = re.split("(" + "|".join(map(re.escape, TRIGGERS)) + ")", chain)
        if len(parts) == 1:
            continue
        found += 1
        assert parts[1::2] == list(TRIGGERS[: len(parts[1::2])])
        assert {part.strip(".\n") for part in parts[0::2]} == {parts[0].strip(".\n")}
        assert all(re.search(r"[^\n]\n\n\n?$", part) for part in parts[0:-1:2])
    assert found > 40


def test_train_and_test_never_share_a_problem():
    train = {example(seed, index).problem for seed in (0, 1) for index in range(4000)}
    test = {example(seed, index, "test").problem for seed in (0, 9) for index in range(400)}
    assert not any(map(belongs_to_test, train))
    assert all(map(belongs_to_test, test))
    assert not train & test
    assert len(test) > 700  # hardly any repeats
    assert len(train) > 7500


def test_unseen_problems_use_other_wordings():
    """Every sentence of an unseen problem comes from a template that train and test never use."""
    seen = {sentence for index in range(3000) for sentence in _sentences(example(1, index).problem)}
    unseen = {sentence for index in range(600) for sentence in _sentences(example(1, index, "unseen").problem)}
    assert not seen & unseen
    for domain in DOMAINS:
        for wordings in (domain.openings, domain.questions, *(event.wordings for event in domain.events)):
            assert not set(wordings.seen) & set(wordings.unseen)


def _sentences(problem: str) -> list[str]:
    """Sentences without their names, things and numbers."""
    people = [*WOMEN, *MEN, "She", "she", "He", "he"]
    names = "|".join([*people, *THINGS, *ARTICLES])
    order = "|".join(word for words in ORDER for word in words)
    if problem[:-1].endswith(tuple("0123456789")):  # expressions differ in shape or lead-in, not in each part
        return [re.sub(r"\d+", "#", problem)]
    problem = re.sub(rf"\b(?:{names})\b", "@", problem)
    sentences = re.split(r"(?<=[.?]) ", re.sub(r"\d+", "#", problem))
    return [re.sub(rf"^(?:{order}) ", "", sentence).lower() for sentence in sentences]


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ((12, "+", 7), "2+7=9, 1+0+0=1"),
        ((58, "+", 67), "8+7=15, 5+6+1=12"),
        ((19, "-", 5), "9-5=4, 1-0-0=1"),
        ((32, "-", 25), "12-5=7, 3-2-1=0"),
        ((4, "*", 15), "4*5=20, 4*1+2=6"),
        ((19, "*", 3), "3*9=27, 3*1+2=5"),
        ((4, "*", 7), "4*7=28"),
        ((10, "*", 8), "8*0=0, 8*1+0=8"),
    ],
)
def test_scratch(step: tuple[int, str, int], text: str):
    assert scratch(*step) == text


def test_scratch_is_true_and_gives_the_result():
    for left in range(1, 100):
        for right in range(1, 100):
            for operation in "+-*":
                value = evaluate(left, operation, right)
                if value is None or (operation == "*" and (min(left, right) > 9 or value > 198)):
                    continue
                facts = scratch(left, operation, right).split(", ")
                for fact in facts:
                    work, stated = fact.split("=")
                    assert eval(work) == int(stated)
                units = facts[0].split("=")[1]
                joined = units if len(facts) == 1 else facts[1].split("=")[1] + units[-1]
                assert int(joined) == value


def test_evaluate():
    assert evaluate(25, "% of", 80) == 20
    assert evaluate(25, "% of", 81) is None
    assert evaluate(3, "-", 4) is None
    assert StatedStep(1, "+", 1, 2) == StatedStep(1, "+", 1, 2)


def test_fast_enough_to_make_data_on_the_fly():
    start = time.thread_time()
    for index in range(500):
        example(0, index)
    assert time.thread_time() - start < 2.0


PINNED = (
    7,
    "Ben wants a jacket that costs 48 dollars, but 50% off. How much does Ben pay?",
    ["50% of 48 = 24 dollars.", "48 + 24 = 72 dollars."],
    """Let's verify step by step:

Step 1: costs 48 dollars, but 50% off means 50% of 48. The step says 50% of 48, same. It is one of 2. \
2*4=8, 2*2+0=4, so 48. It needs 48, same. The step is \\boxed{correct}

Step 2: off means 48 - 24. The step says 48 + 24, different. The step is \\boxed{incorrect}""",
)
