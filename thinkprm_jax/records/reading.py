"""Files of results, whichever program wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.collection import CollectedChainRow, DecisionRow, GenerationRow
from thinkprm_jax.records.datasets import JOB
from thinkprm_jax.records.evaluation import EvaluationRow
from thinkprm_jax.records.job import read_job
from thinkprm_jax.records.jsonl import read_growing, read_rows
from thinkprm_jax.records.row_files import PACKED, PARQUET
from thinkprm_jax.records.row_source import RowSource
from thinkprm_jax.records.schema import FORMAT_KEY, Row
from thinkprm_jax.records.search import (
    CompletionRow,
    SearchedRow,
    SearchJudgementRow,
    SearchPieceRow,
    SearchVerdictRow,
)
from thinkprm_jax.records.verdicts import VerdictRow
from thinkprm_jax.storage import ObjectPath, location

# Class -> fields by which its rows are known where they say nothing of their format; the first that fits counts.
ROWS: Mapping[type[Row], tuple[str, ...]] = {
    EvaluationRow: ("outcome", "verdict"),
    VerdictRow: ("verdict",),
    GenerationRow: ("teacher", "text"),
    DecisionRow: ("reason", "chain"),
    CollectedChainRow: ("cot", "prefix_steps"),
    CompletionRow: ("completions",),
    SearchVerdictRow: ("index", "verdicts"),
    SearchedRow: ("completions", "verdict_row"),
    SearchPieceRow: ("index", "key", "ids"),
    SearchJudgementRow: ("index", "key", "verdict"),
}


def read_results(
    path: str | Path | ObjectPath, growing: bool = True
) -> tuple[list[tuple[str, dict[str, Any]]], bool]:
    """(place, row) of every row of a file of results, or of the parts in a folder; and whether more are to come:
    the last line is half-written, or parts are missing.

    Args:
      growing: False: a last line that is half-written is an error.
    Raises:
      UserError: it cannot be read, or there is no row; names file and line.
    """
    place = location(path)
    is_job = (place / JOB).is_dir()
    if not is_job and not place.is_dir() and not str(path).lower().endswith((*PACKED, PARQUET)):
        rows, is_growing = read_growing(path) if growing else (read_rows(path), False)
        if not rows:
            raise UserError(f"{path}: no rows in it")
        return rows, is_growing
    with RowSource(str(path)) as source:
        rows = [source.json_row(index) for index in range(len(source))]
        parts = len(source.files or ())
    return rows, is_job and parts < read_job(place)["parts"]


def read(path: str | Path | ObjectPath) -> list[Row]:
    """All rows of a file of results, as whatever class they are: see :mod:`thinkprm_jax.records`.

    Example:

        for row in read("verdicts.jsonl"):
            print(row.FORMAT, row.to_dict())

    Raises:
      UserError: the file cannot be read, or a row is of no class, or not as its class says; names file, line and
        field.
    """
    return [class_of(row, place).from_dict(row, place) for place, row in read_results(path, growing=False)[0]]


def read_verdicts(path: str | Path | ObjectPath) -> list[VerdictRow]:
    """The output of `thinkprm score`.

    Example:

        for row in read_verdicts("verdicts.jsonl"):
            print(row.problem, [verdict.prefix_score for verdict in row.verdicts])

    Raises:
      UserError: as of :func:`read`.
    """
    return [VerdictRow.from_dict(row, place) for place, row in read_results(path, growing=False)[0]]


def class_of(row: Mapping[str, Any], place: str) -> type[Row]:
    """Of a row as JSON: by the format that it names, or else by its fields."""
    if FORMAT_KEY in row:
        name = str(row[FORMAT_KEY]).partition("/")[0]
        found = next((kind for kind in ROWS if name == kind.FORMAT), None)
    elif "completions" in row and "verdicts" in row:
        found = VerdictRow
    else:
        found = next((kind for kind, fields in ROWS.items() if all(field in row for field in fields)), None)
    if found is None:
        raise UserError(f"{place}: no row of results that thinkprm_jax writes")
    return found
