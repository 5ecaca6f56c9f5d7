"""The decoder against transformers, on random models of all families."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers

from support import oracle
from support.exact_logits import exact_logits
from thinkprm_jax.checkpoint.huggingface import load_model
from thinkprm_jax.model.cache import KVCache
from thinkprm_jax.model.decoder import Decoder

CASES = {
    "qwen2-1": {"family": "qwen2", "heads": 4, "kv_heads": 4, "tied": False},
    "qwen2-5-tied": {"family": "qwen2", "heads": 5, "kv_heads": 1, "tied": True, "theta": 1e6},
    "qwen2-6": {"family": "qwen2", "heads": 12, "kv_heads": 2, "tied": False, "head_dim": 16},
    "qwen2-7-tied": {"family": "qwen2", "heads": 7, "kv_heads": 1, "tied": True, "theta": 1e6},
    "qwen3": {"family": "qwen3", "heads": 4, "kv_heads": 2, "tied": False, "head_dim": 12, "theta": 1e6},
    "qwen3-biases-tied": {"family": "qwen3", "heads": 6, "kv_heads": 2, "tied": True, "head_dim": 16,
                          "attention_bias": True},
    "qwen2-yarn": {"family": "qwen2", "heads": 4, "kv_heads": 2, "tied": False, "theta": 1e6, "head_dim": 16,
                   "rope": oracle.YARN},
    "qwen3-linear": {"family": "qwen3", "heads": 4, "kv_heads": 2, "tied": True, "head_dim": 12,
                     "rope": {"rope_type": "linear", "factor": 4.0}},
    "llama-scaled": {"family": "llama", "heads": 4, "kv_heads": 2, "tied": False, "theta": 5e5, "head_dim": 12,
                     "rope": oracle.LLAMA3},
    "llama-biases-tied": {"family": "llama", "heads": 6, "kv_heads": 1, "tied": True, "attention_bias": True,
                          "mlp_bias": True, "rms_norm_eps": 1e-5},
    # A window that hides nothing of LONG tokens.
    "mistral": {"family": "mistral", "heads": 4, "kv_heads": 2, "tied": False, "sliding_window": 600,
                "rms_norm_eps": 1e-5},
}  # fmt: skip
LONG = 600
PROMPT = 17
GREEDY = 200

forward = jax.jit(lambda model, tokens: model(tokens))


class Pair(NamedTuple):
    theirs: transformers.PreTrainedModel
    ours: Decoder
    half: Decoder  # in bfloat16


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    theirs = oracle.random_model(**CASES[request.param])
    folder = oracle.save(theirs, tmp_path_factory.mktemp(request.param))
    return Pair(theirs, load_model(folder)[0], load_model(folder, "bfloat16")[0])


def padded(prompts: list[np.ndarray]) -> np.ndarray:
    """int32 [4, LONG] with zeros on the right, whatever the prompts: one shape, one compilation."""
    batch = np.zeros((4, LONG), np.int32)
    for row, tokens in zip(batch, prompts, strict=False):
        row[: len(tokens)] = tokens
    return batch


def test_logits(pair: Pair) -> None:
    # Long enough for errors of the rotary embedding to show, in a batch of unequal lengths.
    prompts = [oracle.prompt(length, length) for length in (LONG, 1, 17, 233)]
    for ours, tokens in zip(forward(pair.ours, padded(prompts)), prompts, strict=True):
        np.testing.assert_allclose(ours[: len(tokens)], oracle.logits(pair.theirs, tokens[None])[0], atol=1e-4)
    single = prompts[1][None]
    np.testing.assert_allclose(forward(pair.ours, single), oracle.logits(pair.theirs, single), atol=1e-4)


@pytest.mark.parametrize("pair", ["qwen2-6", "qwen3", "llama-biases-tied"], indirect=True)
def test_float32_is_as_close_to_float64_as_that_of_transformers(pair: Pair) -> None:
    tokens = oracle.prompt(LONG, LONG)
    [exact] = exact_logits(pair.theirs, [tokens.tolist()])
    ours = forward(pair.ours, padded([tokens]))[0]
    far, near = (np.sqrt(np.mean((y - exact) ** 2)) for y in (ours, oracle.logits(pair.theirs, tokens[None])[0]))
    assert far < 1.25 * near


def test_bfloat16_keeps_clear_decisions(pair: Pair) -> None:
    tokens = np.stack([oracle.prompt(LONG, seed) for seed in range(4)])
    reference = oracle.logits(pair.theirs, tokens)
    second, first = np.partition(reference, -2, axis=-1)[..., -2:].transpose(2, 0, 1)
    clear = first - second > 0.1
    same = np.argmax(forward(pair.half, tokens), -1) == reference.argmax(-1)
    assert clear.mean() > 0.5
    assert same[clear].mean() >= 0.99


@functools.partial(jax.jit, static_argnames="count")
def greedy(model: Decoder, prompt: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`count` tokens after prompt [B, T] by prefill and steps: ids [count, B], logits [count, B, V]."""
    batch, length = prompt.shape
    # The last prompt token goes through a step: of the prefilled positions all but the last are read.
    prefilled = model.prefill(prompt)
    longer = [(0, 0), (0, 0), (0, count), (0, 0)]
    keys, values = ([jnp.pad(x, longer) for x in arrays] for arrays in (prefilled.keys, prefilled.values))
    cache = KVCache(keys, values, steps=count)
    lengths = jnp.full((batch,), length - 1)
    cos, sin = model.rotations(lengths, count)

    def step(carry: tuple, index: jax.Array) -> tuple:
        token, cache = carry
        written = jnp.broadcast_to(jnp.arange(count) < index, (batch, count))
        rotations = tuple(jax.lax.dynamic_slice_in_dim(x, index, 1, axis=1) for x in (cos, sin))
        x, cache = model.step(token[:, None], lengths, written, index, rotations, cache)
        logits = model.unembed(x)
        token = jnp.argmax(logits, -1).astype(prompt.dtype)
        return (token, cache), (token, logits)

    return jax.lax.scan(step, (prompt[:, -1], cache), jnp.arange(count))[1]


