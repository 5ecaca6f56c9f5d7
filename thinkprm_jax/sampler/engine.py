"""Continuous batching: requests in, results out as they finish, one engine for every user.

slots      at most B; the decode shape does not change with the load, but for a large model on a CPU, where idle
           slots would cost as much as busy ones: there the number of rows follows the work, in few steps
queue      requests wait for a free slot; of their prompts only what no row and no prefix cache holds is processed,
           once for all that begin with it
step       C decode steps on the device, then the host reads what each slot sampled, looks for stop texts, runs the
           scripts of the slots that stopped, and refills the free ones
workers    the slots are one decode loop, or several with a thread each: a small model on several processors, or a
           mesh with data replicas (:mod:`.replicas`)
cache      rows, allocated for the longest live one, rounded up to a bucket: it grows and shrinks between chunks;
           or, where a kernel reads them, pages (:mod:`.page_store`)

Threads and coroutines may submit at any time. Whoever waits for a result steps (:mod:`.handle`), so nothing runs
while nobody waits, and one caller alone always sees the same batches. A request depends on its own prompt, script,
seed and settings: who is served beside it changes the rounding of products at most.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jax.typing import DTypeLike

from thinkprm_jax.activity import Activity
from thinkprm_jax.checkpoint.new_weights import read_weights
from thinkprm_jax.distributed.sharing import our_mesh
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.model.memory import weight_bytes
from thinkprm_jax.model.products import Requested, choose_products
from thinkprm_jax.runtime import refuse_forked, refuse_pickling
from thinkprm_jax.sampler.cache_kind import CacheKind, RequestedCache, choose_cache
from thinkprm_jax.sampler.cache_store import CacheStore, RowStore
from thinkprm_jax.sampler.dealing import Dealer, dealing, draw, larger_first
from thinkprm_jax.sampler.decoding import ChunkOutput
from thinkprm_jax.sampler.device import DeviceFunctions, call_columns
from thinkprm_jax.sampler.draft_costs import NO_DRAFTS, DraftChoice, choose_drafts, longest_drafts
from thinkprm_jax.sampler.handle import Handle, RequestHandle, StepLoop, check_can_compute
from thinkprm_jax.sampler.job import Limits, check_request
from thinkprm_jax.sampler.limits import check_sampler
from thinkprm_jax.sampler.memory import rows
from thinkprm_jax.sampler.page_store import PageStore
from thinkprm_jax.sampler.replicas import PartViews, cut_mesh, part_functions
from thinkprm_jax.sampler.request import (
    Completion,
    Phase,
    Request,
    Result,
    SamplerStats,
    Think,
    Thought,
    check_drafts,
)
from thinkprm_jax.sampler.scheduler import Worker
from thinkprm_jax.sampler.slots import row_counts, worker_count
from thinkprm_jax.sampler.weights import WeightVersions
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

_MEASURING = threading.Lock()  # replicas: one measures, in peace, and the others take what it finds


class Sampler:
    """Runs requests, scripts of phases, on a decoder with a key-value cache::

        sampler = Sampler(model, tokenizer, slots=16, max_length=2048)
        handle = sampler.submit(sampler.request("Compute 12 + 7.", max_new_tokens=64))
        for piece in handle.text():  # as it is decoded
            print(piece, end="")
        print(handle.result().value.finish_reason)

    On a CPU with several processors a small model is decoded by several workers, each with a thread, a part of the
    slots and a cache of its own: one processor computes the small products of a small model, so one loop would
    leave the others idle. What two workers have in common is processed in both.

    Example:

        model, tokenizer = load_model("mini")
        sampler = Sampler(model, tokenizer, slots=4, max_length=128)
        for completions in sampler.generate(["2 + 2", "3 + 3"], max_new_tokens=8, temperature=0.8, n=2):
            print([completion.text for completion in completions])

    Args:
      model: the decoder; its parameters are used where they are, never copied.
      tokenizer: for stop texts and :meth:`generate`.
      slots: B, contexts decoded together, at most.
      max_length: longest context (prompt, generated and forced tokens).
      chunk: decode steps between two looks of the host.
      mesh: the mesh the parameters are placed on; slots are split over data x fsdp, heads over tensor. ``data``
        replicas are decode loops of their own, side by side. Of other axes than ours, as of
        :func:`thinkprm_jax.share_mesh`.
      cache_dtype: default the model's compute dtype.
      cache: "rows", of the length of the longest; "pages", of which every context has as many as it fills, and
        shares those of a common beginning; "auto", rows (:func:`.choose_cache` says why). None: what
        $THINKPRM_JAX_KV_CACHE says, or "auto". It changes no token.
      cache_positions: tokens that a cache of pages holds in all; None: every slot at ``max_length`` and the prefix
        cache, or what the device has memory for. With fewer the youngest contexts wait while there is no room, and
        are fed again.
      prefix_cache: positions (tokens) of the prefix cache, in whole blocks of 16 (or pages), for requests with
        ``keep``; 0: none. A search wants the contexts of two rounds in it: a prompt once for all its beams, and
        for each beam the tokens that it alone has and half a block.
        Of several replicas each has its part of it.
      share_from: tokens; a beginning in common with another prompt that is shorter than this is processed again,
        because copying it and going on from there costs more than it saves. One that is the whole prompt is always
        shared. 1: no token of any common beginning is processed twice.
      products: what computes the products with weights: "native", our kernel for CPUs; "xla"; or "auto", the
        kernel where it can run and the model is not tiny. None: what $THINKPRM_JAX_PRODUCTS says, or "auto".
      drafts: tokens that a step may try at once, looked up in what stands there already (:mod:`.drafts`), at most;
        0: none; None: as many as pay on this machine, by a measurement, and none for a model of less than 64 MiB.
        They change no token.
      ahead: launch the next chunk before the results of the last one are given to callers, so that the device
        works while they do; None: where the device is not the host itself. It changes no token.
    Raises:
      UserError: a setting that cannot work.

    Attributes:
      loop: the steps, for whoever combines handles (:func:`.gather`).
      products: what computes them, "native" or "xla".
      cache: its kind, "rows" or "pages". page_attention: what reads pages, "kernel" or "xla".
      drafts: for each number of rows so far, how long drafts are and what they cost.
      ahead: whether the next chunk is launched before results are given.
      evenly: replicas get equal shares of what comes, whatever they know: so that all of them compile the same.
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
        cache: RequestedCache | None = None,
        cache_positions: int | None = None,
        prefix_cache: int = 0,
        share_from: int = 64,
        products: Requested | None = None,
        drafts: int | None = None,
        ahead: bool | None = None,
    ) -> None:
        refuse_forked()
        mesh = our_mesh(mesh)
        check_sampler(slots, max_length, chunk, prefix_cache, share_from, model.config, mesh)
        self.tokenizer = tokenizer
        self.slots, self.max_length, self.chunk = slots, max_length, chunk
        self.loop = StepLoop(self._step, self._has_room)
        self._config, self._positions = model.config, model.config.positions
        self._weights = WeightVersions(model)
        held = weight_bytes(model.config, model.dtype, quantization=model.quantization)
        self.products = choose_products(products, model.dtype, held, mesh)
        parts = cut_mesh(mesh)
        functions = part_functions(self._weights.graph, parts, chunk, self.products)
        self._device, self._views = functions[0], PartViews(model, parts)
        self._limits = Limits(max_length, model.config.vocab_size)
        self._queue: collections.deque[RequestHandle] = collections.deque()
        self._queued = 0  # of the queue, those that are not cancelled
        # What is kept by one worker would be processed again by another.
        alone = prefix_cache > 0 or (mesh is not None and mesh.size > 1)
        self._dtype, self._weight_bytes = model.dtype, held
        count = len(parts) if alone else worker_count(held, slots)
        dtype = jnp.dtype(cache_dtype) if cache_dtype else model.dtype
        check_drafts(drafts)
        self._longest_drafts = longest_drafts(drafts, held)
        self._most_drafted = drafts if self._longest_drafts else 0
        self.drafts: dict[int, DraftChoice] = {}
        if len(parts) == 1:
            functions, parts = functions * count, parts * count
        else:
            prefix_cache = -(-prefix_cache // count)
        choice = choose_cache(cache, self._config, dtype, parts)
        self.cache: CacheKind = choice.kind
        self.page_attention = choice.attention
        if cache_positions is not None and choice.kind != "pages":
            raise UserError(
                f"sampler: cache_positions is for a cache of pages, this one is of rows: {choice.reason}"
            )
        self._pool_positions = None if cache_positions is None else cache_positions // count
        self._workers = [
            self._worker(device, slots // count, prefix_cache, share_from, dtype, rows(part))
            for device, part in zip(functions, parts, strict=True)
        ]
        self.evenly = False
        self._dealer = Dealer(count) if count > 1 and parts[0] is not parts[1] else None
        self.ahead = jax.default_backend() != "cpu" if ahead is None else ahead
        alone = count == 1 and not self.ahead
        self._pool = None if alone else concurrent.futures.ThreadPoolExecutor(count, "sampler worker")
        self._under_way: dict[concurrent.futures.Future[ChunkOutput], Worker] = {}

    def __reduce__(self) -> NoReturn:
        refuse_pickling(self)

    def _worker(
        self,
        device: DeviceFunctions,
        slots: int,
        prefix_cache: int,
        share_from: int,
        dtype: DTypeLike,
        parts: int,
    ) -> Worker:
        stats = SamplerStats()
        counts = row_counts(self._weight_bytes, slots)
        columns = call_columns(self.chunk, self._longest_drafts)
        common: dict[str, Any] = {
            "row_counts": counts, "max_length": self.max_length, "columns": columns, "dtype": dtype,
            "prefix_cache": prefix_cache, "share_from": share_from,
        }  # fmt: skip
        store: CacheStore[Any]
        if self.cache == "pages":
            room: dict[str, Any] = {"positions": self._pool_positions, "attention": self.page_attention}
            store = PageStore(device, self._config, stats, **room, **common)
        else:
            store = RowStore(device, self._config, stats, parts=parts, **common)
        choose = functools.partial(_choose_drafts, device, self._most_drafted, self.drafts)
        return Worker(device, store, stats, self.tokenizer, self._limits, choose)

    # What runs

    def submit(self, request: Request) -> RequestHandle:
        """Puts a request into the queue. From any thread; nothing runs before somebody waits.

        Returns: its handle. A request that can never run has its result, with ``error``, at once.
        Raises:
          UserError: inside jax.jit, where nothing can be computed.
        """
        check_can_compute()
        self._check_loaded()
        try:
            handle = RequestHandle(self.loop, request, self.tokenizer, self._forget)
        except jax.errors.ConcretizationTypeError:
            raise UserError(
                "a prompt holds traced values: the sampler wants ids, not what jax.jit traces"
            ) from None
        try:
            check_request(request, self._limits)
        except RequestError as error:
            handle.settle(Result(error=error))
            return handle
        with self.loop.changed:
            handle.turn = self._weights.notice()
            self._queue.append(handle)
            handle.queued = True
            self._queued += 1
            self.loop.wake()
        return handle

    def step(self) -> bool:
        """One chunk of all slots, by this thread; for callers that wait for no particular handle. False: there was
        nothing to do."""
        return self.loop.step()

    def cancel(self, handle: RequestHandle) -> bool:
        """Gives a request up: in the queue it never runs, in a slot it frees it at the next step. False: it is
        done already."""
        return handle.cancel()

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[int, Result]]:
        """Runs requests; yields (index, result) as they finish.

        Requests are taken from the iterable as slots become free. Of a sequence, four a slot are in sight at a
        time, and those with a larger ``size_hint`` start first.

        A request that cannot run gives a result with ``error``; the others go on. Leaving the iterator early, an
        exception of a script or KeyboardInterrupt cancels what is not finished. Several may run at once: they
        share the slots.
        """
        numbered = enumerate(requests)
        by_size = isinstance(requests, Sequence)
        return self.loop.serve(larger_first(numbered, 4 * self.slots) if by_size else numbered, self.submit)

    def request(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        stop: str | Sequence[str] = (),
        seed: int = 0,
    ) -> Request:
        """A request for one completion of a prompt: its result's value is a :class:`.Completion`. Arguments as of
        :meth:`generate`."""
        ends = self.end_ids
        stops = (stop,) if isinstance(stop, str) else tuple(stop)

        def script() -> Generator[Phase, Any, Completion]:
            thought: Thought = yield Think(max_new_tokens, ends, stops)
            reason = "stop" if thought.finish.startswith("stop") else "length"
            return Completion(thought.text, thought.ids, thought.logprobs, reason)

        ids = self.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
        return Request(ids, script, temperature, top_p, top_k, seed)

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
        requests = [
            dataclasses.replace(first, seed=seed + i)
            for prompt in prompts
            for first in [
                self.request(
                    prompt,
                    max_new_tokens=max_new_tokens,
                    temperature=temperature,
                    top_p=top_p,
                    top_k=top_k,
                    stop=stop,
                )
            ]
            for i in range(n)
        ]
        completions: dict[int, Completion] = {}
        for index, result in self.run(requests):
            if result.error is not None:
                raise RequestError(f"prompt {index // n}: {result.error}")
            completions[index] = result.value
        return [[completions[i * n + j] for j in range(n)] for i in range(len(prompts))]

    # What it is and has

    def split_model(self) -> tuple[nnx.GraphDef, nnx.State]:
        """The architecture and its parameters, as they are used now; nothing is copied."""
        return self._weights.graph, self._weights.state()

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end a text: the model's and the tokenizer's."""
        eos = self._config.eos_token_id
        ids = eos if isinstance(eos, tuple) else (eos,)
        return tuple(dict.fromkeys(i for i in (*ids, self.tokenizer.eos_id) if i is not None))

    @property
    def stats(self) -> SamplerStats:
        """What all workers have done so far; a copy where there are several."""
        first, *others = (worker.stats for worker in self._workers)
        return first.plus(others) if others else first

    @property
    def workers(self) -> int:
        """Decode loops, each with an equal part of the slots."""
        return len(self._workers)

    @property
    def positions(self) -> int:
        """The model's: no max_length can be above."""
        return self._positions

    @property
    def activity(self) -> Activity:
        """What it is doing at this moment, for whoever shows it; from any thread, and nothing waits for it."""
        stats = self.stats
        running = [worker for worker in self._workers if worker.jobs]
        doing = {worker.doing for worker in running}
        return Activity(
            "prefilling" if "prefilling" in doing else max(doing, default=""),
            sum(len(worker.jobs) for worker in running),
            self._queued,
            stats.finished,
            stats.sampled_tokens,
        )

    @property
    def position_bytes(self) -> int:
        """Device memory of one token in the cache or the prefix cache."""
        return self._workers[0].store.position_bytes

    @property
    def planned_bytes(self) -> int:
        """Device memory of the cache at its longest and of the prefix cache, over all devices."""
        return sum(worker.store.planned_bytes for worker in self._workers)

    @property
    def compilations(self) -> int:
        """Programs compiled so far for this architecture, mesh and chunk (by all samplers that share them)."""
        distinct = {worker.device.decode: worker.device for worker in self._workers}
        return sum(device.compilations() for device in distinct.values())

    def use(self, model: Decoder) -> None:
        """Goes on with other weights of the same architecture, dtypes and shardings: nothing is compiled again.

        What the slots and the prefix cache still hold of earlier prompts is forgotten.
        """
        if nnx.split(model)[0] != self._weights.graph:
            raise ValueError(
                "a model of another architecture, or one that computes otherwise, needs its own sampler"
            )
        self.release()
        self._weights.load(model)

    def release(self) -> None:
        """Lets go of weights, cache and prefix cache, so that their memory is free; :meth:`use` brings weights
        back. RuntimeError while requests run or wait."""
        with self.loop.alone():
            self._collect(concurrent.futures.ALL_COMPLETED)
            for worker in self._workers:
                worker.tell()
                worker.drop_cancelled()
            if self._queued or self._weights.pending or any(worker.jobs for worker in self._workers):
                raise RuntimeError("this sampler is running")
            self._weights.release()
            self._views.forget()
            for worker in self._workers:
                worker.reset()

    @property
    def weight_version(self) -> int:
        """Of the weights that requests run with now, from 0; a result says its own."""
        return self._weights.version

    def update_weights(self, weights: Any, *, copy: bool = True) -> int:
        """Goes on with other weights of the same architecture, between two requests: what was submitted before
        ends with the old ones, what is submitted after begins with the new ones. Nothing is compiled again, and
        all that was cached of the old weights is forgotten. From any thread; returns when it has happened.

        The model's variables have the new weights then. Who gives them others directly needs no call: what
        runs at that moment ends with what it began with, and what is submitted later runs with the new ones.

        Args:
          weights: by name (ours, or those of Hugging Face checkpoints), nested or with dots: arrays of any
            dtype. A model or its ``nnx.State``. Or a folder: of Hugging Face, a run of `thinkprm train`, or
            what Orbax saved of one of the former.
          copy: False: arrays that already are as they should be are used as they are. They must not be donated.
        Returns: the version, as results say it.
        Raises:
          UserError: a name is missing or unknown, or a shape is another one; the weights are then the old ones.
        """
        self._check_loaded()
        check_can_compute()
        values = read_weights(weights, self._config, self._weights.current(), copy)
        handle: Handle[int] = Handle(self.loop)
        with self.loop.changed:
            self._weights.notice()
            self._weights.propose(values, handle)
            self.loop.wake()
        return handle.result()

    def _check_loaded(self) -> None:
        if not self._weights.loaded:
            raise RuntimeError("this sampler has no weights: it was released, and use() gives it others")

    # Steps

    def _has_room(self) -> bool:
        """With chunks that are launched ahead as many as there are slots wait for rows that one will free."""
        spare = self.slots if self.ahead else 0
        serving = [True] * len(self._workers) if self._dealer is None else self._dealer.serving
        free = itertools.compress((worker.free for worker in self._workers), serving)
        return sum(free) + spare > self._queued

    def _forget(self, handle: RequestHandle) -> None:
        """Of a cancelled one; with ``loop.changed`` held."""
        if handle.queued:
            handle.queued = False
            self._queued -= 1

    def take(self) -> RequestHandle | None:
        """For who deals: the next of the queue."""
        with self.loop.changed:
            while self._queue and self._queue[0].turn <= self._weights.turn:
                handle = self._queue.popleft()
                if handle.queued:
                    handle.queued, handle.weight_version = False, self._weights.version
                    self._queued -= 1
                    return handle
        return None

    def put_back(self, handles: Iterable[RequestHandle]) -> None:
        """For who deals: to the head of the queue, in this order."""
        with self.loop.changed:
            for handle in reversed(list(handles)):
                if not handle.done():
                    handle.queued = True
                    self._queued += 1
                self._queue.appendleft(handle)

    def _step(self) -> bool:
        """A chunk of every worker that has jobs; returns once the first of them is through. With ``ahead`` its
        next one runs then, unless too many rows stand empty: what callers make of the results may be for them."""
        try:
            began = self._launch()
            worked = self._collect(concurrent.futures.FIRST_COMPLETED) or began
            if self.ahead and worked and self._few_are_empty():
                self._launch()
        finally:
            for worker in self._workers:
                worker.tell()
        with self.loop.changed:
            if not self._queue and not any(worker.jobs for worker in self._workers):
                self._weights.rest()
        return worked

    def _few_are_empty(self) -> bool:
        """Whether at most an eighth of the rows is left for what may come."""
        return 8 * (sum(worker.free for worker in self._workers) - self._queued) <= self.slots

    def _launch(self) -> bool:
        """A chunk of every worker that has jobs and none under way. False: there was no such worker."""
        began = False
        idle = [worker for worker in self._workers if worker not in self._under_way.values()]
        for worker in idle:
            worker.drop_cancelled()
        ready = self._next_turn()
        with dealing(None if self.evenly else self._dealer, self._workers, idle, ready, self) as hands:
            for place, worker in enumerate(idle):
                with self._recovering(worker):
                    if hands is None:
                        worker.admit(self.take, -(-min(ready, self._queued) // (len(idle) - place)))
                    else:
                        hand = hands[worker]
                        worker.admit(functools.partial(draw, hand), len(hand))
                if not worker.jobs:
                    continue
                began = True
                with self._recovering(worker):
                    self._run(worker, self._parameters(worker))
        return began

    def _run(self, worker: Worker, parameters: nnx.State) -> None:
        """A chunk: in this thread, or launched by it, or all in another one where a CPU computes for several."""
        if self._pool is None:
            future = concurrent.futures.Future[ChunkOutput]()
            future.set_result(worker.chunk(parameters))
        elif len(self._workers) == 1:
            worker.launch(parameters)
            future = self._pool.submit(worker.read)
        else:
            future = self._pool.submit(worker.chunk, parameters)
        self._under_way[future] = worker

    def _parameters(self, worker: Worker) -> nnx.State:
        views = self._views.of(self._weights.parameters())
        return views[self._workers.index(worker) % len(views)]

    def _next_turn(self) -> int:
        """Has other weights run, where it is time for them. Returns: how many requests of the queue may run."""
        weights = self._weights
        if weights.lost:
            self._collect(concurrent.futures.ALL_COMPLETED)
            lost = RequestError("the weights that it ran with were given to another computation (donated)")
            for handle in [handle for worker in self._workers for handle in worker.stop()]:
                handle.settle(Result(error=lost))
            weights.rest()
        running = any(worker.jobs for worker in self._workers)
        with self.loop.changed:
            while self._queue and not self._queue[0].queued:  # cancelled
                self._queue.popleft()
            first = self._queue[0].turn if self._queue else weights.newest
            if not running and (self._queue or weights.pending) and weights.begin(first):
                for worker in self._workers:
                    worker.forget()
                if self._dealer is not None:
                    self._dealer.forget()
            if not weights.pending:
                return self._queued
            return sum(handle.queued and handle.turn <= weights.turn for handle in self._queue)

    def _collect(self, when: str) -> bool:
        """Takes in the chunks that are through. False: none was under way."""
        if not self._under_way:
            return False
        done, _ = concurrent.futures.wait(self._under_way, return_when=when)
        for future in done:
            worker = self._under_way.pop(future)
            with self._recovering(worker):
                worker.absorb(future.result())
                if self._dealer is not None:
                    self._dealer.worked(self._workers.index(worker))
        return True

    @contextlib.contextmanager
    def _recovering(self, worker: Worker) -> Iterator[None]:
        """What goes wrong on the device is told to all that ran there. Where the thread is interrupted instead,
        they go back to the head of the queue: what they had is lost, and comes again as it was."""
        try:
            yield
        except BaseException as error:
            handles = worker.stop()
            if isinstance(error, Exception):
                if self._dealer is not None and not isinstance(error, UserError):
                    self._dealer.failed(self._workers.index(worker), error)
                for handle in handles:
                    handle.fail(error)
                return
            self.put_back(handles)
            raise


def _choose_drafts(
    device: DeviceFunctions, most: int | None, chosen: dict[int, DraftChoice], rows: int, parameters: nnx.State
) -> DraftChoice:
    """What drafts a decode loop of so many rows gets; ``chosen`` has it then. most: None: what pays."""
    with _MEASURING:
        if rows not in chosen:
            if most is None:
                chosen[rows] = choose_drafts(device.model(parameters), rows)
            else:  # as the user says, at any price
                chosen[rows] = DraftChoice(most, 0.0) if most else NO_DRAFTS
        return chosen[rows]
