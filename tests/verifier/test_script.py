"""What the verification script forces, and what it reads: on chains that the test writes."""

from __future__ import annotations

import math

import pytest

from support.scripted_sampler import CONFIDENCE, ScriptedSampler
from thinkprm_jax.errors import UserError
from thinkprm_jax.protocol.prompts import encode_prompt, encode_training_text
from thinkprm_jax.sampler.request import Request
from thinkprm_jax.tokenizer.tokenizer import Tokenizer
from thinkprm_jax.verifier.findings import ChainVerdict
from thinkprm_jax.verifier.script import ScriptSettings, VerificationScript

LEAD = "Let's verify step by step:\n\n"
GOOD = "Step {}: Fine. The step is \\boxed{{correct}}"
BAD = "Step {}: Wrong. The step is \\boxed{{incorrect}}"
END = "</think>\nIs the solution correct?"


@pytest.fixture(scope="module")
def tokenizer(r1: Tokenizer) -> Tokenizer:
    return r1


def chain(*verdicts: str) -> str:
    return LEAD + "\n\n".join(text.format(number) for number, text in enumerate(verdicts, start=1))


def verify(sampler: ScriptedSampler, steps: int = 2, **settings) -> ChainVerdict:
    script = VerificationScript(sampler.tokenizer, ScriptSettings(**settings), max_length=sampler.max_length)
    prompt = encode_prompt(sampler.tokenizer, "1 + 1?", ["a step"] * steps)
    [(_, result)] = sampler.run([Request(prompt, lambda: script(steps))])
    assert result.error is None
    return result.value


def after_prompt(text: str) -> str:
    return text.split("<｜Assistant｜><think>\n", 1)[1]


@pytest.mark.parametrize(
    ("written", "kept", "newline"),
    [
        (chain(GOOD, GOOD) + "\n</think>\nIs the solution correct? Yes", chain(GOOD, GOOD) + "\n", ""),
        (chain(GOOD, GOOD) + "</think> and more", chain(GOOD, GOOD), ""),  # closed by itself: left as it is
        (chain(GOOD, GOOD), chain(GOOD, GOOD), "\n"),  # end of text without </think>
        (chain(GOOD, GOOD) + "\nIs the solution correct? Yes", chain(GOOD, GOOD) + "\n", ""),
        (chain(GOOD, GOOD) + " Is the solution correct? No", chain(GOOD, GOOD) + " ", "\n"),
        ("", "", ""),
    ],
)
def test_the_context_always_ends_with_the_question(tokenizer, written, kept, newline):
    sampler = ScriptedSampler(tokenizer, [written])
    verdict = verify(sampler)
    assert after_prompt(sampler.contexts[0]) == kept + newline + END
    assert verdict.output == kept + newline + END + " Yes"
    assert verdict.prefix_score == pytest.approx(0.75)
    assert verdict.finish_reason == "stop"


def test_budget_cuts_the_chain_and_the_decision_is_still_forced(tokenizer):
    sampler = ScriptedSampler(tokenizer, [chain(GOOD, GOOD)])
    verdict = verify(sampler, max_gen_tokens=9)
    assert verdict.finish_reason == "length"
    assert verdict.output.endswith("\n" + END + " Yes")
    assert verdict.step_forced == (True, True)


def test_full_context_cuts_the_chain(tokenizer):
    sampler = ScriptedSampler(tokenizer, [chain(GOOD, GOOD) * 50], max_length=160)
    verdict = verify(sampler)
    assert verdict.finish_reason == "context"
    assert len(tokenizer.encode(sampler.contexts[0])) <= 160


def test_rounds_take_the_end_back_and_force_the_phrases_in_order(tokenizer):
    first, second, third = chain(GOOD, GOOD) + "\n</think>\nIs the", ".\n\nAll fine.  \n\n", ".\n</think>"
    sampler = ScriptedSampler(tokenizer, [first, second, third])
    verdict = verify(sampler, rounds=3)
    text = f"{chain(GOOD, GOOD)}\n\nLet me double check.\n\nAll fine.\n\nLet's verify again.\n{END}"
    assert after_prompt(sampler.contexts[0]) == text
    assert verdict.output == text + " Yes"
    # The tokens are those of the text as a whole, as in training: no seam where the newlines were taken back.
    prompt = sampler.asked[0].prompt
    assert tokenizer.encode(sampler.contexts[0]) == [*prompt, *tokenizer.encode(text)]


