"""Verifiers that need no device."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from thinkprm_jax.errors import RequestError
from thinkprm_jax.sampler.handle import Handle, StepLoop, finished
from thinkprm_jax.verifier.base import Verdict, Verifier, check_item

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from thinkprm_jax.sampler import Sampler


class HostVerifier(Verifier):
    """A verifier that needs no device: a kind says :meth:`judge`, and the verdict is there at once."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self._loop = StepLoop(self._step, self._has_room)

    @classmethod
    def load(cls, settings: Any, *, mesh: Mesh | None = None, sampler: Sampler | None = None) -> Self:
        return cls(settings)

    @abc.abstractmethod
    def judge(self, problem: str, steps: Sequence[str]) -> Verdict:
        """The verdict, such as ``Verdict.of_scores(problem, scores)``; RequestError where there is none."""

    @property
    def loop(self) -> StepLoop:
        return self._loop

    def submit(self, problem: str, steps: Sequence[str]) -> Handle[Verdict]:
        try:
            verdict = self.judge(problem, check_item(problem, steps))
        except RequestError as error:
            verdict = Verdict(error=error)
        return finished(self.loop, verdict)

    def _step(self) -> bool:
        return False  # nothing waits

    def _has_room(self) -> bool:
        return True
