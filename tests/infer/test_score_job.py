"""`thinkprm score` into a folder: parts, formats, several processes, and what the exit status says."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from support import tiny_model
from thinkprm_jax import cli, records
from thinkprm_jax.distributed.rank import Rank, find_rank
from thinkprm_jax.errors import UserError
from thinkprm_jax.records.claims import Claims

SETTINGS = ["--max-gen-tokens", "8", "--max-length", "768", "--slots", "4"]
ROWS = [{"id": i, "problem": f"{i} + 1?", "steps": [f"{i} + 1 = {i + 1}"], "note": None} for i in range(12)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model.save_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def run(model, tmp_path, monkeypatch, capsys):
    """Runs the program in this process; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.jsonl", ROWS)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["score", "--model", str(model), *SETTINGS, *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def verdicts(path: Path) -> list[tuple[Any, ...]]:
    """But for the last digits."""
    return [(dict(row.solution.row), row.verdict.chains[0].output) for row in records.read_verdicts(path)]


def test_a_folder_has_what_a_file_has(run, tmp_path):
    assert run("in.jsonl", "--output", "one.jsonl", "--quiet")[0] == 0
    status, out, err = run("in.jsonl", "--output", "parts/", "--parts", "3")
    assert status == 0
    assert len(out.splitlines()) == 12
    assert "12 solutions in" in err
    status, _, _ = run("one.jsonl", "--output", "x/", "--quiet")
    assert status == 2  # verdicts are no input
    assert run("in.jsonl", "--output", "table/", "--parts", "2", "--format", "parquet", "--quiet")[0] == 0
    assert run("table/part-00001-of-00002.parquet", "--output", "y.jsonl", "--quiet")[0] == 2
    wanted = verdicts(tmp_path / "one.jsonl")
    assert verdicts(tmp_path / "parts") == verdicts(tmp_path / "table") == wanted
    schema = pyarrow.parquet.read_schema(tmp_path / "table" / "part-00000-of-00002.parquet")
    assert schema.field("id").type == "int64"
    assert schema.equals(pyarrow.parquet.read_schema(tmp_path / "table" / "part-00001-of-00002.parquet"))
    status, _, err = run("in.jsonl", "--output", "parts")
    assert status == 0
    assert "12 of 12 rows are judged already" in err
    assert cli.main(["report", "table"]) == 0
    for arguments, said in (
        (["--temperature", "0.5", "--output", "parts"], "made with temperature 0.0, this run has 0.5"),
        (["--end", "5", "--output", "parts"], "made from another input, or other rows of it: 12, and there are 5"),
        (["--format", "parquet", "--output", "parts"], "its parts are jsonl"),
        (["--output", "out.parquet"], "a single file is JSON Lines"),
        (["--output", "out.jsonl", "--parts", "2"], "--parts is for a folder"),
        (["--output", "out.jsonl", "--processes", "2", "--process", "0"], "2 processes (flags) share a folder"),
        (["--output", "out/", "--processes", "2"], "go together"),
        (["--output", "out/", "--processes", "2", "--process", "2"], "--process is 2"),
        (["--output", "out/", "--parts", "0"], "--parts is 0"),
    ):
        status, _, err = run("in.jsonl", *arguments)
        assert (status, said in err) == (2, True), err


def test_a_row_that_is_none_is_said_at_the_end_and_others_are_judged(run, tmp_path):
    write(tmp_path / "in.jsonl", [*ROWS[:7], {"problem": "x"}, *ROWS[8:]])
    status, _, err = run("in.jsonl", "--output", "parts/", "--parts", "4", "--quiet")
    assert status == 2
    assert "in.jsonl:8: the field `steps`" in err
    assert [file.name for file in sorted((tmp_path / "parts").glob("part-*"))] == [
        f"part-0000{part}-of-00004.jsonl" for part in (0, 1, 3)
    ]
    write(tmp_path / "in.jsonl", [*ROWS[:4], {**ROWS[4], "id": "another"}, *ROWS[5:]])
    status, _, err = run("in.jsonl", "--output", "parts/", "--quiet")
    assert status == 2
    assert "part-00001-of-00004.jsonl:2: made from another input (row 5)" in err
    before = (tmp_path / "parts" / "part-00003-of-00004.jsonl").read_bytes()
    write(tmp_path / "in.jsonl", ROWS)  # mended
    status, out, _ = run("in.jsonl", "--output", "parts/")
    assert (status, len(out.splitlines())) == (0, 3)
    assert (tmp_path / "parts" / "part-00003-of-00004.jsonl").read_bytes() == before
    assert [row.solution.row for row in records.read_verdicts(tmp_path / "parts")] == ROWS


