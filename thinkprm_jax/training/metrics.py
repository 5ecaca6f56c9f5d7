"""What a run says while it trains: metrics.jsonl and the rates in it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any, Protocol

from thinkprm_jax.data.batches import Batch
from thinkprm_jax.records.files import atomic_write, has_lines, read_line_file
from thinkprm_jax.storage import Location, ObjectPath, PartLog, location, write_whole
from thinkprm_jax.training.flops import StepFlops
from thinkprm_jax.training.goodput import Goodput


class _Lines(Protocol):
    def append(self, line: bytes) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class MetricsLog:
    """metrics.jsonl: one JSON object a line; null for what is no finite number.

    A run that goes on drops the lines after ``resumed_step``. On a disk a line is there when it is written, in a
    bucket after :meth:`flush`, or half a minute.
    """

    def __init__(self, path: str | Location, resumed_step: int = 0) -> None:
        place = location(path)
        kept = b"".join(line for line in _whole_lines(place) if json.loads(line).get("step", 0) <= resumed_step)
        self._lines: _Lines = _FileLines(place, kept) if isinstance(place, Path) else _StoredLines(place, kept)

    def write(self, values: dict[str, Any]) -> None:
        line = json.dumps({name: _written(value) for name, value in values.items()}) + "\n"
        self._lines.append(line.encode())

    def flush(self) -> None:
        """What has been written is where it belongs: called before a checkpoint is saved, after which no step
        before it is done again."""
        self._lines.flush()

    def close(self) -> None:
        self._lines.close()


class _FileLines:
    def __init__(self, path: Path, kept: bytes) -> None:
        atomic_write(path, kept)
        # Without a buffer: what a full disk refused must not be tried once more when the file is closed.
        self._file = path.open("ab", buffering=0)

    def append(self, line: bytes) -> None:
        while line:
            line = line[self._file.write(line) or 0 :]

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()


class _StoredLines:
    """An object cannot grow: lines go into numbered parts, and become one file when the run ends."""

    def __init__(self, place: ObjectPath, kept: bytes) -> None:
        if place.exists() or kept:
            write_whole(place, kept)  # this file counts, whatever parts a killed run has left
        self._log = PartLog(place)
        if not kept:
            self._log.discard()

    def append(self, line: bytes) -> None:
        self._log.append(line)

    def flush(self) -> None:
        self._log.flush()

    def close(self) -> None:
        self._log.seal()


def _whole_lines(place: Location) -> list[bytes]:
    lines = list(read_line_file(place)) if has_lines(place) else []
    return [line for line in lines if line.endswith(b"\n")]  # a killed run may leave half a line


def _written(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return float(f"{value:.7g}") if abs(value) < 1e7 else value


_PARTS = ("data", "compute", "compile", "save", "evaluate")


class Rates:
    """Tokens and seconds since the last line of metrics.

    Args:
      flops: of a step; peak: FLOP/s of all devices together. Both or no MFU.
      goodput: of the run so far, which goes on; None: it begins now.
    Attributes:
      seconds: what the time went into; the loop adds to it. ``data``: waiting for a batch; ``compute``: for a
        step; ``compile``: for its program; ``save``: starting a checkpoint; ``evaluate``: held-out loss and
        verdicts, no part of any rate.
    """

    def __init__(
        self, flops: StepFlops | None = None, peak: float | None = None, goodput: Goodput | None = None
    ) -> None:
        self._flops, self.peak = flops, peak
        self.goodput = Goodput(time.time()) if goodput is None else goodput
        self.seconds = dict.fromkeys(_PARTS, 0.0)
        self.reset()

    def reset(self) -> None:
        self.goodput.add(self.seconds)
        self._start = time.perf_counter()
        self._steps = self._tokens = self._targets = self._capacity = 0
        self._operations = 0.0
        self.seconds = dict.fromkeys(_PARTS, 0.0)

    def add(self, batch: Batch) -> None:
        """A step on ``batch``."""
        self._steps += 1
        self._tokens += batch.real_tokens
        self._targets += batch.target_tokens
        self._capacity += batch.capacity
        if self._flops is not None:
            self._operations += self._flops.of(batch)

    def summary(self) -> dict[str, float]:
        """Rates over all the time but evaluation's; the shares are of that time, too."""
        seconds = max(time.perf_counter() - self._start - self.seconds["evaluate"], 1e-9)
        rates = {
            "tokens_per_second": self._tokens / seconds,
            "target_tokens_per_second": self._targets / seconds,
            "step_seconds": seconds / max(self._steps, 1),
            **{f"{part}_share": self.seconds[part] / seconds for part in ("data", "compute", "compile", "save")},
            "padding_share": 1 - self._tokens / max(self._capacity, 1),
        }
        if self._flops is not None and self.peak is not None:
            rates["mfu"] = self._operations / (seconds * self.peak)
        return rates | self.goodput.shares(self.seconds)
