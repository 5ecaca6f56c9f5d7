"""A run goes on from the index of its output as it would from the output: nothing lost, nothing done again, and
what was changed behind its back is seen."""

from __future__ import annotations

import contextlib
import json
import os
import random
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkprm_jax.errors import UserError
from thinkprm_jax.records import output as output_module
from thinkprm_jax.records import output_index
from thinkprm_jax.records.files import LineFile
from thinkprm_jax.records.output import LazyInputs, OrderedOutput
from thinkprm_jax.records.schema import Row


@dataclass(frozen=True)
class NoteRow(Row):
    FORMAT = "note"
    MADE_BY = ("how",)

    number: int
    note: str
    how: Mapping[str, Any]


HOW = {"exact": True, "weights": "aa"}


def row(number: int, how: Mapping[str, Any] = HOW) -> NoteRow:
    return NoteRow(number, f"{number}" * 20, how)


class Reads:
    """Inputs that count how often they are looked at."""

    def __init__(self, count: int, name: str = "these") -> None:
        self.seen = 0
        self.inputs = LazyInputs(count, self._make, lambda: {"digest": name})

    def _make(self, index: int) -> Mapping[str, Any]:
        self.seen += 1
        return {"number": index}


def opened(path: Path, reads: Reads, how: Mapping[str, Any] = HOW) -> OrderedOutput[NoteRow]:
    return OrderedOutput(
        path, NoteRow, reads.inputs, {"how": how}, tally=lambda row: {"rows": 1, "sum": row.number}
    )


def write(path: Path, count: int, of: int, how: Mapping[str, Any] = HOW) -> None:
    with opened(path, Reads(of), how) as output:
        for number in list(output.missing)[:count]:
            output.add(number, row(number, how))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(output_index, "BLOCK_BYTES", 500)  # four rows
    monkeypatch.setattr(output_module, "_WAITING_BYTES", 600)


def test_what_the_index_knows_is_not_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, 90, 100)
    reads = Reads(100)
    with opened(path, reads) as output:
        assert output.resumed == 90
        assert output.counts == {"rows": 90, "sum": sum(range(90))}
        assert list(output.missing) == list(range(90, 100))
        assert reads.seen < 8  # the rows behind the last block
        for number in output.missing:
            output.add(number, row(number))
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()] == list(range(100))
    with opened(path, reads := Reads(100)) as output:
        assert (output.resumed, len(output.missing)) == (100, 0)
    assert reads.seen < 8


def test_who_has_nothing_to_do_changes_nothing(tmp_path):
    write(tmp_path / "rows.jsonl", 40, 40)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write(tmp_path / "rows.jsonl", 40, 40)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_small_output_has_no_index(tmp_path):
    write(tmp_path / "rows.jsonl", 2, 2)
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_without_an_index_it_is_written_while_the_output_is_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, 50, 100)
    index = path.with_name("rows.jsonl.index")
    whole = index.read_text()
    index.unlink()
    with opened(path, reads := Reads(100)) as output:
        assert (output.resumed, reads.seen) == (50, 50)
    assert index.read_text() == whole
    index.write_text('{"format": "index/9"}\n' + whole)  # of a version to come
    with opened(path, reads := Reads(100)) as output:
        assert (output.resumed, reads.seen) == (50, 50)
    assert index.read_text() == whole


def test_other_inputs_settings_and_models_are_refused_as_without(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, 50, 100)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"rows.jsonl:1: made with exact True, this run has False"):
        opened(path, Reads(100), {"exact": False})
    with pytest.raises(UserError, match=r"rows.jsonl:41: made from another input"):
        OrderedOutput(
            path,
            NoteRow,
            LazyInputs(100, lambda i: {"number": i if i < 40 else -i}, lambda: {"digest": "others"}),
            {"how": HOW},
        )
    with pytest.raises(UserError, match="more rows than the input"):
        opened(path, Reads(30, "fewer"))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    with opened(path, reads := Reads(100)) as output:
        with pytest.raises(UserError, match=r"rows.jsonl:1: made by a model with the weights aa .* has bb"):
            output.check_models(how={"weights": "bb"})
        assert reads.seen < 8


