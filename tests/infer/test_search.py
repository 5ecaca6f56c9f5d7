"""`thinkprm search` on models with random weights: what it writes, refuses, and goes on from."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from support import tiny_model
from thinkprm_jax import cli

SETTINGS = {
    "approach": "best_of_n", "n": 4, "system_prompt": None, "dataset_name": "arithmetic", "num_samples": 3,
    "max_tokens": 16, "max_verification_length": 512, "max_verification_tokens": 8, "slots": 8, "prm_slots": 8,
    "temperature": 1.0, "output_dir": "out",
}  # fmt: skip
# Steps that random models write: an `e` ends one.
TREE = {"step_separator": "e", "num_iterations": 3, "beam_width": 2}
FILES = ("completions.jsonl", "verdicts.jsonl")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    paths = {name: tiny_model.save_folder(folder / name, seed) for seed, name in enumerate(("gen", "prm"))}
    return {"model_path": str(paths["gen"]), "prm_path": str(paths["prm"])}


@pytest.fixture
def run(models, tmp_path, monkeypatch, capsys):
    """Runs the program in this process; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str, **fields: Any) -> tuple[int, str, str]:
        write_recipe(tmp_path / "r.yaml", models, **fields)
        status = cli.main(["search", "r.yaml", *overrides])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def write_recipe(path: Path, models: dict[str, str], **fields: Any) -> None:
    path.write_text(yaml.safe_dump({**SETTINGS, **models, **fields}), encoding="utf-8")


