"""What stages took and what is left, over the parts of a run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from thinkprm_jax.errors import UserError
from thinkprm_jax.miniature.clock import StageClock, duration
from thinkprm_jax.miniature.stages import RunSearch


@dataclasses.dataclass(frozen=True)
class Fake:
    folder: Path
    what: str
    cost: float
    command: str = "thinkprm search it"

    def run(self, search: RunSearch) -> int:
        return 0


STAGES = [Fake(Path("a"), "first", 10.0), Fake(Path("b"), "second", 30.0)]


@pytest.fixture
def time(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def start(tmp_path, lines):
    return lambda stages=STAGES: StageClock(tmp_path / "stages.json", stages, lines.append)


def take(clock: StageClock, stage: Fake, time: list[float], seconds: float) -> None:
    with clock.running(stage):
        time[0] += seconds


def test_the_time_left_is_the_costs_left_at_the_pace_so_far(start, time, lines) -> None:
    clock = start()
    assert clock.left == 40.0
    take(clock, STAGES[0], time, 5.0)  # twice as fast as its cost says
    assert clock.left == 15.0
    take(clock, STAGES[1], time, 1.0)
    assert clock.left == 0.0
    assert lines[1] == "[2/2] second  (b)  0:05 so far, about 0:15 left"


def test_a_stage_that_is_stopped_keeps_its_time_and_goes_on(start, time) -> None:
    def stop() -> None:
        with start().running(STAGES[0]):
            time[0] += 3.0
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    clock = start()
    assert clock.seconds == 3.0
    take(clock, STAGES[0], time, 4.0)
    assert clock.as_rows()[0]["seconds"] == 7.0
    assert clock.as_rows()[0]["seconds_are_complete"] is True


def test_looking_through_a_finished_stage_takes_no_time(start, time, lines) -> None:
    take(start(), STAGES[0], time, 5.0)
    clock = start()
    take(clock, STAGES[0], time, 2.0)
    assert clock.seconds == 5.0
    assert lines[-1].endswith("is done already")


def test_a_stage_with_more_to_do_than_before_is_not_done(start, time) -> None:
    take(start(), STAGES[0], time, 5.0)
    larger = [dataclasses.replace(STAGES[0], cost=20.0)]
    clock = start(larger)
    assert clock.left == 5.0
    take(clock, larger[0], time, 6.0)
    assert clock.seconds == 11.0


def test_a_part_that_was_killed_is_told(start, time, tmp_path) -> None:
    with start().running(STAGES[0]):
        killed = (tmp_path / "stages.json").read_text()
    (tmp_path / "stages.json").write_text(killed)
    clock = start()
    take(clock, STAGES[0], time, 4.0)
    assert clock.as_rows()[0]["seconds_are_complete"] is False
    assert clock.table().rows[0][1] == "over 0:04"


@pytest.mark.parametrize("content", ["[]", "{", json.dumps({"a": {"hours": 1}})])
def test_a_file_of_something_else_is_refused(start, tmp_path, content) -> None:
    (tmp_path / "stages.json").write_text(content)
    with pytest.raises(UserError, match="does not hold the times of a run"):
        start()


def test_minutes_and_seconds() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.6, 754.0)] == ["0:00", "1:00", "12:34"]
