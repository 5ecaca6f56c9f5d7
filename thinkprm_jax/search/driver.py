"""Runs the searches of many problems together.

A search of one problem is a generator: it yields the candidates that it wants, gets them written and judged, and
returns its result. It goes on as soon as its own candidates are there, while those of others are still to come.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Generator, Iterator, Sequence

from thinkprm_jax.search.ahead import run_ahead
from thinkprm_jax.search.beams import Board, Growth, grow, judge
from thinkprm_jax.search.engine import Beam, Engine, Judgement, Problem, SearchResult, SearchSettings

Search = Generator[list[Growth], list[Beam], SearchResult]


@dataclasses.dataclass
class _Open:
    """A search and the candidates that it waits for."""

    search: Search
    wanted: list[Growth] = dataclasses.field(default_factory=list)
    beams: dict[int, Beam] = dataclasses.field(default_factory=dict)


class Searches:
    """The searches of a wave; :meth:`take` is given their candidates.

    Attributes:
      board: what they want written.
      finished: (index of the search, result), those that nobody has fetched yet.
    """

    def __init__(self, searches: Sequence[Search], waits: bool) -> None:
        self.board = Board(waits)
        self.finished: collections.deque[tuple[int, SearchResult]] = collections.deque()
        self._open = {index: _Open(search) for index, search in enumerate(searches)}
        for index in list(self._open):
            self._go_on(index, None)

    def take(self, growth: Growth, beam: Beam) -> None:
        state = self._open[growth.search]
        state.beams[growth.number] = beam
        if len(state.beams) == len(state.wanted):
            self._go_on(growth.search, [state.beams[wanted.number] for wanted in state.wanted])

    def _go_on(self, index: int, beams: list[Beam] | None) -> None:
        state = self._open[index]
        try:
            state.wanted, state.beams = state.search.send(beams), {}  # type: ignore[arg-type]
        except StopIteration as end:
            del self._open[index]
            self.finished.append((index, end.value))
            if not self._open:
                self.board.waits = False
            return
        self.board.add(state.wanted)

    def fetched(self) -> Iterator[tuple[int, SearchResult]]:
        while self.finished:
            yield self.finished.popleft()


def run_searches(
    search: Callable[[int, Problem, SearchSettings], Search],
    problems: Sequence[Problem],
    engine: Engine,
    settings: SearchSettings,
) -> Iterator[tuple[int, SearchResult]]:
    """(index of the problem, result), as problems are done.

    Side by side, candidates are written by a thread of their own, and a search that has its verdicts goes on at
    once. In turns, a call of the generator and one of the verifier take what is wanted when they begin.
    """
    started = [search(index, problem, settings) for index, problem in enumerate(problems)]
    searches = Searches(started, waits=engine.side_by_side)
    yield from searches.fetched()
    known: dict[tuple[int, str], Judgement] = {}
    while searches.board:
        written = grow(engine, settings, searches.board)
        found = run_ahead(written) if engine.side_by_side else written
        verdicts = judge(engine, found, searches.take, known)
        try:
            for _ in verdicts:
                yield from searches.fetched()
        finally:  # the thread ends only if nothing more can be wanted
            searches.board.waits = False
            verdicts.close()
            found.close()
        yield from searches.fetched()
