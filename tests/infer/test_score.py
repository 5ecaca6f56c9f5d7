"""`thinkprm score` on a model with random weights: files in, files out, exit status, stopping and going on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support import tiny_model
from thinkprm_jax import cli
from thinkprm_jax.records import ChainRecord, VerdictRecord

PROBLEM = {"problem": "2 + 3 + 4?", "steps": ["2 + 3 = 5", "5 + 4 = 9"]}
SETTINGS = ["--max-gen-tokens", "12", "--max-length", "768", "--slots", "4"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model.save_folder(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def run(model, tmp_path, monkeypatch, capsys):
    """Runs the program in this process; returns (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["score", "--model", str(model), *SETTINGS, *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_bundled_examples(run, tmp_path):
    status, out, err = run("--output", "out.jsonl")
    assert status == 0
    assert len(out.splitlines()) == len(read(tmp_path / "out.jsonl")) >= 5
    assert "tokens/s" in err


def test_rows_in_rows_out(run, tmp_path):
    rows = [
        {"id": 7, **PROBLEM, "label": -1, "nested": {"a": [1, None]}},
        {"question": "1 + 1?", "solution": "Step 1: one and one\nStep 2: is 2"},
        {
            "problem": "1 + 1?",
            "solution": "reference",
            "completions": ["It is 2.", "## Step 1: no\n\n## Step 2: 3"],
        },
        {"problem": "none", "completions": []},
        {"problem": "half \ud800", "steps": ["x"]},
        {**PROBLEM, "steps": []},
    ]
    status, out, _ = run(write(tmp_path / "in.jsonl", *rows), "--output", "out.jsonl", "--n", "2")
    assert status == 1  # two could not be judged, and the output says which
    written = read(tmp_path / "out.jsonl")
    assert [{key: row[key] for key in given} for row, given in zip(written, rows, strict=True)] == rows
    assert written[0]["verdict"]["step_labels"] in ([1, 1], [1, 0], [0, 0])
    assert len(written[0]["verdict"]["chains"]) == 2
    assert written[1]["verdict"]["steps"] == ["one and one", "is 2"]
    text = written[1]["solution"]
    assert [text[start:end] for start, end in written[1]["verdict"]["step_spans"]] == ["one and one", "is 2"]
    assert [len(verdict["step_scores"]) for verdict in written[2]["verdicts"]] == [1, 2]
    assert written[3]["verdicts"] == []
    assert "lone surrogate" in written[4]["verdict"]["error"]
    assert written[5]["verdict"] == {"error": "there are no steps to judge"}
    settings = written[0]["verifier"]
    assert settings["n"] == 2
    assert settings["temperature"] == 0.6
    lines = out.splitlines()
    assert lines[0].startswith("7\t0.")
    assert lines[2].startswith("3 #1\t")
    assert "not judged: there are no steps" in lines[-1]
    assert not (tmp_path / "out.jsonl.waiting").exists()


def test_the_summary_says_what_no_score_says(run, tmp_path):
    long = {**PROBLEM, "steps": ["2 + 2 = 4. " * 300]}
    status, out, err = run(write(tmp_path / "in.jsonl", long, PROBLEM, long))
    assert status == 1
    lines = out.splitlines()
    assert lines[1].endswith("step verdicts asked for, cut")  # of random weights
    assert "no room for a chain" in lines[0]
    assert err.count("too long") == 1
    assert "2 prompts are too long: --max-length" in err
    assert "1 of 1 chains were cut, unreadable or asked for their verdicts: this model is probably no" in err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "in.jsonl:2: not JSON"),
        ("[1]", "in.jsonl:2: a line must be a JSON object, this is a list"),
        ('{"steps": []}', "in.jsonl:2: the field `problem` is missing"),
        ('{"problem": 3, "steps": []}', "in.jsonl:2: the field `problem` must be a text, it is a number"),
        ('{"problem": "x"}', "in.jsonl:2: the field `steps`"),
        ('{"problem": "x", "steps": "y"}', "`steps` must be a list of texts, it is a text"),
        ('{"problem": "x", "steps": ["y", null]}', "`steps[1]` must be a text, it is null"),
        ('{"question": "x", "solution": {}}', "`solution` must be a text, it is an object"),
        ('{"problem": "x", "completions": [true]}', "`completions[0]` must be a text, it is true or false"),
        ('{"problem": "x", "steps": ["y"], "verdict": 1}', "`verdict` is written by this program"),
    ],
)
def test_bad_input_is_named_before_anything_is_computed(run, tmp_path, line, message):
    path = write(tmp_path / "in.jsonl", PROBLEM, line + "\n", PROBLEM)
    status, out, err = run(path, "--output", "out.jsonl", "--model", "no/such/folder/at/all")
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not out
    assert not (tmp_path / "out.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "missing.jsonl: No such file"),
        (["empty.jsonl"], "no rows in it"),
        (["bytes.jsonl"], "bytes.jsonl:1: not UTF-8"),
        (["in.jsonl", "--model", "no/such/folder"], "no/such/folder: no such folder"),
        (["in.jsonl", "--output", "no/such/out.jsonl"], "cannot be written"),
        (["in.jsonl", "--output", "in.jsonl"], "is the input"),
        (["in.jsonl", "--n", "0"], "n is 0"),
        (["in.jsonl", "--rounds", "5"], "trigger phrases"),
        (["in.jsonl", "--temperature", "-1"], "temperature"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(run, tmp_path, arguments, message):
    write(tmp_path / "in.jsonl", PROBLEM)
    write(tmp_path / "empty.jsonl", "\n \n")
    (tmp_path / "bytes.jsonl").write_bytes(b'{"problem": "\xff"}\n')
    status, out, err = run(*arguments)
    assert status == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert not out
    assert len(read(tmp_path / "in.jsonl")) == 1


def test_unknown_option_and_wrong_type(run):
    for arguments in (["--tempreature", "1"], ["--n", "two"], ["--dtype", "int4"]):
        with pytest.raises(SystemExit) as exit:
            run(*arguments)
        assert exit.value.code == 2


def test_a_finished_run_is_not_done_again(run, tmp_path):
    path = write(tmp_path / "in.jsonl", PROBLEM, {**PROBLEM, "steps": []})
    assert run(path, "--output", "out.jsonl")[0] == 1
    before = (tmp_path / "out.jsonl").read_bytes()
    status, out, err = run(path, "--output", "out.jsonl")
    assert status == 1
    assert not out
    assert "2 of 2 solutions are judged already" in err
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_a_half_written_line_is_written_again(run, tmp_path):
    rows = [{**PROBLEM, "id": number} for number in range(4)]
    path = write(tmp_path / "in.jsonl", *rows)
    assert run(path, "--output", "out.jsonl")[0] == 0
    whole = (tmp_path / "out.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in (1, len(lines[0]) - 1, len(lines[0]), len(lines[0]) + 40, len(whole) - 1):
        (tmp_path / "out.jsonl").write_bytes(whole[:cut])
        assert run(path, "--output", "out.jsonl")[0] == 0
        assert (tmp_path / "out.jsonl").read_bytes() == whole


def test_rows_that_waited_for_their_turn_are_not_lost(run, tmp_path):
    path = write(tmp_path / "in.jsonl", *({**PROBLEM, "id": number} for number in range(3)))
    assert run(path, "--output", "out.jsonl")[0] == 0
    whole = (tmp_path / "out.jsonl").read_bytes()
    rows = read(tmp_path / "out.jsonl")
    rows[2]["verdict"]["prefix_score"] = 0.123  # shows that it was not computed again
    (tmp_path / "out.jsonl").write_bytes(whole.splitlines(keepends=True)[0])
    half = '{"index": 1, "row": {"pro'
    write(tmp_path / "out.jsonl.waiting", {"index": 2, "row": rows[2]}, half)
    status, _, err = run(path, "--output", "out.jsonl")
    assert status == 0
    assert "2 of 3 solutions are judged already" in err
    assert read(tmp_path / "out.jsonl") == rows
    assert not (tmp_path / "out.jsonl.waiting").exists()


def test_other_settings_or_inputs_are_refused(run, tmp_path):
    path = write(tmp_path / "in.jsonl", PROBLEM, PROBLEM)
    assert run(path, "--output", "out.jsonl")[0] == 0
    before = (tmp_path / "out.jsonl").read_bytes()
    other = write(tmp_path / "other.jsonl", PROBLEM, {**PROBLEM, "id": 1})
    fewer = write(tmp_path / "fewer.jsonl", PROBLEM)
    for arguments, message in (
        ([path, "--temperature", "0.5"], "out.jsonl:1: made with temperature 0.0, this run has 0.5"),
        ([path, "--n", "2"], "made with n 1"),
        ([other], "out.jsonl:2: made from another input"),
        ([fewer], "more rows than the input"),
    ):
        status, _, err = run(*arguments, "--output", "out.jsonl")
        assert status == 2
        assert message in err
        assert (tmp_path / "out.jsonl").read_bytes() == before


@pytest.mark.parametrize("content", ["notes\n", "notes", json.dumps(PROBLEM), json.dumps(PROBLEM) + "\n", "{}\n"])
def test_a_file_that_is_not_ours_is_left_alone(run, tmp_path, content):
    path = write(tmp_path / "in.jsonl", PROBLEM)
    write(tmp_path / "precious", content)
    status, _, err = run(path, "--output", "precious")
    assert status == 2
    assert "give another output file" in err
    assert (tmp_path / "precious").read_text() == content
    assert not (tmp_path / "precious.waiting").exists()


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again(run, model, tmp_path):
    """Kills at growing lengths of the output; then as if nothing had happened."""
    rows = [{"id": i, "problem": f"{i} + 1?", "steps": [f"{i} + 1 = {i + 1}"] * (1 + i % 3)} for i in range(40)]
    path = write(tmp_path / "in.jsonl", *rows)
    settings = [*SETTINGS, "--n", "2", "--seed", "3"]
    command = [sys.executable, "-m", "thinkprm_jax.cli", "score", path, "--output", "out.jsonl", "--model", model]
    out = tmp_path / "out.jsonl"
    for enough in (1, 9):
        process = subprocess.Popen([*map(str, command), *settings], cwd=tmp_path, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < end:
            if out.exists() and out.read_bytes().count(b"\n") >= enough:
                break
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert out.read_bytes().count(b"\n") >= enough
    kept = out.read_bytes()
    kept = kept[: kept.rfind(b"\n") + 1]
    assert run(path, "--output", "out.jsonl", "--n", "2", "--seed", "3")[0] == 0
    assert out.read_bytes().startswith(kept)  # what was written stays
    assert run(path, "--output", "undisturbed.jsonl", "--n", "2", "--seed", "3")[0] == 0
    written, expected = read(out), read(tmp_path / "undisturbed.jsonl")
    assert [row["id"] for row in written] == list(range(40))
    for ours, theirs in zip(written, expected, strict=True):
        assert [c["output"] for c in ours["verdict"]["chains"]] == [
            c["output"] for c in theirs["verdict"]["chains"]
        ]
        assert ours["verdict"]["prefix_score"] == pytest.approx(theirs["verdict"]["prefix_score"], abs=1e-5)
    assert not (tmp_path / "out.jsonl.waiting").exists()


def test_control_characters_of_the_input_do_not_reach_the_terminal():
    from rich.console import Console

    from thinkprm_jax.infer.score_report import verdict_line, verdict_table

    chain = ChainRecord("", 0.1, (1, 0, 0), (0.9, 0.2, 0.0), (False, True, False))
    verdict = VerdictRecord(0.1, (0.9, 0.2, 0.0), (1, 0, 0), chains=(chain,))
    steps = ["fine [red]markup[/red]", "esc \x1b[2J nul \x00 half \ud800", "two\nlines"]
    console = Console(record=True, width=100, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(verdict_table("a\x07", "why\x1b?", steps, verdict))
    text = console.export_text()
    assert "[red]markup[/red]" in text
    assert "✗ incorrect* 0.200" in text
    assert "after the error" in text
    assert not {"\x1b", "\x00", "\x07", "\ud800"} & set(text)
    assert verdict_line("a\tb", verdict) == (
        "a b\t0.1000\tfirst error in step 2\t1:0.900 2:0.200 3:0.000\t1 of 2 step verdicts asked for"
    )


def test_both_names_run_the_same_file():
    program = Path(__file__).parents[2] / "infer" / "score.py"
    for command in ([sys.executable, str(program)], [sys.executable, "-m", "thinkprm_jax.cli", "score"]):
        result = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True)
        assert "thinkprm score" in result.stdout
        assert "THINKPRM_JAX_CACHE" in result.stdout
