"""A search from its tasks to its rows: the folder, the waves, what is there already."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.records.output import OrderedOutput, has_rows
from thinkprm_jax.records.run_folder import claim_folder
from thinkprm_jax.records.schema import FINGERPRINTS
from thinkprm_jax.records.search import CompletionRow, SearchVerdictRow
from thinkprm_jax.records.search_folder import COMPLETIONS, UNFINISHED, VERDICTS
from thinkprm_jax.search.approaches import search_of
from thinkprm_jax.search.engine import Engine, SearchResult
from thinkprm_jax.search.problems import Task
from thinkprm_jax.search.progress import SearchProgress
from thinkprm_jax.search.recipe import FREE_FIELDS, SearchRecipe
from thinkprm_jax.search.results import completion_row, verdict_row
from thinkprm_jax.search.unfinished import KeepingEngine, UnfinishedStore
from thinkprm_jax.storage import Location

if TYPE_CHECKING:
    from thinkprm_jax.search.model_engine import ModelEngine


class OpenSearch:
    """The folder of a search that runs: which tasks miss their rows, and where results go.

    A run that was killed at any moment goes on from its rows. What is searched then is what the run would have
    searched anyway, in smaller batches: the same solutions, and scores that may differ in their last digits (1e-6
    in float32), because sums are taken in another order.

    Attributes:
      missing: indices of the tasks that are still to be searched.
    """

    def __init__(
        self,
        recipe: SearchRecipe,
        tasks: Sequence[Task],
        completions: OrderedOutput[CompletionRow],
        verdicts: OrderedOutput[SearchVerdictRow],
        progress: SearchProgress,
    ) -> None:
        self._recipe, self._tasks = recipe, tasks
        self._completions, self._verdicts, self._progress = completions, verdicts, progress
        self.missing = sorted({*completions.missing, *verdicts.missing})
        wanted = {tasks[place].problem.number for place in self.missing}
        self._unfinished = UnfinishedStore(recipe.folder / UNFINISHED, wanted)
        if self._unfinished.kept:
            kept = f"{self._unfinished.kept:,} pieces and verdicts of unfinished problems"
            progress.say(f"{recipe.folder}: {kept} are there already")
        self._models: Mapping[str, Any] | None = None
        self._verifier: Mapping[str, Any] | None = None

    def say(self, line: str) -> None:
        """A line above the progress bar."""
        self._progress.say(line)

    def phase(self, text: str) -> None:
        """What is being done before the search begins."""
        self._progress.phase(text)

    def watch(self, engine: ModelEngine) -> None:
        """Tokens and speed are those of these models."""
        self._progress.watch(engine)

    def stamp(self, models: Mapping[str, Mapping[str, Any]]) -> None:
        """Says which models make the rows to come: "generator" and "verifier", of those that there are.

        Raises:
          UserError: rows that are there were made by models with other files of the same name.
        """
        named = ("model", *FINGERPRINTS)
        self._models = {
            role: {name: made[name] for name in named if name in made} for role, made in models.items()
        }
        self._verifier = models.get("verifier")
        self._completions.check_models(models=self._models)
        self._verdicts.check_models(verifier=self._verifier or {})
        generator, verifier = (
            {name: found for name, found in models.get(role, {}).items() if name in FINGERPRINTS}
            for role in ("generator", "verifier")
        )
        self._unfinished.use(generator, verifier)

    def keeping(self, engine: Engine) -> Engine:
        """The engine; what it gives for problems that have no rows yet is kept, and not asked for again."""
        return KeepingEngine(engine, self._unfinished)

    def close(self) -> None:
        self._unfinished.close()

    def add(self, index: int, result: SearchResult) -> None:
        """Writes the rows of a task."""
        # A kill between the two leaves verdicts without their completions: they are made again, and what stands
        # there stays.
        if index in self._verdicts.missing:
            judged = verdict_row(self._tasks[index].problem.number, result)
            self._verdicts.add(index, dataclasses.replace(judged, verifier=self._verifier))
        if index in self._completions.missing:
            found = completion_row(self._tasks[index], result, self._recipe)
            self._completions.add(index, dataclasses.replace(found, models=self._models))
        self._unfinished.forget(self._tasks[index].problem.number)
        self._progress.finished()

    def speed(self) -> dict[str, Any]:
        """Of this part of the run, compilation included."""
        return self._progress.speed(len(self.missing))


def has_begun(folder: Location) -> bool:
    """Whether a run has written rows there."""
    return any(has_rows(folder / name) for name in (COMPLETIONS, VERDICTS, UNFINISHED))


@contextlib.contextmanager
def open_search(recipe: SearchRecipe, tasks: Sequence[Task]) -> Iterator[OpenSearch]:
    """The recipe's folder, with the recipe in it, and completions.jsonl and verdicts.jsonl open.

    Args:
      recipe: resolved, see :func:`thinkprm_jax.search.models.resolve`.
    Raises:
      UserError: the folder holds another run, or cannot be written.
    """
    folder = recipe.folder
    # Before the first row, a recipe that could not run may be mended.
    claim_folder(folder, recipe, has_begun(folder), FREE_FIELDS)
    numbers = [{"index": task.problem.number} for task in tasks]
    with (
        OrderedOutput(folder / COMPLETIONS, CompletionRow, [task.row for task in tasks], {}) as completions,
        OrderedOutput(folder / VERDICTS, SearchVerdictRow, numbers, {}) as verdicts,
        SearchProgress(len(tasks), done=completions.resumed) as progress,
    ):
        if completions.resumed:
            progress.say(f"{folder}: {completions.resumed:,} of {len(tasks):,} problems are done already")
        with contextlib.closing(OpenSearch(recipe, tasks, completions, verdicts, progress)) as run:
            yield run
        for line in progress.too_long.lines("max_verification_length"):
            progress.say(line)


def search_tasks(
    recipe: SearchRecipe, tasks: Sequence[Task], wanted: Sequence[int], engine: Engine
) -> Iterator[tuple[int, SearchResult]]:
    """(place of the task, result) of the wanted tasks, in any order within a wave. Waves begin at fixed places."""
    approach, chosen = search_of(recipe), set(wanted)
    for start in range(0, len(tasks), recipe.wave):
        wave = [place for place in range(start, min(start + recipe.wave, len(tasks))) if place in chosen]
        if wave:
            for index, result in approach([tasks[place] for place in wave], engine, recipe.settings):
                yield wave[index], result
