"""What the time of a run went into since its first start, also of the starts that were killed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

# The parts of the time that are no steps. start: from the program's start to the first step (reading, joining the
# others, restoring). compile, data, save, evaluate: within the loop. lost: from the last checkpoint before an
# interruption to the start after it: steps that are done again, and the time without machines.
BADPUT = ("start", "compile", "data", "save", "evaluate", "lost")


class Goodput:
    """Seconds by part, from the wall clock; what a checkpoint records of it goes on in the next start.

    Example:

        goodput = Goodput(begun=time.time(), before=record.get("goodput"))
        goodput.first_step()
        goodput.shares({"compute": 12.0, "save": 0.5})   # {"goodput": ..., "badput_start": ..., ...}

    Args:
      begun: when the program started. before: :meth:`to_json` of the checkpoint from which the run goes on.
    """

    def __init__(self, begun: float, before: Mapping[str, Any] | None = None) -> None:
        self._begun = begun
        self._first = begun if before is None else float(before["first"])
        self._seconds = dict.fromkeys(("compute", *BADPUT), 0.0)
        if before is not None:
            self._seconds |= {name: float(before["seconds"].get(name, 0.0)) for name in self._seconds}
            self._seconds["lost"] += max(begun - float(before["until"]), 0.0)

    def first_step(self) -> None:
        """Everything is there, and the first step of this start begins."""
        self._seconds["start"] += max(time.time() - self._begun, 0.0)

    def add(self, seconds: Mapping[str, float]) -> None:
        for name, value in seconds.items():
            self._seconds[name] += value

    def shares(self, seconds: Mapping[str, float]) -> dict[str, float]:
        """Of the time since the first start: `goodput` in steps, `badput_...` in each other part. What is missing
        to 1 is between them, such as writing metrics.

        Args:
          seconds: by part, that have not been added yet.
        """
        whole = max(time.time() - self._first, 1e-9)
        total = {name: value + seconds.get(name, 0.0) for name, value in self._seconds.items()}
        bad = {f"badput_{name}": total[name] / whole for name in BADPUT}
        return {"goodput": total["compute"] / whole, **bad}

    def to_json(self, seconds: Mapping[str, float]) -> dict[str, Any]:
        """``seconds``: as above."""
        total = {name: round(value + seconds.get(name, 0.0), 3) for name, value in self._seconds.items()}
        return {"first": self._first, "until": time.time(), "seconds": total}