def test_the_last_round_corrects_an_earlier_verdict(tokenizer):
    sampler = ScriptedSampler(tokenizer, [chain(GOOD, GOOD), "\n\n" + BAD.format(2) + "\n</think>"])
    assert verify(sampler, rounds=2).step_labels == (1, 0)


def test_no_round_begins_in_a_full_context(tokenizer):
    sampler = ScriptedSampler(tokenizer, [chain(GOOD, GOOD) * 50, "never"], max_length=200)
    assert verify(sampler, rounds=2).finish_reason == "context"


def test_more_rounds_than_phrases(tokenizer):
    with pytest.raises(UserError, match="5 thinking rounds need 4 trigger phrases"):
        ScriptSettings(rounds=5)
    sampler = ScriptedSampler(tokenizer, [LEAD] * 5)
    verify(sampler, rounds=5, triggers=("A", "B", "C", "D"))
    assert "\n\nD" in sampler.contexts[0]


def test_decision_temperature_divides_the_logprobs(tokenizer):
    sampler = ScriptedSampler(tokenizer, [chain(GOOD, GOOD) + "\n</think>"])
    score = verify(sampler, decision_temperature=2.0).prefix_score
    assert score == pytest.approx(1 / (1 + math.exp(-math.log(3) / 2)))


def test_numbers_that_are_none_fail_the_request(tokenizer):
    sampler = ScriptedSampler(tokenizer, [chain(GOOD, GOOD) + "\n</think>"], decide=lambda text: math.nan)
    script = VerificationScript(tokenizer, ScriptSettings(), max_length=sampler.max_length)
    prompt = encode_prompt(tokenizer, "1 + 1?", ["a step"] * 2)
    [(_, result)] = sampler.run([Request(prompt, lambda: script(2))])
    assert result.value is None
    assert "not finite" in str(result.error)


def test_step_scores_are_read_where_the_verdicts_stand(tokenizer):
    sampler = ScriptedSampler(tokenizer, [chain(GOOD, BAD) + "\n</think>"])
    verdict = verify(sampler, steps=4)
    assert verdict.step_labels == (1, 0, 0, 0)
    assert verdict.step_scores == pytest.approx((CONFIDENCE, 1 - CONFIDENCE, 0.0, 0.0))
    assert verdict.step_forced == (False,) * 4
    assert len(sampler.contexts) == 1  # the decision; no verdict had to be asked for


def test_the_score_of_a_negated_word_is_that_of_its_opposite(tokenizer):
    sampler = ScriptedSampler(tokenizer, ["Step 1: it is not \\boxed{correct}\n</think>"])
    verdict = verify(sampler, steps=1)
    assert verdict.step_labels == (0,)
    assert verdict.step_scores == pytest.approx((1 - CONFIDENCE,))


@pytest.mark.parametrize(
    "written",
    [
        "Step 1: 🙂é漢字. The step is \\boxed{correct}\n\nStep 2: ok \\boxed{incorrect}\n</think>",
        "Step 1: The step is \\boxed{\\text{correct}}\n\nStep 2: \\boxed{\\text{incorrect}}\n</think>",
    ],
)
def test_positions_survive_multi_byte_text_and_text_macros(tokenizer, written):
    verdict = verify(ScriptedSampler(tokenizer, [written]))
    assert verdict.step_scores == pytest.approx((CONFIDENCE, 1 - CONFIDENCE))


def test_a_verdict_inside_a_token_is_measured_at_its_own_place(tokenizer):
    written = "Step 1: \\boxed{ correct}\n\nStep 2: \\boxed{ incorrect}\n</think>"
    sampler = ScriptedSampler(tokenizer, [written], decide=lambda text: 0.6)
    verdict = verify(sampler)
    assert verdict.step_labels == (1, 0)  # what the chain wrote
    assert verdict.step_scores == pytest.approx((0.6, 0.6))
    assert [after_prompt(text) for text in sampler.contexts[1:]] == [
        "Step 1: \\boxed{ correct}\n\nStep 2: \\boxed{ ",
        "Step 1: \\boxed{ ",
    ]


