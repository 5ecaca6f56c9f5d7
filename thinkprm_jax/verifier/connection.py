"""The way to a server of `thinkprm serve`: what is asked, what is tried again, and verdicts of its answers."""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.records.verdicts import VerdictRecord
from thinkprm_jax.user_files import read_text
from thinkprm_jax.verifier.base import Verdict
from thinkprm_jax.verifier.findings import ChainVerdict, Findings, Reading

if TYPE_CHECKING:
    import httpx

KEY_VARIABLE = "THINKPRM_API_KEY"
AGAIN = (429, 502, 503)  # the server is busy, not there yet, or about to end
OF_ITEM = ("problem", "question", "steps", "solution", "body")  # fields of a request that are a solution's own
FIRST_WAIT, LONGEST_WAIT = 0.25, 15.0  # seconds between two attempts, where the server says nothing
MOST_FAILURES = 3  # answers of 500 to one solution


class ServerConnection:
    """Asks one server, from one event loop.

    Args:
      url: of the server. key: that it wants; None: what $THINKPRM_API_KEY says, if it is set.
      patience: seconds that an answer is tried for while the server is busy or away.
      connections: requests at once.
    Raises:
      UserError: httpx is not installed, or this is no address.
    """

    def __init__(self, url: str, key: str | None = None, patience: float = 300.0, connections: int = 64) -> None:
        try:
            import httpx
        except ModuleNotFoundError:
            raise UserError("httpx is not installed: pip install 'thinkprm-jax[client]'") from None
        if not url.startswith(("http://", "https://")):
            raise UserError(f"{url!r} is no address of a server: it begins with http:// or https://")
        key = os.environ.get(KEY_VARIABLE) if key is None else key
        try:
            self._client = httpx.AsyncClient(
                base_url=url.rstrip("/"),
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=httpx.Timeout(None, connect=10.0),  # the server has a deadline for every request
                limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise UserError(f"{url!r} is no address of a server: {error}") from None
        self._broken: tuple[type[Exception], ...] = (httpx.TransportError,)
        self._url, self._patience = url, patience

    async def close(self) -> None:
        await self._client.aclose()

    async def info(self) -> Mapping[str, Any]:
        """What the server says of its model: `GET /v1/models`, its entry.

        Raises:
          UserError: it is none of ours, or cannot be reached.
        """
        answer = await self._ask("GET", "/v1/models")
        try:
            found = answer.json()["data"][0]
            return {"kind": found["kind"], "judges_steps": found["judges_steps"], "settings": found["settings"]}
        except (ValueError, LookupError, TypeError):
            raise UserError(f"{self._url}: this is no server of `thinkprm serve`") from None

    async def judge(self, problem: str, steps: Sequence[str], values: Mapping[str, Any], kind: str) -> Verdict:
        """The verdict of the server on one solution, with ``error`` where it cannot be judged.

        Args:
          values: settings, as fields of the request. kind: of the server's verifier.
        Raises:
          UserError: the server refuses the key or the settings, or is away for too long.
        """
        body = {"problem": problem, "steps": list(steps), "details": True, **values}
        failures = 0
        while True:
            try:
                answer = await self._ask("POST", "/v1/verify", json=body)
            except RequestError as error:  # of what cannot be written as UTF-8
                return Verdict(error=error)
            if answer.status_code == 200:
                return read_verdict(answer.json(), kind, self._url)
            message, field = _failure(answer)
            failures += answer.status_code >= 500
            if answer.status_code in (413, 422, 504) or (answer.status_code == 400 and _is_of_item(field)):
                return Verdict(error=RequestError(message))
            if answer.status_code < 500:
                raise UserError(f"{self._url}: {message}")
            if failures >= MOST_FAILURES:
                return Verdict(error=RequestError(f"the server failed {failures} times: {message}"))
            await asyncio.sleep(FIRST_WAIT)

    async def _ask(self, method: str, path: str, **values: Any) -> httpx.Response:
        """An answer that is worth something: while the server is busy or away it is asked again."""
        began, wait = time.monotonic(), FIRST_WAIT
        while True:
            told = None
            try:
                answer = await self._client.request(method, path, **values)
                if answer.status_code not in AGAIN:
                    if answer.status_code == 401:
                        raise UserError(f"{self._url}: the key is missing or wrong (${KEY_VARIABLE}, api_key)")
                    return answer
                why, told = _failure(answer)[0], _seconds(answer.headers.get("retry-after"))
            except self._broken as error:
                why = str(error) or type(error).__name__
            except UnicodeEncodeError:
                raise RequestError("the problem or a step has a lone surrogate") from None
            seconds = (wait if told is None else told) * random.uniform(0.8, 1.2)  # not all clients at once
            if time.monotonic() + seconds - began > self._patience:
                raise UserError(f"{self._url}: {why}")
            await asyncio.sleep(seconds)
            wait = min(wait * 2, LONGEST_WAIT)


def _is_of_item(field: str | None) -> bool:
    return field is not None and field.split("[")[0].split(".")[0] in OF_ITEM


def _failure(answer: httpx.Response) -> tuple[str, str | None]:
    """(what the server says, the field that it names)."""
    try:
        error = answer.json()["error"]
        return str(error["message"]), error.get("param")
    except (ValueError, LookupError, TypeError, AttributeError):
        return f"the answer has status {answer.status_code}", None


def _seconds(text: str | None) -> float | None:
    """Of a header Retry-After: seconds, or a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - time.time(), 0.0)
    except (TypeError, ValueError):
        return None


def read_verdict(content: Mapping[str, Any], kind: str, url: str) -> Verdict:
    """The verdict in an answer with details.

    Raises:
      UserError: it is none.
    """
    from thinkprm_jax.verifier.registry import verifier_class

    try:
        found = content["verdict"]
        record = VerdictRecord.from_dict(found, url, "verdict")
        readings = [each["reading"] for each in found.get("chains", ())]
        if record.error is not None:
            return Verdict(found["prompt"], error=RequestError(record.error), locates=found["locates"])
        chains = tuple(
            ChainVerdict(
                chain.output,
                chain.prefix_score,
                chain.step_labels,
                chain.step_scores,
                chain.step_forced,
                chain.finish_reason or "",
                Reading(said["label"], said["first_error"], tuple(said["step_labels"])),
                chain.output_tokens or 0,
                chain.forced,
            )
            for chain, said in zip(record.chains, readings, strict=True)
        )
        assert record.prefix_score is not None  # of a record without an error
        numbers = (record.prefix_score, record.step_scores or (), record.step_labels or ())
        findings = Findings(*numbers, found["first_error"])
        combine = getattr(verifier_class(kind), "combine", None) if chains else None
        version, spans = record.weight_version, record.step_spans
        pairs = None if spans is None else tuple((span[0], span[1]) for span in spans)
        return Verdict(found["prompt"], chains, None, found["locates"], findings, version, pairs, combine)
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{url}: an answer is no verdict ({error})") from None


def read_key(path: str | None) -> str | None:
    """The first key of a file as the server takes it; None: no file."""
    if path is None:
        return None
    for line in read_text(path, 2**20).splitlines():
        if line.strip() and not line.startswith("#"):
            return line.strip()
    raise UserError(f"{path}: no key in it")
