"""The folder of a search, finished or not: its problems with their solutions and the verdicts on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.datasets import JOB
from thinkprm_jax.records.files import has_lines
from thinkprm_jax.records.joined_output import job_folder
from thinkprm_jax.records.jsonl import read_growing
from thinkprm_jax.records.reading import read_results
from thinkprm_jax.records.run_folder import read_saved_recipe
from thinkprm_jax.records.schema import field_error
from thinkprm_jax.records.search import CompletionRow, SearchedRow, SearchVerdictRow
from thinkprm_jax.records.sharded_output import part_files
from thinkprm_jax.records.verdicts import VerdictRecord
from thinkprm_jax.storage import Location, ObjectPath, location
from thinkprm_jax.user_files import read_json

COMPLETIONS, VERDICTS, ACCURACY = "completions.jsonl", "verdicts.jsonl", "accuracy.json"
UNFINISHED = "unfinished.jsonl"  # of problems that have no rows yet; gone at the end


@dataclass(frozen=True)
class SearchedProblemRow:
    """A problem of a search.

    Attributes:
      place: of its line, for messages (`completions.jsonl:12`).
      completion: the line.
      verdicts: one for each completion; None where nothing was judged, or nothing is written yet.
    """

    place: str
    completion: CompletionRow
    verdicts: tuple[VerdictRecord, ...] | None = None


@dataclass(frozen=True)
class SearchFolder:
    """What a search has written.

    Attributes:
      path: of the folder, or of a file of completions alone.
      rows: of its problems, in order.
      recipe: the fields of its recipe; {} where there is none.
      accuracy: the content of accuracy.json, which comes last; None where there is none.
      verdict_lines: how many verdicts.jsonl has; None where there is none.
      growing: the files whose last line is half-written, which the rows do not hold.
    """

    path: Location
    rows: tuple[SearchedProblemRow, ...]
    recipe: Mapping[str, Any]
    accuracy: Mapping[str, Any] | None = None
    verdict_lines: int | None = None
    growing: tuple[Location, ...] = ()


def read_search_folder(path: str | Path | ObjectPath) -> SearchFolder:
    """The folder of `thinkprm search`, or a file of completions, search-and-learn's too.

    A search that still runs is read as far as it is.

    Example:

        for row in read_search_folder("runs/best_of_n").rows:
            print(row.completion.problem, row.completion.correct, row.verdicts)

    Raises:
      UserError: no search has finished a problem here, or a row is not as described; names file, line and field.
    """
    path = location(path)
    if not path.is_dir() or (path / JOB).is_dir():
        completions, growing = read_results(path)
        rows = tuple(SearchedProblemRow(place, CompletionRow.from_dict(row, place)) for place, row in completions)
        return SearchFolder(path, _some(rows, path), {}, growing=(path,) if growing else ())
    file, judged = path / COMPLETIONS, path / VERDICTS
    parts = job_folder(file)
    if not has_lines(file) and parts.is_dir() and part_files(parts):
        return _read_parts(path, parts)
    if not has_lines(file):
        raise UserError(f"{path}: holds no {COMPLETIONS}, so no search has finished a problem here")
    half_written = []
    completions, growing = read_growing(file)
    half_written += [file] if growing else []
    verdicts: list[tuple[str, dict[str, Any]]] = []
    if has_lines(judged):
        verdicts, growing = read_growing(judged)
        half_written += [judged] if growing else []
    return SearchFolder(
        path,
        _some(
            tuple(
                _joined(given, verdict)
                for given, verdict in zip_longest(completions, verdicts)
                if given is not None  # verdicts are written first; the problem comes with the run's next start
            ),
            file,
        ),
        read_saved_recipe(path),
        read_json(path / ACCURACY) if (path / ACCURACY).exists() else None,
        len(verdicts) if has_lines(judged) else None,
        tuple(half_written),
    )


def _read_parts(path: Location, parts: Location) -> SearchFolder:
    """Of a search that several processes do: the parts that are done."""
    found, _ = read_results(parts)
    rows = [(place, SearchedRow.from_dict(row, place)) for place, row in found]
    problems = tuple(
        SearchedProblemRow(place, row.completion, row.verdict_row.verdicts or None) for place, row in rows
    )
    return SearchFolder(path, problems, read_saved_recipe(path), None, len(problems), growing=(parts,))


def _some(rows: tuple[SearchedProblemRow, ...], file: Location) -> tuple[SearchedProblemRow, ...]:
    if not rows:
        raise UserError(f"{file}: no rows in it")
    return rows


_Line = tuple[str, Mapping[str, Any]]


def _joined(given: _Line, judged: _Line | None) -> SearchedProblemRow:
    """A line of each file; they must be about the same problem."""
    place, row = given[0], CompletionRow.from_dict(given[1], given[0])
    if judged is None:
        return SearchedProblemRow(place, row)
    verdicts = SearchVerdictRow.from_dict(judged[1], judged[0])
    if row.index is not None and verdicts.index != row.index:
        raise field_error(judged[0], "index", f"is not that of {place}: the files are of two runs")
    if verdicts.verdicts and len(verdicts.verdicts) != len(row.completions):
        what = f"has {len(verdicts.verdicts)} entries for {len(row.completions)} completions"
        raise field_error(judged[0], "verdicts", what)
    return SearchedProblemRow(place, row, verdicts.verdicts or None)
