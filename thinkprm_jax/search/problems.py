"""The problems of a search, and solutions of them that were made elsewhere."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.inputs import problem_of
from thinkprm_jax.records.jsonl import get_answer, get_field, get_texts, type_name
from thinkprm_jax.records.row_source import Part, parse_shard
from thinkprm_jax.records.schema import FORMAT_KEY
from thinkprm_jax.search.engine import Beam, Problem, SearchResult
from thinkprm_jax.search.recipe import DATASET, SearchRecipe

ARITHMETIC = "arithmetic"
# What a search writes, and `thinkprm score`: such fields of the data, which an earlier run left there, would be
# taken for this run's.
WRITTEN = (
    "index", "completions", "completion_tokens", "finish_reasons", "pred", "scores", "agg_scores", "answers",
    "correct", "tokens", "error", "models", "verdict", "verdicts", "verdict_row", "verifier", FORMAT_KEY,
)  # fmt: skip
_WRITTEN_PREFIXES = ("pred_", "completions@", "agg_scores@", "preds@")
_GPQA_OPTIONS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
NOT_COUNTED = -1  # tokens of a solution from elsewhere, as search-and-learn writes it


@dataclass(frozen=True)
class Task:
    """One row of the data.

    Attributes:
      place: names it in messages.
      row: what stands at the beginning of its output row: index, problem, answer, and the data's other fields.
      answer: the reference; None where answer_kind is "none".
      solutions: made elsewhere; None where the search makes them.
      correct: of those solutions, where answer_kind is "none".
    """

    problem: Problem
    place: str
    row: Mapping[str, Any]
    answer: str | None
    solutions: SearchResult | None = field(default=None, compare=False)
    correct: tuple[bool, ...] | None = None


def load_tasks(recipe: SearchRecipe) -> list[Task]:
    """The rows that the recipe names, in their order.

    Of the rows for which ``dataset_where`` holds, ``dataset_start`` and ``dataset_end`` cut out a part,
    ``num_samples`` takes the first of what is left, and ``dataset_shard`` a part of these. A task's number is its
    place in the whole data, so that a part of the data gives the solutions that the whole gives.

    Raises:
      UserError: the data cannot be read, or a row is not as described; names file, line and field.
    """
    cached = recipe.cached_solutions_path
    source = recipe.dataset_name or (None if cached else DATASET)
    rows = _iterate(cached if source is None else source, recipe)  # type: ignore[arg-type]
    end = recipe.dataset_end
    if recipe.num_samples is not None:
        last = (recipe.dataset_start or 0) + recipe.num_samples
        end = last if end is None else min(end, last)
    if source == ARITHMETIC and (end is None or recipe.dataset_where):
        raise UserError(
            "dataset_name arithmetic has no end: give dataset_end or num_samples, and no dataset_where"
        )
    solutions = _by_problem(cached) if cached and source is not None else None
    tasks = []
    wanted = ((number, *placed) for number, placed in enumerate(rows) if _holds(placed[1], recipe.dataset_where))
    for number, place, row in itertools.islice(wanted, recipe.dataset_start or 0, end):
        task = _task(number, place, lettered(row, number, recipe.dataset_seed), recipe)
        if cached:
            found = (place, row) if solutions is None else solutions.get(task.problem.text)
            if found is None:
                raise UserError(f"{cached}: holds no solutions of the problem of {place}")
            task = _with_solutions(task, *found, recipe)
        tasks.append(task)
    if recipe.dataset_shard is not None:
        shard = Part(shard=parse_shard(recipe.dataset_shard)).rows(len(tasks), str(source or cached))
        tasks = tasks[shard.start : shard.stop]
    if not tasks:
        where = f" for which {', '.join(recipe.dataset_where)}" if recipe.dataset_where else ""
        raise UserError(f"{source or cached}: no rows{where} from {recipe.dataset_start or 0} on")
    return tasks


def _iterate(source: str, recipe: SearchRecipe) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if source == ARITHMETIC:
        yield from _arithmetic(recipe)
        return
    from thinkprm_jax.records.datasets import iterate_source

    options = {} if recipe.dataset_config is None else {"config": recipe.dataset_config}
    for place, row in iterate_source(source, recipe.dataset_split, **options):
        if not isinstance(row, Mapping):
            raise UserError(f"{place}: a row must be a JSON object, this is {type_name(row)}")
        yield place, row


def _holds(row: Mapping[str, Any], conditions: Sequence[str]) -> bool:
    pairs = (condition.partition("=")[::2] for condition in conditions)
    return all(str(row.get(name)) == value for name, value in pairs)


def lettered(row: Mapping[str, Any], number: int, seed: int) -> Mapping[str, Any]:
    """A row of GPQA as a problem with lettered options, in an order drawn for it; other rows as they are."""
    if not {"Question", *_GPQA_OPTIONS} <= set(row):
        return row
    options = [row[name] for name in _GPQA_OPTIONS]
    order = random.Random(f"{seed} {number}").sample(range(len(options)), len(options))
    lines = [f"{letter}) {str(options[place]).strip()}" for letter, place in zip("ABCD", order, strict=True)]
    return {
        "problem": "\n".join([str(row["Question"]).strip(), "", *lines]),
        "answer": "ABCD"[order.index(0)],
        **{name: row[name] for name in ("Record ID", "High-level domain", "Subdomain") if name in row},
    }


def _arithmetic(recipe: SearchRecipe) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The synthetic task of the bundled models, without end."""
    from thinkprm_jax.arithmetic.task import SPLITS, make_solution

    split = recipe.dataset_split
    if split not in SPLITS:
        raise UserError(f"dataset_name arithmetic has the splits {', '.join(SPLITS)}, not {split}")
    for index in itertools.count():
        solved = make_solution(recipe.dataset_seed, index, split)
        yield f"arithmetic {split}, {index}", {"problem": solved.problem, "answer": solved.answer}


