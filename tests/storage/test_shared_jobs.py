"""Several processes whose output is in a store: every row once, whoever is killed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.guess_verifier import register_guess
from support.object_stores import Store, store
from support.processes import environment
from thinkprm_jax import records
from thinkprm_jax.paths import _check_store
from thinkprm_jax.storage import Location, location

ROWS = [
    {"id": str(i), "problem": f"{i} + 2?", "steps": [f"{i} + 2 = {i + 2}."], "label": -1}
    for i in range(24)
]  # fmt: skip

# A program whose verifier needs no model and takes its time, and whose lines are in the store after half a second.
SLOWLY = """
import sys, time
import pytest
from support import guess_verifier
from thinkprm_jax.storage import parts
judge = guess_verifier.Guess.judge
guess_verifier.Guess.judge = lambda *given: time.sleep(0.1) or judge(*given)
guess_verifier.register_guess(pytest.MonkeyPatch())
parts.PartLog.__init__.__defaults__ = (parts.PART_BYTES, 0.5)
from thinkprm_jax import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module", params=["gs", "s3"])
def server(request: pytest.FixtureRequest) -> Iterator[Store]:
    with store(request.param) as found:
        yield found


@pytest.fixture
def bucket(server: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request) -> Location:
    """A folder of the test's own in the store; the working directory has the inputs."""
    register_guess(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name, value in server.variables.items():
        monkeypatch.setenv(name, value)
    server.faults.clear()
    _check_store.cache_clear()
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return location(f"{server.url}/{request.node.originalname}")


def standing(folder: Location) -> dict[str, str]:
    """Row -> verdict, of all that stand in the parts of a job."""
    found: dict[str, str] = {}
    for file in folder.files():
        if "/.job/work/" not in file.key or not file.name.endswith(".jsonl"):
            continue
        try:
            lines = file.read_bytes().splitlines()
        except Exception:  # it has become a part meanwhile
            continue
        for line in lines:
            row = json.loads(line)
            row = row.get("row", row)
            found.setdefault(row["id"], json.dumps(row["verdict"]))
    return found


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_now_and_then(bucket: Location, server: Store) -> None:
    """kill -9, with parts of JSON Lines or Parquet: every row is there once, and nothing is left of the work."""
    out, form = bucket, "jsonl" if server.url.startswith("gs") else "parquet"
    command = ["score", "rows.jsonl", "--output", f"{out}/", "--format", form, "--verifier", "guess"]
    variables = environment(**server.variables)
    choose, done = random.Random(len(form)), dict[str, str]()

    def start(process: int) -> subprocess.Popen[bytes]:
        more = ["--parts", "4", "--quiet", "--lease", "10", "--processes", "2", "--process", str(process)]
        return subprocess.Popen([sys.executable, "-c", SLOWLY, *command, *more], env=variables)

    running = [start(0), start(1)]
    try:
        for kill in range(2):
            enough, end = choose.randrange(2, 8), time.monotonic() + 60
            while len(seen := standing(out)) < enough and time.monotonic() < end:
                time.sleep(0.05)
            done |= seen
            running[kill].send_signal(signal.SIGKILL)
            running[kill].wait()
            running[kill] = start(kill)
        assert [process.wait(120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    assert 2 <= len(done) < 24
    parts = [file.name for file in out.iterdir() if file.name != ".job"]
    assert parts == [f"part-0000{part}-of-00004.{form}" for part in range(4)]
    written = records.read_verdicts(out)
    assert [row.solution.row["id"] for row in written] == [str(i) for i in range(24)]
    assert not [file for file in out.files() if "/work/" in file.key]
