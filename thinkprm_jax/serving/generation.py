"""Text that a model goes on with: what all endpoints that write have in common."""

from __future__ import annotations

import asyncio
import codecs
import math
import secrets
from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thinkprm_jax.errors import RequestError, one_line
from thinkprm_jax.sampler.handle import RequestHandle
from thinkprm_jax.sampler.request import MAX_STOP_IDS, Choose, Force, Phase, Request, Result, Think, Thought
from thinkprm_jax.serving.alternatives import Ranked
from thinkprm_jax.serving.fields import BodyFields, ServingError, check_list, check_text, check_whole, invalid
from thinkprm_jax.serving.limits import ServerLimits
from thinkprm_jax.serving.service import Service

if TYPE_CHECKING:
    from thinkprm_jax.sampler import Sampler
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

MOST_STOPS = 16
MOST_MEASURED = 256  # tokens of a prompt whose log-probabilities may be asked for
GREATEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class SamplingValues:
    """How a text is gone on with; the same meaning as in :class:`.Request` and :class:`.Think`.

    Attributes:
      seed: None: another one at every request.
      measure_from: log-probabilities of the prompt's tokens behind this place are wanted; None: of none.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stops: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()
    ignore_end: bool = False
    measure_from: int | None = None


@dataclass(frozen=True)
class Written:
    """What became of a request.

    Attributes:
      ids, text, logprobs: of what was written, without what stopped it; a log-probability of NaN was not sampled.
      finish: "stop" or "length". stop: the id or text that stopped it.
      measured: of the prompt's tokens behind ``measure_from``.
      prompt: its tokens. sampled: tokens, through the stop.
      likeliest: of each of the ids, as of :class:`.Alternatives`; None: nobody asked.
    """

    ids: list[int]
    text: str
    logprobs: list[float]
    finish: str
    stop: int | str | None
    measured: list[float]
    prompt: list[int]
    sampled: int = 0
    likeliest: Sequence[Ranked] | None = None


def read_sampling(
    fields: BodyFields, sampler: Sampler, max_tokens: int, temperature: float = 1.0
) -> SamplingValues:
    """The fields that OpenAI's two endpoints and those who follow them have in common."""
    for name in ("frequency_penalty", "presence_penalty", "min_p", "min_tokens"):
        fields.neutral(name, 0, 0.0)
    fields.neutral("repetition_penalty", 1, 1.0)
    fields.neutral("length_penalty", 1, 1.0)
    fields.neutral("logit_bias", {})
    fields.neutral("include_stop_str_in_output", False)
    fields.neutral("no_stop_trim", False)
    fields.neutral(
        "skip_special_tokens", True, False
    )  # texts have none in them but those that models write to be read
    fields.neutral("spaces_between_special_tokens", True, False)
    fields.neutral("logits_processors", [])
    for name in ("regex", "json_schema", "ebnf", "structural_tag", "guided_json", "guided_regex", "guided_choice"):
        fields.neutral(name)
    top_k = fields.whole("top_k", 0, -1, 2**31 - 1)
    ends = sampler.end_ids
    stop_ids = tuple(
        check_whole(item, f"{fields.name('stop_token_ids')}[{i}]", 0, sampler.tokenizer.vocab_size - 1)
        for i, item in enumerate(fields.items("stop_token_ids", (), MAX_STOP_IDS - len(ends)))
    )
    top_p = fields.number("top_p", 1.0, 0.0, 1.0)
    if top_p == 0:
        raise invalid(fields.name("top_p"), "is 0, it must be above 0")
    return SamplingValues(
        max_tokens,
        fields.number("temperature", temperature, 0.0, 1e4),
        top_p,
        max(top_k, 0),
        fields.whole("seed", None, 0, GREATEST_SEED),
        _stops(fields),
        stop_ids,
        fields.flag("ignore_eos"),
    )


def _stops(fields: BodyFields) -> tuple[str, ...]:
    given, name = fields.take("stop", []), fields.name("stop")
    if isinstance(given, str):
        given = [given]
    stops = tuple(
        check_text(item, f"{name}[{i}]", 1000) for i, item in enumerate(check_list(given, name, MOST_STOPS))
    )
    for i, stop in enumerate(stops):
        if not stop:
            raise invalid(f"{name}[{i}]", "is empty")
        if any("\ud800" <= character <= "\udfff" for character in stop):
            raise invalid(f"{name}[{i}]", "has a lone surrogate")
    return stops


def read_prompts(value: Any, name: str, sampler: Sampler, limits: ServerLimits, begin: bool) -> list[list[int]]:
    """The ids of one or several prompts: a text, ids, or a list of either.

    Args:
      begin: a text gets the begin-of-sentence token that it lacks; ids are taken as they are.
    """
    if isinstance(value, str):
        return [_encode(value, name, sampler, limits, begin)]
    items = check_list(value, name)
    if items and not isinstance(items[0], (str, list)):
        return [_check_ids(items, name, sampler)]
    check_list(value, name, limits.max_solutions)
    if not items:
        raise invalid(name, "is empty")
    return [
        _encode(item, f"{name}[{i}]", sampler, limits, begin)
        if isinstance(item, str)
        else _check_ids(check_list(item, f"{name}[{i}]"), f"{name}[{i}]", sampler)
        for i, item in enumerate(items)
    ]


