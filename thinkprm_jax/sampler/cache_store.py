"""The keys and values that exist: the slots' rows, the prefix cache, and how they get there.

    sizes         few, so that few programs are compiled (:mod:`.buckets`)
    CacheRow      on the host: which tokens stand in a row (:mod:`.cache_row`)
    PrefixTree    on the host: which tokens stand in which block of the prefix cache (:mod:`.prefix_tree`)
    plan          of the prompts of one admission: what is copied, from where, and what is processed
                  (:mod:`.prefill_plan`)
    CacheStore    what all kinds of cache do with these, and what is counted
    RowStore      the kind that has a row of positions for every slot: the arrays, and the calls that bring a plan
                  about; :class:`.PageStore` is the other kind

Rows are contiguous, because a decode step reads them at every token; the prefix cache is blocks of 16 positions,
because it is read and written once a request, and because a search keeps many contexts that differ in their last
tokens only. Copying between rows and blocks is moving memory; attention over blocks in place would cost a gather,
or a kernel of its own, at every token: where there is one, the cache is of pages. When the prefix cache is full,
what was unused for longest is evicted; if a prompt begins with it after all, it is processed again, and counted.
"""

from __future__ import annotations

import abc
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from thinkprm_jax.model.cache import POSITIONS, KVCache
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.sampler.buckets import coarse_buckets, length_buckets, multiple
from thinkprm_jax.sampler.cache_row import CacheRow
from thinkprm_jax.sampler.device import DeviceFunctions
from thinkprm_jax.sampler.prefill_plan import PrefillWork, RowChooser, plan
from thinkprm_jax.sampler.prefix_tree import BLOCK, PrefixTree
from thinkprm_jax.sampler.request import SamplerStats

logger = logging.getLogger(__name__)

# Prefill works on at most this many tokens at once: enough to fill a device, and it bounds the activations.
PREFILL_TOKENS = 8192
# A longer prompt is prefilled in pieces of this many tokens, each on top of the ones before.
PIECE_TOKENS = 4096
# Tokens of a call where prompts are fed in pieces (:mod:`.device`).
FEED_TOKENS = (128, 32)
# Blocks of tokens that the statistics remember: half a million tokens, some 20 MB of the host.
REMEMBERED_BLOCKS = 2**15
ROWS_STRIDE = 4  # by which the number of rows changes at least: each is a decode program of its own

Arrays = TypeVar("Arrays")  # of a kind of cache
# Of a row that ran in a chunk: the tokens that it had before, those that it fed, and in how many steps.
Fed: TypeAlias = tuple[int, int, int]


def round_up(value: int, buckets: tuple[int, ...]) -> int:
    """The smallest bucket that holds ``value``; ValueError if none does."""
    for size in buckets:
        if size >= value:
            return size
    raise ValueError(f"{value} is above the largest bucket {buckets[-1]}")


