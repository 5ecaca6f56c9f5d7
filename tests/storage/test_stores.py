"""Against servers of S3 and GCS on loopback, with faults on the way: whole or absent, one line for a failure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from support.object_stores import Fault, Store, store
from thinkprm_jax.errors import UserError
from thinkprm_jax.storage import (
    ObjectPath,
    PartLog,
    local_copy,
    location,
    open_read,
    open_whole,
    stores,
    write_whole,
)
from thinkprm_jax.storage.copies import upload_folder


@pytest.fixture(scope="module", params=["gs", "s3"])
def server(request: pytest.FixtureRequest) -> Iterator[Store]:
    with store(request.param) as found:
        yield found


@pytest.fixture
def bucket(server: Store, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ObjectPath:
    """A folder of the test's own."""
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(stores, "PIECE", 5 * 2**20)
    server.faults.clear()
    server.requests.clear()
    place = location(f"{server.url}/{request.node.originalname}")
    assert isinstance(place, ObjectPath)
    return place


def test_what_is_written_is_read(bucket: ObjectPath) -> None:
    place = bucket / "a b" / "rows.jsonl"
    assert not place.exists()
    write_whole(place, "one\ntwo\n")
    assert (place.size(), place.is_file(), place.is_dir()) == (8, True, False)
    assert bucket.is_dir()
    assert not bucket.is_file()
    with open_read(place) as file:
        assert list(file) == [b"one\n", b"two\n"]
        assert file.seek(4) == 4
        assert file.read() == b"two\n"
    write_whole(place, "")
    assert place.read_bytes() == b""
    assert list(bucket.iterdir()) == [bucket / "a b"]
    assert bucket.files() == [place] == list((bucket / "a b").glob("*.jsonl"))
    place.unlink()
    place.unlink(missing_ok=True)
    assert not bucket.exists()


def test_large_ones_go_in_pieces(bucket: ObjectPath, server: Store) -> None:
    content = os.urandom(11 * 2**20 + 5)
    with open_whole(bucket / "large") as file:
        file.write(content)
    assert sum(method in ("PUT", "POST") for method, _ in server.requests) > 2
    with open_read(bucket / "large") as file:
        file.seek(-7, os.SEEK_END)
        assert file.read() == content[-7:]
        file.seek(0)
        assert file.read() == content


