"""The device side of the sampler: pure functions over parameters, cache and per-slot controls, jitted per shape.

    prefill   prompts of one length bucket -> keys and values            one compilation per (rows, length)
    take      beginnings of cache rows, for extend                       one per (rows, beginning, cache length)
    extend    tokens behind such beginnings -> keys and values           one per (rows, length, beginning)
    feed      pieces of prompts -> their places in cache rows            one per (length, cache length)
    insert    prefilled rows -> cache rows (one prompt to many slots)    one per (rows, length, cache length)
    copy_rows cache rows -> cache rows (a prompt another slot holds)     one per cache length
    save      cache rows -> blocks of the prefix cache                   one per cache length
    load      blocks of the prefix cache -> cache rows                   one per cache length
    decode    up to `chunk` steps for every slot                         one per cache length; two with drafts

of a cache of pages, whose shape never changes:

    feed_pages  pieces of texts -> their places in pages                 one per number of pieces: two
    copy_pages  pages -> pages of a row that is about to write           one
    decode      as above                                                 one; two with drafts

Only prefill, extend, feed, feed_pages and decode run the model and take long to compile; the others move memory.
That is why extend gets its beginnings from take instead of the whole cache: it is not compiled again when the
cache grows.

Prompts go through the model by prefill and extend, several at a time, padded to the longest. Where our kernels
compute the products (:mod:`thinkprm_jax.model.products`) they go by feed, some of their tokens at a time: a CPU is
as busy with 128 tokens as with thousands, and there is next to no padding.

The rows and the prefix cache are donated everywhere, so there is one of each. The controls are small host arrays
sent whole with every chunk: the host owns the state of a slot, the device only its keys and values.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Self

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jax.typing import DTypeLike

from thinkprm_jax.distributed.mesh import partition_spec
from thinkprm_jax.model.cache import POSITIONS, KVCache, map_bits
from thinkprm_jax.model.decode_step import can_attend
from thinkprm_jax.model.decoder import Decoder, use_products
from thinkprm_jax.model.pages import PagedCache, copy_pages
from thinkprm_jax.model.products import Products
from thinkprm_jax.sampler.decoding import ChunkOutput, Controls, decode


class DeviceFunctions:
    """The jitted functions for one architecture and mesh; shared by every sampler that uses the same."""

    def __init__(self, graphdef: nnx.GraphDef, mesh: Mesh | None, chunk: int, products: Products) -> None:
        self._graphdef = graphdef
        self._products = products
        self._mesh = mesh
        self._place: Sharding | None = None  # of arrays that nobody gave us
        self._chunk = chunk
        self.prefill = jax.jit(self._prefill)
        self.take = jax.jit(self._take, static_argnums=2)
        self.extend = jax.jit(self._extend)
        self.feed = jax.jit(self._feed, donate_argnums=1)
        self.insert = jax.jit(self._insert, donate_argnums=0)
        self.copy_rows = jax.jit(self._copy_rows, donate_argnums=0)
        self.save = jax.jit(self._save, donate_argnums=0)
        self.load = jax.jit(self._load, donate_argnums=0)
        self.feed_pages = jax.jit(self._feed_pages, donate_argnums=1)
        self.copy_pages = jax.jit(copy_pages, donate_argnums=0)
        self.decode = jax.jit(self._decode, donate_argnums=1)

    def on(self, device: jax.Device) -> Self:
        """The same functions for a cache on this device: what is traced is shared, and compiled for each device
        that calls it."""
        placed = copy.copy(self)
        placed._place = SingleDeviceSharding(device)
        return placed

    def compilations(self) -> int:
        """How many programs have been compiled so far; takes, inserts and copies count for all models of the
        process."""
        moving = (self.take, self.insert, self.copy_rows, self.save, self.load, self.copy_pages)
        every = (self.prefill, self.extend, self.feed, self.feed_pages, self.decode, *moving)
        return sum(function._cache_size() for function in every)  # type: ignore[attr-defined]  # JAX's types lack it

    def feeds(self, head_dim: int, dtype: DTypeLike) -> bool:
        """Whether prompts go through the model by feed, with a cache of such heads in ``dtype``."""
        return self._products == "native" and can_attend(head_dim, dtype)

    def cache_sharding(self, batch: int, kv_heads: int) -> Sharding | None:
        """Slots (or blocks of the prefix cache) over data and fsdp, KV heads over tensor (copied where too
        few)."""
        if self._mesh is None:
            return self._place
        counts = {"batch": batch, "kv_heads": kv_heads}
        spec = list(partition_spec(self._mesh, ("batch", "kv_heads"), counts))
        while spec and spec[-1] is None:  # as XLA writes it: jit takes P(x) and P(x, None) for two shardings
            spec.pop()
        return NamedSharding(self._mesh, PartitionSpec(*spec))

    def model(self, parameters: nnx.State) -> Decoder:
        """The decoder around these parameters, with the products that the samplers use."""
        model = nnx.merge(self._graphdef, parameters)
        use_products(model, self._products)
        return model

    def _keep_sharding(self, cache: KVCache) -> KVCache:
        sharding = self.cache_sharding(*cache.keys[0].shape[:2])
        if sharding is None:
            return cache
        return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, sharding), cache)

    def _prefill(self, parameters: nnx.State, tokens: jax.Array) -> KVCache:
        """tokens int [R, T], right padded -> keys and values of every position (padding's are never read)."""
        return self.model(parameters).prefill(tokens)

    def _extend(self, parameters: nnx.State, tokens: jax.Array, lengths: jax.Array, prefix: KVCache) -> KVCache:
        """tokens int [R, T], right padded, behind lengths[r] positions of prefix row r -> keys and values."""
        return self.model(parameters).extend(tokens, lengths, prefix)

    def _feed(self, parameters: nnx.State, cache: KVCache, tokens: jax.Array, pieces: jax.Array) -> KVCache:
        """tokens int [N] of pieces int [M, 3] to their places in the cache: see :meth:`.Decoder.extend_rows`."""
        return self.model(parameters).extend_rows(tokens, pieces, cache)

    def _feed_pages(
        self, parameters: nnx.State, cache: PagedCache, tokens: jax.Array, pieces: jax.Array
    ) -> PagedCache:
        """tokens int [M, T] of pieces int [M, 2] to their places in pages: see :meth:`.Decoder.extend_pages`."""
        return self.model(parameters).extend_pages(tokens, pieces, cache)

    @staticmethod
    def _take(cache: KVCache, rows: jax.Array, length: int) -> KVCache:
        """The first ``length`` positions of cache rows int [R]; zeros where the cache is shorter."""

        def all_rows(x: jax.Array) -> jax.Array:
            kept = min(length, x.shape[POSITIONS])
            shape = (1, x.shape[1], kept, x.shape[3])
            taken = jax.vmap(lambda row: jax.lax.dynamic_slice(x, (row, 0, 0, 0), shape)[0])(rows)
            return jnp.pad(taken, ((0, 0), (0, 0), (0, length - kept), (0, 0)))

        return dataclasses.replace(map_bits(all_rows, cache), steps=0)

    @staticmethod
    def _insert(
        cache: KVCache,
        rows: KVCache,
        sources: jax.Array,
        targets: jax.Array,
        places: jax.Array,
        count: jax.Array,
    ) -> KVCache:
        """Writes prefilled row sources[i] to cache row targets[i] from position places[i] on, for i < count.

        Padding that would stand behind the cache's end is left out.
        """

        def all_rows(old: jax.Array, new: jax.Array) -> jax.Array:
            _, heads, length, width = new.shape
            last = old.shape[POSITIONS] - length

            def write(i: jax.Array, old: jax.Array) -> jax.Array:
                begin = jnp.minimum(places[i], last)
                late = places[i] - begin  # so many positions too early, and as much padding cut
                row = jax.lax.dynamic_slice_in_dim(new, sources[i], 1)
                here = jax.lax.dynamic_slice(old, (targets[i], 0, begin, 0), (1, heads, length, width))
                index = jax.lax.broadcasted_iota(jnp.int32, here.shape, POSITIONS)
                row = jnp.concatenate([row, row], axis=POSITIONS)  # rolled by a slice
                row = jax.lax.dynamic_slice_in_dim(row, length - late, length, axis=POSITIONS)
                row = jnp.where(index < late, here, row)
                return jax.lax.dynamic_update_slice(old, row, (targets[i], 0, begin, 0))

            return jax.lax.fori_loop(0, count, write, old)

        return map_bits(all_rows, cache, rows)

    @staticmethod
    def _copy_rows(cache: KVCache, sources: jax.Array, targets: jax.Array, count: jax.Array) -> KVCache:
        """Copies cache row sources[i] to row targets[i], for i < count."""

        def all_rows(old: jax.Array) -> jax.Array:
            def write(i: jax.Array, old: jax.Array) -> jax.Array:
                row = jax.lax.dynamic_slice_in_dim(old, sources[i], 1)
                return jax.lax.dynamic_update_slice_in_dim(old, row, targets[i], 0)

            return jax.lax.fori_loop(0, count, write, old)

        return map_bits(all_rows, cache)

    def _save(
        self, prefixes: KVCache, cache: KVCache, rows: jax.Array, blocks: jax.Array, count: jax.Array
    ) -> KVCache:
        """Writes block j of cache row rows[i] to block blocks[i, j] of the prefix cache, for i < count; not where
        that is none.

        Args:
          prefixes: P blocks, [P, K, block, h] a layer. blocks: int [B, S / block], P: none.
        """
        length = cache.length

        def all_rows(prefixes: jax.Array, cache: jax.Array) -> jax.Array:
            _, heads, block, width = prefixes.shape

            def write(i: jax.Array, prefixes: jax.Array) -> jax.Array:
                row = jax.lax.dynamic_index_in_dim(cache, rows[i], keepdims=False)[:, :length]
                row = row.reshape(heads, length // block, block, width).swapaxes(0, 1)
                return prefixes.at[blocks[i]].set(row, mode="drop")

            return jax.lax.fori_loop(0, count, write, prefixes)

        return self._keep_sharding(map_bits(all_rows, prefixes, cache))

    def _load(
        self, cache: KVCache, prefixes: KVCache, blocks: jax.Array, targets: jax.Array, count: jax.Array
    ) -> KVCache:
        """Fills cache row targets[i] with the prefix cache's blocks[i], int [B, S / block], for i < count."""
        length = cache.length

        def all_rows(old: jax.Array, prefixes: jax.Array) -> jax.Array:
            def write(i: jax.Array, old: jax.Array) -> jax.Array:
                row = prefixes[blocks[i]].swapaxes(0, 1).reshape(1, old.shape[1], length, old.shape[3])
                return jax.lax.dynamic_update_slice(old, row, (targets[i], 0, 0, 0))

            return jax.lax.fori_loop(0, count, write, old)

        return self._keep_sharding(map_bits(all_rows, cache, prefixes))

    def _decode(
        self, parameters: nnx.State, cache: KVCache | PagedCache, controls: Controls
    ) -> tuple[KVCache | PagedCache, ChunkOutput]:
        """See :func:`.decoding.decode`. With drafts, a chunk is twice as many columns: its steps are fewer, and
        rows that have none leave columns empty."""
        limit = self._chunk if controls.drafts is None else 2 * self._chunk
        split = self._mesh is not None and self._mesh.size > 1
        cache, output = decode(self.model(parameters), cache, controls, limit, split)
        return cache if isinstance(cache, PagedCache) else self._keep_sharding(cache), output


def call_columns(chunk: int, drafted: int) -> int:
    """C, columns of the cache for a decode call with drafts of up to ``drafted`` tokens; 0: without."""
    return 2 * chunk + drafted if drafted else chunk


@functools.lru_cache(maxsize=128)
def device_functions(
    graphdef: nnx.GraphDef, mesh: Mesh | None, chunk: int, products: Products = "xla"
) -> DeviceFunctions:
    """The functions for this architecture, made once: two samplers of one model share every compilation."""
    return DeviceFunctions(graphdef, mesh, chunk, products)
