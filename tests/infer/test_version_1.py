"""Runs that the programs began before rows had a version go on, and are reported and evaluated as before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from thinkprm_jax import cli
from thinkprm_jax.records import (
    CompletionRow,
    EvaluationRow,
    GenerationRow,
    SearchVerdictRow,
    VerdictRow,
)
from thinkprm_jax.records.schema import FINGERPRINTS, FORMAT_KEY

VERSION_1 = Path(__file__).parents[1] / "records" / "version_1"
SCORE = ("score", "solutions.jsonl", "--n", "2", "--max-length", "512", "--quiet", "--output")
EVALUATE = ("evaluate", "solutions", "labelled.jsonl", "--n", "2", "--max-length", "512", "--details")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A copy of the files, which is the working directory."""
    shutil.copytree(VERSION_1, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    return tmp_path / "runs"


def keep(path: Path, count: int) -> list[str]:
    """Leaves only the first lines of a file, as if the run had been stopped; all lines."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:count]), encoding="utf-8")
    return lines


def check_gone_on(path: Path, lines: list[str], kept: int, kind: Any) -> None:
    """The first lines are as they were, the others of this version and with the same content."""
    found = path.read_text(encoding="utf-8").splitlines(keepends=True)
    assert found[:kept] == lines[:kept]
    assert len(found) == len(lines)
    for line, before in zip(found[kept:], lines[kept:], strict=True):
        row, expected = json.loads(line), json.loads(before)
        assert row.pop(FORMAT_KEY) == f"{kind.FORMAT}/{kind.VERSION}"
        row.pop("verifier", None), expected.pop("verifier", None)
        for name in FINGERPRINTS:  # rows of today say by what they were made
            row.get("teacher", {}).pop(name, None)
        assert rounded(row) == rounded(expected)
    assert len(kind.read(path)) == len(lines)
    assert not path.with_name(path.name + ".waiting").exists()


def rounded(value: Any) -> Any:
    """Scores differ in their last digits where the rest is computed in other batches; what later versions write
    beside them is left out."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        later = ("contradictory", "models", "weights", "step_spans")
        return {key: rounded(item) for key, item in value.items() if key not in later}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def test_scoring_goes_on_with_rows_that_wait_for_their_turn(folder):
    path = folder / "score.jsonl"
    lines = keep(path, 1)
    waiting = {"index": 2, "row": json.loads(lines[2])}
    waiting["row"]["verdicts"][0]["prefix_score"] = 0.123  # shows that it is not computed again
    (folder / "score.jsonl.waiting").write_text(json.dumps(waiting) + "\n" + lines[3][:20], encoding="utf-8")
    lines[2] = json.dumps(waiting["row"]) + "\n"
    assert cli.main([*SCORE, "score.jsonl"]) == 1  # the last row has no steps to judge
    check_gone_on(path, lines, 1, VerdictRow)
    before = path.read_bytes()
    assert cli.main([*SCORE, "score.jsonl"]) == 1  # lines of both versions, all done
    assert path.read_bytes() == before


def test_other_settings_are_refused(folder, capsys):
    before = (folder / "score.jsonl").read_bytes()
    assert cli.main([*SCORE, "score.jsonl", "--seed", "7"]) == 2
    assert "score.jsonl:1: made with seed 0, this run has 7" in capsys.readouterr().err
    assert (folder / "score.jsonl").read_bytes() == before


def test_an_evaluation_goes_on(folder):
    lines = keep(folder / "details.jsonl", 2)
    assert cli.main([*EVALUATE, "details.jsonl", "--output", "figures.json"]) == 0
    check_gone_on(folder / "details.jsonl", lines, 2, EvaluationRow)
    assert json.loads((folder / "figures.json").read_text())["figures"]["tokens"]["n"] == 3


@pytest.mark.slow
def test_a_search_goes_on(folder):
    completions, verdicts = (folder / "best_of_n" / f"{name}.jsonl" for name in ("completions", "verdicts"))
    texts, judged = keep(completions, 1), keep(verdicts, 2)
    assert cli.main(["search", "best_of_n.yaml"]) == 0
    check_gone_on(completions, texts, 1, CompletionRow)
    check_gone_on(verdicts, judged, 2, SearchVerdictRow)


@pytest.mark.slow
def test_a_collection_goes_on_and_keeps_the_same_chains(folder):
    run = folder / "collection"
    lines, chains = keep(run / "generations.jsonl", 7), (run / "chains.jsonl").read_bytes()
    assert cli.main(["collect", "collect.yaml"]) == 0
    check_gone_on(run / "generations.jsonl", lines, 7, GenerationRow)
    assert (run / "chains.jsonl").read_bytes() == chains
    assert (run / "report.json").read_bytes() == (VERSION_1 / "collection" / "report.json").read_bytes()


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("score.jsonl", "4 problems · 5 solutions · 8 chains"),
        ("details.jsonl", "3 problems · 3 solutions · 6 chains"),
        ("judge.jsonl", "3 problems · 3 solutions · 6 chains"),
        ("best_of_n", "3 problems · 6 solutions · 6 chains"),
        ("beam_search", "2 problems · 4 solutions · 4 chains"),
    ],
)
def test_pages_are_made_of_them(folder, capsys, run, said):
    assert cli.main(["report", run]) == 0
    printed = capsys.readouterr()
    assert said in printed.out
    assert not printed.err


def test_selection_is_evaluated_on_them(folder, capsys):
    assert cli.main(["evaluate", "selection", "best_of_n", "beam_search", "--output", "-"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    recorded = [json.loads((folder / run["name"] / "accuracy.json").read_text()) for run in runs]
    for run, accuracy in zip(runs, recorded, strict=True):
        assert {n: figures["weighted"] for n, figures in run["by_n"].items()} == {
            n: figures["weighted"] for n, figures in accuracy["by_n"].items()
        }
