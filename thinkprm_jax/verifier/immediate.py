"""Verifiers that answer at once: rules, look-ups, and whatever else needs no device to wait for."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from thinkprm_jax.errors import RequestError
from thinkprm_jax.sampler import Handle, StepLoop, finished
from thinkprm_jax.verifier.base import Verdict, Verifier, check_item


class _NothingToStep:
    """Every handle is done when it is given out, and there is always room for the next."""

    def step(self) -> bool:
        return False

    def has_room(self) -> bool:
        return True


_NOTHING = _NothingToStep()
_LOOP = StepLoop(_NOTHING.step, _NOTHING.has_room)


class ImmediateVerifier(Verifier):
    """A verifier whose verdicts are there when they are asked for: a kind says what one is, in :meth:`judge`."""

    @property
    def loop(self) -> StepLoop:
        return _LOOP

    def submit(self, problem: str, steps: Sequence[str]) -> Handle[Verdict]:
        try:
            verdict = self.judge(problem, check_item(problem, steps))
        except RequestError as error:
            verdict = Verdict(error=error, locates=self.judges_steps)
        return finished(self.loop, verdict)

    @abc.abstractmethod
    def judge(self, problem: str, steps: list[str]) -> Verdict:
        """The verdict on a solution of at least one step; RequestError where it cannot be judged."""
