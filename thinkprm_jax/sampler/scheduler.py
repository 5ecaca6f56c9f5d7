"""What runs: the job that a request becomes on a row of the cache, and the workers.

    Job             one request on one row: its script, its phase, and what the phase has produced so far
    Siblings        what chains of the same prompt have written, for drafts
    Worker          one decode loop: rows, the jobs on them, a chunk of decode steps for all of them together

Everything here is host code apart from :meth:`Worker.chunk`, which touches no script and no handle: that is why a
thread of its own may run it.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import inspect
import logging
import numbers
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, get_args

import jax
import numpy as np
from flax import nnx

from thinkprm_jax.errors import RequestError
from thinkprm_jax.sampler.cache_store import CacheRow, CacheStore
from thinkprm_jax.sampler.decoding import ChunkOutput, Controls
from thinkprm_jax.sampler.device import DeviceFunctions
from thinkprm_jax.sampler.draft_costs import NO_DRAFTS, DraftChoice
from thinkprm_jax.sampler.drafts import DraftControls
from thinkprm_jax.sampler.handle import RequestHandle
from thinkprm_jax.sampler.options import OptionWalk
from thinkprm_jax.sampler.prefix_tree import common_length
from thinkprm_jax.sampler.request import (
    MAX_STOP_IDS,
    MAX_WATCHED,
    Choose,
    Force,
    Keep,
    Mark,
    Phase,
    Request,
    Result,
    Rewind,
    SamplerStats,
    Think,
    Thought,
)
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What no request may exceed."""

    max_length: int  # tokens of a context
    vocab_size: int  # ids lie below it


def check_request(request: Request, limits: Limits) -> None:
    """RequestError where this request can never run."""
    prompt, max_length, vocab_size = request.prompt, limits.max_length, limits.vocab_size
    if len(prompt) == 0:
        raise RequestError("the prompt is empty")
    if len(prompt) >= max_length:
        raise RequestError(f"the prompt has {len(prompt)} tokens, max_length is {max_length}")
    if not (min(prompt) >= 0 and max(prompt) < vocab_size):
        raise RequestError(f"the prompt has ids outside the model's vocabulary of {vocab_size}")
    if not request.temperature >= 0:
        raise RequestError(f"temperature is {request.temperature}, it must be 0 or more")
    if not 0 < request.top_p <= 1:
        raise RequestError(f"top_p is {request.top_p}, it must lie in (0, 1]")
    if request.top_k < 0:
        raise RequestError(f"top_k is {request.top_k}, it must be 0 (off) or more")
    if not isinstance(request.seed, numbers.Integral) or not 0 <= request.seed < 2**64:
        raise RequestError(f"seed is {request.seed!r}, it must be a whole number from 0 to 2**64 - 1")
    if request.keep not in get_args(Keep):
        raise RequestError(f'keep is {request.keep!r}, it must be "", "prompt" or "context"')


