"""The keys and values that exist: the slots' rows, the prefix cache, and how they get there.

    sizes         few, so that few programs are compiled (:mod:`.buckets`)
    PrefixTree    on the host: which tokens stand in which block of the prefix cache (:mod:`.prefix_tree`)
    plan          of the prompts of one admission: what is copied, from where, and what is processed
    CacheStore    the arrays, and the calls that bring a plan about

Rows are contiguous, because a decode step reads them at every token; the prefix cache is blocks of 16 positions,
because it is read and written once a request, and because a search keeps many contexts that differ in their last
tokens only. Copying between rows and blocks is moving memory; attention over blocks in place would cost a gather,
or a kernel of its own, at every token. When the prefix cache is full, what was unused for longest is evicted; if a
prompt begins with it after all, it is processed again, and counted.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike

from thinkprm_jax.model.cache import POSITIONS, KVCache
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.sampler.buckets import coarse_buckets, length_buckets, multiple
from thinkprm_jax.sampler.device import DeviceFunctions
from thinkprm_jax.sampler.prefix_tree import BLOCK, PrefixTree, common_length
from thinkprm_jax.sampler.request import SamplerStats

logger = logging.getLogger(__name__)

# Prefill works on at most this many tokens at once: enough to fill a device, and it bounds the activations.
PREFILL_TOKENS = 8192
# A longer prompt is prefilled in pieces of this many tokens, each on top of the ones before.
PIECE_TOKENS = 4096
# A rest of a prompt this short goes through the decode loop beside the other slots' tokens: the steps are taken
# anyway, and a prefill is a call of its own.
SHORT_REST = 16
# Blocks of BLOCK tokens that the statistics remember: half a million tokens, some 20 MB of the host.
REMEMBERED_BLOCKS = 2**15
ROWS_STRIDE = 4  # by which the number of rows changes at least: each is a decode program of its own


def round_up(value: int, buckets: tuple[int, ...]) -> int:
    """The smallest bucket that holds ``value``; ValueError if none does."""
    for size in buckets:
        if size >= value:
            return size
    raise ValueError(f"{value} is above the largest bucket {buckets[-1]}")


@dataclasses.dataclass(eq=False)
class CacheRow:
    """One row of the cache: what it holds, and what is to be in it.

    Attributes:
      number: which row.
      busy: it has an occupant.
      context: all token ids of the occupant, prompt first; kept after it leaves, for as long as its keys and
        values stand in the cache, so that a prompt with the same beginning can be copied from here.
      fed: how many of them are in the cache. The rest are fed by the next chunks.
      wanted: how many of them, the prompt's but for its last, are prefilled where nothing better is possible.
      processed: how many of them have gone through the layers at this place, in this row or elsewhere.
      to_save: of a row whose occupant has left, how many tokens of the context go to the prefix cache.
    """

    number: int = 0
    busy: bool = False
    context: list[int] = dataclasses.field(default_factory=list)
    fed: int = 0
    wanted: int = 0
    processed: int = 0
    to_save: int = 0

    def common(self, tokens: list[int]) -> int:
        """How many tokens, from the first on, the row has in common with ``tokens``."""
        return min(common_length(self.context, tokens), self.fed)

    def occupy(self, prompt: list[int], kept: int) -> None:
        """Takes the row for a prompt of which it holds the first ``kept`` tokens. The prompt's last token is
        always fed by a decode step, because its logits are needed."""
        self.busy, self.context, self.fed = True, prompt, kept
        self.wanted = len(prompt) - 1
        self.processed = self.to_save = 0

    def cut(self, length: int) -> None:
        """Cuts the context back; what the cache holds beyond is never read."""
        del self.context[length:]
        self.fed, self.wanted = min(self.fed, length), min(self.wanted, length - 1)
        self.processed, self.to_save = min(self.processed, length), min(self.to_save, length)

    def release(self) -> None:
        """Frees the row; its keys and values stay valid for ``context[:fed]``."""
        self.busy = False
        del self.context[self.fed :]


@dataclasses.dataclass(eq=False)
class PrefillWork:
    """A beginning that one or more rows are to hold.

    Attributes:
      tokens: the beginning, N tokens.
      known: how many of them stand in ``source`` already and are copied to the rows that lack them.
      source: a row that has them, blocks of the prefix cache, or an earlier work of the same admission.
      goal: how many are to be in the rows in the end: N, or ``known`` where the rest is left to the decode loop.
      stage: works of stage 0 stand on what is there already, those of stage s + 1 on works of stage s.
      done: how many are in all of the rows.
    """

    tokens: list[int]
    rows: list[CacheRow]
    known: int = 0
    source: CacheRow | list[int] | PrefillWork | None = None
    goal: int = 0
    stage: int = 0
    done: int = 0

    @property
    def lacking(self) -> list[CacheRow]:
        """Rows that lack some of the known tokens."""
        return [row for row in self.rows if row.fed < self.known]


def worth_sharing(known: int, wanted: int, share_from: int) -> bool:
    """Whether ``known`` common tokens of ``wanted`` are taken over: all of them always, a part if it is long."""
    return known == wanted or known >= share_from


def plan(
    admitted: Sequence[CacheRow], rows: Sequence[CacheRow], prefixes: PrefixTree | None, share_from: int
) -> list[PrefillWork]:
    """The works for newly occupied rows, each behind the works it stands on.

    Works are sorted by their tokens, the last first: of all works before it a work has most in common with the one
    just before, and a beginning of another work comes behind that one, of which it is a copy. So no beginning is
    processed twice, whatever the order of the requests.
    """
    by_tokens: dict[tuple[int, ...], PrefillWork] = {}
    for row in admitted:
        tokens = row.context[: row.wanted]
        by_tokens.setdefault(tuple(tokens), PrefillWork(tokens, [])).rows.append(row)
    works = [by_tokens[tokens] for tokens in sorted(by_tokens, reverse=True)]
    needed: dict[PrefillWork, int] = {}  # how much of a work others copy
    for i, work in enumerate(works):
        _find_source(work, rows, prefixes, share_from)
        base = _base(work, works[:i], share_from)
        if base is not None:
            work.known, work.source, work.stage = base[1], base[0], base[0].stage + 1
            needed[base[0]] = max(needed.get(base[0], 0), work.known)
    for work in works:
        rest = len(work.tokens) - work.known
        left_to_decode = (
            0 < work.known >= needed.get(work, 0) and rest <= SHORT_REST and (rest == 0 or len(work.rows) == 1)
        )
        work.goal = work.known if left_to_decode else len(work.tokens)
    return sorted(works, key=lambda work: work.stage)


def _find_source(
    work: PrefillWork, rows: Sequence[CacheRow], prefixes: PrefixTree | None, share_from: int
) -> None:
    """The row or the blocks with most of the work's tokens, where that is worth it."""
    row = max(rows, key=lambda row: row.common(work.tokens))
    known = row.common(work.tokens)
    source: CacheRow | list[int] = row
    if prefixes is not None and known < len(work.tokens):
        saved, blocks = prefixes.match(work.tokens)
        if saved > known:
            known, source = saved, blocks
    if known and worth_sharing(known, len(work.tokens), share_from):
        work.known, work.source = known, source


