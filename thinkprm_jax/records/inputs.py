"""Problems and solutions from the rows that people have."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from thinkprm_jax.errors import UserError
from thinkprm_jax.protocol.steps import locate_steps
from thinkprm_jax.records.datasets import find_files
from thinkprm_jax.records.jsonl import get_field, get_texts, parse_line, type_name
from thinkprm_jax.records.output_index import file_digest, file_facts
from thinkprm_jax.records.row_source import ALL_ROWS, Part, RowSource
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
    """The rows of a source, each read when it is asked for: in memory is where some of the lines begin.

    A row has `problem` (or `question`), and one of

    - `steps`: a list of texts (ProcessBench has these),
    - `completions`: a list of whole solutions (search-and-learn has these),
    - `solution`: a whole solution.

    The first of them in this order counts: in data sets with completions, `solution` is the reference. A field
    that is null counts as not there (tables that were merged have all columns). Whole solutions are split by
    :func:`split_solution`. An empty list of steps is no mistake of the file's form. What a row of ours says of its
    format (``thinkprm_format``) does not belong to it.

    Example:

        with SolutionFile("solutions/*.parquet") as rows:
            print(len(rows), rows[0].problem)

    Args:
      source: see :class:`thinkprm_jax.records.row_source.RowSource`.
      reserved: fields that a row must not have.
      part: which rows are meant; numbers are those of the part, from 0.
      split: of a data set.
      known: :meth:`identity` of a run before. Where the files are still the same, they are not looked at again.
      check: False: rows are looked at when they are asked for, or by :meth:`check`.
    Raises:
      UserError: names file, line and field: a missing field, a wrong type, or one of ``reserved``. All rows are
        looked at here, before the first one is used.

    Attributes:
      solutions: of all rows together; 0 where they were not looked at.
    """

    def __init__(
        self,
        source: str | Path,
        reserved: Collection[str] = (),
        part: Part = ALL_ROWS,
        split: str = "train",
        known: Mapping[str, Any] | None = None,
        check: bool = True,
    ) -> None:
        self._reserved, self.part, self.split = reserved, part, split
        known = known if known is not None and _still_fits(known, str(source)) else {}
        self.source = RowSource(str(source), split, parse=_parse_finite, known=known.get("source"))
        self.solutions = 0
        try:
            self.rows = part.rows(len(self.source), str(source))
            # From before its rows are read: whoever writes the file meanwhile is noticed.
            self._files = [[*file_facts(file), ""] for file in self.source.files or ()]
            if known.get("rows") == [self.rows.start, self.rows.stop] and known["solutions"] is not None:
                self.solutions, self._files = known["solutions"], known["files"]
            elif check:
                self.solutions = self.check(range(len(self)))
        except BaseException:
            self.source.close()
            raise

    def check(self, rows: range) -> int:
        """Looks at these rows. Returns: how many solutions they have."""
        return sum(len(self[index].solutions) for index in rows)

    def identity(self) -> dict[str, Any] | None:
        """In JSON: ``digest``, which tells these rows from others, and what was found of them. The files are read
        through once. None where nothing tells: a data set without a fingerprint."""
        if self.source.files is None:
            if self.source.fingerprint is None:
                return None
            digests = [self.source.fingerprint]
        else:
            for facts, file in zip(self._files, self.source.files, strict=True):
                facts[-1] = facts[-1] or file_digest(file)
            digests = [facts[-1] for facts in self._files]
        return {
            "digest": [*digests, self.rows.start, self.rows.stop],
            "files": self._files,
            "rows": [self.rows.start, self.rows.stop],
            "solutions": self.solutions,
            "source": self.source.known,
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> SolutionRow:
        return self.placed(index)[1]

    def placed(self, index: int) -> tuple[str, SolutionRow]:
        """(place, row); the place names it in messages."""
        place, row = self.source.json_row(self.rows[index])
        if not isinstance(row, dict):
            raise UserError(f"{place}: a row must be a JSON object, this is {type_name(row)}")
        said = {FORMAT_KEY: row.pop(FORMAT_KEY)} if FORMAT_KEY in row else {}
        solution = parse_solution(row, place, self._reserved)
        check_format(said, _FORMATS, 2, place)
        return place, solution

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.source.close()


def _still_fits(known: Mapping[str, Any], source: str) -> bool:
    """Whether the files are those that an identity is of: by size and times, else by digest."""
    files = find_files(source)
    if files is None or len(files) != len(known["files"]):
        return False
    for file, (*facts, digest) in zip(files, known["files"], strict=True):
        now = file_facts(file)
        if now != facts and (now[:1] != facts[:1] or file_digest(file) != digest):
            return False
    return True


def _parse_finite(line: bytes, place: str) -> dict[str, Any]:
    return parse_line(line, place, finite=True)  # it is written again


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