class Job:
    """A request on a row.

    Args:
      handle: of the request. row: taken for it.
      script: TypeError if it is no generator.

    Attributes:
      phase: the one that needs the device. phase_start: length of the context when it began.
      asked: ids whose log-probabilities the device reports.
      budget: tokens the phase may still sample. limit: which limit the budget came from.
      logprobs, watched: of the phase's ids so far.
      sampled: ids sampled for the request, through each stop.
      text: of the phase, for stop texts. ends: end offset in it of every token.
      published: ids of the phase that the handle has.
      trust: in its drafts, as of :class:`.DraftControls`.
    """

    def __init__(
        self,
        handle: RequestHandle,
        row: CacheRow,
        script: Generator[Phase, Any, Any],
        tokenizer: Tokenizer,
        limits: Limits,
    ) -> None:
        is_script = inspect.isgenerator(script)
        if not is_script:
            raise TypeError("Request.script must be a generator function: it has to yield phases")
        self.handle, self.row, self.script = handle, row, script
        self.tokenizer, self.limits = tokenizer, limits
        self.phase: Think | Choose = Choose(())
        self.asked: tuple[int, ...] = ()
        self._options = OptionWalk(())
        self.phase_start = self.budget = self.sampled = self.published = 0
        self.limit = "length"
        self.logprobs: list[float] = []
        self.watched: list[np.ndarray] = []
        self.text = bytearray()
        self.ends: list[int] = []
        self.trust = 1.0

    @property
    def written(self) -> list[int]:
        """The context behind the prompt."""
        return self.row.context[len(self.handle.prompt) :]

    @property
    def keep(self) -> int:
        """Tokens of its context that a later prompt will begin with."""
        match self.handle.request.keep:
            case "prompt":
                return len(self.handle.prompt)
            case "context":
                return len(self.row.context)
        return 0

    def advance(self, outcome: Any) -> Result | None:
        """Sends ``outcome`` to the script and carries out its phases up to one that needs the device.

        Returns: the result if the script ended.
        """
        failure: RequestError | None = None
        try:
            while True:
                phase = self.script.send(outcome) if failure is None else self.script.throw(failure)
                failure = None
                try:
                    outcome = self._carry_out(phase)
                except RequestError as error:  # the script may catch it
                    failure = error
                    continue
                if outcome is _DEVICE:
                    return None
        except StopIteration as stop:
            return self._result(value=stop.value)
        except RequestError as error:
            return self._result(error=error)

    def _carry_out(self, phase: Phase) -> Any:
        context, limits = self.row.context, self.limits
        match phase:
            case Force(ids):
                _check_ids(ids, "Force.ids", limits.vocab_size)
                if len(context) + len(ids) > limits.max_length:
                    raise RequestError(
                        f"{len(ids)} forced tokens do not fit behind {len(context)}: "
                        f"max_length is {limits.max_length}"
                    )
                context.extend(ids)
                return None
            case Mark():
                return len(context)
            case Rewind(mark):
                if not 1 <= mark <= len(context):
                    raise RequestError(f"cannot rewind to {mark}: the context has {len(context)} tokens")
                self.row.cut(mark)
                return None
            case Choose(ids):
                options = [tuple(option) if isinstance(option, Sequence) else (option,) for option in ids]
                _check_options(options, limits, len(context))
                self._options = OptionWalk(options)
                self._begin(phase, self._options.ids, budget=0, limit="length")
                return _DEVICE
            case Think():
                _check_ids(phase.watch, "Think.watch", limits.vocab_size, MAX_WATCHED)
                _check_ids(phase.stop_ids, "Think.stop_ids", limits.vocab_size, MAX_STOP_IDS)
                _check_stop_texts(phase)
                room = max(limits.max_length - phase.reserve - len(context), 0)
                budget = min(phase.max_tokens, room)
                limit = "context" if room < phase.max_tokens else "length"
                self._begin(phase, phase.watch, budget, limit)
                return _DEVICE if budget > 0 else self._thought(self.limit, None)
        raise TypeError(f"a script yielded {phase!r}, which is no phase")

    def _begin(self, phase: Think | Choose, asked: tuple[int, ...], budget: int, limit: str) -> None:
        context = self.row.context
        self.phase, self.asked, self.budget, self.limit = phase, asked, budget, limit
        self.phase_start, self.published = len(context), 0
        self.logprobs, self.watched = [], []
        self.text, self.ends = bytearray(), []
        # The device needs at least one token to feed before it has logits.
        self.row.fed = min(self.row.fed, len(context) - 1)

    def absorb(self, tokens: np.ndarray, logprobs: np.ndarray, watched: np.ndarray, fed: int, paused: bool) -> Any:
        """Takes in what a chunk sampled for this request.

        Args:
          tokens: int [n]; logprobs: float32 [n]; watched: float32 [>= 1, MAX_WATCHED].
          fed: tokens that entered the cache; paused: whether the device stopped the row.
        Returns: the outcome of the phase, or ``PENDING`` while it goes on.
        """
        self.row.fed += fed
        if isinstance(self.phase, Choose):
            return self._ask_on(watched[0]) if paused else PENDING
        assert isinstance(self.phase, Think)
        self.budget -= len(tokens)
        stop = int(tokens[-1]) if paused and len(tokens) and int(tokens[-1]) in self.phase.stop_ids else None
        free = len(tokens) - (stop is not None)
        kept = len(tokens) if self.phase.keep_stop else free
        self.sampled += free
        self.row.context.extend(tokens[:kept].tolist())
        self.logprobs.extend(logprobs[:kept].tolist())
        width = len(self.phase.watch)
        self.watched.extend(watched[:kept, :width].copy())
        found = self._find_stop_text(tokens[:free])
        if found is not None:
            return self._thought("stop_text", found)
        if stop is not None:
            self.sampled += 1
            return self._thought("stop_id", stop)
        if paused:
            return self._thought(self.limit, None)
        self._publish(self._safe())
        return PENDING

    def _ask_on(self, logprobs: np.ndarray) -> Any:
        """Takes in what the device reports of options: their log-probabilities, or ``PENDING`` where the ids of
        some go on. Those are fed as a context is, and taken back."""
        row, options = self.row, self._options
        before = options.prefix
        options.take(logprobs)
        shared = common_length(before, options.prefix)
        row.cut(self.phase_start + shared)
        if not options.ids:
            return options.logprobs
        self.asked = options.ids
        row.context.extend(options.prefix[shared:])
        row.fed = min(row.fed, len(row.context) - 1)
        return PENDING

    def _safe(self) -> int:
        """How many ids of the phase no stop text can take back any more."""
        assert isinstance(self.phase, Think)
        if not self.phase.stop_texts or self.phase.keep_stop:
            return len(self.row.context) - self.phase_start
        longest = max(len(text.encode()) for text in self.phase.stop_texts)
        return self._tokens_before(max(len(self.text) - longest + 1, 0))

    def _tokens_before(self, at: int) -> int:
        """How many tokens of the phase stay where its text is cut at byte ``at``."""
        keep = bisect.bisect_right(self.ends, at)
        # Not where the next token begins inside a character.
        while keep and self.ends[keep - 1] < len(self.text) and self.text[self.ends[keep - 1]] & 0xC0 == 0x80:
            keep -= 1
        return keep

    def _publish(self, count: int) -> None:
        """The first ``count`` ids of the phase are final."""
        start = self.phase_start
        self.handle.publish(self.row.context[start + self.published : start + count])
        self.published = max(self.published, count)

    def _find_stop_text(self, tokens: np.ndarray) -> str | None:
        """The stop text that is complete first in the phase's text; cuts the context to before it (or, to keep it,
        behind the token that completes it)."""
        assert isinstance(self.phase, Think)
        stops = [text.encode() for text in self.phase.stop_texts]
        if not stops:
            return None
        # A stop text may straddle chunks: look again at as many old bytes as it could have begun in.
        start = max(len(self.text) - max(map(len, stops)) + 1, 0)
        for token in tokens.tolist():
            self.text += self.tokenizer.token_bytes(token)
            self.ends.append(len(self.text))
        hits = [(at, stop) for stop in stops if (at := self.text.find(stop, start)) >= 0]
        if not hits:
            return None
        # By the token that completes it, as if the host looked after every token: where a chunk happens to end
        # must not matter, nor what it sampled behind the stop.
        last, at, stop = min((bisect.bisect_left(self.ends, at + len(stop)), at, stop) for at, stop in hits)
        self.sampled -= len(self.ends) - (last + 1)
        if self.phase.keep_stop:
            self.row.cut(self.phase_start + last + 1)
            del self.logprobs[last + 1 :], self.watched[last + 1 :]
            return stop.decode()
        keep = self._tokens_before(at)
        begin = self.ends[keep - 1] if keep else 0
        rest = self.text[begin:at].decode(errors="ignore")
        remainder = self.tokenizer.encode_plain(rest, inner=True) if rest else []
        self.row.cut(self.phase_start + keep)
        del self.logprobs[keep:], self.watched[keep:]
        self.row.context.extend(remainder)
        self.logprobs.extend([float("nan")] * len(remainder))
        self.watched.extend([np.full(len(self.phase.watch), np.nan, np.float32)] * len(remainder))
        return stop.decode()

    def _thought(self, finish: str, stop: int | str | None) -> Thought:
        assert isinstance(self.phase, Think)
        ids = self.row.context[self.phase_start :]
        self._publish(len(ids))
        return Thought(
            ids=ids,
            text=self.tokenizer.decode(ids),
            logprobs=np.asarray(self.logprobs, np.float32),
            watched=np.asarray(self.watched, np.float32).reshape(len(ids), len(self.phase.watch)),
            finish=finish,
            stop=stop,
        )

    def _result(self, value: Any = None, error: RequestError | None = None) -> Result:
        return Result(value, error, self.written, self.sampled, self.handle.weight_version)


