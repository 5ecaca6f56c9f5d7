"""A cache of pages: rows, prefix cache and forks share one pool, and only what is written is new.

    PagePool      which pages are free, and who holds the others (:mod:`.page_pool`)
    PageStore     the rows' tables, and the calls that bring a plan about (:mod:`.cache_store`)

What a prompt has in common with a row, with a kept context or with another prompt of the same admission costs no
copy: its table names the same pages. A row copies the last page, the one that it writes to, if others hold it too.
The prefix cache is a tree whose blocks are pages of rows that have ended.

The pool has a fixed number of pages. Free rows keep theirs, with what may be shared later, until they are wanted;
then what ended first goes first, and then what the prefix cache has not used for longest. Where that is not enough
the oldest contexts go on and the youngest wait: they give up their pages, and are fed again when there is room.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx
from jax.sharding import Sharding
from jax.typing import DTypeLike

from thinkprm_jax.errors import UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.pages import XLA_PIECE, PageAttention, PagedCache
from thinkprm_jax.model.pages_tpu import PAGE
from thinkprm_jax.sampler.cache_row import CacheRow
from thinkprm_jax.sampler.cache_store import CacheStore, Fed
from thinkprm_jax.sampler.device import DeviceFunctions
from thinkprm_jax.sampler.page_pool import PagePool
from thinkprm_jax.sampler.prefill_plan import PrefillWork
from thinkprm_jax.sampler.request import SamplerStats

# Positions of a page, and those that attention reads at once, by who does it.
PAGE_SIZES: dict[PageAttention, int] = {"kernel": PAGE, "xla": 16}
READ_AT_ONCE: dict[PageAttention, int] = {"kernel": PAGE, "xla": XLA_PIECE}
# Texts are fed in pieces of so many tokens, so many pieces a call: what an accelerator computes while it reads the
# weights, and a quarter of it for the few that scripts force.
PIECE, PIECES = 32, (16, 4)
# Tokens that are fed before a chunk at most, where rows wait for it that have nothing to be fed: what a prompt has
# beyond them comes before the next chunks. A chunk's steps take several times as long.
AT_ONCE = 4096
# Of a device's memory what is left for programs, logits and activations where the pool takes all that is free.
WORKING_MEMORY = 0.15

logger = logging.getLogger(__name__)


def free_bytes(device: jax.Device) -> int | None:
    """What a pool may take of a device's memory; None: it does not say (processors do not)."""
    stats = device.memory_stats()
    if not stats or "bytes_limit" not in stats:
        return None
    return int((1 - WORKING_MEMORY) * stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))


