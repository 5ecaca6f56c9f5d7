"""POST /v1/completions and /v1/chat/completions, as OpenAI's clients speak them."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from thinkprm_jax.errors import RequestError, UserError, one_line
from thinkprm_jax.serving.fields import BodyFields, ServingError, check_text, fields_of, invalid
from thinkprm_jax.serving.generation import (
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
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer

COMPLETION_TOKENS = 16  # OpenAI's default
MOST_N = 128
IGNORED = (
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "request_id",
    "priority",
)


@dataclass(frozen=True)
class TextRequest:
    """What is asked.

    Attributes:
      chat: by messages, and answered by one. field: that the prompts are from.
      logprobs: of the tokens that were written. alternatives: of so many of the likeliest at each place, too.
      with_ids: ids are to be in the answer.
      usage: a stream ends with what was used.
    """

    chat: bool
    prompts: Sequence[Sequence[int]]
    field: str
    values: SamplingValues
    n: int
    logprobs: bool
    alternatives: int
    with_ids: bool
    stream: bool
    usage: bool
    deadline: float


async def completions(service: Service, request: Request) -> Response:
    """A text, or ids, is gone on with."""
    return await _answer(service, request, chat=False)


async def chat_completions(service: Service, request: Request) -> Response:
    """A chat is answered."""
    return await _answer(service, request, chat=True)


async def _answer(service: Service, request: Request, chat: bool) -> Response:
    fields = await read_fields(request, service.limits)
    service.check_model(fields.text("model", None))
    asked = parse_request(service, fields, chat)
    handles = submit(service, asked.prompts, asked.values, asked.n, asked.field)
    form = _Form(service, asked)
    if asked.stream:
        try:
            return service.stream(EventStream(_events(service, asked, form, handles), asked.deadline, named=False))
        except ServingError:
            for handle in handles:
                handle.cancel()
            raise
    work = _all_written(service, asked, handles)
    return JSONAnswer(form.whole(await while_wanted(request.receive, work, asked.deadline)))


async def _all_written(service: Service, asked: TextRequest, handles: Sequence[RequestHandle]) -> list[Written]:
    found = await all_written(service, handles, asked.prompts, asked.n)
    return [await _with_likeliest(service, asked, each) for each in found]


async def _with_likeliest(service: Service, asked: TextRequest, found: Written) -> Written:
    """With the likeliest tokens, where they are asked for and are not those that were written."""
    if not asked.logprobs or asked.alternatives <= int(asked.values.temperature == 0):
        return found
    find = service.alternatives.find
    likeliest = await asyncio.to_thread(find, found.prompt, found.ids, asked.alternatives)
    return dataclasses.replace(found, likeliest=likeliest)


def parse_request(service: Service, fields: BodyFields, chat: bool) -> TextRequest:
    """ServingError, 400, names what is wrong."""
    sampler, limits = service.sampler, service.limits
    if chat:
        prompts, field = [_read_chat(fields, sampler.tokenizer)], "messages"
        most = fields.whole("max_completion_tokens", None, 1)
        most = fields.whole("max_tokens", sampler.max_length, 1) if most is None else most
        fields.ignore(("max_tokens",))
        logprobs, alternatives = fields.flag("logprobs"), fields.whole("top_logprobs", 0, 0, 20)
        fields.neutral("response_format", {"type": "text"})
        for name in ("tools", "functions"):
            fields.neutral(name, [])
        for name in ("tool_choice", "function_call"):
            fields.neutral(name, "none", "auto")
        fields.neutral("parallel_tool_calls", True, False)
        fields.neutral("modalities", ["text"])
    else:
        begin = fields.flag("add_special_tokens", True)
        prompts = read_prompts(fields.take("prompt"), "prompt", sampler, limits, begin)
        field, most = "prompt", fields.whole("max_tokens", COMPLETION_TOKENS, 1)
        wanted = fields.whole("logprobs", None, 0, 20)
        logprobs, alternatives = wanted is not None, wanted or 0
        fields.neutral("echo", False)
        fields.neutral("suffix", "")
    n = fields.whole("n", 1, 1, MOST_N)
    fields.neutral("best_of", n)
    values = read_sampling(fields, sampler, min(most, sampler.max_length))
    stream = fields.flag("stream")
    options = fields.inner("stream_options", None)
    usage = False
    if options is not None:
        if not stream:
            raise invalid("stream_options", "is for streams: stream is not true")
        usage = options.flag("include_usage")
        options.ignore(("include_obfuscation", "continuous_usage_stats"))
        options.end()
    found = TextRequest(
        chat,
        prompts,
        field,
        values,
        n,
        logprobs,
        alternatives,
        fields.flag("return_token_ids"),
        stream,
        usage,
        fields.number("deadline", limits.deadline, 0.001, limits.deadline),
    )
    fields.ignore(IGNORED)
    fields.end()
    return found


def _read_chat(fields: BodyFields, tokenizer: Tokenizer) -> list[int]:
    messages = []
    for i, item in enumerate(fields.items("messages", most=1000)):
        message = fields_of(item, f"messages[{i}]")
        messages.append({"role": message.text("role", most=100), "content": _content(message)})
        for name in ("tool_calls", "function_call", "tool_call_id", "audio"):
            message.neutral(name, [])
        message.ignore(("name", "refusal", "reasoning_content", "annotations"))
        message.end()
    if not messages:
        raise invalid("messages", "is empty")
    begins = fields.flag("add_generation_prompt", True)
    try:
        ids = tokenizer.encode_chat(messages, begins)
    except (RequestError, UserError) as error:
        raise ServingError(400, f"messages: {one_line(error)}", "messages") from None
    if not ids:
        raise invalid("messages", "is empty")
    return ids


def _content(message: BodyFields) -> str:
    """A text, or parts that are texts."""
    content, name = message.take("content", ""), message.name("content")
    if not isinstance(content, list):
        return check_text(content, name)
    texts = []
    for i, item in enumerate(content):
        part = fields_of(item, f"{name}[{i}]")
        if part.text("type") != "text":
            raise invalid(part.name("type"), "must be text")
        texts.append(part.text("text"))
        part.end()
    return "".join(texts)


class _Form:
    """How the answer to a request is written down."""

    def __init__(self, service: Service, asked: TextRequest) -> None:
        self._asked, self._tokenizer = asked, service.sampler.tokenizer
        kind = "chat.completion" if asked.chat else "text_completion"
        self._head = {
            "id": f"{'chatcmpl' if asked.chat else 'cmpl'}-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": service.names[0],
        }
        self._piece_head = self._head | {"object": f"{kind}.chunk" if asked.chat else kind}

    def whole(self, found: Sequence[Written]) -> dict[str, Any]:
        choices = [self._choice(i, each) for i, each in enumerate(found)]
        return {**self._head, "choices": choices, "usage": self.usage(found)}

    def usage(self, found: Sequence[Written]) -> dict[str, int]:
        """A prompt counts once, however many texts go on with it."""
        prompt = sum(map(len, self._asked.prompts))
        sampled = sum(each.sampled for each in found)
        return {"prompt_tokens": prompt, "completion_tokens": sampled, "total_tokens": prompt + sampled}

    def _choice(self, index: int, found: Written) -> dict[str, Any]:
        chat = self._asked.chat
        said = {"message": {"role": "assistant", "content": found.text}} if chat else {"text": found.text}
        return {"index": index, **said, **self._ending(found), **self._ids(index, found.ids)}

    def _ids(self, index: int, ids: Sequence[int]) -> dict[str, Any]:
        if not self._asked.with_ids:
            return {}
        return {"token_ids": list(ids), "prompt_token_ids": list(self._asked.prompts[index // self._asked.n])}

    def _ending(self, found: Written) -> dict[str, Any]:
        """What is known of a choice at its end."""
        return {
            "logprobs": self._logprobs(found) if self._asked.logprobs else None,
            "finish_reason": found.finish,
            "stop_reason": found.stop if found.stop not in (None, self._tokenizer.eos_id) else None,
        }

    def _logprobs(self, found: Written) -> dict[str, Any]:
        tokens = [self._tokenizer.decode([id]) for id in found.ids]
        logprobs = [finite(each) for each in found.logprobs]
        top = self._likeliest(found)
        if self._asked.chat:
            content = [
                {**self._entry(id, logprob), "top_logprobs": [self._entry(*each) for each in others]}
                for id, logprob, others in zip(found.ids, logprobs, top, strict=True)
            ]
            return {"content": content, "refusal": None}
        offsets, length = [], 0
        for token in tokens:
            offsets.append(length)
            length += len(token)
        named: list[dict[str, float | None]] | None = None
        if self._asked.alternatives:
            # The written token is among them even where it is none of the likeliest, as with OpenAI.
            named = [
                {self._tokenizer.decode([id]): each for id, each in reversed(others)} | {token: logprob}
                for others, token, logprob in zip(top, tokens, logprobs, strict=True)
            ]
        return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": named, "text_offset": offsets}

    def _likeliest(self, found: Written) -> Sequence[Sequence[tuple[int, float | None]]]:
        """Of each written token the alternatives; at temperature 0 the likeliest one is the token itself."""
        if found.likeliest is not None:
            return found.likeliest
        if not self._asked.alternatives:
            return [[] for _ in found.ids]
        return [[(id, finite(logprob))] for id, logprob in zip(found.ids, found.logprobs, strict=True)]

    def _entry(self, id: int, logprob: float | None) -> dict[str, Any]:
        """Of a chat. OpenAI's clients want a number; of a token that was not sampled there is none."""
        return {
            "token": self._tokenizer.decode([id]),
            "logprob": -9999.0 if logprob is None else logprob,
            "bytes": list(self._tokenizer.token_bytes(id)),
        }

    # Pieces of a stream

    def first(self, index: int) -> dict[str, Any]:
        """Of a chat."""
        delta = {"role": "assistant", "content": ""}
        return self._piece({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})

    def piece(self, index: int, text: str, ids: Sequence[int]) -> dict[str, Any]:
        said = {"delta": {"content": text}} if self._asked.chat else {"text": text}
        given = {"token_ids": list(ids)} if self._asked.with_ids else {}
        return self._piece({"index": index, **said, "logprobs": None, "finish_reason": None, **given})

    def last(self, index: int, found: Written) -> dict[str, Any]:
        """With the log-probabilities of all tokens."""
        said: dict[str, Any] = {"delta": {}} if self._asked.chat else {"text": ""}
        return self._piece({"index": index, **said, **self._ending(found)})

    def used(self, found: Sequence[Written]) -> dict[str, Any]:
        return {**self._piece_head, "choices": [], "usage": self.usage(found)}

    def _piece(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._piece_head, "choices": [choice], **({"usage": None} if self._asked.usage else {})}


async def _events(
    service: Service, asked: TextRequest, form: _Form, handles: Sequence[RequestHandle]
) -> AsyncGenerator[Event, None]:
    queue: asyncio.Queue[Event | None] = asyncio.Queue()
    found: dict[int, Written] = {}

    async def follow(index: int, handle: RequestHandle) -> None:
        if asked.chat:
            queue.put_nowait(("", form.first(index)))
        async for text, ids in pieces(service, handle, service.sampler.tokenizer):
            if text or (ids and asked.with_ids):
                queue.put_nowait(("", form.piece(index, text, ids)))
        done = await written(service, handle, asked.prompts[index // asked.n])
        found[index] = await _with_likeliest(service, asked, done)
        queue.put_nowait(("", form.last(index, found[index])))

    async def follow_all() -> None:
        try:
            await asyncio.gather(*(follow(index, handle) for index, handle in enumerate(handles)))
        finally:
            queue.put_nowait(None)

    following = asyncio.ensure_future(follow_all())
    try:
        while (event := await queue.get()) is not None:
            yield event
        await following
        if asked.usage:
            yield "", form.used([found[index] for index in range(len(handles))])
        yield "", "[DONE]"
    finally:
        following.cancel()
        for handle in handles:
            handle.cancel()
