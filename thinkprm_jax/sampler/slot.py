"""The host side of one slot: its context, its script, and what the current phase has produced."""

from __future__ import annotations

import bisect
import dataclasses
import inspect
from collections.abc import Generator
from typing import Any

import numpy as np

from thinkprm_jax.errors import RequestError
from thinkprm_jax.sampler.prefixes import common_length
from thinkprm_jax.sampler.request import (
    MAX_STOP_IDS,
    MAX_WATCHED,
    Choose,
    Force,
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
    """What no script may exceed."""

    max_length: int  # tokens of a context
    vocab_size: int  # ids lie below it


@dataclasses.dataclass(eq=False)
class Slot:
    """One row of the cache and whoever occupies it.

    Attributes:
      context: all token ids of the occupant, prompt first; kept after it leaves, for as long as its keys and
        values stand in the cache, so that a prompt with the same beginning can be copied from here.
      fed: how many of them are in the cache. The rest are fed by the next chunks.
      wanted: how many of them, the prompt's but for its last, are prefilled where nothing better is possible.
      processed: how many of them have gone through the layers at this place, in this row or elsewhere.
      to_park: of a row whose occupant has left, how many tokens of the context go on the shelf.
    """

    context: list[int] = dataclasses.field(default_factory=list)
    fed: int = 0
    wanted: int = 0
    processed: int = 0
    to_park: int = 0
    request: Request | None = None
    index: int = -1
    script: Generator[Phase, Any, Any] | None = None
    phase: Think | Choose | None = None
    phase_start: int = 0  # length of the context when the phase began
    budget: int = 0  # tokens the phase may still sample
    limit: str = "length"  # which limit the budget came from
    logprobs: list[float] = dataclasses.field(default_factory=list)
    watched: list[np.ndarray] = dataclasses.field(default_factory=list)
    sampled: int = 0
    text: bytearray = dataclasses.field(default_factory=bytearray)  # of the phase, for stop texts
    ends: list[int] = dataclasses.field(default_factory=list)  # end offset in `text` of every token

    @property
    def busy(self) -> bool:
        return self.request is not None

    def common(self, tokens: list[int]) -> int:
        """How many tokens, from the first on, the row has in common with ``tokens``."""
        return min(common_length(self.context, tokens), self.fed)

    def occupy(
        self, request: Request, prompt: list[int], index: int, script: Generator[Phase, Any, Any], kept: int
    ) -> None:
        """Takes the slot for a prompt of which the row holds the first ``kept`` tokens. The prompt's last token is
        always fed by a decode step, because its logits are needed."""
        self.request, self.index, self.script = request, index, script
        self.context, self.fed = prompt, kept
        self.wanted = len(prompt) - 1
        self.phase, self.sampled = None, 0
        self.processed = self.to_park = 0

    def finish(self) -> None:
        """Frees the slot of an occupant that is done; the row may still have to be parked."""
        assert self.request is not None
        wanted = {"": 0, "prompt": len(self.request.prompt), "context": len(self.context)}[self.request.keep]
        self.to_park = min(wanted, self.fed)
        self.release()

    def release(self) -> None:
        """Frees the slot; the row's keys and values stay valid for ``context[:fed]``."""
        script = self.script
        self.request = self.script = self.phase = None
        del self.context[self.fed :]
        if script is not None:
            script.close()

    def advance(self, outcome: Any, tokenizer: Tokenizer, limits: Limits) -> Result | None:
        """Sends ``outcome`` to the script and carries out its phases up to one that needs the device.

        Returns: the result if the script ended.
        """
        assert self.script is not None
        send: Any = self.script.send
        try:
            while True:
                phase = send(outcome)
                send = self.script.send
                try:
                    outcome = self._carry_out(phase, tokenizer, limits)
                except RequestError as error:
                    send, outcome = self.script.throw, error
                    continue
                if outcome is _DEVICE:
                    return None
        except StopIteration as stop:
            return self._result(value=stop.value)
        except RequestError as error:
            return self._result(error=error)

    def _carry_out(self, phase: Phase, tokenizer: Tokenizer, limits: Limits) -> Any:
        match phase:
            case Force(ids):
                _check_ids(ids, "Force.ids", limits.vocab_size)
                if len(self.context) + len(ids) > limits.max_length:
                    raise RequestError(
                        f"{len(ids)} forced tokens do not fit behind {len(self.context)}: "
                        f"max_length is {limits.max_length}"
                    )
                self.context.extend(ids)
                return None
            case Mark():
                return len(self.context)
            case Rewind(mark):
                if not 1 <= mark <= len(self.context):
                    raise RequestError(f"cannot rewind to {mark}: the context has {len(self.context)} tokens")
                self.cut(mark)
                return None
            case Choose(ids):
                _check_ids(ids, "Choose.ids", limits.vocab_size, MAX_WATCHED)
                self._begin(phase, budget=0, limit="length")
                return _DEVICE
            case Think():
                _check_ids(phase.watch, "Think.watch", limits.vocab_size, MAX_WATCHED)
                _check_ids(phase.stop_ids, "Think.stop_ids", limits.vocab_size, MAX_STOP_IDS)
                _check_stop_texts(phase)
                room = max(limits.max_length - phase.reserve - len(self.context), 0)
                budget = min(phase.max_tokens, room)
                self._begin(phase, budget, "context" if room < phase.max_tokens else "length")
                return _DEVICE if budget > 0 else self._thought(tokenizer, self.limit, None)
        raise TypeError(f"a script yielded {phase!r}, which is no phase")

    def _begin(self, phase: Think | Choose, budget: int, limit: str) -> None:
        self.phase, self.budget, self.limit = phase, budget, limit
        self.phase_start = len(self.context)
        self.logprobs, self.watched = [], []
        self.text, self.ends = bytearray(), []
        # The device needs at least one token to feed before it has logits.
        self.fed = min(self.fed, len(self.context) - 1)

    def cut(self, length: int) -> None:
        """Cuts the context back; what the cache holds beyond is never read."""
        del self.context[length:]
        self.fed, self.wanted = min(self.fed, length), min(self.wanted, length - 1)
        self.processed, self.to_park = min(self.processed, length), min(self.to_park, length)

    def absorb(
        self, tokens: np.ndarray, logprobs: np.ndarray, watched: np.ndarray, fed: int, paused: bool,
        tokenizer: Tokenizer,
    ) -> Any:  # fmt: skip
        """Takes in what a chunk sampled for this slot.

        Args:
          tokens: int [n]; logprobs: float32 [n]; watched: float32 [>= 1, MAX_WATCHED].
          fed: tokens that entered the cache; paused: whether the device stopped the slot.
        Returns: the outcome of the phase, or ``PENDING`` while it goes on.
        """
        self.fed += fed
        if isinstance(self.phase, Choose):
            return watched[0, : len(self.phase.ids)].copy() if paused else PENDING
        assert isinstance(self.phase, Think)
        self.budget -= len(tokens)
        stop = int(tokens[-1]) if paused and len(tokens) and int(tokens[-1]) in self.phase.stop_ids else None
        free = len(tokens) - (stop is not None)
        kept = len(tokens) if self.phase.keep_stop else free
        self.sampled += free
        self.context.extend(tokens[:kept].tolist())
        self.logprobs.extend(logprobs[:kept].tolist())
        width = len(self.phase.watch)
        self.watched.extend(watched[:kept, :width].copy())
        found = self._find_stop_text(tokens[:free], tokenizer)
        if found is not None:
            return self._thought(tokenizer, "stop_text", found)
        if stop is not None:
            self.sampled += 1
            return self._thought(tokenizer, "stop_id", stop)
        return self._thought(tokenizer, self.limit, None) if paused else PENDING

    def _find_stop_text(self, tokens: np.ndarray, tokenizer: Tokenizer) -> str | None:
        """The stop text that is complete first in the phase's text; cuts the context to before it (or, to keep it,
        behind the token that completes it)."""
        assert isinstance(self.phase, Think)
        stops = [text.encode() for text in self.phase.stop_texts]
        if not stops:
            return None
        # A stop text may straddle chunks: look again at as many old bytes as it could have begun in.
        start = max(len(self.text) - max(map(len, stops)) + 1, 0)
        for token in tokens.tolist():
            self.text += tokenizer.token_bytes(token)
            self.ends.append(len(self.text))
        hits = [(at, stop) for stop in stops if (at := self.text.find(stop, start)) >= 0]
        if not hits:
            return None
        # By the token that completes it, as if the host looked after every token: where a chunk happens to end
        # must not matter, nor what it sampled behind the stop.
        last, at, stop = min((bisect.bisect_left(self.ends, at + len(stop)), at, stop) for at, stop in hits)
        self.sampled -= len(self.ends) - (last + 1)
        if self.phase.keep_stop:
            self.cut(self.phase_start + last + 1)
            del self.logprobs[last + 1 :], self.watched[last + 1 :]
            return stop.decode()
        keep = bisect.bisect_right(self.ends, at)
        while keep and self.text[self.ends[keep - 1]] & 0xC0 == 0x80:  # the next token begins inside a character
            keep -= 1
        begin = self.ends[keep - 1] if keep else 0
        rest = self.text[begin:at].decode(errors="ignore")
        remainder = tokenizer.encode_plain(rest, inner=True) if rest else []
        self.cut(self.phase_start + keep)
        del self.logprobs[keep:], self.watched[keep:]
        self.context.extend(remainder)
        self.logprobs.extend([float("nan")] * len(remainder))
        self.watched.extend([np.full(len(self.phase.watch), np.nan, np.float32)] * len(remainder))
        return stop.decode()

    def _thought(self, tokenizer: Tokenizer, finish: str, stop: int | str | None) -> Thought:
        assert isinstance(self.phase, Think)
        ids = self.context[self.phase_start :]
        return Thought(
            ids=ids,
            text=tokenizer.decode(ids),
            logprobs=np.asarray(self.logprobs, np.float32),
            watched=np.asarray(self.watched, np.float32).reshape(len(ids), len(self.phase.watch)),
            finish=finish,
            stop=stop,
        )

    def _result(self, value: Any = None, error: RequestError | None = None) -> Result:
        assert self.request is not None
        return Result(value, error, self.context[len(self.request.prompt) :], self.sampled)


PENDING = object()  # the phase goes on
_DEVICE = object()  # the phase needs the device


def start_script(request: Request) -> Generator[Phase, Any, Any]:
    """Calls the request's script; TypeError if it is no generator function."""
    script = request.script()
    if not inspect.isgenerator(script):
        raise TypeError("Request.script must be a generator function: it has to yield phases")
    return script


def _check_ids(ids: tuple[int, ...], what: str, vocab_size: int, most: int | None = None) -> None:
    if most is not None and len(ids) > most:
        raise RequestError(f"{what} names {len(ids)} ids, at most {most} are supported")
    if ids and not (min(ids) >= 0 and max(ids) < vocab_size):
        raise RequestError(f"{what} has ids outside the model's vocabulary of {vocab_size}")


def _check_stop_texts(phase: Think) -> None:
    for text in phase.stop_texts:
        try:
            empty = not text.encode()
        except UnicodeEncodeError:
            raise RequestError(f"the stop text {text!a} has a lone surrogate") from None
        if empty:
            raise RequestError("a stop text is empty")
