"""SGLang's own endpoints, as far as programs written in its language ask them: the original ThinkPRM's client.

That client generates with /generate, and decides between two words by the log-probabilities of a prompt that ends
with each of them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from thinkprm_jax.serving.fields import BodyFields, fields_of, invalid
from thinkprm_jax.serving.generation import (
    MOST_MEASURED,
    SamplingValues,
    Written,
    all_written,
    finite,
    pieces,
    read_prompts,
    read_sampling,
    submit,
    written,
)
from thinkprm_jax.serving.http import Event, EventStream, JSONAnswer, read_fields, while_wanted
from thinkprm_jax.serving.service import Service

if TYPE_CHECKING:
    from starlette.requests import Request

    from thinkprm_jax.sampler.handle import RequestHandle

# SGLang's client takes a log-probability of 0, which float32 rounds that of a sure token to, for none, and then
# divides by the number of those that it has.
_NEXT_TO_ZERO = -1e-30
GENERATED_TOKENS = 128  # SGLang's default
IGNORED = (
    "rid",
    "session_params",
    "background",
    "return_hidden_states",
    "stream_options",
    "priority",
    "return_bytes",
)


@dataclass(frozen=True)
class GenerateRequest:
    """What is asked. several: the prompts came as a list, and so do the answers. logprobs: of tokens; with_texts:
    beside their texts."""

    prompts: Sequence[Sequence[int]]
    several: bool
    field: str
    values: SamplingValues
    n: int
    logprobs: bool
    with_texts: bool
    stream: bool
    deadline: float


async def model_info(service: Service, request: Request) -> Response:
    """The first thing that a client asks."""
    return JSONAnswer(
        {
            "model_path": service.names[0],
            "tokenizer_path": service.names[0],
            "is_generation": service.verifier.sampler is not None,
            "preferred_sampling_params": None,
            "weight_version": str(service.verifier.weight_version),
        }
    )


async def server_info(service: Service, request: Request) -> Response:
    sampler = service.sampler
    return JSONAnswer(
        {
            "model_path": service.names[0],
            "version": f"thinkprm_jax {version('thinkprm-jax')}",
            "max_total_num_tokens": sampler.max_length * sampler.slots,
            "context_length": sampler.max_length,
            "max_running_requests": sampler.slots,
        }
    )


async def flush_cache(service: Service, request: Request) -> Response:
    """There is nothing that would have to be flushed: what is kept of a prompt is its own."""
    return JSONAnswer({"success": True})


async def generate(service: Service, request: Request) -> Response:
    """A text is gone on with, or measured."""
    fields = await read_fields(request, service.limits)
    service.check_model(fields.text("model", None))
    asked = parse_request(service, fields)
    handles = submit(service, asked.prompts, asked.values, asked.n, asked.field)
    identity = secrets.token_hex(16)
    if asked.stream:
        events = _events(service, asked, handles[0], identity)
        return service.stream(EventStream(events, asked.deadline, named=False))
    work = all_written(service, handles, asked.prompts, asked.n)
    found = await while_wanted(request.receive, work, asked.deadline)
    answers = [_answer(service, asked, each, f"{identity}-{i}") for i, each in enumerate(found)]
    return JSONAnswer(answers if asked.several or asked.n > 1 else answers[0])


def parse_request(service: Service, fields: BodyFields) -> GenerateRequest:
    """ServingError, 400, names what is wrong."""
    sampler, limits = service.sampler, service.limits
    field = "input_ids" if "input_ids" in fields and "text" not in fields else "text"
    given = fields.take(field)
    prompts = read_prompts(given, field, sampler, limits, begin=True)
    several = isinstance(given, list) and isinstance(given[0], (str, list))
    parameters = fields_of(fields.take("sampling_params", {}), "sampling_params")
    most = parameters.whole("max_new_tokens", GENERATED_TOKENS)
    n = parameters.whole("n", 1, 1, 128)
    parameters.neutral("min_new_tokens", 0)
    values = read_sampling(_renamed(parameters), sampler, min(most, sampler.max_length))
    parameters.ignore(("sampling_seed", "custom_params", "stream_interval", *_OF_SAMPLING))
    parameters.end()
    logprobs = fields.flag("return_logprob")
    begin = fields.whole("logprob_start_len", -1, -1)
    fields.neutral("top_logprobs_num", 0)
    for name in ("token_ids_logprob", "image_data", "audio_data", "video_data", "input_embeds", "lora_path"):
        fields.neutral(name, [])
    if logprobs and begin >= 0:
        longest = max(map(len, prompts)) - begin - 1
        if longest > MOST_MEASURED:
            raise invalid(
                "logprob_start_len", f"leaves {longest:,} tokens to be measured, {MOST_MEASURED} are allowed"
            )
        values = replace(values, measure_from=begin)
    stream = fields.flag("stream")
    if stream and (len(prompts) > 1 or n > 1):
        raise invalid("stream", "is for one text alone")
    found = GenerateRequest(
        prompts,
        several,
        field,
        values,
        n,
        logprobs,
        fields.flag("return_text_in_logprobs"),
        stream,
        fields.number("deadline", limits.deadline, 0.001, limits.deadline),
    )
    fields.ignore(IGNORED)
    fields.end()
    return found


# The fields of sampling_params that are read under OpenAI's names.
_OF_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "stop", "stop_token_ids", "ignore_eos", "frequency_penalty"),
    *("presence_penalty", "repetition_penalty", "skip_special_tokens", "spaces_between_special_tokens", "regex"),
    *("json_schema", "ebnf", "structural_tag", "no_stop_trim", "logit_bias"),
)


def _renamed(parameters: BodyFields) -> BodyFields:
    """The same, with the seed where OpenAI has it."""
    values = {name: parameters.take(name, None) for name in _OF_SAMPLING}
    return BodyFields({**values, "seed": parameters.take("sampling_seed", None)}, parameters.name(""))


def _answer(service: Service, asked: GenerateRequest, found: Written, identity: str) -> dict[str, Any]:
    return {"text": found.text, "output_ids": found.ids, "meta_info": _meta(service, asked, found, identity)}


def _meta(service: Service, asked: GenerateRequest, found: Written, identity: str) -> dict[str, Any]:
    reason: dict[str, Any] = {"type": found.finish}
    reason |= {"matched": found.stop} if found.finish == "stop" else {"length": found.sampled}
    meta: dict[str, Any] = {
        "id": identity,
        "finish_reason": reason,
        "prompt_tokens": len(found.prompt),
        "completion_tokens": found.sampled,
        "cached_tokens": 0,
    }
    if not asked.logprobs:
        return meta

    def tokens(ids: Sequence[int], logprobs: Sequence[float | None]) -> list[list[Any]]:
        """[log-probability, id, text] of each."""
        text = service.sampler.tokenizer.decode
        return [
            [_NEXT_TO_ZERO if logprob == 0 else logprob, id, text([id]) if asked.with_texts else None]
            for id, logprob in zip(ids, logprobs, strict=True)
        ]

    begin = asked.values.measure_from
    # Of the first one nothing is measured.
    begin = len(found.prompt) if begin is None else max(min(begin, len(found.prompt) - 1), 0)
    given = found.prompt[begin:]
    logprobs: list[float | None] = [None, *map(finite, found.measured)] if given else []
    meta["input_token_logprobs"] = tokens(given, logprobs)
    meta["output_token_logprobs"] = tokens(found.ids, [finite(each) for each in found.logprobs])
    return meta


async def _events(
    service: Service, asked: GenerateRequest, handle: RequestHandle, identity: str
) -> AsyncGenerator[Event, None]:
    """Each has the whole text so far, as SGLang's have."""
    text, ids = "", list[int]()
    try:
        async for piece, new in pieces(service, handle, service.sampler.tokenizer):
            text, ids = text + piece, ids + new
            meta = {"id": identity, "finish_reason": None, "prompt_tokens": len(asked.prompts[0])}
            meta |= {"completion_tokens": len(ids)}
            yield "", {"text": text, "output_ids": ids, "meta_info": meta}
            await asyncio.sleep(0)
        found = await written(service, handle, asked.prompts[0])
        yield "", _answer(service, asked, found, identity)
        yield "", "[DONE]"
    finally:
        handle.cancel()
