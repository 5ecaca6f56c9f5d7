"""Chains that are text already, as arrays."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from support import tiny_model
from thinkprm_jax import ThinkPRM, score_tokens, token_chains, verifier_params
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.functional.script import BLANK, make_script
from thinkprm_jax.sampler import Sampler

PROBLEM, STEPS = "2 + 3 + 4?", ["2 + 3 = 5.", "5 + 4 = 9."]
CHAIN = "Step 1: fine. The step is \\boxed{correct}\n\nStep 2: no. The step is \\boxed{incorrect}\n</think>\nmore"


@pytest.fixture(scope="module")
def prm() -> ThinkPRM:
    tokenizer = tiny_model.load_tokenizer()
    sampler = Sampler(tiny_model.make_decoder(tokenizer), tokenizer, slots=2, max_length=512)
    return ThinkPRM(sampler=sampler, temperature=0.0)


def test_spans_are_where_the_words_stand(prm):
    ids, spans = token_chains(prm, [PROBLEM], [STEPS], [CHAIN], max_steps=3)
    words = [prm.tokenizer.decode([ids[0, place]]) for place in spans.steps[0] if place >= 0]
    assert words == ["correct", "incorrect"]
    assert spans.steps[0, 2] == -1
    assert prm.tokenizer.decode([ids[0, spans.answer[0]]]) == " Yes"
    assert prm.tokenizer.decode(ids[0, : spans.answer[0]]).endswith("\n</think>\nIs the solution correct?")


@pytest.mark.parametrize("chain", ["Nothing is said.", "Step 1: The step is not \\boxed{correct}", ""])
def test_what_a_chain_does_not_say_has_no_span(prm, chain):
    ids, spans = token_chains(prm, [PROBLEM], [STEPS], [chain], max_steps=2)
    assert (spans.steps == -1).all()
    scores = jax.jit(score_tokens)(verifier_params(prm, max_steps=2), ids, spans)
    assert np.isnan(scores.step_scores).all()
    assert 0 <= scores.prefix_score[0] <= 1


def test_a_chain_that_is_too_long_is_refused(prm):
    with pytest.raises(RequestError, match="a chain has"):
        token_chains(prm, [PROBLEM], [STEPS], [CHAIN], length=32)


def test_blanks_that_end_a_token_are_cut_as_on_the_host(r1):
    """R1 writes `}` and a newline as one token; the phrase of the next round stands behind `}` alone."""
    prm = ThinkPRM("mini", n_thinking_rounds=2, multiround_verifier=True)
    script = make_script(r1, prm.settings, (r1.eos_id,), 151_700, 2)
    [brace] = r1.encode_plain("}\n", inner=True)
    group = script.end_group[brace]
    assert group > BLANK
    text = script.opening[0, group]
    forced = script.forced[text, : script.forced_lengths[text]].tolist()
    assert forced == r1.encode_plain("}\n\nLet me double check", inner=True)
    assert script.blank[r1.encode_plain("\n\n", inner=True)[0]]


def test_words_of_several_tokens_are_refused(r1):
    prm = ThinkPRM("mini", labels=("Absolutely right", "No"))
    with pytest.raises(UserError, match=r"is \d tokens"):
        make_script(r1, prm.settings, (r1.eos_id,), 151_700, 2)
