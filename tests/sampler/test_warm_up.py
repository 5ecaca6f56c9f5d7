"""After a warm-up nothing that comes has to be compiled."""

from __future__ import annotations

import numpy as np
import pytest

from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.sampler import Request, Sampler, Think
from thinkprm_jax.sampler.cache_kind import RequestedCache
from thinkprm_jax.sampler.warm_up import warm_up
from thinkprm_jax.tokenizer.tokenizer import Tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("cache", ["rows", "pages"])
def test_nothing_is_left_to_compile(tiny_model: Decoder, mini_tokenizer: Tokenizer, cache: RequestedCache) -> None:
    sampler = Sampler(tiny_model, mini_tokenizer, slots=4, max_length=170, chunk=8, cache=cache)
    warm_up(sampler, 170)
    before, rng = sampler.compilations, np.random.default_rng(1)

    def script():
        yield Think(int(rng.integers(1, 50)))

    for _ in range(40):
        many, length = int(rng.integers(1, 6)), int(rng.integers(1, 120))
        shared = rng.integers(500, size=int(rng.choice([0, 0, 80]))).tolist()
        prompts = [[*shared, *rng.integers(500, size=max(length - len(shared), 1)).tolist()] for _ in range(many)]
        assert all(result.error is None for _, result in sampler.run([Request(ids, script) for ids in prompts]))
    assert sampler.compilations == before
    assert warm_up(sampler, 170) == 0
