"""Problem and solution in what a trainer hands to a reward function: plain texts or chat messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thinkprm_jax.errors import RequestError


def content_of(message: Mapping[str, Any]) -> str:
    """The text of a chat message; of a list of parts, those that are text.

    Raises:
      RequestError: it has none.
    """
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        if parts and all(isinstance(part, str) for part in parts):
            return "".join(map(str, parts))
    raise RequestError("a message of the chat has no text")


def problem_in(prompt: Any) -> str:
    """The problem of a prompt: the text, or what the user said last.

    Raises:
      RequestError: there is none.
    """
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, Sequence):
        for message in reversed(prompt):
            if isinstance(message, Mapping) and message.get("role") == "user":
                return content_of(message)
    raise RequestError("the prompt is neither a text nor a chat with a message of the user")


def solution_in(completion: Any) -> str:
    """The solution in a completion: the text, or what the assistant said last.

    Raises:
      RequestError: there is none.
    """
    if isinstance(completion, str):
        return completion
    if isinstance(completion, Sequence):
        for message in reversed(completion):
            if isinstance(message, Mapping) and message.get("role") == "assistant":
                return content_of(message)
    raise RequestError("the completion is neither a text nor a chat with a message of the assistant")
