"""A folder that several processes write: every row once, whoever dies, and whole parts or none."""

from __future__ import annotations

import errno
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinkprm_jax.distributed.rank import Rank
from thinkprm_jax.errors import UserError
from thinkprm_jax.records import claims, joined_output, sharded_output
from thinkprm_jax.records.claims import Claims
from thinkprm_jax.records.files import LineFile, read_line_file
from thinkprm_jax.records.job import JobPlan, Sharing
from thinkprm_jax.records.joined_output import JoinedOutput, is_shared, job_folder
from thinkprm_jax.records.jsonl import write_line
from thinkprm_jax.records.output import LazyInputs
from thinkprm_jax.records.row_source import RowSource
from thinkprm_jax.records.schema import Row
from thinkprm_jax.records.sharded_output import ShardedOutput
from thinkprm_jax.storage import Location, location, open_read


@dataclass(frozen=True)
class NumberRow(Row):
    FORMAT = "number"
    MADE_BY = ("how",)

    number: int
    how: Mapping[str, Any]


HOW = {"exact": True}
COLUMNS = {"number": "int", "how": {"exact": "bool"}, "thinkprm_format": "text"}


def row(number: int) -> NumberRow:
    return NumberRow(number, HOW)


def opened(
    folder: Location,
    rows: int = 20,
    parts: int = 4,
    process: int = 0,
    how: Mapping[str, Any] = HOW,
    form: str = "jsonl",
    check: Callable[[range], object] = lambda rows: None,
    lease: float = 60.0,
) -> ShardedOutput[NumberRow]:
    return ShardedOutput(folder, NumberRow, *job(rows, parts, process, how, form, check, lease))


def joined(file: Location, rows: int = 20, process: int = 0, **plan: Any) -> JoinedOutput[NumberRow]:
    return JoinedOutput(file, NumberRow, *job(rows, 4, process, **plan))


def job(
    rows: int,
    parts: int,
    process: int,
    how: Mapping[str, Any] = HOW,
    form: str = "jsonl",
    check: Callable[[range], object] = lambda rows: None,
    lease: float = 60.0,
) -> tuple[LazyInputs, JobPlan, Callable[[NumberRow], Mapping[str, int]]]:
    given = LazyInputs(rows, lambda index: {"number": index}, lambda: {"digest": f"{rows} numbers"})
    more = {"check": check, "process": (process, 2), "lease": lease, "beside": (".more",)}
    plan = JobPlan({"how": how}, parts, form, lambda: COLUMNS, **more)
    return given, plan, lambda row: {"rows": 1}


def fill(output: ShardedOutput[NumberRow]) -> list[int]:
    """Makes what is missing; returns which."""
    made = []
    for index in output.missing:
        output.add(index, row(index))
        made.append(index)
    return made


def numbers(folder: Location) -> list[int]:
    with RowSource(str(folder)) as rows:
        return [value["number"] for _, value in rows]


def die(output: ShardedOutput[NumberRow]) -> None:
    """As kill -9: nothing is given back, locks go."""
    output._claims._over.set()
    for shard in output._mine.values():
        for file in shard.output._files:
            file._file.close()


@pytest.fixture
def others_are_dead(monkeypatch):
    """As if the processes that made the claims had ended."""
    monkeypatch.setattr(claims, "_born", lambda pid: f"now {random.random()}")


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "jsonl.zst", "parquet"])
@pytest.mark.parametrize("store", ["", "memory://sharded/"])
def test_parts_are_read_as_one(tmp_path, form, store):
    folder = location(f"{store or tmp_path}/{form}")
    with opened(folder, form=form) as output:
        assert output.wait()
        assert fill(output) == list(range(20))
        assert not output.wait()
        assert output.counts == {"rows": 20}
    names = [place.name for place in folder.iterdir() if not place.name.startswith(".")]
    assert sorted(names) == [f"part-0000{number}-of-00004.{form}" for number in range(4)]
    assert numbers(folder) == list(range(20))
    assert not list((folder / ".job" / "work").iterdir())
    with opened(folder, form=form) as output:
        assert not output.wait()
        assert fill(output) == []


