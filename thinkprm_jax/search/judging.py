"""Generator and verifier behind the protocol that the searches know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from thinkprm_jax.search.engine import Continuation, Judgement, Piece, Problem
from thinkprm_jax.search.generator import Generator

if TYPE_CHECKING:
    from thinkprm_jax.verifier.base import Verdict, Verifier

_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"


@dataclasses.dataclass
class ModelEngine:
    """Attributes:
    generator: None where all solutions come from elsewhere; verifier: None where nothing is judged.
    long_cot: solutions are long chains of thought: the verifier sees what stands before `</think>`.
    side_by_side: solutions may be written by one thread and judged by another. Not on several devices:
      there two programs that exchange data must start in the same order everywhere, or they wait for each other.
    on_piece, on_verdict: told (done, of how many so far, what came) as a call goes on; on_piece by that thread.
    """

    generator: Generator | None
    verifier: Verifier | None
    long_cot: bool = False
    side_by_side: bool = False
    on_piece: Callable[[int, int, Piece], None] = lambda done, total, piece: None
    on_verdict: Callable[[int, int, Judgement], None] = lambda done, total, judgement: None

    def generate(self, continuations: Iterable[Continuation | None]) -> Iterator[tuple[int, Piece]]:
        assert self.generator is not None
        asked = 0

        def counted() -> Iterator[Continuation | None]:
            nonlocal asked
            for continuation in continuations:
                asked += continuation is not None
                yield continuation

        for done, (index, piece) in enumerate(self.generator.generate(counted()), start=1):
            self.on_piece(done, asked, piece)
            yield index, piece

    def verify(self, solutions: Iterable[tuple[Problem, str] | None]) -> Iterator[tuple[int, Judgement]]:
        assert self.verifier is not None
        verifier, shown = self.verifier, []

        def items() -> Iterator[tuple[str, list[str]] | None]:
            for solution in solutions:
                if solution is None:
                    yield None
                    continue
                problem, text = solution
                shown.append(verifier.split(self.shown(text)))
                yield problem.text, shown[-1]

        for done, (index, verdict) in enumerate(verifier.verify(items()), start=1):
            judgement = read_verdict(verdict, shown[index])
            self.on_verdict(done, len(shown), judgement)
            yield index, judgement

    def shown(self, text: str) -> str:
        """What the verifier sees of a solution."""
        if not self.long_cot:
            return text
        return text.split(_THINK_CLOSE)[0].strip().removeprefix(_THINK_OPEN).strip()


def read_verdict(verdict: Verdict, steps: Sequence[str]) -> Judgement:
    """The scores of the steps, the last of them replaced by the score of the whole: aggregated by "last" it is the
    verifier's own score, by "min", "prod" and "mean" the steps count too."""
    if verdict.error is not None:
        return Judgement((), verdict, tuple(steps), verdict.output_tokens, str(verdict.error))
    scores = (*verdict.step_scores[:-1], verdict.prefix_score)
    return Judgement(scores, verdict, tuple(steps), verdict.output_tokens)
