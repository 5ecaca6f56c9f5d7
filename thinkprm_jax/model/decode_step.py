"""What a decode step computes beside products with weights, by our own kernels on CPUs (``cc/``).

XLA's attention reads the whole cache, columns that nobody reads included, and adds in an order that depends on
where a token stands in it and on how many tokens a step has; its sums over a row depend on how many rows there
are. The kernels read what may be read, in the order of the text, and add in one order: what a token gets is the
same, bit for bit, in narrow steps and wide ones, beside whatever rows, in a cache of any length.

They have no derivatives, and are taken where our kernels compute the products (:mod:`.products`).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from thinkprm_jax.model.native import NoLibraryError
from thinkprm_jax.model.products import load_kernels

_WIDTH = 16  # of a head: a multiple of it
_DTYPES = (jnp.float32, jnp.bfloat16)


def can_attend(head_dim: int, dtype: DTypeLike) -> bool:
    """Whether the kernels are for heads of such a width, with keys and values of ``dtype``, and run here."""
    if head_dim % _WIDTH or jnp.dtype(dtype) not in _DTYPES:
        return False
    try:
        load_kernels()
    except NoLibraryError:  # whoever chose products has said so
        return False
    return True


def attend_in_order(
    q: jax.Array, keys: jax.Array, values: jax.Array, lengths: jax.Array, written: jax.Array, column: jax.Array
) -> jax.Array | None:
    """Attention of W tokens a row over the row's cache, the tokens themselves in its columns from ``column`` on.

    Args:
      q: [B, W, H, h], rotated and scaled. keys, values: float32 or bfloat16 [B, K, S + C, h].
      lengths: int [B], settled tokens of a row. written: bool [B, C], in which columns it has others.
      column: int [].
    Returns: float32 [B, W, H, h]; None where the kernel is not for such shapes or dtypes, or cannot run.
    """
    if keys.dtype != values.dtype or not can_attend(q.shape[-1], keys.dtype):
        return None
    q = q.astype(keys.dtype).astype(jnp.float32)  # as products round their inputs
    call = jax.ffi.ffi_call(load_kernels().target("attention"), jax.ShapeDtypeStruct(q.shape, jnp.float32))
    return call(q, keys, values, lengths.astype(jnp.int32), written, column.astype(jnp.int32).reshape(1))


def attend_pieces(
    q: jax.Array, new: tuple[jax.Array, jax.Array], cache: tuple[jax.Array, jax.Array], pieces: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Attention of N tokens of several texts, each behind what a row of the cache has of its text.

    Args:
      q: [N, H, h], rotated and scaled. new: their keys and values, [N, K, h] each.
      cache: keys and values, float32 or bfloat16 [B, K, S, h] each; given up.
      pieces: int32 [M, 3]: of each piece a row of the cache, the place of its first token there, and how many of
        the N tokens it is, from where the piece before it ends. A piece of row -1 is padding, and so is what is
        behind the last one.
    Returns: float32 [N, H, h], and the cache with the new ones in their places.
    Raises:
      ValueError: :func:`can_attend` says no.
    """
    keys, values = cache
    if keys.dtype != values.dtype or not can_attend(q.shape[-1], keys.dtype):
        raise ValueError("there is no kernel for such pieces")
    q = q.astype(keys.dtype).astype(jnp.float32)  # as products round their inputs
    call = jax.ffi.ffi_call(
        load_kernels().target("pieces"),
        [jax.ShapeDtypeStruct(q.shape, jnp.float32), *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in cache)],
        input_output_aliases={3: 1, 4: 2},
    )
    attended, keys, values = call(q, *(x.astype(keys.dtype) for x in new), keys, values, pieces.astype(jnp.int32))
    return attended, keys, values


def sum_of_squares(x: jax.Array) -> jax.Array:
    """Over the last axis of [..., N], which stays: float32 [..., 1]."""
    return _sum(x, exponentials=False)


def log_sum_exp(x: jax.Array) -> jax.Array:
    """log sum exp over the last axis of [..., N], which stays: float32 [..., 1]."""
    return _sum(x, exponentials=True)


def largest(logits: jax.Array, divisor: jax.Array, count: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The largest logits of every row, and what all of a row weigh beside its largest one.

    Args:
      logits: float32 [B, V]. divisor: float32 [B, 1], the temperature. count: N, at most V.
    Returns: float32 [B, N], falling; their ids, int32 [B, N], the first of equals first; the sum of
      exp((logits - the largest) / divisor), float32 [B, 1].
    """
    shape = (logits.shape[0], count)
    call = jax.ffi.ffi_call(
        load_kernels().target("largest"),
        (
            jax.ShapeDtypeStruct(shape, jnp.float32),
            jax.ShapeDtypeStruct(shape, jnp.int32),
            jax.ShapeDtypeStruct(shape[:1], jnp.float32),
        ),
    )
    values, ids, weight = call(logits, divisor[:, 0])
    return values, ids, weight[:, None]


def _sum(x: jax.Array, exponentials: bool) -> jax.Array:
    rows = math.prod(x.shape[:-1])
    call = jax.ffi.ffi_call(load_kernels().target("sum"), jax.ShapeDtypeStruct((rows,), jnp.float32))
    numbers = x.reshape(rows, x.shape[-1]).astype(jnp.float32)
    return call(numbers, exponentials=exponentials).reshape(*x.shape[:-1], 1)
