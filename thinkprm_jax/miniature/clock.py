"""Which stage of a long program runs, what each has taken, also in earlier parts of the run, and what is left."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from thinkprm_jax.errors import UserError
from thinkprm_jax.miniature.stages import MiniatureStage
from thinkprm_jax.records.files import write_json
from thinkprm_jax.tables import TableColumn, TextTable


@dataclasses.dataclass
class StageTime:
    """seconds: of all parts. done: of the stage's cost. torn: a part ended without saying so (kill -9, a lost
    machine), so the seconds are too few."""

    seconds: float = 0.0
    done: float = 0.0
    torn: bool = False
    open: bool = False


class StageClock:
    """Keeps the times of the stages in a file, so that a run that goes on knows what its earlier parts took.

    Args:
      file: JSON, written whenever a stage begins or ends. say: gets one line at the beginning of every stage.
    Raises:
      UserError: the file is not ours.
    """

    def __init__(self, file: Path, stages: Sequence[MiniatureStage], say: Callable[[str], None]) -> None:
        self._file, self._stages, self._say = file, list(stages), say
        known = _read(file)
        self._taken = {str(stage.folder): known.get(str(stage.folder), StageTime()) for stage in self._stages}
        for taken in self._taken.values():
            taken.torn, taken.open = taken.torn or taken.open, False

    @contextlib.contextmanager
    def running(self, stage: MiniatureStage) -> Iterator[None]:
        """Around a stage."""
        taken = self._taken[str(stage.folder)]
        finished = taken.done >= stage.cost
        number = self._stages.index(stage) + 1
        self._say(f"[{number}/{len(self._stages)}] {stage.what}  ({stage.folder})  {self._state(stage)}")
        started = time.monotonic()
        taken.open = not finished
        self._write()
        try:
            yield
            taken.done = stage.cost
        finally:
            if not finished:  # looking through what is there already is no work on it
                taken.seconds += time.monotonic() - started
            taken.open = False
            self._write()

    @property
    def seconds(self) -> float:
        """Of all stages, in all parts of the run."""
        return sum(taken.seconds for taken in self._taken.values())

    @property
    def left(self) -> float:
        """Seconds, at the pace of the work so far; at first, at that of the machine that the costs are of."""
        done = sum(taken.done for taken in self._taken.values())
        spent = sum(taken.seconds for taken in self._taken.values() if taken.done)
        pace = spent / done if done else 1.0
        return pace * sum(max(stage.cost - self._taken[str(stage.folder)].done, 0.0) for stage in self._stages)

    def _state(self, stage: MiniatureStage) -> str:
        if self._taken[str(stage.folder)].done >= stage.cost:
            return "is done already"
        return f"{duration(self.seconds)} so far, about {duration(self.left)} left"

    def table(self) -> TextTable:
        """A stage a row, with what it took and its command."""
        table = TextTable([TableColumn("stage"), TableColumn("time", right=True), TableColumn("command")])
        for stage in self._stages:
            taken = self._taken[str(stage.folder)]
            table.add(stage.what, ("over " if taken.torn else "") + duration(taken.seconds), stage.command)
        return table

    def as_rows(self) -> list[dict[str, object]]:
        """The same for JSON."""
        return [
            {
                "stage": stage.what,
                "folder": str(stage.folder),
                "seconds": round(self._taken[str(stage.folder)].seconds, 1),
                "seconds_are_complete": not self._taken[str(stage.folder)].torn,
                "command": stage.command,
            }
            for stage in self._stages
        ]

    def _write(self) -> None:
        content = {folder: dataclasses.asdict(taken) for folder, taken in self._taken.items()}
        write_json(self._file, content)


def _read(file: Path) -> dict[str, StageTime]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {folder: StageTime(**taken) for folder, taken in content.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{file}: does not hold the times of a run; remove it or choose another output") from error


def duration(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
