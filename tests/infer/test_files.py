"""Where files cannot be written, or are none: one line, status 2, what is there stays whole, and the same command
goes on afterwards. In every program, without a model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.full_disk import room_for
from support.guess_verifier import register_guess
from support.processes import ROOT, environment
from thinkprm_jax import cli
from thinkprm_jax.records import files, output
from thinkprm_jax.storage import writing

VERSION_1 = ROOT / "tests" / "records" / "version_1"
LONG = "2 + 2? " + 6000 * "x"
LABELLED = {"problem": LONG, "steps": ["2 + 2 = 4."], "label": -1}
SEARCH = {"prm_type": "guess", "cached_solutions_path": "solved.jsonl", "n": 2, "output_dir": "searched"}
COLLECT = {"source": {"generations": {"files": ["chains.jsonl"]}}, "tokenizer": "mini", "output": "collected"}
# Program -> its arguments, and where it writes.
COMMANDS = {
    "score": (["solutions.jsonl", "--verifier", "guess", "--output", "out.jsonl", "--quiet"], "out.jsonl"),
    "evaluate": (["solutions", "labelled.jsonl", "--verifier", "guess", "--output-dir", "out"], "out"),
    "search": (["search.yaml"], "searched"),
    "collect": (["collect.yaml"], "collected"),
    "report": (["judged.jsonl", "--output", "page.html"], "page.html"),
    "miniature": (["--quick", "--output", "small"], "small"),
}


def write(path: str, *rows: Any) -> None:
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the inputs of all programs."""
    register_guess(monkeypatch)
    monkeypatch.chdir(tmp_path)
    write("solutions.jsonl", *({"problem": LONG, "steps": ["2 + 2 = 4."], "id": i} for i in range(3)))
    write("labelled.jsonl", *[LABELLED] * 3)
    solved = [{"problem": f"{i} {LONG}", "answer": "4", "completions": ["The answer is 4."] * 2} for i in range(3)]
    write("solved.jsonl", *solved)
    chain = "Step 1: It is right. The step is \\boxed{correct}"
    row = {"problem": LONG, "prefix_steps": ["2 + 2 = 4."], "traj_gt_labels": ["+"], "generations": [chain]}
    write("chains.jsonl", *({**row, "problem": f"{i} {LONG}"} for i in range(3)))
    Path("search.yaml").write_text(yaml.safe_dump(SEARCH))
    Path("collect.yaml").write_text(yaml.safe_dump(COLLECT))
    shutil.copy(VERSION_1 / "score.jsonl", "judged.jsonl")
    return tmp_path


def results(path: Path) -> dict[str, bytes]:
    """What a program wrote; times left out."""
    found = [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        str(file): file.read_bytes() for file in found if file.is_file() and file.suffix in (".jsonl", ".html")
    }


def one_line(capsys: pytest.CaptureFixture[str], program: str) -> str:
    said = [line for line in capsys.readouterr().err.splitlines() if " error: " in line or "Error" in line]
    assert len(said) == 1, said
    assert said[0].startswith(f"thinkprm {program}: error: ")
    return said[0]


@pytest.mark.parametrize("room", [16, 9000, 17_000])
@pytest.mark.parametrize("program", ["score", "evaluate", "search", "collect", "report"])
def test_a_full_disk_is_one_line_and_the_run_goes_on(place, capsys, program, room):
    arguments, name = COMMANDS[program]
    with room_for(room):
        status = cli.main([program, *arguments])
    assert status == 2
    said = one_line(capsys, program)
    assert said.partition("; ")[0].endswith("cannot be written: File too large")
    for path in place.rglob("*.jsonl"):
        assert all(json.loads(line) for line in path.read_bytes().splitlines()), path
    assert not list(place.rglob("*.tmp"))
    status = cli.main([program, *arguments])
    assert status in (0, 1)  # 1: of a collection without a chain that is kept, of version 1's row without steps
    gone_on = results(Path(name))
    assert gone_on
    shutil.rmtree(name) if Path(name).is_dir() else Path(name).unlink()
    assert cli.main([program, *arguments]) == status
    assert results(Path(name)) == gone_on


def test_a_full_disk_at_the_start_of_the_miniature(place, capsys):
    with room_for(16):
        assert cli.main(["miniature", *COMMANDS["miniature"][0]]) == 2
    assert "stages.json: cannot be written: File too large" in one_line(capsys, "miniature")
    assert not list(Path("small").iterdir())


