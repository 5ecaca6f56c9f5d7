"""LLM as a judge: what is read, what is measured, and what stays unreadable."""

from __future__ import annotations

import math

import numpy as np
import pytest

from support import tiny_model
from support.naive_sampler import NaiveSampler
from support.scripted_sampler import ScriptedSampler
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.sampler import Sampler
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.base import Verdict
from thinkprm_jax.verifier.findings import ChainVerdict, Reading, Unlocated
from thinkprm_jax.verifier.judge import LLMJudge, Unreadable, combine_outputs

ITEM = ("1 + 1?", ["1 + 1 = 2.", "So 3."])
WRITTEN, ASKED = 0.9, 0.3  # probability of what the script writes; of yes where it is asked


class JudgeSampler(ScriptedSampler):
    """The same, with yes and no in place of the protocol's words."""

    def __init__(self, tokenizer: Tokenizer, replies: list[str], max_length: int = 4096) -> None:
        super().__init__(tokenizer, replies, max_length=max_length)
        self._pairs = [
            tuple(map(tokenizer.token_id, pair)) for pair in (("yes", "no"), ("Yes", "No"), ("YES", "NO"))
        ]

    def logprobs(self, context: list[int]) -> np.ndarray:
        row = np.full(self.tokenizer.vocab_size, -40.0)
        if self._planned is None:
            self.contexts.append(self.tokenizer.decode(context))
            for yes, no in self._pairs:
                row[yes], row[no] = math.log(ASKED), math.log1p(-ASKED)
            return row
        planned = self._planned.pop(0) if self._planned else self.tokenizer.eos_id
        for pair in self._pairs:
            if planned in pair:
                row[list(pair)] = math.log1p(-WRITTEN)
        row[planned] = math.log(WRITTEN)
        return row


@pytest.fixture(scope="module")
def tokenizer(r1: Tokenizer) -> Tokenizer:
    return r1


def judge(tokenizer: Tokenizer, *replies: str, item=ITEM, max_length: int = 4096, **settings):
    """(verdict, sampler) of one solution, one reply a chain."""
    sampler = JudgeSampler(tokenizer, list(replies), max_length)
    many = {"n": len(replies), "temperature": 1.0} if len(replies) > 1 else {}
    [(_, verdict)] = LLMJudge(sampler=sampler, **many, **settings).verify([item])
    return verdict, sampler


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("\\boxed{yes}", WRITTEN),
        ("\\boxed{no}", 1 - WRITTEN),
        ("\\boxed{Yes}", WRITTEN),
        ("\\boxed{\\text{No}}", 1 - WRITTEN),
    ],
)
def test_the_score_is_yes_against_no_where_the_word_stands(tokenizer, answer, score):
    verdict, sampler = judge(tokenizer, f"Step 0: fine</think>\n\n{answer}.")
    assert verdict.prefix_score == pytest.approx(score)
    assert [reading.label for reading in verdict.readings] in ([0], [1])
    assert not sampler.contexts  # nothing had to be asked
    assert verdict.step_scores == [verdict.prefix_score]
    assert verdict.step_labels == []


@pytest.mark.parametrize("word", ["YES", " yes"])
def test_a_spelling_that_is_not_watched_is_measured_at_its_place(tokenizer, word):
    verdict, sampler = judge(tokenizer, f"ok \\boxed{{{word}}}")
    assert verdict.prefix_score == pytest.approx(ASKED)
    assert verdict.chains[0].reading.label == 1  # what the judge wrote
    assert sampler.contexts[0].endswith("ok \\boxed{ " if word == " yes" else "ok \\boxed{")


def test_no_does_not_say_where(tokenizer):
    verdict, _ = judge(tokenizer, "\\boxed{no}")
    with pytest.raises(Unlocated):
        _ = verdict.first_error
    assert judge(tokenizer, "\\boxed{yes}")[0].first_error == -1


def test_an_unreadable_output_has_no_score(tokenizer):
    verdict, sampler = judge(tokenizer, "It looks good, yes.")
    assert isinstance(verdict.error, Unreadable)
    with pytest.raises(Unreadable):
        _ = verdict.prefix_score
    assert verdict.chains[0].output == "It looks good, yes."
    assert verdict.output_tokens > 4
    assert verdict.as_dict() == {"error": "no output of the judge holds a readable verdict"}
    assert not sampler.contexts


def test_an_output_cut_by_the_budget_is_unreadable(tokenizer):
    verdict, _ = judge(tokenizer, "thinking and thinking \\boxed{yes}", max_gen_tokens=5)
    assert isinstance(verdict.error, Unreadable)
    assert verdict.chains[0].finish_reason == "length"
    assert verdict.output_tokens == 5