def test_a_column_has_one_type(run, tmp_path):
    write(
        tmp_path / "in.jsonl", [*ROWS[:7], {**ROWS[7], "note": {"by": ["me"]}}, {**ROWS[8], "note": {"by": [1]}}]
    )
    status, _, err = run("in.jsonl", "--output", "parts/", "--format", "parquet", "--quiet")
    assert status == 2
    assert "in.jsonl:9: the field `note.by[]` is a whole number and in rows before it a text" in err


def test_what_others_hold_is_missing(run, tmp_path):
    assert run("in.jsonl", "--output", "parts/", "--parts", "3", "--end", "4", "--quiet")[0] == 0
    (tmp_path / "parts" / "part-00001-of-00003.jsonl").unlink()
    with Claims(tmp_path / "parts" / ".job" / "claims") as other:
        assert other.take(1, 1) is not None
        status, _, err = run("in.jsonl", "--output", "parts/", "--end", "4", "--no-wait")
        assert status == 3
        assert "1 of 3 parts are missing: others work on part 1" in err
    assert run("in.jsonl", "--output", "parts/", "--end", "4", "--quiet")[0] == 0
    assert len(records.read_verdicts(tmp_path / "parts")) == 4


SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_NTASKS": "4", "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
}  # fmt: skip
ARRAY = {"SLURM_ARRAY_TASK_COUNT": "5", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_STEP": "2"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, Rank()),
        (SLURM, Rank(3, 4, "SLURM")),
        ({**SLURM, "SLURM_NTASKS": "1", "SLURM_PROCID": "0"}, Rank()),
        ({**ARRAY, "SLURM_ARRAY_TASK_ID": "14"}, Rank(2, 5, "SLURM array")),
        ({**SLURM, **ARRAY, "SLURM_ARRAY_TASK_ID": "14"}, Rank(11, 20, "SLURM array")),
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}, Rank(1, 2, "JAX_* variables")),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c", "TPU_WORKER_ID": "2"}, Rank(2, 3, "TPU")),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c", "JAX_NUM_PROCESSES": "1", "JAX_PROCESS_ID": "2"}, Rank()),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, Rank()),
    ],
)
def test_which_process_this_is(environment, wanted):
    assert find_rank(environment=environment) == wanted
    assert find_rank(1, environment=environment) == Rank(0, 1, "flags")


def test_half_a_description_is_refused():
    for environment in ({"JAX_PROCESS_ID": "1"}, {**ARRAY, "SLURM_ARRAY_TASK_ID": "x"}):
        with pytest.raises(UserError):
            find_rank(environment=environment)


@pytest.mark.slow
def test_two_processes_killed_at_any_moment_lose_nothing_and_do_nothing_twice(model, tmp_path):
    """kill -9 of one of two processes, now and then; rows that stood in a file stay as they were."""
    rows = [{"id": i, "problem": f"{i} + 1?", "steps": [f"{i} + 1 = {i + 1}"] * (1 + i % 3)} for i in range(120)]
    write(tmp_path / "in.jsonl", rows)
    command = [sys.executable, "-m", "thinkprm_jax.cli", "score", "in.jsonl", "--output", "out/", "--parts", "6"]
    command += ["--model", str(model), *SETTINGS, "--n", "2", "--quiet", "--lease", "15", "--processes", "2"]
    choose, done = random.Random(5), dict[int, str]()

    def start(process: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([*command, "--process", str(process)], cwd=tmp_path)

    running = [start(0), start(1)]
    try:
        for kill in range(4):
            enough, end = len(done) + choose.randrange(2, 12), time.monotonic() + 120
            while len(standing(tmp_path / "out")) < enough and time.monotonic() < end:
                time.sleep(0.02)
            running[kill % 2].send_signal(signal.SIGKILL)
            running[kill % 2].wait()
            now = standing(tmp_path / "out")
            assert done.items() <= now.items()
            done = now
            running[kill % 2] = start(kill % 2)
        assert [process.wait(200) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    written = records.read_verdicts(tmp_path / "out")
    assert [row.solution.row["id"] for row in written] == list(range(120))
    assert done.items() <= standing(tmp_path / "out").items()


def standing(out: Path) -> dict[int, str]:
    """id -> verdict, of the rows in any file."""
    found: dict[int, str] = {}
    for file in [*out.glob("part-*"), *out.glob(".job/work/[0-9]*.jsonl*")]:
        if file.suffix == ".index" or not os.path.exists(file):
            continue
        for line in file.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                row = json.loads(line)
                row = row.get("row", row)
                found.setdefault(row["id"], json.dumps(row["verdict"]))
    return found
