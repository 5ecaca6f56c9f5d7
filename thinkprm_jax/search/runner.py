"""A search from its tasks to its rows: the folder, the waves, what is there already."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.progress import LOOK_SECONDS, Ticker
from thinkprm_jax.records.job import Sharing
from thinkprm_jax.records.schema import FINGERPRINTS
from thinkprm_jax.search.approaches import search_of
from thinkprm_jax.search.engine import Engine, SearchResult
from thinkprm_jax.search.problems import Task
from thinkprm_jax.search.progress import SearchProgress
from thinkprm_jax.search.recipe import SearchRecipe
from thinkprm_jax.search.results import completion_row, verdict_row
from thinkprm_jax.search.rows import SearchRows, open_rows
from thinkprm_jax.search.unfinished import KeepingEngine

if TYPE_CHECKING:
    from thinkprm_jax.search.model_engine import ModelEngine


class OpenSearch:
    """The folder of a search that runs: which problems miss their rows, and where results go.

    A run that was killed at any moment goes on from its rows. What is searched then is what the run would have
    searched anyway, in smaller batches: the same solutions, and scores that may differ in their last digits (1e-6
    in float32), because sums are taken in another order.
    """

    def __init__(
        self, recipe: SearchRecipe, tasks: Sequence[Task], rows: SearchRows, progress: SearchProgress
    ) -> None:
        self._recipe, self._tasks, self._rows, self._progress = recipe, tasks, rows, progress
        self._models: Mapping[str, Any] | None = None
        self._verifier: Mapping[str, Any] | None = None
        self._searched = 0

    def say(self, line: str) -> None:
        """A line above the progress bar."""
        self._progress.say(line)

    def phase(self, text: str) -> None:
        """What is being done before the search begins."""
        self._progress.phase(text)

    def watch(self, engine: ModelEngine) -> None:
        """Tokens and speed are those of these models."""
        self._progress.watch(engine)

    def has_work(self) -> bool:
        """Whether there is a problem for this process to search; with others it may wait for them."""
        return self._rows.has_work()

    def waves(self) -> Iterator[Sequence[int]]:
        """Places of the tasks to be searched, for :func:`search_tasks`."""
        return self._rows.waves()

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
        self._rows.check_models(self._models, self._verifier)
        generator, verifier = (
            {name: found for name, found in models.get(role, {}).items() if name in FINGERPRINTS}
            for role in ("generator", "verifier")
        )
        self._rows.unfinished.use(generator, verifier)

    def keeping(self, engine: Engine) -> Engine:
        """The engine; what it gives for problems that have no rows yet is kept, and not asked for again."""
        return KeepingEngine(engine, self._rows.unfinished)

    def add(self, index: int, result: SearchResult) -> None:
        """Writes the rows of a task."""
        task = self._tasks[index]
        judged = dataclasses.replace(verdict_row(task.problem.number, result), verifier=self._verifier)
        found = dataclasses.replace(completion_row(task, result, self._recipe), models=self._models)
        self._rows.add(index, found, judged)
        self._rows.unfinished.forget(task.problem.number)
        self._searched += 1
        self._progress.finished()

    def finish(self) -> str:
        """Of what is missing now a line; "": nothing. With others it waits for them, where that is wanted."""
        return self._rows.finish()

    def speed(self) -> dict[str, Any]:
        """Of this part of the run, compilation included."""
        return self._progress.speed(self._searched)


@contextlib.contextmanager
def open_search(
    recipe: SearchRecipe, tasks: Sequence[Task], sharing: Sharing | None = None
) -> Iterator[OpenSearch]:
    """The recipe's folder, with the recipe in it, and its files open.

    Args:
      recipe: resolved, see :func:`thinkprm_jax.search.models.resolve`.
      sharing: how this process takes part where others search, too; None: it is alone, unless others have begun.
    Raises:
      UserError: the folder holds another run, or cannot be written.
    """
    folder, count = recipe.folder, len(tasks)
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(contextlib.closing(open_rows(recipe, tasks, sharing or Sharing())))
        progress = stack.enter_context(SearchProgress(count, done=rows.done))
        say = rows.say = progress.say
        if rows.done:
            say(f"{folder}: {rows.done:,} of {count:,} problems are done already")
        if rows.kept:
            say(f"{folder}: {rows.kept:,} pieces and verdicts of unfinished problems are there already")
        with contextlib.ExitStack() as looks:
            if rows.shown() is not None:
                looks.enter_context(Ticker(LOOK_SECONDS, lambda: progress.everyone(*(rows.shown() or (0, "")))))
            yield OpenSearch(recipe, tasks, rows, progress)
        for line in progress.too_long.lines("max_verification_length"):
            progress.say(line)


def search_tasks(
    recipe: SearchRecipe, tasks: Sequence[Task], waves: Iterable[Sequence[int]], engine: Engine
) -> Iterator[tuple[int, SearchResult]]:
    """(place of the task, result) of the tasks of these waves, wave after wave, in any order within one."""
    approach = search_of(recipe)
    for wave in waves:
        for index, result in approach([tasks[place] for place in wave], engine, recipe.settings):
            yield wave[index], result
