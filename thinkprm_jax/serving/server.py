"""The process of a server: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from thinkprm_jax.errors import UserError
from thinkprm_jax.sampler.warm_up import warm_up
from thinkprm_jax.serving.app import make_app
from thinkprm_jax.serving.service import Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp

logger = logging.getLogger(__name__)

_LAST_STEP = 10.0  # seconds that a step of the engine may take until the process ends all the same
_TICK = 0.05  # seconds between two looks whether all requests have ended


class ServerProcess:
    """A service at an address.

    Args:
      keys: see :func:`.app.make_app`. warm_length: prompts of so many tokens have nothing to compile once it is
        ready; 0: nothing is compiled before.
    Raises:
      UserError: nobody can listen at this address.
    """

    def __init__(
        self,
        service: Service,
        host: str = "127.0.0.1",
        port: int = 8000,
        keys: Sequence[str] = (),
        warm_length: int = 1024,
        access_log: bool = False,
    ) -> None:
        self.service, self._warm_length = service, warm_length
        self._socket = _listen(host, port)
        self.address = f"{f'[{host}]' if ':' in host else host}:{self._socket.getsockname()[1]}"
        self._server = _DrainingServer(make_app(service, keys), service, access_log)
        self._warmed = threading.Event()

    def run(self) -> bool:
        """Serves until SIGTERM or Ctrl-C. Returns: whether all requests that ran then could be finished."""
        service = self.service
        service.engine.start()
        warming = threading.Thread(target=self._warm_up, name="thinkprm warm-up", daemon=True)
        warming.start()
        try:
            self._server.run(sockets=[self._socket])
        finally:
            service.draining = True
            self._socket.close()
            warming.join(timeout=_LAST_STEP)
            service.engine.stop(timeout=_LAST_STEP)
        return self._server.finished

    def _warm_up(self) -> None:
        service = self.service
        try:
            sampler = service.verifier.sampler
            if sampler is not None and self._warm_length > 0:
                compiled = warm_up(sampler, self._warm_length, lambda: not service.draining)
                logger.info("%d programs are compiled", compiled)
        except Exception as error:
            logger.exception("the warm-up failed")
            service.engine.failed = error
            return
        service.become_ready()


class _DrainingServer(uvicorn.Server):
    """At the first signal requests that run are finished and new ones are told that the server ends; at a second
    one, or behind the deadline, what still runs is broken off."""

    def __init__(self, app: ASGIApp, service: Service, access_log: bool) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="info" if access_log else "warning",
            access_log=access_log,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
        super().__init__(config)
        self._service, self._signals = service, 0
        self._draining: asyncio.Task[None] | None = None
        self.finished = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._signals += 1
        self._service.draining = True
        if self._signals > 1:
            self.finished = False
            self.should_exit = self.force_exit = True

    async def on_tick(self, counter: int) -> bool:
        """Of uvicorn, ten times a second."""
        if self._service.draining and self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._service.limits.drain_seconds
        while self._service.running and asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_TICK)
        if self._service.running:
            self.finished = False
            self._service.break_off()
            await asyncio.sleep(_TICK)  # they are told
        self.should_exit = True


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port < 2**16:
        raise UserError(f"--port is {port}, it must be from 0 to 65535")
    try:
        [family, kind, protocol, _, address], *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(2048)
    except OSError as error:
        what = getattr(error, "strerror", None) or error
        raise UserError(f"--host {host} --port {port}: {what}") from error
    return found


class BackgroundServer:
    """A server in a thread of this process, for tests and programs that want one for a while::

    with BackgroundServer(service) as address:
        Client(address)
    """

    def __init__(self, service: Service, keys: Sequence[str] = (), warm_length: int = 0) -> None:
        self._process = ServerProcess(service, port=0, keys=keys, warm_length=warm_length)
        self._thread = threading.Thread(target=self._process.run, name="thinkprm server", daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        while not self._process.service.ready and self._process.service.engine.failed is None:
            self._thread.join(0.01)
        return f"http://{self._process.address}"

    def __exit__(self, *error: object) -> None:
        self._process.service.draining = True
        self._thread.join()
