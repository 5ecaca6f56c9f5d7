"""Prompts and forced phrases fed in pieces by our kernels: the same keys and values however they are cut."""

from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from support import tiny_model as tiny_models
from thinkprm_jax.model.cache import KVCache
from thinkprm_jax.model.decoder import Decoder, use_products
from thinkprm_jax.sampler import Request, Sampler, Think
from thinkprm_jax.sampler.request import Choose, Force

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")

TEXT = np.arange(40, 90, dtype=np.int32)


def fed(model, dtype: str, calls: list[tuple[list[int], list[tuple[int, int, int]]]], rows: int = 3) -> KVCache:
    """The cache after calls, each of the tokens and the pieces (row, place of the first, how many)."""
    cache = KVCache.zeros(model.config, rows, 64, 8, dtype)
    for tokens, pieces in calls:
        table = np.zeros((rows, 3), np.int32)
        table[: len(pieces)] = pieces
        cache = jax.jit(model.extend_rows)(jnp.asarray(tokens, jnp.int32), jnp.asarray(table), cache)
    return cache


def of_row(cache: KVCache, row: int) -> np.ndarray:
    return np.stack([np.asarray(x[row, :, : len(TEXT)], np.float32) for x in (*cache.keys, *cache.values)])


@pytest.fixture(scope="module")
def model(mini_tokenizer) -> Decoder:
    return tiny_models.make_decoder(mini_tokenizer, seed=5, layers=2)


@pytest.fixture
def native(model):
    use_products(model, "native")
    yield model
    use_products(model, "xla")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_neither_where_a_text_is_cut_nor_what_stands_beside_it_changes_a_bit(native, dtype):
    whole = of_row(fed(native, dtype, [([*TEXT], [(1, 0, 50)])]), 1)
    others = list(range(100, 111))
    cut = fed(
        native,
        dtype,
        [
            ([*others, *TEXT[:7], 0, 0], [(2, 0, 11), (1, 0, 7)]),
            ([*TEXT[7:39], *others], [(1, 7, 32), (0, 0, 11)]),
            ([*TEXT[39:], 0, 0, 0], [(1, 39, 11)]),
        ],
    )
    np.testing.assert_array_equal(of_row(cut, 1), whole)


def test_they_are_those_of_a_prefill(native):
    expected = native.prefill(TEXT[None])
    found = of_row(fed(native, "float32", [([*TEXT], [(1, 0, 50)])]), 1)
    np.testing.assert_allclose(found, np.stack([x[0] for x in (*expected.keys, *expected.values)]), atol=1e-5)


def test_other_rows_and_what_stands_before_stay(native):
    before = fed(native, "float32", [([*TEXT], [(0, 0, 25), (2, 0, 25)])])
    kept = [np.asarray(x) for x in before.keys]
    after = fed(native, "float32", [([*TEXT], [(0, 0, 25), (2, 0, 25)]), ([*TEXT[25:30]], [(0, 25, 5)])])
    for old, new in zip(kept, after.keys, strict=True):
        changed = np.argwhere((old != np.asarray(new)).any(axis=(1, 3)))
        assert {tuple(place) for place in changed} == {(0, place) for place in range(25, 30)}


def test_a_model_whose_heads_fit_no_kernel_is_refused(tiny_model):
    """Not with wrong keys and values: the sampler asks first."""
    cache = KVCache.zeros(tiny_model.config, 1, 64, 8, "float16")
    with pytest.raises(ValueError, match="no kernel"):
        tiny_model.extend_rows(jnp.asarray(TEXT), jnp.asarray([[0, 0, 50]]), cache)


def of(value):
    yield Force(range(20, 45))
    chosen = yield Choose((3, 4))
    thought = yield Think(value)
    return chosen, thought.ids


@pytest.fixture(scope="module")
def samplers(model, mini_tokenizer):
    return [
        Sampler(model, mini_tokenizer, slots=4, max_length=256, chunk=8, drafts=0, products=products)
        for products in ("native", "xla")
    ]


def test_forced_phrases_and_prompts_of_any_length(samplers):
    """Values, and what is counted, are those of a sampler that feeds by steps; but for the steps."""
    requests = [
        Request([7, *range(30, 30 + length)], lambda n=length: of(n % 5 + 1)) for length in (1, 3, 40, 130)
    ]
    ours, theirs = ([result.value for _, result in sorted(s.run(requests))] for s in samplers)
    for (chosen, ids), (expected, expected_ids) in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(chosen, expected, atol=1e-4)
        assert ids == expected_ids
    names = "prefilled_tokens", "forced_tokens", "refed_tokens", "fed_samples"
    counted, expected = ([getattr(s.stats, name) for name in names] for s in samplers)
    assert counted == expected
    assert samplers[0].stats.decode_steps < samplers[1].stats.decode_steps / 2


def test_few_programs_are_compiled_for_prompts_of_many_lengths(model, mini_tokenizer):
    sampler = Sampler(model, mini_tokenizer, slots=2, max_length=96, chunk=8, drafts=0, products="native")
    before = sampler.compilations

    def think():
        return (yield Think(1))

    for length in (20, 33, 47, 60, 71, 88):
        list(sampler.run([Request([length, *range(30, 30 + length)], think)]))
    assert sampler.compilations - before <= 4  # a cache of one length: calls of 32 and 128 tokens, decode, copies


def test_the_cache_is_not_copied(native):
    """Calls write where it lies: what they need beside it is a small part of it."""
    cache = KVCache.zeros(native.config, 8, 1024, 8, "float32")
    tokens, pieces = jnp.zeros(32, jnp.int32), jnp.zeros((8, 3), jnp.int32)
    feed = jax.jit(native.extend_rows, donate_argnums=2).lower(tokens, pieces, cache).compile()

    def steps(tokens, positions, rotations, cache):
        def step(number, cache):
            return native.step_in_place(tokens, positions + number, positions >= 0, rotations, cache)[1]

        return jax.lax.fori_loop(0, 5, step, cache)

    positions = jnp.zeros(8, jnp.int32)
    rotations = native.rotations(positions, 1)
    loop = (
        jax.jit(steps, donate_argnums=3).lower(jnp.zeros((8, 1), jnp.int32), positions, rotations, cache).compile()
    )
    size = sum(x.nbytes for x in jax.tree.leaves(cache))
    for compiled in (feed, loop):
        assert compiled.memory_analysis().temp_size_in_bytes < size / 4
