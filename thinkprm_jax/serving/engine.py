"""The thread that steps the work of a server, and coroutines that wait for what it brings.

Work that was submitted proceeds while somebody waits for it (:mod:`thinkprm_jax.sampler.handle`). In a server that
is this thread, for as long as it runs: requests come and go without one of them being the one that steps.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import NamedTuple, TypeVar

from thinkprm_jax.sampler.handle import CancelledError, Handle, RequestHandle, StepLoop, until_done
from thinkprm_jax.serving.fields import ServingError

T = TypeVar("T")
logger = logging.getLogger(__name__)

MOST_FAILED_STEPS = 3  # in a row; then the engine says that it has failed


class EngineThread:
    """Steps a loop until :meth:`stop`.

    Args:
      loop: of a verifier or a sampler.
      on_failure: told when it gives up, so that nobody waits for it for ever.

    Attributes:
      failed: why it does not step any more; None: it does.
    """

    def __init__(self, loop: StepLoop, on_failure: Callable[[BaseException], None] = lambda error: None) -> None:
        self._loop, self._on_failure = loop, on_failure
        self._stopping = False
        self._streams: list[TokenStream] = []
        self._silent: dict[RequestHandle, tuple[float, Callable[[float], None]]] = {}
        self.failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="thinkprm engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float | None = None) -> None:
        """Ends the thread behind the step that it is in."""
        with self._loop.changed:
            self._stopping = True
            self._loop.wake()
        self._thread.join(timeout)

    async def result(self, handle: Handle[T]) -> T:
        """The result of a handle; a coroutine that is cancelled cancels it, too. Whatever the work raised is
        raised; ServingError, 503, where somebody else cancelled it."""
        await until_done(handle)
        try:
            return handle.result()
        except CancelledError:
            raise ServingError(503, "the server ends: this was broken off", None, "unavailable", 5) from None

    def stream(self, handle: RequestHandle) -> TokenStream:
        """What a request generates, as it comes."""
        stream = TokenStream(handle, asyncio.get_running_loop())
        with self._loop.changed:
            self._streams.append(stream)
            self._loop.wake()
        return stream

    def time_first_token(self, handles: Iterable[RequestHandle], tell: Callable[[float], None]) -> None:
        """Calls ``tell`` with the seconds until each of them has a first token."""
        now = time.monotonic()
        with self._loop.changed:
            self._silent.update((handle, (now, tell)) for handle in handles)

    def _run(self) -> None:
        failures = 0
        while not self._stopping:
            try:
                self._loop.drive(self._look)
                failures = 0
            except Exception as error:  # of a step; what it did to requests their handles say
                logger.exception("a step failed")
                failures += 1
                if failures >= MOST_FAILED_STEPS:
                    self.failed = error
                    self._give_up(error)
                    return
            self._deliver()

    def _look(self) -> bool:
        """Behind every step, with ``changed`` held: whether there is something to do beside stepping."""
        for handle in [handle for handle in self._silent if handle.ids or handle.done()]:
            began, tell = self._silent.pop(handle)
            if handle.ids:
                tell(time.monotonic() - began)
        return self._stopping or any(stream.behind for stream in self._streams)

    def _deliver(self) -> None:
        with self._loop.changed:
            streams = [stream for stream in self._streams if stream.behind]
        for stream in streams:
            stream.deliver()
        with self._loop.changed:
            self._streams = [stream for stream in self._streams if not stream.over]

    def _give_up(self, error: BaseException) -> None:
        with self._loop.changed:
            streams, self._streams = self._streams, []
        self._on_failure(error)
        for stream in streams:
            stream.handle.fail(error)
            stream.deliver()


class NewTokens(NamedTuple):
    """What a step brought of a request.

    Attributes:
      ids, watched: as of :class:`.RequestHandle`.
    """

    ids: list[int]
    watched: list[list[float]]


class TokenStream:
    """What a request generates, step by step; ends with the request.

    Attributes:
      over: all was delivered, or nobody reads any more.
    """

    def __init__(self, handle: RequestHandle, events: asyncio.AbstractEventLoop) -> None:
        self.handle, self.over = handle, False
        self._events, self._given = events, 0
        self._queue: asyncio.Queue[NewTokens | None] = asyncio.Queue()

    @property
    def behind(self) -> bool:
        """Whether there is something that was not delivered."""
        return not self.over and (len(self.handle.ids) > self._given or self.handle.done())

    def deliver(self) -> None:
        """In the thread of the engine."""
        self.over = self.handle.done()
        new = NewTokens(self.handle.ids[self._given :], self.handle.watched[self._given :])
        self._given += len(new.ids)
        with contextlib.suppress(RuntimeError):  # the event loop is closed
            self._events.call_soon_threadsafe(self._put, new, self.over)

    def _put(self, new: NewTokens, over: bool) -> None:
        if new.ids:
            self._queue.put_nowait(new)
        if over:
            self._queue.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[NewTokens]:
        try:
            while (new := await self._queue.get()) is not None:
                yield new
        finally:
            self.over = True
