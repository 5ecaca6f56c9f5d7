"""From places in a text to tokens: which of the ids that a policy sampled write which step.

A sampled text, encoded again, may have other ids. So the ids themselves are decoded, as far as each place needs,
and any tokenizer will do that can decode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from thinkprm_jax.errors import RequestError

Decode = Callable[[list[int]], str]
Span = tuple[int, int]


def token_spans(ids: Sequence[int], text: str, spans: Sequence[Span], decode: Decode) -> list[Span]:
    """For each span of characters the tokens (first, behind the last) that write any of them.

    Args:
      ids: the tokens of the text. text: what they say. spans: of it, in characters.
      decode: of the tokenizer that made the text of the ids.
    Raises:
      RequestError: the ids say something else.
    """
    ids = [int(token) for token in ids]
    if decode(ids) != text:
        raise RequestError("the ids of the completion do not decode to its text")

    @functools.cache
    def decoded(count: int) -> str:
        return decode(ids[:count])

    def begun(count: int) -> int:
        """Characters of which so many tokens write at least a part: what they leave open is one sign."""
        return len(decoded(count))

    def written(count: int) -> int:
        """Characters that are complete with so many tokens."""
        return _in_common(decoded(count), text)

    def smallest(holds: Callable[[int], bool]) -> int:
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if holds(middle) else (middle + 1, high)
        return low

    found = []
    for start, end in spans:
        first = smallest(lambda count, start=start: begun(count) > start) - 1  # type: ignore[misc]
        last = smallest(lambda count, end=end: written(count) >= end)  # type: ignore[misc]
        found.append((max(first, 0), max(last, first, 0)))
    return found


def _in_common(one: str, other: str) -> int:
    """Characters from the beginning on: a token that ends inside a character leaves something else behind."""
    if other.startswith(one):
        return len(one)
    return next(i for i, (a, b) in enumerate(zip(one, other + "\0" * len(one), strict=False)) if a != b)
