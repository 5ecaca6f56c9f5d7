"""What the exit status of `thinkprm train` tells a launcher."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from support import tiny_training

pytestmark = pytest.mark.slow

STOPPED = ("--status-if-stopped", "75", "steps=100000", "checkpoint.every_steps=1000000")


def test_a_launcher_can_tell_a_stopped_run_from_a_complete_one(tmp_path: Path) -> None:
    recipe, cache = tiny_training.write_recipe(tmp_path), tmp_path / "cache"
    process = tiny_training.start(recipe, cache, *STOPPED)
    while len(tiny_training.metrics(tmp_path / "run")) < 2:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said

    short = tiny_training.write_recipe(tmp_path, output=str(tmp_path / "short"), steps=2)
    tiny_training.finish(tiny_training.start(short, cache, "--status-if-stopped", "75"))
