"""The sampler's phases, done the slow and obvious way: what the engine is tested against.

No cache, no batch, no chunks: one full forward pass of the decoder for every token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from thinkprm_jax.errors import RequestError
from thinkprm_jax.model.decoder import Decoder
from thinkprm_jax.sampler.handle import Handle, StepLoop
from thinkprm_jax.sampler.job import Limits, check_request
from thinkprm_jax.sampler.request import Choose, Force, Mark, Request, Result, Rewind, Think, Thought
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

_BUCKET = 64  # right padding is invisible under a causal mask, and keeps the number of compiled shapes small


class NaiveSampler:
    """Runs requests one after another. Temperature 0 is greedy; otherwise plain softmax sampling with numpy."""

    def __init__(self, model: Decoder, tokenizer: Tokenizer, max_length: int = 4096) -> None:
        self.model = model
        self._begin(tokenizer, max_length)
        graph, state = nnx.split(model)

        @jax.jit
        def next_logits(state: Any, tokens: jax.Array, last: jax.Array) -> jax.Array:
            """tokens int [1, T], last: a position -> float32 [V]."""
            decoder = nnx.merge(graph, state)
            return decoder.unembed(decoder.hidden(tokens)[0, last])

        self._next_logits = lambda tokens, last: next_logits(state, tokens, last)

    def _begin(self, tokenizer: Tokenizer, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = self.positions = max_length
        self.end_ids = (tokenizer.eos_id,)
        self.asked: list[Request] = []
        self._waiting: list[tuple[Request, Handle[Result]]] = []
        self.loop = StepLoop(self._step, self._has_room)

    def submit(self, request: Request) -> Handle[Result]:
        handle: Handle[Result] = Handle(self.loop)
        with self.loop.changed:
            self._waiting.append((request, handle))
            self.loop.wake()
        return handle

    def run(self, requests: Iterable[Request]) -> Iterator[tuple[int, Result]]:
        return self.loop.serve(enumerate(requests), self.submit)

    def _has_room(self) -> bool:
        return not self._waiting

    def _step(self) -> bool:
        """One request."""
        if not self._waiting:
            return False
        request, handle = self._waiting.pop(0)
        self.asked.append(request)
        run = self.make_run(request)
        try:
            handle.settle(run.result())
        except RequestError as error:
            handle.settle(Result(None, error, run.context[run.start :], run.sampled))
        return True

    def make_run(self, request: Request) -> NaiveRun:
        return NaiveRun(self, request)

    def logprobs(self, context: list[int]) -> np.ndarray:
        """Log-probabilities float64 [V] of the token after context [T]."""
        padded = np.zeros((1, -(-len(context) // _BUCKET) * _BUCKET), np.int32)
        padded[0, : len(context)] = context
        logits = np.asarray(self._next_logits(jnp.asarray(padded), len(context) - 1), np.float64)
        shifted = logits - logits.max()
        return shifted - np.log(np.exp(shifted).sum())


class NaiveRun:
    """One request: its context, prompt included, and the phases that change it."""

    def __init__(self, sampler: NaiveSampler, request: Request) -> None:
        self.sampler = sampler
        self.request = request
        self.context = list(request.prompt)
        self.start = len(self.context)
        self.sampled = 0

    def result(self) -> Result:
        check_request(self.request, Limits(self.sampler.max_length, self.sampler.tokenizer.vocab_size))
        script = self.request.script()
        outcome: Any = None
        error: RequestError | None = None
        while True:
            try:
                phase = script.send(outcome) if error is None else script.throw(error)
            except StopIteration as end:
                return Result(end.value, None, self.context[self.start :], self.sampled)
            outcome, error = None, None
            try:
                outcome = self.outcome(phase)
            except RequestError as failure:  # the script may catch it
                error = failure

    def outcome(self, phase: Any) -> Any:
        match phase:
            case Think():
                return self._think(phase)
            case Force(ids):
                size = len(self.context) + len(ids)
                if size > self.sampler.max_length:
                    raise RequestError(f"{size} tokens do not fit max_length {self.sampler.max_length}")
                self.context += ids
                return None
            case Choose(ids):
                return self._choose([option if isinstance(option, tuple) else (option,) for option in ids])
            case Mark():
                return len(self.context)
            case Rewind(mark):
                assert self.start <= mark <= len(self.context)
                del self.context[mark:]
                return None
        raise TypeError(f"no phase: {phase!r}")

    def _choose(self, options: list[tuple[int, ...]]) -> np.ndarray:
        """Each option teacher-forced from the beginning of the context."""
        if len(self.context) + max(map(len, options)) - 1 > self.sampler.max_length:
            raise RequestError("an option does not fit")
        rows: dict[tuple[int, ...], np.ndarray] = {}
        for option in options:
            for place in range(len(option)):
                if option[:place] not in rows:
                    rows[option[:place]] = self.sampler.logprobs(self.context + list(option[:place]))
        sums = [sum(rows[option[:place]][id] for place, id in enumerate(option)) for option in options]
        return np.asarray(sums, np.float32)

    def _think(self, phase: Think) -> Thought:
        decode = self.sampler.tokenizer.decode
        ids: list[int] = []
        logprobs: list[float] = []
        watched: list[np.ndarray] = []

        def thought(finish: str, stop: int | str | None) -> Thought:
            self.context += ids
            return Thought(
                ids=ids,
                text=decode(ids),
                logprobs=np.asarray(logprobs, np.float32),
                watched=np.asarray(watched, np.float32).reshape(len(ids), len(phase.watch)),
                finish=finish,
                stop=stop,
            )

        while True:
            if len(ids) >= phase.max_tokens:
                return thought("length", None)
            if len(self.context) + len(ids) >= self.sampler.max_length - phase.reserve:
                return thought("context", None)
            row = self.sampler.logprobs(self.context + ids)
            token = self._pick(row, len(self.context) + len(ids))
            self.sampled += 1
            if token in phase.stop_ids:
                return thought("stop_id", token)
            ids.append(token)
            logprobs.append(row[token])
            watched.append(row[list(phase.watch)])
            text = decode(ids)
            found = [(text.find(stop), stop) for stop in phase.stop_texts if stop in text]
            if found:
                place, stop = min(found)
                kept = self._take_back(ids, text[:place])
                rest = self.sampler.tokenizer.encode_plain(text[len(decode(ids[:kept])) : place], inner=True)
                # Re-forced tokens were not sampled: they have no log-probabilities of their own.
                ids[kept:] = rest
                logprobs[kept:] = [np.nan] * len(rest)
                watched[kept:] = [np.full(len(phase.watch), np.nan)] * len(rest)
                return thought("stop_text", stop)

    def _take_back(self, ids: list[int], text: str) -> int:
        """How many ids stay: the most whose text is a part of `text` from its beginning."""
        return max(n for n in range(len(ids) + 1) if text.startswith(self.sampler.tokenizer.decode(ids[:n])))

    def _pick(self, logprobs: np.ndarray, position: int) -> int:
        if self.request.temperature == 0:
            return int(logprobs.argmax())
        scaled = logprobs / self.request.temperature
        probabilities = np.exp(scaled - scaled.max())
        generator = np.random.default_rng([self.request.seed, position])
        return int(generator.choice(len(probabilities), p=probabilities / probabilities.sum()))
