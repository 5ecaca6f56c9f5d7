"""How far a long run is and what it is doing, on stderr: a bar and a line below it that changes every second on a
terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import collections
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from thinkprm_jax.activity import Activity, CompilationWatch

logger = logging.getLogger(__name__)

PLAIN_SECONDS = 30.0  # between two lines in a pipe
TICK_SECONDS = 1.0
LOOK_SECONDS = 5.0  # between two looks at how far other processes are
_LASTING = 2.0  # seconds after which a pipe is told that something new is being done
_SHORT = 0.5  # seconds of a compilation that nobody is told of
_WINDOW = 60.0  # seconds that a rate is taken over: a chunk of a large model on a CPU takes twenty


class Ticker:
    """Calls ``tick`` every ``seconds`` in a thread of its own, until it is left. Signals go to the main thread."""

    def __init__(self, seconds: float, tick: Callable[[], None]) -> None:
        self._seconds, self._tick = seconds, tick
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="thinkprm progress", daemon=True)

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                self._tick()
            except Exception:  # what is shown must not end what is computed
                logger.debug("the progress could not be shown", exc_info=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Rate:
    """How fast a counter grows, over the last minute."""

    def __init__(self) -> None:
        self._seen: collections.deque[tuple[float, int]] = collections.deque()

    def __call__(self, now: float, count: int) -> tuple[int, float]:
        """Takes in the counter's state. Returns: (growth, in how many seconds)."""
        self._seen.append((now, count))
        while len(self._seen) > 2 and self._seen[1][0] <= now - _WINDOW:
            self._seen.popleft()
        then, before = self._seen[0]
        return count - before, now - then


class ProgressBar:
    """A context manager around a run of ``total`` items; call :meth:`show` as they are done.

    What is done meanwhile is told by :meth:`phase`, or asked for once a second (:meth:`follow`).

    Args:
      total: None: nobody counts items, only what is done is shown.
      done: items finished by an earlier run. name: stands before the bar.
      prefix: begins a plain line. plain_seconds: between two plain lines.
      stays: the last state is left to be seen: the bar on a terminal, elsewhere a line at the end.
      quiet: says nothing at all.
      clock: seconds. tick_seconds: between two looks; 0: nobody looks, :meth:`tick` is called from outside.
    """

    def __init__(
        self,
        total: int | None,
        done: int = 0,
        *,
        name: str = "",
        prefix: str = "",
        plain_seconds: float = PLAIN_SECONDS,
        stays: bool = False,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        tick_seconds: float = TICK_SECONDS,
    ) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._total, self._first, self._done = total, done, done
        self._name, self._prefix, self._plain_seconds, self._stays = name, prefix, plain_seconds, stays
        self._clock = clock
        self._started = self._last_line = self._worked_from = self._changed = clock()
        self._text, self._phase, self._phase_from = "", "", clock()
        self._sources: Mapping[str, Callable[[], Activity]] = {}
        self._rates: dict[str, Rate] = {}
        self._items, self._items_left = "", 0
        self._compilations = CompilationWatch(clock)
        self._open = self._works = False
        self._announced: set[str] = set()  # what a pipe was told is being done
        self._current = ""  # what was being done at the last look
        self._lock = threading.RLock()
        self._ticker = Ticker(tick_seconds, self.tick) if tick_seconds > 0 and not quiet else None
        self._quiet = quiet
        self._bar: _Bar | None = None
        if self._console.is_terminal and not quiet:
            self._bar = _Bar(self._console, transient=not stays, clock=clock)
            self._task = self._bar.add_task(name, total=total, completed=done, visible=total is not None)

    def __enter__(self) -> Self:
        self._open = True
        if self._bar is not None:
            self._bar.start()
        if self._ticker is not None:
            self._ticker.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._compilations.stop()
        try:
            if self._ticker is not None:
                self._ticker.__exit__()
        finally:  # a second Ctrl-C must not leave a terminal without its cursor
            if self._bar is not None:
                self._bar.status = ""
                self._bar.stop()

    @property
    def console(self) -> Console:
        """Whatever is printed here while the bar is shown moves it down instead of being written over."""
        return self._console

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._started

    # What is done

    def phase(self, text: str) -> None:
        """What is being done from now on, such as "loading mini"; what was followed is so no more."""
        with self._lock:
            self._watch_compilations()
            self._phase, self._sources, self._phase_from = text, {}, self._clock()

    def follow(
        self, sources: Mapping[str, Callable[[], Activity]], items: str = "chains", count: int | None = None
    ) -> None:
        """Shows from now on what these are doing.

        Args:
          sources: name -> what it does; "" where there is one alone.
          items: what its requests are called. count: how many there are to be, from now on; None: nobody knows.
        """
        with self._lock:
            self._watch_compilations()
            self._phase, self._sources = "", sources
            began = {name: source() for name, source in sources.items()}
            self._rates = {name: Rate() for name in sources}
            for name, activity in began.items():
                self._rates[name](self._clock(), activity.tokens)
            finished = sum(activity.finished for activity in began.values())
            self._items, self._items_left = items, 0 if count is None else count + finished
            if not self._works:  # of a wave more the time goes on
                self._works, self._worked_from = True, self._clock()

    def _watch_compilations(self) -> None:
        if self._open and not self._quiet:
            self._compilations.start()

    def begin(self, total: int, done: int = 0) -> None:
        """The items begin only now, and only now it is known how many there are."""
        with self._lock:
            self._total, self._first, self._done = total, done, done
            self._started = self._worked_from = self._clock()
            self.phase("")
            if self._bar is not None:
                self._bar.reset(self._task, total=total, completed=done, visible=True)

    def show(self, done: int, text: str = "") -> None:
        """So many items are finished; ``text`` stands beside the count."""
        with self._lock:
            self._done, self._text = done, text
            if self._bar is not None:
                self._bar.update(self._task, completed=done)
                if self._bar.is_stale:
                    self.tick()
            elif self._is_time_for_a_line() or (self._stays and done == self._total):
                self._say_line()

    def say(self, text: str) -> None:
        """A line on stderr, above the bar where there is one."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    # The look, once a second

    def tick(self) -> None:
        """Brings what is shown up to date."""
        with self._lock:
            status, key = self._status()
            now = self._clock()
            if key != self._current:
                self._current, self._changed = key, now
            if self._bar is not None:
                self._bar.status = "  ".join(filter(None, [status, self._text, self._eta()]))
                self._bar.refresh()
            elif not self._quiet:
                is_new = key != "" and key not in self._announced and now - self._changed >= _LASTING
                if is_new or self._is_time_for_a_line():
                    self._announced.add(key)
                    self._say_line()

    def _is_time_for_a_line(self) -> bool:
        return self._clock() - self._last_line >= self._plain_seconds

    def _say_line(self) -> None:
        self._last_line = self._clock()
        count, status = "" if self._total is None else f"{self._done}/{self._total}{self._unit}", self._status()[0]
        if not (count or status):
            return
        parts = [count, status, self._text, self._eta() or ("" if self._total is None else "ETA ?")]
        self.say(f"{self._prefix}{'  '.join(filter(None, parts))}")

    @property
    def _unit(self) -> str:
        return f" {self._name}" if self._name and not self._prefix else ""

    def _eta(self) -> str:
        """Before the first item nobody knows."""
        now_done = self._done - self._first
        if self._total is None or not now_done:
            return ""
        seconds = self._clock() - self._worked_from
        return f"ETA {_duration((self._total - self._done) * seconds / now_done)}"

    def _status(self) -> tuple[str, str]:
        """(what is being done, what of it makes it another thing)."""
        compiling = self._compilations.current
        if compiling is not None and compiling[1] >= _SHORT:
            number, seconds = compiling
            return f"compiling program {number} ({seconds:.0f} s)", f"compiling {number}"
        now = self._clock()
        if not self._sources:
            seconds = int(now - self._phase_from)
            return (f"{self._phase} ({seconds} s)" if self._phase and seconds else self._phase), self._phase
        told = [
            self._describe(name, activity, self._rates[name](now, activity.tokens))
            for name, activity in [(name, source()) for name, source in self._sources.items()]
        ]
        return "; ".join(text for text, _ in told), " ".join(key for _, key in told)

    def _describe(self, name: str, activity: Activity, sampled: tuple[int, float]) -> tuple[str, str]:
        doing = " ".join(filter(None, [name, activity.doing or ("idle" if name else "")]))
        running = ""
        if activity.running:
            left = self._items_left - activity.finished
            of = f" of {left:,}" if left >= activity.running else ""
            running = f"{activity.running:,}{of} {self._items} running"
        return ", ".join(filter(None, [doing, running, spell_rate(*sampled, "token")])), doing


class _Bar(Progress):
    """rich's bar, with the status on a line of its own, drawn when somebody asks."""

    def __init__(self, console: Console, transient: bool, clock: Callable[[], float]) -> None:
        self.status = ""
        self._seconds, self._drawn = clock, float("-inf")
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=transient,
            auto_refresh=False,
            # rich would print what goes to stdout on its own console, stderr: not what somebody pipes elsewhere.
            redirect_stdout=sys.stdout.isatty(),
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.status:
            yield Text(self.status, style="dim", no_wrap=True, overflow="ellipsis")

    @property
    def is_stale(self) -> bool:
        """It was not drawn a moment ago."""
        return self._seconds() - self._drawn >= 0.1

    def refresh(self) -> None:
        self._drawn = self._seconds()
        super().refresh()