@pytest.mark.parametrize("program", COMMANDS)
@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(30, "Read-only file system")])
def test_where_nothing_may_be_written(place, capsys, monkeypatch, program, error):
    def refuse(path: Any, mode: str = "r", *rest: Any, **named: Any) -> Any:
        if mode != "rb":
            raise error
        return open(path, mode, *rest, **named)

    for module in (files, output, writing):
        monkeypatch.setattr(module, "open", refuse, raising=False)
    assert cli.main([program, *COMMANDS[program][0]]) == 2
    assert f"cannot be written: {error.strerror}" in one_line(capsys, program)


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "solutions.jsonl", "--verifier", "guess", "--output", "{}"],
        ["evaluate", "solutions", "labelled.jsonl", "--verifier", "guess", "--details", "{}"],
        ["evaluate", "solutions", "labelled.jsonl", "--verifier", "guess", "--output", "{}"],
        ["evaluate", "solutions", "labelled.jsonl", "--verifier", "guess", "--output-dir", "{}"],
        ["search", "search.yaml", "output_dir={}"],
        ["collect", "collect.yaml", "output={}"],
        ["report", "judged.jsonl", "--output", "{}"],
        ["miniature", "--quick", "--output", "{}"],
        ["export", "no-run", "{}"],
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("/dev/null", "/dev/null: is a device, and the output must be a f"),
        ("pipe", "pipe: is a pipe, and the output must be a f"),
        ("ftp://host/run", "ftp://host/run: files are read and written at gs://, s3://"),
    ],
)
def test_results_go_into_files_alone(place, capsys, arguments, where, said):
    os.mkfifo("pipe")
    before = sorted(place.rglob("*"))
    try:
        status = cli.main([argument.format(where) for argument in arguments])
        assert said in one_line(capsys, arguments[0])
    except SystemExit as stopped:  # argparse's, of an option that no address may be
        status = stopped.code
        assert said in capsys.readouterr().err.splitlines()[-1]
    assert status == 2
    assert sorted(place.rglob("*")) == before
    assert not Path("/dev/null.waiting").exists()
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(
    "arguments",
    [
        ["score", "{}", "--verifier", "guess"],
        ["evaluate", "solutions", "{}", "--verifier", "guess"],
        ["evaluate", "selection", "{}"],
        ["search", "{}"],
        ["search", "search.yaml", "cached_solutions_path={}"],
        ["collect", "{}"],
        ["train", "{}"],
        ["report", "{}", "--output", "page.html"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_device_is_not_read(place, capsys, arguments):
    assert cli.main([argument.format("/dev/zero") for argument in arguments]) == 2
    assert "/dev/zero: is a device, not a file" in one_line(capsys, arguments[0])


def test_a_device_that_was_read_as_an_earlier_output(place, capsys):
    Path("out.jsonl").symlink_to("/dev/zero")
    assert cli.main(["score", *COMMANDS["score"][0]]) == 2
    assert "out.jsonl: is a device" in one_line(capsys, "score")


@pytest.mark.slow
def test_a_full_disk_in_a_process_of_its_own(place):
    rows = ({"problem": "2 + 2?", "steps": ["2 + 2 = 4."], "id": i, "note": LONG} for i in range(3))
    write("solutions.jsonl", *rows)
    command = [sys.executable, "-m", "thinkprm_jax.cli", "score", "solutions.jsonl", "--output", "real.jsonl"]
    settings = ["--max-gen-tokens", "8", "--max-length", "512", "--quiet"]
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "bash", *command, *settings]
    variables = environment(THINKPRM_JAX_CACHE="off")
    stopped = subprocess.run(limited, capture_output=True, text=True, env=variables, check=False)
    assert stopped.returncode == 2, stopped.stderr
    assert stopped.stderr.splitlines()[-1].endswith(
        "cannot be written: File too large; its lines are whole, and the same command goes on"
    )
    assert subprocess.run([*command, *settings], env=environment(), check=False).returncode == 0
    found = [json.loads(line) for line in Path("real.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "file", "field"),
    [
        (["score", "solutions.jsonl", "--n", "2", "--max-length", "512"], "score.jsonl", "verifier.weights"),
        (["evaluate", "solutions", "labelled.jsonl", "--n", "2"], "details.jsonl", "verifier.weights"),
        (["search", "best_of_n.yaml"], "best_of_n/verdicts.jsonl", "verifier.weights"),
        (["search", "best_of_n.yaml"], "best_of_n/completions.jsonl", "models.generator.weights"),
        (["search", "beam_search.yaml"], "beam_search/completions.jsonl", "models.verifier.weights"),
        (["collect", "collect.yaml"], "collection/generations.jsonl", "teacher.weights"),
        (["score", "solutions.jsonl", "--n", "2", "--max-length", "512"], "score.jsonl", "verifier.chat_template"),
        (["evaluate", "solutions", "labelled.jsonl", "--n", "2"], "details.jsonl", "verifier.tokenizer"),
        (["search", "best_of_n.yaml"], "best_of_n/verdicts.jsonl", "verifier.config"),
        (["search", "beam_search.yaml"], "beam_search/completions.jsonl", "models.generator.chat_template"),
        (["collect", "collect.yaml"], "collection/generations.jsonl", "teacher.tokenizer"),
    ],
)
def test_a_run_does_not_go_on_with_another_model_of_the_same_name(
    tmp_path, monkeypatch, capsys, arguments, file, field
):
    """Rows that say of their model what is no longer true of the one that lies there now."""
    shutil.copytree(VERSION_1, tmp_path / "runs")
    monkeypatch.chdir(tmp_path / "runs")
    path = Path(file)
    row = json.loads(path.read_text().splitlines()[0])
    inner = row
    *names, last = field.split(".")
    for name in names:
        inner = inner.setdefault(name, {})
    inner[last] = "that of before"
    write(file, row)
    if arguments[0] == "score":
        arguments = [*arguments, "--output", file]
    elif arguments[0] == "evaluate":
        arguments = [*arguments, "--max-length", "512", "--details", file]
    before = path.read_bytes()
    assert cli.main(arguments) == 2
    said = one_line(capsys, arguments[0])
    called = {"config": "configuration", "chat_template": "chat template"}.get(last, last)
    assert f"{file}:1: made by a model with the {called} that of before (`{field}`), this run's has " in said
    assert path.read_bytes() == before
