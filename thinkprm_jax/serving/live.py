"""What a chain says of the steps while it is written."""

from __future__ import annotations

import bisect
import codecs
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from thinkprm_jax.protocol.reading import ChainReading, read_chain
from thinkprm_jax.serving.engine import NewTokens
from thinkprm_jax.verifier.script import first_of_two

if TYPE_CHECKING:
    from thinkprm_jax.tokenizer.tokenizer import Tokenizer


class LiveVerdict(NamedTuple):
    """Of one step, as far as the chain has been read.

    Attributes:
      step: from 0. label: 1 correct, 0 incorrect.
      score: P(correct) against P(incorrect); None where it is known at the end alone.
    """

    step: int
    label: int
    score: float | None


class ChainText:
    """The text of a chain while it is written.

    Args:
      steps: of the solution.
      scored: the watched ids are the words (correct, incorrect), where each is one token.
    """

    def __init__(self, tokenizer: Tokenizer, steps: int, scored: bool) -> None:
        self._tokenizer, self._steps, self._scored = tokenizer, steps, scored
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""
        self._ends: list[int] = []  # of each token, in characters of the text
        self._watched: list[list[float]] = []
        self._told: dict[int, LiveVerdict] = {}

    def add(self, new: NewTokens) -> tuple[str, list[LiveVerdict]]:
        """(text of these tokens, whole characters; verdicts on steps that are judged now, or otherwise than
        before)."""
        pieces, length = [], len(self._text)
        for id in new.ids:
            pieces.append(self._decoder.decode(self._tokenizer.token_bytes(id)))
            length += len(pieces[-1])
            self._ends.append(length)
        self._watched += new.watched
        piece = "".join(pieces)
        self._text += piece
        if "}" not in piece:  # no box is closed
            return piece, []
        verdicts = list(self._read(read_chain(self._text, self._steps)))
        news = [verdict for verdict in verdicts if self._told.get(verdict.step) != verdict]
        self._told |= {verdict.step: verdict for verdict in verdicts}
        return piece, news

    def _read(self, read: ChainReading) -> Iterator[LiveVerdict]:
        for step, label in enumerate(read.labels):
            position = read.positions[step]
            if label is None or not read.judged[step]:
                continue
            score = None if position is None or not self._scored else self._score(position)
            if score is not None and read.inverted[step]:  # `not correct`
                score = 1 - score
            yield LiveVerdict(step, label, score)

    def _score(self, position: int) -> float | None:
        """P(correct) where the character at ``position`` begins a token; None elsewhere."""
        token = bisect.bisect_right(self._ends, position)
        if token == len(self._ends) or (self._ends[token - 1] if token else 0) != position:
            return None
        watched = self._watched[token]
        return first_of_two(watched) if len(watched) == 2 and np.isfinite(watched).all() else None