class VerdictProgress(ProgressBar):
    """Of items that are judged or written; ``unit``: what one of them is called."""

    def __init__(self, total: int, done: int = 0, unit: str = "verdict", quiet: bool = False) -> None:
        super().__init__(total, done, name=f"{unit}s", quiet=quiet)
        self._one = unit

    def advance(self) -> None:
        """One item more."""
        done = self._done + 1
        self.show(done, spell_rate(done - self._first, self._clock() - self._worked_from, self._one))


class TrainingProgress(ProgressBar):
    """Training steps with tokens/s, loss and the time left."""

    def __init__(
        self, total: int | None = None, done: int = 0, plain_seconds: float = PLAIN_SECONDS, quiet: bool = False
    ) -> None:
        super().__init__(
            total, done, name="train", prefix="step ", plain_seconds=plain_seconds, stays=True, quiet=quiet
        )

    def update(self, step: int, loss: float, tokens_per_second: float) -> None:
        self.show(step, f"loss {loss:.4f}  {spell_rate(tokens_per_second, 1.0, 'token')}")


def spell_rate(count: float, seconds: float, unit: str) -> str:
    """Such as "230 tokens/s", "2.3 tokens/s", and where it takes longer "1.28 s a token"; "" of nothing.

    Example:

        spell_rate(3, 7.5, "solution")  # 2.50 s a solution

    Args:
      count: how many, in so many ``seconds``. unit: what one is called.
    """
    if count <= 0 or seconds <= 0:
        return ""
    rate = count / seconds
    if rate >= 1:
        return f"{rate:,.0f} {unit}s/s" if rate >= 10 else f"{rate:.1f} {unit}s/s"
    each = seconds / count
    if each < 120:
        return f"{each:.0f} s a {unit}" if each >= 10 else f"{each:.2f} s a {unit}"
    return f"{each / 60:.0f} min a {unit}" if each >= 600 else f"{each / 60:.1f} min a {unit}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
