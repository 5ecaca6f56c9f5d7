"""The thread that steps: what happens when steps fail."""

from __future__ import annotations

import asyncio

import pytest

from thinkprm_jax.sampler.handle import Handle, StepLoop
from thinkprm_jax.serving.engine import MOST_FAILED_STEPS, EngineThread


class Work:
    """Steps that raise so often before they bring a result."""

    def __init__(self, failures: int) -> None:
        self.failures, self.steps = failures, 0
        self.loop = StepLoop(self.step, self.room)
        self.handle: Handle[str] = Handle(self.loop)
        self.engine = EngineThread(self.loop, self.handle.fail)

    def step(self) -> bool:
        if self.handle.done():
            return False
        self.steps += 1
        if self.steps <= self.failures:
            raise OSError("a step failed")
        return self.handle.settle("done")

    def room(self) -> bool:
        return True

    def result(self) -> str:
        self.engine.start()
        try:
            return asyncio.run(self.engine.result(self.handle))
        finally:
            self.engine.stop(timeout=10)


def test_a_step_that_fails_is_tried_again() -> None:
    work = Work(MOST_FAILED_STEPS - 1)
    assert work.result() == "done"
    assert work.engine.failed is None


def test_an_engine_that_fails_leaves_nobody_waiting() -> None:
    work = Work(MOST_FAILED_STEPS)
    with pytest.raises(OSError, match="a step failed"):
        work.result()
    assert isinstance(work.engine.failed, OSError)
