"""Choose between words of several tokens: the product of the probabilities over their tokens."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from support import oracle
from support.naive_sampler import NaiveSampler
from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.errors import RequestError
from thinkprm_jax.sampler import Choose, Force, Mark, Request, Sampler, Think

MAX_LENGTH = 96


@pytest.fixture(scope="module")
def sampler(tiny_model, mini_tokenizer) -> Sampler:
    return Sampler(tiny_model, mini_tokenizer, slots=3, max_length=MAX_LENGTH, chunk=8)


@pytest.fixture(scope="module")
def naive(tiny_model, mini_tokenizer) -> NaiveSampler:
    return NaiveSampler(tiny_model, mini_tokenizer, max_length=MAX_LENGTH)


def asked(sampler: Any, prompt: Sequence[int], *phases: Any) -> list[Any]:
    """The outcome of each phase."""

    def script():
        outcomes = []
        for phase in phases:
            outcomes.append((yield phase))
        return outcomes

    [(_, result)] = sampler.run([Request(list(prompt), script)])
    if result.error is not None:
        raise result.error
    return result.value


def random_options(dice: random.Random, vocab: int) -> tuple[int | tuple[int, ...], ...]:
    """Up to four, of one to four ids; often with a common beginning, sometimes one the beginning of another."""
    few = [dice.randrange(vocab) for _ in range(3)]
    ids = [tuple(dice.choice(few) for _ in range(dice.randint(1, 4))) for _ in range(dice.randint(1, 4))]
    return tuple(option[0] if len(option) == 1 and dice.random() < 0.5 else option for option in ids)


@pytest.mark.parametrize("seed", range(8))
def test_any_options_are_what_teacher_forcing_gives(sampler, naive, mini_tokenizer, seed):
    dice, vocab = random.Random(seed), mini_tokenizer.vocab_size
    prompt = [dice.randrange(vocab) for _ in range(dice.randint(1, 40))]
    phases = [
        Choose(random_options(dice, vocab)),
        Think(5),
        Choose(random_options(dice, vocab)),
        Force([3, 4]),
        Choose(random_options(dice, vocab)),
        Mark(),
        Think(5),
    ]
    ours, expected = (asked(each, prompt, *phases) for each in (sampler, naive))
    for phase, one, other in zip(phases, ours, expected, strict=True):
        match phase:
            case Choose():
                np.testing.assert_allclose(one, other, atol=3e-4)
            case Think():
                assert one.ids == other.ids  # the context is what it was before the question
            case _:
                assert one == other


def test_requests_side_by_side_do_not_change_the_answer(sampler, naive):
    options = ((5, 6, 7), (5, 6, 8), (9,), (10, 11))
    prompts = [list(range(10, 10 + length)) for length in (3, 9, 17, 30, 31)]

    def script():
        yield Think(3)
        return (yield Choose(options))

    found = dict(sampler.run([Request(prompt, script) for prompt in prompts]))
    expected = dict(naive.run([Request(prompt, script) for prompt in prompts]))
    for place in range(len(prompts)):
        np.testing.assert_allclose(found[place].value, expected[place].value, atol=3e-4)
        assert found[place].ids == expected[place].ids


def test_words_against_transformers(tmp_path):
    reference = oracle.random_model("qwen2", 4, 2, tied=False)
    model, tokenizer = load_model(oracle.save(reference, tmp_path), dtype="float32")
    prompt = [int(id) % 256 for id in oracle.prompt(21)]
    words = [tuple(tokenizer.encode_inside(word)) for word in ("correct", "incorrect", " Yes")]
    assert [len(ids) for ids in words] == [7, 9, 4]
    [found] = asked(Sampler(model, tokenizer, slots=2, max_length=64), prompt, Choose(tuple(words)))
    for ids, value in zip(words, found, strict=True):
        logits = oracle.logits(reference, np.asarray([[*prompt, *ids]], np.int64))[0].astype(np.float64)
        rows = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        places = range(len(prompt) - 1, len(prompt) + len(ids) - 1)
        forced = sum(rows[place, id] for place, id in zip(places, ids, strict=True))
        assert value == pytest.approx(forced, abs=2e-4)


def test_single_tokens_cost_what_they_did(tiny_model, mini_tokenizer):
    def steps(options: tuple) -> tuple[list[float], int]:
        sampler = Sampler(tiny_model, mini_tokenizer, slots=1, max_length=MAX_LENGTH)
        [found] = asked(sampler, [5, 6, 7], Choose(options))
        return found.tolist(), sampler.stats.decode_steps

    assert steps((8, 9)) == steps(((8,), (9,)))
    assert steps((8, 9))[1] == 1
    assert steps(((8, 1), (9, 1)))[1] == 3  # both first ids together, then behind each of them
    assert steps(((8, 1, 2), (8, 1, 3)))[1] == 3  # what they have in common once


def test_an_option_must_fit(sampler):
    prompt = list(range(MAX_LENGTH - 2))
    assert asked(sampler, prompt, Choose(((1, 2, 3), (4,))))[0].shape == (2,)
    with pytest.raises(RequestError, match="an option of 4 tokens does not fit behind 94: max_length is 96"):
        asked(sampler, prompt, Choose(((1, 2, 3, 4), (4,))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (((1, 2), ()), "2 options: at most 4, and none without ids"),
        (((1, 10**6), (2,)), "outside the model's vocabulary"),
        ((1, 2, 3, 4, (5, 6)), "has 5 options: at most 4"),
    ],
)
def test_options_that_cannot_be_asked_for(sampler, options, message):
    with pytest.raises(RequestError, match=message):
        asked(sampler, [1, 2], Choose(options))
