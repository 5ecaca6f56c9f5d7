"""What a run says while it trains: metrics.jsonl and the rates in it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from thinkprm_jax.data.batches import Batch
from thinkprm_jax.records.files import atomic_write
from thinkprm_jax.training.flops import StepFlops


class MetricsLog:
    """metrics.jsonl: one JSON object a line, flushed; null for what is no finite number.

    A run that goes on drops the lines after ``resumed_step``.
    """

    def __init__(self, path: str | Path, resumed_step: int = 0) -> None:
        path = Path(path)
        kept = [line for line in _whole_lines(path) if json.loads(line).get("step", 0) <= resumed_step]
        atomic_write(path, "".join(kept))
        # Without a buffer: what a full disk refused must not be tried once more when the file is closed.
        self._file = path.open("ab", buffering=0)

    def write(self, values: dict[str, Any]) -> None:
        left = (json.dumps({name: _written(value) for name, value in values.items()}) + "\n").encode()
        while left:
            left = left[self._file.write(left) or 0 :]

    def close(self) -> None:
        self._file.close()


def _written(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    return float(f"{value:.7g}") if abs(value) < 1e7 else value


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n")]  # a killed run may leave half a line


class Rates:
    """Tokens and seconds since the last line of metrics.

    Args:
      flops: of a step; peak: FLOP/s of all devices together. Both or no MFU.
    Attributes:
      seconds: what the time went into; the loop adds to it. ``data``: waiting for a batch; ``compute``: for a
        step; ``save``: starting a checkpoint; ``evaluate``: held-out loss and verdicts, no part of any rate.
    """

    def __init__(self, flops: StepFlops | None = None, peak: float | None = None) -> None:
        self._flops, self.peak = flops, peak
        self.reset()

    def reset(self) -> None:
        self._start = time.perf_counter()
        self._steps = self._tokens = self._targets = self._capacity = 0
        self._operations = 0.0
        self.seconds = {"data": 0.0, "compute": 0.0, "save": 0.0, "evaluate": 0.0}

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
            **{f"{part}_share": self.seconds[part] / seconds for part in ("data", "compute", "save")},
            "padding_share": 1 - self._tokens / max(self._capacity, 1),
        }
        if self._flops is not None and self.peak is not None:
            rates["mfu"] = self._operations / (seconds * self.peak)
        return rates
