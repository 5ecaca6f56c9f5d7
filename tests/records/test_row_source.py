"""Rows by number, from every kind of file: the same rows, in any order, and messages that name file and row."""

from __future__ import annotations

import datetime
import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.records.datasets import iterate_source
from thinkprm_jax.records.inputs import SolutionFile
from thinkprm_jax.records.row_source import Part, RowSource, parse_shard

ROWS = [
    {"id": number, "problem": f"{number} + 1?", "completions": [f"It is {number + 1}.", "Two.\n\nThree."]}
    for number in range(3000)
]


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def zstd(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


def write(path: Path, rows: list[Any]) -> Path:
    """In the form that the name says; packed files in two pieces, as shells join them."""
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=700)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        pack = {".gz": gzip.compress, ".zst": zstd}.get(path.suffix, bytes)
        middle = len(rows) // 2
        path.write_bytes(pack(lines(rows[:middle])) + pack(b"\n" + lines(rows[middle:])))
    return path


FORMS = ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.json", "rows.parquet"]


@pytest.mark.parametrize("name", FORMS)
def test_the_same_rows_in_any_order_from_every_kind_of_file(tmp_path, name):
    path = write(tmp_path / name, ROWS)
    with RowSource(str(path)) as rows:
        assert len(rows) == 3000
        for index in (2999, 0, 1, 1400, 1023, 1024, 699, 700, 2, 2999):
            assert rows[index][1] == ROWS[index]
        assert [row for _, row in rows] == ROWS
        known = json.loads(json.dumps(rows.known))
    with RowSource(str(path), known=known) as rows:  # not counted again
        assert rows[2048][1] == ROWS[2048]
    assert [row for _, row in iterate_source(str(path))] == ROWS
    with SolutionFile(path) as solutions:
        assert solutions.solutions == 6000
        assert solutions[1500].solutions == (("It is 1501.",), ("Two.", "Three."))


def test_a_pattern_and_a_folder_are_their_files_in_order(tmp_path):
    for number, name in enumerate(["b.jsonl.gz", "a.parquet", "c.jsonl"]):
        write(tmp_path / name, ROWS[number * 10 : number * 10 + 10])
    write(tmp_path / "_hidden.jsonl", ROWS[:1])
    (tmp_path / "notes.txt").write_text("no rows")
    wanted = ROWS[10:20] + ROWS[0:10] + ROWS[20:30]
    for source in (str(tmp_path), f"{tmp_path}/[abc].*"):
        with RowSource(source) as rows:
            assert [row for _, row in rows] == wanted
            assert rows[25][0] == f"{tmp_path}/c.jsonl:7"  # five lines, a blank one, one more
    with pytest.raises(UserError, match="no such files"):
        RowSource(f"{tmp_path}/*.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: holds no files of rows"):
        RowSource(str(tmp_path / "empty"))


def test_a_pattern_of_objects():
    from thinkprm_jax.storage import location, write_whole

    for name in ("x/1.jsonl", "x/deep/2.jsonl", "x/3.jsonl", "y/4.jsonl"):
        write_whole(location(f"memory://patterns/{name}"), lines([{"name": name}]))
    for pattern, wanted in (
        ("x/*.jsonl", ["x/1.jsonl", "x/3.jsonl"]),
        ("x/**/*.jsonl", ["x/1.jsonl", "x/3.jsonl", "x/deep/2.jsonl"]),
        ("[xy]/[!13].jsonl", ["y/4.jsonl"]),
        ("x/", ["x/1.jsonl", "x/3.jsonl"]),
    ):
        with RowSource(f"memory://patterns/{pattern}") as rows:
            assert [row["name"] for _, row in rows] == wanted, pattern


@pytest.mark.parametrize("form", ["gz", "zst"])
def test_a_packed_file_that_was_cut_off_is_named(tmp_path, form):
    path = write(tmp_path / f"rows.jsonl.{form}", ROWS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=rf"rows.jsonl.{form}: cannot be read \("):
        RowSource(str(path))
    path.write_bytes(b"no such thing")
    with pytest.raises(UserError, match=rf"rows.jsonl.{form}: cannot be read \("):
        RowSource(str(path))


@pytest.mark.parametrize("name", FORMS)
def test_a_row_that_is_none_is_named(tmp_path, name):
    path = write(tmp_path / name, [*ROWS[:5], {"id": 5, "problem": "x", "completions": None}])
    place = "rows.parquet: row 6" if name == "rows.parquet" else "item 6" if name == "rows.json" else f"{name}:7"
    with pytest.raises(
        UserError, match=rf"{place}: the field `steps` \(or `solution`, or `completions`\) is missing"
    ):
        SolutionFile(path)


def test_what_json_does_not_have(tmp_path):
    row = {"problem": "x", "steps": ["y"], "when": datetime.date(2026, 1, 2), "none": float("nan")}
    path = write(tmp_path / "rows.parquet", [row])
    with SolutionFile(path) as rows:
        assert rows[0].row == {"problem": "x", "steps": ["y"], "when": "2026-01-02", "none": None}
    write(path, [{**row, "picture": {"bytes": b"\0"}}])
    with pytest.raises(UserError, match=r"row 1: the field `picture.bytes` holds bytes"):
        SolutionFile(path)
    write(path, [{**row, "big": [float("inf")]}])
    with pytest.raises(UserError, match=r"row 1: the field `big\[0\]` is inf"):
        SolutionFile(path)


def test_parts_are_all_rows_once(tmp_path):
    path = write(tmp_path / "rows.jsonl", ROWS[:11])
    seen = []
    for shard in range(4):
        with SolutionFile(path, part=Part(1, 11, (shard, 4))) as rows:
            seen.append([rows[index].row["id"] for index in range(len(rows))])
    assert seen == [[1, 2, 3], [4, 5, 6], [7, 8], [9, 10]]
    with SolutionFile(path, part=Part(9)) as rows:
        assert rows.solutions == 4
    for part, said in ((Part(11), "has 11 rows"), (Part(shard=(0, 12)), "")):
        if said:
            with pytest.raises(UserError, match=said):
                SolutionFile(path, part=part)
    for wrong in ("8", "1/x", "-1/2", "2/2", "0/0"):
        with pytest.raises(UserError, match="shard "):
            Part(shard=parse_shard(wrong))
    with pytest.raises(UserError, match="end is 3"):
        Part(3, 3)


def test_a_bad_row_outside_of_the_part_does_not_count(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(ROWS[:5]) + b"{}\n")
    with SolutionFile(path, part=Part(0, 5)) as rows:
        assert len(rows) == 5
    with pytest.raises(UserError, match=r"rows.jsonl:6"):
        SolutionFile(path)


def test_memory_does_not_grow_with_a_row_group(tmp_path):
    rows = [{"problem": "x", "steps": ["y"], "note": f"{number}" * 300} for number in range(20_000)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet", compression="none")
    del rows
    before = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    try:
        most = 0
        with SolutionFile(tmp_path / "rows.parquet") as found:
            for index in range(0, 20_000, 500):
                assert found[index].row["note"].startswith(str(index))
                most = max(most, pyarrow.total_allocated_bytes() - before)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000  # of 28 MB
    assert most < 12_000_000
