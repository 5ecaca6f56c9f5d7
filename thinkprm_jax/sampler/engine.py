"""Continuous batching: requests in, results out as they finish, one decode loop for every user.

slots     a fixed number B; the decode shape never changes with the load
lanes     the slots are one decode loop, or several with a thread each (for a small model on several processors)
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

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.model.config import ModelConfig
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.memory import weight_bytes
from thinkprm_jax.sampler.lane import Lane, Numbered
from thinkprm_jax.sampler.lanes import run_lanes
from thinkprm_jax.sampler.request import Completion, Request, Result, Think, Thought
from thinkprm_jax.sampler.slot import Limits
from thinkprm_jax.sampler.stats import SamplerStats
from thinkprm_jax.sampler.steps import DeviceSteps, device_steps
from thinkprm_jax.sampler.store import Store
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

# Measured on two processors: with 5 MB of weights two lanes give 1.5 to 1.9 times the tokens, with 20 MB 1.0 to
# 1.3 times, with 200 MB 0.8 to 0.9 times.
LANE_WEIGHT_BYTES = 16 * 2**20


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
      lanes: into so many decode loops the slots are split, each with its own thread, cache and part of the shelf.
        One processor computes the small products of a small model, so a CPU with several is busy only with several
        lanes (:func:`cpu_lanes`). What two lanes have in common is processed in both. Not for several devices.
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
        lanes: int = 1,
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
        if lanes < 1 or slots % lanes or (lanes > 1 and mesh is not None and mesh.size > 1):
            raise UserError(
                f"sampler: lanes={lanes} must be at least 1, divide slots={slots}, and be 1 on several devices"
            )
        if slots % rows:
            raise UserError(f"sampler: slots={slots} must be a multiple of the mesh's data x fsdp = {rows}")
        self.tokenizer = tokenizer
        self.slots, self.max_length, self.chunk = slots, max_length, chunk
        self._config = model.config
        self._graph, self._parameters = nnx.split(model)
        self._steps: DeviceSteps = device_steps(self._graph, mesh, chunk)
        self._limits = Limits(max_length, model.config.vocab_size)
        dtype = jnp.dtype(cache_dtype) if cache_dtype else model.dtype
        shelf = -(-shelf // lanes)
        self._lanes = [self._lane(slots // lanes, shelf, share_from, dtype, rows) for _ in range(lanes)]
        self._running = False

    def _lane(self, slots: int, shelf: int, share_from: int, dtype: jnp.dtype, parts: int) -> Lane:
        stats = SamplerStats()
        store = Store(
            self._steps,
            self._config,
            stats,
            slots=slots,
            max_length=self.max_length,
            chunk=self.chunk,
            dtype=dtype,
            shelf=shelf,
            share_from=share_from,
            parts=parts,
        )
        return Lane(self._steps, store, stats, self.tokenizer, self._limits, self.chunk)

    @property
    def lanes(self) -> int:
        return len(self._lanes)

    @property
    def stats(self) -> SamplerStats:
        """What all lanes have done so far; a copy where there are several."""
        first, *others = (lane.stats for lane in self._lanes)
        return first.plus(others) if others else first

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
        for lane in self._lanes:
            lane.store.reset()

    @property
    def position_bytes(self) -> int:
        """Device memory of one token in the cache or on the shelf."""
        return self._lanes[0].store.position_bytes

    @property
    def planned_bytes(self) -> int:
        """Device memory of the cache at its longest and of the shelf, over all devices."""
        return sum(lane.store.planned_bytes for lane in self._lanes)

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
        waiting: Numbered = _numbered(requests)
        if isinstance(requests, Sequence):
            waiting = _by_size(enumerate(requests), 4 * self.slots)
        try:
            if len(self._lanes) == 1:
                yield from self._lanes[0].run(self._parameters, waiting)
            else:
                yield from run_lanes(self._lanes, self._parameters, waiting)
        finally:
            self._running = False


def _numbered(requests: Iterable[Request | None]) -> Numbered:
    """Requests with their numbers; None, which is none, as it comes."""
    count = itertools.count()
    for request in requests:
        yield None if request is None else (next(count), request)


def _by_size(numbered: Iterator[tuple[int, Request]], ahead: int) -> Numbered:
    """Takes ``ahead`` requests at a time and gives the larger ones first.

    A long request that starts last keeps one slot busy while all the others stand empty. Within a window nothing
    waits for what comes after it, so the order of a long input is kept on the whole.
    """
    while window := list(itertools.islice(numbered, ahead)):
        yield from sorted(window, key=lambda item: -item[1].size_hint)


def cpu_lanes(config: ModelConfig, dtype: DTypeLike, slots: int) -> int:
    """Lanes that keep the processors of this machine busy: one each, of at least four slots.

    1 where the model does not run on them, where there are several devices, and where the weights are larger than
    a processor's cache: then every lane would read them anew, and their products are large enough to be split.
    """
    if jax.device_count() > 1 or jax.default_backend() != "cpu" or weight_bytes(config, dtype) > LANE_WEIGHT_BYTES:
        return 1
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return next(lanes for lanes in range(min(processors, max(slots // 4, 1)), 0, -1) if slots % lanes == 0)
