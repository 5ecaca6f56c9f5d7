"""A trace of some training steps, in the folder that xprof and TensorBoard's profile page open."""

from __future__ import annotations

import contextlib
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax

from thinkprm_jax.storage import Location, ObjectPath, location
from thinkprm_jax.storage.copies import upload_folder
from thinkprm_jax.training.config import ProfileConfig


class StepProfile:
    """``profile.steps=10..12``: what hosts and devices do in these steps. Every process traces its own.

    OUTPUT/profile/plugins/profile/TIME/HOST.xplane.pb; for a run in a bucket it is made on this machine and goes
    there when the last step is done.
    """

    def __init__(self, config: ProfileConfig, output: str | Location) -> None:
        self._bounds, self._running = config.bounds(), False
        self._place = location(output) / "profile"
        self._local: tempfile.TemporaryDirectory[str] | None = None

    def step(self, number: int) -> AbstractContextManager[Any]:
        """Around the dispatch of a step; starts the trace before the first one that is asked for."""
        if self._bounds is None or not self._bounds[0] <= number <= self._bounds[1]:
            return contextlib.nullcontext()
        if not self._running:
            jax.profiler.start_trace(self._folder())
            self._running = True
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def after(self, number: int, outcome: Any) -> None:
        """After that step; ends the trace when the devices have done the last one. outcome: arrays of the step."""
        if self._running and self._bounds is not None and number >= self._bounds[1]:
            jax.block_until_ready(outcome)
            self.close()

    def close(self) -> None:
        if not self._running:
            return
        self._running = False
        jax.profiler.stop_trace()
        if self._local is not None and isinstance(self._place, ObjectPath):
            upload_folder(Path(self._local.name), self._place)
            self._local.cleanup()

    def _folder(self) -> str:
        if isinstance(self._place, Path):
            return str(self._place)
        self._local = tempfile.TemporaryDirectory(prefix="thinkprm-profile-")
        return self._local.name
