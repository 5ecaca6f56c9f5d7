"""`thinkprm score` as a process: what it says while it works, on a terminal and in a pipe."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from support import tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def command(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("live")
    model = tiny_model.save_folder(folder / "tiny")
    rows = [{"problem": f"{number} + 1?", "steps": [f"{number} + 1 = {number + 1}"]} for number in range(6)]
    (folder / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--max-gen-tokens", "300", "--max-length", "768", "--slots", "2"]
    program = [sys.executable, "-m", "thinkprm_jax.cli", "score"]
    return [*program, str(folder / "in.jsonl"), "--model", str(model), *options]


def environment() -> dict[str, str]:
    return {**os.environ, "TERM": "xterm", "COLUMNS": "120", "THINKPRM_JAX_CACHE": "off", "JAX_PLATFORMS": "cpu"}


def test_on_a_terminal_there_is_a_word_from_the_start(command: list[str]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env=environment()) as process:
        os.close(theirs)
        seen = b""
        with contextlib.suppress(OSError):
            while piece := os.read(ours, 65536):
                seen += piece
    os.close(ours)
    text = seen.decode()
    assert process.returncode == 0
    assert "0/6" in text
    assert "compiling program 1" in text or "decoding" in text
    assert "chains running" in text
    assert "6 solutions in" in text


def test_a_pipe_has_verdicts_on_stdout_and_words_on_stderr(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert done.returncode == 0
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [str(number) for number in range(1, 7)]
    assert "\x1b" not in done.stderr
    assert "6 solutions in" in done.stderr
    assert "this model is probably no verifier" in done.stderr
