"""`thinkprm evaluate arithmetic` on a folder that config.json calls discriminative."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import tiny_model
from thinkprm_jax import cli
from thinkprm_jax.data.discriminative import PUBLISHED
from thinkprm_jax.evaluation.report import FIGURES
from thinkprm_jax.evaluation.tasks.arithmetic import arithmetic_case
from thinkprm_jax.verifier.discriminative import DiscriminativePRM

PROBLEMS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tiny_model.save_folder(tmp_path_factory.mktemp("model") / "tiny", seed=2, layers=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "thinkprm": PUBLISHED.to_config()}))
    return folder


@pytest.fixture
def run(model, tmp_path, monkeypatch, capsys):
    """Runs the program in this process; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        problems = ("--problems", str(PROBLEMS))
        status = cli.main(["evaluate", "arithmetic", "--model", str(model), *problems, *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.mark.slow
def test_figures_are_those_of_the_scores(run, model, tmp_path):
    status, text, _ = run("--output", "figures.json", "--details", "details.jsonl")
    assert status == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert all(name in text for name, _, _ in FIGURES.values())
    assert "disc_prm: no chains" in text
    assert figures["verifier"]["kind"] == "disc_prm"

    cases = [arithmetic_case(0, index, "test") for index in range(PROBLEMS)]
    results = DiscriminativePRM(model).predict_correctness_batch(
        [case.problem for case in cases], [case.steps for case in cases]
    )
    scores = [result["step_scores"][0] for result in results]
    first_errors = [next((step for step, p in enumerate(row) if p <= 0.5), -1) for row in scores]
    hits = [found == case.first_error for found, case in zip(first_errors, cases, strict=True)]
    with_error = [case.first_error >= 0 for case in cases]
    shares = [
        sum(hit for hit, error in zip(hits, with_error, strict=True) if error == kind) / with_error.count(kind)
        for kind in (True, False)
    ]
    found = {name: figure["value"] for name, figure in figures["figures"].items()}
    assert [found["acc_error"], found["acc_correct"]] == pytest.approx(shares)
    assert 0 < sum(hits) < PROBLEMS  # random weights, but some of either kind
    assert (found["readable_chains"], found["tokens"]) == (1.0, 0.0)

    rows = [json.loads(line) for line in (tmp_path / "details.jsonl").read_text().splitlines()]
    for row, steps in zip(rows, scores, strict=True):
        assert row["verdict"]["step_scores"] == pytest.approx(steps, abs=1e-5)
        assert row["outcome"]["score"] == row["verdict"]["prefix_score"] == row["verdict"]["step_scores"][-1]
        assert "chains" not in row["verdict"]


@pytest.mark.slow
def test_a_stopped_run_goes_on(run, tmp_path):
    details = tmp_path / "details.jsonl"
    assert run("--details", "details.jsonl")[0] == 0
    lines = details.read_bytes().splitlines(keepends=True)
    details.write_bytes(b"".join(lines[:5]))
    status, out, _ = run("--details", "details.jsonl", "--output", "-")
    assert (status, json.loads(out)["judged_now"]) == (0, PROBLEMS - 5)


@pytest.mark.slow
def test_solutions_that_do_not_fit_count_as_wrong(run):
    status, out, err = run("--output", "-", "--max-length", "50")
    figures = json.loads(out)
    assert status == 1
    assert 0 < figures["failed"] < PROBLEMS
    assert err.count("too long: --max-length") == 1


@pytest.mark.parametrize("option", ["--n 2", "--rounds 2", "--temperature 0.5", "--max-gen-tokens 9"])
def test_options_of_chains_are_refused(run, option):
    status, out, err = run(*option.split())
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert f"{option.split()[0]} is no option of the verifier disc_prm" in err


def test_score_takes_the_folder(model, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    assert (
        cli.main(["score", "--model", str(model), "--output", str(out), "--max-length", "1024", "--n", "1"]) == 0
    )
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == len(capsys.readouterr().out.splitlines()) >= 5
    expected = {"prefix_score", "step_scores", "step_labels", "contradictory"}
    assert all(set(row["verdict"]) == expected for row in rows)
    assert {row["verifier"]["kind"] for row in rows} == {"disc_prm"}
