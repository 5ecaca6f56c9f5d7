"""What runs: the workers, each with jobs on the rows of its cache.

    Siblings        what chains of the same prompt have written, for drafts
    DeviceClock     how long the device computes, and how long it waits for the host
    Worker          one decode loop: rows, the jobs on them, a chunk of decode steps for all of them together

Everything here is host code apart from :meth:`Worker.launch` and :meth:`Worker.read`, which touch no script and
no handle: that is why a thread of its own may run them.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from thinkprm_jax.sampler.cache_row import CacheRow
from thinkprm_jax.sampler.cache_store import CacheStore
from thinkprm_jax.sampler.decoding import ChunkOutput, Controls
from thinkprm_jax.sampler.device import DeviceFunctions
from thinkprm_jax.sampler.draft_costs import NO_DRAFTS, DraftChoice
from thinkprm_jax.sampler.drafts import OWN_SPARE, DraftControls
from thinkprm_jax.sampler.handle import RequestHandle
from thinkprm_jax.sampler.job import PENDING, Job, Limits
from thinkprm_jax.sampler.request import MAX_STOP_IDS, MAX_WATCHED, Result, SamplerStats, Think
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

# A call that feeds costs about as much as a decode step of 16 rows; fewer tokens are fed by the steps.
LEAST_FED = 12


class Siblings:
    """What chains of the same prompt have written, while they run and after; of PROMPTS prompts CHAINS chains."""

    PROMPTS, CHAINS = 64, 4

    def __init__(self) -> None:
        self._ended = collections.OrderedDict[bytes, collections.deque[np.ndarray]]()

    def add(self, job: Job) -> None:
        """One that has ended."""
        chains = self._ended.setdefault(job.prompt_key, collections.deque(maxlen=self.CHAINS))
        chains.append(job.row.ids()[len(job.handle.prompt) :].copy())
        self._ended.move_to_end(job.prompt_key)
        if len(self._ended) > self.PROMPTS:
            self._ended.popitem(last=False)

    def texts(self, jobs: Iterable[Job], rows: int, length: int) -> np.ndarray:
        """As of :class:`.DraftControls`, int32 [rows, 2 x length + OWN_SPARE]: the own context has some room
        to spare."""
        texts = np.full((rows, 2 * length + OWN_SPARE), -1, np.int32)
        groups: dict[bytes, list[tuple[Job, np.ndarray]]] = {}
        for job in jobs:
            context = job.row.ids()
            texts[job.row.number, length : length + len(context)] = context[: length + OWN_SPARE]
            groups.setdefault(job.prompt_key, []).append((job, context[len(job.handle.prompt) :]))
        for key, members in groups.items():
            ended = self._ended.get(key, ())
            for job, _ in members:
                others = [text for other, text in members if other is not job]
                _lay_out(texts[job.row.number, :length], [*ended, *others[: self.CHAINS]])
        return texts


def _lay_out(line: np.ndarray, texts: Sequence[np.ndarray]) -> None:
    """Texts at the end of a line of -1, a -1 behind each; the last ones, as far as they fit."""
    end = len(line) - 1
    for text in reversed(texts):
        if end <= 0:
            return
        text = text[-end:]
        line[end - len(text) : end] = text
        end -= len(text) + 1


class DeviceClock:
    """How long the device computes for a decode loop, and how long it waits for the host though there is something
    to decode; both go to the counters.

    The device is busy from a chunk's first call until the results are on the host: what it takes to bring them
    there, and to compile what is not compiled yet, counts as its own.
    """

    def __init__(self, stats: SamplerStats) -> None:
        self._stats = stats
        self._busy: float | None = None  # since when
        self._waits: float | None = None

    def wait(self) -> None:
        """There is something to do, and the device does not do it."""
        if self._busy is None and self._waits is None:
            self._waits = time.monotonic()

    def begin(self) -> None:
        """A call on the device begins, unless one has begun."""
        if self._busy is None:
            self._busy = time.monotonic()
            self._stop_waiting(self._busy)

    def ready(self) -> None:
        """The host has the results: now the device waits."""
        now = time.monotonic()
        if self._busy is not None:
            self._stats.device_seconds += now - self._busy
        self._busy, self._waits = None, now

    def rest(self) -> None:
        """There is nothing to do any more, or what there was has come to grief."""
        self._stop_waiting(time.monotonic())
        self._busy = None

    def _stop_waiting(self, now: float) -> None:
        if self._waits is not None:
            self._stats.host_seconds += now - self._waits
        self._waits = None


class Worker:
    """One decode loop: contexts that are decoded together, a row each.

    Args:
      device: the functions it calls. store: its rows. stats: what is counted.
      drafts: for a number of rows and parameters, what drafts they get; asked once for each number.

    Attributes:
      device: the functions.
      jobs: what runs, by number of the row.
      ended: what has ended and was not told yet (:meth:`tell`).
      doing: "prefilling" or "decoding", in the chunk that runs or the last one.
    """

    def __init__(
        self,
        device: DeviceFunctions,
        store: CacheStore[Any],
        stats: SamplerStats,
        tokenizer: Tokenizer,
        limits: Limits,
        drafts: Callable[[int, nnx.State], DraftChoice],
    ) -> None:
        self.store, self.stats, self._clock = store, stats, DeviceClock(stats)
        self.jobs: dict[int, Job] = {}
        self.ended = collections.deque[tuple[RequestHandle, Result | BaseException]]()
        self._output: ChunkOutput | None = None  # of the chunk that was launched, on the device
        self._waiting = frozenset[int]()  # rows that have no part in it, for want of memory
        self.doing, self._admitted = "", list[CacheRow]()
        self.device, self._tokenizer, self._limits = device, tokenizer, limits
        self._choose_drafts, self._chosen = drafts, dict[int, DraftChoice]()
        self.reset()

    def reset(self) -> None:
        """Forgets what it holds and has seen of prompts and chains, and frees its memory."""
        self.store.reset()
        self.forget()

    def forget(self) -> None:
        """The same, and keeps the memory: of other weights nothing counts any more. Nothing must run."""
        self.store.forget()
        self._siblings, self._trust = Siblings(), 1.0

    @property
    def free(self) -> int:
        """Jobs that it can still take."""
        return self.store.capacity - len(self.jobs)

    def admit(self, take: Callable[[], RequestHandle | None], most: int) -> None:
        """Has as many rows as that takes, gives free ones to up to ``most`` requests, and starts their scripts.

        Args:
          take: gives the next request; None: there is none.
        """
        if self.jobs or most > 0:
            self._clock.wait()
        self.store.fit_rows(len(self.jobs) + min(most, self.free))
        self.jobs = {job.row.number: job for job in self.jobs.values()}
        chooser = self.store.chooser() if most > 0 and self.free else None
        while chooser is not None and most > 0 and self.free and (handle := take()) is not None:
            row, kept = chooser.choose(handle.prompt)
            try:
                script = handle.request.script()
                job = Job(handle, row, script, self._tokenizer, self._limits)
                job.trust = self._trust
            except Exception as error:
                handle.fail(error)
                continue
            row.occupy(list(handle.prompt), kept)
            self.jobs[row.number] = job
            handle.begin()
            self._advance(job, None)
            if job.row.busy:
                self._admitted.append(row)
                most -= 1
        if not self.jobs:
            self._clock.rest()

    def chunk(self, parameters: nnx.State) -> ChunkOutput:
        """One chunk for all jobs, from beginning to end; :meth:`absorb` then tells the jobs."""
        self.launch(parameters)
        return self.read()

    def launch(self, parameters: nnx.State) -> None:
        """Has the device bring the prompts of newly admitted requests into the cache, and decode one chunk for all
        jobs; only touches rows. Does not wait for it, where the device is not the host itself."""
        store = self.store
        admitted, self._admitted = self._admitted, []
        if admitted:
            self.doing = "prefilling"
            store.fill(parameters, admitted, self._clock.begin)
        self.doing = "decoding"
        if store.feeds:
            self._feed(parameters)
        self._waiting = store.make_room([(job.row, self._reach(job)) for job in self.jobs.values()])
        rows = len(store.rows)
        if rows not in self._chosen:
            self._clock.begin()
            self._chosen[rows] = self._choose_drafts(rows, parameters)
        controls = self._controls(self._chosen[rows])
        self._clock.begin()
        store.cache, self._output = self.device.decode(parameters, store.take_cache(), controls)

    def _reach(self, job: Job) -> int:
        """Positions of a row that the next chunk may fill with tokens that count."""
        pending = len(job.row.context) - job.row.fed
        return job.row.fed + min(pending + max(job.budget, 1), self.store.columns)

    def read(self) -> ChunkOutput:
        """What the chunk did that was launched last, once it is through."""
        output, self._output = self._output, None
        assert output is not None
        try:
            output = self._fetch(output)  # an error of the device appears here
        except BaseException:
            self.store.cache = None  # its arrays are as broken
            raise
        self._clock.ready()
        return output

    def _feed(self, parameters: nnx.State) -> None:
        """What scripts have forced goes into the cache but for its last token, of all rows together, where it is
        so much that steps would take longer."""
        wanted = [(job.row, len(job.row.context) - 1) for job in self.jobs.values()]
        wanted = [(row, goal) for row, goal in wanted if goal > row.fed]
        if sum(goal - row.fed for row, goal in wanted) < LEAST_FED:
            return
        wanted = self.store.with_room(wanted)
        for row, goal in wanted:
            self._count_given(row, goal - row.fed)
        self._clock.begin()
        self.store.feed(wanted, parameters)

    @staticmethod
    def _fetch(output: ChunkOutput) -> ChunkOutput:
        fetched: ChunkOutput = jax.device_get(output)
        return fetched

    def absorb(self, output: ChunkOutput) -> None:
        """What the scripts make of a chunk."""
        self.stats.decode_steps += int(output.steps)
        self.stats.wide_steps += int(output.wide_steps)
        self.stats.slot_steps += int(output.steps) * len(self.store.rows)
        rows = _of_rows(output)
        ran = [(number, job) for number, job in sorted(self.jobs.items()) if number not in self._waiting]
        moved = [(job.row.fed, rows[number].fed, rows[number].busy) for number, job in ran]
        self.store.count_bytes(int(output.steps), moved)
        for number, job in ran:
            if job.handle.done():
                continue  # cancelled
            outcome = self._absorb(job, output, rows[number])
            if outcome is not PENDING:
                self._advance(job, outcome)
        self.store.save()  # before rows are taken by others
        if not self.jobs:
            self._clock.rest()

    def _advance(self, job: Job, outcome: Any) -> None:
        """Goes on with a script, and frees the row if it ends. What a script raises is its own request's; but an
        interrupt is also for the thread that it reached."""
        try:
            result = job.advance(outcome)
        except BaseException as error:
            self._leave(job, 0)
            self.ended.append((job.handle, error))
            if not isinstance(error, Exception):
                raise
            return
        if result is not None:
            self._leave(job, job.keep)
            self.ended.append((job.handle, result))

    def tell(self) -> None:
        """Gives what has ended to whoever waits for it."""
        while self.ended:
            handle, outcome = self.ended[0]
            if isinstance(outcome, Result):
                handle.settle(outcome)
            else:
                handle.fail(outcome)
            self.ended.popleft()

    def _leave(self, job: Job, keep: int) -> None:
        del self.jobs[job.row.number]
        if self._chosen.get(len(self.store.rows), NO_DRAFTS).tokens:
            self._siblings.add(job)
            self._trust += 0.25 * (job.trust - self._trust)  # what the next ones begin with
        self.store.retire(job.row, keep)
        self.stats.finished += 1

    def drop_cancelled(self) -> None:
        """Frees the rows of jobs that nobody waits for any more."""
        for job in [job for job in self.jobs.values() if job.handle.done()]:
            del self.jobs[job.row.number]
            job.row.release()
            _close(job)

    def stop(self) -> list[RequestHandle]:
        """Frees everything, whatever state an interruption has left. Returns: the handles of what ran."""
        jobs = [self.jobs[number] for number in sorted(self.jobs)]
        self.jobs, self._admitted, self._output = {}, [], None
        self.store.recover()
        self._clock.rest()
        for job in jobs:
            _close(job)
        return [job.handle for job in jobs if not job.handle.done()]

    def _absorb(self, job: Job, output: ChunkOutput, of_row: _OfRow) -> object:
        """Counts what a chunk did for a job, and tells it. Returns: as :meth:`Job.absorb`."""
        row, number, stats = job.row, job.row.number, self.stats
        count, fed = of_row.counts, of_row.fed
        given = min(fed, len(row.context) - row.fed)  # the others were sampled by this very chunk
        self._count_given(row, given)
        stats.busy_slot_steps += of_row.busy
        stats.drafted_tokens += of_row.drafted
        stats.accepted_tokens += of_row.accepted
        job.trust = of_row.trust
        stats.sampled_tokens += count
        stats.fed_samples += fed - given
        row.processed = max(row.processed, row.fed + fed)
        before = job.sampled
        outcome = job.absorb(
            output.tokens[number, :count],
            output.logprobs[number, :count],
            output.watched[number],
            fed,
            not of_row.active,
        )
        stats.discarded_tokens += count - (job.sampled - before)
        return outcome

    def _count_given(self, row: CacheRow, given: int) -> None:
        """Counts the next ``given`` tokens of the context, which go through the layers."""
        again = max(min(row.processed - row.fed, given), 0)
        of_prompt = max(min(row.wanted - row.fed, given), 0)
        again_of_prompt = min(again, of_prompt)
        self.stats.prefilled_tokens += of_prompt - again_of_prompt
        self.stats.reprefilled_tokens += again_of_prompt
        self.stats.forced_tokens += given - of_prompt - (again - again_of_prompt)
        self.stats.refed_tokens += again - again_of_prompt
        row.processed = max(row.processed, row.fed + given)

    def _controls(self, choice: DraftChoice) -> Controls:
        """What every row is to do in the next chunk."""
        slots, columns = len(self.store.rows), self.store.columns
        pending = np.zeros((slots, columns), np.int32)
        pending_count = np.ones(slots, np.int32)
        positions = np.zeros(slots, np.int32)
        active = np.zeros(slots, bool)
        budgets, top_k = np.zeros((2, slots), np.int32)
        stop_ids = np.full((slots, MAX_STOP_IDS), -1, np.int32)
        watch = np.zeros((slots, MAX_WATCHED), np.int32)
        temperature, top_p = np.zeros(slots, np.float32), np.ones(slots, np.float32)
        keys = np.zeros((slots, 2), np.uint32)
        for number, job in self.jobs.items():
            row, phase, request = job.row, job.phase, job.handle.request
            rest = row.context[row.fed :]
            pending[number, : min(len(rest), columns)] = rest[:columns]
            pending_count[number] = len(rest)
            positions[number] = row.fed
            active[number] = number not in self._waiting
            budgets[number] = job.budget
            watch[number, : len(job.asked)] = job.asked
            if isinstance(phase, Think):
                stop_ids[number, : len(phase.stop_ids)] = phase.stop_ids
            temperature[number] = request.temperature
            top_k[number] = min(request.top_k, self._limits.vocab_size)
            top_p[number] = request.top_p
            seed = int(request.seed)
            keys[number] = (seed >> 32 & 0xFFFFFFFF, seed & 0xFFFFFFFF)
        # Come back early once an eighth of the slots wait for the host: they may have work again.
        leave_below = np.asarray(int(active.sum()) - max(slots // 8, 1) + 1, np.int32)
        return Controls(
            pending, pending_count, positions, active, budgets, stop_ids, watch, temperature, top_k, top_p, keys,
            leave_below, self._draft_controls(choice),
        )  # fmt: skip

    def _draft_controls(self, choice: DraftChoice) -> DraftControls | None:
        if not choice.tokens:
            return None
        rows = len(self.store.rows)
        trust = np.asarray([self.jobs[i].trust if i in self.jobs else 1 for i in range(rows)], np.float32)
        texts = self._siblings.texts(self.jobs.values(), rows, self.store.length)
        return DraftControls(texts, trust, np.asarray(choice.price, np.float32), choice.tokens)


class _OfRow(NamedTuple):
    """Of a :class:`.ChunkOutput`, the numbers of one row, as Python's: an array's cost more, one by one."""

    counts: int
    fed: int
    active: bool
    busy: int
    drafted: int
    accepted: int
    trust: float


def _of_rows(output: ChunkOutput) -> list[_OfRow]:
    columns = (getattr(output, name).tolist() for name in _OfRow._fields)
    return [_OfRow(*row) for row in zip(*columns, strict=True)]


def _close(job: Job) -> None:
    """Ends a script that nobody waits for any more, and so nobody could be told what it raises then."""
    try:
        job.script.close()
    except Exception:
        logger.exception("a script that was given up failed to end")
