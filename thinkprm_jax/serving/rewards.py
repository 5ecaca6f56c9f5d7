"""The reward shapes of other servers: vLLM's /pooling and /score, SGLang's /v1/score.

/pooling    a chat (or its ChatML text) of a problem and a solution -> [P(incorrect), P(correct)] of every step
/score      problems and solutions -> the score of each solution
/v1/score   a query and items -> the probability of given tokens behind each
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
import struct
import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.responses import Response

from thinkprm_jax.protocol.steps import split_solution
from thinkprm_jax.sampler.request import MAX_WATCHED, Choose, Phase
from thinkprm_jax.sampler.request import Request as SamplerRequest
from thinkprm_jax.serving.fields import (
    BodyFields,
    ServingError,
    check_list,
    check_text,
    check_whole,
    fields_of,
    invalid,
)
from thinkprm_jax.serving.generation import read_prompts
from thinkprm_jax.serving.http import JSONAnswer, read_fields, while_wanted
from thinkprm_jax.serving.service import Service
from thinkprm_jax.serving.verify import unjudgeable

if TYPE_CHECKING:
    from starlette.requests import Request

    from thinkprm_jax.verifier.base import Verdict

STEP_MARK = "<extra_0>"  # that ends a step, where a client asks as of Qwen's PRMs
IGNORED = ("user", "truncate_prompt_tokens", "priority", "request_id", "add_special_tokens", "mm_processor_kwargs")
MOST_LABELS = 64
_CHATML = re.compile(r"<\|im_start\|>(system|user|assistant)\n(.*?)(?:<\|im_end\|>\s*|\Z)", re.DOTALL)

Solution = tuple[str, list[str]]  # problem, steps


async def pooling(service: Service, request: Request) -> Response:
    """vLLM's, of a reward model of steps: for each input a row of two probabilities a step."""
    fields = await read_fields(request, service.limits)
    service.check_model(fields.text("model", None))
    if "messages" in fields:
        solutions, names = [_of_messages(fields.items("messages", most=100), "messages")], ["messages"]
        fields.neutral("input", [])
    else:
        given = fields.take("input")
        items = [given] if isinstance(given, str) else check_list(given, "input", service.limits.max_solutions)
        names = ["input"] if isinstance(given, str) else [f"input[{i}]" for i in range(len(items))]
        solutions = [_of_text(check_text(item, name), name) for item, name in zip(items, names, strict=True)]
    encoding = fields.text("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise invalid("encoding_format", "must be float or base64")
    fields.neutral("task", "token_classify", "reward", "classify")
    for name in ("activation", "use_activation", "softmax"):
        fields.neutral(name, True)
    for name in ("dimensions", "normalize"):
        fields.neutral(name)
    fields.neutral("add_generation_prompt", False)
    fields.neutral("continue_final_message", False)
    verdicts, usage = await _judge(service, request, fields, solutions, names)
    rows = [[[1 - score, score] for score in _step_scores(verdict)] for verdict in verdicts]
    data = [
        {"index": i, "object": "pooling", "data": _packed(row) if encoding == "base64" else row}
        for i, row in enumerate(rows)
    ]
    return JSONAnswer({**_head(service, "pool"), "data": data, "usage": usage})


async def score(service: Service, request: Request) -> Response:
    """vLLM's: text_1 are problems, text_2 solutions; one problem goes with all solutions."""
    fields = await read_fields(request, service.limits)
    service.check_model(fields.text("model", None))
    firsts, first = _texts(fields, ("text_1", "queries", "data_1"), service)
    seconds, second = _texts(fields, ("text_2", "documents", "data_2", "items"), service)
    if len(firsts) not in (1, len(seconds)):
        raise invalid(first, f"has {len(firsts)} texts and {second} {len(seconds)}: give one, or as many")
    if len(firsts) == 1:
        firsts = firsts * len(seconds)
    fields.neutral("encoding_format", "float")
    for name in ("activation", "use_activation", "softmax"):
        fields.neutral(name, True)
    names = [f"{second}[{i}]" for i in range(len(seconds))]
    solutions = [(problem, split_solution(text)) for problem, text in zip(firsts, seconds, strict=True)]
    verdicts, usage = await _judge(service, request, fields, solutions, names)
    data = [{"index": i, "object": "score", "score": verdict.prefix_score} for i, verdict in enumerate(verdicts)]
    return JSONAnswer({**_head(service, "score"), "data": data, "usage": usage})


async def score_labels(service: Service, request: Request) -> Response:
    """SGLang's: for each item the probability of each label's token behind query and item."""
    fields = await read_fields(request, service.limits)
    service.check_model(fields.text("model", None))
    sampler, limits = service.sampler, service.limits
    last = sampler.tokenizer.vocab_size - 1
    labels = [
        check_whole(item, f"label_token_ids[{i}]", 0, last)
        for i, item in enumerate(fields.items("label_token_ids", most=MOST_LABELS))
    ]
    if not labels:
        raise invalid("label_token_ids", "is empty")
    [query] = read_prompts(fields.take("query"), "query", sampler, limits, begin=False)
    items = read_prompts(fields.take("items"), "items", sampler, limits, begin=False)
    normalised, reverse = fields.flag("apply_softmax"), fields.flag("item_first")
    deadline = fields.number("deadline", limits.deadline, 0.001, limits.deadline)
    fields.ignore(IGNORED)
    fields.end()
    prompts = [[*item, *query] if reverse else [*query, *item] for item in items]
    bos = sampler.tokenizer.bos_id
    prompts = [prompt if bos is None or prompt[0] == bos else [bos, *prompt] for prompt in prompts]
    service.admit(len(prompts), "items")

    def script() -> Generator[Phase, Any, np.ndarray]:
        found = []
        for i in range(0, len(labels), MAX_WATCHED):  # several times, nothing is appended
            found.append((yield Choose(tuple(labels[i : i + MAX_WATCHED]))))
        return np.concatenate(found)

    async def run() -> list[list[float]]:
        handles = [sampler.submit(SamplerRequest(prompt, script)) for prompt in prompts]
        for handle in handles:
            service.watch(handle)
        try:
            results = await asyncio.gather(*map(service.engine.result, handles))
        finally:
            for handle in handles:
                handle.cancel()
        for i, result in enumerate(results):
            if result.error is not None:
                raise ServingError(400, f"items[{i}]: {result.error}", f"items[{i}]")
        return [_probabilities(result.value, normalised) for result in results]

    scores = await while_wanted(request.receive, run(), deadline)
    tokens = sum(map(len, prompts))
    usage = {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}
    return JSONAnswer({"object": "scoring", "scores": scores, "model": service.names[0], "usage": usage})


def _probabilities(logprobs: np.ndarray, normalised: bool) -> list[float]:
    found = logprobs.astype(np.float64)
    if not np.isfinite(found).all():
        raise ServingError(422, "the model's log-probabilities are not finite", None, "unjudgeable")
    shares = np.exp(found - found.max()) if normalised else np.exp(found)
    return (shares / shares.sum() if normalised else shares).tolist()


async def _judge(
    service: Service, request: Request, fields: BodyFields, solutions: Sequence[Solution], names: Sequence[str]
) -> tuple[list[Verdict], dict[str, int]]:
    """Verdicts on all solutions, and what they took; ServingError where one has none: these shapes have no place
    for a reason."""
    limits = service.limits
    deadline = fields.number("deadline", limits.deadline, 0.001, limits.deadline)
    fields.ignore(IGNORED)
    fields.end()
    for (problem, steps), name in zip(solutions, names, strict=True):
        if len(problem) > limits.max_problem_chars:
            raise invalid(
                name, f"has a problem of {len(problem):,} characters, {limits.max_problem_chars:,} are allowed"
            )
        if len(steps) > limits.max_steps:
            raise invalid(name, f"has {len(steps):,} steps, {limits.max_steps:,} are allowed")
        if (length := sum(map(len, steps))) > limits.max_solution_chars:
            raise invalid(name, f"has {length:,} characters, {limits.max_solution_chars:,} are allowed")
    service.admit(len(solutions) * service.verifier.n, names[0].partition("[")[0])

    async def run() -> list[Verdict]:
        began = time.monotonic()
        handles = [service.verifier.submit(problem, steps) for problem, steps in solutions]
        try:
            for handle in handles:
                service.watch(handle)
                handle.add_done_callback(lambda _: service.metrics.verdict.add(time.monotonic() - began))
            return list(await asyncio.gather(*map(service.engine.result, handles)))
        finally:
            for handle in handles:
                handle.cancel()

    verdicts = await while_wanted(request.receive, run(), deadline)
    for verdict, name in zip(verdicts, names, strict=True):
        if failure := unjudgeable(verdict, name):
            raise failure
    sampled = sum(verdict.output_tokens for verdict in verdicts)
    return verdicts, {"prompt_tokens": 0, "completion_tokens": sampled, "total_tokens": sampled}


def _step_scores(verdict: Verdict) -> list[float]:
    """Of ThinkPRM one a step, the last being that of the whole, as search-and-learn is given them."""
    return [*verdict.step_scores[:-1], verdict.prefix_score]


def _of_messages(messages: Sequence[Any], name: str) -> Solution:
    """The problem is what users say, the solution what the assistant says."""
    said: dict[str, list[str]] = {"system": [], "user": [], "assistant": []}
    for i, item in enumerate(messages):
        message = fields_of(item, f"{name}[{i}]")
        role = message.text("role")
        if role not in said:
            raise invalid(message.name("role"), "must be system, user or assistant")
        said[role].append(message.text("content"))
        message.ignore(("name",))
        message.end()
    return _solution("\n".join(said["user"]), "\n".join(said["assistant"]), name)


def _of_text(text: str, name: str) -> Solution:
    turns = _CHATML.findall(text)
    said = {role: "\n".join(content for who, content in turns if who == role) for role in ("user", "assistant")}
    if not said["user"]:
        what = "must be a chat in ChatML (<|im_start|>user ...), with a problem and a solution; or give messages"
        raise invalid(name, what)
    return _solution(said["user"], said["assistant"], name)


def _solution(problem: str, text: str, name: str) -> Solution:
    if not problem.strip():
        raise invalid(name, "has no problem: nothing that a user says")
    if not text.strip():
        raise invalid(name, "has no solution: nothing that an assistant says")
    if STEP_MARK in text:
        return problem, [step.strip() for step in text.split(STEP_MARK) if step.strip()]
    return problem, split_solution(text)


def _texts(fields: BodyFields, names: Sequence[str], service: Service) -> tuple[list[str], str]:
    """(texts, the field they are from), of the first of these fields that is there."""
    name = next((name for name in names if name in fields), names[0])
    given = fields.take(name)
    items = [given] if isinstance(given, str) else check_list(given, name, service.limits.max_solutions)
    if not items:
        raise invalid(name, "is empty")
    return [
        check_text(item, f"{name}[{i}]", service.limits.max_solution_chars) for i, item in enumerate(items)
    ], name


def _packed(rows: Sequence[Sequence[float]]) -> str:
    """float32, little-endian, in base64, as OpenAI packs embeddings."""
    flat = [value for row in rows for value in row]
    return base64.b64encode(struct.pack(f"<{len(flat)}f", *flat)).decode()


def _head(service: Service, kind: str) -> dict[str, Any]:
    return {
        "id": f"{kind}-{secrets.token_hex(12)}",
        "object": "list",
        "created": int(time.time()),
        "model": service.names[0],
    }