def _task(number: int, place: str, row: Mapping[str, Any], recipe: SearchRecipe) -> Task:
    text = problem_of(row, place)
    answer = get_answer(row, place) if recipe.answer_kind != "none" else None
    others = {key: value for key, value in row.items() if key not in ("problem", "answer") and not _written(key)}
    echo = {"index": number, "problem": text, **({} if answer is None else {"answer": answer})}
    return Task(Problem(number, text), place, {**echo, **_plain(others)}, answer)


def _written(key: str) -> bool:
    return key in WRITTEN or key.startswith(_WRITTEN_PREFIXES)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """What of it is JSON, dates and times as texts: data sets of the hub may hold images."""
    kept = {}
    for key, value in row.items():
        try:
            # Tables have NaN where there is nothing.
            kept[key] = json.loads(json.dumps(value, default=_as_text), parse_constant=lambda number: None)
        except (TypeError, ValueError):
            continue
    return kept


def _as_text(value: Any) -> str:
    if isinstance(value, (date, time, timedelta, Decimal)):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _by_problem(path: str) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Rows with solutions, by the text of their problem; the first counts where there are several."""
    from thinkprm_jax.records.jsonl import iterate_rows

    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for place, row in iterate_rows(path):
        found.setdefault(problem_of(row, place), (place, row))
    return found


def _with_solutions(task: Task, place: str, row: Mapping[str, Any], recipe: SearchRecipe) -> Task:
    """The task with the first n solutions of a row in search-and-learn's completions format. Where the row does
    not say how many tokens one has, they are NOT_COUNTED; where not how it ended, that stays open (None)."""
    n = recipe.n
    texts = get_texts(row, "completions", place)
    if len(texts) < n:
        raise UserError(f"{place}: has {len(texts)} completions, n is {n}")
    tokens = row.get("completion_tokens")
    if not isinstance(tokens, list) or len(tokens) < n:
        tokens = [NOT_COUNTED] * n
    finish = row.get("finish_reasons")
    if not isinstance(finish, list) or len(finish) < n:
        finish = [None] * n
    correct = None
    if recipe.answer_kind == "none":
        correct = _recorded(row, n, place)
    beams = [
        Beam(
            task.problem,
            text=text,
            tokens=count if type(count) is int else NOT_COUNTED,
            finish=ended if ended in ("stop", "length") else None,
            seen=text,
        )
        for text, count, ended in zip(texts[:n], tokens, finish, strict=False)
    ]
    return Task(task.problem, task.place, task.row, task.answer, SearchResult(beams), correct)


def _recorded(row: Mapping[str, Any], n: int, place: str) -> tuple[bool, ...]:
    """Which solutions passed, where no answer can be compared (programs that were run elsewhere)."""
    values = get_field(row, "correct", list, place)
    if len(values) < n or not all(isinstance(value, bool) for value in values[:n]):
        raise UserError(f"{place}: the field `correct` must hold true or false for each of the {n} completions")
    return tuple(values[:n])
