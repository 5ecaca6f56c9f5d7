"""Every command of configs/evaluate is one that the program takes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from infer.evaluate_options import parse_options

SCRIPTS = sorted((Path(__file__).parents[2] / "configs/evaluate").glob("*.sh"))
COMMAND = ["thinkprm", "evaluate"]


def test_there_are_scripts() -> None:
    assert [script.name.split("_")[0] for script in SCRIPTS] == ["e0", "e10", "e1", "e2", "e3"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_commands_are_taken_and_none_writes_where_another_does(script: Path) -> None:
    lines = [
        line
        for line in script.read_text().splitlines()
        if line and not line.startswith(("#", "set ", "thinkprm()"))
    ]
    folders = []
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == COMMAND, line
        folders.append(parse_options(words[2:]).output_dir)
    assert None not in folders
    assert len(set(folders)) == len(folders)


def test_the_curve_of_labels_is_over_what_the_script_evaluates() -> None:
    script = next(script for script in SCRIPTS if script.name.startswith("e2"))
    commands = [
        parse_options(shlex.split(line)[2:])
        for line in script.read_text().splitlines()
        if line.startswith("thinkprm evaluate")
    ]
    *evaluations, curve = commands
    files = {point.partition("=")[2] for point in curve.points}
    assert files == {f"{evaluation.output_dir}/figures.json" for evaluation in evaluations}
