"""Rows in the order of their inputs, and what is left in the folder when a run ends or is stopped."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.full_disk import room_for
from thinkprm_jax.errors import UserError
from thinkprm_jax.records.output import OrderedOutput, has_rows
from thinkprm_jax.records.schema import FINGERPRINTS, LEFT_OUT, Row


@dataclass(frozen=True)
class NumberRow(Row):
    FORMAT = "number"

    number: int
    twice: int
    how: Mapping[str, Any]


INPUTS = [{"number": number} for number in range(4)]
HOW = {"exact": True}


def opened(
    path: Path | None, how: Mapping[str, Any] = HOW, on_resumed: Callable[[NumberRow], object] = lambda row: None
) -> OrderedOutput[NumberRow]:
    return OrderedOutput(path, NumberRow, INPUTS, {"how": how}, on_resumed=on_resumed)


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
    resumed: list[NumberRow] = []
    with opened(path, on_resumed=resumed.append) as output:
        assert resumed == [row(0), row(2)]
        assert output.resumed == 2
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


@dataclass(frozen=True)
class WeighedRow(Row):
    FORMAT = "weighed"
    MADE_BY = ("how", "models.other")

    number: int
    how: Mapping[str, Any] | None = field(default=None, metadata=LEFT_OUT)
    models: Mapping[str, Any] | None = field(default=None, metadata=LEFT_OUT)


def weighed(path: Path) -> OrderedOutput[WeighedRow]:
    return OrderedOutput(path, WeighedRow, INPUTS, {"how": HOW})


def test_rows_of_other_weights_are_refused_in_one_line_that_names_both(tmp_path):
    path = tmp_path / "rows.jsonl"
    with weighed(path) as output:
        output.add(0, WeighedRow(0, {**HOW, "weights": "aa"}))
        output.add(2, WeighedRow(2, {**HOW, "weights": "bb"}, {"other": {"weights": "cc"}}))
    with weighed(path) as output:  # settings that say nothing of weights fit
        with pytest.raises(UserError) as error:
            output.check_models(how={**HOW, "weights": "bb"})
        assert str(error.value).startswith(
            f"{path}:1: made by a model with the weights aa (`how.weights`), this run's has bb"
        )
        with pytest.raises(
            UserError, match=r"rows.jsonl.waiting:1: .*weights cc \(`models.other.weights`\).* has dd"
        ):
            output.check_models(models={"other": {"weights": "dd"}})
        output.check_models(models={})
    with pytest.raises(UserError, match="made with exact True"):
        OrderedOutput(path, WeighedRow, INPUTS, {"how": {"exact": False}})


def test_rows_from_before_there_were_weights_pass(tmp_path):
    path = tmp_path / "rows.jsonl"
    with weighed(path) as output:
        output.add(0, WeighedRow(0, HOW))
        output.add(1, WeighedRow(1))  # nor settings
    with weighed(path) as output:
        output.check_models(how={**HOW, "weights": "bb"})
        output.add(2, WeighedRow(2, {**HOW, "weights": "bb"}))
    with weighed(path) as output, pytest.raises(UserError, match=r"rows.jsonl:3: .* weights bb .* has cc"):
        output.check_models(how={"weights": "cc"})


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("weights", "weights"),
        ("config", "configuration"),
        ("tokenizer", "tokenizer"),
        ("chat_template", "chat template"),
    ],
)
def test_the_file_of_a_model_that_is_another_is_named(tmp_path, name, called):
    path = tmp_path / "rows.jsonl"
    ours = dict.fromkeys(FINGERPRINTS, "aa")
    with weighed(path) as output:
        output.add(0, WeighedRow(0, {**HOW, **ours}))
    with weighed(path) as output:
        output.check_models(how={**HOW, **ours})
        with pytest.raises(UserError) as error:
            output.check_models(how={**HOW, **ours, name: "bb"})
        assert str(error.value).startswith(
            f"{path}:1: made by a model with the {called} aa (`how.{name}`), this run's has bb: another model lies"
        )


@pytest.mark.parametrize("room", range(0, 400, 7))
def test_a_full_disk_leaves_whole_lines_and_the_run_goes_on(tmp_path, room):
    path = tmp_path / "rows.jsonl"
    order, done, said = [2, 0, 3, 1], [], ""
    output = opened(path)
    with room_for(room):
        try:
            for number in order:
                output.add(number, row(number))
                done.append(number)
        except UserError as error:
            said = str(error)
    assert not said or "cannot be written: File too large; its lines are whole" in said
    output.close()
    for file in tmp_path.iterdir():
        assert not file.stat().st_size or file.read_bytes().endswith(b"\n")
    with opened(path) as output:
        assert not set(output.missing) & set(done)  # what was taken in is not done again
        for number in output.missing:
            output.add(number, row(number))
    assert numbers(path) == [0, 1, 2, 3]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("moment", range(12))
def test_an_interrupt_at_any_moment_loses_no_row_that_was_taken_in(tmp_path, monkeypatch, moment):
    path, done = tmp_path / "rows.jsonl", []
    output, countdown = opened(path), iter(range(moment, -1, -1))
    append = type(output._files[0]).append

    def stopped(self: Any, content: Mapping[str, Any]) -> None:
        for before in (True, False):  # once before the line is written, once behind
            if next(countdown, 0) == 0:
                raise KeyboardInterrupt
            if before:
                append(self, content)

    monkeypatch.setattr(type(output._files[0]), "append", stopped)
    with contextlib.suppress(KeyboardInterrupt), output:
        for number in (3, 2, 0, 1):
            output.add(number, row(number))
            done.append(number)
    monkeypatch.undo()
    with opened(path) as output:
        assert not set(output.missing) & set(done)
        for number in output.missing:
            output.add(number, row(number))
    assert numbers(path) == [0, 1, 2, 3]


def test_two_runs_do_not_write_one_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    with opened(path), pytest.raises(UserError, match="another run is writing it"):
        opened(path)


def test_without_a_file_there_is_the_order(tmp_path):
    with opened(None) as output:
        assert output.add(1, row(1)) == []
        assert output.add(0, row(0)) == [(0, row(0)), (1, row(1))]
