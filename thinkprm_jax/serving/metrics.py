"""Figures of a server in Prometheus' text format."""

from __future__ import annotations

import bisect
import collections
import threading
import time
from collections.abc import Callable, Sequence

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
RATE_WINDOW = 10.0  # seconds that a rate is taken over


class Counter:
    """What only grows, by labels."""

    def __init__(self, name: str, help: str) -> None:
        self.name, self.help = name, help
        self._values: dict[tuple[tuple[str, str], ...], float] = {}
        self._lock = threading.Lock()

    def add(self, amount: float = 1, **labels: str) -> None:
        key = tuple(labels.items())
        with self._lock:
            self._values[key] = self._values.get(key, 0) + amount

    def total(self, **labels: str) -> float:
        """Over all that have these labels."""
        with self._lock:
            return sum(value for key, value in self._values.items() if set(labels.items()) <= set(key))

    def lines(self) -> list[str]:
        with self._lock:
            values = dict(self._values) or {(): 0.0}
        samples = [f"{self.name}{_labels(key)} {value:g}" for key, value in sorted(values.items())]
        return [*_head(self.name, self.help, "counter"), *samples]


class Gauge:
    """What a function says when it is asked."""

    def __init__(self, name: str, help: str, read: Callable[[], float], kind: str = "gauge") -> None:
        self.name, self.help, self._read, self._kind = name, help, read, kind

    def lines(self) -> list[str]:
        return [*_head(self.name, self.help, self._kind), f"{self.name} {self._read():.10g}"]


class Histogram:
    """Seconds, in buckets."""

    def __init__(self, name: str, help: str, buckets: Sequence[float] = SECONDS) -> None:
        self.name, self.help, self._buckets = name, help, tuple(buckets)
        self._counts, self._sum = [0] * (len(self._buckets) + 1), 0.0
        self._lock = threading.Lock()

    def add(self, seconds: float) -> None:
        with self._lock:
            self._counts[bisect.bisect_left(self._buckets, seconds)] += 1
            self._sum += seconds

    def lines(self) -> list[str]:
        with self._lock:
            counts, total = list(self._counts), self._sum
        lines, below = _head(self.name, self.help, "histogram"), 0
        for bound, count in zip((*map("{:g}".format, self._buckets), "+Inf"), counts, strict=True):
            below += count
            lines.append(f'{self.name}_bucket{{le="{bound}"}} {below}')
        return [*lines, f"{self.name}_sum {total:.9g}", f"{self.name}_count {below}"]


class CounterRate:
    """How fast a counter grows, over the last seconds.

    Args:
      read: the counter. clock: seconds.
    """

    def __init__(self, read: Callable[[], float], clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock = read, clock
        self._seen = collections.deque([(clock(), read())])
        self._lock = threading.Lock()

    def __call__(self) -> float:
        with self._lock:
            now, value = self._clock(), self._read()
            self._seen.append((now, value))
            while len(self._seen) > 2 and self._seen[1][0] <= now - RATE_WINDOW:
                self._seen.popleft()
            began, before = self._seen[0]
        return (value - before) / (now - began) if now > began else 0.0


def exposition(metrics: Sequence[Counter | Gauge | Histogram]) -> str:
    """All of them, as Prometheus reads them."""
    return "\n".join(line for metric in metrics for line in metric.lines()) + "\n"


def _head(name: str, help: str, kind: str) -> list[str]:
    return [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]


def _labels(key: tuple[tuple[str, str], ...]) -> str:
    if not key:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in key) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
