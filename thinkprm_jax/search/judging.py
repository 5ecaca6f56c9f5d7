"""Generator and verifier behind the protocol that the searches know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from thinkprm_jax.search.engine import Continuation, Judgement, Piece, Problem
from thinkprm_jax.search.generator import Generator

if TYPE_CHECKING:
    from thinkprm_jax.verifier.interface import AnyVerdict, Verifier

_THINK_OPEN, _THINK_CLOSE = "<think>", "</think>"


@dataclasses.dataclass
class ModelEngine:
    """Attributes:
    generator: None where all solutions come from elsewhere; verifier: None where nothing is judged.
    long_cot: solutions are long chains of thought: the verifier sees what stands before `</think>`.
    on_piece, on_verdict: told (done, of how many, what came) as a call goes on.
    """

    generator: Generator | None
    verifier: Verifier | None
    long_cot: bool = False
    on_piece: Callable[[int, int, Piece], None] = lambda done, total, piece: None
    on_verdict: Callable[[int, int, Judgement], None] = lambda done, total, judgement: None

    def generate(self, continuations: Sequence[Continuation]) -> Iterator[tuple[int, Piece]]:
        assert self.generator is not None
        for done, (index, piece) in enumerate(self.generator.generate(continuations), start=1):
            self.on_piece(done, len(continuations), piece)
            yield index, piece

    def verify(self, solutions: Sequence[tuple[Problem, str]]) -> Iterator[tuple[int, Judgement]]:
        assert self.verifier is not None
        items = [(problem.text, self.verifier.split(self.shown(text))) for problem, text in solutions]
        for done, (index, verdict) in enumerate(self.verifier.verify(items), start=1):
            judgement = read_verdict(verdict, items[index][1])
            self.on_verdict(done, len(items), judgement)
            yield index, judgement

    def shown(self, text: str) -> str:
        """What the verifier sees of a solution."""
        if not self.long_cot:
            return text
        return text.split(_THINK_CLOSE)[0].strip().removeprefix(_THINK_OPEN).strip()


def read_verdict(verdict: AnyVerdict, steps: Sequence[str]) -> Judgement:
    """The scores of the steps, the last of them replaced by the score of the whole: aggregated by "last" it is the
    verifier's own score, by "min", "prod" and "mean" the steps count too."""
    if verdict.error is not None:
        return Judgement((), verdict, tuple(steps), verdict.output_tokens, str(verdict.error))
    scores = (*verdict.step_scores[:-1], verdict.prefix_score)
    return Judgement(scores, verdict, tuple(steps), verdict.output_tokens)
