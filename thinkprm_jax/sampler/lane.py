"""One decode loop: its slots, what they are asked to do, and what came of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator, Iterator
from typing import Any

import jax

from thinkprm_jax.errors import RequestError
from thinkprm_jax.sampler.request import Choose, Request, Result, Think
from thinkprm_jax.sampler.slot import PENDING, Limits, Slot, start_script
from thinkprm_jax.sampler.stats import SamplerStats
from thinkprm_jax.sampler.steps import ChunkOutput, Controls, DeviceSteps
from thinkprm_jax.sampler.store import Store
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

# Between two looks at a source of requests that has none at the moment, when no slot is busy.
IDLE_SECONDS = 0.005

# Requests with their numbers; None: there is none at the moment.
Numbered = Iterator[tuple[int, Request] | None]


class Lane:
    """``slots`` contexts that are decoded together.

    Attributes:
      stopped: set by another thread: :meth:`run` ends after the chunk it is in.
    """

    def __init__(
        self,
        steps: DeviceSteps,
        store: Store,
        stats: SamplerStats,
        tokenizer: Tokenizer,
        limits: Limits,
        chunk: int,
    ) -> None:
        self.store, self.stats = store, stats
        self.stopped = False
        self._steps, self._tokenizer, self._limits, self._chunk_steps = steps, tokenizer, limits, chunk

    def run(self, parameters: Any, waiting: Numbered) -> Iterator[tuple[int, Result]]:
        """(number, result) as the requests finish; see :meth:`.Sampler.run`."""
        try:
            while not self.stopped:
                ended = yield from self._admit(parameters, waiting)
                if any(slot.busy for slot in self.store.slots):
                    yield from self._chunk(parameters)
                elif ended:
                    return
                else:
                    time.sleep(IDLE_SECONDS)
        finally:
            self._release_all()

    def _release_all(self) -> None:
        slots = self.store.slots
        self.store.recover()
        with contextlib.ExitStack() as stack:  # all of them, even where a script fails to close
            stack.callback(self.store.park)
            for slot in slots:
                stack.callback(slot.release)

    def _admit(self, parameters: Any, waiting: Numbered) -> Generator[tuple[int, Result], None, bool]:
        """Fills free slots from ``waiting`` and brings their prompts into the cache.

        Returns: whether ``waiting`` has ended.
        """
        store = self.store
        store.park()
        admitted: list[Slot] = []
        free = [slot for slot in store.slots if not slot.busy]
        ended = False
        while free:
            item = next(waiting, _END)
            if item is None or item is _END:
                ended = item is _END
                break
            index, request = item
            try:
                request.validate(self._limits.max_length, self._limits.vocab_size)
            except RequestError as error:
                self.stats.finished += 1
                yield index, Result(error=error)
                continue
            prompt = [int(token) for token in request.prompt]
            slot, kept = store.choose(free, prompt)
            slot.occupy(request, prompt, index, start_script(request), kept)
            result = slot.advance(None, self._tokenizer, self._limits)
            if result is None:
                free.remove(slot)
                admitted.append(slot)
            else:  # a script that never needed the device
                slot.release()
                self.stats.finished += 1
                yield index, result
        if admitted:
            store.fill(parameters, admitted)
        return ended

    def _chunk(self, parameters: Any) -> Iterator[tuple[int, Result]]:
        """One chunk on the device, then what the scripts make of it."""
        store = self.store
        longest = max(slot.fed for slot in store.slots if slot.busy)
        store.reserve(longest + self._chunk_steps, shrink=True)
        controls = self._controls()
        cache, output = self._steps.decode(parameters, store.take_cache(), controls)
        output = jax.device_get(output)  # an error of the device appears here
        store.cache = cache
        self.stats.decode_steps += int(output.steps)
        self.stats.slot_steps += int(output.steps) * len(self.store.slots)
        for row, slot in enumerate(store.slots):
            if not slot.busy:
                continue
            outcome = self._absorb(slot, row, output)
            if outcome is PENDING:
                continue
            result = slot.advance(outcome, self._tokenizer, self._limits)
            if result is not None:
                index = slot.index
                store.retire(slot)
                self.stats.finished += 1
                yield index, result

    def _absorb(self, slot: Slot, row: int, output: ChunkOutput) -> object:
        """Counts what a chunk did for a slot, and tells the slot. Returns: as :meth:`Slot.absorb`."""
        count, fed = int(output.counts[row]), int(output.fed[row])
        given = min(fed, len(slot.context) - slot.fed)  # the others were sampled by this very chunk
        again = max(min(slot.processed - slot.fed, given), 0)
        of_prompt = max(min(slot.wanted - slot.fed, given), 0)
        stats, again_of_prompt = self.stats, min(again, of_prompt)
        stats.busy_slot_steps += fed
        stats.sampled_tokens += count
        stats.fed_samples += fed - given
        stats.prefilled_tokens += of_prompt - again_of_prompt
        stats.reprefilled_tokens += again_of_prompt
        stats.forced_tokens += given - of_prompt - (again - again_of_prompt)
        stats.refed_tokens += again - again_of_prompt
        slot.processed = max(slot.processed, slot.fed + fed)
        before = slot.sampled
        outcome = slot.absorb(
            output.tokens[row, :count],
            output.logprobs[row, :count],
            output.watched[row],
            fed,
            not output.active[row],
            self._tokenizer,
        )
        stats.discarded_tokens += count - (slot.sampled - before)
        return outcome

    def _controls(self) -> Controls:
        controls = Controls.zeros(len(self.store.slots), self._chunk_steps)
        busy = 0
        for row, slot in enumerate(self.store.slots):
            if not slot.busy:
                continue
            busy += 1
            pending = slot.context[slot.fed :]
            controls.pending[row, : min(len(pending), self._chunk_steps)] = pending[: self._chunk_steps]
            controls.pending_count[row] = len(pending)
            controls.positions[row] = slot.fed
            controls.active[row] = True
            phase, request = slot.phase, slot.request
            controls.budgets[row] = slot.budget
            watch = phase.ids if isinstance(phase, Choose) else phase.watch
            controls.watch[row, : len(watch)] = watch
            if isinstance(phase, Think):
                controls.stop_ids[row, : len(phase.stop_ids)] = phase.stop_ids
            controls.temperature[row] = request.temperature
            controls.top_k[row] = min(request.top_k, self._limits.vocab_size)
            controls.top_p[row] = request.top_p
            seed = int(request.seed)
            controls.keys[row] = (seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF)
        # Come back early once an eighth of the slots wait for the host: they may have work again.
        controls.leave_below[...] = busy - max(len(self.store.slots) // 8, 1) + 1
        return controls


_END = object()
