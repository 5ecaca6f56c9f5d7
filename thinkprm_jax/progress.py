"""How far a run of verdicts is, on stderr: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class VerdictProgress:
    """A context manager; call :meth:`advance` for every finished item.

    Args:
      total: items there are. done: of those, finished by an earlier run.
      unit: what an item is called.
      plain_seconds: between two lines where stderr is no terminal.
    """

    def __init__(self, total: int, done: int = 0, unit: str = "verdicts", plain_seconds: float = 20.0) -> None:
        self._console = Console(stderr=True)
        self._total, self._first, self._done, self._unit = total, done, done, unit
        self._plain_seconds = plain_seconds
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rates]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(elapsed_when_finished=False, compact=True),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(unit, total=total, completed=done, rates="")

    def __enter__(self) -> VerdictProgress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def console(self) -> Console:
        """Whatever is printed here while the bar is shown moves it down instead of being written over."""
        return self._console

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._started

    def advance(self, tokens: int) -> None:
        """One item more; ``tokens``: all tokens sampled since the start."""
        self._done += 1
        seconds = max(self.seconds, 1e-9)
        rate = (self._done - self._first) / seconds
        rates = f"{rate:,.1f} {self._unit}/s  {tokens / seconds:,.0f} tokens/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rates=rates)
            return
        now = time.monotonic()
        if now - self._last_line >= self._plain_seconds:
            self._last_line = now
            left = _duration((self._total - self._done) / rate)
            self.say(f"{self._done}/{self._total}  {rates}  ETA {left}")

    def say(self, text: str) -> None:
        """A line on stderr, above the bar where there is one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
