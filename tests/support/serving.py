"""Servers for tests: the bundled verifier in this process, and requests to it without a client of ours."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thinkprm_jax.serving.limits import ServerLimits
from thinkprm_jax.serving.server import BackgroundServer
from thinkprm_jax.serving.service import Service, base_settings
from thinkprm_jax.verifier.base import Verifier
from thinkprm_jax.verifier.thinkprm import ThinkPRM

PROBLEM = "Tom has 78 lemons. Tom buys 12 at the market. Tom collects 4 more. How many lemons are there now?"
RIGHT = ["78 + 12 = 90, so there are 90 lemons.", "90 + 4 = 94, so there are 94 lemons."]
WRONG = ["78 + 12 = 88, so there are 88 lemons.", "88 + 4 = 92, so there are 92 lemons."]
GOOD: dict[str, Any] = {"problem": PROBLEM, "steps": RIGHT}
MAX_LENGTH, SLOTS = 512, 4


def verifier() -> ThinkPRM:
    """mini, one worker."""
    return ThinkPRM("mini", max_length=MAX_LENGTH, slots=SLOTS)


@contextmanager
def served(judge: Verifier, keys: tuple[str, ...] = (), **limits: Any) -> Iterator[tuple[str, Service]]:
    """(address, service) of a server."""
    service = Service(judge, base_settings(judge.settings, None), names=("mini",), limits=ServerLimits(**limits))
    with BackgroundServer(service, keys) as address:
        yield address, service


def ask(
    address: str, path: str, body: Any = None, headers: dict[str, str] | None = None, method: str | None = None
) -> tuple[int, dict[str, str], Any]:
    """(status, headers, JSON or text) of an answer; body: JSON, or bytes as they are."""
    connection = http.client.HTTPConnection(urllib.parse.urlsplit(address).netloc, timeout=60)
    try:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method or ("GET" if body is None else "POST"), path, data, headers or {})
        answer = connection.getresponse()
        text = answer.read().decode()
        found = {name.lower(): value for name, value in answer.getheaders()}
        is_json = found.get("content-type", "").startswith("application/json")
        return answer.status, found, json.loads(text) if is_json else text
    finally:
        connection.close()


def events(text: str) -> list[tuple[str, Any]]:
    """(name, JSON) of server-sent events."""
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        data = fields["data"]
        found.append((fields.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found
