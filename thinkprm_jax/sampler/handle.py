"""Results that are on their way, and the loop that brings them: whoever waits does the work.

There is no thread in the background. Work proceeds in steps (a chunk of a sampler's decode loop, a forward pass of
a verifier), and a thread that waits for a result takes them itself, until its own result is there; then another
waiting thread goes on. So one caller alone gets what a plain loop would give, step for step, and several callers
are served by the same steps. A coroutine cannot step without holding up its event loop: for as long as handles are
awaited, a thread waits for them.
"""

from __future__ import annotations

import asyncio
import codecs
import collections
import concurrent.futures
import contextlib
import logging
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from thinkprm_jax import runtime
from thinkprm_jax.errors import UserError
from thinkprm_jax.sampler.request import Request, Result

if TYPE_CHECKING:
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

T = TypeVar("T")
S = TypeVar("S")
Key = TypeVar("Key")
Item = TypeVar("Item")

logger = logging.getLogger(__name__)

CancelledError = concurrent.futures.CancelledError


class StepLoop:
    """Work that is done in steps, one at a time, by the threads that wait for it.

    Args:
      step: a method that does the next piece of work and settles the handles that it finishes; False: there was
        nothing to do. No two threads are in it at once.
      room: a method that says whether more work could be taken up at once; called with ``changed`` held.
        Neither method's object is kept alive.

    Attributes:
      changed: guards the handles and whatever ``room`` looks at; notified when anybody might go on.
    """

    def __init__(self, step: Callable[[], bool], room: Callable[[], bool]) -> None:
        self.changed = threading.Condition()
        self._step, self._room = _weakly(step), _weakly(room)
        self._driver: int | None = None  # the thread that steps
        self._news = 0  # grows with everything that is submitted or settled
        self._serving = 0  # calls of serve that are under way
        self._awaited: list[Handle[Any]] = []  # by coroutines
        self._attendant: threading.Thread | None = None

    def wake(self) -> None:
        """Says that there is something new; call it with ``changed`` held."""
        self._news += 1
        self.changed.notify_all()

    def check(self) -> None:
        """UserError where this thread could not step."""
        check_can_compute()

    def step(self) -> bool:
        """One step, by this thread, as soon as no other thread is in one. False: there was nothing to do."""
        check_can_compute()
        with self.alone():
            return self._step()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While no other thread is in a step."""
        with self._lead(lambda: False, None):
            yield

    def drive(self, until: Callable[[], bool], timeout: float | None = None) -> bool:
        """Steps, or waits while another thread does, until ``until()``, which is called with ``changed`` held.

        Returns: False where ``timeout`` seconds were over before; a step is never broken off.
        """
        check_can_compute()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            worked, news = True, self._news
            with self._lead(until, deadline) as leads:
                while leads and worked:
                    if _left(deadline) == 0:
                        return False
                    news = self._news
                    worked = self._step()
                    with self.changed:
                        if until():
                            return True
                        worked = worked or self._news != news
            with self.changed:
                while not (until() or worked or self._news != news or _left(deadline) == 0):
                    self.changed.wait(_left(deadline))  # others must bring something first
                if until():
                    return True
                if _left(deadline) == 0:
                    return False

    @contextlib.contextmanager
    def _lead(self, until: Callable[[], bool], deadline: float | None) -> Iterator[bool]:
        """Makes this thread the one that steps, once no other is. False: ``until()`` holds, or time is up."""
        me = threading.get_ident()
        if self._driver == me:
            raise RuntimeError("a script or callback cannot wait for what only its own caller can bring about")
        try:
            with self.changed:
                self.changed.wait_for(lambda: until() or self._driver is None, _left(deadline))
                leads = self._driver is None and not until()
                if leads:
                    self._driver = me
            yield leads
        finally:
            if self._driver == me:
                with self.changed:
                    self._driver = None
                    self.changed.notify_all()

    def serve(
        self, items: Iterable[tuple[Key, Item]], submit: Callable[[Item], Handle[T]]
    ) -> Iterator[tuple[Key, T]]:
        """(key, result) as they finish, of items that are taken from the iterable while there is room for them.

        Several calls share the room: each may have one item queued where another one has taken it all. A result
        that is an exception is raised. Leaving the iterator cancels what is not finished.
        """
        keys: dict[Handle[T], Key] = {}
        done: collections.deque[Handle[T]] = collections.deque()
        source, ended, newest = iter(items), False, None

        def wants() -> bool:
            with self.changed:
                if ended or self._room():
                    return not ended
                return self._serving > 1 and (newest is None or newest.started)

        with self.changed:
            self._serving += 1
        try:
            while True:
                if done:
                    handle = done.popleft()
                    yield keys.pop(handle), handle.result()
                elif wants():
                    try:
                        key, item = next(source)
                    except StopIteration:
                        ended = True
                        continue
                    newest = submit(item)
                    keys[newest] = key
                    newest.add_done_callback(done.append)
                elif keys:
                    self.drive(lambda: bool(done) or wants())
                elif ended:
                    return
                else:
                    self.drive(wants)
        finally:
            with self.changed:
                self._serving -= 1
            for handle in keys:
                handle.cancel()

    def attend(self, handle: Handle[Any]) -> None:
        """Has a thread wait for this handle, on behalf of a coroutine."""
        with self.changed:
            self._awaited.append(handle)
            if self._attendant is None:
                self._attendant = threading.Thread(target=self._wait_for_awaited, name="thinkprm awaits")
                self._attendant.start()

    def _wait_for_awaited(self) -> None:
        while True:
            with self.changed:
                self._awaited = [handle for handle in self._awaited if not handle.done()]
                if not self._awaited:
                    self._attendant = None
                    return
                awaited = self._awaited[0]
            try:
                self.drive(awaited.done)
            except BaseException as error:  # a step must not fail; if it does, nobody shall wait for ever
                for handle in self._awaited:
                    handle.fail(error)


def _weakly(method: Callable[[], bool]) -> Callable[[], bool]:
    """The method, of an object that goes when nobody else holds it: a sampler's memory is not to wait for the
    collector of cycles."""
    reference = weakref.WeakMethod(method)

    def call() -> bool:
        bound = reference()
        return bound is not None and bound()

    return call


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


class Handle(Generic[T]):
    """A result that is on its way.

    Whoever waits for it does the work meanwhile, its own and that of all others (see the module). A handle can be
    awaited in a coroutine, too; cancelling the task then cancels the handle.

    Args:
      loop: brings the result.
      on_cancel: told of a cancellation, with ``loop.changed`` held.

    Attributes:
      parts: of one that :func:`gather` made, the handles that it waits for, in order.
    """

    parts: Sequence[Handle[Any]] = ()

    def __init__(self, loop: StepLoop, on_cancel: Callable[[], None] = lambda: None) -> None:
        self.loop = loop
        self.started = False  # it no longer waits in a queue
        self._on_cancel: Callable[[], None] | None = on_cancel
        self._settled = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Handle[T]], object]] = []

    def done(self) -> bool:
        """Whether there is a result, an exception, or a cancellation."""
        return self._settled

    def cancelled(self) -> bool:
        return isinstance(self._error, CancelledError)

    def result(self, timeout: float | None = None) -> T:
        """The result; steps until it is there.

        Raises:
          TimeoutError: it is not there after ``timeout`` seconds (a step is never broken off).
          CancelledError: of concurrent.futures.
          Exception: whatever the work raised.
        """
        if not self._settled and not self.loop.drive(self.done, timeout):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # of a T that may be None

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What :meth:`result` raises, CancelledError too; None: nothing."""
        if not self._settled and not self.loop.drive(self.done, timeout):
            raise TimeoutError
        return self._error

    def cancel(self) -> bool:
        """Gives the result up; a queued request never runs, a running one frees its place at the next step.
        False: it is there already."""
        return self.fail(CancelledError())

    def add_done_callback(self, function: Callable[[Handle[T]], object]) -> None:
        """Calls ``function(handle)`` once it is done, in the thread that brings the result; at once if it is. What
        it raises is logged. It may submit, and must not wait."""
        with self.loop.changed:
            if not self._settled:
                self._callbacks.append(function)
                return
        self._call(function)

    def settle(self, value: T) -> bool:
        """For the work: gives the result. False: it is done already."""
        return self._finish(value, None)

    def fail(self, error: BaseException) -> bool:
        """For the work: gives the exception. False: it is done already."""
        return self._finish(None, error)

    def _finish(self, value: T | None, error: BaseException | None) -> bool:
        with self.loop.changed:
            if self._settled:
                return False
            self._value, self._error = value, error
            self._settled = self.started = True
            callbacks, self._callbacks = self._callbacks, []
            on_cancel, self._on_cancel = self._on_cancel, None  # which may hold this handle
            if on_cancel is not None and isinstance(error, CancelledError):
                on_cancel()
            self.loop.wake()
        for function in callbacks:
            self._call(function)
        return True

    def _call(self, function: Callable[[Handle[T]], object]) -> None:
        try:
            function(self)
        except Exception:
            logger.exception("a callback of a handle failed")

    def then(self, function: Callable[[T], S]) -> Handle[S]:
        """The handle of ``function`` of the result, called in the thread that brings it."""
        return gather(self.loop, [self], lambda results: function(results[0]))

    def __await__(self) -> Generator[Any, None, T]:
        self.loop.check()
        self.loop.attend(self)
        yield from until_done(self).__await__()
        return self.result()


