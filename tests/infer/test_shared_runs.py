"""`thinkprm search` and `thinkprm evaluate` by several processes: the files of one, whoever dies."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import tiny_model
from support.guess_verifier import register_guess
from support.processes import environment
from thinkprm_jax import cli, records
from thinkprm_jax.records.claims import Claims
from thinkprm_jax.records.joined_output import job_folder
from thinkprm_jax.search.runner import OpenSearch
from thinkprm_jax.storage import location

RANKING = {"prm_type": "guess", "n": 2, "cached_solutions_path": "solved.jsonl", "output_dir": "out"}
SOLVED = [{"problem": f"{i} + 2?", "answer": "4", "completions": ["So 4.", f"So {i}."]} for i in range(6)]
# Of models with random weights: an `e` ends a step.
TREES = {
    "approach": "beam_search", "n": 4, "system_prompt": None, "dataset_name": "arithmetic", "num_samples": 4,
    "max_tokens": 16, "max_verification_length": 512, "max_verification_tokens": 8, "slots": 4, "prm_slots": 4,
    "temperature": 1.0, "output_dir": "out", "step_separator": "e", "num_iterations": 3, "beam_width": 2,
}  # fmt: skip
JUDGE = ["--max-gen-tokens", "8", "--max-length", "768", "--slots", "4", "--n", "2", "--temperature", "0.6"]
ROWS = [
    {"id": str(i), "problem": f"{i} + 1?", "steps": [f"{i} + 1 = {i + 1}", "So."][: 1 + i % 2], "label": -1}
    for i in range(50)
]
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    paths = {name: tiny_model.save_folder(folder / name, seed) for seed, name in enumerate(("gen", "prm"))}
    return {"model_path": str(paths["gen"]), "prm_path": str(paths["prm"])}


@pytest.fixture
def run(models, tmp_path, monkeypatch, capsys) -> Run:
    """Runs a program in this process; returns (exit status, stderr)."""
    monkeypatch.chdir(tmp_path)
    register_guess(monkeypatch)
    write_inputs(tmp_path, RANKING)

    def call(*arguments: str) -> tuple[int, str]:
        status = cli.main(list(arguments))
        return status, capsys.readouterr().err

    return call


def write_inputs(folder: Path, recipe: dict[str, Any]) -> None:
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    for name, rows in (("rows.jsonl", ROWS), ("solved.jsonl", SOLVED)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def evaluation(models: dict[str, str], output: str, *more: str) -> list[str]:
    places = ["rows.jsonl", "--model", models["prm_path"], "--output-dir", output]
    return ["evaluate", "solutions", *places, *JUDGE, *more]


def said(file: Path) -> list[Any]:
    """What was written and judged, without scores, whose last digits may differ."""
    found = []
    for row in records.read(file):
        if isinstance(row, records.CompletionRow):
            found.append([row.index, row.completions, row.completion_tokens, row.tokens])
        elif isinstance(row, records.SearchVerdictRow):
            chains = [[chain.output for chain in verdict.chains] for verdict in row.verdicts]
            found.append([row.index, [verdict.steps for verdict in row.verdicts], chains])
        else:
            assert isinstance(row, records.EvaluationRow)
            found.append([row.index, row.problem, [chain.output for chain in row.verdict.chains]])
    return found


def test_a_search_in_parts_ends_as_that_of_one_process(run: Run, tmp_path) -> None:
    assert run("search", "r.yaml", "output_dir=alone")[0] == 0
    # Another process holds a part: what is there meanwhile can be read, and is not all.
    claims = job_folder(tmp_path / "out" / "completions.jsonl") / ".job" / "claims"
    claims.mkdir(parents=True)
    with Claims(claims) as other:
        assert other.take(1) is not None
        status, err = run("search", "r.yaml", "--parts", "3", "--no-wait")
        assert status == 3
        assert "1 of 3 parts are missing: others work on part 1" in err
    assert [row.completion.index for row in records.read_search_folder("out").rows] == [0, 1, 4, 5]
    assert cli.main(["report", "out", "--output", "page.html"]) == 0
    assert run("evaluate", "selection", "out")[0] == 2  # it is not complete
    assert not (tmp_path / "out" / "accuracy.json").exists()
    # A process alone goes on with what others have begun.
    status, err = run("search", "r.yaml")
    assert status == 0, err
    assert "4 of 6 problems are done already" in err
    names = ("completions.jsonl", "verdicts.jsonl")
    for name in names:
        assert said(tmp_path / "out" / name) == said(tmp_path / "alone" / name)
    assert not list(job_folder(tmp_path / "out" / "completions.jsonl").glob("part-*"))
    before = [(tmp_path / "out" / name).read_bytes() for name in names]
    assert run("search", "r.yaml", "output_dir=memory://runs/out", "--parts", "2")[0] == 0
    assert before == [(location("memory://runs/out") / name).read_bytes() for name in names]
    for more in ([], ["--processes", "2", "--process", "1"]):
        assert run("search", "r.yaml", *more)[0] == 0
    assert before == [(tmp_path / "out" / name).read_bytes() for name in names]
    for arguments, wanted in (
        (["n=1", "--parts", "3"], "made with n 2, this run has 1"),
        (["num_samples=4", "--parts", "3"], "made from another input, or other rows of it"),
        (["output_dir=alone", "--parts", "3"], "was begun by a process alone"),
        (["--parts", "0"], "--parts is 0"),
        (["--processes", "2"], "go together"),
    ):
        status, err = run("search", "r.yaml", *arguments)
        assert (status, wanted in err) == (2, True), err


def test_an_evaluation_in_parts_ends_as_that_of_one_process(run: Run, models, tmp_path) -> None:
    part = ["--end", "9"]
    assert run(*evaluation(models, "alone", *part))[0] == 0
    claims = job_folder(tmp_path / "out" / "details.jsonl") / ".job" / "claims"
    claims.mkdir(parents=True)
    with Claims(claims) as other:
        assert other.take(2) is not None
        status, err = run(*evaluation(models, "out", *part, "--parts", "3", "--no-wait"))
        assert status == 3
        assert "1 of 3 parts are missing: others work on part 2" in err
        assert not (tmp_path / "out" / "figures.json").exists()
    status, err = run(*evaluation(models, "out", *part))
    assert status == 0, err
    assert said(tmp_path / "out" / "details.jsonl") == said(tmp_path / "alone" / "details.jsonl")
    figures = [json.loads((tmp_path / name / "figures.json").read_text()) for name in ("out", "alone")]
    assert figures[0]["judged_now"] == 3
    briers = [content["figures"]["brier"]["value"] for content in figures]
    assert briers[0] == pytest.approx(briers[1])
    for arguments, wanted in (
        (evaluation(models, "out", "--end", "8", "--parts", "2"), "made from another input"),
        (evaluation(models, "out", *part, "--temperature", "0.5", "--parts", "3"), "made with temperature 0.6"),
        (evaluation(models, "out", *part, "--processes", "2"), "go together"),
        (evaluation(models, "alone", *part, "--parts", "2"), "was begun by a process alone"),
        (["evaluate", "arithmetic", "--processes", "2", "--process", "0"], "2 processes (flags) share"),
    ):
        status, err = run(*arguments)
        assert (status, wanted in err) == (2, True), err


def test_a_sweep_is_shared_run_by_run(run: Run, models, tmp_path) -> None:
    command = evaluation(models, "out", "--end", "4", "--sweep", "rounds=1,2", "--parts", "2")
    claims = job_folder(tmp_path / "out" / "rounds=1.jsonl") / ".job" / "claims"
    claims.mkdir(parents=True)
    with Claims(claims) as other:
        assert other.take(0) is not None
        status, err = run(*command, "--no-wait")
        assert status == 3, err
    assert len(said(tmp_path / "out" / "rounds=2.jsonl")) == 4
    assert run(*command)[0] == 0
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["settings"][1]["setting"] == "rounds=2"


def standing(folder: Path) -> dict[int, str]:
    """Index -> row, of those in any file of a job, or in what it ended as."""
    found: dict[int, str] = {}
    for pattern in ("*.job/part-*", "*.job/.job/work/*.jsonl", "*.job/.job/work/*.waiting", "*s.jsonl"):
        for file in folder.glob(pattern):
            try:
                lines = file.read_bytes().splitlines(keepends=True)
            except FileNotFoundError:
                continue
            for line in lines:
                if line.endswith(b"\n"):
                    row = json.loads(line)
                    row = row.get("row", row)
                    found.setdefault(row["index"], json.dumps(row.get("verdict") or row.get("completions")))
    return found


# A program whose verifier needs no model and takes its time.
SLOWLY = """
import sys, time
import pytest
from support import guess_verifier
judge = guess_verifier.Guess.judge
guess_verifier.Guess.judge = lambda *given: time.sleep(0.03) or judge(*given)
guess_verifier.register_guess(pytest.MonkeyPatch())
from thinkprm_jax import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", ["search", "evaluate"])
def test_two_processes_killed_at_any_moment_lose_nothing_and_do_nothing_twice(program: str, run: Run, tmp_path):
    """kill -9 of one of two processes, now and then: what stood in a file stays, and the end is that of one."""
    solved = [{**SOLVED[0], "problem": f"{i} + 2?"} for i in range(50)]
    (tmp_path / "solved.jsonl").write_text("".join(json.dumps(row) + "\n" for row in solved))
    judging = ["evaluate", "solutions", "rows.jsonl", "--verifier", "guess"]
    command = {"search": ["search", "r.yaml"], "evaluate": [*judging, "--output-dir", "out"]}[program]
    alone = {"search": ["search", "r.yaml", "output_dir=alone"], "evaluate": [*judging, "--output-dir", "alone"]}
    choose, done = random.Random(7), dict[int, str]()

    def start(process: int) -> subprocess.Popen[bytes]:
        more = ["--parts", "8", "--lease", "15", "--processes", "2", "--process", str(process)]
        line = [sys.executable, "-c", SLOWLY, *command, *more]
        return subprocess.Popen(line, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)

    running = [start(0), start(1)]
    try:
        for kill in range(3):
            enough, end = len(done) + choose.randrange(1, 10), time.monotonic() + 60
            while len(standing(tmp_path / "out")) < enough and time.monotonic() < end:
                time.sleep(0.01)
            running[kill % 2].send_signal(signal.SIGKILL)
            running[kill % 2].wait()
            now = standing(tmp_path / "out")
            assert done.items() <= now.items()
            done = now
            running[kill % 2] = start(kill % 2)
        assert [process.wait(100) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
    assert 3 <= len(done) < 50
    assert done.items() <= standing(tmp_path / "out").items()
    assert not list((tmp_path / "out").glob("*.job/.job/work/*"))
    assert run(*alone[program])[0] == 0
    for name in ("completions.jsonl", "verdicts.jsonl") if program == "search" else ("details.jsonl",):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


@pytest.mark.slow
def test_steps_of_unfinished_problems_are_taken_over(run: Run, models, tmp_path, monkeypatch) -> None:
    """A process that dies before the first problem of its part is done has left what it wrote for it."""
    write_inputs(tmp_path, {**TREES, **models})
    with monkeypatch.context() as patch:

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(OpenSearch, "add", stop)
        assert run("search", "r.yaml", "--parts", "2")[0] == 130
    (kept,) = job_folder(tmp_path / "out" / "completions.jsonl").glob(".job/work/*.unfinished")
    lines = len(kept.read_bytes().splitlines())
    assert lines > 4
    status, err = run("search", "r.yaml")
    assert status == 0, err
    assert f"{lines} pieces and verdicts of unfinished problems are there already" in err
    assert run("search", "r.yaml", "output_dir=alone")[0] == 0
    for name in ("completions.jsonl", "verdicts.jsonl"):
        assert said(tmp_path / "out" / name) == said(tmp_path / "alone" / name)
