"""`thinkprm report`: from files to a file."""

from __future__ import annotations

import pytest

from support import fake_run
from thinkprm_jax import cli


@pytest.fixture
def report(tmp_path, monkeypatch, capsys):
    """Runs the program in this process; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["report", *arguments])
        return (status, *capsys.readouterr())

    return call


def test_a_folder_gets_its_page_inside(report, tmp_path):
    fake_run.write_search(tmp_path / "run", problems=3)
    status, out, err = report("run")
    assert (status, err) == (0, "")
    assert out.startswith("run/report.html: 3 problems · 12 solutions")
    assert "<title>Search: run</title>" in (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "accuracy.json",
        "completions.jsonl",
        "recipe.yaml",
        "report.html",
        "verdicts.jsonl",
    ]


@pytest.mark.parametrize("rows", [fake_run.details_rows(3), fake_run.score_rows(3)], ids=["evaluate", "score"])
def test_a_file_gets_its_page_beside_it(report, tmp_path, rows):
    fake_run.write_lines(tmp_path / "run.jsonl", rows)
    assert report("run.jsonl", "--title", "<mine>")[0] == 0
    assert "<title>&lt;mine&gt;</title>" in (tmp_path / "run.html").read_text(encoding="utf-8")


def test_a_page_is_written_anew(report, tmp_path):
    fake_run.write_lines(tmp_path / "run.jsonl", fake_run.score_rows(3))
    report("run.jsonl", "--output", "page.html")
    fake_run.write_lines(tmp_path / "run.jsonl", fake_run.score_rows(5))
    assert report("run.jsonl", "--output", "page.html")[1].startswith("page.html: 5 problems")


def test_what_a_reader_must_know_is_said(report, tmp_path):
    folder = fake_run.write_search(tmp_path / "run", problems=3)
    (folder / "accuracy.json").unlink()
    status, _, err = report("run")
    assert status == 0
    assert err.startswith("thinkprm report: there is no accuracy.json")
    assert "there is no accuracy.json" in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.jsonl",), "nothing.jsonl: No such file"),
        (("run.jsonl", "--output", "run.jsonl"), "run.jsonl: is the run itself"),
        (("run.jsonl", "--output", "nowhere/page.html"), "nowhere/page.html: cannot be written"),
        (("run.jsonl", "--output", "."), ".: is a folder, and the output must be a file"),
        (("bad.jsonl",), "bad.jsonl:1: the field `verdict.prefix_score` is missing"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing_behind(report, tmp_path, arguments, message):
    fake_run.write_lines(tmp_path / "run.jsonl", fake_run.score_rows(2))
    fake_run.write_lines(tmp_path / "bad.jsonl", [{"problem": "p", "steps": ["a"], "verdict": {}}])
    status, out, err = report(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("thinkprm report: error: ")
    assert message in err
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.jsonl", "run.jsonl"]
