"""Rows on disk: what stands in every file of results, as frozen dataclasses.

Example::

    from thinkprm_jax import records

    for row in records.read_verdicts("verdicts.jsonl"):
        print(row.problem, row.verdict.prefix_score)

Classes of rows, by the program that writes them::

    thinkprm score       VerdictRow
    thinkprm evaluate    EvaluationRow (--details); LabelledSolutionRow is what `evaluate solutions` reads
    thinkprm search      CompletionRow (completions.jsonl), SearchVerdictRow (verdicts.jsonl); of problems that are
                         not finished SearchPieceRow and SearchJudgementRow (unfinished.jsonl); of several
                         processes SearchedRow, in parts (completions.jsonl.job) until all are done
    thinkprm collect     GenerationRow, DecisionRow, CollectedChainRow
"""

from __future__ import annotations

from thinkprm_jax.records.collection import CollectedChainRow, DecisionRow, GenerationRow
from thinkprm_jax.records.evaluation import EvaluationRow, LabelledSolutionRow, Outcome
from thinkprm_jax.records.reading import read, read_verdicts
from thinkprm_jax.records.schema import Record, Row
from thinkprm_jax.records.search import (
    CompletionRow,
    SearchedRow,
    SearchJudgementRow,
    SearchPieceRow,
    SearchTokens,
    SearchVerdictRow,
)
from thinkprm_jax.records.search_folder import SearchedProblemRow, SearchFolder, read_search_folder
from thinkprm_jax.records.verdicts import ChainRecord, VerdictRecord, VerdictRow

__all__ = [
    "ChainRecord",
    "CollectedChainRow",
    "CompletionRow",
    "DecisionRow",
    "EvaluationRow",
    "GenerationRow",
    "LabelledSolutionRow",
    "Outcome",
    "Record",
    "Row",
    "SearchFolder",
    "SearchJudgementRow",
    "SearchPieceRow",
    "SearchTokens",
    "SearchVerdictRow",
    "SearchedProblemRow",
    "SearchedRow",
    "VerdictRecord",
    "VerdictRow",
    "read",
    "read_search_folder",
    "read_verdicts",
]
