"""Compiles what requests will need before there are any: a server says that it is ready when nothing is left.

A program is compiled when its shapes first come, so requests of these shapes are run: every number of prompts that
are prefilled together, of every length, beside a row of every length that the cache may have; the same behind a
beginning that another prompt has, too. They hold random tokens, and end with the first token that they sample.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from thinkprm_jax.sampler.buckets import coarse_buckets, length_buckets
from thinkprm_jax.sampler.request import Phase, Request, Think

if TYPE_CHECKING:
    from thinkprm_jax.sampler.engine import Sampler

_SHORTEST = 32  # the first length of prompts
_ROWS = 4  # by which the rows of a prefill grow


def warm_up(sampler: Sampler, longest: int, wanted: Callable[[], bool] = lambda: True) -> int:
    """Runs requests of all shapes up to contexts of ``longest`` tokens. Only where nothing else runs are these all
    shapes: what waits already is served beside them.

    Args:
      wanted: asked before each batch; False ends it.
    Returns: the number of programs that were compiled, or read from the disk.
    """
    before = sampler.compilations
    rng = np.random.default_rng(0)
    for batch in _batches(sampler, min(longest, sampler.max_length - 2)):
        if not wanted():
            break
        _run(sampler, [prompt for _ in range(sampler.workers) for prompt in batch(rng)])
    return sampler.compilations - before


Batch = Callable[[np.random.Generator], list[list[int]]]


def _batches(sampler: Sampler, longest: int) -> Iterator[Batch]:
    """Prompts that one worker takes at once, the shortest first."""
    lengths = [length for length in length_buckets(_SHORTEST, sampler.max_length) if length <= longest] or [
        longest
    ]
    if lengths[-1] < longest:
        lengths.append(longest)
    capacity = max(sampler.slots // sampler.workers, 1)
    counts = [1]
    while counts[-1] * _ROWS // 2 + 1 < capacity:
        counts.append(counts[-1] * _ROWS)
    vocabulary = sampler.tokenizer.vocab_size

    def prompts(rng: np.random.Generator, many: int, length: int, shared: Sequence[int] = ()) -> list[list[int]]:
        # Beginnings differ at their first token, or behind what they share: nothing else is shared.
        firsts = rng.choice(min(vocabulary, 500), size=many, replace=vocabulary < many)
        return [[*shared, int(first), *rng.integers(vocabulary, size=length).tolist()] for first in firsts]

    def plain(many: int, length: int, beside: int) -> Batch:
        room = min(many, capacity - (beside > length))
        return lambda rng: prompts(rng, room, length) + (prompts(rng, 1, beside) if beside > length else [])

    def behind(many: int, known: int, rest: int, beside: int) -> Batch:
        def make(rng: np.random.Generator) -> list[list[int]]:
            shared = prompts(rng, 1, known - 1)[0]
            first = [*shared, *rng.integers(vocabulary, size=2).tolist()]
            others = prompts(rng, max(min(many, capacity - 1 - (beside > 0)), 1), rest - 1, shared)
            return [first, *others, *(prompts(rng, 1, beside) if beside > known + rest else [])]

        return make

    for beside in lengths:
        for length, many in itertools.product([one for one in lengths if one <= beside], counts):
            yield plain(_more_than_half(many), length, beside)
        # Beginnings of fewer than 64 tokens are not shared.
        for known, rest in itertools.product(_floors(beside), coarse_buckets(_SHORTEST, longest, 2)):
            if known + rest <= beside and rest > 16:
                for many in counts:
                    yield behind(_more_than_half(many), known, rest, beside)


def _floors(longest: int) -> list[int]:
    """Lengths of a shared beginning, one of each size that programs know."""
    return [length for length in (96, 384, 1536, *range(6144, longest, 8192)) if length <= longest]


def _more_than_half(rows: int) -> int:
    """The fewest prompts that are processed in so many rows."""
    return rows // 2 + 1 if rows > 1 else 1


def _run(sampler: Sampler, prompts: Sequence[Sequence[int]]) -> None:
    def script() -> Generator[Phase, Any, None]:
        yield Think(1)

    with sampler.loop.changed:  # no step in between: they come together
        handles = [sampler.submit(Request(prompt, script)) for prompt in prompts]
    for handle in handles:
        handle.result()
