"""How far a search is: problems done, what is being done for those that are open, tokens a second."""

from __future__ import annotations

import threading
from typing import Any

from thinkprm_jax.progress import ProgressBar
from thinkprm_jax.search.engine import Judgement, Piece
from thinkprm_jax.search.model_engine import ModelEngine


class SearchProgress(ProgressBar):
    """Counts the tokens of both models since the start."""

    def __init__(self, total: int, done: int = 0) -> None:
        super().__init__(total, done, name="problems")
        self.tokens = 0
        self._doing = {"writing": "", "judging": ""}
        self._lock = threading.Lock()  # pieces and verdicts may come from two threads

    def watch(self, engine: ModelEngine) -> None:
        """Follows the calls of this engine."""
        engine.on_piece, engine.on_verdict = self._piece, self._verdict

    def finished(self) -> None:
        """One problem more."""
        with self._lock:
            self.show(self._done + 1, self._text())

    def speed(self, problems: int) -> dict[str, Any]:
        """Of this run alone, compilation included."""
        return {
            "searched_now": problems,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens / max(self.seconds, 1e-9), 1),
        }

    def _piece(self, done: int, total: int, piece: Piece) -> None:
        self._came("writing", done, total, piece.tokens)

    def _verdict(self, done: int, total: int, judgement: Judgement) -> None:
        self._came("judging", done, total, judgement.tokens)

    def _came(self, what: str, done: int, total: int, tokens: int) -> None:
        with self._lock:
            self.tokens += tokens
            self._doing[what] = f"{what} {done:,}/{total:,}  " if done < total else ""
            self.show(self._done, self._text())

    def _text(self) -> str:
        return f"{''.join(self._doing.values())}{self.tokens / max(self.seconds, 1e-9):,.0f} tokens/s"
