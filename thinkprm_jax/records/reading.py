"""Files of results, whichever program wrote them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.collection import CollectedChainRow, DecisionRow, GenerationRow
from thinkprm_jax.records.evaluation import EvaluationRow
from thinkprm_jax.records.jsonl import read_rows
from thinkprm_jax.records.schema import FORMAT_KEY, Row
from thinkprm_jax.records.search import CompletionRow, SearchJudgementRow, SearchPieceRow, SearchVerdictRow
from thinkprm_jax.records.verdicts import VerdictRow
from thinkprm_jax.storage import ObjectPath

# Class -> fields by which its rows are known where they say nothing of their format; the first that fits counts.
ROWS: Mapping[type[Row], tuple[str, ...]] = {
    EvaluationRow: ("outcome", "verdict"),
    VerdictRow: ("verdict",),
    GenerationRow: ("teacher", "text"),
    DecisionRow: ("reason", "chain"),
    CollectedChainRow: ("cot", "prefix_steps"),
    CompletionRow: ("completions",),
    SearchVerdictRow: ("index", "verdicts"),
    SearchPieceRow: ("index", "key", "ids"),
    SearchJudgementRow: ("index", "key", "verdict"),
}


def read(path: str | Path | ObjectPath) -> list[Row]:
    """All rows of a file of results, as whatever class they are: see :mod:`thinkprm_jax.records`.

    Example:

        for row in read("verdicts.jsonl"):
            print(row.FORMAT, row.to_dict())

    Raises:
      UserError: the file cannot be read, or a row is of no class, or not as its class says; names file, line and
        field.
    """
    return [class_of(row, place).from_dict(row, place) for place, row in read_rows(path)]


def read_verdicts(path: str | Path | ObjectPath) -> list[VerdictRow]:
    """The output of `thinkprm score`.

    Example:

        for row in read_verdicts("verdicts.jsonl"):
            print(row.problem, [verdict.prefix_score for verdict in row.verdicts])

    Raises:
      UserError: as of :func:`read`.
    """
    return [VerdictRow.from_dict(row, place) for place, row in read_rows(path)]


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
