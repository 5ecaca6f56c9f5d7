"""What a text names, files that are whole, and files that grow; in the memory of the process."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.paths import check_input, check_local, check_output, check_output_folder
from thinkprm_jax.records.files import LineFile, atomic_write, has_lines, read_line_file, remove_lines, write_lines
from thinkprm_jax.records.jsonl import iterate_rows, read_growing
from thinkprm_jax.storage import (
    Location,
    ObjectPath,
    PartLog,
    is_local,
    location,
    open_read,
    open_whole,
    same_file,
    write_whole,
)
from thinkprm_jax.storage.parts import list_parts


@pytest.fixture(autouse=True)
def _empty() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(params=["memory://bucket/run", "here"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    return tmp_path if request.param == "here" else location(request.param)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("runs/1", "runs/1"),
        ("/runs/1", "/runs/1"),
        (Path("runs/1"), "runs/1"),
        ("C:/runs", "C:/runs"),
        ("owner/name", "owner/name"),
        ("file:///runs/a%20b", "/runs/a b"),
        ("gs://bucket/run/", "gs://bucket/run"),
        (Path("gs://bucket/run"), "gs://bucket/run"),
        ("gcs://bucket/run", "gs://bucket/run"),
        ("S3://Bucket/a b/#?", "s3://Bucket/a b/#?"),
        ("memory://x", "memory://x"),
    ],
)
def test_names(text: str | Path, named: str) -> None:
    found = location(text)
    assert str(found) == named
    assert location(found) == found
    assert is_local(text) == isinstance(found, Path)
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize("text", ["ftp://host/x", "https://host/x", "gs://", "s3:///"])
def test_what_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"^{text[:6]}"):
        location(text)


def test_parts_of_a_name() -> None:
    place = ObjectPath("gs://bucket/runs/a.b.jsonl")
    assert (place.name, place.stem, place.suffix) == ("a.b.jsonl", "a.b", ".jsonl")
    assert str(place.parent.parent) == "gs://bucket"
    assert place.with_suffix(".html") == ObjectPath("gs://bucket/runs/a.b.html")
    assert place.with_name("x") == place.parent / "x"
    assert sorted([place, place.parent]) == [place.parent, place]


@pytest.mark.parametrize("use", [os.fspath, open, Path, os.makedirs])
def test_nothing_takes_an_address_for_a_path_of_this_machine(use) -> None:
    with pytest.raises(UserError, match=r"^gs://bucket/x: is in an object store"):
        use(ObjectPath("gs://bucket/x"))


def test_a_file_is_whole_or_as_it_was(folder: Location) -> None:
    place = folder / "file"
    write_whole(place, "old")

    def stopped() -> None:
        with open_whole(place) as file:
            file.write(b"new, hal")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert place.read_text() == "old"
    with open_whole(place) as file:
        file.write(b"new")
    assert place.read_bytes() == b"new"
    assert [found.name for found in folder.iterdir()] == ["file"]
    assert same_file(place, str(place))
    assert not same_file(place, folder / "other")


def test_reading_what_is_written_again_is_no_mixture(folder: Location) -> None:
    place = folder / "file"
    write_whole(place, b"x" * 2**24)
    with open_read(place) as file:
        assert file.read(5) == b"xxxxx"
        write_whole(place, b"y" * 2**24)
        if isinstance(place, Path):
            assert file.read() == b"x" * (2**24 - 5)  # the file that was opened
            return
        with pytest.raises(UserError, match=r"was written again while it was read$"):
            file.read()


def test_a_file_that_grows(folder: Location) -> None:
    place = folder / "rows.jsonl"
    assert not has_lines(place)
    file = LineFile(place)
    assert list(file.lines()) == []
    file.append(b'{"a": 1}\n')
    file.append(b'{"a": 2}\n')
    file.close()
    assert has_lines(place)
    assert [row for _, row in iterate_rows(place)] == [{"a": 1}, {"a": 2}]
    assert read_growing(place)[1] is False
    file = LineFile(place)
    assert list(file.lines()) == [(b'{"a": 1}\n', True), (b'{"a": 2}\n', True)]
    file.cut(9)
    file.append(b'{"a": 3}\n')
    file.seal()
    file.close()
    assert place.read_text() == '{"a": 1}\n{"a": 3}\n'
    write_lines(place, [b'{"a": 4}\n'])
    file = LineFile(place)
    file.append(b'{"a": 5}\n')
    file.close()
    assert list(read_line_file(place)) == [b'{"a": 4}\n', b'{"a": 5}\n']
    remove_lines(place)
    assert not has_lines(place)
    assert list(folder.iterdir()) == []


def test_a_kill_while_parts_become_a_file_leaves_the_file() -> None:
    place = ObjectPath("memory://bucket/rows.jsonl")
    with PartLog(place, seconds=0) as log:
        log.append(b"1\n")
        log.append(b"2\n")
    write_whole(place, "1\n2\n")  # and the parts are still there
    assert list(read_line_file(place)) == [b"1\n", b"2\n"]
    with PartLog(place, seconds=0) as log:
        log.append(b"3\n")
    assert not place.exists()
    assert b"".join(part.read_bytes() for part in list_parts(place)) == b"1\n2\n3\n"


def test_parts_by_size_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("thinkprm_jax.storage.parts.time.monotonic", lambda: now[0])
    log = PartLog(ObjectPath("memory://bucket/rows.jsonl"), size=6, seconds=10)
    for wait, line, parts in [(0, b"1\n", 0), (9, b"2\n", 0), (1, b"3\n", 1), (9, b"4\n", 1), (0, b"55555\n", 2)]:
        now[0] += wait
        log.append(line)
        assert len(list_parts(log.place)) == parts


def test_checks_before_anything_is_computed(folder: Location) -> None:
    write_whole(folder / "file", "x")
    check_input(folder / "file")
    check_output(folder / "file")
    check_output_folder(folder)
    with pytest.raises(UserError, match=r"is a folder, not a file$"):
        check_input(folder)
    with pytest.raises(UserError, match="is a folder, and the output must be a file"):
        check_output(folder)
    with pytest.raises(UserError, match="is a file, and the output must be a folder"):
        check_output_folder(folder / "file")
    with pytest.raises(UserError, match="is a folder"):
        atomic_write(folder, "x")
    if isinstance(folder, ObjectPath):
        with pytest.raises(UserError, match="is an address, not a path of this machine"):
            check_local(folder)
    assert [found.name for found in folder.iterdir()] == ["file"]
