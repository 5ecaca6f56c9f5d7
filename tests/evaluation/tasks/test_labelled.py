"""Labelled solutions of any source."""

from __future__ import annotations

import json

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.evaluation.results import EvaluationCase
from thinkprm_jax.evaluation.runner import case_fields
from thinkprm_jax.evaluation.tasks.labelled import read_solutions

ROW = {"problem": "1 + 1?", "steps": ["a", "b"], "label": 1, "groups": {"kind": "sum"}, "id": "s-7"}


def write(path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_become_cases_and_details_are_such_rows(tmp_path):
    source = write(tmp_path / "s.jsonl", ROW, {"question": "2?", "steps": ["c"], "label": -1})
    cases = read_solutions(source)
    assert cases == [
        EvaluationCase("1 + 1?", ("a", "b"), 1, {"kind": "sum"}, "s-7"),
        EvaluationCase("2?", ("c",), -1),
    ]
    again = write(tmp_path / "t.jsonl", *(case_fields(index, case) for index, case in enumerate(cases)))
    assert read_solutions(again) == cases


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"label": 2}, "s.jsonl:1: the field `label` must be a step from 0 to 1, or -1; it is 2"),
        ({"groups": {"kind": 3}}, "s.jsonl:1: the field `groups.kind` must be a text, it is a number"),
        ({"steps": []}, "s.jsonl:1: the field `steps` is empty"),
        ({"id": 3}, "s.jsonl:1: the field `id` must be a text"),
    ],
)
def test_a_bad_row_is_named(tmp_path, bad, message):
    with pytest.raises(UserError) as error:
        read_solutions(write(tmp_path / "s.jsonl", {**ROW, **bad}))
    assert message in str(error.value)


def test_no_rows(tmp_path):
    with pytest.raises(UserError, match="no rows in it"):
        read_solutions(write(tmp_path / "s.jsonl"))
