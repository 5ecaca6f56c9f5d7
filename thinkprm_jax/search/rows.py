"""Where the rows of a search go: the files of one process, or those of a job that several processes do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from thinkprm_jax.paths import check_output_folder
from thinkprm_jax.records.job import JobPlan, Sharing
from thinkprm_jax.records.joined_output import JoinedOutput, is_shared
from thinkprm_jax.records.output import LazyInputs, OrderedOutput, has_rows
from thinkprm_jax.records.run_folder import agreed_fields, claim_folder
from thinkprm_jax.records.search import CompletionRow, SearchedRow, SearchVerdictRow
from thinkprm_jax.records.search_folder import COMPLETIONS, UNFINISHED, VERDICTS
from thinkprm_jax.search.engine import Judgement, Piece
from thinkprm_jax.search.problems import Task
from thinkprm_jax.search.recipe import FREE_FIELDS, SearchRecipe
from thinkprm_jax.search.unfinished import UnfinishedStore
from thinkprm_jax.storage import Location

_BESIDE = ".unfinished"  # beside the rows of a part: what there is of its problems without rows
_PARTS_A_PROCESS = 2  # a process drains its slots at the end of each
Fingerprints = Mapping[str, str]


class SearchRows(Protocol):
    """Attributes:
    done: rows that are there. kept: pieces and verdicts of problems without rows, of an earlier run.
    say: takes a line for people.
    """

    done: int
    kept: int
    say: Callable[[str], object]

    def has_work(self) -> bool:
        """Whether there is a problem for this process to search; may wait for others."""

    def waves(self) -> Iterator[Sequence[int]]:
        """Places of problems that are searched together, wave by wave."""

    @property
    def unfinished(self) -> UnfinishedStore | UnfinishedParts: ...

    def check_models(self, models: Mapping[str, Any], verifier: Mapping[str, Any] | None) -> None:
        """`UserError` where rows that are there were made by models with other files of the same name."""

    def add(self, place: int, completion: CompletionRow, verdicts: SearchVerdictRow) -> None:
        """The rows of a problem."""

    def finish(self) -> str:
        """What is missing then, in words; "": nothing."""

    def shown(self) -> tuple[int, str] | None:
        """(rows that all processes have, what else is to be said of them); None of a process alone."""

    def close(self) -> None: ...


def has_begun(folder: Location) -> bool:
    """Whether a run has written rows there."""
    begun = any(has_rows(folder / name) for name in (COMPLETIONS, VERDICTS, UNFINISHED))
    return begun or is_shared(folder / COMPLETIONS, Sharing())


def open_rows(recipe: SearchRecipe, tasks: Sequence[Task], sharing: Sharing) -> SearchRows:
    """The recipe's folder, with the recipe in it, and its files open.

    Raises:
      UserError: the folder holds another run, or cannot be written.
    """
    shared = is_shared(recipe.folder / COMPLETIONS, sharing)
    return SearchJob(recipe, tasks, sharing) if shared else SearchFiles(recipe, tasks)


class SearchFiles:
    """completions.jsonl, verdicts.jsonl and unfinished.jsonl of a process alone; see :class:`SearchRows`."""

    say: Callable[[str], object] = print

    def __init__(self, recipe: SearchRecipe, tasks: Sequence[Task]) -> None:
        self._wave, self._count, folder = recipe.wave, len(tasks), recipe.folder
        # Before the first row, a recipe that could not run may be mended.
        claim_folder(folder, recipe, has_begun(folder), FREE_FIELDS)
        numbers = [{"index": task.problem.number} for task in tasks]
        with contextlib.ExitStack() as stack:
            self._completions = stack.enter_context(
                OrderedOutput(folder / COMPLETIONS, CompletionRow, [task.row for task in tasks], {})
            )
            self._verdicts = stack.enter_context(OrderedOutput(folder / VERDICTS, SearchVerdictRow, numbers, {}))
            self._missing = {*self._completions.missing, *self._verdicts.missing}
            wanted = {tasks[place].problem.number for place in self._missing}
            self._store = stack.enter_context(contextlib.closing(UnfinishedStore(folder / UNFINISHED, wanted)))
            self._files = stack.pop_all()
        self.done, self.kept = self._completions.resumed, self._store.kept

    def has_work(self) -> bool:
        return bool(self._missing)

    def waves(self) -> Iterator[Sequence[int]]:
        """They begin at fixed places."""
        for start in range(0, self._count, self._wave):
            wave = [place for place in range(start, start + self._wave) if place in self._missing]
            if wave:
                yield wave

    @property
    def unfinished(self) -> UnfinishedStore:
        return self._store

    def check_models(self, models: Mapping[str, Any], verifier: Mapping[str, Any] | None) -> None:
        self._completions.check_models(models=models)
        self._verdicts.check_models(verifier=verifier or {})

    def add(self, place: int, completion: CompletionRow, verdicts: SearchVerdictRow) -> None:
        # A kill between the two leaves verdicts without their completions: they are made again, and what stands
        # there stays.
        if place in self._verdicts.missing:
            self._verdicts.add(place, verdicts)
        if place in self._completions.missing:
            self._completions.add(place, completion)

    def finish(self) -> str:
        return ""

    def shown(self) -> None:
        return None

    def close(self) -> None:
        self._files.close()


class SearchJob:
    """The same of several processes: parts of the problems, which end as the files of one.

    A part is searched as a wave, or as several where it is larger.
    """

    say: Callable[[str], object] = print

    def __init__(self, recipe: SearchRecipe, tasks: Sequence[Task], sharing: Sharing) -> None:
        self._tasks, self._wave, self._sharing = tasks, recipe.wave, sharing
        folder = recipe.folder
        check_output_folder(folder)
        plan = JobPlan(
            {},
            sharing.parts_of(len(tasks), recipe.wave, _PARTS_A_PROCESS),
            process=sharing.process,
            lease=sharing.lease,
            agreed={"recipe": agreed_fields(recipe, FREE_FIELDS)},
            beside=(_BESIDE,),
        )
        given = LazyInputs.digested(len(tasks), lambda place: tasks[place].row)
        files = {
            folder / VERDICTS: SearchedRow.verdict_line,
            folder / COMPLETIONS: SearchedRow.completion_line,  # the last one: it says that all is there
        }
        self._output = JoinedOutput(folder / COMPLETIONS, SearchedRow, given, plan, files=files)
        claim_folder(folder, recipe, False, FREE_FIELDS)  # the job has agreed on it
        self._stores = UnfinishedParts()
        self.done, self.kept = self._output.state().rows, 0

    def has_work(self) -> bool:
        folder = self._output.file.parent
        return self._output.wait(self._sharing.waits, lambda state: self.say(f"{folder}: {state.waiting_for}"))

    def waves(self) -> Iterator[Sequence[int]]:
        while self.has_work():
            while part := self._output.next_part():
                numbers = {self._tasks[place].problem.number for place in part}
                kept = self._stores.open(self._output.beside(part[0], _BESIDE), numbers)
                if kept:
                    self.say(f"{kept:,} pieces and verdicts of unfinished problems are there already")
                for start in range(0, len(part), self._wave):
                    yield part[start : start + self._wave]

    @property
    def unfinished(self) -> UnfinishedParts:
        return self._stores

    def check_models(self, models: Mapping[str, Any], verifier: Mapping[str, Any] | None) -> None:
        self._output.check_models(models=models, verdict_row={"verifier": verifier or {}})

    def add(self, place: int, completion: CompletionRow, verdicts: SearchVerdictRow) -> None:
        self._output.add(place, SearchedRow(completion, verdicts))

    def finish(self) -> str:
        return "" if self._output.join(self._sharing.waits) else self._output.left

    def shown(self) -> tuple[int, str]:
        return self._output.shown()

    def close(self) -> None:
        self._stores.close()
        self._output.close()


class UnfinishedParts:
    """An :class:`UnfinishedStore` for each part of a job that this process holds."""

    def __init__(self) -> None:
        self._stores: dict[int, UnfinishedStore] = {}  # by the number of a problem
        self._models: tuple[Fingerprints, Fingerprints] = {}, {}

    def open(self, path: Location, wanted: Collection[int]) -> int:
        """The store of a part; how much there was in it."""
        store = UnfinishedStore(path, wanted)
        store.use(*self._models)
        self._stores.update(dict.fromkeys(wanted, store))
        return store.kept

    def use(self, generator: Fingerprints, verifier: Fingerprints) -> None:
        """As of the stores to come."""
        self._models = generator, verifier

    def piece(self, index: int, key: str) -> Piece | None:
        store = self._stores.get(index)
        return None if store is None else store.piece(index, key)

    def judgement(self, index: int, key: str) -> Judgement | None:
        store = self._stores.get(index)
        return None if store is None else store.judgement(index, key)

    def keep_piece(self, index: int, key: str, piece: Piece) -> Piece:
        store = self._stores.get(index)
        return piece if store is None else store.keep_piece(index, key, piece)

    def keep_judgement(self, index: int, key: str, judgement: Judgement) -> Judgement:
        store = self._stores.get(index)
        return judgement if store is None else store.keep_judgement(index, key, judgement)

    def forget(self, index: int) -> None:
        """The problem has its rows; with the last one of a part its store closes."""
        store = self._stores.pop(index, None)
        if store is not None:
            store.forget(index)
            if store not in self._stores.values():
                store.close()

    def close(self) -> None:
        for store in set(self._stores.values()):
            store.close()
        self._stores.clear()