def test_silent_steps_are_asked_for_below_the_chain(tokenizer):
    written = chain(GOOD) + "\n\nSo it goes.\n</think>"
    sampler = ScriptedSampler(
        tokenizer, [written], decide=lambda text: 0.3 if "Step 3" in after_prompt(text) else 0.9
    )
    verdict = verify(sampler, steps=4)
    assert verdict.step_labels == (1, 1, 0, 0)
    assert verdict.step_scores == pytest.approx((CONFIDENCE, 0.9, 0.3, 0.0))
    assert verdict.step_forced == (False, True, True, False)
    body = chain(GOOD) + "\n\nSo it goes."
    assert [after_prompt(text) for text in sampler.contexts[1:]] == [
        body + "\n\nStep 2: The step is \\boxed{",
        body + "\n\nStep 2: The step is \\boxed{correct}\n\nStep 3: The step is \\boxed{",
    ]


def test_an_empty_chain_is_asked_under_the_lead_in(tokenizer):
    sampler = ScriptedSampler(tokenizer, ["</think>"])
    verdict = verify(sampler, steps=1)
    assert after_prompt(sampler.contexts[1]) == LEAD + "Step 1: The step is \\boxed{"
    assert verdict.step_forced == (True,)


def test_a_silent_step_before_the_error_of_the_chain(tokenizer):
    written = "Step 3: Wrong. The step is \\boxed{incorrect}\n</think>"
    verdict = verify(ScriptedSampler(tokenizer, [written], decide=lambda text: 0.9), steps=4)
    assert verdict.step_labels == (1, 1, 0, 0)
    assert verdict.step_forced == (True, True, False, False)
    verdict = verify(ScriptedSampler(tokenizer, [written], decide=lambda text: 0.1), steps=4)
    assert verdict.step_labels == (0, 0, 0, 0)
    assert verdict.step_forced == (True, False, False, False)


def test_many_silent_steps_fit_a_small_context(tokenizer):
    sampler = ScriptedSampler(tokenizer, ["hm"], decide=lambda text: 0.9, max_length=700)
    verdict = verify(sampler, steps=60)
    assert verdict.step_labels == (1,) * 60
    assert all(len(tokenizer.encode(text)) <= 700 for text in sampler.contexts)


@pytest.mark.parametrize("cut", range(0, 90, 7))
def test_a_chain_cut_anywhere_gives_one_label_a_step(tokenizer, cut):
    written = chain(GOOD, "Step {}: 漢字🙂 The step is \\boxed{{\\text{{incorrect}}}}", GOOD)
    sampler = ScriptedSampler(tokenizer, [written])
    verdict = verify(sampler, steps=3, max_gen_tokens=cut + 1)
    assert len(verdict.step_labels) == len(verdict.step_scores) == len(verdict.step_forced) == 3
    assert all(0 <= score <= 1 for score in verdict.step_scores)


def test_the_tokens_are_those_of_the_training_text(tokenizer):
    """A chain in the trained layout: prompt, chain and closing, id for id, up to the answer."""
    written = chain(GOOD, BAD) + "\n</think>\nIs the solution correct? No"
    sampler = ScriptedSampler(tokenizer, [written])
    verify(sampler, steps=3)
    trained = encode_training_text(tokenizer, "1 + 1?", ["a step"] * 3, chain(GOOD, BAD), correct=False)
    assert sampler.asked_ids[0] == trained.ids[:-2]


@pytest.mark.parametrize("heading", ["Step 3: And", "**Step 3:** And", "### Step 3: And", "- Step 3: And"])
def test_a_step_that_does_not_exist_ends_the_chain(tokenizer, heading):
    written = chain(GOOD, GOOD) + f"\n\n{heading} the next one. The step is \\boxed{{incorrect}}\n</think>"
    sampler = ScriptedSampler(tokenizer, [written])
    verdict = verify(sampler, stop_at_unknown_step=True)
    # As if the chain had ended by itself in the trained layout, id for id.
    trained = encode_training_text(tokenizer, "1 + 1?", ["a step"] * 2, chain(GOOD, GOOD), correct=True)
    assert sampler.asked_ids[0] == trained.ids[:-2]
    assert verdict.output == chain(GOOD, GOOD) + "\n" + END + " Yes"
    assert verdict.step_labels == (1, 1)
    assert verdict.step_scores == pytest.approx((CONFIDENCE, CONFIDENCE))
    assert verdict.finish_reason == "stop"


