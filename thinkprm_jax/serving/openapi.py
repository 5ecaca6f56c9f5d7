"""The description of the server for programs: OpenAPI 3.1."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from thinkprm_jax.serving.service import Service

Schema = dict[str, Any]


def describe(service: Service) -> Schema:
    """The whole document, with this server's limits in it."""
    limits = service.limits
    text = {"type": "string"}
    problem = {**text, "maxLength": limits.max_problem_chars}
    solution = {**text, "maxLength": limits.max_solution_chars}
    steps = {"type": "array", "items": text, "minItems": 1, "maxItems": limits.max_steps}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "thinkprm serve",
            "version": version("thinkprm-jax"),
            "description": "Verdicts on solutions of maths problems, step by step. Failures are as Error.",
        },
        "paths": {
            "/v1/verify": _post(
                "Judge one or several solutions of a problem",
                _verify_request(problem, steps, solution, limits.max_solutions),
                {"$ref": "#/components/schemas/VerifyAnswer"},
                stream=True,
            ),
            "/v1/completions": _post(
                "Go on with a text, as OpenAI's completions",
                _object(
                    {"prompt": _prompts(solution), "max_tokens": _whole(1), "logprobs": _whole(0, 1), **_SAMPLING},
                    ["prompt"],
                ),
                _ANY,
                stream=True,
            ),
            "/v1/chat/completions": _post(
                "Answer a chat, as OpenAI's",
                _object(
                    {
                        "messages": {"type": "array", "items": _MESSAGE, "minItems": 1},
                        "max_tokens": _whole(1),
                        "max_completion_tokens": _whole(1),
                        "logprobs": {"type": "boolean"},
                        "top_logprobs": _whole(0, 1),
                        **_SAMPLING,
                    },
                    ["messages"],
                ),
                _ANY,
                stream=True,
            ),
            "/pooling": _post(
                "Two probabilities for every step, as vLLM's reward models of steps",
                _object(
                    {
                        "messages": {"type": "array", "items": _MESSAGE, "minItems": 1},
                        "input": _texts(solution),
                        "encoding_format": {"enum": ["float", "base64"]},
                    }
                ),
                _ANY,
            ),
            "/score": _post(
                "The scores of solutions, as vLLM's",
                _object({"text_1": _texts(problem), "text_2": _texts(solution)}, ["text_1", "text_2"]),
                _ANY,
            ),
            "/v1/score": _post(
                "The probabilities of tokens behind texts, as SGLang's",
                _object(
                    {
                        "query": _prompts(solution),
                        "items": _prompts(solution),
                        "label_token_ids": {"type": "array", "items": _whole(0), "minItems": 1, "maxItems": 64},
                        "apply_softmax": {"type": "boolean"},
                        "item_first": {"type": "boolean"},
                    },
                    ["query", "items", "label_token_ids"],
                ),
                _ANY,
            ),
            "/generate": _post(
                "Go on with a text, or measure it, as SGLang's own endpoint",
                _object(
                    {
                        "text": _texts(solution),
                        "input_ids": _prompts(solution),
                        "sampling_params": {"type": "object"},
                        "return_logprob": {"type": "boolean"},
                        "logprob_start_len": _whole(-1),
                        "stream": {"type": "boolean"},
                    }
                ),
                _ANY,
                stream=True,
            ),
            **{path: _get(what) for path, what in _ASKED.items()},
        },
        "components": {
            "schemas": {"Error": _ERROR, "Verdict": _VERDICT, "VerifyAnswer": _VERIFY_ANSWER},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


_ASKED = {
    "/health": "Whether the process works",
    "/ready": "Whether requests are taken, and none waits for a compilation",
    "/metrics": "Figures for Prometheus",
    "/v1/models": "The model",
    "/get_model_info": "The model, as SGLang's clients ask",
}


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    return {"type": "object", "properties": properties, "required": required or [], "additionalProperties": False}


def _whole(low: int, high: int | None = None) -> Schema:
    return {"type": "integer", "minimum": low, **({} if high is None else {"maximum": high})}


def _texts(text: Schema) -> Schema:
    return {"anyOf": [text, {"type": "array", "items": text, "minItems": 1}]}


def _prompts(text: Schema) -> Schema:
    ids = {"type": "array", "items": _whole(0), "minItems": 1}
    return {"anyOf": [text, ids, {"type": "array", "items": {"anyOf": [text, ids]}, "minItems": 1}]}


_ANY: Schema = {"type": "object"}
_MESSAGE = _object({"role": {"type": "string"}, "content": {"type": "string"}}, ["role", "content"])
_SAMPLING: Schema = {
    "n": _whole(1, 128),
    "temperature": {"type": "number", "minimum": 0},
    "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
    "seed": _whole(0, 2**63 - 1),
    "stop": _texts({"type": "string", "minLength": 1}),
    "stream": {"type": "boolean"},
    "return_token_ids": {"type": "boolean"},
}
_PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1}
_LABEL = {"enum": [0, 1]}
_CHAIN: Schema = {
    "type": "object",
    "properties": {
        "output": {"type": "string"},
        "prefix_score": {"anyOf": [_PROBABILITY, {"type": "null"}]},
        "step_labels": {"type": "array", "items": _LABEL},
        "step_scores": {"type": "array", "items": _PROBABILITY},
        "step_forced": {"type": "array", "items": {"type": "boolean"}},
        "finish_reason": {"type": ["string", "null"]},
        "output_tokens": _whole(0),
    },
    "required": ["output", "prefix_score", "step_labels"],
}
_VERDICT: Schema = {
    "description": "Scores and labels, or why there are none",
    "type": "object",
    "properties": {
        "prefix_score": _PROBABILITY,
        "step_scores": {"type": "array", "items": _PROBABILITY},
        "step_labels": {"type": "array", "items": _LABEL},
        "steps": {"type": "array", "items": {"type": "string"}},
        "chains": {"type": "array", "items": _CHAIN},
        "error": {"type": "string"},
    },
}
_VERIFY_ANSWER: Schema = {
    "type": "object",
    "properties": {
        "verdict": {"$ref": "#/components/schemas/Verdict"},
        "verdicts": {"type": "array", "items": {"$ref": "#/components/schemas/Verdict"}},
        "verifier": {"type": "object"},
        "thinkprm_format": {"type": "string"},
        "model": {"type": "string"},
        "usage": {"type": "object"},
    },
    "required": ["verifier", "thinkprm_format"],
}
_ERROR: Schema = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "integer"},
            },
            "required": ["message", "type", "param", "code"],
        }
    },
    "required": ["error"],
}
_FAILURES = {
    "400": "a field is missing, of another type or out of its range",
    "401": "the key is missing or wrong",
    "404": "there is no such model",
    "408": "the body did not come in time",
    "413": "the body is too large",
    "422": "what was given cannot be judged",
    "429": "the queue is full; Retry-After says when to come again",
    "503": "the server is not ready yet, or about to end",
    "504": "there was no answer before the deadline",
}