# The client itself tries once more, unseen, where a connection that it had kept ends.
@pytest.mark.parametrize("what", [{"status": 503}, {"cut": "request", "times": 2}], ids=str)
def test_writes_are_tried_again(
    bucket: ObjectPath, server: Store, what: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    method = "POST" if bucket.scheme == "gs" else "PUT"
    server.faults.append(Fault(method=method, **what))
    write_whole(bucket / "rows.jsonl", b"x" * 100_000)
    assert server.faults[0].times == 0
    assert f"{bucket / 'rows.jsonl'}: " in capfd.readouterr().err
    assert (bucket / "rows.jsonl").size() == 100_000


@pytest.mark.parametrize("what", [{"status": 503}, {"cut": "answer"}], ids=str)
def test_reads_are_tried_again(
    bucket: ObjectPath, server: Store, what: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    write_whole(bucket / "rows.jsonl", b"x" * 100_000)
    server.faults.append(Fault(method="GET", **what))
    assert (bucket / "rows.jsonl").read_bytes() == b"x" * 100_000
    assert server.faults[0].times == 0
    assert f"{bucket / 'rows.jsonl'}: " in capfd.readouterr().err


def test_silence_is_no_reason_to_wait_for_ever(
    bucket: ObjectPath, server: Store, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    write_whole(bucket / "rows.jsonl", "x")
    monkeypatch.setattr(stores, "SILENCE_SECONDS", 1)
    server.faults.append(Fault(method="GET", seconds=3))
    assert (bucket / "rows.jsonl").read_text() == "x"
    assert f"{bucket / 'rows.jsonl'}: " in capfd.readouterr().err


def test_a_part_whose_answer_is_lost_is_ours(bucket: ObjectPath, server: Store) -> None:
    log = PartLog(bucket / "rows.jsonl", seconds=0)
    server.faults.append(Fault(method="PUT", path="00000000.jsonl", cut="before the answer", times=1))
    server.faults.append(Fault(method="POST", path="upload", cut="before the answer", times=1))
    log.append(b"1\n")
    log.append(b"2\n")
    assert sum(fault.times for fault in server.faults) == 1  # gs writes by POST, s3 by PUT
    assert list(log.lines()) == [b"1\n", b"2\n"]


@pytest.mark.parametrize("size", [10, 11 * 2**20])
def test_whole_or_absent(bucket: ObjectPath, server: Store, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store fails for good in the middle of a write; the older content stands."""
    place = bucket / str(size)
    write_whole(place, "old")

    def broken() -> None:
        with open_whole(place) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert place.read_bytes() == b"old"
    server.faults.append(Fault(method="PUT", status=403, times=1000))
    server.faults.append(
        Fault(method="POST", path="upload" if size == 10 else "upload_id", status=403, times=1000)
    )
    with pytest.raises(UserError, match=rf"^{place}: permission denied") as caught, open_whole(place) as file:
        file.truncate(size)
    assert "\n" not in str(caught.value)
    server.faults.clear()
    assert place.read_bytes() == b"old"


def test_failures_are_one_line(bucket: ObjectPath, server: Store) -> None:
    absent = location(f"{bucket.scheme}://no-such-bucket/rows.jsonl")
    with pytest.raises(UserError, match=r"^.*://no-such-bucket/rows.jsonl: .*there is no bucket no-such-bucket$"):
        write_whole(absent, "x")
    with pytest.raises(UserError, match=rf"^{bucket}/rows.jsonl: no such file$"):
        open_read(bucket / "rows.jsonl")
    server.faults.append(Fault(status=401, times=1000))
    with pytest.raises(UserError, match=rf"^{bucket}: no credentials that the store takes: "):
        bucket.exists()


def test_a_log_of_parts(bucket: ObjectPath) -> None:
    place = bucket / "rows.jsonl"
    with PartLog(place, seconds=0) as log:
        log.append(b"1\n")
        log.append(b"2\n")
        late = PartLog(place, seconds=0)
        log.append(b"3\n")
        with pytest.raises(UserError, match=r"00000002.jsonl: another run is writing it$"):
            late.append(b"4\n")
    assert not place.exists()
    log = PartLog(place, seconds=1000)
    assert list(log.lines()) == [b"1\n", b"2\n", b"3\n"]
    log.append(b"4\n")
    assert len(list(log.lines())) == 3  # it waits
    log.seal()
    assert place.read_bytes() == b"1\n2\n3\n4\n"
    assert bucket.files() == [place]
    with PartLog(place) as again:
        again.append(b"5\n")
    assert list(again.lines())[-2:] == [b"4\n", b"5\n"]
    assert not place.exists()


def test_folders_come_and_go(
    bucket: ObjectPath, server: Store, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = tmp_path_factory.mktemp("model"), []
    monkeypatch.setenv("THINKPRM_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
    (folder / "weights").write_bytes(os.urandom(20 * 2**20))
    (folder / "config.json").write_text("{}")
    upload_folder(folder, bucket, last=("config.json",))
    sent = [path for method, path in server.requests if method in ("PUT", "POST")]
    assert sent
    server.faults.append(Fault(method="GET", cut="answer"))
    copy = local_copy(bucket, ("weights", "*.json"), said.append)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }
    assert len(said) == 1
    assert local_copy(bucket, ("weights", "*.json"), said.append) == copy
    write_whole(bucket / "config.json", "[]")
    assert (local_copy(bucket, say=said.append) / "config.json").read_text() == "[]"
    assert (copy / "config.json").read_text() == "{}"
    with pytest.raises(UserError, match="holds none of"):
        local_copy(bucket, ("nothing",), said.append)
