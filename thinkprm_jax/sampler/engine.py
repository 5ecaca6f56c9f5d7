"""Continuous batching: requests in, results out as they finish, one decode loop for every user.

slots     a fixed number B; the decode shape never changes with the load
admission free slots take waiting requests; prompts are prefilled together, equal prompts once
chunk     C decode steps on the device, then the host reads what each slot sampled, looks for stop texts,
          runs the scripts of the slots that stopped, and refills the free ones
cache     allocated for the longest live row, rounded up to a bucket; grows and shrinks between chunks
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.model.cache import KVCache
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.sampler.buckets import length_buckets, round_up
from thinkprm_jax.sampler.request import Choose, Completion, Request, Result, Think, Thought
from thinkprm_jax.sampler.slot import PENDING, Slot, start_script
from thinkprm_jax.sampler.steps import Controls, DeviceSteps, device_steps
from thinkprm_jax.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

# Prefill works on at most this many tokens at once: enough to fill a device, and it bounds the activations.
PREFILL_TOKENS = 8192


@dataclasses.dataclass
class SamplerStats:
    """Counters since the sampler was made."""

    decode_steps: int = 0
    slot_steps: int = 0  # decode steps x slots
    busy_slot_steps: int = 0  # of those, the ones that fed a token
    sampled_tokens: int = 0
    prefilled_tokens: int = 0  # of prompts, each distinct prompt once
    shared_tokens: int = 0  # of prompts copied from another slot
    finished: int = 0

    @property
    def occupancy(self) -> float:
        """Share of slot steps that fed a token."""
        return self.busy_slot_steps / max(self.slot_steps, 1)


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
    ) -> None:
        if slots < 1 or chunk < 1 or max_length < 2:
            raise UserError(
                f"sampler: slots={slots} and chunk={chunk} must be at least 1, max_length={max_length} at least 2"
            )
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
        self._cache_dtype = jnp.dtype(cache_dtype) if cache_dtype else model.dtype
        # A row at max_length still needs room for a whole chunk, and a broken token may end a little behind it.
        self._cache_lengths = length_buckets(128, max_length + chunk + 128)
        self._prompt_lengths = length_buckets(min(32, max_length), max_length)
        self._cache: KVCache | None = None
        self._rows = [Slot() for _ in range(slots)]
        self._running = False

    def use(self, model: Decoder) -> None:
        """Goes on with other weights of the same architecture, dtypes and shardings: nothing is compiled again.

        What the slots still hold of earlier prompts is forgotten.
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
        """Lets go of the weights and the cache, so that their memory is free; :meth:`use` brings weights back."""
        self._parameters = None
        self._cache = None
        self._rows = [Slot() for _ in range(self.slots)]

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

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[int, Result]]:
        """Runs requests; yields (index, result) as they finish.

        Requests are taken from the iterable as slots become free. Of a sequence, four a slot are in sight at a
        time, and those with a larger ``size_hint`` start first.

        A request that cannot run gives a result with ``error``; the others go on. Leaving the iterator early, an
        exception of a script or KeyboardInterrupt frees all slots and leaves the sampler usable.
        """
        if self._running:
            raise RuntimeError("this sampler is already running; make another for nested use")
        self._running = True
        waiting = enumerate(requests)
        if isinstance(requests, Sequence):
            waiting = _by_size(waiting, 4 * self.slots)
        try:
            while True:
                yield from self._admit(waiting)
                if not any(slot.busy for slot in self._rows):
                    return
                yield from self._chunk()
        finally:
            self._running = False
            self._release_all()

    def _release_all(self) -> None:
        rows = self._rows
        if self._cache is None:  # interrupted where it had been taken: what the rows held is gone
            self._rows = [Slot() for _ in range(self.slots)]
        with contextlib.ExitStack() as stack:  # all of them, even where a script fails to close
            for slot in rows:
                stack.callback(slot.release)

    def _take_cache(self) -> KVCache:
        """The cache, for a call it is donated to; there is none until the result of the call is put back."""
        cache, self._cache = self._cache, None
        assert cache is not None
        return cache

    def _admit(self, waiting: Iterator[tuple[int, Request]]) -> Iterator[tuple[int, Result]]:
        """Fills free slots from ``waiting`` and brings their prompts into the cache."""
        admitted: list[Slot] = []
        free = collections.deque(slot for slot in self._rows if not slot.busy)
        while free:
            index, request = next(waiting, (-1, None))
            if request is None:
                break
            try:
                request.validate(self.max_length, self._config.vocab_size)
            except RequestError as error:
                self.stats.finished += 1
                yield index, Result(error=error)
                continue
            # A slot that already holds this prompt needs no work at all.
            prefix = list(request.prompt[:-1])
            slot = next((s for s in free if s.holds(prefix)), min(free, key=lambda s: s.fed))
            free.remove(slot)
            slot.occupy(request, index, start_script(request))
            result = slot.advance(None, self.tokenizer, self.max_length)
            if result is not None:  # a script that never needed the device
                slot.release()
                free.append(slot)
                self.stats.finished += 1
                yield index, result
            elif slot.filled:
                self.stats.shared_tokens += len(prefix)
            else:
                admitted.append(slot)
        if admitted:
            self._fill(admitted)

    def _fill(self, admitted: list[Slot]) -> None:
        """Brings prompts of ``admitted`` slots into the cache, copied from a row that has it or prefilled."""
        by_prompt: dict[tuple[int, ...], list[Slot]] = {}
        copies: dict[Slot, Slot] = {}  # to, from
        others = [slot for slot in self._rows if slot.filled]
        for slot in admitted:
            prefix = list(slot.request.prompt[:-1])
            holder = next((s for s in others if s.holds(prefix)), None)
            if holder is not None:
                copies[slot] = holder
                self.stats.shared_tokens += len(prefix)
            else:
                by_prompt.setdefault(tuple(prefix), []).append(slot)
        self._reserve(max(slot.fed for slot in self._rows))
        if copies:
            pairs = self._pairs([(self._rows.index(holder), slot) for slot, holder in copies.items()])
            self._cache = self._steps.copy_rows(self._take_cache(), *pairs)
            for slot in copies:
                slot.filled = True
        prompts = sorted(by_prompt, key=len)
        while prompts:
            length = round_up(len(prompts[-1]), self._prompt_lengths)
            rows = self._prefill_rows(len(prompts), length)
            group, prompts = prompts[-rows:], prompts[:-rows]
            self._prefill(group, rows, length, by_prompt)

    def _prefill_rows(self, wanted: int, length: int) -> int:
        """Rows of a prefill: 1, 4, 16, ... such that more than half are wanted, within PREFILL_TOKENS."""
        rows = 1
        while rows * 2 < wanted and rows * 4 * length <= PREFILL_TOKENS:
            rows *= 4
        return rows

    def _prefill(
        self,
        group: list[tuple[int, ...]],
        rows: int,
        length: int,
        by_prompt: dict[tuple[int, ...], list[Slot]],
    ) -> None:
        tokens = np.zeros((rows, length), np.int32)
        pairs: list[tuple[int, Slot]] = []
        for row, prompt in enumerate(group):
            tokens[row, : len(prompt)] = prompt
            slots = by_prompt[prompt]
            pairs.extend((row, slot) for slot in slots)
            self.stats.prefilled_tokens += len(prompt)
            self.stats.shared_tokens += len(prompt) * (len(slots) - 1)
        self._reserve(length)
        prefilled = self._steps.prefill(self._parameters, tokens)
        self._cache = self._steps.insert(self._take_cache(), prefilled, *self._pairs(pairs))
        for _, slot in pairs:
            slot.filled = True

    def _pairs(self, pairs: list[tuple[int, Slot]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(source rows, numbers of the target slots, how many of them count), padded to B."""
        sources, targets = np.zeros((2, self.slots), np.int32)
        for i, (source, slot) in enumerate(pairs):
            sources[i], targets[i] = source, self._rows.index(slot)
        return sources, targets, np.asarray(len(pairs), np.int32)

    def _reserve(self, positions: int, shrink: bool = False) -> None:
        """Makes the cache at least ``positions`` long (rounded up to a bucket); smaller too if ``shrink``."""
        length = round_up(positions, self._cache_lengths)
        if self._cache is None:
            sharding = self._steps.cache_sharding(self._config, self.slots)
            self._cache = KVCache.zeros(self._config, self.slots, length, self.chunk, self._cache_dtype, sharding)
        elif length > self._cache.length or (shrink and length < self._cache.length):
            logger.debug("cache: %d -> %d positions", self._cache.length, length)
            self._cache = self._take_cache().resized(length)
            for slot in self._rows:
                if slot.fed > length:  # a free row: its tail is gone
                    slot.cut(length)

    def _chunk(self) -> Iterator[tuple[int, Result]]:
        """One chunk on the device, then what the scripts make of it."""
        longest = max(slot.fed for slot in self._rows if slot.busy)
        self._reserve(longest + self.chunk, shrink=True)
        controls = self._controls()
        cache, output = self._steps.decode(self._parameters, self._take_cache(), controls)
        output = jax.device_get(output)  # an error of the device appears here
        self._cache = cache
        self.stats.decode_steps += int(output.steps)
        self.stats.slot_steps += int(output.steps) * self.slots
        self.stats.busy_slot_steps += int(output.fed.sum())
        for row, slot in enumerate(self._rows):
            if not slot.busy:
                continue
            count = int(output.counts[row])
            self.stats.sampled_tokens += count
            outcome = slot.absorb(
                output.tokens[row, :count],
                output.logprobs[row, :count],
                output.watched[row],
                int(output.fed[row]),
                not output.active[row],
                self.tokenizer,
            )
            if outcome is PENDING:
                continue
            result = slot.advance(outcome, self.tokenizer, self.max_length)
            if result is not None:
                index = slot.index
                slot.release()
                self.stats.finished += 1
                yield index, result

    def _controls(self) -> Controls:
        controls = Controls.zeros(self.slots, self.chunk)
        busy = 0
        for row, slot in enumerate(self._rows):
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


def _by_size(numbered: Iterator[tuple[int, Request]], ahead: int) -> Iterator[tuple[int, Request]]:
    """Takes ``ahead`` requests at a time and gives the larger ones first.

    A long request that starts last keeps one slot busy while all the others stand empty. Within a window nothing
    waits for what comes after it, so the order of a long input is kept on the whole.
    """
    while window := list(itertools.islice(numbered, ahead)):
        yield from sorted(window, key=lambda item: -item[1].size_hint)
