"""Labelled solutions of any source as cases: a problem, its steps, and the index of the first wrong one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.results import EvaluationCase
from thinkprm_jax.records.datasets import iterate_source
from thinkprm_jax.records.inputs import problem_of
from thinkprm_jax.records.jsonl import get_field, get_texts, type_name


def read_solutions(source: str) -> list[EvaluationCase]:
    """Rows with `problem`, `steps` (list of texts), `label` (index from 0 of the first wrong step, or -1), and
    where they have them `id` (a text) and `groups` (name of a breakdown -> group). The details that an evaluation
    writes are such rows.

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
    steps = tuple(get_texts(row, "steps", place))
    if not steps:
        raise UserError(f"{place}: the field `steps` is empty")
    return EvaluationCase(
        problem=problem_of(row, place),
        steps=steps,
        first_error=read_label(row, len(steps), place),
        groups=_groups(row, place),
        id=get_field(row, "id", str, place) if row.get("id") is not None else None,
    )


def read_label(row: Mapping[str, Any], steps: int, place: str) -> int:
    """row["label"], the index of one of so many steps, or -1; `UserError` where it is not."""
    label = get_field(row, "label", object, place)
    if type(label) is not int or not -1 <= label < steps:
        raise UserError(
            f"{place}: the field `label` is {label!r}; it must be a step's index, 0 to {steps - 1}, or -1"
        )
    return label


def _groups(row: Mapping[str, Any], place: str) -> Mapping[str, str]:
    if row.get("groups") is None:
        return {}
    groups = get_field(row, "groups", dict, place)
    for name, group in groups.items():
        if not isinstance(group, str):
            raise UserError(f"{place}: the field `groups.{name}` must be a text, it is {type_name(group)}")
    return groups
