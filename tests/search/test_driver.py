"""Searches side by side: an engine in two threads that gives what it has at once, against one in turns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

import pytest
from support.scripted_engine import ScriptedEngine, branches, prefix_of

from thinkprm_jax.search.approaches import SEARCHES
from thinkprm_jax.search.engine import Continuation, Judgement, Piece, Problem, SearchSettings

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
    """Answers each item alone, and waits where there is none."""

    side_by_side = True
    threads: set[threading.Thread]

    def generate(self, continuations: Iterable[Continuation | None]) -> Iterator[tuple[int, Piece]]:
        self.threads = {threading.current_thread()}
        asked = 0
        numbers: dict[tuple[str, tuple[int, ...]], int] = {}
        for item in continuations:
            if item is None:
                time.sleep(0.001)
                continue
            key = item.problem.text, item.prefix
            number = numbers[key] = numbers.get(key, -1) + 1
            yield asked, self._piece(item, "".join(map(chr, item.prefix)), number % SETTINGS.n)
            asked += 1

    def verify(self, solutions: Iterable[tuple[Problem, str] | None]) -> Iterator[tuple[int, Judgement]]:
        asked = 0
        for item in solutions:
            if item is None:
                time.sleep(0.001)
                continue
            ((_, judgement),) = super().verify([item])
            yield asked, judgement
            asked += 1


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
    assert threading.current_thread() not in engines[1].threads


def test_a_search_goes_on_while_others_wait_for_their_verdicts() -> None:
    done = threading.Event()

    class Slow(Streaming):
        def verify(self, solutions: Iterable[tuple[Problem, str] | None]) -> Iterator[tuple[int, Judgement]]:
            held = None
            asked = 0
            for item in solutions:
                if held is not None and done.is_set():
                    yield held, Judgement((0.5,))
                    held = None
                if item is None:
                    time.sleep(0.001)
                    continue
                if held is None and not done.is_set() and item[0].text == "p":
                    held = asked  # the first verdict on p comes when q is through
                else:
                    yield asked, Judgement((0.5,))
                asked += 1

    def write(problem: str, text: str, number: int) -> str:
        return f"end {number}" if text else f"{number}\n\n"

    order = []
    searches = SEARCHES["beam_search"](PROBLEMS[:2], Slow(write), SETTINGS)
    for index, _ in searches:
        order.append(index)
        done.set()
    assert order == [1, 0]


def test_an_error_of_the_verifier_ends_the_writing() -> None:
    class Failing(Streaming):
        def verify(self, solutions: Iterable[tuple[Problem, str] | None]) -> Iterator[tuple[int, Judgement]]:
            next(iter(solutions))
            raise LookupError("broken")
            yield

    before = threading.active_count()
    with pytest.raises(LookupError, match="broken"):
        list(SEARCHES["beam_search"](PROBLEMS, Failing(branches(TREE)), SETTINGS))
    assert threading.active_count() == before


def test_leaving_a_search_ends_its_thread() -> None:
    before = threading.active_count()
    searches = SEARCHES["beam_search"](PROBLEMS, Streaming(branches(TREE), prefix_of(BEST)), SETTINGS)
    next(searches)
    searches.close()
    assert threading.active_count() == before
