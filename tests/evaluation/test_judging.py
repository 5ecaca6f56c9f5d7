"""From verdicts to outcomes to figures, on chains that the test writes."""

from __future__ import annotations

import math

import pytest
from scripted_sampler import ScriptedSampler

from thinkprm_jax.data.arithmetic import make_example
from thinkprm_jax.errors import RequestError
from thinkprm_jax.evaluation.arithmetic import arithmetic_case
from thinkprm_jax.evaluation.judging import Case, Outcome, break_down, compare, compare_steps, judge, summarise
from thinkprm_jax.verifier.discriminative import StepVerdict
from thinkprm_jax.verifier.forcing import ChainVerdict
from thinkprm_jax.verifier.thinkprm import ThinkPRM, Verdict


def chain(*words: str, score: float = 0.9, tokens: int = 10) -> ChainVerdict:
    """A chain with these verdicts in order; an empty word leaves its step out."""
    text = "\n\n".join(
        f"Step {number}: The step is \\boxed{{{word}}}" for number, word in enumerate(words, start=1) if word
    )
    output = f"Let's verify step by step:\n\n{text}\n</think>\nIs the solution correct? Yes"
    # Where the chain is silent, a verdict was forced and claims correctness. It must not matter.
    first_error = words.index("incorrect") if "incorrect" in words else len(words)
    labels = tuple(int(step < first_error) for step in range(len(words)))
    forced = tuple(not word and step < first_error for step, word in enumerate(words))
    return ChainVerdict(output, score, labels, tuple(map(float, labels)), forced, "stop", tokens)


def compared(first_error: int, *chains: ChainVerdict, steps: int = 3) -> Outcome:
    return compare(Case("1 + 1?", ("a step",) * steps, first_error), Verdict("", chains), len(chains))


@pytest.mark.parametrize(
    ("first_error", "words", "predicted", "right", "counted"),
    [
        (-1, ("correct", "correct", "correct"), -1, 3, 3),
        (1, ("correct", "incorrect", ""), 1, 2, 2),
        (1, ("correct", "correct", "incorrect"), 2, 1, 2),
        (-1, ("incorrect", "", ""), 0, 0, 3),
        (-1, ("correct", "correct", ""), None, 2, 3),  # stopped before the end
        (1, ("", "incorrect", ""), None, 1, 2),  # the first step has no verdict
        (0, ("", "", ""), None, 0, 1),
    ],
)
def test_only_what_the_chain_wrote_is_read(first_error, words, predicted, right, counted):
    found = compared(first_error, chain(*words))
    assert found.predicted == predicted
    assert (found.steps_right, found.steps_counted) == (right, counted)
    assert found.readable == int(predicted is not None)
    assert found.score == pytest.approx(0.9)


def test_a_chain_cut_right_behind_its_verdict_counts():
    cut = "Step 1: The step is \\boxed{correct\n</think>\nIs the solution correct? Yes"
    found = compared(-1, ChainVerdict(cut, 0.5, (1,), (0.5,), (False,), "length"), steps=1)
    assert (found.predicted, found.readable) == (-1, 1)


def test_readable_chains_vote():
    good, bad, silent = chain("correct", "correct"), chain("correct", "incorrect"), chain("", "")
    assert compared(1, good, bad, bad, steps=2).predicted == 1
    assert compared(1, good, good, bad, steps=2).predicted == -1
    found = compared(1, silent, silent, good, steps=2)
    assert (found.predicted, found.readable, found.chains, found.tokens) == (-1, 1, 3, 30)
    assert (found.steps_right, found.steps_counted) == (1, 6)


def test_a_failed_case_is_wrong_and_has_no_score():
    verdict = Verdict(error=RequestError("the prompt has 9 tokens"))
    found = compare(Case("", ("a", "b"), 0), verdict, 2)
    assert (found.predicted, found.score, found.error) == (None, None, "the prompt has 9 tokens")
    assert (found.readable, found.chains, found.steps_right, found.steps_counted) == (0, 2, 0, 2)


@pytest.mark.parametrize(
    ("first_error", "scores", "predicted", "right", "counted"),
    [
        (-1, (0.9, 0.6), -1, 2, 2),
        (1, (0.9, 0.5, 0.9), 1, 2, 2),  # one half is no "correct"
        (1, (0.9, 0.8, 0.1), 2, 1, 2),
        (-1, (0.9, 0.2, 0.9), 1, 1, 3),  # behind its own error a step has no verdict, as in a chain
        (2, (0.1, 0.9, 0.1), 0, 0, 3),
    ],
)
def test_a_discriminative_verdict_counts_like_a_chain(first_error, scores, predicted, right, counted):
    found = compare_steps(Case("1 + 1?", ("a step",) * len(scores), first_error), StepVerdict("", scores))
    assert (found.predicted, found.steps_right, found.steps_counted) == (predicted, right, counted)
    assert (found.score, found.readable, found.chains, found.tokens) == (scores[-1], 1, 1, 0)


