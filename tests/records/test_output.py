"""Rows in the order of their inputs, and what is left in the folder when a run ends or is stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.output import OrderedOutput, has_rows
from thinkprm_jax.records.schema import Row


@dataclass(frozen=True)
class NumberRow(Row):
    FORMAT = "number"

    number: int
    twice: int
    how: Mapping[str, Any]


INPUTS = [{"number": number} for number in range(4)]
HOW = {"exact": True}


def opened(path: Path | None, how: Mapping[str, Any] = HOW) -> OrderedOutput[NumberRow]:
    return OrderedOutput(path, NumberRow, INPUTS, {"how": how})


def row(number: int) -> NumberRow:
    return NumberRow(number, 2 * number, HOW)


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_text().splitlines()]


def test_rows_come_in_any_order_and_leave_in_one(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert not has_rows(path)
    with opened(path) as output:
        assert output.add(2, row(2)) == []
        assert has_rows(path)
        assert output.add(0, row(0)) == [(0, row(0))]
        assert output.add(1, row(1)) == [(1, row(1)), (2, row(2))]
        assert output.missing == [3]
        assert output.add(3, row(3)) == [(3, row(3))]
    assert numbers(path) == [0, 1, 2, 3]
    assert list(tmp_path.iterdir()) == [path]


def test_what_waits_stays_and_is_taken_up(tmp_path):
    path = tmp_path / "rows.jsonl"
    with opened(path) as output:
        output.add(2, row(2))
        output.add(0, row(0))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["rows.jsonl", "rows.jsonl.waiting"]
    with opened(path) as output:
        assert output.resumed == [row(0), row(2)]
        assert output.missing == [1, 3]
        output.add(1, row(1))  # what waited has had its turn, though not all is done
    assert numbers(path) == [0, 1, 2]
    assert list(tmp_path.iterdir()) == [path]


def test_other_rows_are_refused_and_nothing_is_changed(tmp_path):
    path = tmp_path / "rows.jsonl"
    with opened(path) as output:
        output.add(0, row(0))
        output.add(2, row(2))
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for how, message in (({"exact": False}, "made with exact True, this run has False"), ({}, "made with exact")):
        with pytest.raises(UserError, match=message):
            opened(path, how)
    with path.open("ab") as file:
        file.write(b'{"number": 1, "twice": "two", "how": {"exact": true}}\n')
    with pytest.raises(UserError, match=r"rows.jsonl:2: the field `twice` must be a whole number, it is a text"):
        opened(path)
    assert path.with_name("rows.jsonl.waiting").read_bytes() == before["rows.jsonl.waiting"]


def test_two_runs_do_not_write_one_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    with opened(path), pytest.raises(UserError, match="another run is writing it"):
        opened(path)


def test_without_a_file_there_is_the_order(tmp_path):
    with opened(None) as output:
        assert output.add(1, row(1)) == []
        assert output.add(0, row(0)) == [(0, row(0)), (1, row(1))]
