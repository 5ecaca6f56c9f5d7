"""All layers in one call of our kernel: what they compute one by one, and the same bits beside whatever tokens."""

from __future__ import annotations

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from thinkprm_jax.model import decoder as decoders
from thinkprm_jax.model.cache import KVCache
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder, use_products
from thinkprm_jax.model.lora import LoraSpec
from thinkprm_jax.model.products import load_kernels

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler")

CONFIG = ModelConfig(
    vocab_size=90,
    hidden_size=40,  # no multiple of a vector
    intermediate_size=72,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    tie_embeddings=True,
    eos_token_id=0,
    initializer_range=0.3,
)
KINDS = {
    "qwen2": {},
    "llama": {"qkv_bias": False},
    "biases": {"output_bias": True, "mlp_bias": True},
    "qwen3": {"qkv_bias": False, "qk_norm": True},
}
# Of differences: a whole number of int8 inputs is another one where its float lies between two.
SCALES = {"float32": 2e-5, "bfloat16": 6e-2, "int8": 3e-2, "int8 bfloat16": 6e-2}
PLACES = 48
TOKENS = np.random.default_rng(1).integers(1, 90, 24).astype(np.int32)


def make(kind: str = "qwen2", numbers: str = "float32", lora: LoraSpec | None = None) -> Decoder:
    """Every parameter random, biases and norms, too. numbers: one of SCALES."""
    config = dataclasses.replace(CONFIG, **KINDS[kind])
    quantization, dtype = ("int8", numbers[5:] or "float32") if numbers.startswith("int8") else (None, numbers)
    model = Decoder(config, rngs=nnx.Rngs(3), dtype=dtype, param_dtype=dtype, lora=lora, quantization=quantization)
    rng = np.random.default_rng(2)
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        if path[-1] in ("bias", "scale"):
            leaf[...] = jnp.asarray(rng.normal(1.0 if path[-1] == "scale" else 0.0, 0.3, leaf.shape), dtype)
    use_products(model, "native")
    return model


def feed(model: Decoder, calls: list[list[tuple[int, int, int]]], rows: int = 3) -> tuple[np.ndarray, KVCache]:
    """Calls of pieces (row, place of the first token, how many) of TOKENS. Returns: the states of the last one."""
    cache = KVCache.zeros(model.config, rows, PLACES, 0, model.dtype)

    def run(tokens, positions, pieces, cache):
        rotations = tuple(x[0] for x in decoders.rope(model.config, positions[None]))
        return model._feed(tokens, pieces, rotations, cache)

    jitted = jax.jit(run)
    for pieces in calls:
        tokens, positions = np.zeros(32, np.int32), np.zeros(32, np.int32)
        done = 0
        for _, start, count in pieces:
            tokens[done : done + count] = TOKENS[start : start + count]
            positions[done : done + count] = np.arange(start, start + count)
            done += count
        table = np.zeros((rows, 3), np.int32)
        table[: len(pieces)] = pieces
        states, cache = jitted(*map(jnp.asarray, (tokens, positions, table)), cache)
    return np.asarray(states), cache


@pytest.mark.parametrize("numbers", SCALES)
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_the_layers(kind: str, numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(kind, numbers)
    calls = [[(0, 0, 9), (2, 0, 13)], [(-1, 0, 2), (2, 13, 4), (0, 9, 1)]]
    states, cache = feed(model, calls)
    monkeypatch.setattr(decoders, "run_layers", lambda *_: None)
    expected, one_by_one = feed(model, calls)
    scale = SCALES[numbers]
    np.testing.assert_allclose(states[2:7], expected[2:7], atol=scale * np.abs(expected).max())
    assert not states[:2].any()  # padding
    assert not states[7:].any()
    for ours, theirs in zip((*cache.keys, *cache.values), (*one_by_one.keys, *one_by_one.values), strict=True):
        theirs = np.asarray(theirs, np.float32)
        np.testing.assert_allclose(np.asarray(ours, np.float32), theirs, atol=scale * np.abs(theirs).max())


@pytest.mark.parametrize("numbers", SCALES)
def test_the_tokens_of_a_call_and_the_rows_beside_them_change_no_bit(numbers: str) -> None:
    model = make(numbers=numbers)
    wide, cache = feed(model, [[(1, 0, 20)]])
    for calls in ([[(1, n, 1)] for n in range(20)], [[(0, 0, 5), (1, 0, 17)], [(1, 17, 3), (2, 0, 24)]]):
        states, other = feed(model, calls)
        count = calls[-1][0][2]
        np.testing.assert_array_equal(states[:count], wide[20 - count : 20])
        for ours, theirs in zip((*other.keys, *other.values), (*cache.keys, *cache.values), strict=True):
            ours, theirs = (np.asarray(x[1, :, :20], np.float32) for x in (ours, theirs))
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("-mavx2", "-mfma"), ()], ids=["avx2", "sse2"])
@pytest.mark.parametrize("numbers", SCALES)
def test_lesser_processors(flags: tuple[str, ...], numbers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = make("biases", numbers), [[(0, 0, 9)], [(0, 9, 4)]]
    expected, _ = feed(model, calls)
    kernels = load_kernels(flags)
    monkeypatch.setattr("thinkprm_jax.model.all_layers.load_kernels", lambda: kernels)
    states, _ = feed(model, calls)
    scale = SCALES[numbers]
    np.testing.assert_allclose(states, expected, atol=scale * np.abs(expected).max())


def test_adapters_are_left_to_xla() -> None:
    lora = LoraSpec(rank=2, alpha=4.0, targets=("q_proj",), dropout=0.0)
    assert np.isfinite(feed(make(lora=lora), [[(0, 0, 5)]])[0][:5]).all()
