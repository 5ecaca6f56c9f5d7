"""From logits to tokens: every row by its own temperature, top-k, top-p, key and position.

All settings are arrays, so no setting ever compiles anything; the parts that only some rows need run under
``lax.cond`` on "does any row need it". Nothing sorts the vocabulary: top-k and top-p thresholds are found by
bisection, and a token is drawn by inverting the cumulative distribution in two levels, from one uniform number.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

_BLOCK = 256


def sample(
    logits: jax.Array,
    temperature: jax.Array,
    top_k: jax.Array,
    top_p: jax.Array,
    keys: jax.Array,
    positions: jax.Array,
) -> jax.Array:
    """Draws one token per row.

    Args:
      logits: float32 [B, V].
      temperature: float32 [B]; 0 takes the most likely token. Below 1e-6 it is 1e-6, so that nothing overflows.
      top_k: int [B], 0 is off. top_p: float32 [B], 1 is off. Applied in the order temperature, top-k, top-p.
      keys: uint32 [B, 2], the row's random key; positions: int [B], the position the token will stand at.
    Returns: int32 [B].
    """
    greedy = _most_likely(logits)

    def draw() -> jax.Array:
        scaled = logits / jnp.where(temperature > 0, jnp.maximum(temperature, 1e-6), 1.0)[:, None]
        filtered = jax.lax.cond(
            jnp.any((temperature > 0) & ((top_k > 0) | (top_p < 1))),
            lambda x: _keep_top(x, top_k, top_p),
            lambda x: x,
            scaled,
        )
        drawn = _draw(filtered, _uniform(keys, positions))
        return jnp.where(temperature > 0, drawn, greedy)

    return jax.lax.cond(jnp.any(temperature > 0), draw, lambda: greedy)


def log_probabilities(logits: jax.Array, ids: jax.Array) -> jax.Array:
    """log-softmax of float32 logits [B, V] at ids int [B, N] -> float32 [B, N]."""
    total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    return jnp.take_along_axis(logits, ids, axis=-1) - total


def _most_likely(logits: jax.Array) -> jax.Array:
    """argmax, the first of equals, int32 [B]: the best block and then the best token in it.

    A plain maximum vectorises everywhere; XLA's argmax over a whole vocabulary is a scalar loop on CPUs.
    """
    batch, vocab = logits.shape
    blocks = -(-vocab // _BLOCK)
    padded = jnp.pad(logits, ((0, 0), (0, blocks * _BLOCK - vocab)), constant_values=-jnp.inf)
    padded = padded.reshape(batch, blocks, _BLOCK)
    block = jnp.argmax(jnp.max(padded, axis=-1), axis=-1)
    row = jnp.take_along_axis(padded, block[:, None, None], axis=1)[:, 0]
    return (block * _BLOCK + jnp.argmax(row, axis=-1)).astype(jnp.int32)


def _uniform(keys: jax.Array, positions: jax.Array) -> jax.Array:
    def one(key: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(key, impl="threefry2x32")
        return jax.random.uniform(jax.random.fold_in(key, position))

    return jax.vmap(one)(keys, positions)


def _draw(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """Inverse of the cumulative distribution: first the block of the vocabulary, then the token in it."""
    batch, vocab = logits.shape
    weights = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    blocks = -(-vocab // _BLOCK)
    weights = jnp.pad(weights, ((0, 0), (0, blocks * _BLOCK - vocab))).reshape(batch, blocks, _BLOCK)
    sums = jnp.sum(weights, axis=-1)
    cumulative = jnp.cumsum(sums, axis=-1)
    target = uniform[:, None] * cumulative[:, -1:]
    block = _first_above(cumulative, target, sums)
    before = jnp.take_along_axis(cumulative - sums, block, axis=-1)
    row = jnp.take_along_axis(weights, block[..., None], axis=1)[:, 0]
    token = _first_above(jnp.cumsum(row, axis=-1), target - before, row)
    return (block * _BLOCK + token)[:, 0].astype(jnp.int32)


def _first_above(cumulative: jax.Array, target: jax.Array, weights: jax.Array) -> jax.Array:
    """First index [B, 1] whose cumulative weight exceeds target; rounding never leads to a weight of zero."""
    index = jnp.sum(cumulative <= target, axis=-1, keepdims=True)
    positive = weights > 0
    last = weights.shape[-1] - 1 - jnp.argmax(positive[:, ::-1], axis=-1)[:, None]
    index = jnp.minimum(index, last)
    # An index of zero weight below `last` can only come from a rounded target: step to the next positive one.
    at_or_after = positive & (jnp.arange(weights.shape[-1])[None] >= index)
    return jnp.argmax(at_or_after, axis=-1)[:, None]


def _keep_top(logits: jax.Array, top_k: jax.Array, top_p: jax.Array) -> jax.Array:
    """Logits outside a row's top-k or nucleus become -inf; ties with the last kept token are kept."""
    vocab = logits.shape[-1]
    order = _monotone(logits)
    k = jnp.where(top_k > 0, jnp.minimum(top_k, vocab), vocab)[:, None]
    floor = _largest_threshold(order, lambda kept: jnp.sum(kept, axis=-1, keepdims=True) >= k)
    kept = order >= floor
    weights = jnp.where(kept, jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True)), 0.0)
    needed = top_p[:, None] * jnp.sum(weights, axis=-1, keepdims=True)

    def enough(nucleus: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(nucleus, weights, 0.0), axis=-1, keepdims=True) >= needed

    floor = jnp.where(top_p[:, None] < 1, jnp.maximum(floor, _largest_threshold(order, enough)), floor)
    return jnp.where(order >= floor, logits, -jnp.inf)


def _monotone(x: jax.Array) -> jax.Array:
    """float32 -> uint32 with the same order."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _largest_threshold(order: jax.Array, enough) -> jax.Array:
    """The largest uint32 t [B, 1] for which ``enough(order >= t)`` holds; it must hold for t = 0."""

    def bit(i: jax.Array, threshold: jax.Array) -> jax.Array:
        candidate = threshold | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
        return jnp.where(enough(order >= candidate), candidate, threshold)

    return jax.lax.fori_loop(0, 32, bit, jnp.zeros((order.shape[0], 1), jnp.uint32))