async def until_done(handle: Handle[Any]) -> None:
    """Returns once a handle is done; somebody else must step. A coroutine that is cancelled cancels it, too."""
    events = asyncio.get_running_loop()
    future: asyncio.Future[None] = events.create_future()

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def tell(_: Handle[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits
            events.call_soon_threadsafe(settle)

    handle.add_done_callback(tell)
    try:
        await future
    except asyncio.CancelledError:
        handle.cancel()
        raise


class _Gathered(Handle[T]):
    """The handle of what several others bring together."""

    def __init__(self, loop: StepLoop, parts: Sequence[Handle[Any]]) -> None:
        super().__init__(loop, self._cancel_parts)
        self.parts = parts
        self._missing = len(parts)

    @property
    def started(self) -> bool:
        return self._settled or any(part.started for part in self.parts)

    @started.setter
    def started(self, value: bool) -> None:
        pass  # its parts know

    def _cancel_parts(self) -> None:
        for part in self.parts:
            part.cancel()


def gather(loop: StepLoop, parts: Sequence[Handle[S]], combine: Callable[[list[S]], T]) -> Handle[T]:
    """The handle of ``combine`` of all results, in order; of the first exception, if a part has one, which cancels
    the others."""
    gathered: _Gathered[T] = _Gathered(loop, parts)

    def one_more(part: Handle[S]) -> None:
        broken = part.exception()
        if broken is not None:
            if gathered.fail(broken):
                gathered._cancel_parts()
            return
        with loop.changed:
            gathered._missing -= 1
            if gathered._missing:
                return
        try:
            value = combine([part.result() for part in parts])
        except Exception as error:
            gathered.fail(error)
        else:
            gathered.settle(value)

    for part in parts:
        part.add_done_callback(one_more)
    return gathered


def finished(loop: StepLoop, value: T) -> Handle[T]:
    """A handle whose result is there."""
    handle: Handle[T] = Handle(loop)
    handle.settle(value)
    return handle


class RequestHandle(Handle[Result]):
    """A request on its way; see :class:`.Handle` for waiting, awaiting and cancelling.

    :meth:`result` gives the :class:`.Result`, whose ``error`` says why the request failed, if it did; it raises
    what the script raised beside RequestError. Iterating gives ids, and :meth:`text` text, as they are decoded.

    Attributes:
      request: what was submitted. prompt: its ids.
      ids: what its Think phases have generated so far, one after another, without what a stop text may still take
        back. In the end they are the ids of all its thoughts.
      watched: log-probabilities of the watched ids at each of those, as of :class:`.Thought`.
      queued: it waits for a row.
      turn, weight_version: of the weights that it runs with (:mod:`.weights`).
    """

    def __init__(
        self,
        loop: StepLoop,
        request: Request,
        tokenizer: Tokenizer,
        on_cancel: Callable[[RequestHandle], None] = lambda handle: None,
    ) -> None:
        super().__init__(loop, lambda: on_cancel(self))
        self.request, self.prompt = request, [int(token) for token in request.prompt]
        self.ids: list[int] = []
        self.watched: list[list[float]] = []
        self.queued, self.turn, self.weight_version = False, 0, 0
        self._tokenizer = tokenizer
        self._readers = 0

    def __iter__(self) -> Iterator[int]:
        """Ids of its Think phases as they are decoded. RequestError where the request fails."""
        given = 0

        def some() -> bool:
            return self._settled or len(self.ids) > given

        self._readers += 1
        try:
            while True:
                self.loop.drive(some)
                ended, new = self._settled, self.ids[given:]
                yield from new
                given += len(new)
                if ended:
                    break
        finally:
            self._readers -= 1
        error = self.result().error
        if error is not None:
            raise error

    def text(self) -> Iterator[str]:
        """Pieces of text as they are decoded, each of whole characters."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        for id in self:
            if piece := decoder.decode(self._tokenizer.token_bytes(id)):
                yield piece
        if piece := decoder.decode(b"", final=True):
            yield piece

    def begin(self) -> None:
        """It has a row. After an interruption this happens again, and the same ids come again."""
        self.started, self.queued, self.ids, self.watched = True, False, [], []

    def publish(self, ids: list[int], watched: list[list[float]]) -> None:
        if ids:
            self.watched.extend(watched)
            self.ids.extend(ids)
            if self._readers:
                with self.loop.changed:
                    self.loop.wake()


_outside: list[object] = []  # what JAX's trace state is equal to where nothing is traced, once that was seen


def check_can_compute() -> None:
    """UserError where nothing can be computed: while jax.jit (or what traces as it does) traces a function, and in
    a fork of a process in which JAX was at work."""
    if runtime.in_fork:  # asked at every step
        runtime.refuse_forked()
    import jax
    import jax.extend

    state = jax.extend.core.get_opaque_trace_state()
    if state in _outside:
        return
    # A quick look says nothing: inside eager grad or vmap, say, other values are no tracers.
    if isinstance(jax.numpy.array(0), jax.core.Tracer):
        raise UserError(
            "a sampler or verifier was called while JAX traces a function (inside jax.jit, scan or the like): "
            "call it outside, it compiles its own programs and returns values of the host"
        )
    if not _outside:
        _outside.append(state)
