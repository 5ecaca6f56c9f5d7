"""Rows on disk: what earlier versions wrote is read, and what is not as described is named."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from thinkprm_jax import records
from thinkprm_jax.errors import UserError
from thinkprm_jax.records.schema import FORMAT_KEY, LEFT_OUT, Count, Label, Probability, Record, Row

# Written by the programs when rows had no version; written_by.md there says how.
VERSION_1 = Path(__file__).parent / "version_1"
FILES = {
    "score.jsonl": records.VerdictRow,
    "details.jsonl": records.EvaluationRow,
    "judge.jsonl": records.EvaluationRow,
    "best_of_n/completions.jsonl": records.CompletionRow,
    "best_of_n/verdicts.jsonl": records.SearchVerdictRow,
    "beam_search/completions.jsonl": records.CompletionRow,
    "beam_search/verdicts.jsonl": records.SearchVerdictRow,
    "collection/generations.jsonl": records.GenerationRow,
    "collection/decisions.jsonl": records.DecisionRow,
    "collection/chains.jsonl": records.CollectedChainRow,
}


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (VERSION_1 / name).read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("name", "kind"), FILES.items())
def test_files_without_a_version_are_read_and_nothing_is_lost(name, kind):
    rows = records.read(VERSION_1 / name)
    assert {type(row) for row in rows} == {kind}
    assert rows == kind.read(VERSION_1 / name)
    for row, line in zip(rows, lines(name), strict=True):
        written = json.loads(json.dumps(row.to_dict()))
        assert written.pop(FORMAT_KEY, None) == (None if kind is records.CollectedChainRow else f"{kind.FORMAT}/2")
        assert written == line


@pytest.mark.parametrize(("name", "kind"), FILES.items())
def test_what_is_written_is_read_back(name, kind):
    for row in kind.read(VERSION_1 / name):
        written = json.loads(json.dumps(row.to_dict()))
        assert kind.from_dict(written) == row
        assert records.reading.class_of(written, "row") is kind


def test_verdicts_in_one_line():
    rows = records.read_verdicts(VERSION_1 / "score.jsonl")
    assert [len(row.verdicts) for row in rows] == [1, 1, 2, 1]
    assert rows[0].problem == "7 + 8 * 3?"
    assert rows[1].problem == "Mia has 12 marbles. She loses 5. How many has she?"  # its field is `question`
    assert [steps for steps, _ in rows[2].judged()] == [
        ("9 * 4 = 36.", "36 - 6 = 30."),
        ("9 * 4 = 32.", "32 - 6 = 26."),
    ]
    assert rows[0].verdict.prefix_score == lines("score.jsonl")[0]["verdict"]["prefix_score"]
    assert rows[0].verdict.output_tokens == sum(chain.output_tokens for chain in rows[0].verdict.chains) > 0
    assert rows[3].verdict.error == "there are no steps to judge"
    with pytest.raises(ValueError, match="has completions"):
        _ = rows[2].verdict


def test_completions_that_were_scored_are_both():
    given = lines("best_of_n/completions.jsonl")[0]
    verdicts = lines("best_of_n/verdicts.jsonl")[0]["verdicts"]
    scored = {**given, "verdicts": verdicts, "verifier": {"model": "mini"}, FORMAT_KEY: "verdict/2"}
    as_verdicts = records.VerdictRow.from_dict(scored)
    assert as_verdicts.solution.row["agg_scores"] == given["agg_scores"]
    row = records.CompletionRow.from_dict(scored)
    assert row.verdicts == as_verdicts.verdicts
    assert row.tokens == records.SearchTokens(**given["tokens"])
    assert records.reading.class_of(scored, "row") is records.VerdictRow
    del scored[FORMAT_KEY]
    assert records.reading.class_of(scored, "row") is records.VerdictRow


def test_completions_of_search_and_learn():
    row = records.CompletionRow.from_dict(
        {"problem": "p", "completions": ["a", "b"], "completion_tokens": -1, "pred": "a", "tokens": "?", "x": None}
    )
    assert row.completion_tokens is None
    assert row.tokens is None
    assert row.given == {"problem": "p", "tokens": "?", "x": None}
    assert (row.scores, row.agg_scores, row.answer, row.index) == (None, None, None, None)


@dataclass(frozen=True)
class Inner(Record):
    name: str
    flag: bool | None = None


@dataclass(frozen=True)
class SampleRow(Row):
    FORMAT = "sample"

    count: Count
    scores: tuple[Probability, ...]
    label: Label | None
    value: float
    inner: Inner
    note: str | None = field(default=None, metadata=LEFT_OUT)


GOOD = {"count": 3, "scores": [0, 0.5], "label": None, "value": -2.5, "inner": {"name": "n", "flag": True}}


def test_fields_come_back_in_their_order_and_optional_ones_only_where_they_say_something():
    row = SampleRow.from_dict(GOOD)
    assert row == SampleRow(3, (0.0, 0.5), None, -2.5, Inner("n", True))
    assert json.dumps(row.to_dict()) == json.dumps({**GOOD, "scores": [0.0, 0.5], FORMAT_KEY: "sample/2"})
    assert SampleRow.from_dict({**GOOD, "note": "x"}).to_dict()["note"] == "x"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": "x"}, "`count` must be a whole number, 0 or more, it is a text"),
        ({"count": -1}, "`count` must be a whole number, 0 or more, it is -1"),
        ({"count": 1.0}, "`count` must be a whole number, 0 or more, it is 1.0"),
        ({"count": True}, "`count` must be a whole number, 0 or more, it is true or false"),
        ({"scores": 0.5}, "`scores` must be a list, it is a number"),
        ({"scores": [0.5, 1.5]}, "`scores[1]` must be a number in [0, 1], it is 1.5"),
        ({"scores": [float("nan")]}, "`scores[0]` must be a number in [0, 1], it is nan"),
        ({"label": 2}, "`label` must be 0 or 1, it is 2"),
        ({"value": float("inf")}, "`value` must be a finite number, it is inf"),
        ({"value": 10**400}, "`value` must be a finite number"),
        ({"value": None}, "`value` must be a finite number, it is null"),
        ({"inner": []}, "`inner` must be an object, it is a list"),
        ({"inner": {}}, "`inner.name` is missing"),
        ({"inner": {"name": 1}}, "`inner.name` must be a text, it is a number"),
        ({"inner": {"name": "n", "flag": 1}}, "`inner.flag` must be true or false, it is a number"),
        (
            {FORMAT_KEY: "sample/3"},
            f"`{FORMAT_KEY}` is sample/3; this version of thinkprm_jax knows sample",
        ),
        ({FORMAT_KEY: "verdict/2"}, f"`{FORMAT_KEY}` is verdict/2; rows of the format sample are wanted here"),
        ({FORMAT_KEY: "2"}, f'`{FORMAT_KEY}` must be a name and a version ("sample/2")'),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(UserError) as error:
        SampleRow.from_dict({**GOOD, **change}, "rows.jsonl:7")
    assert str(error.value).startswith("rows.jsonl:7: the field ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("score.jsonl", {"verdict": {"error": 3}}, "`verdict.error` must be a text"),
        (
            "score.jsonl",
            {"verdict": {"prefix_score": 1, "step_scores": [1, 1]}},
            "`verdict.step_labels` is",
        ),
        ("details.jsonl", {"label": 2}, "`label` must be a step from 0 to 1, or -1; it is 2"),
        ("best_of_n/completions.jsonl", {"scores": []}, "`scores` has 0 entries for 2 completions"),
        ("best_of_n/completions.jsonl", {"pred_maj@1": 3}, "`pred_maj@1` must be a text"),
        ("best_of_n/completions.jsonl", {"problem": None}, "`problem` must be a text, it is null"),
        ("collection/generations.jsonl", {"labels": [3]}, "`labels[0]` must be 0 or 1, it is 3"),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_line(tmp_path, name, change, message):
    first = lines(name)[0]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(first) + "\n" + json.dumps({**first, **change}) + "\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        records.read(path)
    assert f"{path}:2: the field {message}" in str(error.value)


def test_what_is_no_row_of_results_is_said(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"rows.jsonl:1: no row of results"):
        records.read(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(UserError, match="no rows in it"):
        records.read_verdicts(path)


def test_rows_say_that_score_and_labels_disagree_and_older_ones_say_nothing():
    chain = {"output": "x", "prefix_score": 0.9, "step_labels": [0], "step_scores": [0.1]}
    row = {"problem": "p", "steps": ["a"], "verdict": {**chain, "chains": [chain]}}
    del row["verdict"]["output"]
    assert records.VerdictRow.from_dict(row).verdict.contradictory is None
    row["verdict"]["contradictory"] = row["verdict"]["chains"][0]["contradictory"] = True
    found = records.VerdictRow.from_dict(row)
    assert (found.verdict.contradictory, found.verdict.chains[0].contradictory) == (True, True)
    assert found.to_dict()["verdict"]["chains"][0]["contradictory"] is True
