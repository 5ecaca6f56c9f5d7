"""From verdicts to outcomes to figures, on chains that the test writes."""

from __future__ import annotations

import math

import pytest

from support.scripted_sampler import ScriptedSampler
from thinkprm_jax.arithmetic.task import make_example
from thinkprm_jax.errors import RequestError
from thinkprm_jax.evaluation.results import EvaluationCase, judge_cases, outcome_of
from thinkprm_jax.evaluation.summary import break_down, summarise
from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_case
from thinkprm_jax.protocol.reading import read_chain
from thinkprm_jax.records.evaluation import Outcome
from thinkprm_jax.verifier.base import Verdict
from thinkprm_jax.verifier.findings import ChainVerdict, Reading
from thinkprm_jax.verifier.judge import combine_outputs
from thinkprm_jax.verifier.script import reading_of
from thinkprm_jax.verifier.thinkprm import ThinkPRM, combine_chains


def written(output: str, score: float, labels, scores, forced, reason: str, tokens: int = 0) -> ChainVerdict:
    """A chain of ThinkPRM's with this output, read as the script reads it."""
    read = read_chain(output.rpartition("</think>")[0], len(labels))
    return ChainVerdict(output, score, labels, scores, forced, reason, reading_of(read), tokens)


def thinkprm_verdict(chains) -> Verdict:
    return Verdict.of_chains("", chains, combine_chains)


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
    return written(output, score, labels, tuple(map(float, labels)), forced, "stop", tokens)


def compared(first_error: int, *chains: ChainVerdict, steps: int = 3) -> Outcome:
    return outcome_of(
        EvaluationCase("1 + 1?", ("a step",) * steps, first_error), thinkprm_verdict(chains), len(chains)
    )


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
    found = compared(-1, written(cut, 0.5, (1,), (0.5,), (False,), "length"), steps=1)
    assert (found.predicted, found.readable) == (-1, 1)


def test_chains_vote_on_the_index_and_not_step_by_step():
    early, late = chain("incorrect", "", ""), chain("correct", "correct", "incorrect")
    good = chain("correct", "correct", "correct")
    # Step by step most call step 2 correct and step 3 incorrect; two of five name index 2, two none, one index 0.
    assert compared(2, early, late, late, late, good).predicted == 2


def test_a_tie_of_the_vote_goes_to_the_mean_step_scores():
    steps = "Step 1: The step is \\boxed{%s}\n</think>"
    good = written(steps % "correct", 0.9, (1,), (0.6,), (False,), "stop")
    bad = written(steps % "incorrect", 0.1, (0,), (0.1,), (False,), "stop")
    found = compared(0, good, bad, steps=1)
    assert (found.predicted, found.predicted_by_score) == (0, 0)  # the mean, 0.35, says incorrect


def test_the_first_chains_are_the_verdict_of_a_smaller_n():
    chains = chain("correct", score=0.8), chain("incorrect", score=0.1), chain("incorrect", score=0.3)
    verdict, case = thinkprm_verdict(chains), EvaluationCase("1 + 1?", ("a step",), 0)
    for count in (1, 2, 3):
        assert outcome_of(case, verdict.first_chains(count), count) == compared(0, *chains[:count], steps=1)


def test_readable_chains_vote():
    good, bad, silent = chain("correct", "correct"), chain("correct", "incorrect"), chain("", "")
    assert compared(1, good, bad, bad, steps=2).predicted == 1
    assert compared(1, good, good, bad, steps=2).predicted == -1
    found = compared(1, silent, silent, good, steps=2)
    assert (found.predicted, found.readable, found.chains, found.tokens) == (-1, 1, 3, 30)
    assert (found.steps_right, found.steps_counted) == (1, 6)


def test_a_failed_case_is_wrong_and_has_no_score():
    verdict = Verdict(error=RequestError("the prompt has 9 tokens"))
    found = outcome_of(EvaluationCase("", ("a", "b"), 0), verdict, 2)
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
    found = outcome_of(
        EvaluationCase("1 + 1?", ("a step",) * len(scores), first_error), Verdict.of_scores("", scores)
    )
    assert (found.predicted, found.steps_right, found.steps_counted) == (predicted, right, counted)
    assert (found.score, found.readable, found.chains, found.tokens) == (scores[-1], 1, 1, 0)


def test_a_failed_discriminative_case_is_wrong_and_has_no_score():
    found = outcome_of(EvaluationCase("", ("a", "b"), 0), Verdict(error=RequestError("the text has 9 tokens")))
    assert (found.predicted, found.score, found.error) == (None, None, "the text has 9 tokens")
    assert (found.readable, found.steps_right, found.steps_counted) == (0, 0, 1)


