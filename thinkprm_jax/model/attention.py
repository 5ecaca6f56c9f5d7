"""Grouped-query attention: over whole sequences in causal blocks, and of one token over the cache."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from thinkprm_jax.model.cache import unpack
from thinkprm_jax.model.products import contract

# A masked score is a large finite number: a row whose every key is masked then gives a harmless mean instead
# of the NaN that -inf - -inf would spread.
MASKED = -1e30


def attend_sequence(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    dtype: DTypeLike,
    block: int = 128,
) -> jax.Array:
    """Causal attention of T tokens over themselves.

    Queries go block by block and a block reads only the keys up to its own end, so that almost half of the
    T x T square is neither computed nor stored; the blocks are unrolled (their number is capped at 16).

    Args:
      q: [B, T, H, h], rotated and scaled by 1/sqrt(h).
      k, v: [B, T, K, h], k rotated.
      segment_ids: int [B, T] or None; tokens attend only within equal ids.
      dtype: of the products' inputs; scores, softmax and results are float32.
      block: queries per block.
    Returns: float32 [B, T, H, h].
    """
    batch, length, heads, head_dim = q.shape
    kv_heads = k.shape[2]
    q = q.reshape(batch, length, kv_heads, heads // kv_heads, head_dim)
    block = max(block, -(-length // 16))
    outputs = []
    for start in range(0, length, block):
        end = min(start + block, length)
        scores = contract("btkgh,bskh->bkgts", q[:, start:end], k[:, :end], dtype)
        allowed = jnp.arange(start, end)[:, None] >= jnp.arange(end)[None, :]
        if segment_ids is not None:
            same = segment_ids[:, start:end, None] == segment_ids[:, None, :end]
            allowed = (allowed & same)[:, None, None]
        weights = jax.nn.softmax(jnp.where(allowed, scores, MASKED), axis=-1)
        outputs.append(contract("bkgts,bskh->btkgh", weights, v[:, :end], dtype))
    output = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=1)
    return output.reshape(batch, length, heads, head_dim)


def attend_cache(
    q: jax.Array, cache_keys: jax.Array, cache_values: jax.Array, positions: jax.Array, dtype: DTypeLike
) -> jax.Array:
    """Attention of one token per row over the row's cache, its own position included.

    Args:
      q: [B, H, h], rotated and scaled.
      cache_keys: [B, K, h, S]; cache_values: [B, K, S, h]; as stored by :mod:`thinkprm_jax.model.cache`.
      positions: int [B]; positions 0 .. positions[b] of row b are read.
      dtype: of the products' inputs.
    Returns: float32 [B, H, h].
    """
    batch, heads, head_dim = q.shape
    kv_heads, allocated = cache_keys.shape[1], cache_keys.shape[3]
    q = q.reshape(batch, kv_heads, heads // kv_heads, head_dim)
    valid = (jnp.arange(allocated)[None] <= positions[:, None])[:, None, None]
    if jax.default_backend() == "cpu":
        output = _attend_cache_elementwise(q, unpack(cache_keys), unpack(cache_values), valid)
    else:
        scores = contract("bkgh,bkhs->bkgs", q, cache_keys, dtype)
        weights = jax.nn.softmax(jnp.where(valid, scores, MASKED), axis=-1)
        output = contract("bkgs,bksh->bkgh", weights, cache_values, dtype)
    return output.reshape(batch, heads, head_dim)


def _attend_cache_elementwise(q: jax.Array, keys: jax.Array, values: jax.Array, valid: jax.Array) -> jax.Array:
    """The same sums as multiply-and-reduce loops.

    A product of one query with a cache row is a matrix-vector product per (row, head): XLA's CPU dot pays more
    for dispatching those than for the arithmetic, while these loops vectorise over the cache's inner axis. The
    barrier keeps XLA from fusing the reduction into the output projection, where it would be recomputed.
    """
    scores = jnp.sum(q.astype(jnp.float32)[..., None] * keys.astype(jnp.float32)[:, :, None], axis=3)
    scores = jnp.where(valid, scores, MASKED)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1)
    output = jnp.sum(weights[..., None] * values.astype(jnp.float32)[:, :, None], axis=3)
    return jax.lax.optimization_barrier(output / total[..., None])
