"""The device side of the sampler: pure functions over parameters, cache and per-slot controls, jitted per shape.

    prefill   prompts of one length bucket -> keys and values            one compilation per (rows, length)
    take      beginnings of cache rows, for extend                       one per (rows, beginning, cache length)
    extend    tokens behind such beginnings -> keys and values           one per (rows, length, beginning)
    insert    prefilled rows -> cache rows (one prompt to many slots)    one per (rows, length, cache length)
    copy_rows cache rows -> cache rows (a prompt another slot holds)     one per cache length
    save      cache rows -> blocks of the prefix cache                   one per cache length
    load      blocks of the prefix cache -> cache rows                   one per cache length
    decode    up to `chunk` tokens for every slot                        one per cache length

Only prefill, extend and decode run the model and take long to compile; the others move memory. That is why extend
gets its beginnings from take instead of the whole cache: it is not compiled again when the cache grows.

The rows and the prefix cache are donated everywhere, so there is one of each. The controls are small host arrays
sent whole with every chunk: the host owns the state of a slot, the device only its keys and values.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from thinkprm_jax.distributed.mesh import partition_spec
from thinkprm_jax.model.cache import POSITIONS, KVCache, map_bits, settle
from thinkprm_jax.model.decoder import Decoder, use_products
from thinkprm_jax.model.products import Products
from thinkprm_jax.sampler.request import MAX_WATCHED
from thinkprm_jax.sampler.sampling import log_probabilities, sample


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "pending", "pending_count", "positions", "active", "budgets", "stop_ids", "watch",
        "temperature", "top_k", "top_p", "keys", "leave_below",
    ],
    meta_fields=[],
)  # fmt: skip
@dataclasses.dataclass
class Controls:
    """What every slot is to do in the next chunk; B slots, chunks of C steps."""

    pending: Any  # int32 [B, C]: context tokens that are not in the cache yet, the first C of them
    pending_count: Any  # int32 [B]: how many there are in all, at least 1 (may exceed C)
    positions: Any  # int32 [B]: where pending[:, 0] stands; as many tokens of the row are in the cache
    active: Any  # bool [B]: what an inactive slot computes is thrown away
    budgets: Any  # int32 [B]: tokens to sample; 0: only report the watched log-probabilities once
    stop_ids: Any  # int32 [B, MAX_STOP_IDS], -1 where unused
    watch: Any  # int32 [B, MAX_WATCHED], 0 where unused
    temperature: Any  # float32 [B]
    top_k: Any  # int32 [B]
    top_p: Any  # float32 [B]
    keys: Any  # uint32 [B, 2]
    leave_below: Any  # int32 []: leave the chunk when fewer slots than this are active


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["tokens", "logprobs", "watched", "counts", "fed", "active", "steps"],
    meta_fields=[],
)
@dataclasses.dataclass
class ChunkOutput:
    """What a chunk did; everything the host needs, fetched in one transfer."""

    tokens: Any  # int32 [B, C]: sampled tokens, the first counts[b] of row b
    logprobs: Any  # float32 [B, C]: their log-probabilities
    watched: Any  # float32 [B, C, MAX_WATCHED]: of the watched ids at the same positions
    counts: Any  # int32 [B]
    fed: Any  # int32 [B]: tokens of the context that entered the cache
    active: Any  # bool [B]: still wants to go on
    steps: Any  # int32 []: decode steps taken


class DeviceFunctions:
    """The jitted functions for one architecture and mesh; shared by every sampler that uses the same."""

    def __init__(self, graphdef: nnx.GraphDef, mesh: Mesh | None, chunk: int, products: Products) -> None:
        self._graphdef = graphdef
        self._products = products
        self._mesh = mesh
        self._chunk = chunk
        self.prefill = jax.jit(self._prefill)
        self.take = jax.jit(self._take, static_argnums=2)
        self.extend = jax.jit(self._extend)
        self.insert = jax.jit(self._insert, donate_argnums=0)
        self.copy_rows = jax.jit(self._copy_rows, donate_argnums=0)
        self.save = jax.jit(self._save, donate_argnums=0)
        self.load = jax.jit(self._load, donate_argnums=0)
        self.decode = jax.jit(self._decode, donate_argnums=1)

    def compilations(self) -> int:
        """How many programs have been compiled so far; takes, inserts and copies count for all models of the
        process."""
        moving = (self.take, self.insert, self.copy_rows, self.save, self.load)
        every = (self.prefill, self.extend, self.decode, *moving)
        return sum(function._cache_size() for function in every)  # type: ignore[attr-defined]  # JAX's types lack it

    def cache_sharding(self, batch: int, kv_heads: int) -> NamedSharding | None:
        """Slots (or blocks of the prefix cache) over data and fsdp, KV heads over tensor (copied where too
        few)."""
        if self._mesh is None:
            return None
        counts = {"batch": batch, "kv_heads": kv_heads}
        spec = list(partition_spec(self._mesh, ("batch", "kv_heads"), counts))
        while spec and spec[-1] is None:  # as XLA writes it: jit takes P(x) and P(x, None) for two shardings
            spec.pop()
        return NamedSharding(self._mesh, PartitionSpec(*spec))

    def _model(self, parameters: nnx.State) -> Decoder:
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
        return self._model(parameters).prefill(tokens)

    def _extend(self, parameters: nnx.State, tokens: jax.Array, lengths: jax.Array, prefix: KVCache) -> KVCache:
        """tokens int [R, T], right padded, behind lengths[r] positions of prefix row r -> keys and values."""
        return self._model(parameters).extend(tokens, lengths, prefix)

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

    def _decode(self, parameters: nnx.State, cache: KVCache, controls: Controls) -> tuple[KVCache, ChunkOutput]:
        """Up to C steps for all slots; a slot feeds its pending tokens, then samples until it must stop."""
        model = self._model(parameters)
        batch, chunk = controls.pending.shape
        rows = jnp.arange(batch)
        lengths = jnp.asarray(controls.positions)
        rotations = model.rotations(lengths, chunk)
        start = ChunkOutput(
            tokens=jnp.zeros((batch, chunk), jnp.int32),
            logprobs=jnp.zeros((batch, chunk), jnp.float32),
            watched=jnp.zeros((batch, chunk, MAX_WATCHED), jnp.float32),
            counts=jnp.zeros(batch, jnp.int32),
            fed=jnp.zeros(batch, jnp.int32),
            active=jnp.asarray(controls.active),
            steps=jnp.zeros((), jnp.int32),
        )

        def wanted(carry: tuple) -> jax.Array:
            _, _, output = carry
            enough = jnp.sum(output.active) >= jnp.maximum(controls.leave_below, 1)
            return (output.steps < chunk) & enough

        def step(carry: tuple) -> tuple:
            token, cache, output = carry
            state, cache = model.step(token, lengths, output.steps, rotations, cache)
            logits = model.unembed(state)
            # The logits count where the context is all fed; before that the next token is a given one.
            fed = output.fed + output.active
            ready = output.active & (fed >= controls.pending_count)
            sampled = sample(
                logits,
                controls.temperature,
                controls.top_k,
                controls.top_p,
                controls.keys,
                lengths + output.steps + 1,
            )
            asked = jnp.concatenate([sampled[:, None], controls.watch], axis=1)
            logprobs = log_probabilities(logits, asked)
            emitted = ready & (controls.budgets > 0)
            slot = jnp.minimum(output.counts, chunk - 1)
            counts = output.counts + emitted
            stopped = ready & (
                (counts >= controls.budgets) | jnp.any(sampled[:, None] == controls.stop_ids, axis=1)
            )
            active = output.active & ~stopped
            given = jnp.take_along_axis(controls.pending, jnp.minimum(fed, chunk - 1)[:, None], axis=1)[:, 0]
            token = jnp.where(active, jnp.where(ready, sampled, given), token)
            output = ChunkOutput(
                tokens=_put(output.tokens, rows, slot, sampled, emitted),
                logprobs=_put(output.logprobs, rows, slot, logprobs[:, 0], emitted),
                watched=_put(output.watched, rows, slot, logprobs[:, 1:], ready),
                counts=counts,
                fed=fed,
                active=active,
                steps=output.steps + 1,
            )
            return token, cache, output

        first = jnp.asarray(controls.pending)[:, 0]
        _, cache, output = jax.lax.while_loop(wanted, step, (first, cache, start))
        cache = settle(cache, lengths, output.fed, split=self._mesh is not None and self._mesh.size > 1)
        return self._keep_sharding(cache), output


def _put(array: jax.Array, rows: jax.Array, columns: jax.Array, new: jax.Array, where: jax.Array) -> jax.Array:
    """array[rows, columns] = new in the rows where ``where`` holds."""
    old = array[rows, columns]
    where = where.reshape(where.shape + (1,) * (new.ndim - 1))
    return array.at[rows, columns].set(jnp.where(where, new, old))


@functools.lru_cache(maxsize=32)
def device_functions(
    graphdef: nnx.GraphDef, mesh: Mesh | None, chunk: int, products: Products = "xla"
) -> DeviceFunctions:
    """The functions for this architecture, made once: two samplers of one model share every compilation."""
    return DeviceFunctions(graphdef, mesh, chunk, products)
