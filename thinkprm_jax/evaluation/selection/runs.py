"""Searched problems, as `thinkprm search`, `thinkprm score` and search-and-learn write them: for each problem its
completions with their scores, their answers, and which of these are right."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thinkprm_jax.errors import UserError
from thinkprm_jax.grading.compare import equal_many, extract_answer, vote_keys
from thinkprm_jax.grading.extract import Kind as AnswerKind
from thinkprm_jax.records.jsonl import get_answer
from thinkprm_jax.records.search import CompletionRow
from thinkprm_jax.records.search_folder import VERDICTS, SearchedProblemRow, read_search_folder
from thinkprm_jax.records.verdicts import VerdictRecord
from thinkprm_jax.search.voting import Strategy, aggregate
from thinkprm_jax.storage import ObjectPath

# Approaches whose solutions depend on how many are searched for: half of them is no search of half the size.
WHOLE_SEARCHES = ("beam_search", "dvts")


@dataclass(frozen=True)
class SearchedProblem:
    """Everything is in the order of the completions, of which there may be none.

    answers: equal ones in one spelling, None where a completion has none.
    scores: of whole completions, None where there is none.
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
class SelectionRun:
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


def read_run(
    path: str | Path | ObjectPath, name: str | None = None, kind: AnswerKind = "math", agg: Strategy | None = None
) -> SelectionRun:
    """A run's folder, or a file of completions.

    Args:
      name: default: that of the folder or file. kind: of answers, see :mod:`thinkprm_jax.grading.compare`; used
        where the rows do not say what is right.
      agg: how step scores become a completion's score; None: its `agg_scores`, or the last step's score. Where
        `thinkprm score` has added its verdicts to a row, these are its scores.
    Raises:
      UserError: there are no completions, or a row is not as described (names file, line and field).
    """
    folder = read_search_folder(path)
    if folder.growing or (folder.verdict_lines is not None and folder.verdict_lines < len(folder.rows)):
        file = folder.growing[0] if folder.growing else folder.path / VERDICTS
        raise UserError(f"{file}: is not complete; is the search still running?")
    judged = _judge_answers(folder.rows, kind)
    problems = tuple(_problem(row, *answers, agg) for row, answers in zip(folder.rows, judged, strict=True))
    whole = folder.recipe.get("approach") in WHOLE_SEARCHES
    searched_n = folder.recipe["n"] if type(folder.recipe.get("n")) is int else None
    named = name or (folder.path.resolve().name if folder.path.is_dir() else folder.path.stem)
    source = _source_of_scores(folder.rows[0].completion, agg)
    return SelectionRun(named, str(path), problems, whole, source, searched_n)


def _judge_answers(
    rows: Sequence[SearchedProblemRow], kind: AnswerKind
) -> list[tuple[tuple[str | None, ...], tuple[bool, ...]]]:
    """(answers in one spelling, which are right) of every row: as the rows say, or all compared at once."""
    found: list[tuple[tuple[str | None, ...], tuple[bool, ...]]] = []
    open_rows: list[tuple[int, str, list[str | None]]] = []
    for index, row in enumerate(rows):
        completion = row.completion
        if completion.answers is not None and completion.correct is not None:
            found.append((completion.answers, completion.correct))
            continue
        gold = get_answer(completion.given, row.place)
        found.append(((), ()))
        open_rows.append((index, gold, [extract_answer(text, kind) for text in completion.completions]))
    flat = [answer for _, _, answers in open_rows for answer in answers]
    pairs = [(gold, answer) for _, gold, answers in open_rows for answer in answers]
    keys, right = iter(vote_keys(flat, kind) if flat else []), iter(equal_many(pairs, kind) if pairs else [])
    for index, _, answers in open_rows:
        count = len(answers)
        found[index] = tuple(itertools.islice(keys, count)), tuple(itertools.islice(right, count))
    return found


def _problem(
    row: SearchedProblemRow, answers: tuple[str | None, ...], correct: tuple[bool, ...], agg: Strategy | None
) -> SearchedProblem:
    completion = row.completion
    verdicts = completion.verdicts if row.verdicts is None else row.verdicts
    return SearchedProblem(
        problem=completion.problem,
        answers=answers,
        scores=tuple(_scores(completion, agg)),
        correct=correct,
        generator_tokens=_all_counted(completion.completion_tokens),
        verifier_tokens=None if verdicts is None else tuple(verdict.output_tokens for verdict in verdicts),
        spent=None if completion.tokens is None else (completion.tokens.generated, completion.tokens.verifier),
    )


def _all_counted(tokens: Sequence[int | None] | None) -> tuple[int, ...] | None:
    """None where nobody counted those of some completion; search-and-learn then writes -1."""
    counted = [count for count in tokens or () if count is not None and count >= 0]
    return tuple(counted) if tokens is not None and len(counted) == len(tokens) else None


def _source_of_scores(row: CompletionRow, agg: Strategy | None) -> str:
    if row.verdicts is not None:
        return f"verdicts ({agg or 'last'})"
    if agg is None and row.agg_scores is not None:
        return "agg_scores"
    return f"scores ({agg or 'last'})" if row.scores is not None else ""


def _scores(row: CompletionRow, agg: Strategy | None) -> Sequence[float | None]:
    if row.verdicts is not None:
        steps = [_steps_of_verdict(verdict) for verdict in row.verdicts]
    elif agg is None and row.agg_scores is not None:
        return row.agg_scores
    elif row.scores is not None:
        steps = [list(scores) for scores in row.scores]
    else:
        return [None] * len(row.completions)
    return [aggregate(scores, agg or "last") for scores in steps]


def _steps_of_verdict(verdict: VerdictRecord) -> list[float]:
    """The step scores, the last one being that of the whole; [] where there is no verdict."""
    if verdict.prefix_score is None:
        return []
    return [*(verdict.step_scores or ())[:-1], verdict.prefix_score]


def paired(first: SelectionRun, second: SelectionRun) -> Iterator[tuple[SearchedProblem, SearchedProblem]]:
    """The problems that both have, in the order of the first; of one that comes several times, the k-th with the
    k-th."""
    others: dict[str, list[SearchedProblem]] = {}
    for problem in second.problems:
        others.setdefault(problem.problem, []).append(problem)
    for problem in first.problems:
        if others.get(problem.problem):
            yield problem, others[problem.problem].pop(0)
