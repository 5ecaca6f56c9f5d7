"""A key-value cache of pages: a pool for all rows, and of every row the numbers of its pages, in order.

    pages     L arrays, [P, page, 2 K, h]: at a position the keys and values of K heads by turns (key, value, ...)
    table     int32 [B, N], one for all layers: position p of row b stands in page table[b, p // page], at p % page

A page may stand in the tables of several rows that begin alike; who gives pages out (:mod:`thinkprm_jax.sampler`)
sees to it that none of them writes there. Page 0 is nobody's: tables hold 0 where a row has no page, and what rows
without an occupant write goes there and is never read as anybody's.

Every token goes to its place at once, so there are no columns of a call and nothing to settle, and no shape
depends on how long a row is. What reads and writes the pages is said by name:

    kernel    on TPUs, Pallas (:mod:`.pages_tpu`): writes in place, and reads for decode steps what rows have
    xla       anywhere: a loop over pieces of all rows, up to the end of the longest, each gathered from its pages
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jax.typing import DTypeLike

from thinkprm_jax.model.attention import MASKED
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.matmul import einsum
from thinkprm_jax.model.pages_tpu import attend_by_kernel, reads_by_kernel, write_by_kernel

PageAttention = Literal["kernel", "xla"]
XLA_PIECE = 128  # positions that XLA's attention takes at a time


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["pages", "table"], meta_fields=["steps", "attention"]
)
@dataclasses.dataclass
class PagedCache:
    """Keys and values of B rows; see the module's docstring for shapes.

    Attributes:
      steps: C, tokens that a decode call may feed a row.
      attention: what reads and writes the pages.
    """

    pages: list[jax.Array]
    table: jax.Array | np.ndarray
    steps: int = 0
    attention: PageAttention = "xla"

    @property
    def page(self) -> int:
        """Positions of a page."""
        return self.pages[0].shape[1]

    @classmethod
    def zeros(
        cls,
        config: ModelConfig,
        pages: int,
        page: int,
        dtype: DTypeLike,
        table: tuple[int, int],
        steps: int = 0,
        attention: PageAttention = "xla",
        sharding: Sharding | None = None,
    ) -> PagedCache:
        """An empty pool of ``pages`` pages, page 0 among them, and a table [B, N] in which nobody has any."""
        shape = (pages, page, 2 * config.num_kv_heads, config.head_dim)
        pools = [jnp.zeros(shape, dtype, device=sharding) for _ in range(config.num_layers)]
        return cls(pools, jnp.zeros(table, jnp.int32, device=sharding), steps, attention)


def page_places(table: jax.Array, starts: jax.Array, width: int, page: int) -> jax.Array:
    """Where W = ``width`` tokens of each row go that stand at starts[b] and following.

    Args:
      table: int32 [B, N]. starts: int [B].
    Returns: int32 [2, B x W], pages and places in them; page 0 where a row has none.
    """
    positions = starts[:, None] + jnp.arange(width)
    number = positions // page
    found = jnp.take_along_axis(table, jnp.minimum(number, table.shape[1] - 1), axis=1)
    found = jnp.where(number < table.shape[1], found, 0)
    return jnp.stack([found.reshape(-1), (positions % page).reshape(-1)]).astype(jnp.int32)


def write_pages(
    attention: PageAttention, pages: jax.Array, k: jax.Array, v: jax.Array, places: jax.Array
) -> jax.Array:
    """A layer's pages with the keys and values of N tokens in their places.

    Args:
      pages: [P, page, 2 K, h]; given up. k, v: [N, K, h]. places: int32 [2, N], as of :func:`page_places`.
    """
    new = jnp.stack([k, v], axis=2).reshape(k.shape[0], *pages.shape[2:]).astype(pages.dtype)
    if attention == "kernel":
        return write_by_kernel(pages, new, places)
    # On CPUs XLA scatters bfloat16 by converting the whole array: as bits there.
    bits = jnp.uint16 if pages.dtype.itemsize == 2 and jax.default_backend() == "cpu" else pages.dtype
    pool, new = (jax.lax.bitcast_convert_type(x, bits) if bits != x.dtype else x for x in (pages, new))
    pool = pool.at[places[0], places[1]].set(new)
    return jax.lax.bitcast_convert_type(pool, pages.dtype) if bits != pages.dtype else pool


def attend_pages(
    attention: PageAttention, q: jax.Array, pages: jax.Array, table: jax.Array, starts: jax.Array
) -> jax.Array:
    """Attention of W tokens of each row over what the row has before them and over each other, causally.

    Args:
      q: [B, W, H, h], rotated and scaled. pages: [P, page, 2 K, h], the tokens' own keys and values among them.
      table: int32 [B, N]. starts: int [B], where the first of the W tokens stands.
    Returns: float32 [B, W, H, h].
    """
    if attention == "kernel" and reads_by_kernel(*q.shape[1:3]):
        return attend_by_kernel(q, pages, table, starts)
    return _attend_by_pieces(q, pages, table, starts)


def _attend_by_pieces(q: jax.Array, pages: jax.Array, table: jax.Array, starts: jax.Array) -> jax.Array:
    """All rows in step, piece by piece, with the running maximum and sum of each query. A piece in which a row has
    nothing changes none of its bits, so the result does not depend on how long other rows are."""
    batch, width, heads, head_dim = q.shape
    page, kv_heads = pages.shape[1], pages.shape[2] // 2
    group = heads // kv_heads
    at_once = max(XLA_PIECE // page, 1)
    size = at_once * page
    table = jnp.pad(table, ((0, 0), (0, -table.shape[1] % at_once)))
    q = q.reshape(batch, width, kv_heads, group, head_dim).swapaxes(1, 2)
    q = q.reshape(batch, kv_heads, width * group, head_dim)
    own = starts[:, None] + jnp.repeat(jnp.arange(width), group)  # of each query, int [B, W G]
    last = starts + width - 1

    def piece(i: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        best, total, sums = state
        numbers = jax.lax.dynamic_slice_in_dim(table, i * at_once, at_once, axis=1)
        found = pages[numbers].reshape(batch, size, kv_heads, 2, head_dim)
        place = i * size + jnp.arange(size)
        # What stands behind a row's end may be anything: a weight of zero does not make a zero of it.
        found = jnp.where((place <= last[:, None])[:, :, None, None, None], found, 0)
        scores = einsum("bkrh,bskh->bkrs", q, found[:, :, :, 0], pages.dtype)
        scores = jnp.where((place <= own[:, :, None])[:, None], scores, MASKED)
        new = jnp.maximum(best, jnp.max(scores, axis=-1))
        weights = jnp.exp(scores - new[..., None])
        fade = jnp.exp(best - new)
        read = einsum("bkrs,bskh->bkrh", weights, found[:, :, :, 1], pages.dtype)
        return new, total * fade + jnp.sum(weights, axis=-1), sums * fade[..., None] + read

    shape = (batch, kv_heads, width * group)
    state = jnp.full(shape, MASKED), jnp.zeros(shape), jnp.zeros((*shape, head_dim))
    count = jnp.minimum((jnp.max(last) + size) // size, table.shape[1] // at_once)
    _, total, sums = jax.lax.fori_loop(0, count, piece, state)
    output = (sums / total[..., None]).reshape(batch, kv_heads, width, group, head_dim)
    return output.swapaxes(1, 2).reshape(batch, width, heads, head_dim)


def copy_pages(cache: PagedCache, sources: jax.Array, targets: jax.Array, count: jax.Array) -> PagedCache:
    """The cache with page sources[i] copied to page targets[i], one after the other, for i < count."""

    def every(pages: jax.Array) -> jax.Array:
        def write(i: jax.Array, pages: jax.Array) -> jax.Array:
            page = jax.lax.dynamic_slice_in_dim(pages, sources[i], 1)
            return jax.lax.dynamic_update_slice_in_dim(pages, page, targets[i], 0)

        return jax.lax.fori_loop(0, count, write, pages)

    return dataclasses.replace(cache, pages=[every(pages) for pages in cache.pages])