def live_positions(moved: Sequence[Fed]) -> int:
    """Positions that the steps of a chunk had to read: at each of them what a row had and the tokens it fed. Where
    a row feeds several tokens in some of its steps, they count as spread evenly."""
    return sum(steps * before + fed * (steps + 1) // 2 for before, fed, steps in moved)


class CacheStore(abc.ABC, Generic[Arrays]):
    """The device memory of a sampler.

    Args:
      stats: what is counted here.
      row_counts: how many rows there may be, rising; of one number, that many always.
      columns: of a decode call. dtype: of keys and values.
      blocks: of the prefix cache. block: positions of one.
      share_from: see :class:`thinkprm_jax.sampler.engine.Sampler`.

    Attributes:
      capacity: rows, at most. columns: as given. length: positions of a row, as far as it can be now.
      feeds: whether pieces of several contexts are fed by one call.
      rows: what each row of the cache holds.
      cache: the arrays; None before the first request and while a call has taken them.
    """

    feeds: bool
    length: int

    def __init__(
        self,
        config: ModelConfig,
        stats: SamplerStats,
        *,
        row_counts: tuple[int, ...],
        columns: int,
        dtype: DTypeLike,
        blocks: int,
        block: int,
        share_from: int,
    ) -> None:
        self._config, self._stats = config, stats
        self.columns, self._dtype, self._share_from = columns, jnp.dtype(dtype), share_from
        self._row_counts, self.capacity = row_counts, row_counts[-1]
        self._blocks, self._block = blocks, block
        self.reset()

    def reset(self) -> None:
        """Forgets everything and frees its memory."""
        self.rows = [CacheRow(number) for number in range(self._row_counts[0])]
        self.cache: Arrays | None = None
        self.forget()

    def forget(self) -> None:
        """Forgets what free rows and the prefix cache hold, of other weights, and keeps their memory."""
        self.rows = [CacheRow(number) for number in range(len(self.rows))]
        self._remembered = PrefixTree(REMEMBERED_BLOCKS)
        self._clear_tree()

    def _clear_tree(self) -> None:
        self._tree = PrefixTree(self._blocks, self._block) if self._blocks else None

    @abc.abstractmethod
    def recover(self) -> None:
        """After a call that was interrupted: frees all rows, and forgets what it had taken and never put back."""

    @property
    def position_bytes(self) -> int:
        """Of the keys and values of one token, all layers."""
        config = self._config
        return 2 * config.num_layers * config.num_kv_heads * config.head_dim * self._dtype.itemsize

    @property
    @abc.abstractmethod
    def planned_bytes(self) -> int:
        """Of the rows at their longest and the prefix cache."""

    def take_cache(self) -> Arrays:
        """The cache, for a call it is donated to; there is none until the result of the call is put back."""
        cache, self.cache = self.cache, None
        assert cache is not None
        return cache

    def fit_rows(self, wanted: int) -> None:
        """Changes the number of rows, and their numbers, where so many occupants ask for it: not for a few, since
        every number is a program. Of the free rows those with the least in them go first."""
        count, stride = len(self.rows), ROWS_STRIDE if self.cache is not None else 1
        if 0 < wanted <= count // stride:
            new = round_up(wanted, self._row_counts)
        elif wanted > count:
            new = round_up(min(max(wanted, count * stride), self.capacity), self._row_counts)
        else:
            return
        if new == count:
            return
        kept = sorted(self.rows, key=lambda row: (not row.busy, not row.to_save, -row.fed))[:new]
        kept += [CacheRow() for _ in range(new - len(kept))]
        self._arrange(kept)
        self.rows = kept
        for number, row in enumerate(kept):
            row.number = number

    @abc.abstractmethod
    def _arrange(self, kept: Sequence[CacheRow]) -> None:
        """Has these rows in this order, and no others, in the arrays, if there are any."""

    @abc.abstractmethod
    def make_room(self, wanted: Sequence[tuple[CacheRow, int]]) -> frozenset[int]:
        """Room for a decode call: for each of these rows, the oldest first, for its first so many positions.

        Returns: numbers of rows that there is no memory for at present; they have to wait, and may have lost what
        they held: then they are fed again.
        """

    def chooser(self) -> RowChooser:
        """Of rows for the prompts of one admission."""
        return RowChooser(self.rows, self._share_from)

    def fill(self, parameters: nnx.State, admitted: Sequence[CacheRow], begin: Callable[[], None]) -> None:
        """Copies or prefills the prompts of newly occupied rows; tells ``begin`` when the device goes to work."""
        works = plan(admitted, self.rows, self._tree, self._share_from)
        for work in works:
            self._count(work)
        begin()
        self._prepare(works)
        for stage in range(works[-1].stage + 1):
            self._process([work for work in works if work.stage == stage], parameters)

    @abc.abstractmethod
    def _prepare(self, works: Sequence[PrefillWork]) -> None:
        """Before the works of an admission: arrays for them."""

    @abc.abstractmethod
    def _process(self, works: Sequence[PrefillWork], parameters: nnx.State) -> None:
        """Works of one stage to their ends."""

    @abc.abstractmethod
    def with_room(self, wanted: Sequence[tuple[CacheRow, int]]) -> list[tuple[CacheRow, int]]:
        """Of rows and the tokens that are to be fed to each, those that there is room for now."""

    @abc.abstractmethod
    def feed(self, wanted: Sequence[tuple[CacheRow, int]], parameters: nnx.State) -> None:
        """Feeds of each of these rows the context up to its first so many tokens, whichever rows share a call.
        :attr:`feeds` says whether that can be done, and :meth:`with_room` for which of them."""

    def _count(self, work: PrefillWork) -> None:
        before, _ = self._remembered.match(work.tokens)
        again = max(min(before, work.goal) - work.known, 0)
        work.again = again
        self._stats.reprefilled_tokens += again
        self._stats.prefilled_tokens += work.goal - work.known - again
        self._stats.shared_tokens += work.goal * (len(work.rows) - 1) + work.known
        for row in work.rows:
            prompt = row.context[: row.wanted + 1]
            row.processed, _ = self._remembered.match(prompt)
            self._remembered.add(prompt)

    def _uncount(self, work: PrefillWork, done: int) -> None:
        """Of a work of which only ``done`` tokens are done now; what was processed before are the first ones."""
        left = work.goal - done
        again = max(work.again - (done - work.known), 0)
        self._stats.reprefilled_tokens -= again
        self._stats.prefilled_tokens -= left - again
        self._stats.shared_tokens -= left * (len(work.rows) - 1)

    def retire(self, row: CacheRow, keep: int) -> None:
        """Frees a row whose occupant is done; the first ``keep`` tokens of its context shall be in the prefix
        cache before the row is taken by another."""
        self._remembered.add(row.context[: row.fed])
        row.to_save = min(keep, row.fed)
        row.release()

    @abc.abstractmethod
    def save(self) -> None:
        """Puts into the prefix cache what finished requests asked for."""

    def count_bytes(self, steps: int, moved: Sequence[Fed]) -> None:
        """Counts what the ``steps`` of a chunk read, in which the given rows ran, and what was held then."""
        stats, each = self._stats, self.position_bytes
        stats.cache_bytes_live += live_positions(moved) * each
        stats.cache_bytes_read += self._positions_read(steps, moved) * each
        live = sum(before + fed for before, fed, _ in moved)
        stats.peak_live_bytes = max(stats.peak_live_bytes, live * each)
        stats.peak_cache_bytes = max(stats.peak_cache_bytes, self._positions_held() * each)

    @abc.abstractmethod
    def _positions_read(self, steps: int, moved: Sequence[Fed]) -> int:
        """By all steps of a chunk together."""

    @abc.abstractmethod
    def _positions_held(self) -> int:
        """For rows that run, at this moment."""


class RowStore(CacheStore[KVCache]):
    """Rows of one length S, that of a bucket; see :class:`.CacheStore`.

    Args:
      device: the functions of this architecture, mesh and chunk.
      max_length: as of the sampler.
      prefix_cache: its positions, rounded up to whole blocks (and to what a mesh can split).
      parts: devices that the rows are split over.

    Attributes:
      length: S; 0: there is no cache yet.
    """

    def __init__(
        self,
        device: DeviceFunctions,
        config: ModelConfig,
        stats: SamplerStats,
        *,
        row_counts: tuple[int, ...],
        max_length: int,
        columns: int,
        dtype: DTypeLike,
        prefix_cache: int,
        share_from: int,
        parts: int,
    ) -> None:
        self._device = device
        # A row at max_length still needs room for a whole call, and a broken token may end a little behind it.
        longest = multiple(max_length + columns + 128, BLOCK)
        # Our kernel of attention reads what is live, XLA's a row to the end of the bucket: then they are finer.
        self.feeds = device.feeds(config.head_dim, jnp.dtype(dtype))
        self._cache_lengths = (coarse_buckets if self.feeds else length_buckets)(128, longest)
        piece = min(max_length, PIECE_TOKENS)
        self._prompt_lengths = length_buckets(min(32, piece), piece)
        # Products with weights dominate an extension, so padding of the beginning it attends to costs little, and
        # every pair of lengths is a program. Blocks of queries want multiples of 128.
        self._rest_lengths = coarse_buckets(32, multiple(piece, 128), 2)
        self._known_lengths = coarse_buckets(128, self._cache_lengths[-1], 4)
        super().__init__(
            config,
            stats,
            row_counts=row_counts,
            columns=columns,
            dtype=dtype,
            blocks=multiple(-(-prefix_cache // BLOCK), parts),
            block=BLOCK,
            share_from=share_from,
        )

    def reset(self) -> None:
        self.length = 0
        self._prefixes: KVCache | None = None
        super().reset()

    def recover(self) -> None:
        for row in self.rows:
            row.release()
        if self.cache is None:
            self.rows = [CacheRow(number) for number in range(len(self.rows))]
        if self._prefixes is None:
            self._clear_tree()

    @property
    def planned_bytes(self) -> int:
        row = self._cache_lengths[-1] + self.columns
        return (self.capacity * row + self._blocks * BLOCK) * self.position_bytes

    def _arrange(self, kept: Sequence[CacheRow]) -> None:
        if self.cache is not None:
            order = np.asarray([row.number for row in kept], np.int32)  # a new row begins as a copy of the first
            self.cache = _moved(self.take_cache(), lambda x: _take_rows(x, order))

    def make_room(self, wanted: Sequence[tuple[CacheRow, int]]) -> frozenset[int]:
        self.reserve(max(row.fed for row, _ in wanted) + self.columns, shrink=True)
        return frozenset()

    def with_room(self, wanted: Sequence[tuple[CacheRow, int]]) -> list[tuple[CacheRow, int]]:
        return list(wanted)

    def reserve(self, positions: int, shrink: bool = False) -> None:
        """Makes the cache at least ``positions`` long (rounded up to a bucket); smaller too if ``shrink``."""
        length = round_up(positions, self._cache_lengths)
        if self.cache is None:
            self.cache = self._zeros(len(self.rows), length, self.columns)
        elif length > self.length or (shrink and length < self.length):
            logger.debug("cache: %d -> %d positions", self.length, length)
            self.cache = self._resized(self.take_cache(), length)
            for row in self.rows:
                if row.fed > length:  # a free row: its tail is gone
                    row.cut(length)
        else:
            return
        self.length = length

    def _resized(self, cache: KVCache, length: int) -> KVCache:
        """The same rows with room for ``length`` tokens; what does not fit is cut. The given one is used up."""
        kept, total = min(self.length, length), length + self.columns
        return _moved(cache, lambda x: _resize(x, kept, total))

    def _zeros(self, rows: int, length: int, steps: int) -> KVCache:
        sharding = self._device.cache_sharding(rows, self._config.num_kv_heads)
        return KVCache.zeros(self._config, rows, length, steps, self._dtype, sharding)

    def _prepare(self, works: Sequence[PrefillWork]) -> None:
        self.reserve(max(max(row.fed for row in self.rows), *(work.goal for work in works), 1))

    def _process(self, works: Sequence[PrefillWork], parameters: nnx.State) -> None:
        self._copy(works)
        if self.feeds:
            self._feed_works(works, parameters)
            return
        self._prefill([work for work in works if work.done == 0 < work.goal], parameters)
        while left := [work for work in works if work.done < work.goal]:
            self._extend(left, parameters)

    def _copy(self, works: Sequence[PrefillWork]) -> None:
        """The known tokens of works into the rows that lack them. A row that is read may be written as well, but
        only with what it has already: all copies of a beginning are equal."""
        pairs: list[tuple[int, CacheRow, int]] = []
        loaded: list[tuple[list[int], CacheRow]] = []
        for work in works:
            source = work.source.rows[0] if isinstance(work.source, PrefillWork) else work.source
            if isinstance(source, list):
                loaded.extend((source, row) for row in work.lacking)
            elif source is not None:
                pairs.extend((source.number, row, 0) for row in work.lacking)
        if pairs:
            sources, targets, _, count = self._pairs(pairs)
            self.cache = self._device.copy_rows(self.take_cache(), sources, targets, count)
        if loaded:
            self._load(loaded)
        for work in works:
            work.done = work.known
            for row in work.rows:
                row.fed = work.known

    def _load(self, loaded: Sequence[tuple[list[int], CacheRow]]) -> None:
        """Blocks of the prefix cache into rows."""
        table = np.zeros((len(self.rows), self.length // BLOCK), np.int32)
        for i, (blocks, _) in enumerate(loaded):
            table[i, : len(blocks)] = blocks
        _, targets, _, count = self._pairs([(0, row, 0) for _, row in loaded])
        self.cache = self._device.load(self.take_cache(), self._prefixes, table, targets, count)

    def _feed_works(self, works: Sequence[PrefillWork], parameters: nnx.State) -> None:
        """Works to their ends, in a row each; other rows with the same tokens get copies."""
        left = [work for work in works if work.done < work.goal]
        self.feed([(work.rows[0], work.goal) for work in left], parameters)
        copies = [(work.rows[0].number, row, 0) for work in left for row in work.rows[1:]]
        if copies:
            sources, targets, _, count = self._pairs(copies)
            self.cache = self._device.copy_rows(self.take_cache(), sources, targets, count)
        for work in left:
            work.done = work.goal
            for row in work.rows:
                row.fed = work.goal

    def feed(self, wanted: Sequence[tuple[CacheRow, int]], parameters: nnx.State) -> None:
        self.reserve(max((goal for _, goal in wanted), default=1))
        while left := sum(max(goal - row.fed, 0) for row, goal in wanted):
            size = next((size for size in FEED_TOKENS if 4 * left > 3 * size), FEED_TOKENS[-1])
            tokens, pieces, used = np.zeros(size, np.int32), np.zeros((len(self.rows), 3), np.int32), 0
            for i, (row, goal) in enumerate(wanted):
                count = min(max(goal - row.fed, 0), size - used)
                pieces[i] = row.number, row.fed, count
                tokens[used : used + count] = row.context[row.fed : row.fed + count]
                row.fed, used = row.fed + count, used + count
            self.cache = self._device.feed(parameters, self.take_cache(), tokens, pieces)

    def _prefill(self, works: Sequence[PrefillWork], parameters: nnx.State) -> None:
        """The first pieces of works of which nothing is known."""
        works = sorted(works, key=_piece)
        while works:
            length = round_up(_piece(works[-1]), self._prompt_lengths)
            rows = _rows_of_call(len(works), length)
            group, works = works[-rows:], works[:-rows]
            tokens = _tokens(group, rows, length)
            self.reserve(length)
            self._insert(self._device.prefill(parameters, tokens), group)

    def _extend(self, works: Sequence[PrefillWork], parameters: nnx.State) -> None:
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
            for i, work in enumerate(group):
                sources[i], places[i] = work.rows[0].number, work.done
            self.reserve(max(length, max(work.done + _piece(work) for work in group)))
            prefix = self._device.take(self.cache, sources, known)
            self._insert(self._device.extend(parameters, tokens, places, prefix), group)

    def _insert(self, pieces: KVCache, group: Sequence[PrefillWork]) -> None:
        """Row i of ``pieces`` is the next piece of group[i]."""
        pairs = [(i, row, work.done) for i, work in enumerate(group) for row in work.rows]
        self.cache = self._device.insert(self.take_cache(), pieces, *self._pairs(pairs))
        for work in group:
            work.done += _piece(work)
            for row in work.rows:
                row.fed = work.done

    def _pairs(
        self, pairs: Sequence[tuple[int, CacheRow, int]]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(source rows, numbers of the target rows, places, how many of them count), padded to B."""
        sources, targets, places = np.zeros((3, len(self.rows)), np.int32)
        for i, (source, row, place) in enumerate(pairs):
            sources[i], targets[i], places[i] = source, row.number, place
        return sources, targets, places, np.asarray(len(pairs), np.int32)

    def save(self) -> None:
        waiting = [row for row in self.rows if row.to_save]
        if not waiting or self._tree is None or self.cache is None:
            return
        if self._prefixes is None:
            self._prefixes = self._zeros(self._blocks, BLOCK, 0)
        tree, stats = self._tree, self._stats
        table = np.full((len(self.rows), self.length // BLOCK), self._blocks, np.int32)
        written: list[int] = []
        prefixes, self._prefixes = self._prefixes, None
        added, evicted = tree.added, tree.evicted
        for row in waiting:
            blocks = tree.add(row.context[: row.to_save])
            for block, i in blocks:
                table[len(written), i] = block
            if blocks:
                written.append(row.number)
            row.to_save = 0
        if written:
            rows = np.zeros(len(self.rows), np.int32)
            rows[: len(written)] = written
            prefixes = self._device.save(prefixes, self.cache, rows, table, np.asarray(len(written), np.int32))
        self._prefixes = prefixes
        stats.saved_tokens += tree.added - added
        stats.evicted_tokens += tree.evicted - evicted

    def _positions_read(self, steps: int, moved: Sequence[Fed]) -> int:
        """Our kernel reads what is live, XLA's attention all of every row and the columns of the call."""
        return live_positions(moved) if self.feeds else steps * self._positions_held()

    def _positions_held(self) -> int:
        return len(self.rows) * (self.length + self.columns)


def _moved(cache: KVCache, move: Callable[[jax.Array], jax.Array]) -> KVCache:
    """The cache with each of its arrays moved. The given one is used up: an array is given up once its successor
    exists, so that only one of them exists twice."""

    def every(arrays: list[jax.Array]) -> list[jax.Array]:
        return [move(arrays.pop(0)) for _ in range(len(arrays))]

    return KVCache(every(cache.keys), every(cache.values), cache.steps)


@jax.jit
def _take_rows(x: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.take(x, rows, axis=0)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _resize(x: jax.Array, kept: int, total: int) -> jax.Array:
    padding = [(0, 0)] * x.ndim
    padding[POSITIONS] = (0, total - kept)
    return jnp.pad(x[:, :, :kept], padding)


def _piece(work: PrefillWork) -> int:
    """Tokens of the next call."""
    return min(work.goal - work.done, PIECE_TOKENS)


def _rows_of_call(wanted: int, length: int) -> int:
    """Rows of a prefill: 1, 4, 16, ... such that more than half are wanted, within PREFILL_TOKENS."""
    rows = 1
    while rows * 2 < wanted and rows * 4 * length <= PREFILL_TOKENS:
        rows *= 4
    return rows


def _tokens(group: Sequence[PrefillWork], rows: int, length: int) -> np.ndarray:
    """int32 [rows, length]: the next pieces, padded on the right and below."""
    tokens = np.zeros((rows, length), np.int32)
    for i, work in enumerate(group):
        tokens[i, : _piece(work)] = work.tokens[work.done : work.done + _piece(work)]
    return tokens