def test_a_failed_discriminative_case_is_wrong_and_has_no_score():
    found = compare_steps(Case("", ("a", "b"), 0), StepVerdict(error=RequestError("the text has 9 tokens")))
    assert (found.predicted, found.score, found.error) == (None, None, "the text has 9 tokens")
    assert (found.readable, found.steps_right, found.steps_counted) == (0, 0, 1)


def outcome(truth: int, predicted: int | None, score: float | None, **more) -> Outcome:
    return Outcome(truth, predicted, score, int(predicted is not None), 1, 1, 2, tokens=10, **more)


OUTCOMES = [
    outcome(-1, -1, 0.9, groups={"kind": "none"}),
    outcome(-1, 0, 0.4, groups={"kind": "none"}),
    outcome(0, 0, 0.2, groups={"kind": "result"}),
    outcome(1, None, 0.6, groups={"kind": "result"}),
    outcome(2, None, None, error="failed"),
]


def test_summary_by_hand():
    found = summarise(OUTCOMES, resamples=200)
    assert (found.solutions, found.failed) == (5, 1)
    values = {
        name: estimate.value for name, estimate in vars(found).items() if name not in ("solutions", "failed")
    }
    assert values == pytest.approx(
        {
            "readable_chains": 3 / 5,
            "step_accuracy": 1 / 2,
            "acc_error": 1 / 3,
            "acc_correct": 1 / 2,
            "first_error_f1": 2 / 5,
            "binary_f1": 1 / 2,  # said correct: 0.9 and 0.6; one of the two is, and one is missed
            "auroc": 3 / 4,
            "calibration_error": (0.1 + 0.6 + 0.2 + 0.6) / 4,
            "tokens": 10.0,
        }
    )
    assert (found.acc_error.n, found.acc_correct.n, found.auroc.n, found.first_error_f1.n) == (3, 2, 4, 5)
    for name, value in values.items():
        assert getattr(found, name).low <= value <= getattr(found, name).high


def test_break_down_leaves_undefined_figures_undefined():
    found = break_down(OUTCOMES, resamples=50)
    assert list(found) == ["kind"]
    assert list(found["kind"]) == ["none", "result"]
    assert found["kind"]["result"].acc_error.value == 0.5
    assert math.isnan(found["kind"]["result"].first_error_f1.value)
    assert math.isnan(found["kind"]["none"].auroc.value)


def test_no_outcomes_at_all():
    found = summarise([])
    assert found.solutions == 0
    assert math.isnan(found.first_error_f1.value)
    assert break_down([]) == {}


@pytest.mark.parametrize("split", ["test", "unseen"])
def test_arithmetic_cases_are_the_examples_of_the_task(split):
    for index in range(30):
        case, example = arithmetic_case(5, index, split), make_example(5, index, split)
        assert list(case.steps) == example.chain.steps
        assert case.labels == example.chain.labels
        assert case.groups["error"] == (example.error_kind or "none")
        assert case.groups["family"] == example.problem.family
        labels = tuple(example.chain.labels)
        perfect = ChainVerdict(
            example.chain.chain + "\n</think>", 1.0, labels, labels, (False,) * len(labels), "stop"
        )
        found = compare(case, Verdict("", (perfect,)), 1)
        assert found.predicted == case.first_error
        assert found.steps_right == found.steps_counted


def test_a_verifier_that_writes_the_right_chains_is_right(mini_tokenizer):
    count = 20
    examples = [make_example(1, index, "test") for index in range(count)]
    sampler = ScriptedSampler(mini_tokenizer, [example.chain.chain + "\n</think>" for example in examples])
    cases = [arithmetic_case(1, index, "test") for index in range(count)]
    outcomes = {index: outcome for index, _, outcome in judge(ThinkPRM(sampler=sampler), cases)}
    found = summarise([outcomes[index] for index in range(count)], resamples=20)
    assert found.readable_chains.value == found.step_accuracy.value == found.first_error_f1.value == 1.0
    assert 0.8 < found.step_accuracy.low < 1.0 == found.step_accuracy.high
