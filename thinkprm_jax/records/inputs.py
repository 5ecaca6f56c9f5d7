"""Problems and solutions from the rows that people have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.records.jsonl import get_field, get_texts, read_rows
from thinkprm_jax.records.schema import FORMAT_KEY


@dataclass(frozen=True)
class SolutionRow:
    """One input row.

    row: as it was read. solutions: lists of steps. source: the field they are from; `completions` holds any number
    of solutions, the others one.
    """

    row: Mapping[str, Any]
    problem: str
    solutions: tuple[tuple[str, ...], ...]
    source: str

    @property
    def many(self) -> bool:
        """Whether it has any number of solutions."""
        return self.source == "completions"


def read_solutions(path: str | Path, reserved: Collection[str] = ()) -> list[SolutionRow]:
    """Rows of a JSON Lines file: `problem` (or `question`), and one of

    - `steps`: a list of texts (ProcessBench has these),
    - `completions`: a list of whole solutions (search-and-learn has these),
    - `solution`: a whole solution.

    The first of them in this order counts: in data sets with completions, `solution` is the reference. Whole
    solutions are split by :func:`split_solution`. An empty list of steps is no mistake of the file's form. What a
    row says of its own format (``thinkprm_format``) does not belong to it.

    Raises:
      UserError: names file, line and field: a missing field, a wrong type, or a field named in ``reserved``.
    """
    rows = (
        (place, {key: value for key, value in row.items() if key != FORMAT_KEY}) for place, row in read_rows(path)
    )
    return [parse_solution(row, place, reserved) for place, row in rows]


def problem_of(row: Mapping[str, Any], place: str) -> str:
    """The problem of a row: its field `problem`, or `question` where it has none.

    Raises:
      UserError: it has neither, or no text there; names ``place`` (`solutions.jsonl:12`) and field.
    """
    return get_field(row, "question" if "question" in row and "problem" not in row else "problem", str, place)


def parse_solution(row: Mapping[str, Any], place: str, reserved: Collection[str] = ()) -> SolutionRow:
    """One row; ``place`` names it in errors (`solutions.jsonl:12`)."""
    for name in reserved:
        if name in row:
            raise UserError(f"{place}: the field `{name}` is written by this program and cannot be in its input")
    problem = problem_of(row, place)
    if "steps" in row:
        return SolutionRow(row, problem, (tuple(get_texts(row, "steps", place)),), "steps")
    if "completions" in row:
        texts = get_texts(row, "completions", place)
        return SolutionRow(row, problem, tuple(tuple(split_solution(text)) for text in texts), "completions")
    if "solution" in row:
        text = get_field(row, "solution", str, place)
        return SolutionRow(row, problem, (tuple(split_solution(text)),), "solution")
    raise UserError(f"{place}: the field `steps` (or `solution`, or `completions`) is missing")