def test_unreadable_outputs_have_no_part_in_the_mean(tokenizer):
    verdict, _ = judge(tokenizer, "\\boxed{yes}", "hm", "\\boxed{no}", "\\boxed{yes}")
    assert sum(reading.readable for reading in verdict.readings) == 3
    assert verdict.prefix_score == pytest.approx((2 * WRITTEN + 1 - WRITTEN) / 3)
    fewer = Verdict.of_chains("", verdict.chains[1:2], combine_outputs)
    assert isinstance(fewer.error, Unreadable)


@pytest.mark.parametrize(
    ("reply", "closed"),
    [("hm", "hm\n</think>"), ("hm</think>\n\nWell.", "hm</think>\n\nWell.")],
)
def test_a_forced_decision_is_measured_and_stays_unreadable(tokenizer, reply, closed):
    verdict, sampler = judge(tokenizer, reply, force_decision=True)
    assert verdict.error is None
    assert verdict.prefix_score == pytest.approx(ASKED)
    chain = verdict.chains[0]
    assert (chain.reading.label, chain.forced, chain.output) == (None, True, reply)
    assert sampler.contexts[0].endswith(f"<think>\n{closed}\n\nIs the solution correct? \\boxed{{")


def test_a_decision_can_be_forced_in_a_full_context(tokenizer):
    verdict, _ = judge(tokenizer, "hm " * 500, force_decision=True, max_length=300)
    assert verdict.chains[0].finish_reason == "context"
    assert verdict.prefix_score == pytest.approx(ASKED)


def test_the_index_prompt_votes_as_processbench_does(tokenizer):
    replies = [f"\\boxed{{{index}}}" for index in (-1, 1, 1)]
    verdict, sampler = judge(tokenizer, *replies, judge_prompt="index")
    assert verdict.first_error == 1
    assert verdict.step_labels == [1, 0]
    assert verdict.step_scores == pytest.approx([1.0, 1 / 3])
    assert verdict.prefix_score == pytest.approx(1 / 3)
    assert "<paragraph_1>\nSo 3.\n</paragraph_1>" in tokenizer.decode(sampler.asked[0].prompt)


def test_the_steps_prompt_gives_a_label_a_step(tokenizer):
    reply = "Step 1: fine \\boxed{correct}\nStep 2: wrong \\boxed{incorrect}"
    verdict, _ = judge(tokenizer, reply, judge_prompt="steps")
    assert verdict.step_labels == [1, 0]
    assert verdict.prefix_score == 0.0
    assert verdict.chains[0].step_scores == (1.0, 0.0)


def test_what_cannot_be_judged_fails_alone(tokenizer):
    sampler = JudgeSampler(tokenizer, ["\\boxed{yes}"], max_length=400)
    items = [("1?", []), ("1?", ["word " * 400]), ITEM]
    verdicts = dict(LLMJudge(sampler=sampler).verify(items))
    assert str(verdicts[0].error) == "there are no steps to judge"
    assert "no room for an answer" in str(verdicts[1].error)
    assert verdicts[2].prefix_score == pytest.approx(WRITTEN)


def test_votes_on_the_first_error_are_counted_over_located_chains():
    def chain(first):
        labels = () if first is None else tuple(int(first < 0 or step < first) for step in range(3))
        scores, forced = tuple(map(float, labels)), (False,) * len(labels)
        return ChainVerdict("", 0.5, labels, scores, forced, "stop", Reading.of_first_error(first, 3))

    verdict = Verdict.of_chains("", [chain(first) for first in (None, 2, 0, 0)], combine_outputs)
    assert verdict.first_error == 0
    assert verdict.step_labels == [0, 0, 0]


def test_the_failure_of_a_request_is_the_error():
    verdict = Verdict(error=RequestError("too long"))
    with pytest.raises(RequestError, match="too long"):
        _ = verdict.step_scores


def test_equal_to_a_sampler_without_a_cache(mini_tokenizer):
    model = tiny_model.make_decoder(mini_tokenizer)
    settings = {"force_decision": True, "max_gen_tokens": 12}
    fast = LLMJudge(sampler=Sampler(model, mini_tokenizer, slots=2, max_length=1024), **settings)
    slow = LLMJudge(sampler=NaiveSampler(model, mini_tokenizer, max_length=1024), **settings)
    (ours,), (theirs,) = (judge.predict_correctness_batch([ITEM[0]], [ITEM[1]]) for judge in (fast, slow))
    assert ours["outputs"] == theirs["outputs"]
    assert ours["output_tokens"] == [12]
    assert ours["prefix_score"] == pytest.approx(theirs["prefix_score"], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge_prompt": "both"}, "judge_prompt is 'both', it must be one of single, index, steps"),
        ({"n": 0}, "n is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"max_gen_tokens": 0}, "max_gen_tokens is 0"),
        ({"model_name_or_path": "mini"}, "give one of"),
    ],
)
def test_settings_that_cannot_work(tokenizer, settings, message):
    with pytest.raises(UserError, match=message):
        LLMJudge(sampler=JudgeSampler(tokenizer, []), **settings)