def test_two_processes_share_the_parts(tmp_path):
    with opened(tmp_path / "out") as one, opened(tmp_path / "out", process=1) as two:
        first, second = iter(one.missing), iter(two.missing)
        made: list[int] = []
        for output, found in [(one, first), (two, second)] * 40:
            index = next(found, None)
            if index is not None:
                output.add(index, row(index))
                made.append(index)
        assert sorted(made) == list(range(20))
        assert made[:4] == [0, 10, 1, 11]
        assert one.state().rows == two.state().rows == 20
    assert numbers(tmp_path / "out") == list(range(20))


def test_what_another_process_holds_is_left_to_it(tmp_path):
    with opened(tmp_path / "out") as one:
        index = next(iter(one.missing))
        one.add(index, row(index))
        with opened(tmp_path / "out") as two:
            assert fill(two) == list(range(5, 20))
            assert not two.wait(others=False)
            state = two.state()
            assert (state.parts, list(state.held)) == (3, [0])
    # It has given the part back.
    with opened(tmp_path / "out") as two:
        assert two.wait(others=False)
        assert fill(two) == [1, 2, 3, 4]
    assert numbers(tmp_path / "out") == list(range(20))


def test_the_part_of_a_dead_process_goes_on_where_it_was(tmp_path, others_are_dead):
    one = opened(tmp_path / "out")
    for index in (0, 3, 1):
        if index == 0:
            assert next(iter(one.missing)) == 0
        one.add(index, row(index))
    die(one)
    with opened(tmp_path / "out") as two:
        assert fill(two)[:2] == [2, 4]
    assert numbers(tmp_path / "out") == list(range(20))


def test_nothing_is_left_of_who_died_behind_the_last_row_of_its_part(tmp_path, others_are_dead):
    one, work = opened(tmp_path / "out"), tmp_path / "out" / ".job" / "work"
    for index in one.missing:
        one.add(index, row(index))
        if index == 4:
            break
    (work / "00000.0001.jsonl.waiting").write_text("")  # it dies between the part's name and this
    die(one)
    with opened(tmp_path / "out") as two:
        assert fill(two) == list(range(5, 20))
    assert not list(work.iterdir())
    assert numbers(tmp_path / "out") == list(range(20))


def test_a_process_that_was_taken_for_dead_harms_nobody(tmp_path):
    now = [0.0]
    one = opened(tmp_path / "out", lease=60)
    found = iter(one.missing)
    one.add(next(found), row(0))
    two = opened(tmp_path / "out", lease=60)
    two._claims._clock = lambda: now[0]
    assert not {0, 1, 2, 3, 4} & set(fill(two))
    now[0] += 61  # no sign of life: the thread of `one` beats every ten seconds
    with two:
        assert fill(two) == [1, 2, 3, 4]
    one._claims.beat()
    assert one.add(next(found), row(1)) == []  # it has noticed
    with one:
        assert fill(one) == []
    assert numbers(tmp_path / "out") == list(range(20))


def test_of_several_who_find_a_dead_claim_one_gets_it(tmp_path, others_are_dead):
    first = Claims(tmp_path)
    assert first.take(0) is not None
    assert first.take(0) is None
    takers = [Claims(tmp_path) for _ in range(5)]
    looked = [taker.holders() for taker in takers]
    assert all(taker.is_free(0, *found[0]) for taker, found in zip(takers, looked, strict=True))
    taken = [taker.take(0, found[0][0]) for taker, found in zip(takers, looked, strict=True)]
    assert [claim is not None for claim in taken] == [True, False, False, False, False]
    for one in (first, *takers):
        one.close()


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(claims.os, "link", refuse)
    with opened(tmp_path / "out") as one, opened(tmp_path / "out", process=1) as two:
        next(iter(one.missing))
        assert fill(two) == [*range(10, 20), *range(5, 10)]
    with opened(tmp_path / "out") as output:
        assert fill(output) == [0, 1, 2, 3, 4]


def test_the_clock_of_a_dead_machine_does_not_matter(tmp_path):
    now = [1000.0]
    (tmp_path / "00000.0001").write_text(json.dumps({"host": "elsewhere", "machine": "other", "beat": 1}))
    with Claims(tmp_path, seconds=60, clock=lambda: now[0]) as looker:
        for seconds, beat, is_free in (
            (0, 1, False),
            (59, 1, False),
            (58, 2, False),
            (59, 2, False),
            (2, 2, True),
        ):
            now[0] += seconds
            (tmp_path / "00000.0001").write_text(
                json.dumps({"host": "elsewhere", "machine": "other", "beat": beat})
            )
            assert looker.is_free(0, *looker.holders()[0]) is is_free


