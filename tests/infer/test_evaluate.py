"""`thinkprm evaluate` on random weights: figures without sense, in the right places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import tiny_model
from thinkprm_jax import cli
from thinkprm_jax.evaluation.report import FIGURES
from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_case

PROBLEMS = 6
SETTINGS = f"--problems {PROBLEMS} --max-length 256 --max-gen-tokens 20 --slots 4".split()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model.save_folder(tmp_path_factory.mktemp("model") / "tiny", layers=1)


@pytest.fixture
def run(model, tmp_path, monkeypatch, capsys):
    """Runs the program in this process; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["evaluate", "arithmetic", "--model", str(model), *SETTINGS, *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def rounded(x):
    """Numbers to four digits: after a restart fewer solutions are judged together, and products round anew."""
    if isinstance(x, dict):
        return {key: rounded(value) for key, value in x.items()}
    if isinstance(x, (list, tuple)):
        return [rounded(value) for value in x]
    return round(x, 4) if isinstance(x, float) else x


@pytest.mark.slow
def test_tables_json_and_details_agree_and_a_stopped_run_goes_on(run, tmp_path):
    output, details = tmp_path / "figures.json", tmp_path / "details.jsonl"
    files = ("--output", "figures.json", "--details", "details.jsonl")
    status, text, _ = run(*files)
    assert status == 0
    figures, rows = json.loads(output.read_text()), read_lines(details)

    assert (figures["task"], figures["split"], figures["solutions"], figures["failed"]) == (
        "arithmetic",
        "test",
        PROBLEMS,
        0,
    )
    assert list(figures["figures"]) == list(FIGURES)
    assert figures["figures"]["readable_chains"]["value"] == 0.0  # random weights write no verdicts
    assert figures["figures"]["tokens"]["value"] <= 20
    assert sum(group["solutions"] for group in figures["by"]["family"].values()) == PROBLEMS
    assert sum(bin["count"] for bin in figures["reliability"]) == PROBLEMS
    assert all(name in text for name, _, _ in FIGURES.values())
    assert "expression" in text or "running" in text

    for index, row in enumerate(rows):
        case = arithmetic_case(0, index, "test")
        assert (row["problem"], row["steps"], row["label"]) == (case.problem, list(case.steps), case.first_error)
        assert row["outcome"]["score"] == row["verdict"]["prefix_score"]
        assert len(row["verdict"]["step_scores"]) == len(case.steps)

    # The first two lines and a half.
    whole = details.read_bytes()
    lines = whole.splitlines(keepends=True)
    details.write_bytes(b"".join(lines[:2]) + lines[2][:40])
    assert run(*files)[0] == 0
    again = json.loads(output.read_text())
    assert [rounded(json.loads(line)) for line in details.read_bytes().splitlines()] == [rounded(r) for r in rows]
    assert again["judged_now"] == PROBLEMS - 2
    assert rounded((again["figures"], again["by"])) == rounded((figures["figures"], figures["by"]))

    whole = details.read_bytes()
    status, _, err = run(*files, "--seed", "1")  # the details are of other problems
    assert status == 2
    assert "details.jsonl" in err
    assert details.read_bytes() == whole


@pytest.mark.slow
def test_json_on_stdout_and_several_chains(run):
    status, out, _ = run("--output", "-", "--split", "unseen", "--n", "2", "--rounds", "2", "--seed", "3")
    figures = json.loads(out)
    assert status == 0
    assert (figures["split"], figures["seed"]) == ("unseen", 3)
    settings = figures["verifier"]
    assert (settings["n"], settings["rounds"], settings["temperature"]) == (2, 2, 0.6)
    assert figures["figures"]["tokens"]["value"] > 20


def test_solutions_without_a_verdict_count_as_wrong(run):
    status, out, err = run("--output", "-", "--max-length", "100")  # fits the shorter problems
    figures = json.loads(out)
    assert status == 1
    assert 0 < figures["failed"] < PROBLEMS
    assert "prompts are too long: --max-length 1" in err
    assert figures["figures"]["first_error_f1"]["n"] == PROBLEMS
    assert figures["figures"]["auroc"]["n"] == PROBLEMS - figures["failed"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--problems", "0"), "--problems is 0, it must be at least 1"),
        (("--n", "2", "--temperature", "0"), "n 2 needs a temperature above 0"),
        (("--output", "nowhere/figures.json"), "there is no folder nowhere"),
        (("--rounds", "9"), "9 thinking rounds need 8 trigger phrases"),
    ],
)
def test_bad_usage_is_one_line(run, more, message):
    status, out, err = run(*more)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
