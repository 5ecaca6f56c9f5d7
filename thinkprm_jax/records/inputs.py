"""Problems and solutions from the rows that people have."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from array import array
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from thinkprm_jax.errors import UserError
from thinkprm_jax.paths import check_input
from thinkprm_jax.protocol.steps import locate_steps
from thinkprm_jax.records.jsonl import get_field, get_texts, parse_line
from thinkprm_jax.records.schema import FORMAT_KEY, check_format

# Formats of ours that rows with solutions may be of; what they say of it belongs to them and not to the output.
_FORMATS = ("completion", "labelled_solution")


@dataclass(frozen=True)
class SolutionRow:
    """One input row.

    row: as it was read. solutions: lists of steps. source: the field they are from; `completions` holds any number
    of solutions, the others one. spans: of solutions that are texts, where each step stands in its text.
    """

    row: Mapping[str, Any]
    problem: str
    solutions: tuple[tuple[str, ...], ...]
    source: str
    spans: tuple[tuple[tuple[int, int], ...], ...] | None = None

    @property
    def many(self) -> bool:
        """Whether it has any number of solutions."""
        return self.source == "completions"


class SolutionFile:
    """The rows of a JSON Lines file, each read when it is asked for: in memory is where every line begins.

    A row has `problem` (or `question`), and one of

    - `steps`: a list of texts (ProcessBench has these),
    - `completions`: a list of whole solutions (search-and-learn has these),
    - `solution`: a whole solution.

    The first of them in this order counts: in data sets with completions, `solution` is the reference. A field
    that is null counts as not there (tables that were merged have all columns). Whole solutions are split by
    :func:`split_solution`. An empty list of steps is no mistake of the file's form. What a row of ours says of its
    format (``thinkprm_format``) does not belong to it.

    Example:

        with SolutionFile(path) as rows:
            print(len(rows), rows[0].problem)

    Args:
      path: a file; or a pipe, which is copied into a temporary file first.
      reserved: fields that a row must not have.
    Raises:
      UserError: names file, line and field: a missing field, a wrong type, or one of ``reserved``. All rows are
        looked at here, before the first one is used.

    Attributes:
      solutions: of all rows together.
    """

    def __init__(self, path: str | Path, reserved: Collection[str] = ()) -> None:
        self._path, self._reserved = path, reserved
        self._starts, self._numbers = array("Q"), array("Q")
        self.solutions = 0
        self._file = _open_for_seeking(path)
        try:
            start = 0
            for number, line in enumerate(self._file, start=1):  # bytes end their lines at a newline alone
                if line.strip():
                    self.solutions += len(self._parse(line, number).solutions)
                    self._starts.append(start)
                    self._numbers.append(number)
                start += len(line)
            if not self._starts:
                raise UserError(f"{path}: no rows in it")
        except OSError as error:
            self._file.close()
            raise UserError(f"{path}: {error.strerror or error}") from error
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> SolutionRow:
        self._file.seek(self._starts[index])
        return self._parse(self._file.readline(), self._numbers[index])

    def _parse(self, line: bytes, number: int) -> SolutionRow:
        place = f"{self._path}:{number}"
        row = parse_line(line, place, finite=True)  # it is written again
        said = {FORMAT_KEY: row.pop(FORMAT_KEY)} if FORMAT_KEY in row else {}
        solution = parse_solution(row, place, self._reserved)
        check_format(said, _FORMATS, 2, place)
        return solution

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _open_for_seeking(path: str | Path) -> IO[bytes]:
    check_input(path, pipes=True)
    try:
        file: IO[bytes] = open(path, "rb")  # noqa: SIM115 (stays open for the run)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    with file:
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(file, copy)
        copy.seek(0)
        return copy


def problem_of(row: Mapping[str, Any], place: str) -> str:
    """The problem of a row: its field `problem`, or `question` where it has none.

    Raises:
      UserError: it has neither, or no text there; names ``place`` (`solutions.jsonl:12`) and field.
    """
    instead = row.get("problem") is None and row.get("question") is not None
    return get_field(row, "question" if instead else "problem", str, place)


def parse_solution(row: Mapping[str, Any], place: str, reserved: Collection[str] = ()) -> SolutionRow:
    """One row; ``place`` names it in errors (`solutions.jsonl:12`)."""
    for name in reserved:
        if name in row:
            raise UserError(f"{place}: the field `{name}` is written by this program and cannot be in its input")
    problem = problem_of(row, place)
    if row.get("steps") is not None:
        return SolutionRow(row, problem, (tuple(get_texts(row, "steps", place)),), "steps")
    if row.get("completions") is not None:
        texts = get_texts(row, "completions", place)
        return _located(row, problem, texts, "completions")
    if row.get("solution") is not None:
        text = get_field(row, "solution", str, place)
        return _located(row, problem, [text], "solution")
    raise UserError(f"{place}: the field `steps` (or `solution`, or `completions`) is missing")


def _located(row: Mapping[str, Any], problem: str, texts: Sequence[str], source: str) -> SolutionRow:
    """Of whole solutions."""
    found = [locate_steps(text) for text in texts]
    solutions = tuple(tuple(step.text for step in steps) for steps in found)
    return SolutionRow(
        row, problem, solutions, source, tuple(tuple((step.start, step.end) for step in steps) for steps in found)
    )
