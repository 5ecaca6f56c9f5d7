"""Generator and verifier behind the protocol that the searches know."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from thinkprm_jax.activity import Activity
from thinkprm_jax.sampler.handle import Handle, StepLoop
from thinkprm_jax.search.engine import Continuation, Judgement, Piece, Problem
from thinkprm_jax.search.generator import Generator

if TYPE_CHECKING:
    from thinkprm_jax.verifier.base import Verdict, Verifier

T = TypeVar("T")

_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"


@dataclasses.dataclass
class _Progress:
    """done of asked: since there was nothing open."""

    done: int = 0
    asked: int = 0
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def follow(self, handle: Handle[T], tell: Callable[[int, int, T], None]) -> Handle[T]:
        """Counts the handle, and tells of its result when it is there."""
        with self.lock:
            if self.done == self.asked:
                self.done = self.asked = 0
            self.asked += 1

        def came(handle: Handle[T]) -> None:
            with self.lock:
                self.done += 1
                done, asked = self.done, self.asked
            if handle.exception() is None:
                tell(done, asked, handle.result())

        handle.add_done_callback(came)
        return handle


class ModelEngine:
    """Generator and verifier of a search; see :class:`.Engine`.

    Args:
      generator: None where all solutions come from elsewhere; verifier: None where nothing is judged.
      long_cot: solutions are long chains of thought: the verifier sees what stands before `</think>`.
      side_by_side: solutions may be written by one thread and judged by another. Not where a program's devices
        exchange data: two such programs must start in the same order everywhere, or they wait for each other.

    Attributes:
      on_piece, on_verdict: told (done, of how many so far, what came), by the thread that brings it.
    """

    def __init__(
        self,
        generator: Generator | None,
        verifier: Verifier | None,
        long_cot: bool = False,
        side_by_side: bool = False,
    ) -> None:
        self.generator, self.verifier = generator, verifier
        self.long_cot, self.side_by_side = long_cot, side_by_side
        self.on_piece: Callable[[int, int, Piece], None] = lambda done, total, piece: None
        self.on_verdict: Callable[[int, int, Judgement], None] = lambda done, total, judgement: None
        self._written, self._judged = _Progress(), _Progress()

    @property
    def activities(self) -> dict[str, Callable[[], Activity]]:
        """What its models are doing: a function for each that there is."""
        found: dict[str, Callable[[], Activity]] = {}
        if (generator := self.generator) is not None:
            found["generator"] = lambda: generator.sampler.activity
        if (verifier := self.verifier) is not None:
            found["verifier"] = lambda: verifier.activity
        return found

    @property
    def loops(self) -> list[StepLoop]:
        generator = [] if self.generator is None else [self.generator.sampler.loop]
        return generator if self.verifier is None else [*generator, self.verifier.loop]

    def generate(self, continuation: Continuation) -> Handle[Piece]:
        assert self.generator is not None
        return self._written.follow(self.generator.generate(continuation), self.on_piece)

    def verify(self, problem: Problem, solution: str) -> Handle[Judgement]:
        assert self.verifier is not None
        steps = self.verifier.split(self.shown(solution))
        handle = self.verifier.submit(problem.text, steps).then(functools.partial(read_verdict, steps=steps))
        return self._judged.follow(handle, self.on_verdict)

    def shown(self, text: str) -> str:
        """What the verifier sees of a solution."""
        if not self.long_cot:
            return text
        return text.split(_THINK_CLOSE)[0].strip().removeprefix(_THINK_OPEN).strip()


def read_verdict(verdict: Verdict, steps: Sequence[str]) -> Judgement:
    """The verdict on these steps, as a search wants it."""
    return Judgement.of_record(verdict.record(steps), verdict.output_tokens, verdict.error)
