"""Several data sets as one, each with its share of what is read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np

from thinkprm_jax.data.batches import Dataset, TokenisedExample, epoch_order
from thinkprm_jax.data.sources import stable_hash
from thinkprm_jax.errors import UserError

# Examples of a block, in which each part has its share to within one example. Whatever a run has read, a part's
# share of it is exact to within one block.
BLOCK = 8192
_LENGTH = 2**40  # examples until the mixture would repeat its order: no run reads so many


class MixedDataset:
    """A stream without an end: example i is example j of part p, both pure functions of i and the seed.

    So a position in the stream is one number, from which a run goes on exactly, and no process holds more than
    another. Each part is passed again and again, in a new order every time where ``shuffle`` says so.

    Args:
      parts: of examples. weights: of each part; its share is its weight over their sum.
      seed: of the order. shuffle: of each part, whether its passes are shuffled.
    Raises:
      UserError: a share is below one example a block.
    """

    def __init__(
        self, parts: Sequence[Dataset], weights: Sequence[float], seed: int, shuffle: Sequence[bool]
    ) -> None:
        self._parts, self._seed, self._shuffle = list(parts), seed, list(shuffle)
        shares = np.asarray(weights, np.float64) / sum(weights)
        # Largest remainders: whole numbers that add up.
        counts = np.floor(shares * BLOCK).astype(np.int64)
        counts[np.argsort(counts - shares * BLOCK, kind="stable")[: BLOCK - counts.sum()]] += 1
        if (counts == 0).any():
            raise UserError(f"data.train.mixture: a weight below 1 / {BLOCK} of all is no share")
        self._counts, self._weights = counts, list(weights)
        self._block_of = lru_cache(2)(self._draw_block)
        self._order_of = lru_cache(2 * len(self._parts))(self._draw_order)
        self._unusable_in_a_row, self._size = 0, sum(map(len, self._parts))

    @cached_property
    def fingerprint(self) -> str:
        return stable_hash(["mixture", self._weights, *(part.fingerprint for part in self._parts)])

    @property
    def unusable(self) -> int:
        return sum(part.unusable for part in self._parts)

    def __len__(self) -> int:
        return _LENGTH

    def locate(self, index: int) -> tuple[int, int]:
        """(part, index in the part) of an example."""
        block, place = divmod(index, BLOCK)
        owners, ranks = self._block_of(block)
        part = int(owners[place])
        drawn = block * int(self._counts[part]) + int(ranks[place])  # of this part so far
        passed, within = divmod(drawn, len(self._parts[part]))
        return part, int(self._order_of(part, passed)[within])

    def length(self, index: int) -> int | None:
        part, within = self.locate(index)
        length = self._parts[part].length(within)
        self._unusable_in_a_row = 0 if length is not None else self._unusable_in_a_row + 1
        if self._unusable_in_a_row > 2 * max(self._size, BLOCK):
            raise UserError("the training data: no example fits into a bucket")
        return length

    def targets(self, index: int) -> int:
        part, within = self.locate(index)
        return self._parts[part].targets(within)

    def __getitem__(self, index: int) -> TokenisedExample | None:
        part, within = self.locate(index)
        return self._parts[part][within]

    def _draw_block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each place of a block: its part, and which of the part's examples in this block it is."""
        owners = np.repeat(np.arange(len(self._parts)), self._counts)
        owners = np.random.default_rng((self._seed, block)).permutation(owners)
        ranks = np.empty(BLOCK, np.int64)
        for part, count in enumerate(self._counts):
            ranks[owners == part] = np.arange(count)
        return owners, ranks

    def _draw_order(self, part: int, passed: int) -> Sequence[int]:
        return epoch_order(len(self._parts[part]), self._seed + 7919 * (part + 1), passed, self._shuffle[part])
