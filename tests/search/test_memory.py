"""The plan of a device's memory."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import pytest
from flax import nnx

from support import tiny_model
from thinkprm_jax.distributed.mesh import make_mesh
from thinkprm_jax.errors import UserError
from thinkprm_jax.model.cache import KVCache
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.sampler.memory import PREFILL_TOKENS, PlannedModel, device_bytes
from thinkprm_jax.search.memory import MemoryNeed, plan

GB = 10**9


@pytest.fixture(scope="module")
def config(mini_tokenizer) -> ModelConfig:
    return tiny_model.make_config(mini_tokenizer)


def big(config: ModelConfig, name: str = "generator", max_length: int = 2048) -> PlannedModel:
    """As large as a 1.5B model."""
    wide = dataclasses.replace(config, hidden_size=1536, intermediate_size=8960, num_layers=28, num_heads=12,
                               num_kv_heads=2, head_dim=128, vocab_size=151_936, tie_embeddings=False)  # fmt: skip
    return PlannedModel(name, wide, "bfloat16", max_length)


NEED = MemoryNeed(slots=None, prm_slots=None, solutions=1024, chains=1024)


def test_weights_are_those_of_the_model(config: ModelConfig) -> None:
    state = nnx.state(Decoder(config, rngs=nnx.Rngs(0)), nnx.Param)
    held = sum(leaf.nbytes for _, leaf in nnx.to_flat_state(state))
    assert PlannedModel("m", config, "float32", 100).weights == held


def test_a_cache_is_at_least_what_the_sampler_makes(config: ModelConfig) -> None:
    cache = KVCache.zeros(config, 4, 256, 32, jnp.float32)
    held = sum(array.nbytes for array in (*cache.keys, *cache.values))
    assert held <= PlannedModel("m", config, "float32", 256).cache(4) < 2 * held


def test_work_counts_the_keys_and_values_that_a_prefill_makes(config: ModelConfig) -> None:
    position = 2 * 28 * 2 * 128 * 2  # keys and values, layers, heads, width, bytes
    without = big(config, max_length=0)  # a verifier that keeps none
    assert big(config).work(1) - without.work(1) == 2 * PREFILL_TOKENS * position


def test_as_many_slots_as_fit(config: ModelConfig) -> None:
    roomy = plan(big(config), big(config, "verifier", 8192), NEED, 80 * GB)
    tight = plan(big(config), big(config, "verifier", 8192), NEED, 16 * GB)
    assert roomy.needed <= 80 * GB
    assert tight.needed <= 16 * GB
    assert 1 <= tight.prm_slots < roomy.prm_slots


def test_no_more_slots_than_there_is_work(config: ModelConfig) -> None:
    small = plan(big(config), None, dataclasses.replace(NEED, solutions=6), 80 * GB)
    assert small.slots == 6


def test_what_the_recipe_says_is_kept(config: ModelConfig) -> None:
    found = plan(big(config), big(config, "verifier"), dataclasses.replace(NEED, slots=24, prm_slots=8), 80 * GB)
    assert (found.slots, found.prm_slots) == (24, 8)


def test_what_cannot_fit_is_refused_with_the_sum(config: ModelConfig) -> None:
    with pytest.raises(UserError, match=r"the models do not fit: .*generator .* of 2 GB; split them"):
        plan(big(config), big(config, "verifier"), NEED, 2 * GB)


def test_given_slots_that_do_not_fit_are_refused(config: ModelConfig) -> None:
    with pytest.raises(UserError, match="do not fit"):
        plan(big(config), None, dataclasses.replace(NEED, slots=4096), 16 * GB)


def test_prefixes_get_what_is_left(config: ModelConfig) -> None:
    need = dataclasses.replace(NEED, prefix_cache=10**6)
    found = plan(big(config), None, need, 40 * GB)
    assert 250_000 <= found.prefix_cache <= 10**6
    assert found.needed <= 40 * GB
    assert plan(big(config), None, need, 400 * GB).prefix_cache == 10**6


def test_the_line_names_all_parts(config: ModelConfig) -> None:
    text = plan(big(config), big(config, "verifier"), dataclasses.replace(NEED, prefix_cache=1000), 80 * GB).text
    assert text.count("\n") == 0
    for part in ("generator", "verifier", "cache", "prefixes", "work", "of 80 GB"):
        assert part in text


def test_an_unknown_memory_refuses_nothing(config: ModelConfig) -> None:
    assert plan(big(config), None, dataclasses.replace(NEED, slots=4096), None).slots == 4096


def test_a_mesh_splits_what_it_splits(config: ModelConfig) -> None:
    mesh = make_mesh()  # of one device
    wide = big(config)
    assert dataclasses.replace(wide, mesh=mesh).weights == wide.weights
    assert dataclasses.replace(wide, mesh=mesh).cache(8) == wide.cache(8)


def test_a_device_says_what_it_has() -> None:
    assert device_bytes(lambda: {"bytes_limit": 5}) == 5
    assert device_bytes(lambda: None) > 0  # of a CPU: the machine's
