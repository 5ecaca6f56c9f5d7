"""Figures from shapes equal what is allocated."""

from __future__ import annotations

import jax
import pytest
from flax import nnx

from support import tiny_model
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.memory import cache_bytes, weight_bytes
from thinkprm_jax.sampler import Sampler


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights(mini_tokenizer, dtype):
    config = tiny_model.make_config(mini_tokenizer)
    model = Decoder(config, rngs=nnx.Rngs(0), param_dtype=dtype, dtype=dtype)
    allocated = sum(leaf.nbytes for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
    assert weight_bytes(config, dtype) == allocated


@pytest.mark.parametrize(("length", "drafts"), [(256, 0), (250, 0), (256, 5)])
def test_cache(mini_tokenizer, length, drafts):
    model = tiny_model.make_decoder(mini_tokenizer)
    sampler = Sampler(model, mini_tokenizer, slots=3, max_length=length, drafts=drafts)
    assert cache_bytes(model.config, 3, length, "float32", drafts=drafts) == sampler.planned_bytes
