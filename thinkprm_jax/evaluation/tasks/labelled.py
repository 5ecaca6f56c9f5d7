"""Labelled solutions of any source as cases: a problem, its steps, and the index of the first wrong one."""

from __future__ import annotations

from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.results import EvaluationCase
from thinkprm_jax.evaluation.runner import EvaluationTask, rows_setting
from thinkprm_jax.evaluation.summary import FIRST_ERROR, WHOLE_SOLUTION
from thinkprm_jax.records.datasets import iterate_source
from thinkprm_jax.records.evaluation import LabelledSolutionRow
from thinkprm_jax.records.jsonl import type_name
from thinkprm_jax.records.row_source import ALL_ROWS, Part


def labelled_task(source: str, part: Part = ALL_ROWS) -> EvaluationTask:
    """The solutions of a source, or some of them; see :func:`read_solutions`."""
    cases = read_solutions(source)
    rows = part.rows(len(cases), source)
    setting, cases = rows_setting(rows, len(cases)), cases[rows.start : rows.stop]
    return EvaluationTask(
        settings={"task": "solutions", "source": source, **setting},
        title=f"{len(cases):,} solutions of {source}",
        cases=cases,
        figures=(FIRST_ERROR, WHOLE_SOLUTION),
    )


def read_solutions(source: str) -> list[EvaluationCase]:
    """Rows as of :class:`thinkprm_jax.records.LabelledSolutionRow`; the details that an evaluation writes are such
    rows.

    Args:
      source: see :func:`thinkprm_jax.records.datasets.iterate_source`.
    Raises:
      UserError: it cannot be read, holds no rows, or a row is not as described (names file, line and field).
    """
    cases = [parse_solution(row, place) for place, row in iterate_source(source)]
    if not cases:
        raise UserError(f"{source}: no rows in it")
    return cases


def parse_solution(row: Any, place: str) -> EvaluationCase:
    """One row; ``place`` names it in errors (`solutions.jsonl:12`)."""
    if not isinstance(row, dict):
        raise UserError(f"{place}: a row is an object, not {type_name(row)}")
    labelled = LabelledSolutionRow.from_dict(row, place)
    return EvaluationCase(labelled.problem, labelled.steps, labelled.label, labelled.groups, labelled.id)
