"""Runs the searches of many problems together.

A search of one problem is a generator: it yields the candidates that it wants, gets them written and judged, and
returns its result. It goes on as soon as its own candidates are there, while those of others are still to come.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, TypeVar

from thinkprm_jax.sampler.handle import Handle, StepLoop
from thinkprm_jax.search.beams import Growth, Want, count, written
from thinkprm_jax.search.engine import Beam, Engine, Judgement, Piece, Problem, SearchResult, SearchSettings

T = TypeVar("T")

Search = Generator[list[Growth], list[Beam], SearchResult]


@dataclasses.dataclass
class _OpenSearch:
    """A search and the candidates that it waits for."""

    search: Search
    wanted: list[Growth] = dataclasses.field(default_factory=list)
    beams: dict[int, Beam] = dataclasses.field(default_factory=dict)


class SearchRun:
    """The searches of a wave.

    Everything is wanted from the engine at once, and what it brings is taken in by one thread, in the order in
    which it came: the searches themselves know nothing of threads.

    Args:
      searches: generators that have not begun.
      judged: candidates get a verdict; else none does.
    """

    def __init__(
        self, engine: Engine, settings: SearchSettings, searches: Sequence[Search], judged: bool = True
    ) -> None:
        self._engine, self._settings, self._judged = engine, settings, judged
        self._searches = {index: _OpenSearch(search) for index, search in enumerate(searches)}
        self._finished: collections.deque[tuple[int, SearchResult]] = collections.deque()
        self._handles: set[Handle[Any]] = set()
        self._news: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # By number of the problem and text: verdicts, and the candidates that wait for one.
        self._known: dict[tuple[int, str], Judgement] = {}
        self._waiting: dict[tuple[int, str], list[tuple[Growth, Beam]]] = {}

    def results(self) -> Iterator[tuple[int, SearchResult]]:
        """(index of the search, its result), as they are done.

        Side by side, generator and verifier step in a thread each. In turns, the generator writes all that is
        wanted, then the verifier judges it all, and so on; whatever is done comes out meanwhile.
        """
        step = self._wait if self._engine.side_by_side else self._step_in_turns
        loops = collections.deque(self._engine.loops)
        threads = _stepping(loops, self._news) if self._engine.side_by_side else contextlib.nullcontext()
        try:
            for index in list(self._searches):  # before anything steps: a sampler sees at once how much there is
                self._go_on(index, None)
            with threads:
                while self._searches or self._finished:
                    while self._finished:
                        yield self._finished.popleft()
                    if self._searches:
                        step(loops)
        finally:
            for handle in list(self._handles):
                handle.cancel()

    def _wait(self, loops: collections.deque[StepLoop]) -> None:
        """Until something came."""
        self._news.get()()
        self._take_in()

    def _step_in_turns(self, loops: collections.deque[StepLoop]) -> None:
        """Takes in what came; where nothing did, one step of the loop whose turn it is, or of the next."""
        if self._take_in():
            return
        for _ in range(len(loops)):
            if loops[0].step():
                return
            loops.rotate(-1)
        raise RuntimeError("a search waits for what nobody was asked for")

    def _take_in(self) -> bool:
        """All that came. False: nothing did."""
        came = False
        with contextlib.suppress(queue.Empty):
            while True:
                news = self._news.get_nowait()
                came = True
                news()
        return came

    def _when_done(self, handle: Handle[T], then: Callable[[T], None]) -> None:
        """Goes on with the handle's result in the thread that runs the searches."""

        def take() -> None:
            self._handles.discard(handle)
            then(handle.result())

        self._handles.add(handle)
        handle.add_done_callback(lambda done: self._news.put(take))

    def _write(self, want: Want) -> None:
        self._when_done(
            self._engine.generate(want.continuation(self._settings)), functools.partial(self._wrote, want)
        )

    def _wrote(self, want: Want, piece: Piece) -> None:
        beam, ids, is_open = written(want, piece, self._settings)
        if is_open and self._judged and want.ahead < self._settings.lookahead:
            self._write(Want(want.growth, beam, ids, want.ahead + 1))
        else:
            self._judge(want.growth, beam)

    def _judge(self, growth: Growth, beam: Beam) -> None:
        """Equal texts of a problem are judged once; a beam that failed or is judged already stays as it is."""
        key = beam.problem.number, beam.seen
        judged = beam.judgement is not None and beam.seen == beam.text
        if not self._judged or beam.error is not None or judged:
            self._take(growth, beam)
        elif key in self._known:
            self._take(growth, dataclasses.replace(beam, judgement=self._known[key]))
        elif key in self._waiting:
            self._waiting[key].append((growth, beam))
        else:
            self._waiting[key] = [(growth, beam)]
            handle = self._engine.verify(beam.problem, beam.seen)
            self._when_done(handle, functools.partial(self._heard, key))

    def _heard(self, key: tuple[int, str], judgement: Judgement) -> None:
        self._known[key] = judgement
        members = self._waiting.pop(key)
        count(members[0][0].result, judgement)
        for growth, beam in members:
            self._take(growth, dataclasses.replace(beam, judgement=judgement))

    def _take(self, growth: Growth, beam: Beam) -> None:
        """A candidate as its search wants it."""
        state = self._searches[growth.search]
        state.beams[growth.number] = beam
        if len(state.beams) == len(state.wanted):
            self._go_on(growth.search, [state.beams[wanted.number] for wanted in state.wanted])

    def _go_on(self, index: int, beams: list[Beam] | None) -> None:
        state = self._searches[index]
        try:
            # A generator begins with None, whatever it is sent later.
            wanted = next(state.search) if beams is None else state.search.send(beams)
        except StopIteration as end:
            del self._searches[index]
            self._finished.append((index, end.value))
            return
        state.wanted, state.beams = wanted, {}
        for growth in wanted:
            if growth.written:
                self._news.put(functools.partial(self._judge, growth, growth.beam))
            else:
                self._write(Want(growth))


@contextlib.contextmanager
def _stepping(loops: Sequence[StepLoop], news: queue.SimpleQueue[Callable[[], None]]) -> Iterator[None]:
    """A thread for each loop, which steps whenever there is something to do."""
    stopped = False

    def work(loop: StepLoop) -> None:
        try:
            loop.drive(lambda: stopped)
        except BaseException as raised:  # whatever it is, it belongs to who runs the searches
            error = raised

            def tell() -> None:
                raise error

            news.put(tell)

    threads = [threading.Thread(target=work, args=(loop,), name="search", daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped = True
        for loop in loops:
            with loop.changed:
                loop.wake()
        for thread in threads:
            thread.join()


def run_searches(
    search: Callable[[int, Problem, SearchSettings], Search],
    problems: Sequence[Problem],
    engine: Engine,
    settings: SearchSettings,
    judged: bool = True,
) -> Iterator[tuple[int, SearchResult]]:
    """(index of the problem, result), as problems are done."""
    started = [search(index, problem, settings) for index, problem in enumerate(problems)]
    return SearchRun(engine, settings, started, judged).results()
