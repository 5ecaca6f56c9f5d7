"""Solutions to be judged, from the rows that people have."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.records.jsonl import get_field, get_texts, read_rows


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
    problem = get_field(row, "problem" if "problem" in row or "question" not in row else "question", str, place)
    if "steps" in row:
        return SolutionRow(row, problem, (tuple(get_texts(row, "steps", place)),), "steps")
    if "completions" in row:
        texts = get_texts(row, "completions", place)
        return SolutionRow(row, problem, tuple(tuple(split_solution(text)) for text in texts), "completions")
    if "solution" in row:
        text = get_field(row, "solution", str, place)
        return SolutionRow(row, problem, (tuple(split_solution(text)),), "solution")
    raise UserError(f"{place}: the field `steps` (or `solution`, or `completions`) is missing")
