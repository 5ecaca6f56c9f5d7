"""Grouped-query attention: over whole sequences in causal blocks, of tokens behind a prefix that is known already,
and of the few tokens of a decode step over the cache."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from thinkprm_jax.model.matmul import contract, einsum

# A masked score is a large finite number: a row whose every key is masked then gives a harmless mean instead
# of the NaN that -inf - -inf would spread.
MASKED = -1e30
_SEQUENCE_BLOCK = 80  # about how many queries of a sequence are attended together
_EXTENSION_BLOCK = 128  # the same of an extension


def attend_sequence(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segment_ids: jax.Array | None,
    dtype: DTypeLike,
) -> jax.Array:
    """Causal attention of T tokens over themselves.

    Queries go block by block and a block reads only the keys up to its own end, so that almost half of the
    T x T square is neither computed nor stored; the blocks are unrolled (their number is capped at 16).

    Args:
      q: [B, T, H, h], rotated and scaled by 1/sqrt(h).
      k, v: [B, T, K, h], k rotated.
      segment_ids: int [B, T] or None; tokens attend only within equal ids.
      dtype: of the products' inputs; scores, softmax and results are float32.
    Returns: float32 [B, T, H, h].
    """
    batch, length, heads, head_dim = q.shape
    kv_heads = k.shape[2]
    group = heads // kv_heads
    # Heads go to the front once, so that every product below is a plain batched matrix product; the G query
    # heads of a KV head stand under one another as rows of one matrix.
    q = q.reshape(batch, length, kv_heads, group, head_dim).transpose(0, 2, 3, 1, 4)
    k, v = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    blocks = min(-(-length // _SEQUENCE_BLOCK), 16)
    block = -(-length // blocks)
    outputs = []
    for start in range(0, length, block):
        end = min(start + block, length)
        allowed = (jnp.arange(start, end)[:, None] >= jnp.arange(end)[None, :])[None]
        if segment_ids is not None:
            allowed = allowed & (segment_ids[:, start:end, None] == segment_ids[:, None, :end])
        allowed = jnp.tile(allowed, (1, group, 1))[:, None]
        rows = q[:, :, :, start:end].reshape(batch, kv_heads, group * (end - start), head_dim)
        output = _attend_rows(jnp.dtype(dtype), rows, k[:, :, :end], v[:, :, :end], allowed)
        outputs.append(output.reshape(batch, kv_heads, group, end - start, head_dim))
    output = outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, axis=3)
    return output.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, head_dim)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend_rows(dtype: jnp.dtype, q: jax.Array, k: jax.Array, v: jax.Array, allowed: jax.Array) -> jax.Array:
    """Attention of R query rows over S keys: q [B, K, R, h], k, v [B, K, S, h], allowed bool [B or 1, 1, R, S].

    Its own derivative, because autodiff would keep the probabilities in float32, normalise them before the
    product instead of after it, and take the backward products in other layouts: half the speed on a CPU.
    """
    return _attend_rows_forward(dtype, q, k, v, allowed)[0]


def _attend_rows_forward(dtype, q, k, v, allowed):
    q, k, v = q.astype(dtype), k.astype(dtype), v.astype(dtype)
    scores = jnp.where(allowed, einsum("bkrh,bksh->bkrs", q, k, dtype), MASKED)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(dtype)
    output = einsum("bkrs,bksh->bkrh", weights, v, dtype) / total
    return output, (q, k, v, weights, total, output)


def _attend_rows_backward(dtype, saved, cotangent):
    q, k, v, weights, total, output = saved
    cotangent = cotangent / total  # of the sum of weights * v, before its division
    mean = jnp.sum(cotangent * output, axis=-1, keepdims=True)
    cotangent = cotangent.astype(dtype)
    grad_v = einsum("bkrs,bkrh->bksh", weights, cotangent, dtype)
    grad_weights = einsum("bkrh,bksh->bkrs", cotangent, v, dtype)
    grad_scores = (weights.astype(jnp.float32) * (grad_weights - mean)).astype(dtype)
    grad_q = einsum("bkrs,bksh->bkrh", grad_scores, k, dtype)
    grad_k = einsum("bkrs,bkrh->bksh", grad_scores, q, dtype)
    return grad_q, grad_k, grad_v, None


_attend_rows.defvjp(_attend_rows_forward, _attend_rows_backward)


def attend_extension(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    prefix: tuple[jax.Array, jax.Array],
    lengths: jax.Array,
    dtype: DTypeLike,
) -> jax.Array:
    """Attention of T tokens over a prefix of each row, whose keys and values exist, and causally over themselves.

    The blocks of queries come one after the other, so that the scores in memory are those of one block; T must be
    a multiple of ``_EXTENSION_BLOCK`` where it is larger.

    Args:
      q: [B, T, H, h], rotated and scaled by 1/sqrt(h).
      k, v: [B, K, T, h], k rotated.
      prefix: its keys and values, [B, K, P, h] each.
      lengths: int [B], how many of the P positions count in each row.
      dtype: of the products' inputs; scores, softmax and results are float32.
    Returns: float32 [B, T, H, h].
    """
    batch, length, heads, head_dim = q.shape
    kv_heads, known = k.shape[1], prefix[0].shape[2]
    group = heads // kv_heads
    block = min(_EXTENSION_BLOCK, length)
    keys, values = (jnp.concatenate([old, new], axis=2) for old, new in zip(prefix, (k, v), strict=True))
    q = q.reshape(batch, length // block, block, kv_heads, group, head_dim).transpose(1, 0, 3, 4, 2, 5)
    place = jnp.arange(known + length)

    def attend(queries: tuple[jax.Array, jax.Array]) -> jax.Array:
        rows, number = queries  # [B, K, G, block, h] and which block it is
        last = known + number * block + jnp.arange(block)  # the place of each query itself
        seen = jnp.where(place < known, place < lengths[:, None], True)[:, None]
        allowed = jnp.tile(seen & (place <= last[:, None]), (1, group, 1))[:, None]
        rows = rows.reshape(batch, kv_heads, group * block, head_dim)
        return _attend_rows(jnp.dtype(dtype), rows, keys, values, allowed)

    output = jax.lax.map(attend, (q, jnp.arange(length // block)))
    output = output.reshape(length // block, batch, kv_heads, group, block, head_dim)
    return output.transpose(1, 0, 4, 2, 3, 5).reshape(batch, length, heads, head_dim)


def attend_cache(q: jax.Array, keys: jax.Array, values: jax.Array, readable: jax.Array) -> jax.Array:
    """Attention of W tokens per row over the row's cache.

    Args:
      q: [B, W, H, h], rotated and scaled.
      keys, values: [B, K, S, h].
      readable: bool [B, W, S], the positions that each of them attends to; at least one each.
    Returns: float32 [B, W, H, h].
    """
    batch, width, heads, head_dim = q.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    # The query heads of all W tokens that read a KV head are rows of one matrix.
    q = q.reshape(batch, width, kv_heads, group, head_dim).swapaxes(1, 2)
    q = q.reshape(batch, kv_heads, width * group, head_dim)
    scores = contract("bkgh,bksh->bkgs", q, keys, keys.dtype)
    readable = jnp.repeat(readable, group, axis=1) if width > 1 else readable
    scores = jnp.where(readable[:, None], scores, MASKED)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    output = contract("bkgs,bksh->bkgh", weights, values, values.dtype) / total
    output = output.reshape(batch, kv_heads, width, group, head_dim).swapaxes(1, 2)
    return output.reshape(batch, width, heads, head_dim)
