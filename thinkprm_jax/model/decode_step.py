"""What a decode step computes beside products with weights, by our own kernels on CPUs (``decode_step.cc``).

XLA's attention reads the whole cache, columns that nobody reads included, and adds in an order that depends on
where a token stands in it and on how many tokens a step has; its sums over a row depend on how many rows there
are. The kernels read what may be read, in the order of the text, and add in one order: what a token gets is the
same, bit for bit, in narrow steps and wide ones, beside whatever rows, in a cache of any length.

They have no derivatives, and are taken where our kernel computes the products (:mod:`.products`).
"""

from __future__ import annotations

import functools
import logging
import math
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from thinkprm_jax.model.native import NoLibraryError, load_library

logger = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("decode_step.cc")
_WIDTH = 16  # of a head: a multiple of it


@functools.lru_cache(maxsize=8)
def load_kernels(flags: tuple[str, ...] = ("-march=native",)) -> str | None:
    """Compiles them where that has not been done, loads them and tells XLA of them.

    Returns: what their names for XLA end with; None where they cannot be compiled, which one line says.
    """
    try:
        library, name = load_library(SOURCE, jax.ffi.include_dir(), flags)
    except NoLibraryError as error:
        logger.warning("attention by XLA, which is slower: %s", error)
        return None
    for kernel in ("attention", "pieces", "sum"):  # compiled programs that are kept name what they were made for
        function = getattr(library, f"thinkprm_{kernel}")
        jax.ffi.register_ffi_target(f"thinkprm_{kernel}_{name}", jax.ffi.pycapsule(function), platform="cpu")
    return name


def can_attend(head_dim: int, dtype: DTypeLike) -> bool:
    """Whether the kernels are for heads of such a width, with keys and values of ``dtype``, and run here."""
    fits = head_dim % _WIDTH == 0 and jnp.dtype(dtype) in (jnp.float32, jnp.bfloat16)
    return fits and load_kernels() is not None


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
    name = load_kernels()
    q = q.astype(keys.dtype).astype(jnp.float32)  # as products round their inputs
    call = jax.ffi.ffi_call(f"thinkprm_attention_{name}", jax.ShapeDtypeStruct(q.shape, jnp.float32))
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
        f"thinkprm_pieces_{load_kernels()}",
        [jax.ShapeDtypeStruct(q.shape, jnp.float32), *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in cache)],
        input_output_aliases={3: 1, 4: 2},
    )
    attended, keys, values = call(q, *(x.astype(keys.dtype) for x in new), keys, values, pieces.astype(jnp.int32))
    return attended, keys, values


def sum_of_squares(x: jax.Array) -> jax.Array | None:
    """Over the last axis of float32 [..., N], which stays: [..., 1]. None: as of :func:`attend_in_order`."""
    return _sum(x, exponentials=False)


def log_sum_exp(x: jax.Array) -> jax.Array | None:
    """log sum exp over the last axis of float32 [..., N], which stays: [..., 1]. None: as of
    :func:`attend_in_order`."""
    return _sum(x, exponentials=True)


def _sum(x: jax.Array, exponentials: bool) -> jax.Array | None:
    rows = math.prod(x.shape[:-1])
    if x.dtype != jnp.float32:
        return None
    name = load_kernels()
    if name is None:
        return None
    call = jax.ffi.ffi_call(f"thinkprm_sum_{name}", jax.ShapeDtypeStruct((rows,), jnp.float32))
    return call(x.reshape(rows, x.shape[-1]), exponentials=exponentials).reshape(*x.shape[:-1], 1)