def test_rows_that_were_changed_are_read(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, 90, 100)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"number": 41', b'"number": 14'))
    with pytest.raises(UserError, match=r"rows.jsonl:42: made from another input \(row 42\)"):
        opened(path, Reads(100))
    # What is not of the input is taken as it stands, as without an index.
    path.write_bytes(content.replace(b'"note": "4141', b'"note": "1414'))
    with opened(path, reads := Reads(100)) as output:
        assert output.counts["sum"] == sum(range(90))
        assert 40 < reads.seen < 60  # from there on
    with opened(path, reads := Reads(100)) as output:
        assert reads.seen < 8  # it is known now
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:30]) + lines[29] + b"".join(lines[30:]))
    with pytest.raises(UserError, match=r"rows.jsonl:31: made from another input"):
        opened(path, Reads(100))


def test_rows_that_were_taken_away_are_made_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    write(path, 90, 100)
    content = path.read_bytes()
    path.write_bytes(b"".join(content.splitlines(keepends=True)[:33]))
    write(path, 57, 100)
    assert path.read_bytes() == content


def test_the_waiting_rows_do_not_grow_without_end(tmp_path):
    path = tmp_path / "rows.jsonl"
    waiting = path.with_name("rows.jsonl.waiting")
    with opened(path, Reads(1000)) as output:
        for start in range(0, 1000, 2):
            output.add(start + 1, row(start + 1))
            assert waiting.stat().st_size < 1500
            output.add(start, row(start))
    assert not waiting.exists()
    write(other := tmp_path / "other.jsonl", 0, 1000)
    with opened(other, Reads(1000)) as output:
        for number in range(900):
            output.add(number if number < 300 else number + 1, row(number if number < 300 else number + 1))
    with opened(other, Reads(1000)) as output:
        assert list(output.missing) == [300, *range(901, 1000)]


class Killed(BaseException):
    """In the place of kill -9."""


def abandon(output: OrderedOutput[NoteRow]) -> None:
    """The process has ended: its locks go, and nothing more is written."""
    index = output._index._file if output._index is not None else None
    for line_file in filter(None, [*output._files, index]):
        line_file._file.close()


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), budgets=st.lists(st.integers(0, 4000), max_size=5))
def test_killed_after_any_byte_nothing_is_lost_or_done_again(tmp_path_factory, seed, budgets):
    path, random_, done = tmp_path_factory.mktemp("killed") / "rows.jsonl", random.Random(seed), set[int]()
    append = LineFile.append
    for budget in budgets:
        left = budget

        def limited(self: LineFile, line: bytes) -> None:
            nonlocal left
            append(self, line[: max(left, 0)])
            left -= len(line)
            if left < 0:
                raise Killed

        output = opened(path, Reads(40))
        order = list(output.missing)
        assert done.isdisjoint(order)
        random_.shuffle(order)
        with mock.patch.object(LineFile, "append", limited), contextlib.suppress(Killed):
            for number in order:
                output.add(number, row(number))
                done.add(number)
        abandon(output)
    write(path, 40, 40)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [row(n).to_dict() for n in range(40)]
    assert not path.with_name("rows.jsonl.waiting").exists()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), cuts=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_files_cut_at_any_byte_are_gone_on_from(tmp_path_factory, seed, cuts):
    """More than kill -9 does: each of the three files may lose its end, as when the machine stops."""
    path, random_ = tmp_path_factory.mktemp("cut") / "rows.jsonl", random.Random(seed)
    output, order = opened(path, Reads(40)), list(range(40))
    random_.shuffle(order)
    for number in order[: random_.randrange(41)]:
        output.add(number, row(number))
    abandon(output)
    for suffix, share in zip(("", ".waiting", ".index"), cuts, strict=True):
        file = path.with_name(path.name + suffix)
        if file.exists():
            os.truncate(file, int(file.stat().st_size * share))
    write(path, 40, 40)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [row(n).to_dict() for n in range(40)]


def test_memory_is_flat_while_an_old_output_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(output_index, "BLOCK_BYTES", 2**16)
    path = tmp_path / "rows.jsonl"
    write(path, 20_000, 20_000)
    path.with_name("rows.jsonl.index").unlink()
    tracemalloc.start()
    try:
        with opened(path, Reads(20_000)) as output:
            assert output.resumed == 20_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 500_000  # of 3.6 MB
