"""The keys and values that exist: the slots' rows, the shelf of parked beginnings, and how they get there."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from thinkprm_jax.model.cache import KVCache
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.sampler.buckets import coarse_buckets, length_buckets, multiple, round_up
from thinkprm_jax.sampler.planning import Work, plan, worth_sharing
from thinkprm_jax.sampler.prefixes import BLOCK, PrefixTree
from thinkprm_jax.sampler.slot import Slot
from thinkprm_jax.sampler.stats import SamplerStats
from thinkprm_jax.sampler.steps import DeviceSteps

logger = logging.getLogger(__name__)

# Prefill works on at most this many tokens at once: enough to fill a device, and it bounds the activations.
PREFILL_TOKENS = 8192
# A longer prompt is prefilled in pieces of this many tokens, each on top of the ones before.
PIECE_TOKENS = 4096
# Blocks of BLOCK tokens that the statistics remember: half a million tokens, some 20 MB of the host.
REMEMBERED_BLOCKS = 2**15


class Store:
    """The device memory of a sampler.

    Args:
      shelf: positions of the shelf, rounded up to whole blocks (and to what a mesh can split).
      share_from: see :class:`thinkprm_jax.sampler.engine.Sampler`.
      parts: devices that the rows are split over.

    Attributes:
      slots: what each row holds, and for whom.
      cache: the rows; None before the first request and while a call has taken it.
    """

    def __init__(
        self,
        steps: DeviceSteps,
        config: ModelConfig,
        stats: SamplerStats,
        *,
        slots: int,
        max_length: int,
        chunk: int,
        dtype: DTypeLike,
        shelf: int,
        share_from: int,
        parts: int,
    ) -> None:
        self._steps, self._config, self._stats = steps, config, stats
        self._chunk, self._dtype, self._share_from = chunk, jnp.dtype(dtype), share_from
        self._rows = slots
        # A row at max_length still needs room for a whole chunk, and a broken token may end a little behind it.
        self._cache_lengths = length_buckets(128, multiple(max_length + chunk + 128, BLOCK))
        piece = min(max_length, PIECE_TOKENS)
        self._prompt_lengths = length_buckets(min(32, piece), piece)
        # Products with weights dominate an extension, so padding of the beginning it attends to costs little, and
        # every pair of lengths is a program. Blocks of queries want multiples of 128.
        self._rest_lengths = coarse_buckets(32, multiple(piece, 128), 2)
        self._known_lengths = coarse_buckets(128, self._cache_lengths[-1], 4)
        self._blocks = multiple(-(-shelf // BLOCK), parts)
        self.reset()

    def reset(self) -> None:
        """Forgets everything and frees its memory."""
        self.slots = [Slot() for _ in range(self._rows)]
        self.cache: KVCache | None = None
        self._remembered = PrefixTree(REMEMBERED_BLOCKS)
        self._clear_shelf()

    def _clear_shelf(self) -> None:
        self._shelf: KVCache | None = None
        self._tree = PrefixTree(self._blocks) if self._blocks else None

    def recover(self) -> None:
        """After a call that was interrupted: forgets what it had taken and never put back."""
        if self.cache is None:
            self.slots = [Slot() for _ in range(self._rows)]
        if self._shelf is None:
            self._clear_shelf()

    @property
    def position_bytes(self) -> int:
        """Of the keys and values of one token, all layers."""
        config = self._config
        return 2 * config.num_layers * config.num_kv_heads * config.head_dim * self._dtype.itemsize

    @property
    def planned_bytes(self) -> int:
        """Of the rows at their longest and the shelf."""
        row = self._cache_lengths[-1] + self._chunk
        return (self._rows * row + self._blocks * BLOCK) * self.position_bytes

    def take_cache(self) -> KVCache:
        """The cache, for a call it is donated to; there is none until the result of the call is put back."""
        cache, self.cache = self.cache, None
        assert cache is not None
        return cache

    def reserve(self, positions: int, shrink: bool = False) -> None:
        """Makes the cache at least ``positions`` long (rounded up to a bucket); smaller too if ``shrink``."""
        length = round_up(positions, self._cache_lengths)
        if self.cache is None:
            self.cache = self._zeros(self._rows, length, self._chunk)
        elif length > self.cache.length or (shrink and length < self.cache.length):
            logger.debug("cache: %d -> %d positions", self.cache.length, length)
            self.cache = self.take_cache().resized(length)
            for slot in self.slots:
                if slot.fed > length:  # a free row: its tail is gone
                    slot.cut(length)

    def _zeros(self, rows: int, length: int, steps: int) -> KVCache:
        sharding = self._steps.cache_sharding(rows, self._config.num_kv_heads)
        return KVCache.zeros(self._config, rows, length, steps, self._dtype, sharding)

    def choose(self, free: Sequence[Slot], prompt: list[int]) -> tuple[Slot, int]:
        """The slot for a prompt, and how many of its tokens stay in that row: the one that has most of them, else
        the one that holds least."""
        wanted = prompt[:-1]

        def kept(slot: Slot) -> int:
            common = slot.common(wanted)
            return common if worth_sharing(common, len(wanted), self._share_from) else 0

        kept_tokens, _, number = max((kept(slot), -slot.fed, -i) for i, slot in enumerate(free))
        return free[-number], kept_tokens

    def fill(self, parameters: Any, admitted: Sequence[Slot]) -> None:
        """Brings the prompts of newly occupied slots into their rows: copied from where they are or prefilled."""
        works = plan(admitted, self.slots, self._tree, self._share_from)
        for work in works:
            self._count(work)
        self.reserve(max(max(slot.fed for slot in self.slots), *(work.goal for work in works), 1))
        for stage in range(works[-1].stage + 1):
            mine = [work for work in works if work.stage == stage]
            self._copy(mine)
            self._prefill([work for work in mine if work.done == 0 < work.goal], parameters)
            while left := [work for work in mine if work.done < work.goal]:
                self._extend(left, parameters)

    def _count(self, work: Work) -> None:
        before, _ = self._remembered.match(work.tokens)
        again = max(min(before, work.goal) - work.known, 0)
        self._stats.reprefilled_tokens += again
        self._stats.prefilled_tokens += work.goal - work.known - again
        self._stats.shared_tokens += work.goal * (len(work.slots) - 1) + work.known
        for slot in work.slots:
            prompt = slot.context[: slot.wanted + 1]
            slot.processed, _ = self._remembered.match(prompt)
            self._remembered.add(prompt)

    def _copy(self, works: Sequence[Work]) -> None:
        """The known tokens of works into the rows that lack them. A row that is read may be written as well, but
        only with what it has already: all copies of a beginning are equal."""
        pairs: list[tuple[int, Slot, int]] = []
        restored: list[tuple[list[int], Slot]] = []
        for work in works:
            source = work.source.slots[0] if isinstance(work.source, Work) else work.source
            if isinstance(source, list):
                restored.extend((source, slot) for slot in work.lacking)
            elif source is not None:
                pairs.extend((self.slots.index(source), slot, 0) for slot in work.lacking)
        if pairs:
            sources, targets, _, count = self._pairs(pairs)
            self.cache = self._steps.copy_rows(self.take_cache(), sources, targets, count)
        if restored:
            self._restore(restored)
        for work in works:
            work.done = work.known
            for slot in work.slots:
                slot.fed = work.known

    def _restore(self, restored: Sequence[tuple[list[int], Slot]]) -> None:
        assert self.cache is not None
        assert self._shelf is not None
        table = np.zeros((self._rows, self.cache.length // BLOCK), np.int32)
        for i, (blocks, _) in enumerate(restored):
            table[i, : len(blocks)] = blocks
        _, targets, _, count = self._pairs([(0, slot, 0) for _, slot in restored])
        self.cache = self._steps.restore(self.take_cache(), self._shelf, table, targets, count)

    def _prefill(self, works: Sequence[Work], parameters: Any) -> None:
        """The first pieces of works of which nothing is known."""
        works = sorted(works, key=_piece)
        while works:
            length = round_up(_piece(works[-1]), self._prompt_lengths)
            rows = _rows_of_call(len(works), length)
            group, works = works[-rows:], works[:-rows]
            tokens = _tokens(group, rows, length)
            self.reserve(length)
            self._insert(self._steps.prefill(parameters, tokens), group)

    def _extend(self, works: Sequence[Work], parameters: Any) -> None:
        """The next pieces of works of which a beginning is in the rows."""
        works = sorted(works, key=lambda work: (round_up(_piece(work), self._rest_lengths), work.done))
        while works:
            length = round_up(_piece(works[-1]), self._rest_lengths)
            known = round_up(works[-1].done, self._known_lengths)
            rows = _rows_of_call(len(works), length + known // 4)
            group, works = works[-rows:], works[:-rows]
            known = round_up(max(work.done for work in group), self._known_lengths)
            tokens = _tokens(group, rows, length)
            sources, places = np.zeros((2, rows), np.int32)
            for row, work in enumerate(group):
                sources[row], places[row] = self.slots.index(work.slots[0]), work.done
            self.reserve(max(length, max(work.done + _piece(work) for work in group)))
            prefix = self._steps.take(self.cache, sources, known)
            self._insert(self._steps.extend(parameters, tokens, places, prefix), group)

    def _insert(self, pieces: KVCache, group: Sequence[Work]) -> None:
        """Row i of ``pieces`` is the next piece of group[i]."""
        pairs = [(row, slot, work.done) for row, work in enumerate(group) for slot in work.slots]
        self.cache = self._steps.insert(self.take_cache(), pieces, *self._pairs(pairs))
        for work in group:
            work.done += _piece(work)
            for slot in work.slots:
                slot.fed = work.done

    def _pairs(
        self, pairs: Sequence[tuple[int, Slot, int]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(source rows, numbers of the target slots, places, how many of them count), padded to B."""
        sources, targets, places = np.zeros((3, self._rows), np.int32)
        for i, (source, slot, place) in enumerate(pairs):
            sources[i], targets[i], places[i] = source, self.slots.index(slot), place
        return sources, targets, places, np.asarray(len(pairs), np.int32)

    def retire(self, slot: Slot) -> None:
        """Frees a slot whose occupant is done."""
        self._remembered.add(slot.context[: slot.fed])
        slot.finish()

    def park(self) -> None:
        """Puts on the shelf what finished requests asked for; before their rows are taken by others."""
        waiting = [slot for slot in self.slots if slot.to_park]
        if not waiting or self._tree is None or self.cache is None:
            return
        if self._shelf is None:
            self._shelf = self._zeros(self._blocks, BLOCK, 0)
        tree, stats = self._tree, self._stats
        table = np.full((self._rows, self.cache.length // BLOCK), self._blocks, np.int32)
        rows: list[int] = []
        shelf, self._shelf = self._shelf, None
        added, evicted = tree.added, tree.evicted
        for slot in waiting:
            writes = tree.add(slot.context[: slot.to_park])
            for block, i in writes:
                table[len(rows), i] = block
            if writes:
                rows.append(self.slots.index(slot))
            slot.to_park = 0
        if rows:
            padded = np.zeros(self._rows, np.int32)
            padded[: len(rows)] = rows
            shelf = self._steps.park(shelf, self.cache, padded, table, np.asarray(len(rows), np.int32))
        self._shelf = shelf
        stats.parked_tokens += tree.added - added
        stats.evicted_tokens += tree.evicted - evicted


def _piece(work: Work) -> int:
    """Tokens of the next call."""
    return min(work.goal - work.done, PIECE_TOKENS)


def _rows_of_call(wanted: int, length: int) -> int:
    """Rows of a prefill: 1, 4, 16, ... such that more than half are wanted, within PREFILL_TOKENS."""
    rows = 1
    while rows * 2 < wanted and rows * 4 * length <= PREFILL_TOKENS:
        rows *= 4
    return rows


def _tokens(group: Sequence[Work], rows: int, length: int) -> np.ndarray:
    """int32 [rows, length]: the next pieces, padded on the right and below."""
    tokens = np.zeros((rows, length), np.int32)
    for row, work in enumerate(group):
        tokens[row, : _piece(work)] = work.tokens[work.done : work.done + _piece(work)]
    return tokens