def outcome(truth: int, predicted: int | None, score: float | None, **more) -> Outcome:
    readable = int(predicted is not None)
    said = None if score is None or predicted is None else int((score > 0.5) != (predicted < 0))
    return Outcome(
        truth,
        predicted,
        score,
        readable,
        1,
        1,
        2,
        tokens=10,
        predicted_by_score=predicted,
        contradictory=said,
        **more,
    )


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
            "contradictory_chains": 0.0,
            "step_accuracy": 1 / 2,
            "acc_error": 1 / 3,
            "acc_correct": 1 / 2,
            "first_error_f1": 2 / 5,
            "first_error_f1_by_score": 2 / 5,
            "binary_f1": 2 / 5,  # said correct: 0.9, 0.6 and (no verdict is a wrong one) the last
            "auroc": 3 / 4,
            "calibration_error": (0.1 + 0.6 + 0.2 + 0.6) / 4,
            "brier": (0.01 + 0.36 + 0.04 + 0.36) / 4,
            "point_biserial": 0.25 / math.sqrt(0.2675),
            "spearman": 1 / math.sqrt(5),
            "tokens": 10.0,
        }
    )
    assert (found.acc_error.n, found.acc_correct.n, found.auroc.n, found.first_error_f1.n) == (3, 2, 4, 5)
    for name, value in values.items():
        assert getattr(found, name).low <= value <= getattr(found, name).high


def test_chains_whose_score_and_labels_disagree_are_counted():
    agreeing, disagreeing = (
        chain("correct", "incorrect", "", score=0.1),
        chain("correct", "incorrect", "", score=0.9),
    )
    assert thinkprm_verdict([disagreeing]).contradictory
    assert not thinkprm_verdict([agreeing]).contradictory
    assert compared(1, agreeing, disagreeing, chain("correct", "correct", "correct", score=0.2)).contradictory == 2
    found = summarise([compared(1, agreeing), compared(1, disagreeing), OUTCOMES[-1]], resamples=20)
    assert (found.contradictory_chains.value, found.contradictory_chains.n) == (0.5, 2)


def test_a_verdict_without_chains_contradicts_itself_where_its_last_step_is_alone():
    case = EvaluationCase("", ("a", "b"), -1)
    assert outcome_of(case, Verdict.of_scores("", [0.1, 0.9])).contradictory == 1
    assert outcome_of(case, Verdict.of_scores("", [0.9, 0.9])).contradictory == 0


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
        perfect = written(example.chain.chain + "\n</think>", 1.0, labels, labels, (False,) * len(labels), "stop")
        found = outcome_of(case, thinkprm_verdict((perfect,)), 1)
        assert found.predicted == case.first_error
        assert found.steps_right == found.steps_counted


def test_a_verifier_that_writes_the_right_chains_is_right(mini_tokenizer):
    count = 20
    examples = [make_example(1, index, "test") for index in range(count)]
    sampler = ScriptedSampler(mini_tokenizer, [example.chain.chain + "\n</think>" for example in examples])
    cases = [arithmetic_case(1, index, "test") for index in range(count)]
    outcomes = {index: outcome for index, _, outcome in judge_cases(ThinkPRM(sampler=sampler), cases)}
    found = summarise([outcomes[index] for index in range(count)], resamples=20)
    assert found.readable_chains.value == found.step_accuracy.value == found.first_error_f1.value == 1.0
    assert 0.8 < found.step_accuracy.low < 1.0 == found.step_accuracy.high


def judge_chain(label: int | None, score: float | None, first_error: int | None, steps: int = 3) -> ChainVerdict:
    located = first_error is not None
    labels = tuple(int(first_error < 0 or step < first_error) for step in range(steps)) if located else ()
    reading = Reading.of_first_error(first_error, steps) if located else Reading(label, None, (None,) * steps)
    scores, forced = tuple(map(float, labels)), (False,) * len(labels)
    return ChainVerdict("", score, labels, scores, forced, "stop", reading, 10)


def judge_verdict(*chains: ChainVerdict, locates: bool = True) -> Verdict:
    return Verdict.of_chains("", chains, combine_outputs, locates)


def test_a_judge_of_whole_solutions_names_no_step():
    case = EvaluationCase("1 + 1?", ("a", "b", "c"), 1)
    verdict = judge_verdict(judge_chain(0, 0.2, None), judge_chain(None, None, None), locates=False)
    found = outcome_of(case, verdict, 2)
    assert (found.score, found.predicted, found.predicted_by_score, found.locates) == (0.2, None, None, False)
    assert (found.readable, found.chains, found.tokens, found.steps_counted) == (1, 2, 20, 0)
    summary = summarise([found], resamples=0)
    assert math.isnan(summary.first_error_f1.value)
    assert summary.readable_chains.value == 0.5


def test_a_judge_that_says_where_is_read_like_a_chain():
    verdict = judge_verdict(judge_chain(0, 0.0, 2), judge_chain(0, 0.0, 1), judge_chain(0, 0.0, 1))
    found = outcome_of(EvaluationCase("", ("a", "b", "c"), 2), verdict, 3)
    assert (found.predicted, found.readable) == (1, 3)
    assert (found.steps_right, found.steps_counted) == (3 + 1 + 1, 9)


def test_an_unreadable_judge_is_wrong_and_its_tokens_count():
    verdict = judge_verdict(judge_chain(None, None, None), judge_chain(None, None, None))
    found = outcome_of(EvaluationCase("", ("a", "b", "c"), -1), verdict, 2)
    assert (found.predicted, found.score, found.readable, found.chains, found.tokens) == (None, None, 0, 2, 20)
    assert "readable" in found.error


def test_the_first_chains_of_a_judge_may_be_unreadable():
    verdict = judge_verdict(judge_chain(None, None, None), judge_chain(1, 1.0, -1))
    case = EvaluationCase("", ("a", "b", "c"), -1)
    assert outcome_of(case, verdict, 2).predicted == -1
    assert outcome_of(case, verdict.first_chains(1), 1).error is not None
