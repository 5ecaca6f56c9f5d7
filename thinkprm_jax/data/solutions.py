"""Solutions to be judged, from the rows that people have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkprm_jax.data.jsonl import read_rows, type_name
from thinkprm_jax.errors import UserError
from thinkprm_jax.text.steps import split_solution


@dataclass(frozen=True)
class SolutionRow:
    """One input row.

    row: as it was read. solutions: lists of steps. source: the field they are from; `completions` holds any number
    of solutions, the others one.
    """

    row: dict[str, Any]
    problem: str
    solutions: tuple[tuple[str, ...], ...]
    source: str


def read_solutions(path: str | Path, reserved: Collection[str] = ()) -> list[SolutionRow]:
    """Rows of a JSON Lines file: `problem` (or `question`), and one of

    - `steps`: a list of texts (ProcessBench has these),
    - `completions`: a list of whole solutions (search-and-learn has these),
    - `solution`: a whole solution.

    The first of them in this order counts: in data sets with completions, `solution` is the reference. Whole
    solutions are split by :func:`split_solution`. An empty list of steps is no mistake of the file's form.

    Raises:
      UserError: names file, line and field: a missing field, a wrong type, or a field named in ``reserved``.
    """
    return [parse_solution(row, place, reserved) for place, row in read_rows(path)]


def parse_solution(row: dict[str, Any], place: str, reserved: Collection[str] = ()) -> SolutionRow:
    """One row; ``place`` names it in errors (`solutions.jsonl:12`)."""
    for name in reserved:
        if name in row:
            raise UserError(f"{place}: the field `{name}` is written by this program and cannot be in its input")
    problem = _text(row, "problem" if "problem" in row or "question" not in row else "question", place)
    if "steps" in row:
        return SolutionRow(row, problem, (_texts(row, "steps", place),), "steps")
    if "completions" in row:
        texts = _texts(row, "completions", place)
        return SolutionRow(row, problem, tuple(tuple(split_solution(text)) for text in texts), "completions")
    if "solution" in row:
        return SolutionRow(row, problem, (tuple(split_solution(_text(row, "solution", place))),), "solution")
    raise UserError(f"{place}: the field `steps` (or `solution`, or `completions`) is missing")


def _text(row: Mapping[str, Any], field: str, place: str) -> str:
    if field not in row:
        raise UserError(f"{place}: the field `{field}` is missing")
    if not isinstance(row[field], str):
        raise UserError(f"{place}: the field `{field}` must be a text, it is {type_name(row[field])}")
    return row[field]


def _texts(row: Mapping[str, Any], field: str, place: str) -> tuple[str, ...]:
    value = row[field]
    if not isinstance(value, list):
        raise UserError(f"{place}: the field `{field}` must be a list of texts, it is {type_name(value)}")
    for index, text in enumerate(value):
        if not isinstance(text, str):
            raise UserError(f"{place}: the field `{field}[{index}]` must be a text, it is {type_name(text)}")
    return tuple(value)
