"""Datasets of training examples: chains, from the synthetic task or a file, as token ids with target weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from thinkprm_jax.data.batches import Example
from thinkprm_jax.data.chains import Chain
from thinkprm_jax.errors import RequestError, UserError
from thinkprm_jax.text.prompts import NO, YES, encode_training_text
from thinkprm_jax.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

VERDICT_WORDS = ("correct", "incorrect", YES, NO)
_NAMED = 20  # left-out examples that are named one by one


class ChainDataset:
    """Chains by index, tokenised when read.

    An example whose row would be longer than ``max_length`` inputs, or that cannot be encoded, is left out: it
    is counted and the first few are named in the log. No chain is cut.
    """

    def __init__(
        self,
        size: int,
        chain: Callable[[int], Chain],
        tokenizer: Tokenizer,
        max_length: int,
        verdict_weight: float = 1.0,
        name: str = "data",
    ) -> None:
        self._size, self._chain, self._tokenizer = size, chain, tokenizer
        self._max_length, self._name = max_length, name
        self._verdict_weight = verdict_weight
        self._verdict_ids = np.asarray(
            [tokenizer.token_id(word) for word in VERDICT_WORDS] if verdict_weight != 1.0 else [], np.int32
        )
        self._left_out = 0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example | None:
        chain = self._chain(index)
        try:
            text = encode_training_text(self._tokenizer, chain.problem, chain.steps, chain.chain, chain.correct)
        except RequestError as error:
            return self._leave_out(index, str(error))
        if len(text.ids) - 1 > self._max_length:
            reason = f"{len(text.ids)} tokens, the longest bucket holds {self._max_length + 1}"
            return self._leave_out(index, reason)
        ids = np.asarray(text.ids, np.int32)
        weights = np.ones(len(ids), np.float32)
        weights[: text.prompt_length] = 0.0
        if self._verdict_weight != 1.0:
            target = ids[text.prompt_length :]
            weights[text.prompt_length :][np.isin(target, self._verdict_ids)] = self._verdict_weight
        return Example(ids, weights)

    def _leave_out(self, index: int, reason: str) -> None:
        self._left_out += 1
        if self._left_out <= _NAMED:
            logger.warning("%s: example %d is left out: %s", self._name, index, reason)
        elif self._left_out == _NAMED + 1:
            logger.warning("%s: more examples are left out; they are counted in the metrics", self._name)


def arithmetic_chains(seed: int, split: str, start: int) -> Callable[[int], Chain]:
    """Chains of the synthetic task by index, counted from ``start``."""
    from thinkprm_jax.data.arithmetic import example

    return lambda index: example(seed, start + index, split)


def listed_chains(chains: Sequence[Chain]) -> Callable[[int], Chain]:
    if not chains:
        raise UserError("the data holds no chains")
    return lambda index: chains[index]