def test_without_the_setting_the_chain_goes_on(tokenizer):
    written = chain(GOOD, GOOD, BAD) + "\n</think>"
    assert verify(ScriptedSampler(tokenizer, [written])).output == written + "\nIs the solution correct? Yes"


def test_steps_that_exist_and_longer_numbers_end_nothing(tokenizer):
    written = chain(GOOD, GOOD) + "\n\nSteps 3: none. Step 33: none.\n</think>"
    sampler = ScriptedSampler(tokenizer, [written])
    assert verify(sampler, stop_at_unknown_step=True).output.startswith(written)


def test_a_step_that_does_not_exist_ends_one_round_of_several(tokenizer):
    replies = [chain(GOOD, GOOD) + "\n\n**Step 3:** more", ".\n\nFine.\n\nStep 3: more", ".\n</think>"]
    sampler = ScriptedSampler(tokenizer, replies)
    verdict = verify(sampler, rounds=3, stop_at_unknown_step=True)
    text = f"{chain(GOOD, GOOD)}\n\nLet me double check.\n\nFine.\n\nLet's verify again.\n{END}"
    assert after_prompt(sampler.contexts[0]) == text
    assert verdict.output == text + " Yes"
    prompt = sampler.asked[0].prompt
    assert tokenizer.encode(sampler.contexts[0]) == [*prompt, *tokenizer.encode(text)]


def test_a_chain_that_begins_with_a_step_that_does_not_exist_is_asked(tokenizer):
    sampler = ScriptedSampler(tokenizer, [LEAD + "Step 3: more"], decide=lambda text: 0.9)
    verdict = verify(sampler, stop_at_unknown_step=True)
    assert verdict.step_forced == (True, True)
    assert verdict.output == LEAD.rstrip() + "\n" + END + " Yes"


# What the original does otherwise


def asked_for(tokenizer, **settings) -> tuple[ChainVerdict, ScriptedSampler]:
    sampler = ScriptedSampler(tokenizer, [chain(GOOD, GOOD)] * settings.get("rounds", 1))
    return verify(sampler, **settings), sampler


def test_the_question_and_its_answers_can_be_others(tokenizer):
    class Asked(ScriptedSampler):
        def logprobs(self, context):
            row = super().logprobs(context)
            if self._planned is None:
                for word, share in ((" yes", 0.5), (" no", 0.25), (" maybe", 0.125)):
                    row[tokenizer.encode_plain(word)[0]] = math.log(share)
            return row

    words = {"decision": "\nIs the solution correct? ", "labels": ("yes", "no", "maybe")}
    for place, share in enumerate((4 / 7, 2 / 7, 1 / 7)):
        sampler = Asked(tokenizer, [chain(GOOD, GOOD)])
        verdict = verify(sampler, **words, score_label=place)
        assert verdict.prefix_score == pytest.approx(share)
        assert verdict.output.endswith("</think>\nIs the solution correct? yes")
        assert sampler.contexts[0].endswith("\nIs the solution correct?")  # the blank belongs to the word


def test_the_thinking_may_stay_open(tokenizer):
    verdict, sampler = asked_for(tokenizer, close_thinking=False)
    assert after_prompt(sampler.contexts[0]) == chain(GOOD, GOOD) + "\nIs the solution correct?"
    assert "</think>" not in verdict.output


@pytest.mark.parametrize("between", ["", "\n", "\n\n"])
def test_what_stands_before_a_trigger_phrase(tokenizer, between):
    verdict, _ = asked_for(tokenizer, rounds=2, before_trigger=between)
    assert f"\\boxed{{correct}}{between}Let me double check" in verdict.output


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels": ("yes",)}, "labels must be 2 to 4 different answers"),
        ({"labels": ("a", "b", "a")}, "labels must be 2 to 4 different answers"),
        ({"score_label": 2}, "score_label is 2, it must be from 0 to 1"),
    ],
)
def test_answers_that_cannot_be_chosen_from(settings, message):
    with pytest.raises(UserError, match=message):
        ScriptSettings(**settings)
