"""Drafts: what may come next, looked up in what is there already.

A verification quotes the solution that it judges, repeats its own phrases, and says what other chains of the same
prompt say. So the last tokens of a row often stood somewhere before, and what followed them there is a guess at
what follows now: a draft. A wide step feeds a row's draft behind its next token and samples at every position; the
draft counts as far as it is what was sampled. Which token a position gets is decided by its logits, the seed and
the position, so it is the same with drafts and without.

Here is the lookup, and whether a wide step is worth its price; :mod:`.decoding` takes the steps. Everything runs
on the device, inside a chunk's loop.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

LONGEST_MATCH = 4  # tokens that are compared
# Tokens of a draft that are accepted, on the average, by how many tokens before it matched: 24 real chains with
# drafts of seven tokens (benchmarks/drafts.py).
ACCEPTED = (0.0, 0.7, 1.5, 2.4, 3.1)
OWN_SPARE = 16  # positions of a row's own context beside the S of the cache
# How fast a row learns whether its drafts hold, at each of them, and forgets it, at each step without one.
_LEARN, _FORGET = 0.15, 0.005


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["texts", "trust", "price"], meta_fields=["tokens"]
)
@dataclasses.dataclass
class DraftControls:
    """What the lookup needs; B rows of up to S tokens.

    A row of ``texts`` is what the row may quote: S tokens of other chains of its prompt, one chain after another
    with -1 between them, the last of them -1 (and -1 wherever there is none), then its own context from position
    0.
    """

    texts: Any  # int32 [B, 2 S + OWN_SPARE]
    trust: Any  # float32 [B]: accepted tokens of the row's drafts so far, as a part of what is usual
    price: Any  # float32 []: what a wide step costs more than a narrow one, in narrow ones
    tokens: int  # of a draft, at most

    @property
    def others(self) -> int:
        """S, where a row's own context begins."""
        return int(self.texts.shape[1] - OWN_SPARE) // 2


@functools.partial(jax.tree_util.register_dataclass, data_fields=["tokens", "count", "expected"], meta_fields=[])
@dataclasses.dataclass
class Drafts:
    """One for each of B rows, of up to L tokens."""

    tokens: Any  # int32 [B, L]
    count: Any  # int32 [B]: how many; 0: there is none
    expected: Any  # float32 [B]: how many will be accepted, by what is usual


def look_up(texts: jax.Array, others: int, known: jax.Array, most: int) -> Drafts:
    """What followed where a row's last tokens stood before: the longest match counts, the last one of equals.

    Args:
      texts: int32 [B, N] as of :class:`DraftControls`. others: S, where a row's own context begins.
      known: int [B], tokens of that context. most: L.
    """
    size = texts.shape[1]
    end = jnp.minimum(others + known, size) - 1  # of the last token, int [B]
    back = end[:, None] - jnp.arange(LONGEST_MATCH)
    last = jnp.where(back >= others, jnp.take_along_axis(texts, jnp.maximum(back, 0), axis=1), -2)
    place = jnp.arange(size)
    padded = jnp.pad(texts, ((0, 0), (LONGEST_MATCH - 1, 1)), constant_values=-1)
    matches = jnp.ones(texts.shape, bool)
    length = jnp.zeros(texts.shape, jnp.int32)
    for ago in range(LONGEST_MATCH):
        begin = LONGEST_MATCH - 1 - ago
        matches = matches & (padded[:, begin : begin + size] == last[:, ago : ago + 1])
        length = length + matches
    has_more = (place < end[:, None]) & (padded[:, LONGEST_MATCH : LONGEST_MATCH + size] >= 0)
    best = jnp.max(jnp.where(has_more, length * size + place, 0), axis=1)
    length, found = best // size, best % size
    index = found[:, None] + 1 + jnp.arange(most)
    tokens = jnp.take_along_axis(texts, jnp.minimum(index, size - 1), axis=1)
    there = (length > 0)[:, None] & (tokens >= 0) & (index <= end[:, None])
    count = jnp.sum(jnp.cumprod(there.astype(jnp.int32), axis=1), axis=1)
    expected = jnp.minimum(jnp.asarray(ACCEPTED, jnp.float32)[length], 0.7 * count)
    return Drafts(tokens, count, expected)


def clip(drafts: Drafts, room: jax.Array) -> Drafts:
    """Drafts of at most room[b] tokens, int [B]."""
    count = jnp.clip(room, 0, drafts.count)
    return Drafts(drafts.tokens, count, jnp.minimum(drafts.expected, count))


def worth_it(drafts: Drafts, given: jax.Array, trust: jax.Array, active: jax.Array, price: jax.Array) -> jax.Array:
    """bool []: whether a wide step gains more than it costs, for all rows together.

    Args:
      given: int [B], tokens that the wide step would feed beside the first since they are known. active: bool [B].
    """
    gained = jnp.where(active, given + trust * drafts.expected, 0.0)
    return jnp.sum(gained) > price * jnp.sum(active)


def learn(trust: jax.Array, drafts: Drafts, tried: jax.Array, accepted: jax.Array) -> jax.Array:
    """``trust`` float32 [B] after a step. tried: bool [B], rows with a draft. accepted: int [B], tokens of it."""
    seen = accepted / jnp.maximum(drafts.expected, 0.1)
    return jnp.where(tried, trust + _LEARN * (seen - trust), trust + _FORGET * (1 - trust))
