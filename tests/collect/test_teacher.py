"""A teacher's chains depend on their own prompt, number and seed; and what a teacher is asked."""

from __future__ import annotations

import dataclasses

import pytest

from support import tiny_model
from thinkprm_jax.collect.recipe import Teacher
from thinkprm_jax.collect.teacher import encode_question, generate_chains
from thinkprm_jax.data.prm800k import Prefix
from thinkprm_jax.protocol.prompts import (
    COLLECTION_PROMPT,
    STRICT_COLLECTION_PROMPT,
    encode_collection_prompt,
    encode_prompt,
    verification_message,
)
from thinkprm_jax.sampler import Sampler

TEACHER = Teacher("mini", prompt="verification", chains=2, temperature=1.0, max_tokens=12)
PREFIXES = [Prefix(f"Mia has {n} shells. How many?", [f"{n} + 0 = {n}."], [1], "here") for n in range(1, 6)]
ITEMS = [(2 * number + chain, prefix, chain) for number, prefix in enumerate(PREFIXES) for chain in range(2)]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_model.load_tokenizer()


@pytest.fixture(scope="module")
def decoder(tokenizer):
    return tiny_model.make_decoder(tokenizer)


def chains(decoder, tokenizer, items=ITEMS, teacher=TEACHER, slots=4, seed=0, max_length=256):
    sampler = Sampler(decoder, tokenizer, slots=slots, max_length=max_length, chunk=8)
    return dict(generate_chains(sampler, teacher, items, seed))


@pytest.mark.slow
def test_neighbours_order_and_slots_change_nothing(decoder, tokenizer):
    whole = chains(decoder, tokenizer)
    assert len({generation.text for generation in whole.values()}) > 5
    assert chains(decoder, tokenizer, ITEMS[::-1], slots=3) == whole
    assert chains(decoder, tokenizer, ITEMS[5:8]) == {key: whole[key] for key in (5, 6, 7)}


def test_chain_and_seed_change_a_chain(decoder, tokenizer):
    whole = chains(decoder, tokenizer)
    assert whole[0].text != whole[1].text
    assert whole[0].text != chains(decoder, tokenizer, ITEMS[:1], seed=1)[0].text


def test_tokens_and_budget(decoder, tokenizer):
    found = chains(decoder, tokenizer, teacher=dataclasses.replace(TEACHER, max_tokens=3))
    assert {generation.finish for generation in found.values()} <= {"length", "stop"}
    assert all(1 <= generation.tokens <= 3 for generation in found.values())


def test_a_prompt_that_does_not_fit_fails_alone(decoder, tokenizer):
    long = (90, Prefix("Mia has 1 shell. " * 100, ["1 + 0 = 1."], [1], "here"), 0)
    odd = (91, Prefix("a \ud800", ["1 + 0 = 1."], [1], "here"), 0)
    found = chains(decoder, tokenizer, [ITEMS[0], long, odd, ITEMS[1]])
    assert {key: found[key].finish for key in (90, 91)} == {90: "error", 91: "error"}
    assert "max_length" in (found[90].error or "")
    assert "surrogate" in (found[91].error or "")
    assert {key: found[key] for key in (0, 1)} == chains(decoder, tokenizer, ITEMS[:2])


def test_failures_alone_are_all_reported(decoder, tokenizer):
    odd = [(key, Prefix("a \ud800", ["s"], [1], "here"), 0) for key in range(3)]
    assert sorted(chains(decoder, tokenizer, odd)) == [0, 1, 2]


def test_questions(tokenizer):
    prefix = PREFIXES[0]
    for name, expected in (
        ("verification", encode_prompt(tokenizer, prefix.problem, prefix.steps)),
        ("collection", encode_collection_prompt(tokenizer, prefix.problem, prefix.steps, COLLECTION_PROMPT)),
        ("strict", encode_collection_prompt(tokenizer, prefix.problem, prefix.steps, STRICT_COLLECTION_PROMPT)),
    ):
        teacher = dataclasses.replace(TEACHER, prompt=name)
        assert encode_question(tokenizer, teacher, prefix) == expected


def test_a_collection_prompt_stands_in_the_teachers_chat_template(r1):
    tokenizer = r1
    prefix = Prefix("p </think>", ["one", "Step 5: two"], [1, 1], "here")
    text = tokenizer.decode(encode_question(tokenizer, dataclasses.replace(TEACHER, prompt="strict"), prefix))
    message = verification_message(prefix.problem, prefix.steps, STRICT_COLLECTION_PROMPT, labelled=False)
    assert "[Solution]\n\none\ntwo\n\n" in message
    assert text == f"<｜begin▁of▁sentence｜><｜User｜>{message}<｜Assistant｜><think>\n"
    teacher = dataclasses.replace(TEACHER, prompt="collection", system="Be kind.")
    ids = encode_question(tokenizer, teacher, prefix)
    assert "Be kind.<｜User｜>You are given" in tokenizer.decode(ids)
    assert ids.count(tokenizer.control_ids["</think>"]) == 0  # the problem's is plain text
