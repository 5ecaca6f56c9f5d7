"""Options of several ids (:class:`.Choose`) as a tree of what is to be asked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


class OptionWalk:
    """Options of several ids as a tree: at each of its places the ids that may follow are asked for.

    Attributes:
      prefix: the place that is asked for next, ids behind the context; () at the beginning and at the end.
      ids: what may follow there; () once all is known.
      logprobs: float32 [options], the sums so far.
    """

    def __init__(self, options: Sequence[tuple[int, ...]]) -> None:
        followers: dict[tuple[int, ...], dict[int, None]] = {}
        for option in options:
            for place, id in enumerate(option):
                followers.setdefault(option[:place], {})[id] = None
        # In this order a place comes right behind one that has most of its ids.
        self._left = [(prefix, tuple(followers[prefix])) for prefix in sorted(followers, reverse=True)]
        self._options, self.logprobs = options, np.zeros(len(options), np.float32)
        self._next()

    def _next(self) -> None:
        self.prefix, self.ids = self._left.pop() if self._left else ((), ())

    def take(self, logprobs: np.ndarray) -> None:
        """logprobs: float32 [>= len(ids)], of the ids that were asked for."""
        found, place = dict(zip(self.ids, logprobs, strict=False)), len(self.prefix)
        for number, option in enumerate(self._options):
            if option[:place] == self.prefix and place < len(option):
                self.logprobs[number] += found[option[place]]
        self._next()
