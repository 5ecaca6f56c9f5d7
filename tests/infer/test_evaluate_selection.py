"""`thinkprm evaluate selection` and `labels`: no verifier runs, figures of files."""

from __future__ import annotations

import json

import pytest

from thinkprm_jax import cli

ROWS = [
    {"problem": f"{gold}?", "answer": gold, "completions": [r"\boxed{1}", r"\boxed{2}"], "agg_scores": [0.4, 0.8]}
    for gold in ("1", "2", "2")
]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def call(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["evaluate", *arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.mark.slow
def test_two_runs_in_tables_json_and_a_picture(run, tmp_path):
    worse = [{**row, "agg_scores": [0.9, 0.1]} for row in ROWS]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in worse))
    status, text, _ = run("selection", "good=a.jsonl", "b.jsonl", "--output-dir", "out")
    assert status == 0
    first, second = json.loads((tmp_path / "out/figures.json").read_text())["runs"]
    assert (first["name"], second["name"]) == ("good", "b")
    values = {method: figure["value"] for method, figure in first["by_n"]["2"].items()}
    assert values == pytest.approx(
        {"naive": 2 / 3, "weighted": 2 / 3, "majority": 1 / 3, "pass": 1.0, "pass_at_k": 1.0}
    )
    assert second["difference_from_first"]["2"]["naive"]["value"] == pytest.approx(-1 / 3)
    assert "gain over good" in text
    assert (tmp_path / "out/figures.png").exists()


def test_json_on_stdout(run):
    status, out, _ = run("selection", "a.jsonl", "--output", "-")
    assert (status, json.loads(out)["task"]) == (0, "selection")


def test_a_curve_over_labels(run, tmp_path):
    for labels, value in ((10, 0.5), (100, 0.7)):
        figure = {"value": value, "low": value, "high": value, "n": 9}
        content = {"task": "arithmetic", "figures": {"first_error_f1": figure}}
        (tmp_path / f"{labels}.json").write_text(json.dumps(content))
    status, text, _ = run("labels", "mine:10=10.json", "mine:100=100.json", "--plots", "curve")
    assert status == 0
    assert "first_error_f1 by number of labels" in text
    assert (tmp_path / "curve.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("selection", "nowhere.jsonl"), "nowhere.jsonl: No such file"),
        (("selection", "."), "holds no completions.jsonl"),
        (("labels", "a.jsonl"), "write [LINE:]LABELS=FILE.json"),
        (("selection", "a.jsonl", "--plots", "nowhere/x"), "there is no folder nowhere"),
    ],
)
def test_bad_usage_is_one_line(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert message in err
