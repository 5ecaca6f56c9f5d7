"""How far a search is: problems done, what is being done for those that are open, tokens a second."""

from __future__ import annotations

from typing import Any

from thinkprm_jax.progress import ProgressBar
from thinkprm_jax.search.engine import Judgement, Piece
from thinkprm_jax.search.judging import ModelEngine


class SearchProgress(ProgressBar):
    """Counts the tokens of both models since the start."""

    def __init__(self, total: int, done: int = 0) -> None:
        super().__init__(total, done, name="problems")
        self.tokens = 0
        self._doing = ""

    def watch(self, engine: ModelEngine) -> None:
        """Follows the calls of this engine."""
        engine.on_piece, engine.on_verdict = self._piece, self._verdict

    def finished(self) -> None:
        """One problem more."""
        self.show(self._done + 1, self._text())

    def speed(self, problems: int) -> dict[str, Any]:
        """Of this run alone, compilation included."""
        return {
            "searched_now": problems,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens / max(self.seconds, 1e-9), 1),
        }

    def _piece(self, done: int, total: int, piece: Piece) -> None:
        self.tokens += piece.tokens
        self._doing = f"writing {done:,}/{total:,}"
        self.show(self._done, self._text())

    def _verdict(self, done: int, total: int, judgement: Judgement) -> None:
        self.tokens += judgement.tokens
        self._doing = f"judging {done:,}/{total:,}"
        self.show(self._done, self._text())

    def _text(self) -> str:
        return f"{self._doing}  {self.tokens / max(self.seconds, 1e-9):,.0f} tokens/s"
