"""DVTS, diverse verifier tree search: n / M trees that never compare with each other.

In a round every tree makes M candidates from its node; the best of them is its next node. A tree ends when its
best candidate has ended. A candidate that ends before that is a solution all the same: it keeps its place, and the
tree makes one candidate less from then on. So a tree gives at most M solutions, and only finished ones: what was
cut by ``max_tokens`` is no solution.

By search-and-learn's rules a tree always makes M candidates, ends also where its best one holds `boxed{`, and
gives the M candidates of its last round, ended or not.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

from thinkprm_jax.search.beams import Growth, best_first
from thinkprm_jax.search.driver import Search, run_searches
from thinkprm_jax.search.engine import Beam, Engine, Problem, SearchResult, SearchSettings


@dataclasses.dataclass
class _Tree:
    """node: None once the tree has ended. places: candidates it may still make. first: their first number."""

    node: Beam | None
    places: int
    first: int
    solutions: list[Beam] = dataclasses.field(default_factory=list)


BOX = "boxed{"  # by search-and-learn's rules the last step of a solution


def dvts(
    problems: Sequence[Problem], engine: Engine, settings: SearchSettings
) -> Iterator[tuple[int, SearchResult]]:
    """(index of the problem, its finished solutions, tree by tree), as problems are done.

    A problem none of whose trees finished has no solution: the list is empty.
    """
    if settings.n % settings.beam_width:
        raise ValueError(f"n must be a multiple of beam_width, not {settings.n} and {settings.beam_width}")
    return run_searches(_search, problems, engine, settings)


def _search(index: int, problem: Problem, settings: SearchSettings) -> Search:
    result, width = SearchResult(), settings.beam_width
    trees = [_Tree(Beam(problem), width, first) for first in range(0, settings.n, width)]
    for round in range(settings.num_iterations):
        last = round == settings.num_iterations - 1
        growing = [(tree, tree.node, tree.places) for tree in trees if tree.node is not None]
        if not growing:
            break
        beams = iter(
            (
                yield [
                    Growth(index, node, tree.first + number, round, last, result)
                    for tree, node, places in growing
                    for number in range(places)
                ]
            )
        )
        result.rounds += 1
        for tree, _, places in growing:
            _select(result, tree, list(itertools.islice(beams, places)), settings)
    solutions = [beam for tree in trees for beam in tree.solutions]
    result.solutions = best_first(solutions, settings.agg_strategy) if settings.sort_completed else solutions
    if solutions:
        result.error = None
    return result


def _select(result: SearchResult, tree: _Tree, candidates: Sequence[Beam], settings: SearchSettings) -> None:
    """Takes the finished candidates in and chooses the tree's next node."""
    failed = [beam.error for beam in candidates if beam.error is not None]
    if failed:
        result.error, tree.node = failed[0], None
        return
    if settings.as_search_and_learn:
        tree.solutions = list(candidates)
        best = best_first(candidates, settings.agg_strategy)[0]
        tree.node = best if best.finish is None and BOX not in best.text else None
        return
    tree.solutions += [beam for beam in candidates if beam.finish == "stop"]
    tree.places -= sum(beam.finish is not None for beam in candidates)
    best = best_first(candidates, settings.agg_strategy)[0]
    tree.node = best if best.finish is None else None
