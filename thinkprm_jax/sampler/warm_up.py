"""Compiles what requests will need before there are any: a server says that it is ready when nothing is left.

A program is compiled when its shapes first come, so requests of these shapes are run: every number of prompts that
are prefilled together, of every length, in a cache of every length; and the same behind a beginning that another
prompt has, too. They hold random tokens, and end with the first token that they sample. In a cache of pages no
shape depends on a length: three batches are all.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thinkprm_jax.sampler.buckets import coarse_buckets, length_buckets
from thinkprm_jax.sampler.request import Phase, Request, Think

if TYPE_CHECKING:
    from thinkprm_jax.sampler.engine import Sampler

_SHORTEST = 32  # the first length of prompts
_SHORTEST_CACHE = 128
_ROWS = 4  # by which the rows of a prefill grow
_USUAL = 512  # prompts up to this length come beside contexts of any length
# Beginnings that are shared: the least and a usual length of each size that programs know; and the shortest rest
# that is no decode step.
_SHARED, _REST = ((64, 96), (129, 384), (513, 1536), (2049, 6144), (8193, 24576)), 17


def warm_up(sampler: Sampler, longest: int, wanted: Callable[[], bool] = lambda: True) -> int:
    """Runs requests of all shapes of prompts up to ``longest`` tokens, beside contexts of any length. Only where
    nothing else runs are these all shapes: what waits already is served beside them.

    Args:
      wanted: asked before each batch; False ends it.
    Returns: the number of programs that were compiled, or read from the disk.
    """
    before = sampler.compilations
    sampler.evenly = True
    try:
        for batch in _Batches(sampler, longest).all():
            if not wanted():
                break
            _run(sampler, batch)
    finally:
        sampler.evenly = False
    return sampler.compilations - before


class _Batches:
    """Lists of prompts that come together; every worker gets the same shapes."""

    def __init__(self, sampler: Sampler, longest: int) -> None:
        self._most = sampler.max_length - 2  # tokens before a prompt's last, with room for one behind it
        self._longest = max(min(longest, self._most), 1)
        self._chunk, self._workers, self._pages = sampler.chunk, sampler.workers, sampler.cache == "pages"
        self._capacity = max(sampler.slots // sampler.workers, 1)
        self._vocabulary = sampler.tokenizer.vocab_size
        self._rng = np.random.default_rng(0)
        self._kept: dict[int, list[int]] = {}
        self._counts = [1]  # prompts that are prefilled in 1, 4, 16, ... rows
        while (rows := _ROWS ** len(self._counts)) // 2 + 1 <= self._capacity:
            self._counts.append(rows // 2 + 1)

    def all(self) -> Iterator[list[list[int]]]:
        """One after another where there is one slot."""
        for batch in self._in_pages() if self._pages else self._together():
            yield from [batch] if self._capacity > 1 else [[prompt] for prompt in batch]

    def _in_pages(self) -> Iterator[list[list[int]]]:
        """A prompt alone; as many as there can be, the longest; and equal ones, whose last page is copied."""
        yield self._prompts(self._workers, 1)
        yield self._prompts(self._workers * self._capacity, self._longest)
        yield [prompt for prompt in self._prompts(self._workers, 4) for _ in range(min(self._capacity, 2))]

    def _together(self) -> Iterator[list[list[int]]]:
        """The shortest first, so that the cache only grows but where it is told to shrink."""
        lengths = [*length_buckets(_SHORTEST, self._most)]
        for size in length_buckets(_SHORTEST_CACHE, max(self._most, _SHORTEST_CACHE)):
            # So long that a chunk of decode steps fits behind it.
            context = min(size, self._most) - self._chunk - 8
            for length, many in itertools.product(lengths, self._counts):
                if length > self._longest or (size > self._longest and length > _USUAL):
                    continue
                if length <= context:
                    yield self._beside(context, many, functools.partial(self._prompts, length=length))
                elif length <= size:
                    yield self._prompts(self._workers, _SHORTEST)  # the cache shrinks
                    yield self._prompts(self._workers * many, length)
            if size <= self._longest:
                yield from self._shared(context)

    def _shared(self, context: int) -> Iterator[list[list[int]]]:
        """Prompts that begin as another one does."""
        rests = coarse_buckets(_SHORTEST, max(self._longest, _SHORTEST), 2)
        for (least, usual), rest in itertools.product(_SHARED, rests):
            known = max(min(usual, context - _SHORTEST), least)
            rest = min(rest, context - known)
            if rest < _REST:
                continue
            for many in self._counts:

                def make(many: int, known: int = known, rest: int = rest) -> list[list[int]]:
                    [shared] = self._prompts(1, known - 1)
                    others = self._prompts(max(min(many, self._capacity - 2), 1), rest - 1, shared)
                    return [[*shared, *self._prompts(1, 1)[0]], *others]

                yield self._beside(context, many, make)

    def _beside(self, context: int, many: int, make: Callable[[int], list[list[int]]]) -> list[list[int]]:
        """Prompts beside a context that makes the cache as long as it is wanted: the same one every time, so that
        a row has it already."""
        if context not in self._kept:
            [self._kept[context]] = self._prompts(1, max(context, 1))
        room = max(min(many, self._capacity - 1), 1)
        return [prompt for _ in range(self._workers) for prompt in [self._kept[context], *make(room)]]

    def _prompts(self, many: int, length: int, shared: Sequence[int] = ()) -> list[list[int]]:
        """With ``length`` tokens behind the shared ones and before the last. No two begin alike there."""
        firsts = self._rng.choice(self._vocabulary, size=many, replace=self._vocabulary < many)
        rests = self._rng.integers(self._vocabulary, size=(many, length))
        return [[*shared, int(first), *rest.tolist()] for first, rest in zip(firsts, rests, strict=True)]


def _run(sampler: Sampler, prompts: Sequence[Sequence[int]]) -> None:
    def script() -> Generator[Phase, Any, None]:
        yield Think(1)

    with sampler.loop.changed:  # no step in between: they come together
        handles = [sampler.submit(Request(prompt, script)) for prompt in prompts]
    for handle in handles:
        handle.result()