def test_greedy_tokens_and_their_logits(pair: Pair) -> None:
    prompts = np.stack([oracle.prompt(PROMPT, seed) for seed in (1, 2)])
    ids, logits = map(np.asarray, greedy(pair.ours, prompts, GREEDY))
    sequences = np.concatenate([prompts, ids.T], 1)
    # Each token is their best one after all tokens before it; so, from the first on, the sequences are equal.
    np.testing.assert_array_equal(oracle.logits(pair.theirs, sequences)[:, PROMPT - 1 : -1].argmax(-1), ids.T)
    whole = forward(pair.ours, padded(list(sequences)))
    whole = whole[: len(prompts), PROMPT - 1 : PROMPT - 1 + GREEDY]
    np.testing.assert_allclose(logits.swapaxes(0, 1), whole, atol=1e-4)


@pytest.mark.parametrize("pair", ["qwen2-6", "qwen3", "llama-scaled"], indirect=True)
def test_bfloat16_steps_equal_whole_sequence(pair: Pair) -> None:
    prompts = np.stack([oracle.prompt(PROMPT, seed) for seed in (1, 2)])
    ids, logits = map(np.asarray, greedy(pair.half, prompts, 40))
    whole = forward(pair.half, padded(list(np.concatenate([prompts, ids.T], 1))))[:2, PROMPT - 1 : PROMPT - 1 + 40]
    error = np.abs(logits.swapaxes(0, 1) - whole)
    assert error.mean() < 0.02 * np.std(whole)


@pytest.mark.parametrize("pair", ["qwen2-6", "qwen3", "llama-scaled"], indirect=True)
def test_packed_rows_equal_separate_ones(pair: Pair) -> None:
    prompts = [oracle.prompt(length, length) for length in (17, 30, 1, 13)]
    tokens = np.concatenate(prompts)[None]
    positions = np.concatenate([np.arange(len(p)) for p in prompts])[None]
    segments = np.repeat(np.arange(len(prompts)), [len(p) for p in prompts])[None]
    packed = jax.jit(lambda model, *inputs: model(*inputs))(pair.ours, tokens, positions, segments)[0]
    separate = forward(pair.ours, padded(prompts))
    joined = np.concatenate([np.asarray(row)[: len(p)] for row, p in zip(separate, prompts, strict=True)])
    np.testing.assert_allclose(packed, joined, atol=1e-4)
