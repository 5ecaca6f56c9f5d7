"""Best-of-N: n whole solutions of each problem, each judged once. Greedy and plain sampling are its beginnings."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from thinkprm_jax.search.beams import Growth, count, grow
from thinkprm_jax.search.engine import Beam, Engine, Problem, SearchResult, SearchSettings


def best_of_n(
    problems: Sequence[Problem], engine: Engine, settings: SearchSettings
) -> Iterator[tuple[int, SearchResult]]:
    """(index of the problem, its n solutions with their judgements), as problems are done.

    The solutions stay in the order in which they were asked for, also with ``sort_completed``: the first half of
    them is a best-of-N of half the size.
    """
    yield from judge_solutions(_sample(problems, engine, settings), engine)


def sample(
    problems: Sequence[Problem], engine: Engine, settings: SearchSettings
) -> Iterator[tuple[int, SearchResult]]:
    """n solutions of each problem and no verdict on any."""
    yield from enumerate(_sample(problems, engine, settings))


def judge_solutions(results: Sequence[SearchResult], engine: Engine) -> Iterator[tuple[int, SearchResult]]:
    """Judges the solutions of ``results``, wherever they are from: one call of the verifier.

    Yields each result once its last verdict is there. Equal solutions of a problem are judged once.
    """
    groups: dict[tuple[int, str], list[int]] = {}
    for index, result in enumerate(results):
        for place, beam in enumerate(result.solutions):
            groups.setdefault((index, beam.text), []).append(place)
    missing = [len({beam.text for beam in result.solutions}) for result in results]
    keys = list(groups)

    yield from ((index, result) for index, result in enumerate(results) if not missing[index])
    items = [(results[index].solutions[places[0]].problem, text) for (index, text), places in groups.items()]
    for number, judgement in engine.verify(items) if items else ():
        index, _ = keys[number]
        result = results[index]
        count(result, judgement)
        for place in groups[keys[number]]:
            result.solutions[place] = dataclasses.replace(result.solutions[place], judgement=judgement)
        missing[index] -= 1
        if not missing[index]:
            yield index, result


def _sample(problems: Sequence[Problem], engine: Engine, settings: SearchSettings) -> list[SearchResult]:
    results = [SearchResult(rounds=1) for _ in problems]
    growths = [
        Growth(Beam(problem), number, result)
        for problem, result in zip(problems, results, strict=True)
        for number in range(settings.n)
    ]
    for growth, beam in zip(growths, grow(engine, settings, growths, 0, to_the_end=True), strict=True):
        if beam.error is not None:
            growth.result.error = beam.error
        else:
            growth.result.solutions.append(beam)
    return results
