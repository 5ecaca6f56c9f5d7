"""Searched problems, as `thinkprm search`, `thinkprm score` and search-and-learn write them: for each problem its
completions with their scores, their answers, and which of these are right."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.grading.compare import canonical_many, equal_many, extract_answer
from thinkprm_jax.records.jsonl import get_field, get_texts, iterate_rows, type_name
from thinkprm_jax.search.results import COMPLETIONS, RECIPE, VERDICTS
from thinkprm_jax.search.voting import aggregate

# Approaches whose solutions depend on how many are searched for: half of them is no search of half the size.
WHOLE_SEARCHES = ("beam_search", "dvts")


@dataclass(frozen=True)
class SearchedProblem:
    """Everything is in the order of the completions, of which there may be none.

    answers: canonical, None where a completion has none. scores: of whole completions, None where there is none.
    correct: whether the answer is the right one. generator_tokens, verifier_tokens: of each completion, None where
    they were not counted. spent: (generator, verifier) tokens of the whole search, what it dropped included.
    """

    problem: str
    answers: tuple[str | None, ...]
    scores: tuple[float | None, ...]
    correct: tuple[bool, ...]
    generator_tokens: tuple[int, ...] | None = None
    verifier_tokens: tuple[int, ...] | None = None
    spent: tuple[int, int] | None = None


@dataclass(frozen=True)
class Run:
    """whole: only all completions of a problem together are a search of this kind. scores: their source.
    searched_n: how many completions it was to find, where that is known.
    """

    name: str
    source: str
    problems: tuple[SearchedProblem, ...]
    whole: bool = False
    scores: str = ""
    searched_n: int | None = None

    @property
    def n(self) -> int:
        """Completions a problem: as many as the search was for (it may find fewer), or the most there are."""
        found = max((len(problem.answers) for problem in self.problems), default=0)
        return self.searched_n if self.whole and self.searched_n else found


def read_run(path: str | Path, name: str | None = None, kind: str = "math", agg: str | None = None) -> Run:
    """A run's folder, or a file of completions.

    Args:
      name: default: that of the folder or file. kind: of answers, see :mod:`thinkprm_jax.grading.compare`; used
        where the rows do not say what is right.
      agg: how step scores become a completion's score; None: its `agg_scores`, or the last step's score. Where
        `thinkprm score` has added its verdicts to a row, these are its scores.
    Raises:
      UserError: there are no completions, or a row is not as described (names file, line and field).
    """
    path = Path(path)
    file = path / COMPLETIONS if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise UserError(f"{path}: holds no {COMPLETIONS}; is it the output folder of a search?")
    rows = list(iterate_rows(file))
    if not rows:
        raise UserError(f"{file}: no rows in it")
    verifier_tokens = _verifier_tokens(path / VERDICTS, len(rows)) if path.is_dir() else [None] * len(rows)
    judged = _judge_answers(rows, kind)
    problems = tuple(
        _problem(row, place, answers, agg, tokens)
        for (place, row), answers, tokens in zip(rows, judged, verifier_tokens, strict=True)
    )
    recipe = _recipe(path / RECIPE) if path.is_dir() else {}
    whole = recipe.get("approach") in WHOLE_SEARCHES
    searched_n = recipe["n"] if type(recipe.get("n")) is int else None
    named = name or (path.resolve().name if path.is_dir() else path.stem)
    return Run(named, str(path), problems, whole, _source_of_scores(rows[0][1], agg), searched_n)


def _judge_answers(rows: Sequence[tuple[str, Any]], kind: str) -> list[tuple[list[str | None], list[bool]]]:
    """(canonical answers, which are right) of every row: as the rows say, or all compared at once."""
    found: list[tuple[list[str | None], list[bool]]] = []
    open_rows: list[tuple[int, str, list[str | None]]] = []
    for index, (place, row) in enumerate(rows):
        texts = get_texts(row, "completions", place)
        if "answers" in row and "correct" in row:
            answers = _list_of(row, "answers", (str, type(None)), len(texts), place)
            found.append((answers, _list_of(row, "correct", (bool,), len(texts), place)))
            continue
        gold = get_field(row, "answer", str, place)
        found.append(([], []))
        open_rows.append((index, gold, [extract_answer(text, kind) for text in texts]))
    flat = [answer for _, _, answers in open_rows for answer in answers]
    pairs = [(gold, answer) for _, gold, answers in open_rows for answer in answers]
    keys, right = iter(canonical_many(flat, kind) if flat else []), iter(equal_many(pairs, kind) if pairs else [])
    for index, _, answers in open_rows:
        found[index] = (
            list(itertools.islice(keys, len(answers))),
            list(itertools.islice(right, len(answers))),
        )
    return found


def _problem(
    row: Mapping[str, Any],
    place: str,
    judged: tuple[Sequence[str | None], Sequence[bool]],
    agg: str | None,
    verifier_tokens: Sequence[int] | None,
) -> SearchedProblem:
    answers, correct = judged
    n = len(answers)
    verdicts = _list_of(row, "verdicts", (dict,), n, place) if "verdicts" in row else None
    if verifier_tokens is None and verdicts is not None:
        verifier_tokens = [tokens_of_verdict(verdict) for verdict in verdicts]
    if verifier_tokens is not None and len(verifier_tokens) != n:
        raise UserError(f"{place}: has {n} completions, its verdicts are {len(verifier_tokens)}")
    generated = _list_of(row, "completion_tokens", (int,), n, place) if "completion_tokens" in row else None
    if generated and min(generated) < 0:  # search-and-learn's DVTS writes -1: nobody counted
        generated = None
    spent = row.get("tokens")
    return SearchedProblem(
        problem=get_field(row, "problem" if "problem" in row or "question" not in row else "question", str, place),
        answers=tuple(answers),
        scores=tuple(_scores(row, verdicts, n, agg, place)),
        correct=tuple(correct),
        generator_tokens=None if generated is None else tuple(generated),
        verifier_tokens=None if verifier_tokens is None else tuple(verifier_tokens),
        spent=(_count(spent, "generated", place), _count(spent, "verifier", place))
        if isinstance(spent, dict)
        else None,
    )


def _source_of_scores(row: Mapping[str, Any], agg: str | None) -> str:
    if "verdicts" in row:
        return f"verdicts ({agg or 'last'})"
    if agg is None and "agg_scores" in row:
        return "agg_scores"
    return f"scores ({agg or 'last'})" if "scores" in row else ""


def _scores(
    row: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]] | None, n: int, agg: str | None, place: str
) -> list[float | None]:
    if verdicts is not None:
        steps = [_steps_of_verdict(verdict, f"verdicts[{i}].", place) for i, verdict in enumerate(verdicts)]
    elif agg is None and "agg_scores" in row:
        found = _list_of(row, "agg_scores", (float, int, type(None)), n, place)
        if not all(score is None or math.isfinite(score) for score in found):
            raise UserError(f"{place}: the field `agg_scores` holds a number that is not finite")
        return found
    elif "scores" in row:
        steps = _list_of(row, "scores", (list,), n, place)
    else:
        return [None] * n
    for index, scores in enumerate(steps):
        if not all(type(score) in (int, float) and math.isfinite(score) for score in scores):
            raise UserError(f"{place}: the scores of completion {index} must be finite numbers")
    return [aggregate(scores, agg or "last") for scores in steps]


def _steps_of_verdict(verdict: Mapping[str, Any], name: str, place: str) -> list[float]:
    """Of a verdict as `thinkprm score` writes it: the step scores, the last one being that of the whole; [] where
    there is none."""
    if "error" in verdict:
        return []
    return [
        *get_field(verdict, "step_scores", list, place, name)[:-1],
        get_field(verdict, "prefix_score", object, place, name),
    ]


def tokens_of_verdict(verdict: Mapping[str, Any]) -> int:
    return sum(chain.get("output_tokens", 0) for chain in verdict.get("chains", []))


def _verifier_tokens(path: Path, rows: int) -> list[list[int] | None]:
    """Tokens of every completion's verdict, row by row; None where nothing was judged."""
    if not path.exists():
        return [None] * rows
    found = [
        [tokens_of_verdict(verdict) for verdict in get_field(row, "verdicts", list, place)] or None
        for place, row in iterate_rows(path)
    ]
    if len(found) < rows:
        raise UserError(f"{path}: has {len(found)} rows, {COMPLETIONS} has {rows}; is the search still running?")
    return list(found[:rows])


