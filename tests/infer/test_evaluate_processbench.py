"""`thinkprm evaluate processbench` and `solutions` on random weights: no sense, in the right places."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support import tiny_model
from thinkprm_jax import cli

SETTINGS = ("--max-length", "256", "--max-gen-tokens", "12", "--slots", "4")


def row(subset: str, number: int) -> dict:
    return {"id": f"{subset}-{number}", "problem": f"{number} + 1 = ?", "steps": [f"{number} + 1 = 2", "So 2."],
            "label": number % 2 - 1, "final_answer_correct": number % 2 == 0}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model.save_folder(tmp_path_factory.mktemp("model") / "tiny", layers=1)


@pytest.fixture
def run(model, tmp_path, monkeypatch, capsys):
    """Runs the program in this process, in a folder with pb.jsonl; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    rows = [row(subset, number) for subset in ("math", "omnimath") for number in range(4)]
    (tmp_path / "pb.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def call(task: str, *arguments: str) -> tuple[int, str, str]:
        status = cli.main(["evaluate", task, "--model", str(model), *SETTINGS, *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


PROCESSBENCH = ("processbench", "--data", "pb.jsonl", "--subset", "math", "omnimath")


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_tables_json_details_and_pictures(run, tmp_path):
    status, text, _ = run(*PROCESSBENCH, "--limit", "2", "--balanced", "--output-dir", "out")
    assert status == 0
    figures = json.loads((tmp_path / "out/figures.json").read_text())
    assert (figures["task"], figures["subsets"], figures["limit"], figures["balanced"]) == (
        "processbench", ["math", "omnimath"], 2, True,
    )  # fmt: skip
    assert (figures["solutions"], figures["judged_now"]) == (4, 4)
    assert set(figures["first_error"]["subsets"]) == {"math", "omnimath"}
    assert set(figures["binary_paper"]["subsets"]) == {"omnimath"}
    assert figures["first_error"]["subsets"]["math"]["unreadable_chains"]["value"] == 1.0  # random weights
    assert "the standard ProcessBench figure" in text
    assert "as in the ThinkPRM paper" in text
    rows = read_lines(tmp_path / "out/details.jsonl")
    assert sorted(row["label"] for row in rows) == [-1, -1, 0, 0]
    assert {row["groups"]["subset"] for row in rows} == {"math", "omnimath"}
    assert all(row["id"].startswith(row["groups"]["subset"]) for row in rows)
    assert (tmp_path / "out/figures.svg").exists()


@pytest.mark.slow
def test_a_stopped_sweep_goes_on(run, tmp_path):
    one = ("processbench", "--data", "pb.jsonl", "--subset", "math", "--limit", "2")
    sweep = (*one, "--sweep", "n=1,2", "--sweep", "rounds=1,2", "--output-dir", "out")
    assert run(*sweep)[0] == 0
    out = tmp_path / "out"
    whole = json.loads((out / "figures.json").read_text())
    assert [row["setting"] for row in whole["settings"]] == ["n=1", "n=2", "rounds=1", "rounds=2"]
    assert {(row["setting"], row["over"]) for row in whole["differences"]} == {
        ("n=2", "n=1"),
        ("rounds=2", "rounds=1"),
        ("n=1", "rounds=1"),
        ("n=2", "rounds=2"),
    }
    assert json.loads((out / "n=1.json").read_text())["verifier"]["n"] == 1

    # Stopped after the first solution of the second run.
    (out / "rounds=2.jsonl").unlink()
    details = out / "rounds=1.jsonl"
    details.write_bytes(details.read_bytes().splitlines(keepends=True)[0])
    assert run(*sweep)[0] == 0
    assert json.loads((out / "n=2.json").read_text())["judged_now"] == 0
    assert json.loads((out / "rounds=1.json").read_text())["judged_now"] == 1
    again = json.loads((out / "figures.json").read_text())
    assert [row["figures"] for row in again["settings"]] == [row["figures"] for row in whole["settings"]]


def test_solutions_of_ones_own(run, tmp_path):
    rows = [{"problem": "1 + 1?", "steps": ["2"], "label": label, "groups": {"by": "me"}} for label in (-1, 0)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, out, _ = run("solutions", "mine.jsonl", "--output", "-")
    figures = json.loads(out)
    assert (status, figures["task"], figures["solutions"]) == (0, "solutions", 2)
    assert figures["by"]["by"]["me"]["solutions"] == 2


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--limit", "0"), "--limit is 0, it must be at least 1"),
        (("--limit", "1", "--balanced"), "--limit is 1, it must be at least 2"),
        (("--data", "nowhere.jsonl"), "nowhere.jsonl: No such file or directory"),
        (("--subset", "gsm8k"), "pb.jsonl: has no rows of the subset gsm8k"),
        (("--sweep", "n=1,2"), "--sweep needs --output-dir"),
        (("--sweep", "k=1", "--output-dir", "out"), "--sweep k=1: write n=1,2,4 or rounds=1,2,4"),
        (("--sweep", "rounds=9", "--output-dir", "out"), "9 thinking rounds need 8 trigger phrases"),
    ],
)
def test_bad_usage_is_one_line(run, more, message):
    status, out, err = run(*PROCESSBENCH, *more)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
