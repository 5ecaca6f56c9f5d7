"""Pages of keys and values on TPUs: JAX's own kernel reads them, and one of ours writes new ones to their places.

Reading is ``ragged_paged_attention`` of jax.experimental.pallas.ops.tpu. A row's pages are brought in by blocks
of BLOCK positions, the next block while one is computed; in the last block the row's first page is fetched in
place of those behind the row's end, so that reading is rounded up to whole blocks.

Writing is a copy for every token, all under way at once. XLA would scatter, and for a scatter a TPU's compiler
lays the whole array out anew, and back.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

PAGE = 64  # positions of a page: a copy of 64 KiB with two heads of 128 numbers in bfloat16
BLOCK = 256  # positions that are computed at once
_LANES = 128  # a head's width is a multiple of it
_QUERIES = 32  # tokens whose queries are computed at once, at most


def kernel_obstacle(kv_heads: int, head_dim: int, dtype: DTypeLike) -> str | None:
    """Why JAX's kernel is not for such a cache; None: it is."""
    dtype = jnp.dtype(dtype)
    if dtype not in (jnp.bfloat16, jnp.float32):
        return f"the TPU's kernel for pages is for bfloat16 and float32, not {dtype.name}"
    if head_dim % _LANES:
        return f"the TPU's kernel for pages is for heads of a multiple of {_LANES} numbers, not {head_dim}"
    packed = 4 // dtype.itemsize  # numbers in 32 bits
    tiles = 2 * kv_heads // packed
    if 2 * kv_heads % packed or (tiles not in (1, 2, 4) and tiles % 8):
        return f"the TPU's kernel for pages is not for {kv_heads} key-value heads in {dtype.name}"
    return None


def attend_by_kernel(q: jax.Array, pages: jax.Array, table: jax.Array, starts: jax.Array) -> jax.Array:
    """See :func:`thinkprm_jax.model.pages.attend_pages`."""
    from jax.experimental.pallas.ops.tpu.ragged_paged_attention import ragged_paged_attention

    batch, width, heads, head_dim = q.shape
    tokens = batch * width
    output = ragged_paged_attention(
        q.reshape(tokens, heads, head_dim).astype(pages.dtype),
        pages,
        (starts + width).astype(jnp.int32),
        table,
        jnp.arange(batch + 1, dtype=jnp.int32) * width,
        jnp.full(1, batch, jnp.int32),
        num_kv_pages_per_block=min(max(BLOCK // pages.shape[1], 1), table.shape[1]),
        num_queries_per_block=min(tokens, max(_queries(width), width)),
    )
    return output.astype(jnp.float32).reshape(batch, width, heads, head_dim)


def _queries(width: int) -> int:
    """A row's block is computed with the queries of all rows of a group, of which only its own count: few where a
    row has one."""
    return 8 if width == 1 else _QUERIES


def write_by_kernel(pages: jax.Array, new: jax.Array, places: jax.Array) -> jax.Array:
    """See :func:`thinkprm_jax.model.pages.write_pages`. new: [N, 2 K, h] in the dtype of the pages."""
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu

    return pl.pallas_call(
        _write,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(1,),
            in_specs=[pl.BlockSpec(new.shape, lambda *_: (0, 0, 0)), pl.BlockSpec(memory_space=pl.ANY)],
            out_specs=pl.BlockSpec(memory_space=pl.ANY),
            scratch_shapes=[pltpu.SemaphoreType.DMA],
        ),
        out_shape=jax.ShapeDtypeStruct(pages.shape, pages.dtype),
        input_output_aliases={2: 0},
        name="write_pages",
    )(places, new, pages)


def _write(places, new, before, pages, done):
    """All copies are begun, then all are waited for."""
    from jax.experimental.pallas import tpu as pltpu

    del before  # the same memory as ``pages``

    def copy(i):
        return pltpu.make_async_copy(new.at[i], pages.at[places[0, i], places[1, i]], done)

    def begin(i, _):
        copy(i).start()

    def end(i, _):
        copy(i).wait()

    jax.lax.fori_loop(0, new.shape[0], begin, None)
    jax.lax.fori_loop(0, new.shape[0], end, None)