PENDING = object()  # the phase goes on
_DEVICE = object()  # the phase needs the device


class Siblings:
    """What chains of the same prompt have written, while they run and after; of PROMPTS prompts CHAINS chains."""

    PROMPTS, CHAINS = 64, 4

    def __init__(self) -> None:
        self._ended = collections.OrderedDict[tuple[int, ...], collections.deque[np.ndarray]]()

    def add(self, prompt: Sequence[int], ids: Sequence[int]) -> None:
        """Of a chain that has ended."""
        chains = self._ended.setdefault(tuple(prompt), collections.deque(maxlen=self.CHAINS))
        chains.append(np.asarray(ids, np.int32))
        self._ended.move_to_end(tuple(prompt))
        if len(self._ended) > self.PROMPTS:
            self._ended.popitem(last=False)

    def texts(self, jobs: Iterable[Job], rows: int, length: int) -> np.ndarray:
        """As of :class:`.DraftControls`, int32 [rows, 2 x length + 16]: the own context has some room to spare."""
        texts = np.full((rows, 2 * length + 16), -1, np.int32)
        groups: dict[tuple[int, ...], list[tuple[Job, np.ndarray]]] = {}
        for job in jobs:
            context = np.asarray(job.row.context, np.int32)
            texts[job.row.number, length : length + len(context)] = context[: length + 16]
            prompt = tuple(job.handle.prompt)
            groups.setdefault(prompt, []).append((job, context[len(prompt) :]))
        for prompt, members in groups.items():
            ended = self._ended.get(prompt, ())
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