def _recipe(recipe: Path) -> dict[str, Any]:
    """The recipe that the search left in its folder; {} where there is none."""
    import yaml

    try:
        content = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{recipe}: cannot be read: {' '.join(str(error).split())}") from error
    return content if isinstance(content, dict) else {}


def _list_of(row: Mapping[str, Any], name: str, kinds: tuple[type, ...], n: int, place: str) -> list[Any]:
    """row[name], one for each completion."""
    values = get_field(row, name, list, place)
    if len(values) != n:
        raise UserError(f"{place}: the field `{name}` has {len(values)} items for {n} completions")
    for index, value in enumerate(values):
        if type(value) not in kinds:
            raise UserError(f"{place}: the field `{name}[{index}]` is {type_name(value)}, which it cannot be")
    return values


def _count(row: Mapping[str, Any], name: str, place: str) -> int:
    value = row.get(name)
    if type(value) is not int:
        raise UserError(f"{place}: the field `tokens.{name}` must be a whole number")
    return value


def paired(first: Run, second: Run) -> Iterator[tuple[SearchedProblem, SearchedProblem]]:
    """The problems that both have, in the order of the first; of one that comes several times, the k-th with the
    k-th."""
    places: dict[str, list[SearchedProblem]] = {}
    for problem in second.problems:
        places.setdefault(problem.problem, []).append(problem)
    for problem in first.problems:
        if places.get(problem.problem):
            yield problem, places[problem.problem].pop(0)
