"""POST /v1/verify: a problem and one or several solutions; verdicts as `thinkprm score` writes them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from thinkprm_jax.errors import RequestError
from thinkprm_jax.protocol.steps import locate_steps
from thinkprm_jax.records.schema import FORMAT_KEY
from thinkprm_jax.records.verdicts import VerdictRow
from thinkprm_jax.sampler.handle import Handle, RequestHandle
from thinkprm_jax.serving.fields import BodyFields, ServingError, check_text, check_texts, invalid
from thinkprm_jax.serving.http import Event, EventStream, JSONAnswer, read_fields, together, while_wanted
from thinkprm_jax.serving.limits import ServerLimits
from thinkprm_jax.serving.live import ChainText
from thinkprm_jax.serving.service import Service
from thinkprm_jax.verifier.thinkprm import ThinkPRM

if TYPE_CHECKING:
    from starlette.requests import Request

    from thinkprm_jax.verifier.base import Verdict, Verifier

SOURCES = ("steps", "completions", "solution")


@dataclass(frozen=True)
class VerifyRequest:
    """What is asked.

    Attributes:
      solutions: the steps of each. source: the field that they are from.
      spans: where the steps of each stand in its text; None of one that came as steps.
      values: settings of the request's own.
      details: a verdict is to have what no file has: the prompt, and what each chain says by itself.
      deadline: seconds.
    """

    problem: str
    solutions: Sequence[Sequence[str]]
    source: str
    spans: Sequence[Sequence[tuple[int, int]] | None]
    values: dict[str, Any]
    stream: bool
    details: bool
    deadline: float


def parse_request(fields: BodyFields, limits: ServerLimits) -> VerifyRequest:
    """ServingError, 400, names what is wrong."""
    problem_field = "question" if "question" in fields and "problem" not in fields else "problem"
    problem = fields.text(problem_field, most=limits.max_problem_chars)
    given = [name for name in SOURCES if name in fields]
    if len(given) != 1:
        what = (
            "is missing: give steps, completions or solution" if not given else "cannot stand beside another one"
        )
        raise invalid(given[1] if given else "steps", what)
    [source] = given
    located = _solutions(fields, source, limits)
    values = {
        "n": fields.whole("n", None, 1),
        "rounds": fields.whole("rounds", None, 1),
        "temperature": fields.number("temperature", None),
        "top_p": fields.number("top_p", None, 0.0, 1.0),
        "seed": fields.whole("seed", None, 0, 2**32 - 1),
        "max_gen_tokens": fields.whole("budget", None, 1, 2**31 - 1),
        "decision_temperature": fields.number("decision_temperature", None),
    }
    found = VerifyRequest(
        problem,
        [steps for steps, _ in located],
        source,
        [spans for _, spans in located],
        {name: value for name, value in values.items() if value is not None},
        fields.flag("stream"),
        fields.flag("details"),
        fields.number("deadline", limits.deadline, 0.001, limits.deadline),
    )
    fields.ignore(("model", problem_field))
    fields.end()
    return found


Located = tuple[list[str], list[tuple[int, int]] | None]  # steps, and where they stand in their text


def _solutions(fields: BodyFields, source: str, limits: ServerLimits) -> list[Located]:
    chars, most = limits.max_solution_chars, limits.max_steps
    if source == "solution":
        found = [_cut(fields.text(source, most=chars))]
    elif source == "steps":
        found = [(check_texts(fields.take(source), source, most), None)]
    else:
        found = [
            (check_texts(item, f"{source}[{i}]", most), None)
            if isinstance(item, list)
            else _cut(check_text(item, f"{source}[{i}]", chars))
            for i, item in enumerate(fields.items(source, most=limits.max_solutions))
        ]
    for number, (steps, _) in enumerate(found):
        name = f"{source}[{number}]" if source == "completions" else source
        if len(steps) > most:
            raise invalid(name, f"has {len(steps):,} steps, {most:,} are allowed")
        if (length := sum(map(len, steps))) > chars:
            raise invalid(name, f"has {length:,} characters, {chars:,} are allowed")
    return found


def _cut(text: str) -> Located:
    """A whole solution, as `thinkprm score` cuts it."""
    steps = locate_steps(text)
    return [step.text for step in steps], [(step.start, step.end) for step in steps]


async def verify(service: Service, request: Request) -> Response:
    """The endpoint."""
    fields = await read_fields(request, service.limits)
    service.check_model(fields.text("model", None))
    asked = parse_request(fields, service.limits)
    verifier = service.verifier_with(asked.values)
    field = "n" if "n" in asked.values else asked.source
    service.admit(len(asked.solutions) * verifier.n, field)
    if asked.stream:
        return service.stream(EventStream(_events(service, verifier, asked), asked.deadline))
    verdicts = await while_wanted(request.receive, judge(service, verifier, asked), asked.deadline)
    if asked.source != "completions" and (failure := unjudgeable(verdicts[0], asked.source)):
        raise failure
    return JSONAnswer(_answer(verifier, asked, verdicts, service))


async def judge(service: Service, verifier: Verifier, asked: VerifyRequest) -> list[Verdict]:
    """The verdicts, in order; cancelled, nothing of it runs on."""
    judging = _Judging(service, verifier, asked)
    return await together([judging.verdict(number) for number in range(len(asked.solutions))])


class _Judging:
    """The solutions of one request on their way; a large request has not all of them in the queue at once."""

    def __init__(self, service: Service, verifier: Verifier, asked: VerifyRequest) -> None:
        self._service, self._verifier, self._asked = service, verifier, asked
        self._turns, self._began = service.turns(verifier), time.monotonic()

    async def verdict(
        self, number: int, meanwhile: Callable[[Handle[Verdict]], Awaitable[None]] | None = None
    ) -> Verdict:
        """Of a solution; its handle goes to ``meanwhile`` first, and is cancelled where this is."""
        async with self._turn():
            handle = self._verifier.submit(self._asked.problem, self._asked.solutions[number])
            self._service.watch(handle)
            try:
                if meanwhile is not None:
                    await meanwhile(handle)
                verdict = await self._service.engine.result(handle)
            finally:
                handle.cancel()
        self._service.metrics.verdict.add(time.monotonic() - self._began)
        return verdict

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        chains = self._verifier.n
        self._service.held += chains
        try:
            await self._turns.acquire()
        finally:
            self._service.held -= chains
        try:
            yield
        finally:
            self._turns.release()


def _answer(
    verifier: Verifier, asked: VerifyRequest, verdicts: Sequence[Verdict], service: Service
) -> dict[str, Any]:
    made = [verdict_json(verdict, asked, number) for number, verdict in enumerate(verdicts)]
    named = {"verdicts": made} if asked.source == "completions" else {"verdict": made[0]}
    return named | _ending(service, verifier, verdicts)


def _ending(service: Service, verifier: Verifier, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """What an answer says beside its verdicts."""
    return {
        "verifier": verifier.settings.stamp,
        FORMAT_KEY: f"{VerdictRow.FORMAT}/{VerdictRow.VERSION}",
        "model": service.names[0],
        "usage": {"completion_tokens": sum(verdict.output_tokens for verdict in verdicts)},
    }


def verdict_json(verdict: Verdict, asked: VerifyRequest, number: int) -> dict[str, Any]:
    """As it stands in a file, and with details what a verdict is made of again. number: of the solution."""
    spans = asked.spans[number]
    if spans:
        verdict = dataclasses.replace(verdict, step_spans=tuple(spans))
    found = verdict.record(None if spans is None else asked.solutions[number]).to_dict()
    if not asked.details:
        return found
    first = None if verdict.error is not None else verdict.found.first_error
    found |= {"prompt": verdict.prompt, "locates": verdict.locates, "first_error": first}
    for chain, each in zip(verdict.chains, found.get("chains", ()), strict=True):
        each["reading"] = dataclasses.asdict(chain.reading)
    return found


# Streams


async def _events(service: Service, verifier: Verifier, asked: VerifyRequest) -> AsyncGenerator[Event, None]:
    """Event ``begin`` with the steps, ``token`` and ``step`` of every chain as it is written, ``verdict`` of every
    solution as it is judged, and in the end ``done``. What they are of stands in ``solution`` and ``chain``, from
    0."""
    events: asyncio.Queue[Event | None] = asyncio.Queue()
    judging = _Judging(service, verifier, asked)

    async def follow(number: int) -> Verdict:
        async def read(handle: Handle[Verdict]) -> None:
            chains = [part for part in handle.parts if isinstance(part, RequestHandle)]
            of = [{"solution": number, "chain": chain} for chain in range(len(chains))]
            steps = len(asked.solutions[number])
            await together(
                [_follow_chain(service, verifier, events, *each, steps) for each in zip(chains, of, strict=True)]
            )

        verdict = await judging.verdict(number, read)
        events.put_nowait(("verdict", {"solution": number, "verdict": verdict_json(verdict, asked, number)}))
        return verdict

    async def follow_all() -> list[Verdict]:
        try:
            return await together([follow(number) for number in range(len(asked.solutions))])
        finally:
            events.put_nowait(None)

    following = asyncio.ensure_future(follow_all())
    try:
        yield "begin", {"solutions": [list(steps) for steps in asked.solutions]}
        while (event := await events.get()) is not None:
            yield event
        yield "done", _ending(service, verifier, await following)
    finally:
        following.cancel()


async def _follow_chain(
    service: Service,
    verifier: Verifier,
    events: asyncio.Queue[Event | None],
    handle: RequestHandle,
    of: dict[str, int],
    steps: int,
) -> None:
    assert verifier.sampler is not None
    # Only such chains watch the words `correct` and `incorrect`.
    text = ChainText(verifier.sampler.tokenizer, steps, scored=isinstance(verifier, ThinkPRM))
    async for new in service.engine.stream(handle):
        piece, verdicts = text.add(new)
        if piece:
            events.put_nowait(("token", {**of, "text": piece, "ids": new.ids}))
        for verdict in verdicts:
            events.put_nowait(("step", {**of, **verdict._asdict()}))


def unjudgeable(verdict: Verdict, field: str) -> ServingError | None:
    """The answer to a solution that has no verdict; None: it has one."""
    error: RequestError | None = verdict.error
    return None if error is None else ServingError(422, str(error), field, "unjudgeable")
