"""A search from its recipe to its rows: the folder, the waves, what is there already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.records.output import OrderedOutput, has_rows
from thinkprm_jax.records.run_folder import claim_folder
from thinkprm_jax.records.search import CompletionRow, SearchVerdictRow
from thinkprm_jax.records.search_folder import COMPLETIONS, VERDICTS
from thinkprm_jax.search.approaches import search_of
from thinkprm_jax.search.engine import SearchResult
from thinkprm_jax.search.problems import Task, load_tasks
from thinkprm_jax.search.progress import SearchProgress
from thinkprm_jax.search.recipe import FREE_FIELDS, SearchRecipe
from thinkprm_jax.search.results import completion_row, verdict_row

if TYPE_CHECKING:
    from thinkprm_jax.search.judging import ModelEngine


def run_search(recipe: SearchRecipe) -> dict[str, Any]:
    """Searches what the recipe's folder does not hold yet; writes recipe.yaml, completions.jsonl, verdicts.jsonl.

    A run that was killed at any moment goes on from them. What is searched then is what the run would have
    searched anyway, in smaller batches: the same solutions, and scores that may differ in their last digits (1e-6
    in float32), because sums are taken in another order.

    Returns: the speed of this part of the run, compilation included.
    Raises:
      UserError: the data, a model or the folder cannot be used.
    """
    from thinkprm_jax.search.models import load_models, resolve  # JAX

    tasks = load_tasks(recipe)
    given, recipe = recipe, resolve(recipe)
    folder = recipe.folder
    # Before the first row, a recipe that could not run may be mended.
    begun = any(has_rows(folder / name) for name in (COMPLETIONS, VERDICTS))
    claim_folder(folder, recipe, begun, FREE_FIELDS)
    numbers = [{"index": task.problem.number} for task in tasks]
    with (
        OrderedOutput(folder / COMPLETIONS, CompletionRow, [task.row for task in tasks], {}) as completions,
        OrderedOutput(folder / VERDICTS, SearchVerdictRow, numbers, {}) as verdicts,
        SearchProgress(len(tasks), done=len(completions.resumed)) as progress,
    ):
        missing = sorted({*completions.missing, *verdicts.missing})
        if completions.resumed:
            progress.say(f"{folder}: {len(completions.resumed):,} of {len(tasks):,} problems are done already")
        if missing:
            if recipe.prm_path != given.prm_path:
                progress.say(f"the recipe has no prm_path: the verifier is {recipe.prm_path}")
            engine = load_models(recipe, tasks, progress.say)
            progress.watch(engine)
        for index, result in search_tasks(recipe, tasks, missing, engine) if missing else ():
            # A kill between the two leaves verdicts without their completions: they are made again, and what
            # stands there stays.
            if index in verdicts.missing:
                verdicts.add(index, verdict_row(tasks[index].problem.number, result))
            if index in completions.missing:
                completions.add(index, completion_row(tasks[index], result, recipe))
            progress.finished()
        return progress.speed(len(missing))


def search_tasks(
    recipe: SearchRecipe, tasks: Sequence[Task], wanted: Sequence[int], engine: ModelEngine
) -> Iterator[tuple[int, SearchResult]]:
    """(place of the task, result) of the wanted tasks, in any order within a wave. Waves begin at fixed places."""
    approach, chosen = search_of(recipe), set(wanted)
    for start in range(0, len(tasks), recipe.wave):
        wave = [place for place in range(start, min(start + recipe.wave, len(tasks))) if place in chosen]
        if wave:
            for index, result in approach([tasks[place] for place in wave], engine, recipe.settings):
                yield wave[index], result