def test_a_bad_row_keeps_its_part_and_no_other(tmp_path):
    def check(rows: range) -> None:
        if 7 in rows:
            raise UserError("in.jsonl:8: the field `steps` is missing")

    with opened(tmp_path / "out", check=check) as output:
        assert fill(output) == [*range(5), *range(10, 20)]
        assert not output.wait()
        assert {part: str(error) for part, error in output.bad.items()} == {
            1: "in.jsonl:8: the field `steps` is missing"
        }
    with opened(tmp_path / "out") as output:  # mended
        assert fill(output) == [5, 6, 7, 8, 9]


def test_other_jobs_are_refused(tmp_path):
    with opened(tmp_path / "out") as output:
        fill(output)
    for changed, said in (
        ({"rows": 21}, "made from another input"),
        ({"how": {"exact": False}}, "made with exact True, this run has False"),
        ({"form": "parquet"}, "its parts are jsonl, this run's are to be parquet"),
    ):
        with pytest.raises(UserError, match=said):
            opened(tmp_path / "out", **changed)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="other: holds other files"):
        opened(tmp_path / "other")
    with opened(tmp_path / "models") as output:
        output.check_models(how={"weights": "aa"})
        fill(output)
    with opened(tmp_path / "models") as output, pytest.raises(UserError, match=r"weights aa .* has bb"):
        output.check_models(how={"weights": "bb"})


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_processes_that_die_and_start_again_lose_nothing_and_do_nothing_twice(tmp_path_factory, seed):
    """Three processes take turns in a random order, finish rows in a random order, die and start again."""
    folder, choose = tmp_path_factory.mktemp("job") / "out", random.Random(seed)
    alive: dict[int, tuple[ShardedOutput[NumberRow], Any, list[int]]] = {}
    made: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        dead: set[str] = set()
        patch.setattr(claims, "_born", lambda pid: "gone" if pid in dead else "born")
        for _ in range(120):
            process = choose.randrange(3)
            if process not in alive:
                output = opened(folder, rows=24, parts=5, process=process % 2)
                output._claims._me["pid"] = f"{process} {len(made)} {choose.random()}"
                alive[process] = output, output.missing, []
                continue
            output, found, running = alive[process]
            what = choose.random()
            if what < 0.08:
                die(output)
                dead.add(output._claims._me["pid"])
                del alive[process]
            elif what < 0.5 and len(running) < 6:
                index = next(found, None)
                if index is None:
                    alive[process] = output, output.missing, running
                else:
                    running.append(index)
            elif running:
                index = running.pop(choose.randrange(len(running)))
                output.add(index, row(index))
                made.append(index)
        for output, _, running in alive.values():
            for index in running:
                output.add(index, row(index))
                made.append(index)
            output.close()
        with opened(folder, rows=24, parts=5) as output:
            made += fill(output)
    assert numbers(folder) == list(range(24))
    assert sorted(made) == list(range(24))


def test_an_empty_folder_and_a_job_that_was_not_made_are_begun(tmp_path: Path) -> None:
    (tmp_path / "out" / ".job").mkdir(parents=True)
    with opened(tmp_path / "out") as output:
        assert fill(output) == list(range(20))


def test_what_stands_beside_the_rows_is_taken_over_too(tmp_path, others_are_dead):
    one = opened(tmp_path / "out")
    index = one.next_part()[0]
    file = LineFile(one.beside(index, ".more"))
    file.append(b"half a row\n")
    file.close()
    die(one)
    with opened(tmp_path / "out") as two:
        part = two.next_part()
        assert list(read_line_file(two.beside(part[0], ".more"))) == [b"half a row\n"]
        for index in part:
            two.add(index, row(index))
        assert not list((tmp_path / "out" / ".job" / "work").iterdir())