def _encode(text: str, name: str, sampler: Sampler, limits: ServerLimits, begin: bool) -> list[int]:
    check_text(text, name, limits.max_solution_chars)
    tokenizer = sampler.tokenizer
    try:
        tokenizer.check_fits(text, sampler.max_length, sampler.positions)
        ids = tokenizer.encode(text)
    except RequestError as error:
        raise ServingError(400, f"{name}: {one_line(error)}", name) from None
    if begin and tokenizer.bos_id is not None and ids[:1] != [tokenizer.bos_id]:
        ids = [tokenizer.bos_id, *ids]
    if not ids:
        raise invalid(name, "is empty")
    return ids


def _check_ids(items: Sequence[Any], name: str, sampler: Sampler) -> list[int]:
    if not items:
        raise invalid(name, "is empty")
    if len(items) >= sampler.max_length:
        raise invalid(name, f"has {len(items):,} tokens, there is room for {sampler.max_length - 1:,}")
    most = sampler.tokenizer.vocab_size - 1
    return [check_whole(item, f"{name}[{i}]", 0, most) for i, item in enumerate(items)]


def submit(
    service: Service, prompts: Sequence[Sequence[int]], values: SamplingValues, n: int, field: str
) -> list[RequestHandle]:
    """n requests of every prompt, in order: number i of a prompt has the seed + i.

    Args:
      field: that the prompts are from.
    Raises:
      ServingError: there is no room, or a prompt cannot run.
    """
    sampler = service.sampler
    service.admit(len(prompts) * n, "n" if n > 1 else field)
    first = secrets.randbelow(GREATEST_SEED) if values.seed is None else values.seed
    handles: list[RequestHandle] = []
    try:
        for prompt in prompts:
            for number in range(n):
                handles.append(
                    sampler.submit(_request(sampler, prompt, values, (first + number) % (GREATEST_SEED + 1)))
                )
                service.watch(handles[-1])
                if handles[-1].done() and (error := handles[-1].result().error) is not None:
                    raise ServingError(400, f"{field}: {one_line(error)}", field)
    except BaseException:
        for handle in handles:
            handle.cancel()
        raise
    return handles


def _request(sampler: Sampler, prompt: Sequence[int], values: SamplingValues, seed: int) -> Request:
    ends = () if values.ignore_end else sampler.end_ids
    begin = len(prompt) if values.measure_from is None else max(min(values.measure_from, len(prompt) - 1), 0) + 1
    measured = list(prompt[begin:])

    def script() -> Generator[Phase, Any, tuple[Thought | None, list[float]]]:
        found = []
        for id in measured:
            [logprob] = yield Choose((id,))
            found.append(float(logprob))
            yield Force((id,))
        if not values.max_tokens:
            return None, found
        return (yield Think(values.max_tokens, (*ends, *values.stop_ids), values.stops)), found

    return Request(list(prompt[:begin]), script, values.temperature, values.top_p, values.top_k, seed)


async def written(service: Service, handle: RequestHandle, prompt: Sequence[int]) -> Written:
    """What a handle of :func:`submit` brings.

    Raises:
      ServingError: 422, nothing.
    """
    result: Result = await service.engine.result(handle)
    if result.error is not None:
        raise ServingError(422, one_line(result.error), None, "unjudgeable")
    thought, measured = result.value
    if thought is None:
        return Written([], "", [], "length", None, measured, list(prompt))
    stopped = thought.finish.startswith("stop")
    return Written(
        thought.ids,
        thought.text,
        thought.logprobs.tolist(),
        "stop" if stopped else "length",
        thought.stop,
        measured,
        list(prompt),
        result.tokens,
    )


async def all_written(
    service: Service, handles: Sequence[RequestHandle], prompts: Sequence[Sequence[int]], n: int
) -> list[Written]:
    """Of n requests of each prompt, in order; cancelled, nothing of them runs on."""
    try:
        each = [written(service, handle, prompts[i // n]) for i, handle in enumerate(handles)]
        return list(await asyncio.gather(*each))
    finally:
        for handle in handles:
            handle.cancel()


async def pieces(
    service: Service, handle: RequestHandle, tokenizer: Tokenizer
) -> AsyncIterator[tuple[str, list[int]]]:
    """(text, ids) as they are written; a text is of whole characters, and may be empty."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    async for ids, _ in service.engine.stream(handle):
        yield decoder.decode(b"".join(map(tokenizer.token_bytes, ids))), ids
    if rest := decoder.decode(b"", final=True):
        yield rest, []


def finite(logprob: float) -> float | None:
    """As JSON has it; of a token that was not sampled there is none."""
    return logprob if math.isfinite(logprob) else None
