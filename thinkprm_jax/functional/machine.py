"""The rows of a verification as small machines: what each does in a step of :mod:`.chains`.

A row feeds one token in a step, and then

    forced text is left     its next token follows; nothing is read
    thinking, round r       a token is sampled; where it ends the round, the next phrase or the question is forced
    answering               the score is read; the question for the first step without a verdict is forced
    asking for a step       its verdict is read; the next such question is forced, or the row is done

Rows are at different places of this at the same time, so that none waits for another but at the very end. Cutting
a chain costs nothing: all tokens of the call stand in columns of the cache (:mod:`thinkprm_jax.model.cache`), and
the columns of what was cut are not read any more.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from thinkprm_jax.functional.scanner import CORRECT, INCORRECT, ROUND, STOP, UNCLEAR
from thinkprm_jax.functional.script import BLANK, DeviceScript
from thinkprm_jax.model.cache import POSITIONS, KVCache
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.sampler.sampling import sample

NOWHERE = jnp.iinfo(jnp.int32).max


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["cache", "place", "column", "token", "at", "phase", "text", "done_text", "ids", "line", "count",
                 "thought", "sampled", "topic", "waits", "box", "box_odds", "labels", "odds", "spans", "forced",
                 "clear", "score", "answer", "stopped", "asked"],
    meta_fields=[],
)  # fmt: skip
@dataclasses.dataclass
class ChainRows:
    """The machines, between two steps. M positions for a chain, C columns, S steps."""

    cache: KVCache
    place: Any  # int32 [B, C]: position of the token in a column, NOWHERE where there is none any more
    column: Any  # int32 []: the next
    token: Any  # int32 [B]: to be fed next
    at: Any  # int32 [B]: its position
    phase: Any  # int32 [B]: round, or rounds (answering), rounds + 1 (asking), rounds + 2 (done)
    text: Any  # int32 [B]: which text is forced behind ``token``
    done_text: Any  # int32 [B]: how many tokens of it were given to ``token`` already
    ids: Any  # int32 [B, W]: prompt and chain
    line: Any  # int32 [B, M + 1, 5]: behind each token of the chain: see _append
    count: Any  # int32 [B]: tokens of the chain
    thought: Any  # int32 [B]: sampled in this round
    sampled: Any  # int32 [B]: in all
    topic: Any  # int32 [B]: step of the last label, 0 for none
    waits: Any  # bool [B]: that step has no verdict since
    box: Any  # int32 [B]: place in the chain of the word in the last box, -1: not at the beginning of a token
    box_odds: Any  # float32 [B]: log P(correct) - log P(incorrect) there
    labels: Any  # int32 [B, S]: -1 where silent
    odds: Any  # float32 [B, S]
    spans: Any  # int32 [B, S]: position of the word, -1 for none
    forced: Any  # bool [B, S]
    clear: Any  # bool [B]
    score: Any  # float32 [B]
    answer: Any  # int32 [B]: its position
    stopped: Any  # bool [B]
    asked: Any  # int32 [B]: step that is asked for, from 0


_STATE, _BYTES, _SOLID, _END, _NEWLINE = range(5)  # columns of ``line``
_UNKNOWN = jnp.float32(jnp.nan)  # log odds at a token that was forced


def begin_rows(script: DeviceScript, cache: KVCache, ids: jax.Array, lengths: jax.Array, room: int) -> ChainRows:
    batch, width = ids.shape
    steps = script.max_steps

    def full(value: Any, *shape: int, dtype: Any = jnp.int32) -> jax.Array:
        # Made of an input, so that inside shard_map it varies over devices as the inputs do.
        varying = (lengths * 0).reshape(batch, *[1] * len(shape))
        return jnp.broadcast_to(varying, (batch, *shape)).astype(dtype) + jnp.asarray(value, dtype)

    line = jnp.array([script.scanner.start, 0, 0, BLANK, 1], jnp.int32)
    last = jnp.take_along_axis(ids, lengths[:, None] - 1, axis=1)[:, 0]
    known = jnp.where(jnp.arange(width) < lengths[:, None], ids, 0)
    no = full(0).astype(bool)
    return ChainRows(
        cache=cache,
        place=full(NOWHERE, 0),
        column=jnp.zeros((), jnp.int32),
        token=last,
        at=lengths - 1,
        phase=full(0),
        text=full(0),
        done_text=full(script.forced_lengths[0]),
        ids=jnp.pad(known, ((0, 0), (0, room + 1))),
        line=full(line, room + 1, 5),
        count=full(0),
        thought=full(0),
        sampled=full(0),
        topic=full(0),
        waits=no,
        box=full(-1),
        box_odds=full(jnp.nan, dtype=jnp.float32),
        labels=full(-1, steps),
        odds=full(jnp.nan, steps, dtype=jnp.float32),
        spans=full(-1, steps),
        forced=full(0, steps).astype(bool),
        clear=~no,
        score=full(jnp.nan, dtype=jnp.float32),
        answer=full(0),
        stopped=no,
        asked=full(0),
    )


def with_columns(state: ChainRows, columns: int) -> ChainRows:
    """The same with so many columns of the cache, of which the new ones are empty."""
    more = columns - state.cache.steps
    widen = [(0, 0)] * POSITIONS + [(0, more), (0, 0)]
    keys, values = ([jnp.pad(x, widen) for x in xs] for xs in (state.cache.keys, state.cache.values))
    place = jnp.pad(state.place, ((0, 0), (0, more)), constant_values=NOWHERE)
    return dataclasses.replace(state, cache=KVCache(keys, values, columns), place=place)


@dataclasses.dataclass(frozen=True, eq=False)
class ChainStep:
    """One token for every row."""

    model: Decoder
    script: DeviceScript
    max_tokens: int
    lengths: jax.Array
    steps: jax.Array
    keys: jax.Array
    temperature: jax.Array

    def __call__(self, state: ChainRows) -> ChainRows:
        script = self.script
        active = state.phase < script.rounds + 2
        logits, state = self._feed(state, active)
        left = jnp.asarray(script.forced_lengths)[state.text] - state.done_text
        reads = active & (left == 0)
        thinks, answers = reads & (state.phase < script.rounds), reads & (state.phase == script.rounds)
        asks = reads & (state.phase == script.rounds + 1)
        good, bad = script.verdicts
        odds = logits[:, good] - logits[:, bad]

        state = self._go_on(state, active & (left > 0))
        state = self._think(state, thinks, logits, odds)
        state = self._answer(state, answers, logits)
        return self._hear_verdict(state, asks, odds)

    def _feed(self, state: ChainRows, active: jax.Array) -> tuple[jax.Array, ChainRows]:
        """Logits [B, V] behind ``token``."""
        rotations = self.model.rotations(state.at, 1)
        written = state.place < NOWHERE
        hidden, cache = self.model.step(
            state.token[:, None], self.lengths - 1, written, state.column, rotations, state.cache
        )
        logits = self.model.unembed(hidden)
        here = jnp.where(active, state.at, NOWHERE)[:, None]
        place = jax.lax.dynamic_update_slice_in_dim(state.place, here, state.column, axis=1)
        kept = active & (state.phase <= self.script.rounds)  # what is asked for a step is no part of the chain
        ids = _put(state.ids, state.at, state.token, kept)
        return logits, dataclasses.replace(state, cache=cache, place=place, column=state.column + 1, ids=ids)

    def _go_on(self, state: ChainRows, where: jax.Array) -> ChainRows:
        """The next token of a forced text."""
        token = jnp.asarray(self.script.forced)[state.text, state.done_text]
        state = dataclasses.replace(
            state,
            token=jnp.where(where, token, state.token),
            at=state.at + where,
            done_text=state.done_text + where,
        )
        return self._append(state, where & (state.phase < self.script.rounds), state.token, _UNKNOWN)

    def _think(self, state: ChainRows, where: jax.Array, logits: jax.Array, odds: jax.Array) -> ChainRows:
        """A token more, or the end of the round."""
        script, nothing = self.script, 0 * self.lengths
        top_k, top_p = nothing, nothing + jnp.float32(script.top_p)
        token = sample(logits, self.temperature, top_k, top_p, self.keys, state.at + 1)
        ended = where & jnp.any(token[:, None] == jnp.asarray(script.stop_ids), axis=1)
        before, thought = state.count, state.thought + where
        state = dataclasses.replace(state, thought=thought, sampled=state.sampled + where)
        state = self._append(state, where & ~ended, token, odds)
        asked = where & ~ended & state.stopped  # it completes the question
        over = ended | asked | (where & (thought >= self.max_tokens))
        state = dataclasses.replace(
            state,
            token=jnp.where(where, token, state.token),
            at=state.at + (where & ~over),
            stopped=jnp.where(over, ended | asked, state.stopped),
        )
        closed = ended & (token == script.close_id)
        return self._end_round(state, over, asked, closed, state.count > before)

    def _end_round(
        self, state: ChainRows, over: jax.Array, asked: jax.Array, closed: jax.Array, pending: jax.Array
    ) -> ChainRows:
        """Cuts the chain where its round is over, and forces what comes then.

        Args:
          asked: the chain wrote the question, which is taken back. closed: it closed its thinking.
          pending: its last token was just sampled, and is not in the cache.
        """
        script, rounds = self.script, self.script.rounds
        line = _at(state.line, state.count)
        begin = line[:, _BYTES] - script.question_bytes
        there = jnp.arange(state.line.shape[1] - 1) < state.count[:, None]
        whole = jnp.sum(state.line[:, 1:, _BYTES] <= begin[:, None], axis=1, where=there)
        # The host would keep a part of a token in which the question begins.
        exact = (_at(state.line, whole)[:, _BYTES] == begin) & (line[:, _STATE] == script.scanner.question)
        stays = jnp.where(asked, whole, state.count)
        end = _at(state.line, stays)
        alone = closed | (end[:, _NEWLINE] > 0)
        text = jnp.where(alone, script.closing[0], script.closing[1])
        last = state.phase == rounds - 1
        if rounds > 1:
            # A chain of nothing but blanks has nothing in front of the phrase.
            group = jnp.where(end[:, _END] == BLANK, 0, end[:, _END])
            opening = jnp.asarray(script.opening)[jnp.clip(state.phase, 0, rounds - 2), group]
            text, stays = jnp.where(last, text, opening), jnp.where(last, stays, _solid(end))
        pending = pending & (stays == state.count)
        stays, cut = jnp.where(over, stays, state.count), over & ~pending
        at = jnp.where(cut, self.lengths + stays, state.at + (over & pending))
        state = dataclasses.replace(
            state,
            clear=state.clear & ~(asked & ~exact),
            count=stays,
            place=_forget(state.place, over, self.lengths + stays),
            token=jnp.where(cut, jnp.asarray(script.forced)[text, 0], state.token),
            at=at,
            text=jnp.where(over, text, state.text),
            done_text=jnp.where(over, cut.astype(jnp.int32), state.done_text),
            phase=state.phase + over,
            thought=jnp.where(over, 0, state.thought),
            topic=jnp.where(over, 0, state.topic),
            waits=state.waits & ~over,
        )
        return self._append(state, cut & ~last, state.token, _UNKNOWN)

    def _append(self, state: ChainRows, where: jax.Array, token: jax.Array, odds: jax.Array) -> ChainRows:
        """A token more in the chain, and what it completes.

        ``line`` has behind each token: the state of the scanner, the bytes so far, how many tokens there are
        through the last that is not blank, the group of that one, and whether the text ends with a newline.
        """
        script, scanner = self.script, self.script.scanner
        end = _at(state.line, state.count)
        kind = jnp.asarray(scanner.kinds)[token]
        behind = jnp.asarray(scanner.next)[end[:, _STATE], kind].astype(jnp.int32)
        event = jnp.asarray(scanner.events)[end[:, _STATE], kind].astype(jnp.int32)
        blank = jnp.asarray(script.blank)[token]
        count = state.count + where
        group = jnp.asarray(script.end_group)[token]
        new = jnp.stack(
            [
                behind,
                end[:, _BYTES] + jnp.asarray(script.lengths)[token],
                jnp.where(blank, end[:, _SOLID], count),
                jnp.where(blank, end[:, _END], group),
                jnp.asarray(script.ends_line)[token].astype(jnp.int32),
            ],
            axis=1,
        )
        line = _put(state.line, count, new, where)

        opens = where & jnp.asarray(scanner.in_box)[end[:, _STATE]]
        box = jnp.where(opens, state.count, state.box)
        box_odds = jnp.where(opens, odds, state.box_odds)
        unclear = where & (event >= UNCLEAR)
        event = jnp.where(where, event & (UNCLEAR - 1), 0)
        is_label = (event > 0) & (event < INCORRECT)
        judges = (event == CORRECT) | (event == INCORRECT)
        slot = jnp.arange(script.max_steps) == (state.topic - 1)[:, None]
        position = jnp.where(box >= 0, box + self.lengths, -1)
        # Where blanks are cut a token may be put back that closes the last box once more.
        again = judges & (position >= 0) & jnp.any(state.spans == position[:, None], axis=1)
        fits = state.waits & (box >= 0) & jnp.isfinite(box_odds)
        unclear |= judges & ~again & ~fits
        takes = (judges & ~again & (state.topic > 0))[:, None] & slot
        label = (event == CORRECT).astype(jnp.int32)[:, None]
        return dataclasses.replace(
            state,
            line=line,
            count=count,
            topic=jnp.where(is_label, event, jnp.where(event == ROUND, 0, state.topic)),
            waits=(state.waits & ~judges & (event != ROUND)) | is_label,
            box=jnp.where(is_label, -1, box),
            box_odds=box_odds,
            labels=jnp.where(takes, label, state.labels),
            odds=jnp.where(takes, jnp.where(box >= 0, box_odds, jnp.nan)[:, None], state.odds),
            spans=jnp.where(takes, position[:, None], state.spans),
            clear=state.clear & ~unclear,
            stopped=jnp.where(where, event == STOP, state.stopped),
        )

    def _answer(self, state: ChainRows, where: jax.Array, logits: jax.Array) -> ChainRows:
        script = self.script
        answers = logits[:, jnp.asarray(script.labels)]
        scores = jax.nn.softmax(answers / script.decision_temperature, axis=-1)
        likelier = jnp.asarray(script.labels)[jnp.argmax(answers, axis=1)]
        state = dataclasses.replace(
            state,
            score=jnp.where(where, scores[:, script.score_label], state.score),
            answer=jnp.where(where, state.at + 1, state.answer),
            ids=_put(state.ids, state.at + 1, likelier, where),
        )
        step, more = self._next_silent(state, jnp.full_like(state.asked, -1))
        end = _at(state.line, state.count)
        text = jnp.asarray(script.asking)[step, end[:, _END]]
        return self._ask(state, where, more, step, text, self.lengths + _solid(end))

    def _ask(
        self, state: ChainRows, where: jax.Array, more: jax.Array, step: jax.Array, text: jax.Array, at: jax.Array
    ) -> ChainRows:
        """Forces the question for a step from a position on, or has the row done."""
        asks = where & more
        rounds = self.script.rounds
        return dataclasses.replace(
            state,
            place=_forget(state.place, asks, at),
            token=jnp.where(asks, jnp.asarray(self.script.forced)[text, 0], state.token),
            at=jnp.where(asks, at, state.at),
            text=jnp.where(asks, text, state.text),
            done_text=jnp.where(asks, 1, state.done_text),
            phase=jnp.where(where, rounds + 2 - more, state.phase),
            asked=jnp.where(asks, step, state.asked),
        )

    def _hear_verdict(self, state: ChainRows, where: jax.Array, odds: jax.Array) -> ChainRows:
        slot = where[:, None] & (jnp.arange(self.script.max_steps) == state.asked[:, None])
        # As the host has it: the step is correct where the score is at least one half.
        label = jax.nn.sigmoid(odds) >= 0.5
        state = dataclasses.replace(
            state,
            labels=jnp.where(slot, label[:, None].astype(jnp.int32), state.labels),
            odds=jnp.where(slot, odds[:, None], state.odds),
            forced=state.forced | slot,
        )
        step, more = self._next_silent(state, state.asked)
        text = jnp.asarray(self.script.asking_next)[step]
        return self._ask(state, where, more & label, step, text, state.at + 1)

    def _next_silent(self, state: ChainRows, behind: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The first silent step behind one, and whether there is any before the first error."""
        number = jnp.arange(self.script.max_steps)
        wrong = (state.labels == 0) & (number < self.steps[:, None])
        first = jnp.where(jnp.any(wrong, axis=1), jnp.argmax(wrong, axis=1), self.steps)
        silent = (state.labels < 0) & (number < first[:, None]) & (number > behind[:, None])
        return jnp.argmax(silent, axis=1).astype(jnp.int32), jnp.any(silent, axis=1)


def _put(array: jax.Array, columns: jax.Array, new: jax.Array, where: jax.Array) -> jax.Array:
    """array[b, columns[b]] = new[b] where ``where`` holds."""
    return array.at[jnp.arange(where.shape[0]), jnp.where(where, columns, array.shape[1])].set(new, mode="drop")


def _at(line: jax.Array, count: jax.Array) -> jax.Array:
    """What ``line`` says behind ``count`` tokens, [B, 5]."""
    return jnp.take_along_axis(line, count[:, None, None], axis=1)[:, 0]


def _solid(end: jax.Array) -> jax.Array:
    """How many tokens of a chain stay where the blanks at its end are cut; ``end``: what ``line`` says there."""
    return end[:, _SOLID] - (end[:, _END] > BLANK)


def _forget(place: jax.Array, where: jax.Array, at: jax.Array) -> jax.Array:
    """``place`` without the tokens from position at[b] on, in rows where ``where`` holds."""
    return jnp.where(where[:, None] & (place >= at[:, None]), NOWHERE, place)