class Worker:
    """One decode loop: contexts that are decoded together, a row each.

    Args:
      device: the functions it calls. store: its rows. stats: what is counted.
      drafts: for a number of rows and parameters, what drafts they get; asked once for each number.

    Attributes:
      jobs: what runs, by number of the row.
      doing: "prefilling" or "decoding", in the chunk that runs or the last one.
    """

    def __init__(
        self,
        device: DeviceFunctions,
        store: CacheStore,
        stats: SamplerStats,
        tokenizer: Tokenizer,
        limits: Limits,
        drafts: Callable[[int, nnx.State], DraftChoice],
    ) -> None:
        self.store, self.stats = store, stats
        self.jobs: dict[int, Job] = {}
        self.doing, self._admitted = "", list[CacheRow]()
        self._device, self._tokenizer, self._limits = device, tokenizer, limits
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
        self.store.fit_rows(len(self.jobs) + min(most, self.free))
        self.jobs = {job.row.number: job for job in self.jobs.values()}
        while most > 0 and self.free and (handle := take()) is not None:
            free = [row for row in self.store.rows if not row.busy]
            row, kept = self.store.choose(free, handle.prompt)
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

    def chunk(self, parameters: nnx.State) -> ChunkOutput:
        """Brings the prompts of newly admitted requests into the cache, and decodes one chunk for all jobs. Only
        touches rows; :meth:`absorb` then tells the jobs."""
        store = self.store
        admitted, self._admitted = self._admitted, []
        if admitted:
            self.doing = "prefilling"
            store.fill(parameters, admitted)
        self.doing = "decoding"
        longest = max(job.row.fed for job in self.jobs.values())
        store.reserve(longest + store.columns, shrink=True)
        rows = len(store.rows)
        if rows not in self._chosen:
            self._chosen[rows] = self._choose_drafts(rows, parameters)
        controls = self._controls(self._chosen[rows])
        cache, output = self._device.decode(parameters, store.take_cache(), controls)
        output = jax.device_get(output)  # an error of the device appears here
        store.cache = cache
        return output

    def absorb(self, output: ChunkOutput) -> None:
        """What the scripts make of a chunk."""
        self.stats.decode_steps += int(output.steps)
        self.stats.wide_steps += int(output.wide_steps)
        self.stats.slot_steps += int(output.steps) * len(self.store.rows)
        for number in sorted(self.jobs):
            job = self.jobs[number]
            if job.handle.done():
                continue  # cancelled
            outcome = self._absorb(job, output)
            if outcome is not PENDING:
                self._advance(job, outcome)
        self.store.save()  # before rows are taken by others

    def _advance(self, job: Job, outcome: Any) -> None:
        """Goes on with a script, and frees the row if it ends. What a script raises is its own request's; but an
        interrupt is also for the thread that it reached."""
        try:
            result = job.advance(outcome)
        except BaseException as error:
            self._leave(job, 0)
            job.handle.fail(error)
            if not isinstance(error, Exception):
                raise
            return
        if result is not None:
            self._leave(job, job.keep)
            job.handle.settle(result)

    def _leave(self, job: Job, keep: int) -> None:
        del self.jobs[job.row.number]
        if self._chosen.get(len(self.store.rows), NO_DRAFTS).tokens:
            self._siblings.add(job.handle.prompt, job.written)
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
        self.jobs, self._admitted = {}, []
        self.store.recover()
        for job in jobs:
            _close(job)
        return [job.handle for job in jobs if not job.handle.done()]

    def _absorb(self, job: Job, output: ChunkOutput) -> object:
        """Counts what a chunk did for a job, and tells it. Returns: as :meth:`Job.absorb`."""
        row, number, stats = job.row, job.row.number, self.stats
        count, fed = int(output.counts[number]), int(output.fed[number])
        given = min(fed, len(row.context) - row.fed)  # the others were sampled by this very chunk
        again = max(min(row.processed - row.fed, given), 0)
        of_prompt = max(min(row.wanted - row.fed, given), 0)
        again_of_prompt = min(again, of_prompt)
        stats.busy_slot_steps += int(output.busy[number])
        stats.drafted_tokens += int(output.drafted[number])
        stats.accepted_tokens += int(output.accepted[number])
        job.trust = float(output.trust[number])
        stats.sampled_tokens += count
        stats.fed_samples += fed - given
        stats.prefilled_tokens += of_prompt - again_of_prompt
        stats.reprefilled_tokens += again_of_prompt
        stats.forced_tokens += given - of_prompt - (again - again_of_prompt)
        stats.refed_tokens += again - again_of_prompt
        row.processed = max(row.processed, row.fed + fed)
        before = job.sampled
        outcome = job.absorb(
            output.tokens[number, :count],
            output.logprobs[number, :count],
            output.watched[number],
            fed,
            not output.active[number],
        )
        stats.discarded_tokens += count - (job.sampled - before)
        return outcome

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
            active[number] = True
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
        leave_below = np.asarray(len(self.jobs) - max(slots // 8, 1) + 1, np.int32)
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


def _close(job: Job) -> None:
    """Ends a script that nobody waits for any more, and so nobody could be told what it raises then."""
    try:
        job.script.close()
    except Exception:
        logger.exception("a script that was given up failed to end")


def _check_ids(ids: Sequence[int], what: str, vocab_size: int, most: int | None = None) -> None:
    if most is not None and len(ids) > most:
        raise RequestError(f"{what} names {len(ids)} ids, at most {most} are supported")
    if ids and not (min(ids) >= 0 and max(ids) < vocab_size):
        raise RequestError(f"{what} has ids outside the model's vocabulary of {vocab_size}")


def _check_options(options: Sequence[tuple[int, ...]], limits: Limits, context: int) -> None:
    """context: tokens before the options."""
    if len(options) > MAX_WATCHED or not all(options):
        raise RequestError(f"Choose.ids has {len(options)} options: at most {MAX_WATCHED}, and none without ids")
    _check_ids([id for option in options for id in option], "Choose.ids", limits.vocab_size)
    longest = max(map(len, options), default=1)
    if context + longest - 1 > limits.max_length:
        fits = f"does not fit behind {context}: max_length is {limits.max_length}"
        raise RequestError(f"an option of {longest} tokens {fits}")


def _check_stop_texts(phase: Think) -> None:
    for text in phase.stop_texts:
        try:
            empty = not text.encode()
        except UnicodeEncodeError:
            raise RequestError(f"the stop text {text!a} has a lone surrogate") from None
        if empty:
            raise RequestError("a stop text is empty")
