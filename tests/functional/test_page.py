"""The page for people: its programs run, one after the other, and print what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "jit.md"


@pytest.mark.slow
def test_the_programs_of_the_page_run(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    found: dict = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), found)
    right, wrong = found["verdicts"].prefix_score
    assert right > 0.9 > 0.1 > wrong
    assert found["verdicts"].step_labels[:, 0].tolist() == [1, 0]
    assert found["value"] > 0
    assert capsys.readouterr().out
