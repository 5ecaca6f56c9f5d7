"""The key-value cache of the decoder: one row per slot, cache position = token position.

    keys   L arrays [B, K, h, S]     positions innermost: the score of a query against S keys is then a sum of h
    values L arrays [B, K, S, h]     scaled rows, and the output a sum of S scaled rows; no layout change anywhere

K and V are separate arrays and the layers are separate list entries, so that a donated cache is updated in
place. S is the allocated length, a bucket at least as long as the longest live row; it grows and shrinks
between decode calls, never inside one. What a row holds beyond its length is never read.

On CPUs a bfloat16 cache is stored as its bit patterns (uint16): XLA's CPU backend rewrites every bfloat16
scatter through float32, which would convert the whole cache at every token.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from thinkprm_jax.model.config import ModelConfig


@functools.partial(jax.tree_util.register_dataclass, data_fields=["keys", "values"], meta_fields=[])
@dataclasses.dataclass
class KVCache:
    """Keys and values of B rows; see the module's docstring for shapes and storage."""

    keys: list[jax.Array]
    values: list[jax.Array]

    @property
    def batch(self) -> int:
        return self.keys[0].shape[0]

    @property
    def length(self) -> int:
        """S, the allocated positions."""
        return self.keys[0].shape[3]

    @classmethod
    def zeros(cls, config: ModelConfig, batch: int, length: int, dtype: DTypeLike) -> KVCache:
        """An empty cache of ``dtype`` (stored as :func:`storage_dtype` says)."""
        stored = storage_dtype(dtype)
        k, h = config.num_kv_heads, config.head_dim
        return cls(
            keys=[jnp.zeros((batch, k, h, length), stored) for _ in range(config.num_layers)],
            values=[jnp.zeros((batch, k, length, h), stored) for _ in range(config.num_layers)],
        )


def storage_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype in which a cache of ``dtype`` is stored on the default backend."""
    dtype = jnp.dtype(dtype)
    if dtype == jnp.bfloat16 and jax.default_backend() == "cpu":
        return jnp.dtype(jnp.uint16)
    return dtype


def pack(x: jax.Array, stored: DTypeLike) -> jax.Array:
    """Rounds ``x`` to what a cache of storage dtype ``stored`` holds."""
    if jnp.dtype(stored) == jnp.uint16:
        return jax.lax.bitcast_convert_type(x.astype(jnp.bfloat16), jnp.uint16)
    return x.astype(stored)


def unpack(x: jax.Array) -> jax.Array:
    """The numbers of a stored array: float32 from bit patterns, else as they are."""
    if x.dtype == jnp.uint16:
        return jax.lax.bitcast_convert_type(x.astype(jnp.uint32) << 16, jnp.float32)
    return x


def write_token(
    cache_keys: jax.Array, cache_values: jax.Array, k: jax.Array, v: jax.Array, positions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Writes one token's k, v [B, K, h] at ``positions`` int [B] of every row of one layer's arrays."""
    k, v = pack(k, cache_keys.dtype), pack(v, cache_values.dtype)
    keys = jax.vmap(lambda row, x, p: jax.lax.dynamic_update_slice(row, x[:, :, None], (0, 0, p)))(
        cache_keys, k, positions
    )
    values = jax.vmap(lambda row, x, p: jax.lax.dynamic_update_slice(row, x[:, None], (0, p, 0)))(
        cache_values, v, positions
    )
    return keys, values
