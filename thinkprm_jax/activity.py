"""What is being done right now, as data: samplers and verifiers tell it, whoever shows it asks once a second.

Nothing here waits for a device, writes to a terminal or costs anything while nobody asks.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_LOWERED = "/jax/core/compile/jaxpr_to_mlir_module_duration"  # told when it is over: what follows is the compiler
_COMPILED = "/jax/core/compile/backend_compile_duration"  # so is this; of what the cache on disk held, too
_NOTICEABLE = 0.1  # seconds; loading a model compiles dozens of programs that nobody waits for


@dataclass(frozen=True)
class Activity:
    """What a sampler or a verifier is doing.

    Attributes:
      doing: "prefilling", "decoding", "scoring"; "" nothing.
      running: requests that are being worked on. waiting: those in the queue. finished: since it was made.
      tokens: sampled since it was made; counted where the host looks, which is once a chunk.
    """

    doing: str = ""
    running: int = 0
    waiting: int = 0
    finished: int = 0
    tokens: int = 0


_outside_jax: dict[int, float] = {}  # thread -> since when it compiles something that JAX does not tell of


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Around a compilation that is not JAX's: whoever shows what is being done shows it as one."""
    thread = threading.get_ident()
    _outside_jax[thread] = time.monotonic()
    try:
        yield
    finally:
        _outside_jax.pop(thread, None)


class CompilationWatch:
    """Counts the programs that JAX compiles in this process from :meth:`start` on, and knows when it is at one.

    Args:
      clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: dict[int, float] = {}  # thread -> since when it compiles
        self._finished = 0
        self._listens = False

    def start(self) -> None:
        """Listens from now on; where nobody has loaded JAX nothing is compiled, and nothing happens."""
        if not self._listens and "jax" in sys.modules:
            import jax.monitoring

            self._listens = True
            jax.monitoring.register_event_duration_secs_listener(self.listen)

    def stop(self) -> None:
        if self._listens:
            import jax.monitoring

            self._listens = False
            jax.monitoring.unregister_event_duration_listener(self.listen)

    def listen(self, event: str, duration_secs: float, **_: str | int) -> None:
        """For JAX, which calls it in the thread that compiles."""
        thread = threading.get_ident()
        if event == _LOWERED:
            self._began[thread] = self._clock()
        elif event == _COMPILED:
            self._began.pop(thread, None)
            self._finished += duration_secs >= _NOTICEABLE

    @property
    def current(self) -> tuple[int, float] | None:
        """(number of the program that is being compiled, from 1, seconds so far); None: there is none."""
        began = min([*self._began.copy().values(), *_outside_jax.copy().values()], default=None)
        return None if began is None else (self._finished + 1, self._clock() - began)
