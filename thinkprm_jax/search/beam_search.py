"""Beam search guided by the verifier.

    round 1      n first steps of each problem
    a round      all candidates are judged. Those that ended are solutions: they keep their place among the n,
                 for good. Of the others, the best one of every M candidates goes on, and together they make as
                 many new candidates as places are left.
    last round   to the end of the solution

A problem is done when its n places hold ended solutions.

By search-and-learn's rules every round makes n candidates, whatever has ended before, until none is open; the
first n ended ones come out (with ``sort_completed`` the n best), and are repeated where they are fewer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from thinkprm_jax.search.beams import Growth, best_first, distinct
from thinkprm_jax.search.driver import Search, run_searches
from thinkprm_jax.search.engine import Beam, Engine, Problem, SearchResult, SearchSettings


def beam_search(
    problems: Sequence[Problem], engine: Engine, settings: SearchSettings
) -> Iterator[tuple[int, SearchResult]]:
    """(index of the problem, its solutions), as problems are done. Never more than n solutions.

    A solution that was cut by ``max_tokens`` is one of them, with finish "length": it holds a place and says so.
    """
    return run_searches(_refill if settings.as_search_and_learn else _search, problems, engine, settings)


def _search(index: int, problem: Problem, settings: SearchSettings) -> Search:
    result = SearchResult()
    parents = [Beam(problem)] * settings.n
    for round in range(settings.num_iterations):
        last = round == settings.num_iterations - 1
        candidates = yield [
            Growth(index, beam, number, round, last, result) for number, beam in enumerate(parents)
        ]
        result.rounds += 1
        parents = _select(result, candidates, settings)
        if not parents:
            break
    if settings.sort_completed:
        result.solutions = best_first(result.solutions, settings.agg_strategy)
    return result


def _select(result: SearchResult, candidates: Sequence[Beam], settings: SearchSettings) -> list[Beam]:
    """Takes the ended candidates in. Returns: what each candidate of the next round goes on from; [] where the
    search is done."""
    failed = [beam.error for beam in candidates if beam.error is not None]
    if failed and not result.solutions:  # the prompt cannot run: nor can any other candidate
        result.error = failed[0]
        return []
    result.solutions += [beam for beam in candidates if beam.finish is not None and beam.error is None]
    open_beams = [beam for beam in candidates if beam.finish is None]
    if settings.filter_duplicates:
        open_beams = distinct(open_beams)
    places = settings.n - len(result.solutions)
    kept = best_first(open_beams, settings.agg_strategy)[: -(-places // settings.beam_width)]
    return [kept[number % len(kept)] for number in range(places)] if kept else []


def _refill(index: int, problem: Problem, settings: SearchSettings) -> Search:
    """The same by search-and-learn's rules."""
    result, ended = SearchResult(), list[Beam]()
    parents = [Beam(problem)] * settings.n
    for round in range(settings.num_iterations):
        last = round == settings.num_iterations - 1
        candidates = yield [
            Growth(index, beam, number, round, last, result) for number, beam in enumerate(parents)
        ]
        result.rounds += 1
        failed = [beam.error for beam in candidates if beam.error is not None]
        if failed and not ended:
            result.error = failed[0]
            break
        ended += [beam for beam in candidates if beam.finish is not None and beam.error is None]
        open_beams = [beam for beam in candidates if beam.finish is None]
        if not open_beams:
            break
        if settings.filter_duplicates:
            open_beams = distinct(open_beams)
        # Fewer than one place a beam: all of them go on.
        best = best_first(open_beams, settings.agg_strategy)[: settings.n // settings.beam_width or None]
        kept = [beam for beam in open_beams if any(beam is other for other in best)]
        parents = [kept[number % len(kept)] for number in range(settings.n)]
    if settings.sort_completed:
        ended = best_first(ended, settings.agg_strategy)
    result.solutions = [ended[number % len(ended)] for number in range(settings.n)] if ended else []
    return result
