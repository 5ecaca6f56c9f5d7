"""DVTS, diverse verifier tree search: n / M trees that never compare with each other.

In a round every tree makes M candidates from its node; the best of them is its next node. A tree ends when its
best candidate has ended. A candidate that ends before that is a solution all the same: it keeps its place, and the
tree makes one candidate less from then on. So a tree gives at most M solutions, and only finished ones: what was
cut by ``max_tokens`` is no solution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from thinkprm_jax.search.beams import Growth, best_first, grow, judge, look_ahead
from thinkprm_jax.search.engine import Beam, Engine, Problem, SearchResult, SearchSettings


@dataclasses.dataclass
class _Tree:
    """node: None once the tree has ended. places: candidates it may still make. first: their first number."""

    node: Beam | None
    places: int
    first: int
    solutions: list[Beam] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class _Open:
    index: int
    trees: list[_Tree]
    result: SearchResult


def dvts(
    problems: Sequence[Problem], engine: Engine, settings: SearchSettings
) -> Iterator[tuple[int, SearchResult]]:
    """(index of the problem, its finished solutions, tree by tree), as problems are done.

    A problem none of whose trees finished has no solution: the list is empty.
    """
    width = settings.beam_width
    if settings.n % width:
        raise ValueError(f"n must be a multiple of beam_width, not {settings.n} and {width}")
    states = [
        _Open(
            index,
            [_Tree(Beam(problem), width, first) for first in range(0, settings.n, width)],
            SearchResult(),
        )
        for index, problem in enumerate(problems)
    ]
    for round in range(settings.num_iterations):
        growths = [
            Growth(tree.node, tree.first + number, state.result)
            for state in states
            for tree in state.trees
            if tree.node is not None
            for number in range(tree.places)
        ]
        last = round == settings.num_iterations - 1
        beams = grow(engine, settings, growths, round, to_the_end=last)
        beams = judge(engine, growths, look_ahead(engine, settings, growths, beams, round))
        going_on = []
        start = 0
        for state in states:
            state.result.rounds += 1
            for tree in state.trees:
                if tree.node is None:
                    continue
                candidates = beams[start : start + tree.places]
                start += tree.places
                _select(state, tree, candidates, settings)
            if any(tree.node is not None for tree in state.trees):
                going_on.append(state)
            else:
                yield state.index, _finished(state, settings)
        states = going_on
        if not states:
            return


def _select(state: _Open, tree: _Tree, candidates: Sequence[Beam], settings: SearchSettings) -> None:
    """Takes the finished candidates in and chooses the tree's next node."""
    failed = [beam.error for beam in candidates if beam.error is not None]
    if failed:
        state.result.error, tree.node = failed[0], None
        return
    tree.solutions += [beam for beam in candidates if beam.finish == "stop"]
    tree.places -= sum(beam.finish is not None for beam in candidates)
    best = best_first(candidates, settings.agg_strategy)[0]
    tree.node = best if best.finish is None else None


def _finished(state: _Open, settings: SearchSettings) -> SearchResult:
    solutions = [beam for tree in state.trees for beam in tree.solutions]
    state.result.solutions = best_first(solutions, settings.agg_strategy) if settings.sort_completed else solutions
    if solutions:
        state.result.error = None
    return state.result