def _verify_request(problem: Schema, steps: Schema, solution: Schema, most: int) -> Schema:
    either = {"type": "array", "items": {"anyOf": [solution, steps]}, "maxItems": most}
    return _object(
        {
            "problem": problem,
            "steps": {**steps, "description": "One solution, already cut into steps"},
            "solution": {**solution, "description": "One solution, as one text"},
            "completions": {**either, "description": "Any number of solutions"},
            "n": {**_whole(1), "description": "Chains a solution"},
            "rounds": {**_whole(1), "description": "Thinking rounds a chain"},
            "temperature": {"type": "number", "minimum": 0},
            "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            "seed": _whole(0, 2**32 - 1),
            "budget": {**_whole(1), "description": "Tokens a round may think"},
            "decision_temperature": {"type": "number", "exclusiveMinimum": 0},
            "stream": {"type": "boolean"},
            "details": {"type": "boolean", "description": "The prompt, and what each chain says by itself"},
            "deadline": {"type": "number", "exclusiveMinimum": 0, "description": "Seconds"},
            "model": {"type": "string"},
        },
        ["problem"],
    )


def _post(what: str, request: Schema, answer: Schema, stream: bool = False) -> Schema:
    content: Schema = {"application/json": {"schema": answer}}
    if stream:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    failure = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {
        "post": {
            "summary": what,
            "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
            "responses": {
                "200": {"description": "OK", "content": content},
                **{status: {"description": why, "content": failure} for status, why in _FAILURES.items()},
            },
        }
    }


def _get(what: str) -> Schema:
    answers = {"200": {"description": "OK"}, "401": {"description": _FAILURES["401"]}}
    return {"get": {"summary": what, "responses": {**answers, "503": {"description": _FAILURES["503"]}}}}
