"""The rows of `thinkprm search`: the solutions of a problem, and the verdicts on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from thinkprm_jax.records.inputs import problem_of
from thinkprm_jax.records.jsonl import get_field, get_texts, write_line
from thinkprm_jax.records.schema import (
    FORMAT_KEY,
    LEFT_OUT,
    Count,
    Record,
    Row,
    check_format,
    decode,
    encode,
    field_error,
    field_types,
)
from thinkprm_jax.records.verdicts import VerdictRecord


@dataclass(frozen=True)
class SearchTokens(Record):
    """What the search of one problem took.

    Attributes:
      generated: tokens that the generator sampled: candidates that were dropped and lookahead included.
      verifier: tokens that the verifier sampled.
      verifications: its verdicts.
      rounds: of generation.
    """

    generated: Count
    verifier: Count
    verifications: Count = 0
    rounds: Count = 0


@dataclass(frozen=True, kw_only=True)
class CompletionRow(Row):
    """A line of completions.jsonl: a problem with its solutions, in the columns of search-and-learn.

    Every column but ``completions`` may be None, where the file, which may be another program's, does not have it.
    All lists have one entry for each completion.

    Attributes:
      given: the fields at the beginning of the line: index, problem (or question), answer, and the others that the
        data have.
      completions: the solutions.
      completion_tokens: sampled for each.
      finish_reasons: "stop" or "length"; None where nobody said.
      scores: one a step; () without a verdict.
      agg_scores: of the whole solution, by which it is ranked; None without a verdict.
      answers: equal ones in one spelling; None where there is none.
      correct: whether the answer is right.
      pred: the completion with the highest score.
      predictions: column (`pred_weighted@4`) -> the answer that is chosen among the first completions, in a box.
        In the file the columns stand in the row itself.
      tokens: what the search took.
      error: why there is no solution.
      models: "generator" and "verifier" -> "model", a name, and the fingerprints of what lay there: "weights",
        "config", "tokenizer", "chat_template".
      verdicts: of `thinkprm score`, where it has judged the completions.
      verifier: the settings that these were made with.
    """

    FORMAT = "completion"
    MADE_BY = ("models.generator", "models.verifier")
    PREDICTION: ClassVar[str] = "pred_"  # how the columns of `predictions` begin

    given: Mapping[str, Any]
    completions: tuple[str, ...]
    completion_tokens: tuple[int | None, ...] | None = None
    finish_reasons: tuple[str | None, ...] | None = None
    scores: tuple[tuple[float, ...], ...] | None = None
    agg_scores: tuple[float | None, ...] | None = None
    answers: tuple[str | None, ...] | None = None
    correct: tuple[bool, ...] | None = None
    pred: str | None = None
    predictions: Mapping[str, str | None] = field(default_factory=dict)
    tokens: SearchTokens | None = None
    error: str | None = None
    models: Mapping[str, Any] | None = None
    verdicts: tuple[VerdictRecord, ...] | None = None
    verifier: Mapping[str, Any] | None = None

    @property
    def problem(self) -> str:
        return problem_of(self.given, "row")

    @property
    def index(self) -> int | None:
        """Of the problem in the data, from 0; None in files of others."""
        index = self.given.get("index")
        return index if type(index) is int else None

    @property
    def answer(self) -> str | None:
        """The reference, as text."""
        return None if self.given.get("answer") is None else str(self.given["answer"])

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], place: str = "row", name: str = "") -> Self:
        check_format(content, (cls.FORMAT, "verdict"), cls.VERSION, place)  # verdict: `thinkprm score` was here
        problem_of(content, place)
        completions = tuple(get_texts(content, "completions", place))
        predictions = {key: content[key] for key in content if key.startswith(cls.PREDICTION)}
        columns = {column: content[column] for column in _COLUMNS if column in content}
        if columns.get("completion_tokens") == -1:  # of search-and-learn's DVTS: nobody counted
            columns["completion_tokens"] = None
        for column in ("tokens", "models"):  # in the files of others they can be anything
            if not isinstance(columns.get(column), Mapping):
                columns.pop(column, None)
        for column in _LISTS:
            values = columns.get(column)
            if isinstance(values, list) and len(values) != len(completions):
                what = f"has {len(values)} entries for {len(completions)} completions"
                raise field_error(place, column, what)
        taken = {"completions", FORMAT_KEY, *columns, *predictions}
        return cls(
            given={key: value for key, value in content.items() if key not in taken},
            completions=completions,
            predictions={key: decode(str | None, value, place, key) for key, value in predictions.items()},
            **{column: decode(_COLUMNS[column], value, place, column) for column, value in columns.items()},
        )

    def to_dict(self) -> dict[str, Any]:
        columns = {column: encode(getattr(self, column)) for column in _COLUMNS}
        behind = {column: columns.pop(column) for column in ("tokens", "error", "models", "verdicts", "verifier")}
        row = {**self.given, "completions": list(self.completions), **columns, **self.predictions, **behind}
        kept = {column: value for column, value in row.items() if value is not None or column not in _COLUMNS}
        return {**kept, "pred": self.pred, FORMAT_KEY: f"{self.FORMAT}/{self.VERSION}"}


_OTHERS = ("given", "completions", "predictions")
_COLUMNS = {name: kind for name, kind in field_types(CompletionRow).items() if name not in _OTHERS}
# Those that have one entry for each completion.
_LISTS = ("completion_tokens", "finish_reasons", "scores", "agg_scores", "answers", "correct", "verdicts")


@dataclass(frozen=True)
class SearchVerdictRow(Row):
    """A line of verdicts.jsonl: the verdicts on the completions of a problem.

    Attributes:
      index: of the problem, as in completions.jsonl.
      verdicts: one for each completion, in order; () where nothing was judged.
      verifier: the settings that the verdicts were made with.
    """

    FORMAT = "search_verdict"
    MADE_BY = ("verifier",)

    index: Count
    verdicts: tuple[VerdictRecord, ...]
    verifier: Mapping[str, Any] | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True)
class SearchedRow(Row):
    """A line of a part of a search that several processes do: that of completions.jsonl, and in its field
    `verdict_row` that of verdicts.jsonl, which it becomes when all parts are there.

    Attributes:
      completion: the problem with its solutions.
      verdict_row: the verdicts on them.
    """

    FORMAT = "searched"
    MADE_BY = (*CompletionRow.MADE_BY, "verdict_row.verifier")

    completion: CompletionRow
    verdict_row: SearchVerdictRow

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], place: str = "row", name: str = "") -> Self:
        check_format(content, (cls.FORMAT,), cls.VERSION, place)
        judged = get_field(content, "verdict_row", dict, place)
        completion = {key: value for key, value in content.items() if key not in ("verdict_row", FORMAT_KEY)}
        return cls(CompletionRow.from_dict(completion, place), SearchVerdictRow.from_dict(judged, place))

    def to_dict(self) -> dict[str, Any]:
        named = {FORMAT_KEY: f"{self.FORMAT}/{self.VERSION}"}
        return {**self.completion.to_dict(), "verdict_row": self.verdict_row.to_dict(), **named}

    @staticmethod
    def completion_line(line: bytes) -> bytes:
        """Of a line of such a row the line of completions.jsonl."""
        content = json.loads(line)
        del content["verdict_row"]
        return write_line({**content, FORMAT_KEY: f"{CompletionRow.FORMAT}/{CompletionRow.VERSION}"})

    @staticmethod
    def verdict_line(line: bytes) -> bytes:
        """Of a line of such a row the line of verdicts.jsonl."""
        return write_line(json.loads(line)["verdict_row"])


@dataclass(frozen=True)
class SearchPieceRow(Row):
    """A line of unfinished.jsonl: what the generator wrote for a problem that has no row yet.

    Attributes:
      index: of the problem, as in completions.jsonl.
      key: what the piece depends on (its seed and the tokens before it), as a digest.
      ids: its tokens.
      text: of the whole solution so far.
      finish: "step", "stop" or "length".
      tokens: sampled for it.
      weights, config, tokenizer, chat_template: fingerprints of the generator's.
    """

    FORMAT = "search_piece"
    MADE_BY = ("",)

    index: Count
    key: str
    ids: tuple[Count, ...]
    text: str
    finish: str
    tokens: Count
    weights: str | None = None
    config: str | None = field(default=None, metadata=LEFT_OUT)
    tokenizer: str | None = field(default=None, metadata=LEFT_OUT)
    chat_template: str | None = field(default=None, metadata=LEFT_OUT)

    def check(self, place: str, prefix: str) -> None:
        if self.finish not in ("step", "stop", "length"):
            raise field_error(place, f"{prefix}finish", f"must be step, stop or length, it is {self.finish!r}")


@dataclass(frozen=True)
class SearchJudgementRow(Row):
    """A line of unfinished.jsonl: a verdict on a solution of a problem that has no row yet.

    Attributes:
      index: of the problem, as in completions.jsonl.
      key: the text that was judged, as a digest.
      tokens: the verifier sampled for it.
      verdict: with the steps as they were judged.
      weights, config, tokenizer, chat_template: fingerprints of the verifier's.
    """

    FORMAT = "search_judgement"
    MADE_BY = ("",)

    index: Count
    key: str
    tokens: Count
    verdict: VerdictRecord
    weights: str | None = None
    config: str | None = field(default=None, metadata=LEFT_OUT)
    tokenizer: str | None = field(default=None, metadata=LEFT_OUT)
    chat_template: str | None = field(default=None, metadata=LEFT_OUT)
