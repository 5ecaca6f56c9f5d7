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
    return _said_last(prompt, "prompt", "user")


def solution_in(completion: Any) -> str:
    """The solution in a completion: the text, or what the assistant said last.

    Raises:
      RequestError: there is none.
    """
    return _said_last(completion, "completion", "assistant")


def _said_last(value: Any, what: str, role: str) -> str:
    """The text itself, or of a chat the last message of ``role``."""
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        for message in reversed(value):
            if isinstance(message, Mapping) and message.get("role") == role:
                return content_of(message)
    raise RequestError(f"the {what} is neither a text nor a chat with a message of the {role}")
