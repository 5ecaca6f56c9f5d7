"""How far a search is: problems done, what is being done for those that are open, tokens a second."""

from __future__ import annotations

from typing import Any

from thinkprm_jax.errors import TooLongCount
from thinkprm_jax.progress import ProgressBar, spell_rate
from thinkprm_jax.search.engine import Judgement, Piece
from thinkprm_jax.search.model_engine import ModelEngine


class SearchProgress(ProgressBar):
    """Counts the tokens of both models since the start."""

    def __init__(self, total: int, done: int = 0) -> None:
        super().__init__(total, done, name="problems")
        self.tokens = 0
        self.too_long = TooLongCount()
        self._doing = {"writing": "", "judging": ""}
        self._others = ""

    def watch(self, engine: ModelEngine) -> None:
        """Follows the calls of this engine."""
        engine.on_piece, engine.on_verdict = self._piece, self._verdict
        self.follow(engine.activities, "requests")

    def everyone(self, done: int, others: str) -> None:
        """So many problems have rows, by whatever process; ``others``: what else is to be said of all of them."""
        with self._lock:
            self._others = others
            self.show(done, self._told())

    def finished(self) -> None:
        """One problem more."""
        with self._lock:
            self.show(self._done + 1, self._told())

    def speed(self, problems: int) -> dict[str, Any]:
        """Of this run alone, compilation included."""
        return {
            "searched_now": problems,
            "seconds": round(self.seconds, 3),
            "tokens_per_second": float(f"{self.tokens / max(self.seconds, 1e-9):.4g}"),
        }

    def _piece(self, done: int, total: int, piece: Piece) -> None:
        self._came("writing", done, total, piece.tokens)

    def _verdict(self, done: int, total: int, judgement: Judgement) -> None:
        self.too_long.add(judgement.failure)
        self._came("judging", done, total, judgement.tokens)

    def _came(self, what: str, done: int, total: int, tokens: int) -> None:
        with self._lock:
            self.tokens += tokens
            self._doing[what] = f"{what} {done:,}/{total:,}  " if done < total else ""
            self.show(self._done, self._told())

    def _told(self) -> str:
        doing = "".join(self._doing.values()).strip()
        return "  ".join(filter(None, [doing, spell_rate(self.tokens, self.seconds, "token"), self._others]))
