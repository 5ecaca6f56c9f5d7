"""Beam search guided by the verifier.

    round 1      n first steps of each problem
    a round      all candidates are judged. Those that ended are solutions: they keep their place among the n,
                 for good. Of the others, the best one of every M candidates goes on, and together they make as
                 many new candidates as places are left.
    last round   to the end of the solution

A problem is done when its n places hold ended solutions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from thinkprm_jax.search.beams import Growth, best_first, distinct, grow, judge, look_ahead
from thinkprm_jax.search.engine import Beam, Engine, Problem, SearchResult, SearchSettings


@dataclasses.dataclass
class _Open:
    """A problem that is being searched. parents: what the next round's candidates go on from, one for each."""

    index: int
    parents: list[Beam]
    result: SearchResult


def beam_search(
    problems: Sequence[Problem], engine: Engine, settings: SearchSettings
) -> Iterator[tuple[int, SearchResult]]:
    """(index of the problem, its solutions), as problems are done. Never more than n solutions.

    A solution that was cut by ``max_tokens`` is one of them, with finish "length": it holds a place and says so.
    """
    states = [_Open(index, [Beam(problem)] * settings.n, SearchResult()) for index, problem in enumerate(problems)]
    for round in range(settings.num_iterations):
        growths = [
            Growth(beam, number, state.result) for state in states for number, beam in enumerate(state.parents)
        ]
        last = round == settings.num_iterations - 1
        beams = grow(engine, settings, growths, round, to_the_end=last)
        beams = judge(engine, growths, look_ahead(engine, settings, growths, beams, round))
        going_on = []
        start = 0
        for state in states:
            candidates = beams[start : start + len(state.parents)]
            start += len(state.parents)
            state.result.rounds += 1
            _select(state, candidates, settings)
            if state.parents:
                going_on.append(state)
            else:
                yield state.index, _finished(state.result, settings)
        states = going_on
        if not states:
            return


def _select(state: _Open, candidates: Sequence[Beam], settings: SearchSettings) -> None:
    """Takes the ended candidates in and chooses the parents of the next round; none where the search is done."""
    failed = [beam.error for beam in candidates if beam.error is not None]
    if failed and not state.result.solutions:  # the prompt cannot run: nor can any other candidate
        state.result.error, state.parents = failed[0], []
        return
    state.result.solutions += [beam for beam in candidates if beam.finish is not None and beam.error is None]
    open_beams = [beam for beam in candidates if beam.finish is None]
    if settings.filter_duplicates:
        open_beams = distinct(open_beams)
    places = settings.n - len(state.result.solutions)
    kept = best_first(open_beams, settings.agg_strategy)[: -(-places // settings.beam_width)]
    state.parents = [kept[number % len(kept)] for number in range(places)] if kept else []


def _finished(result: SearchResult, settings: SearchSettings) -> SearchResult:
    if settings.sort_completed:
        result.solutions = best_first(result.solutions, settings.agg_strategy)
    return result