def _base(work: PrefillWork, before: Sequence[PrefillWork], share_from: int) -> tuple[PrefillWork, int] | None:
    """The work to copy from once it is done, of the earliest stage, and how many tokens; None: not worth it."""
    if not before:
        return None
    common = common_length(before[-1].tokens, work.tokens)
    gain = common - work.known
    if gain <= 0 or not worth_sharing(gain, len(work.tokens) - work.known, share_from):
        return None
    candidates = [other for other in before if common_length(other.tokens, work.tokens) >= common]
    return min(candidates, key=lambda other: other.stage), common


class CacheStore:
    """The device memory of a sampler.

    Args:
      device: the functions of this architecture, mesh and chunk.
      stats: what is counted here.
      row_counts: how many rows there may be, rising; of one number, that many always.
      max_length: as of the sampler. columns: of a decode call. dtype: of keys and values.
      prefix_cache: its positions, rounded up to whole blocks (and to what a mesh can split).
      share_from: see :class:`thinkprm_jax.sampler.engine.Sampler`.
      parts: devices that the rows are split over.

    Attributes:
      capacity: rows, at most. columns: as given. length: of the cache.
      rows: what each row of the cache holds.
      cache: the arrays; None before the first request and while a call has taken them.
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
        self._device, self._config, self._stats = device, config, stats
        self.columns, self._dtype, self._share_from = columns, jnp.dtype(dtype), share_from
        self._row_counts, self.capacity = row_counts, row_counts[-1]
        # A row at max_length still needs room for a whole call, and a broken token may end a little behind it.
        self._cache_lengths = length_buckets(128, multiple(max_length + columns + 128, BLOCK))
        piece = min(max_length, PIECE_TOKENS)
        self._prompt_lengths = length_buckets(min(32, piece), piece)
        # Products with weights dominate an extension, so padding of the beginning it attends to costs little, and
        # every pair of lengths is a program. Blocks of queries want multiples of 128.
        self._rest_lengths = coarse_buckets(32, multiple(piece, 128), 2)
        self._known_lengths = coarse_buckets(128, self._cache_lengths[-1], 4)
        self._blocks = multiple(-(-prefix_cache // BLOCK), parts)
        self.reset()

    def reset(self) -> None:
        """Forgets everything and frees its memory."""
        self.rows = [CacheRow(number) for number in range(self._row_counts[0])]
        self.cache: KVCache | None = None
        self.length = 0  # of the cache
        self._clear_prefixes()
        self.forget()

    def forget(self) -> None:
        """Forgets what free rows and the prefix cache hold, of other weights, and keeps their memory."""
        self.rows = [CacheRow(number) for number in range(len(self.rows))]
        self._remembered = PrefixTree(REMEMBERED_BLOCKS)
        self._tree = PrefixTree(self._blocks) if self._blocks else None

    def _clear_prefixes(self) -> None:
        self._prefixes: KVCache | None = None
        self._tree = PrefixTree(self._blocks) if self._blocks else None

    def recover(self) -> None:
        """After a call that was interrupted: frees all rows, and forgets what it had taken and never put back."""
        for row in self.rows:
            row.release()
        if self.cache is None:
            self.rows = [CacheRow(number) for number in range(len(self.rows))]
        if self._prefixes is None:
            self._clear_prefixes()

    @property
    def position_bytes(self) -> int:
        """Of the keys and values of one token, all layers."""
        config = self._config
        return 2 * config.num_layers * config.num_kv_heads * config.head_dim * self._dtype.itemsize

    @property
    def planned_bytes(self) -> int:
        """Of the rows at their longest and the prefix cache."""
        row = self._cache_lengths[-1] + self.columns
        return (self.capacity * row + self._blocks * BLOCK) * self.position_bytes

    def take_cache(self) -> KVCache:
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
        if self.cache is not None:
            order = np.asarray([row.number for row in kept], np.int32)  # a new row begins as a copy of the first
            self.cache = _moved(self.take_cache(), lambda x: _take_rows(x, order))
        self.rows = kept
        for number, row in enumerate(kept):
            row.number = number

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

    def choose(self, free: Sequence[CacheRow], prompt: list[int]) -> tuple[CacheRow, int]:
        """The row for a prompt, and how many of its tokens stay in that row: the one that has most of them, else
        the one that holds least."""
        wanted = prompt[:-1]

        def kept(row: CacheRow) -> int:
            common = row.common(wanted)
            return common if worth_sharing(common, len(wanted), self._share_from) else 0

        kept_tokens, _, number = max((kept(row), -row.fed, -i) for i, row in enumerate(free))
        return free[-number], kept_tokens

    def fill(self, parameters: nnx.State, admitted: Sequence[CacheRow], begin: Callable[[], None]) -> None:
        """Copies or prefills the prompts of newly occupied rows; tells ``begin`` when the device goes to work."""
        works = plan(admitted, self.rows, self._tree, self._share_from)
        for work in works:
            self._count(work)
        begin()
        self.reserve(max(max(row.fed for row in self.rows), *(work.goal for work in works), 1))
        for stage in range(works[-1].stage + 1):
            mine = [work for work in works if work.stage == stage]
            self._copy(mine)
            self._prefill([work for work in mine if work.done == 0 < work.goal], parameters)
            while left := [work for work in mine if work.done < work.goal]:
                self._extend(left, parameters)

    def _count(self, work: PrefillWork) -> None:
        before, _ = self._remembered.match(work.tokens)
        again = max(min(before, work.goal) - work.known, 0)
        self._stats.reprefilled_tokens += again
        self._stats.prefilled_tokens += work.goal - work.known - again
        self._stats.shared_tokens += work.goal * (len(work.rows) - 1) + work.known
        for row in work.rows:
            prompt = row.context[: row.wanted + 1]
            row.processed, _ = self._remembered.match(prompt)
            self._remembered.add(prompt)

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

    def retire(self, row: CacheRow, keep: int) -> None:
        """Frees a row whose occupant is done; the first ``keep`` tokens of its context shall be in the prefix
        cache before the row is taken by another."""
        self._remembered.add(row.context[: row.fed])
        row.to_save = min(keep, row.fed)
        row.release()

    def save(self) -> None:
        """Puts into the prefix cache what finished requests asked for."""
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
