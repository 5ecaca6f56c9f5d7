"""Bodies, answers, clients that go away, deadlines: what all endpoints have in common."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response

from thinkprm_jax.serving.fields import BodyFields, ServingError, parse_body
from thinkprm_jax.serving.limits import ServerLimits

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

T = TypeVar("T")
logger = logging.getLogger(__name__)


class ClientGone(Exception):
    """Nobody reads the answer any more."""


def to_json(content: Any) -> bytes:
    """ASCII, so that a lone surrogate somebody sent can be said again."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


class JSONAnswer(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return to_json(content)


def error_answer(error: ServingError) -> Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (408, 413):  # the rest of the body is not read
        headers["Connection"] = "close"
    return JSONAnswer(error.body, error.status, headers)


async def read_fields(request: Request, limits: ServerLimits) -> BodyFields:
    """The JSON object of a request.

    Raises:
      ServingError: it is too large, does not come, or is none.
    """
    return parse_body(await read_body(request, limits))


async def read_body(request: Request, limits: ServerLimits) -> bytes:
    most = limits.max_body_bytes
    too_large = ServingError(413, f"the body has more than {most:,} bytes", "body")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise too_large
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                part = message.get("body", b"")
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise ServingError(408, f"the body was not there after {limits.body_seconds:g} s", "body") from None


async def while_wanted(receive: Receive, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """The outcome of ``work``, for as long as the client is there and there is time; then it is cancelled.

    Args:
      receive: of the request, whose body has been read.
    Raises:
      ClientGone: the connection broke.
      ServingError: 504, the time was over.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, gone), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if gone.done():
            raise ClientGone
        raise ServingError(504, f"there is no answer after {seconds:g} s: it was given up", None, "deadline")
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait((working,))


async def together(works: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """The outcomes of all, in order. Where one fails, or this is cancelled, so are the others."""
    if len(works) == 1:
        return [await works[0]]
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


Event = tuple[str, Any]  # (its name, "" for none; JSON, or a text that stands there as it is)


class EventStream(Response):
    """Server-sent events, as a generator gives them; where the client goes or the time is over, it is closed.

    What fails on the way is an event ``error``, or without a name where the others have none.
    """

    def __init__(self, events: AsyncGenerator[Event, None], seconds: float, named: bool = True) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        del self.headers["content-length"]
        self._events, self._seconds, self._named = events, seconds, named
        self._count: Callable[[int], None] = lambda more: None

    def counted_by(self, count: Callable[[int], None]) -> None:
        """``count(1)`` when it begins, ``count(-1)`` when it is over."""
        self._count = count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})

        async def write(event: Event) -> None:
            await send({"type": "http.response.body", "body": encode_event(event), "more_body": True})

        async def write_all() -> None:
            async for event in self._events:
                await write(event)

        self._count(1)
        try:
            await while_wanted(receive, write_all(), self._seconds)
        except ClientGone:
            return
        except ServingError as error:
            await write(("error" if self._named else "", error.body))
        except Exception:  # of the device, say
            logger.exception("a stream failed")
            failure = ServingError(500, "the server has failed at this request", None, "internal")
            await write(("error" if self._named else "", failure.body))
        finally:
            self._count(-1)
            await self._events.aclose()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def encode_event(event: Event) -> bytes:
    name, content = event
    data = content.encode() if isinstance(content, str) else to_json(content)
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + data + b"\n\n"
