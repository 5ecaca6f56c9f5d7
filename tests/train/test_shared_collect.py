"""`thinkprm collect` by several processes: the chains of one, whoever dies."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.processes import environment
from thinkprm_jax import cli
from thinkprm_jax.activity import Activity
from thinkprm_jax.collect import teacher
from thinkprm_jax.collect.teacher import Generation
from thinkprm_jax.records.claims import Claims
from thinkprm_jax.records.joined_output import job_folder

RECIPE: dict[str, Any] = {
    "output": "out",
    "source": {"arithmetic": {"examples": 24, "seed": 5, "split": "unseen"}},
    "teacher": {"model": "mini", "prompt": "verification", "chains": 2, "temperature": 1.0},
    "filter": {"target": None, "balance": False},
    "wave": 4,
}
FILES = ("chains.jsonl", "decisions.jsonl", "generations.jsonl", "lengths.png", "report.json")


class Nobody:
    """In place of a sampler."""

    activity = Activity()


def agree(sampler: Any, teacher: Any, items: Any, seed: int) -> Any:
    """In place of a model: chains that say what the labels say, but for one in five, last ones first."""
    for key, prefix, chain in list(items)[::-1]:
        verdicts = [
            f"Step {n}: The step is \\boxed{{{'in' * (not y)}correct}}" for n, y in enumerate(prefix.labels, 1)
        ]
        yield key, Generation("\n\n".join([f"Hm {chain}.", *verdicts][: None if key % 5 else 1]), 7, "stop")


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the program in this process; returns (exit status, stderr)."""
    monkeypatch.chdir(tmp_path)
    Path("r.yaml").write_text(yaml.safe_dump(RECIPE))
    monkeypatch.setattr(teacher, "generate_chains", agree)
    monkeypatch.setattr(teacher, "load_teacher", lambda *_: Nobody)

    def call(*arguments: str) -> tuple[int, str]:
        status = cli.main(["collect", "r.yaml", *arguments])
        return status, capsys.readouterr().err

    return call


def hold(part: int) -> Claims:
    """Another process, which has a part."""
    folder = job_folder(Path("out/generations.jsonl")) / ".job" / "claims"
    folder.mkdir(parents=True, exist_ok=True)
    claims = Claims(folder)
    assert claims.take(part) is not None
    return claims


def same(names: tuple[str, ...] = FILES) -> bool:
    return all(Path("out", name).read_bytes() == Path("alone", name).read_bytes() for name in names)


def test_a_collection_in_parts_ends_as_that_of_one_process(run) -> None:
    assert run("output=alone")[0] == 0
    with hold(1):
        status, err = run("--parts", "6", "--no-wait")
        assert status == 3
        assert "1 of 6 parts are missing: others work on part 1" in err
    assert not Path("out/chains.jsonl").exists()
    status, err = run()  # a process alone goes on with what others have begun
    assert status == 0, err
    assert "40 of 48 chains are there already" in err
    assert same()
    assert run("--processes", "2", "--process", "1")[0] == 0
    assert same()
    assert run("filter.labels=none", "--parts", "2")[0] == 0  # stored generations are filtered anew
    for arguments, wanted in (
        (["seed=1", "--parts", "6"], "made from another input"),
        (["teacher.chains=3", "--parts", "6"], "made from another input"),
        (["teacher.temperature=0.5", "--parts", "6"], "made with temperature 1.0, this run has 0.5"),
        (["output=alone", "--parts", "6"], "was begun by a process alone"),
        (["--processes", "2"], "go together"),
    ):
        status, err = run(*arguments)
        assert (status, wanted in err) == (2, True), err


def test_a_target_is_reached_in_the_same_wave_whoever_made_the_chains(run) -> None:
    target = "filter.target=9"
    assert run("output=alone", target)[0] == 0
    with hold(4):  # it is not waited for: the first parts are enough
        assert run(target, "--parts", "6")[0] == 0
    assert same(("chains.jsonl", "decisions.jsonl", "report.json"))
    # More of them: the parts that there are stay, and others follow.
    assert run("output=alone", "filter.target=30")[0] == 0
    assert run("filter.target=30")[0] == 0
    assert same(("chains.jsonl", "decisions.jsonl", "report.json"))
    assert not Path("out/generations.jsonl").exists()
    assert run("filter.target=null")[0] == run("output=alone", "filter.target=null")[0] == 0
    assert same()


SLOWLY = """
import sys, time
from test_shared_collect import Nobody, agree
from thinkprm_jax.collect import teacher
def slowly(*given):
    for made in agree(*given):
        time.sleep(0.03)
        yield made
teacher.generate_chains, teacher.load_teacher = slowly, lambda *_: Nobody
from thinkprm_jax import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def standing() -> set[tuple[int, int]]:
    """Chains in any file."""
    found = set()
    for pattern in ("*.job/part-*", "*.job/.job/work/*.jsonl", "*.job/.job/work/*.waiting", "generations.jsonl"):
        for file in Path("out").glob(pattern):
            try:
                lines = file.read_bytes().splitlines(keepends=True)
            except FileNotFoundError:
                continue
            rows = [json.loads(line) for line in lines if line.endswith(b"\n")]
            found |= {(row["prefix"], row["chain"]) for row in (row.get("row", row) for row in rows)}
    return found


@pytest.mark.slow
def test_two_processes_killed_at_any_moment_lose_nothing_and_do_nothing_twice(run) -> None:
    """kill -9 of one of two processes, now and then: what stood in a file stays, and the end is that of one."""
    choose, done = random.Random(3), set[tuple[int, int]]()
    variables = environment()
    variables["PYTHONPATH"] += f":{Path(__file__).parent}"

    def start(process: int) -> subprocess.Popen[bytes]:
        more = ["--parts", "6", "--lease", "15", "--processes", "2", "--process", str(process)]
        return subprocess.Popen(
            [sys.executable, "-c", SLOWLY, "collect", "r.yaml", *more], env=variables, stdout=subprocess.DEVNULL
        )

    running = [start(0), start(1)]
    try:
        for kill in range(2):
            enough, end = len(done) + choose.randrange(1, 10), time.monotonic() + 60
            while len(standing()) < enough and time.monotonic() < end:
                time.sleep(0.01)
            running[kill % 2].send_signal(signal.SIGKILL)
            running[kill % 2].wait()
            now = standing()
            assert done <= now
            done = now
            running[kill % 2] = start(kill % 2)
        assert [process.wait(100) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    assert 2 <= len(done) < 48
    assert run("output=alone")[0] == 0
    assert same()
