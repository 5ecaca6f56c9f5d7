"""The sampler with our kernel: the same tokens as with XLA's products, and results that no neighbour changes."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from support.naive_sampler import NaiveSampler
from thinkprm_jax.sampler import Request, Sampler, Think

PROMPTS = ["7", "Step 1: 12 + 7 = 19", "Compute 12 + 7.\nThe answer is 19.", "Mia has 3 apples. " * 9]

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")


def think():
    thought = yield Think(40, watch=(5, 9))
    return thought


def values(sampler, tokenizer, prompts):
    requests = [Request([tokenizer.bos_id, *tokenizer.encode(prompt)], think) for prompt in prompts]
    return [result.value for _, result in sorted(sampler.run(requests))]


def test_greedy_tokens_and_log_probabilities_equal_the_naive_loop(tiny_model, mini_tokenizer):
    sampler = Sampler(tiny_model, mini_tokenizer, slots=3, max_length=256, chunk=8, products="native")
    assert sampler.products == "native"
    naive = NaiveSampler(tiny_model, mini_tokenizer, max_length=256)
    for ours, theirs in zip(*(values(one, mini_tokenizer, PROMPTS) for one in (sampler, naive)), strict=True):
        assert ours.ids == theirs.ids
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)
        np.testing.assert_allclose(ours.watched, theirs.watched, atol=1e-4)


def test_a_sampler_goes_on_with_other_weights(tiny_model, mini_tokenizer):
    sampler = Sampler(tiny_model, mini_tokenizer, slots=2, max_length=128, products="native")
    [before] = values(sampler, mini_tokenizer, PROMPTS[:1])
    sampler.use(tiny_model)
    [after] = values(sampler, mini_tokenizer, PROMPTS[:1])
    assert before.ids == after.ids


def test_a_tiny_model_is_left_to_xla(tiny_model, mini_tokenizer):
    assert Sampler(tiny_model, mini_tokenizer, slots=2, max_length=128).products == "xla"
