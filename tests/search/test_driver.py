"""Searches side by side: an engine in two threads that gives what it has at once, against one in turns."""

from __future__ import annotations

import threading

import pytest

from support.scripted_engine import Score, ScriptedEngine, Write, branches, prefix_of
from thinkprm_jax.sampler import Handle
from thinkprm_jax.search.approaches import SEARCHES
from thinkprm_jax.search.engine import Judgement, Problem, SearchSettings

BEST = "b\n\nbb\n\nend b"
TREE = {
    "": ["a\n\n", "b\n\n", "a\n\n", "early"],
    "a\n\n": ["end a"],
    "b\n\n": ["ba\n\n", "bb\n\n", "bb\n\n", "bc\n\n"],
    "b\n\nba\n\n": ["end x"],
    "b\n\nbc\n\n": ["end x"],
    "b\n\nbb\n\n": ["end x", "end b", "end x", "end y"],
}
SETTINGS = SearchSettings(n=4, beam_width=4, num_iterations=10, max_tokens=1000)
PROBLEMS = [Problem(number, "pqrst"[number]) for number in range(5)]


class Streaming(ScriptedEngine):
    """Answers each item alone."""

    side_by_side = True

    def __init__(self, write: Write, score: Score = lambda problem, text: [0.5]) -> None:
        super().__init__(write, score)
        self.threads: set[threading.Thread] = set()
        self._numbers: dict[tuple[str, tuple[int, ...]], int] = {}

    def _step_writing(self) -> bool:
        self.threads.add(threading.current_thread())
        if not self._to_write:
            return False
        item, handle = self._to_write.pop(0)
        key = item.problem.text, item.prefix
        number = self._numbers[key] = self._numbers.get(key, -1) + 1
        handle.settle(self._piece(item, "".join(map(chr, item.prefix)), number % SETTINGS.n))
        return True

    def _step_judging(self) -> bool:
        self.threads.add(threading.current_thread())
        if not self._to_judge:
            return False
        (problem, text), handle = self._to_judge.pop(0)
        handle.settle(self._judgement(problem, text))
        return True


def threads_of_searches() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "search"]


def found(engine: ScriptedEngine, approach: str, **changes) -> dict[int, tuple]:
    settings = SearchSettings(**{**vars(SETTINGS), **changes})
    return {
        index: (
            [(beam.text, beam.judgement and beam.judgement.scores) for beam in result.solutions],
            result.generated_tokens,
            result.verifications,
            result.rounds,
            result.error,
        )
        for index, result in SEARCHES[approach](PROBLEMS, engine, settings)
    }


@pytest.mark.parametrize("approach", ["best_of_n", "beam_search", "dvts"])
@pytest.mark.parametrize("lookahead", [0, 2])
def test_side_by_side_finds_what_is_found_in_turns(approach: str, lookahead: int) -> None:
    engines = [kind(branches(TREE), prefix_of(BEST)) for kind in (ScriptedEngine, Streaming)]
    for engine in engines:
        engine.failing = {"r"}
    turns, beside = (found(engine, approach, lookahead=lookahead) for engine in engines)
    assert beside == turns
    assert len(engines[1].threads) == 2
    assert threading.current_thread() not in engines[1].threads


def test_a_search_goes_on_while_others_wait_for_their_verdicts() -> None:
    done = threading.Event()

    class Slow(Streaming):
        """The first verdict on p comes when q is through."""

        def _step_judging(self) -> bool:
            for number, ((problem, _), handle) in enumerate(self._to_judge):
                if problem.text != "p" or done.is_set():
                    del self._to_judge[number]
                    handle.settle(Judgement((0.5,)))
                    return True
            return False

    def write(problem: str, text: str, number: int) -> str:
        return f"end {number}" if text else f"{number}\n\n"

    order = []
    engine = Slow(write)
    searches = SEARCHES["beam_search"](PROBLEMS[:2], engine, SETTINGS)
    for index, _ in searches:
        order.append(index)
        done.set()
        with engine.loops[1].changed:
            engine.loops[1].wake()
    assert order == [1, 0]


@pytest.mark.parametrize("kind", [ScriptedEngine, Streaming])
@pytest.mark.parametrize("where", ["_piece", "_judgement"])
def test_an_error_of_the_engine_ends_the_search(kind: type[ScriptedEngine], where: str) -> None:
    engine = kind(branches(TREE), prefix_of(BEST))

    def broken(*args: object) -> None:
        raise LookupError("broken")

    setattr(engine, where, broken)
    with pytest.raises(LookupError, match="broken"):
        list(SEARCHES["beam_search"](PROBLEMS, engine, SETTINGS))
    assert not threads_of_searches()


def test_a_handle_that_fails_ends_the_search_and_cancels_the_others() -> None:
    class Failing(Streaming):
        def verify(self, problem: Problem, solution: str) -> Handle[Judgement]:
            handle = super().verify(problem, solution)
            handles.append(handle)
            return handle

        def _step_judging(self) -> bool:
            if not self._to_judge:
                return False
            self._to_judge.pop(0)[1].fail(LookupError("no verdict"))
            return True

    handles: list[Handle[Judgement]] = []
    with pytest.raises(LookupError, match="no verdict"):
        list(SEARCHES["best_of_n"](PROBLEMS, Failing(branches(TREE)), SETTINGS))
    assert all(handle.done() for handle in handles)


def test_leaving_a_search_ends_its_thread() -> None:
    searches = SEARCHES["beam_search"](PROBLEMS, Streaming(branches(TREE), prefix_of(BEST)), SETTINGS)
    next(searches)
    searches.close()
    assert not threads_of_searches()
