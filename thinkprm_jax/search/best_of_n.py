"""Best-of-N: n whole solutions of each problem, each judged once. Greedy and plain sampling are its beginnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from thinkprm_jax.search.beams import Growth
from thinkprm_jax.search.driver import Search, SearchRun, run_searches
from thinkprm_jax.search.engine import Beam, Engine, Problem, SearchResult, SearchSettings


def best_of_n(
    problems: Sequence[Problem], engine: Engine, settings: SearchSettings
) -> Iterator[tuple[int, SearchResult]]:
    """(index of the problem, its n solutions with their judgements), as problems are done.

    The solutions stay in the order in which they were asked for, also with ``sort_completed``: the first half of
    them is a best-of-N of half the size.
    """
    return run_searches(_search, problems, engine, settings)


def sample(
    problems: Sequence[Problem], engine: Engine, settings: SearchSettings
) -> Iterator[tuple[int, SearchResult]]:
    """n solutions of each problem and no verdict on any."""
    return run_searches(_search, problems, engine, settings, judged=False)


def judge_solutions(given: Sequence[SearchResult], engine: Engine) -> Iterator[tuple[int, SearchResult]]:
    """Judges solutions, wherever they are from.

    Yields each result once its last verdict is there. Equal solutions of a problem are judged once.
    """
    searches = [_given(index, result) for index, result in enumerate(given)]
    return SearchRun(engine, SearchSettings(), searches).results()


def _search(index: int, problem: Problem, settings: SearchSettings) -> Search:
    result = SearchResult(rounds=1)
    start = Beam(problem)
    for beam in (yield [Growth(index, start, number, 0, True, result) for number in range(settings.n)]):
        if beam.error is not None:
            result.error = beam.error
        else:
            result.solutions.append(beam)
    return result


def _given(index: int, given: SearchResult) -> Search:
    """Solutions that are written already."""
    result = dataclasses.replace(given)
    seen = [dataclasses.replace(beam, seen=beam.text) for beam in given.solutions]
    if seen:
        result.solutions = yield [
            Growth(index, beam, number, 0, True, result, written=True) for number, beam in enumerate(seen)
        ]
    return result
