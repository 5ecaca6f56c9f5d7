"""Damaged models, checkpoints, recipes and rows are read, or refused in one line, soon and in little memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.damage import Case, outcome
from support.damaged_cases import cases

AT_ONCE = 50


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return cases(tmp_path_factory.mktemp("good"))


def faults(found: list[Case], first: int, count: int, work: Path) -> list[str]:
    results = ((number, found[number % len(found)]) for number in range(first, first + count))
    outcomes = ((number, case.name, outcome(case, number, work / "case").fault) for number, case in results)
    return [f"{number} {name}: {fault}" for number, name, fault in outcomes if fault is not None]


def is_of_run(case: Case) -> bool:
    """Orbax takes half a second to read a checkpoint."""
    return case.name.startswith(("checkpoint", "export"))


@pytest.mark.parametrize("first", range(0, 150, AT_ONCE))
def test_damaged_files_are_read_or_refused_in_one_line(found: list[Case], first: int, tmp_path: Path) -> None:
    assert faults([case for case in found if not is_of_run(case)], first, AT_ONCE, tmp_path) == []


def test_damaged_runs_are_read_or_refused_in_one_line(found: list[Case], tmp_path: Path) -> None:
    assert faults([case for case in found if is_of_run(case)][::4], 0, 10, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("first", range(150, 2000, AT_ONCE))
def test_two_thousand_damaged_files(found: list[Case], first: int, tmp_path: Path) -> None:
    assert faults(found, first, AT_ONCE, tmp_path) == []


def test_the_good_files_are_read(found: list[Case]) -> None:
    for read, place in {(case.read, case.folder or case.good) for case in found}:
        read(place)
