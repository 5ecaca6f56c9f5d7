"""A sampler without a model: it says what the test tells it to say, so that a test can look at what is forced."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from support.naive_sampler import NaiveRun, NaiveSampler
from thinkprm_jax.sampler.request import Force, Request, Think
from thinkprm_jax.tokenizer.tokenizer import Tokenizer

CONFIDENCE = 0.8  # probability of the verdict that a chain writes, against the other one


class ScriptedSampler(NaiveSampler):
    """Each Think phase writes the next of ``replies`` (control strings are control tokens) and then ends the text.

    Args:
      decide: text of the context -> probability of the first of two chosen ids.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        replies: Sequence[str],
        decide: Callable[[str], float] = lambda text: 0.75,
        max_length: int = 4096,
    ) -> None:
        self._begin(tokenizer, max_length)
        self.forced: list[str] = []
        self.asked_ids: list[list[int]] = []  # the context at every Choose
        self.contexts: list[str] = []  # and its text
        self._decide = decide
        self._replies = list(replies)
        self._planned: list[int] | None = None
        self._pairs = [
            tuple(map(tokenizer.token_id, pair)) for pair in ((" Yes", " No"), ("correct", "incorrect"))
        ]

    def make_run(self, request: Request) -> NaiveRun:
        return _ScriptedRun(self, request)

    def begin(self, phase: Any) -> None:
        self._planned = None
        if isinstance(phase, Think):
            self._planned = self.tokenizer.encode(self._replies.pop(0))
        elif isinstance(phase, Force):
            self.forced.append(self.tokenizer.decode(phase.ids))

    def logprobs(self, context: list[int]) -> np.ndarray:
        row = np.full(self.tokenizer.vocab_size, -40.0)
        if self._planned is None:
            self.asked_ids.append(list(context))
            self.contexts.append(self.tokenizer.decode(context))
            first = self._decide(self.contexts[-1])
            for yes, no in self._pairs:
                row[yes], row[no] = math.log(first), math.log1p(-first)
            return row
        planned = self._planned.pop(0) if self._planned else self.tokenizer.eos_id
        for pair in self._pairs:
            if planned in pair:
                row[list(pair)] = math.log(1 - CONFIDENCE)
        row[planned] = math.log(CONFIDENCE)
        return row


class _ScriptedRun(NaiveRun):
    def outcome(self, phase: Any) -> Any:
        self.sampler.begin(phase)
        return super().outcome(phase)
