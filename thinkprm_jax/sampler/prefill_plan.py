"""The prompts of one admission: which rows they get, what is copied, from where, and what is processed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from thinkprm_jax.sampler.cache_row import Beginnings, CacheRow
from thinkprm_jax.sampler.prefix_tree import PrefixTree, common_length

# A rest of a prompt this short goes through the decode loop beside the other slots' tokens: the steps are taken
# anyway, and a prefill is a call of its own.
SHORT_REST = 16


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
      again: how many of those that are processed had been processed before.
    """

    tokens: list[int]
    rows: list[CacheRow]
    known: int = 0
    source: CacheRow | list[int] | PrefillWork | None = None
    goal: int = 0
    stage: int = 0
    done: int = 0
    again: int = 0

    @property
    def lacking(self) -> list[CacheRow]:
        """Rows that lack some of the known tokens."""
        return [row for row in self.rows if row.fed < self.known]


def worth_sharing(known: int, wanted: int, share_from: int) -> bool:
    """Whether ``known`` common tokens of ``wanted`` are taken over: all of them always, a part if it is long."""
    return known == wanted or known >= share_from


class RowChooser:
    """Finds rows for the prompts of one admission, one after another.

    Args:
      rows: all of them; what is busy when it is asked is not given. share_from: as of the sampler.
    """

    def __init__(self, rows: Sequence[CacheRow], share_from: int) -> None:
        self._free = [row for row in rows if not row.busy]
        self._beginnings, self._share_from = Beginnings(self._free), share_from

    def choose(self, prompt: Sequence[int]) -> tuple[CacheRow, int]:
        """The row for a prompt, and how many of its tokens stay in that row: the one that has most of them, else
        the one that holds least. There must be a free one."""
        held = np.asarray([row.fed for row in self._free], np.int64)
        wanted = np.asarray(prompt[:-1], np.int32)
        common = np.minimum(self._beginnings.common(wanted), held)
        common[(common < self._share_from) & (common < len(wanted))] = 0
        common[[row.busy for row in self._free]] = -1
        best = np.flatnonzero(common == common.max())
        place = int(best[held[best].argmin()])
        return self._free[place], int(common[place])


def plan(
    admitted: Sequence[CacheRow], rows: Sequence[CacheRow], prefixes: PrefixTree | None, share_from: int
) -> list[PrefillWork]:
    """The works for newly occupied rows, each behind the works it stands on.

    Works are sorted by their tokens, the last first: of all works before it a work has most in common with the one
    just before, and a beginning of another work comes behind that one, of which it is a copy. So no beginning is
    processed twice, whatever the order of the requests.
    """
    by_tokens: dict[bytes, PrefillWork] = {}  # which sort as the tokens do
    for row in admitted:
        key = row.ids()[: row.wanted].astype(">u4").tobytes()
        if key not in by_tokens:
            by_tokens[key] = PrefillWork(row.context[: row.wanted], [])
        by_tokens[key].rows.append(row)
    works = [by_tokens[key] for key in sorted(by_tokens, reverse=True)]
    shared = [0, *(common_length(a.tokens, b.tokens) for a, b in itertools.pairwise(works))]
    beginnings = Beginnings(rows)
    needed: dict[PrefillWork, int] = {}  # how much of a work others copy
    for i, work in enumerate(works):
        _find_source(work, rows, beginnings, prefixes, share_from)
        base = _base(works, i, shared, share_from)
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
    work: PrefillWork,
    rows: Sequence[CacheRow],
    beginnings: Beginnings,
    prefixes: PrefixTree | None,
    share_from: int,
) -> None:
    """The row or the blocks with most of the work's tokens, where that is worth it."""
    common = beginnings.common(work.rows[0].ids()[: len(work.tokens)])
    place = int(common.argmax())
    known = int(common[place])
    source: CacheRow | list[int] = rows[place]
    if prefixes is not None and known < len(work.tokens):
        saved, blocks = prefixes.match(work.tokens)
        if saved > known:
            known, source = saved, blocks
    if known and worth_sharing(known, len(work.tokens), share_from):
        work.known, work.source = known, source


def _base(
    works: Sequence[PrefillWork], i: int, shared: Sequence[int], share_from: int
) -> tuple[PrefillWork, int] | None:
    """The work before works[i] to copy from once it is done, of the earliest stage, and how many tokens; None: not
    worth it.

    Args:
      shared: what each work has in common with the one before it.
    """
    work, common = works[i], shared[i]
    gain = common - work.known
    if gain <= 0 or not worth_sharing(gain, len(work.tokens) - work.known, share_from):
        return None
    first = i - 1  # of those that have as much in common with it
    while first and shared[first] >= common:
        first -= 1
    return min(works[first:i], key=lambda other: other.stage), common
