"""The generator: an instruct model that writes solutions, with the sampler of the verifier.

A solution is kept as the ids that were sampled. A further step is asked for with the prompt's ids and the
solution's, never with its text encoded anew, so what goes on is what the cache may still hold.
"""

from __future__ import annotations

import collections.abc
import functools
import re
from collections.abc import Sequence
from typing import Any

from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.sampler import Handle, Request, Result, Sampler, Think, Thought, finished
from thinkprm_jax.sampler.request import MAX_STOP_IDS, Phase
from thinkprm_jax.search.engine import Continuation, Piece, Problem
from thinkprm_jax.search.recipe import SearchRecipe
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

# Llama's templates write the day of the run into the prompt: a run that goes on tomorrow would be another run.
# This is the day that they give themselves where nobody tells them one.
_DATE = '{%- set date_string = "26 Jul 2024" -%}'
_DATED = re.compile(r"\bdate_string\b")


class Prompts:
    """The prompt of a problem: system turn, the problem as the user's turn, up to where the answer begins.

    Args:
      system: None: no system turn.
      template: jinja2 source; None: the tokenizer's own.
      most: tokens that a prompt can have at all; None: any number.
    """

    def __init__(
        self, tokenizer: Tokenizer, system: str | None, template: str | None = None, most: int | None = None
    ) -> None:
        source = tokenizer.chat_template if template is None else template
        if source is None:
            raise UserError(
                "the generator's tokenizer has no chat template: it is no instruct model, or custom_chat_template "
                "must give one"
            )
        tokenizer.chat_template = _DATE + source if _DATED.search(source) else source
        if template is not None:
            tokenizer.source = "custom_chat_template"
        self._tokenizer, self._most = tokenizer, most
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self._known: dict[str, list[int]] = {}

    def __call__(self, problem: str) -> list[int]:
        """ids [T]. RequestError where the tokenizer cannot write the problem, or no model can read it."""
        if problem not in self._known:
            if self._most is not None:
                self._tokenizer.check_fits(problem, self._most)
            turns = [*self._system, {"role": "user", "content": problem}]
            self._known[problem] = self._tokenizer.encode_chat(turns)
        return self._known[problem]

    def longest(self, problems: Sequence[Problem]) -> int:
        """Tokens of the longest prompt that can be written; 0 where there is none."""
        lengths = [0]
        for problem in problems:
            try:
                lengths.append(len(self(problem.text)))
            except RequestError:
                continue  # said when it is asked
        return max(lengths)


class Generator:
    """Writes pieces of solutions; see :class:`thinkprm_jax.search.engine.Engine`.

    Args:
      sampler: of the instruct model.
      separator: the text behind a step. stop: texts that end a solution, beside the model's own end ids.
    """

    def __init__(
        self,
        sampler: Sampler,
        prompts: Prompts,
        *,
        temperature: float,
        top_p: float = 1.0,
        top_k: int = 0,
        separator: str = "\n\n",
        stop: Sequence[str] = (),
    ) -> None:
        self.sampler, self.prompts = sampler, prompts
        self._temperature, self._top_p, self._top_k = temperature, top_p, top_k
        self._separator, self._stop = separator, tuple(stop)
        self._decode = sampler.tokenizer.decode
        # The device stops at ids by itself, at texts only where the host looks. Of the ids that hold a separator
        # it takes the few shortest and first learned, which are the frequent ones; the text finds the others.
        room = MAX_STOP_IDS - len(sampler.end_ids)
        self._step_ids = frozenset(ids_with(sampler.tokenizer, separator)[: max(room, 0)])

    @classmethod
    def of(cls, recipe: SearchRecipe, sampler: Sampler, prompts: Prompts) -> Generator:
        return cls(
            sampler,
            prompts,
            temperature=0.0 if recipe.approach == "greedy" else recipe.temperature,
            top_p=recipe.top_p,
            top_k=recipe.top_k,
            separator=recipe.step_separator,
            stop=recipe.stop,
        )

    def generate(self, continuation: Continuation) -> Handle[Piece]:
        """The piece, on its way. A prompt that cannot run gives one with ``error``."""
        loop = self.sampler.loop
        try:
            ids = [*self.prompts(continuation.problem.text), *continuation.prefix]
        except RequestError as error:
            return finished(loop, Piece(error=str(error)))
        if continuation.prefix and len(ids) >= self.sampler.max_length:  # the model has no more positions
            return finished(loop, Piece(text=self._decode(continuation.prefix)))
        handle = self.sampler.submit(self._request(continuation, ids))
        return handle.then(functools.partial(self._piece, continuation))

    def _request(self, continuation: Continuation, ids: list[int]) -> Request:
        ends, stops = self.sampler.end_ids, self._stop
        if continuation.one_step:
            ends, stops = (*ends, *self._step_ids), (self._separator, *stops)

        def script() -> collections.abc.Generator[Phase, Any, tuple[list[int], Thought]]:
            written: list[int] = []
            while True:
                thought: Thought = yield Think(
                    continuation.max_tokens - len(written), ends, stops, keep_stop=continuation.one_step
                )
                written += thought.ids
                room = len(written) < continuation.max_tokens
                # Blank lines before a step are no step.
                if room and self._is_step(thought) and not self._decode(written).strip():
                    continue
                return written, thought

        return Request(
            ids,
            script,
            temperature=0.0 if continuation.greedy else self._temperature,
            top_p=self._top_p,
            top_k=self._top_k,
            seed=continuation.seed,
            keep="context" if continuation.one_step else "",
        )

    def _piece(self, continuation: Continuation, result: Result) -> Piece:
        if result.error is not None:
            return Piece(error=str(result.error), tokens=result.tokens)
        ids, thought = result.value
        is_step = continuation.one_step and self._is_step(thought)
        if continuation.one_step and thought.finish == "stop_id" and not is_step:  # it was kept, and is no text
            ids = ids[:-1]
        text = self._decode([*continuation.prefix, *ids])
        # One that was kept, whole token and all, or that begins in the step before.
        stops = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if stops:
            return Piece(tuple(ids), text[: min(stops)], "stop", result.tokens)
        if is_step:
            return Piece(tuple(ids), text, "step", result.tokens)
        return Piece(tuple(ids), text, "stop" if thought.finish.startswith("stop") else "length", result.tokens)

    def _is_step(self, thought: Thought) -> bool:
        return thought.stop == self._separator or thought.stop in self._step_ids


def ids_with(tokenizer: Tokenizer, text: str) -> list[int]:
    """Ids whose own bytes hold ``text``; the shorter first, then the lower."""
    wanted = text.encode()
    pieces = [(id, tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)]
    found = [(len(piece), id) for id, piece in pieces if wanted in piece]
    return [id for _, id in sorted(found)]
