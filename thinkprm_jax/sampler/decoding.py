"""A chunk: one device call that decodes for all slots until its columns are used up or too many slots wait.

In a step every slot feeds its next token: a pending one of its context, or the one that it sampled last. A wide
step feeds up to W tokens a slot, one behind the other: pending ones, then a draft (:mod:`.drafts`), and samples at
each of their positions. What was sampled behind a draft's token counts only if that token is what was sampled
before it. So a narrow step is a wide one of W = 1, and both are :func:`_step`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from thinkprm_jax.model.cache import KVCache, settle
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.pages import PagedCache
from thinkprm_jax.sampler.drafts import DraftControls, Drafts, clip, learn, look_up, worth_it
from thinkprm_jax.sampler.request import MAX_WATCHED
from thinkprm_jax.sampler.sampling import log_probabilities, sample


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "pending", "pending_count", "positions", "active", "budgets", "stop_ids", "watch",
        "temperature", "top_k", "top_p", "keys", "leave_below", "drafts",
    ],
    meta_fields=[],
)  # fmt: skip
@dataclasses.dataclass
class Controls:
    """What every slot is to do in the next chunk; B slots, C columns of the cache."""

    pending: Any  # int32 [B, C]: context tokens that are not in the cache yet, the first C of them
    pending_count: Any  # int32 [B]: how many there are in all, at least 1 (may exceed C)
    positions: Any  # int32 [B]: where pending[:, 0] stands; as many tokens of the row are in the cache
    active: Any  # bool [B]: what an inactive slot computes is thrown away
    budgets: Any  # int32 [B]: tokens to sample; 0: only report the watched log-probabilities once
    stop_ids: Any  # int32 [B, MAX_STOP_IDS], -1 where unused
    watch: Any  # int32 [B, MAX_WATCHED], 0 where unused
    temperature: Any  # float32 [B]
    top_k: Any  # int32 [B]
    top_p: Any  # float32 [B]
    keys: Any  # uint32 [B, 2]
    leave_below: Any  # int32 []: leave the chunk when fewer slots than this are active
    drafts: DraftControls | None = None  # None: every step is narrow


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "tokens", "logprobs", "watched", "counts", "fed", "active", "busy", "drafted", "accepted", "trust",
        "steps", "wide_steps",
    ],
    meta_fields=[],
)  # fmt: skip
@dataclasses.dataclass
class ChunkOutput:
    """What a chunk did; everything the host needs, fetched in one transfer."""

    tokens: Any  # int32 [B, C]: sampled tokens, the first counts[b] of row b
    logprobs: Any  # float32 [B, C]: their log-probabilities
    watched: Any  # float32 [B, C, MAX_WATCHED]: of the watched ids at the same positions
    counts: Any  # int32 [B]
    fed: Any  # int32 [B]: tokens of the context that entered the cache
    active: Any  # bool [B]: still wants to go on
    busy: Any  # int32 [B]: steps that fed something
    drafted: Any  # int32 [B]: tokens of drafts that were tried
    accepted: Any  # int32 [B]: of those, the ones that were sampled
    trust: Any  # float32 [B], as of :class:`.DraftControls`
    steps: Any  # int32 []: decode steps taken
    wide_steps: Any  # int32 []: of those, the wide ones


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["cache", "output", "line", "known", "written", "column", "texts", "drafts", "wide"],
    meta_fields=[],
)
@dataclasses.dataclass
class _State:
    """Of the loop, between two steps."""

    cache: KVCache | PagedCache
    output: ChunkOutput
    line: Any  # int32 [B, C]: the context from ``positions`` on, as far as it is known
    known: Any  # int32 [B]: how many tokens that is (pending ones may exceed C)
    written: Any  # bool [B, C]: in which columns a row has tokens
    column: Any  # int32 []: the next
    texts: Any  # int32 [B, N]: what drafts are looked up in, or None
    drafts: Drafts | None  # for the next step
    wide: Any  # bool []: the next step is a wide one


def decode(
    model: Decoder, cache: KVCache | PagedCache, controls: Controls, limit: int, split: bool
) -> tuple[KVCache | PagedCache, ChunkOutput]:
    """Steps for all slots until ``limit`` columns are written: a slot feeds its pending tokens, then samples until
    it must stop.

    Args:
      limit: so many that a wide step of the last of them still fits the C columns of the cache.
      split: the rows are split over devices.
    """
    lengths = jnp.asarray(controls.positions)
    rotations = model.rotations(lengths, cache.steps)
    step = functools.partial(_step, model, controls, rotations)

    def wanted(state: _State) -> jax.Array:
        enough = jnp.sum(state.output.active) >= jnp.maximum(controls.leave_below, 1)
        return (state.column < limit) & enough

    state = _begin(cache, controls)
    if controls.drafts is None:
        state = jax.lax.while_loop(wanted, functools.partial(step, 1), state)
        order = None
    else:
        width = controls.drafts.tokens + 1

        def turn(state: _State) -> _State:
            """Narrow steps, then wide ones. Two loops and no condition: a condition would copy the cache."""
            narrow, wide = functools.partial(step, 1), functools.partial(step, width)
            state = jax.lax.while_loop(lambda state: wanted(state) & ~state.wide, narrow, state)
            return jax.lax.while_loop(lambda state: wanted(state) & state.wide, wide, state)

        state = jax.lax.while_loop(wanted, turn, _with_drafts(state, controls))
        order = jnp.argsort(~state.written, axis=1, stable=True)
    if isinstance(state.cache, PagedCache) or model.steps_in_place(state.cache):
        return state.cache, state.output
    return settle(state.cache, lengths, state.output.fed, order, split), state.output


def _begin(cache: KVCache | PagedCache, controls: Controls) -> _State:
    batch, columns = controls.pending.shape
    drafts = controls.drafts

    def zeros(*shape: int, dtype: Any = jnp.int32) -> jax.Array:
        return jnp.zeros(shape, dtype)

    output = ChunkOutput(
        tokens=zeros(batch, columns),
        logprobs=zeros(batch, columns, dtype=jnp.float32),
        watched=zeros(batch, columns, MAX_WATCHED, dtype=jnp.float32),
        counts=zeros(batch),
        fed=zeros(batch),
        active=jnp.asarray(controls.active),
        busy=zeros(batch),
        drafted=zeros(batch),
        accepted=zeros(batch),
        trust=zeros(batch, dtype=jnp.float32) if drafts is None else jnp.asarray(drafts.trust),
        steps=zeros(),
        wide_steps=zeros(),
    )
    return _State(
        cache=cache,
        output=output,
        line=jnp.asarray(controls.pending),
        known=jnp.asarray(controls.pending_count),
        written=zeros(batch, columns, dtype=bool),
        column=zeros(),
        texts=None if drafts is None else jnp.asarray(drafts.texts),
        drafts=None,
        wide=zeros(dtype=bool),
    )


def _step(
    model: Decoder, controls: Controls, rotations: tuple[jax.Array, jax.Array], width: int, state: _State
) -> _State:
    """One step of W = ``width`` tokens a row."""
    before, column = state.output, state.column
    batch = before.fed.shape[0]
    ahead = jnp.arange(width)
    offsets = before.fed[:, None] + ahead  # of the tokens that are fed, behind ``positions``
    tokens, there = _inputs(state, offsets)
    cos, sin = (jnp.take_along_axis(x, offsets[:, :, None, None], axis=1, mode="clip") for x in rotations)
    lengths, written = controls.positions, state.written
    cache: KVCache | PagedCache
    if isinstance(state.cache, PagedCache) or model.steps_in_place(state.cache):
        place = lengths + before.fed
        hidden, cache = model.step_in_place(tokens, place, before.active, (cos, sin), state.cache)
    else:
        hidden, cache = model.step(tokens, lengths, written, column, (cos, sin), state.cache)
    logits = model.unembed(hidden)
    every = functools.partial(jnp.repeat, repeats=width, axis=0)
    sampled = sample(
        logits,
        every(controls.temperature),
        every(controls.top_k),
        every(controls.top_p),
        every(controls.keys),
        (controls.positions[:, None] + offsets + 1).reshape(-1),
        model.products,
    )
    asked = jnp.concatenate([sampled[:, None], every(controls.watch)], axis=1)
    logprobs = log_probabilities(logits, asked, model.products).reshape(batch, width, -1)
    sampled = sampled.reshape(batch, width)

    # The logits count from where the context is all fed: before that the next token is a given one.
    first = state.known - 1 - before.fed
    number = before.counts[:, None] + ahead - first[:, None]  # of the sample, in the chunk
    emits = (controls.budgets > 0)[:, None]
    stops = jnp.any(sampled[:, :, None] == controls.stop_ids[:, None], axis=2)
    stops = stops | (number + emits >= controls.budgets[:, None])
    # Behind the first of them, where the token fed is what was sampled before it, and that did not stop the row.
    holds = there[:, 1:] & (tokens[:, 1:] == sampled[:, :-1]) & ~stops[:, :-1]
    holds = jnp.concatenate([jnp.ones((batch, 1), bool), holds], axis=1) | (ahead <= first[:, None])
    counts_here = jnp.cumprod(holds.astype(jnp.int32), axis=1) > 0
    ready = before.active[:, None] & (ahead >= first[:, None]) & counts_here
    emitted = ready & emits
    samples, new = jnp.sum(ready, axis=1), jnp.sum(emitted, axis=1)
    fed = jnp.where(before.active, jnp.minimum(first, width) + samples, 0)
    drafted = jnp.sum(there & (ahead > first[:, None]), axis=1) * before.active
    accepted = jnp.maximum(samples - 1, 0)

    trust = before.trust
    if state.drafts is not None:
        trust = learn(trust, state.drafts, drafted > 0, accepted)
    output = ChunkOutput(
        tokens=_put(before.tokens, number, sampled, emitted),
        logprobs=_put(before.logprobs, number, logprobs[:, :, 0], emitted),
        watched=_put(before.watched, number, logprobs[:, :, 1:], ready),
        counts=before.counts + new,
        fed=before.fed + fed,
        active=before.active & ~jnp.any(ready & stops, axis=1),
        busy=before.busy + before.active,
        drafted=before.drafted + drafted,
        accepted=before.accepted + accepted,
        trust=trust,
        steps=before.steps + 1,
        wide_steps=before.wide_steps + (width > 1),
    )
    here = jax.lax.dynamic_update_slice_in_dim(state.written, ahead < fed[:, None], column, axis=1)
    place = offsets + 1  # of the samples
    state = dataclasses.replace(
        state,
        cache=cache,
        output=output,
        line=_put(state.line, place, sampled, emitted),
        known=state.known + new,
        written=here,
        column=column + jnp.max(fed),
    )
    if state.drafts is None or controls.drafts is None:
        return state
    own = place + controls.positions[:, None] + controls.drafts.others
    return _with_drafts(dataclasses.replace(state, texts=_put(state.texts, own, sampled, emitted)), controls)


def _inputs(state: _State, offsets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What the rows feed at offsets int [B, W]: known tokens, then the draft. Returns: int32 and bool [B, W], the
    tokens and whether there are any."""
    tokens = jnp.take_along_axis(state.line, offsets, axis=1, mode="clip")
    if state.drafts is None or offsets.shape[1] == 1:
        return tokens, jnp.ones(offsets.shape, bool)
    of_draft = offsets - state.known[:, None]
    drafted = jnp.take_along_axis(state.drafts.tokens, of_draft, axis=1, mode="clip")
    there = of_draft < state.drafts.count[:, None]
    return jnp.where(of_draft < 0, tokens, jnp.where(there, drafted, 0)), there


def _with_drafts(state: _State, controls: Controls) -> _State:
    """With the drafts for the next step, and whether that is a wide one."""
    assert controls.drafts is not None
    width, others = controls.drafts.tokens + 1, controls.drafts.others
    output = state.output
    given = state.known - output.fed
    drafts = look_up(state.texts, others, controls.positions + state.known, width - 1)
    # A draft stands behind what is given, and its last token is of use if a sample may follow it.
    drafts = clip(drafts, jnp.minimum(width - given, controls.budgets - output.counts - 1))
    more = jnp.clip(given, 1, width) - 1
    wide = worth_it(drafts, more, output.trust, output.active, controls.drafts.price)
    return dataclasses.replace(state, drafts=drafts, wide=wide)


def _put(array: jax.Array, columns: jax.Array, new: jax.Array, where: jax.Array) -> jax.Array:
    """array[b, columns[b, j]] = new[b, j] where ``where`` holds, as far as there are such columns."""
    rows = jnp.arange(array.shape[0])[:, None]
    return array.at[rows, jnp.where(where, columns, array.shape[1])].set(new, mode="drop")
