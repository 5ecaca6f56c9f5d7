"""How far a long run is, on stderr: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class ProgressBar:
    """A context manager around a run of ``total`` items; call :meth:`show` as they are done.

    Args:
      done: items finished by an earlier run. name: stands before the bar.
      prefix: begins a plain line. plain_seconds: between two plain lines.
      stays: the last state is left to be seen: the bar on a terminal, elsewhere a line at the end.
      quiet: says nothing at all.
    """

    def __init__(
        self,
        total: int,
        done: int = 0,
        *,
        name: str = "",
        prefix: str = "",
        plain_seconds: float = 20.0,
        stays: bool = False,
        quiet: bool = False,
    ) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._total, self._first, self._done = total, done, done
        self._prefix, self._plain_seconds, self._stays = prefix, plain_seconds, stays
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal and not quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(elapsed_when_finished=False, compact=True),
                console=self._console,
                transient=not stays,
            )
            self._task = self._bar.add_task(name, total=total, completed=done, text="")

    def __enter__(self) -> Self:
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

    def show(self, done: int, text: str) -> None:
        """So many items are finished; ``text`` stands beside the count."""
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, text=text)
            return
        now = time.monotonic()
        if now - self._last_line >= self._plain_seconds or (self._stays and done == self._total):
            self._last_line = now
            now_done = done - self._first  # before the first, nobody knows
            left = _duration((self._total - done) * self.seconds / now_done) if now_done else "?"
            self.say(f"{self._prefix}{done}/{self._total}  {text}  ETA {left}")

    def say(self, text: str) -> None:
        """A line on stderr, above the bar where there is one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class VerdictProgress(ProgressBar):
    """Of items that cost sampled tokens; ``unit``: what an item is called."""

    def __init__(self, total: int, done: int = 0, unit: str = "verdicts") -> None:
        super().__init__(total, done, name=unit)
        self._unit = unit

    def advance(self, tokens: int) -> None:
        """One item more; ``tokens``: all tokens sampled since the start."""
        seconds = max(self.seconds, 1e-9)
        done = self._done + 1
        rate = (done - self._first) / seconds
        self.show(done, f"{rate:,.1f} {self._unit}/s  {tokens / seconds:,.0f} tokens/s")


class TrainingProgress(ProgressBar):
    """Training steps with tokens/s, loss and the time left."""

    def __init__(self, total: int, done: int, plain_seconds: float = 20.0, quiet: bool = False) -> None:
        super().__init__(
            total, done, name="train", prefix="step ", plain_seconds=plain_seconds, stays=True, quiet=quiet
        )

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        self.show(step, f"loss {loss:.4f}  {tokens_per_second:,.0f} tokens/s")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
