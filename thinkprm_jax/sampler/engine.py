"""Continuous batching: requests in, results out as they finish, one decode loop for every user.

slots     a fixed number B; the decode shape never changes with the load
admission free slots take waiting requests; of their prompts only what no row and no shelf holds is processed, once
          for all that begin with it
chunk     C decode steps on the device, then the host reads what each slot sampled, looks for stop texts,
          runs the scripts of the slots that stopped, and refills the free ones
cache     allocated for the longest live row, rounded up to a bucket; grows and shrinks between chunks
shelf     beginnings of contexts that later prompts will go on from, when their rows have been taken by others

Rows are contiguous, because a decode step reads them at every token; the shelf is blocks of 16 positions, because
it is read and written once a request, and because a search keeps many contexts that differ in their last tokens
only. A tree on the host (:mod:`thinkprm_jax.sampler.prefixes`) says which blocks make up a context: what several
have in common stands there once. Copying between rows and blocks is moving memory; attention over blocks in place
would cost a gather, or a kernel of its own, at every token. When the shelf is full, what was unused for longest
goes; it is processed again if a prompt begins with it after all, and counted.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Generator, Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.sampler.request import Choose, Completion, Request, Result, Think, Thought
from thinkprm_jax.sampler.slot import PENDING, Limits, Slot, start_script
from thinkprm_jax.sampler.stats import SamplerStats
from thinkprm_jax.sampler.steps import ChunkOutput, Controls, DeviceSteps, device_steps
from thinkprm_jax.sampler.store import Store
from thinkprm_jax.text.tokenizer import Tokenizer

# Between two looks at a source of requests that has none at the moment, when no slot is busy.
IDLE_SECONDS = 0.005

_Numbered = Iterator[tuple[int, Request] | None]


class Sampler:
    """Runs scripts of phases on a decoder with a key-value cache.

    Args:
      model: the decoder; its parameters are used where they are, never copied.
      tokenizer: for stop texts and :meth:`generate`.
      slots: B, contexts decoded together.
      max_length: longest context (prompt, generated and forced tokens).
      chunk: decode steps between two looks of the host.
      mesh: the mesh the parameters are placed on; slots are split over data x fsdp, heads over tensor.
      cache_dtype: default the model's compute dtype.
      shelf: positions (tokens) of the shelf, in whole blocks of 16, for requests with ``keep``; 0: none. A search
        wants the contexts of two rounds on it: a prompt once for all its beams, and for each beam the tokens that
        it alone has and half a block.
      share_from: tokens; a beginning in common with another prompt that is shorter than this is processed again,
        because copying it and going on from there costs more than it saves. One that is the whole prompt is always
        shared. 1: no token of any common beginning is processed twice.
    Raises:
      UserError: a setting that cannot work.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        *,
        slots: int = 16,
        max_length: int = 4096,
        chunk: int = 32,
        mesh: Mesh | None = None,
        cache_dtype: str | None = None,
        shelf: int = 0,
        share_from: int = 64,
    ) -> None:
        if slots < 1 or chunk < 1 or max_length < 2:
            raise UserError(
                f"sampler: slots={slots} and chunk={chunk} must be at least 1, max_length={max_length} at least 2"
            )
        if shelf < 0 or share_from < 1:
            raise UserError(f"sampler: shelf={shelf} must be 0 or more, share_from={share_from} at least 1")
        if max_length > model.config.max_position_embeddings:
            raise UserError(
                f"sampler: max_length {max_length} is above the model's "
                f"{model.config.max_position_embeddings} positions"
            )
        rows = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
        if slots % rows:
            raise UserError(f"sampler: slots={slots} must be a multiple of the mesh's data x fsdp = {rows}")
        self.tokenizer = tokenizer
        self.slots, self.max_length, self.chunk = slots, max_length, chunk
        self.stats = SamplerStats()
        self._config = model.config
        self._graph, self._parameters = nnx.split(model)
        self._steps: DeviceSteps = device_steps(self._graph, mesh, chunk)
        self._limits = Limits(max_length, model.config.vocab_size)
        self._store = Store(
            self._steps,
            model.config,
            self.stats,
            slots=slots,
            max_length=max_length,
            chunk=chunk,
            dtype=jnp.dtype(cache_dtype) if cache_dtype else model.dtype,
            shelf=shelf,
            share_from=share_from,
            parts=rows,
        )
        self._running = False

    def use(self, model: Decoder) -> None:
        """Goes on with other weights of the same architecture, dtypes and shardings: nothing is compiled again.

        What the slots and the shelf still hold of earlier prompts is forgotten.
        """
        if self._running:
            raise RuntimeError("this sampler is running")
        graph, parameters = nnx.split(model)
        if graph != self._graph:
            raise ValueError(
                "a model of another architecture, or one that computes otherwise, needs its own sampler"
            )
        self.release()
        self._parameters = parameters

    def release(self) -> None:
        """Lets go of weights, cache and shelf, so that their memory is free; :meth:`use` brings weights back."""
        self._parameters = None
        self._store.reset()

    @property
    def position_bytes(self) -> int:
        """Device memory of one token in the cache or on the shelf."""
        return self._store.position_bytes

    @property
    def planned_bytes(self) -> int:
        """Device memory of the cache at its longest and of the shelf, over all devices."""
        return self._store.planned_bytes

    @property
    def compilations(self) -> int:
        """Programs compiled so far for this architecture, mesh and chunk (by all samplers that share them)."""
        return self._steps.compilations()

    def generate(
        self,
        prompts: Sequence[str | Sequence[int]],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        stop: str | Sequence[str] = (),
        n: int = 1,
        seed: int = 0,
    ) -> list[list[Completion]]:
        """n completions of every prompt, in order; ends at the model's end ids, a stop text or the budget.

        Args:
          prompts: text (encoded as it is, control strings included, no begin-of-sentence added) or ids.
          stop: text or texts that end a completion; not part of it.
          seed: completion i of a prompt uses seed + i.
        Raises:
          RequestError: a prompt cannot run (it does not fit, say). With :meth:`run` the others go on.
        """
        if isinstance(prompts, str):
            raise UserError("prompts is one text: give a list")
        ends = self.end_ids
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        encoded = [self.tokenizer.encode(p) if isinstance(p, str) else list(p) for p in prompts]

        def script():
            thought: Thought = yield Think(max_new_tokens, ends, stops)
            reason = "stop" if thought.finish.startswith("stop") else "length"
            return Completion(thought.text, thought.ids, thought.logprobs, reason)

        requests = [Request(ids, script, temperature, top_p, top_k, seed + i) for ids in encoded for i in range(n)]
        completions: list[Completion | None] = [None] * len(requests)
        for index, result in self.run(requests):
            if result.error is not None:
                raise RequestError(f"prompt {index // n}: {result.error}")
            completions[index] = result.value
        return [completions[i * n : (i + 1) * n] for i in range(len(prompts))]  # type: ignore[misc]

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end a text: the model's and the tokenizer's."""
        eos = self._config.eos_token_id
        ids = eos if isinstance(eos, tuple) else (eos,)
        return tuple(dict.fromkeys(i for i in (*ids, self.tokenizer.eos_id) if i is not None))

    def run(self, requests: Iterable[Request | None]) -> Iterator[tuple[int, Result]]:
        """Runs requests; yields (index, result) as they finish.

        Requests are taken from the iterable as slots become free. Of a sequence, four a slot are in sight at a
        time, and those with a larger ``size_hint`` start first. An iterator may give None for "nothing now": the
        slots go on, and it is asked again after the next chunk, or soon where no slot is busy. Indices count
        requests only.

        A request that cannot run gives a result with ``error``; the others go on. Leaving the iterator early, an
        exception of a script or KeyboardInterrupt frees all slots and leaves the sampler usable.
        """
        if self._running:
            raise RuntimeError("this sampler is already running; make another for nested use")
        self._running = True
        waiting: _Numbered = _numbered(requests)
        if isinstance(requests, Sequence):
            waiting = _by_size(enumerate(requests), 4 * self.slots)
        try:
            while True:
                ended = yield from self._admit(waiting)
                if any(slot.busy for slot in self._store.slots):
                    yield from self._chunk()
                elif ended:
                    return
                else:
                    time.sleep(IDLE_SECONDS)
        finally:
            self._running = False
            self._release_all()

    def _release_all(self) -> None:
        slots = self._store.slots
        self._store.recover()
        with contextlib.ExitStack() as stack:  # all of them, even where a script fails to close
            stack.callback(self._store.park)
            for slot in slots:
                stack.callback(slot.release)

    def _admit(self, waiting: _Numbered) -> Generator[tuple[int, Result], None, bool]:
        """Fills free slots from ``waiting`` and brings their prompts into the cache.

        Returns: whether ``waiting`` has ended.
        """
        store = self._store
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
            result = slot.advance(None, self.tokenizer, self._limits)
            if result is None:
                free.remove(slot)
                admitted.append(slot)
            else:  # a script that never needed the device
                slot.release()
                self.stats.finished += 1
                yield index, result
        if admitted:
            store.fill(self._parameters, admitted)
        return ended

    def _chunk(self) -> Iterator[tuple[int, Result]]:
        """One chunk on the device, then what the scripts make of it."""
        store = self._store
        longest = max(slot.fed for slot in store.slots if slot.busy)
        store.reserve(longest + self.chunk, shrink=True)
        controls = self._controls()
        cache, output = self._steps.decode(self._parameters, store.take_cache(), controls)
        output = jax.device_get(output)  # an error of the device appears here
        store.cache = cache
        self.stats.decode_steps += int(output.steps)
        self.stats.slot_steps += int(output.steps) * self.slots
        for row, slot in enumerate(store.slots):
            if not slot.busy:
                continue
            outcome = self._absorb(slot, row, output)
            if outcome is PENDING:
                continue
            result = slot.advance(outcome, self.tokenizer, self._limits)
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
            self.tokenizer,
        )
        stats.discarded_tokens += count - (slot.sampled - before)
        return outcome

    def _controls(self) -> Controls:
        controls = Controls.zeros(self.slots, self.chunk)
        busy = 0
        for row, slot in enumerate(self._store.slots):
            if not slot.busy:
                continue
            busy += 1
            pending = slot.context[slot.fed :]
            controls.pending[row, : min(len(pending), self.chunk)] = pending[: self.chunk]
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
            controls.top_k[row] = min(request.top_k, self._config.vocab_size)
            controls.top_p[row] = request.top_p
            seed = int(request.seed)
            controls.keys[row] = (seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF)
        # Come back early once an eighth of the slots wait for the host: they may have work again.
        controls.leave_below[...] = busy - max(self.slots // 8, 1) + 1
        return controls


_END = object()


def _numbered(requests: Iterable[Request | None]) -> _Numbered:
    """Requests with their numbers; None, which is none, as it comes."""
    count = itertools.count()
    for request in requests:
        yield None if request is None else (next(count), request)


def _by_size(numbered: Iterator[tuple[int, Request]], ahead: int) -> _Numbered:
    """Takes ``ahead`` requests at a time and gives the larger ones first.

    A long request that starts last keeps one slot busy while all the others stand empty. Within a window nothing
    waits for what comes after it, so the order of a long input is kept on the whole.
    """
    while window := list(itertools.islice(numbered, ahead)):
        yield from sorted(window, key=lambda item: -item[1].size_hint)
