"""The folder of a search as a run that a page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.records.schema import Probability, decode, field_error
from thinkprm_jax.records.search import CompletionRow
from thinkprm_jax.records.search_folder import ACCURACY, VERDICTS, SearchedProblemRow, read_search_folder
from thinkprm_jax.records.verdicts import VerdictRecord
from thinkprm_jax.report.run import ReportPick, ReportProblem, ReportRun, ReportSolution
from thinkprm_jax.report.verdicts import UNFINISHED, problem_name, read_groups, shown_settings, verdict_fields
from thinkprm_jax.search.voting import select
from thinkprm_jax.storage import Location


def load_search(path: Location) -> ReportRun:
    """A run that has finished or still goes on.

    Raises:
      UserError: no search has written here, or what is wrong: file, line, field.
    """
    folder = read_search_folder(path)
    notes = [UNFINISHED.format(name=file.name) for file in folder.growing]
    if folder.verdict_lines is None:
        notes.append(f"there is no {VERDICTS}: no steps and no chains of the verifier can be shown")
    if folder.accuracy is None:
        notes.append(f"there is no {ACCURACY}: the search has not finished, and the page counts what there is")
    problems = tuple(searched_problem(row, number) for number, row in enumerate(folder.rows, start=1))
    return ReportRun(
        "search", str(path), problems, shown_settings(folder.recipe), folder.accuracy, notes=tuple(notes)
    )


def searched_problem(row: SearchedProblemRow, number: int) -> ReportProblem:
    completion, place = row.completion, row.place
    verdicts: Sequence[VerdictRecord | None] = row.verdicts or [None] * len(completion.completions)
    solutions = tuple(
        searched_solution(completion, index, verdict, place) for index, verdict in enumerate(verdicts)
    )
    return ReportProblem(
        name=problem_name(completion.given, number),
        text=completion.problem,
        solutions=solutions,
        answer=completion.answer,
        picks=read_picks(completion.predictions, solutions, place),
        groups=read_groups(completion.given, place),
        error=completion.error,
    )


def searched_solution(row: CompletionRow, index: int, verdict: VerdictRecord | None, place: str) -> ReportSolution:
    """One completion with its verdict, which says what its steps are; None: no verifier spoke."""
    steps: Sequence[str] = split_solution(row.completions[index])
    fields: dict[str, Any] = {}
    scores = row.scores[index] if row.scores is not None else ()
    if verdict is not None:
        steps = steps if verdict.steps is None else verdict.steps
        fields = verdict_fields(verdict, len(steps))
    elif scores and len(scores) == len(steps):
        fields["scores"] = decode(tuple[Probability, ...], scores, place, f"scores[{index}]")
    ranked = row.agg_scores[index] if row.agg_scores is not None else None
    if ranked is not None:
        fields["score"] = decode(Probability, ranked, place, f"agg_scores[{index}]")
    return ReportSolution(
        steps=tuple(steps),
        **fields,
        correct=row.correct[index] if row.correct is not None else None,
        answer=row.answers[index] if row.answers is not None else None,
        finish=row.finish_reasons[index] if row.finish_reasons is not None else None,
        tokens=row.completion_tokens[index] if row.completion_tokens is not None else None,
    )


def read_picks(
    predictions: Mapping[str, str | None], solutions: Sequence[ReportSolution], place: str
) -> tuple[ReportPick, ...]:
    """What each recorded selection (`pred_weighted@4`) took: its answer, and the completions that have it.

    The record names answers, not completions; which ones they are is found as the search found it.
    """
    recorded = {name: text for name, text in predictions.items() if name.partition("@")[2].isdecimal()}
    if not recorded:
        return ()
    wanted: dict[str, tuple[str, int]] = {}
    for name in recorded:
        method, n = name.removeprefix(CompletionRow.PREDICTION).split("@")
        if method not in _METHODS or not solutions or int(n) < 1:
            raise field_error(place, name, f"is of no selection among {len(solutions)} completions")
        wanted[name] = method, min(int(n), len(solutions))  # a search of trees can end with fewer than N
    keys = [solution.answer for solution in solutions]
    scores = [solution.score for solution in solutions]
    # A search without a verifier has no scores: there "weighted" is the majority.
    votes = scores if any(score is not None for score in scores) else [1.0] * len(scores)
    selections = select(keys, keys, votes, at=sorted({n for _, n in wanted.values()}))
    picks = []
    for name, (method, first) in wanted.items():
        took = getattr(selections[first], _METHODS[method]).index
        same = [took] if method == "naive" else [at for at in range(first) if keys[at] == keys[took]]
        picks.append(ReportPick(f"{_METHODS[method]}@{name.partition('@')[2]}", recorded[name], tuple(same)))
    order = list(_METHODS.values())
    return tuple(sorted(picks, key=lambda pick: (order.index(pick.method), pick.n)))


_METHODS = {"naive": "naive", "weighted": "weighted", "maj": "majority"}
