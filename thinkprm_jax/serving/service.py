"""A loaded verifier, and what all requests of a server share."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import math
import re
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import UserError
from thinkprm_jax.sampler.handle import Handle, RequestHandle
from thinkprm_jax.serving.alternatives import Alternatives
from thinkprm_jax.serving.engine import EngineThread
from thinkprm_jax.serving.fields import ServingError, invalid
from thinkprm_jax.serving.http import EventStream
from thinkprm_jax.serving.limits import ServerLimits
from thinkprm_jax.serving.metrics import Counter, CounterRate, Gauge, Histogram, exposition
from thinkprm_jax.verifier.registry import load_verifier
from thinkprm_jax.verifier.settings import VerifierSettings, settings_of

if TYPE_CHECKING:
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.verifier.base import Verifier

MOST_AT_ONCE = 1024  # solutions of a request, of a verifier that writes no chains
MOST_SETTINGS = 64  # of which a verifier is kept
LONGEST_WAIT = 60  # seconds that a client is told to wait at most


class Service:
    """What a server serves.

    Args:
      verifier: loaded.
      settings: those that a request's own ones are laid over; unsettled, so that what follows from others (the
        temperature from n) follows from the request's. None: the verifier's.
      names: that requests may call the model by, the one that is shown first.

    Attributes:
      ready: all shapes that will come are compiled. draining: it is about to end, and takes nothing new.
      running: requests under way. streaming: answers that are streamed. held: chains whose request has enough in
        the queue already.
    """

    def __init__(
        self,
        verifier: Verifier,
        settings: VerifierSettings | None = None,
        *,
        names: Sequence[str] = ("mini",),
        limits: ServerLimits | None = None,
    ) -> None:
        self.verifier, self.names = verifier, tuple(names)
        self.limits = ServerLimits() if limits is None else limits
        self.engine = EngineThread(verifier.loop, self._fail_all)
        self.ready = self.draining = False
        self.running = self.streaming = self.held = 0
        self.created = int(time.time())
        self._base = _unsettled(verifier.settings) if settings is None else settings
        self._verifiers: collections.OrderedDict[tuple[tuple[str, Any], ...], Verifier] = collections.OrderedDict()
        self._handles: weakref.WeakSet[Handle[Any]] = weakref.WeakSet()
        self.metrics = ServiceMetrics(self)

    def become_ready(self) -> None:
        """What is compiled from now on, a request waits for."""
        self.metrics.forget_compilations()
        self.ready = True

    # Verifiers

    def verifier_with(self, values: Mapping[str, Any]) -> Verifier:
        """The verifier with a request's own settings, on the same sampler.

        Raises:
          ServingError: 400, this kind has no such setting, or it cannot be so; names the field.
        """
        if not values:
            return self.verifier
        key = tuple(sorted(values.items()))
        if key in self._verifiers:
            self._verifiers.move_to_end(key)
            return self._verifiers[key]
        for name in values:
            if name not in settings_of(type(self._base)):
                raise invalid(_FIELDS.get(name, name), f"is no setting of a verifier of kind {self._base.kind}")
        try:
            found = load_verifier(self._base.changed(**values), like=self.verifier)
        except UserError as error:
            named = [name for name in sorted(values, key=len) if re.search(rf"\b{name}\b", str(error))]
            name = named[-1] if named else next(iter(values))
            raise ServingError(400, str(error), _FIELDS.get(name, name)) from None
        self._verifiers[key] = found
        if len(self._verifiers) > MOST_SETTINGS:
            self._verifiers.popitem(last=False)
        return found

    @property
    def sampler(self) -> Sampler:
        """What writes.

        Raises:
          ServingError: 400, this verifier writes nothing.
        """
        sampler = self.verifier.sampler
        if sampler is None:
            raise ServingError(400, f"a verifier of kind {self.verifier.kind} writes no text")
        return sampler

    @functools.cached_property
    def alternatives(self) -> Alternatives:
        return Alternatives(self.sampler)

    def check_model(self, name: str | None) -> None:
        """ServingError, 404, where a request names another model."""
        if name is not None and name not in self.names:
            raise ServingError(
                404, f"there is no model {name!r}: this server has {self.names[0]}", "model", "not_found"
            )

    # Load

    @property
    def waiting(self) -> int:
        """Chains without a slot."""
        return self.verifier.activity.waiting + self.held

    def admit(self, chains: int, field: str) -> None:
        """Has room for so many more chains, or says so.

        Args:
          field: of the request, that their number is from.
        Raises:
          ServingError: 429, the queue is full; 400, it is never so long.
        """
        most = self.limits.max_queue
        if chains > most:
            raise invalid(field, f"asks for {chains:,} chains together, {most:,} are allowed")
        waiting = self.waiting
        if waiting + chains > most:
            self.metrics.refused.add(reason="queue")
            rate = self.metrics.finished_rate()
            seconds = math.ceil(waiting / rate) if rate > 0 else 1
            what = f"{waiting:,} chains wait, and {most:,} may"
            raise ServingError(429, what, None, "overloaded", min(max(seconds, 1), LONGEST_WAIT))

    def turns(self, verifier: Verifier) -> asyncio.Semaphore:
        """How many solutions of one request are given to the sampler at once: those of others come in between,
        however many it has."""
        slots = MOST_AT_ONCE if verifier.sampler is None else 2 * verifier.sampler.slots
        return asyncio.Semaphore(max(slots // verifier.n, 1))

    def break_off(self) -> None:
        """Cancels all that runs."""
        for handle in list(self._handles):
            handle.cancel()

    def _fail_all(self, error: BaseException) -> None:
        for handle in list(self._handles):
            handle.fail(error)

    def watch(self, handle: Handle[Any]) -> None:
        """Notes when a first token of it is there, and that it runs."""
        self._handles.add(handle)
        parts = [part for part in handle.parts if isinstance(part, RequestHandle)]
        if isinstance(handle, RequestHandle):
            parts.append(handle)
        self.engine.time_first_token(parts, self.metrics.first_token.add)

    def stream(self, answer: EventStream) -> EventStream:
        """The answer, counted while it is streamed; ServingError, 429, where too many are."""
        most = self.limits.max_streams
        if self.streaming >= most:
            self.metrics.refused.add(reason="streams")
            raise ServingError(429, f"{most:,} answers are streamed, and no more may be", None, "overloaded", 1)
        answer.counted_by(self._count_stream)
        return answer

    def _count_stream(self, more: int) -> None:
        self.streaming += more


# What a request calls otherwise than the settings do.
_FIELDS = {"max_gen_tokens": "budget"}


class ServiceMetrics:
    """The figures of a service."""

    def __init__(self, service: Service) -> None:
        verifier, sampler = service.verifier, service.verifier.sampler
        self.requests = Counter("thinkprm_requests_total", "Answers, by path and status.")
        self.refused = Counter("thinkprm_refused_total", "Requests that found no room, by reason.")
        self.gone = Counter("thinkprm_disconnected_total", "Requests whose client went away before the answer.")
        self.first_token = Histogram("thinkprm_first_token_seconds", "From a chain's arrival to its first token.")
        self.verdict = Histogram("thinkprm_verdict_seconds", "From a solution's arrival to its verdict.")
        self.finished_rate = CounterRate(lambda: verifier.activity.finished)
        slots = 0 if sampler is None else sampler.slots
        self._compiler: Any = verifier if sampler is None else sampler
        self._compiled_before = 0
        self._all: list[Counter | Gauge | Histogram] = [
            self.requests,
            self.refused,
            self.gone,
            self.first_token,
            self.verdict,
            Gauge("thinkprm_ready", "Whether all shapes that will come are compiled.", lambda: service.ready),
            Gauge("thinkprm_requests_running", "Requests under way.", lambda: service.running),
            Gauge("thinkprm_streams", "Answers that are streamed.", lambda: service.streaming),
            Gauge("thinkprm_queue", "Chains that wait for a slot.", lambda: service.waiting),
            Gauge("thinkprm_slots", "Slots.", lambda: slots),
            Gauge("thinkprm_slots_busy", "Slots with a chain in them.", lambda: verifier.activity.running),
            Gauge("thinkprm_chains_total", "Chains that ended.", lambda: verifier.activity.finished, "counter"),
            Gauge("thinkprm_tokens_total", "Tokens sampled.", lambda: verifier.sampled_tokens, "counter"),
            Gauge(
                "thinkprm_tokens_per_second",
                "Tokens sampled a second, since the figures were last asked for and at least 10 s.",
                CounterRate(lambda: verifier.sampled_tokens),
            ),
            Gauge("thinkprm_compilations", "Programs compiled.", self._compilations),
            Gauge(
                "thinkprm_late_compilations",
                "Programs compiled since the server was ready: requests waited for them.",
                lambda: self._compilations() - self._compiled_before if service.ready else 0,
            ),
        ]

    def _compilations(self) -> int:
        return getattr(self._compiler, "compilations", 0)

    def forget_compilations(self) -> None:
        """Those so far are not late."""
        self._compiled_before = self._compilations()

    def show(self) -> str:
        return exposition(self._all)


def _unsettled(settings: VerifierSettings) -> VerifierSettings:
    """With the temperature left to us where it is what we would have chosen."""
    temperature = getattr(settings, "temperature", None)
    chosen = getattr(base_settings(settings, None).settled(), "temperature", None)
    return base_settings(settings, None if temperature == chosen else temperature)


def base_settings(settings: VerifierSettings, temperature: float | None) -> VerifierSettings:
    """Settings that requests may change: with the temperature only where the user said one, since it follows from
    n otherwise."""
    if "temperature" not in settings_of(type(settings)):
        return settings
    return dataclasses.replace(settings, temperature=temperature)  # type: ignore[call-arg]
