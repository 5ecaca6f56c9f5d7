"""What a run says while it trains: metrics.jsonl, and a progress bar or plain lines."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class MetricsLog:
    """metrics.jsonl: one JSON object a line, flushed. A run that goes on drops lines after ``resumed_step``."""

    def __init__(self, path: str | Path, resumed_step: int = 0) -> None:
        path = Path(path)
        kept = [line for line in _whole_lines(path) if json.loads(line).get("step", 0) <= resumed_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(kept), encoding="utf-8")
        os.replace(temporary, path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, values: dict[str, Any]) -> None:
        self._file.write(json.dumps({name: _rounded(value) for name, value in values.items()}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _rounded(value: Any) -> Any:
    return float(f"{value:.7g}") if isinstance(value, float) and value < 1e7 else value


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]  # a killed run may leave half a line


class ProgressReport:
    """A rich progress bar with tokens/s, loss and ETA on a terminal; else a plain line now and then."""

    def __init__(self, total: int, done: int, plain_seconds: float = 20.0) -> None:
        self._console = Console(stderr=True)
        self._total, self._first, self._plain_seconds = total, done, plain_seconds
        self._started = self._last_line = time.monotonic()
        self._progress: Progress | None = None
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("train"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(elapsed_when_finished=False, compact=True),
                console=self._console,
            )
            self._task = self._progress.add_task("train", total=total, completed=done, text="")
            self._progress.start()

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        text = f"loss {loss:.4f}  {tokens_per_second:,.0f} tokens/s"
        if self._progress is not None:
            self._progress.update(self._task, completed=step, text=text)
            return
        now = time.monotonic()
        if now - self._last_line >= self._plain_seconds or step == self._total:
            self._last_line = now
            eta = (self._total - step) * (now - self._started) / max(step - self._first, 1)
            self._console.print(f"step {step}/{self._total}  {text}  ETA {_duration(eta)}", highlight=False)

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


class Rates:
    """Tokens and seconds since the last line of metrics, by what the time went into."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._start = time.perf_counter()
        self.steps = self.tokens = self.targets = self.places = 0
        self.seconds = {"data": 0.0, "save": 0.0, "evaluate": 0.0}

    def add(self, tokens: int, targets: int, places: int) -> None:
        self.steps += 1
        self.tokens += tokens
        self.targets += targets
        self.places += places

    def summary(self) -> dict[str, float]:
        """Rates over all the time but evaluation's; data and save are shares of it."""
        seconds = max(time.perf_counter() - self._start - self.seconds["evaluate"], 1e-9)
        return {
            "tokens_per_second": self.tokens / seconds,
            "target_tokens_per_second": self.targets / seconds,
            "step_seconds": seconds / max(self.steps, 1),
            "data_share": self.seconds["data"] / seconds,
            "save_share": self.seconds["save"] / seconds,
            "padding_share": 1 - self.tokens / max(self.places, 1),
        }
