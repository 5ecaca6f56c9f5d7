"""Tens of thousands of lines: memory does not grow with them, when they are judged and when a run goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.processes import answer

SCORE = """
import json, sys
from support import guess_verifier
from thinkprm_jax.cli import main
from thinkprm_jax.verifier.registry import Registration, register

register(Registration("guess", "support.guess_verifier:Guess"))
status = main(["score", sys.argv[1], "--output", sys.argv[2], "--verifier", "guess", "--quiet"])
# Not ru_maxrss: of a new process it begins with that of its parent.
[most] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(json.dumps([status, int(most) / 1024]))
"""
LINES = 50_000
MOST_MORE = 40  # MB; an index of the lines, and what is missing, take 12 bytes a line


def write(path: Path, count: int) -> Path:
    with path.open("w") as file:
        for number in range(count):
            row = {"id": number, "problem": f"{number} + 1? " + "x" * 100, "steps": ["y" * 40, "z" * 40]}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.mark.slow
def test_memory_does_not_grow_with_the_lines(tmp_path: Path) -> None:
    _, few = answer(SCORE, write(tmp_path / "few.jsonl", 100), tmp_path / "few_out.jsonl")
    source, out = write(tmp_path / "many.jsonl", LINES), tmp_path / "many_out.jsonl"
    status, many = answer(SCORE, source, out)
    assert status == 0
    print(f"MB: {few:.0f} for 100 lines, {many:.0f} for {LINES:,}")
    assert many < few + MOST_MORE
    whole = out.read_bytes()
    assert whole.count(b"\n") == LINES
    with out.open("r+b") as file:
        file.truncate(len(whole) - 100)
    status, again = answer(SCORE, source, out)
    assert status == 0
    assert again < few + MOST_MORE
    assert out.read_bytes() == whole