def write_rows(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_a_run_and_the_same_run_again(run, tmp_path) -> None:
    status, out, err = run(verifier_endpoint="http://127.0.0.1:31111")
    assert status == 0, err
    assert "verifier_endpoint is not used" in err
    assert "memory of a device: generator" in err
    assert "best_of_n on 3 problems" in out
    rows, verdicts = (read(tmp_path / "out" / name) for name in FILES)
    assert [row["index"] for row in rows] == [row["index"] for row in verdicts] == [0, 1, 2]
    for row, judged in zip(rows, verdicts, strict=True):
        lists = (
            "completions",
            "completion_tokens",
            "finish_reasons",
            "scores",
            "agg_scores",
            "answers",
            "correct",
        )
        for name in lists:
            assert len(row[name]) == 4, name
        assert row["pred"] == row["completions"][row["agg_scores"].index(max(row["agg_scores"]))]
        assert {"pred_naive@1", "pred_weighted@2", "pred_maj@4"} <= set(row)
        for scores, verdict in zip(row["scores"], judged["verdicts"], strict=True):
            assert scores == [*verdict["step_scores"][:-1], verdict["prefix_score"]]
            assert len(verdict["steps"]) == len(verdict["step_labels"]) == len(scores)
            assert verdict["chains"][0]["output_tokens"] > 0
    figures = json.loads((tmp_path / "out" / "accuracy.json").read_text())
    assert set(figures["by_n"]) == {"1", "2", "4"}
    assert figures["by_n"]["4"]["weighted"]["n"] == 3
    assert figures["tokens"]["generated"] == sum(sum(row["completion_tokens"]) for row in rows)
    assert (tmp_path / "out" / "accuracy.png").stat().st_size > 1000
    assert "<svg" in (tmp_path / "out" / "accuracy.svg").read_text()

    before = contents(tmp_path / "out")
    status, _, err = run()
    assert status == 0
    assert "3 of 3 problems are done already" in err
    assert "memory of a device" not in err  # nothing was loaded
    assert contents(tmp_path / "out") == before


@pytest.mark.slow
def test_what_a_stopped_run_had_of_its_first_problem_is_not_made_again(run, tmp_path, monkeypatch) -> None:
    from thinkprm_jax.search.runner import OpenSearch

    assert run(**TREE, approach="beam_search", output_dir="whole")[0] == 0
    with monkeypatch.context() as patch:

        def stop(self: OpenSearch, index: int, result: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(OpenSearch, "add", stop)
        assert run(**TREE, approach="beam_search")[0] == 130
    kept = read(tmp_path / "out" / "unfinished.jsonl")
    assert len(kept) > 4
    assert not (tmp_path / "out" / FILES[0]).read_bytes()
    assert run(**TREE, approach="beam_search", seed=7)[0] == 2  # another recipe
    status, _, err = run(**TREE, approach="beam_search")
    assert status == 0
    assert f"{len(kept)} pieces and verdicts of unfinished problems are there already" in err
    assert not (tmp_path / "out" / "unfinished.jsonl").exists()
    rows, whole = (read(tmp_path / folder / FILES[0]) for folder in ("out", "whole"))
    assert [row["completions"] for row in rows] == [row["completions"] for row in whole]
    assert [row["tokens"] for row in rows] == [row["tokens"] for row in whole]


def test_more_problems_are_added_to_a_run(run, tmp_path) -> None:
    run(num_samples=1)
    first = (tmp_path / "out" / FILES[0]).read_bytes()
    status, _, err = run(num_samples=2)
    assert status == 0
    assert "1 of 2 problems are done already" in err
    assert (tmp_path / "out" / FILES[0]).read_bytes().startswith(first)
    assert len(read(tmp_path / "out" / FILES[0])) == 2


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["beam_search", "dvts"])
def test_trees_over_waves_of_any_size(run, tmp_path, approach) -> None:
    status, out, err = run(approach=approach, **TREE)
    assert status == 0, err
    assert "prefixes" in err
    assert f"{approach} on 3 problems" in out
    run(approach=approach, **TREE, wave=1, output_dir="by_one")
    for ours, theirs in zip(read(tmp_path / "out" / FILES[0]), read(tmp_path / "by_one" / FILES[0]), strict=True):
        assert texts(ours) == texts(theirs)


@pytest.mark.slow
def test_killed_and_started_again(run, models, tmp_path) -> None:
    """kill -9 at growing lengths of the output; then as if nothing had happened."""
    fields = {"approach": "beam_search", **TREE, "num_samples": 8, "wave": 3}
    status, _, err = run(**fields, output_dir="whole")
    assert status == 0, err
    write_recipe(tmp_path / "r.yaml", models, **fields)
    out = tmp_path / "out" / FILES[0]
    for enough in (1, 5):
        process = subprocess.Popen(
            [sys.executable, "-m", "thinkprm_jax.cli", "search", "r.yaml"],
            cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < end:
            if out.exists() and out.read_bytes().count(b"\n") >= enough:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = {name: content[: content.rfind(b"\n") + 1] for name, content in contents(tmp_path / "out").items()}
    with open(tmp_path / "out" / FILES[1], "ab") as file:  # and a torn line, of whatever was being written
        file.write(b'{"index"')
    assert run(**fields)[0] == 0
    for name, content in contents(tmp_path / "out").items():
        assert content.startswith(kept[name])  # what was written stays
        for ours, theirs in zip(read(tmp_path / "out" / name), read(tmp_path / "whole" / name), strict=True):
            assert texts(ours) == texts(theirs)
            assert numbers(ours) == pytest.approx(numbers(theirs), abs=1e-5)


def texts(value: Any) -> Any:
    """The value with every fraction replaced by 0."""
    if isinstance(value, dict):
        return {key: texts(item) for key, item in value.items()}
    return [texts(item) for item in value] if isinstance(value, list) else 0 if type(value) is float else value


def numbers(value: Any) -> list[float]:
    """All fractions in it."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for item in value for number in numbers(item)]
    return [value] if type(value) is float else []


def test_another_recipe_is_refused(run, tmp_path) -> None:
    run(num_samples=1)
    before = contents(tmp_path / "out")
    status, _, err = run("n=2", num_samples=1)
    assert status == 2
    assert "holds a run of another recipe: n (4 there, 2 now)" in err
    assert contents(tmp_path / "out") == before


def test_a_recipe_that_could_not_run_can_be_mended(run, tmp_path) -> None:
    assert run(prm_type="thinkprmm")[0] == 2
    status, _, err = run(prm_type="judgee")
    assert status == 2
    assert "there is no verifier 'judgee'" in err  # and not that the folder holds another run


def test_the_default_verifier_is_said(run, monkeypatch) -> None:
    monkeypatch.setattr("thinkprm_jax.search.models.VERIFIER", "nowhere/at-all")
    status, _, err = run(prm_path=None)
    assert status == 2
    assert "the recipe has no prm_path: the verifier is nowhere/at-all" in err


def test_solutions_made_elsewhere_are_only_judged(run, tmp_path) -> None:
    row = {"problem": "1 + 2?", "answer": "3", "completions": ["It is 3.\n\nSo \\boxed{3}.", "No: \\boxed{4}."],
           "completion_tokens": [9, 4], "scores": [[1.0], [0.0]]}  # fmt: skip
    path = write_rows(tmp_path / "cached.jsonl", [row])
    fields = {"cached_solutions_path": path, "dataset_name": None, "num_samples": None, "n": 2}
    status, _, err = run(**fields, model_path="nowhere/at-all")
    assert status == 0, err
    (found,) = read(tmp_path / "out" / FILES[0])
    assert found["completions"] == row["completions"]
    assert found["completion_tokens"] == [9, 4]
    assert found["answers"] == ["3", "4"]
    assert found["correct"] == [True, False]
    assert [len(scores) for scores in found["scores"]] == [2, 1]
    assert found["tokens"]["generated"] == 0


def test_programs_bring_their_results(run, tmp_path) -> None:
    row = {"question": "Sort.", "completions": ["a\n\nb", "c"], "correct": [False, True]}
    path = write_rows(tmp_path / "cached.jsonl", [row])
    status, _, err = run(cached_solutions_path=path, dataset_name=None, num_samples=None, n=2, answer_kind="none")
    assert status == 0, err
    (found,) = read(tmp_path / "out" / FILES[0])
    assert found["correct"] == [False, True]
    assert not any(name.startswith("pred_") for name in found)
    by_n = json.loads((tmp_path / "out" / "accuracy.json").read_text())["by_n"]
    assert set(by_n["2"]) == {"naive", "pass"}


def test_greedy_needs_no_verifier(run, tmp_path) -> None:
    status, _, err = run(approach="greedy", prm_path="nowhere/at-all", num_samples=1)
    assert status == 0, err
    (row,) = read(tmp_path / "out" / FILES[0])
    assert (row["scores"], row["agg_scores"]) == ([[]], [None])
    expected = {"index": 0, "verdicts": [], "thinkprm_format": "search_verdict/2"}
    assert read(tmp_path / "out" / FILES[1]) == [expected]
    by_n = json.loads((tmp_path / "out" / "accuracy.json").read_text())["by_n"]
    assert set(by_n["1"]) == {"majority", "pass"}


def test_a_problem_that_cannot_be_written_is_named(run, tmp_path) -> None:
    rows = [{"problem": "a lone \ud800", "answer": "1"}, {"problem": "fine", "answer": "1"}]
    path = write_rows(tmp_path / "data.jsonl", rows)
    status, _, err = run(dataset_name=path, num_samples=None)
    assert status == 1
    assert "problem 0: no solution: character 7 of the text is a lone surrogate" in err
    bad, good = read(tmp_path / "out" / FILES[0])
    assert bad["completions"] == []
    assert bad["pred"] is None
    assert len(good["completions"]) == 4


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"device_memory": 0.0001}, "the models do not fit"),
        ({"prm_path": "nowhere/at-all/really"}, "nowhere/at-all/really"),
        ({"prm_type": "thinkprmm"}, "thinkprmm"),
        ({"dataset_name": "none.jsonl"}, "none.jsonl"),
        ({"beam_with": 3}, "did you mean beam_width"),
    ],
)
def test_what_cannot_work_is_one_line(run, tmp_path, fields, message) -> None:
    status, out, err = run(**fields)
    assert (status, out) == (2, "")
    assert message in err.splitlines()[-1]
    assert not (tmp_path / "out" / FILES[0]).exists() or not (tmp_path / "out" / FILES[0]).read_bytes()
