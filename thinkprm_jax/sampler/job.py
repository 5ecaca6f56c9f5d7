"""A job: one request on one row of the cache, its script, its phase, and what the phase has produced so far.

Everything here is host code. :class:`.Worker` says what a chunk has sampled; the job says what that means to the
script, and what the row is to do next.
"""

from __future__ import annotations

import bisect
import dataclasses
import inspect
import itertools
import numbers
from collections.abc import Generator, Sequence
from typing import Any, get_args

import numpy as np

from thinkprm_jax.errors import RequestError
from thinkprm_jax.sampler.cache_row import CacheRow
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
    Think,
    Thought,
)
from thinkprm_jax.tokenizer.tokenizer import Tokenizer


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
      numbers: of the phase's ids so far, float32 [n, 1 + W] in pieces: the log-probability, and those of the W
        watched ids.
      sampled: ids sampled for the request, through each stop.
      text: of the phase, for stop texts. ends: end offset in it of every token.
      published: ids of the phase that the handle has.
      prompt_key: the same for all requests with this prompt.
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
        self.numbers = [np.empty((0, 1), np.float32)]
        self.text = bytearray()
        self.ends: list[int] = []
        self.trust = 1.0
        self.prompt_key = np.asarray(handle.prompt, np.int32).tobytes()

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
        self.numbers = [np.empty((0, 1 + len(asked)), np.float32)]
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
        width = len(self.phase.watch)
        self.numbers.append(np.concatenate([logprobs[:kept, None], watched[:kept, :width]], axis=1))
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
        self.row.cut(self.phase_start + shared)
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
        start, before = self.phase_start, self.published
        self.handle.publish(self.row.context[start + before : start + count], self._watched(before, count))
        self.published = max(self.published, count)

    def _watched(self, begin: int, end: int) -> list[list[float]]:
        """Log-probabilities of the watched ids at some of the phase's last tokens."""
        assert isinstance(self.phase, Think)
        if begin >= end or not self.phase.watch:
            return [[]] * (end - begin)
        first = sum(map(len, self.numbers))
        late = len(self.numbers)
        while first > begin:
            late -= 1
            first -= len(self.numbers[late])
        return np.concatenate(self.numbers[late:])[begin - first : end - first, 1:].tolist()

    def _find_stop_text(self, tokens: np.ndarray) -> str | None:
        """The stop text that is complete first in the phase's text; cuts the context to before it (or, to keep it,
        behind the token that completes it)."""
        assert isinstance(self.phase, Think)
        stops = [text.encode() for text in self.phase.stop_texts]
        if not stops:
            return None
        # A stop text may straddle chunks: look again at as many old bytes as it could have begun in.
        start = max(len(self.text) - max(map(len, stops)) + 1, 0)
        pieces = self.tokenizer.pieces(tokens.tolist())
        self.ends.extend(itertools.islice(itertools.accumulate(map(len, pieces), initial=len(self.text)), 1, None))
        self.text += b"".join(pieces)
        hits = [(at, stop) for stop in stops if (at := self.text.find(stop, start)) >= 0]
        if not hits:
            return None
        # By the token that completes it, as if the host looked after every token: where a chunk happens to end
        # must not matter, nor what it sampled behind the stop.
        last, at, stop = min((bisect.bisect_left(self.ends, at + len(stop)), at, stop) for at, stop in hits)
        self.sampled -= len(self.ends) - (last + 1)
        if self.phase.keep_stop:
            self.row.cut(self.phase_start + last + 1)
            self.numbers = [np.concatenate(self.numbers)[: last + 1]]
            return stop.decode()
        keep = self._tokens_before(at)
        begin = self.ends[keep - 1] if keep else 0
        rest = self.text[begin:at].decode(errors="ignore")
        remainder = self.tokenizer.encode_plain(rest, inner=True) if rest else []
        self.row.cut(self.phase_start + keep)
        self.row.context.extend(remainder)
        width = 1 + len(self.phase.watch)
        unknown = np.full((len(remainder), width), np.nan, np.float32)
        self.numbers = [np.concatenate(self.numbers)[:keep], unknown]
        return stop.decode()

    def _thought(self, finish: str, stop: int | str | None) -> Thought:
        assert isinstance(self.phase, Think)
        ids = self.row.context[self.phase_start :]
        self._publish(len(ids))
        numbers = np.concatenate(self.numbers)
        return Thought(
            ids=ids,
            text=self.tokenizer.decode(ids),
            logprobs=np.ascontiguousarray(numbers[:, 0]),
            watched=np.ascontiguousarray(numbers[:, 1:]),
            finish=finish,
            stop=stop,
        )

    def _result(self, value: Any = None, error: RequestError | None = None) -> Result:
        return Result(value, error, self.written, self.sampled, self.handle.weight_version)


PENDING = object()  # the phase goes on
_DEVICE = object()  # the phase needs the device


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
