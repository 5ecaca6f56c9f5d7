"""The routes of a server, and what stands before all of them: keys, the end of the process, failures."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from thinkprm_jax.errors import RequestError, one_line
from thinkprm_jax.serving import native, openapi, page, rewards
from thinkprm_jax.serving.completions import chat_completions, completions
from thinkprm_jax.serving.fields import ServingError
from thinkprm_jax.serving.http import ClientGone, JSONAnswer, error_answer
from thinkprm_jax.serving.service import Service
from thinkprm_jax.serving.verify import verify

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

OPEN_PATHS = ("/", "/health", "/ready", "/openapi.json", "/get_model_info", "/model_info")  # to whoever has no key
WAITING = 5  # seconds until a server that is not ready is asked again

Endpoint = Callable[[Service, Request], Awaitable[Response]]

# Path -> method and function of what computes.
COMPUTING: dict[str, Endpoint] = {
    "/v1/verify": verify,
    "/v1/completions": completions,
    "/v1/chat/completions": chat_completions,
    "/pooling": rewards.pooling,
    "/score": rewards.score,
    "/v1/score": rewards.score_labels,
    "/generate": native.generate,
}


def make_app(service: Service, keys: Sequence[str] = ()) -> ASGIApp:
    """The ASGI app of a service.

    Args:
      keys: that a request must bear one of; (): none is asked for.
    """
    routes = [
        Route(path, _computing(service, endpoint), methods=["POST"], name=path)
        for path, endpoint in COMPUTING.items()
    ]
    routes += [
        Route(path, _answering(service, endpoint), methods=["GET"], name=path) for path, endpoint in _ASKED.items()
    ]
    routes += [
        Route("/flush_cache", _answering(service, native.flush_cache), methods=["GET", "POST"]),
        Route("/health_generate", _answering(service, health), methods=["GET"]),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _routing_error, Exception: _crash},  # type: ignore[dict-item]
    )
    app.router.redirect_slashes = False
    return _Gate(app, service, keys)


async def health(service: Service, request: Request) -> Response:
    """Whether the process works."""
    if service.engine.failed is not None:
        what = f"the engine has failed: {one_line(service.engine.failed)}"
        raise ServingError(503, what, None, "unavailable")
    return JSONAnswer({"status": "ok", "version": version("thinkprm-jax")})


async def ready(service: Service, request: Request) -> Response:
    """Whether requests are taken, and none waits for a compilation."""
    await health(service, request)
    check_open(service)
    return JSONAnswer({"status": "ready"})


def check_open(service: Service) -> None:
    """ServingError, 503, where requests are not taken: not yet, or no more."""
    if service.draining:
        raise ServingError(503, "the server is about to end", None, "unavailable", WAITING)
    if not service.ready:
        raise ServingError(503, "the server still compiles: ask again", None, "unavailable", WAITING)


async def models(service: Service, request: Request) -> Response:
    """As OpenAI lists them, with what a client has to know of a verifier."""
    verifier, sampler = service.verifier, service.verifier.sampler
    limits = {} if sampler is None else {"max_model_len": sampler.max_length, "slots": sampler.slots}
    shown = {
        "id": service.names[0],
        "object": "model",
        "created": service.created,
        "owned_by": "thinkprm_jax",
        "kind": verifier.kind,
        "judges_steps": verifier.judges_steps,
        "settings": verifier.settings.stamp,
        **limits,
    }
    return JSONAnswer({"object": "list", "data": [shown]})


async def metrics(service: Service, request: Request) -> Response:
    return PlainTextResponse(service.metrics.show(), media_type="text/plain; version=0.0.4")


async def description(service: Service, request: Request) -> Response:
    return JSONAnswer(openapi.describe(service))


async def show_page(service: Service, request: Request) -> Response:
    return HTMLResponse(page.html(), headers=page.HEADERS)


_ASKED: dict[str, Endpoint] = {
    "/": show_page,
    "/health": health,
    "/ready": ready,
    "/metrics": metrics,
    "/openapi.json": description,
    "/v1/models": models,
    "/get_model_info": native.model_info,
    "/model_info": native.model_info,
    "/get_server_info": native.server_info,
    "/server_info": native.server_info,
}


def _answering(service: Service, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        path = request.url.path
        try:
            found = await endpoint(service, request)
        except ServingError as error:
            found = error_answer(error)
        except RequestError as error:  # what a tokenizer refuses, say
            found = error_answer(ServingError(422, one_line(error), None, "unjudgeable"))
        except ClientGone:
            service.metrics.gone.add(path=path)
            return Response(status_code=499)  # that nobody reads
        service.metrics.requests.add(path=path, status=str(found.status_code))
        return found

    return answer


def _computing(service: Service, endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def compute(service: Service, request: Request) -> Response:
        check_open(service)
        if service.engine.failed is not None:
            await health(service, request)
        return await endpoint(service, request)

    return _answering(service, compute)


async def _routing_error(request: Request, error: HTTPException) -> Response:
    what = {404: f"there is no {request.url.path}", 405: f"{request.url.path} takes no {request.method}"}
    found = ServingError(error.status_code, what.get(error.status_code, error.detail), "path", "not_found")
    answer = error_answer(found)
    answer.headers.update(error.headers or {})
    return answer


async def _crash(request: Request, error: Exception) -> Response:
    """What Starlette then raises again is logged with its traceback by :class:`_Gate`."""
    return error_answer(ServingError(500, "the server has failed at this request", None, "internal"))


class _Gate:
    """Before the routes: the key, and what runs. Behind them: what nobody caught."""

    def __init__(self, app: ASGIApp, service: Service, keys: Sequence[str]) -> None:
        self._app, self._service = app, service
        self._keys = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] not in OPEN_PATHS and not self._may(scope):
            self._service.metrics.requests.add(path="(no key)", status="401")
            refusal = ServingError(401, "the key is missing or wrong", "Authorization", "unauthorized")
            await error_answer(refusal)(scope, receive, send)
            return
        counted = scope["path"] in COMPUTING
        self._service.running += counted
        try:
            await self._app(scope, receive, self._closing(send))
        except Exception:
            logger.exception("a request failed: %s", scope["path"])
        finally:
            self._service.running -= counted

    def _may(self, scope: Scope) -> bool:
        """Compared in constant time, with every key, so that nothing can be learnt from how long it takes."""
        if not self._keys:
            return True
        given = b""
        for name, value in scope["headers"]:
            if name == b"authorization" and value[:7].lower() == b"bearer ":
                given = value[7:].strip()
            elif name == b"x-api-key" and not given:
                given = value.strip()
        found = _digest(given)
        fits = [hmac.compare_digest(found, key) for key in self._keys]  # all of them
        return any(fits)

    def _closing(self, send: Send) -> Send:
        """While the server ends, each answer closes its connection."""
        if not self._service.draining:
            return send

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        return send_and_close


def _digest(key: bytes) -> bytes:
    """All of one length."""
    return hashlib.sha256(key).digest()
