"""The key-value cache of the decoder: one row per slot, cache position = token position.

    keys, values   L arrays each, [B, K, S + C, h]
                   positions 0 .. S - 1    the tokens of a row, in their places
                   positions S .. S + C    the columns of the decode call that is running

K and V are separate arrays and the layers are separate list entries, so that XLA updates a donated cache in place.
S is a bucket at least as long as the longest live row; it grows and shrinks between decode calls only.
What a row holds beyond its length is never read.

In a decode call all rows write at the same columns, although they stand at different positions: that is a plain
slice update, while one position per row would be a scatter. A step writes one column, or, where it also tries
drafts, as many as a row may advance by; what a row did not accept of them it never reads. :func:`settle` brings
the tokens into their places, once a call. On CPUs XLA does neither in bfloat16 without converting the whole array;
there our kernels write every token to its place at once (:meth:`.Decoder.step_in_place`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import Sharding
from jax.typing import DTypeLike

from thinkprm_jax.model.config import ModelConfig

POSITIONS = 2  # the axis of positions


@functools.partial(jax.tree_util.register_dataclass, data_fields=["keys", "values"], meta_fields=["steps"])
@dataclasses.dataclass
class KVCache:
    """Keys and values of B rows; see the module's docstring for shapes."""

    keys: list[jax.Array]
    values: list[jax.Array]
    steps: int = 0  # C

    @property
    def batch(self) -> int:
        return self.keys[0].shape[0]

    @property
    def length(self) -> int:
        """S, positions of a row."""
        return self.keys[0].shape[POSITIONS] - self.steps

    @classmethod
    def zeros(
        cls,
        config: ModelConfig,
        batch: int,
        length: int,
        steps: int,
        dtype: DTypeLike,
        sharding: Sharding | None = None,
    ) -> KVCache:
        """An empty cache for rows of up to ``length`` tokens and decode calls of up to ``steps`` columns."""
        shape = (batch, config.num_kv_heads, length + steps, config.head_dim)
        keys, values = (
            [jnp.zeros(shape, dtype, device=sharding) for _ in range(config.num_layers)] for _ in range(2)
        )
        return cls(keys, values, steps)


def map_bits(function: Callable[..., jax.Array], cache: KVCache, *others: KVCache) -> KVCache:
    """``function`` on every array of ``cache`` (and those beside it in ``others``), as bit patterns.

    For writes other than plain slice updates, which XLA's CPU backend does not do in bfloat16. On other backends
    the arrays are taken as they are: a TPU copies an array to change its view.
    """
    narrow = (jnp.bfloat16, jnp.float16) if jax.default_backend() == "cpu" else ()

    def bits(x: jax.Array) -> jax.Array:
        return jax.lax.bitcast_convert_type(x, jnp.uint16) if x.dtype in narrow else x

    def one(x: jax.Array, *beside: jax.Array) -> jax.Array:
        result = function(bits(x), *(bits(y.astype(x.dtype)) for y in beside))
        return jax.lax.bitcast_convert_type(result, x.dtype) if result.dtype != x.dtype else result

    def arrays(name: str) -> list[jax.Array]:
        lists = [getattr(tree, name) for tree in (cache, *others)]
        return [one(*layer) for layer in zip(*lists, strict=True)]

    return KVCache(arrays("keys"), arrays("values"), cache.steps)


def readable(cache: KVCache, lengths: jax.Array, written: jax.Array, column: jax.Array, width: int) -> jax.Array:
    """What the W = ``width`` tokens of a row read that a step writes from ``column`` on: the row's settled tokens,
    the columns where it has others, and each other as far as they stand before it.

    Args:
      lengths: int [B]. written: bool [B, C]. column: int [].
    Returns: bool [B, W, S + C].
    """
    ahead = jnp.arange(cache.steps) - column
    seen = (ahead >= 0) & (ahead <= jnp.arange(width)[:, None])
    settled = jnp.arange(cache.length) < lengths[:, None]
    settled = jnp.broadcast_to(settled[:, None], (cache.batch, width, cache.length))
    return jnp.concatenate([settled, written[:, None] | seen], axis=2)


def write_columns(cache: KVCache, array: jax.Array, new: jax.Array, column: jax.Array) -> jax.Array:
    """``array``, keys or values of a layer, with ``new`` [B, W, K, h] in the columns from ``column`` on."""
    place = cache.length + column
    return jax.lax.dynamic_update_slice_in_dim(array, new.swapaxes(1, 2).astype(array.dtype), place, POSITIONS)


def settle(
    cache: KVCache, lengths: jax.Array, counts: jax.Array, order: jax.Array | None = None, split: bool = False
) -> KVCache:
    """Brings the tokens of the decode call of every row behind its first lengths[b] tokens.

    Args:
      counts: int [B], how many tokens a row has in the call. A row with any needs room for all C: lengths[b] + C
        <= S. A row without any is left as it is.
      order: int [B, C], in which columns they stand; None: in the first counts[b].
      split: the rows are split over devices.

    On a CPU one scatter does it for all rows. For a scatter a TPU's compiler lays the whole cache out anew, and
    back, so elsewhere the rows are written one after the other, in place; but not where they are split, since each
    device would have to gather them for that.
    """
    move = _settle_by_scatter if split or jax.default_backend() == "cpu" else _settle_in_turn
    return map_bits(functools.partial(move, cache.length, lengths, counts, order), cache)


def _settle_by_scatter(
    length: int, lengths: jax.Array, counts: jax.Array, order: jax.Array | None, x: jax.Array
) -> jax.Array:
    steps = x.shape[POSITIONS] - length

    def row(old: jax.Array, position: jax.Array, count: jax.Array, order: jax.Array | None) -> jax.Array:
        new = old[:, length:] if order is None else old[:, length:][:, order]
        here = jax.lax.dynamic_slice_in_dim(old, position, steps, axis=1)
        index = jax.lax.broadcasted_iota(jnp.int32, new.shape, 1)
        return jax.lax.dynamic_update_slice_in_dim(old, jnp.where(index < count, new, here), position, axis=1)

    return jax.vmap(row)(x, lengths, counts, order)


def _settle_in_turn(
    length: int, lengths: jax.Array, counts: jax.Array, order: jax.Array | None, x: jax.Array
) -> jax.Array:
    batch, heads, total, width = x.shape
    shape = 1, heads, total - length, width

    def write(row: jax.Array, x: jax.Array) -> jax.Array:
        new = jax.lax.dynamic_slice(x, (row, 0, length, 0), shape)
        new = new if order is None else jnp.take(new, order[row], axis=POSITIONS)
        here = jax.lax.dynamic_slice(x, (row, 0, lengths[row], 0), shape)
        index = jax.lax.broadcasted_iota(jnp.int32, shape, POSITIONS)
        new = jnp.where(index < counts[row], new, here)
        return jax.lax.dynamic_update_slice(x, new, (row, 0, lengths[row], 0))

    return jax.lax.fori_loop(0, batch, write, x)
