"""The searches by name: what a recipe's ``approach`` runs on a wave of problems."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from thinkprm_jax.search.beam_search import beam_search
from thinkprm_jax.search.best_of_n import best_of_n, judge_solutions, sample
from thinkprm_jax.search.dvts import dvts
from thinkprm_jax.search.engine import Engine, Problem, SearchResult, SearchSettings
from thinkprm_jax.search.problems import Task
from thinkprm_jax.search.recipe import SearchRecipe

Search = Callable[[Sequence[Problem], Engine, SearchSettings], Iterator[tuple[int, SearchResult]]]
Approach = Callable[[Sequence[Task], Engine, SearchSettings], Iterator[tuple[int, SearchResult]]]

SEARCHES: dict[str, Search] = {
    "best_of_n": best_of_n,
    "beam_search": beam_search,
    "dvts": dvts,
    "greedy": sample,
    "sample": sample,
}


def search_of(recipe: SearchRecipe) -> Approach:
    """(tasks, engine, settings) -> (place of the task, result), in any order."""
    search = SEARCHES[recipe.approach] if recipe.verified else sample

    def run(tasks: Sequence[Task], engine: Engine, settings: SearchSettings) -> Iterator[tuple[int, SearchResult]]:
        given = [task.solutions for task in tasks if task.solutions is not None]
        if not given:
            return search([task.problem for task in tasks], engine, settings)
        return judge_solutions(given, engine) if recipe.verified else iter(enumerate(given))

    return run