def test_a_process_that_dies_in_the_middle_of_a_takeover_loses_no_rows(tmp_path, others_are_dead, monkeypatch):
    one = opened(tmp_path / "out")
    assert one.next_part() == [0, 1, 2, 3, 4]
    for index in (0, 3):  # the second one waits for its turn
        one.add(index, row(index))
    die(one)
    written = sharded_output.write_lines
    with monkeypatch.context() as patch:

        def write(place: Location, lines: Any) -> None:
            if place.name.endswith(".waiting"):
                raise KeyboardInterrupt
            written(place, lines)

        patch.setattr(sharded_output, "write_lines", write)
        patch.setattr(Claims, "release", lambda self, claim: None)
        two = opened(tmp_path / "out")
        with pytest.raises(KeyboardInterrupt):
            two.next_part()
        die(two)
    with opened(tmp_path / "out") as three:
        assert three.next_part() == [1, 2, 4]


def test_rows_of_a_part_that_a_store_does_not_take_stay(monkeypatch):
    folder = location("memory://refused/out")
    with monkeypatch.context() as patch:

        def refuse(lines: Any, part: Location, *_: Any) -> None:
            raise UserError(f"{part}: permission denied")

        patch.setattr(sharded_output, "write_part", refuse)
        with opened(folder, parts=1) as output, pytest.raises(UserError, match="permission denied"):
            fill(output)
    with opened(folder, parts=1) as output:
        assert output.wait()
        assert fill(output) == []
    assert numbers(folder) == list(range(20))


@pytest.mark.parametrize("store", ["", "memory://joined/"])
def test_parts_become_a_file_when_all_are_there(tmp_path, store):
    file = location(f"{store or tmp_path}/rows.jsonl")
    one, two = joined(file), joined(file, process=1)
    with one, two:
        assert [one.next_part(), two.next_part()] == [[0, 1, 2, 3, 4], [10, 11, 12, 13, 14]]
        for index in range(5):
            one.add(index, row(index))
        assert one.ready == 1
        assert [row.number for row in one.rows_of(0)] == [0, 1, 2, 3, 4]
        assert not one.join(others=False)
        assert fill(one) == [5, 6, 7, 8, 9, 15, 16, 17, 18, 19]
        assert not one.join(others=False)
        assert "1 of 4 parts are missing: others work on part 2" in one.left
        for index in range(10, 15):
            two.add(index, row(index))
        kept = one.rows_of(3)
        assert next(kept).number == 15
        assert two.join()
        assert [row.number for row in kept] == [16, 17, 18, 19]  # who reads a part may be overtaken
        assert one.join(others=False)
        assert [row.number for row in one.rows()] == list(range(20))
        assert [row.number for row in one.rows_of(1)] == [5, 6, 7, 8, 9]
    with file.open("rb") if isinstance(file, Path) else open_read(file) as stream:
        assert stream.read() == b"".join(write_line(row(index).to_dict()) for index in range(20))
    assert [place.name for place in job_folder(file).iterdir()] == [".job"]
    with joined(file) as late:
        assert not late.wait()
        assert late.join()


def test_who_dies_while_the_file_is_put_together_is_followed(tmp_path, others_are_dead, monkeypatch):
    file = tmp_path / "rows.jsonl"
    one = joined(file)
    fill(one)
    with monkeypatch.context() as patch:
        patch.setattr(joined_output, "write_lines_whole", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(Claims, "release", lambda self, claim: None)
        with pytest.raises(KeyboardInterrupt):
            one.join()
    die(one)
    with joined(file) as two:
        assert two.join()
    assert numbers(file) == list(range(20))


def test_which_files_are_shared(tmp_path):
    file, alone = tmp_path / "rows.jsonl", Sharing()
    assert not is_shared(file, alone)
    assert is_shared(file, Sharing(Rank(1, 2, "SLURM")))
    assert is_shared(file, Sharing(parts=3))
    with joined(file) as output:
        assert is_shared(file, alone)  # a process alone goes on with what others have begun
        fill(output)
        assert output.join()
    assert not is_shared(file, alone)
    with pytest.raises(UserError, match="made from another input, or other rows of it"):
        joined(file, rows=21)
    (tmp_path / "begun.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"begun.jsonl: was begun by a process alone: --processes 1 goes"):
        joined(tmp_path / "begun.jsonl")
