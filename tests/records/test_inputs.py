"""Input files: checked before the first row is used, read when a row is asked for."""

from __future__ import annotations

import json
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.inputs import SolutionFile, parse_solution
from thinkprm_jax.records.jsonl import check_finite, write_line

ROW = {"problem": "1 + 1?", "steps": ["2"]}


def write(path: Path, *lines: Any) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_in_any_order(tmp_path):
    path = write(
        tmp_path / "in.jsonl", "\ufeff" + json.dumps(ROW), "", {**ROW, "id": 1}, {**ROW, "completions": []}
    )
    with SolutionFile(path) as rows:
        assert len(rows) == rows.solutions == 3
        assert rows[2].row == {**ROW, "completions": []}
        assert rows[0].row == ROW
        assert rows[1].row == {**ROW, "id": 1}


@pytest.mark.parametrize(
    ("row", "source"),
    [
        ({"steps": None, "solution": "It is 2."}, "solution"),
        ({"steps": None, "completions": None, "solution": "It is 2."}, "solution"),
        ({"steps": None, "completions": ["It is 2."], "solution": None}, "completions"),
        ({"steps": ["It is 2."], "completions": None, "solution": "another"}, "steps"),
    ],
)
def test_a_field_that_is_null_is_not_there(row, source):
    found = parse_solution({"problem": "1 + 1?", **row}, "row")
    assert found.source == source
    assert found.solutions == (("It is 2.",),)


def test_a_problem_that_is_null_is_not_there():
    assert parse_solution({"problem": None, "question": "1 + 1?", "steps": []}, "row").problem == "1 + 1?"
    with pytest.raises(UserError, match="`problem` must be a text, it is null"):
        parse_solution({"problem": None, "steps": []}, "row")
    with pytest.raises(UserError, match=r"the field `steps` \(or `solution`, or `completions`\) is missing"):
        parse_solution({"problem": "x", "steps": None}, "row")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1E+400", "1" + "0" * 400 + ".0"])
@pytest.mark.parametrize(("field", "name"), [('"s": %s', "s"), ('"s": [1, {"t": %s}]', r"s\[1\].t")])
def test_a_number_that_is_not_finite_is_refused_where_it_stands(tmp_path, number, field, name):
    path = write(tmp_path / "in.jsonl", ROW, '{"problem": "x", "steps": [], ' + field % number + "}")
    with pytest.raises(UserError, match=rf"in.jsonl:2: the field `{name}` is .*, which is no number of JSON"):
        SolutionFile(path)


def test_words_that_look_like_it_are_words(tmp_path):
    row = {**ROW, "note": "NaN, Infinity, 1e999", "big": 10**400, "small": 1e-300, "large": 1e300}
    with SolutionFile(write(tmp_path / "in.jsonl", row)) as rows:
        assert rows[0].row == row
    check_finite(row, "row")


@pytest.mark.parametrize("depth", [400, 900, 5000])
def test_a_row_that_is_nested_too_deeply_is_one_line_or_taken(tmp_path, depth):
    path = tmp_path / "in.jsonl"
    path.write_text('{"problem": "x", "steps": [], "note": ' + "[" * depth + '"NaN"' + "]" * depth + "}\n")
    try:
        SolutionFile(path)
    except UserError as error:
        assert str(error).startswith(f"{path}:1: ")  # noqa: PT017 (how deep is too deep is Python's business)


def test_what_is_written_is_json():
    assert write_line({"a": "\ud800"}) == b'{"a": "\\ud800"}\n'
    with pytest.raises(UserError, match=r"the field `a\[1\]` is nan"):
        write_line({"a": [0.0, float("nan")]})


@pytest.mark.parametrize("said", ["completion/2", "labelled_solution/1"])
def test_what_rows_of_ours_say_of_their_format_stays_behind(tmp_path, said):
    with SolutionFile(write(tmp_path / "in.jsonl", {**ROW, "thinkprm_format": said})) as rows:
        assert rows[0].row == ROW


@pytest.mark.parametrize("said", ["mine", 7, None, "verdict/2", "completion/3"])
def test_what_others_say_under_that_name_is_not_dropped_in_silence(tmp_path, said):
    with pytest.raises(UserError, match=r"in.jsonl:1: the field `thinkprm_format`"):
        SolutionFile(write(tmp_path / "in.jsonl", {**ROW, "thinkprm_format": said}))


def test_a_pipe_is_an_input(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=write, args=(tmp_path / "pipe", ROW, {**ROW, "id": 1}))
    writer.start()
    with SolutionFile(tmp_path / "pipe") as rows:
        assert [rows[1].row, rows[0].row] == [{**ROW, "id": 1}, ROW]
    writer.join()


def test_memory_does_not_grow_with_the_rows(tmp_path):
    path = write(tmp_path / "in.jsonl", *[{**ROW, "note": "x" * 1000}] * 2000)
    tracemalloc.start()
    try:
        with SolutionFile(path) as rows:
            assert len(rows) == 2000
            held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 100_000  # of 2 MB of text
    assert most < 300_000
