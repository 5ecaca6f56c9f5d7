"""What docs/architecture.md walks through is what runs: one solution to one verdict, file by file."""

import re
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import thinkprm_jax
from thinkprm_jax import ThinkPRM

ROOT = Path(thinkprm_jax.__file__).parent
PROBLEM = "Tom has 78 lemons. Tom buys 12 at the market. Tom collects 4 more. How many lemons are there now?"
STEPS = ["78 + 12 = 90, so there are 90 lemons.", "90 + 4 = 94, so there are 94 lemons."]
MOST_FILES = 19


def files_of_a_verdict() -> set[str]:
    """Of our own, those in which a function is called for the second verdict: the first one compiles."""
    seen: set[str] = set()
    records = False

    def profile(frame: FrameType, event: str, _: Any) -> None:
        if records and event == "call" and frame.f_code.co_filename.startswith(str(ROOT)):
            seen.add(Path(frame.f_code.co_filename).relative_to(ROOT).as_posix())

    threading.setprofile(profile)  # the sampler's threads too
    sys.setprofile(profile)
    try:
        prm = ThinkPRM("mini")
        prm.predict_correctness_batch([PROBLEM], [STEPS])
        records = True
        [result] = prm.predict_correctness_batch([PROBLEM], [STEPS])
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert result["step_labels"] == [[1, 1]]
    return seen


def test_a_verdict_goes_through_the_files_that_architecture_walks_through() -> None:
    page = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    walk = re.findall(r"^\d+\. \*\*`([\w/.]+)`\*\*", page, flags=re.MULTILINE)
    assert len(walk) <= MOST_FILES
    assert files_of_a_verdict() == set(walk)


def test_every_file_is_in_the_rooms_of_architecture() -> None:
    page = (ROOT.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)/` \| (.+) \|$", page, flags=re.MULTILINE))
    for room, text in rows.items():
        folder = next(path for path in (ROOT / room, ROOT.parent / room) if path.is_dir())
        files = {path.name for path in folder.rglob("*.py")} - {"__init__.py"}
        assert files == set(re.findall(r"`(\w+\.py)`", text)), room
    rooms = {path.name for path in ROOT.iterdir() if path.is_dir() and list(path.glob("[!_]*.py"))}
    assert rooms | {"train", "infer"} == set(rows)
