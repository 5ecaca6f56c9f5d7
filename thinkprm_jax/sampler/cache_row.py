"""A row of the cache on the host: what it holds, and what of that a prompt begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

_AT_ONCE = 64  # tokens that are compared with all rows before those that differ are left out


@dataclasses.dataclass(eq=False)
class CacheRow:
    """One row of the cache: what it holds, and what is to be in it.

    Attributes:
      number: which row.
      busy: it has an occupant.
      context: all token ids of the occupant, prompt first; kept after it leaves, for as long as its keys and
        values stand in the cache, so that a prompt with the same beginning can be copied from here.
      fed: how many of them are in the cache. The rest are fed by the next chunks.
      wanted: how many of them, the prompt's but for its last, are prefilled where nothing better is possible.
      processed: how many of them have gone through the layers at this place, in this row or elsewhere.
      to_save: of a row whose occupant has left, how many tokens of the context go to the prefix cache.
      pages: where the cache is of pages, those of the row, in order.
      gave_up: its pages were wanted by others, and what it had in them is to be fed again.
    """

    number: int = 0
    busy: bool = False
    context: list[int] = dataclasses.field(default_factory=list)
    fed: int = 0
    wanted: int = 0
    processed: int = 0
    to_save: int = 0
    pages: list[int] = dataclasses.field(default_factory=list)
    gave_up: bool = False
    _ids: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, np.int32), repr=False)
    _converted: int = 0  # of the context, its first so many

    def ids(self) -> np.ndarray:
        """The context, int32; only what is new since the last time is converted."""
        context, length = self.context, len(self.context)
        if length > len(self._ids):
            room = np.empty(2 * length, np.int32)
            room[: self._converted] = self._ids[: self._converted]
            self._ids = room
        if length > self._converted:
            self._ids[self._converted : length] = context[self._converted :]
            self._converted = length
        return self._ids[:length]

    def occupy(self, prompt: list[int], kept: int) -> None:
        """Takes the row for a prompt of which it holds the first ``kept`` tokens. The prompt's last token is
        always fed by a decode step, because its logits are needed."""
        self.busy, self.context, self.fed, self._converted = True, prompt, kept, min(kept, self._converted)
        self.wanted = len(prompt) - 1
        self.processed = self.to_save = 0
        self.gave_up = False

    def cut(self, length: int) -> None:
        """Cuts the context back; what the cache holds beyond is never read."""
        del self.context[length:]
        self._converted = min(self._converted, length)
        self.fed, self.wanted = min(self.fed, length), min(self.wanted, length - 1)
        self.processed, self.to_save = min(self.processed, length), min(self.to_save, length)

    def release(self) -> None:
        """Frees the row; its keys and values stay valid for ``context[:fed]``."""
        self.busy = False
        del self.context[self.fed :]
        self._converted = min(self._converted, self.fed)


class Beginnings:
    """What rows hold, for looking up a prompt in all of them at once: one by one, that took most of the time of an
    admission."""

    def __init__(self, rows: Sequence[CacheRow]) -> None:
        self._held = np.asarray([row.fed for row in rows], np.int64)
        self._texts = np.empty((len(rows), int(self._held.max(initial=0))), np.int32)
        for text, row in zip(self._texts, rows, strict=True):
            text[: row.fed] = row.ids()[: row.fed]

    def common(self, tokens: np.ndarray) -> np.ndarray:
        """How many tokens, from the first on, each row has in common with ``tokens`` int32 [T]; int64 [rows]."""
        common = np.minimum(self._held, len(tokens))
        left, begin = np.flatnonzero(common), 0  # rows of which nothing before ``begin`` differs
        while len(left):
            part = tokens[begin : begin + _AT_ONCE][: self._texts.shape[1] - begin]
            differs = self._texts[left, begin : begin + len(part)] != part
            ends = differs.any(axis=1)
            at = left[ends]
            common[at] = np.minimum(common[at], begin + differs[ends].argmax(axis=1))
            begin += _AT_ONCE
            left = left[~ends & (common[left] > begin)]
        return common
