"""A run from its files: the details of `thinkprm evaluate`, the output of `thinkprm score`, a folder of
`thinkprm search`."""

from __future__ import annotations

import dataclasses

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.datasets import JOB
from thinkprm_jax.records.evaluation import EvaluationRow
from thinkprm_jax.records.reading import class_of, read_results
from thinkprm_jax.records.verdicts import VerdictRow
from thinkprm_jax.report.run import ReportProblem, ReportRun, ReportSolution
from thinkprm_jax.report.search_run import load_search
from thinkprm_jax.report.verdicts import UNFINISHED, problem_name, shown_settings, verdict_fields
from thinkprm_jax.storage import Location


def load_run(path: Location) -> ReportRun:
    """Reads a file, or the folder of a search.

    Raises:
      UserError: there is no such run, or what is wrong with it: file, line, field.
    """
    if path.is_dir() and not (path / JOB).is_dir():
        return load_search(path)
    rows, growing = read_results(path)
    notes = (UNFINISHED.format(name=path.name),) if growing else ()
    if not rows:
        raise UserError(f"{path}: no rows in it")
    kind = class_of(rows[0][1], rows[0][0])
    if issubclass(kind, EvaluationRow):
        details = [EvaluationRow.from_dict(row, place) for place, row in rows]
        problems = tuple(judged_problem(row, number) for number, row in enumerate(details, start=1))
        outcomes = [row.outcome for row in details]
        return ReportRun(
            "evaluation", str(path), problems, shown_settings(details[0].verifier), None, outcomes, notes
        )
    if issubclass(kind, VerdictRow):
        scored = [VerdictRow.from_dict(row, place) for place, row in rows]
        shown = (
            scored_problem(row, place, number)
            for number, ((place, _), row) in enumerate(zip(rows, scored, strict=True), start=1)
        )
        return ReportRun("score", str(path), tuple(shown), shown_settings(scored[0].verifier), notes=notes)
    raise UserError(
        f"{rows[0][0]}: this is no output of `thinkprm score` and no details of `thinkprm evaluate`; for a search "
        "give its folder"
    )


def judged_problem(row: EvaluationRow, number: int) -> ReportProblem:
    """A line of `thinkprm evaluate ... --details`: what was found is what the evaluation counted."""
    fields = {**verdict_fields(row.verdict, len(row.steps)), "predicted": row.outcome.predicted}
    solution = ReportSolution(row.steps, **fields, truth=row.label, correct=row.label < 0)
    return ReportProblem(row.id or str(number), row.problem, (solution,), groups=row.groups)


def scored_problem(row: VerdictRow, place: str, number: int) -> ReportProblem:
    """A line of `thinkprm score`: one verdict, or one for each completion."""
    given = row.solution.row
    solutions = [ReportSolution(steps, **verdict_fields(verdict, len(steps))) for steps, verdict in row.judged()]
    # Of one solution; of completions a label would not say which.
    truth = given.get("label") if not row.solution.many else None
    if isinstance(truth, int) and not isinstance(truth, bool) and -1 <= truth < len(solutions[0].steps):
        solutions = [dataclasses.replace(solutions[0], truth=truth, correct=truth < 0)]
    answer = given.get("answer")
    return ReportProblem(
        problem_name(given, number), row.problem, tuple(solutions), None if answer is None else str(answer)
    )