class PageStore(CacheStore[PagedCache]):
    """Rows of any lengths in pages; see :class:`.CacheStore`.

    Args:
      device: the functions of this architecture and chunk.
      max_length: as of the sampler.
      prefix_cache: positions that it may hold at most, rounded up to whole pages.
      positions: of the pool; None: all rows at their longest and the prefix cache, or as many as the device has
        memory for when the pool is made, where it says how much it has.
      attention: what reads the pages.
    Raises:
      UserError: ``positions`` are fewer than a row has at its longest.

    Attributes:
      pool: the pages.
      length: positions that a row's table has room for.
    """

    feeds = True

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
        positions: int | None,
        attention: PageAttention,
    ) -> None:
        self._device, self._attention = device, attention
        size = PAGE_SIZES[attention]
        # A row at max_length still needs room for a whole call, and a broken token may end a little behind it.
        self._width = -(-(max_length + columns + 128) // size)
        self.length = self._width * size
        blocks = -(-prefix_cache // size)
        self._everything, self._fixed = row_counts[-1] * self._width + blocks, positions is not None
        pages = self._everything if positions is None else min(-(-positions // size), self._everything)
        if pages < self._width:
            raise UserError(
                f"sampler: cache_positions={positions} must be at least {self.length}, "
                f"what one context of max_length {max_length} takes"
            )
        self.pool = PagePool(pages, size)
        super().__init__(
            config,
            stats,
            row_counts=row_counts,
            columns=columns,
            dtype=dtype,
            blocks=blocks,
            block=size,
            share_from=share_from,
        )

    def forget(self) -> None:
        super().forget()
        self.pool = PagePool(self.pool.pages, self.pool.size)
        self._kept: dict[int, int] = {}  # block of the tree -> page
        self._copies: list[tuple[int, int]] = []  # that have to be made before the next call
        self._ended: dict[CacheRow, int] = {}  # when, for rows that are free
        self._clock = itertools.count()
        self._bases = set[PrefillWork]()  # of the admission, works that others stand on
        self._fed = 0  # tokens since the last chunk

    def recover(self) -> None:
        for row in self.rows:
            row.release()
        if self.cache is None or self._copies:
            self.forget()

    @property
    def planned_bytes(self) -> int:
        return (self.pool.pages + 1) * self.pool.size * self.position_bytes

    def take_cache(self) -> PagedCache:
        """With the tables as they are now."""
        table = np.zeros((len(self.rows), self._width), np.int32)
        for row in self.rows:
            table[row.number, : len(row.pages)] = row.pages
        return dataclasses.replace(super().take_cache(), table=table)

    @property
    def _scarce(self) -> bool:
        """Whether pages can run out; where they cannot nothing has to be spared."""
        return self.pool.pages < self._everything

    def _ensure(self) -> None:
        if self.cache is None:
            sharding = self._device.cache_sharding(len(self.rows), self._config.num_kv_heads)
            self._fit_memory(sharding)
            self.cache = PagedCache.zeros(
                self._config,
                self.pool.pages + 1,
                self.pool.size,
                self._dtype,
                (len(self.rows), self._width),
                self.columns,
                self._attention,
                sharding,
            )

    def _fit_memory(self, sharding: Sharding | None) -> None:
        """Before the pool is made, and so before anybody has pages: as many as there are to be, or as fit."""
        if self._fixed:
            return
        device = next(iter(sharding.device_set)) if sharding is not None else jax.devices()[0]
        free = free_bytes(device)
        pages = self._everything
        if free is not None:
            fit = free // (self.pool.size * self.position_bytes) - 1
            pages = min(max(fit, self._width), self._everything)
        if pages < self._everything:
            kept, wanted = pages * self.pool.size, self._everything * self.pool.size
            logger.info("a cache of %d positions, what the device has room for, and not of %d", kept, wanted)
        self.pool = PagePool(pages, self.pool.size)

    def _arrange(self, kept: Sequence[CacheRow]) -> None:
        for row in set(self.rows) - set(kept):
            self._drop(row)

    # Room

    def make_room(self, wanted: Sequence[tuple[CacheRow, int]]) -> frozenset[int]:
        self._ensure()
        waiting, self._fed = set[int](), 0
        for place, (row, goal) in enumerate(wanted):
            younger = [other for other, _ in wanted[place + 1 :] if other.pages]
            if row.gave_up and place and not self._can_return(row, goal):
                waiting.add(row.number)
                continue
            while not self._grow(row, goal):
                if not younger:
                    waiting.add(row.number)
                    break
                self._give_up(younger.pop())
        self._copy_pages()
        return frozenset(waiting)

    def with_room(self, wanted: Sequence[tuple[CacheRow, int]]) -> list[tuple[CacheRow, int]]:
        self._ensure()
        found = [(row, self._goal(row, goal)) for row, goal in wanted]
        return [(row, goal) for row, goal in found if goal > row.fed and self._admit(row, goal)]

    def _goal(self, row: CacheRow, goal: int) -> int:
        """How far a row is fed now, of what it is to be fed: see AT_ONCE."""
        others = any(
            one.busy and len(one.context) - one.fed <= self.columns for one in self.rows if one is not row
        )
        return min(goal, row.fed + max(AT_ONCE - self._fed, 0)) if others else goal

    def _admit(self, row: CacheRow, goal: int) -> bool:
        """Has room for what is fed of a row now. False: there is none."""
        if not (self._can_return(row, goal) and self._grow(row, goal)):
            return False
        self._fed += goal - row.fed
        return True

    def _can_return(self, row: CacheRow, goal: int) -> bool:
        """Whether there is room for so much of a row and for every other one to go on for a while: what is fed now
        should not be given up at once."""
        spare = sum(other.busy for other in self.rows) if self._scarce else 0
        return self._free_up(self.pool.wanted(row.pages, row.fed, goal) + spare)

    def _grow(self, row: CacheRow, goal: int) -> bool:
        """Has the row its own pages from its last token on to position ``goal``, and none behind them: what a call
        writes there beside tokens must reach nobody's. False: there are too few."""
        self.pool.trim(row.pages, max(goal, row.fed))
        if not self._free_up(self.pool.wanted(row.pages, row.fed, goal)):
            return False
        self._copies += self.pool.grow(row.pages, row.fed, goal)
        row.gave_up = False
        return True

    def _free_up(self, pages: int) -> bool:
        """Has so many pages free, by forgetting what no running context needs. False: that is not enough."""
        while self.pool.free < pages:
            idle = [row for row in self.rows if not row.busy and row.pages]
            if idle:
                self._drop(min(idle, key=lambda row: self._ended.get(row, -1)))
                continue
            block = None if self._tree is None else self._tree.evict()
            if block is None:
                return False
            self.pool.release([self._kept.pop(block)])
        return True

    def _drop(self, row: CacheRow) -> None:
        """Of a free row everything."""
        self.pool.release(row.pages)
        row.pages = []
        row.cut(0)

    def _give_up(self, row: CacheRow) -> None:
        """Of a running one what it holds; its context is fed again when there is room."""
        self.pool.release(row.pages)
        row.pages, row.fed, row.gave_up = [], 0, True

    def _copy_pages(self) -> None:
        """What rows are about to write to and others hold."""
        copies, self._copies = self._copies, []
        size = len(self.rows)
        for begin in range(0, len(copies), size):
            part = copies[begin : begin + size]
            sources, targets = np.zeros((2, size), np.int32)
            sources[: len(part)], targets[: len(part)] = zip(*part, strict=True)
            self.cache = self._device.copy_pages(self.take_cache(), sources, targets, np.int32(len(part)))

    # Prompts

    def _prepare(self, works: Sequence[PrefillWork]) -> None:
        self._ensure()
        self._bases = {work.source for work in works if isinstance(work.source, PrefillWork)}

    def _process(self, works: Sequence[PrefillWork], parameters: nnx.State) -> None:
        for work in works:
            self._share(work)
        fed = dict[PrefillWork, int]()
        for work in (work for work in works if work.done < work.goal):
            row, alone = work.rows[0], len(work.rows) == 1 and work not in self._bases
            goal = self._goal(row, work.goal) if alone else work.goal
            fed[work] = goal if goal > row.fed and self._admit(row, goal) else work.done
        self.feed([(work.rows[0], goal) for work, goal in fed.items()], parameters)
        for work, goal in fed.items():
            if goal < work.goal:  # the rest is fed by and by, and counted then
                self._uncount(work, goal)
                continue
            work.done = goal
            for row in work.rows[1:]:
                self._take_over(row, work.rows[0].pages, goal)

    def _share(self, work: PrefillWork) -> None:
        """What is known of a work into the tables of its rows."""
        source = work.source.rows[0] if isinstance(work.source, PrefillWork) else work.source
        if isinstance(source, CacheRow):
            work.known = min(work.known, source.fed)  # less, where there was no room for it
            pages = list(source.pages)
        else:
            pages = [self._kept[block] for block in source or ()]
        for row in work.rows:
            if row.fed < work.known:
                self._take_over(row, pages, work.known)
            row.fed = work.known
        work.done = work.known

    def _take_over(self, row: CacheRow, pages: Sequence[int], count: int) -> None:
        """The first ``count`` positions of these pages are the row's."""
        held = self.pool.hold(pages[: self.pool.count(count)])
        self.pool.release(row.pages)
        row.pages, row.fed = held, count

    def feed(self, wanted: Sequence[tuple[CacheRow, int]], parameters: nnx.State) -> None:
        self._copy_pages()
        pieces: list[tuple[CacheRow, int, int]] = []
        for row, goal in wanted:
            pieces += [(row, begin, min(begin + PIECE, goal)) for begin in range(row.fed, goal, PIECE)]
        while pieces:
            size = next((size for size in PIECES if 4 * len(pieces) > 3 * size), PIECES[-1])
            part, pieces = pieces[:size], pieces[size:]
            tokens, places = np.zeros((size, PIECE), np.int32), np.full((size, 2), (-1, 0), np.int32)
            for i, (row, begin, end) in enumerate(part):
                tokens[i, : end - begin] = row.context[begin:end]
                places[i] = row.number, begin
                row.fed = end
            self.cache = self._device.feed_pages(parameters, self.take_cache(), tokens, places)

    # The prefix cache

    def retire(self, row: CacheRow, keep: int) -> None:
        super().retire(row, keep)
        self.pool.trim(row.pages, row.fed)
        self._ended[row] = next(self._clock)

    def save(self) -> None:
        tree, stats = self._tree, self._stats
        if tree is None:
            return
        added, evicted = tree.added, tree.evicted
        for row in self.rows:
            if not row.to_save:
                continue
            for block, place in tree.add(row.context[: row.to_save]):
                [page] = self.pool.hold([row.pages[place]])
                if block in self._kept:  # of what stood there before
                    self.pool.release([self._kept[block]])
                self._kept[block] = page
            row.to_save = 0
        stats.saved_tokens += tree.added - added
        stats.evicted_tokens += tree.evicted - evicted

    # What is counted

    def _positions_read(self, steps: int, moved: Sequence[Fed]) -> int:
        """The kernel reads every row by itself, and a page of each that does not run. XLA's attention reads all
        of them as far as the longest goes."""
        at_once = READ_AT_ONCE[self._attention]
        numbers = np.asarray(moved, np.int64).reshape(-1, 3)
        step = np.arange(1, steps + 1)[:, None]
        before, fed, ran = numbers.T
        has = before + -(-fed * step // np.maximum(ran, 1))
        read = np.where(step <= ran, -(-has // at_once), 1) * at_once  # [steps, rows that ran]
        if self._attention == "xla":
            return int(read.max(axis=1, initial=at_once).sum()) * len(self.rows)
        return int(read.sum()) + steps * (len(self.rows) - len(numbers)) * at_once

    def _positions_held(self) -> int:
        return len({page for row in self.rows if row.busy for page in row.pages}) * self.pool.size
